//! Socket errors: the end of a link that its socket reports.

use super::inquiry::Awaiting;
use super::{Conversation, Stage};
use crate::cause::{Cause, Verdict};
use crate::diagnosis::{Diagnosis, Ground, Grounds, Reset, diagnose_reset};
use crate::flight::Incident;
use crate::kernel::{SocketError, TcpSnapshot};
use crate::link::outbound::Writer;
use crate::link::peer::{Context, Effect};
use crate::time::Time;

impl Conversation {
    /// Handles a failed socket. A reset is examined first: what the kernel still knows of the
    /// connection shows why the reset was sent.
    pub(in crate::link) fn handle_failed(
        &mut self,
        now: Time,
        error: SocketError,
        context: &Context<'_>,
        out: &mut Writer<'_>,
    ) -> Effect {
        self.flight.record(now, Incident::Error(error));
        let half_closed = self.stage == Stage::HalfClosed;
        if error == SocketError::Reset && !half_closed && context.settings.examines {
            self.open_inquiry(now).awaiting = Some(Awaiting::Reset);
            out.examine();
            return Effect::None;
        }
        self.end_by_error(now, error, out)
    }

    /// Ends the conversation because of `error`.
    pub(super) fn end_by_error(
        &mut self,
        now: Time,
        error: SocketError,
        out: &mut Writer<'_>,
    ) -> Effect {
        match error {
            SocketError::Reset => self.end_by_reset(now, None, out),
            SocketError::Refused
            | SocketError::HostUnreachable
            | SocketError::NetworkUnreachable => {
                let grounds = Grounds::of(&[Ground::RouterSaidUnreachable]);
                let verdict = Verdict { grounds, ..self.forced_verdict(now, Cause::Unreachable) };
                self.end_with(verdict, out)
            }
            // The kernel's timeout says nothing of the cause, so the inquiry decides.
            SocketError::TimedOut => {
                let Diagnosis { cause, confidence, grounds } = self.diagnosis_of_timeout(now);
                let grounds = grounds.with(Ground::KernelGaveUp);
                let verdict = Verdict { confidence, grounds, ..self.forced_verdict(now, cause) };
                self.end_with(verdict, out)
            }
            SocketError::Local => {
                let verdict = self.forced_verdict(now, Cause::LocalFault);
                self.end_with(verdict, out)
            }
        }
    }

    /// Ends the conversation because of a reset; `tcp` is what the kernel still knows of the
    /// connection. After a half-close the reset only confirms that the peer's process has ended.
    pub(super) fn end_by_reset(
        &mut self,
        now: Time,
        tcp: Option<TcpSnapshot>,
        out: &mut Writer<'_>,
    ) -> Effect {
        if self.stage == Stage::HalfClosed {
            let grounds = Grounds::of(&[Ground::SideClosed, Ground::Reset]);
            return self.end_half_closed(now, grounds, out);
        }
        let heard = now.since(self.liveness.last_heard());
        let sent = now.since(self.liveness.last_sent());
        let reset = Reset { heard, sent, patience: self.freshness(), tcp };
        let Diagnosis { cause, confidence, grounds } = diagnose_reset(&reset);
        let unheard = self.is_unheard();
        let grounds = if unheard { grounds.with(Ground::PeerStillHeard) } else { grounds };
        let probes = self.liveness.probes_out();
        let verdict = Verdict { confidence, grounds, probes, ..self.verdict(now, cause) };
        self.end_with(verdict, out)
    }
}
