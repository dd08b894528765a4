//! The memory of windows: what the links of a hub keep together for their peers' acknowledgements.

use alloc::collections::BTreeSet;
use core::cmp::Reverse;

use super::Hub;
use super::sessions::Place;
use crate::cause::Cause;
use crate::link;
use crate::time::Time;

/// The usual memory of windows in bytes: a thousand clients that take nothing, each with a window
/// of 256 KiB. Those that take what they get hold theirs for a round trip or a heartbeat.
pub const WINDOW_MEMORY: usize = 256 << 20;

/// The steps in which links are compared, in bytes. Of what is less only the sum is known, so that
/// a short message costs no search.
const STEP: usize = 4 * 1024;

/// What keeps messages.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Holder {
    Link(u32),
    /// A session that is away.
    Away(Place),
}

/// What is kept, and at most.
#[derive(Debug)]
pub(super) struct Kept {
    bytes: usize,
    limit: usize,
    /// Those that keep a step or more, with the number of steps: the largest first.
    large: BTreeSet<(Reverse<usize>, Holder)>,
}

impl Kept {
    pub(super) const fn new(limit: usize) -> Kept {
        Kept { bytes: 0, limit, large: BTreeSet::new() }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Counts what is kept now instead of before. Returns whether more is kept than may be.
    #[inline]
    pub(super) fn count(&mut self, holder: Holder, before: usize, now: usize) -> bool {
        if before == now {
            return false;
        }
        self.bytes = self.bytes - before + now;
        if before / STEP != now / STEP {
            self.large.remove(&(Reverse(before / STEP), holder));
            if now >= STEP {
                self.large.insert((Reverse(now / STEP), holder));
            }
        }
        now > before && self.bytes > self.limit
    }

    /// Returns who must give way, when `holder` has just kept more: the one that keeps most.
    fn must_give_way(&self, holder: Holder) -> Option<Holder> {
        let largest = self.large.first().map_or(holder, |(_, holder)| *holder);
        (self.bytes > self.limit).then_some(largest)
    }
}

impl Hub {
    /// Ends those that keep most, as slow consumers, until the others fit into the memory.
    #[cold]
    pub(super) fn make_room_in_windows(&mut self, now: Time, holder: Holder) {
        while let Some(largest) = self.kept.must_give_way(holder) {
            let before = self.kept.bytes();
            match largest {
                Holder::Link(link) => self.handle_link(now, link, link::World::Overflowed),
                Holder::Away(place) => self.end_away(now, place, Some(Cause::SlowConsumer)),
            }
            if self.kept.bytes() == before {
                // It keeps nothing, so the rest is kept in short messages of many others.
                return;
            }
        }
    }
}
