//! A simulated fleet: devices join, leave, move, restart, fall silent and count on through outages
//! while an attacker replays delivered statements and the policy changes. Each step is checked
//! against a model without windows, floors and wheels.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use systole_core::session;

use systole_core::beacon::{
    self, BeaconCommand, BeaconHub, Device, Heard, Input, KICK_REST, Output, Reply, Says, Settings,
    Statement,
};
use systole_core::driver::Driver;
use systole_core::random::Random;
use systole_core::tap::record::{Recorder, replay};
use systole_core::wheel::TICK;
use systole_core::{Policy, Span, Time};

const DEVICES: u64 = 12;
const SCHEDULES: u64 = 300;
const STEPS: u64 = 1_500;

/// The bound D of the first policy.
const BOUND: Span = Span::from_secs(8);
/// The bound of the other policy.
const SHORT: Span = Span::from_secs(3);
/// How far a late counter may be behind the highest one.
const LATE: u32 = 64;
/// The table size in crowded schedules: room for half of the devices.
const CROWDED: u32 = 6;
/// The attacker's port.
const ATTACKER: u16 = 666;

/// A simulated device.
struct SimulatedDevice {
    device: Device,
    port: u16,
    silent: bool,
    next: Time,
    leaving: bool,
}

/// A datagram in flight.
#[derive(Clone, Copy)]
enum Packet {
    ToHub { statement: Statement, port: u16, sent_at: Time },
    ToDevice(Reply),
}

/// The model's state of an online device.
struct Known {
    last_heard: Time,
    port: u16,
    /// The challenge and the highest counter accepted under it.
    highest: (u32, u32),
    /// The bound in the HEARD to the newest statement.
    told: Span,
    /// The latest time of the verdict: a change of the policy may postpone it by a bound.
    latest: Time,
}

