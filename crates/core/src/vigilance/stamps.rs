//! Measures how far the reader of one socket is behind, by the kernel's receive timestamps.

use crate::time::Span;

/// The tolerance for timestamps: they have a resolution of milliseconds, two processors may queue
/// in another order than they stamp, and a slewed clock must not be taken for one that was set.
pub const LEEWAY: Span = Span::from_millis(20);

/// The longest delay that is accepted. A slower reader may have let the queue overflow and lost
/// datagrams: a queue of 20,000 datagrams holds 100 ms at 200,000 a second.
pub const LONGEST: Span = Span::from_millis(100);

/// The state for converting receive timestamps to delays. Timestamps are of the wall clock, which
/// may be set at any time, so the wall clock is compared with the boot-time clock, which is never
/// set, since the queue was last empty: no queued datagram is older.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stamps {
    /// The wall clock minus the boot-time clock, when the queue was last empty.
    origin: Option<Span>,
}

impl Stamps {
    /// Reports that the queue is empty at these readings of both clocks.
    pub fn emptied(&mut self, wall: Span, boottime: Span) {
        self.origin = Some(wall.less(boottime));
    }

    /// Returns the maximum time for which the datagram read last, with timestamp `stamp`, had
    /// waited; all earlier datagrams have been read. `None` if that is longer than [`LONGEST`], or
    /// if the wall clock was set since the queue was empty.
    pub fn behind(&self, stamp: Span, wall: Span, boottime: Span) -> Option<Span> {
        let (origin, now) = (self.origin?, wall.less(boottime));
        let moved = origin.less(now).max(now.less(origin));
        let waited = wall.less(stamp) + LEEWAY;
        (moved <= LEEWAY && waited <= LONGEST).then_some(waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Span {
        Span::from_millis(millis)
    }

    #[test]
    fn a_timestamp_gives_the_delay_and_never_too_little() {
        let mut stamps = Stamps::default();
        assert_eq!(stamps.behind(ms(900_000), ms(900_300), ms(5_300)), None, "never empty");
        stamps.emptied(ms(900_000), ms(5_000));
        assert_eq!(stamps.behind(ms(900_250), ms(900_300), ms(5_300)), Some(ms(70)));
        // The clock was slewed by less than `LEEWAY`.
        assert_eq!(stamps.behind(ms(900_250), ms(900_290), ms(5_300)), Some(ms(60)));
        assert_eq!(stamps.behind(ms(900_301), ms(900_300), ms(5_300)), Some(LEEWAY));
        assert_eq!(stamps.behind(ms(900_220), ms(900_300), ms(5_300)), Some(LONGEST));
        assert_eq!(stamps.behind(ms(900_219), ms(900_300), ms(5_300)), None, "too long");
    }

    #[test]
    fn a_clock_that_was_set_gives_no_delay_until_the_queue_is_empty() {
        let mut stamps = Stamps::default();
        stamps.emptied(ms(900_000), ms(5_000));
        for wall in [900_279, 900_321, 100, 5_000_000] {
            assert_eq!(stamps.behind(ms(900_250), ms(wall), ms(5_300)), None, "{wall}");
        }
        stamps.emptied(ms(800_000), ms(6_000));
        assert_eq!(stamps.behind(ms(800_000), ms(800_010), ms(6_010)), Some(ms(30)));
    }
}
