//! The loop: wait, read the clock, check and feed what arrived, expire, answer.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use systole_core::beacon::{
    BeaconHub, Datagram, Event, Input, Output, Settings, Statement, Subject as Known, Tag,
};
use systole_core::cause::Cause;
use systole_core::gather::Gather;
use systole_core::wire::{BootId, InstanceId};
use systole_core::{Machine, Span, Time};
use systole_net::datagrams::{RECEIVE_BUFFER, grow_receive_buffer};

use super::keys::{DeviceKey, Keys, device_text};
use super::mesh::Mesh;
use super::socket::Datagrams;
use super::{BeaconSetup, BeaconShard};
use crate::loop_clock::{LONGEST_WAIT, LoopClock};
use crate::outlet::Outlet;
use crate::report::{Change, Report, Subject};
use crate::request::Request;
use crate::stats::{BeaconStats, Distributions, ShardStats, seconds};

pub(super) const WAKER: Token = Token(0);
const SOCKET: Token = Token(1);

/// Datagrams per turn, about: at 2 µs each, checked and answered, a verdict waits 1 ms for them.
const DATAGRAMS_PER_TURN: usize = 512;

/// Batches of other shards per turn, for the same reason.
const BATCHES_PER_TURN: usize = 8;

/// Steps of deadlines per turn, each bounded by the machine to about 100 µs. A million deadlines
/// may have to move down the wheel at one time, and no verdict falls before they have.
const EXPIRIES_PER_TURN: usize = 16;

/// Requests per turn; more wait for the next.
const REQUESTS_PER_TURN: usize = 16;

/// The least that a waiting datagram takes of the kernel's buffer, so that what waits is bounded.
const LEAST_KERNEL_BYTES: usize = 256;

/// One shard's loop and all it owns.
#[derive(Debug)]
pub(super) struct BeaconLoop {
    poll: Poll,
    pub(super) hub: BeaconHub,
    pub(super) clock: LoopClock,
    pub(super) listener: u16,
    gather: Gather,
    socket: Datagrams,
    /// As many datagrams as the kernel may hold for this socket.
    kernel_holds: usize,
    /// The socket was not read to the end, although no further edge will tell.
    unread: bool,
    keys: Arc<Keys>,
    mesh: Mesh,
    received: Vec<Received>,
    requests: Receiver<Request>,
    pub(super) outlet: Outlet,
    stats: Arc<ShardStats>,
    beacon_stats: Arc<BeaconStats>,
    distributions: Distributions,
    pub(super) stopping: bool,
}

/// A datagram whose tag is still to be checked.
#[derive(Debug)]
struct Received {
    datagram: Datagram,
    tag: Tag,
    from: SocketAddr,
    /// The address of ours that it was sent to.
    to: Option<IpAddr>,
}

/// Positions in [`BeaconStats::REASONS`].
const ILLEGAL: usize = 0;
const UNKNOWN_DEVICE: usize = 1;
const WRONG_TAG: usize = 2;
const REPLAYED: usize = 3;
const FULL: usize = 4;
const OVERLOADED: usize = 5;

impl BeaconLoop {
    pub(super) fn new(
        poll: Poll,
        setup: &BeaconSetup,
        number: u8,
        shard: BeaconShard,
        mesh: Mesh,
        requests: Receiver<Request>,
    ) -> io::Result<BeaconLoop> {
        let buffer = grow_receive_buffer(&shard.socket, RECEIVE_BUFFER)?;
        let mut socket = UdpSocket::from_std(shard.socket);
        poll.registry().register(&mut socket, SOCKET, Interest::READABLE)?;
        let clock = setup.clock;
        let settings = Settings {
            shard: setup.first_index.saturating_add(number),
            policy: setup.policy,
            max_beacons: setup.max_beacons,
            wall_origin_ms: clock.wall_ms().saturating_sub(clock.monotonic().as_millis()),
            seed: setup.seed ^ u64::from(number) << 56,
        };
        Ok(BeaconLoop {
            poll,
            hub: BeaconHub::new(Time::ZERO, settings),
            clock: LoopClock::new(clock, Arc::clone(&shard.stats), setup.distributions.clone()),
            listener: setup.listener,
            gather: Gather::new(Time::ZERO),
            socket: Datagrams::new(socket)?,
            kernel_holds: buffer / LEAST_KERNEL_BYTES,
            unread: true,
            keys: setup.keys.clone(),
            mesh,
            received: Vec::new(),
            requests,
            outlet: Outlet::new(shard.reports, Arc::clone(&shard.stats)),
            stats: shard.stats,
            beacon_stats: shard.beacon_stats,
            distributions: setup.distributions.clone(),
            stopping: false,
        })
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(2);
        while !self.stopping {
            let planned = self.plan();
            if let Err(error) = self.poll.poll(&mut events, Some(Duration::from(planned)))
                && error.kind() != ErrorKind::Interrupted
            {
                tracing::error!(%error, "the shard cannot wait for its socket, and ends");
                break;
            }
            self.unread |= events.iter().any(|event| event.token() == SOCKET);
            self.clock.wake(planned, &mut self.outlet);
            self.take_requests();
            let mut things = self.take_others();
            match self.receive() {
                Ok(count) => things += count,
                Err(error) => {
                    tracing::error!(%error, "the shard cannot read its socket, and ends");
                    break;
                }
            }
            things += self.expire();
            self.answer_all();
            self.publish();
            self.rest(things);
        }
        self.outlet.end();
    }

