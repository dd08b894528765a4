//! Suspect sessions by network. Their verdicts may still belong to an outage of the network.

use alloc::collections::BTreeMap;

use super::groups::Key;
use crate::plain::{Damage, Plain, Sink, Source};

/// The maximum number of suspect sessions whose verdicts are awaited: five megabytes. When full,
/// verdicts of others are not awaited, and an outage may be reported with too small a count.
pub const SUSPECTS: usize = 65_536;

/// The suspect sessions, and their number by group.
#[derive(Clone, Debug, Default)]
pub(super) struct Suspects {
    sessions: BTreeMap<u64, Key>,
    counts: BTreeMap<Key, u32>,
}

/// In a saved state: the sessions, which are counted again.
impl Plain<'_> for Suspects {
    fn put(&self, out: &mut Sink<'_>) {
        let Suspects { sessions, counts: _ } = self;
        sessions.put(out);
    }

    fn take(from: &mut Source<'_>) -> Result<Suspects, Damage> {
        let sessions = BTreeMap::<u64, Key>::take(from)?;
        if sessions.len() > SUSPECTS {
            return Err(Damage::Illegal);
        }
        let mut suspects = Suspects::default();
        sessions.into_iter().for_each(|(session, key)| suspects.insert(session, key));
        Ok(suspects)
    }
}

impl Suspects {
    pub(super) fn insert(&mut self, session: u64, key: Key) {
        if self.sessions.len() < SUSPECTS && self.sessions.insert(session, key).is_none() {
            let count = self.counts.entry(key).or_default();
            *count = count.saturating_add(1);
        }
    }

    /// Removes a session that recovered or ended; returns its group.
    pub(super) fn remove(&mut self, session: u64) -> Option<Key> {
        let key = self.sessions.remove(&session)?;
        if let Some(count) = self.counts.get_mut(&key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&key);
            }
        }
        Some(key)
    }

    pub(super) fn any_in(&self, key: Key) -> bool {
        self.counts.contains_key(&key)
    }
}
