//! The loop of a beacon shard: poll, read the clock, verify and feed statements, expire, answer.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use systole_core::beacon::{
    Answer, BeaconCommand, BeaconHub, Datagram, Event, Output, Settings, Statement,
    Subject as BeaconSubject, Tag, World,
};
use systole_core::cause::Cause;
use systole_core::driver::Driver;
use systole_core::gather::{Gather, LONGEST_WAIT, Turn, Wait};
use systole_core::wire::{BootId, InstanceId};
use systole_core::{Span, Time};
use systole_net::datagrams::{RECEIVE_BUFFER, grow_receive_buffer};

use super::keys::{DeviceKey, Keys, device_text};
use super::mesh::Mesh;
use super::socket::Datagrams;
use super::{BeaconSetup, BeaconShard};
use crate::loop_clock::LoopClock;
use crate::report::{Change, Fact, PauseReason, Subject};
use crate::report_sender::ReportSender;
use crate::request::RequestQueue;
use crate::stats::{BeaconStats, Distributions, ShardStats, seconds};
use crate::wake::WakeUps;

/// The token of the wake-ups for requests, which end a rest.
pub(super) const REQUESTED: Token = Token(0);
/// The token of the wake-ups for statements that another shard hands over, which do not.
pub(super) const HANDED_OVER: Token = Token(1);
const SOCKET: Token = Token(2);

/// Approximate maximum of datagrams per turn: at 2 µs each, verified and answered, they delay a
/// verdict by 1 ms.
const DATAGRAMS_PER_TURN: usize = 512;

/// Maximum number of batches from other shards per turn, for the same reason.
const BATCHES_PER_TURN: usize = 8;

/// Maximum number of deadline steps per turn, each bounded by the machine to about 100 µs. A
/// million deadlines may have to move down the wheel at one time, before any verdict falls.
const EXPIRIES_PER_TURN: usize = 16;

/// The minimum that a waiting datagram takes of the kernel's buffer, in bytes; bounds the number of
/// waiting datagrams.
const LEAST_KERNEL_BYTES: usize = 256;

/// One beacon shard's loop and all it owns.
#[derive(Debug)]
pub(super) struct BeaconLoop {
    poll: Poll,
    wake_ups: WakeUps,
    pub(super) hub: Driver<BeaconHub>,
    pub(super) clock: LoopClock,
    pub(super) listener: u16,
    gather: Gather,
    socket: Datagrams,
    /// Maximum number of datagrams that the kernel holds for this socket.
    kernel_capacity: usize,
    /// Whether the socket may hold unread datagrams for which no further edge will come.
    unread: bool,
    keys: Arc<Keys>,
    mesh: Mesh,
    received: Vec<Received>,
    requests: RequestQueue,
    pub(super) reports: ReportSender,
    places_held: u32,
    max_beacons: u32,
    /// The devices refused for lack of room, as far as a pause was derived from them.
    refused: u64,
    stats: Arc<ShardStats>,
    beacon_stats: Arc<BeaconStats>,
    distributions: Distributions,
    pub(super) stopping: bool,
}

/// A received datagram whose tag is not yet verified.
#[derive(Debug)]
struct Received {
    datagram: Datagram,
    tag: Tag,
    from: SocketAddr,
    /// The local address to which the datagram was sent.
    to: Option<IpAddr>,
}

/// Positions in [`BeaconStats::REASONS`].
const ILLEGAL: usize = 0;
const UNKNOWN_DEVICE: usize = 1;
const WRONG_TAG: usize = 2;
const REPLAYED: usize = 3;
const FULL: usize = 4;
const OVERLOADED: usize = 5;
const KICKED: usize = 6;

