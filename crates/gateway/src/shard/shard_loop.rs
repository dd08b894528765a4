//! The loop of a shard: poll, read the clock, feed, expire, flush.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::sync::Arc;

use mio::event::Event as Readiness;
use mio::{Events, Interest, Poll, Token};
use systole_core::driver::Driver;
use systole_core::gather::{Gather, Turn, Wait};
use systole_core::hub::{self, Hub};
use systole_core::link::{self, Goodbye};
use systole_core::wire::CloseReason;
use systole_core::{Span, Time};
use systole_net::listener::BACKLOG;
use systole_net::socket_options;
use systole_net::transport::ReadOutcome;

use super::acceptor::{Accepted, Acceptor, NewLink};
use super::listening::ListeningSocket;
use super::sockets::{Conn, Note, Sockets};
use super::{ShardListener, ShardSetup};
use crate::epochs::Epochs;
use crate::logic::Logic;
use crate::loop_clock::LoopClock;
use crate::report_sender::ReportSender;
use crate::request::RequestQueue;
use crate::stats::{Distributions, ShardStats};
use crate::wake::WakeUps;

pub(super) const WAKER: Token = Token(usize::MAX);

/// The token of the first listener. Listeners have the tokens just below the waker's; a link's
/// token is its number.
const FIRST_LISTENER: usize = usize::MAX - 1 - u16::MAX as usize;

/// Socket events per turn: at about 5 µs each they delay a verdict by at most 1.3 ms.
const EVENTS: usize = 256;

/// Socket events after which the work of a turn is measured, for events without a read.
const EVENTS_PER_MEASURE: usize = 32;

/// Work after which deadlines are looked at within a turn: while much is to be read, a verdict must
/// not wait for the rest of it. A socket that is being read then is read on in the next turn.
const WORK_PER_LOOK: Span = Span::from_micros(500);

/// Maximum number of reads of one socket per turn, so that the others get their share.
const READS_PER_TURN: usize = 8;

/// Size of the first read of a socket in a turn, in bytes. The hub takes what was read at once, and
/// 4,096 frames of two bytes with their echoes take it 0.35 ms.
const FIRST_READ: usize = 8 * 1024;

/// Size of the further reads of a socket, if the one before took less than [`CHEAP_READ`]: large
/// messages take few system calls. If frames of two bytes follow, the read takes 1.5 ms.
const LARGE_READ: usize = 32 * 1024;

/// Work below which a read is followed by a large one: frames of 20 bytes or more.
const CHEAP_READ: Span = Span::from_micros(100);

/// Maximum number of deadline steps per turn, each bounded by the hub, before the next poll.
const EXPIRIES_PER_TURN: usize = 4;

/// Maximum number of links that a shard accepts while it ends: a full queue, which takes 0.1 s.
const LAST_ACCEPTS: usize = BACKLOG as usize;

/// The readiness for which links are registered. Priority shows urgent data.
#[cfg(target_os = "linux")]
const READINESS: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);
#[cfg(not(target_os = "linux"))]
const READINESS: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// One shard's loop and all it owns.
#[derive(Debug)]
pub(super) struct ShardLoop {
    pub(super) poll: Poll,
    wake_ups: WakeUps,
    pub(super) hub: Driver<Hub>,
    pub(super) clock: LoopClock,
    gather: Gather,
    /// Whether data was received or sent in this turn.
    pub(super) data_moved: bool,
    /// The heartbeats sent before this turn.
    heartbeats_out: u64,
    pub(super) sockets: Sockets,
    pub(super) acceptor: Acceptor,
    /// The buffer into which every socket of the shard is read.
    scratch: Box<[u8]>,
    /// Links whose sockets may hold unread bytes for which no further edge will come.
    unread: Vec<u32>,
    pub(super) logic: Logic,
    /// Answers to the hub, to be handed in once its outputs have been carried out.
    pub(super) answers: VecDeque<hub::Input<'static>>,
    pub(super) epochs: Arc<Epochs>,
    requests: RequestQueue,
    pub(super) reports: ReportSender,
    bytes_in: u64,
    accepted: u64,
    pub(super) stats: Arc<ShardStats>,
    pub(super) distributions: Distributions,
    pub(super) stopping: bool,
}

