//! The reference: what one end of a link may and must do, written from the design's rules the
//! simple way. It sees the inputs and outputs of that end, and nothing inside.

use systole_core::cause::Cause;
use systole_core::kernel::SocketError;
use systole_core::link::{
    BeatKind, Command, Event, HALF_CLOSED, Input, Lane, Output, Settings, Side,
};
use systole_core::liveness::{OUTSTANDING, Role};
use systole_core::policy::Detection;
use systole_core::wire::{CloseReason, Codec, Decoder, Frame, MAX_DATA};
use systole_core::{Policy, Span, Time};

/// How far a link has come, as its outputs tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    Greeting,
    Established,
    Lost,
    Closed,
}

/// One end of one link.
pub(super) struct Model {
    name: String,
    verbose: bool,
    /// How late a deadline may be noticed: the wheel's tick, or nothing.
    slack: Span,
    codec: Codec,
    probes: bool,
    connects: bool,
    pub(super) stage: Stage,
    handshake_due: Time,
    pub(super) policy: Policy,
    /// The last evidence.
    pub(super) heard: Time,
    pub(super) sent: Time,
    /// The same without the latest frame.
    sent_before: Time,
    /// Silence counts from here: the last evidence, the end of a hold, or what a retune allows.
    silent: Time,
    /// The first probe of this silence left then.
    asked: Option<Time>,
    /// The number of the last probe of this silence.
    number: u8,
    /// The first probe may come early.
    spread: bool,
    pub(super) suspect: bool,
    overdue: bool,
    examines: bool,
    /// When its socket was looked at last.
    looked: Time,
    /// When the first was sent that nothing heard has answered.
    unanswered: Option<Time>,
    /// A router has said that the other end cannot be reached, and nothing was heard since.
    warned: bool,
    /// And that was told.
    told: bool,
    /// The other end has closed its side, and is given up then.
    half_closed: Option<Time>,
    rtt_us: u64,
    sequence: u8,
    /// Heartbeats sent in all.
    pub(super) beats: u64,
    /// PINGs of them.
    pub(super) pings: u64,
    pub(super) recoveries: u64,
    pub(super) cause: Option<Cause>,
    pub(super) lost_at: Time,
    /// A drain may end this link at any deadline.
    pub(super) draining: bool,
    turn: Turn,
}

