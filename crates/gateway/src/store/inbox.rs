//! What waits for the thread of the store: one place with one lock, which nobody holds for longer
//! than a push.

use std::collections::VecDeque;
use std::mem;
use std::sync::mpsc::SyncSender;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use systole_core::Span;
use tokio::sync::oneshot;

use super::aside::{Aside, TakenBack};
use super::reading::{Page, Wanted};
use super::rows::{Entry, Noted, Owing};
use super::{NOTES, OWINGS};
use crate::bans::Unwritten;

/// Maximum number of events in one transaction, which then takes some 50 ms: logins wait for it.
pub(super) const NOTES_AT_ONCE: usize = 2_048;

/// What somebody wants to know of the database.
pub(crate) enum Question {
    /// The entries of a receiver after this number.
    Waiting { receiver: Box<str>, after: u64, limit: usize, reply: SyncSender<Option<Vec<Entry>>> },
    /// The entries of keys of a receiver up to this number.
    Left {
        receiver: Box<str>,
        wanted: Vec<Wanted>,
        up_to: u64,
        reply: SyncSender<Option<Vec<Vec<Entry>>>>,
    },
    /// The next entries of a receiver, of keys that are not put aside.
    Page { receiver: Box<str>, after: u64, limit: usize, reply: SyncSender<Option<Page>> },
    /// To put keys of a receiver aside.
    PutAside { receiver: Box<str>, keys: Vec<Aside>, reply: SyncSender<Option<()>> },
    /// To take keys of a receiver back that are due.
    TakeBack { receiver: Box<str>, now: Span, limit: usize, reply: SyncSender<Option<TakenBack>> },
    /// To write bans; the answer comes when they are on disk, or cannot be.
    WriteBans { bans: Unwritten, reply: oneshot::Sender<bool> },
    /// To write what has come before this question. The answer comes when what the thread has taken
    /// with it is written, or cannot be, and says whether that was all.
    Written { reply: SyncSender<bool> },
}

/// What is written in one transaction.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) owings: Vec<Owing>,
    /// Session and epoch of those about which nothing is owed.
    pub(super) waived: Vec<(u64, u64)>,
    pub(super) notes: VecDeque<Noted>,
    /// The numbers of entries.
    pub(super) settled: Vec<u64>,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        let Batch { owings, waived, notes, settled } = self;
        owings.is_empty() && waived.is_empty() && notes.is_empty() && settled.is_empty()
    }
}

#[derive(Default)]
struct State {
    waiting: Batch,
    questions: Vec<Question>,
    /// Whether the thread waits, and nothing has woken it yet.
    is_asleep: bool,
    is_stopping: bool,
    has_stopped: bool,
    has_failed: bool,
}

/// What waits for the thread.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    /// Notified when something waits.
    more: Condvar,
    /// Notified when the thread has ended.
    ended: Condvar,
}

/// What the thread has to do next.
pub(super) struct Work {
    pub(super) batch: Batch,
    pub(super) questions: Vec<Question>,
    /// Whether this is all that has waited.
    pub(super) is_all: bool,
    /// Whether the thread ends after this.
    pub(super) is_last: bool,
}

impl Inbox {
    pub(super) fn owe(&self, owing: Owing) -> bool {
        let mut state = self.lock();
        let has_room = state.waiting.owings.len() < OWINGS && !state.is_stopping;
        if has_room {
            state.waiting.owings.push(owing);
            self.rouse(&mut state);
        }
        has_room
    }

    /// Owes all of these in one batch.
    #[cfg(test)]
    pub(super) fn owe_all(&self, all: Vec<Owing>) {
        let mut state = self.lock();
        state.waiting.owings.extend(all);
        self.rouse(&mut state);
    }

    /// Hands in a login and an event for one batch.
    #[cfg(test)]
    pub(super) fn owe_and_note(&self, owing: Owing, noted: Noted) {
        let mut state = self.lock();
        state.waiting.owings.push(owing);
        state.waiting.notes.push_back(noted);
        self.rouse(&mut state);
    }

