//! The store: what is owed about sessions, on disk, so that a killed gateway owes it still.
//!
//! A session is written before its client is welcomed, with what each receiver is to be told if it
//! ends ([`Owing`]). Events of sessions are written for the receivers that want them; the entry of
//! a leave takes the place of what was owed, in one transaction. An entry stays until its receiver
//! has taken it. What is still owed when a store is opened is what a killed gateway left behind:
//! its sessions get their leave then, with the cause `gateway_lost`.
//!
//! Bans are kept here too ([`crate::bans`]), without a receiver as well.
//!
//! One thread owns the database (`store/keeper.rs`): it takes all that waits, writes it in one
//! transaction, and answers when that is on disk. So a commit costs as much for a thousand logins
//! as for one.

mod aside;
mod bans;
mod changes;
mod database;
mod dead_letters;
mod error;
#[cfg(test)]
pub(crate) mod fixture;
mod inbox;
mod keeper;
mod left_behind;
mod origins;
mod place;
mod probe;
mod reading;
mod rows;
mod schema;
mod stats;
mod tally;
#[cfg(test)]
mod tests;
mod unknown;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use systole_core::Span;
use tokio::sync::{Notify, oneshot};

pub use aside::{Aside, TakenBack};
pub use database::{Database, Opening, Place};
pub use dead_letters::DeadLetters;
pub use error::StoreError;
pub(crate) use inbox::Question;
pub use left_behind::{LeftBehind, Lost};
pub(crate) use probe::probe;
#[cfg(test)]
pub(crate) use reading::LEFT_AT_ONCE;
pub use reading::{Page, Wanted};
pub use rows::{Counts, Entry, Noted, Owing};
pub use stats::StoreStats;

use crate::bans::Unwritten;
use crate::epochs::Epochs;
use crate::stats::Cell;
use crate::wake::LoopWaker;
use inbox::Inbox;
use unknown::Unknown;

/// Maximum number of logins that wait to be written: those of a second or so. Beyond it a login is
/// refused, and its peer asked to come back.
pub const OWINGS: usize = 8_192;

/// Maximum number of events that wait to be written before the control plane takes no more facts;
/// they wait in the shards then.
pub const NOTES: usize = 8_192;

/// What a store is to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreSettings {
    /// The directory of the database.
    pub directory: PathBuf,
    /// When what is written must be on disk; `None` at each commit, else this long after it at the
    /// latest.
    pub sync: Option<Span>,
    /// Maximum number of rows: what is owed and what waits for receivers.
    pub max_rows: u64,
    /// Maximum number of events of one identity that wait for receivers. More outlast a longer
    /// absence of a receiver; fewer leave more room to the others.
    pub max_rows_per_identity: u64,
    /// Maximum number of rows of one address that is not trusted. More let many clients behind it
    /// outlast a longer absence of a receiver; fewer leave more room to the others.
    pub max_rows_per_address: u64,
    /// Whether the oldest entries make room in a full store; else new logins are refused.
    pub drops_oldest: bool,
    /// Whether the gateway accepts no logins without a durable store.
    pub is_required: bool,
}

/// One who is told about sessions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subscription {
    /// The name.
    pub name: Arc<str>,
    /// The kinds of events that it wants.
    pub events: Vec<&'static str>,
}

impl Subscription {
    /// Whether the ends of sessions are owed to it.
    pub fn is_owed(&self) -> bool {
        self.wants("leave")
    }

    fn wants(&self, kind: &str) -> bool {
        self.events.contains(&kind)
    }
}

/// The answer to an [`Owing`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owned {
    pub(crate) link: u32,
    pub(crate) admission: u32,
    pub(crate) session: u64,
    pub(crate) epoch: u64,
    /// Whether the session may exist: what is owed about it is written, or need not be.
    pub(crate) is_granted: bool,
}

/// How a store is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Health {
    /// Why nothing can be written at present.
    pub failing: Option<String>,
    /// Whether it forgets all when the process ends, since it could not be opened.
    pub is_volatile: bool,
    /// Whether new logins are refused because it is full.
    pub is_full: bool,
}

/// A store. Clones share it.
#[derive(Clone, Debug)]
pub struct Store(Arc<Shared>);

