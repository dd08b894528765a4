//! A burst of handshakes: links that connect over TLS all at once, on a thread of their own, while
//! the bench measures others.

use std::fmt;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::Serialize;
use systole_net::Clock;

use super::BenchError;
use super::fleet::{Destination, Fleet};
use super::measure::Quantiles;

/// Time before the first verdicts at which a burst begins: its processes need as long to open
/// their sockets.
const LEAD: Duration = Duration::from_millis(200);

/// The results of a burst.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Handshakes {
    pub(crate) links: usize,
    /// From the first connect to the last complete handshake.
    pub(crate) seconds: f64,
    /// Round trips of the heartbeats of other links meanwhile, and just before.
    pub(crate) rtt_us: Quantiles,
    pub(crate) quiet_rtt_us: Quantiles,
}

impl fmt::Display for Handshakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Handshakes { links, seconds, rtt_us, quiet_rtt_us } = self;
        let show = |it: &Quantiles| format!("{:.0}, {:.0}, {:.0} us", it.p50, it.p99, it.max);
        let (now, before) = (show(rtt_us), show(quiet_rtt_us));
        write!(
            f,
            "{links} links connected over TLS in {seconds:.2} s; round trips of the others p50, \
             p99, max: {now} (before: {before})"
        )
    }
}

/// A burst that waits for its time, runs, or is over.
pub(crate) enum Burst {
    Waiting { fleet: Fleet, to: Destination, at_ns: u64, clock: Clock },
    Running(JoinHandle<Result<(Fleet, u64), BenchError>>),
    Over { took_ns: u64 },
}

impl Burst {
    /// Prepares the burst for links that connect while verdicts fall, within a `period` before
    /// `due_ns`.
    pub(crate) fn new(
        fleet: Fleet,
        to: Destination,
        due_ns: u64,
        period: Duration,
        clock: Clock,
    ) -> Burst {
        let lead_ns = u64::try_from((period + LEAD).as_nanos()).unwrap_or(u64::MAX);
        Burst::Waiting { fleet, to, at_ns: due_ns.saturating_sub(lead_ns), clock }
    }

    /// Begins the burst if its time has come, and ends it if it is done.
    pub(crate) fn go_on(self) -> Result<Burst, BenchError> {
        match self {
            Burst::Waiting { mut fleet, to, at_ns, clock }
                if clock.monotonic().as_nanos() >= at_ns =>
            {
                let connect = move || {
                    let start = clock.monotonic();
                    fleet.connect(&to, |_| ())?;
                    Ok((fleet, clock.monotonic().less(start).as_nanos()))
                };
                let thread = thread::Builder::new().spawn(connect);
                let thread =
                    thread.map_err(|error| BenchError::io("no thread for a burst", &error))?;
                Ok(Burst::Running(thread))
            }
            Burst::Running(thread) if thread.is_finished() => {
                let done = thread.join().map_err(|_| BenchError::new("a burst panicked"))?;
                Ok(Burst::Over { took_ns: done?.1 })
            }
            Burst::Waiting { .. } | Burst::Running(_) | Burst::Over { .. } => Ok(self),
        }
    }

    /// Returns how long it took; `None` while it is not over.
    pub(crate) fn took_ns(&self) -> Option<u64> {
        match self {
            Burst::Over { took_ns } => Some(*took_ns),
            Burst::Waiting { .. } | Burst::Running(_) => None,
        }
    }
}
