//! The soak: a long run of paced links under CPU load. The gateway is stopped for some time in the
//! middle, and links fall silent at several times. No live link may be closed, and each dead one
//! must be found.

use std::fmt;
use std::process::{Child, Stdio};
use std::time::Duration;

use serde::Serialize;
use systole_gateway::config::show_span;
use systole_net::Clock;

use super::BenchError;
use super::args::Plan;
use super::control::{Verdict, WorkerCommand};
use super::fleet::{Fleet, own_process};
use super::measure::{Quantiles, connect_estimate, quantiles};
use super::pause::Pause;
use super::progress::Progress;
use super::report::table;
use super::target::{Kind, Target};

/// Links that fall silent at each of the points below.
const SILENT_EACH: usize = 100;
/// Points of the run at which links fall silent, in hundredths of its length.
const POINTS: [u32; 4] = [10, 30, 60, 75];
/// Time before the stop at which another hundred links fall silent, so that their bound overlaps
/// the stop.
const BEFORE_STOP: Duration = Duration::from_secs(1);
/// Time between two reports of the workers.
const POLL: Duration = Duration::from_millis(500);

/// The results of a soak.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Soak {
    pub(crate) seconds: f64,
    pub(crate) links: usize,
    pub(crate) burn: bool,
    pub(crate) stop_seconds: f64,
    pub(crate) bound_ms: f64,
    pub(crate) tolerance_ms: f64,
    pub(crate) heartbeats: u64,
    pub(crate) overruns: u64,
    pub(crate) silenced: usize,
    pub(crate) found: usize,
    /// Links that were closed although they were alive.
    pub(crate) false_verdicts: u64,
    /// Silent links closed before the bound: as wrong as closing a live one.
    pub(crate) early: usize,
    /// Silent links closed later than the bound, the stall and the tolerance together.
    pub(crate) late: usize,
    /// Lateness as the clients see it, minus the stall.
    pub(crate) late_ms: Quantiles,
    /// The longest time between two turns of a load worker's loop; near the bound it could cause a
    /// verdict.
    pub(crate) worker_gap_ms: f64,
    pub(crate) ok: bool,
}

/// A step of the timetable.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Silence,
    Stop,
    Continue,
    End,
}

/// Runs a soak for `length`, which must leave room for the bound and the stop.
pub(crate) fn run(plan: &Plan, length: Duration, progress: &Progress) -> Result<Soak, BenchError> {
    let stop = plan.args.stop.unwrap_or_default();
    let steps = steps(length, stop);
    let silenced = steps.iter().filter(|(_, step)| *step == Step::Silence).count() * SILENT_EACH;
    let needed = (plan.bound() + stop + plan.args.tolerance) * 4;
    if length < needed || silenced * 2 > plan.links {
        return Err(BenchError::new(format!(
            "this soak needs at least {} and {} links: four times bound, stop and tolerance, and \
             twice the links that fall silent",
            show_span(needed.into()),
            silenced * 2,
        )));
    }
    let clock = Clock::start();
    progress.announce(connect_estimate(plan.links) + length);
    progress.begin("soak: connecting", plan.links);
    let target = Target::start(Kind::Gateway, plan)?;
    let mut fleet = Fleet::start(clock, plan.workers, plan.links)?;
    fleet.connect(&target.destination, |up| progress.links(up))?;
    let burners = if plan.args.burn { burn()? } else { Burners(Vec::new()) };
    let period_ns = u64::try_from(plan.period.as_nanos()).unwrap_or(u64::MAX);
    fleet.broadcast(&WorkerCommand::Pace { period_ns })?;
    let seen = Observed::default();
    let mut runner = Runner { plan, clock, pause: None, target, fleet, seen };
    runner.run_steps(&steps, progress)?;
    drop(burners);
    Ok(runner.judge(length, stop))
}

/// Returns the timetable, ordered by time.
fn steps(length: Duration, stop: Duration) -> Vec<(Duration, Step)> {
    let mut steps: Vec<(Duration, Step)> =
        POINTS.iter().map(|point| (length / 100 * *point, Step::Silence)).collect();
    if !stop.is_zero() {
        let middle = length / 2;
        steps.push((middle - BEFORE_STOP.min(middle), Step::Silence));
        steps.push((middle, Step::Stop));
        steps.push((middle + stop, Step::Continue));
    }
    steps.push((length, Step::End));
    steps.sort_by_key(|(at, _)| *at);
    steps
}

