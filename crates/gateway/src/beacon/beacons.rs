//! The statements of devices: datagrams are read, verified, fed and answered.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};
use systole_core::beacon::{
    Answer, BeaconCommand, BeaconHub, Datagram, Output, Settings, Statement,
    Subject as BeaconSubject, Tag, World,
};
use systole_core::cause::Cause;
use systole_core::gather::{Gather, LONGEST_WAIT};
use systole_core::hub::HubCommand;
use systole_core::wire::BootId;
use systole_core::{Time, session};
use systole_net::datagrams::{RECEIVE_BUFFER, grow_receive_buffer};

use super::keys::{DeviceKey, Keys, device_text};
use super::known::{Device, subject_of};
use super::mesh::Mesh;
use super::socket::Datagrams;
use super::{BeaconSetup, BeaconShard};
use crate::bans::Bans;
use crate::report::{Fact, PauseReason};
use crate::request::{Arrivals, Delivered, Order, Parcel, RequestQueue, Target};
use crate::shard::answer::{Known, Selected};
use crate::shard::shard_loop::{LeftOver, LoopSetup, ShardLoop, Traffic};
use crate::stats::{BeaconStats, seconds};
use crate::wake::WakeUps;

/// The token of the wake-ups for statements that another shard hands over, which end no rest.
pub(super) const HANDED_OVER: Token = Token(0);
const SOCKET: Token = Token(1);

/// Mask of the bits of a session's number that are the session's place in the table.
const PLACE_MASK: u64 = (1 << 24) - 1;

/// Approximate maximum of datagrams per turn: at 2 µs each, verified and answered, they delay a
/// verdict by 1 ms.
const DATAGRAMS_PER_TURN: usize = 512;

/// Maximum number of batches from other shards per turn, for the same reason.
const BATCHES_PER_TURN: usize = 8;

/// The minimum that a waiting datagram takes of the kernel's buffer, in bytes; bounds the number of
/// waiting datagrams.
const LEAST_KERNEL_BYTES: usize = 256;

/// The devices of a shard: their socket, their keys, and the other shards of their listener.
#[derive(Debug)]
pub(super) struct Beacons {
    listener: u16,
    socket: Datagrams,
    /// Maximum number of datagrams that the kernel holds for this socket.
    kernel_capacity: usize,
    /// Whether the socket may hold unread datagrams for which no further edge will come.
    unread: bool,
    keys: Arc<Keys>,
    bans: Arc<Bans>,
    mesh: Mesh,
    received: Vec<Received>,
    places_held: u32,
    max_beacons: u32,
    /// The devices refused for lack of room, as far as a pause was derived from them.
    refused: u64,
    beacon_stats: Arc<BeaconStats>,
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
const BANNED: usize = 7;

impl Beacons {
    /// Makes the loop of one shard.
    ///
    /// # Errors
    /// The operating system refused the registration of a socket.
    pub(super) fn shard(
        (poll, wake_ups): (Poll, WakeUps),
        setup: &BeaconSetup,
        number: u8,
        shard: BeaconShard,
        mesh: Mesh,
        requests: RequestQueue,
    ) -> io::Result<ShardLoop<Beacons>> {
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
        let beacons = Beacons {
            listener: setup.listener,
            socket: Datagrams::new(socket)?,
            kernel_capacity: buffer / LEAST_KERNEL_BYTES,
            unread: true,
            keys: setup.keys.clone(),
            bans: setup.bans.clone(),
            mesh,
            received: Vec::new(),
            places_held: 0,
            max_beacons: setup.max_beacons,
            refused: 0,
            beacon_stats: shard.beacon_stats,
        };
        let common = LoopSetup {
            poll,
            wake_ups,
            requests,
            reports: shard.reports,
            clock,
            stats: shard.stats,
            distributions: setup.distributions.clone(),
        };
        let gather = Gather::of_beacons(Time::ZERO, setup.longest_rest);
        Ok(ShardLoop::new(common, BeaconHub::new(settings), gather, beacons))
    }
}

impl Traffic for Beacons {
    type Hub = BeaconHub;

    /// Wake-ups of two kinds, and the socket.
    const EVENTS: usize = 3;

    /// A million deadlines may have to move down the wheel at one time, before any verdict falls.
    const EXPIRIES_PER_TURN: usize = 16;

