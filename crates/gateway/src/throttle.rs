//! A limit on the rate of what would otherwise be said again and again.

use systole_core::Span;

/// Admits a few at once, and then one per interval; counts those that it holds back.
///
/// A condition that repeats, or that a stranger can bring about, must not fill a log or the event
/// stream. What is held back should be summed up by whoever asks: the next one that is admitted
/// tells it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Throttle {
    every: Span,
    /// How far ahead of the present `full_at` may lie: the interval times the number at once,
    /// less one.
    ahead: Span,
    /// When all that was admitted so far is paid for, on the monotonic clock.
    full_at: Span,
    held_back: u64,
}

impl Throttle {
    /// Makes a limit of one per `every`, and of `at_once` after a pause.
    pub(crate) const fn new(at_once: u64, every: Span) -> Throttle {
        let ahead = every.times(at_once.saturating_sub(1));
        Throttle { every, ahead, full_at: Span::ZERO, held_back: 0 }
    }

    /// Returns the number of those held back since the last one that was admitted, if one may go
    /// at `now`, which is the time of a monotonic clock.
    pub(crate) fn admit(&mut self, now: Span) -> Option<u64> {
        if now < self.next_at() {
            self.held_back = self.held_back.saturating_add(1);
            return None;
        }
        self.full_at = self.full_at.max(now) + self.every;
        Some(std::mem::take(&mut self.held_back))
    }

    /// Returns from when on the next one is admitted.
    pub(crate) fn next_at(&self) -> Span {
        self.full_at.less(self.ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_go_at_once_and_then_one_per_interval() {
        let at = Span::from_secs;
        let mut throttle = Throttle::new(2, at(10));
        let seconds = [5, 5, 5, 6, 14, 15, 15, 24, 25, 60, 60, 60];
        let admitted = seconds.map(|second| throttle.admit(at(second)));
        let expected = [
            Some(0),
            Some(0),
            None,
            None,
            None,
            Some(3),
            None,
            None,
            Some(2),
            Some(0),
            Some(0),
            None,
        ];
        assert_eq!(admitted, expected);
        assert_eq!(throttle.next_at(), at(70));
    }
}
