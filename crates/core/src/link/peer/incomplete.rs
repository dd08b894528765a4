//! What has arrived only in part: a frame, or a sealed record of the transport.

use super::{Context, Effect, Peer};
use crate::link::outbound::Writer;
use crate::machine::Reason;
use crate::time::Time;
use crate::wire::Malformed;
use crate::wire::decoder::{Incomplete, Sealed};

impl Peer {
    /// Returns the frame, or the sealed record, of which an open link holds a part.
    pub(crate) fn incomplete_frame(&self) -> Option<Incomplete> {
        if self.conversation.is_over() { None } else { self.decoder.incomplete() }
    }

    /// Ends the link because its incomplete frame is the oldest of many, which reached the limit of
    /// their memory.
    pub(crate) fn give_way(&mut self, now: Time, out: &mut Writer<'_>) -> Effect {
        if self.conversation.is_over() {
            return Effect::None;
        }
        self.conversation.end_by_malformed(now, Malformed::OldestFrame, out)
    }

    /// Handles what the transport holds of a sealed record.
    pub(super) fn hold_sealed(&mut self, sealed: Sealed) -> Effect {
        let was_within_frame = self.is_within_frame();
        self.decoder.set_sealed(sealed);
        if self.is_within_frame() {
            self.decoder.count_from(self.conversation.liveness.silent_since());
        }
        if self.is_frame_sooner(was_within_frame) { Effect::Rearm } else { Effect::None }
    }

    /// Returns whether the deadline of a frame that has just begun may be the first one. A frame
    /// has D, and the verdict that the timer waits for may be due later.
    pub(super) fn is_frame_sooner(&self, was_within_frame: bool) -> bool {
        !was_within_frame && self.is_within_frame() && self.conversation.is_bound_stretched()
    }

    /// Handles the deadline of the conversation and that of an incomplete frame, the earlier first.
    pub(super) fn expire(
        &mut self,
        now: Time,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) -> Effect {
        if let Some(due) = self.frame_due(now) {
            return self.conversation.end_by_stalled_frame(now, due, out);
        }
        let effect = self.conversation.expire(now, context, out);
        // The frame is due too, unless the peer is in doubt now.
        match self.frame_due(now) {
            Some(due) if effect != Effect::Ended => {
                self.conversation.end_by_stalled_frame(now, due, out)
            }
            Some(_) | None => effect,
        }
    }

    /// Returns when an incomplete frame was due, if that is the first deadline, and is past.
    fn frame_due(&self, now: Time) -> Option<Time> {
        if !self.decoder.is_within_frame() {
            return None;
        }
        let next = self.next_deadline()?;
        (next.reason == Reason::Frame && next.at <= now).then_some(next.at)
    }
}
