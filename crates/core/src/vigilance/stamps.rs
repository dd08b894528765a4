//! How far behind a reader of one queue is, by the stamps that the kernel gives what arrives.

use crate::time::Span;

/// What stamps are trusted to: they are in milliseconds here, two processors may stamp at the same
/// time and queue in the other order, and a clock that is being slewed is not one that was set.
pub const LEEWAY: Span = Span::from_millis(20);

/// The longest wait that is trusted. A queue that is worked off more slowly may have been full and
/// have lost what nobody will read: 20,000 datagrams are 100 ms of 200,000 a second.
pub const LONGEST: Span = Span::from_millis(100);

/// The stamps are of the wall clock, which may be set at any time. It is compared with the
/// boot-time clock, which may not, since the queue was last empty: nothing in it is older.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stamps {
    /// The wall clock less the boot-time clock, when the queue was last empty.
    origin: Option<Span>,
}

impl Stamps {
    /// The queue is empty, at these readings of both clocks.
    pub fn emptied(&mut self, wall: Span, boottime: Span) {
        self.origin = Some(wall.less(boottime));
    }

    /// For how long, at most, what was read last had waited, if its stamp is `stamp`: all that had
    /// arrived before it has been read. `None` if that was longer than [`LONGEST`], or if the wall
    /// clock was set since the queue was empty.
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
    fn a_stamp_tells_how_long_a_datagram_waited_and_never_too_little() {
        let mut stamps = Stamps::default();
        assert_eq!(stamps.behind(ms(900_000), ms(900_300), ms(5_300)), None, "never empty");
        stamps.emptied(ms(900_000), ms(5_000));
        assert_eq!(stamps.behind(ms(900_250), ms(900_300), ms(5_300)), Some(ms(70)));
        // Slewed, by less than what is added.
        assert_eq!(stamps.behind(ms(900_250), ms(900_290), ms(5_300)), Some(ms(60)));
        assert_eq!(stamps.behind(ms(900_301), ms(900_300), ms(5_300)), Some(LEEWAY));
        assert_eq!(stamps.behind(ms(900_220), ms(900_300), ms(5_300)), Some(LONGEST));
        assert_eq!(stamps.behind(ms(900_219), ms(900_300), ms(5_300)), None, "too long");
    }

    #[test]
    fn a_clock_that_was_set_tells_nothing_until_the_queue_is_empty() {
        let mut stamps = Stamps::default();
        stamps.emptied(ms(900_000), ms(5_000));
        for wall in [900_279, 900_321, 100, 5_000_000] {
            assert_eq!(stamps.behind(ms(900_250), ms(wall), ms(5_300)), None, "{wall}");
        }
        stamps.emptied(ms(800_000), ms(6_000));
        assert_eq!(stamps.behind(ms(800_000), ms(800_010), ms(6_010)), Some(ms(30)));
    }
}
