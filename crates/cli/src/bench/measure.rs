//! The rounds of a run: each starts a target, opens links, sends heartbeats, and silences some.

use std::io;
use std::time::Duration;

use serde::Serialize;
use systole_net::Clock;

use super::BenchError;
use super::args::{LINKS_PER_WORKER, Mode, Plan, Role};
use super::burst::{Burst, Handshakes};
use super::control::{Peer, Verdict, WorkerCommand};
use super::fleet::{Fleet, Sum};
use super::links::histogram;
use super::progress::Progress;
use super::target::{Kind, Target};
use super::{proc, scrape};

/// Time after the bound at which verdicts that have not fallen count as missing.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time between two reports while verdicts are awaited.
const POLL: Duration = Duration::from_millis(250);

/// Links that a usual machine opens in a second.
const CONNECTS_A_SECOND: f64 = 5_000.0;
/// Pauses between the messages of a conversation.
const SHORT_PAUSE: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(30)];
/// Pauses after which a message comes after a silence; of random length, so that messages meet the
/// gateway at any point of a rest.
const LONG_PAUSE: [Duration; 2] = [Duration::from_millis(120), Duration::from_millis(220)];

/// The results of one round: one target from its start to its end.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Round {
    pub(crate) target: Kind,
    pub(crate) round: usize,
    pub(crate) links: usize,
    pub(crate) connect_seconds: f64,
    pub(crate) memory: Memory,
    pub(crate) windows: Vec<Window>,
    /// Messages of data among the heartbeats of an idle fleet.
    pub(crate) talk: Option<Talk>,
    pub(crate) silence: Option<SilenceRun>,
    /// Links that were closed although they were alive, at any time in the round.
    pub(crate) lost: u64,
    /// Whether the target ended after SIGTERM.
    pub(crate) clean_stop: bool,
}

/// Anonymous memory of the target.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Memory {
    /// Before the first link.
    pub(crate) before_bytes: u64,
    /// With all links up and idle.
    pub(crate) idle_bytes: u64,
    /// With all links up, after the load.
    pub(crate) loaded_bytes: u64,
    pub(crate) idle_bytes_per_link: f64,
}

/// The results of a measurement under steady load.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Window {
    pub(crate) mode: Mode,
    pub(crate) seconds: f64,
    pub(crate) heartbeats: u64,
    pub(crate) heartbeats_per_second: f64,
    pub(crate) cpu_ns_per_heartbeat: f64,
    /// CPU time of the target over time: 1 is one core.
    pub(crate) cores: f64,
    /// Heartbeats that the target began.
    pub(crate) probes: u64,
    pub(crate) overruns: u64,
    pub(crate) rtt_us: Quantiles,
    /// CPU use of processes that are not part of the run, in cores.
    pub(crate) others_cores: f64,
    /// The longest time between two turns of a load worker's loop.
    pub(crate) worker_gap_ms: f64,
}

/// Round-trip times of messages of data.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Talk {
    /// With pauses so short that the gateway does not rest.
    pub(crate) conversation_us: Quantiles,
    /// With pauses after which the gateway rests again, on one link alone.
    pub(crate) after_silence_us: Quantiles,
}

/// Quantiles of a set of times, in the unit that the name of the containing field gives.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// The results of silencing many links at once.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SilenceRun {
    pub(crate) silenced: usize,
    /// Links that sent messages without pause meanwhile, and their messages per second.
    pub(crate) data_links: usize,
    pub(crate) messages_per_second: f64,
    pub(crate) found: usize,
    pub(crate) missing: usize,
    /// Links closed although they were not silent, and silent ones closed before the bound.
    pub(crate) false_verdicts: u64,
    /// Lateness by the gateway's own histogram: upper bounds of buckets; null without data, or if
    /// the quantile lies in the last bucket.
    pub(crate) gateway_ms: Option<Bounds>,
    /// Why the gateway's histogram could not be read; the run goes on without it.
    pub(crate) gateway_error: Option<String>,
    /// Links that connected over TLS meanwhile.
    pub(crate) handshakes: Option<Handshakes>,
    /// Lateness as the clients see it, including the time for closing and detection.
    pub(crate) client_ms: Quantiles,
}

/// Upper bounds of quantiles.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Bounds {
    pub(crate) verdicts: u64,
    pub(crate) p99: Option<f64>,
    pub(crate) p999: Option<f64>,
}

