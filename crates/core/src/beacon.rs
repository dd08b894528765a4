//! Beacons: devices that state "alive" in single datagrams, and the machine that judges them.
//!
//! The shell checks each datagram's tag and hands over authentic statements. The machine decides
//! whether a statement is new, which devices are online, and what is answered. It keeps no state
//! for a device before a statement is proven new; until then the answer is a stateless challenge.
//!
//! It keeps no state of a removed device either, except that it was kicked. Against replay it
//! keeps two numbers for each group of devices: the present challenge, and the floor, which is the
//! highest counter of any of them that was removed or refused. An unknown device must count from
//! above the floor; the challenge carries the floor.
//!
//! A statement that was not accepted must never be accepted later. So no counter is refused for
//! being too high: it would be in range once the others have come near.

mod address;
mod banned;
mod datagram;
mod device;
mod floor;
mod kicked;
mod presence;
mod saved;
mod signal;
mod sweep;
mod table;
#[cfg(test)]
mod tests;
mod window;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;

use address::PackedAddress;
pub use datagram::{BadDatagram, DATAGRAM, Datagram, Reply, SIGNED, Says, Statement, TAG, Tag};
pub use device::{Device, Heard};
pub use floor::{CHALLENGE_REST, GROUP};
use floor::{Floors, RENEWAL_COUNTER};
use kicked::Kicked;
pub use kicked::{KICK_REST, KICKED};
pub use presence::Presences;
pub use signal::{
    Answer, BeaconCommand, Counters, Input, Output, Part, Presence, Settings, Subject, World,
};
use sweep::{PolicyRollout, tenths_of};
use table::{Entry, Table};
use window::{CounterClass, Window};

use crate::cause::{Cause, Verdict};
use crate::diagnosis::{Ground, Grounds};
use crate::driver::{Moved, Timed, Timer};
use crate::liveness::{self, Evidence, Liveness, Role};
use crate::machine::{Deadline, InputOf, Machine, Reason};
use crate::plain::Damage;
use crate::random::Random;
use crate::session::Event;
use crate::time::{Span, Time};
use crate::wire::CloseReason;

/// The maximum number of devices online at once. A session number has 24 bits for the table
/// place, beside the shard and a serial number.
pub const MAX_BEACONS: u32 = 1 << 24;

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
    floors: Floors,
    table: Table<Slot>,
    /// The devices whose deadlines may have moved.
    moved: Vec<Moved>,
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
    /// The bound in tenths of a second that the device was told last; 0 for none.
    told_tenths: u16,
    /// The generation of the policy applied last.
    generation: u8,
}

// The memory of a device: this, 4 bytes for its bucket, and 16.3 bytes of the wheel.
const _: () = assert!(size_of::<Option<Entry<Slot>>>() <= 144);

impl BeaconHub {
    /// Creates a machine that knows no device.
    pub fn new(settings: Settings) -> BeaconHub {
        let mut random = Random::new(settings.seed);
        let max_beacons = settings.max_beacons.min(MAX_BEACONS);
        let table = Table::new(random.next_u64(), max_beacons);
        BeaconHub {
            shard: settings.shard,
            serial: settings.wall_origin_ms << 20,
            max_beacons,
            held_places: 0,
            kicked: Kicked::default(),
            rollout: PolicyRollout::new(settings.policy),
            draining: None,
            floors: Floors::new(max_beacons, &mut random),
            table,
            moved: Vec::new(),
            outputs: VecDeque::new(),
            random,
            counters: Counters::default(),
        }
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
        let Statement { device, challenge, counter, leaving, .. } = statement;
        let refused = self.kicked.refuses(now, device);
        let full = self.table.len().saturating_add(self.held_places) >= self.max_beacons;
        let floor = self.floors.of(device);
        let admitted = floor.admits(statement);
        // Unless the device joins, the floor rises, so that a replay of this statement is refused
        // later, when there is room or the device may come back.
        if admitted && (refused || full || leaving || counter >= RENEWAL_COUNTER) {
            floor.raise(challenge, counter);
        }
        if refused {
            self.counters.kicked += 1;
        } else if !admitted || counter >= RENEWAL_COUNTER {
            self.demand_again(now, statement, None, address);
        } else if leaving {
            // A repeated goodbye: the answer to the first one was lost.
            self.acknowledge(statement, address);
        } else if full {
            self.counters.full += 1;
        } else {
            self.join(now, statement, address);
            self.acknowledge(statement, address);
        }
    }

