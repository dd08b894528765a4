//! The loop: poll, read the clock, feed, expire, flush.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use mio::event::Event as Readiness;
use mio::{Events, Interest, Poll, Token};
use systole_core::gather::Gather;
use systole_core::hub::{self, Hub};
use systole_core::link;
use systole_core::tap::{Tapped, Untapped};
use systole_core::{Machine, Span, Time};
use systole_net::socket_options::{self, SocketOptions};

use super::ShardSetup;
use super::acceptor::{Accepted, Acceptor};
use super::sockets::{Conn, ReadOutcome, Sockets};
use crate::epochs::Epochs;
use crate::loop_clock::{LONGEST_WAIT, LoopClock};
use crate::outlet::Outlet;
use crate::report::Report;
use crate::request::Request;
use crate::stats::{Distributions, ShardStats};

pub(super) const WAKER: Token = Token(usize::MAX);

/// Listeners have the tokens below the waker's, links have their numbers.
const FIRST_LISTENER: usize = usize::MAX - 1 - u16::MAX as usize;

/// Sockets worked off per turn: at about 5 µs each a verdict waits for them 1.3 ms at most.
const EVENTS: usize = 256;

/// Reads of one socket in a row before the others have their turn.
const READS_PER_TURN: usize = 4;

/// The buffer into which every socket of the shard is read.
const SCRATCH: usize = 64 * 1024;

/// Steps of deadlines per turn, each bounded by the hub, before the sockets are looked at again.
const EXPIRIES_PER_TURN: usize = 4;

/// Requests per turn; more wait for the next.
const REQUESTS_PER_TURN: usize = 16;

/// One shard's loop and all it owns.
#[derive(Debug)]
pub(super) struct ShardLoop {
    poll: Poll,
    pub(super) hub: Tapped<Hub, Untapped>,
    pub(super) clock: LoopClock,
    gather: Gather,
    /// Whether data passed in this turn, one way or the other.
    pub(super) data: bool,
    pub(super) sockets: Sockets,
    /// What accepted sockets inherit from their listener.
    pub(super) socket_options: Vec<SocketOptions>,
    pub(super) acceptor: Acceptor,
    scratch: Box<[u8]>,
    /// Sockets that were not read to the end, although no further edge will tell.
    unread: Vec<u32>,
    pub(super) echo: bool,
    epochs: Arc<Epochs>,
    requests: Receiver<Request>,
    /// More requests may wait, although no further wake will tell.
    asked: bool,
    pub(super) outlet: Outlet,
    bytes_in: u64,
    accepted: u64,
    pub(super) stats: Arc<ShardStats>,
    pub(super) distributions: Distributions,
    pub(super) stopping: bool,
}

impl ShardLoop {
    pub(super) fn new(
        poll: Poll,
        setup: ShardSetup,
        requests: Receiver<Request>,
    ) -> io::Result<ShardLoop> {
        let (sockets, settings): (Vec<_>, Vec<_>) = setup.listeners.into_iter().unzip();
        let socket_options: Vec<_> =
            settings.iter().map(|settings| SocketOptions::new(&settings.policy, None)).collect();
        let mut acceptor = Vec::new();
        for (index, socket) in sockets.into_iter().enumerate() {
            if let Some(options) = socket_options.get(index) {
                let applied = socket_options::apply(options, &socket);
                let missing = applied.missing().collect::<Vec<_>>().join(", ");
                if setup.index == 0 && index == 0 && !missing.is_empty() {
                    tracing::warn!(missing, "this kernel lacks socket options; going on without");
                }
            }
            let mut socket = mio::net::TcpListener::from_std(socket);
            let token = Token(FIRST_LISTENER + index);
            poll.registry().register(&mut socket, token, Interest::READABLE)?;
            acceptor.push(socket);
        }
        let hub = Hub::new(Time::ZERO, setup.index, settings, setup.seed);
        let stats = Arc::clone(&setup.stats);
        let clock = LoopClock::new(setup.clock, stats, setup.distributions.clone());
        Ok(ShardLoop {
            poll,
            hub: Tapped::new(hub, Untapped),
            clock,
            gather: Gather::new(Time::ZERO),
            data: false,
            socket_options,
            sockets: Sockets::new(setup.outbox_limit),
            acceptor: Acceptor::new(acceptor, setup.max_links as usize),
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            unread: Vec::new(),
            echo: setup.echo,
            epochs: setup.epochs,
            requests,
            asked: false,
            outlet: Outlet::new(setup.reports, Arc::clone(&setup.stats)),
            bytes_in: 0,
            accepted: 0,
            stats: setup.stats,
            distributions: setup.distributions,
            stopping: false,
        })
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        while !self.stopping {
            let planned = self.plan();
            if let Err(error) = self.poll.poll(&mut events, Some(Duration::from(planned)))
                && error.kind() != ErrorKind::Interrupted
            {
                tracing::error!(%error, "the shard cannot wait for its sockets, and ends");
                break;
            }
            self.clock.wake(planned, &mut self.outlet);
            self.take_requests();
            let reread = self.reread();
            let mut read = 0;
            for event in &events {
                read += self.socket_ready(event);
            }
            self.accept();
            // What is left unread was heard in this turn all the same, and is not judged in it.
            let drained = events.iter().count() < EVENTS;
            self.clock.read(read, self.sockets.conns.len(), drained);
            let expired = self.expire();
            if self.sockets.reap(self.clock.now()) > 0 {
                self.acceptor.relieve();
            }
            self.publish();
            self.rest(reread + read + expired);
        }
        self.outlet.end();
    }

