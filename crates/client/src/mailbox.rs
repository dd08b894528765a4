//! Events on their way to the application: bounded, and never in the way of the link.

use std::collections::VecDeque;

use crate::Event;
use crate::event::Class;

/// How many bytes of messages may wait before the socket is no longer read. One read and one
/// message of the longest kind may come on top.
pub(crate) const INBOX: usize = 1 << 20;

/// What a message counts for besides its bytes, so that empty ones are bounded too.
const MESSAGE_COST: usize = 64;

/// How many events other than messages may wait before the older of each kind give way.
pub(crate) const MAX_NEWS: usize = 256;

/// Events not yet taken, in the order in which they happened.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    events: VecDeque<Event>,
    /// What the messages among them count for.
    cost: usize,
    /// How many others there are.
    news: usize,
}

impl Mailbox {
    pub(crate) fn push(&mut self, event: Event) {
        match cost(&event) {
            Some(cost) => self.cost += cost,
            None => {
                self.news += 1;
                if self.news > MAX_NEWS {
                    self.make_way_for(event.class());
                }
            }
        }
        self.events.push_back(event);
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        match cost(&event) {
            Some(cost) => self.cost -= cost,
            None => self.news -= 1,
        }
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        Some(event)
    }

    /// Whether the application should take messages before more are read.
    pub(crate) fn is_full(&self) -> bool {
        self.cost >= INBOX
    }

    /// Drops the oldest event of that class. There are fewer classes than [`MAX_NEWS`], so a class
    /// that has none waiting adds at most itself to the bound.
    fn make_way_for(&mut self, class: Class) {
        if let Some(oldest) = self.events.iter().position(|event| event.class() == class) {
            self.events.remove(oldest);
            self.news -= 1;
        }
    }
}

/// What a message counts for; `None` for other events.
fn cost(event: &Event) -> Option<usize> {
    match event {
        Event::Message(bytes) => Some(bytes.len() + MESSAGE_COST),
        Event::Connected { .. }
        | Event::Suspect
        | Event::Warned { .. }
        | Event::Recovered
        | Event::Overdue
        | Event::Hung(_)
        | Event::MessageTooLong { .. }
        | Event::HeartbeatData(_)
        | Event::Retuned(_)
        | Event::RoundTrip(_)
        | Event::HeartbeatSent { .. }
        | Event::HeartbeatReceived { .. }
        | Event::Lost { .. }
        | Event::Reconnecting { .. }
        | Event::AttemptFailed(_)
        | Event::Reconnected { .. }
        | Event::Revised { .. }
        | Event::Closed(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use systole_core::Policy;

    use super::*;

    #[test]
    fn events_come_out_in_order() {
        let mut mailbox = Mailbox::default();
        mailbox.push(Event::Suspect);
        mailbox.push(Event::Message(vec![1]));
        mailbox.push(Event::Recovered);
        assert_eq!(mailbox.pop(), Some(Event::Suspect));
        assert_eq!(mailbox.pop(), Some(Event::Message(vec![1])));
        assert_eq!(mailbox.pop(), Some(Event::Recovered));
        assert_eq!(mailbox.pop(), None);
        assert_eq!((mailbox.cost, mailbox.news, mailbox.events.capacity()), (0, 0, 0));
    }

    #[test]
    fn who_falls_behind_still_learns_the_latest_of_each_kind() {
        let mut mailbox = Mailbox::default();
        mailbox.push(Event::Message(vec![7]));
        mailbox.push(Event::Retuned(Policy::default()));
        for _ in 0..10_000 {
            mailbox.push(Event::Suspect);
            mailbox.push(Event::Recovered);
        }
        mailbox.push(Event::Overdue);
        assert!(mailbox.events.len() <= MAX_NEWS + 16, "{}", mailbox.events.len());
        assert_eq!(mailbox.pop(), Some(Event::Message(vec![7])));
        assert_eq!(mailbox.pop(), Some(Event::Retuned(Policy::default())));
        let rest: Vec<Event> = std::iter::from_fn(|| mailbox.pop()).collect();
        assert_eq!(rest[rest.len() - 2..], [Event::Recovered, Event::Overdue]);
    }

    #[test]
    fn messages_are_never_dropped_and_say_when_to_stop_reading() {
        let mut mailbox = Mailbox::default();
        let mut pushed = 0;
        while !mailbox.is_full() {
            mailbox.push(Event::Message(Vec::new()));
            pushed += 1;
        }
        assert_eq!(pushed, INBOX / MESSAGE_COST);
        assert!(mailbox.pop().is_some());
        assert!(!mailbox.is_full());
        assert_eq!(std::iter::from_fn(|| mailbox.pop()).count(), pushed - 1);
    }
}
