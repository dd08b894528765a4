//! Bounded queue of events that the application has not taken yet. Adding to it never waits.

use std::collections::VecDeque;

use systole_core::window::MAX_MESSAGE;

use crate::Event;
use crate::event::Class;

/// Bytes of waiting messages at which reading pauses. One more read and one message of maximum
/// length may still be added.
pub(crate) const MAX_MESSAGE_BYTES: usize = 1 << 20;

/// The same in a session with a window, which is the bound there. Reading goes on, so that a client
/// whose application only sends still gets the acknowledgements; only a server with an excessive
/// window reaches this limit.
const MAX_WINDOW_BYTES: usize = 2 * MAX_MESSAGE as usize;

/// Number of messages taken by the application after which the connection hears of them although
/// others still wait: few enough that half of a usual window is never reached unnoticed.
const TAKEN_BATCH: usize = 32;

/// The same in bytes, for large messages.
const TAKEN_BATCH_BYTES: usize = 64 << 10;

/// Cost of a message in addition to its bytes, so that the number of empty ones is bounded too.
const MESSAGE_COST: usize = 64;

/// Number of waiting events other than messages, above which the oldest of each class is dropped.
pub(crate) const MAX_OTHER_EVENTS: usize = 256;

/// Bytes of undelivered messages in waiting events: a few usual windows and send queues. Beyond it,
/// the oldest events lose theirs, so that an application that takes no events while its sessions
/// are lost one after the other does not fill the memory.
const MAX_UNDELIVERED_BYTES: usize = 32 << 20;

/// Queue of events in the order in which they happened.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    events: VecDeque<Entry>,
    /// Total cost of the messages in the queue.
    cost: usize,
    /// Number of other events in the queue.
    other_events: usize,
    /// Number of the window in which messages arrive now; `None` if there is none.
    window: Option<u64>,
    /// Number of messages of this window in the queue.
    untaken: usize,
    /// Lengths of the messages of this window that the application has taken and the connection has
    /// not heard of.
    taken: Vec<usize>,
    /// The sum of these lengths.
    taken_bytes: usize,
}