struct Shared {
    inbox: Inbox,
    /// The answers that each shard has not taken yet, by its number: as many as its logins wait.
    answers: Vec<Mutex<Vec<Owned>>>,
    wakers: Vec<LoopWaker>,
    subscriptions: Arc<[Subscription]>,
    /// Kept only while ends of sessions are owed and the store is not required.
    unknown: Mutex<Unknown>,
    /// Notified when there is room for events again.
    room: Notify,
    /// Called when entries were written.
    listeners: Mutex<Vec<Box<dyn Fn() + Send>>>,
    health: Mutex<Health>,
    stats: StoreStats,
    left_behind: LeftBehind,
    is_required: bool,
    is_stopping: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared(…)")
    }
}

impl Store {
    /// Starts the thread of a store over an open database. `wakers` wake the shards that log
    /// clients in, in the order of their numbers. The thread ends after [`Store::stop`].
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(crate) fn start(
        mut database: Database,
        settings: &StoreSettings,
        wakers: Vec<LoopWaker>,
        epochs: Arc<Epochs>,
    ) -> std::io::Result<Store> {
        let shared = Arc::new(Shared {
            inbox: Inbox::default(),
            answers: wakers.iter().map(|_| Mutex::default()).collect(),
            wakers,
            subscriptions: database.subscriptions().clone(),
            unknown: Mutex::default(),
            room: Notify::new(),
            listeners: Mutex::default(),
            health: Mutex::new(Health { is_volatile: database.is_volatile(), ..Health::default() }),
            stats: StoreStats::of(database.subscriptions().len()),
            left_behind: database.take_left_behind(),
            // Without a receiver nothing is owed about a login.
            is_required: settings.is_required && database.has_receivers(),
            is_stopping: AtomicBool::new(false),
        });
        shared.stats.lost.set(shared.left_behind.count);
        let keeper = keeper::Keeper::new(shared.clone(), database, settings, epochs);
        let run = move || keeper.run();
        drop(std::thread::Builder::new().name("store".to_owned()).spawn(run)?);
        Ok(Store(shared))
    }

    /// Writes what is owed about a session that is about to exist; [`Store::take_owned`] has the
    /// answer once that is on disk. Returns false if there is no room.
    pub(crate) fn owe(&self, owing: Owing) -> bool {
        let is_taken = self.0.inbox.owe(owing);
        if !is_taken {
            self.0.stats.refused.add(1);
        }
        is_taken
    }

    /// Forgets what is owed about a session that ended before it existed.
    pub(crate) fn waive(&self, session: u64, epoch: u64) {
        if self.0.may_drop() {
            lock(&self.0.unknown).waive(session, epoch);
        }
        self.0.inbox.waive(session, epoch);
    }

    /// Takes the answers for a shard.
    pub(crate) fn take_owned(&self, shard: usize) -> Vec<Owned> {
        let answers = self.0.answers.get(shard);
        answers.map_or_else(Vec::new, |answers| std::mem::take(&mut *lock(answers)))
    }

    /// Writes an event for the receivers that want it, in the order of the calls. It is never lost
    /// while the process lives, unless the store is full, or fails and is not required. Call
    /// [`Store::room`] before.
    pub(crate) fn note(&self, noted: Noted) {
        let is_wanted = self.0.subscriptions.iter().any(|to| to.wants(noted.kind));
        let settles = matches!(noted.kind, "join" | "leave");
        let is_owed = settles && self.0.owes_leaves();
        if !is_wanted && !is_owed {
            return;
        }
        let is_failing = !self.0.is_required && self.health().failing.is_some();
        let has_room = !is_failing || self.0.inbox.has_room();
        let may_drop = self.0.may_drop();
        let is_kept =
            if may_drop { lock(&self.0.unknown).keeps(&noted, has_room) } else { has_room };
        if !is_kept {
            // Going on without a store that works is what was asked for.
            return self.0.stats.dropped.add(1);
        }
        self.0.inbox.note(noted);
    }

