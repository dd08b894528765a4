//! What the threads of a webhook ask of the store: one thing at a time, without the lock.
//!
//! The kinds of questions take turns, and each answer is bounded: whatever the clients of some
//! addresses give a courier to put aside and to take back, what is new in the store is read.

use std::sync::MutexGuard;

use systole_core::Span;

use super::courier::{Courier, SHARE, WINDOW};
use super::sender::{Hands, Shared};
use crate::store::{Aside, Entry, Page, TakenBack, Wanted};

/// How many entries are read at once.
const READ_AT_ONCE: usize = 512;

/// The wait before a store that has failed is asked again.
const ASK_AGAIN: Span = Span::from_secs(1);

const _: () = assert!(SHARE <= READ_AT_ONCE && READ_AT_ONCE <= WINDOW / 2);

/// What is to be asked of the store.
pub(super) enum Errand {
    /// To put keys aside.
    PutAside(Vec<Aside>),
    /// To take keys back that are due at this time, at most so many.
    TakeBack(Span, usize),
    /// To read entries that were left there, up to this number.
    ReadLeft(Vec<Wanted>, u64),
    /// To read the entries after this number, at most so many.
    Read(u64, usize),
}

/// What the store has answered; `None` if it fails.
pub(super) enum Answer {
    PutAside(Vec<Aside>, Option<()>),
    TakenBack(Option<TakenBack>),
    Left(Vec<Wanted>, Option<Vec<Vec<Entry>>>),
    Read(Option<Page>),
}

/// The kinds of errands, in the order of their turns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    PutAside,
    TakeBack,
    ReadLeft,
    Read,
}

impl Kind {
    fn next(self) -> Kind {
        match self {
            Kind::PutAside => Kind::TakeBack,
            Kind::TakeBack => Kind::ReadLeft,
            Kind::ReadLeft => Kind::Read,
            Kind::Read => Kind::PutAside,
        }
    }
}

/// A courier, and what is asked of the store for it.
pub(super) struct Errands {
    pub(super) courier: Courier,
    /// The number of the last entry that was read, or passed over since its key is put aside.
    read_to: u64,
    /// Whether there may be entries after that.
    may_have_more: bool,
    /// Whether a thread asks the store for something.
    is_asking: bool,
    /// When the store may be asked again, since it has failed.
    ask_after: Span,
    /// The kind that has the next turn.
    turn: Kind,
}

impl Errands {
    pub(super) fn new(courier: Courier) -> Errands {
        Errands {
            courier,
            read_to: 0,
            may_have_more: true,
            is_asking: false,
            ask_after: Span::ZERO,
            turn: Kind::PutAside,
        }
    }

    /// Says that the store has new entries.
    pub(super) fn has_more(&mut self) {
        self.may_have_more = true;
    }

    /// Whether the store is asked for nothing, and has no new entries.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_asking && !self.may_have_more
    }

    /// Returns when the store may be asked again, if it has failed.
    pub(super) fn asks_again_at(&self, now: Span) -> Option<Span> {
        Some(self.ask_after).filter(|at| *at > now)
    }

    /// Returns what is to be asked of the store now; [`Errands::finish`] follows.
    pub(super) fn begin(&mut self, now: Span) -> Option<Errand> {
        if self.is_asking || self.ask_after > now {
            return None;
        }
        let mut turns = std::iter::successors(Some(self.turn), |kind| Some(kind.next())).take(4);
        let (kind, errand) = turns.find_map(|kind| Some((kind, self.of_kind(kind, now)?)))?;
        self.turn = kind.next();
        self.is_asking = true;
        if kind == Kind::Read {
            self.may_have_more = false;
        }
        Some(errand)
    }

    fn of_kind(&self, kind: Kind, now: Span) -> Option<Errand> {
        match kind {
            Kind::PutAside => {
                let aside = self.courier.to_put_aside();
                (!aside.is_empty()).then_some(Errand::PutAside(aside))
            }
            Kind::TakeBack => Some(Errand::TakeBack(now, self.courier.wants_back(now)?)),
            Kind::ReadLeft => {
                let wanted = self.courier.wanted();
                (!wanted.is_empty()).then_some(Errand::ReadLeft(wanted, self.read_to))
            }
            Kind::Read => {
                let may_read = self.may_have_more && self.courier.room() > WINDOW / 2;
                may_read.then_some(Errand::Read(self.read_to, READ_AT_ONCE))
            }
        }
    }

    /// Takes what the store has answered.
    pub(super) fn finish(&mut self, now: Span, answer: Answer) {
        self.is_asking = false;
        match answer {
            Answer::PutAside(keys, Some(())) => self.courier.are_aside(&keys),
            Answer::TakenBack(Some(taken)) => self.courier.take_back(taken),
            Answer::Left(wanted, Some(left)) => self.courier.take_left(now, wanted, left),
            Answer::Read(Some(Page { entries, last, is_full })) => {
                self.may_have_more |= is_full;
                self.read_to = last.unwrap_or(self.read_to);
                entries.into_iter().for_each(|entry| self.courier.take(now, entry));
            }
            Answer::PutAside(keys, None) => {
                self.courier.are_not_aside(&keys);
                self.ask_after = now + ASK_AGAIN;
            }
            Answer::Read(None) => {
                self.may_have_more = true;
                self.ask_after = now + ASK_AGAIN;
            }
            Answer::TakenBack(None) | Answer::Left(_, None) => self.ask_after = now + ASK_AGAIN,
        }
    }
}

impl Shared {
    /// Asks the store, and takes what it answers.
    pub(super) fn run_errand<'a>(
        &'a self,
        hands: MutexGuard<'a, Hands>,
        errand: Errand,
    ) -> MutexGuard<'a, Hands> {
        drop(hands);
        let name = &self.receiver.name;
        let answer = match errand {
            Errand::PutAside(keys) => {
                let put = self.store.put_aside(name, keys.clone());
                Answer::PutAside(keys, put)
            }
            Errand::TakeBack(now, limit) => {
                Answer::TakenBack(self.store.take_back(name, now, limit))
            }
            Errand::ReadLeft(wanted, up_to) => {
                let left = self.store.left(name, wanted.clone(), up_to);
                Answer::Left(wanted, left)
            }
            Errand::Read(after, limit) => Answer::Read(self.store.page(name, after, limit)),
        };
        let mut hands = self.lock();
        hands.errands.finish(self.clock.monotonic(), answer);
        self.more.notify_all();
        hands
    }
}

#[cfg(test)]
mod tests;
