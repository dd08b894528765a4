//! Decides what goes to a receiver next, and when: in order for each key, again after a failure.
//!
//! Pure: the time is an argument, chance is a seed. Of each key one entry at most is under way, and
//! the next follows when it is settled. After a failure the key rests, longer each time; other keys
//! go on: beyond a few, keys that rest are put aside in the store, so that any number of them takes
//! no room in hand. The addresses from which clients came take turns, and one that has its share in
//! hand has further keys put aside: whoever logs in with ever more identities makes nobody wait.
//! If nothing succeeds, the receiver as a whole is tried with one entry at a time.

mod aside;
mod turns;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use systole_core::Span;
use systole_core::random::Random;

use crate::store::Entry;

use turns::Turns;

/// Maximum number of entries in hand, of at most some 2 KiB each.
pub(super) const WINDOW: usize = 4_096;

/// Maximum number of entries of one key in hand: more of them wait in the store, so that a key
/// whose entries fail, or are many, leaves room to the others.
pub(super) const SHARE: usize = 32;

/// Maximum number of entries of one address in hand before its further keys are put aside: with
/// three such addresses there is still room to read on.
pub(super) const SHARE_OF_ADDRESS: usize = WINDOW / 8;

/// Maximum number of keys in hand that rest; more of them are put aside in the store. With their
/// share each they take a quarter of what is in hand, and the rest is always read on.
const RESTING: usize = WINDOW / 4 / SHARE;

/// The rest after the first failure of an entry.
const FIRST_REST: Span = Span::from_millis(500);

/// The longest rest, and the longest for which a receiver may ask (`Retry-After`): it is up again
/// for this long at most before it is told.
const LONGEST_REST: Span = Span::from_secs(60);

/// The failures in a row, of any entries, after which the receiver is taken for down.
const DOWN_AFTER: u32 = 8;

/// The longest rest of a receiver that is down: it is tried with one entry, which costs it nothing.
const LONGEST_DOWN: Span = Span::from_secs(10);

/// What became of an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The receiver has taken it.
    Taken,
    /// The receiver did not answer, or cannot take it now; it may have said when it can.
    Failed {
        /// Whether it fails for this entry, and not for all: it has answered so.
        alone: bool,
        /// For how long the receiver asks to be left alone.
        retry_after: Option<Span>,
    },
    /// The receiver will never take it.
    Rejected,
}

/// An entry to be carried.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parcel {
    /// The entry.
    pub entry: Entry,
    /// The number of this attempt, from 1.
    pub attempt: u32,
}

/// What is to be done with an entry after its outcome.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Settled {
    /// It was taken.
    Taken,
    /// It will be carried again.
    Again,
    /// It goes to the dead letters; [`Courier::buried`] says when it is there.
    Dead(Entry),
}

/// What is carried to one receiver.
#[derive(Debug)]
pub struct Courier {
    concurrency: usize,
    give_up_after: Span,
    share_of_address: usize,
    chance: Random,
    /// The entries in hand, by number.
    items: BTreeMap<u64, Item>,
    /// The numbers of the entries of each key, in order. The first is under way, rests, or is due.
    keys: BTreeMap<Box<str>, VecDeque<u64>>,
    /// The first entries of keys that were never tried, all of which are due.
    fresh: Turns,
    /// The number of entries in hand of each address that has limits.
    of_address: BTreeMap<Box<str>, usize>,
    /// The first entries of keys that have failed, by the time from which they are due again.
    again: BTreeSet<(Span, u64)>,
    /// Whether the next place is for an entry that has failed, if one of each sort is due: neither
    /// holds up the other.
    is_again_next: bool,
    aside: aside::State,
    under_way: usize,
    failures_in_row: u32,
    /// While the receiver is down: when it is tried again.
    down_until: Option<Span>,
    /// The keys of which entries were left in the store, and the number after which they stand.
    left: BTreeMap<Box<str>, u64>,
    /// Of these, those with room for more of their entries.
    wanting: BTreeSet<Box<str>>,
    /// The last of them whose entries were read: they take turns.
    last_wanting: Box<str>,
}

#[derive(Debug)]
struct Item {
    entry: Entry,
    attempts: u32,
    first_at: Option<Span>,
}