/// Processes that keep one core busy each, until dropped.
struct Burners(Vec<Child>);

impl Drop for Burners {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // A burner holds nothing that needs an orderly shutdown.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn burn() -> Result<Burners, BenchError> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut burners = Burners(Vec::new());
    for _ in 0..cores {
        let mut process = own_process("bench-burn")?;
        let child = process.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        burners.0.push(child.map_err(|error| BenchError::io("cannot start a burner", &error))?);
    }
    Ok(burners)
}

struct Runner<'a> {
    plan: &'a Plan,
    clock: Clock,
    /// The stop of the gateway, while it lasts.
    pause: Option<Pause>,
    target: Target,
    fleet: Fleet,
    seen: Observed,
}

#[derive(Debug, Default)]
struct Observed {
    heartbeats: u64,
    overruns: u64,
    lost: u64,
    gap_ns: u64,
    silenced: usize,
    verdicts: Vec<Verdict>,
    /// The gateway was stopped between these two times.
    stopping_ns: u64,
    stopped_ns: u64,
    continued_ns: u64,
}

impl Runner<'_> {
    fn run_steps(
        &mut self,
        steps: &[(Duration, Step)],
        progress: &Progress,
    ) -> Result<(), BenchError> {
        let start = self.now();
        let length = steps.last().map_or(0, |(end, _)| end.as_secs());
        // Discards the gaps from before the load.
        self.fleet.report()?;
        for (at, step) in steps {
            loop {
                let left = (start + at.as_nanos() as u64).saturating_sub(self.now());
                if left == 0 {
                    break;
                }
                self.fleet.run_for(Duration::from_nanos(left).min(POLL))?;
                self.collect_report()?;
                let passed = Duration::from_nanos(self.now() - start).as_secs();
                let found = self.seen.verdicts.len();
                let state = if self.pause.is_some() { ", the gateway is stopped" } else { "" };
                progress
                    .show(format!("soak: {passed} of {length} s, {found} dead links found{state}"));
            }
            match step {
                Step::Silence => self.seen.silenced += self.fleet.silence(SILENT_EACH, false)?,
                Step::Stop => {
                    self.seen.stopping_ns = self.now();
                    self.pause = Some(Pause::start(self.target.pid)?);
                    self.seen.stopped_ns = self.now();
                }
                Step::Continue => {
                    self.seen.continued_ns = self.now();
                    self.pause.take().map_or(Ok(()), Pause::end)?;
                }
                Step::End => {}
            }
        }
        Ok(())
    }

    fn collect_report(&mut self) -> Result<(), BenchError> {
        let sum = self.fleet.report()?;
        self.seen.heartbeats += sum.answered + sum.probes;
        self.seen.overruns += sum.overruns;
        self.seen.lost += sum.lost;
        self.seen.gap_ns = self.seen.gap_ns.max(sum.gap_ns);
        self.seen.verdicts.extend(sum.verdicts);
        Ok(())
    }

    fn now(&self) -> u64 {
        self.clock.monotonic().as_nanos()
    }

    fn judge(self, length: Duration, stop: Duration) -> Soak {
        let bound_ns = self.plan.bound().as_nanos() as u64;
        let tolerance_ns = self.plan.args.tolerance.as_nanos() as u64;
        let seen = self.seen;
        let late: Vec<Option<u64>> =
            seen.verdicts.iter().map(|verdict| seen.lateness(verdict, bound_ns)).collect();
        let early = late.iter().filter(|late| late.is_none()).count();
        let too_late = late.iter().flatten().filter(|late| **late > tolerance_ns).count();
        let found = seen.verdicts.len();
        Soak {
            seconds: length.as_secs_f64(),
            links: self.plan.links,
            burn: self.plan.args.burn,
            stop_seconds: stop.as_secs_f64(),
            bound_ms: bound_ns as f64 / 1e6,
            tolerance_ms: tolerance_ns as f64 / 1e6,
            heartbeats: seen.heartbeats,
            overruns: seen.overruns,
            silenced: seen.silenced,
            found,
            false_verdicts: seen.lost,
            early,
            late: too_late,
            late_ms: quantiles(late.iter().flatten().map(|ns| (*ns, 1)), 1e6),
            worker_gap_ms: seen.gap_ns as f64 / 1e6,
            ok: seen.lost == 0 && early == 0 && too_late == 0 && found == seen.silenced,
        }
    }
}