/// What one input has brought so far.
#[derive(Default)]
struct Turn {
    heard: bool,
    may_trust: bool,
    recovered: bool,
    expects: Option<Cause>,
    by_deadline: bool,
    /// The other end has just closed its side, and is asked whether it reads on.
    confirms: bool,
    asked: u32,
    asked_last: u8,
    answered: u32,
    retuned: Option<Policy>,
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
            policy: settings.policy,
            heard: now,
            sent: now,
            sent_before: now,
            silent: now,
            asked: None,
            number: 0,
            spread: false,
            suspect: false,
            overdue: false,
            examines: settings.examines,
            looked: now,
            unanswered: None,
            warned: false,
            told: false,
            half_closed: None,
            rtt_us: 0,
            sequence: 0,
            beats: 0,
            pings: 0,
            recoveries: 0,
            cause: None,
            lost_at: Time::ZERO,
            draining: false,
            turn: Turn::default(),
        }
    }

    pub(super) fn verbose(self, verbose: bool) -> Model {
        Model { verbose, ..self }
    }

    pub(super) fn is_open(&self) -> bool {
        self.stage != Stage::Closed
    }

    pub(super) fn is_established(&self) -> bool {
        self.stage == Stage::Established
    }

    /// A reset that nothing of ours can have prompted is a process that ended; any other may be
    /// the answer of a machine that does not know the connection. Nobody here can look.
    fn cause_of(&self, error: SocketError) -> Cause {
        match error {
            SocketError::Reset if self.half_closed.is_some() || self.sent <= self.heard => {
                Cause::PeerExited
            }
            SocketError::Reset | SocketError::Refused => Cause::PeerReset,
            SocketError::HostUnreachable | SocketError::NetworkUnreachable => Cause::Unreachable,
            SocketError::TimedOut if self.warned => Cause::Unreachable,
            SocketError::TimedOut => Cause::Unknown,
            SocketError::Local => Cause::LocalFault,
        }
    }

    /// An input is about to be handled.
    pub(super) fn input(&mut self, now: Time, input: &Input<'_>) {
        if self.verbose {
            println!("{:?} {} <- {}", now, self.name, brief(input));
        }
        self.turn = Turn::default();
        match *input {
            Input::Received(_) => {
                self.turn.heard = true;
                (self.warned, self.told) = (false, false);
                self.unanswered = None;
                self.heard = self.heard.max(now);
                self.silent = self.silent.max(now);
                self.trust();
            }
            Input::Ended => self.half_close(now),
            Input::Failed(error) => self.turn.expects = Some(self.cause_of(error)),
            Input::Examined(_) => panic!("nobody asked for a look"),
            Input::Warned(_) => self.warned = true,
            Input::Overflowed => self.turn.expects = Some(Cause::SlowConsumer),
            Input::Deadline => self.turn.by_deadline = true,
            Input::Command(Command::Hold(span)) if self.is_established() => {
                self.silent = self.silent.max(now + span);
                self.trust();
            }
            Input::Command(Command::Release) => {
                self.silent = self.silent.min(now).max(self.heard);
            }
            Input::Command(Command::Retune(policy)) => self.turn.retuned = Some(policy),
            Input::Command(Command::Close(goodbye)) => {
                self.turn.expects = Some(match goodbye.reason {
                    CloseReason::Kicked => Cause::Kicked,
                    CloseReason::Drained => Cause::Drained,
                    CloseReason::Done => Cause::Finished,
                    CloseReason::Silent
                    | CloseReason::Unauthorized
                    | CloseReason::Replaced
                    | CloseReason::Slow
                    | CloseReason::Version
                    | CloseReason::Full
                    | CloseReason::Other(_) => panic!("never said here"),
                });
            }
            Input::Command(Command::Send { .. } | Command::HeartbeatData(_) | Command::Hold(_)) => {
            }
        }
    }

    /// Whoever closes its side may still read, unless it never said who it is, or speaks in lines.
    fn half_close(&mut self, now: Time) {
        if self.half_closed.is_some() {
            return;
        }
        if self.warned {
            self.turn.expects = Some(Cause::Unreachable);
        } else if !self.is_established() || self.codec == Codec::Line {
            self.turn.expects = Some(Cause::PeerExited);
        } else {
            self.half_closed = Some(now + HALF_CLOSED);
            self.turn.confirms = true;
            (self.suspect, self.overdue, self.asked, self.number) = (false, false, None, 0);
        }
    }

    /// The deadline of the whole hub is about to be handled, this end's perhaps with it.
    pub(super) fn input_deadline(&mut self) {
        self.turn = Turn { by_deadline: true, ..Turn::default() };
    }

    /// An output of that input.
    pub(super) fn output(&mut self, now: Time, output: &Output<'_>) {
        if self.verbose {
            println!("{:?} {} -> {}", now, self.name, brief_output(output));
        }
        assert_ne!(self.stage, Stage::Closed, "{}: an output after Close", self.name);
        match *output {
            Output::Transmit { bytes, lane } => self.transmit(now, bytes, lane),
            Output::Event(ref event) => self.event(now, event),
            Output::Examine => {
                assert!(self.examines, "{}: nobody here can look", self.name);
                let early = now < self.heard + OUTSTANDING || self.unanswered.is_none();
                let doubted = self.asked.is_some()
                    || self.suspect
                    || self.due().is_some_and(|due| now >= due);
                let idle = !doubted && self.turn.expects.is_none();
                assert!(!(early && idle), "{}: looked at for nothing", self.name);
                self.looked = now;
            }
            Output::Close(_) => {
                assert_eq!(self.stage, Stage::Lost, "{}: closed without a verdict", self.name);
                self.stage = Stage::Closed;
            }
        }
    }

    /// All outputs of that input were seen.
    pub(super) fn settled(&mut self) {
        let Turn { heard, may_trust, recovered, asked, asked_last: _, answered, .. } = self.turn;
        let name = &self.name;
        assert!(!self.turn.confirms, "{name}: nobody asks who reads on");
        assert!(!recovered || may_trust, "{name}: recovered without evidence");
        if !self.is_established() {
            return;
        }
        let doubted = self.asked.is_some() || self.suspect;
        assert!(self.told || !(self.warned && doubted), "{name}: a router's word is kept secret");
        assert!(!heard || !self.suspect, "{name}: suspected with fresh evidence");
        let owed = if self.codec == Codec::Native { asked.min(1) } else { asked };
        assert_eq!(answered, owed, "{name}: each PING is answered at once");
    }

    /// What must have happened by `now`.
    pub(super) fn check(&self, now: Time) {
        let name = &self.name;
        let passed = |due: Time| now >= due + self.slack;
        match self.stage {
            Stage::Greeting => {
                assert!(!passed(self.handshake_due), "{name}: {now:?} past the handshake");
            }
            Stage::Established if self.half_closed.is_some() => {
                assert!(!self.half_closed.is_some_and(passed), "{name}: {now:?} half-closed");
            }
            Stage::Established => {
                self.check_silence(now);
                let quiet = self.asked.is_none() && !self.suspect;
                if quiet && self.examines {
                    self.check_looks(now);
                }
                if let Some(keepalive) = self.policy.keepalive().filter(|_| quiet) {
                    let due = self.heard.max(self.sent) + keepalive;
                    assert!(!passed(due), "{name}: {now:?} no keepalive since {due:?}");
                }
            }
            Stage::Lost => panic!("{name}: lost and not closed"),
            Stage::Closed => {}
        }
    }

    /// Bytes that went unanswered are looked after, though nobody is suspected.
    fn check_looks(&self, now: Time) {
        let periods = (now - self.slack).since(self.heard).as_nanos() / OUTSTANDING.as_nanos();
        let due = self.heard + OUTSTANDING.times(periods);
        // Times of looks are kept in a unit, and rounded up.
        let unit = Span::from_millis(70);
        // And of nine years' worth of them.
        if now > Time::ZERO + unit.times(4_000_000_000) {
            return;
        }
        let owed = self.unanswered.is_some_and(|first| first + unit < due);
        let name = &self.name;
        assert!(!owed || self.looked + unit >= due, "{name}: {now:?} no look, due {due:?}");
    }

    /// When the verdict falls, unless something is heard.
    pub(super) fn due(&self) -> Option<Time> {
        self.policy.bound().map(|bound| self.silent + bound)
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
        if self.overdue {
            return;
        }
        let must = self.scheduled(now - self.slack, idle, interval).min(u64::from(probes));
        if self.probes {
            assert!(u64::from(self.number) >= must, "{name}: {now:?} probe {must} is missing");
        }
        let since = self.asked.or((!self.probes).then_some(self.silent + idle));
        if let Some(since) = since.filter(|since| passed(*since + self.patience(interval))) {
            assert!(self.suspect, "{name}: {now:?} no suspicion, asked at {since:?}");
        }
    }

    /// How many probes of this silence were due by `now`.
    fn scheduled(&self, now: Time, idle: Span, interval: Span) -> u64 {
        let mut count = 0;
        let mut next = self.silent + idle;
        while next <= now && count < 200 {
            count += 1;
            next = next + interval;
        }
        count
    }

    /// How long a probe may be out before suspicion.
    fn patience(&self, interval: Span) -> Span {
        Span::from_micros(self.rtt_us * 4).max(Span::from_secs(1)).min(interval)
    }

    /// Evidence, or the word of an operator: no doubt is left.
    fn trust(&mut self) {
        self.turn.may_trust = true;
        self.spread &= self.asked.is_none() && !self.suspect;
        self.overdue = false;
        self.asked = None;
        self.number = 0;
    }

    fn transmit(&mut self, now: Time, bytes: &[u8], lane: Lane) {
        let name = &self.name;
        assert_ne!(self.stage, Stage::Lost, "{name}: spoke after the verdict");
        (self.sent_before, self.sent) = (self.sent, self.sent.max(now));
        if self.unanswered.is_none() && self.sent > self.heard {
            self.unanswered = Some(now);
        }
        let mut decoder = Decoder::new(self.codec, MAX_DATA as u32);
        let mut rest = bytes;
        let frame = decoder.next(&mut rest).expect("legal").expect("whole");
        assert!(rest.is_empty(), "{name}: one frame for each output");
        let is_data = matches!(frame, Frame::Data { .. });
        assert_eq!(is_data, lane == Lane::Data, "{name}: control and data have their lanes");
        match frame {
            Frame::Ping(_) => {
                self.pings += 1;
                self.beats += 1;
            }
            Frame::Pong(_) => self.beats += 1,
            Frame::Hello(_) | Frame::Welcome(_) | Frame::Data { .. } => {}
            Frame::Retune(_) | Frame::Close(_) => {}
        }
    }

    fn event(&mut self, now: Time, event: &Event<'_>) {
        let name = self.name.clone();
        assert!(!matches!(self.stage, Stage::Lost), "{name}: an event after the verdict");
        match *event {
            Event::Established { policy, .. } => {
                assert_eq!(self.stage, Stage::Greeting, "{name}: established twice");
                self.stage = Stage::Established;
                self.policy = policy;
                (self.heard, self.silent) = (self.heard.max(now), self.silent.max(now));
                self.spread = policy.spread();
            }
            Event::Suspect => self.suspected(now),
            Event::Warned { cause, .. } => {
                assert_eq!(cause, Cause::Unreachable, "{name}: nobody else says anything");
                assert!(self.warned && !self.told, "{name}: warned of nothing, or twice");
                assert!(self.asked.is_some() || self.suspect, "{name}: warned in no doubt");
                self.told = true;
            }
            Event::Hung { .. } => panic!("{name}: nobody here can tell"),
            Event::Recovered => {
                assert!(self.suspect, "{name}: recovered from nothing");
                (self.suspect, self.warned, self.told) = (false, false, false);
                self.turn.recovered = true;
                self.recoveries += 1;
            }
            Event::Overdue { due } => {
                assert_eq!(Some(due), self.due(), "{name}: overdue at another time");
                assert!(now >= due && !self.policy.enforce() && !self.overdue, "{name}: overdue");
                (self.overdue, self.suspect, self.asked) = (true, true, None);
            }
            Event::Retuned(policy) => self.retuned(now, policy),
            Event::RoundTrip(span) => {
                assert!(self.turn.heard, "{name}: a round trip without an answer");
                // Round trips beyond an hour are not told apart.
                let sample = span.as_micros().clamp(1, u64::from(u32::MAX));
                let old = self.rtt_us;
                self.rtt_us = if old == 0 { sample } else { ((old * 7 + sample) / 8).max(1) };
            }
            Event::HeartbeatSent { beat: BeatKind::Ping, sequence, number } => {
                self.asked(now, sequence, number);
            }
            Event::HeartbeatSent { beat: BeatKind::Pong, sequence, .. } => {
                self.turn.answered += 1;
                assert_eq!(sequence, self.turn.asked_last, "{name}: a PONG repeats its PING");
            }
            Event::HeartbeatReceived { beat: BeatKind::Ping, sequence } => {
                self.turn.asked += 1;
                self.turn.asked_last = sequence;
            }
            Event::HeartbeatReceived { beat: BeatKind::Pong, .. }
            | Event::Data { .. }
            | Event::HeartbeatData(_) => assert!(self.turn.heard, "{name}: heard from nowhere"),
            Event::Lost { verdict, .. } => {
                self.lost(now, verdict);
                self.stage = Stage::Lost;
                (self.cause, self.lost_at) = (Some(verdict.cause), now);
                self.suspect = false;
            }
        }
    }

    fn suspected(&mut self, now: Time) {
        let name = &self.name;
        assert!(self.half_closed.is_none(), "{name}: suspected although half-closed");
        let Detection::Bounded { idle, interval, .. } = self.policy.detection() else {
            panic!("{name}: suspected although nobody judges");
        };
        assert!(self.is_established() && !self.suspect, "{name}: suspected twice");
        let since = self.asked.or((!self.probes).then_some(self.silent + idle));
        let since = since.expect("suspected before it was asked");
        let least = since + self.patience(interval);
        assert!(now >= least, "{name}: suspected at {now:?}, before {least:?}");
        assert!(Some(now) < self.due(), "{name}: suspected after the verdict was due");
        self.suspect = true;
        self.asked = Some(since);
    }

    /// A PING left.
    fn asked(&mut self, now: Time, sequence: u8, number: u8) {
        let name = &self.name;
        self.sequence = self.sequence.wrapping_add(1);
        assert_eq!(sequence, self.sequence, "{name}: sequence numbers count");
        assert!(self.is_established() && !self.overdue, "{name}: asked at the wrong time");
        if self.half_closed.is_some() {
            assert!(number == 0 && self.turn.confirms, "{name}: asked whoever closed its side");
            self.turn.confirms = false;
            return;
        }
        if number == 0 {
            let keepalive = self.policy.keepalive().expect("a keepalive that nobody wanted");
            let due = self.heard.max(self.sent_before) + keepalive;
            assert!(now >= due, "{name}: a keepalive on a busy link");
            assert!(self.asked.is_none(), "{name}: a keepalive among probes");
            return;
        }
        assert!(self.probes, "{name}: a watcher asked");
        let Detection::Bounded { idle, interval, probes } = self.policy.detection() else {
            panic!("{name}: asked although nobody judges");
        };
        assert!(number > self.number, "{name}: probe {number} twice");
        assert!(number <= probes, "{name}: probe {number} of {probes}");
        let mut least = self.silent + idle + interval.times(u64::from(number) - 1);
        if self.spread && number == 1 {
            least = least - Span::from_nanos(idle.as_nanos() / 2);
        }
        assert!(now >= least, "{name}: probe {number} at {now:?}, before {least:?}");
        assert!(Some(now) < self.due(), "{name}: asked after the verdict was due");
        self.asked = self.asked.or(Some(now));
        self.number = number;
    }

    fn retuned(&mut self, now: Time, policy: Policy) {
        let name = &self.name;
        if let Some(wanted) = self.turn.retuned.filter(|_| !self.connects) {
            assert_eq!(policy, wanted, "{name}: retuned to something else");
        }
        let from = std::mem::replace(&mut self.policy, policy);
        let Some(bound) = policy.bound() else {
            self.trust();
            return;
        };
        if self.overdue && policy.enforce() {
            // It was told and not killed; now it is to be killed, and gets one whole bound.
            (self.overdue, self.silent) = (false, self.silent.max(now));
            (self.asked, self.number) = (Some(now), 0);
        } else if self.asked.is_none() && !self.suspect {
            self.spread = policy.spread();
        }
        // Not condemned for what the old policy allowed: the earlier of the old deadline and one
        // new bound from now.
        let allowed = from.bound().map_or(now + bound, |old| (self.silent + old).min(now + bound));
        self.silent = self.silent.max(allowed - bound);
    }

    fn lost(&mut self, now: Time, verdict: systole_core::cause::Verdict) {
        let name = &self.name;
        assert_eq!((verdict.at, verdict.last_heard), (now, self.heard), "{name}: {verdict:?}");
        if let Some(cause) = self.turn.expects {
            assert_eq!(verdict.cause, cause, "{name}: another cause");
            return;
        }
        if self.turn.heard {
            let said = matches!(verdict.cause, Cause::PeerClosed(_) | Cause::Protocol(_));
            assert!(said, "{name}: lost while hearing: {verdict:?}");
            return;
        }
        assert!(self.turn.by_deadline, "{name}: lost for nothing: {verdict:?}");
        if self.draining && verdict.cause == Cause::Drained {
            return;
        }
        if self.stage == Stage::Greeting {
            assert_eq!(verdict.cause, Cause::HandshakeTimeout, "{name}");
            assert_eq!(verdict.due, self.handshake_due, "{name}: the handshake's deadline moved");
            assert!(now >= verdict.due, "{name}: given up too soon");
            return;
        }
        if let Some(until) = self.half_closed {
            assert_eq!((verdict.cause, verdict.due), (Cause::PeerExited, until), "{name}");
            assert!(now >= until, "{name}: given up too soon");
            return;
        }
        let cause = if self.warned { Cause::Unreachable } else { Cause::Unknown };
        assert_eq!(verdict.cause, cause, "{name}");
        assert!(self.policy.enforce(), "{name}: killed although only told");
        assert_eq!(Some(verdict.due), self.due(), "{name}: due at another time than D says");
        assert!(now >= verdict.due, "{name}: given up too soon");
        assert_eq!(verdict.probes, self.number, "{name}: probes");
    }
}

/// Bytes would drown the rest.
fn brief(input: &Input<'_>) -> String {
    match input {
        Input::Received(bytes) => format!("Received {} bytes", bytes.len()),
        Input::Command(Command::Send { bytes, .. }) => format!("Send {} bytes", bytes.len()),
        Input::Ended
        | Input::Failed(_)
        | Input::Overflowed
        | Input::Examined(_)
        | Input::Warned(_)
        | Input::Deadline
        | Input::Command(_) => format!("{input:?}"),
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
        Output::Event(_) | Output::Examine | Output::Close(_) => format!("{output:?}"),
    }
}