    /// Waits until there is room for an event. Nobody waits for a store that fails if it is not
    /// required, or if the gateway stops.
    pub(crate) async fn room(&self) {
        loop {
            let room = self.0.room.notified();
            let waits_for_it = self.0.is_required && !self.0.is_stopping.load(Ordering::Relaxed);
            if self.0.inbox.has_room() || (!waits_for_it && self.health().failing.is_some()) {
                return;
            }
            room.await;
        }
    }

    /// Lets nobody wait any more for a store that fails: the gateway stops. What is not written
    /// then, leaves as lost with the gateway at the next start.
    pub(crate) fn begin_stop(&self) {
        self.0.is_stopping.store(true, Ordering::Relaxed);
        self.0.room.notify_waiters();
    }

    /// Returns at most `limit` entries of a receiver after the one numbered `after`, in order;
    /// `None` if the database fails. Blocks until the store has answered.
    pub fn waiting(&self, receiver: &str, after: u64, limit: usize) -> Option<Vec<Entry>> {
        let receiver = receiver.into();
        self.ask(|reply| Question::Waiting { receiver, after, limit, reply })
    }

    /// Returns the entries of each of these keys up to a number; of the first keys only, at least
    /// of one, if there are many.
    pub(crate) fn left(
        &self,
        receiver: &str,
        wanted: Vec<Wanted>,
        up_to: u64,
    ) -> Option<Vec<Vec<Entry>>> {
        let receiver = receiver.into();
        self.ask(|reply| Question::Left { receiver, wanted, up_to, reply })
    }

    /// Returns the next entries of a receiver, of keys that are not put aside.
    pub(crate) fn page(&self, receiver: &str, after: u64, limit: usize) -> Option<Page> {
        let receiver = receiver.into();
        self.ask(|reply| Question::Page { receiver, after, limit, reply })
    }

    /// Puts keys of a receiver aside; `None` if that fails, and none of them is.
    pub(crate) fn put_aside(&self, receiver: &str, keys: Vec<Aside>) -> Option<()> {
        let receiver = receiver.into();
        self.ask(|reply| Question::PutAside { receiver, keys, reply })
    }

    /// Takes keys of a receiver back of which the next attempt is due; `None` if that fails, and
    /// all of them are aside still.
    pub(crate) fn take_back(&self, receiver: &str, now: Span, limit: usize) -> Option<TakenBack> {
        let receiver = receiver.into();
        self.ask(|reply| Question::TakeBack { receiver, now, limit, reply })
    }

    /// Writes bans; returns whether they are on disk.
    pub(crate) async fn write_bans(&self, bans: Unwritten) -> bool {
        let (reply, answer) = oneshot::channel();
        self.0.inbox.ask(Question::WriteBans { bans, reply });
        // A thread that has ended drops the question.
        answer.await.unwrap_or(false)
    }

    fn ask<T>(&self, question: impl FnOnce(SyncSender<Option<T>>) -> Question) -> Option<T> {
        let (reply, answer) = std::sync::mpsc::sync_channel(1);
        self.0.inbox.ask(question(reply));
        answer.recv().ok()?
    }

    /// Removes an entry that its receiver has taken, or that has gone to the dead letters.
    pub fn settle(&self, number: u64) {
        self.0.inbox.settle(number);
    }

    /// Calls `listener` whenever entries were written, on the thread of the store.
    pub(crate) fn when_written(&self, listener: Box<dyn Fn() + Send>) {
        lock(&self.0.listeners).push(listener);
    }

    /// Returns how many entries wait for a receiver, and since when, as of the last transaction.
    pub fn counts(&self, receiver: &str) -> Counts {
        let place = self.0.subscriptions.iter().position(|to| *to.name == *receiver);
        let StoreStats { waiting, oldest_ms, .. } = &self.0.stats;
        let read = |cells: &[Cell]| cells.get(place?).map(Cell::get);
        let waiting = read(waiting).unwrap_or(0);
        let oldest_at_ms = read(oldest_ms).filter(|at_ms| *at_ms > 0 && waiting > 0);
        Counts { waiting, oldest_at_ms }
    }

    /// Whether it forgets all when the process ends.
    pub(crate) fn is_volatile(&self) -> bool {
        lock(&self.0.health).is_volatile
    }

