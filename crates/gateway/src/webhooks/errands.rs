//! What the threads of a webhook ask of the store: one of them at a time, without the lock.

use std::sync::MutexGuard;

use systole_core::Span;

use super::courier::{SHARE, WINDOW, Wanted};
use super::sender::{Hands, Shared};
use crate::store::{Aside, Page, TakenBack};

/// How many entries are read at once.
const READ_AT_ONCE: usize = 512;

/// The wait before a store that has failed is asked again.
const ASK_AGAIN: Span = Span::from_secs(1);

const _: () = assert!(SHARE <= READ_AT_ONCE);

/// What is to be asked of the store.
pub(super) enum Errand {
    /// To put keys aside.
    PutAside(Vec<Aside>),
    /// To take keys back that are due at this time, at most so many.
    TakeBack(Span, usize),
    /// To read entries that were left there.
    ReadLeft(Wanted),
    /// To read the next entries, at most so many.
    Read(usize),
}

/// What the store has answered; `None` if it fails.
enum Answer {
    PutAside(Vec<Aside>, Option<()>),
    TakenBack(Option<TakenBack>),
    Left(Wanted, Option<Vec<crate::store::Entry>>),
    Read(Option<Page>),
}

impl Hands {
    /// Returns what is to be asked of the store now.
    pub(super) fn errand(&self, now: Span) -> Option<Errand> {
        if self.is_reading || self.read_after > now {
            return None;
        }
        let aside = self.courier.to_put_aside();
        if !aside.is_empty() {
            return Some(Errand::PutAside(aside));
        }
        if let Some(limit) = self.courier.wants_back(now) {
            return Some(Errand::TakeBack(now, limit));
        }
        if let Some(wanted) = self.courier.wanted() {
            return Some(Errand::ReadLeft(wanted));
        }
        let room = self.courier.room();
        let may_read = self.may_have_more && room > WINDOW / 2;
        may_read.then(|| Errand::Read(room.min(READ_AT_ONCE)))
    }

    /// Returns when the store may be asked again, if it has failed.
    pub(super) fn asks_again_at(&self, now: Span) -> Option<Span> {
        Some(self.read_after).filter(|at| *at > now)
    }
}

impl Shared {
    /// Asks the store, and takes what it answers.
    pub(super) fn run_errand<'a>(
        &'a self,
        mut hands: MutexGuard<'a, Hands>,
        errand: Errand,
    ) -> MutexGuard<'a, Hands> {
        let (after, name) = (hands.read_to, &self.receiver.name);
        hands.is_reading = true;
        if matches!(errand, Errand::Read(_)) {
            hands.may_have_more = false;
        }
        drop(hands);
        let answer = match errand {
            Errand::PutAside(keys) => {
                let put = self.store.put_aside(name, keys.clone());
                Answer::PutAside(keys, put)
            }
            Errand::TakeBack(now, limit) => {
                Answer::TakenBack(self.store.take_back(name, now, limit))
            }
            Errand::ReadLeft(wanted) => {
                let Wanted { key, after: left_after, limit } = &wanted;
                let entries = self.store.waiting_of(name, key, *left_after..=after, *limit);
                Answer::Left(wanted, entries)
            }
            Errand::Read(limit) => Answer::Read(self.store.page(name, after, limit)),
        };
        let mut hands = self.lock();
        hands.is_reading = false;
        hands.take_answer(self.clock.monotonic(), answer);
        self.more.notify_all();
        hands
    }
}

impl Hands {
    fn take_answer(&mut self, now: Span, answer: Answer) {
        match answer {
            Answer::PutAside(keys, Some(())) => self.courier.are_aside(&keys),
            Answer::TakenBack(Some(taken)) => self.courier.take_back(taken),
            Answer::Left(Wanted { key, limit, .. }, Some(entries)) => {
                let is_all = entries.len() < limit;
                self.courier.take_left(now, &key, entries, is_all);
            }
            Answer::Read(Some(Page { entries, last, is_full })) => {
                self.may_have_more |= is_full;
                self.read_to = last.unwrap_or(self.read_to);
                entries.into_iter().for_each(|entry| self.courier.take(now, entry));
            }
            Answer::PutAside(keys, None) => {
                self.courier.are_not_aside(&keys);
                self.read_after = now + ASK_AGAIN;
            }
            Answer::Read(None) => {
                self.may_have_more = true;
                self.read_after = now + ASK_AGAIN;
            }
            Answer::TakenBack(None) | Answer::Left(_, None) => self.read_after = now + ASK_AGAIN,
        }
    }
}