    fn receive(shard: &mut ShardLoop<Beacons>, events: &Events) -> io::Result<usize> {
        shard.traffic.unread |= events.iter().any(|event| event.token() == SOCKET);
        let handed_over = shard.feed_handed_over();
        Ok(handed_over + shard.read_socket()?)
    }

    fn carry_out(shard: &mut ShardLoop<Beacons>) {
        shard.carry_out();
    }

    /// Not while another shard has not handed over all that it received.
    fn limits(shard: &mut ShardLoop<Beacons>) -> Option<(Time, Time)> {
        let horizon = shard.clock.horizon();
        shard.traffic.mesh.others_are_current(LONGEST_WAIT).then_some((horizon, horizon))
    }

    /// All devices share one socket, so none is judged behind the horizon.
    fn poll_and_judge(_: &mut ShardLoop<Beacons>, _: u32, _: Time) {}

    fn end_turn(shard: &mut ShardLoop<Beacons>) {
        shard.send_answers();
        shard.hold_places();
    }

    /// No device waits for the answer to its heartbeat, so none counts as sent.
    fn left_over(shard: &mut ShardLoop<Beacons>, _: Time) -> LeftOver {
        let began = shard.clock.now();
        let is_behind = shard.hub.next_deadline().is_some_and(|at| at <= began);
        LeftOver { busy: shard.traffic.unread || is_behind, ..LeftOver::default() }
    }

    fn publish_stats(shard: &mut ShardLoop<Beacons>) {
        shard.publish_accepting();
        let counters = shard.hub.machine().counters();
        let stats = &shard.stats;
        stats.links.set(u64::from(counters.online));
        stats.online.set(u64::from(counters.online));
        stats.suspects.set(u64::from(counters.suspects));
        stats.heartbeats_in.set(counters.heard);
        stats.heartbeats_out.set(shard.traffic.beacon_stats.datagrams_out.get());
        let bytes = systole_core::beacon::DATAGRAM as u64;
        stats.bytes_in.set(shard.traffic.beacon_stats.datagrams_in.get() * bytes);
        stats.bytes_out.set(shard.traffic.beacon_stats.datagrams_out.get() * bytes);
        let dropped = &shard.traffic.beacon_stats.dropped;
        dropped[REPLAYED].set(counters.replayed);
        dropped[FULL].set(counters.full);
        dropped[KICKED].set(counters.kicked);
        dropped[BANNED].set(counters.banned);
        shard.traffic.beacon_stats.challenged.set(counters.challenged);
    }

    fn end_sessions(shard: &mut ShardLoop<Beacons>) {
        shard.command(BeaconCommand::Drain);
        // A step may visit only places that are empty.
        while shard.hub.sweep(shard.clock.horizon()) {
            shard.carry_out();
            // Facts of one step at a time wait, not of all devices.
            shard.reports.flush_blocking();
        }
    }

    fn has_listener(shard: &ShardLoop<Beacons>, listener: u16) -> bool {
        listener == shard.traffic.listener
    }

    fn find(shard: &ShardLoop<Beacons>, session: u64, visit: &mut dyn FnMut(&dyn Known)) {
        if let Some(device) = shard.find_device(session) {
            visit(&device);
        }
    }

    fn search(
        shard: &ShardLoop<Beacons>,
        from: u32,
        limit: usize,
        visit: &mut dyn FnMut(&dyn Known) -> bool,
    ) -> Option<u32> {
        let listener = shard.traffic.listener;
        let mut presences = shard.hub.machine().presences(from, limit);
        while presences.next().is_some_and(|presence| visit(&Device { listener, presence })) {}
        presences.cursor()
    }

    /// A device gets only answers to its statements.
    fn deliver(shard: &mut ShardLoop<Beacons>, to: Target, _: &[u8]) -> Delivered {
        let is_here = match to {
            Target::Session(session) => shard.find_device(session).is_some(),
            Target::Identity(identity) => shard.device_called(&identity).is_some(),
            Target::All { .. } => false,
        };
        Delivered { unfit: u64::from(is_here), ..Delivered::default() }
    }