    /// How long the loop may be away.
    fn plan(&self) -> Span {
        if self.unread {
            return Span::ZERO;
        }
        let now = self.clock.anew();
        let next = self.hub.next_deadline();
        next.map_or(LONGEST_WAIT, |at| at.since(now).min(LONGEST_WAIT))
    }

    /// Lets statements gather: no device waits for an answer to its heartbeat.
    fn rest(&mut self, things: usize) {
        let now = self.clock.now();
        let rest = self.gather.rest(now, things, false);
        let is_behind = self.hub.next_deadline().is_some_and(|at| at <= now);
        if rest > Span::ZERO && !self.unread && !is_behind {
            let rest = rest.less(self.clock.anew().since(now));
            // Not for luck: the poll that follows finds what gathered meanwhile.
            #[allow(clippy::disallowed_methods)]
            std::thread::sleep(Duration::from(rest));
        }
    }

    fn take_requests(&mut self) {
        for _ in 0..REQUESTS_PER_TURN {
            match self.requests.try_recv() {
                Ok(request) => self.answer(request),
                Err(_) => break,
            }
        }
    }

    /// Feeds what other shards received for this one. Returns how much that was.
    fn take_others(&mut self) -> usize {
        let mut statements = 0;
        for _ in 0..BATCHES_PER_TURN {
            let Some(batch) = self.mesh.take() else {
                return statements;
            };
            statements += batch.len();
            for (statement, from) in batch {
                if let Some(key) = self.keys.of(statement.device) {
                    self.feed(statement, from, None, &key);
                }
            }
            self.clock.worked();
        }
        self.unread = true;
        statements
    }

    /// Reads the socket, and feeds what is authentic. Returns how many datagrams there were.
    fn receive(&mut self) -> io::Result<usize> {
        let mut datagrams = 0;
        while self.unread && datagrams < DATAGRAMS_PER_TURN {
            let (received, mut illegal) = (&mut self.received, 0);
            let count = self.socket.receive(|bytes, from, to| match Datagram::decode(bytes) {
                Ok((datagram, tag)) => received.push(Received { datagram, tag, from, to }),
                Err(_) => illegal += 1,
            })?;
            self.drop_some(ILLEGAL, illegal);
            self.unread = count > 0;
            datagrams += count;
            self.check_all();
            self.clock.worked();
        }
        let lost = self.mesh.hand_over();
        self.drop_some(OVERLOADED, lost);
        self.beacon_stats.datagrams_in.add(datagrams as u64);
        self.clock.read(datagrams, self.kernel_holds, !self.unread);
        if let Some(behind) = self.clock.queue(!self.unread, self.socket.stamp()) {
            self.mesh.watch(behind);
        }
        Ok(datagrams)
    }

    /// Feeds what is authentic of what was received, or keeps it for the shard that it belongs to.
    fn check_all(&mut self) {
        let mut received = std::mem::take(&mut self.received);
        for Received { datagram, tag, from, to } in received.drain(..) {
            let Datagram::Statement(statement) = datagram else {
                self.drop_some(ILLEGAL, 1);
                continue;
            };
            let Some(key) = self.keys.of(statement.device) else {
                self.drop_some(UNKNOWN_DEVICE, 1);
                continue;
            };
            if !key.proves(&datagram, &tag) {
                self.drop_some(WRONG_TAG, 1);
            } else if self.mesh.is_own(statement.device) {
                self.feed(statement, from, to, &key);
            } else {
                self.mesh.keep(statement, from);
            }
        }
        self.received = received;
    }

