//! `systole bench`: load from outside, what it costs the target, and how late its verdicts are.
//!
//! The bench, its load workers and the baseline are processes of this one binary; the target is a
//! process of its own too, so that its CPU time and memory are its alone.

mod args;
mod codec;
mod control;
mod echo;
mod fleet;
mod links;
mod measure;
mod proc;
mod report;
mod scrape;
mod soak;
mod target;
mod worker;

use std::fmt;
use std::io::{self, Write};

use rustix::process::{Signal, set_parent_process_death_signal};

pub use args::Args;
pub use echo::{EchoArgs, run as run_echo};
pub use worker::run as run_worker;

use args::Plan;

/// Why a run could not be finished. Nothing that it started still runs.
#[derive(Debug)]
pub struct BenchError(String);

/// Runs the bench and prints what it found. False if `--check` was given and a budget was missed.
///
/// # Errors
/// The target or a worker could not be started or ended early, or the machine allows less than
/// what was asked for; the text says which. Running again is safe.
pub fn run(args: Args) -> Result<bool, BenchError> {
    let (check, json, soak) = (args.check, args.json, args.soak);
    let plan = Plan::new(args)?;
    let (text, met) = match soak {
        Some(length) => {
            let found = soak::run(&plan, length)?;
            (if json { report::json(&found)? } else { found.to_string() }, found.ok)
        }
        None => {
            let rounds = measure::run(&plan)?;
            let report = report::Report::new(&plan, rounds);
            (if json { report::json(&report)? } else { report.to_string() }, report.ok)
        }
    };
    match writeln!(io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(BenchError::io("cannot print the result", &error))
        }
        Ok(()) | Err(_) => Ok(met || !check),
    }
}

/// Burns one core until killed: the company that a soak asks for.
pub fn run_burn() -> io::Result<()> {
    die_with_parent();
    let mut state = 1_u64;
    loop {
        state = std::hint::black_box(state.rotate_left(7).wrapping_mul(3));
    }
}

/// A helper process whose bench was killed must not go on loading the machine.
fn die_with_parent() {
    // Where it is refused, helpers end with their pipes, or are ended by the bench.
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
