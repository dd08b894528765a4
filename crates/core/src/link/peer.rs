//! The compact part of a link; a gateway holds one per connection.

mod incomplete;
mod session;

use alloc::vec::Vec;

use super::conversation::{Conversation, Introduced};
use super::outbound::Writer;
use super::{Answer, Command, Input, Settings, World};
use crate::flight::Flight;
use crate::kernel::Examination;
use crate::liveness::{Evidence, Liveness, Role};
use crate::machine::{Deadline, Reason};
use crate::plain::{Damage, Plain, Sink, Source, plain_struct};
use crate::policy::Policy;
use crate::random::Random;
use crate::time::{Span, Time};
use crate::wire::Malformed;
use crate::wire::decoder::{Decoder, Sealed};

plain_struct! { Peer { decoder, conversation } if Peer::is_legal }

/// The state that all peers of one listener share, borrowed for one input.
pub(crate) struct Context<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) random: &'a mut Random,
}

/// What the owner of the timers must do after an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(crate) enum Effect {
    /// Nothing; the next deadline has not moved earlier.
    None,
    /// Read the next deadline, which may have moved earlier.
    Rearm,
    /// Remove the peer; the link has ended.
    Ended,
}

/// One link without its settings and outputs: the decoder and the conversation.
#[derive(Debug)]
pub(crate) struct Peer {
    decoder: Decoder,
    conversation: Conversation,
}

impl Peer {
    pub(crate) fn open(now: Time, context: &mut Context<'_>, out: &mut Writer<'_>) -> Peer {
        let mut peer = Peer::new(now, context);
        peer.begin(now, context, out);
        peer
    }

    /// Makes a peer that has not begun its handshake.
    pub(super) fn new(now: Time, context: &Context<'_>) -> Peer {
        let settings = context.settings;
        let decoder = Decoder::new(settings.codec, settings.max_data);
        Peer { decoder, conversation: Conversation::open(now, settings) }
    }

    /// Begins the handshake.
    pub(super) fn begin(&mut self, now: Time, context: &mut Context<'_>, out: &mut Writer<'_>) {
        self.conversation.send_hello(now, context, out);
    }

    /// Appends the state at `now` to `out`, with every time as an age or a time to come. All
    /// outputs have been polled; they and the settings are not part of the state.
    pub(crate) fn save(&self, now: Time, out: &mut Vec<u8>) {
        self.put(&mut Sink::state(now, out));
    }

    /// Loads a peer with these settings from the front of `input`, at `now` of the clock that
    /// drives it from here on.
    pub(crate) fn load(now: Time, settings: &Settings, input: &mut &[u8]) -> Result<Peer, Damage> {
        let mut from = Source::state(now, input);
        let peer = Peer::take(&mut from)?;
        if peer.conversation.codec() != settings.codec {
            return Err(Damage::Settings);
        }
        *input = from.rest();
        Ok(peer)
    }

    fn is_legal(&self) -> bool {
        self.decoder.codec() == self.conversation.codec()
    }

    #[inline]
    pub(crate) fn handle(
        &mut self,
        now: Time,
        input: Input<'_>,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) -> Effect {
        if self.conversation.is_over() {
            return Effect::None;
        }
        if !matches!(input, Input::Answer(Answer::Examined(_)))
            && let Some(effect) = self.conversation.forfeit_examination(now, out)
        {
            return effect;
        }
        match input {
            Input::World(world) => self.world(now, world, context, out),
            Input::Answer(answer) => self.answer(now, answer, context, out),
        }
    }

    #[inline]
    fn world(
        &mut self,
        now: Time,
        world: World<'_>,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) -> Effect {
        match world {
            World::Received(bytes) => self.receive(now, bytes, context, out),
            World::Heard => self.heard(now, context, out),
            World::Held { memory, length } => self.hold_sealed(Sealed { memory, length }),
            World::Illegal(why) => self.conversation.end_by_malformed(now, why, out),
            World::Ended => {
                self.decoder.discard();
                self.decoder.clear_sealed();
                self.conversation.handle_ended(now, context, out)
            }
            World::Warned(error) => self.conversation.handle_warned(now, error, context, out),
            World::Failed(error) => self.conversation.handle_failed(now, error, context, out),
            World::Overflowed => self.conversation.end_by_overflow(now, out),
            World::Command(command) => self.command(now, command, context, out),
        }
    }

    #[inline]
    fn answer(
        &mut self,
        now: Time,
        answer: Answer,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) -> Effect {
        match answer {
            Answer::Deadline => self.expire(now, context, out),
            Answer::Examined(examination) => self.examined(now, &examination, context, out),
            Answer::Admitted { key, fresh } => {
                let held = self.conversation.admit(now, (key, fresh), context, out);
                self.handle_held(now, held, context, out)
            }
            Answer::Refused(denied) => self.conversation.refuse(now, denied, out),
        }
    }

