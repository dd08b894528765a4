//! Beacons: devices that state "alive" in single datagrams, and the machine that judges them.
//!
//! The shell checks each datagram's tag and hands over authentic statements. The machine decides
//! whether a statement is new, which devices are online, and what is answered. It keeps no state
//! for a device before a statement is proven new; until then the answer is a stateless challenge.
//!
//! It keeps no state of a removed device either, except that it was kicked. Against replay it keeps
//! one number for all of them, the floor: the highest counter of any device that was removed or
//! refused. An unknown device must count from above the floor; the challenge carries the floor.

mod datagram;
mod device;
mod kicked;
mod presence;
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
use kicked::Kicked;
pub use kicked::{KICK_REST, KICKED};
pub use presence::Presences;
pub use signal::{BeaconCommand, Counters, Event, Input, Output, Presence, Settings, Subject};
use sweep::PolicyRollout;
use table::{Entry, Table};
pub use window::MAX_AHEAD;
use window::{CounterClass, Window};

use crate::cause::{Cause, Verdict};
use crate::diagnosis::{Ground, Grounds};
use crate::liveness::{self, Evidence, Liveness, Role};
use crate::random::Random;
use crate::tap::Machine;
use crate::time::{Span, Time};
use crate::wheel::Wheel;
use crate::wire::CloseReason;

/// The maximum number of devices online at once. A session number has 24 bits for the table
/// place, beside the shard and a serial number.
pub const MAX_BEACONS: u32 = 1 << 24;

/// The maximum number of wheel steps per [`Input::Deadline`]: about 100 µs of work.
pub const DEADLINE_STEPS: u32 = 1_024;

/// A device whose counter reaches this value is moved to a new challenge, under which counters
/// begin at 1 again.
const RENEWAL_COUNTER: u32 = 1 << 31;

/// The machine for all beacons of one shard.
#[derive(Debug)]
pub struct BeaconHub {
    shard: u8,
    serial: u64,
    max_beacons: u32,
    /// Places that the shell still needs for devices that are gone.
    held_places: u32,
    kicked: Kicked,
    rollout: PolicyRollout,
    /// The table place at which the drain continues; while it is set, no statement is accepted.
    draining: Option<u32>,
    challenge: u32,
    /// The highest counter, under this challenge, of any device that was removed or refused.
    floor: u32,
    table: Table<Slot>,
    wheel: Wheel,
    /// More deadlines are due than one input may handle.
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
    address: PackedAddress,
    window: Window,
    /// The challenge that the window belongs to.
    challenge: u32,
    status: u16,
    /// The generation of the policy applied last.
    generation: u8,
}

// The memory of a device: this, 4 bytes for its bucket, and 16.3 bytes of the wheel.
const _: () = assert!(size_of::<Option<Entry<Slot>>>() <= 144);

/// A socket address in 18 bytes instead of 32, enough to show and compare it.
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
    fn from(packed: PackedAddress) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::from(packed.ip).to_canonical(), packed.port)
    }
}