    /// Handles a statement of an online device, which keeps its challenge when a new one begins.
    fn handle_known(&mut self, now: Time, number: u32, statement: Statement, address: SocketAddr) {
        let class = self.record_counter(number, statement);
        let Some(entry) = self.table.get(number) else {
            return;
        };
        let highest = (entry.value.challenge, entry.value.window.highest());
        match class {
            CounterClass::Newest => {
                self.record_evidence(now, number);
                self.update_address_and_status(number, statement, address);
                if self.answer_evidence(now, statement, address) {
                    self.record_told(number);
                }
                if statement.leaving {
                    self.end(now, number, Cause::PeerClosed(CloseReason::Done));
                }
            }
            CounterClass::Late => {
                self.record_evidence(now, number);
                self.answer_evidence(now, statement, address);
            }
            CounterClass::Latest => self.counters.replayed += 1,
            // Answered although it is a replay most of the time: a living device that has fallen
            // behind, whatever the reason, must not stay mute.
            CounterClass::Old => self.demand_again(now, statement, Some(highest), address),
        }
    }

    /// Answers a statement that counts as evidence, and returns whether with HEARD. A device whose
    /// counter has reached [`RENEWAL_COUNTER`] is moved to a new challenge instead.
    fn answer_evidence(&mut self, now: Time, statement: Statement, address: SocketAddr) -> bool {
        if statement.counter >= RENEWAL_COUNTER {
            let floor = self.floors.of(statement.device);
            if statement.challenge != floor.challenge() || floor.renew(now) {
                let (challenge, above) = (floor.challenge(), floor.counter());
                self.counters.heard += 1;
                self.send_challenge(statement, challenge, above, address);
                return false;
            }
        }
        self.acknowledge(statement, address);
        true
    }

    /// Answers a statement that is not accepted with the challenge under which the device must
    /// state, and with the counter to exceed. `highest` is that of an online device, with its
    /// challenge.
    fn demand_again(
        &mut self,
        now: Time,
        statement: Statement,
        highest: Option<(u32, u32)>,
        address: SocketAddr,
    ) {
        let floor = self.floors.of(statement.device);
        let own = highest.filter(|(challenge, _)| *challenge == floor.challenge());
        let mut above = own.map_or(floor.counter(), |(_, highest)| highest);
        if above >= RENEWAL_COUNTER {
            if !floor.renew(now) {
                return self.counters.replayed += 1;
            }
            above = floor.counter();
        }
        let challenge = floor.challenge();
        self.send_challenge(statement, challenge, above, address);
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
            window: Window::new(statement.counter, self.floors.of(statement.device).counter()),
            challenge: statement.challenge,
            status: statement.status,
            told_tenths: tenths_of(&policy),
            generation: self.rollout.generation(),
        };
        if let Some(number) = self.table.insert(statement.device, slot) {
            self.rearm(number);
            self.emit(number, Event::Joined { policy, account: None });
        }
    }

    /// Feeds a statement to the device's liveness as evidence.
    fn record_evidence(&mut self, now: Time, number: u32) {
        self.handle_liveness(now, number, liveness::Input::Heard(Evidence::Bytes));
    }

    /// Stores the bound that the device was told just now. A shorter one brings its verdict
    /// forward.
    fn record_told(&mut self, number: u32) {
        let told_tenths = tenths_of(self.rollout.policy());
        if let Some(entry) = self.table.get_mut(number)
            && core::mem::replace(&mut entry.value.told_tenths, told_tenths) != told_tenths
        {
            self.rearm(number);
        }
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
            self.push(number, |subject| Output::Status { subject, from: status });
        }
    }

    fn handle_liveness(&mut self, now: Time, number: u32, input: liveness::Input) {
        self.apply_policy(now, number);
        let Some(entry) = self.table.get_mut(number) else {
            return;
        };
        let slot = &mut entry.value;
        let (was_in_doubt, was_suspect) = (slot.liveness.is_in_doubt(), slot.liveness.is_suspect());
        slot.liveness.handle(now, input, &self.rollout.policy_of(slot));
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
            stretch: Span::ZERO,
            last_heard: entry.map_or(now, |entry| entry.value.liveness.last_heard()),
            probes: 0,
            grounds: Grounds::of(&[Ground::ApplicationSilent]),
        }
    }

    fn remove_with_verdict(&mut self, number: u32, verdict: Verdict) {
        self.emit(number, Event::Left(verdict));
        let Some(device) = self.table.get(number).map(Entry::device) else {
            return;
        };
        if let Some(slot) = self.table.remove(number) {
            self.rearm(number);
            self.counters.suspects -= u32::from(slot.liveness.is_suspect());
            self.floors.of(device).raise(slot.challenge, slot.window.highest());
        }
    }

    fn expire(&mut self, now: Time, number: u32) {
        let deadline = self.deadline_of(Part::Device(number));
        if deadline.is_some_and(|deadline| deadline.at <= now) {
            self.handle_liveness(now, number, liveness::Input::Deadline);
        }
    }

    fn acknowledge(&mut self, statement: Statement, address: SocketAddr) {
        self.counters.heard += 1;
        let bound_tenths = tenths_of(self.rollout.policy());
        let says = Says::Heard { counter: statement.counter, bound_tenths };
        let Statement { device, challenge, .. } = statement;
        let answer = Reply { device, challenge, says };
        self.outputs.push_back(Output::Reply { reply: answer, address });
    }

    fn send_challenge(
        &mut self,
        statement: Statement,
        challenge: u32,
        above: u32,
        address: SocketAddr,
    ) {
        self.counters.challenged += 1;
        let says = Says::Again { above, echo: statement.counter as u16 };
        let answer = Reply { device: statement.device, challenge, says };
        self.outputs.push_back(Output::Reply { reply: answer, address });
    }

    fn emit(&mut self, number: u32, event: Event) {
        self.push(number, |subject| Output::Session { subject, event });
    }

    fn push(&mut self, number: u32, output: impl FnOnce(Subject) -> Output) {
        if let Some(entry) = self.table.get(number) {
            let subject = self.subject(number, entry);
            self.outputs.push_back(output(subject));
        }
    }

    /// Reports that the deadline of a device may have moved.
    fn rearm(&mut self, number: u32) {
        self.moved.push(Moved { number, is_exact: false });
    }
}

