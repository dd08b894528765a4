//! The events that the ends of a link reported, in the order of arrival.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use systole_core::Span;
use systole_net::Clock;

/// Maximum of events kept of one lab. The largest scenario has some thousand; beyond this the
/// program under test is in a loop, and further events are dropped.
const MAX_EVENTS: usize = 100_000;

/// One event of a gateway or a client.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Time of the event, in milliseconds since 1970-01-01 UTC.
    pub(crate) at_ms: u64,
    /// The kind of event.
    pub(crate) kind: String,
    /// The whole event.
    pub(crate) body: Value,
}

impl Seen {
    /// Parses one event; `kind` and `now_ms` apply if the text has no kind or time.
    pub(crate) fn parse(text: &str, kind: &str, now_ms: u64) -> Option<Seen> {
        let body: Value = serde_json::from_str(text).ok()?;
        let kind = body.get("kind").and_then(Value::as_str).unwrap_or(kind).to_owned();
        let at_ms = body.get("at_ms").and_then(Value::as_u64).unwrap_or(now_ms);
        Some(Seen { at_ms, kind, body })
    }

    /// Returns a text field; empty if there is none.
    pub(crate) fn text(&self, field: &str) -> &str {
        self.body.get(field).and_then(Value::as_str).unwrap_or("")
    }

    /// Returns a number field.
    pub(crate) fn number(&self, field: &str) -> Option<u64> {
        self.body.get(field).and_then(Value::as_u64)
    }

    pub(crate) fn is(&self, kind: &str, identity: &str) -> bool {
        self.kind == kind && self.text("identity") == identity
    }
}

/// A list of events, to which threads append and on which one thread waits.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<(Mutex<Vec<Seen>>, Condvar)>);

impl Log {
    pub(crate) fn push(&self, seen: Seen) {
        let mut events = self.events();
        if events.len() < MAX_EVENTS {
            events.push(seen);
        }
        self.0.1.notify_all();
    }

    /// Returns all events so far.
    pub(crate) fn all(&self) -> Vec<Seen> {
        self.events().clone()
    }

    /// Returns the number of events so far, which is the index of the next one.
    pub(crate) fn len(&self) -> usize {
        self.events().len()
    }

    /// Waits until `find` returns a value for the events from `from` on, at most for `within`.
    pub(crate) fn wait<T>(
        &self,
        clock: Clock,
        within: Span,
        from: usize,
        find: impl Fn(&[Seen]) -> Option<T>,
    ) -> Option<T> {
        let until = clock.monotonic() + within;
        let mut events = self.events();
        loop {
            if let Some(found) = find(events.get(from..).unwrap_or_default()) {
                return Some(found);
            }
            let left = until.less(clock.monotonic());
            if left == Span::ZERO {
                return None;
            }
            events = match self.0.1.wait_timeout(events, left.into()) {
                Ok((events, _)) => events,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    fn events(&self) -> MutexGuard<'_, Vec<Seen>> {
        // The list is consistent after each push, so a writer that panicked has done no harm.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(number: u64) -> Seen {
        Seen::parse(&format!("{{\"number\":{number},\"at_ms\":{number}}}"), "x", 0).unwrap()
    }

    #[test]
    fn waiting_finds_later_events_and_times_out() {
        let (log, clock) = (Log::default(), Clock::start());
        log.push(seen(1));
        let writer = log.clone();
        let thread = std::thread::spawn(move || writer.push(seen(2)));
        let find = |events: &[Seen]| events.iter().find_map(|it| (it.at_ms == 2).then_some(()));
        assert_eq!(log.wait(clock, Span::from_secs(10), 1, find), Some(()));
        thread.join().unwrap();
        let never = |_: &[Seen]| None::<()>;
        assert_eq!(log.wait(clock, Span::from_millis(5), 0, never), None);
    }

    #[test]
    fn a_flood_of_events_is_cut() {
        let log = Log::default();
        for number in 0..MAX_EVENTS as u64 + 10 {
            log.push(seen(number));
        }
        assert_eq!(log.len(), MAX_EVENTS);
    }
}