    /// Whether anybody is told about sessions.
    pub(crate) fn has_receivers(&self) -> bool {
        !self.0.subscriptions.is_empty()
    }

    /// Returns how the store is.
    pub fn health(&self) -> Health {
        lock(&self.0.health).clone()
    }

    /// Whether logins are refused while nothing can be written.
    pub fn is_required(&self) -> bool {
        self.0.is_required
    }

    /// Waits until all events so far are written, or cannot be.
    pub(crate) fn flush(&self) {
        loop {
            let (reply, answer) = std::sync::mpsc::sync_channel(1);
            self.0.inbox.ask(Question::Written { reply });
            // A thread that has ended drops the question.
            let is_all = answer.recv().unwrap_or(true);
            if is_all || self.health().failing.is_some() {
                return;
            }
        }
    }

    /// Returns who is told.
    pub fn subscriptions(&self) -> &[Subscription] {
        &self.0.subscriptions
    }

    /// Returns what a killed gateway left behind.
    pub(crate) fn left_behind(&self) -> &LeftBehind {
        &self.0.left_behind
    }

    /// Returns the counts.
    pub fn stats(&self) -> &StoreStats {
        &self.0.stats
    }

    /// Writes all that waits, and ends the thread; waits for that for `limit` at most. Returns
    /// whether all was written. Call it when the shards have ended: the logins that are still under
    /// way are none any more.
    pub(crate) fn stop(&self, limit: Span) -> bool {
        self.0.inbox.stop(limit)
    }
}

impl Shared {
    /// Whether the ends of sessions are owed to anybody.
    fn owes_leaves(&self) -> bool {
        self.subscriptions.iter().any(Subscription::is_owed)
    }

    /// Whether sessions may be online of which the store does not know.
    fn may_drop(&self) -> bool {
        !self.is_required && self.owes_leaves()
    }

    /// Changes the health; the log has what changed.
    fn set_health(&self, change: impl FnOnce(&mut Health)) {
        let mut health = lock(&self.health);
        let before = health.clone();
        change(&mut health);
        if before.failing.is_none() && health.failing.is_some() {
            self.room.notify_waiters();
            let error = health.failing.as_deref();
            let going_on = "logins go on, and a killed gateway forgets them";
            let refusing = "no client can log in until it can; those online stay";
            let of_bans = "a restart forgets what changes of bans until it can";
            let what = match (self.is_required, self.subscriptions.is_empty()) {
                (true, _) => refusing,
                (false, false) => going_on,
                (false, true) => of_bans,
            };
            let hint = "look at the disk: its space, its permissions, its health";
            tracing::error!(error, what, hint, "the store cannot be written");
        } else if before.failing.is_some() && health.failing.is_none() {
            tracing::info!("the store can be written again");
        }
        if health.is_full != before.is_full {
            let (owed, entries) = (self.stats.owed.get(), self.stats.entries.get());
            if health.is_full {
                let hint = "see GET /api/v1/webhooks for the receiver that takes nothing";
                tracing::error!(owed, entries, hint, "the store is full: logins are refused");
            } else {
                tracing::info!(owed, entries, "the store has room again");
            }
        }
    }

    /// Waives the logins whose answers no shard has taken. Returns whether there were any.
    fn waive_untaken(&self) -> bool {
        let mut found = false;
        for queue in &self.answers {
            for Owned { session, epoch, .. } in lock(queue).drain(..) {
                found = true;
                self.inbox.waive(session, epoch);
            }
        }
        found
    }

    /// Hands answers to their shards.
    fn answer(&self, answers: impl Iterator<Item = (usize, Owned)>) {
        let mut woken = vec![false; self.wakers.len()];
        for (shard, owned) in answers {
            if !owned.is_granted {
                self.stats.refused.add(1);
            }
            if let Some((queue, woken)) = self.answers.get(shard).zip(woken.get_mut(shard)) {
                lock(queue).push(owned);
                *woken = true;
            }
        }
        for (waker, _) in self.wakers.iter().zip(woken).filter(|(_, woken)| *woken) {
            // A shard that has ended has no logins.
            let _ = waker.wake();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere leaves what is inside consistent: each change is a single step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