impl Machine for BeaconHub {
    type World<'a> = World;
    type Answer = Answer;
    type Output<'a> = Output;
    type Part = Part;

    fn handle<'a>(&mut self, now: Time, input: impl Into<InputOf<'a, Self>>) {
        match input.into() {
            Input::World(World::Statement { .. } | World::Banned { .. })
                if self.draining.is_some() => {}
            Input::World(World::Statement { statement, address }) => {
                self.handle_statement(now, statement, address)
            }
            Input::World(World::Banned { statement }) => self.handle_banned(now, statement),
            Input::World(World::Command(command)) => self.command(now, command),
            Input::Answer(Answer::Deadline(Part::Common)) => self.sweep(now),
            Input::Answer(Answer::Deadline(Part::Device(number))) => self.expire(now, number),
            Input::Answer(Answer::PlacesHeld(places)) => self.held_places = places,
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn deadline_of(&self, part: Part) -> Option<Deadline> {
        match part {
            Part::Common if self.is_sweeping() => Some(Deadline::exact(Time::ZERO, Reason::Sweep)),
            Part::Common => None,
            Part::Device(number) => {
                let slot = &self.table.get(number)?.value;
                slot.liveness.next_deadline(&self.rollout.policy_of(slot))
            }
        }
    }

    fn parts(&self) -> Vec<Part> {
        self.all_parts()
    }

    fn save_part(&self, now: Time, part: Part, out: &mut Vec<u8>) {
        self.put_part(now, part, out);
    }

    fn load_part(&mut self, now: Time, part: Part, state: &mut &[u8]) -> Result<(), Damage> {
        self.take_part(now, part, state)
    }
}

impl Timed for BeaconHub {
    const COMMON: Part = Part::Common;

    fn part(number: u32) -> Part {
        Part::Device(number)
    }

    fn fired(part: Part) -> Answer {
        Answer::Deadline(part)
    }

    fn timer(&self, number: u32, _: Time) -> Option<Timer> {
        self.deadline_of(Part::Device(number)).map(|deadline| Timer::exact(deadline.at))
    }

    fn poll_moved(&mut self) -> Option<Moved> {
        self.moved.pop()
    }
}