    /// Ends a link that is not established, in favour of another one.
    pub(crate) fn end_by_crowd(&mut self, now: Time, out: &mut Writer<'_>) -> Effect {
        self.conversation.end_by_crowd(now, out)
    }

    /// Returns whether the link has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.conversation.is_over()
    }

    /// Returns whether the link holds part of a frame, or its transport part of a sealed record.
    #[inline]
    pub(crate) fn is_within_frame(&self) -> bool {
        self.decoder.is_within_frame()
    }

    /// Returns whether the message that was sent last continues in the next one that is sent.
    pub(crate) fn is_within_message(&self) -> bool {
        self.conversation.is_within_message()
    }

    pub(crate) fn next_deadline(&self) -> Option<Deadline> {
        let deadline = self.conversation.next_deadline();
        if !self.decoder.is_within_frame() {
            return deadline;
        }
        let frame = self.decoder.incomplete();
        let frame = frame.and_then(|frame| self.conversation.frame_deadline(&frame));
        Deadline::earlier(deadline, frame)
    }

    /// Returns how much earlier than `deadline` its timer may fire without any effect. The deadline
    /// of a peer that is not in doubt most likely has moved by then; otherwise the timer is armed
    /// again, exactly.
    pub(crate) fn rearm_slack(&self, deadline: &Deadline) -> Span {
        match deadline.reason {
            Reason::Suspicion | Reason::Verdict if !self.liveness().is_in_doubt() => {
                self.policy().probe_slack()
            }
            Reason::Suspicion
            | Reason::Verdict
            | Reason::Handshake
            | Reason::Admission
            | Reason::Probe
            | Reason::Keepalive
            | Reason::Examine
            | Reason::HalfClose
            | Reason::Frame
            | Reason::Expiry
            | Reason::Sweep
            | Reason::Leave
            | Reason::Settle => Span::ZERO,
        }
    }

    /// Sets the round trip by which a suspicion is measured.
    #[cfg(test)]
    pub(crate) fn set_round_trip(&mut self, rtt: Span) {
        let Conversation { liveness, policy, .. } = &mut self.conversation;
        let input = crate::liveness::Input::KernelRoundTrip(rtt);
        liveness.handle(Time::ZERO, input, policy);
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.conversation.policy
    }

    /// Returns the bytes that wait for the peer's acknowledgement.
    #[inline]
    pub(crate) fn kept_bytes(&self) -> usize {
        self.conversation.kept_bytes()
    }

    /// Returns whether a message of this length may be sent now.
    pub(crate) fn has_room(&self, length: usize) -> bool {
        self.conversation.has_room(length)
    }

    /// Returns how many messages of the session were sent, and how many of them the peer has
    /// acknowledged; `None` if it has no window.
    pub(crate) fn progress(&self) -> Option<(u64, u64)> {
        self.conversation.progress()
    }

    pub(crate) fn piece(&self) -> usize {
        self.conversation.piece()
    }

    pub(crate) fn liveness(&self) -> &Liveness {
        &self.conversation.liveness
    }

    pub(crate) fn flight(&self) -> &Flight {
        &self.conversation.flight
    }

    pub(crate) fn introduced(&self) -> Option<&Introduced> {
        self.conversation.introduced.as_deref()
    }

    pub(crate) fn awaits_admission(&self) -> bool {
        self.conversation.awaits_admission()
    }

    pub(crate) fn is_established(&self) -> bool {
        self.conversation.is_established()
    }

    pub(crate) fn is_suspect(&self) -> bool {
        self.conversation.is_established() && self.conversation.liveness.is_suspect()
    }

    fn examined(
        &mut self,
        now: Time,
        examination: &Examination,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) -> Effect {
        let was_kept = self.conversation.kept_until().is_some();
        let effect = self.conversation.handle_examined(now, examination, context, out);
        if was_kept && self.conversation.kept_until().is_none() {
            // The peer takes bytes again. As in `receive`.
            self.decoder.restart_count(now);
        }
        effect
    }

    fn command(
        &mut self,
        now: Time,
        command: Command<'_>,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) -> Effect {
        let before = *self.policy();
        let effect = self.conversation.handle_command(now, command, context, out);
        let restarts = match command {
            Command::Hold(_) | Command::Release => true,
            Command::Retune(_) => *self.policy() != before,
            Command::Send { .. }
            | Command::HeartbeatData(_)
            | Command::Heartbeat
            | Command::Taken { .. }
            | Command::Flush
            | Command::Close { .. } => false,
        };
        if restarts {
            // A frame is not judged by a time that was not judged, or under another policy.
            self.decoder.restart_count(self.conversation.liveness.silent_since().max(now));
        }
        effect
    }

    /// Handles bytes without plaintext. A sealed record takes longer to arrive than the segments
    /// that carry it, and only the application can have sealed it.
    fn heard(&mut self, now: Time, context: &Context<'_>, out: &mut Writer<'_>) -> Effect {
        let was_trusted = self.hear(now, out);
        self.conversation.ask_wanted_figure(now, context, out);
        if !self.conversation.awaits_admission() {
            self.conversation.flight.heard(now, 0);
        }
        if self.conversation.is_patience_extended() {
            self.conversation.restore_patience(out);
        }
        if was_trusted { Effect::None } else { Effect::Rearm }
    }

    /// Handles the evidence of bytes, whatever they are. Returns whether the peer was trusted
    /// before.
    #[inline]
    fn hear(&mut self, now: Time, out: &mut Writer<'_>) -> bool {
        let was_trusted = self.conversation.is_trusted();
        if !was_trusted && self.conversation.liveness.is_kept() {
            // A frame is not judged by the time for which its peer was kept.
            self.decoder.restart_count(now);
        }
        self.conversation.hear(now, Evidence::Bytes, out);
        was_trusted
    }

    #[inline]
    fn receive(
        &mut self,
        now: Time,
        bytes: &[u8],
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) -> Effect {
        if bytes.is_empty() {
            return Effect::None;
        }
        let was_outstanding = self.conversation.outstanding.is_any();
        let rtt = self.conversation.liveness.rtt();
        let read = bytes.len();
        let incomplete = self.incomplete_length();
        let was_trusted = self.hear(now, out);
        if incomplete.is_some() {
            // A record is complete; the transport is asked again for what it holds.
            self.decoder.clear_sealed();
        }
        let is_first = self.conversation.is_in_handshake() && !self.decoder.is_within_frame();
        let decoded = if is_first && is_tls(bytes) {
            Decoded::Malformed(Malformed::Tls)
        } else {
            self.decode(now, bytes, context, out)
        };
        match decoded {
            // The handshake that follows implies that it was heard.
            Decoded::All if self.conversation.awaits_admission() => {}
            Decoded::All => self.conversation.flight.heard(now, read),
            Decoded::Ended => return Effect::Ended,
            Decoded::Malformed(malformed) => {
                self.conversation.flight.heard(now, read);
                return self.conversation.end_by_malformed(now, malformed, out);
            }
        }
        if self.conversation.is_patience_extended() {
            self.conversation.restore_patience(out);
        }
        self.conversation.ask_wanted_figure(now, context, out);
        // On a watching end a shorter round trip brings the suspicion forward.
        let suspects_sooner =
            context.settings.role == Role::Watch && self.conversation.liveness.rtt() < rtt;
        // The first outstanding bytes bring the deadline of an examination.
        let is_first = !was_outstanding && self.conversation.outstanding.is_any();
        let is_sooner = suspects_sooner || is_first || self.is_frame_sooner(incomplete);
        if self.conversation.take_retuned() || !was_trusted || is_sooner {
            Effect::Rearm
        } else {
            Effect::None
        }
    }

    /// Decodes and handles frames, and answers PINGs. What follows a frame that asks for the
    /// admission of the peer waits for the answer.
    #[inline]
    fn decode(
        &mut self,
        now: Time,
        mut bytes: &[u8],
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) -> Decoded {
        loop {
            if self.conversation.awaits_admission() {
                // The frame that was handled is held no longer.
                self.decoder.discard();
                return match self.conversation.hold(now, bytes, out) {
                    Effect::Ended => Decoded::Ended,
                    Effect::None | Effect::Rearm => Decoded::All,
                };
            }
            match self.decoder.next(&mut bytes) {
                Ok(None) => break,
                Ok(Some(frame)) => self.conversation.handle_frame(now, frame, context, out),
                Err(malformed) => return Decoded::Malformed(malformed),
            }
            if self.conversation.is_over() {
                return Decoded::Ended;
            }
        }
        if self.decoder.is_within_frame() {
            self.decoder.count_from(self.conversation.liveness.silent_since());
        }
        self.conversation.answer_pings(now, context, out);
        self.conversation.take_and_acknowledge(now, context, out);
        Decoded::All
    }

    /// Handles the bytes that have waited until the handshake was complete; `None` if it is not.
    fn handle_held(
        &mut self,
        now: Time,
        held: Option<Vec<u8>>,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) -> Effect {
        let Some(held) = held else {
            return Effect::None;
        };
        match self.decode(now, &held, context, out) {
            Decoded::All => Effect::Rearm,
            Decoded::Ended => Effect::Ended,
            Decoded::Malformed(malformed) => {
                self.conversation.end_by_malformed(now, malformed, out)
            }
        }
    }
}

/// Whether bytes begin with a record of TLS (RFC 8446, 5.1), as no legal frame does.
fn is_tls(bytes: &[u8]) -> bool {
    matches!(bytes, [20..=23, 3, ..])
}

/// What became of bytes that arrived.
enum Decoded {
    /// They were handled, as far as they are whole frames, or wait for the admission of the peer.
    All,
    /// The link has ended.
    Ended,
    /// They are illegal.
    Malformed(Malformed),
}
