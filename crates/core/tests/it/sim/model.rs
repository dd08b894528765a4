//! The reference model: what one end of a link may and must do, written directly from the design's
//! rules. The model sees only the inputs and outputs of that end.

use std::ops::RangeInclusive;

use systole_core::cause::Cause;
use systole_core::denial::{Denial, Denied};
use systole_core::kernel::Cap;
use systole_core::kernel::{Examination, SendState, SocketError, TcpSnapshot};
use systole_core::link::{
    self, BeatKind, Closing, Command, Event, Goodbye, HALF_CLOSED, Hung, Lane, Output, Settings,
    Side,
};
use systole_core::liveness::Role;
use systole_core::policy::Detection;
use systole_core::session;
use systole_core::wire::{CloseReason, Codec, Decoder, Frame, MAX_DATA, Malformed};
use systole_core::{Policy, Span, Time};

use super::farewells::Farewell;
use super::frames::Front;
use super::kernel::{Findings, Kernel, Sent};
use super::logins::{Answered, Granted};
use super::rates::{EXCESSES, Excess, Sending};

/// The longest time by which a probe or a keepalive of a spread policy leaves early.
const LONGEST_SLACK: Span = Span::from_millis(500);

/// Returns for how long a hung peer is kept.
fn kept_for(hung: Hung) -> Option<Span> {
    match hung {
        Hung::End => None,
        Hung::Keep(span) => Some(span),
    }
}

/// Returns whether a link ends for what the peer's certificate proves.
fn is_of_identity(cause: Cause) -> bool {
    matches!(cause, Cause::Protocol(Malformed::Claim | Malformed::Subject))
}

/// The stage of a link, derived from its outputs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    Greeting,
    Waiting,
    Established,
    Lost,
    Closed,
}

/// The reference model of one end of a link.
pub(super) struct Model {
    name: String,
    verbose: bool,
    /// The maximum lateness of a deadline: the wheel's tick, or zero.
    slack: Span,
    codec: Codec,
    probes: bool,
    connects: bool,
    pub(super) stage: Stage,
    handshake_due: Time,
    /// The time limit of the handshake, and of the admission after it.
    handshake_limit: Span,
    /// When the peer that waits must be admitted or refused.
    admission_due: Time,
    pub(super) policy: Policy,
    /// The time of the last evidence.
    pub(super) last_heard: Time,
    /// The time of the last frame sent.
    pub(super) last_sent: Time,
    /// The time of the last but one frame sent.
    sent_before: Time,
    /// The start of the silence: the last evidence, the end of a hold, or what a retune allows.
    silence_start: Time,
    /// The same without what retunes allowed: the last evidence, or the end of a hold.
    silence_origin: Time,
    /// The time of the first probe of this silence.
    first_probe: Option<Time>,
    /// The number of the last probe of this silence.
    last_probe: u8,
    /// Whether the first probe may be early.
    spread: bool,
    pub(super) suspect: bool,
    overdue: bool,
    examines: bool,
    pub(super) kernel: Kernel,
    /// The time for which a hung peer is kept.
    keep: Option<Span>,
    /// The end of that time, and of the present round of it.
    kept: Option<(Time, Time)>,
    /// Whether examinations are remembered, since a suspicion or a router's report.
    inquires: bool,
    /// What such examinations have shown.
    findings: Findings,
    /// When a retune, a hold or a release last set the deadlines: none is due before.
    set_at: Time,
    /// When the hub last asked for a read of the socket and got no answer.
    unanswered_at: Option<Time>,
    /// The number of such polls.
    pub(super) unanswered: u64,
    /// The number of times that bytes without plaintext answered a probe.
    pub(super) without_plaintext: u64,
    /// The number of examinations whose progress was evidence.
    pub(super) progress: u64,
    /// The number of times the peer was hung at the bound.
    pub(super) hangs: u64,
    /// The number of times the peer was kept.
    pub(super) keeps: u64,
    /// The number of warnings of a peer that does not read.
    pub(super) unread: u64,
    /// When a router last reported the peer unreachable, unless evidence or an acknowledgement came
    /// since.
    warned: Option<Time>,
    /// Whether `Warned` was emitted for that report.
    warning_emitted: bool,
    /// The deadline of a half-closed peer.
    half_closed: Option<Time>,
    /// The end of a hold that was not released.
    hold: Option<Time>,
    rtt_us: u64,
    /// Whether the kernel's figure of the round trip is needed.
    needs_figure: bool,
    /// Whether an examination must be requested for it with the next bytes of the peer.
    look_due: bool,
    /// Whether that is so from the next input on.
    look_again: bool,
    /// Whether a heartbeat must check a raised cap with the next bytes of the peer.
    check_wanted: bool,
    /// Whether the examination that ended the suspicion has shown the figure.
    figure_seen: bool,
    /// The time that the latest answer took: a PONG, or the evidence that ended a suspicion.
    answer_us: u64,
    /// When the latest PING was sent that is known to be answered.
    answered_ping: Option<Time>,
    /// The one PING whose PONG is timed, in the codec with sequence numbers.
    timed_ping: Option<(Time, u8)>,
    /// The number of verdicts that waited longer than the bound for a long round trip.
    pub(super) stretched: u64,
    /// Whether the peer was suspect while the latest PING was out.
    ambiguous: bool,
    sequence: u8,
    /// The number of heartbeats sent.
    pub(super) beats: u64,
    /// The number of PINGs among them.
    pub(super) pings: u64,
    /// The number of PINGs that the application wanted.
    pub(super) requested: u64,
    /// The number of heartbeats that checked a raised cap.
    pub(super) checked: u64,
    pub(super) recoveries: u64,
    pub(super) cause: Option<Cause>,
    /// Who the peer is, and what its session has, once an answer has said it.
    pub(super) granted: Option<Granted>,
    /// What the peer has sent.
    pub(super) sending: Sending,
    /// What the CLOSE said that was sent.
    pub(super) said: Option<Farewell>,
    /// The lane of the CLOSE that was sent.
    close_lane: Option<Lane>,
    pub(super) lost_at: Time,
    /// Whether a drain may end this link at any deadline.
    pub(super) draining: bool,
    /// The frame that has arrived in part.
    pub(super) front: Front,
    /// When evidence last answered a probe: a frame that was due before is judged from then on.
    doubted_until: Time,
    turn: Turn,
}

/// The state of the checks within one input.
#[derive(Default)]
struct Turn {
    received: bool,
    /// Whether bytes without plaintext came.
    heard: bool,
    may_end_silence: bool,
    recovered: bool,
    expects: Option<Cause>,
    by_deadline: bool,
    /// Whether a PING is due because the peer has just half-closed.
    half_close_ping_due: bool,
    /// Whether a PING is due because the application wants one.
    requested_ping_due: bool,
    /// Whether a PING is due because an examination has raised the cap.
    checking_ping_due: bool,
    pings_received: u32,
    last_ping: u8,
    pongs_sent: u32,
    retuned: Option<Policy>,
    /// The CLOSE that the end of this link must be said with.
    farewell: Option<Farewell>,
    /// The messages, bytes and heartbeats that have arrived, until they are counted.
    arrived: Option<[u64; 3]>,
    /// What follows from them.
    excess: Option<Excess>,
    /// The policies that were sent in a RETUNE.
    retunes_sent: Vec<Detection>,
    /// Whether a warning is due because two examinations in a row showed bytes behind a closed
    /// window.
    unread_warning: bool,
    /// Whether the peer hangs, and is kept from now on.
    hangs: bool,
    /// Whether a warning is to be withdrawn that came before any suspicion.
    withdraws: bool,
    /// Whether the link moves to another hub, which is no input.
    moves: bool,
}