/// An event in the queue.
#[derive(Debug)]
struct Entry {
    event: Event,
    /// Number of the window in which it arrived, if any.
    window: Option<u64>,
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
        let is_undelivered = undelivered_bytes(&event) > 0;
        let window = self.window;
        self.untaken += usize::from(window.is_some() && arrived_length(&event).is_some());
        self.events.push_back(Entry { event, window });
        if is_undelivered {
            self.limit_undelivered();
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Event> {
        let entry = self.events.pop_front()?;
        match cost(&entry.event) {
            Some(cost) => self.cost -= cost,
            None => self.other_events -= 1,
        }
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
        self.count_taken(&entry);
        Some(entry.event)
    }

    /// Returns whether the application must take messages before more are read.
    pub(crate) fn is_full(&self) -> bool {
        self.cost >= if self.window.is_some() { MAX_WINDOW_BYTES } else { MAX_MESSAGE_BYTES }
    }

    /// Begins the window of this number, or a time without one. What arrived before counts for no
    /// other window.
    pub(crate) fn set_window(&mut self, window: Option<u64>) {
        self.window = window;
        self.untaken = 0;
        self.taken = Vec::new();
        self.taken_bytes = 0;
    }

    /// Returns whether the connection should hear now of the messages that were taken: there are
    /// many, or none is left to be taken.
    pub(crate) fn should_report(&self) -> bool {
        let many = self.taken.len() >= TAKEN_BATCH || self.taken_bytes >= TAKEN_BATCH_BYTES;
        !self.taken.is_empty() && (many || self.untaken == 0)
    }

    /// Moves the lengths of the messages that were taken since the last call to the end of `to`.
    pub(crate) fn report_taken(&mut self, to: &mut Vec<usize>) {
        to.append(&mut self.taken);
        self.taken_bytes = 0;
    }

    /// Counts an event that leaves the queue, if it is a message of the present window.
    fn count_taken(&mut self, entry: &Entry) {
        if let Some(length) = arrived_length(&entry.event)
            && self.window.is_some()
            && entry.window == self.window
        {
            self.untaken -= 1;
            self.taken.push(length);
            self.taken_bytes = self.taken_bytes.saturating_add(length);
        }
    }

    /// Removes undelivered messages above [`MAX_UNDELIVERED_BYTES`], those of the oldest sessions
    /// first. Their numbers stay, and the latest event keeps its own.
    fn limit_undelivered(&mut self) {
        let mut bytes = 0;
        for entry in self.events.iter_mut().rev() {
            let more = undelivered_bytes(&entry.event);
            let is_first = bytes == 0;
            bytes = more.saturating_add(bytes);
            if bytes > MAX_UNDELIVERED_BYTES
                && !is_first
                && let Event::NotResumed { undelivered, .. } = &mut entry.event
            {
                undelivered.messages = Vec::new();
            }
        }
    }

    /// Drops the oldest event of `class`, if there is one. If there is none, the queue exceeds its
    /// limit, by at most the number of classes.
    fn drop_oldest(&mut self, class: Class) {
        let oldest = self.events.iter().position(|entry| entry.event.class() == class);
        if let Some(entry) = oldest.and_then(|oldest| self.events.remove(oldest)) {
            self.other_events -= 1;
            self.count_taken(&entry);
        }
    }
}

/// Returns the cost of a message; `None` for other events.
fn cost(event: &Event) -> Option<usize> {
    if let Event::Message(bytes) = event { Some(bytes.len() + MESSAGE_COST) } else { None }
}

/// Returns the memory of the undelivered messages in an event.
fn undelivered_bytes(event: &Event) -> usize {
    let Event::NotResumed { undelivered, .. } = event else {
        return 0;
    };
    undelivered.messages.iter().map(|message| message.len() + MESSAGE_COST).sum()
}

/// Returns the length of the message whose arrival an event reports, kept or dropped.
fn arrived_length(event: &Event) -> Option<usize> {
    if let Event::Message(bytes) = event {
        Some(bytes.len())
    } else if let Event::MessageTooLong { len } = event {
        Some(usize::try_from(*len).unwrap_or(usize::MAX))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use systole_core::{Policy, Time, session};

    use super::*;
    use crate::Undelivered;

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

    fn message(len: usize) -> Event {
        Event::Message(vec![0; len])
    }

    /// Takes `count` events, and returns whether the connection would be woken after the last.
    fn take(mailbox: &mut Mailbox, count: usize) -> bool {
        (0..count).for_each(|_| assert!(mailbox.pop().is_some()));
        mailbox.should_report()
    }

    fn reported(mailbox: &mut Mailbox) -> Vec<usize> {
        let mut taken = Vec::new();
        mailbox.report_taken(&mut taken);
        taken
    }

    #[test]
    fn taken_messages_are_reported_when_none_is_left_or_many_were_taken() {
        let mut mailbox = Mailbox::default();
        mailbox.push(message(9));
        assert!(!take(&mut mailbox, 1), "no window");
        mailbox.set_window(Some(1));
        mailbox.push(message(1));
        mailbox.push(SUSPECT);
        mailbox.push(message(2));
        mailbox.push(RECOVERED);
        assert!(!take(&mut mailbox, 2));
        assert!(take(&mut mailbox, 1), "the last message, though not the last event");
        assert_eq!(reported(&mut mailbox), [1, 2]);
        assert!(!take(&mut mailbox, 1));
        (0..TAKEN_BATCH + 1).for_each(|_| mailbox.push(message(0)));
        assert!(!take(&mut mailbox, TAKEN_BATCH - 1));
        assert!(take(&mut mailbox, 1));
        assert_eq!(reported(&mut mailbox).len(), TAKEN_BATCH);
        mailbox.push(message(TAKEN_BATCH_BYTES));
        mailbox.push(message(0));
        assert!(!take(&mut mailbox, 1));
        assert!(take(&mut mailbox, 1), "many bytes");
    }

    #[test]
    fn messages_of_a_former_window_are_not_reported() {
        let mut mailbox = Mailbox::default();
        mailbox.push(message(1));
        mailbox.set_window(Some(1));
        (0..3).for_each(|_| mailbox.push(message(2)));
        assert!(!take(&mut mailbox, 2));
        mailbox.set_window(None);
        mailbox.push(message(3));
        mailbox.set_window(Some(2));
        mailbox.push(message(4));
        assert!(!take(&mut mailbox, 3), "of the first window, and of none");
        assert!(take(&mut mailbox, 1));
        assert_eq!(reported(&mut mailbox), [4]);
    }

    #[test]
    fn a_message_that_is_too_long_counts_as_taken_when_its_event_leaves_or_is_dropped() {
        let mut mailbox = Mailbox::default();
        mailbox.set_window(Some(1));
        mailbox.push(Event::MessageTooLong { len: 70 });
        assert!(take(&mut mailbox, 1));
        assert_eq!(reported(&mut mailbox), [70]);
        for _ in 0..=MAX_OTHER_EVENTS {
            mailbox.push(Event::MessageTooLong { len: 7 });
        }
        assert_eq!(reported(&mut mailbox), [7], "the oldest was dropped");
        assert!(take(&mut mailbox, MAX_OTHER_EVENTS));
        assert_eq!(reported(&mut mailbox).len(), MAX_OTHER_EVENTS);
    }

    #[test]
    fn undelivered_messages_of_many_sessions_do_not_fill_the_memory() {
        let mut mailbox = Mailbox::default();
        let gone = |len: usize| {
            let undelivered = Undelivered { uncertain: 1, unsent: 0, messages: vec![vec![0; len]] };
            Event::NotResumed { why: None, undelivered }
        };
        (0..100).for_each(|_| mailbox.push(gone(1 << 20)));
        let kept = |mailbox: &Mailbox| {
            let kept = mailbox.events.iter().filter(|entry| undelivered_bytes(&entry.event) > 0);
            kept.count()
        };
        assert_eq!(kept(&mailbox), 31);
        mailbox.push(gone(2 * MAX_UNDELIVERED_BYTES));
        assert_eq!(kept(&mailbox), 1, "the latest keeps its own");
        assert_eq!(
            mailbox.pop(),
            Some(Event::NotResumed {
                why: None,
                undelivered: Undelivered { uncertain: 1, unsent: 0, messages: Vec::new() },
            })
        );
    }

    #[test]
    fn in_a_window_the_mailbox_is_full_later() {
        let mut mailbox = Mailbox::default();
        mailbox.set_window(Some(1));
        mailbox.push(message(MAX_MESSAGE_BYTES));
        assert!(!mailbox.is_full());
        mailbox.push(message(MAX_WINDOW_BYTES - MAX_MESSAGE_BYTES));
        assert!(mailbox.is_full());
        assert!(mailbox.pop().is_some());
        mailbox.set_window(None);
        assert!(mailbox.is_full(), "the limit without a window");
    }
}
