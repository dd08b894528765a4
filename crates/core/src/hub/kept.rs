//! The memory of windows: what the links of a hub keep together for their peers' acknowledgements.

use alloc::collections::BTreeSet;
use core::cmp::Reverse;

use super::Hub;
use crate::link;
use crate::time::Time;

/// The usual memory of windows in bytes: a thousand clients that take nothing, each with a window
/// of 256 KiB. Those that take what they get hold theirs for a round trip or a heartbeat.
pub const WINDOW_MEMORY: usize = 256 << 20;

/// The steps in which links are compared, in bytes. Of what is less only the sum is known, so that
/// a short message costs no search.
const STEP: usize = 4 * 1024;

/// What is kept, and at most.
#[derive(Debug)]
pub(super) struct Kept {
    bytes: usize,
    limit: usize,
    /// The links that keep a step or more, with the number of steps: the largest first.
    large: BTreeSet<(Reverse<usize>, u32)>,
}

impl Kept {
    pub(super) const fn new(limit: usize) -> Kept {
        Kept { bytes: 0, limit, large: BTreeSet::new() }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts what a link keeps now instead of before. Returns whether more is kept than may be.
    #[inline]
    pub(super) fn count(&mut self, link: u32, before: usize, now: usize) -> bool {
        if before == now {
            return false;
        }
        self.bytes = self.bytes - before + now;
        if before / STEP != now / STEP {
            self.large.remove(&(Reverse(before / STEP), link));
            if now >= STEP {
                self.large.insert((Reverse(now / STEP), link));
            }
        }
        now > before && self.bytes > self.limit
    }

    /// Returns the link that must give way, when `link` has just kept more: the one that keeps
    /// most.
    fn must_give_way(&self, link: u32) -> Option<u32> {
        let largest = self.large.first().map_or(link, |(_, link)| *link);
        (self.bytes > self.limit).then_some(largest)
    }
}

impl Hub {
    /// Ends the links that keep most, as slow consumers, until the others fit into the memory.
    #[cold]
    pub(super) fn make_room_in_windows(&mut self, now: Time, link: u32) {
        while let Some(largest) = self.kept.must_give_way(link) {
            let before = self.kept.bytes();
            self.handle_link(now, largest, link::World::Overflowed);
            if self.kept.bytes() == before {
                // It keeps nothing, so the rest is kept in short messages of many others.
                return;
            }
        }
    }
}
