//! The conversation on one link: dispatches frames, deadlines and commands.

mod admission;
mod closing;
mod data;
mod half_close;
mod handshake;
mod heartbeat;
mod inquiry;
mod look;
mod patience;
mod resume;
mod retune;
mod saved;
mod socket_error;
mod stalled_frame;
mod stay;
mod verdict;
mod window;

use alloc::boxed::Box;
use core::fmt;

use admission::Admission;
pub(crate) use closing::cause_of;
pub use half_close::HALF_CLOSED;
pub use inquiry::FLOOR_PER_SECOND;
use inquiry::Inquiry;
use look::{Figure, Sent};
use resume::Behind;
pub use resume::Resumable;
pub(crate) use resume::Wish;
use retune::Granted;
use window::Window;

use super::outbound::Writer;
use super::outstanding::Outstanding;
use super::patience::InForce;
use super::peer::{Context, Effect};
use super::{BeatKind, Command, Event, Lane, PIECE, Settings};
use crate::cause::Cause;
use crate::diagnosis::Doubts;
use crate::flight::{Flight, Incident};
use crate::kernel::Blind;
use crate::liveness::{self, Evidence, Liveness};
use crate::machine::{Deadline, Reason};
use crate::name::Name;
use crate::policy::Policy;
use crate::session;
use crate::time::Time;
use crate::wire::{BootId, Codec, Frame, InstanceId, Malformed, is_close_text};

/// The state of a conversation.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) liveness: Liveness,
    pub(super) flight: Flight,
    /// What the peer sent of itself in its handshake; `None` in codecs without a handshake.
    pub(super) introduced: Option<Box<Introduced>>,
    /// The policy in force.
    pub(super) policy: Policy,
    /// What a link without it holds one pointer for.
    aside: Option<Box<Aside>>,
    /// When a request of the peer last changed the policy.
    granted: Granted,
    /// What was sent and may wait in the kernel.
    pub(super) outstanding: Outstanding,
    /// The patience that was emitted last.
    in_force: InForce,
    /// What the latest examination showed, if the connection has no timestamps.
    blind: Blind,
    /// When the heartbeat was sent that was answered last.
    answered: Sent,
    /// When the heartbeat was sent whose pong is timed, and its sequence number.
    timed: Sent,
    timed_sequence: u8,
    /// Whether the link needs the kernel's figure of the round trip.
    figure: Figure,
    stage: Stage,
    codec: Codec,
    /// The longest piece that is sent: [`PIECE`], or less if WELCOME says so.
    piece: u16,
    /// The number of PINGs that are not answered yet.
    pongs_owed: u16,
    /// The sequence number of the latest PING received.
    ping_sequence: u8,
    /// Whether the message that was sent last continues in the next command.
    within_message: bool,
    /// Whether the policy has changed since [`Conversation::take_retuned`].
    retuned: bool,
    /// The inquiry into a suspect peer.
    inquiry: Option<Box<Inquiry>>,
    /// What the latest examination for outstanding bytes showed, if some still waited.
    look: Option<Box<Doubts>>,
}

/// What not every link has.
#[derive(Default)]
struct Aside {
    /// The data attached to every heartbeat; empty for none.
    heartbeat_data: Box<[u8]>,
    /// What is kept until it is acknowledged; `None` in a session without a window.
    window: Option<Window>,
    /// The sessions that this link resumes, or has left behind.
    behind: Option<Box<Behind>>,
}

/// Without the heartbeat data, which belongs to the application alone.
impl fmt::Debug for Aside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Aside { heartbeat_data, window, behind } = self;
        f.debug_struct("Aside")
            .field("heartbeat_data", &heartbeat_data.len())
            .field("window", window)
            .field("behind", behind)
            .finish()
    }
}

/// What the peer sent of itself in its handshake.
#[derive(Debug, Default)]
pub(crate) struct Introduced {
    pub(crate) identity: Name,
    pub(crate) boot_id: BootId,
    pub(crate) instance_id: InstanceId,
    /// What waits while the peer waits for its session. Here it costs an idle link no memory.
    admission: Option<Box<Admission>>,
}

