//! What waits for the server's acknowledgements: messages without room in the window, and flushes.

use std::collections::VecDeque;

use crate::shared::{FlushAnswer, FlushReply};

/// Number of waiting flushes up to which canceled ones are kept. Beyond it they are removed, so
/// that an application that cancels flushes for ever does not fill the memory.
const MAX_CANCELED: usize = 64;

/// What waits for the server's acknowledgements. It belongs to the session, and outlives its links.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// Whether the session has a window. Without one nothing waits.
    pub(crate) has_window: bool,
    /// Messages for which the window has no room, the oldest first. Each keeps its queue permits,
    /// which bound their number.
    waiting: VecDeque<Waiting>,
    /// Flushes, the oldest first; their targets never fall.
    flushes: VecDeque<Flush>,
    /// The messages of the session that were sent.
    sent: u64,
    /// Those of them that the server has acknowledged.
    acknowledged: u64,
}

/// A message for which the window has no room.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) bytes: Vec<u8>,
    /// Its queue permits.
    pub(crate) cost: usize,
}

/// A flush without an answer.
#[derive(Debug)]
struct Flush {
    /// How many messages of the session must be acknowledged.
    target: u64,
    reply: FlushReply,
}

impl Backlog {
    /// Returns whether nothing waits, and all that was sent is acknowledged.
    pub(crate) fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.sent == self.acknowledged
    }

    /// Returns how many messages of the session were sent, and how many of them the server has
    /// acknowledged.
    pub(crate) fn progress(&self) -> (u64, u64) {
        (self.sent, self.acknowledged)
    }

    /// Returns how many messages of the session were accepted.
    pub(crate) fn accepted(&self) -> u64 {
        self.sent.saturating_add(self.waiting.len() as u64)
    }

    /// Notes the counts of the window. A link that has ended has none.
    pub(crate) fn note_progress(&mut self, progress: Option<(u64, u64)>) {
        if let Some((sent, acknowledged)) = progress {
            (self.sent, self.acknowledged) = (sent, acknowledged);
        }
    }

    /// Returns whether messages wait for room in the window.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Lets a message wait for room in the window, after those that wait.
    pub(crate) fn wait(&mut self, bytes: Vec<u8>, cost: usize) {
        self.waiting.push_back(Waiting { bytes, cost });
    }

    /// Returns the length of the next message that waits.
    pub(crate) fn next_length(&self) -> Option<usize> {
        self.waiting.front().map(|waiting| waiting.bytes.len())
    }

    /// Takes the next message that waits.
    pub(crate) fn take_next(&mut self) -> Option<Waiting> {
        self.waiting.pop_front()
    }

    /// Adds a flush of everything that was accepted so far.
    pub(crate) fn add_flush(&mut self, reply: FlushReply) {
        let full = self.flushes.len() >= MAX_CANCELED && self.flushes.len().is_power_of_two();
        if full {
            self.flushes.retain(|flush| !flush.reply.is_closed());
        }
        self.flushes.push_back(Flush { target: self.accepted(), reply });
    }

    /// Returns whether a flush waits for the message that was sent last, and for no later one.
    pub(crate) fn is_flushed_here(&self) -> bool {
        self.flushes.binary_search_by_key(&self.sent, |flush| flush.target).is_ok()
    }

    /// Returns whether a flush waits for messages that were sent.
    pub(crate) fn is_flushed(&self) -> bool {
        !self.flushes.is_empty()
    }

    /// Answers the flushes whose messages are all acknowledged.
    pub(crate) fn answer_flushes(&mut self) {
        let acknowledged = self.acknowledged;
        while self.flushes.front().is_some_and(|flush| flush.target <= acknowledged)
            && let Some(flush) = self.flushes.pop_front()
        {
            // A canceled flush wants no answer.
            let _ = flush.reply.send(FlushAnswer::Acknowledged);
        }
    }

    /// Takes the flushes that wait.
    pub(crate) fn take_flushes(&mut self) -> impl Iterator<Item = FlushReply> + use<> {
        std::mem::take(&mut self.flushes).into_iter().map(|flush| flush.reply)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn canceled_flushes_do_not_fill_the_memory_and_the_others_are_answered_in_order() {
        let mut backlog = Backlog { has_window: true, ..Backlog::default() };
        let mut answers = Vec::new();
        for number in 0..10_000 {
            backlog.sent = number;
            let (reply, answer) = oneshot::channel();
            backlog.add_flush(reply);
            if number % 1_000 == 0 {
                answers.push(answer);
            }
        }
        assert!(backlog.flushes.len() <= MAX_CANCELED + answers.len(), "{}", backlog.flushes.len());
        backlog.acknowledged = 5_000;
        backlog.answer_flushes();
        let done = answers.iter_mut().filter_map(|answer| answer.try_recv().ok());
        assert_eq!(done.collect::<Vec<_>>(), [FlushAnswer::Acknowledged; 6]);
    }
}
