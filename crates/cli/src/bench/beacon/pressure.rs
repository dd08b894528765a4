//! Detects a load that this machine could not drive, and the reason.

use std::time::Duration;

use systole_net::Clock;

use super::super::BenchError;
use super::super::proc;
use super::super::target::Target;

/// Lateness of the load above which it counts as overrun: far less than any period.
const BEHIND: Duration = Duration::from_millis(100);

/// Share of a core above which a thread has no time to spare.
const BUSY: f64 = 0.9;

/// The use of the machine's CPU time since a start time, by load, gateway and others.
pub(super) struct Pressure {
    began: Used,
    clock: Clock,
}

#[derive(Clone, Copy)]
struct Used {
    at: Duration,
    own: u64,
    gateway: u64,
    machine: u64,
}

impl Pressure {
    pub(super) fn start(clock: Clock, target: &Target) -> Result<Pressure, BenchError> {
        Ok(Pressure { began: used(clock, target)?, clock })
    }

    /// Returns why the load was late by `behind`; `None` if that is tolerable.
    pub(super) fn overrun(
        &self,
        target: &Target,
        behind: Duration,
    ) -> Result<Option<String>, BenchError> {
        if behind <= BEHIND {
            return Ok(None);
        }
        let (began, now) = (self.began, used(self.clock, target)?);
        let elapsed = (now.at - began.at).as_nanos() as f64;
        let share = |from: u64, to: u64| to.saturating_sub(from) as f64 / elapsed.max(1.0);
        let own = share(began.own, now.own);
        let gateway = share(began.gateway, now.gateway);
        let others = (share(began.machine, now.machine) - own - gateway).max(0.0);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Some(reason(own, gateway, others, cores)))
    }
}

fn reason(own: f64, gateway: f64, others: f64, cores: usize) -> String {
    let shares = format!(
        "of {cores} cores the load took {own:.2}, the gateway {gateway:.2}, others {others:.2}"
    );
    if own >= BUSY {
        format!("its one thread had no time to spare; fewer --links or a longer --period; {shares}")
    } else {
        format!("it got no CPU time when it was due; {shares}")
    }
}

fn used(clock: Clock, target: &Target) -> Result<Used, BenchError> {
    let failed = |error| BenchError::io("cannot read CPU times", &error);
    let at = Duration::from(clock.monotonic());
    let own = proc::cpu_ns(std::process::id()).map_err(failed)?;
    let machine = proc::machine_ns().map_err(failed)?;
    Ok(Used { at, own, gateway: target.cpu_ns()?, machine })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_shows_the_use_of_the_cores() {
        let alone = reason(0.97, 0.4, 0.1, 2);
        assert!(alone.starts_with("its one thread had no time to spare"), "{alone}");
        let crowded = reason(0.4, 0.3, 1.25, 2);
        assert!(crowded.starts_with("it got no CPU time"), "{crowded}");
        assert!(crowded.ends_with("of 2 cores the load took 0.40, the gateway 0.30, others 1.25"));
    }
}