impl Model {
    pub(super) fn new(name: String, now: Time, settings: &Settings, slack: Span) -> Model {
        Model {
            name,
            verbose: false,
            slack,
            codec: settings.codec,
            probes: settings.role == Role::Probe,
            connects: matches!(settings.side, Side::Connecting(_)),
            stage: Stage::Greeting,
            handshake_due: now + settings.handshake_timeout,
            handshake_limit: settings.handshake_timeout,
            admission_due: now,
            policy: settings.policy,
            last_heard: now,
            last_sent: now,
            sent_before: now,
            silence_start: now,
            silence_origin: now,
            first_probe: None,
            last_probe: 0,
            spread: false,
            suspect: false,
            overdue: false,
            examines: settings.examines,
            granted: None,
            sending: Sending::new(settings.rates),
            said: None,
            kernel: Kernel::new(settings.patience),
            unread: 0,
            keep: kept_for(settings.hung),
            kept: None,
            inquires: false,
            findings: Findings::default(),
            set_at: now,
            unanswered_at: None,
            unanswered: 0,
            without_plaintext: 0,
            progress: 0,
            hangs: 0,
            keeps: 0,
            warned: None,
            warning_emitted: false,
            half_closed: None,
            hold: None,
            rtt_us: 0,
            needs_figure: false,
            look_due: false,
            look_again: false,
            figure_seen: false,
            check_wanted: false,
            answer_us: 0,
            answered_ping: None,
            timed_ping: None,
            stretched: 0,
            ambiguous: false,
            sequence: 0,
            beats: 0,
            pings: 0,
            requested: 0,
            checked: 0,
            recoveries: 0,
            cause: None,
            close_lane: None,
            lost_at: Time::ZERO,
            draining: false,
            front: Front::new(settings.codec),
            doubted_until: now,
            turn: Turn::default(),
        }
    }

    pub(super) fn verbose(self, verbose: bool) -> Model {
        Model { verbose, ..self }
    }

    pub(super) fn is_open(&self) -> bool {
        self.stage != Stage::Closed
    }

    /// Returns whether the peer waits until it is admitted or refused.
    pub(super) fn awaits_admission(&self) -> bool {
        self.stage == Stage::Waiting
    }

    /// Returns the time from which the frame, or the sealed record, that is held in part counts,
    /// and the least and the most memory that it takes. What follows the peer's part of the
    /// handshake waits undecoded.
    pub(super) fn held_frame(&self) -> Option<(Time, RangeInclusive<usize>)> {
        self.front.held(!self.awaits_admission())
    }

    pub(super) fn is_established(&self) -> bool {
        self.stage == Stage::Established
    }

    /// Returns the expected cause for a socket error. A reset without a preceding frame of ours
    /// means that the process ended; any other reset may come from a host that does not know the
    /// connection. No socket can be examined here.
    fn cause_of(&self, now: Time, error: SocketError) -> Cause {
        match error {
            SocketError::Reset
                if self.half_closed.is_some() || self.last_sent <= self.last_heard =>
            {
                Cause::PeerExited
            }
            SocketError::Reset => Cause::PeerReset,
            SocketError::Refused
            | SocketError::HostUnreachable
            | SocketError::NetworkUnreachable => Cause::Unreachable,
            SocketError::TimedOut => self.cause_of_timeout(now),
            SocketError::Local => Cause::LocalFault,
        }
    }

    /// Observes an input before the link handles it.
    pub(super) fn input(&mut self, now: Time, input: &link::Input<'_>) {
        if self.verbose {
            println!("{:?} {} <- {}", now, self.name, brief(input));
        }
        self.turn = Turn::default();
        self.look_due |= std::mem::take(&mut self.look_again);
        match *input {
            link::Input::World(ref world) => self.world(now, world),
            link::Input::Answer(ref answer) => self.answer(now, answer),
        }
    }

    /// Observes what is said of a peer that waits and claims `claim`. Returns whether the peer may
    /// have its session.
    pub(super) fn identify(&mut self, now: Time, claim: &str, said: &Answered) -> bool {
        assert!(self.awaits_admission(), "{}: nobody waits", self.name);
        self.turn = Turn::default();
        match Granted::new(now, claim, said) {
            Ok(granted) => self.granted = Some(granted),
            Err(true) => self.turn.expects = Some(Cause::Protocol(Malformed::Claim)),
            Err(false) => self.turn.expects = Some(Cause::Protocol(Malformed::Subject)),
        }
        self.turn.expects.is_none()
    }

    fn answer(&mut self, now: Time, answer: &link::Answer) {
        match answer {
            link::Answer::Examined(_) => panic!("an examination that was not requested"),
            link::Answer::Deadline => self.turn.by_deadline = true,
            link::Answer::Admitted { .. } => {
                assert!(self.awaits_admission(), "{}: admitted twice", self.name);
                // What has waited is handled now; the peer is not silent for having waited.
                self.set_at = now;
                self.turn.received = true;
                self.turn.arrived = Some([0; 3]);
                self.excuse(now);
                self.front.restart(self.silence_start);
            }
            link::Answer::Refused(Denied { goodbye, why }) => {
                assert!(self.awaits_admission(), "{}: refused twice", self.name);
                self.turn.expects = Some(why.map_or(cause_of(goodbye.reason), Cause::Refused));
                self.turn.farewell = Some(Farewell::commanded(*goodbye, ""));
            }
        }
    }

    fn world(&mut self, now: Time, world: &link::World<'_>) {
        match *world {
            link::World::Received(bytes) => {
                self.turn.received = true;
                self.hear(now);
                self.check_if_wanted();
                let requests = self.front.receive(bytes, self.silence_start);
                self.turn.arrived = Some([0, bytes.len() as u64, requests]);
            }
            link::World::Heard => {
                self.turn.heard = true;
                self.without_plaintext += u64::from(self.first_probe.is_some());
                self.hear(now);
                self.check_if_wanted();
            }
            link::World::Held { memory, length } => {
                self.front.hold(memory as usize, length as usize, self.silence_start);
            }
            link::World::Illegal(why) => self.turn.expects = Some(Cause::Protocol(why)),
            link::World::Ended => self.half_close(now),
            link::World::Failed(error) => self.turn.expects = Some(self.cause_of(now, error)),
            link::World::Warned(error) => {
                self.note_error(now, error);
                self.inquires = true;
            }
            link::World::Overflowed => self.turn.expects = Some(Cause::SlowConsumer),
            link::World::Command(Command::Hold(span)) if self.is_established() => {
                self.set_at = now;
                self.hold = self.hold.max(Some(now + span));
                self.excuse(now + span);
                if self.half_closed.is_none() {
                    self.front.restart(self.silence_start);
                    self.end_silence();
                    if self.warned.is_none() {
                        self.withdraw_warning();
                        self.end_inquiry();
                    }
                }
            }
            link::World::Command(Command::Release) => {
                self.set_at = now;
                self.hold = None;
                self.silence_start = self.silence_start.min(now).max(self.last_heard);
                self.silence_origin = self.silence_origin.min(now).max(self.last_heard);
                self.front.restart(now);
            }
            link::World::Command(Command::Retune(policy)) => self.turn.retuned = Some(policy),
            link::World::Command(Command::Close { goodbye, text }) => {
                self.turn.expects = Some(cause_of(goodbye.reason));
                // The time to come back after a drain is drawn.
                let is_given = goodbye.reason != CloseReason::Drained;
                self.turn.farewell = is_given.then(|| Farewell::commanded(goodbye, text));
            }
            link::World::Command(Command::Heartbeat) => {
                self.turn.requested_ping_due = self.is_established() && self.half_closed.is_none();
            }
            link::World::Command(
                Command::Send { .. }
                | Command::HeartbeatData(_)
                | Command::Hold(_)
                | Command::Taken { .. }
                | Command::Flush,
            ) => {}
        }
    }