    /// How long the loop may be away.
    fn plan(&self) -> Span {
        let now = self.clock.anew();
        if self.is_busy(now) {
            return Span::ZERO;
        }
        let deadlines = [self.hub.machine().next_deadline(), self.sockets.next_leave()];
        let next = deadlines.into_iter().flatten().min();
        next.map_or(LONGEST_WAIT, |at| at.since(now).min(LONGEST_WAIT))
    }

    /// Lets heartbeats gather, unless something is to be done at once.
    fn rest(&mut self, things: usize) {
        let now = self.clock.now();
        let rest = self.gather.rest(now, things, std::mem::take(&mut self.data));
        if rest > Span::ZERO && !self.is_busy(now) {
            let rest = rest.less(self.clock.anew().since(now));
            // Not for luck: the poll that follows finds what gathered meanwhile.
            #[allow(clippy::disallowed_methods)]
            std::thread::sleep(Duration::from(rest));
        }
    }

    /// Whether the next turn has something to do already.
    fn is_busy(&self, now: Time) -> bool {
        let left_over = self.asked || !self.unread.is_empty() || self.sockets.has_marked();
        left_over || self.acceptor.is_pending(now)
    }

    fn take_requests(&mut self) {
        self.asked = false;
        for _ in 0..REQUESTS_PER_TURN {
            match self.requests.try_recv() {
                Ok(request) => self.answer(request),
                Err(_) => return,
            }
        }
        self.asked = true;
    }

    /// Goes on with the sockets that were not read to the end. Returns how many.
    fn reread(&mut self) -> usize {
        let unread = std::mem::take(&mut self.unread);
        for &link in &unread {
            self.sockets.set_unread(link, false);
            self.readable(link, true);
        }
        unread.len()
    }

    /// Returns 1 if it was a link's socket.
    #[inline]
    fn socket_ready(&mut self, event: &Readiness) -> usize {
        let token = event.token();
        if token == WAKER {
            return 0;
        }
        if token.0 >= FIRST_LISTENER {
            self.acceptor.ready(token.0 - FIRST_LISTENER);
            return 0;
        }
        let link = token.0 as u32;
        if event.is_writable() {
            self.sockets.writable(link);
            if !self.sockets.feedback.is_empty() {
                self.carry();
            }
        }
        // One that is left unread has had its reads of this turn, and will have those of the next.
        let readable = event.is_readable() || event.is_read_closed() || event.is_error();
        if readable && !self.sockets.is_unread(link) {
            let to_the_end = event.is_read_closed() || event.is_error();
            self.readable(link, to_the_end);
        }
        1
    }

