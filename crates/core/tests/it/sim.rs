//! A hub and its peers in virtual time: random schedules, held against a model after every step.
//!
//! `./test sim --seed N` runs one schedule again, and tells all that happens in it.

mod datagrams;
mod faults;
mod gateway;
mod model;
mod network;
mod peer;
mod schedule;
mod talk;
mod world;

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use schedule::Outcome;

/// How many schedules run unless `SYSTOLE_SIM_SCHEDULES` says otherwise.
const SCHEDULES: u64 = if cfg!(debug_assertions) { 2_000 } else { 100_000 };

/// Two threads: what the smallest machine that runs the tests has.
const THREADS: usize = 2;

#[test]
fn sim_schedules() {
    if let Some(seed) = number("SYSTOLE_SEED") {
        let outcome = schedule::run(seed, true);
        println!("seed {seed}: all invariants hold; {outcome:?}");
        return;
    }
    let schedules = number("SYSTOLE_SIM_SCHEDULES").unwrap_or(SCHEDULES);
    let next = AtomicU64::new(0);
    let worker = || work(&next, schedules);
    let total = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join()).collect::<Result<Vec<_>, _>>()
    });
    let total = total.expect("a schedule failed; its seed is told above");
    let total = total.into_iter().fold(Outcome::default(), Outcome::plus);
    println!("{schedules} schedules, each replayed from its record: {total}");
    assert!(schedules < 1_000 || total.is_lively(), "the schedules are too tame: {total}");
}

fn work(next: &AtomicU64, schedules: u64) -> Outcome {
    let mut total = Outcome::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= schedules {
            return total;
        }
        match catch_unwind(|| schedule::run(seed, false)) {
            Ok(outcome) => total = total.plus(outcome),
            Err(panic) => {
                // The other worker need not go on.
                next.store(schedules, Ordering::Relaxed);
                eprintln!("\nschedule {seed} failed; again: ./test sim --seed {seed}\n");
                std::panic::resume_unwind(panic);
            }
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    Some(parsed.unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}
