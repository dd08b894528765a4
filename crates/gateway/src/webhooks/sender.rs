//! Carries events to one receiver, on threads of its own.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use systole_core::Span;
use systole_net::Clock;
use ureq::Agent;

use super::Receiver;
use super::complaints::{Complaints, Failure};
use super::courier::{Courier, Outcome, Parcel, Settled};
use super::errands::Errands;
use super::http::{agent, post};
use super::signature::sign;
use crate::json::escape;
use crate::stats::Cell;
use crate::store::{DeadLetters, Entry, Store};
use crate::throttle::Throttle;

/// How much of an answer is read, in bytes: enough that a usual receiver can send all of its own.
const MAX_ANSWER: u64 = 4 << 10;

/// How long an answer is read after its status, which has decided: a receiver that leaves it open
/// holds no other event up.
const READ_FOR: Span = Span::from_millis(100);

/// Longest text of an error in the status, in characters.
const LONGEST_ERROR: usize = 200;

/// What a receiver is told, and how that goes.
#[derive(Clone, Debug)]
pub(crate) struct Sender(Arc<Shared>);

/// How it goes with a receiver.
#[derive(Clone, Debug)]
pub(crate) struct SenderStatus {
    /// Whether it takes nothing at present.
    pub(crate) is_down: bool,
    /// Why the last attempt failed, if no later one succeeded.
    pub(crate) error: Option<String>,
    /// How long until the next attempt; `None` if nothing waits for one.
    pub(crate) next_in: Option<Span>,
    /// Entries that it has taken.
    pub(crate) delivered: u64,
    /// Attempts that failed.
    pub(crate) failures: u64,
    /// Entries that went to the dead letters.
    pub(crate) dead: u64,
}

pub(super) struct Shared {
    pub(super) receiver: Receiver,
    agent: Agent,
    pub(super) store: Store,
    letters: DeadLetters,
    pub(super) clock: Clock,
    hands: Mutex<Hands>,
    /// Notified when there may be something to carry.
    pub(super) more: Condvar,
    delivered: Cell,
    failures: Cell,
    dead: Cell,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("receiver", &self.receiver).finish_non_exhaustive()
    }
}

/// What the threads share.
pub(super) struct Hands {
    pub(super) errands: Errands,
    /// When the threads end.
    ends_at: Option<Span>,
    threads: usize,
    error: Option<String>,
    dead_lines: Throttle,
    complaints: Complaints,
}

