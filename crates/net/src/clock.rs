//! The only code that reads clocks, so that tests and replays can drive all other code.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use systole_core::Span;

/// Reads the monotonic and the boot-time clock relative to one start, and the wall clock.
///
/// Cheap to copy. Copies share the start, so all shards agree on the time.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    boot_start: Span,
}

impl Clock {
    /// Returns a clock that reads about zero now.
    #[allow(clippy::disallowed_methods)] // Clocks may be read here.
    pub fn start() -> Clock {
        let start = Instant::now();
        Clock { start, boot_start: since_boot().unwrap_or(Span::ZERO) }
    }

    /// Returns the time since the start, suspension of the machine excluded. Never decreases.
    ///
    /// On Linux this clock stops while the machine is suspended, but not while the process is
    /// stopped.
    #[allow(clippy::disallowed_methods)] // Clocks may be read here.
    pub fn monotonic(&self) -> Span {
        Span::from(self.start.elapsed())
    }

    /// Returns the time since the start, suspension of the machine included. Never decreases.
    ///
    /// The time by which it runs ahead of [`Clock::monotonic`] was spent suspended. On systems
    /// without such a clock, both are equal.
    pub fn boottime(&self) -> Span {
        match since_boot() {
            Some(now) => now.less(self.boot_start),
            None => self.monotonic(),
        }
    }

    /// Returns the wall clock in milliseconds since 1970-01-01 UTC; 0 for a clock set earlier.
    ///
    /// For display and timestamps, never for deadlines: the clock jumps when it is set.
    #[allow(clippy::disallowed_methods)] // Clocks may be read here.
    pub fn wall_ms(&self) -> u64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
    }
}

/// Returns the time since the machine was booted, suspension included.
#[cfg(target_os = "linux")]
fn since_boot() -> Option<Span> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let secs = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    Some(Span::from_secs(secs) + Span::from_nanos(nanos))
}

/// Returns `None`: no clock of this system that counts suspension is supported.
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
