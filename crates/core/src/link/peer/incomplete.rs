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
        let before = self.incomplete_length();
        self.decoder.set_sealed(sealed);
        if self.is_within_frame() {
            self.decoder.count_from(self.conversation.liveness.silent_since());
        }
        if self.is_frame_sooner(before) { Effect::Rearm } else { Effect::None }
    }

    /// Returns the length of what has arrived only in part, as far as it is known; `None` if
    /// nothing has.
    #[inline]
    pub(super) fn incomplete_length(&self) -> Option<usize> {
        if !self.is_within_frame() {
            return None;
        }
        Some(self.decoder.incomplete().map_or(0, |it| it.length))
    }

    /// Returns whether the deadline of an incomplete frame may have become the first one since
    /// [`Peer::incomplete_length`] was `before`. A new frame has D, and the verdict that the timer
    /// waits for may be due later. A shorter one has less time, as a frame does once the long
    /// record is complete that has brought a part of it.
    #[inline]
    pub(super) fn is_frame_sooner(&self, before: Option<usize>) -> bool {
        match (before, self.incomplete_length()) {
            (None, Some(_)) => self.conversation.is_bound_stretched(),
            (Some(before), Some(now)) => now < before,
            (Some(_) | None, None) => false,
        }
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
