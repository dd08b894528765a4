//! Random schedules from a seed: policies, roles, traffic, commands and faults.

use systole_core::cause::Cause;
use systole_core::hub::{FRAME_MEMORY, HubCommand};
use systole_core::kernel::SocketError;
use systole_core::link::{self, Command, Goodbye, Hung, Introduction, Limits, Settings, Side};
use systole_core::liveness::Role;
use systole_core::random::Random;
use systole_core::tap::record::ReplaySummary;
use systole_core::wire::{CloseReason, Codec, Malformed};
use systole_core::{Policy, Span};

use super::farewells::{Farewell, text};
use super::gateway::{Admissions, HubConfig, LoopTiming};
use super::kernel::{Doubted, soft_error};
use super::model::Model;
use super::network::{Quality, Segment};
use super::peer::{NEVER, Plan, claim};
use super::rates::rates;
use super::world::World;

const MILLI: u64 = 1_000_000;
const CODECS: [Codec; 3] = [Codec::Native, Codec::Line, Codec::Message1028];

/// The maximum number of steps of one schedule.
const STEPS: u64 = 600;

/// The counts of what happened in one or more schedules.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Outcome {
    pub(super) steps: u64,
    pub(super) inputs: u64,
    pub(super) outputs: u64,
    pub(super) virtual_ns: u128,
    pub(super) condemned: u64,
    pub(super) recovered: u64,
    pub(super) beats: u64,
    /// Changes of a kernel's patience.
    pub(super) patience: u64,
    /// Warnings of peers that do not read.
    pub(super) unread: u64,
    /// Peers that were kept beyond the bound.
    pub(super) kept: u64,
    /// Peers that were hung at the bound: ended, or kept.
    pub(super) hung: u64,
    /// Bytes without plaintext that answered a probe.
    pub(super) without_plaintext: u64,
    pub(super) requested: u64,
    pub(super) checked: u64,
    /// Examinations whose progress was evidence.
    pub(super) progress: u64,
    /// Polls of the hub that were left without an answer.
    pub(super) unanswered: u64,
    /// Rests of the loop.
    pub(super) rests: u64,
    /// Answers to admissions.
    pub(super) admissions: Admissions,
    /// Links ended because a frame was not complete in time.
    pub(super) stalled: u64,
    /// Links ended because their frame was the oldest when the memory for frames was full.
    pub(super) crowded_out: u64,
    /// Messages for many links, each counted on each link that received it.
    pub(super) broadcasts: u64,
    /// Links that moved from one hub to another.
    pub(super) moves: u64,
    /// Times that the hubs were saved and loaded.
    pub(super) reloads: u64,
    /// Verdicts that waited longer than the bound for a long round trip.
    pub(super) stretched: u64,
    /// Links ended because their peer sent too much, and peers told their policy for it.
    pub(super) flooded: u64,
    pub(super) told: u64,
    /// Sessions that ended because what they were granted did.
    pub(super) expired: u64,
    /// Links that ended with a text for people.
    pub(super) texts: u64,
}

impl Outcome {
    pub(super) fn plus(self, other: Outcome) -> Outcome {
        Outcome {
            steps: self.steps + other.steps,
            inputs: self.inputs + other.inputs,
            outputs: self.outputs + other.outputs,
            virtual_ns: self.virtual_ns + other.virtual_ns,
            condemned: self.condemned + other.condemned,
            recovered: self.recovered + other.recovered,
            beats: self.beats + other.beats,
            patience: self.patience + other.patience,
            unread: self.unread + other.unread,
            kept: self.kept + other.kept,
            hung: self.hung + other.hung,
            without_plaintext: self.without_plaintext + other.without_plaintext,
            requested: self.requested + other.requested,
            checked: self.checked + other.checked,
            progress: self.progress + other.progress,
            unanswered: self.unanswered + other.unanswered,
            rests: self.rests + other.rests,
            admissions: self.admissions.plus(other.admissions),
            stalled: self.stalled + other.stalled,
            crowded_out: self.crowded_out + other.crowded_out,
            broadcasts: self.broadcasts + other.broadcasts,
            moves: self.moves + other.moves,
            reloads: self.reloads + other.reloads,
            stretched: self.stretched + other.stretched,
            flooded: self.flooded + other.flooded,
            told: self.told + other.told,
            expired: self.expired + other.expired,
            texts: self.texts + other.texts,
        }
    }