    fn of_identity(shard: &ShardLoop<Beacons>, identity: &str, visit: &mut dyn FnMut(&dyn Known)) {
        if let Some(device) = shard.device_called(identity) {
            visit(&device);
        }
    }

    /// The number of a device chooses its shard.
    fn hand_over(_: &mut ShardLoop<Beacons>, _: u64, _: &Arrivals) -> bool {
        false
    }

    fn arrive(_: &mut ShardLoop<Beacons>, _: Parcel) {}

    /// A retune of one device is not offered: all devices of a listener have the same bound.
    fn order(shard: &mut ShardLoop<Beacons>, session: u64, order: Order) -> bool {
        let Some(found) = shard.find_device(session) else {
            return false;
        };
        let device = found.presence.subject.device;
        match order {
            Order::Kick { .. } | Order::KeepOut { .. } => {
                shard.command(BeaconCommand::Kick { device });
            }
            Order::Hold(span) => shard.command(BeaconCommand::Hold { device, span }),
            Order::Release => shard.command(BeaconCommand::Release { device }),
            Order::Retune(_) => {}
        }
        true
    }

    fn command(shard: &mut ShardLoop<Beacons>, command: HubCommand<'static>) {
        match command {
            HubCommand::Retune { listener, policy } if listener == shard.traffic.listener => {
                shard.command(BeaconCommand::Retune(policy));
            }
            HubCommand::Drain { .. } => shard.command(BeaconCommand::Drain),
            HubCommand::Retune { .. }
            | HubCommand::Send { .. }
            | HubCommand::ReportHeartbeats(_) => {}
        }
    }

    /// The drain that follows refuses devices that are not yet online.
    fn stop_accepting(_: &mut ShardLoop<Beacons>) {}
}

impl ShardLoop<Beacons> {
    fn find_device(&self, session: u64) -> Option<Device> {
        let place = u32::try_from(session & PLACE_MASK).ok()?;
        let presence = self.hub.machine().presence_at(place)?;
        let listener = self.traffic.listener;
        (presence.subject.session == session).then_some(Device { listener, presence })
    }

    /// Finds a device by its number as text.
    fn device_called(&self, identity: &str) -> Option<Device> {
        let number = u64::from_str_radix(identity, 16).ok()?;
        let presence = self.hub.machine().presence(number)?;
        let device = Device { listener: self.traffic.listener, presence };
        device.has_identity(identity).then_some(device)
    }

    fn command(&mut self, command: BeaconCommand) {
        self.hub.handle(self.clock.now(), World::Command(command));
        self.carry_out();
    }

    /// Tells the hub how many places are taken by devices whose last fact waits.
    fn hold_places(&mut self) {
        let held = u32::try_from(self.reports.places_held()).unwrap_or(u32::MAX);
        if held != self.traffic.places_held {
            self.traffic.places_held = held;
            self.hub.handle(self.clock.now(), Answer::PlacesHeld(held));
        }
    }

    /// Feeds statements that other shards handed over. Returns how many.
    fn feed_handed_over(&mut self) -> usize {
        let mut statements = 0;
        for _ in 0..BATCHES_PER_TURN {
            let Some(batch) = self.traffic.mesh.next_batch() else {
                return statements;
            };
            statements += batch.len();
            for (statement, from) in batch {
                if let Some(key) = self.traffic.keys.of(statement.device) {
                    self.feed(statement, from, None, &key);
                }
            }
            self.clock.record_work();
        }
        self.traffic.unread = true;
        statements
    }

    /// Reads the socket, and feeds authentic statements. Returns the number of datagrams.
    fn read_socket(&mut self) -> io::Result<usize> {
        let mut datagrams = 0;
        while self.traffic.unread && datagrams < DATAGRAMS_PER_TURN {
            let (received, mut illegal) = (&mut self.traffic.received, 0);
            let count =
                self.traffic.socket.receive(|bytes, from, to| match Datagram::decode(bytes) {
                    Ok((datagram, tag)) => received.push(Received { datagram, tag, from, to }),
                    Err(_) => illegal += 1,
                })?;
            self.count_dropped(ILLEGAL, illegal);
            self.traffic.unread = count > 0;
            datagrams += count;
            self.verify_received();
            self.clock.record_work();
        }
        let lost = self.traffic.mesh.hand_over();
        self.count_dropped(OVERLOADED, lost);
        self.traffic.beacon_stats.datagrams_in.add(datagrams as u64);
        self.clock.record_reads(datagrams, self.traffic.kernel_capacity, !self.traffic.unread);
        if let Some(behind) =
            self.clock.record_queue(!self.traffic.unread, self.traffic.socket.arrival_stamp())
        {
            self.traffic.mesh.record_read(behind);
        }
        Ok(datagrams)
    }