struct World {
    hub: Driver<BeaconHub, Recorder<BeaconHub>>,
    settings: Settings,
    /// Before one of this number of steps, the hub is saved and goes on as a new machine; 0 for
    /// never.
    reloads: u64,
    now: Time,
    random: Random,
    devices: Vec<SimulatedDevice>,
    /// Datagrams in flight, by arrival time and order of sending.
    in_flight: BTreeMap<(Time, u64), Packet>,
    sent: u64,
    loss: u64,
    /// Whether the random changes of the devices have stopped.
    quiet: bool,
    max_beacons: u32,
    /// Every statement accepted so far: none may be accepted twice.
    accepted: BTreeSet<(u64, u32, u32)>,
    /// The statements that the attacker has seen delivered.
    recorded: Vec<Statement>,
    online: BTreeMap<u64, Known>,
    lost: u64,
    moved: u64,
    replayed: u64,
    /// Until when each kicked device is refused.
    refused_until: BTreeMap<u64, Time>,
    kicked: u64,
    /// Until when each banned device is kept out.
    banned_until: BTreeMap<u64, Time>,
    /// How many devices a ban has ended.
    banned: u64,
    /// The places held for devices that are gone.
    held: u32,
    /// The bound in force.
    bound: Span,
    /// Verdicts that fell later than the bound in force, because a longer one was told.
    told_longer: u64,
    counted_on: u64,
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
        let devices = (0..DEVICES).map(|device| SimulatedDevice {
            device: Device::new(device, random.next_u32()),
            port: device as u16,
            silent: false,
            next: Time::from_millis(random.below(3_000)),
            leaving: false,
        });
        let devices = devices.collect();
        let loss = [0, 10, 30][random.below(3) as usize];
        let recorder = Recorder::new(Time::ZERO, &settings);
        World {
            hub: Driver::tapped(Time::ZERO, BeaconHub::new(settings.clone()), recorder),
            settings,
            reloads: [0, 1, 16][random.below(3) as usize],
            now: Time::ZERO,
            random,
            devices,
            in_flight: BTreeMap::new(),
            sent: 0,
            loss,
            quiet: false,
            max_beacons,
            accepted: BTreeSet::new(),
            recorded: Vec::new(),
            online: BTreeMap::new(),
            lost: 0,
            moved: 0,
            replayed: 0,
            refused_until: BTreeMap::new(),
            kicked: 0,
            banned_until: BTreeMap::new(),
            banned: 0,
            held: 0,
            bound: BOUND,
            told_longer: 0,
            counted_on: 0,
        }
    }

    /// Performs the next event: a delivery, a deadline, or a statement of a device.
    fn step(&mut self) {
        if self.reloads > 0 && self.random.below(self.reloads) == 0 {
            let fresh = BeaconHub::new(self.settings.clone());
            self.hub.reload(self.now, fresh).expect("the state is whole");
        }
        let delivery = self.in_flight.first_key_value().map(|((at, _), _)| *at);
        let deadline = self.hub.next_deadline();
        let index = (0..self.devices.len()).min_by_key(|index| self.devices[*index].next).unwrap();
        let next_statement = self.devices[index].next;
        let next = [delivery, deadline, Some(next_statement)].into_iter().flatten().min().unwrap();
        self.now = self.now.max(next);
        if deadline == Some(next) {
            self.hub.expire(self.now, self.now);
            assert!(self.outputs().is_empty(), "an answer without a statement");
        } else if delivery == Some(next) {
            let (_, packet) = self.in_flight.pop_first().unwrap();
            self.deliver(packet);
        } else {
            self.act(index);
        }
        self.compare();
    }

    fn act(&mut self, index: usize) {
        let pause = self.random.below(2_000);
        let fate = if self.quiet { 60 } else { self.random.below(60) };
        let chance = self.random.next_u32();
        let simulated = &mut self.devices[index];
        simulated.next = self.now + Span::from_millis(1 + pause);
        match fate {
            0 => simulated.silent = true,
            1 => simulated.silent = false,
            2 => simulated.port = simulated.port.wrapping_add(20) % 600,
            3 => simulated.device = Device::new(index as u64, chance),
            4 => simulated.leaving = true,
            5..12 => simulated.leaving = false,
            12..16 => return self.attack(),
            16 if chance.is_multiple_of(4) => return self.kick(index as u64),
            17 => return self.hold_places(chance % 3),
            20 if chance.is_multiple_of(4) => {
                let until = self.now + Span::from_millis(u64::from(chance % 10_000));
                self.banned_until.insert(index as u64, until);
            }
            18 if chance.is_multiple_of(4) => return self.count_on(index, chance % 3_000),
            19 if chance.is_multiple_of(4) => return self.retune(),
            _ => {}
        }
        self.send_statement(index);
    }

    fn send_statement(&mut self, index: usize) {
        let simulated = &mut self.devices[index];
        if simulated.silent {
            return;
        }
        let statement = simulated.device.state(0, simulated.leaving);
        let packet = Packet::ToHub { statement, port: simulated.port, sent_at: self.now };
        self.send(packet);
    }

    fn kick(&mut self, device: u64) {
        if self.online.contains_key(&device) {
            self.refused_until.insert(device, self.now + KICK_REST);
            self.kicked += 1;
        }
        self.input(beacon::World::Command(BeaconCommand::Kick { device }));
        assert!(!self.online.contains_key(&device), "kicked, and still online");
    }

    /// An outage: the statements of a device go nowhere.
    fn count_on(&mut self, index: usize, statements: u32) {
        for _ in 0..statements {
            self.devices[index].device.state(0, false);
        }
        self.counted_on += 1;
    }

    fn retune(&mut self) {
        let (bound, policy) = if self.bound == BOUND {
            (SHORT, Policy::new(Span::from_secs(1), Span::from_secs(1), 2).unwrap())
        } else {
            (BOUND, Policy::demanding())
        };
        self.bound = bound;
        for known in self.online.values_mut() {
            known.latest = known.latest.max(self.now + known.told.max(bound));
        }
        self.input(beacon::World::Command(BeaconCommand::Retune(policy)));
    }

    fn hold_places(&mut self, places: u32) {
        self.held = places;
        self.input(beacon::Answer::PlacesHeld(places));
    }

    fn attack(&mut self) {
        if self.recorded.is_empty() {
            return;
        }
        let index = self.random.below(self.recorded.len() as u64) as usize;
        let statement = self.recorded[index];
        self.replayed += 1;
        // Delivered at once; an accepted replay fails the same checks as any statement.
        self.handle_statement(statement, ATTACKER, None);
    }

    fn send(&mut self, packet: Packet) {
        let copies = if self.random.below(100) < self.loss {
            0
        } else {
            1 + u64::from(self.random.below(10) == 0)
        };
        for _ in 0..copies {
            let delay = if self.random.below(10) == 0 { 3_000 } else { 50 };
            let at = self.now + Span::from_millis(self.random.below(delay));
            self.sent += 1;
            self.in_flight.insert((at, self.sent), packet);
        }
    }

    fn deliver(&mut self, packet: Packet) {
        match packet {
            Packet::ToHub { statement, port, sent_at } => {
                self.handle_statement(statement, port, Some(sent_at));
                self.recorded.push(statement);
            }
            Packet::ToDevice(answer) => {
                let index = answer.device as usize;
                match self.devices[index].device.handle(answer) {
                    Heard::Again => self.send_statement(index),
                    Heard::Latest { bound } => {
                        assert!([Some(BOUND), Some(SHORT)].contains(&bound));
                    }
                    Heard::Nothing => {}
                }
            }
        }
    }

    fn handle_statement(&mut self, statement: Statement, port: u16, sent_at: Option<Time>) {
        let fresh_at_most = Span::from_secs(3);
        let before = self.hub.machine().counters();
        let refused = self.refused_until.get(&statement.device);
        let refused = refused.is_some_and(|until| self.now < *until);
        let stated = (statement.challenge, statement.counter);
        let highest = self.online.get(&statement.device).map(|known| known.highest);
        if self.banned_until.get(&statement.device).is_some_and(|until| self.now < *until) {
            return self.handle_banned(statement, highest);
        }
        let answers = self.input(beacon::World::Statement { statement, address: address(port) });
        assert!(answers.len() <= usize::from(!refused), "a kicked device is not answered");
        if highest.is_some() {
            assert_eq!(answers.is_empty(), highest == Some(stated), "a living device is mute");
        }
        for (answer, to) in answers {
            assert_eq!((to, answer.device), (address(port), statement.device));
            match answer.says {
                Says::Heard { counter, bound_tenths } => {
                    assert_eq!((answer.challenge, counter), stated);
                    assert_eq!(u64::from(bound_tenths) * 100, self.bound.as_millis());
                }
                Says::Again { above, .. } => {
                    let back = answer.challenge == stated.0 && above < stated.1;
                    assert!(!back, "counters are used twice");
                }
            }
            if port != ATTACKER {
                self.send(Packet::ToDevice(answer));
            }
        }
        let after = self.hub.machine().counters();
        let newer = highest.is_some_and(|highest| stated.0 == highest.0 && stated.1 > highest.1);
        if after.heard == before.heard {
            return assert!(!newer, "a new counter was refused");
        }
        assert!(
            sent_at.is_some_and(|sent_at| self.now.since(sent_at) <= fresh_at_most),
            "an old statement was accepted"
        );
        let Statement { device, challenge, counter, leaving, .. } = statement;
        assert!(self.accepted.insert((device, challenge, counter)), "accepted twice");
        if let Some(known) = self.online.get_mut(&device) {
            known.last_heard = self.now;
            let newest = highest.is_none_or(|highest| stated.0 != highest.0) || newer;
            if newest {
                (known.highest, known.told) = (stated, self.bound);
            }
            known.latest = self.now + known.told.max(self.bound);
            assert!(newest || known.highest.1 - stated.1 < LATE, "too late");
        } else {
            assert!(leaving, "accepted, but not online");
        }
    }

    /// Handles a statement of a banned device: only a new one ends it, and none is accepted now or
    /// later.
    fn handle_banned(&mut self, statement: Statement, highest: Option<(u32, u32)>) {
        let Statement { device, challenge, counter, .. } = statement;
        let heard = self.hub.machine().counters().heard;
        self.input(beacon::World::Banned { statement });
        assert_eq!(self.hub.machine().counters().heard, heard, "a banned statement was accepted");
        let Some(highest) = highest else {
            return assert!(!self.online.contains_key(&device), "banned, and online");
        };
        let is_online = self.online.contains_key(&device);
        self.banned += u64::from(!is_online);
        if challenge == highest.0 {
            assert_eq!(is_online, counter <= highest.1, "only a new statement ends a device");
        }
    }

    /// Feeds an input to the hub. Events update the model; answers are returned.
    fn input(&mut self, input: impl Into<Input>) -> Vec<(Reply, SocketAddr)> {
        let input = input.into();
        self.hub.handle(self.now, input);
        let answers = self.outputs();
        let is_statement = matches!(input, Input::World(beacon::World::Statement { .. }));
        assert!(is_statement || answers.is_empty(), "an answer without a statement");
        answers
    }

    /// Takes the outputs of the hub.
    fn outputs(&mut self) -> Vec<(Reply, SocketAddr)> {
        let mut answers = Vec::new();
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Reply { reply, address } => answers.push((reply, address)),
                Output::Session { subject, event } => self.update_model(&subject, event),
                Output::Status { .. } => panic!("unexpected {output:?}"),
            }
        }
        answers
    }

    fn update_model(&mut self, subject: &beacon::Subject, event: session::Event) {
        let port = subject.address.port();
        match event {
            session::Event::Joined { .. } => {
                let known = Known {
                    last_heard: self.now,
                    port,
                    highest: (0, 0),
                    told: self.bound,
                    latest: self.now + self.bound,
                };
                assert!(self.online.insert(subject.device, known).is_none());
                let taken = self.online.len() + self.held as usize;
                assert!(taken <= self.max_beacons as usize, "admitted to a held place");
            }
            session::Event::Away { .. } | session::Event::Resumed { .. } => {
                panic!("a beacon has no link")
            }
            session::Event::Moved { from } => {
                let known = self.online.get_mut(&subject.device).unwrap();
                assert_eq!(from.port(), known.port);
                known.port = port;
                self.moved += 1;
            }
            session::Event::Left(verdict) => {
                let known = self.online.remove(&subject.device).unwrap();
                if verdict.due != self.now {
                    let told = known.told.max(self.bound);
                    assert!(verdict.due >= known.last_heard + told, "before it could know");
                    assert!(verdict.due <= known.latest);
                    self.told_longer += u64::from(known.told > self.bound);
                    assert!(self.now >= verdict.due && self.now.since(verdict.due) <= TICK);
                    self.lost += 1;
                }
            }
            session::Event::Suspect | session::Event::Recovered => {
                assert!(self.online.contains_key(&subject.device));
            }
            session::Event::Retuned(_) => assert!(self.online.contains_key(&subject.device)),
            session::Event::Overdue { .. }
            | session::Event::Warned { .. }
            | session::Event::Hung { .. } => {
                panic!("unexpected event {event:?}")
            }
        }
    }

    fn compare(&self) {
        assert_eq!(self.hub.machine().counters().online as usize, self.online.len());
        assert!(self.hub.machine().counters().online <= self.max_beacons);
        let mut suspects = 0;
        for (device, known) in &self.online {
            let presence = self.hub.machine().presence(*device).unwrap();
            assert_eq!(presence.last_heard, known.last_heard);
            assert_eq!(presence.subject.address, address(known.port));
            assert_ne!(known.port, ATTACKER);
            assert!(self.now <= known.latest + TICK, "online after the bound");
            suspects += u32::from(presence.suspect);
        }
        assert_eq!(self.hub.machine().counters().suspects, suspects);
    }
}