    /// Reads a socket. A read that does not fill the buffer has emptied a stream socket (epoll(7),
    /// question 9), so that a second read is only owed where the end of the stream is near.
    #[inline]
    fn readable(&mut self, link: u32, to_the_end: bool) {
        if !self.sockets.is_open(link) {
            return self.sockets.drain_until_fin(link, &mut self.scratch);
        }
        let now = self.clock.now();
        for _ in 0..READS_PER_TURN {
            let input = match self.sockets.read(link, &mut self.scratch) {
                ReadOutcome::Empty => return,
                ReadOutcome::Bytes(count) => {
                    self.bytes_in += count as u64;
                    let bytes = self.scratch.get(..count).unwrap_or_default();
                    let input = link::Input::Received(bytes);
                    self.hub.handle(now, hub::Input::Link { link, input });
                    self.carry();
                    self.clock.worked();
                    if count < SCRATCH && !to_the_end || !self.sockets.is_open(link) {
                        return;
                    }
                    continue;
                }
                ReadOutcome::Warned(error) => {
                    let input = link::Input::Warned(error);
                    self.hub.handle(now, hub::Input::Link { link, input });
                    self.carry();
                    continue;
                }
                ReadOutcome::Ended => {
                    let input = link::Input::Ended;
                    self.hub.handle(now, hub::Input::Link { link, input });
                    self.carry();
                    if !self.sockets.is_open(link) {
                        return;
                    }
                    // What failed while the end was unread is told after it.
                    continue;
                }
                ReadOutcome::Failed(error) => link::Input::Failed(error),
            };
            self.hub.handle(now, hub::Input::Link { link, input });
            return self.carry();
        }
        self.read_on(link);
    }

    /// Comes back to a socket in the next turn, without an event.
    pub(super) fn read_on(&mut self, link: u32) {
        if !self.sockets.is_unread(link) {
            self.sockets.set_unread(link, true);
            self.unread.push(link);
        }
    }

    fn accept(&mut self) {
        let now = self.clock.now();
        for _ in 0..self.acceptor.batch() {
            match self.acceptor.accept(now, self.sockets.conns.len()) {
                Accepted::Link { listener, mut stream, address } => {
                    let _ = stream.set_nodelay(true);
                    let entry = self.sockets.conns.vacant_entry();
                    let (token, interest) =
                        (Token(entry.key()), Interest::READABLE | Interest::WRITABLE);
                    if self.poll.registry().register(&mut stream, token, interest).is_err() {
                        continue;
                    }
                    let link = entry.key() as u32;
                    entry.insert(Conn::new(stream));
                    self.accepted += 1;
                    let epoch = self.epochs.next();
                    self.hub.handle(now, hub::Input::Opened { link, listener, address, epoch });
                    self.carry();
                }
                Accepted::Paused(reason) => {
                    self.stats.accept_pauses.add(1);
                    self.outlet.tell(Report::AcceptingPaused(reason));
                }
                Accepted::Resumed | Accepted::Nothing => break,
            }
        }
        if let Accepted::Resumed = self.acceptor.resumed() {
            self.outlet.tell(Report::AcceptingResumed);
        }
    }

    /// Judges up to the horizon: the time up to which every socket has been read. Returns how many
    /// steps that took.
    fn expire(&mut self) -> usize {
        let horizon = self.clock.horizon();
        for step in 0..EXPIRIES_PER_TURN {
            if self.hub.machine().next_deadline().is_none_or(|at| at > horizon) {
                return step;
            }
            self.hub.handle(horizon, hub::Input::Deadline);
            self.carry();
            self.clock.worked();
        }
        EXPIRIES_PER_TURN
    }

    fn publish(&mut self) {
        let counters = self.hub.machine().counters();
        let stats = &self.stats;
        stats.links.set(u64::from(counters.links));
        stats.connections.set(self.sockets.conns.len() as u64);
        stats.online.set(u64::from(counters.online));
        stats.suspects.set(u64::from(counters.suspects));
        stats.heartbeats_in.set(counters.heartbeats_in);
        stats.heartbeats_out.set(counters.heartbeats_out);
        stats.accepted.set(self.accepted);
        stats.bytes_in.set(self.bytes_in);
        stats.bytes_out.set(self.sockets.bytes_out);
        stats.turns.add(1);
    }
}