    fn drop_some(&self, reason: usize, count: usize) {
        if let Some(cell) = self.beacon_stats.dropped.get(reason)
            && count > 0
        {
            cell.add(count as u64);
        }
    }

    fn feed(
        &mut self,
        statement: Statement,
        address: SocketAddr,
        to: Option<IpAddr>,
        key: &DeviceKey,
    ) {
        let now = self.clock.now();
        self.hub.handle(now, Input::Statement { statement, address });
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Answer { answer, address } => {
                    let bytes = key.seal(&Datagram::Answer(answer));
                    self.socket.keep(&bytes, address, to);
                }
                Output::Event { subject, event } => self.tell(&subject, event),
            }
        }
    }

    /// Carries what the machine tells when nobody is to be answered.
    pub(super) fn carry(&mut self) {
        while let Some(output) = self.hub.poll_output() {
            if let Output::Event { subject, event } = output {
                self.tell(&subject, event);
            }
        }
    }

    /// Judges up to the horizon, unless another shard holds back what it received. Returns how many
    /// steps that took.
    fn expire(&mut self) -> usize {
        if !self.mesh.is_watched(LONGEST_WAIT) {
            return 0;
        }
        let horizon = self.clock.horizon();
        for step in 0..EXPIRIES_PER_TURN {
            if self.hub.next_deadline().is_none_or(|at| at > horizon) {
                return step;
            }
            self.hub.handle(horizon, Input::Deadline);
            self.carry();
            self.clock.worked();
        }
        EXPIRIES_PER_TURN
    }

    fn answer_all(&mut self) {
        let sent = self.socket.send();
        self.beacon_stats.datagrams_out.add(sent.sent);
        self.beacon_stats.unsent.add(sent.dropped);
    }

    fn tell(&mut self, known: &Known, event: Event) {
        let change = match event {
            Event::Online(policy) => Change::Join { policy, account: None },
            Event::Suspect => Change::Suspect,
            Event::Recovered => Change::Recovered,
            Event::Overdue { .. } => {
                self.stats.overdue.add(1);
                Change::Overdue
            }
            Event::Moved { from } => Change::Moved { from },
            Event::Retuned(policy) => Change::Retuned(policy),
            Event::Status { .. } => return,
            Event::Lost(verdict) => {
                if let Some(cell) = self.stats.verdicts.get(verdict.cause.index()) {
                    cell.add(1);
                }
                if verdict.cause == Cause::Unknown {
                    let late = self.clock.anew().since(verdict.due);
                    self.distributions.lateness.observe(seconds(late));
                }
                // A device is never asked: it states its life by itself.
                let asked = Span::ZERO;
                let lasted = self.clock.now().since(known.since);
                Change::Leave { verdict, asked, lasted, flight: None }
            }
        };
        let subject = Subject {
            session: known.session,
            epoch: known.epoch,
            identity: device_text(known.device).into(),
            listener: self.listener,
            address: known.address,
            boot_id: BootId::default(),
            instance_id: InstanceId::default(),
            established: true,
        };
        let at_ms = self.clock.wall_ms();
        self.outlet.tell(Report::Session { at_ms, subject, change });
    }

    fn publish(&mut self) {
        let counters = self.hub.counters();
        let stats = &self.stats;
        stats.links.set(u64::from(counters.online));
        stats.online.set(u64::from(counters.online));
        stats.suspects.set(u64::from(counters.suspects));
        stats.heartbeats_in.set(counters.heard);
        stats.heartbeats_out.set(self.beacon_stats.datagrams_out.get());
        let bytes = systole_core::beacon::DATAGRAM as u64;
        stats.bytes_in.set(self.beacon_stats.datagrams_in.get() * bytes);
        stats.bytes_out.set(self.beacon_stats.datagrams_out.get() * bytes);
        stats.turns.add(1);
        let dropped = &self.beacon_stats.dropped;
        dropped[REPLAYED].set(counters.replayed);
        dropped[FULL].set(counters.full);
        self.beacon_stats.challenged.set(counters.challenged);
    }
}
