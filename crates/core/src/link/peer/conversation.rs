//! What is said on a link: handshake, heartbeats, data, retune, goodbye.

mod half_close;
mod handshake;
mod inquiry;

use alloc::boxed::Box;

pub use half_close::HALF_CLOSED;
use inquiry::Inquiry;

use super::{Context, Effect, connects, told};
use crate::cause::{Cause, Verdict};
use crate::diagnosis::Grounds;
use crate::flight::{Flight, Incident};
use crate::link::outbound::Pen;
use crate::link::{BeatKind, Closing, Command, Event, Goodbye, Lane, PIECE, SessionKey, Settings};
use crate::liveness::{self, Evidence, Liveness};
use crate::policy::Policy;
use crate::time::{Span, Time};
use crate::wire::{
    Beat, BootId, Close, CloseReason, Codec, DataKind, Frame, InstanceId, MAX_HEARTBEAT_DATA,
    Malformed,
};

/// How far a conversation has come, and what it remembers.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) liveness: Liveness,
    /// What happened lately.
    pub(super) flight: Flight,
    pub(super) session: SessionKey,
    /// What the peer said of itself; kept where it said anything.
    pub(super) introduced: Option<Box<Introduced>>,
    /// The policy in force.
    pub(super) policy: Policy,
    /// Rides on every heartbeat.
    /// Two boxes, so that a link without it holds a pointer less.
    heartbeat_data: Option<Box<Box<[u8]>>>,
    /// DATA messages received so far.
    received: u32,
    stage: Stage,
    codec: Codec,
    /// The longest piece that is sent: [`PIECE`], or less if WELCOME says so.
    piece: u16,
    /// PINGs not yet answered, and the sequence number of the latest.
    pongs_owed: u16,
    sequence: u8,
    retuned: bool,
    /// What is being found out about a suspect.
    inquiry: Option<Box<Inquiry>>,
}

/// What the peer said of itself in its handshake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Introduced {
    pub(crate) identity: Box<str>,
    pub(crate) boot_id: BootId,
    pub(crate) instance_id: InstanceId,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Greeting,
    Established,
    /// The peer has closed its side, and may still read; the deadline is its liveness's.
    HalfClosed,
    Over,
}

