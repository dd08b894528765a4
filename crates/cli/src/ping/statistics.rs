//! The counts and round trips that `systole ping` sums up at its end.

use systole_client::Span;

/// Round trips, as ping(8) sums them up.
#[derive(Debug, Default)]
pub(super) struct RoundTrips {
    count: u64,
    sum_us: u128,
    sum_of_squares: u128,
    min: Span,
    max: Span,
}

/// Least, mean, greatest, and standard deviation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Summary {
    pub(super) min: Span,
    pub(super) avg: Span,
    pub(super) max: Span,
    pub(super) mdev: Span,
}

impl RoundTrips {
    pub(super) fn add(&mut self, rtt: Span) {
        self.min = if self.count == 0 { rtt } else { self.min.min(rtt) };
        self.max = self.max.max(rtt);
        self.count += 1;
        let micros = u128::from(rtt.as_micros());
        self.sum_us = self.sum_us.saturating_add(micros);
        self.sum_of_squares = self.sum_of_squares.saturating_add(micros.saturating_mul(micros));
    }

    /// Returns the summary; `None` without any round trip.
    pub(super) fn summary(&self) -> Option<Summary> {
        if self.count == 0 {
            return None;
        }
        let count = u128::from(self.count);
        let mean = self.sum_us / count;
        // Of n times the sums, so that nothing is lost before the root.
        let spread = (count.saturating_mul(self.sum_of_squares))
            .saturating_sub(self.sum_us.saturating_mul(self.sum_us));
        let mdev = spread.isqrt() / count;
        let span = |micros: u128| Span::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
        Some(Summary { min: self.min, avg: span(mean), max: self.max, mdev: span(mdev) })
    }
}

/// Returns the part of `sent` that is missing, in tenths of a percent.
pub(super) fn loss(sent: u64, received: u64) -> u64 {
    let lost = u128::from(sent.saturating_sub(received)) * 1_000;
    u64::try_from(lost / u128::from(sent.max(1))).unwrap_or(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_that_of_ping8() {
        let mut trips = RoundTrips::default();
        assert_eq!(trips.summary(), None);
        // Mean 5, variance 4.
        for micros in [2, 4, 4, 4, 5, 5, 7, 9] {
            trips.add(Span::from_micros(micros));
        }
        let [min, avg, max, mdev] = [2, 5, 9, 2].map(Span::from_micros);
        assert_eq!(trips.summary(), Some(Summary { min, avg, max, mdev }));
    }

    #[test]
    fn loss_is_counted_in_tenths_of_a_percent() {
        assert_eq!(loss(0, 0), 0);
        assert_eq!(loss(3, 3), 0);
        assert_eq!(loss(3, 2), 333);
        assert_eq!(loss(3, 0), 1_000);
        assert_eq!(loss(u64::MAX, 0), 1_000);
    }
}
