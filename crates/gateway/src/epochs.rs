//! Epochs: which of two sessions of the same identity is the later one.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many epochs a run may give for each millisecond that it lasts, on average, and still stay
/// below those of the next run; no machine accepts as many connections.
pub const EPOCHS_PER_MS: u64 = 1 << 20;

/// Gives epochs, each higher than all before it, to all shards.
///
/// A run begins at the milliseconds of the wall clock times [`EPOCHS_PER_MS`], so that epochs rise
/// across restarts as well, as long as the wall clock is not set back by more than a run lasted.
/// They reach the end of their 64 bits in the year 2527, and stay there.
#[derive(Debug, Default)]
pub struct Epochs(AtomicU64);

impl Epochs {
    /// The epochs of a run that begins at `wall_ms`, in milliseconds since 1970-01-01 UTC.
    pub fn new(wall_ms: u64) -> Epochs {
        Epochs(AtomicU64::new(wall_ms.saturating_mul(EPOCHS_PER_MS)))
    }

    /// The next one.
    pub fn next(&self) -> u64 {
        let step = |epoch: u64| Some(epoch.saturating_add(1));
        // One place in memory has one order, however relaxed.
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        before.unwrap_or_else(|epoch| epoch).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::thread;

    use super::*;

    const WALL_MS: u64 = 1_800_000_000_000;

    #[test]
    fn shards_share_one_rising_order() {
        let epochs = Epochs::new(WALL_MS);
        let take = || (0..10_000).map(|_| epochs.next()).collect::<Vec<_>>();
        let taken: Vec<_> = thread::scope(|scope| {
            let shards: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            shards.into_iter().map(|shard| shard.join().unwrap()).collect()
        });
        assert!(taken.iter().all(|shard| shard.is_sorted_by(|a, b| a < b)));
        let all: BTreeSet<_> = taken.iter().flatten().collect();
        assert_eq!(all.len(), 40_000, "none was given twice");
    }

    #[test]
    fn they_rise_across_restarts() {
        let before = Epochs::new(WALL_MS);
        let last = (0..EPOCHS_PER_MS - 1).map(|_| before.next()).last().unwrap();
        assert!(Epochs::new(WALL_MS + 1).next() > last);
    }

    #[test]
    fn they_do_not_wrap() {
        let epochs = Epochs::new(u64::MAX);
        assert_eq!([epochs.next(), epochs.next()], [u64::MAX; 2]);
    }
}
