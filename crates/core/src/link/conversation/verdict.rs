//! The verdict: its cause and evidence, and the end of the conversation.

use super::{Conversation, Stage};
use crate::cause::{Cause, Direction, Verdict};
use crate::denial::Denial;
use crate::diagnosis::{self, Diagnosis, Doubts, Ground, Grounds, diagnose};
use crate::flight::Incident;
use crate::link::outbound::Writer;
use crate::link::peer::Effect;
use crate::link::{Closing, Lane};
use crate::liveness::Silence;
use crate::policy::Detection;
use crate::session;
use crate::time::{Span, Time};
use crate::wire::CloseReason;

impl Conversation {
    /// Ends the conversation for a cause other than silence.
    pub(super) fn end(&mut self, now: Time, cause: Cause, out: &mut Writer<'_>) -> Effect {
        let verdict = self.verdict(now, cause);
        self.end_with(verdict, out)
    }

    /// Ends the conversation at the bound, or at the time limit of the handshake.
    pub(super) fn end_by_silence(
        &mut self,
        now: Time,
        silence: Silence,
        out: &mut Writer<'_>,
    ) -> Effect {
        // A hung peer that recovers later reads this CLOSE.
        self.send_close(now, CloseReason::Silent.into(), Lane::Control, out);
        let (cause, confidence, grounds) = if silence.in_handshake {
            let cause = Cause::HandshakeTimeout;
            (cause, cause.confidence(), Grounds::default())
        } else {
            let found = self.diagnosis(now);
            (found.cause, found.confidence, found.grounds)
        };
        let Silence { due, stretch, last_heard, probes, .. } = silence;
        let is_stretched = stretch > Span::ZERO;
        let grounds = if is_stretched { grounds.with(Ground::Congested) } else { grounds };
        let at = now;
        let verdict = Verdict { cause, confidence, at, due, stretch, last_heard, probes, grounds };
        self.end_with(verdict, out)
    }

    /// Ends the conversation with `verdict`.
    pub(super) fn end_with(&mut self, verdict: Verdict, out: &mut Writer<'_>) -> Effect {
        if self.outlives(verdict.cause) {
            self.go_away(verdict, out);
        } else {
            self.forget_window();
            out.session(session::Event::Left(verdict));
        }
        let closing = match verdict.cause {
            Cause::Refused(Denial::Crowded) => Closing::Abort,
            Cause::PeerClosed(_)
            | Cause::PeerExited
            | Cause::Kicked
            | Cause::Replaced
            | Cause::Unauthorized
            | Cause::Refused(_)
            | Cause::Flooding
            | Cause::Drained
            | Cause::Finished => Closing::Flush,
            Cause::PeerReset
            | Cause::PeerRebooted
            | Cause::MiddleboxForgot
            | Cause::MiddleboxReset
            | Cause::AppHung
            | Cause::NotReading
            | Cause::PathLost { .. }
            | Cause::Unreachable
            | Cause::LocalNetworkDown
            | Cause::LocalNeighbourGone
            | Cause::HandshakeTimeout
            | Cause::Protocol(_)
            | Cause::SlowConsumer
            | Cause::LocalFault
            | Cause::GatewayLost
            | Cause::Unknown => Closing::Abort,
        };
        self.end_link(verdict, closing, out)
    }

    /// Ends the link with `verdict`, whatever becomes of its session.
    pub(super) fn end_link(
        &mut self,
        verdict: Verdict,
        closing: Closing,
        out: &mut Writer<'_>,
    ) -> Effect {
        self.stage = Stage::Over;
        self.flight.record(verdict.at, Incident::verdict(verdict.cause));
        if closing == Closing::Flush {
            self.leave(out);
        }
        out.close(closing);
        Effect::Ended
    }

    /// Returns a verdict that the kernel forces now, with no grounds. It is due at the bound.
    pub(super) fn forced_verdict(&self, now: Time, cause: Cause) -> Verdict {
        let due = self.liveness.due(&self.policy).filter(|_| self.stage == Stage::Established);
        Verdict {
            due: due.map_or(now, |due| due.max(now)),
            probes: self.liveness.probes_out(),
            ..self.verdict(now, cause)
        }
    }

    /// Returns a verdict that falls now, with no grounds.
    pub(super) fn verdict(&self, now: Time, cause: Cause) -> Verdict {
        Verdict::of(cause, now, self.liveness.last_heard())
    }

    /// Returns the cause of the silence, as far as the inquiry shows it.
    pub(super) fn diagnosis(&self, now: Time) -> Diagnosis {
        match &self.inquiry {
            Some(inquiry) => diagnose(&self.case(now), &inquiry.doubts),
            None => diagnose(&self.case(now), &Doubts::new(now)),
        }
    }

    /// Returns the cause for which the kernel may have given up the connection: that of the
    /// silence, or else what the latest examination for outstanding bytes showed. Evidence since
    /// then refutes a silence, but neither a closed window nor that what we send gets lost.
    pub(super) fn diagnosis_of_timeout(&self, now: Time) -> Diagnosis {
        let found = self.diagnosis(now);
        let Some(look) = self.look.as_ref().filter(|_| found.cause == Cause::Unknown) else {
            return found;
        };
        let seen = diagnose(&self.case(now), look);
        let ours = matches!(seen.cause, Cause::PathLost { direction: Direction::Outbound, .. });
        let holds =
            ours || seen.cause == Cause::NotReading || look.last_at() >= self.liveness.last_heard();
        if holds { seen } else { found }
    }

    fn case(&self, now: Time) -> diagnosis::Case {
        diagnosis::Case {
            lasted: now.since(self.liveness.last_heard()),
            interval: self.interval(),
            beyond_bound: self.liveness.due(&self.policy).is_some_and(|due| now >= due),
            probed: self.liveness.probes_out() > 0,
        }
    }

    /// Returns the age up to which an acknowledgement counts as fresh.
    pub(super) fn freshness(&self) -> Span {
        diagnosis::freshness(self.interval())
    }

    pub(super) fn interval(&self) -> Span {
        match self.policy.detection() {
            Detection::Bounded { interval, .. } => interval,
            Detection::Never => Span::ZERO,
        }
    }
}
