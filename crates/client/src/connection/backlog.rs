//! The window of a session: messages that wait for room in it, flushes that wait for
//! acknowledgements, and what the application has taken.

use std::collections::VecDeque;

use systole_core::link::{Command as LinkCommand, World};
use systole_core::wire::DataKind;
use systole_core::{Machine, Time};

use super::Connection;
use crate::begin::Begin;
use crate::carry_over::CarryOver;
use crate::shared::{FlushAnswer, FlushReply, Shared};

/// Number of waiting flushes up to which canceled ones are kept. Beyond it they are removed, so
/// that an application that cancels flushes for ever does not fill the memory.
const MAX_CANCELED: usize = 64;

/// What waits for the server's acknowledgements.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Whether the session has a window. Without one nothing waits.
    pub(super) has_window: bool,
    /// Messages for which the window has no room, the oldest first. Each keeps its queue permits,
    /// which bound their number.
    waiting: VecDeque<Waiting>,
    /// Flushes, the oldest first; their targets never fall.
    flushes: VecDeque<Flush>,
    /// The messages of the session that were sent.
    sent: u64,
    /// Those of them that the server has acknowledged.
    acknowledged: u64,
    /// Lengths of messages that the application has taken; empty between two reports.
    taken: Vec<usize>,
}

/// A message for which the window has no room.
#[derive(Debug)]
struct Waiting {
    bytes: Vec<u8>,
    /// Its queue permits.
    cost: usize,
}

/// A flush without an answer.
#[derive(Debug)]
struct Flush {
    /// How many messages of the session must be acknowledged.
    target: u64,
    reply: FlushReply,
}

/// What has become of the messages of a link that has ended.
pub(super) struct Fate {
    /// Whether the server has acknowledged all of them in the window.
    pub(super) acknowledged: bool,
    /// Whether all of them were given to the transport.
    pub(super) sent: bool,
}

impl Backlog {
    /// Returns whether nothing waits, and all that was sent is acknowledged.
    pub(super) fn is_settled(&self) -> bool {
        self.waiting.is_empty() && self.sent == self.acknowledged
    }

    /// Returns how many messages of the session the server has acknowledged.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Adds a flush of everything that was accepted so far.
    fn add_flush(&mut self, reply: FlushReply) {
        let full = self.flushes.len() >= MAX_CANCELED && self.flushes.len().is_power_of_two();
        if full {
            self.flushes.retain(|flush| !flush.reply.is_closed());
        }
        let target = self.sent.saturating_add(self.waiting.len() as u64);
        self.flushes.push_back(Flush { target, reply });
    }

    /// Returns whether a flush waits for the message that was sent last, and for no later one.
    fn is_flushed_here(&self) -> bool {
        self.flushes.binary_search_by_key(&self.sent, |flush| flush.target).is_ok()
    }

    /// Answers the flushes whose messages are all acknowledged.
    fn answer_flushes(&mut self) {
        let acknowledged = self.acknowledged;
        while self.flushes.front().is_some_and(|flush| flush.target <= acknowledged)
            && let Some(flush) = self.flushes.pop_front()
        {
            // A canceled flush wants no answer.
            let _ = flush.reply.send(FlushAnswer::Acknowledged);
        }
    }
}

impl<T: Begin> Connection<T> {
    /// Begins the window of the session, if it has one.
    pub(super) fn open_window(&mut self, shared: &Shared) {
        self.backlog.has_window = self.link.progress().is_some();
        self.note_progress();
        shared.set_window(self.backlog.has_window.then_some(self.link_number));
    }

    /// Sends a message, once the window has room for it.
    pub(super) fn send(&mut self, now: Time, bytes: Vec<u8>, cost: usize) {
        self.has_sent = true;
        if !self.backlog.waiting.is_empty() {
            self.backlog.waiting.push_back(Waiting { bytes, cost });
        } else if self.link.has_room(bytes.len()) {
            self.send_now(now, &bytes, cost);
        } else {
            self.backlog.waiting.push_back(Waiting { bytes, cost });
            self.ask_for_acknowledgement(now);
        }
    }

    fn send_now(&mut self, now: Time, bytes: &[u8], cost: usize) {
        self.queued_cost += cost;
        let command = LinkCommand::Send { bytes, more: false, kind: DataKind::default() };
        self.link.handle(now, World::Command(command));
        self.note_progress();
    }

    /// Sends the waiting messages for which the acknowledgements that arrived have made room, and
    /// answers flushes.
    pub(super) fn send_waiting(&mut self, now: Time) {
        self.note_progress();
        while let Some(next) = self.backlog.waiting.front()
            && self.link.has_room(next.bytes.len())
            && let Some(next) = self.backlog.waiting.pop_front()
        {
            self.send_now(now, &next.bytes, next.cost);
            // The question follows what it asks for; later messages must not delay the answer.
            if self.backlog.is_flushed_here() {
                self.ask_for_acknowledgement(now);
            }
        }
        self.backlog.answer_flushes();
        if !self.backlog.waiting.is_empty() {
            self.ask_for_acknowledgement(now);
        }
    }

    /// Handles a flush of the application.
    pub(super) fn flush(
        &mut self,
        now: Time,
        reply: FlushReply,
        carry_over: &CarryOver,
        shared: &Shared,
    ) {
        if !self.backlog.has_window {
            // A canceled flush wants no answer.
            let _ = reply.send(FlushAnswer::NoWindow);
        } else if carry_over.has_unreported_loss(shared) {
            carry_over.refuse_flush(reply);
        } else {
            self.backlog.add_flush(reply);
            self.backlog.answer_flushes();
            if self.backlog.is_flushed_here() {
                self.ask_for_acknowledgement(now);
            }
        }
    }

    /// Asks the server to acknowledge at once what was sent. Without a window it has no effect.
    pub(super) fn ask_for_acknowledgement(&mut self, now: Time) {
        self.link.handle(now, World::Command(LinkCommand::Flush));
    }

    /// Passes what the application has taken to the machine, which acknowledges it.
    pub(super) fn report_taken(&mut self, now: Time, shared: &Shared) {
        if !self.backlog.has_window {
            return;
        }
        let mut taken = std::mem::take(&mut self.backlog.taken);
        shared.report_taken(&mut taken);
        for length in taken.drain(..) {
            self.link.handle(now, World::Command(LinkCommand::Taken { length }));
        }
        self.backlog.taken = taken;
    }

    /// Gives up what waits on a link that has ended: permits are released, and flushes fail.
    pub(super) fn give_up_waiting(&mut self, carry_over: &mut CarryOver, shared: &Shared) -> Fate {
        let backlog = std::mem::take(&mut self.backlog);
        let sent = backlog.waiting.is_empty();
        let acknowledged = backlog.has_window && backlog.is_settled();
        // Without a window nobody knows, and a flush on a later link must not vouch for them.
        carry_over.losses += u64::from(self.has_sent && !acknowledged);
        backlog.flushes.into_iter().for_each(|flush| carry_over.refuse_flush(flush.reply));
        shared.release(backlog.waiting.iter().map(|waiting| waiting.cost).sum());
        shared.set_window(None);
        Fate { acknowledged, sent }
    }

    /// Reads the counts of the session from the machine, which forgets them when the link ends.
    fn note_progress(&mut self) {
        if let Some((sent, acknowledged)) = self.link.progress() {
            (self.backlog.sent, self.backlog.acknowledged) = (sent, acknowledged);
        }
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