    /// Observes the end of the peer's stream. The peer may still read, unless it is not established
    /// or uses the line codec.
    fn half_close(&mut self, now: Time) {
        self.front.clear();
        if self.half_closed.is_some() {
            return;
        }
        if !self.is_established() || self.codec == Codec::Line {
            self.turn.expects = Some(Cause::PeerExited);
        } else {
            self.half_closed = Some(now + HALF_CLOSED);
            self.turn.half_close_ping_due = true;
            self.end_silence();
            self.withdraw_warning();
            self.end_inquiry();
        }
    }

    /// Forgets what routers reported; a warning without a suspicion is withdrawn by an event.
    fn withdraw_warning(&mut self) {
        self.turn.withdraws |= self.warning_emitted && !self.suspect;
        (self.warned, self.warning_emitted) = (None, false);
    }

    /// Observes an error of the connection, which stands.
    fn note_error(&mut self, now: Time, error: SocketError) {
        if matches!(
            error,
            SocketError::Refused | SocketError::HostUnreachable | SocketError::NetworkUnreachable
        ) {
            self.warned = Some(now);
        }
    }

    /// Lets the silence count from `at` at the earliest.
    fn excuse(&mut self, at: Time) {
        self.silence_start = self.silence_start.max(at);
        self.silence_origin = self.silence_origin.max(at);
    }

    /// Observes bytes of the peer.
    fn hear(&mut self, now: Time) {
        if let Some(since) = self.probing_since().filter(|_| self.suspect) {
            self.answer_us = now.since(since).as_micros().clamp(1, u64::from(u32::MAX));
        }
        self.hear_of(now);
    }

    /// Observes evidence of the peer, which may be progress alone.
    fn hear_of(&mut self, now: Time) {
        self.withdraw_warning();
        self.end_inquiry();
        self.last_heard = self.last_heard.max(now);
        self.excuse(now);
        if self.kept.is_some() {
            // A frame is not judged by the time for which its peer was kept.
            self.front.restart(now);
        }
        if self.first_probe.is_some() || self.suspect {
            self.doubted_until = now;
        }
        // The time of a half-closed peer is over whatever its kernel takes.
        let overdue = self.overdue && self.half_closed.is_some();
        self.end_silence();
        self.overdue = overdue;
    }

    /// Forgets what the examinations have shown.
    fn end_inquiry(&mut self) {
        (self.inquires, self.findings) = (false, Findings::default());
    }

    /// Observes that the shell leaves a poll of the hub without an answer.
    pub(super) fn leave_unanswered(&mut self, now: Time) {
        self.unanswered_at = Some(now);
        self.unanswered += 1;
    }

    /// Returns whether the hub need not have repeated an unanswered poll yet: it does so with the
    /// first tick that is a whole tick later.
    pub(super) fn is_unanswered(&self, now: Time) -> bool {
        self.unanswered_at.is_some_and(|at| now < at + self.slack + self.slack)
    }

    /// Observes a deadline of the whole hub, which may include one of this end.
    pub(super) fn input_deadline(&mut self) {
        self.turn = Turn { by_deadline: true, ..Turn::default() };
    }

    /// Observes that the link moves from one hub to another. That is no input of the link.
    pub(super) fn moves(&mut self) {
        self.turn = Turn { moves: true, ..Turn::default() };
    }

    /// Checks that the socket may be read because a deadline has come.
    pub(super) fn polled(&self) {
        assert_ne!(self.stage, Stage::Lost, "{}: polled after the verdict", self.name);
    }

    /// Checks an output of the current input.
    pub(super) fn output(&mut self, now: Time, output: &Output<'_>) {
        if self.verbose {
            println!("{:?} {} -> {}", now, self.name, brief_output(output));
        }
        assert_ne!(self.stage, Stage::Closed, "{}: an output after Close", self.name);
        match *output {
            Output::Transmit { bytes, lane } => self.transmit(now, bytes, lane),
            Output::Session(ref event) => self.session(now, event),
            Output::Event(ref event) => self.event(now, event),
            Output::Examine { .. } => {
                assert!(self.examines, "{}: examination is off", self.name);
                let early = self.kernel.needs_no_examination(now);
                let probing = self.first_probe.is_some()
                    || self.suspect
                    || self.half_close_end().or(self.due()).is_some_and(|due| now >= due)
                    || self.is_near_the_bound(now);
                let wanted = std::mem::take(&mut self.look_due) || self.needs_figure;
                let idle = !probing && self.turn.expects.is_none() && !wanted;
                assert!(!(early && idle), "{}: an examination without need", self.name);
                if !self.examines {
                    self.kernel.examined(now, &Examination::default(), true, None);
                }
            }
            // A link that has moved asks its new hub, and has no more time.
            Output::Admit if self.turn.moves && self.stage == Stage::Waiting => {}
            Output::Admit => {
                let name = &self.name;
                assert!(self.turn.received && !self.connects, "{name}: nobody asked");
                assert_eq!(self.stage, Stage::Greeting, "{name}: admitted once");
                self.stage = Stage::Waiting;
                self.admission_due = now + self.handshake_limit;
            }
            Output::Patience(patience) => self.kernel.follow(&self.name, patience),
            Output::Close(closing) => {
                let leaves = self.kernel.patience.send() == SendState::Leaving;
                assert_eq!(leaves, closing == Closing::Flush, "{}: how it leaves", self.name);
                assert_eq!(self.stage, Stage::Lost, "{}: closed without a verdict", self.name);
                self.check_close(closing);
                self.stage = Stage::Closed;
            }
        }
    }

    /// Counts what has arrived with the current input, after all of its events.
    fn count_arrived(&mut self, now: Time) {
        if let Some(counts) = self.turn.arrived.take() {
            self.turn.excess = Some(self.sending.add(now, counts));
        }
    }

    /// Checks what follows from what the peer has sent, on a link that stands.
    fn check_excess(&mut self, now: Time) {
        self.count_arrived(now);
        let name = &self.name;
        match self.turn.excess.take() {
            None | Some(Excess::None) => {}
            Some(Excess::Tell) => {
                let owed = self.codec == Codec::Native;
                let detection = self.policy.detection();
                let is_told = self.turn.retunes_sent.contains(&detection);
                assert_eq!(is_told, owed, "{name}: it is told its policy");
            }
            Some(Excess::End(over)) => panic!("{name}: it floods, and stays: {over:?}"),
        }
    }

    /// Checks the end of a peer that has sent too much.
    fn check_flood(&mut self, now: Time) {
        self.count_arrived(now);
        let name = &self.name;
        let Some(Excess::End(over)) = self.turn.excess else {
            panic!("{name}: no flood: {:?}", self.turn.excess);
        };
        if let Some(said) = &self.said {
            let over = EXCESSES.iter().zip(over).find(|(text, over)| *over && *text == &said.text);
            let text = over.unwrap_or_else(|| panic!("{name}: {said:?}")).0;
            let return_after = Span::from_secs(60);
            let goodbye = Goodbye { return_after, ..CloseReason::Flooding.into() };
            self.turn.farewell = Some(Farewell::commanded(goodbye, text));
        }
    }