    /// Returns whether each kind of checked event happened often enough.
    pub(super) fn has_enough_events(&self) -> bool {
        let verdicts = self.condemned > 100 && self.recovered > 100 && self.beats > 1_000;
        let frames = self.stalled > 10 && self.crowded_out > 10 && self.rests > 100;
        let world = self.hung > 10 && self.progress > 100 && self.unanswered > 100;
        let world =
            world && self.without_plaintext > 100 && self.requested > 100 && self.checked > 100;
        let Admissions { delayed, refused, proved, disproved, .. } = self.admissions;
        let Admissions { anonymous, late, sent_home, .. } = self.admissions;
        let admissions = delayed > 1_000 && refused > 10 && late > 10 && sent_home > 100;
        let admissions = admissions && anonymous > 100 && self.expired > 10;
        let ends = self.flooded > 10 && self.told > 10 && self.texts > 10;
        let admissions = admissions && proved > 100 && disproved > 10;
        let kernel = self.patience > 1_000 && self.unread > 10 && self.kept > 10;
        let kernel = kernel && self.stretched > 5;
        let hubs = self.moves > 10_000 && self.reloads > 10_000;
        let world = world && ends && self.broadcasts > 100;
        verdicts && frames && world && admissions && kernel && hubs
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Outcome { steps, inputs, outputs, virtual_ns, .. } = self;
        let Outcome { condemned, recovered, beats, patience, unread, kept, .. } = self;
        let Outcome { hung, progress, unanswered, rests, .. } = self;
        let days = virtual_ns / u128::from(86_400_000 * MILLI);
        write!(f, "{steps} steps in {days} virtual days, {inputs} inputs and {outputs} outputs; ")?;
        write!(f, "{beats} heartbeats, {recovered} recoveries, {condemned} verdicts on silence, ")?;
        write!(
            f,
            "{patience} changes of patience, {unread} peers that do not read, {kept} kept, "
        )?;
        write!(f, "{hung} hung, {progress} times progress, {unanswered} unanswered polls, ")?;
        let Admissions { delayed, refused, proved, disproved, .. } = self.admissions;
        let Admissions { anonymous, late, sent_home, .. } = self.admissions;
        write!(f, "{rests} rests, {delayed} admissions delayed, {refused} refused, ")?;
        write!(f, "{late} answered too late, {sent_home} sent home, ")?;
        write!(f, "{proved} identities proved, {disproved} disproved, {anonymous} anonymous, ")?;
        write!(f, "{} sessions that were granted a time and ended, ", self.expired)?;
        write!(f, "{} floods, {} told their policy, ", self.flooded, self.told)?;
        write!(f, "{} texts in CLOSE, ", self.texts)?;
        write!(f, "{} probes answered without plaintext, ", self.without_plaintext)?;
        write!(f, "{} heartbeats on request, ", self.requested)?;
        write!(f, "{} for a raised cap, ", self.checked)?;
        write!(f, "{} messages for many links, ", self.broadcasts)?;
        write!(f, "{} verdicts after a stretched bound, ", self.stretched)?;
        write!(f, "{} moves, {} reloads, ", self.moves, self.reloads)?;
        write!(f, "{} stalled frames, {} crowded out", self.stalled, self.crowded_out)
    }
}

/// Runs the schedule of `seed`; panics if an invariant does not hold.
pub(super) fn run(seed: u64, verbose: bool) -> Outcome {
    let mut schedule = Schedule::new(seed, verbose);
    schedule.run_actions();
    let Schedule { world, .. } = schedule;
    let mut outcome =
        Outcome { steps: world.steps, virtual_ns: u128::from(world.raw), ..Outcome::default() };
    for model in world.peers.iter().filter_map(|peer| peer.gateway_model.as_ref()) {
        outcome.condemned += u64::from(model.cause.is_some_and(|cause| cause.name() == "unknown"));
        outcome.recovered += model.recoveries;
        outcome.beats += model.beats;
        outcome.patience += model.kernel.changes;
        outcome.unread += model.unread;
        outcome.kept += model.keeps;
        outcome.hung += model.hangs;
        outcome.without_plaintext += model.without_plaintext;
        outcome.requested += model.requested;
        outcome.checked += model.checked;
        outcome.progress += model.progress;
        outcome.unanswered += model.unanswered;
        outcome.stretched += model.stretched;
        outcome.told += u64::from(model.sending.told);
        outcome.flooded += u64::from(model.cause == Some(Cause::Flooding));
        outcome.expired += u64::from(model.is_expired());
        let has_text = |said: &Farewell| !said.text.is_empty();
        let commanded = model.cause == Some(Cause::Kicked);
        outcome.texts += u64::from(commanded && model.said.as_ref().is_some_and(has_text));
        let malformed = |what| model.cause == Some(Cause::Protocol(what));
        outcome.stalled += u64::from(malformed(Malformed::StalledFrame));
        outcome.crowded_out += u64::from(malformed(Malformed::OldestFrame));
    }
    outcome.rests = world.gateway.rests;
    outcome.admissions = world.gateway.admissions;
    outcome.broadcasts = world.peers.iter().map(|peer| peer.to_peer.broadcasts_received).sum();
    let hubs = &world.gateway.hubs;
    (outcome.moves, outcome.reloads) = (hubs.moves, hubs.reloads);
    let ReplaySummary { inputs, outputs, .. } = world.replay();
    Outcome { inputs, outputs, ..outcome }
}