impl Introduced {
    /// Returns what is known of the peer, without what waits for its session.
    pub(crate) fn known(&self) -> Introduced {
        let Introduced { identity, boot_id, instance_id, admission: _ } = self;
        let (identity, boot_id, instance_id) = (identity.clone(), *boot_id, *instance_id);
        Introduced { identity, boot_id, instance_id, admission: None }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The peer's part of the handshake is not complete.
    Handshake,
    /// The peer waits until it is admitted or refused.
    Admission,
    Established,
    /// The peer has closed its side and may still read; its liveness holds the deadline.
    HalfClosed,
    Over,
}

impl Conversation {
    pub(super) fn open(now: Time, settings: &Settings) -> Conversation {
        Conversation {
            liveness: Liveness::new(now, settings.role, settings.handshake_timeout),
            flight: Flight::new(now),
            introduced: None,
            policy: settings.policy,
            aside: None,
            granted: Granted::long_before(now),
            outstanding: Outstanding::default(),
            in_force: InForce::new(settings.patience),
            blind: Blind::default(),
            answered: Sent::NEVER,
            timed: Sent::NEVER,
            timed_sequence: 0,
            figure: Figure::Known,
            stage: Stage::Handshake,
            codec: settings.codec,
            piece: PIECE as u16,
            pongs_owed: 0,
            ping_sequence: 0,
            within_message: false,
            retuned: false,
            inquiry: None,
            look: None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    #[inline]
    pub(super) fn is_in_handshake(&self) -> bool {
        self.stage == Stage::Handshake
    }

    pub(super) fn is_established(&self) -> bool {
        match self.stage {
            Stage::Established | Stage::HalfClosed => true,
            Stage::Handshake | Stage::Admission | Stage::Over => false,
        }
    }

    /// Returns whether the handshake is complete, the peer is not in doubt, and no inquiry is open.
    #[inline]
    pub(super) fn is_trusted(&self) -> bool {
        self.is_established() && !self.liveness.is_in_doubt() && self.inquiry.is_none()
    }

    /// Handles evidence, which ends an inquiry.
    #[inline]
    pub(super) fn hear(&mut self, now: Time, evidence: Evidence, out: &mut Writer<'_>) {
        if self.inquiry.is_some() {
            self.clear_inquiry(out);
        }
        self.feed_liveness(now, liveness::Input::Heard(evidence), out);
    }

    /// Handles a frame, which may end the conversation.
    #[inline]
    pub(super) fn handle_frame(
        &mut self,
        now: Time,
        frame: Frame<'_>,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) {
        if self.stage == Stage::Handshake {
            return self.handle_first_frame(now, frame, context, out);
        }
        // A peer that gives up its handshake says CLOSE without having seen WELCOME.
        if !matches!(frame, Frame::Close(_)) {
            self.confirm_stay();
        }
        if let Frame::Ping(beat) | Frame::Pong(beat) = &frame
            && !self.note_taken(now, beat.taken, out)
        {
            return;
        }
        match frame {
            Frame::Ping(beat) => {
                self.pongs_owed = self.pongs_owed.saturating_add(1);
                self.ping_sequence = beat.sequence;
                self.report_received(BeatKind::Ping, beat, context, out);
            }
            Frame::Pong(beat) => {
                let sequence = (self.codec == Codec::Native).then_some(beat.sequence);
                self.note_pong(now, beat.sequence);
                self.hear(now, Evidence::Pong { sequence }, out);
                if self.liveness.is_confirmed() {
                    self.outstanding.ping_answered();
                    self.forget_look_if_delivered();
                }
                self.report_received(BeatKind::Pong, beat, context, out);
            }
            Frame::Data { bytes, more, kind, rider } => {
                self.handle_data(now, (bytes, more, kind, rider), out);
            }
            Frame::Ack { taken, hurried } => self.handle_ack(now, taken, hurried, out),
            Frame::Retune(policy) => self.handle_retune(now, policy, context, out),
            Frame::Close(close) => self.handle_close(now, close, out),
            Frame::Hello(_) | Frame::Welcome(_) => {
                let _ = self.end(now, Cause::Protocol(Malformed::OutOfPlace), out);
            }
        }
    }

    /// Handles a deadline.
    pub(super) fn expire(
        &mut self,
        now: Time,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) -> Effect {
        if self.awaits_admission() {
            return self.expire_admission(now, out);
        }
        self.liveness.handle(now, liveness::Input::Deadline, &self.policy);
        while let Some(output) = self.liveness.poll_output() {
            match output {
                liveness::Output::Probe { sequence, number } => {
                    self.flight.record(now, Incident::Probe { number });
                    self.note_ping(now, sequence);
                    self.send_heartbeat(BeatKind::Ping, sequence, number, context, out);
                    self.examine_after_probe(context, out);
                    self.follow_round_trip(out);
                }
                liveness::Output::Keepalive { sequence } => {
                    self.flight.record(now, Incident::Keepalive);
                    self.note_ping(now, sequence);
                    self.send_heartbeat(BeatKind::Ping, sequence, 0, context, out);
                }
                liveness::Output::Dead(silence) => {
                    return self.handle_bound(now, silence, context, out);
                }
                liveness::Output::Suspect | liveness::Output::Overdue(_) => {
                    self.report_liveness(now, output, out);
                    self.start_inquiry(now, output, context, out);
                }
                liveness::Output::RoundTrip(_)
                | liveness::Output::Confirm { .. }
                | liveness::Output::Recovered => self.report_liveness(now, output, out),
            }
        }
        // A probe that was sent now may have stretched the bound.
        let (baseline, outstanding) = self.due_examinations(now);
        if baseline {
            self.open_inquiry(now);
            self.request_examination(context, out);
        }
        if outstanding {
            // Where sockets cannot be examined, bytes count as acknowledged: nothing would ever
            // show it.
            self.outstanding.examined(now, !context.settings.examines, false);
            if context.settings.examines && self.liveness.is_in_doubt() {
                out.examine();
            } else if context.settings.examines {
                out.examine_socket();
            }
        }
        Effect::Rearm
    }

    /// Handles a command of the application or an operator.
    pub(super) fn handle_command(
        &mut self,
        now: Time,
        command: Command<'_>,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) -> Effect {
        match command {
            Command::Send { bytes, more, kind } => self.send_message(now, bytes, more, kind, out),
            Command::HeartbeatData(data) => {
                self.set_heartbeat_data(data);
                Effect::None
            }
            Command::Retune(policy) => {
                self.command_retune(now, policy, context, out);
                Effect::Rearm
            }
            Command::Hold(span) => {
                self.flight.record(now, Incident::Held);
                self.feed_liveness(now, liveness::Input::Hold { until: now + span }, out);
                if self.known_error().is_none() {
                    self.clear_inquiry(out);
                }
                self.update_patience(out);
                Effect::Rearm
            }
            Command::Release => {
                self.flight.record(now, Incident::Released);
                self.feed_liveness(now, liveness::Input::Release, out);
                self.update_patience(out);
                Effect::Rearm
            }
            Command::Close { goodbye, text } => {
                let text = if is_close_text(text) { text } else { "" };
                self.command_close(now, goodbye, text, out)
            }
            Command::Heartbeat => self.command_heartbeat(now, context, out),
            Command::Taken { length } => self.take_message(now, length, out),
            Command::Flush => self.flush(now, out),
        }
    }

    /// Returns when the next deadline of the link is, if any.
    pub(super) fn next_deadline(&self) -> Option<Deadline> {
        if self.is_over() {
            return None;
        }
        if let Some(admission) = self.admission() {
            return Some(admission.deadline());
        }
        Deadline::earlier(self.liveness.next_deadline(&self.policy), self.examine_deadline())
    }

    /// Returns when the socket is to be examined because of outstanding bytes, however lively the
    /// peer is.
    fn examine_deadline(&self) -> Option<Deadline> {
        match self.stage {
            // A verdict has fallen that waits for its last examination.
            Stage::Established | Stage::HalfClosed if self.liveness.is_dead() => None,
            Stage::HalfClosed => self.outstanding.deadline(),
            Stage::Established => {
                Deadline::earlier(self.outstanding.deadline(), self.baseline_deadline())
            }
            // It ends sooner than the kernel gives up.
            Stage::Handshake | Stage::Admission | Stage::Over => None,
        }
    }

    /// Returns which examinations are due: the first one of a silence, and that of outstanding
    /// bytes.
    fn due_examinations(&self, now: Time) -> (bool, bool) {
        if self.examine_deadline().is_none_or(|examination| examination.at > now) {
            return (false, false);
        }
        let is_due =
            |deadline: Option<Deadline>| deadline.is_some_and(|deadline| deadline.at <= now);
        let baseline = self.stage == Stage::Established && is_due(self.baseline_deadline());
        (baseline, is_due(self.outstanding.deadline()))
    }

    /// Returns when the socket of a silent peer is examined although the peer is not suspect: an
    /// interval before the bound, if bytes of ours may wait. A long round trip delays the suspicion
    /// beyond the bound, where only a comparison shows whether the peer still takes bytes.
    fn baseline_deadline(&self) -> Option<Deadline> {
        let doubted = self.inquiry.is_some() || self.liveness.is_suspect();
        if doubted || !self.outstanding.is_any() {
            return None;
        }
        Some(Deadline::exact(self.first_examination()?, Reason::Examine))
    }

    /// Returns the time of the first examination of a silence, unless a suspicion is earlier.
    fn first_examination(&self) -> Option<Time> {
        Some(self.liveness.due(&self.policy)? - self.interval())
    }

    /// Returns whether the verdict on the present silence is due later than the bound.
    pub(super) fn is_bound_stretched(&self) -> bool {
        let bound = self.policy.bound().map(|bound| self.liveness.silent_since() + bound);
        self.liveness.due(&self.policy) > bound
    }

    /// Records a send that is not a heartbeat of the liveness machine.
    #[inline]
    fn record_sent(&mut self, now: Time, lane: Lane) {
        self.outstanding.sent(now, lane);
        self.liveness.handle(now, liveness::Input::Sent, &self.policy);
    }

    /// Hands an input to the liveness machine, and reports its outputs.
    #[inline]
    fn feed_liveness(&mut self, now: Time, input: liveness::Input, out: &mut Writer<'_>) {
        self.liveness.handle(now, input, &self.policy);
        while let Some(output) = self.liveness.poll_output() {
            if output == liveness::Output::Recovered {
                self.end_inquiry();
            }
            self.report_liveness(now, output, out);
        }
    }

    /// Records an output of the liveness machine in the flight recorder, and emits its event.
    #[inline]
    fn report_liveness(&mut self, now: Time, output: liveness::Output, out: &mut Writer<'_>) {
        let (incident, event) = match output {
            liveness::Output::RoundTrip(rtt) => {
                self.flight.record(now, Incident::Pong { rtt });
                self.note_answer(now, rtt);
                self.follow_round_trip(out);
                return out.event(Event::RoundTrip(rtt));
            }
            liveness::Output::Suspect => (Incident::Suspect, session::Event::Suspect),
            liveness::Output::Recovered => {
                self.figure = Figure::Recovered;
                (Incident::Recovered, session::Event::Recovered)
            }
            liveness::Output::Overdue(silence) => {
                (Incident::Overdue, session::Event::Overdue { due: silence.due })
            }
            liveness::Output::Probe { .. }
            | liveness::Output::Keepalive { .. }
            | liveness::Output::Confirm { .. }
            | liveness::Output::Dead(_) => return,
        };
        self.flight.record(now, incident);
        out.session(event);
    }
}