    /// Checks the state after all outputs of the current input.
    pub(super) fn check_settled(&mut self, now: Time) {
        if self.stage != Stage::Lost && self.is_open() {
            self.check_excess(now);
        }
        let Turn {
            received,
            heard,
            may_end_silence,
            recovered,
            pings_received,
            last_ping: _,
            pongs_sent,
            ..
        } = self.turn;
        let name = &self.name;
        assert!(!self.turn.half_close_ping_due, "{name}: no PING after the half-close");
        assert!(!self.turn.requested_ping_due, "{name}: no PING on request");
        assert!(!recovered || may_end_silence, "{name}: recovered without evidence");
        if !self.is_established() {
            return;
        }
        assert!(!self.turn.checking_ping_due, "{name}: no PING although the cap is raised");
        assert!(!self.turn.withdraws, "{name}: a warning was not withdrawn");
        assert!(!self.turn.hangs, "{name}: a hung peer was not reported");
        assert!(!self.turn.unread_warning, "{name}: no warning of a peer that does not read");
        assert!(!(received || heard) || !self.look_due, "{name}: the figures were not looked at");
        if self.half_closed.is_none() {
            let due = self.latest_due().filter(|_| self.policy.enforce());
            let extended = self.silence_start > self.last_heard || self.kept.is_some();
            self.kernel.check(name, self.last_heard, due, extended);
        } else {
            assert!(!self.suspect, "{name}: suspect although half-closed");
            let due = self.due().filter(|_| self.policy.enforce());
            self.kernel.check(name, self.last_heard, due, true);
        }
        let probing = self.first_probe.is_some() || self.suspect;
        assert!(
            self.warning_emitted || !(self.warned.is_some() && probing),
            "{name}: a router's report was not emitted"
        );
        assert!(!(received || heard) || !self.suspect, "{name}: suspect with fresh evidence");
        let owed = if self.codec == Codec::Native { pings_received.min(1) } else { pings_received };
        assert_eq!(pongs_sent, owed, "{name}: each PING is answered at once");
    }

    /// Checks that everything due by `now` has happened.
    pub(super) fn check(&self, now: Time) {
        if self.is_unanswered(now) || now < self.set_at {
            return;
        }
        let name = &self.name;
        let passed = |due: Time| now >= due + self.slack;
        match self.stage {
            Stage::Greeting => {
                assert!(!passed(self.handshake_due), "{name}: {now:?} past the handshake");
            }
            Stage::Waiting => {
                assert!(!passed(self.admission_due), "{name}: {now:?} past the admission");
            }
            Stage::Established if self.half_closed.is_some() && !self.policy.enforce() => {
                let missing = self.half_close_end().is_some_and(passed) && !self.overdue;
                assert!(!missing, "{name}: {now:?} half-closed and not reported as overdue");
            }
            Stage::Established if self.half_closed.is_some() => {
                assert!(!self.half_close_end().is_some_and(passed), "{name}: {now:?} half-closed");
            }
            Stage::Established => {
                let end = self.session_end();
                assert!(!end.is_some_and(passed), "{name}: {now:?} past the end {end:?}");
                self.check_silence(now);
                let stalled = self.frame_due().map(|due| due.max(self.doubted_until));
                let stalled = stalled.is_some_and(passed);
                assert!(!stalled, "{name}: {now:?} a frame was due at {:?}", self.frame_due());
                let quiet = self.first_probe.is_none() && !self.suspect;
                if let Some(due) = self.kernel.examination_due().filter(|_| self.examines) {
                    assert!(!passed(due), "{name}: {now:?} no examination since {due:?}");
                }
                if let Some(end) = self.kernel.gives_up(self.last_heard) {
                    assert!(!passed(end), "{name}: {now:?} the kernel was first, at {end:?}");
                }
                if let Some(keepalive) = self.policy.keepalive().filter(|_| quiet) {
                    let due = self.last_heard.max(self.last_sent) + keepalive;
                    assert!(!passed(due), "{name}: {now:?} no keepalive since {due:?}");
                }
            }
            Stage::Lost => panic!("{name}: lost and not closed"),
            Stage::Closed => {}
        }
    }

    /// Returns whether an examination that is requested now is for outstanding bytes alone, and is
    /// not remembered.
    pub(super) fn is_trusted(&self, now: Time) -> bool {
        let ends = self.turn.expects.is_some() || self.due().is_some_and(|due| now >= due);
        self.is_established()
            && self.first_probe.is_none()
            && !self.suspect
            && !self.inquires
            && !self.is_near_the_bound(now)
            && !ends
    }

    /// Returns whether the end of the link is not certain yet.
    pub(super) fn expects_nothing(&self) -> bool {
        self.turn.expects.is_none()
    }

    /// Keeps a peer that does not read at the bound; the probing end examines it once a bound.
    fn keep(&mut self, now: Time) {
        let Some((span, bound)) = self.keep.zip(self.policy.bound()) else { return };
        let end = self.kept.map_or(now + span, |(end, _)| end);
        if now < end {
            self.turn.hangs = self.kept.is_none();
            let until = if self.probes { end.min(now + bound) } else { end };
            self.kept = Some((end, until));
        }
    }

    /// Records the result of an examination.
    pub(super) fn examined(&mut self, now: Time, shown: &Examination) {
        if self.verbose {
            println!("{:?} {} <- {shown:?}", now, self.name);
        }
        let judged = self.due().is_some_and(|due| now >= due) && self.policy.enforce();
        let near = self.is_near_the_bound(now);
        let probing = self.first_probe.is_some() || self.suspect || judged || near;
        let trusted = self.half_closed.is_none() && !probing;
        let longest = shown.tcp.and_then(|tcp| self.longest_ack_us(now, &tcp));
        let cap_before = self.kernel.cap();
        self.turn.unread_warning = self.kernel.examined(now, shown, trusted, longest);
        self.inquires |= self.half_closed.is_none() && (judged || near);
        if let Some(error) = shown.error {
            self.note_error(now, error);
            self.inquires = true;
        }
        let Some(tcp) = shown.tcp.filter(|_| self.turn.expects.is_none()) else { return };
        if self.inquires {
            if Findings::has_delivered(&tcp) {
                self.warned = None;
            }
            self.inquire(now, tcp, judged);
        }
        self.note_round_trip(now, &tcp);
        self.turn.checking_ping_due = self.kernel.cap() > cap_before && self.may_check_cap();
    }

    /// Expects a heartbeat that checks a raised cap, with the first bytes after a suspicion.
    fn check_if_wanted(&mut self) {
        if (self.turn.received || self.turn.heard) && std::mem::take(&mut self.check_wanted) {
            let raised = self.kernel.cap() > Cap::LEAST;
            self.turn.checking_ping_due = raised && self.may_check_cap();
        }
    }

    /// Returns whether a heartbeat may check the cap: from an end that sends probes, while none is
    /// out.
    fn may_check_cap(&self) -> bool {
        let in_doubt = self.first_probe.is_some() || self.kept.is_some() || self.overdue;
        let stands = self.is_established() && self.half_closed.is_none();
        self.probes && stands && !in_doubt && self.turn.expects.is_none()
    }

    /// Times the one PING if this PONG or an earlier one answers it.
    fn time_pong(&mut self, now: Time, sequence: u8) {
        let Some((sent, timed)) = self.timed_ping else { return };
        if self.sequence.wrapping_sub(sequence) <= self.sequence.wrapping_sub(timed) {
            self.timed_ping = None;
            self.answered_ping = self.answered_ping.max(Some(sent));
            let round_trip = Span::from_millis(now.as_millis() - sent.as_millis());
            if self.examines && self.kernel.is_remarkable(round_trip) {
                (self.needs_figure, self.look_due) = (true, true);
            }
        }
    }