impl ShardLoop {
    pub(super) fn new(
        poll: Poll,
        wake_ups: WakeUps,
        setup: ShardSetup,
        requests: RequestQueue,
    ) -> io::Result<ShardLoop> {
        let mut settings = Vec::new();
        let mut listening = Vec::new();
        for (index, listener) in (0..).zip(setup.listeners) {
            let ShardListener { socket, is_shared, settings: its_settings } = listener;
            // Accepted sockets inherit the options of their listener.
            let applied = socket_options::prepare(&its_settings.patience, &socket);
            let missing = applied.missing().collect::<Vec<_>>().join(", ");
            if setup.index == 0 && index == 0 && !missing.is_empty() {
                tracing::warn!(missing, "this kernel lacks socket options; going on without");
            }
            let socket = mio::net::TcpListener::from_std(socket);
            let token = Token(FIRST_LISTENER + usize::from(index));
            listening.push(ListeningSocket::new(index, socket, token, is_shared));
            settings.push(its_settings);
        }
        let mut acceptor = Acceptor::new(listening, setup.max_links as usize);
        acceptor.end_turn(Time::ZERO, poll.registry())?;
        setup.stats.listening.set(acceptor.open() as u64);
        let hub = Hub::new(hub::Settings {
            shard: setup.index,
            listeners: settings,
            seed: setup.seed,
            frame_memory: setup.frame_memory,
        });
        let stats = Arc::clone(&setup.stats);
        let clock = LoopClock::new(setup.clock, stats, setup.distributions.clone());
        Ok(ShardLoop {
            poll,
            wake_ups,
            hub: Driver::new(Time::ZERO, hub),
            clock,
            gather: Gather::of_links(Time::ZERO, setup.longest_rest),
            data_moved: false,
            heartbeats_out: 0,
            sockets: Sockets::new(setup.outbox_limit, setup.outbox_memory),
            acceptor,
            scratch: vec![0; LARGE_READ].into_boxed_slice(),
            unread: Vec::new(),
            logic: setup.logic,
            answers: VecDeque::new(),
            epochs: setup.epochs,
            requests,
            reports: ReportSender::new(setup.reports, Arc::clone(&setup.stats)),
            bytes_in: 0,
            accepted: 0,
            stats: setup.stats,
            distributions: setup.distributions,
            stopping: false,
        })
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        let mut wait = Wait::default();
        while !self.stopping {
            if let Err(error) = self.wake_ups.wait(&mut self.poll, &mut events, wait)
                && error.kind() != ErrorKind::Interrupted
            {
                tracing::error!(%error, "the shard cannot wait for its sockets, and ends");
                break;
            }
            self.clock.begin_turn(wait.total());
            let reread = self.read_unread();
            let mut read = 0;
            for (index, event) in events.iter().enumerate() {
                read += self.socket_ready(event);
                if index % EVENTS_PER_MEASURE == EVENTS_PER_MEASURE - 1 {
                    self.clock.record_work();
                }
                self.expire_when_due();
            }
            // After the wake-ups: a request that comes now wakes the loop again.
            self.take_requests();
            self.accept();
            // A socket left unread was read in part: its peer was heard and is not judged now.
            let drained = events.iter().count() < EVENTS;
            self.clock.record_reads(read, self.sockets.conns.len(), drained);
            self.expire();
            self.sockets.expire_departures(self.clock.now());
            self.sockets.forget_routes();
            if self.sockets.close_marked() > 0 {
                self.acceptor.end_pause();
            }
            self.reports.flush();
            self.publish_stats();
            wait = self.next_wait(reread + read);
        }
        self.end_links();
    }

    /// Ends all links, so that the end of each session is a fact, and delivers all facts. A peer
    /// that has not been accepted yet is a link too: closing the listener would reset it.
    fn end_links(&mut self) {
        self.acceptor.stop(self.clock.now(), self.poll.registry());
        self.acceptor.end_pause();
        for _ in 0..LAST_ACCEPTS {
            // The limit on links does not hold for these, which are all closed at once.
            match self.acceptor.accept(self.clock.now(), 0, 0) {
                Accepted::Link(link) => self.open(link),
                Accepted::Paused(_) | Accepted::Nothing => break,
            }
        }
        let connections = self.sockets.conns.iter().map(|(link, _)| link as u32);
        for link in connections.collect::<Vec<_>>() {
            let goodbye = Goodbye {
                reason: CloseReason::Drained,
                stay_away: false,
                return_after: Span::ZERO,
            };
            let input = link::World::Command(link::Command::Close(goodbye));
            self.hub.handle(self.clock.now(), hub::World::Link { link, input });
            self.carry_out();
        }
        self.publish_stats();
        self.reports.flush_blocking();
    }

