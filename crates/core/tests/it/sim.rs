//! A simulation of a hub and its peers in virtual time: random schedules, each step checked against
//! a reference model.
//!
//! `./test sim --seed N` runs one schedule again, and prints every event.

mod datagrams;
mod farewells;
mod faults;
mod frames;
mod gateway;
mod hubs;
mod kernel;
mod logins;
mod messages;
mod model;
mod network;
mod peer;
mod rates;
mod resume;
mod round_trips;
mod schedule;
mod tcp;
mod world;

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use schedule::Outcome;

/// The number of schedules, unless `SYSTOLE_SIM_SCHEDULES` is set.
const SCHEDULES: u64 = if cfg!(debug_assertions) { 2_000 } else { 100_000 };

/// The number of threads: the cores of the smallest machine that runs the tests.
const THREADS: usize = 2;

#[test]
fn sim_schedules() {
    if let Some(seed) = env_number("SYSTOLE_SEED") {
        let outcome = schedule::run(seed, true);
        println!("seed {seed}: all invariants hold; {outcome:?}");
        return;
    }
    let schedules = env_number("SYSTOLE_SIM_SCHEDULES").unwrap_or(SCHEDULES);
    let next = AtomicU64::new(0);
    let worker = || run_schedules(&next, schedules);
    let total = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join()).collect::<Result<Vec<_>, _>>()
    });
    let total = total.expect("a schedule failed; its seed is printed above");
    let total = total.into_iter().fold(Outcome::default(), Outcome::plus);
    println!("{schedules} schedules, each replayed from its record: {total}");
    assert!(schedules < 1_000 || total.has_enough_events(), "too few events: {total}");
}

fn run_schedules(next: &AtomicU64, schedules: u64) -> Outcome {
    let mut total = Outcome::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= schedules {
            return total;
        }
        match catch_unwind(|| schedule::run(seed, false)) {
            Ok(outcome) => total = total.plus(outcome),
            Err(panic) => {
                // Stops the other worker.
                next.store(schedules, Ordering::Relaxed);
                eprintln!("\nschedule {seed} failed; again: ./test sim --seed {seed}\n");
                std::panic::resume_unwind(panic);
            }
        }
    }
}

fn env_number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    Some(parsed.unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}