    /// Returns the longest time that an acknowledgement can have taken since the latest PONG: what
    /// was acknowledged since had left after the PING, and came before the last acknowledgement.
    fn longest_ack_us(&self, now: Time, tcp: &TcpSnapshot) -> Option<u64> {
        // The core counts in milliseconds.
        let age = now.as_millis() - self.answered_ping?.as_millis();
        Some(Span::from_millis(age).less(tcp.last_ack).as_micros().max(1_000))
    }

    /// Takes the kernel's figure of the round trip after a suspicion, where this end sends no
    /// probes, and when it was asked for. During a silence it only lengthens the round trip.
    fn note_round_trip(&mut self, now: Time, tcp: &TcpSnapshot) {
        let asked = std::mem::take(&mut self.needs_figure) || self.figure_seen;
        (self.look_due, self.look_again) = (false, false);
        // The examination came before the bytes that would have asked for it.
        self.check_wanted = false;
        let replaces = asked || !self.probes || self.suspect || self.kept.is_some();
        if asked && Kernel::is_blind(tcp) {
            // The kernel measures nothing yet: it is looked at again with the next bytes.
            (self.needs_figure, self.look_again) = (true, true);
        }
        let figure = if Kernel::is_blind(tcp) {
            self.answer_us.max(self.rtt_us)
        } else if tcp.rtt > Span::ZERO {
            let expected = tcp.rtt.as_micros() + 4 * tcp.rttvar.as_micros();
            // Rule 7: the kernel's figure takes the place of what an answer has measured.
            self.answer_us = 0;
            expected
        } else {
            return;
        };
        if figure == 0 {
            return;
        }
        if !replaces && (self.rtt_us == 0 || figure <= self.rtt_us) {
            return;
        }
        let silent = match self.policy.detection() {
            Detection::Bounded { idle, .. } => {
                self.probing_since().is_some()
                    || !self.probes && !self.overdue && now >= self.silence_start + idle
            }
            Detection::Never => false,
        };
        let silent = silent && self.kept.is_none() && self.half_closed.is_none();
        let least = if silent { self.rtt_us } else { 0 };
        self.rtt_us = figure.clamp(1, u64::from(u32::MAX)).max(least);
    }

    /// Judges an examination of a peer in doubt.
    fn inquire(&mut self, now: Time, tcp: TcpSnapshot, judged: bool) {
        if self.findings.see(now, tcp) {
            self.progress += 1;
            self.figure_seen = self.suspect;
            return self.hear_of(now);
        }
        let cause = self.cause_of_silence(now);
        if judged && self.half_closed.is_none() {
            self.hangs += u64::from(cause == Cause::AppHung && self.kept.is_none());
            if matches!(cause, Cause::AppHung | Cause::NotReading) {
                self.keep(now);
            }
        }
    }

    /// Returns the cause of a silence that is judged now, as far as it was examined.
    fn cause_of_silence(&self, now: Time) -> Cause {
        let (interval, probed, beyond_bound) = self.case(now);
        self.findings.cause(interval, probed, beyond_bound, self.warned.is_some())
    }

    /// Returns why the kernel may have given up the peer.
    fn cause_of_timeout(&self, now: Time) -> Cause {
        let cause = self.cause_of_silence(now);
        if cause != Cause::Unknown {
            return cause;
        }
        let (interval, probed, beyond_bound) = self.case(now);
        self.kernel.cause_of_timeout(self.last_heard, interval, probed, beyond_bound)
    }

    /// Returns the interval, whether a probe of this silence was sent, and whether the bound has
    /// passed.
    fn case(&self, now: Time) -> (Span, bool, bool) {
        let Detection::Bounded { interval, .. } = self.policy.detection() else {
            return (Span::ZERO, false, false);
        };
        let due = self.bound_passes(&self.policy).expect("bounded");
        (interval, self.last_probe > 0, now >= due)
    }

    /// Returns when a half-closed peer ends: not during a hold.
    fn half_close_end(&self) -> Option<Time> {
        self.half_closed.map(|until| self.hold.map_or(until, |hold| hold.max(until)))
    }

    /// Returns whether a silent peer may be examined because its bound is an interval away.
    fn is_near_the_bound(&self, now: Time) -> bool {
        let Detection::Bounded { interval, .. } = self.policy.detection() else { return false };
        self.half_closed.is_none() && self.due().is_some_and(|due| now >= due - interval)
    }

    /// Returns when the verdict falls unless there is evidence before.
    pub(super) fn due(&self) -> Option<Time> {
        self.kept.map(|(_, until)| until).or(self.bound_passes(&self.policy))
    }

    /// Returns when the bound of `policy` passes: D after the silence began, or a round trip after
    /// its first probe if that is later, at most 2 D after it began (rule 13).
    fn bound_passes(&self, policy: &Policy) -> Option<Time> {
        let bound = policy.bound()?;
        let Detection::Bounded { idle, .. } = policy.detection() else { return None };
        let due = self.silence_start + bound;
        // An end without probes counts from when the peer probes.
        let probed = self.probing_since().or((!self.probes).then_some(self.silence_start + idle));
        let Some(probed) = probed else { return Some(due) };
        let answered = probed + Span::from_micros(self.rtt_us);
        Some(answered.min(self.silence_start + bound.times(2)).max(due))
    }

    /// Returns when the first probe of a silence left that is not judged yet.
    fn probing_since(&self) -> Option<Time> {
        self.first_probe.filter(|_| self.kept.is_none() && !self.overdue)
    }

    /// Returns the latest time at which the verdict falls in this silence, whenever its first probe
    /// leaves.
    fn latest_due(&self) -> Option<Time> {
        let Detection::Bounded { idle, .. } = self.policy.detection() else { return None };
        let bound = self.policy.bound()?;
        let longest = (idle + Span::from_micros(self.rtt_us)).min(bound.times(2)).max(bound);
        Some((self.silence_start + longest).max(self.due()?))
    }

    /// Returns when an incomplete frame ends the link: after the bound, or after its length at the
    /// floor rate. While a probe is unanswered, the silence is judged instead.
    fn frame_due(&self) -> Option<Time> {
        let judged = self.is_established() && self.half_closed.is_none() && self.policy.enforce();
        if !judged || self.first_probe.is_some() || self.suspect {
            return None;
        }
        self.front.due(self.policy.bound()?)
    }

    fn check_silence(&self, now: Time) {
        let name = &self.name;
        let Detection::Bounded { idle, interval, probes } = self.policy.detection() else {
            return;
        };
        let passed = |due: Time| now >= due + self.slack;
        if let Some(due) = self.due().filter(|due| passed(*due)) {
            assert!(self.overdue, "{name}: {now:?} alive although due at {due:?}");
        }
        if self.overdue || self.kept.is_some() {
            return;
        }
        let must = self.scheduled(now - self.slack, idle, interval).min(u64::from(probes));
        if self.probes {
            assert!(u64::from(self.last_probe) >= must, "{name}: {now:?} probe {must} is missing");
        }
        let since = self.first_probe.or((!self.probes).then_some(self.silence_start + idle));
        if let Some(since) = since.filter(|since| passed(*since + self.suspicion_delay(interval))) {
            assert!(self.suspect, "{name}: {now:?} no suspicion, probed at {since:?}");
        }
    }

    /// Returns the number of probes of this silence that were due by `now`.
    fn scheduled(&self, now: Time, idle: Span, interval: Span) -> u64 {
        let mut count = 0;
        let mut next = self.silence_start + idle;
        while next <= now && count < 200 {
            count += 1;
            next = next + interval;
        }
        count
    }

    /// Returns how long a probe may be unanswered before suspicion: four round trips, and at least
    /// a second, or an interval if that is shorter.
    fn suspicion_delay(&self, interval: Span) -> Span {
        Span::from_micros(self.rtt_us * 4).max(Span::from_secs(1).min(interval))
    }

