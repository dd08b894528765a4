//! Many devices that state "alive" in single datagrams: what one shard decides about them.
//!
//! The shell checks each datagram's tag and hands over what is authentic; the machine decides
//! whether it is new, who is online, and what is answered. Nothing is kept for a device before a
//! statement of it was shown to be new: until then the answer is a challenge, which holds no state.
//!
//! Nothing is kept of a device that is gone either. So that none of its old statements brings it
//! back, the machine keeps one number for all of them, the floor: the highest counter of any device
//! that was let go or refused. A device that is not known must count from above it, and is told so.

mod datagram;
mod device;
mod signal;
mod sweep;
mod table;
#[cfg(test)]
mod tests;
mod window;

use alloc::collections::VecDeque;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

pub use datagram::{Answer, BadDatagram, DATAGRAM, Datagram, SIGNED, Says, Statement, TAG, Tag};
pub use device::{Device, Heard};
pub use signal::{BeaconCommand, Counters, Event, Input, Output, Presence, Settings, Subject};
use sweep::Tuning;
use table::{Entry, Table};
pub use window::MAX_AHEAD;
use window::{Standing, Window};

use crate::cause::{Cause, Verdict};
use crate::diagnosis::{Ground, Grounds};
use crate::liveness::{self, Evidence, Liveness, Role};
use crate::random::Random;
use crate::tap::Machine;
use crate::time::{Span, Time};
use crate::wheel::Wheel;
use crate::wire::CloseReason;

/// The most devices online at once: their numbers share a session's with the shard and a serial.
pub const MAX_BEACONS: u32 = 1 << 24;

/// How many steps of the wheel one [`Input::Deadline`] may cost: about 100 µs of work.
pub const DEADLINE_STEPS: u32 = 1_024;

/// Once a device counts so high, a new challenge begins, under which all count from 1 again.
const LAST_COUNTER: u32 = 1 << 31;

/// The machine of one shard's beacons.
#[derive(Debug)]
pub struct BeaconHub {
    shard: u8,
    serial: u64,
    max_beacons: u32,
    tuning: Tuning,
    /// The place in the table from which a drain goes on; nobody comes online any more.
    draining: Option<u32>,
    challenge: u32,
    /// The highest counter, under this challenge, of any device that was let go or refused.
    floor: u32,
    table: Table<Slot>,
    wheel: Wheel,
    /// The wheel has more that is due than one input may do.
    backlog: bool,
    outputs: VecDeque<Output>,
    random: Random,
    counters: Counters,
}

#[derive(Debug)]
struct Slot {
    liveness: Liveness,
    epoch: u64,
    since: Time,
    place: PackedAddress,
    window: Window,
    /// The challenge that the window belongs to.
    challenge: u32,
    status: u16,
    /// Which retune it has seen.
    tuned: u8,
}

// What a device costs: this, 4 bytes for its bucket, and its 16.3 bytes of the wheel.
const _: () = assert!(size_of::<Option<Entry<Slot>>>() <= 136);

/// An address in 18 bytes instead of 32: it is kept to be shown and compared, not to be sent to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct PackedAddress {
    ip: [u8; 16],
    port: u16,
}

impl From<SocketAddr> for PackedAddress {
    fn from(address: SocketAddr) -> PackedAddress {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        PackedAddress { ip: ip.octets(), port: address.port() }
    }
}

impl From<PackedAddress> for SocketAddr {
    fn from(place: PackedAddress) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::from(place.ip).to_canonical(), place.port)
    }
}

impl BeaconHub {
    /// A machine that starts at `now` and knows no device.
    pub fn new(now: Time, settings: Settings) -> BeaconHub {
        let mut random = Random::new(settings.seed);
        let table = Table::new(random.next_u64());
        let mut hub = BeaconHub {
            shard: settings.shard,
            serial: settings.wall_origin_ms << 20,
            max_beacons: settings.max_beacons.min(MAX_BEACONS),
            tuning: Tuning::new(settings.policy),
            draining: None,
            challenge: 0,
            floor: 0,
            table,
            wheel: Wheel::new(now),
            backlog: false,
            outputs: VecDeque::new(),
            random,
            counters: Counters::default(),
        };
        hub.renew();
        hub
    }

