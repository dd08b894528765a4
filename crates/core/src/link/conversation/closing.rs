//! Closing: CLOSE frames, and the ends that this end decides.

use super::Conversation;
use crate::cause::Cause;
use crate::flight::Incident;
use crate::link::outbound::Writer;
use crate::link::peer::Effect;
use crate::link::{Goodbye, Lane};
use crate::time::{Span, Time};
use crate::wire::{Close, CloseReason, Frame, Malformed};

impl Conversation {
    /// Ends the conversation on command; CLOSE follows everything that was accepted for sending.
    pub(super) fn command_close(
        &mut self,
        now: Time,
        goodbye: Goodbye,
        text: &str,
        out: &mut Writer<'_>,
    ) -> Effect {
        self.send_close_with(now, goodbye, text, Lane::Last, out);
        self.end(now, cause_of(goodbye.reason), out)
    }

    /// Ends the conversation with a peer that reads more slowly than data is queued for it.
    pub(in crate::link) fn end_by_overflow(&mut self, now: Time, out: &mut Writer<'_>) -> Effect {
        self.send_close(now, CloseReason::Slow.into(), Lane::Control, out);
        self.end(now, Cause::SlowConsumer, out)
    }

    /// Ends the conversation because of malformed bytes. They get no answer, except the CLOSE that
    /// a peer of another version understands, or one that is not who it claims to be.
    pub(in crate::link) fn end_by_malformed(
        &mut self,
        now: Time,
        malformed: Malformed,
        out: &mut Writer<'_>,
    ) -> Effect {
        if malformed == Malformed::Version {
            self.send_close(now, CloseReason::Version.into(), Lane::Control, out);
        } else if matches!(malformed, Malformed::Claim | Malformed::Subject) {
            let goodbye = Goodbye { stay_away: true, ..CloseReason::Unauthorized.into() };
            self.send_close_with(now, goodbye, malformed.name(), Lane::Control, out);
        }
        self.end(now, Cause::Protocol(malformed), out)
    }

    /// Handles the peer's CLOSE.
    pub(super) fn handle_close(&mut self, now: Time, close: Close<'_>, out: &mut Writer<'_>) {
        let farewell = Goodbye {
            reason: close.reason,
            stay_away: close.final_,
            return_after: Span::from_millis(u64::from(close.return_after_ms)),
        };
        self.flight.record(now, Incident::CloseHeard(close.reason));
        let verdict = self.verdict(now, Cause::PeerClosed(close.reason));
        self.give_up_resumption(close.reason, out);
        out.farewell(farewell, close.text);
        let _ = self.end_with(verdict, out);
    }

    /// Sends CLOSE, in codecs that have it: in [`Lane::Last`] at an orderly end, and in
    /// [`Lane::Control`] to a silent, slow or illegal peer, for which the queued data is dropped.
    pub(super) fn send_close(
        &mut self,
        now: Time,
        goodbye: Goodbye,
        lane: Lane,
        out: &mut Writer<'_>,
    ) {
        self.send_close_with(now, goodbye, "", lane, out);
    }

    /// Sends a CLOSE with a `text` for people.
    fn send_close_with(
        &mut self,
        now: Time,
        goodbye: Goodbye,
        text: &str,
        lane: Lane,
        out: &mut Writer<'_>,
    ) {
        if self.codec.has_handshake() {
            self.flight.record(now, Incident::CloseSaid(goodbye.reason));
        }
        let close = Close {
            reason: goodbye.reason,
            final_: goodbye.stay_away,
            return_after_ms: u32::try_from(goodbye.return_after.as_millis()).unwrap_or(u32::MAX),
            text,
        };
        out.transmit(self.codec, lane, &Frame::Close(close));
    }
}

/// Returns the cause of an end that this side commands with a CLOSE.
pub(crate) fn cause_of(reason: CloseReason) -> Cause {
    match reason {
        CloseReason::Drained => Cause::Drained,
        CloseReason::Kicked => Cause::Kicked,
        CloseReason::Replaced => Cause::Replaced,
        CloseReason::Unauthorized => Cause::Unauthorized,
        CloseReason::Flooding => Cause::Flooding,
        CloseReason::Done
        | CloseReason::Silent
        | CloseReason::Slow
        | CloseReason::Version
        | CloseReason::Full
        | CloseReason::Other(_) => Cause::Finished,
    }
}