struct Schedule {
    world: World,
    /// The unit of all times: no interval is shorter, no healthy delay longer than a quarter.
    unit: u64,
    /// The mean time between two actions.
    pause: u64,
    until: u64,
}

impl Schedule {
    fn new(seed: u64, verbose: bool) -> Schedule {
        let mut random = Random::new(seed);
        // From policies for a local network to policies of years.
        let unit = match random.below(20) {
            0 => 86_400_000 * MILLI * (1 + random.below(90)),
            1..4 => (1 + random.below(600)) * 1_000 * MILLI,
            _ => (50 + random.below(2_000)) * MILLI,
        };
        let listeners = CODECS.map(|codec| {
            let mut settings = Settings::new(codec, Side::Accepting, policy(unit, &mut random));
            settings.role = role(&mut random);
            settings.handshake_timeout = Span::from_nanos(unit * (2 + random.below(10)));
            let longest_bound = Span::from_nanos(unit.saturating_mul(200));
            settings.limits = Limits { shortest_bound: Span::from_nanos(unit), longest_bound };
            settings.report_heartbeats = true;
            settings.examines = random.below(2) == 0;
            settings.rates = rates(&mut random);
            if random.below(2) == 0 {
                settings.hung = Hung::Keep(Span::from_nanos(random.below(unit * 100)));
            }
            settings
        });
        let frame_memory = match random.below(8) {
            0 => random.below(3_000) as usize,
            _ => FRAME_MEMORY,
        };
        let hub_config =
            HubConfig { listeners: listeners.to_vec(), seed: random.next_u64(), frame_memory };
        let lag = random.below(2) * random.below((unit / 8).min(40 * MILLI));
        let cost = 1 + random.below((unit / 16).min(20 * MILLI));
        let batch = if random.below(3) == 0 { 1 } else { 64 };
        let rest = random.below(3) * 4 * MILLI;
        let stranger = if random.below(4) == 0 { 2 } else { 0 };
        // Before each input, before some, or never; saved and loaded is every schedule.
        let moves = [0, 1, 16, 16][random.below(4) as usize];
        let reloads = [1, 8, 32, 32][random.below(4) as usize];
        let timing = LoopTiming { lag, batch, cost, rest, stranger, moves, reloads };
        let pause = unit * (1 + random.below(20));
        let until = pause * (8 + random.below(40));
        Schedule { world: World::new(hub_config, timing, random, verbose), unit, pause, until }
    }

    fn run_actions(&mut self) {
        for _ in 0..=self.world.random.below(3) {
            self.connect();
        }
        let mut action = self.next_action();
        while self.world.steps < STEPS && self.world.raw < self.until {
            let next = self.world.next();
            if next < action {
                self.world.step();
            } else {
                self.world.run_until(action.min(next));
                self.world.raw = self.world.raw.max(action);
                self.act();
                action = self.next_action();
            }
        }
    }

    fn next_action(&mut self) -> u64 {
        self.world.raw + 1 + self.world.random.below(2 * self.pause)
    }