impl Courier {
    /// Makes the courier of a receiver that takes `concurrency` entries at once.
    pub fn new(concurrency: usize, give_up_after: Span, seed: u64) -> Courier {
        Courier {
            concurrency: concurrency.max(1),
            give_up_after,
            share_of_address: SHARE_OF_ADDRESS,
            chance: Random::new(seed),
            items: BTreeMap::new(),
            keys: BTreeMap::new(),
            fresh: Turns::default(),
            of_address: BTreeMap::new(),
            again: BTreeSet::new(),
            is_again_next: false,
            aside: aside::State::default(),
            under_way: 0,
            failures_in_row: 0,
            down_until: None,
            left: BTreeMap::new(),
            wanting: BTreeSet::new(),
            last_wanting: "".into(),
        }
    }

    /// Returns for how many more entries there is room.
    pub fn room(&self) -> usize {
        WINDOW.saturating_sub(self.items.len())
    }

    /// Takes an entry; its number is higher than those of all before. One of a key that has its
    /// share in hand is left in the store, and so are those of that key that follow.
    pub fn take(&mut self, now: Span, entry: Entry) {
        if self.left.contains_key(&entry.key) {
            return;
        }
        if let Some(Entry { key, .. }) = self.take_or_leave(now, entry) {
            let last = self.keys.get(&key).and_then(|of_key| of_key.back().copied());
            self.left.insert(key, last.unwrap_or(0));
        }
    }

    /// Takes an entry, or returns it if it is to be left in the store.
    fn take_or_leave(&mut self, now: Span, entry: Entry) -> Option<Entry> {
        let has_share = self.has_share(&entry.origin);
        let was_aside = self.aside.is_unread(&entry.key);
        match self.keys.get(&entry.key) {
            Some(of_key) if of_key.len() >= SHARE => return Some(entry),
            Some(_) if has_share || self.room() == 0 => return Some(entry),
            None if has_share && !was_aside => {
                let number = entry.number;
                self.keys.insert(entry.key.clone(), VecDeque::from([number]));
                self.hold(entry, 0, None);
                // It is due, and comes back in its turn.
                self.aside.add(number, now);
            }
            Some(_) | None => self.add(now, entry),
        }
        None
    }

    /// Whether an address has its share in hand.
    fn has_share(&self, origin: &str) -> bool {
        self.of_address.get(origin).is_some_and(|count| *count >= self.share_of_address)
    }

    fn add(&mut self, now: Span, entry: Entry) {
        let (number, key) = (entry.number, entry.key.clone());
        let tried = self.aside.taken_back(&entry);
        let of_key = self.keys.entry(key).or_default();
        of_key.push_back(number);
        if of_key.len() == 1 {
            match tried {
                Some(_) => drop(self.again.insert((now, number))),
                None => self.fresh.add(now, &entry),
            }
        }
        let (attempts, first_at) = tried.unwrap_or_default();
        self.hold(entry, attempts, first_at);
    }

    /// Takes an entry in hand.
    fn hold(&mut self, entry: Entry, attempts: u32, first_at: Option<Span>) {
        if !entry.origin.is_empty() {
            *self.of_address.entry(entry.origin.clone()).or_default() += 1;
        }
        self.items.insert(entry.number, Item { entry, attempts, first_at });
    }

    /// Has an entry in hand no more.
    fn let_go(&mut self, number: u64) -> Option<Entry> {
        let Item { entry, .. } = self.items.remove(&number)?;
        if let Some(count) = self.of_address.get_mut(&entry.origin) {
            *count -= 1;
            if *count == 0 {
                self.of_address.remove(&entry.origin);
            }
        }
        Some(entry)
    }

    /// Returns the next entry that is to be carried now; its outcome follows by
    /// [`Courier::finish`].
    pub fn next(&mut self, now: Span) -> Option<Parcel> {
        let limit = if self.is_down() { 1 } else { self.concurrency };
        if self.under_way >= limit || self.down_until.is_some_and(|until| now < until) {
            return None;
        }
        let number = self.take_due(now)?;
        self.aside.begin(number);
        let item = self.items.get_mut(&number)?;
        item.attempts = item.attempts.saturating_add(1);
        item.first_at.get_or_insert(now);
        self.under_way += 1;
        Some(Parcel { entry: item.entry.clone(), attempt: item.attempts })
    }

    /// Takes out the entry that is next, if one is due: those that have failed and those that were
    /// never tried take turns.
    fn take_due(&mut self, now: Span) -> Option<u64> {
        let again = self.again.first().copied().filter(|(at, _)| *at <= now);
        let has_fresh = self.fresh.since().is_some_and(|at| at <= now);
        let is_again = again.is_some() && (!has_fresh || self.is_again_next);
        self.is_again_next = !is_again && (has_fresh || self.is_again_next);
        match again.filter(|_| is_again) {
            Some(next) => {
                self.again.remove(&next);
                Some(next.1)
            }
            None => self.fresh.next(now),
        }
    }

