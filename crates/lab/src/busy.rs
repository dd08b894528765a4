//! Detects a machine that is too busy for a lab: a thread wakes each few milliseconds, and records
//! how late it wakes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Builder;

use systole_core::Span;
use systole_net::Clock;

use crate::process::pause;
use crate::trouble::Trouble;

const EVERY: Span = Span::from_millis(5);

/// A running monitor thread, which ends soon after this is dropped.
#[derive(Debug)]
pub(crate) struct CpuMonitor {
    worst_us: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl CpuMonitor {
    pub(crate) fn start(clock: Clock) -> Result<CpuMonitor, Trouble> {
        let monitor = CpuMonitor { worst_us: Arc::default(), over: Arc::default() };
        let (worst, over) = (Arc::clone(&monitor.worst_us), Arc::clone(&monitor.over));
        let monitoring = move || {
            while !over.load(Ordering::Relaxed) {
                let since = clock.monotonic();
                pause(EVERY);
                let late = clock.monotonic().less(since).less(EVERY);
                worst.fetch_max(late.as_micros(), Ordering::Relaxed);
            }
        };
        let thread = Builder::new().spawn(monitoring);
        thread.map(drop).map_err(Trouble::while_doing("a thread that watches this machine"))?;
        Ok(monitor)
    }

    /// Returns the greatest lateness so far.
    pub(crate) fn worst(&self) -> Span {
        Span::from_micros(self.worst_us.load(Ordering::Relaxed))
    }
}

impl Drop for CpuMonitor {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
