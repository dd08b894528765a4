//! Who is suspected, by network: their verdicts may still fall together with those of others.

use alloc::collections::BTreeMap;

use super::groups::Key;

/// Suspected sessions that are waited for: five megabytes at most. When full, the verdicts of
/// others are not waited for, and an outage may be told with too small a count.
pub const SUSPECTS: usize = 65_536;

/// The table.
#[derive(Clone, Debug, Default)]
pub(super) struct Suspects {
    sessions: BTreeMap<u64, Key>,
    counts: BTreeMap<Key, u32>,
}

impl Suspects {
    pub(super) fn suspected(&mut self, session: u64, key: Key) {
        if self.sessions.len() < SUSPECTS && self.sessions.insert(session, key).is_none() {
            let count = self.counts.entry(key).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// The suspicion is over, one way or the other; gives where it was.
    pub(super) fn settled(&mut self, session: u64) -> Option<Key> {
        let key = self.sessions.remove(&session)?;
        if let Some(count) = self.counts.get_mut(&key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&key);
            }
        }
        Some(key)
    }

    pub(super) fn are_in(&self, key: Key) -> bool {
        self.counts.contains_key(&key)
    }
}
