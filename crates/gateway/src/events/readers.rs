//! The positions of the subscribers, by which events are published no faster than they are read.
//!
//! A subscriber that reads is waited for when half of what the ring keeps is unread, for a limited
//! time. One that does not read within that time is given up: it is not waited for again until it
//! has caught up, and may get a gap.

use std::time::Duration;

use slab::Slab;

/// The subscribers of one ring.
#[derive(Debug)]
pub(super) struct Readers {
    readers: Slab<Reader>,
    /// The number of unread events from which on a reader is waited for: half of the ring. The
    /// other half is for events that cannot wait.
    most_unread: u64,
    /// The number of the last event that may be published before the readers are looked at again.
    fence: u64,
    /// The longest wait for a reader.
    pub(super) patience: Duration,
}

#[derive(Debug)]
struct Reader {
    /// The number of the last event that the reader has taken.
    number: u64,
    given_up: bool,
}

impl Readers {
    /// Makes an empty set for a ring that keeps `capacity` events.
    pub(super) fn new(capacity: usize, patience: Duration) -> Readers {
        let most_unread = (capacity as u64 / 2).max(1);
        Readers { readers: Slab::new(), most_unread, fence: most_unread, patience }
    }

    /// Adds a reader that has the events up to `number`. Returns its key.
    pub(super) fn add(&mut self, number: u64) -> usize {
        self.fence = self.fence.min(number + self.most_unread);
        self.readers.insert(Reader { number, given_up: false })
    }

    pub(super) fn remove(&mut self, key: usize) {
        self.readers.try_remove(key);
    }

    /// Records that a reader has taken the events up to `number`, of `last`.
    pub(super) fn advance(&mut self, key: usize, number: u64, last: u64) {
        let Some(reader) = self.readers.get_mut(key) else {
            return;
        };
        reader.number = number;
        if reader.given_up && last - number < self.most_unread {
            reader.given_up = false;
            self.fence = self.fence.min(number + self.most_unread);
        }
    }

    /// Returns whether the next event after `last` waits for no reader.
    pub(super) fn has_room(&mut self, last: u64) -> bool {
        if last >= self.fence {
            let waited_for = self.readers.iter().filter(|(_, reader)| !reader.given_up);
            let slowest = waited_for.map(|(_, reader)| reader.number).min().unwrap_or(last);
            self.fence = slowest + self.most_unread;
        }
        last < self.fence
    }

    /// Gives up the readers for which the event after `last` would wait.
    pub(super) fn give_up(&mut self, last: u64) {
        for (_, reader) in &mut self.readers {
            reader.given_up |= last - reader.number >= self.most_unread;
        }
    }

    /// Waits for each reader up to `patience`, also for those given up before.
    pub(super) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
        self.fence = 0;
        for (_, reader) in &mut self.readers {
            reader.given_up = false;
        }
    }
}