impl Observed {
    /// Returns how much later than bound plus stall a verdict came; `None` if before the bound.
    ///
    /// A stall counts only for links whose bound was running during it, and only from their last
    /// byte.
    fn lateness(&self, verdict: &Verdict, bound_ns: u64) -> Option<u64> {
        let silent_ns = verdict.closed_ns.saturating_sub(verdict.last_sent_ns);
        let late = silent_ns.checked_sub(bound_ns)?;
        let runs_out = verdict.last_sent_ns + bound_ns;
        let from = self.stopped_ns.max(verdict.last_sent_ns);
        // The gateway may have been stopped already at the first of the two times.
        let overlaps = self.continued_ns > from && runs_out > self.stopping_ns;
        let stall = if overlaps { self.continued_ns - from } else { 0 };
        Some(late.saturating_sub(stall))
    }
}

impl fmt::Display for Soak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = table(
            [
                "soak",
                "links",
                "burn",
                "stop s",
                "beats",
                "overruns",
                "dead",
                "found",
                "false",
                "early",
                "late",
                "late ms p50",
                "p99",
                "max",
                "worker gap ms",
            ],
            1,
        );
        table.add_row([
            format!("{} s", self.seconds),
            self.links.to_string(),
            (if self.burn { "yes" } else { "no" }).to_owned(),
            self.stop_seconds.to_string(),
            self.heartbeats.to_string(),
            self.overruns.to_string(),
            self.silenced.to_string(),
            self.found.to_string(),
            self.false_verdicts.to_string(),
            self.early.to_string(),
            self.late.to_string(),
            format!("{:.1}", self.late_ms.p50),
            format!("{:.1}", self.late_ms.p99),
            format!("{:.1}", self.late_ms.max),
            format!("{:.0}", self.worker_gap_ms),
        ]);
        writeln!(f, "{table}\n")?;
        let outcome = if self.ok { "ok" } else { "MISSED" };
        write!(
            f,
            "no live link closed, each dead one found within {} ms + stall + {} ms: {outcome}",
            self.bound_ms, self.tolerance_ms
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn lateness(last_sent: u64, closed: u64) -> Option<u64> {
        let seen = Observed {
            stopping_ns: 99 * SECOND,
            stopped_ns: 100 * SECOND,
            continued_ns: 110 * SECOND,
            ..Observed::default()
        };
        let verdict = Verdict { last_sent_ns: last_sent * SECOND, closed_ns: closed * SECOND };
        seen.lateness(&verdict, 5 * SECOND).map(|ns| ns / SECOND)
    }

    #[test]
    fn only_the_delay_by_the_stall_is_subtracted() {
        assert_eq!(lateness(50, 56), Some(1));
        assert_eq!(lateness(98, 114), Some(1));
        assert_eq!(lateness(120, 126), Some(1));
        assert_eq!(lateness(98, 102), None);
        // The bound had passed before the stop.
        assert_eq!(lateness(94, 105), Some(6));
        // The bound ran out while the stop began.
        assert_eq!(lateness(95, 111), Some(1));
        // The last byte was sent during the stop, so the gateway received it afterwards.
        assert_eq!(lateness(104, 117), Some(2));
    }

    #[test]
    fn the_timetable_is_in_order_and_complete() {
        let steps = steps(Duration::from_secs(600), Duration::from_secs(10));
        assert!(steps.is_sorted_by_key(|(at, _)| *at));
        let count = |wanted| steps.iter().filter(|(_, step)| *step == wanted).count();
        assert_eq!([count(Step::Silence), count(Step::Stop), count(Step::Continue)], [5, 1, 1]);
        assert_eq!(steps.last(), Some(&(Duration::from_secs(600), Step::End)));
    }
}
