//! The events of all shards in one numbered order, and their subscribers.
//!
//! One ring keeps the last events, and each subscriber reads from it at its own pace: there is no
//! queue per subscriber that could fill, and a slow subscriber costs the others nothing. A
//! subscriber that falls behind by more than the ring holds gets an error, the gap, and starts over
//! with a snapshot. A burst of facts waits, for a limited time, for the subscribers that read: see
//! [`Events::room`].

mod details;
mod event;
mod names;
mod readers;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::timeout;

pub use details::{End, Loss, OutageInfo, PolicyInfo, Revision, Session};
pub use event::{Body, Event};
pub(crate) use names::Limit;
pub use names::Names;

use crate::report::Fact;
use readers::Readers;

/// Longest wait for a subscriber while the gateway serves: a subscriber that reads takes
/// microseconds per event, and events must not be late for the others.
const PATIENCE: Duration = Duration::from_millis(20);

/// Maximum number of events that a subscriber gets at once: enough to keep up with a reconnect
/// storm, few enough that a subscriber holds little memory.
pub const BATCH: usize = 256;

/// The events of one gateway.
#[derive(Clone, Debug)]
pub struct Events {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    names: Names,
    /// Distinguishes the numbers of this process from those of its predecessor.
    stream: u64,
    ring: Mutex<Ring>,
    /// The number of the last event.
    last: watch::Sender<u64>,
    /// Notified when a subscriber has taken events, has ended or is given up.
    read: Notify,
}

#[derive(Debug)]
struct Ring {
    /// The last events; their numbers have no gaps and end at `last`.
    kept: VecDeque<Arc<Event>>,
    capacity: usize,
    last: u64,
    /// The number of the last leave of a session that a killed gateway left behind, and how many it
    /// left behind.
    left_behind: (u64, u64),
    readers: Readers,
}

/// The position of a subscriber: the process and the number of the last event received. Published
/// to the subscriber, which presents it to resume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// Identifies the gateway process that numbered the events.
    pub stream: u64,
    /// The number of the last event that the subscriber has.
    pub number: u64,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}-{}", self.stream, self.number)
    }
}

impl std::str::FromStr for Position {
    type Err = NotAPosition;
    fn from_str(text: &str) -> Result<Position, NotAPosition> {
        let (stream, number) = text.split_once('-').ok_or(NotAPosition)?;
        let stream = u64::from_str_radix(stream, 16).map_err(|_| NotAPosition)?;
        let number = number.parse().map_err(|_| NotAPosition)?;
        Ok(Position { stream, number })
    }
}

/// Error: the text is not a position in the format of this gateway. The caller's fault: start over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAPosition;

/// The reason why a subscriber cannot continue at its position and needs a new snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gap {
    /// The next events are no longer kept: the subscriber was away or slow for too long.
    TooFarBehind,
    /// The position is of another process, or was never published.
    UnknownPosition,
}

impl Gap {
    /// Returns `too_far_behind` or `unknown_position`.
    pub const fn name(self) -> &'static str {
        match self {
            Gap::TooFarBehind => "too_far_behind",
            Gap::UnknownPosition => "unknown_position",
        }
    }
}

impl Events {
    /// Makes an empty ring that keeps the last `capacity` events (at least 1), each of at most
    /// about 600 bytes including its texts. `stream` should differ from that of any earlier
    /// process: use the wall clock in ms.
    pub fn new(capacity: usize, stream: u64, names: Names) -> Events {
        let capacity = capacity.max(1);
        let readers = Readers::new(capacity, PATIENCE);
        let ring = Ring { kept: VecDeque::new(), capacity, last: 0, left_behind: (0, 0), readers };
        let ring = Mutex::new(ring);
        let (last, read) = (watch::Sender::new(0), Notify::new());
        Events { shared: Arc::new(Shared { names, stream, ring, last, read }) }
    }

    /// Waits until every subscriber that reads has taken enough for the next event to cost it none.
    /// Subscribers that do not read within the limit are given up: they are not waited for again
    /// until they have caught up. Wakes the subscribers before a wait.
    pub async fn room(&self) {
        if self.has_room() {
            return;
        }
        self.wake();
        let patience = self.lock().readers.patience;
        let all_read = async {
            loop {
                // Exists before the look, so that a read in between ends the wait.
                let read = self.shared.read.notified();
                if self.has_room() {
                    return;
                }
                read.await;
            }
        };
        if timeout(patience, all_read).await.is_err() {
            let mut ring = self.lock();
            let last = ring.last;
            ring.readers.give_up(last);
            drop(ring);
            self.shared.read.notify_waiters();
        }
    }

    fn has_room(&self) -> bool {
        let mut ring = self.lock();
        let last = ring.last;
        ring.readers.has_room(last)
    }

    /// Sets the longest wait for a subscriber that does not read, for [`Events::room`], which then
    /// waits also for those that were given up before.
    pub fn set_patience(&self, patience: Duration) {
        self.lock().readers.set_patience(patience);
        self.shared.read.notify_waiters();
    }

    /// Numbers, keeps and returns the event of a fact. Wakes no subscriber: see [`Events::wake`].
    pub fn publish(&self, fact: Fact) -> Arc<Event> {
        let Fact { at_ms, subject, event, parting, attributes } = fact;
        let session = self.shared.names.session(subject);
        self.publish_body(at_ms, Body::of_session(at_ms, session, &event, &parting, &attributes))
    }

