//! What happened, in one numbered order over all shards, for whoever subscribes.
//!
//! The last events are kept in one ring, and each subscriber reads from it at its own pace: there
//! is no queue per subscriber that could fill, and one that is slow costs nobody anything. One
//! that falls behind by more than the ring holds is told of the gap and starts over with a
//! snapshot.

mod event;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

pub use event::{Body, End, Event, Loss, Names, OutageInfo, PolicyInfo, Revision, Session};

use crate::report::Report;

/// How many events a subscriber is handed at once: enough to keep up with a reconnect storm, few
/// enough that none holds on to much.
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
}

#[derive(Debug)]
struct Ring {
    /// The kept events; their numbers are without gaps and end at `last`.
    kept: VecDeque<Arc<Event>>,
    capacity: usize,
    last: u64,
    /// The number of the last [`Body::Missed`]: nobody may resume there, for what stands behind it
    /// does not follow from what stood before.
    broken: u64,
}

/// Where a subscriber stands, as it is told and gives back: the process, and the number of the last
/// event that it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// The process's stream of numbers.
    pub stream: u64,
    /// The last event that the subscriber has.
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

/// The text is not a position that this gateway has told. The caller's fault: start over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAPosition;

/// Why a subscriber cannot go on from where it stands and needs a new snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gap {
    /// The events that it lacks are no longer kept: it was away or slow for too long.
    TooFarBehind,
    /// Its position is of another process, or none that was ever told.
    UnknownPosition,
    /// Reports of a shard were lost on the way.
    ReportsMissed,
}

impl Gap {
    /// `too_far_behind`, `unknown_position` or `reports_missed`.
    pub const fn name(self) -> &'static str {
        match self {
            Gap::TooFarBehind => "too_far_behind",
            Gap::UnknownPosition => "unknown_position",
            Gap::ReportsMissed => "reports_missed",
        }
    }
}

impl Events {
    /// No events yet. The last `capacity` (at least 1) will be kept; each takes at most about 600
    /// bytes, its texts included. `stream` should differ from that of any earlier process: the wall
    /// clock in ms.
    pub fn new(capacity: usize, stream: u64, names: Names) -> Events {
        let ring = Ring { kept: VecDeque::new(), capacity: capacity.max(1), last: 0, broken: 0 };
        let last = watch::Sender::new(0);
        Events { shared: Arc::new(Shared { names, stream, ring: Mutex::new(ring), last }) }
    }

    /// Numbers and keeps what `report` of `shard` amounts to, and returns it; `None` for what is no
    /// event. `wall_ms` is the time of reports that have none. Wakes nobody: see [`Events::wake`].
    pub fn publish(&self, shard: usize, report: Report, wall_ms: u64) -> Option<Arc<Event>> {
        let (at_ms, body) = self.shared.names.body(shard, report)?;
        Some(self.tell(at_ms.unwrap_or(wall_ms), body))
    }

    /// Numbers and keeps what was found out otherwise than by one report. Wakes nobody either.
    pub(crate) fn tell(&self, at_ms: u64, body: Body) -> Arc<Event> {
        let mut ring = self.lock();
        ring.last += 1;
        let number = ring.last;
        if matches!(body, Body::Missed { .. }) {
            ring.broken = number;
        }
        if ring.kept.len() == ring.capacity {
            ring.kept.pop_front();
        }
        let event = Arc::new(Event { number, at_ms, body });
        ring.kept.push_back(event.clone());
        event
    }

    pub(crate) fn names(&self) -> &Names {
        &self.shared.names
    }

    /// Wakes the subscribers if there is anything new; once per batch of reports is enough.
    pub fn wake(&self) {
        let last = self.lock().last;
        self.shared.last.send_if_modified(|known| {
            let is_new = *known != last;
            *known = last;
            is_new
        });
    }

    /// Subscribes to what happens from now on. A snapshot taken after this call, and then the
    /// events, miss nothing; events that the snapshot already reflects may be told again.
    pub fn subscribe(&self) -> Subscriber {
        let number = self.lock().last;
        self.subscriber(number)
    }

    /// Subscribes to what happened after `position`.
    ///
    /// # Errors
    /// The gap, if there is one: subscribe anew, and take a snapshot.
    pub fn resume(&self, position: Position) -> Result<Subscriber, Gap> {
        let ring = self.lock();
        if position.stream != self.shared.stream || position.number > ring.last {
            return Err(Gap::UnknownPosition);
        }
        if position.number + 1 < ring.oldest() {
            return Err(Gap::TooFarBehind);
        }
        if position.number == ring.broken && ring.broken != 0 {
            return Err(Gap::ReportsMissed);
        }
        drop(ring);
        Ok(self.subscriber(position.number))
    }

    fn subscriber(&self, number: u64) -> Subscriber {
        let last = self.shared.last.subscribe();
        Subscriber { events: self.clone(), number, last, broken: false }
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        // A panic elsewhere leaves the ring as whole as it was: it is changed in single steps.
        self.shared.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    /// The number of the oldest event that is kept, or would be.
    fn oldest(&self) -> u64 {
        self.last + 1 - self.kept.len() as u64
    }
}

/// One reader of the events.
#[derive(Debug)]
pub struct Subscriber {
    events: Events,
    /// The last event that was handed out.
    number: u64,
    last: watch::Receiver<u64>,
    /// The last event handed out says that reports were missed.
    broken: bool,
}

impl Subscriber {
    /// Where this subscriber stands.
    pub fn position(&self) -> Position {
        Position { stream: self.events.shared.stream, number: self.number }
    }

    /// The next events, at least one and at most [`BATCH`]; waits for them.
    ///
    /// # Errors
    /// The gap that keeps this subscriber from going on; it will never get any further.
    pub async fn next(&mut self) -> Result<Vec<Arc<Event>>, Gap> {
        loop {
            // Before looking, so that what comes while we look is not slept over.
            self.last.borrow_and_update();
            let events = self.ready()?;
            if !events.is_empty() {
                return Ok(events);
            }
            // The sender lives as long as `self.events` does.
            let _ = self.last.changed().await;
        }
    }

    /// The next events, as far as there are any.
    ///
    /// # Errors
    /// As [`Subscriber::next`].
    pub fn ready(&mut self) -> Result<Vec<Arc<Event>>, Gap> {
        if self.broken {
            return Err(Gap::ReportsMissed);
        }
        let ring = self.events.lock();
        let next = self.number + 1;
        let Some(skip) = next.checked_sub(ring.oldest()) else {
            return Err(Gap::TooFarBehind);
        };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let mut batch = Vec::new();
        for event in ring.kept.iter().skip(skip).take(BATCH) {
            batch.push(event.clone());
            if matches!(event.body, Body::Missed { .. }) {
                self.broken = true;
                break;
            }
        }
        self.number += batch.len() as u64;
        Ok(batch)
    }
}
