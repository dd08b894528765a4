//! A peer that closed its side without a goodbye: either its process has ended, or it has only
//! nothing more to say and goes on reading. Both look alike until we send something: the kernel of
//! a process that has ended answers with a reset.

use super::{Conversation, Stage};
use crate::cause::{Cause, Confidence, Verdict};
use crate::diagnosis::{Ground, Grounds};
use crate::flight::Incident;
use crate::kernel::SocketError;
use crate::link::BeatKind;
use crate::link::outbound::Pen;
use crate::link::peer::{Context, Effect};
use crate::liveness::{self, Silence};
use crate::time::{Span, Time};
use crate::wire::{CloseReason, Codec};

/// For how long a peer that closed its side is still written to. It is sent what it waits for, and
/// a reset has come within a round trip, a retransmission included; a session whose peer can
/// neither say anything nor prove that it lives is not worth more.
pub const HALF_CLOSED: Span = Span::from_secs(2);

impl Conversation {
    /// The stream has ended, and the kernel did not say why: unless it gave up after a router's
    /// word that was taken before.
    pub(in crate::link::peer) fn end_of_stream(
        &mut self,
        now: Time,
        context: &Context<'_>,
        out: &mut Pen<'_>,
    ) -> Effect {
        let asks = match self.stage {
            Stage::Greeting | Stage::Over => false,
            Stage::HalfClosed => return Effect::None,
            Stage::Established => match self.codec {
                Codec::Native | Codec::Message1028 => true,
                // Whoever pipes lines into a socket waits for the answers and nothing else: they
                // are flushed, and an end at once lets it end.
                Codec::Line => false,
            },
        };
        self.flight.record(now, Incident::Fin);
        if let Some(error @ (SocketError::HostUnreachable | SocketError::NetworkUnreachable)) =
            self.known_error()
        {
            return self.end_by(now, error, out);
        }
        if !asks {
            return self.end_half_closed(now, Grounds::of(&[Ground::SideClosed]), out);
        }
        self.end_inquiry();
        self.stage = Stage::HalfClosed;
        let until = now + HALF_CLOSED;
        self.liveness.handle(now, liveness::Input::HalfClosed { until }, &self.policy);
        while let Some(output) = self.liveness.poll_output() {
            if let liveness::Output::Confirm { sequence } = output {
                self.flight.record(now, Incident::Confirm);
                self.transmit_beat(BeatKind::Ping, sequence, 0, context, out);
            }
        }
        Effect::Rearm
    }

    /// It has ended: nobody reads on, or nobody is to be waited for.
    pub(super) fn end_half_closed(
        &mut self,
        now: Time,
        grounds: Grounds,
        out: &mut Pen<'_>,
    ) -> Effect {
        let verdict = Verdict { grounds, ..self.verdict(now, Cause::PeerExited) };
        self.pronounce(verdict, None, out)
    }

    /// Its time is up. What became of its process is not known: it may read to this day.
    pub(super) fn half_close_passed(
        &mut self,
        now: Time,
        silence: Silence,
        out: &mut Pen<'_>,
    ) -> Effect {
        self.goodbye(now, CloseReason::Done.into(), out);
        let verdict = Verdict {
            due: silence.due,
            confidence: Confidence::Medium,
            grounds: Grounds::of(&[Ground::SideClosed]),
            ..self.verdict(now, Cause::PeerExited)
        };
        self.pronounce(verdict, None, out)
    }
}
