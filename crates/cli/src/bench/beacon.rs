//! `systole bench --codec beacon`: runs a fleet of devices over UDP, and measures the gateway's
//! cost per device and its wrong verdicts.

mod load;
mod pressure;

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use systole_gateway::beacon::keys::Keys;
use systole_lab::started::samples;
use systole_net::{Clock, address};

use super::args::Plan;
use super::progress::Progress;
use super::report::table;
use super::target::{Kind, MASTER, Target, wait_until};
use super::{BenchError, scrape};
use load::Load;
use pressure::Pressure;

/// Budget of the gateway's memory per device, in bytes.
const MEMORY: f64 = 1_024.0;
/// Fewest devices at which that budget is judged: fewer have a large share each of the gateway's
/// fixed memory, which is part of the measurement.
const MEMORY_JUDGED_FROM: usize = 10_000;
/// Time limit for all devices to come online.
const ONLINE_WITHIN: Duration = Duration::from_secs(300);
/// Devices that come online in a second on a usual machine.
const ONLINE_A_SECOND: f64 = 100_000.0;

/// The results of a run with beacon devices.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    pub(super) devices: usize,
    pub(super) shards: usize,
    /// Devices online at the shard that has most of them, on one socket.
    pub(super) most_on_one_socket: u64,
    pub(super) online: u64,
    pub(super) bound_ms: u64,
    pub(super) period_ms: u64,
    /// Time until all devices were online.
    pub(super) rollout_seconds: f64,
    pub(super) memory_before_bytes: u64,
    pub(super) memory_bytes: u64,
    pub(super) bytes_per_device: f64,
    pub(super) window: Window,
    /// Verdicts on living devices.
    pub(super) false_verdicts: u64,
    pub(super) silenced: u64,
    pub(super) found: u64,
    /// Lateness of verdicts by the gateway's own histogram: upper bounds.
    pub(super) late_ms_p99: Option<f64>,
    pub(super) late_ms_p999: Option<f64>,
    pub(super) dropped: u64,
    /// Due statements that the bench could not send: if they are many, the other figures are
    /// unreliable.
    pub(super) left_out: u64,
    /// The greatest lateness of a sent statement. If it is too great to blame the gateway for the
    /// results, `overrun` says why.
    pub(super) behind_ms: f64,
    pub(super) overrun: Option<String>,
    pub(super) ok: bool,
}

/// A measurement while all devices live.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Window {
    pub(super) seconds: f64,
    pub(super) statements: u64,
    pub(super) statements_per_second: f64,
    pub(super) unanswered: u64,
    pub(super) cpu_ns_per_statement: f64,
    /// Cores that the gateway kept busy.
    pub(super) cpu_share: f64,
}

/// Brings the fleet online, keeps it alive, silences a part of it, and reads the gateway's metrics.
pub(super) fn run(plan: &Plan, progress: &Progress) -> Result<Report, BenchError> {
    let (period, bound) = (plan.period, plan.bound());
    refuse_unsupported(plan)?;
    progress.announce(estimate(plan));
    progress.begin("coming online", plan.links);
    let clock = Clock::start();
    let target = Target::start(Kind::Gateway, plan)?;
    let address = address::parse(&target.destination.address)
        .map_err(|error| BenchError::new(format!("the gateway's address: {error}")))?;
    let memory_before_bytes = target.memory()?;
    let mut load = Load::new(address, plan.links, Keys::derived(&MASTER), (clock, progress))
        .map_err(failed)?;
    let began = clock.monotonic();
    load.come_online(ONLINE_WITHIN).map_err(failed)?;
    let rollout = Duration::from(clock.monotonic().less(began));
    progress.begin("all devices live", plan.links);
    progress.links(plan.links);
    let pressure = Pressure::start(clock, &target)?;
    let window = live(plan, &target, &mut load, clock)?;
    let memory_bytes = target.memory()?;
    let living = page(&target)?;
    progress.begin(&format!("{} devices fall silent", plan.silent), plan.links - plan.silent);
    let last = fall_silent(plan, &target, &mut load, clock, verdicts(&living))?;
    let overrun = pressure.overrun(&target, load.behind)?;
    target.stop(clock)?;

    let per_shard = samples(&living, "systole_beacons");
    let false_verdicts = verdicts(&living);
    let found = verdicts(&last).saturating_sub(false_verdicts);
    let online = sum(&last, "systole_beacons");
    let lateness = scrape::Buckets::parse(&last);
    let late = |q| lateness.quantile(q).map(|seconds| seconds * 1e3);
    let grown = memory_bytes.saturating_sub(memory_before_bytes);
    let bytes_per_device = grown as f64 / plan.links as f64;
    let met = (bytes_per_device <= MEMORY || plan.links < MEMORY_JUDGED_FROM)
        && false_verdicts == 0
        && found == plan.silent as u64
        && online == (plan.links - plan.silent) as u64;
    Ok(Report {
        devices: plan.links,
        shards: per_shard.len(),
        most_on_one_socket: per_shard.iter().copied().fold(0.0, f64::max) as u64,
        online: per_shard.iter().sum::<f64>() as u64,
        bound_ms: bound.as_millis() as u64,
        period_ms: period.as_millis() as u64,
        rollout_seconds: rollout.as_secs_f64(),
        memory_before_bytes,
        memory_bytes,
        bytes_per_device,
        window,
        false_verdicts,
        silenced: plan.silent as u64,
        found,
        late_ms_p99: late(0.99),
        late_ms_p999: late(0.999),
        dropped: sum(&last, "systole_beacon_dropped_total"),
        left_out: load.left_out,
        behind_ms: load.behind.as_secs_f64() * 1e3,
        overrun,
        ok: met,
    })
}