    /// When to call with [`Input::Deadline`] unless something changes before; it may be
    /// in the past.
    pub fn next_deadline(&self) -> Option<Time> {
        if self.backlog || self.is_sweeping() {
            return Some(Time::ZERO);
        }
        self.wheel.next_deadline()
    }

    /// What was counted.
    pub fn counters(&self) -> Counters {
        Counters { online: self.table.len(), ..self.counters }
    }

    /// What is known of a device, if it is online.
    pub fn presence(&self, device: u64) -> Option<Presence> {
        let number = self.table.find(device)?;
        self.table.get(number).map(|entry| self.present(number, entry))
    }

    /// What is known of the device in this place of the table, if one is online there.
    pub fn presence_at(&self, number: u32) -> Option<Presence> {
        self.table.get(number).map(|entry| self.present(number, entry))
    }

    /// The devices that are online, from place `number` of the table upwards, in order.
    pub fn presences(&self, number: u32) -> impl Iterator<Item = Presence> {
        self.table.iter_from(number).map(|(number, entry)| self.present(number, entry))
    }

    fn present(&self, number: u32, entry: &Entry<Slot>) -> Presence {
        let slot = &entry.value;
        Presence {
            number,
            subject: self.subject(number, entry),
            last_heard: slot.liveness.last_heard(),
            suspect: slot.liveness.is_suspect(),
            held_until: slot.liveness.held_until(),
            policy: *self.tuning.policy_of(slot.tuned),
        }
    }

    fn subject(&self, number: u32, entry: &Entry<Slot>) -> Subject {
        let slot = &entry.value;
        let serial = slot.epoch & 0xffff_ffff;
        Subject {
            device: entry.device(),
            session: u64::from(self.shard) << 56 | serial << 24 | u64::from(number),
            epoch: slot.epoch,
            address: slot.place.into(),
            since: slot.since,
            status: slot.status,
        }
    }

    fn statement(&mut self, now: Time, statement: Statement, address: SocketAddr) {
        match self.table.find(statement.device) {
            Some(number) => self.known(now, number, statement, address),
            None => self.unknown(now, statement, address),
        }
    }

    /// A statement of a device that is not online: it must be newer than all that were let go.
    fn unknown(&mut self, now: Time, statement: Statement, address: SocketAddr) {
        if !self.follows_floor(statement) {
            return self.demand_again(statement, self.floor, address);
        }
        if statement.counter >= LAST_COUNTER {
            self.renew();
            self.demand_again(statement, self.floor, address);
        } else if statement.leaving {
            // It says goodbye again, because our answer to the first was lost.
            self.let_go(statement.challenge, statement.counter);
            self.acknowledge(statement, address);
        } else if self.table.len() >= self.max_beacons {
            // Refused, not forgotten: it may not come in as an old one when there is room.
            self.let_go(statement.challenge, statement.counter);
            self.counters.full += 1;
        } else {
            self.join(now, statement, address);
            self.acknowledge(statement, address);
        }
    }

    /// A device that is online stays under its challenge, also when a newer one is in force.
    fn known(&mut self, now: Time, number: u32, statement: Statement, address: SocketAddr) {
        let (current, follows_floor) = (self.challenge, self.follows_floor(statement));
        let Some(entry) = self.table.get_mut(number) else {
            return;
        };
        let slot = &mut entry.value;
        let highest = if slot.challenge == current { slot.window.highest() } else { self.floor };
        let standing = if statement.challenge == slot.challenge {
            slot.window.hear(statement.counter)
        } else if follows_floor {
            slot.challenge = current;
            slot.window = Window::new(statement.counter, self.floor);
            Standing::Newest
        } else {
            Standing::Ahead
        };
        match standing {
            Standing::Newest => {
                self.hear(now, number);
                self.describe(number, statement, address);
                self.respond(statement, address);
                if statement.leaving {
                    self.end(now, number, Cause::PeerClosed(CloseReason::Done));
                }
            }
            Standing::Late => {
                self.hear(now, number);
                self.respond(statement, address);
            }
            Standing::Old => self.counters.replayed += 1,
            Standing::Ahead => self.demand_again(statement, highest, address),
        }
    }

