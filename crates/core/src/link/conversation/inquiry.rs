//! The inquiry: what examinations of a suspect peer's socket show, up to the verdict.
//!
//! The socket of a suspect peer is examined at the suspicion, after each further probe, and at the
//! bound; never those of all links at once. If the peer acknowledges enough of our data between two
//! examinations, that progress is evidence: the peer is slow, not silent.

use alloc::boxed::Box;

use super::{Conversation, Stage};
use crate::cause::Cause;
use crate::diagnosis::{Diagnosis, Doubts, early_word};
use crate::flight::{Findings, Incident};
use crate::kernel::{Examination, SocketError};
use crate::link::Hung;
use crate::link::outbound::Writer;
use crate::link::peer::{Context, Effect};
use crate::liveness::{self, Evidence, Role, Silence};
use crate::plain::{plain_enum, plain_struct};
use crate::session;
use crate::time::{Span, Time};

/// The bytes per second that a peer must acknowledge for its progress to be evidence, and at which
/// a frame of the peer must arrive. A message of 10 MB may take hours, but a peer that takes or
/// sends a byte a minute must not hold its session.
pub const FLOOR_PER_SECOND: u64 = 1_024;

/// The least number of bytes that is progress, however short the time.
const LEAST_PROGRESS: u64 = 1_024;

/// What is known about a suspect peer.
#[derive(Debug)]
pub(super) struct Inquiry {
    pub(super) doubts: Doubts,
    /// The verdict that waits for a last examination.
    pub(super) awaiting: Option<Awaiting>,
    /// When a peer that was hung at the bound is no longer kept.
    kept: Option<Time>,
    /// The bytes acknowledged since the first examination.
    acknowledged: u64,
    /// The largest number of heartbeat bytes among them, which the kernel of a hung peer
    /// acknowledges too.
    heartbeats: u64,
    /// The progress up to the previous examination, in bytes.
    progress: u64,
    /// Whether [`session::Event::Warned`] was emitted.
    warned: bool,
}

plain_struct! { Inquiry { doubts, awaiting, kept, acknowledged, heartbeats, progress, warned } }

/// The reason why a verdict waits for a last examination.
#[derive(Clone, Copy, Debug)]
pub(super) enum Awaiting {
    /// The bound has passed.
    Bound(Silence),
    /// The connection was reset.
    Reset,
}

plain_enum! { Awaiting {
    0 => Bound { 0: silence }
    1 => Reset {}
} }

impl Conversation {
    /// Starts an inquiry on suspicion. An overdue (unenforced) link is examined only if its socket
    /// has reported an error.
    pub(super) fn start_inquiry(
        &mut self,
        now: Time,
        output: liveness::Output,
        context: &Context<'_>,
        out: &mut Writer<'_>,
    ) {
        let suspect = output == liveness::Output::Suspect;
        if suspect && context.settings.examines {
            self.open_inquiry(now);
        }
        if suspect || self.known_error().is_some() {
            self.request_examination(context, out);
        }
    }

    /// Handles an error that a router reported while the connection stands.
    pub(in crate::link) fn handle_warned(
        &mut self,
        now: Time,
        error: SocketError,
        context: &Context<'_>,
        out: &mut Writer<'_>,
    ) -> Effect {
        self.flight.record(now, Incident::Error(error));
        let examination = Examination { error: Some(error), ..Examination::default() };
        let inquiry = self.open_inquiry(now);
        inquiry.doubts.see(now, &examination);
        // The router repeats its error with each retransmission; one warning is enough.
        if !inquiry.warned && self.liveness.is_in_doubt() {
            self.request_examination(context, out);
        }
        Effect::None
    }

    /// Requests an examination; warns at once if the shell cannot examine the socket.
    pub(super) fn request_examination(&mut self, context: &Context<'_>, out: &mut Writer<'_>) {
        if context.settings.examines {
            out.examine();
        } else {
            self.warn(out);
        }
    }

    /// Emits [`session::Event::Warned`] if a probe is out and the cause is known before the bound;
    /// once per inquiry.
    fn warn(&mut self, out: &mut Writer<'_>) {
        if let Some(inquiry) = self.inquiry.as_mut().filter(|inquiry| !inquiry.warned)
            && self.liveness.is_in_doubt()
            && let Some(Diagnosis { cause, confidence, grounds }) = early_word(&inquiry.doubts)
        {
            inquiry.warned = true;
            out.session(session::Event::Warned { cause, confidence, grounds });
        }
    }

    /// Returns the error that the socket has reported since the last evidence, if any.
    pub(super) fn known_error(&self) -> Option<SocketError> {
        self.inquiry.as_ref().and_then(|inquiry| inquiry.doubts.error())
    }

    /// Returns the inquiry, which starts now if there is none.
    pub(super) fn open_inquiry(&mut self, now: Time) -> &mut Inquiry {
        // Heartbeats that were sent before the suspicion and are not acknowledged yet.
        let heartbeats = self.heartbeat_size() * 2;
        self.inquiry.get_or_insert_with(|| {
            Box::new(Inquiry {
                doubts: Doubts::new(now),
                awaiting: None,
                kept: None,
                acknowledged: 0,
                heartbeats,
                progress: 0,
                warned: false,
            })
        })
    }

