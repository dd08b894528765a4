//! What is found out about a suspect, and the verdict that comes of it.
//!
//! The socket is looked at when a peer becomes suspect, with each further probe, and at the bound:
//! of suspects, never of the fleet. Between two looks the peer may prove that it takes what we send
//! it; then it is slow, and not silent.

use alloc::boxed::Box;

use super::{Conversation, Stage};
use crate::cause::{Cause, Verdict};
use crate::diagnosis::{
    self, Diagnosis, Doubts, Ground, Grounds, Reset, diagnose, diagnose_reset, early_word,
};
use crate::flight::{Findings, Incident};
use crate::kernel::{Examination, SocketError, TcpSnapshot};
use crate::link::outbound::Pen;
use crate::link::peer::{Context, Effect};
use crate::link::{Event, Hung};
use crate::liveness::{self, Evidence, Role, Silence};
use crate::policy::Detection;
use crate::time::{Span, Time};
use crate::wire::{CloseReason, Codec, message1028};

/// Bytes that a peer must take per second for its progress to be evidence: a message of 10 MB may
/// take hours, but a peer that takes a byte a minute holds its session for nothing.
const FLOOR_PER_SECOND: u64 = 1_024;

/// Bytes that are the least progress, however short the time.
const LEAST_PROGRESS: u64 = 1_024;

/// What is being found out about a suspect.
#[derive(Debug)]
pub(super) struct Inquiry {
    doubts: Doubts,
    /// The verdict is due, and the look that it waits for.
    awaiting: Option<Awaiting>,
    /// The peer hung at the bound before, and is kept until then.
    kept: Option<Time>,
    /// Bytes acknowledged since the first look.
    acknowledged: u64,
    /// Bytes of heartbeats among them, at most: a hung peer's kernel acknowledges those by itself.
    heartbeats: u64,
    /// What was progress up to the look before.
    progress: u64,
    /// What is known before the bound has passed was told.
    told: bool,
}

/// Why a verdict waits for a last look.
#[derive(Clone, Copy, Debug)]
enum Awaiting {
    /// The bound has passed.
    Bound(Silence),
    /// The connection was reset.
    Reset,
}

impl Conversation {
    /// A suspicion begins, or a link that is never ended becomes overdue: then only a word that was
    /// kept so far is worth a look.
    pub(super) fn inquire(
        &mut self,
        now: Time,
        doubt: liveness::Output,
        context: &Context<'_>,
        out: &mut Pen<'_>,
    ) {
        let suspect = doubt == liveness::Output::Suspect;
        if suspect && context.settings.examines {
            self.inquiry(now);
        }
        if suspect || self.known_error().is_some() {
            self.examine(context, out);
        }
    }

    /// A router has a word to say.
    pub(in crate::link::peer) fn warned(
        &mut self,
        now: Time,
        error: SocketError,
        context: &Context<'_>,
        out: &mut Pen<'_>,
    ) -> Effect {
        self.flight.record(now, Incident::Error(error));
        let examination = Examination { error: Some(error), ..Examination::default() };
        let inquiry = self.inquiry(now);
        inquiry.doubts.see(now, &examination);
        // It comes again with each retransmission, and once is enough.
        if !inquiry.told && self.liveness.is_in_doubt() {
            self.examine(context, out);
        }
        Effect::None
    }

    /// Looks, and tells what is known already where nobody can.
    fn examine(&mut self, context: &Context<'_>, out: &mut Pen<'_>) {
        if context.settings.examines {
            out.examine();
        } else {
            self.tell_early(out);
        }
    }

    /// Tells, once in a suspicion and only of a peer that is asked in vain, what need not wait for
    /// the bound.
    fn tell_early(&mut self, out: &mut Pen<'_>) {
        if let Some(inquiry) = self.inquiry.as_mut().filter(|inquiry| !inquiry.told)
            && self.liveness.is_in_doubt()
            && let Some(Diagnosis { cause, confidence, grounds }) = early_word(&inquiry.doubts)
        {
            inquiry.told = true;
            out.event(Event::Warned { cause, confidence, grounds });
        }
    }

    /// What the socket reported of a suspect so far.
    pub(super) fn known_error(&self) -> Option<SocketError> {
        self.inquiry.as_ref().and_then(|inquiry| inquiry.doubts.error())
    }

    fn inquiry(&mut self, now: Time) -> &mut Inquiry {
        // Those that left before the suspicion and are not yet acknowledged.
        let heartbeats = self.beat_length() * 2;
        self.inquiry.get_or_insert_with(|| {
            Box::new(Inquiry {
                doubts: Doubts::new(now),
                awaiting: None,
                kept: None,
                acknowledged: 0,
                heartbeats,
                progress: 0,
                told: false,
            })
        })
    }