#[test]
fn a_fleet_agrees_with_its_model_on_a_faulty_network() {
    let (mut lost, mut moved, mut replayed, mut full, mut kicked) = (0, 0, 0, 0, 0);
    let (mut told_longer, mut counted_on, mut banned) = (0, 0, 0);
    for seed in 0..SCHEDULES {
        let mut world = World::new(seed);
        (0..STEPS).for_each(|_| world.step());
        (lost, moved) = (lost + world.lost, moved + world.moved);
        (replayed, full) = (replayed + world.replayed, full + world.hub.machine().counters().full);
        kicked += world.kicked;
        banned += world.banned;
        (told_longer, counted_on) =
            (told_longer + world.told_longer, counted_on + world.counted_on);
        // After the network heals, all devices that fit must come online.
        (world.loss, world.quiet) = (0, true);
        for simulated in &mut world.devices {
            (simulated.silent, simulated.leaving) = (false, false);
        }
        world.hold_places(0);
        if world.bound == SHORT {
            world.retune();
        }
        let healed = world.now + KICK_REST + BOUND.times(3);
        while world.now < healed {
            world.step();
        }
        let expected = DEVICES.min(u64::from(world.max_beacons)) as usize;
        assert_eq!(world.online.len(), expected, "schedule {seed}");
        // By a hub that is never saved.
        let summary = replay::<BeaconHub>(&world.hub.into_tap().into_record());
        assert_eq!(summary.map(|summary| summary.unrecorded), Ok(0), "schedule {seed}");
    }
    assert!(lost > 100 && moved > 1_000 && replayed > 10_000 && full > 100, "too few events");
    assert!(kicked > 100 && banned > 100, "too few kicks: {kicked}, or bans: {banned}");
    assert!(told_longer > 100 && counted_on > 500, "{told_longer} {counted_on}");
}