    /// Requests an examination after a probe of a suspect peer was sent.
    pub(super) fn examine_after_probe(&mut self, context: &Context<'_>, out: &mut Writer<'_>) {
        let size = self.heartbeat_size();
        if let Some(inquiry) = &mut self.inquiry {
            inquiry.heartbeats = inquiry.heartbeats.saturating_add(size);
            self.request_examination(context, out);
        }
    }

    /// Returns when a hung peer is no longer kept; `None` if the peer is not kept.
    pub(in crate::link) fn kept_until(&self) -> Option<Time> {
        self.inquiry.as_ref().and_then(|inquiry| inquiry.kept)
    }

    /// Ends the time for which a peer is kept, unless its liveness still keeps it.
    pub(super) fn end_keep_unless_kept(&mut self) {
        if let Some(inquiry) = &mut self.inquiry
            && !self.liveness.is_kept()
        {
            inquiry.kept = None;
        }
    }

    /// Ends the inquiry.
    pub(super) fn end_inquiry(&mut self) {
        self.inquiry = None;
    }

    /// Ends the inquiry, and withdraws a warning. The end of a suspicion, which its liveness
    /// reports, withdraws it too.
    #[cold]
    pub(super) fn clear_inquiry(&mut self, out: &mut Writer<'_>) {
        let warned = self.inquiry.take().is_some_and(|inquiry| inquiry.warned);
        if warned && !self.liveness.was_suspect() {
            out.session(session::Event::Recovered);
        }
    }

    /// Handles the bound: requests a last examination if the shell can make one; otherwise the
    /// verdict falls now.
    pub(super) fn handle_bound(
        &mut self,
        now: Time,
        silence: Silence,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) -> Effect {
        if self.stage == Stage::HalfClosed {
            return self.half_close_expired(now, silence, out);
        }
        if silence.in_handshake || !context.settings.examines {
            return self.end_by_silence(now, silence, out);
        }
        self.open_inquiry(now).awaiting = Some(Awaiting::Bound(silence));
        out.examine();
        Effect::None
    }

    /// Handles the result of an examination.
    pub(in crate::link) fn handle_examined(
        &mut self,
        now: Time,
        examination: &Examination,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) -> Effect {
        let cap_before = self.in_force.cap();
        self.note_send_state(now, examination, out);
        let mut effect = self.judge_examined(now, examination, context, out);
        if let Some(tcp) = examination.tcp.filter(|_| !self.is_over()) {
            let other_round_trip = self.note_round_trip(now, &tcp, context, out);
            // Either may bring a deadline forward.
            if effect == Effect::None && (other_round_trip || tcp.retransmits > 0) {
                effect = Effect::Rearm;
            }
        }
        if self.is_patience_extended() {
            self.restore_patience(out);
        }
        if self.in_force.cap() > cap_before {
            let checked = self.check_raised_cap(now, context, out);
            return if effect == Effect::None { checked } else { effect };
        }
        effect
    }

    fn judge_examined(
        &mut self,
        now: Time,
        examination: &Examination,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) -> Effect {
        if let Some(error) = examination.error.filter(|_| examination.ended) {
            // The kernel has discarded what it knew of the path, so the earlier looks count.
            self.record_examination(now, examination);
            return match error {
                SocketError::Reset => self.end_by_reset(now, examination.tcp, out),
                SocketError::Refused
                | SocketError::TimedOut
                | SocketError::HostUnreachable
                | SocketError::NetworkUnreachable
                | SocketError::Local => self.end_by_error(now, error, out),
            };
        }
        let awaiting = self.inquiry.as_ref().and_then(|inquiry| inquiry.awaiting);
        if matches!(awaiting, Some(Awaiting::Reset)) {
            // As above: nothing is retransmitted any more.
            self.record_examination(now, examination);
            return self.end_by_reset(now, examination.tcp, out);
        }
        self.remember_look(now, examination);
        if self.inquiry.is_none() && examination.error.is_none() {
            // The examination was for outstanding bytes, and the peer is not suspect.
            return Effect::None;
        }
        let inquiry = self.open_inquiry(now);
        let since = now.since(inquiry.doubts.last_at());
        let acknowledged = inquiry.doubts.see(now, examination);
        inquiry.acknowledged = inquiry.acknowledged.saturating_add(acknowledged);
        let progress = inquiry.acknowledged.saturating_sub(inquiry.heartbeats);
        let new_progress = progress.saturating_sub(inquiry.progress);
        inquiry.progress = inquiry.progress.max(progress);
        let awaiting = inquiry.awaiting.take();
        self.record_examination(now, examination);
        let at_bound = match awaiting {
            Some(Awaiting::Bound(silence)) => Some(silence),
            Some(Awaiting::Reset) | None => None,
        };
        // Bytes that the peer's kernel has taken and its application need not read are no progress.
        let waits = !examination.is_all_acknowledged();
        if waits && new_progress >= LEAST_PROGRESS && new_progress >= floor(since) {
            self.hear(now, Evidence::Progress, out);
            return Effect::Rearm;
        }
        let Some(silence) = at_bound else {
            self.warn(out);
            return Effect::None;
        };
        let cause = self.diagnosis(now).cause;
        let is_hung = matches!(cause, Cause::AppHung | Cause::NotReading);
        if let Hung::Keep(span) = context.settings.hung
            && (is_hung || self.is_kept_alive(cause, examination))
            && self.keep(now, cause, span, context, out)
        {
            return Effect::Rearm;
        }
        self.end_by_silence(now, silence, out)
    }

