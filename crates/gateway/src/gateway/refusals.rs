//! What the log says of logins that were refused: one line a minute with
//! the counts by reason, since anybody can bring them about by the thousand.

use std::sync::{Arc, PoisonError};

use systole_core::Span;
use tracing::warn;

use super::Gateway;
use crate::identity::Refusal;
use crate::stats::ShardStats;
use crate::throttle::Throttle;

/// Least time between two lines.
const SUMMARY_EVERY: Span = Span::from_secs(60);

/// What the log has said of refusals.
#[derive(Debug)]
pub(super) struct Refusals {
    /// Those summed up so far, by reason, in the order of [`Refusal::NAMES`].
    told: [u64; Refusal::NAMES.len()],
    throttle: Throttle,
}

impl Default for Refusals {
    fn default() -> Refusals {
        let told = [0; Refusal::NAMES.len()];
        Refusals { told, throttle: Throttle::new(1, SUMMARY_EVERY) }
    }
}

impl Refusals {
    /// Returns how many there were since the last line: in all, and by reason as text. `None` if
    /// there was none, or if the last line is not long ago.
    fn sum_up(&mut self, stats: &[Arc<ShardStats>], now: Span) -> Option<(u64, String)> {
        let counts: [u64; Refusal::NAMES.len()] = std::array::from_fn(|reason| {
            stats.iter().filter_map(|it| it.refused.get(reason)).map(|cell| cell.get()).sum()
        });
        let new = counts.iter().zip(self.told).map(|(count, told)| count.saturating_sub(told));
        let new: Vec<(u64, &str)> =
            new.zip(Refusal::NAMES).filter(|(count, _)| *count > 0).collect();
        let all: u64 = new.iter().map(|(count, _)| count).sum();
        if all == 0 {
            return None;
        }
        self.throttle.admit(now)?;
        self.told = counts;
        let reasons: Vec<_> = new.iter().map(|(count, name)| format!("{name} {count}")).collect();
        Some((all, reasons.join(", ")))
    }
}

impl Gateway {
    /// Logs a summary of the logins refused since the last one, if there is anything to say and the
    /// last one is not long ago. `now` is the time of a monotonic clock.
    pub(crate) fn tell_refusals(&self, now: Span) {
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((logins, reasons)) = refusals.sum_up(&self.stats, now) {
            warn!(logins, reasons, "logins were refused");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_summed_up_at_once_and_then_once_a_minute() {
        let stats: Vec<Arc<ShardStats>> = vec![Arc::default(), Arc::default()];
        let mut refusals = Refusals::default();
        let at = Span::from_secs;
        assert_eq!(refusals.sum_up(&stats, at(1)), None);
        stats[0].refused[Refusal::Expired.index()].add(2);
        stats[1].refused[Refusal::Expired.index()].add(3);
        stats[1].refused[Refusal::NoToken.index()].add(1);
        let all = "no_token 1, expired 5".to_owned();
        assert_eq!(refusals.sum_up(&stats, at(2)), Some((6, all)));
        assert_eq!(refusals.sum_up(&stats, at(100)), None, "nothing is new");
        stats[0].refused[Refusal::Full.index()].add(1);
        assert_eq!(refusals.sum_up(&stats, at(61)), None, "not a minute ago");
        assert_eq!(refusals.sum_up(&stats, at(62)), Some((1, "full 1".to_owned())));
    }
}
