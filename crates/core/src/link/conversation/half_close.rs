//! Half-close: a peer that closed its side without CLOSE.
//!
//! Either its process has ended, or it sends nothing more and still reads. The two look alike until
//! this end sends something: the kernel of an ended process answers with a reset.

use super::{Conversation, Stage};
use crate::cause::{Cause, Confidence, Verdict};
use crate::diagnosis::{Ground, Grounds};
use crate::flight::Incident;
use crate::link::outbound::Writer;
use crate::link::peer::{Context, Effect};
use crate::link::{BeatKind, Lane};
use crate::liveness::{self, Silence};
use crate::time::{Span, Time};
use crate::wire::{CloseReason, Codec};

/// The time for which a link goes on sending to a peer that closed its side. It covers the answers
/// that the peer waits for, and a round trip with one retransmission, within which a reset arrives.
/// A longer time would hold a session whose peer can give no evidence.
pub const HALF_CLOSED: Span = Span::from_secs(2);

impl Conversation {
    /// Handles the end of the stream: the peer closed its side.
    pub(in crate::link) fn handle_ended(
        &mut self,
        now: Time,
        context: &Context<'_>,
        out: &mut Writer<'_>,
    ) -> Effect {
        let goes_on = match self.stage {
            Stage::Handshake | Stage::Admission | Stage::Over => false,
            Stage::HalfClosed => return Effect::None,
            Stage::Established => match self.codec {
                Codec::Native | Codec::Message1028 => true,
                // Clients like `nc` close after writing and wait only for answers: flush, then
                // close at once.
                Codec::Line => false,
            },
        };
        self.flight.record(now, Incident::Fin);
        if !goes_on {
            return self.end_half_closed(now, Grounds::of(&[Ground::SideClosed]), out);
        }
        self.clear_inquiry(out);
        self.stage = Stage::HalfClosed;
        let until = now + HALF_CLOSED;
        self.liveness.handle(now, liveness::Input::HalfClosed { until }, &self.policy);
        while let Some(output) = self.liveness.poll_output() {
            if let liveness::Output::Confirm { sequence } = output {
                self.flight.record(now, Incident::Confirm);
                self.note_ping(now, sequence);
                self.send_heartbeat(BeatKind::Ping, sequence, 0, context, out);
            }
            self.report_liveness(now, output, out);
        }
        self.update_patience(out);
        Effect::Rearm
    }

    /// Ends the conversation with [`Cause::PeerExited`].
    pub(super) fn end_half_closed(
        &mut self,
        now: Time,
        grounds: Grounds,
        out: &mut Writer<'_>,
    ) -> Effect {
        let verdict = Verdict { grounds, ..self.verdict(now, Cause::PeerExited) };
        self.end_with(verdict, out)
    }

    /// Ends the conversation after [`HALF_CLOSED`]. The confidence is medium, because the peer may
    /// still read.
    pub(super) fn half_close_expired(
        &mut self,
        now: Time,
        silence: Silence,
        out: &mut Writer<'_>,
    ) -> Effect {
        self.send_close(now, CloseReason::Done.into(), Lane::Last, out);
        let verdict = Verdict {
            due: silence.due,
            confidence: Confidence::Medium,
            grounds: Grounds::of(&[Ground::SideClosed]),
            ..self.verdict(now, Cause::PeerExited)
        };
        self.end_with(verdict, out)
    }
}