    /// Verifies the received datagrams; feeds authentic statements, or queues them for the shard of
    /// their device.
    fn verify_received(&mut self) {
        let mut received = std::mem::take(&mut self.traffic.received);
        for Received { datagram, tag, from, to } in received.drain(..) {
            let Datagram::Statement(statement) = datagram else {
                self.count_dropped(ILLEGAL, 1);
                continue;
            };
            let Some(key) = self.traffic.keys.of(statement.device) else {
                self.count_dropped(UNKNOWN_DEVICE, 1);
                continue;
            };
            if !key.proves(&datagram, &tag) {
                self.count_dropped(WRONG_TAG, 1);
            } else if self.traffic.mesh.owns(statement.device) {
                self.feed(statement, from, to, &key);
            } else {
                self.traffic.mesh.queue(statement, from);
            }
        }
        self.traffic.received = received;
    }

    fn count_dropped(&self, reason: usize, count: usize) {
        if let Some(cell) = self.traffic.beacon_stats.dropped.get(reason)
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
        // Behind the tag and in the shard of the device, which keeps the statement from being
        // accepted later.
        let input = if self.is_banned(statement.device, address.ip()) {
            World::Banned { statement }
        } else {
            World::Statement { statement, address }
        };
        self.hub.handle(now, input);
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Reply { reply: answer, address } => {
                    let bytes = key.seal(&Datagram::Reply(answer));
                    self.traffic.socket.queue_answer(&bytes, address, to);
                }
                Output::Session { subject, event } => self.report(&subject, event),
                Output::Status { .. } => {}
            }
        }
        // Before the next statement, which may be of a new device.
        self.hold_places();
    }

    fn is_banned(&self, device: u64, address: IpAddr) -> bool {
        let bans = &self.traffic.bans;
        // Most gateways have none, and the name of the device is not made in vain.
        !bans.is_empty() && bans.of_peer(&device_text(device), BootId::default(), address).is_some()
    }

    /// Reports the machine's events after an input that has no answer.
    fn carry_out(&mut self) {
        while let Some(output) = self.hub.poll_output() {
            if let Output::Session { subject, event } = output {
                self.report(&subject, event);
            }
        }
    }

    fn send_answers(&mut self) {
        let sent = self.traffic.socket.send_queued();
        self.traffic.beacon_stats.datagrams_out.add(sent.sent);
        self.traffic.beacon_stats.unsent.add(sent.dropped);
    }

    /// Reports an event of a device's session, and counts it.
    fn report(&mut self, beacon: &BeaconSubject, event: session::Event) {
        let subject = subject_of(beacon, self.traffic.listener);
        let mut fact = Fact::new(self.clock.wall_ms(), subject, event);
        if let session::Event::Left(verdict) = &event {
            // A device is never probed: it sends statements by itself.
            fact.parting.lasted = self.clock.now().since(beacon.since);
            if let Some(cell) = self.stats.verdicts.get(verdict.cause.index()) {
                cell.add(1);
            }
            if verdict.cause == Cause::Unknown {
                let late = self.clock.read_now().since(verdict.due);
                self.distributions.lateness.observe(seconds(late));
            }
        }
        if let session::Event::Overdue { .. } = event {
            self.stats.overdue.add(1);
        }
        self.reports.send(fact);
    }

    /// Records whether devices are refused. A shard that is full pauses only once it has refused a
    /// device, and until it has room again.
    fn publish_accepting(&mut self) {
        let counters = self.hub.machine().counters();
        let is_full =
            counters.online.saturating_add(self.traffic.places_held) >= self.traffic.max_beacons;
        let has_refused = counters.full > self.traffic.refused;
        self.traffic.refused = counters.full;
        let before = self.stats.accepting.paused();
        let paused = if !is_full {
            None
        } else if self.traffic.places_held > 0 {
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
}