    fn connect(&mut self) {
        let random = &mut self.world.random;
        let listener = [0_u16, 0, 0, 1, 2][random.below(5) as usize];
        let unit = self.unit;
        let codec = CODECS[usize::from(listener)];
        let asks = (random.below(3) == 0).then(|| policy(unit, random));
        let name = self.world.peers.len();
        let claims = codec.has_handshake() && name.is_multiple_of(2);
        let identity = if claims { claim(name).into() } else { Box::default() };
        let side = Side::Connecting(Introduction { identity, asks, ..Introduction::default() });
        let mut settings = Settings::new(codec, side, policy(unit, random));
        settings.role = role(random);
        settings.handshake_timeout = Span::from_nanos(unit * (2 + random.below(10)));
        settings.report_heartbeats = true;
        let loss = if random.below(4) == 0 { random.below(300) } else { 0 };
        let (delay, jitter) = (random.below(unit / 8), random.below(unit / 8));
        let quality = Quality { delay, jitter, loss };
        let to_gateway_period = traffic(unit, random);
        let to_peer_period = traffic(unit, random);
        let doubted = match random.below(9) {
            0..3 => Doubted::Nothing,
            3..5 => Doubted::NotReading,
            5 => Doubted::Hung,
            6 => Doubted::TakesFast,
            7 => Doubted::Wakes,
            _ => Doubted::TakesSlowly,
        };
        let sealed = self.world.random.below(4) == 0;
        let plan = Plan {
            listener,
            settings,
            quality,
            to_gateway_period,
            to_peer_period,
            doubted,
            sealed,
        };
        let role_at_gateway = self.world.gateway.hubs.listeners()[usize::from(listener)].role;
        // Without a handshake the first message introduces a peer, and it may never be sent.
        let has_handshake = codec.has_handshake();
        let index = self.world.connect(plan);
        self.world.peers[index].healthy =
            loss == 0 && role_at_gateway == Role::Probe && has_handshake;
        self.world.draw_answer(index, unit);
        if listener == 0 && self.world.random.below(16) == 0 {
            self.world.trickle(index, self.unit / 2);
        }
    }

    fn act(&mut self) {
        let count = self.world.peers.len() as u64;
        let index = self.world.random.below(count) as usize;
        match self.world.random.below(37) {
            0..3 => self.connect_one_more(),
            3..11 => self.disturb_path(index),
            11..14 => self.end_link(index),
            14..24 => self.command(index),
            24..26 => self.command_all(),
            26..28 => self.stop_at_the_verdict(index),
            28..32 => self.stop_the_observer(),
            32..35 => self.burst(index),
            _ => self.drip(index),
        }
    }

    fn connect_one_more(&mut self) {
        if self.world.peers.len() < 6 {
            self.connect();
        }
    }

    fn disturb_path(&mut self, index: usize) {
        let span = self.duration();
        let random = &mut self.world.random;
        let (up, down) = [(true, true), (true, false), (false, true)][random.below(3) as usize];
        match random.below(4) {
            0 | 1 => self.world.outage(index, span, up, down),
            2 => self.world.cut(index, up, down),
            _ => {
                let raw = self.world.raw;
                self.world.peers[index].hang(raw, raw + span);
            }
        }
    }

    fn end_link(&mut self, index: usize) {
        match self.world.random.below(12) {
            // A filter on the way comes and goes: a peer that lives survives it.
            9.. => {
                for _ in 0..=self.world.random.below(4) {
                    let error = soft_error(&mut self.world.random);
                    self.world.input(index, link::World::Warned(error));
                }
            }
            7 => self.world.half_close(index),
            8 => {
                self.world.half_close(index);
                let reset = self.world.random.below(2) == 0;
                self.world.exit(index, reset.then_some(Segment::Reset));
            }
            0 => self.world.exit(index, Some(Segment::Fin)),
            1 => self.world.exit(index, Some(Segment::Reset)),
            2 => self.world.exit(index, None),
            3 if self.world.peers[index].codec() != Codec::Line => {
                self.world.exit(index, Some(Segment::Bytes(vec![0; 4])));
            }
            3 | 4 => self.world.fail(index, SocketError::TimedOut),
            5 => self.world.fail(index, SocketError::Local),
            _ if self.world.random.below(2) == 0 => {
                self.world.input(index, link::World::Overflowed);
            }
            _ => self.world.input(index, link::World::Illegal(Malformed::Record)),
        }
    }

    fn burst(&mut self, index: usize) {
        let (count, heartbeats) =
            (1 + self.world.random.below(40), self.world.random.below(2) == 0);
        self.world.burst(index, count, heartbeats);
    }

    fn drip(&mut self, index: usize) {
        let pieces = 1 + self.world.random.below(100) as usize;
        let pause = self.unit / 4 + self.world.random.below(self.unit * 8);
        if self.world.peers[index].plan.sealed && self.world.random.below(2) == 0 {
            return self.world.drip_record(index, pieces as u32, pause);
        }
        self.world.drip(index, pieces, pause);
    }

