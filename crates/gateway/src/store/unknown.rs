//! The sessions that a store which fails does not know: it has no row of them, and will get none.
//!
//! Where the store is not required, logins go on while it fails, and what finds no room meanwhile
//! is dropped. The end of a session may be dropped only if nothing is owed about it: else the next
//! start would take the session for lost.

use std::collections::{HashMap, HashSet};

use super::rows::Noted;

/// Session and epoch.
type Key = (u64, u64);

/// What is dropped while a store fails that is not required, and what is kept.
#[derive(Debug, Default)]
pub(super) struct Unknown {
    /// The logins that were granted and whose join has not come, and whether they are written: as
    /// many as there are under way.
    granted: HashMap<Key, bool>,
    /// The sessions online of which neither login nor join is written or waits to be.
    online: HashSet<Key>,
}

impl Unknown {
    /// Notes that a login was granted.
    pub(super) fn grant(&mut self, session: u64, epoch: u64, is_written: bool) {
        self.granted.insert((session, epoch), is_written);
    }

    /// Notes that a login that was granted has no session.
    pub(super) fn waive(&mut self, session: u64, epoch: u64) {
        self.granted.remove(&(session, epoch));
    }

    /// Whether an event is to be kept. Without room these are the joins and leaves of sessions
    /// about which something is owed: no more than have rows on disk, or a join that waits.
    pub(super) fn keeps(&mut self, noted: &Noted, has_room: bool) -> bool {
        let key = (noted.session, noted.epoch);
        match noted.kind {
            "join" => {
                let is_kept = has_room || self.granted.get(&key) == Some(&true);
                self.granted.remove(&key);
                if !is_kept {
                    self.online.insert(key);
                }
                is_kept
            }
            "leave" => !self.online.remove(&key) || has_room,
            _ => has_room,
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.granted.is_empty() && self.online.is_empty()
    }
}