    /// Ends the silence, on evidence or on an operator's command.
    fn end_silence(&mut self) {
        self.turn.may_end_silence = true;
        self.spread &= self.first_probe.is_none() && !self.suspect;
        self.overdue = false;
        self.kept = None;
        self.first_probe = None;
        self.last_probe = 0;
    }

    fn transmit(&mut self, now: Time, bytes: &[u8], lane: Lane) {
        let name = &self.name;
        assert_ne!(self.stage, Stage::Lost, "{name}: a frame after the verdict");
        (self.sent_before, self.last_sent) = (self.last_sent, self.last_sent.max(now));
        let mut decoder = Decoder::new(self.codec, MAX_DATA as u32);
        let mut rest = bytes;
        let frame = decoder.next(&mut rest).expect("legal").expect("whole");
        assert!(rest.is_empty(), "{name}: one frame per output");
        assert_eq!(self.close_lane, None, "{name}: a frame after CLOSE");
        let is_close = matches!(frame, Frame::Close(_));
        if let Frame::Close(close) = &frame {
            self.close_lane = Some(lane);
            self.said = Some(Farewell::of(close));
        }
        if let Frame::Retune(policy) = &frame {
            self.turn.retunes_sent.push(policy.detection());
        }
        let is_data = matches!(frame, Frame::Data { .. });
        assert!(is_close || is_data == (lane == Lane::Data), "{name}: the wrong lane");
        match frame {
            Frame::Ping(_) => self.kernel.sent(now, Sent::Ping),
            Frame::Data { .. } => self.kernel.sent(now, Sent::Data),
            Frame::Pong(_) | Frame::Welcome(_) | Frame::Retune(_) | Frame::Ack { .. } => {
                self.kernel.sent(now, Sent::Control);
            }
            Frame::Hello(_) | Frame::Close(_) => {}
        }
        match frame {
            Frame::Ping(_) => {
                self.pings += 1;
                self.beats += 1;
            }
            Frame::Pong(_) => self.beats += 1,
            Frame::Hello(_) | Frame::Welcome(_) | Frame::Data { .. } => {}
            Frame::Ack { .. } | Frame::Retune(_) | Frame::Close(_) => {}
        }
    }

    /// Checks the end: CLOSE goes after everything that was queued, except to a silent, slow or
    /// illegal peer, for which the queued data is dropped. Of illegal ones, only a peer that is not
    /// whom it claims to be gets one. A peer that said CLOSE gets none, and no
    /// peer whose stream has failed.
    fn check_close(&self, closing: Closing) {
        let name = &self.name;
        let cause = self.cause.expect("a verdict");
        let orderly = match cause {
            Cause::Refused(Denial::Crowded) => {
                assert_eq!(closing, Closing::Abort, "{name}: {cause}");
                let owed = (self.codec == Codec::Native).then_some(Lane::Control);
                assert_eq!(self.close_lane, owed, "{name}: {cause}");
                return;
            }
            Cause::Kicked
            | Cause::Replaced
            | Cause::Unauthorized
            | Cause::Refused(_)
            | Cause::Flooding
            | Cause::Drained
            | Cause::Finished => Some(Lane::Last),
            Cause::PeerExited if self.half_closed.is_some() && self.turn.by_deadline => {
                Some(Lane::Last)
            }
            Cause::PeerClosed(_) | Cause::PeerExited => None,
            Cause::PeerReset
            | Cause::PeerRebooted
            | Cause::MiddleboxForgot
            | Cause::MiddleboxReset
            | Cause::AppHung
            | Cause::NotReading
            | Cause::SlowConsumer
            | Cause::PathLost { .. }
            | Cause::Unreachable
            | Cause::LocalNetworkDown
            | Cause::LocalNeighbourGone
            | Cause::HandshakeTimeout
            | Cause::Protocol(_)
            | Cause::LocalFault
            | Cause::GatewayLost
            | Cause::Unknown => {
                assert_eq!(closing, Closing::Abort, "{name}: {cause}");
                assert_ne!(self.close_lane, Some(Lane::Last), "{name}: {cause}");
                // Other illegal bytes are closed without an answer, also at their deadline.
                let silent = self.turn.by_deadline && !matches!(cause, Cause::Protocol(_));
                let owed = silent || cause == Cause::SlowConsumer || is_of_identity(cause);
                let early = (owed && self.codec == Codec::Native).then_some(Lane::Control);
                assert_eq!(self.close_lane, early, "{name}: {cause}");
                return;
            }
        };
        assert_eq!(closing, Closing::Flush, "{name}: {cause}");
        let owed = orderly.filter(|_| self.codec == Codec::Native);
        assert_eq!(self.close_lane, owed, "{name}: {cause}");
    }

    fn session(&mut self, now: Time, event: &session::Event) {
        let name = self.name.clone();
        assert!(!matches!(self.stage, Stage::Lost), "{name}: an event after the verdict");
        match *event {
            session::Event::Away { .. } | session::Event::Resumed { .. } => {
                panic!("{name}: nobody has a window")
            }
            session::Event::Joined { policy, .. } => {
                let before = if self.connects { Stage::Greeting } else { Stage::Waiting };
                assert_eq!(self.stage, before, "{name}: established twice");
                self.stage = Stage::Established;
                if let Some(end) = self.granted.as_mut().and_then(|it| it.ends_at.as_mut()) {
                    // The session does not end before it began.
                    *end = now.max(*end);
                }
                self.policy = policy;
                self.excuse(now);
                self.spread = policy.spread();
                // Rule 7: an end that sends probes measures its round trip by them.
                self.needs_figure = self.examines && !self.probes;
                self.look_due = self.examines;
            }
            session::Event::Suspect => self.check_suspicion(now),
            session::Event::Warned { cause: Cause::NotReading, .. } => {
                assert!(std::mem::take(&mut self.turn.unread_warning), "{name}: the peer reads");
                self.unread += 1;
            }
            session::Event::Warned { cause, .. } => {
                assert_eq!(cause, Cause::Unreachable, "{name}: the cause of a warning");
                assert!(
                    self.warned.is_some() && !self.warning_emitted,
                    "{name}: warned without a report, or twice"
                );
                assert!(
                    self.first_probe.is_some() || self.suspect,
                    "{name}: warned before the first probe"
                );
                self.warning_emitted = true;
            }
            session::Event::Hung { cause, until } => self.hung(now, cause, until),
            session::Event::Recovered => {
                let withdraws = std::mem::take(&mut self.turn.withdraws);
                assert!(self.suspect || withdraws, "{name}: recovered without suspicion");
                // A warning alone says nothing about the round trip.
                if self.suspect {
                    self.check_wanted = !self.figure_seen && self.examines;
                    self.need_figure_unless_seen();
                    self.check_if_wanted();
                }
                (self.suspect, self.warned, self.warning_emitted) = (false, None, false);
                self.end_inquiry();
                self.turn.recovered = true;
                self.recoveries += 1;
            }
            session::Event::Overdue { due } => self.check_overdue(now, due),
            session::Event::Retuned(policy) => self.retuned(now, policy),
            session::Event::Left(verdict) => {
                self.lost(now, verdict);
                self.check_said(verdict.cause);
                self.stage = Stage::Lost;
                (self.cause, self.lost_at) = (Some(verdict.cause), now);
                self.suspect = false;
            }
            session::Event::Moved { .. } => panic!("{name}: a link has one address"),
        }
    }

