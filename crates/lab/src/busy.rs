//! Whether this machine had time for a lab: a thread that wants to run each few milliseconds, and
//! notes how late it came to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Builder;

use systole_core::Span;
use systole_net::Clock;

use crate::process::pause;
use crate::trouble::Trouble;

const EVERY: Span = Span::from_millis(5);

/// A running watch; ends soon after it is dropped.
#[derive(Debug)]
pub(crate) struct CpuMonitor {
    worst_us: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl CpuMonitor {
    pub(crate) fn start(clock: Clock) -> Result<CpuMonitor, Trouble> {
        let watch = CpuMonitor { worst_us: Arc::default(), over: Arc::default() };
        let (worst, over) = (Arc::clone(&watch.worst_us), Arc::clone(&watch.over));
        let watching = move || {
            while !over.load(Ordering::Relaxed) {
                let since = clock.monotonic();
                pause(EVERY);
                let late = clock.monotonic().less(since).less(EVERY);
                worst.fetch_max(late.as_micros(), Ordering::Relaxed);
            }
        };
        let thread = Builder::new().spawn(watching);
        thread.map(drop).map_err(Trouble::while_doing("a thread that watches this machine"))?;
        Ok(watch)
    }

    /// How late it came at the worst.
    pub(crate) fn worst(&self) -> Span {
        Span::from_micros(self.worst_us.load(Ordering::Relaxed))
    }
}

impl Drop for CpuMonitor {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
