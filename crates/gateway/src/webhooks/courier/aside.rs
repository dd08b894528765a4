//! The keys of a courier that are not in hand: left in the store, or put aside there.
//!
//! A key is *left* if it has its share in hand: more of its entries are read when there is room.
//! It is put *aside* if its first entry has failed and as many rest in hand as may, or if it is new
//! and the address of its client has its share in hand. The store remembers it then, passes over
//! its entries, and gives it back when its next attempt is due.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use systole_core::Span;

use super::{Courier, SHARE};
use crate::store::{Aside, Entry, TakenBack};

/// Maximum number of keys that are put aside at once: some milliseconds of the store.
const AT_ONCE: usize = 512;

/// Maximum number of keys in hand that were taken back and not tried since. More of them would take
/// room from those that were never tried; with fewer the store is asked more often.
const BACK: usize = 64;

/// Entries of a key that are to be read from the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The key.
    pub key: Box<str>,
    /// The number after which they stand.
    pub after: u64,
    /// How many are wanted at most.
    pub limit: usize,
}

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
            let (key, attempts) = (item.entry.key.clone(), item.attempts);
            let first_at = item.first_at.unwrap_or(due);
            Some(Aside { key, number, attempts, first_at, due })
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

    /// Returns entries to be read, of a key that has room for more of them.
    pub fn wanted(&self) -> Option<Wanted> {
        let wanted = |key: &str, after, limit| Wanted { key: key.into(), after, limit };
        if let Some((key, aside)) = self.aside.unread.first_key_value() {
            return Some(wanted(key, aside.number.saturating_sub(1), 1));
        }
        let key = self.wanting.first()?;
        Some(wanted(key, *self.left.get(key)?, SHARE))
    }

    /// Notes that an entry of a key was settled: if more of its entries were left, and there is
    /// room for them, they are to be read.
    pub(super) fn want_more(&mut self, key: &str) {
        let of_key = self.keys.get(key).map_or(0, VecDeque::len);
        if of_key <= SHARE / 2 && self.left.contains_key(key) {
            self.wanting.insert(key.into());
        }
    }

    /// Takes entries of a key that were left in the store, in order; `is_all` if no more of them
    /// stand before what was taken last.
    pub fn take_left(&mut self, now: Span, key: &str, entries: Vec<Entry>, is_all: bool) {
        let last = entries.last().map(|entry| entry.number);
        if is_all {
            self.left.remove(key);
        } else if let (Some(after), Some(last)) = (self.left.get_mut(key), last) {
            *after = last;
        }
        if entries.is_empty() {
            // A full store has removed what was put aside.
            self.aside.unread.remove(key);
        }
        self.wanting.remove(key);
        entries.into_iter().for_each(|entry| self.add(now, entry));
    }
}