/// Returns roughly how long [`run`] takes.
pub(crate) fn estimate(plan: &Plan) -> Duration {
    let modes = (plan.warmup + plan.window) * plan.modes.len() as u32;
    let talk = plan.role.map_or(Duration::ZERO, |_| (LONG_PAUSE[1] + plan.window) * 2);
    let each = connect_estimate(plan.links) + plan.args.settle + modes + talk;
    let silence = |kind: &Kind| match (kind, plan.silent) {
        (Kind::Baseline | Kind::RestingBaseline | Kind::BareProber, _) | (_, 0) => Duration::ZERO,
        (Kind::Gateway | Kind::NoRests, _) => plan.warmup + plan.bound(),
    };
    let round: Duration = kinds(plan).iter().map(|kind| each + silence(kind)).sum();
    round.saturating_mul(u32::try_from(plan.rounds).unwrap_or(u32::MAX))
}

/// Returns roughly how long it takes to open `links` links.
pub(crate) fn connect_estimate(links: usize) -> Duration {
    Duration::from_secs_f64(links as f64 / CONNECTS_A_SECOND)
}

fn kinds(plan: &Plan) -> &'static [Kind] {
    match (plan.role, plan.args.baseline_only, plan.args.baseline) {
        (Some(Role::Probe), _, _) => {
            &[Kind::Gateway, Kind::NoRests, Kind::Baseline, Kind::BareProber]
        }
        (Some(Role::Watch), _, _) => {
            &[Kind::Gateway, Kind::NoRests, Kind::Baseline, Kind::RestingBaseline]
        }
        (None, true, _) => &[Kind::Baseline],
        (None, false, true) => &[Kind::Gateway, Kind::Baseline],
        (None, false, false) => &[Kind::Gateway],
    }
}

/// Runs all rounds, with alternating targets, so that changes on the machine affect both.
pub(crate) fn run(plan: &Plan, progress: &Progress) -> Result<Vec<Round>, BenchError> {
    let role = plan.role.map_or(String::new(), |role| format!("role {}, ", role.name()));
    let mut rounds: Vec<Round> = Vec::new();
    for round in 1..=plan.rounds {
        for kind in kinds(plan) {
            let name = format!("{role}{} {round}/{}", kind.name(), plan.rounds);
            progress.begin(&name, plan.links);
            let period = period(plan, *kind, &rounds);
            rounds.push(Runner::new(plan, *kind, period, progress, name)?.run(round)?);
        }
    }
    Ok(rounds)
}

/// Returns the time between two heartbeats of a link. The links of a baseline beat as often as
/// those that the gateway has probed just before.
fn period(plan: &Plan, kind: Kind, rounds: &[Round]) -> Duration {
    let probed = rounds.iter().rfind(|round| round.target == Kind::Gateway);
    let window = probed.and_then(|round| round.windows.first());
    match (plan.role, kind, window) {
        (Some(Role::Probe), Kind::Baseline, Some(window)) => {
            let period = plan.links as f64 / window.heartbeats_per_second;
            Duration::try_from_secs_f64(period).unwrap_or(plan.period)
        }
        _ => plan.period,
    }
}

/// Returns the quantiles of samples in nanoseconds with their counts, divided by `unit_ns`.
pub(crate) fn quantiles(samples: impl Iterator<Item = (u64, u64)>, unit_ns: f64) -> Quantiles {
    let mut all = histogram();
    for (value, count) in samples {
        all.saturating_record_n(value, count);
    }
    let at = |q: f64| all.value_at_quantile(q) as f64 / unit_ns;
    Quantiles { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: all.max() as f64 / unit_ns }
}

struct Runner<'a> {
    plan: &'a Plan,
    period: Duration,
    clock: Clock,
    progress: &'a Progress,
    name: String,
    target: Target,
    fleet: Fleet,
}