    /// Answers a statement that was a sign of life. A device that has counted high enough is moved
    /// to another challenge.
    fn respond(&mut self, statement: Statement, address: SocketAddr) {
        if statement.counter < LAST_COUNTER {
            return self.acknowledge(statement, address);
        }
        if statement.challenge == self.challenge {
            self.renew();
        }
        self.counters.heard += 1;
        self.demand_again(statement, self.floor, address);
    }

    /// Whether a statement is newer than all of any device that was let go.
    fn follows_floor(&self, statement: Statement) -> bool {
        let above = statement.counter.saturating_sub(self.floor);
        statement.challenge == self.challenge && (1..=MAX_AHEAD).contains(&above)
    }

    fn join(&mut self, now: Time, statement: Statement, address: SocketAddr) {
        self.serial = self.serial.wrapping_add(1);
        let policy = *self.tuning.policy();
        let mut liveness = Liveness::new(now, Role::Watch, Span::ZERO);
        let seed = self.random.next_u32();
        liveness.handle(now, liveness::Input::Introduced { seed }, &policy);
        let slot = Slot {
            liveness,
            epoch: self.serial,
            since: now,
            place: address.into(),
            window: Window::new(statement.counter, self.floor),
            challenge: statement.challenge,
            status: statement.status,
            tuned: self.tuning.number(),
        };
        let number = self.table.next_number();
        self.table.insert(statement.device, slot);
        self.rearm(number);
        self.tell(number, Event::Online(policy));
    }

    /// A statement is a sign of life.
    fn hear(&mut self, now: Time, number: u32) {
        self.liveness(now, number, liveness::Input::Heard(Evidence::Bytes));
    }

    /// Takes over what only the newest statement may change.
    fn describe(&mut self, number: u32, statement: Statement, address: SocketAddr) {
        let Some(entry) = self.table.get_mut(number) else {
            return;
        };
        let slot = &mut entry.value;
        let place = core::mem::replace(&mut slot.place, address.into());
        let status = core::mem::replace(&mut slot.status, statement.status);
        if place != address.into() {
            self.tell(number, Event::Moved { from: place.into() });
        }
        if status != statement.status {
            self.tell(number, Event::Status { from: status });
        }
    }

    fn liveness(&mut self, now: Time, number: u32, input: liveness::Input) {
        self.tune(now, number);
        let Some(entry) = self.table.get_mut(number) else {
            return;
        };
        let slot = &mut entry.value;
        let (was_in_doubt, was_suspect) = (slot.liveness.is_in_doubt(), slot.liveness.is_suspect());
        slot.liveness.handle(now, input, self.tuning.policy());
        self.counters.suspects += u32::from(slot.liveness.is_suspect());
        self.counters.suspects -= u32::from(was_suspect);
        // Other evidence only moves a deadline later, which is found out when it fires.
        if was_in_doubt || !matches!(input, liveness::Input::Heard(_)) {
            self.rearm(number);
        }
        self.carry(now, number);
    }

    /// Carries on what the liveness of a device tells.
    fn carry(&mut self, now: Time, number: u32) {
        while let Some(entry) = self.table.get_mut(number) {
            match entry.value.liveness.poll_output() {
                Some(liveness::Output::Suspect) => self.tell(number, Event::Suspect),
                Some(liveness::Output::Recovered) => self.tell(number, Event::Recovered),
                Some(liveness::Output::Overdue(silence)) => {
                    self.tell(number, Event::Overdue { due: silence.due });
                }
                Some(liveness::Output::Dead(silence)) => {
                    let verdict = Verdict { due: silence.due, ..self.verdict(now, number) };
                    self.pronounce(number, verdict);
                }
                Some(
                    liveness::Output::Probe { .. }
                    | liveness::Output::Keepalive { .. }
                    | liveness::Output::Confirm { .. }
                    | liveness::Output::Examine
                    | liveness::Output::RoundTrip(_),
                ) => {}
                None => break,
            }
        }
    }