    /// Remembers what an examination shows once bytes of ours are held up: should the kernel give
    /// up the connection, this is the last that was seen of it, whatever the peer said since.
    /// Bytes that are merely on their way, as at each admission, take no memory.
    fn remember_look(&mut self, now: Time, examination: &Examination) {
        self.forget_look_if_delivered();
        let is_held_up = examination.tcp.is_some_and(|tcp| tcp.is_held_up());
        if self.outstanding.is_any() && (is_held_up || self.look.is_some()) {
            let look = self.look.get_or_insert_with(|| Box::new(Doubts::new(now)));
            // What a router said is a matter of the inquiry, and void with the next evidence.
            look.see(now, &Examination { error: None, ..*examination });
        }
    }

    /// Returns whether the latest examinations show that our direction was lost while that of the
    /// peer was not.
    pub(super) fn is_unheard(&self) -> bool {
        let inquiry = self.inquiry.as_ref().is_some_and(|inquiry| inquiry.doubts.is_unheard());
        inquiry || self.look.as_ref().is_some_and(|look| look.is_unheard())
    }

    /// Forgets what was remembered once the peer's kernel has all our bytes.
    pub(super) fn forget_look_if_delivered(&mut self) {
        if !self.outstanding.is_any() {
            self.look = None;
        }
    }

    /// Returns whether a peer that is kept may go on to be kept although its examination shows no
    /// cause: its kernel was heard within the bound, or has left a single window probe unanswered,
    /// which may have been lost. The time to the next one may be longer than the bound.
    fn is_kept_alive(&self, cause: Cause, examination: &Examination) -> bool {
        let (Some(tcp), Some(bound)) = (examination.tcp, self.policy.bound()) else {
            return false;
        };
        let probing_window = tcp.unacked == 0 && tcp.backoff > 0 && tcp.probes <= 1;
        let is_kept = self.kept_until().is_some() && cause == Cause::Unknown;
        is_kept && (tcp.last_ack < bound || probing_window)
    }

    /// Keeps a hung peer for `span` after the bound, re-examined once per bound by the probing
    /// side, because its machine may die meanwhile. Returns false once the time is up.
    fn keep(
        &mut self,
        now: Time,
        cause: Cause,
        span: Span,
        context: &Context<'_>,
        out: &mut Writer<'_>,
    ) -> bool {
        let kept = self.open_inquiry(now).kept;
        let end = kept.unwrap_or(now + span);
        if now >= end {
            return false;
        }
        let round = self.policy.bound().filter(|_| context.settings.role == Role::Probe);
        let until = round.map_or(end, |bound| end.min(now + bound));
        self.feed_liveness(now, liveness::Input::Keep { until }, out);
        if kept.is_none() {
            self.open_inquiry(now).kept = Some(end);
            self.update_patience(out);
            self.flight.record(now, Incident::Hung);
            out.session(session::Event::Hung { cause, until: end });
        }
        true
    }

    /// Lets the verdict fall without its last examination, because the shell handed in another
    /// input before the result.
    pub(in crate::link) fn forfeit_examination(
        &mut self,
        now: Time,
        out: &mut Writer<'_>,
    ) -> Option<Effect> {
        Some(match self.inquiry.as_mut()?.awaiting.take()? {
            Awaiting::Bound(silence) => self.end_by_silence(now, silence, out),
            Awaiting::Reset => self.end_by_reset(now, None, out),
        })
    }

    pub(super) fn record_examination(&mut self, now: Time, examination: &Examination) {
        if let Some(error) = examination.error {
            self.flight.record(now, Incident::Error(error));
        }
        let Some(tcp) = examination.tcp else {
            return self.flight.record(now, Incident::Unexaminable);
        };
        let findings = Findings::default()
            .with(Findings::FRESH, tcp.last_ack <= self.freshness())
            .with(Findings::WINDOW_CLOSED, tcp.send_window == Some(0))
            .with(Findings::WAITING, tcp.notsent.is_some_and(|bytes| bytes > 0))
            .with(Findings::RETRANSMITTING, tcp.retransmits > 0)
            .with(Findings::LOCAL_DOWN, examination.local_down == Some(true));
        self.flight.record(now, Incident::Examined(findings));
    }
}

/// Returns the bytes that a peer must acknowledge in `time` for its progress to be evidence.
fn floor(time: Span) -> u64 {
    time.as_millis().saturating_mul(FLOOR_PER_SECOND) / 1_000
}
