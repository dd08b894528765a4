//! Devices that come, go, move, restart and fall silent, an attacker who replays what was
//! delivered, and after every step a model that knows nothing of windows, floors and wheels.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use systole_core::beacon::{
    self, Answer, BeaconHub, Device, Event, Heard, Input, Output, Says, Settings, Statement,
};
use systole_core::random::Random;
use systole_core::wheel::TICK;
use systole_core::{Machine, Policy, Span, Time};

const DEVICES: u64 = 12;
const SCHEDULES: u64 = 300;
const STEPS: u64 = 1_500;

/// D of the policy.
const BOUND: Span = Span::from_secs(8);
/// Half of the devices fit at a time in some schedules.
const CROWDED: u32 = 6;
/// What the attacker calls its own.
const ATTACKER: u16 = 666;

/// A device, as the world sees it.
struct Owner {
    device: Device,
    port: u16,
    silent: bool,
    next: Time,
    leaving: bool,
}

/// What is on its way.
#[derive(Clone, Copy)]
enum Parcel {
    ToHub { statement: Statement, port: u16, said: Time },
    ToDevice(Answer),
}

/// What the model knows of a device that is online.
struct Known {
    last_heard: Time,
    port: u16,
}

struct World {
    hub: BeaconHub,
    now: Time,
    random: Random,
    owners: Vec<Owner>,
    /// By arrival, then order of sending.
    air: BTreeMap<(Time, u64), Parcel>,
    sent: u64,
    loss: u64,
    /// Nothing happens to the devices any more.
    calm: bool,
    max_beacons: u32,
    /// Every statement that was ever taken: none may be taken twice.
    taken: BTreeSet<(u64, u32, u32)>,
    /// What the attacker has seen delivered.
    recorded: Vec<Statement>,
    online: BTreeMap<u64, Known>,
    lost: u64,
    moved: u64,
    replayed: u64,
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::new(seed);
        let max_beacons = if random.below(4) == 0 { CROWDED } else { 1_000 };
        let policy = Policy::demanding();
        let settings =
            Settings { shard: 1, policy, max_beacons, wall_origin_ms: 5, seed: random.next_u64() };
        let owners = (0..DEVICES).map(|device| Owner {
            device: Device::new(device, random.next_u32()),
            port: device as u16,
            silent: false,
            next: Time::from_millis(random.below(3_000)),
            leaving: false,
        });
        let owners = owners.collect();
        let loss = [0, 10, 30][random.below(3) as usize];
        World {
            hub: BeaconHub::new(Time::ZERO, settings),
            now: Time::ZERO,
            random,
            owners,
            air: BTreeMap::new(),
            sent: 0,
            loss,
            calm: false,
            max_beacons,
            taken: BTreeSet::new(),
            recorded: Vec::new(),
            online: BTreeMap::new(),
            lost: 0,
            moved: 0,
            replayed: 0,
        }
    }

    /// Whatever comes next in time: a delivery, a deadline, or a device that speaks.
    fn step(&mut self) {
        let delivery = self.air.first_key_value().map(|((at, _), _)| *at);
        let deadline = self.hub.next_deadline();
        let speaker = (0..self.owners.len()).min_by_key(|index| self.owners[*index].next).unwrap();
        let speaks = self.owners[speaker].next;
        let next = [delivery, deadline, Some(speaks)].into_iter().flatten().min().unwrap();
        self.now = self.now.max(next);
        if deadline == Some(next) {
            self.input(Input::Deadline);
        } else if delivery == Some(next) {
            let (_, parcel) = self.air.pop_first().unwrap();
            self.deliver(parcel);
        } else {
            self.live(speaker);
        }
        self.compare();
    }

    fn live(&mut self, index: usize) {
        let pause = self.random.below(2_000);
        let fate = if self.calm { 60 } else { self.random.below(60) };
        let chance = self.random.next_u32();
        let owner = &mut self.owners[index];
        owner.next = self.now + Span::from_millis(1 + pause);
        match fate {
            0 => owner.silent = true,
            1 => owner.silent = false,
            2 => owner.port = owner.port.wrapping_add(20) % 600,
            3 => owner.device = Device::new(index as u64, chance),
            4 => owner.leaving = true,
            5..12 => owner.leaving = false,
            12..16 => return self.attack(),
            _ => {}
        }
        self.speak(index);
    }

    fn speak(&mut self, index: usize) {
        let owner = &mut self.owners[index];
        if owner.silent {
            return;
        }
        let statement = owner.device.state(0, owner.leaving);
        let parcel = Parcel::ToHub { statement, port: owner.port, said: self.now };
        self.send(parcel);
    }

    fn attack(&mut self) {
        if self.recorded.is_empty() {
            return;
        }
        let index = self.random.below(self.recorded.len() as u64) as usize;
        let statement = self.recorded[index];
        self.replayed += 1;
        // Straight into the hub: what it then takes is checked as for everybody.
        self.state(statement, ATTACKER, None);
    }

    fn send(&mut self, parcel: Parcel) {
        let copies = if self.random.below(100) < self.loss {
            0
        } else {
            1 + u64::from(self.random.below(10) == 0)
        };
        for _ in 0..copies {
            let delay = if self.random.below(10) == 0 { 3_000 } else { 50 };
            let at = self.now + Span::from_millis(self.random.below(delay));
            self.sent += 1;
            self.air.insert((at, self.sent), parcel);
        }
    }

    fn deliver(&mut self, parcel: Parcel) {
        match parcel {
            Parcel::ToHub { statement, port, said } => {
                self.state(statement, port, Some(said));
                self.recorded.push(statement);
            }
            Parcel::ToDevice(answer) => {
                let index = answer.device as usize;
                match self.owners[index].device.handle(answer) {
                    Heard::Again => self.speak(index),
                    Heard::Latest { bound } => assert_eq!(bound, Some(BOUND)),
                    Heard::Nothing => {}
                }
            }
        }
    }

    fn state(&mut self, statement: Statement, port: u16, said: Option<Time>) {
        let fresh_at_most = Span::from_secs(3);
        let before = self.hub.counters();
        let answers = self.input(Input::Statement { statement, address: address(port) });
        assert!(answers.len() <= 1);
        for (answer, to) in answers {
            assert_eq!((to, answer.device), (address(port), statement.device));
            if let Says::Heard { counter, .. } = answer.says {
                assert_eq!((answer.challenge, counter), (statement.challenge, statement.counter));
            }
            if port != ATTACKER {
                self.send(Parcel::ToDevice(answer));
            }
        }
        let after = self.hub.counters();
        if after.heard == before.heard {
            return;
        }
        assert!(said.is_some_and(|said| self.now.since(said) <= fresh_at_most), "an old one taken");
        let Statement { device, challenge, counter, leaving, .. } = statement;
        assert!(self.taken.insert((device, challenge, counter)), "taken twice");
        if let Some(known) = self.online.get_mut(&device) {
            known.last_heard = self.now;
        } else {
            assert!(leaving, "taken, but not online");
        }
    }

    /// Hands an input over; events go to the model, answers to the caller.
    fn input(&mut self, input: Input) -> Vec<(Answer, SocketAddr)> {
        self.hub.handle(self.now, input);
        let mut answers = Vec::new();
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Answer { answer, address } => {
                    assert!(matches!(input, Input::Statement { .. }), "unasked");
                    answers.push((answer, address));
                }
                Output::Event { subject, event } => self.note(&subject, event),
            }
        }
        answers
    }

    fn note(&mut self, subject: &beacon::Subject, event: Event) {
        let port = subject.address.port();
        match event {
            Event::Online(_) => {
                let known = Known { last_heard: self.now, port };
                assert!(self.online.insert(subject.device, known).is_none());
            }
            Event::Moved { from } => {
                let known = self.online.get_mut(&subject.device).unwrap();
                assert_eq!(from.port(), known.port);
                known.port = port;
                self.moved += 1;
            }
            Event::Lost(verdict) => {
                let known = self.online.remove(&subject.device).unwrap();
                if verdict.due != self.now {
                    assert_eq!(verdict.due, known.last_heard + BOUND);
                    assert!(self.now >= verdict.due && self.now.since(verdict.due) <= TICK);
                    self.lost += 1;
                }
            }
            Event::Suspect | Event::Recovered => {
                assert!(self.online.contains_key(&subject.device));
            }
            Event::Overdue { .. } | Event::Status { .. } | Event::Retuned(_) => {
                panic!("nothing asks for {event:?}")
            }
        }
    }

    fn compare(&self) {
        assert_eq!(self.hub.counters().online as usize, self.online.len());
        assert!(self.hub.counters().online <= self.max_beacons);
        let mut suspects = 0;
        for (device, known) in &self.online {
            let told = self.hub.presence(*device).unwrap();
            assert_eq!(told.last_heard, known.last_heard);
            assert_eq!(told.subject.address, address(known.port));
            assert_ne!(known.port, ATTACKER);
            assert!(self.now.since(known.last_heard) <= BOUND + TICK, "a ghost");
            suspects += u32::from(told.suspect);
        }
        assert_eq!(self.hub.counters().suspects, suspects);
    }
}

#[test]
fn a_fleet_behaves_as_its_model_whatever_the_network_does() {
    let (mut lost, mut moved, mut replayed, mut full) = (0, 0, 0, 0);
    for seed in 0..SCHEDULES {
        let mut world = World::new(seed);
        (0..STEPS).for_each(|_| world.step());
        (lost, moved) = (lost + world.lost, moved + world.moved);
        (replayed, full) = (replayed + world.replayed, full + world.hub.counters().full);
        // The network heals, the devices speak, and whoever fits is online.
        (world.loss, world.calm) = (0, true);
        for owner in &mut world.owners {
            (owner.silent, owner.leaving) = (false, false);
        }
        let healed = world.now + BOUND.times(3);
        while world.now < healed {
            world.step();
        }
        let expected = DEVICES.min(u64::from(world.max_beacons)) as usize;
        assert_eq!(world.online.len(), expected, "schedule {seed}");
    }
    assert!(lost > 100 && moved > 1_000 && replayed > 10_000 && full > 100, "too tame");
}
