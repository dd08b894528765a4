//! The messages of a session that is gone: what has arrived of them, as far as anybody can know.

use std::fmt;

/// The messages of a session that is gone, as far as the server has not acknowledged them.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Undelivered {
    /// Number of messages that were sent. Each of them has arrived or not: send it again only if it
    /// may arrive twice.
    pub uncertain: u64,
    /// Number of messages that were accepted later, and never sent. None of them has arrived.
    pub unsent: u64,
    /// The messages themselves, the oldest first, so that the uncertain ones stand before the
    /// others. Of the events that the application has not taken, the latest keep them, up to
    /// 32 MiB; in older ones they are missing, and the numbers stay.
    pub messages: Vec<Vec<u8>>,
}

impl Undelivered {
    /// Returns the number of messages of both kinds.
    pub fn count(&self) -> u64 {
        self.uncertain.saturating_add(self.unsent)
    }
}

/// Without the bytes, which belong to the application alone.
impl fmt::Debug for Undelivered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} uncertain, {} unsent", self.uncertain, self.unsent)
    }
}
