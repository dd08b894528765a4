//! The one place that reads clocks, so that everything else can be driven by any time at all.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use systole_core::Span;

/// Three clocks read against one common start.
///
/// Cheap to copy; copies share the start, so shards that hold one each agree on the time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    boot_start: Span,
}

impl Clock {
    /// A clock that reads about zero now.
    #[allow(clippy::disallowed_methods)] // The place where clocks may be read.
    pub fn start() -> Clock {
        let start = Instant::now();
        Clock { start, boot_start: since_boot().unwrap_or(Span::ZERO) }
    }

    /// Time since the start during which the machine was running. Never goes back.
    ///
    /// Suspending the machine stops this clock on Linux, a stopped process does not.
    #[allow(clippy::disallowed_methods)] // The place where clocks may be read.
    pub fn monotonic(&self) -> Span {
        Span::from(self.start.elapsed())
    }

    /// Time since the start, suspension of the machine included. Never goes back.
    ///
    /// What it gains on [`Clock::monotonic`] was spent suspended. Where the system has no such
    /// clock the two are equal.
    pub fn boottime(&self) -> Span {
        match since_boot() {
            Some(now) => now.less(self.boot_start),
            None => self.monotonic(),
        }
    }

    /// The wall clock in milliseconds since 1970-01-01 UTC; 0 for a clock set earlier.
    ///
    /// It jumps when someone sets it: for display and for stamps, never for deadlines.
    #[allow(clippy::disallowed_methods)] // The place where clocks may be read.
    pub fn wall_ms(&self) -> u64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Time since the machine was booted, suspension included.
#[cfg(target_os = "linux")]
fn since_boot() -> Option<Span> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let secs = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    Some(Span::from_secs(secs) + Span::from_nanos(nanos))
}

/// This system has no clock that counts suspension and is known to this crate.
#[cfg(not(target_os = "linux"))]
fn since_boot() -> Option<Span> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_start_near_zero_and_advance_together() {
        let clock = Clock::start();
        let minute = Span::from_secs(60);
        let (first, boot_first) = (clock.monotonic(), clock.boottime());
        assert!(first < minute && boot_first < minute, "{first} {boot_first}");
        let mut now = clock.monotonic();
        while now == first {
            now = clock.monotonic();
        }
        assert!(now > first);
        assert!(clock.boottime() >= boot_first);
    }

    #[test]
    fn the_wall_clock_is_in_milliseconds() {
        let year_2020_ms = 1_577_836_800_000;
        let year_2200_ms = 7_258_118_400_000;
        let now = Clock::start().wall_ms();
        assert!((year_2020_ms..year_2200_ms).contains(&now), "{now}");
    }
}