impl Sender {
    /// Starts to carry what waits in `store` to `receiver`.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(crate) fn start(
        receiver: Receiver,
        store: Store,
        letters: DeadLetters,
        clock: Clock,
        seed: u64,
    ) -> io::Result<Sender> {
        let Receiver { concurrency, give_up_after, timeout, .. } = receiver;
        let hands = Hands {
            errands: Errands::new(Courier::new(concurrency, give_up_after, seed)),
            ends_at: None,
            threads: concurrency,
            error: None,
            dead_lines: Throttle::new(5, Span::from_secs(10)),
            complaints: Complaints::default(),
        };
        let agent = agent(timeout, READ_FOR, &receiver.roots);
        let shared = Arc::new(Shared {
            receiver,
            agent,
            store: store.clone(),
            letters,
            clock,
            hands: Mutex::new(hands),
            more: Condvar::new(),
            delivered: Cell::default(),
            failures: Cell::default(),
            dead: Cell::default(),
        });
        let told = Arc::downgrade(&shared);
        store.when_written(Box::new(move || {
            if let Some(shared) = told.upgrade() {
                shared.lock().errands.has_more();
                shared.more.notify_one();
            }
        }));
        for number in 0..concurrency {
            let shared = shared.clone();
            let name = format!("webhook-{number}");
            drop(std::thread::Builder::new().name(name).spawn(move || shared.work())?);
        }
        Ok(Sender(shared))
    }

    /// Returns who is told.
    pub(crate) fn receiver(&self) -> &Receiver {
        &self.0.receiver
    }

    /// Returns the file of the dead letters.
    pub(crate) fn letters(&self) -> &DeadLetters {
        &self.0.letters
    }

    /// Returns how it goes.
    pub(crate) fn status(&self) -> SenderStatus {
        let shared = &self.0;
        let hands = shared.lock();
        let now = shared.clock.monotonic();
        SenderStatus {
            is_down: hands.errands.courier.is_down(),
            error: hands.error.clone(),
            next_in: hands.errands.courier.next_deadline().map(|at| at.less(now)),
            delivered: shared.delivered.get(),
            failures: shared.failures.get(),
            dead: shared.dead.get(),
        }
    }

    /// Ends the threads when nothing is due any more, at the latest after `limit`. Returns whether
    /// they have ended, for which it does not wait.
    pub(crate) fn stop(&self, limit: Span) -> bool {
        let now = self.0.clock.monotonic();
        let mut hands = self.0.lock();
        hands.ends_at.get_or_insert(now + limit);
        self.0.more.notify_all();
        hands.threads == 0
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Hands> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut hands = self.lock();
        loop {
            let now = self.clock.monotonic();
            if let Some(errand) = hands.errands.begin(now) {
                hands = self.run_errand(hands, errand);
            } else if let Some(parcel) = hands.errands.courier.next(now) {
                drop(hands);
                let (outcome, failure) = self.carry(&parcel);
                self.finish(&parcel.entry, outcome, failure);
                hands = self.lock();
            } else {
                let is_idle = hands.errands.is_idle();
                let next = hands.errands.courier.next_deadline();
                let ask = hands.errands.asks_again_at(now);
                if hands.ends_at.is_some_and(|at| now >= at || (is_idle && next.is_none())) {
                    hands.threads -= 1;
                    return;
                }
                // What is due already waits for another thread, which says when it is done.
                let wake_at = next.into_iter().chain(hands.ends_at).chain(ask);
                hands = match wake_at.filter(|at| *at > now).min() {
                    Some(at) => {
                        let limit = Duration::from(at.less(now));
                        let waited = self.more.wait_timeout(hands, limit);
                        waited.unwrap_or_else(PoisonError::into_inner).0
                    }
                    None => self.more.wait(hands).unwrap_or_else(PoisonError::into_inner),
                };
            }
        }
    }

    /// Makes one attempt. Returns with its outcome why it failed, if it did.
    fn carry(&self, parcel: &Parcel) -> (Outcome, Option<Failure>) {
        let Parcel { entry, attempt } = parcel;
        let body = body_of(entry);
        let Receiver { url, secret, .. } = &self.receiver;
        let signature = sign(secret.as_bytes(), self.clock.wall_ms(), body.as_bytes());
        let request = post(&self.agent, url)
            .header("Content-Type", "application/json")
            .header("User-Agent", concat!("systole/", env!("CARGO_PKG_VERSION")))
            .header("Idempotency-Key", key_of(entry))
            .header("Systole-Event", &*entry.kind)
            .header("Systole-Attempt", attempt.to_string())
            .header("Systole-Signature", signature);
        match request.send(body) {
            // The error of the client may quote the URL, and never the body.
            Err(error) => failed(Failure::unreached(error.to_string()), false, None),
            Ok(mut response) => {
                let status = response.status().as_u16();
                let retry_after = response.headers().get("Retry-After");
                let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
                // The status has decided. To close before the rest has come would reset the stream.
                let _ = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec();
                match status {
                    200..=299 => (Outcome::Taken, None),
                    422 => (Outcome::Rejected, Some(Failure::refused(status))),
                    // What stands before a service that is down, or the service itself.
                    429 | 502..=504 => failed(Failure::refused(status), false, retry_after),
                    _ => failed(Failure::refused(status), true, retry_after),
                }
            }
        }
    }

    fn finish(&self, entry: &Entry, outcome: Outcome, failure: Option<Failure>) {
        if matches!(outcome, Outcome::Failed { .. }) {
            self.failures.add(1);
        }
        let number = entry.number;
        let mut hands = self.lock();
        let now = self.clock.monotonic();
        let complaint = match (outcome, &failure) {
            (Outcome::Failed { .. }, Some(failure)) => {
                hands.complaints.failed(now, &entry.key, failure)
            }
            (_, _) => hands.complaints.answered(),
        };
        let error = failure.map(|it| it.text.chars().take(LONGEST_ERROR).collect::<String>());
        let was_down = hands.errands.courier.is_down();
        let settled = hands.errands.courier.finish(now, number, outcome);
        let is_down = hands.errands.courier.is_down();
        hands.error.clone_from(&error);
        drop(hands);
        let receiver = &self.receiver.name;
        if let Some(complaint) = complaint {
            complaint.log(receiver, error.as_deref());
        }
        if is_down && !was_down {
            let hint = "what it is owed waits on disk; see GET /api/v1/webhooks";
            tracing::warn!(receiver, error, hint, "the webhook takes nothing");
        } else if was_down && !is_down {
            tracing::info!(receiver, "the webhook takes events again");
        }
        match settled {
            Settled::Taken => {
                self.delivered.add(1);
                self.store.settle(number);
            }
            Settled::Again => {}
            Settled::Dead(entry) => self.bury(&entry, error.as_deref().unwrap_or("rejected")),
        }
        self.more.notify_all();
    }

    /// Writes an entry to the dead letters.
    fn bury(&self, entry: &Entry, why: &str) {
        let written = self.letters.add(std::slice::from_ref(entry), why);
        let mut hands = self.lock();
        let now = self.clock.monotonic();
        let more = hands.dead_lines.admit(now);
        match &written {
            Ok(()) => hands.errands.courier.buried(now, entry.number),
            Err(_) => hands.errands.courier.not_buried(now, entry.number),
        }
        drop(hands);
        let (receiver, file) = (&self.receiver.name, self.letters.path().display());
        if written.is_ok() {
            self.dead.add(1);
            self.store.settle(entry.number);
        }
        match (written, more) {
            (_, None) => {}
            (Ok(()), Some(more)) => {
                let kind = &*entry.kind;
                tracing::error!(receiver, kind, why, %file, more, "an event is a dead letter");
            }
            (Err(error), Some(more)) => {
                tracing::error!(receiver, %error, %file, more, "a dead letter cannot be written");
            }
        }
    }
}

/// Returns the outcome of an attempt that failed, and why it did.
fn failed(failure: Failure, alone: bool, retry_after: Option<u64>) -> (Outcome, Option<Failure>) {
    let retry_after = retry_after.map(Span::from_secs);
    (Outcome::Failed { alone, retry_after }, Some(failure))
}

/// Returns what is sent: the event with the number of its entry.
fn body_of(entry: &Entry) -> String {
    let rest = entry.body.strip_prefix('{').unwrap_or_default();
    // An older version may have written the entry, with fewer escapes.
    escape(format!("{{\"number\":{},{rest}", entry.number))
}

/// Returns the same text for each attempt, over restarts too; for the join and the leave of a
/// session also if the gateway wrote the event twice.
fn key_of(entry: &Entry) -> String {
    let Entry { number, session, epoch, kind, .. } = entry;
    match &**kind {
        "join" | "leave" => format!("{session:016x}-{epoch}-{kind}"),
        _ => format!("{session:016x}-{epoch}-{kind}-{number}"),
    }
}

#[cfg(test)]
mod tests;