/// Returns roughly how long a run takes.
fn estimate(plan: &Plan) -> Duration {
    let online = Duration::from_secs_f64(plan.links as f64 / ONLINE_A_SECOND);
    let living = plan.warmup + plan.window.max(plan.bound());
    online + living + plan.bound() + plan.period + plan.args.settle
}

fn refuse_unsupported(plan: &Plan) -> Result<(), BenchError> {
    if plan.period * 2 > plan.bound() {
        let what = "a device must send two statements within the bound: shorten --period, or \
                    lengthen --idle and --interval";
        return Err(BenchError::new(what));
    }
    let args = &plan.args;
    if args.target.is_some() || args.soak.is_some() || args.baseline || args.baseline_only {
        let what = "--codec beacon starts its own gateway, without --soak and --baseline";
        return Err(BenchError::new(what));
    }
    Ok(())
}

/// Measures while all devices live, after the warm-up, for at least one bound.
fn live(
    plan: &Plan,
    target: &Target,
    load: &mut Load<'_>,
    clock: Clock,
) -> Result<Window, BenchError> {
    load.live(plan.warmup, plan.period, plan.links).map_err(failed)?;
    let (before, cpu, began) = (load.seen, target.cpu_ns()?, clock.monotonic());
    load.live(plan.window.max(plan.bound()), plan.period, plan.links).map_err(failed)?;
    let seconds = Duration::from(clock.monotonic().less(began)).as_secs_f64();
    let cpu_ns = target.cpu_ns()?.saturating_sub(cpu);
    let statements = load.seen.stated - before.stated;
    let heard = load.seen.heard - before.heard;
    Ok(Window {
        seconds,
        statements,
        statements_per_second: statements as f64 / seconds,
        unanswered: statements.saturating_sub(heard),
        cpu_ns_per_statement: cpu_ns as f64 / statements.max(1) as f64,
        cpu_share: cpu_ns as f64 / 1e9 / seconds,
    })
}

/// Silences the last devices while the others live on. Returns the metrics once all verdicts have
/// fallen or are overdue.
fn fall_silent(
    plan: &Plan,
    target: &Target,
    load: &mut Load<'_>,
    clock: Clock,
    before: u64,
) -> Result<String, BenchError> {
    let (period, kept) = (plan.period, plan.links - plan.silent);
    load.live(plan.bound() + period + plan.args.settle, period, kept).map_err(failed)?;
    let mut last = page(target)?;
    wait_until(clock, plan.bound(), || {
        let enough = verdicts(&last) >= plan.silent as u64 + before;
        if !enough && let Ok(page) = page(target) {
            last = page;
        }
        // The living devices must go on sending while we wait.
        enough || load.live(Duration::from_millis(100), period, kept).is_err()
    });
    Ok(last)
}

fn failed(error: std::io::Error) -> BenchError {
    BenchError::io("the devices", &error)
}

fn page(target: &Target) -> Result<String, BenchError> {
    let admin = target.admin.as_deref().unwrap_or_default();
    scrape::page(admin).map_err(|error| BenchError::io("cannot read the metrics", &error))
}

fn sum(page: &str, name: &str) -> u64 {
    samples(page, name).iter().sum::<f64>() as u64
}

/// Returns the number of verdicts of silence so far.
fn verdicts(page: &str) -> u64 {
    sum(page, "systole_verdicts_total{cause=\"unknown\"}")
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { devices, shards, bound_ms, period_ms, .. } = self;
        writeln!(
            f,
            "{devices} devices, {shards} shards, a statement each {period_ms} ms, D = {bound_ms} ms"
        )?;
        let mut rows = table(["", ""], 1);
        let late = |late: Option<f64>| late.map_or("-".to_owned(), |ms| format!("<= {ms} ms"));
        for (what, value) in [
            ("online", self.online.to_string()),
            ("most on one socket", self.most_on_one_socket.to_string()),
            ("all online after", format!("{:.1} s", self.rollout_seconds)),
            ("memory per device", format!("{:.0} B", self.bytes_per_device)),
            ("statements a second", format!("{:.0}", self.window.statements_per_second)),
            ("CPU per statement", format!("{:.2} us", self.window.cpu_ns_per_statement / 1e3)),
            ("statements without an answer", self.window.unanswered.to_string()),
            ("dropped by the gateway", self.dropped.to_string()),
            ("left out by the bench, overloaded", self.left_out.to_string()),
            ("sent late by the bench, at most", format!("{:.0} ms", self.behind_ms)),
            ("verdicts on living devices", self.false_verdicts.to_string()),
            ("silent devices found", format!("{} of {}", self.found, self.silenced)),
            ("lateness p99", late(self.late_ms_p99)),
            ("lateness p99.9", late(self.late_ms_p999)),
        ] {
            rows.add_row([what.to_owned(), value]);
        }
        writeln!(f, "{rows}")?;
        let verdict = if self.ok { "ok" } else { "MISSED" };
        if *devices < MEMORY_JUDGED_FROM {
            writeln!(
                f,
                "memory: no verdict: judged from {MEMORY_JUDGED_FROM} devices on; fewer share the \
                 fixed memory"
            )?;
            writeln!(f, "no wrong verdict, all silent ones found: {verdict}")?;
        } else {
            writeln!(
                f,
                "at most {MEMORY} B per device, no wrong verdict, all silent ones found: {verdict}"
            )?;
        }
        if let Some(why) = &self.overrun {
            writeln!(f, "OVERRUN: the load itself was late, and may cause the lateness: {why}")?;
        }
        Ok(())
    }
}
