//! The keys of a courier that are not in hand: left in the store, or put aside there.
//!
//! A key is *left* if it has its share in hand: more of its entries are read when there is room.
//! It is put *aside* if its first entry has failed and as many rest in hand as may, or if it is new
//! and the address of its client has its share in hand. The store remembers it then, passes over
//! its entries, and gives it back when its next attempt is due.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound::{Excluded, Included, Unbounded};

use systole_core::Span;

use super::{Courier, SHARE};
use crate::store::{Aside, Entry, TakenBack, Wanted};

/// Maximum number of keys that are put aside at once: some milliseconds of the store.
const AT_ONCE: usize = 512;

/// Maximum number of keys in hand that were taken back and not tried since. More of them would take
/// room from those that were never tried; with fewer the store is asked more often.
const BACK: usize = 64;

/// Maximum number of keys that were left of which more entries are read at once.
const MORE_AT_ONCE: usize = 64;

/// What a courier knows of the keys that are put aside.
#[derive(Debug, Default)]
pub(super) struct State {
    /// The first entries of keys that are to be put aside, with the time when they are due again.
    adding: BTreeMap<u64, Span>,
    /// A time before which no key that is aside is due; `None` if none is aside.
    due: Option<Span>,
    /// The keys that were taken back and are not read yet.
    unread: BTreeMap<Box<str>, Aside>,
    /// Those that are read, and wait for their next attempt, by the number of their first entry.
    back: BTreeSet<u64>,
}

impl State {
    /// Puts the key of an entry aside, as soon as the store has.
    pub(super) fn add(&mut self, number: u64, due: Span) {
        self.adding.insert(number, due);
    }

    /// Returns the attempts at an entry that was aside, and when the first was.
    pub(super) fn taken_back(&mut self, entry: &Entry) -> Option<(u32, Option<Span>)> {
        let aside = self.unread.remove(&entry.key)?;
        // Another one comes if the first was removed from a full store meanwhile.
        if aside.number != entry.number {
            return None;
        }
        self.back.insert(entry.number);
        Some((aside.attempts, (aside.attempts > 0).then_some(aside.first_at)))
    }

    /// Whether a key was taken back, and is not read yet.
    pub(super) fn is_unread(&self, key: &str) -> bool {
        self.unread.contains_key(key)
    }

    /// Says that an entry is under way.
    pub(super) fn begin(&mut self, number: u64) {
        self.back.remove(&number);
    }

    /// Returns when keys that are aside may be due, if there is room for them.
    pub(super) fn next_deadline(&self) -> Option<Span> {
        self.due.filter(|_| self.room() >= BACK / 2)
    }

    fn room(&self) -> usize {
        BACK.saturating_sub(self.unread.len() + self.back.len())
    }
}

impl Courier {
    /// Returns keys that the store is to put aside; [`Courier::are_aside`] or
    /// [`Courier::are_not_aside`] follows.
    pub fn to_put_aside(&self) -> Vec<Aside> {
        let each = self.aside.adding.iter().take(AT_ONCE);
        let each = each.filter_map(|(&number, &due)| {
            let item = self.items.get(&number)?;
            let Entry { key, origin, .. } = item.entry.clone();
            let (attempts, first_at) = (item.attempts, item.first_at.unwrap_or(due));
            Some(Aside { key, origin, number, attempts, first_at, due })
        });
        each.collect()
    }

    /// Says that the store has put keys aside: none of their entries is in hand any more.
    pub fn are_aside(&mut self, keys: &[Aside]) {
        for Aside { key, number, due, .. } in keys {
            self.aside.adding.remove(number);
            self.aside.due = Some(self.aside.due.map_or(*due, |first| first.min(*due)));
            self.left.remove(key);
            self.wanting.remove(key);
            for number in self.keys.remove(key).unwrap_or_default() {
                self.let_go(number);
            }
        }
    }

    /// Says that the store could not put keys aside: they rest in hand.
    pub fn are_not_aside(&mut self, keys: &[Aside]) {
        for Aside { number, due, .. } in keys {
            self.aside.adding.remove(number);
            self.again.insert((*due, *number));
        }
    }

    /// Returns how many keys that were put aside are wanted back at most, if some may be due.
    pub fn wants_back(&self, now: Span) -> Option<usize> {
        self.aside.next_deadline().filter(|due| *due <= now)?;
        Some(self.aside.room())
    }

    /// Takes keys that were put aside back.
    pub fn take_back(&mut self, taken: TakenBack) {
        let TakenBack { keys, next_due } = taken;
        self.aside.due = next_due;
        for aside in keys {
            // The first entry is read again, and tried before more of them are.
            self.left.insert(aside.key.clone(), aside.number.saturating_sub(1));
            self.aside.unread.insert(aside.key.clone(), aside);
        }
    }

    /// Returns entries to be read: the first ones of keys that were taken back, and more of keys
    /// that have room for them. [`Courier::take_left`] follows.
    pub fn wanted(&self) -> Vec<Wanted> {
        let wanted = |key: &str, after, limit| Wanted { key: key.into(), after, limit };
        let unread = self.aside.unread.iter();
        let unread = unread.map(|(key, aside)| wanted(key, aside.number.saturating_sub(1), 1));
        let last = &*self.last_wanting;
        let turns = self.wanting.range::<str, _>((Excluded(last), Unbounded));
        let turns = turns.chain(self.wanting.range::<str, _>((Unbounded, Included(last))));
        let more = turns.filter_map(|key| Some(wanted(key, *self.left.get(key)?, SHARE)));
        unread.chain(more.take(MORE_AT_ONCE)).collect()
    }

    /// Notes that an entry was settled: if more entries of its key were left, and there is room for
    /// them, they are to be read. The last one of a key in hand always makes room for one.
    pub(super) fn want_more(&mut self, settled: &Entry) {
        let of_key = self.keys.get(&settled.key).map_or(0, VecDeque::len);
        let has_room = of_key <= SHARE / 2 && self.room() > 0 && !self.has_share(&settled.origin);
        if (of_key == 0 || has_room) && self.left.contains_key(&settled.key) {
            self.wanting.insert(settled.key.clone());
        }
    }

    /// Takes entries of the first of the keys that were wanted, in order. All stand before what was
    /// taken last, and the store has no more of a key there if they are fewer than were wanted.
    pub fn take_left(&mut self, now: Span, wanted: Vec<Wanted>, left: Vec<Vec<Entry>>) {
        for (Wanted { key, limit, .. }, entries) in wanted.into_iter().zip(left) {
            let is_all = entries.len() < limit;
            if entries.is_empty() {
                // A full store has removed what was put aside.
                self.aside.unread.remove(&key);
            }
            if self.wanting.remove(&key) {
                self.last_wanting.clone_from(&key);
            }
            let mut last = None;
            let mut entries = entries.into_iter();
            let is_left = entries.any(|entry| {
                let number = entry.number;
                let is_left = self.take_or_leave(now, entry).is_some();
                last = (!is_left).then_some(number).or(last);
                is_left
            });
            if is_all && !is_left {
                self.left.remove(&key);
            } else if let (Some(after), Some(last)) = (self.left.get_mut(&key), last) {
                *after = last;
            }
        }
    }
}
