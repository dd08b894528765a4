//! Epochs: numbers that show which of two sessions of the same identity is the later one.

use std::sync::atomic::{AtomicU64, Ordering};

/// The number of epochs that a run may give per millisecond, on average, and still stay below those
/// of the next run; no machine accepts as many connections.
pub const EPOCHS_PER_MS: u64 = 1 << 20;

/// Gives epochs to all shards, each higher than all before.
///
/// A run begins at the milliseconds of the wall clock times [`EPOCHS_PER_MS`], so that epochs also
/// rise across restarts, unless the wall clock is set back by more than a run lasted. With a store
/// ([`crate::store`]) they rise even then. Epochs reach the end of 64 bits in the year 2527, and
/// stay there.
#[derive(Debug, Default)]
pub struct Epochs(AtomicU64);

impl Epochs {
    /// Makes the epochs of a run that begins at `wall_ms`, in milliseconds since 1970-01-01 UTC.
    pub fn new(wall_ms: u64) -> Epochs {
        Epochs(AtomicU64::new(wall_ms.saturating_mul(EPOCHS_PER_MS)))
    }

    /// Makes the epochs that begin above `before`.
    pub fn above(before: u64) -> Epochs {
        Epochs(AtomicU64::new(before))
    }

    /// Returns the last epoch that was given.
    pub(crate) fn last(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Returns the next epoch.
    pub fn next(&self) -> u64 {
        let step = |epoch: u64| Some(epoch.saturating_add(1));
        // Relaxed suffices: the modifications of one atomic have one order.
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
    fn epochs_rise_over_all_shards() {
        let epochs = Epochs::new(WALL_MS);
        let take = || (0..10_000).map(|_| epochs.next()).collect::<Vec<_>>();
        let taken: Vec<_> = thread::scope(|scope| {
            let shards: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            shards.into_iter().map(|shard| shard.join().unwrap()).collect()
        });
        assert!(taken.iter().all(|shard| shard.is_sorted_by(|a, b| a < b)));
        let all: BTreeSet<_> = taken.iter().flatten().collect();
        assert_eq!(all.len(), 40_000, "no epoch was given twice");
    }

    #[test]
    fn epochs_rise_across_restarts() {
        let before = Epochs::new(WALL_MS);
        let last = (0..EPOCHS_PER_MS - 1).map(|_| before.next()).last().unwrap();
        assert!(Epochs::new(WALL_MS + 1).next() > last);
    }

    #[test]
    fn epochs_do_not_wrap() {
        let epochs = Epochs::new(u64::MAX);
        assert_eq!([epochs.next(), epochs.next()], [u64::MAX; 2]);
    }
}