impl<'a> Runner<'a> {
    fn new(
        plan: &'a Plan,
        kind: Kind,
        period: Duration,
        progress: &'a Progress,
        name: String,
    ) -> Result<Runner<'a>, BenchError> {
        let clock = Clock::start();
        let target = Target::start(kind, plan)?;
        let fleet = Fleet::start(clock, plan.workers, plan.links)?;
        Ok(Runner { plan, period, clock, progress, name, target, fleet })
    }

    fn run(mut self, round: usize) -> Result<Round, BenchError> {
        let before_bytes = self.target.memory()?;
        self.show("connecting");
        let start = self.clock.monotonic();
        let progress = self.progress;
        self.fleet.connect(&self.target.destination, |up| progress.links(up))?;
        let connect_seconds = seconds(self.clock.monotonic().less(start).as_nanos());
        self.show("idle");
        self.fleet.run_for(self.plan.args.settle)?;
        let idle_bytes = self.target.memory()?;
        let windows: Result<Vec<Window>, BenchError> =
            self.plan.modes.iter().map(|mode| self.window(*mode)).collect();
        let windows = windows?;
        let loaded_bytes = self.target.memory()?;
        let peer = self.target.kind.peer();
        // A bare prober answers no data.
        let talks = self.plan.role.is_some() && peer != Peer::Prober;
        let talk = talks.then(|| self.talk()).transpose()?;
        let wanted = peer == Peer::Gateway && self.plan.silent > 0;
        let silence = wanted.then(|| self.silence()).transpose()?;
        self.fleet.report()?;
        let lost = self.fleet.lost();
        self.show("stopping");
        let kind = self.target.kind;
        drop(self.fleet);
        Ok(Round {
            target: kind,
            round,
            links: self.plan.links,
            connect_seconds,
            memory: Memory {
                before_bytes,
                idle_bytes,
                loaded_bytes,
                idle_bytes_per_link: idle_bytes.saturating_sub(before_bytes) as f64
                    / self.plan.links as f64,
            },
            windows,
            talk,
            silence,
            lost,
            clean_stop: self.target.stop(self.clock)?,
        })
    }

    fn show(&self, what: &str) {
        self.progress.show(format!("{}: {what}", self.name));
    }

    fn drive(&mut self, mode: Mode) -> Result<(), BenchError> {
        let probes = match self.target.kind.peer() {
            Peer::Gateway => self.plan.role == Some(Role::Probe),
            Peer::Echo => false,
            Peer::Prober => true,
        };
        match mode {
            Mode::Paced if probes => self.fleet.broadcast(&WorkerCommand::Idle),
            Mode::Paced => {
                let period_ns = u64::try_from(self.period.as_nanos()).unwrap_or(u64::MAX);
                self.fleet.broadcast(&WorkerCommand::Pace { period_ns })
            }
            Mode::ClosedLoop => self.fleet.closed_loop(self.plan.active),
        }
    }

    fn window(&mut self, mode: Mode) -> Result<Window, BenchError> {
        self.show(mode.name());
        self.drive(mode)?;
        self.fleet.run_for(self.plan.warmup)?;
        self.fleet.report()?;
        let before = self.used()?;
        self.fleet.run_for(self.plan.window)?;
        let sum = self.fleet.report()?;
        let used = self.used()?.since(before);
        // Otherwise the closed loop would go on into the next part.
        self.fleet.broadcast(&WorkerCommand::Idle)?;
        Ok(Window::new(mode, &sum, used))
    }

    /// Sends messages of data among paced heartbeats.
    fn talk(&mut self) -> Result<Talk, BenchError> {
        self.drive(Mode::Paced)?;
        let conversation_us = self.talk_with("conversation", self.plan.workers, SHORT_PAUSE)?;
        let after_silence_us = self.talk_with("after silence", 1, LONG_PAUSE)?;
        self.fleet.broadcast(&WorkerCommand::Idle)?;
        Ok(Talk { conversation_us, after_silence_us })
    }

    fn talk_with(
        &mut self,
        what: &str,
        talkers: usize,
        pause: [Duration; 2],
    ) -> Result<Quantiles, BenchError> {
        self.show(what);
        self.fleet.talk(talkers, pause)?;
        // The first message of all comes after a silence.
        self.fleet.run_for(LONG_PAUSE[1])?;
        self.fleet.report()?;
        self.fleet.run_for(self.plan.window)?;
        let sum = self.fleet.report()?;
        self.fleet.talk(0, pause)?;
        Ok(quantiles(sum.talk_ns.iter().map(|ns| (*ns, 1)), 1e3))
    }

    fn used(&self) -> Result<Used, BenchError> {
        let machine_ns = proc::machine_ns()
            .map_err(|error| BenchError::io("cannot read the machine's CPU time", &error))?;
        Ok(Used {
            at_ns: self.clock.monotonic().as_nanos(),
            target_ns: self.target.cpu_ns()?,
            workers_ns: self.fleet.cpu_ns()?,
            machine_ns,
        })
    }

    fn silence(&mut self) -> Result<SilenceRun, BenchError> {
        self.show("silence");
        self.drive(Mode::Paced)?;
        self.fleet.send_data(self.plan.args.data)?;
        self.fleet.run_for(self.plan.warmup)?;
        let quiet = self.fleet.report()?;
        let before = self.scrape();
        let mut burst = self.burst()?;
        let start = self.clock.monotonic();
        let silenced = self.fleet.silence(self.plan.silent, self.plan.args.burst)?;
        let limit = self.plan.bound() + PATIENCE;
        let end = self.clock.monotonic().as_nanos() + limit.as_nanos() as u64;
        let (mut lost, mut messages, mut verdicts): (u64, u64, Vec<Verdict>) = (0, 0, Vec::new());
        let mut rtt = Vec::new();
        let is_over =
            |burst: &Option<Burst>| burst.as_ref().is_none_or(|it| it.took_ns().is_some());
        while (verdicts.len() < silenced || !is_over(&burst))
            && self.clock.monotonic().as_nanos() < end
        {
            self.fleet.run_for(POLL)?;
            let sum = self.fleet.report()?;
            if let Some(it) = burst.take() {
                let running = matches!(it, Burst::Running(_));
                rtt.extend(sum.rtt.iter().copied().filter(|_| running));
                burst = Some(it.go_on()?);
            }
            lost += sum.lost;
            messages += sum.messages;
            verdicts.extend(sum.verdicts);
        }
        let lasted = seconds(self.clock.monotonic().less(start).as_nanos());
        let added = before.and_then(|before| Ok(self.scrape()?.since(&before)));
        let bound_ns = self.plan.bound().as_nanos() as u64;
        let late =
            |verdict: &Verdict| (verdict.closed_ns - verdict.last_sent_ns).checked_sub(bound_ns);
        let early = verdicts.iter().filter(|verdict| late(verdict).is_none()).count() as u64;
        Ok(SilenceRun {
            silenced,
            data_links: self.plan.args.data,
            messages_per_second: messages as f64 / lasted,
            found: verdicts.len(),
            missing: silenced - verdicts.len(),
            false_verdicts: lost + early,
            handshakes: burst.and_then(|burst| burst.took_ns()).map(|took_ns| Handshakes {
                links: self.plan.args.handshakes,
                seconds: seconds(took_ns),
                rtt_us: quantiles(rtt.into_iter(), 1e3),
                quiet_rtt_us: quantiles(quiet.rtt.iter().copied(), 1e3),
            }),
            gateway_ms: added.as_ref().ok().and_then(bounds),
            gateway_error: added.err().map(|error| error.to_string()),
            client_ms: quantiles(verdicts.iter().filter_map(late).map(|ns| (ns, 1)), 1e6),
        })
    }

    /// Prepares the burst of handshakes, if one is wanted: it begins when the verdicts on links
    /// that fall silent now are about to fall.
    fn burst(&self) -> Result<Option<Burst>, BenchError> {
        let links = self.plan.args.handshakes;
        let Some(to) = self.target.secure.clone().filter(|_| links > 0) else {
            return Ok(None);
        };
        let fleet = Fleet::start(self.clock, links.div_ceil(LINKS_PER_WORKER), links)?;
        let due_ns = self.clock.monotonic().as_nanos() + self.plan.bound().as_nanos() as u64;
        Ok(Some(Burst::new(fleet, to, due_ns, self.period, self.clock)))
    }

    fn scrape(&self) -> io::Result<scrape::Buckets> {
        match &self.target.admin {
            Some(admin) => scrape::lateness(admin),
            None => Err(io::Error::other("no --admin address was given")),
        }
    }
}

