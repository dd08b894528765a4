//! `systole bench`: puts load on a target, and measures its cost and the lateness of its verdicts.
//!
//! The bench, its load workers and the baseline are processes of this one binary. The target is a
//! process of its own too, so that its CPU time and memory can be measured separately.

mod args;
mod bare;
mod beacon;
mod burst;
mod codec;
mod control;
mod cores;
mod fleet;
mod links;
mod measure;
mod pause;
mod proc;
mod progress;
mod report;
mod scrape;
mod secure;
mod soak;
mod spread;
mod storm;
mod talk;
mod target;
mod worker;

use std::fmt;
use std::io;
use std::time::Duration;

use rustix::process::{Signal, set_parent_process_death_signal};
use serde::Serialize;

pub(crate) use args::Args;
pub(crate) use bare::{BareArgs, run as run_bare};
pub(crate) use pause::{PauseArgs, run as run_pause};
pub(crate) use worker::run as run_worker;

use args::Plan;

use crate::cli::ServeArgs;
use crate::exit::Exit;
use crate::output::Output;
use crate::serve;

/// An error that ended a run early. All processes of the run have ended, and running again is safe.
#[derive(Debug)]
struct BenchError(String);

/// Runs the bench and prints the results. Fails if the run could not be finished, or if `--check`
/// was given and a budget was missed.
pub(crate) fn run(args: Args, output: &mut Output) -> io::Result<Exit> {
    let check = args.check;
    let roles: Vec<_> = args.role.iter().copied().map(Some).collect();
    let roles = if roles.is_empty() { vec![None] } else { roles };
    let plans: Result<Vec<Plan>, _> =
        roles.into_iter().map(|role| Plan::new(args.clone(), role)).collect();
    let plans = match plans {
        Ok(plans) => plans,
        Err(error) => {
            output.error(&error.to_string());
            return Ok(Exit::Usage);
        }
    };
    match measure(&args, &plans) {
        Ok((text, met)) => {
            output.line(text.trim_end())?;
            Ok(if met || !check { Exit::Success } else { Exit::Failure })
        }
        Err(error) => {
            output.error(&error.to_string());
            Ok(Exit::Failure)
        }
    }
}

/// Measures; returns the text to print, and whether all budgets were met.
fn measure(args: &Args, plans: &[Plan]) -> Result<(String, bool), BenchError> {
    let progress = progress::Progress::new();
    let whole = || {
        let lengths = plans.iter().map(measure::estimate);
        lengths.fold(Duration::ZERO, Duration::saturating_add)
    };
    match plans {
        [plan] if args.codec == codec::Codec::Beacon => {
            let found = beacon::run(plan, &progress)?;
            Ok((show(args, &found)?, found.ok))
        }
        [plan] if let Some(messages) = args.storm => {
            let found = storm::run(plan, messages, &progress)?;
            Ok((show(args, &found)?, found.ok))
        }
        [plan] if let Some(length) = args.soak => {
            let found = soak::run(plan, length, &progress)?;
            Ok((show(args, &found)?, found.ok))
        }
        [plan] if plan.role.is_none() => {
            progress.announce(whole());
            let report = report::Report::new(plan, measure::run(plan, &progress)?);
            Ok((show(args, &report)?, report.ok))
        }
        plans => {
            progress.announce(whole());
            let reports: Result<Vec<_>, BenchError> = plans
                .iter()
                .map(|plan| Ok(report::Report::new(plan, measure::run(plan, &progress)?)))
                .collect();
            let reports = report::Reports(reports?);
            Ok((show(args, &reports)?, reports.0.iter().all(|report| report.ok)))
        }
    }
}

fn show(args: &Args, found: &(impl Serialize + fmt::Display)) -> Result<String, BenchError> {
    if args.json { report::json(found) } else { Ok(found.to_string()) }
}

/// Reports the end of a helper process of the bench.
pub(crate) fn helper(result: io::Result<()>, output: &mut Output) -> io::Result<Exit> {
    match result {
        Ok(()) => Ok(Exit::Success),
        Err(error) => {
            output.error(&format!("a helper process of the bench failed: {error}"));
            Ok(Exit::Failure)
        }
    }
}

/// Runs the gateway that the bench measures.
pub(crate) fn run_gateway(args: &ServeArgs, output: &mut Output) -> io::Result<Exit> {
    die_with_parent();
    serve::run(args, output)
}

/// Keeps one core busy until killed, for a soak with `--burn`.
pub(crate) fn run_burn() -> io::Result<()> {
    die_with_parent();
    let mut state = 1_u64;
    loop {
        state = std::hint::black_box(state.rotate_left(7).wrapping_mul(3));
    }
}

/// Has this process of the bench killed when the bench dies, so that it does not go on loading the
/// machine.
fn die_with_parent() {
    // If this fails, a worker still ends when its pipe closes, and the others when the bench kills
    // them.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
}

impl BenchError {
    fn new(what: impl Into<String>) -> BenchError {
        BenchError(what.into())
    }

    fn io(what: &str, error: &io::Error) -> BenchError {
        BenchError(format!("{what}: {error}"))
    }
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BenchError {}
