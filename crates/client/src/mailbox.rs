//! Bounded queue of events that the application has not taken yet. Adding to it never waits.

use std::collections::VecDeque;

use crate::Event;
use crate::event::Class;

/// Bytes of waiting messages at which reading pauses. One more read and one message of maximum
/// length may still be added.
pub(crate) const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// Cost of a message in addition to its bytes, so that the number of empty ones is bounded too.
const MESSAGE_COST: usize = 64;

/// Number of waiting events other than messages, above which the oldest of each class is dropped.
pub(crate) const MAX_OTHER_EVENTS: usize = 256;

/// Queue of events in the order in which they happened.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    events: VecDeque<Event>,
    /// Total cost of the messages in the queue.
    cost: usize,
    /// Number of other events in the queue.
    other_events: usize,
}

impl Mailbox {
    pub(crate) fn push(&mut self, event: Event) {
        match cost(&event) {
            Some(cost) => self.cost += cost,
            None => {
                self.other_events += 1;
                if self.other_events > MAX_OTHER_EVENTS {
                    self.drop_oldest(event.class());
                }
            }
        }
        self.events.push_back(event);
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        match cost(&event) {
            Some(cost) => self.cost -= cost,
            None => self.other_events -= 1,
        }
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        Some(event)
    }

    /// Returns whether the application must take messages before more are read.
    pub(crate) fn is_full(&self) -> bool {
        self.cost >= MAX_MESSAGE_BYTES
    }

    /// Drops the oldest event of `class`, if there is one. If there is none, the queue exceeds its
    /// limit, by at most the number of classes.
    fn drop_oldest(&mut self, class: Class) {
        if let Some(oldest) = self.events.iter().position(|event| event.class() == class) {
            self.events.remove(oldest);
            self.other_events -= 1;
        }
    }
}

/// Returns the cost of a message; `None` for other events.
fn cost(event: &Event) -> Option<usize> {
    if let Event::Message(bytes) = event { Some(bytes.len() + MESSAGE_COST) } else { None }
}

#[cfg(test)]
mod tests {
    use systole_core::{Policy, Time, session};

    use super::*;

    const SUSPECT: Event = Event::Session(session::Event::Suspect);
    const RECOVERED: Event = Event::Session(session::Event::Recovered);

    #[test]
    fn events_come_out_in_order() {
        let mut mailbox = Mailbox::default();
        mailbox.push(SUSPECT);
        mailbox.push(Event::Message(vec![1]));
        mailbox.push(RECOVERED);
        assert_eq!(mailbox.pop(), Some(SUSPECT));
        assert_eq!(mailbox.pop(), Some(Event::Message(vec![1])));
        assert_eq!(mailbox.pop(), Some(RECOVERED));
        assert_eq!(mailbox.pop(), None);
        assert_eq!((mailbox.cost, mailbox.other_events, mailbox.events.capacity()), (0, 0, 0));
    }

    #[test]
    fn a_slow_application_still_gets_the_latest_event_of_each_class() {
        let mut mailbox = Mailbox::default();
        mailbox.push(Event::Message(vec![7]));
        mailbox.push(Event::Session(session::Event::Retuned(Policy::default())));
        for _ in 0..10_000 {
            mailbox.push(SUSPECT);
            mailbox.push(RECOVERED);
        }
        let overdue = Event::Session(session::Event::Overdue { due: Time::ZERO });
        mailbox.push(overdue.clone());
        assert!(mailbox.events.len() <= MAX_OTHER_EVENTS + 16, "{}", mailbox.events.len());
        assert_eq!(mailbox.pop(), Some(Event::Message(vec![7])));
        assert_eq!(mailbox.pop(), Some(Event::Session(session::Event::Retuned(Policy::default()))));
        let rest: Vec<Event> = std::iter::from_fn(|| mailbox.pop()).collect();
        assert_eq!(rest[rest.len() - 2..], [RECOVERED, overdue]);
    }

    #[test]
    fn messages_are_never_dropped_and_fill_the_mailbox() {
        let mut mailbox = Mailbox::default();
        let mut pushed = 0;
        while !mailbox.is_full() {
            mailbox.push(Event::Message(Vec::new()));
            pushed += 1;
        }
        assert_eq!(pushed, MAX_MESSAGE_BYTES / MESSAGE_COST);
        assert!(mailbox.pop().is_some());
        assert!(!mailbox.is_full());
        assert_eq!(std::iter::from_fn(|| mailbox.pop()).count(), pushed - 1);
    }
}