    fn end(&mut self, now: Time, number: u32, cause: Cause) {
        let verdict = self.verdict(now, number);
        self.pronounce(number, Verdict { cause, confidence: cause.confidence(), ..verdict });
    }

    /// The verdict on a silence, due now.
    fn verdict(&self, now: Time, number: u32) -> Verdict {
        let entry = self.table.get(number);
        Verdict {
            cause: Cause::Unknown,
            confidence: Cause::Unknown.confidence(),
            at: now,
            due: now,
            last_heard: entry.map_or(now, |entry| entry.value.liveness.last_heard()),
            probes: 0,
            grounds: Grounds::of(&[Ground::ApplicationSilent]),
        }
    }

    fn pronounce(&mut self, number: u32, verdict: Verdict) {
        self.tell(number, Event::Lost(verdict));
        self.wheel.disarm(number);
        if let Some(slot) = self.table.remove(number) {
            self.counters.suspects -= u32::from(slot.liveness.is_suspect());
            self.let_go(slot.challenge, slot.window.highest());
        }
    }

    /// No statement up to this counter brings anybody back.
    fn let_go(&mut self, challenge: u32, counter: u32) {
        if challenge == self.challenge {
            self.floor = self.floor.max(counter);
        }
    }

    /// Begins a new challenge, for devices that are not online.
    fn renew(&mut self) {
        self.floor = 0;
        let former = self.challenge;
        while self.challenge == former || self.challenge == 0 {
            self.challenge = self.random.next_u32();
        }
    }

    fn acknowledge(&mut self, statement: Statement, address: SocketAddr) {
        self.counters.heard += 1;
        let tenths = |bound: Span| u16::try_from(bound.as_millis() / 100).unwrap_or(u16::MAX);
        let bound_tenths = self.tuning.policy().bound().map_or(0, |bound| tenths(bound).max(1));
        let says = Says::Heard { counter: statement.counter, bound_tenths };
        let Statement { device, challenge, .. } = statement;
        let answer = Answer { device, challenge, says };
        self.outputs.push_back(Output::Answer { answer, address });
    }

    fn demand_again(&mut self, statement: Statement, above: u32, address: SocketAddr) {
        self.counters.challenged += 1;
        let says = Says::Again { above, echo: statement.counter as u16 };
        let answer = Answer { device: statement.device, challenge: self.challenge, says };
        self.outputs.push_back(Output::Answer { answer, address });
    }

    fn tell(&mut self, number: u32, event: Event) {
        if let Some(entry) = self.table.get(number) {
            let subject = self.subject(number, entry);
            self.outputs.push_back(Output::Event { subject, event });
        }
    }

    /// Deadlines are re-armed lazily: an entry that is earlier than need be stays where it is.
    fn rearm(&mut self, number: u32) {
        let Some(entry) = self.table.get(number) else {
            return;
        };
        let policy = self.tuning.policy_of(entry.value.tuned);
        match (entry.value.liveness.next_deadline(policy), self.wheel.armed(number)) {
            (Some(next), Some(armed)) if armed <= next.at => {}
            (Some(next), _) => self.wheel.arm(number, next.at),
            (None, _) => {}
        }
    }

    fn expire(&mut self, now: Time) {
        let mut steps = DEADLINE_STEPS;
        while let Some(number) = self.wheel.expire(now, &mut steps) {
            let Some(entry) = self.table.get(number) else {
                continue;
            };
            let policy = self.tuning.policy_of(entry.value.tuned);
            match entry.value.liveness.next_deadline(policy) {
                Some(next) if next.at <= now => {
                    self.liveness(now, number, liveness::Input::Deadline);
                }
                Some(next) => self.wheel.arm(number, next.at),
                None => {}
            }
        }
        self.backlog = steps == 0;
    }
}

impl Machine for BeaconHub {
    type Input<'a> = Input;
    type Output<'a> = Output;

    fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::Statement { .. } if self.draining.is_some() => {}
            Input::Statement { statement, address } => self.statement(now, statement, address),
            Input::Deadline => {
                self.sweep(now);
                self.expire(now);
            }
            Input::Command(command) => self.command(now, command),
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}