    fn event(&mut self, now: Time, event: &Event<'_>) {
        let name = self.name.clone();
        assert!(!matches!(self.stage, Stage::Lost), "{name}: an event after the verdict");
        match *event {
            Event::Established { .. } => {
                assert_ne!(self.stage, Stage::Established, "{name}: established twice");
            }
            Event::Acknowledged | Event::NotResumed(_) => panic!("{name}: nobody has a window"),
            Event::Farewell { .. } => {
                assert!(self.turn.received, "{name}: a CLOSE without an input")
            }
            Event::RoundTrip(span) => {
                assert!(self.turn.received, "{name}: a round trip without an answer");
                self.kernel.answered();
                // The stored round trip saturates beyond an hour.
                let sample = span.as_micros().clamp(1, u64::from(u32::MAX));
                // The pong of a probe that raised a suspicion may answer a retransmission.
                if !self.ambiguous {
                    self.rtt_us = sample.max(self.rtt_us - self.rtt_us / 8);
                }
                self.answer_us = sample;
                self.answered_ping = Some(now - span);
                if self.examines && self.kernel.is_remarkable(span) {
                    (self.needs_figure, self.look_due) = (true, true);
                }
            }
            Event::HeartbeatSent { beat: BeatKind::Ping, sequence, number } => {
                self.ping_sent(now, sequence, number);
            }
            Event::HeartbeatSent { beat: BeatKind::Pong, sequence, .. } => {
                self.turn.pongs_sent += 1;
                assert_eq!(sequence, self.turn.last_ping, "{name}: a PONG repeats its PING");
            }
            Event::HeartbeatReceived { beat: BeatKind::Pong, sequence } => {
                self.count(2);
                assert!(self.turn.received, "{name}: received without an input");
                self.time_pong(now, sequence);
            }
            Event::HeartbeatReceived { beat: BeatKind::Ping, sequence } => {
                self.count(2);
                self.turn.pings_received += 1;
                self.turn.last_ping = sequence;
            }
            Event::Data { more, bytes, .. } => {
                assert!(self.turn.received, "{name}: received without an input");
                // A short piece counts as a message.
                if !more || bytes.len() < 1_024 {
                    self.count(0);
                }
            }
            Event::HeartbeatData(_) => {
                assert!(self.turn.received, "{name}: received without an input")
            }
        }
    }

    /// Counts a message (0) or a heartbeat (2) that has arrived.
    fn count(&mut self, kind: usize) {
        let arrived = self.turn.arrived.as_mut();
        arrived.unwrap_or_else(|| panic!("{}: received without an input", self.name))[kind] += 1;
    }

    /// Returns when the session ends because what it was granted does.
    fn session_end(&self) -> Option<Time> {
        self.granted.as_ref()?.ends_at
    }

    /// Returns whether the session ended because what it was granted did.
    pub(super) fn is_expired(&self) -> bool {
        let end = self.session_end();
        self.cause == Some(Cause::Unauthorized) && end.is_some_and(|end| self.lost_at >= end)
    }

    /// Checks the content of the CLOSE, if one was sent, against why the link ends.
    fn check_said(&self, cause: Cause) {
        let name = &self.name;
        match (&self.said, &self.turn.farewell) {
            (Some(said), Some(expected)) => assert_eq!(said, expected, "{name}: the CLOSE"),
            (Some(said), None) => said.check(name, cause),
            (None, _) => {}
        }
    }

    /// Lets the figure be looked at after a suspicion, unless the examination that ended it has
    /// shown the figure.
    fn need_figure_unless_seen(&mut self) {
        if !std::mem::take(&mut self.figure_seen) && self.examines {
            (self.needs_figure, self.look_due) = (true, true);
        }
    }

    fn hung(&mut self, now: Time, cause: Cause, until: Time) {
        let name = self.name.clone();
        assert!(std::mem::take(&mut self.turn.hangs), "{name}: the peer is not hung");
        let end = self.kept.map(|(end, _)| end);
        assert_eq!(Some(until), end, "{name}: kept");
        assert_eq!(cause, self.cause_of_silence(now), "{name}: kept for another cause");
        assert!(self.suspect, "{name}: hung and not suspect");
        self.keeps += 1;
    }

    fn check_overdue(&mut self, now: Time, due: Time) {
        let name = self.name.clone();
        let expected = self.half_close_end().or(self.due());
        assert_eq!(Some(due), expected, "{name}: overdue at another time");
        assert!(now >= due && !self.policy.enforce() && !self.overdue, "{name}: overdue");
        assert!(self.suspect || self.half_closed.is_some(), "{name}: not suspect");
        (self.overdue, self.first_probe) = (true, None);
    }

    fn check_suspicion(&mut self, now: Time) {
        let name = &self.name;
        assert!(self.half_closed.is_none(), "{name}: suspect although half-closed");
        let Detection::Bounded { idle, interval, .. } = self.policy.detection() else {
            panic!("{name}: suspect without a bound");
        };
        assert!(self.is_established() && !self.suspect, "{name}: suspect twice");
        let since = self.first_probe.or((!self.probes).then_some(self.silence_start + idle));
        self.suspect = true;
        self.ambiguous = true;
        self.inquires |= self.examines;
        if self.kept.is_some() || self.due().is_some_and(|due| now >= due) {
            // An overdue peer is suspect, and so is a kept one.
            assert!(
                self.kept.is_some() || !self.policy.enforce(),
                "{name}: suspect after the verdict was due"
            );
            return;
        }
        let since = since.expect("suspect before the first probe");
        let least = since + self.suspicion_delay(interval);
        assert!(now >= least, "{name}: suspect at {now:?}, before {least:?}");
        self.first_probe = Some(since);
    }

    /// Checks a PING that was sent.
    fn ping_sent(&mut self, now: Time, sequence: u8, number: u8) {
        let name = &self.name;
        self.sequence = self.sequence.wrapping_add(1);
        assert_eq!(sequence, self.sequence, "{name}: sequence numbers must be consecutive");
        if self.codec == Codec::Native {
            self.timed_ping = self.timed_ping.or(Some((now, sequence)));
        }
        if std::mem::take(&mut self.turn.requested_ping_due) {
            assert_eq!(number, 0, "{name}: a heartbeat on request is no probe");
            self.ambiguous = self.suspect;
            self.requested += 1;
            return;
        }
        assert!(self.is_established() && !self.overdue, "{name}: a PING at the wrong time");
        self.ambiguous = self.suspect;
        if std::mem::take(&mut self.turn.checking_ping_due) {
            assert_eq!(number, 0, "{name}: a heartbeat that checks the cap is no probe");
            self.checked += 1;
            return;
        }
        if self.half_closed.is_some() {
            assert!(
                number == 0 && self.turn.half_close_ping_due,
                "{name}: a second PING after the half-close"
            );
            self.turn.half_close_ping_due = false;
            return;
        }
        if number == 0 {
            let keepalive = self.policy.keepalive().expect("a keepalive although it is off");
            let due = self.last_heard.max(self.sent_before) + keepalive;
            assert!(now >= due - self.slack(keepalive), "{name}: a keepalive on a busy link");
            assert!(self.first_probe.is_none(), "{name}: a keepalive between probes");
            return;
        }
        assert!(self.probes, "{name}: a watcher sent a probe");
        let Detection::Bounded { idle, interval, probes } = self.policy.detection() else {
            panic!("{name}: a probe without a bound");
        };
        if let Some((_, until)) = self.kept {
            assert_eq!(number, self.last_probe.saturating_add(1), "{name}: probes of a round");
            assert!(now >= until - interval && now < until, "{name}: a probe at {now:?}");
            self.last_probe = number;
            return;
        }
        assert!(number > self.last_probe, "{name}: probe {number} twice");
        assert!(number <= probes, "{name}: probe {number} of {probes}");
        let mut least = self.silence_start + idle + interval.times(u64::from(number) - 1);
        if self.spread && number == 1 {
            least = least - Span::from_nanos(idle.as_nanos() / 2);
        } else if self.policy.spread() && number == 1 {
            least = least - interval.min(Span::from_nanos(idle.as_nanos() / 8));
        }
        least = least - self.slack(idle.min(interval));
        assert!(now >= least, "{name}: probe {number} at {now:?}, before {least:?}");
        assert!(Some(now) < self.due(), "{name}: a probe after the verdict was due");
        self.first_probe = self.first_probe.or(Some(now));
        self.last_probe = number;
    }