    /// Returns when [`Courier::next`] or [`Courier::wants_back`] may have something else, if
    /// nothing happens before.
    pub fn next_deadline(&self) -> Option<Span> {
        let again = self.again.first().map(|(at, _)| *at);
        let in_hand = self.fresh.since().into_iter().chain(again).min();
        let in_hand = in_hand.map(|at| at.max(self.down_until.unwrap_or(Span::ZERO)));
        in_hand.into_iter().chain(self.aside.next_deadline()).min()
    }

    /// Takes the outcome of an entry that is under way.
    pub fn finish(&mut self, now: Span, number: u64, outcome: Outcome) -> Settled {
        self.under_way = self.under_way.saturating_sub(1);
        match outcome {
            Outcome::Taken => {
                (self.failures_in_row, self.down_until) = (0, None);
                self.settle(now, number);
                Settled::Taken
            }
            Outcome::Rejected => {
                // It answers, so it is not down.
                (self.failures_in_row, self.down_until) = (0, None);
                self.bury(number)
            }
            Outcome::Failed { alone, retry_after } => self.fail(now, number, alone, retry_after),
        }
    }

    fn fail(&mut self, now: Span, number: u64, alone: bool, retry_after: Option<Span>) -> Settled {
        self.failures_in_row = if alone { 0 } else { self.failures_in_row.saturating_add(1) };
        self.down_until = None;
        let Some(item) = self.items.get(&number) else {
            return Settled::Again;
        };
        let tried_for = now.less(item.first_at.unwrap_or(now));
        // With few entries the receiver is tried as seldom as they are.
        let longest = if self.is_down() { LONGEST_DOWN } else { LONGEST_REST };
        let rest = self.rest(item.attempts, longest);
        let rest = retry_after.map_or(rest, |wanted| wanted.min(LONGEST_REST).max(rest));
        if self.is_down() {
            let rest = self.rest(self.failures_in_row - DOWN_AFTER + 1, LONGEST_DOWN);
            self.down_until = Some(now + rest);
        }
        if tried_for >= self.give_up_after {
            return self.bury(number);
        }
        self.rest_until(now + rest, number);
        Settled::Again
    }

    /// Lets the key of an entry rest: in hand, or aside if as many rest in hand as may.
    fn rest_until(&mut self, due: Span, number: u64) {
        if self.again.len() < RESTING {
            self.again.insert((due, number));
        } else {
            self.aside.add(number, due);
        }
    }

    /// Says that a dead entry is among the dead letters: the next of its key may go.
    pub fn buried(&mut self, now: Span, number: u64) {
        self.settle(now, number);
    }

    /// Says that a dead entry could not be written to the dead letters: it is carried again.
    pub fn not_buried(&mut self, now: Span, number: u64) {
        if self.items.contains_key(&number) {
            self.rest_until(now + LONGEST_REST, number);
        }
    }

    /// Whether the receiver is taken for down.
    pub fn is_down(&self) -> bool {
        self.failures_in_row >= DOWN_AFTER
    }

    fn bury(&self, number: u64) -> Settled {
        let dead = self.items.get(&number).map(|item| item.entry.clone());
        dead.map_or(Settled::Again, Settled::Dead)
    }

    /// Takes an entry out; the next of its key is due.
    fn settle(&mut self, now: Span, number: u64) {
        let Some(entry) = self.let_go(number) else {
            return;
        };
        let Some(of_key) = self.keys.get_mut(&entry.key) else {
            return;
        };
        of_key.pop_front();
        match of_key.front().map(|next| self.items.get(next)) {
            Some(Some(next)) => self.fresh.add(now, &next.entry),
            Some(None) => {}
            None => drop(self.keys.remove(&entry.key)),
        }
        self.want_more(&entry);
    }

    /// Returns the rest after the `attempts`-th failure: twice that of the one before up to
    /// `longest`, of which the upper half is chance, so that what failed together does not return
    /// together.
    fn rest(&mut self, attempts: u32, longest: Span) -> Span {
        let limit = longest.as_nanos();
        let doubled = attempts.saturating_sub(1).min(16);
        let longest = FIRST_REST.as_nanos().saturating_mul(1 << doubled).min(limit);
        Span::from_nanos(longest / 2 + self.chance.below(longest / 2 + 1))
    }
}

#[cfg(test)]
mod tests;