/// The CPU times of target, workers and machine at one time.
#[derive(Clone, Copy, Debug)]
struct Used {
    at_ns: u64,
    target_ns: u64,
    workers_ns: u64,
    machine_ns: u64,
}

impl Used {
    fn since(self, before: Used) -> Used {
        Used {
            at_ns: self.at_ns.saturating_sub(before.at_ns),
            target_ns: self.target_ns.saturating_sub(before.target_ns),
            workers_ns: self.workers_ns.saturating_sub(before.workers_ns),
            machine_ns: self.machine_ns.saturating_sub(before.machine_ns),
        }
    }
}

impl Window {
    fn new(mode: Mode, sum: &Sum, used: Used) -> Window {
        let Used { at_ns: span_ns, target_ns: cpu_ns, workers_ns, machine_ns } = used;
        let heartbeats = sum.answered + sum.probes;
        Window {
            mode,
            seconds: seconds(span_ns),
            heartbeats,
            heartbeats_per_second: sum.per_second,
            cpu_ns_per_heartbeat: cpu_ns as f64 / heartbeats.max(1) as f64,
            cores: cpu_ns as f64 / span_ns.max(1) as f64,
            probes: sum.probes,
            overruns: sum.overruns,
            rtt_us: quantiles(sum.rtt.iter().copied(), 1e3),
            others_cores: machine_ns.saturating_sub(cpu_ns + workers_ns) as f64
                / span_ns.max(1) as f64,
            worker_gap_ms: sum.gap_ns as f64 / 1e6,
        }
    }
}

fn bounds(buckets: &scrape::Buckets) -> Option<Bounds> {
    let at = |q: f64| buckets.quantile(q).filter(|s| s.is_finite()).map(|s| s * 1e3);
    let verdicts = buckets.count();
    (verdicts > 0).then(|| Bounds { verdicts, p99: at(0.99), p999: at(0.999) })
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}
