//! What a store counts, for metrics and the admin interface.

use crate::stats::Cell;

/// The counts of a store.
#[derive(Debug, Default)]
pub struct StoreStats {
    /// Transactions written.
    pub commits: Cell,
    /// Transactions that failed.
    pub failures: Cell,
    /// Sessions about which something is owed.
    pub owed: Cell,
    /// Entries that wait for their receivers.
    pub entries: Cell,
    /// Of these, those of each subscription, in order.
    pub waiting: Vec<Cell>,
    /// When the oldest of these happened, in milliseconds since 1970-01-01 UTC; 0 if none waits.
    pub oldest_ms: Vec<Cell>,
    /// Entries of each subscription that have made room, as dead letters.
    pub dead: Vec<Cell>,
    /// Sessions that a killed gateway left behind, found at the start.
    pub lost: Cell,
    /// Logins that went on without being written.
    pub undurable: Cell,
    /// Logins refused because the store was full, or nothing could be written.
    pub refused: Cell,
    /// Of these, those of identities and addresses that had their share of rows.
    pub over_share: Cell,
    /// Events other than joins and leaves that a full store did not keep.
    pub dropped: Cell,
}

impl StoreStats {
    /// Makes the counts of a store with so many subscriptions.
    pub(super) fn of(subscriptions: usize) -> StoreStats {
        let each = || (0..subscriptions).map(|_| Cell::default()).collect();
        let (waiting, oldest_ms, dead) = (each(), each(), each());
        StoreStats { waiting, oldest_ms, dead, ..StoreStats::default() }
    }
}
