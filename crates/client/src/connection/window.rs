//! The window of a session on a link: what is sent in it, and what the application has taken.

use systole_core::link::{Command as LinkCommand, World};
use systole_core::wire::DataKind;
use systole_core::wire::outbox::BOUNDARY;
use systole_core::{Machine, Time};

use super::Connection;
use crate::away::Away;
use crate::begin::Begin;
use crate::carry_over::CarryOver;
use crate::shared::{FlushAnswer, FlushReply, Shared, native};

/// What the outbox counts for a piece of a message, besides its bytes.
const FRAMING: usize = native::FRAMING + BOUNDARY;

/// What has become of the messages of a link that has ended.
pub(super) struct Fate {
    /// Whether the server has acknowledged all of them in the window.
    pub(super) acknowledged: bool,
    /// Whether all of them were given to the transport.
    pub(super) sent: bool,
}

impl<T: Begin> Connection<T> {
    /// Begins the window of a new session, if it has one.
    pub(super) fn open_window(&mut self, shared: &Shared) {
        self.backlog.has_window = self.link.progress().is_some();
        self.backlog.note_progress(self.link.progress());
        shared.set_window(self.backlog.has_window.then_some(self.link_number));
    }

    /// Takes the place of the link whose session this one has resumed.
    pub(super) fn become_resumed(&mut self, shared: &Shared) {
        if let Some(number) = self.resumes.take() {
            self.link_number = number;
        }
        self.is_resumed = true;
        self.backlog.has_window = true;
        let piece = self.link.piece();
        shared.set_lengths(piece, true);
        // What is sent again has no queue permits any more, and needs room beside what has.
        let (messages, bytes) = self.kept;
        let pieces = bytes / piece.max(1) + messages;
        self.queue_limit = shared.queue_len().saturating_add(bytes + pieces * FRAMING);
    }

    /// Goes on with a session that this link has resumed: what waited is sent.
    pub(super) fn go_on(&mut self, now: Time, away: Away, shared: &Shared) {
        self.backlog = away.backlog;
        // What an earlier link has sent is lost with this one.
        self.has_sent = true;
        if self.is_over() {
            return;
        }
        self.backlog.has_window = true;
        self.report_taken(now, shared);
        if self.backlog.is_flushed() {
            self.ask_for_acknowledgement(now);
        }
        self.send_waiting(now);
    }

    /// Takes the session that outlives this link out of it, for the next one. Returns whether there
    /// is one.
    pub(super) fn leave_behind(&mut self, carry_over: &mut CarryOver) -> bool {
        let Some(resumable) = self.link.take_resumable().filter(|_| self.translator.is_away) else {
            return false;
        };
        let mut backlog = std::mem::take(&mut self.backlog);
        // The machine of this link has forgotten what the last acknowledgements were.
        backlog.note_progress(Some(resumable.progress()));
        backlog.answer_flushes();
        carry_over.away = Some(Away::new(self.link_number, resumable, backlog));
        if let Some(parting) = self.parting.take() {
            carry_over.close_later(parting.reason, Some(parting.began));
        }
        true
    }

    /// Sends a message, once the window has room for it.
    pub(super) fn send(&mut self, now: Time, bytes: Vec<u8>, cost: usize) {
        self.has_sent = true;
        if self.backlog.has_waiting() {
            self.backlog.wait(bytes, cost);
        } else if self.link.has_room(bytes.len()) {
            self.send_now(now, &bytes, cost);
        } else {
            self.backlog.wait(bytes, cost);
            self.ask_for_acknowledgement(now);
        }
    }

    fn send_now(&mut self, now: Time, bytes: &[u8], cost: usize) {
        self.queued_cost += cost;
        let command = LinkCommand::Send { bytes, more: false, kind: DataKind::default() };
        self.link.handle(now, World::Command(command));
        self.backlog.note_progress(self.link.progress());
    }

    /// Sends the waiting messages for which the acknowledgements that arrived have made room, and
    /// answers flushes.
    pub(super) fn send_waiting(&mut self, now: Time) {
        self.backlog.note_progress(self.link.progress());
        while let Some(length) = self.backlog.next_length()
            && self.link.has_room(length)
            && let Some(next) = self.backlog.take_next()
        {
            self.send_now(now, &next.bytes, next.cost);
            // The question follows what it asks for; later messages must not delay the answer.
            if self.backlog.is_flushed_here() {
                self.ask_for_acknowledgement(now);
            }
        }
        self.backlog.answer_flushes();
        if self.backlog.has_waiting() {
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
        let mut taken = std::mem::take(&mut self.taken);
        shared.report_taken(&mut taken);
        for length in taken.drain(..) {
            self.link.handle(now, World::Command(LinkCommand::Taken { length }));
        }
        self.taken = taken;
    }

    /// Gives up what waits on a link that has ended: permits are released, and flushes fail.
    pub(super) fn give_up_waiting(&mut self, carry_over: &mut CarryOver, shared: &Shared) -> Fate {
        let mut backlog = std::mem::take(&mut self.backlog);
        let sent = !backlog.has_waiting();
        let acknowledged = backlog.has_window && backlog.is_settled();
        // Without a window nobody knows, and a flush on a later link must not vouch for them.
        if self.has_sent && !acknowledged {
            carry_over.note_loss(None, shared);
        }
        backlog.take_flushes().for_each(|reply| carry_over.refuse_flush(reply));
        let waiting = std::iter::from_fn(|| backlog.take_next());
        shared.release(waiting.map(|waiting| waiting.cost).sum());
        shared.set_window(None);
        Fate { acknowledged, sent }
    }
}