    /// Another probe of a suspect has left.
    pub(super) fn examine_again(&mut self, context: &Context<'_>, out: &mut Pen<'_>) {
        let length = self.beat_length();
        if let Some(inquiry) = &mut self.inquiry {
            inquiry.heartbeats += length;
            self.examine(context, out);
        }
    }

    /// The suspicion is over.
    pub(super) fn end_inquiry(&mut self) {
        self.inquiry = None;
    }

    /// The bound has passed: a last look, where one can be taken, and the verdict.
    pub(super) fn bound_passed(
        &mut self,
        now: Time,
        silence: Silence,
        context: &mut Context<'_>,
        out: &mut Pen<'_>,
    ) -> Effect {
        if self.stage == Stage::HalfClosed {
            return self.half_close_passed(now, silence, out);
        }
        if silence.in_handshake || !context.settings.examines {
            return self.condemn(now, silence, out);
        }
        self.inquiry(now).awaiting = Some(Awaiting::Bound(silence));
        out.examine();
        Effect::None
    }

    /// The shell took a look.
    pub(in crate::link::peer) fn examined(
        &mut self,
        now: Time,
        examination: &Examination,
        context: &mut Context<'_>,
        out: &mut Pen<'_>,
    ) -> Effect {
        if self.inquiry.is_none() && examination.error.is_none() {
            // It was for the shell alone: bytes of ours are unanswered, and nobody is suspected.
            return Effect::None;
        }
        let inquiry = self.inquiry(now);
        let since = now.since(inquiry.doubts.last_at());
        inquiry.acknowledged += inquiry.doubts.see(now, examination);
        let progress = inquiry.acknowledged.saturating_sub(inquiry.heartbeats);
        let taken = progress.saturating_sub(inquiry.progress);
        inquiry.progress = inquiry.progress.max(progress);
        let awaiting = inquiry.awaiting.take();
        self.record_examination(now, examination);
        if examination.error == Some(SocketError::Reset) {
            return self.end_by_reset(now, examination.tcp, out);
        }
        let judging = match awaiting {
            Some(Awaiting::Reset) => return self.end_by_reset(now, examination.tcp, out),
            Some(Awaiting::Bound(silence)) => Some(silence),
            None => None,
        };
        if taken >= LEAST_PROGRESS && taken >= floor(since) {
            self.tell_liveness(now, liveness::Input::Heard(Evidence::Progress), out);
            return Effect::Rearm;
        }
        let Some(silence) = judging else {
            // Reading the error has ended the connection for good; nothing more will tell.
            return match examination.error {
                Some(error @ (SocketError::Refused | SocketError::TimedOut)) => {
                    self.end_by(now, error, out)
                }
                Some(
                    SocketError::Reset
                    | SocketError::HostUnreachable
                    | SocketError::NetworkUnreachable
                    | SocketError::Local,
                )
                | None => {
                    self.tell_early(out);
                    Effect::None
                }
            };
        };
        if let Hung::Keep(span) = context.settings.hung
            && let cause @ (Cause::AppHung | Cause::NotReading) = self.diagnosis(now).cause
            && self.keep(now, cause, span, context, out)
        {
            return Effect::Rearm;
        }
        self.condemn(now, silence, out)
    }

    /// Puts off the verdict on a peer that hangs, for so long since the bound. Whoever probes looks
    /// after it once in each further bound: its machine may die meanwhile. False if it is time.
    fn keep(
        &mut self,
        now: Time,
        cause: Cause,
        span: Span,
        context: &Context<'_>,
        out: &mut Pen<'_>,
    ) -> bool {
        let kept = self.inquiry(now).kept;
        let end = kept.unwrap_or(now + span);
        if now >= end {
            return false;
        }
        let round = self.policy.bound().filter(|_| context.settings.role == Role::Probe);
        let until = round.map_or(end, |bound| end.min(now + bound));
        self.tell_liveness(now, liveness::Input::Keep { until }, out);
        if kept.is_none() {
            self.inquiry(now).kept = Some(end);
            self.flight.record(now, Incident::Hung);
            out.event(Event::Hung { cause, until: end });
        }
        true
    }

    /// A shell that has something else to say before it took the look it was asked for forfeits
    /// it; the verdict is due.
    pub(in crate::link::peer) fn forfeit_examination(
        &mut self,
        now: Time,
        out: &mut Pen<'_>,
    ) -> Option<Effect> {
        Some(match self.inquiry.as_mut()?.awaiting.take()? {
            Awaiting::Bound(silence) => self.condemn(now, silence, out),
            Awaiting::Reset => self.end_by_reset(now, None, out),
        })
    }