    fn command(&mut self, index: usize) {
        let at_the_peer = self.world.random.below(3) == 0;
        let span = self.duration();
        let World { random, peers, .. } = &mut self.world;
        let next = |messages: &mut super::messages::MessageStream, random: &mut Random| {
            messages.next_heartbeat_data(random)
        };
        let data = match at_the_peer {
            true => next(&mut peers[index].to_gateway, random),
            false => next(&mut peers[index].to_peer, random),
        };
        let goodbye = Goodbye {
            stay_away: random.below(2) == 0,
            return_after: Span::from_nanos(random.below(span.max(1))),
            ..CloseReason::Kicked.into()
        };
        let text = text(random);
        let command = match random.below(18) {
            0..6 => Command::Retune(policy(self.unit, random)),
            6..9 => Command::Hold(Span::from_nanos(span)),
            9..12 => Command::Release,
            12..15 => Command::HeartbeatData(&data),
            15..17 => Command::Heartbeat,
            _ if at_the_peer => Command::Close { goodbye: CloseReason::Done.into(), text: &text },
            _ => Command::Close { goodbye, text: &text },
        };
        if at_the_peer {
            let raw = self.world.raw;
            self.world.peers[index].command(raw, command, &mut self.world.random);
        } else {
            self.world.command(index, command);
        }
    }

    fn command_all(&mut self) {
        let random = &mut self.world.random;
        let command = match random.below(8) {
            0 => HubCommand::Drain {
                limit: Span::from_secs(30),
                reconnect_within: Span::from_nanos(self.unit),
            },
            1 => HubCommand::ReportHeartbeats(true),
            2 | 3 => {
                let listener = random.below(4) as u16;
                return self.world.broadcast((listener < 3).then_some(listener));
            }
            _ => {
                let listener = random.below(3) as u16;
                let policy = policy(self.unit, random);
                HubCommand::Retune { listener, policy }
            }
        };
        self.world.command_all(command);
    }

    fn stop_the_observer(&mut self) {
        let span = self.duration();
        let suspend = self.world.random.below(4) == 0;
        let raw = self.world.raw;
        self.world.gateway.stop(raw, raw + span, suspend);
    }

    /// Stops the observer at the worst moment: shortly before a verdict, after an outage. When it
    /// continues, the delayed bytes have arrived and the verdict is due at the same time.
    fn stop_at_the_verdict(&mut self, index: usize) {
        let World { raw, gateway, peers, .. } = &self.world;
        let model = peers[index].gateway_model.as_ref().filter(|model| model.is_established());
        let Some(due) = model.and_then(Model::due).map(|due| gateway.raw_at(due)) else {
            return;
        };
        let wait = due.saturating_sub(*raw);
        if wait == 0 || wait > self.unit * 80 {
            return;
        }
        let heals = wait + self.world.random.below(self.unit);
        for other in 0..self.world.peers.len() {
            if other == index || self.world.random.below(2) == 0 {
                self.world.outage(other, heals, true, true);
            }
        }
        let stops = due - self.world.random.below(wait.min(2 * MILLI));
        while self.world.steps < STEPS && self.world.next() <= stops {
            self.world.step();
        }
        if self.world.steps < STEPS {
            self.world.raw = self.world.raw.max(stops);
            self.world.gateway.stop(stops, stops + 2 * self.unit, false);
        }
    }

    /// Returns a random duration: mostly about a bound, rarely fifty days.
    fn duration(&mut self) -> u64 {
        let random = &mut self.world.random;
        match random.below(40) {
            0 => 50 * 86_400_000 * MILLI,
            1..20 => random.below(self.unit * 4),
            _ => random.below(self.unit * 60),
        }
    }
}

fn role(random: &mut Random) -> Role {
    if random.below(4) == 0 { Role::Watch } else { Role::Probe }
}

fn traffic(unit: u64, random: &mut Random) -> u64 {
    match random.below(4) {
        0 => unit / 2 + random.below(unit * 4),
        1 => unit + random.below(unit * 60),
        _ => NEVER,
    }
}

fn policy(unit: u64, random: &mut Random) -> Policy {
    let mut length = |most: u64| {
        let nanos = unit + random.below(unit * most);
        Span::from_millis(nanos.div_ceil(MILLI))
    };
    let (idle, interval, keepalive) = (length(15), length(8), length(30));
    let policy = match random.below(14) {
        0 => Policy::never(),
        _ => Policy::new(idle, interval, 1 + random.below(5) as u8).expect("legal"),
    };
    let policy = match random.below(4) {
        0 => policy.with_keepalive(keepalive).expect("legal"),
        _ => policy,
    };
    policy.with_spread(random.below(2) == 0).with_enforce(random.below(7) != 0)
}