    /// Returns the time by which a probe or keepalive that comes once in `period` may leave early.
    fn slack(&self, period: Span) -> Span {
        if !self.policy.spread() {
            return Span::ZERO;
        }
        Span::from_nanos(period.as_nanos() / 8).min(LONGEST_SLACK)
    }

    fn retuned(&mut self, now: Time, policy: Policy) {
        let name = &self.name;
        if let Some(wanted) = self.turn.retuned.filter(|_| !self.connects) {
            assert_eq!(policy, wanted, "{name}: retuned to another policy");
        }
        self.set_at = now;
        let from = std::mem::replace(&mut self.policy, policy);
        self.front.restart(self.silence_start.max(now));
        if let Some(until) = &mut self.half_closed {
            if self.overdue && policy.enforce() {
                (self.overdue, *until) = (false, now.max(*until));
            }
            return;
        }
        let Some(bound) = policy.bound() else {
            self.end_silence();
            return;
        };
        if self.overdue && policy.enforce() {
            // The new policy enforces the bound, so the overdue link gets one whole new bound.
            self.overdue = false;
            self.excuse(now);
            (self.first_probe, self.last_probe) = (Some(now), 0);
        } else if self.first_probe.is_none() && !self.suspect {
            self.spread = policy.spread();
        }
        // No verdict for a silence that the old policy allowed: the new deadline is the earlier of
        // the old deadline and one new bound from now.
        let old = self.bound_passes(&from);
        let allowed = old.map_or(now + bound, |old| old.min(now + bound));
        // The new bound counts from the last evidence again, unless something else has moved the
        // beginning of this silence.
        if self.silence_origin > self.last_heard {
            self.silence_origin = self.silence_start;
        }
        self.silence_start = self.silence_origin.max(allowed - bound);
        if (self.kept.is_some() || self.overdue) && self.silence_start + bound > now {
            // The bound now in force has not passed: the silence is judged at its end.
            (self.kept, self.overdue) = (None, false);
            (self.first_probe, self.last_probe) = (Some(now), 0);
        }
    }

    fn lost(&mut self, now: Time, verdict: systole_core::cause::Verdict) {
        let name = &self.name;
        assert_eq!((verdict.at, verdict.last_heard), (now, self.last_heard), "{name}: {verdict:?}");
        if verdict.cause == Cause::Protocol(Malformed::OldestFrame) {
            // Any input of any link may bring the memory of all frames to its limit.
            assert!(self.held_frame().is_some(), "{name}: it holds no part of a frame");
            return;
        }
        if let Some(cause) = self.turn.expects {
            assert_eq!(verdict.cause, cause, "{name}: another cause");
            return;
        }
        if verdict.cause == Cause::Flooding {
            return self.check_flood(now);
        }
        if self.turn.received {
            let said = matches!(verdict.cause, Cause::PeerClosed(_) | Cause::Protocol(_));
            assert!(said, "{name}: lost on evidence: {verdict:?}");
            return;
        }
        let swept = self.turn.by_deadline || self.turn.moves;
        if self.draining && swept && verdict.cause == Cause::Drained {
            return;
        }
        assert!(self.turn.by_deadline, "{name}: lost without a reason: {verdict:?}");
        if verdict.cause == Cause::Unauthorized {
            let end = self.session_end().filter(|_| self.is_established());
            assert!(end.is_some_and(|end| now >= end), "{name}: it may stay until {end:?}");
            return;
        }
        if verdict.cause == Cause::Protocol(Malformed::StalledFrame) {
            assert_eq!(Some(verdict.due), self.frame_due(), "{name}: no frame was due then");
            assert!(now >= verdict.due, "{name}: lost too early");
            return;
        }
        if self.awaits_admission() {
            assert_eq!(verdict.cause, Cause::LocalFault, "{name}: nobody answered");
            assert_eq!(verdict.due, self.admission_due, "{name}: the admission's deadline moved");
            assert!(now >= verdict.due, "{name}: lost too early");
            return;
        }
        if self.stage == Stage::Greeting {
            assert_eq!(verdict.cause, Cause::HandshakeTimeout, "{name}");
            assert_eq!(verdict.due, self.handshake_due, "{name}: the handshake's deadline moved");
            assert!(now >= verdict.due, "{name}: lost too early");
            return;
        }
        if let Some(until) = self.half_close_end() {
            assert_eq!((verdict.cause, verdict.due), (Cause::PeerExited, until), "{name}");
            assert!(now >= until, "{name}: lost too early");
            return;
        }
        assert_eq!(verdict.cause, self.cause_of_silence(now), "{name}");
        assert!(self.policy.enforce(), "{name}: lost although the bound is not enforced");
        let due = self.due();
        assert_eq!(Some(verdict.due), due, "{name}: due at another time than rule 13 says");
        let bound = self.policy.bound().filter(|_| self.kept.is_none());
        let stretch = bound.map(|bound| verdict.due.since(self.silence_start + bound));
        let stretch = stretch.unwrap_or_default().as_millis();
        assert_eq!(verdict.stretch.as_millis(), stretch, "{name}: the stretch");
        self.stretched += u64::from(stretch > 0);
        let name = &self.name;
        assert!(now >= verdict.due, "{name}: lost too early");
        assert_eq!(verdict.probes, self.last_probe, "{name}: probes");
    }
}

/// Formats an input with the length of its bytes instead of the bytes.
fn brief(input: &link::Input<'_>) -> String {
    match input {
        link::Input::World(link::World::Received(bytes)) => {
            format!("Received {} bytes", bytes.len())
        }
        link::Input::World(link::World::Command(Command::Send { bytes, .. })) => {
            format!("Send {} bytes", bytes.len())
        }
        link::Input::World(world) => format!("{world:?}"),
        link::Input::Answer(answer) => format!("{answer:?}"),
    }
}

fn brief_output(output: &Output<'_>) -> String {
    match output {
        Output::Transmit { bytes, lane } => {
            let front: String = bytes.iter().take(6).map(|byte| format!("{byte:02x} ")).collect();
            format!("Transmit {} bytes {front}in {lane:?}", bytes.len())
        }
        Output::Event(Event::Data { bytes, more, .. }) => {
            format!("Data {} bytes, more: {more}", bytes.len())
        }
        Output::Session(_)
        | Output::Event(_)
        | Output::Examine { .. }
        | Output::Patience(_)
        | Output::Admit
        | Output::Close(_) => {
            format!("{output:?}")
        }
    }
}

/// Returns the cause of an end that this end decides with this reason.
fn cause_of(reason: CloseReason) -> Cause {
    match reason {
        CloseReason::Kicked => Cause::Kicked,
        CloseReason::Replaced => Cause::Replaced,
        CloseReason::Unauthorized => Cause::Unauthorized,
        CloseReason::Flooding => Cause::Flooding,
        CloseReason::Drained => Cause::Drained,
        CloseReason::Done
        | CloseReason::Silent
        | CloseReason::Slow
        | CloseReason::Version
        | CloseReason::Full
        | CloseReason::Other(_) => Cause::Finished,
    }
}