impl BeaconLoop {
    pub(super) fn new(
        (poll, wake_ups): (Poll, WakeUps),
        setup: &BeaconSetup,
        number: u8,
        shard: BeaconShard,
        mesh: Mesh,
        requests: RequestQueue,
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
            wake_ups,
            hub: Driver::new(Time::ZERO, BeaconHub::new(settings)),
            clock: LoopClock::new(clock, Arc::clone(&shard.stats), setup.distributions.clone()),
            listener: setup.listener,
            gather: Gather::of_beacons(Time::ZERO, setup.longest_rest),
            socket: Datagrams::new(socket)?,
            kernel_capacity: buffer / LEAST_KERNEL_BYTES,
            unread: true,
            keys: setup.keys.clone(),
            mesh,
            received: Vec::new(),
            requests,
            places_held: 0,
            max_beacons: setup.max_beacons,
            refused: 0,
            reports: ReportSender::new(shard.reports, Arc::clone(&shard.stats)),
            stats: shard.stats,
            beacon_stats: shard.beacon_stats,
            distributions: setup.distributions.clone(),
            stopping: false,
        })
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(3);
        let mut wait = Wait::default();
        while !self.stopping {
            if let Err(error) = self.wake_ups.wait(&mut self.poll, &mut events, wait)
                && error.kind() != ErrorKind::Interrupted
            {
                tracing::error!(%error, "the shard cannot wait for its socket, and ends");
                break;
            }
            self.unread |= events.iter().any(|event| event.token() == SOCKET);
            self.clock.begin_turn(wait.total());
            if events.iter().any(|event| event.token() == REQUESTED) {
                self.wake_ups.take();
            }
            self.take_requests();
            let mut handled = self.feed_handed_over();
            match self.receive() {
                Ok(count) => handled += count,
                Err(error) => {
                    tracing::error!(%error, "the shard cannot read its socket, and ends");
                    break;
                }
            }
            self.expire();
            self.send_answers();
            self.reports.flush();
            self.hold_places();
            self.publish_stats();
            wait = self.next_wait(handled);
        }
        self.end_devices();
    }

    /// Ends the sessions of all devices, so that each end is a fact, and delivers all facts.
    fn end_devices(&mut self) {
        self.command(BeaconCommand::Drain);
        let mut online = self.hub.machine().counters().online;
        while online > 0 {
            let horizon = self.clock.horizon();
            self.hub.expire(horizon, horizon);
            self.carry_out();
            // Facts of one step at a time wait, not of all devices.
            self.reports.flush_blocking();
            let left = self.hub.machine().counters().online;
            if left >= online {
                tracing::error!(devices = left, "a drain leaves devices online");
                break;
            }
            online = left;
        }
        self.publish_stats();
        self.reports.flush_blocking();
    }

    /// Tells the hub how many places are taken by devices whose last fact waits.
    fn hold_places(&mut self) {
        let held = u32::try_from(self.reports.places_held()).unwrap_or(u32::MAX);
        if held != self.places_held {
            self.places_held = held;
            self.hub.handle(self.clock.now(), Answer::PlacesHeld(held));
        }
    }

    /// Returns how long to wait after this turn, which handled so many datagrams. No device waits
    /// for the answer to its heartbeat.
    fn next_wait(&mut self, handled: usize) -> Wait {
        let (began, now) = (self.clock.now(), self.clock.read_now());
        let deadline = self.hub.next_deadline();
        let is_behind = deadline.is_some_and(|at| at <= began);
        let deadline = deadline.into_iter().chain(self.reports.retry_at(now)).min();
        self.gather.wait(&Turn {
            began,
            now,
            read: handled,
            sent: 0,
            data: false,
            busy: self.unread || is_behind || self.requests.may_hold_more(),
            demanding: false,
            deadline,
        })
    }

    fn take_requests(&mut self) {
        self.requests.begin_turn();
        while let Some(request) = self.requests.next() {
            self.answer(request);
        }
    }

    /// Feeds statements that other shards handed over. Returns how many.
    fn feed_handed_over(&mut self) -> usize {
        let mut statements = 0;
        for _ in 0..BATCHES_PER_TURN {
            let Some(batch) = self.mesh.next_batch() else {
                return statements;
            };
            statements += batch.len();
            for (statement, from) in batch {
                if let Some(key) = self.keys.of(statement.device) {
                    self.feed(statement, from, None, &key);
                }
            }
            self.clock.record_work();
        }
        self.unread = true;
        statements
    }

    /// Reads the socket, and feeds authentic statements. Returns the number of datagrams.
    fn receive(&mut self) -> io::Result<usize> {
        let mut datagrams = 0;
        while self.unread && datagrams < DATAGRAMS_PER_TURN {
            let (received, mut illegal) = (&mut self.received, 0);
            let count = self.socket.receive(|bytes, from, to| match Datagram::decode(bytes) {
                Ok((datagram, tag)) => received.push(Received { datagram, tag, from, to }),
                Err(_) => illegal += 1,
            })?;
            self.count_dropped(ILLEGAL, illegal);
            self.unread = count > 0;
            datagrams += count;
            self.verify_received();
            self.clock.record_work();
        }
        let lost = self.mesh.hand_over();
        self.count_dropped(OVERLOADED, lost);
        self.beacon_stats.datagrams_in.add(datagrams as u64);
        self.clock.record_reads(datagrams, self.kernel_capacity, !self.unread);
        if let Some(behind) = self.clock.record_queue(!self.unread, self.socket.arrival_stamp()) {
            self.mesh.record_read(behind);
        }
        Ok(datagrams)
    }

    /// Verifies the received datagrams; feeds authentic statements, or queues them for the shard of
    /// their device.
    fn verify_received(&mut self) {
        let mut received = std::mem::take(&mut self.received);
        for Received { datagram, tag, from, to } in received.drain(..) {
            let Datagram::Statement(statement) = datagram else {
                self.count_dropped(ILLEGAL, 1);
                continue;
            };
            let Some(key) = self.keys.of(statement.device) else {
                self.count_dropped(UNKNOWN_DEVICE, 1);
                continue;
            };
            if !key.proves(&datagram, &tag) {
                self.count_dropped(WRONG_TAG, 1);
            } else if self.mesh.owns(statement.device) {
                self.feed(statement, from, to, &key);
            } else {
                self.mesh.queue(statement, from);
            }
        }
        self.received = received;
    }

    fn count_dropped(&self, reason: usize, count: usize) {
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
        self.hub.handle(now, World::Statement { statement, address });
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Reply { reply: answer, address } => {
                    let bytes = key.seal(&Datagram::Reply(answer));
                    self.socket.queue_answer(&bytes, address, to);
                }
                Output::Event { subject, event } => self.report(&subject, event),
            }
        }
        // Before the next statement, which may be of a new device.
        self.hold_places();
    }

    /// Reports the machine's events after an input that has no answer.
    pub(super) fn carry_out(&mut self) {
        while let Some(output) = self.hub.poll_output() {
            if let Output::Event { subject, event } = output {
                self.report(&subject, event);
            }
        }
    }

    /// Expires deadlines up to the horizon, unless another shard has not handed over all that it
    /// received.
    fn expire(&mut self) {
        if !self.mesh.others_are_current(LONGEST_WAIT) {
            return;
        }
        let horizon = self.clock.horizon();
        for _ in 0..EXPIRIES_PER_TURN {
            if self.hub.next_deadline().is_none_or(|at| at > horizon) {
                return;
            }
            self.hub.expire(horizon, horizon);
            self.carry_out();
            self.clock.record_work();
        }
    }

    fn send_answers(&mut self) {
        let sent = self.socket.send_queued();
        self.beacon_stats.datagrams_out.add(sent.sent);
        self.beacon_stats.unsent.add(sent.dropped);
    }

    fn report(&mut self, beacon: &BeaconSubject, event: Event) {
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
                    let late = self.clock.read_now().since(verdict.due);
                    self.distributions.lateness.observe(seconds(late));
                }
                // A device is never probed: it sends statements by itself.
                let asked = Span::ZERO;
                let lasted = self.clock.now().since(beacon.since);
                Change::Leave { verdict, asked, lasted, flight: None }
            }
        };
        let subject = Subject {
            session: beacon.session,
            epoch: beacon.epoch,
            identity: device_text(beacon.device).into(),
            listener: self.listener,
            address: beacon.address,
            boot_id: BootId::default(),
            instance_id: InstanceId::default(),
            established: true,
        };
        let at_ms = self.clock.wall_ms();
        self.reports.send(Fact { at_ms, subject, change });
    }

    /// Records whether devices are refused. A shard that is full pauses only once it has refused a
    /// device, and until it has room again.
    fn publish_accepting(&mut self) {
        let counters = self.hub.machine().counters();
        let is_full = counters.online.saturating_add(self.places_held) >= self.max_beacons;
        let has_refused = counters.full > self.refused;
        self.refused = counters.full;
        let before = self.stats.accepting.paused();
        let paused = if !is_full {
            None
        } else if self.places_held > 0 {
            Some(PauseReason::ControlPlane)
        } else if has_refused || before == Some(PauseReason::BeaconLimit) {
            Some(PauseReason::BeaconLimit)
        } else {
            None
        };
        if paused == before {
            return;
        }
        match paused {
            Some(reason) => self.stats.pause_accepting(reason),
            None => self.stats.resume_accepting(),
        }
    }

    fn publish_stats(&mut self) {
        self.publish_accepting();
        let counters = self.hub.machine().counters();
        let stats = &self.stats;
        stats.links.set(u64::from(counters.online));
        stats.online.set(u64::from(counters.online));
        stats.suspects.set(u64::from(counters.suspects));
        stats.heartbeats_in.set(counters.heard);
        stats.heartbeats_out.set(self.beacon_stats.datagrams_out.get());
        let bytes = systole_core::beacon::DATAGRAM as u64;
        stats.bytes_in.set(self.beacon_stats.datagrams_in.get() * bytes);
        stats.bytes_out.set(self.beacon_stats.datagrams_out.get() * bytes);
        stats.facts_waiting.set(self.reports.waiting() as u64);
        stats.turns.add(1);
        let dropped = &self.beacon_stats.dropped;
        dropped[REPLAYED].set(counters.replayed);
        dropped[FULL].set(counters.full);
        dropped[KICKED].set(counters.kicked);
        self.beacon_stats.challenged.set(counters.challenged);
    }
}