    /// Returns how long to wait after this turn, in which `read` sockets were read.
    fn next_wait(&mut self, read: usize) -> Wait {
        let counters = self.hub.machine().counters();
        let now = self.clock.read_now();
        let deadlines = [
            self.hub.next_deadline(),
            self.sockets.departures.next_deadline(),
            self.reports.retry_at(now),
            self.acceptor.next_deadline(),
        ];
        let sent = counters.heartbeats_out - self.heartbeats_out;
        self.heartbeats_out = counters.heartbeats_out;
        self.gather.wait(&Turn {
            began: self.clock.now(),
            now,
            read,
            sent,
            data: std::mem::take(&mut self.data_moved),
            busy: self.is_busy(now),
            demanding: counters.demanding > 0,
            deadline: deadlines.into_iter().flatten().min(),
        })
    }

    /// Whether the next turn has work already.
    fn is_busy(&self, now: Time) -> bool {
        let left_over =
            self.requests.may_hold_more() || !self.unread.is_empty() || self.sockets.has_marked();
        left_over || self.acceptor.is_pending(now)
    }

    fn take_requests(&mut self) {
        self.requests.begin_turn();
        while let Some(request) = self.requests.next() {
            self.answer(request);
        }
    }

    /// Continues to read the sockets that may hold unread bytes. Returns how many.
    fn read_unread(&mut self) -> usize {
        let unread = std::mem::take(&mut self.unread);
        for &link in &unread {
            self.sockets.set_unread(link, false);
            self.readable(link, true);
            self.expire_when_due();
        }
        unread.len()
    }

    /// Handles the readiness of a socket. Returns 1 if the socket is a link's, otherwise 0.
    #[inline]
    fn socket_ready(&mut self, event: &Readiness) -> usize {
        let token = event.token();
        if token == WAKER {
            self.wake_ups.take();
            return 0;
        }
        if token.0 >= FIRST_LISTENER {
            self.acceptor.mark_pending(token.0 - FIRST_LISTENER);
            return 0;
        }
        let link = token.0 as u32;
        if event.is_writable() {
            let before = self.sockets.bytes_out;
            self.sockets.writable(link, self.clock.now());
            self.data_moved |= self.sockets.bytes_out > before;
            if !self.sockets.feedback.is_empty() {
                self.carry_out();
            }
        }
        // A socket left unread has had its reads of this turn, and is read again in the next.
        let readable = event.is_readable()
            || event.is_read_closed()
            || event.is_error()
            || event.is_priority();
        if readable && !self.sockets.is_unread(link) {
            let until_empty = event.is_read_closed() || event.is_error() || has_urgent_data(event);
            self.readable(link, until_empty);
        }
        1
    }

    /// Reads a socket and feeds the hub. A read that does not fill the buffer has emptied a stream
    /// socket (epoll(7), question 9), so a second read is needed only if the stream may have ended,
    /// or if it holds urgent data, before which a read stops.
    #[inline]
    fn readable(&mut self, link: u32, until_empty: bool) {
        if !self.sockets.is_open(link) {
            if self.sockets.drain_until_fin(link, self.clock.now(), &mut self.scratch) {
                self.read_in_next_turn(link);
            }
            return;
        }
        let now = self.clock.now();
        let mut size = FIRST_READ;
        for _ in 0..READS_PER_TURN {
            let scratch = self.scratch.get_mut(..size).unwrap_or_default();
            let input = match self.sockets.read(link, scratch) {
                ReadOutcome::Empty => return,
                ReadOutcome::Bytes(count) => {
                    let took = self.receive(link, count);
                    if count < size && !until_empty || !self.sockets.is_open(link) {
                        return;
                    }
                    if self.is_look_due() {
                        break;
                    }
                    size = if took < CHEAP_READ { LARGE_READ } else { FIRST_READ };
                    continue;
                }
                ReadOutcome::Warned(error) => {
                    let input = link::World::Warned(error);
                    self.hub.handle(now, hub::World::Link { link, input });
                    self.carry_out();
                    continue;
                }
                ReadOutcome::Ended => {
                    let input = link::World::Ended;
                    self.hub.handle(now, hub::World::Link { link, input });
                    self.carry_out();
                    if !self.sockets.is_open(link) {
                        return;
                    }
                    // A pending error is read after the end of the stream.
                    continue;
                }
                ReadOutcome::Failed(failure) => link::World::Failed(failure.error),
            };
            self.hub.handle(now, hub::World::Link { link, input });
            return self.carry_out();
        }
        self.read_in_next_turn(link);
    }

    /// Feeds the hub `count` bytes that were read. Returns the work that this took.
    #[inline]
    fn receive(&mut self, link: u32, count: usize) -> Span {
        let before = self.clock.worked();
        self.bytes_in += count as u64;
        let bytes = self.scratch.get(..count).unwrap_or_default();
        let input = link::World::Received(bytes);
        self.hub.handle(self.clock.now(), hub::World::Link { link, input });
        self.carry_out();
        self.clock.record_work();
        self.clock.worked().less(before)
    }