impl Conversation {
    pub(super) fn open(now: Time, settings: &Settings, session: SessionKey) -> Conversation {
        Conversation {
            liveness: Liveness::new(now, settings.role, settings.handshake_timeout),
            flight: Flight::new(now),
            session,
            introduced: None,
            policy: settings.policy,
            heartbeat_data: None,
            received: 0,
            stage: Stage::Greeting,
            codec: settings.codec,
            piece: PIECE as u16,
            pongs_owed: 0,
            sequence: 0,
            retuned: false,
            inquiry: None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    pub(super) fn is_established(&self) -> bool {
        match self.stage {
            Stage::Established | Stage::HalfClosed => true,
            Stage::Greeting | Stage::Over => false,
        }
    }

    /// Whether the policy changed since the last call.
    pub(super) fn take_retuned(&mut self) -> bool {
        core::mem::take(&mut self.retuned)
    }

    #[inline]
    pub(super) fn hear(&mut self, now: Time, evidence: Evidence, out: &mut Pen<'_>) {
        if self.inquiry.is_some() {
            self.end_inquiry();
        }
        self.tell_liveness(now, liveness::Input::Heard(evidence), out);
    }

    /// A frame arrived. What it asks for may end the conversation.
    #[inline]
    pub(super) fn frame(
        &mut self,
        now: Time,
        frame: Frame<'_>,
        context: &mut Context<'_>,
        out: &mut Pen<'_>,
    ) {
        if self.stage == Stage::Greeting {
            return self.first_frame(now, frame, context, out);
        }
        match frame {
            Frame::Ping(beat) => {
                self.pongs_owed = self.pongs_owed.saturating_add(1);
                self.sequence = beat.sequence;
                self.beat_received(BeatKind::Ping, beat, context, out);
            }
            Frame::Pong(beat) => {
                let sequence = (self.codec == Codec::Native).then_some(beat.sequence);
                self.hear(now, Evidence::Pong { sequence }, out);
                self.beat_received(BeatKind::Pong, beat, context, out);
            }
            Frame::Data { bytes, more, kind } => {
                self.received = self.received.wrapping_add(u32::from(!more));
                out.data(bytes, more, kind);
            }
            Frame::Retune(policy) if connects(context.settings) => {
                self.put_in_force(now, policy, context, out);
            }
            Frame::Retune(wish) => {
                let granted = context.settings.limits.grant(Some(wish), context.settings.policy);
                // One change for each read: whoever asks again and again is told what is in force.
                if self.retuned || granted == self.policy {
                    out.transmit(self.codec, Lane::Control, &Frame::Retune(self.policy));
                    self.sent(now);
                } else {
                    self.retune(now, granted, context, out);
                }
            }
            Frame::Close(close) => self.farewell(now, close, out),
            Frame::Hello(_) | Frame::Welcome(_) => {
                let _ = self.end(now, Cause::Protocol(Malformed::OutOfPlace), out);
            }
        }
    }

    /// Answers the PINGs of one read. Where PINGs are numbered the last answer confirms the others.
    #[inline]
    pub(super) fn answer(&mut self, now: Time, context: &mut Context<'_>, out: &mut Pen<'_>) {
        if self.pongs_owed == 0 {
            return;
        }
        let answers = if self.codec == Codec::Native { 1 } else { self.pongs_owed };
        self.pongs_owed = 0;
        for _ in 0..answers {
            self.transmit_beat(BeatKind::Pong, self.sequence, 0, context, out);
        }
        self.sent(now);
    }

    pub(super) fn expire(
        &mut self,
        now: Time,
        context: &mut Context<'_>,
        out: &mut Pen<'_>,
    ) -> Effect {
        self.liveness.handle(now, liveness::Input::Deadline, &self.policy);
        while let Some(output) = self.liveness.poll_output() {
            match output {
                liveness::Output::Probe { sequence, number } => {
                    self.flight.record(now, Incident::Probe { number });
                    self.transmit_beat(BeatKind::Ping, sequence, number, context, out);
                    self.examine_again(context, out);
                }
                liveness::Output::Keepalive { sequence } => {
                    self.flight.record(now, Incident::Keepalive);
                    self.transmit_beat(BeatKind::Ping, sequence, 0, context, out);
                }
                liveness::Output::Examine if context.settings.examines => out.examine(),
                liveness::Output::Dead(silence) => {
                    return self.bound_passed(now, silence, context, out);
                }
                liveness::Output::Suspect | liveness::Output::Overdue(_) => {
                    self.note(now, output);
                    if let Some(event) = told(output) {
                        out.event(event);
                    }
                    self.inquire(now, output, context, out);
                }
                liveness::Output::RoundTrip(_)
                | liveness::Output::Confirm { .. }
                | liveness::Output::Examine
                | liveness::Output::Recovered => {
                    self.note(now, output);
                    if let Some(event) = told(output) {
                        out.event(event);
                    }
                }
            }
        }
        Effect::Rearm
    }

    pub(super) fn command(
        &mut self,
        now: Time,
        command: Command<'_>,
        context: &mut Context<'_>,
        out: &mut Pen<'_>,
    ) -> Effect {
        match command {
            Command::Send { bytes, more, kind } => {
                let waited = self.liveness.is_outstanding();
                if self.is_established() {
                    self.send(bytes, more, kind, out);
                    self.flight.record(now, Incident::DataSent);
                    self.sent(now);
                }
                // The first that goes unanswered is to be looked after.
                let waits = self.liveness.is_outstanding() && !waited;
                if waits { Effect::Rearm } else { Effect::None }
            }
            Command::HeartbeatData(data) => {
                if data.len() <= MAX_HEARTBEAT_DATA {
                    self.heartbeat_data = (!data.is_empty()).then(|| Box::new(data.into()));
                }
                Effect::None
            }
            Command::Retune(policy) => {
                if self.is_established() {
                    self.retune(now, policy, context, out);
                    self.retuned = false;
                } else {
                    self.policy = policy;
                }
                Effect::Rearm
            }
            Command::Hold(span) => {
                self.flight.record(now, Incident::Held);
                self.tell_liveness(now, liveness::Input::Hold { until: now + span }, out);
                Effect::Rearm
            }
            Command::Release => {
                self.flight.record(now, Incident::Released);
                self.tell_liveness(now, liveness::Input::Release, out);
                Effect::Rearm
            }
            Command::Close(goodbye) => {
                self.goodbye(now, goodbye, out);
                let cause = match goodbye.reason {
                    CloseReason::Drained => Cause::Drained,
                    CloseReason::Kicked => Cause::Kicked,
                    CloseReason::Done
                    | CloseReason::Silent
                    | CloseReason::Unauthorized
                    | CloseReason::Replaced
                    | CloseReason::Slow
                    | CloseReason::Version
                    | CloseReason::Full
                    | CloseReason::Other(_) => Cause::Finished,
                };
                self.end(now, cause, out)
            }
        }
    }

    pub(super) fn overflow(&mut self, now: Time, out: &mut Pen<'_>) -> Effect {
        self.goodbye(now, CloseReason::Slow.into(), out);
        self.end(now, Cause::SlowConsumer, out)
    }

    /// Illegal bytes get no answer, but for the one that a peer of another version understands.
    pub(super) fn refuse(&mut self, now: Time, malformed: Malformed, out: &mut Pen<'_>) -> Effect {
        if malformed == Malformed::Version {
            self.goodbye(now, CloseReason::Version.into(), out);
        }
        self.end(now, Cause::Protocol(malformed), out)
    }

    /// Ends the conversation for a reason other than silence.
    pub(super) fn end(&mut self, now: Time, cause: Cause, out: &mut Pen<'_>) -> Effect {
        let verdict = self.verdict(now, cause);
        self.pronounce(verdict, None, out)
    }

    fn verdict(&self, now: Time, cause: Cause) -> Verdict {
        Verdict {
            cause,
            confidence: cause.confidence(),
            at: now,
            due: now,
            last_heard: self.liveness.last_heard(),
            probes: 0,
            grounds: Grounds::default(),
        }
    }

    fn pronounce(
        &mut self,
        verdict: Verdict,
        farewell: Option<Goodbye>,
        out: &mut Pen<'_>,
    ) -> Effect {
        self.stage = Stage::Over;
        self.flight.record(verdict.at, Incident::verdict(verdict.cause));
        out.event(Event::Lost { verdict, farewell });
        out.close(match verdict.cause {
            Cause::PeerClosed(_)
            | Cause::PeerExited
            | Cause::Kicked
            | Cause::Drained
            | Cause::Finished => Closing::Flush,
            Cause::PeerReset
            | Cause::PeerRebooted
            | Cause::MiddleboxForgot
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
            | Cause::Unknown => Closing::Abort,
        });
        Effect::Ended
    }

    /// Changes the policy, or asks the gateway to.
    fn retune(&mut self, now: Time, policy: Policy, context: &mut Context<'_>, out: &mut Pen<'_>) {
        let negotiates = self.codec.has_handshake();
        if negotiates {
            out.transmit(self.codec, Lane::Control, &Frame::Retune(policy));
            self.sent(now);
        }
        if !(connects(context.settings) && negotiates) {
            self.put_in_force(now, policy, context, out);
        }
    }

    fn put_in_force(
        &mut self,
        now: Time,
        policy: Policy,
        context: &mut Context<'_>,
        out: &mut Pen<'_>,
    ) {
        let from = self.policy;
        self.policy =
            if connects(context.settings) { policy.with_conduct_of(&from) } else { policy };
        self.retuned = true;
        self.flight.record(now, Incident::Retuned);
        let seed = context.random.next_u32();
        self.tell_liveness(now, liveness::Input::Retuned { from, seed }, out);
        out.event(Event::Retuned(self.policy));
    }

    fn farewell(&mut self, now: Time, close: Close<'_>, out: &mut Pen<'_>) {
        let farewell = Goodbye {
            reason: close.reason,
            stay_away: close.final_,
            return_after: Span::from_millis(u64::from(close.return_after_ms)),
        };
        self.flight.record(now, Incident::CloseHeard(close.reason));
        let verdict = self.verdict(now, Cause::PeerClosed(close.reason));
        let _ = self.pronounce(verdict, Some(farewell), out);
    }

    fn goodbye(&mut self, now: Time, goodbye: Goodbye, out: &mut Pen<'_>) {
        if self.codec.has_handshake() {
            self.flight.record(now, Incident::CloseSaid(goodbye.reason));
        }
        let close = Close {
            reason: goodbye.reason,
            final_: goodbye.stay_away,
            return_after_ms: u32::try_from(goodbye.return_after.as_millis()).unwrap_or(u32::MAX),
            text: "",
        };
        out.transmit(self.codec, Lane::Control, &Frame::Close(close));
    }

    /// The longest piece into which DATA is cut, in bytes.
    pub(super) fn piece(&self) -> usize {
        match self.codec {
            Codec::Native => usize::from(self.piece),
            // Cut, they would arrive as several messages: only where one cannot hold it all.
            Codec::Message1028 | Codec::Line => self.codec.max_data(),
        }
    }

    fn send(&mut self, bytes: &[u8], more: bool, kind: DataKind, out: &mut Pen<'_>) {
        let piece = self.piece();
        let mut rest = bytes;
        while rest.len() > piece {
            let (bytes, after) = rest.split_at(piece);
            rest = after;
            out.transmit(self.codec, Lane::Data, &Frame::Data { bytes, more: true, kind });
        }
        out.transmit(self.codec, Lane::Data, &Frame::Data { bytes: rest, more, kind });
    }

    #[inline]
    fn transmit_beat(
        &self,
        kind: BeatKind,
        sequence: u8,
        number: u8,
        context: &Context<'_>,
        out: &mut Pen<'_>,
    ) {
        let beat = Beat {
            sequence,
            received: None,
            data: self.heartbeat_data.as_deref().map(|data| &**data),
        };
        let frame = match kind {
            BeatKind::Ping => Frame::Ping(beat),
            BeatKind::Pong => Frame::Pong(beat),
        };
        out.transmit(self.codec, Lane::Control, &frame);
        out.count_heartbeat_out();
        if context.settings.report_heartbeats {
            out.event(Event::HeartbeatSent { beat: kind, sequence, number });
        }
    }

    #[inline]
    fn beat_received(
        &self,
        kind: BeatKind,
        beat: Beat<'_>,
        context: &Context<'_>,
        out: &mut Pen<'_>,
    ) {
        out.count_heartbeat_in();
        if let Some(data) = beat.data {
            out.heartbeat_data(data);
        }
        if context.settings.report_heartbeats {
            out.event(Event::HeartbeatReceived { beat: kind, sequence: beat.sequence });
        }
    }

    #[inline]
    fn sent(&mut self, now: Time) {
        self.liveness.handle(now, liveness::Input::Sent, &self.policy);
    }

    #[inline]
    fn tell_liveness(&mut self, now: Time, input: liveness::Input, out: &mut Pen<'_>) {
        self.liveness.handle(now, input, &self.policy);
        while let Some(output) = self.liveness.poll_output() {
            if output == liveness::Output::Recovered {
                self.end_inquiry();
            }
            self.note(now, output);
            if let Some(event) = told(output) {
                out.event(event);
            }
        }
    }

    #[inline]
    fn note(&mut self, now: Time, output: liveness::Output) {
        match output {
            liveness::Output::RoundTrip(rtt) => self.flight.record(now, Incident::Pong { rtt }),
            liveness::Output::Suspect => self.flight.record(now, Incident::Suspect),
            liveness::Output::Recovered => self.flight.record(now, Incident::Recovered),
            liveness::Output::Overdue(_) => self.flight.record(now, Incident::Overdue),
            liveness::Output::Probe { .. }
            | liveness::Output::Keepalive { .. }
            | liveness::Output::Confirm { .. }
            | liveness::Output::Examine
            | liveness::Output::Dead(_) => {}
        }
    }
}