    #[cfg(test)]
    pub(super) fn is_stopping(&self) -> bool {
        self.lock().is_stopping
    }

    /// As many as there were logins that waited, at most.
    pub(super) fn waive(&self, session: u64, epoch: u64) {
        let mut state = self.lock();
        state.waiting.waived.push((session, epoch));
        self.rouse(&mut state);
    }

    /// Beyond [`NOTES`] by what its callers had in hand when there was no more room.
    pub(super) fn note(&self, noted: Noted) {
        let mut state = self.lock();
        state.waiting.notes.push_back(noted);
        self.rouse(&mut state);
    }

    pub(super) fn has_room(&self) -> bool {
        let state = self.lock();
        state.waiting.notes.len() < NOTES || state.has_stopped
    }

    /// As many as receivers have in hand, at most.
    pub(super) fn settle(&self, number: u64) {
        let mut state = self.lock();
        state.waiting.settled.push(number);
        self.rouse(&mut state);
    }

    /// A thread that has ended answers nothing: the sender of the answer is dropped.
    pub(super) fn ask(&self, question: Question) {
        let mut state = self.lock();
        if !state.has_stopped {
            state.questions.push(question);
            self.rouse(&mut state);
        }
    }

    /// Waits for work, at most for `limit`, and takes it. After a failure the wait is for `limit`,
    /// whatever comes meanwhile.
    pub(super) fn take(&self, limit: Option<Duration>, after_failure: bool) -> Work {
        let mut state = self.lock();
        let is_idle = |state: &mut State| {
            let has_work = !state.waiting.is_empty() && !after_failure;
            state.is_asleep = !has_work && state.questions.is_empty() && !state.is_stopping;
            state.is_asleep
        };
        state = match limit {
            None => self.more.wait_while(state, is_idle).unwrap_or_else(PoisonError::into_inner),
            Some(limit) => {
                let waited = self.more.wait_timeout_while(state, limit, is_idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        state.is_asleep = false;
        let questions = mem::take(&mut state.questions);
        let mut batch = mem::take(&mut state.waiting);
        if batch.notes.len() > NOTES_AT_ONCE {
            state.waiting.notes = batch.notes.split_off(NOTES_AT_ONCE);
        }
        let is_all = state.waiting.is_empty();
        let is_last = state.is_stopping && is_all;
        if state.is_stopping {
            // Nobody waits for them any more.
            batch.owings.clear();
        }
        Work { batch, questions, is_all, is_last }
    }

    /// Puts back what could not be written, before all that has come since.
    pub(super) fn put_back(&self, batch: Batch) {
        let mut state = self.lock();
        let later = mem::replace(&mut state.waiting, batch);
        let waiting = &mut state.waiting;
        waiting.owings.extend(later.owings);
        waiting.waived.extend(later.waived);
        waiting.notes.extend(later.notes);
        waiting.settled.extend(later.settled);
    }

    pub(super) fn stop(&self, limit: Span) -> bool {
        let mut state = self.lock();
        state.is_stopping = true;
        self.rouse(&mut state);
        let is_running = |state: &mut State| !state.has_stopped;
        let waited = self.ended.wait_timeout_while(state, Duration::from(limit), is_running);
        let state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.has_stopped && !state.has_failed
    }

    /// Ends all waits for the thread, which ends.
    pub(super) fn end(&self, has_failed: bool) {
        let mut state = self.lock();
        (state.has_stopped, state.has_failed) = (true, has_failed);
        state.questions.clear();
        self.ended.notify_all();
    }

    /// Wakes the thread if it waits. A busy one looks at all that has come before it waits again,
    /// and to notify it would cost each login and event a system call.
    fn rouse(&self, state: &mut State) {
        if mem::take(&mut state.is_asleep) {
            self.more.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