impl BeaconHub {
    /// Creates a machine that starts at `now` and knows no device.
    pub fn new(now: Time, settings: Settings) -> BeaconHub {
        let mut random = Random::new(settings.seed);
        let table = Table::new(random.next_u64());
        let mut hub = BeaconHub {
            shard: settings.shard,
            serial: settings.wall_origin_ms << 20,
            max_beacons: settings.max_beacons.min(MAX_BEACONS),
            held_places: 0,
            kicked: Kicked::default(),
            rollout: PolicyRollout::new(settings.policy),
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
        hub.renew_challenge();
        hub
    }

    /// Returns when the next [`Input::Deadline`] is due; the time may be in the past.
    pub fn next_deadline(&self) -> Option<Time> {
        if self.backlog || self.is_sweeping() {
            return Some(Time::ZERO);
        }
        self.wheel.next_deadline()
    }

    /// Returns the counters.
    pub fn counters(&self) -> Counters {
        Counters { online: self.table.len(), ..self.counters }
    }

    fn handle_statement(&mut self, now: Time, statement: Statement, address: SocketAddr) {
        match self.table.find(statement.device) {
            Some(number) => self.handle_known(now, number, statement, address),
            None => self.handle_unknown(now, statement, address),
        }
    }

    /// Handles a statement of a device that is not online: its counter must be above the floor.
    fn handle_unknown(&mut self, now: Time, statement: Statement, address: SocketAddr) {
        if self.kicked.refuses(now, statement.device) {
            // The floor rises, so that a replay of this statement is refused once the device may
            // come back.
            if self.follows_floor(statement) {
                self.raise_floor(statement.challenge, statement.counter);
            }
            return self.counters.kicked += 1;
        }
        if !self.follows_floor(statement) {
            return self.send_challenge(statement, self.floor, address);
        }
        if statement.counter >= RENEWAL_COUNTER {
            self.renew_challenge();
            self.send_challenge(statement, self.floor, address);
        } else if statement.leaving {
            // A repeated goodbye: the answer to the first one was lost.
            self.raise_floor(statement.challenge, statement.counter);
            self.acknowledge(statement, address);
        } else if self.table.len().saturating_add(self.held_places) >= self.max_beacons {
            // The floor rises, so that a replay of this statement is refused when there is room.
            self.raise_floor(statement.challenge, statement.counter);
            self.counters.full += 1;
        } else {
            self.join(now, statement, address);
            self.acknowledge(statement, address);
        }
    }

    /// Handles a statement of an online device, which keeps its challenge when a new one begins.
    fn handle_known(&mut self, now: Time, number: u32, statement: Statement, address: SocketAddr) {
        let (current, follows_floor) = (self.challenge, self.follows_floor(statement));
        let Some(entry) = self.table.get_mut(number) else {
            return;
        };
        let slot = &mut entry.value;
        let above = if slot.challenge == current { slot.window.highest() } else { self.floor };
        let class = if statement.challenge == slot.challenge {
            slot.window.record(statement.counter)
        } else if follows_floor {
            slot.challenge = current;
            slot.window = Window::new(statement.counter, self.floor);
            CounterClass::Newest
        } else {
            CounterClass::TooFarAhead
        };
        match class {
            CounterClass::Newest => {
                self.record_evidence(now, number);
                self.update_address_and_status(number, statement, address);
                self.answer_evidence(statement, address);
                if statement.leaving {
                    self.end(now, number, Cause::PeerClosed(CloseReason::Done));
                }
            }
            CounterClass::Late => {
                self.record_evidence(now, number);
                self.answer_evidence(statement, address);
            }
            CounterClass::Old => self.counters.replayed += 1,
            CounterClass::TooFarAhead => self.send_challenge(statement, above, address),
        }
    }

    /// Answers a statement that counts as evidence; moves the device to a new challenge if its
    /// counter has reached [`RENEWAL_COUNTER`].
    fn answer_evidence(&mut self, statement: Statement, address: SocketAddr) {
        if statement.counter < RENEWAL_COUNTER {
            return self.acknowledge(statement, address);
        }
        if statement.challenge == self.challenge {
            self.renew_challenge();
        }
        self.counters.heard += 1;
        self.send_challenge(statement, self.floor, address);
    }

    /// Returns whether a statement is newer than all statements of removed devices.
    fn follows_floor(&self, statement: Statement) -> bool {
        let above = statement.counter.saturating_sub(self.floor);
        statement.challenge == self.challenge && (1..=MAX_AHEAD).contains(&above)
    }

    fn join(&mut self, now: Time, statement: Statement, address: SocketAddr) {
        self.serial = self.serial.wrapping_add(1);
        let policy = *self.rollout.policy();
        let mut liveness = Liveness::new(now, Role::Watch, Span::ZERO);
        let seed = self.random.next_u32();
        liveness.handle(now, liveness::Input::Introduced { seed }, &policy);
        let slot = Slot {
            liveness,
            epoch: self.serial,
            since: now,
            address: address.into(),
            window: Window::new(statement.counter, self.floor),
            challenge: statement.challenge,
            status: statement.status,
            generation: self.rollout.generation(),
        };
        let number = self.table.next_number();
        self.table.insert(statement.device, slot);
        self.rearm(number);
        self.emit(number, Event::Online(policy));
    }

    /// Feeds a statement to the device's liveness as evidence.
    fn record_evidence(&mut self, now: Time, number: u32) {
        self.handle_liveness(now, number, liveness::Input::Heard(Evidence::Bytes));
    }

    /// Stores the address and the status, which only the newest statement may change.
    fn update_address_and_status(
        &mut self,
        number: u32,
        statement: Statement,
        address: SocketAddr,
    ) {
        let Some(entry) = self.table.get_mut(number) else {
            return;
        };
        let slot = &mut entry.value;
        let former = core::mem::replace(&mut slot.address, address.into());
        let status = core::mem::replace(&mut slot.status, statement.status);
        if former != address.into() {
            self.emit(number, Event::Moved { from: former.into() });
        }
        if status != statement.status {
            self.emit(number, Event::Status { from: status });
        }
    }

    fn handle_liveness(&mut self, now: Time, number: u32, input: liveness::Input) {
        self.apply_policy(now, number);
        let Some(entry) = self.table.get_mut(number) else {
            return;
        };
        let slot = &mut entry.value;
        let (was_in_doubt, was_suspect) = (slot.liveness.is_in_doubt(), slot.liveness.is_suspect());
        slot.liveness.handle(now, input, self.rollout.policy());
        self.counters.suspects += u32::from(slot.liveness.is_suspect());
        self.counters.suspects -= u32::from(was_suspect);
        // Other evidence only moves the deadline later: the entry is armed again when it fires.
        if was_in_doubt || !matches!(input, liveness::Input::Heard(_)) {
            self.rearm(number);
        }
        self.forward_liveness_outputs(now, number);
    }

    /// Turns the outputs of a device's liveness into events.
    fn forward_liveness_outputs(&mut self, now: Time, number: u32) {
        while let Some(entry) = self.table.get_mut(number) {
            match entry.value.liveness.poll_output() {
                Some(liveness::Output::Suspect) => self.emit(number, Event::Suspect),
                Some(liveness::Output::Recovered) => self.emit(number, Event::Recovered),
                Some(liveness::Output::Overdue(silence)) => {
                    self.emit(number, Event::Overdue { due: silence.due });
                }
                Some(liveness::Output::Dead(silence)) => {
                    let verdict = Verdict { due: silence.due, ..self.verdict(now, number) };
                    self.remove_with_verdict(number, verdict);
                }
                Some(
                    liveness::Output::Probe { .. }
                    | liveness::Output::Keepalive { .. }
                    | liveness::Output::Confirm { .. }
                    | liveness::Output::RoundTrip(_),
                ) => {}
                None => break,
            }
        }
    }

    /// Ends a device for a reason other than silence, of which there is no evidence then.
    fn end(&mut self, now: Time, number: u32, cause: Cause) {
        let verdict = self.verdict(now, number);
        self.remove_with_verdict(
            number,
            Verdict {
                cause,
                confidence: cause.confidence(),
                grounds: Grounds::default(),
                ..verdict
            },
        );
    }

    /// Returns a verdict on silence that is due now.
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

    fn remove_with_verdict(&mut self, number: u32, verdict: Verdict) {
        self.emit(number, Event::Lost(verdict));
        self.wheel.disarm(number);
        if let Some(slot) = self.table.remove(number) {
            self.counters.suspects -= u32::from(slot.liveness.is_suspect());
            self.raise_floor(slot.challenge, slot.window.highest());
        }
    }

    /// Raises the floor: statements up to this counter are refused from now on.
    fn raise_floor(&mut self, challenge: u32, counter: u32) {
        if challenge == self.challenge {
            self.floor = self.floor.max(counter);
        }
    }

    /// Begins a new challenge for devices that are not online.
    fn renew_challenge(&mut self) {
        self.floor = 0;
        let former = self.challenge;
        while self.challenge == former || self.challenge == 0 {
            self.challenge = self.random.next_u32();
        }
    }

    fn acknowledge(&mut self, statement: Statement, address: SocketAddr) {
        self.counters.heard += 1;
        let tenths = |bound: Span| u16::try_from(bound.as_millis() / 100).unwrap_or(u16::MAX);
        let bound_tenths = self.rollout.policy().bound().map_or(0, |bound| tenths(bound).max(1));
        let says = Says::Heard { counter: statement.counter, bound_tenths };
        let Statement { device, challenge, .. } = statement;
        let answer = Answer { device, challenge, says };
        self.outputs.push_back(Output::Answer { answer, address });
    }

    fn send_challenge(&mut self, statement: Statement, above: u32, address: SocketAddr) {
        self.counters.challenged += 1;
        let says = Says::Again { above, echo: statement.counter as u16 };
        let answer = Answer { device: statement.device, challenge: self.challenge, says };
        self.outputs.push_back(Output::Answer { answer, address });
    }

    fn emit(&mut self, number: u32, event: Event) {
        if let Some(entry) = self.table.get(number) {
            let subject = self.subject(number, entry);
            self.outputs.push_back(Output::Event { subject, event });
        }
    }

    /// Arms the wheel for a device's next deadline. Lazy: an entry that is too early stays, because
    /// it is armed again when it fires.
    fn rearm(&mut self, number: u32) {
        let Some(entry) = self.table.get(number) else {
            return;
        };
        let policy = self.rollout.policy_of(entry.value.generation);
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
            let policy = self.rollout.policy_of(entry.value.generation);
            match entry.value.liveness.next_deadline(policy) {
                Some(next) if next.at <= now => {
                    self.handle_liveness(now, number, liveness::Input::Deadline);
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
            Input::Statement { statement, address } => {
                self.handle_statement(now, statement, address)
            }
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