    /// The socket failed. Who sent a reset is told by what the kernel still knows of it.
    pub(in crate::link::peer) fn fail(
        &mut self,
        now: Time,
        error: SocketError,
        context: &Context<'_>,
        out: &mut Pen<'_>,
    ) -> Effect {
        self.flight.record(now, Incident::Error(error));
        if error == SocketError::Reset && self.stage == Stage::HalfClosed {
            return self.end_half_closed(
                now,
                Grounds::of(&[Ground::SideClosed, Ground::Reset]),
                out,
            );
        }
        if error == SocketError::Reset && context.settings.examines {
            self.inquiry(now).awaiting = Some(Awaiting::Reset);
            out.examine();
            return Effect::None;
        }
        self.end_by(now, error, out)
    }

    /// An error says something only beside what was known before.
    pub(super) fn end_by(&mut self, now: Time, error: SocketError, out: &mut Pen<'_>) -> Effect {
        let (cause, grounds) = match error {
            SocketError::Reset => return self.end_by_reset(now, None, out),
            SocketError::Refused => (Cause::PeerReset, Grounds::of(&[Ground::Reset])),
            SocketError::HostUnreachable | SocketError::NetworkUnreachable => {
                (Cause::Unreachable, Grounds::of(&[Ground::RouterSaidUnreachable]))
            }
            SocketError::TimedOut => {
                let Diagnosis { cause, confidence, grounds } = self.diagnosis(now);
                let grounds = grounds.with(Ground::KernelGaveUp);
                let verdict = Verdict { confidence, grounds, ..self.verdict(now, cause) };
                return self.pronounce(verdict, None, out);
            }
            SocketError::Local => (Cause::LocalFault, Grounds::default()),
        };
        let verdict = Verdict { grounds, ..self.verdict(now, cause) };
        self.pronounce(verdict, None, out)
    }

    /// The connection was reset, and `tcp` is what the kernel still knows of it.
    fn end_by_reset(&mut self, now: Time, tcp: Option<TcpSnapshot>, out: &mut Pen<'_>) -> Effect {
        let heard = now.since(self.liveness.last_heard());
        let sent = now.since(self.liveness.last_sent());
        let reset = Reset { heard, sent, patience: self.patience(), tcp };
        let Diagnosis { cause, confidence, grounds } = diagnose_reset(&reset);
        let verdict = Verdict { confidence, grounds, ..self.verdict(now, cause) };
        self.pronounce(verdict, None, out)
    }

    /// How long an acknowledgement counts as fresh.
    fn patience(&self) -> Span {
        self.interval().times(2).max(diagnosis::LEAST_FRESHNESS)
    }

    fn record_examination(&mut self, now: Time, look: &Examination) {
        if let Some(error) = look.error {
            self.flight.record(now, Incident::Error(error));
        }
        let Some(tcp) = look.tcp else {
            return self.flight.record(now, Incident::Unexaminable);
        };
        let findings = Findings::default()
            .with(Findings::FRESH, tcp.last_ack <= self.patience())
            .with(Findings::WINDOW_CLOSED, tcp.send_window == Some(0))
            .with(Findings::WAITING, tcp.notsent.is_some_and(|bytes| bytes > 0))
            .with(Findings::RETRANSMITTING, tcp.retransmits > 0)
            .with(Findings::LOCAL_DOWN, look.local_down == Some(true));
        self.flight.record(now, Incident::Examined(findings));
    }

    /// How long a heartbeat is on the wire, at most.
    fn beat_length(&self) -> u64 {
        let riding = self.heartbeat_data.as_ref().map_or(0, |data| data.len());
        match self.codec {
            Codec::Native => riding as u64 + 8,
            Codec::Message1028 => message1028::MESSAGE as u64,
            Codec::Line => 5,
        }
    }

    fn diagnosis(&self, now: Time) -> Diagnosis {
        let silence = diagnosis::Case {
            lasted: now.since(self.liveness.last_heard()),
            interval: self.interval(),
        };
        match &self.inquiry {
            Some(inquiry) => diagnose(&silence, &inquiry.doubts),
            None => diagnose(&silence, &Doubts::new(now)),
        }
    }

    fn interval(&self) -> Span {
        match self.policy.detection() {
            Detection::Bounded { interval, .. } => interval,
            Detection::Never => Span::ZERO,
        }
    }

    fn condemn(&mut self, now: Time, silence: Silence, out: &mut Pen<'_>) -> Effect {
        // The goodbye is for a peer that hung and comes back to find its link closed.
        self.goodbye(now, CloseReason::Silent.into(), out);
        let (cause, confidence, grounds) = if silence.in_handshake {
            let cause = Cause::HandshakeTimeout;
            (cause, cause.confidence(), Grounds::default())
        } else {
            let found = self.diagnosis(now);
            (found.cause, found.confidence, found.grounds)
        };
        let Silence { due, last_heard, probes, .. } = silence;
        let verdict = Verdict { cause, confidence, at: now, due, last_heard, probes, grounds };
        self.pronounce(verdict, None, out)
    }
}

/// What a peer must have taken in this time.
fn floor(time: Span) -> u64 {
    time.as_millis().saturating_mul(FLOOR_PER_SECOND) / 1_000
}