    /// Schedules a read of a socket in the next turn, without an event.
    pub(super) fn read_in_next_turn(&mut self, link: u32) {
        if !self.sockets.is_unread(link) {
            self.sockets.set_unread(link, true);
            self.unread.push(link);
        }
    }

    fn accept(&mut self) {
        let now = self.clock.now();
        for _ in 0..self.acceptor.begin_turn(now) {
            let links = self.hub.machine().counters().links as usize;
            let places = links + self.reports.places_held();
            match self.acceptor.accept(now, self.sockets.conns.len(), places) {
                Accepted::Link(link) => self.open(link),
                Accepted::Paused(reason) => self.stats.pause_accepting(reason),
                Accepted::Nothing => break,
            }
        }
        if let Err(error) = self.acceptor.end_turn(now, self.poll.registry()) {
            tracing::debug!(%error, "a listening socket cannot be registered; trying again");
        }
        if self.acceptor.take_resumed() {
            self.stats.resume_accepting();
        }
    }

    /// Opens a link that was accepted.
    fn open(&mut self, link: NewLink) {
        let NewLink { listener, mut stream, address, is_shared } = link;
        let _ = stream.set_nodelay(true);
        if is_shared
            && let Some(settings) = self.hub.machine().listeners().get(usize::from(listener))
        {
            let _ = socket_options::prepare(&settings.patience, &stream);
        }
        let entry = self.sockets.conns.vacant_entry();
        let token = Token(entry.key());
        if self.poll.registry().register(&mut stream, token, READINESS).is_err() {
            return;
        }
        let link = entry.key() as u32;
        entry.insert(Conn::new(stream, Note::NEW));
        self.accepted += 1;
        self.hub.handle(self.clock.now(), hub::World::Opened { link, listener, address });
        self.carry_out();
    }

    /// Whether this turn has worked for so long that deadlines must be looked at.
    fn is_look_due(&self) -> bool {
        self.clock.worked() >= WORK_PER_LOOK
    }

    fn expire_when_due(&mut self) {
        if self.is_look_due() {
            self.expire();
        }
    }

    /// Expires deadlines. A link that is due behind the horizon, the time up to which every socket
    /// has been read, is judged by its own socket.
    fn expire(&mut self) {
        self.clock.advance();
        let (horizon, limit) = (self.clock.horizon(), self.clock.limit());
        for _ in 0..EXPIRIES_PER_TURN {
            if self.hub.next_deadline().is_none_or(|at| at > limit) {
                return;
            }
            self.hub.expire(limit, horizon);
            self.carry_out();
            self.clock.record_work();
            while let Some(link) = self.hub.poll_read() {
                self.answer_poll(link, limit);
            }
        }
    }

    /// Reads a socket whose link is to be judged, and has it judged if it was read to the end. A
    /// link that stays unread is named again at each tick, so a read here must not stop early.
    fn answer_poll(&mut self, link: u32, now: Time) {
        // A socket left unread has had its reads of this turn.
        if !self.sockets.is_unread(link) {
            self.readable(link, false);
        }
        if self.sockets.is_open(link) && !self.sockets.is_unread(link) {
            self.hub.judge(now, link);
            self.carry_out();
        }
        self.clock.record_work();
    }

    fn publish_stats(&mut self) {
        let counters = self.hub.machine().counters();
        let stats = &self.stats;
        stats.links.set(u64::from(counters.links));
        stats.connections.set(self.sockets.conns.len() as u64);
        stats.online.set(u64::from(counters.online));
        stats.suspects.set(u64::from(counters.suspects));
        stats.heartbeats_in.set(counters.heartbeats_in);
        stats.heartbeats_out.set(counters.heartbeats_out);
        stats.accepted.set(self.accepted);
        stats.listening.set(self.acceptor.open() as u64);
        stats.bytes_in.set(self.bytes_in);
        stats.bytes_out.set(self.sockets.bytes_out);
        stats.frame_bytes.set(counters.frame_bytes);
        stats.frames_dropped.set(counters.frames_dropped);
        stats.outbox_bytes.set(self.sockets.outbox_bytes());
        stats.outboxes_dropped.set(self.sockets.outboxes_dropped);
        stats.undelivered.set(self.sockets.undelivered);
        stats.facts_waiting.set(self.reports.waiting() as u64);
        stats.turns.add(1);
    }
}

/// Returns whether a socket may hold urgent data, before which a read stops. Only Linux reports it.
fn has_urgent_data(event: &Readiness) -> bool {
    event.is_priority() || !cfg!(target_os = "linux")
}

#[cfg(test)]
mod tests;