    /// Numbers, keeps and returns an event that does not stem from one fact. Wakes no subscriber.
    pub(crate) fn publish_body(&self, at_ms: u64, body: Body) -> Arc<Event> {
        let mut ring = self.lock();
        ring.last += 1;
        let number = ring.last;
        if ring.kept.len() == ring.capacity {
            ring.kept.pop_front();
        }
        let event = Arc::new(Event { number, at_ms, body });
        ring.kept.push_back(event.clone());
        event
    }

    /// Marks all events so far as the leaves of sessions that a killed gateway left behind, of
    /// which there were `count`.
    pub(crate) fn mark_left_behind(&self, count: u64) {
        let mut ring = self.lock();
        ring.left_behind = (ring.last, count);
    }

    /// Returns how many sessions a killed gateway left behind.
    pub(crate) fn left_behind(&self) -> u64 {
        self.lock().left_behind.1
    }

    /// Returns the leaves of sessions that a killed gateway left behind, as far as they are still
    /// kept: those after the number `after`, at most [`BATCH`].
    pub(crate) fn leaves_behind(&self, after: u64) -> Vec<Arc<Event>> {
        let ring = self.lock();
        let (last, _) = ring.left_behind;
        let after = |event: &&Arc<Event>| event.number > after && event.number <= last;
        ring.kept.iter().filter(after).take(BATCH).cloned().collect()
    }

    pub(crate) fn names(&self) -> &Names {
        &self.shared.names
    }

    /// Returns the number of the last event.
    pub fn last(&self) -> u64 {
        self.lock().last
    }

    /// Wakes the subscribers if there are new events; once per batch of facts is enough.
    pub fn wake(&self) {
        let last = self.lock().last;
        self.shared.last.send_if_modified(|known| {
            let changed = *known != last;
            *known = last;
            changed
        });
    }

    /// Subscribes to the events after this call. A snapshot taken after this call and then the
    /// events miss nothing; the events may repeat what the snapshot already shows.
    pub fn subscribe(&self) -> Subscriber {
        let mut ring = self.lock();
        let number = ring.last;
        self.subscriber(&mut ring, number)
    }

    /// Subscribes to the events after `position`.
    ///
    /// # Errors
    /// There is a gap after `position`: subscribe anew, and take a snapshot.
    pub fn resume(&self, position: Position) -> Result<Subscriber, Gap> {
        let mut ring = self.lock();
        if position.stream != self.shared.stream || position.number > ring.last {
            return Err(Gap::UnknownPosition);
        }
        if position.number + 1 < ring.oldest() {
            return Err(Gap::TooFarBehind);
        }
        Ok(self.subscriber(&mut ring, position.number))
    }

    fn subscriber(&self, ring: &mut Ring, number: u64) -> Subscriber {
        let last = self.shared.last.subscribe();
        let key = ring.readers.add(number);
        Subscriber { events: self.clone(), key, number, last }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // A panic elsewhere leaves the ring consistent: each change of it is a single step.
        self.shared.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    /// Returns the number of the oldest event in the ring; of the next one if the ring is empty.
    fn oldest(&self) -> u64 {
        self.last + 1 - self.kept.len() as u64
    }
}

/// One reader of the events.
#[derive(Debug)]
pub struct Subscriber {
    events: Events,
    /// Its key among the readers of the ring.
    key: usize,
    /// The number of the last event handed out.
    number: u64,
    last: watch::Receiver<u64>,
}

impl Subscriber {
    /// Returns the position of this subscriber.
    pub fn position(&self) -> Position {
        Position { stream: self.events.shared.stream, number: self.number }
    }

    /// Waits for the next events and returns at least one and at most [`BATCH`].
    ///
    /// # Errors
    /// There is a gap after the last event; this subscriber can never continue.
    pub async fn next(&mut self) -> Result<Vec<Arc<Event>>, Gap> {
        loop {
            // Marked as seen before the ring is read, so that an event published meanwhile wakes.
            self.last.borrow_and_update();
            let events = self.ready()?;
            if !events.is_empty() {
                return Ok(events);
            }
            // The sender lives as long as `self.events` does.
            let _ = self.last.changed().await;
        }
    }

    /// Returns the next events without waiting, at most [`BATCH`]; none if there are none.
    ///
    /// # Errors
    /// As [`Subscriber::next`].
    pub fn ready(&mut self) -> Result<Vec<Arc<Event>>, Gap> {
        let mut ring = self.events.lock();
        let next = self.number + 1;
        let Some(skip) = next.checked_sub(ring.oldest()) else {
            return Err(Gap::TooFarBehind);
        };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let mut batch = Vec::new();
        for event in ring.kept.iter().skip(skip).take(BATCH) {
            batch.push(event.clone());
        }
        if !batch.is_empty() {
            self.number += batch.len() as u64;
            let last = ring.last;
            ring.readers.advance(self.key, self.number, last);
            drop(ring);
            self.events.shared.read.notify_waiters();
        }
        Ok(batch)
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.events.lock().readers.remove(self.key);
        self.events.shared.read.notify_waiters();
    }
}
