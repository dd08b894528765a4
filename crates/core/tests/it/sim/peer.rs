//! One peer: a connecting link, both directions of its connection, and the models of both ends.

use systole_core::cause::Cause;
use systole_core::kernel::Patience;
use systole_core::link::{self, Closing, Command, Event, Lane, Link, Output, Settings, Side};
use systole_core::policy::Detection;
use systole_core::random::Random;
use systole_core::session;
use systole_core::wire::{CloseReason, Codec};
use systole_core::{Machine, Span, Time};

use super::farewells::Farewell;
use super::kernel::{Doubted, DoubtedSocket};
use super::logins::Answered;
use super::messages::MessageStream;
use super::model::Model;
use super::network::{Lanes, Path, Quality, Segment, split_randomly};
use super::tcp::Tcp;

/// A time that never comes.
pub(super) const NEVER: u64 = u64::MAX;

/// The identity that a peer claims, if it claims any: its own.
pub(super) fn claim(name: usize) -> String {
    format!("peer-{name}")
}

/// The behaviour of a peer; times in nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) listener: u16,
    pub(super) settings: Settings,
    pub(super) quality: Quality,
    /// The mean time between messages to the gateway; [`NEVER`] for none.
    pub(super) to_gateway_period: u64,
    /// The mean time between messages to the peer; [`NEVER`] for none.
    pub(super) to_peer_period: u64,
    /// What its socket shows whenever it is in doubt.
    pub(super) doubted: Doubted,
    /// Whether its transport is sealed, so that some bytes hold no plaintext.
    pub(super) sealed: bool,
}

/// A peer and both ends of its connection.
pub(super) struct Peer {
    pub(super) plan: Plan,
    /// The link, which is saved, and loaded into a fresh one, before each input.
    link: Link,
    /// The same link, which is never saved.
    unsaved: Link,
    /// The model of the peer's end.
    pub(super) own_model: Model,
    /// The model of the gateway's end; `None` until the gateway accepts the connection.
    pub(super) gateway_model: Option<Model>,
    /// The gateway's number for the link.
    pub(super) number: Option<u32>,
    /// What is said of it on each question about its connection.
    pub(super) answered: Answered,
    pub(super) up: Path,
    pub(super) down: Path,
    pub(super) to_gateway: MessageStream,
    pub(super) to_peer: MessageStream,
    /// The policies that the gateway has sent and this end has not yet received.
    pub(super) sent_policies: Vec<Detection>,
    /// The policy of them that this end has received last.
    in_force: Option<Detection>,
    /// Whether this end still has its socket.
    pub(super) open: bool,
    /// Whether the kernel answers bytes for the ended process with a reset.
    resets: bool,
    /// Whether no fault was ever injected.
    pub(super) healthy: bool,
    /// The time at which the hung application continues.
    hung_until: u64,
    /// The total time in which the application hung; its clock did not advance meanwhile.
    hung_total: u64,
    pub(super) next_to_gateway: u64,
    pub(super) next_to_peer: u64,
    lanes: Lanes,
    /// The lanes of the gateway's end.
    gateway_lanes: Lanes,
    /// The socket of the gateway's end, while the peer is in doubt.
    pub(super) socket: DoubtedSocket,
    /// The kernel at the gateway's end, if its figures are simulated.
    pub(super) tcp: Option<Tcp>,
}

impl Peer {
    /// Returns the identity that the peer claims; empty if none.
    pub(super) fn claim(&self) -> &str {
        match &self.plan.settings.side {
            Side::Connecting(introduction) => &introduction.identity,
            Side::Accepting => "",
        }
    }

    pub(super) fn connect(
        raw: u64,
        name: usize,
        plan: Plan,
        random: &mut Random,
        verbose: bool,
    ) -> Peer {
        let now = Time::from_nanos(raw);
        let own_model = Model::new(format!("peer {name}"), now, &plan.settings, Span::ZERO);
        let seed = random.next_u64();
        let mut peer = Peer {
            link: Link::new(now, plan.settings.clone(), seed),
            unsaved: Link::new(now, plan.settings.clone(), seed),
            answered: Answered::default(),
            own_model: own_model.verbose(verbose),
            gateway_model: None,
            number: None,
            up: Path::new(plan.quality),
            down: Path::new(plan.quality),
            to_gateway: MessageStream::default(),
            to_peer: MessageStream::default(),
            sent_policies: Vec::new(),
            in_force: None,
            open: true,
            resets: false,
            healthy: true,
            hung_until: 0,
            hung_total: 0,
            next_to_gateway: later(raw, plan.to_gateway_period, random),
            next_to_peer: later(raw, plan.to_peer_period, random),
            lanes: Lanes::default(),
            gateway_lanes: Lanes::default(),
            socket: DoubtedSocket::new(plan.doubted),
            tcp: None,
            plan,
        };
        peer.up.send(raw, Segment::Open, random);
        peer.collect(raw, now, random);
        peer
    }

    pub(super) fn codec(&self) -> Codec {
        self.plan.settings.codec
    }

    /// Returns when something happens at this end next.
    pub(super) fn next(&self) -> Option<u64> {
        if !self.open {
            return self.down.next().filter(|_| self.resets);
        }
        let deadline = self.link.next_deadline().map(|deadline| deadline.at.as_nanos());
        let deadline = deadline.map(|at| at.saturating_add(self.hung_total));
        let segment = self.down.next().unwrap_or(NEVER);
        let next = deadline.unwrap_or(NEVER).min(segment).min(self.next_to_gateway);
        (next < NEVER).then_some(next.max(self.hung_until))
    }

    /// Runs this end up to `raw`: first what arrived, then what is due.
    pub(super) fn run(&mut self, raw: u64, random: &mut Random) {
        while self.resets {
            let Some(segment) = self.down.take(raw) else { break };
            if let Segment::Bytes(_) | Segment::NoPlaintext { .. } = segment {
                self.up.send(raw, Segment::Reset, random);
            }
            self.resets = segment == Segment::Open;
        }
        while self.open {
            let Some(segment) = self.down.take(raw) else { break };
            match segment {
                Segment::Open => {}
                Segment::Bytes(bytes) => {
                    for piece in split_randomly(&bytes, random) {
                        if self.plan.sealed && random.below(4) == 0 {
                            self.read_without_plaintext(raw, Segment::part(random), random);
                        }
                        if self.open {
                            self.handle(raw, link::World::Received(piece), random);
                        }
                    }
                }
                Segment::NoPlaintext { .. } => self.read_without_plaintext(raw, segment, random),
                Segment::Fin => self.handle(raw, link::World::Ended, random),
                Segment::Reset => {
                    self.handle(
                        raw,
                        link::World::Failed(systole_core::kernel::SocketError::Reset),
                        random,
                    );
                }
            }
        }
        if self.open && self.next_to_gateway <= raw {
            self.next_to_gateway = later(raw, self.plan.to_gateway_period, random);
            if self.plan.sealed && random.below(3) == 0 {
                self.up.send_without_plaintext(raw, random);
            } else {
                self.send_message(raw, random);
            }
        }
        let now = self.now(raw);
        let mut rounds = 0;
        while self.open && self.link.next_deadline().is_some_and(|deadline| deadline.at <= now) {
            self.handle(raw, link::Answer::Deadline, random);
            rounds += 1;
            assert!(rounds < 100, "endless deadlines");
        }
        if rounds > 0 {
            self.own_model.check(now);
        }
    }

    /// Sends a message to the gateway.
    pub(super) fn send_message(&mut self, raw: u64, random: &mut Random) {
        if self.own_model.is_established() {
            let message = self.to_gateway.next_message(self.codec(), random);
            for input in MessageStream::commands(self.codec(), &message, random) {
                self.handle(raw, input, random);
            }
        }
    }

    /// Sends a message to the gateway, if its application runs.
    pub(super) fn send_burst(&mut self, raw: u64, random: &mut Random) {
        if self.open && self.hung_until <= raw {
            self.send_message(raw, random);
        }
    }

    /// Gives a command to the link of this end, if its application runs.
    pub(super) fn command(&mut self, raw: u64, command: Command<'_>, random: &mut Random) {
        if self.open && self.hung_until <= raw {
            self.handle(raw, link::World::Command(command), random);
        }
    }

    /// Hangs the application until `until`, while its kernel continues.
    pub(super) fn hang(&mut self, raw: u64, until: u64) {
        self.healthy = false;
        let from = raw.max(self.hung_until);
        if until > from {
            self.hung_total = self.hung_total.saturating_add(until - from);
            self.hung_until = until;
        }
    }

    /// Ends the process with `segment`: a FIN, a reset, other bytes, or nothing.
    pub(super) fn exit(&mut self, raw: u64, segment: Option<Segment>, random: &mut Random) {
        if let Some(segment) = segment.filter(|_| self.open) {
            self.resets = segment == Segment::Fin;
            self.up.send(raw, segment, random);
        }
        self.healthy = false;
        self.open = false;
    }

    /// Closes the sending side; the process continues to read.
    pub(super) fn half_close(&mut self, raw: u64, random: &mut Random) {
        self.healthy = false;
        if self.open {
            self.up.send(raw, Segment::Fin, random);
            self.up.close();
        }
    }

    /// Sends the queued frames of this end, all of them.
    pub(super) fn flush_up(&mut self, raw: u64, random: &mut Random) {
        self.lanes.flush(raw, &mut self.up, true, random);
    }

    /// Sets the patience of the kernel at the gateway's end, if its figures are simulated.
    pub(super) fn follow(&mut self, patience: &Patience) {
        if let Some(tcp) = &mut self.tcp {
            tcp.follow(patience);
        }
    }

    /// Reads bytes without plaintext, after which the transport holds a part of a record or none.
    fn read_without_plaintext(&mut self, raw: u64, segment: Segment, random: &mut Random) {
        let Segment::NoPlaintext { memory, length } = segment else { return };
        for input in [link::World::Heard, link::World::Held { memory, length }] {
            if self.open {
                self.handle(raw, input, random);
            }
        }
    }

    /// Queues a frame of the gateway.
    pub(super) fn push_down(&mut self, bytes: &[u8], lane: Lane) {
        self.socket.delivered += bytes.len() as u64;
        self.gateway_lanes.push(bytes, lane);
    }

    /// Sends the queued frames of the gateway, all of them if it `closes` the link.
    pub(super) fn flush_down(&mut self, raw: u64, closes: bool, random: &mut Random) {
        if self.plan.sealed && random.below(8) == 0 {
            self.down.send_without_plaintext(raw, random);
        }
        let before = self.down.sent;
        self.gateway_lanes.flush(raw, &mut self.down, closes, random);
        if let Some(tcp) = self.tcp.as_mut().filter(|_| self.down.sent > before) {
            let back = self.up.quality.delay;
            let round_trip = self.down.quality.delay + back;
            tcp.sent(raw, self.down.last_arrival() + back, round_trip, self.down.sent - before);
        }
    }

    /// Returns whether the gateway sends its next message now, and schedules the one after it.
    pub(super) fn is_message_due(&mut self, raw: u64, random: &mut Random) -> bool {
        let due = self.next_to_peer <= raw;
        if due {
            self.next_to_peer = later(raw, self.plan.to_peer_period, random);
        }
        due
    }

    fn now(&self, raw: u64) -> Time {
        Time::from_nanos(raw - self.hung_total.min(raw))
    }

    fn handle<'a>(&mut self, raw: u64, input: impl Into<link::Input<'a>>, random: &mut Random) {
        let (now, input) = (self.now(raw), input.into());
        self.own_model.input(now, &input);
        let mut state = Vec::new();
        self.link.save(now, &mut state);
        let loaded = Link::load(now, self.plan.settings.clone(), &mut state.as_slice());
        self.link = loaded.expect("a state that a link has saved");
        self.link.handle(now, input);
        self.unsaved.handle(now, input);
        self.collect(raw, now, random);
        assert_eq!(self.link.next_deadline(), self.unsaved.next_deadline());
        self.own_model.check_settled(now);
    }

    fn collect(&mut self, raw: u64, now: Time, random: &mut Random) {
        let codec = self.plan.settings.codec;
        let mut closing = None;
        while let Some(output) = self.link.poll_output() {
            assert_eq!(self.unsaved.poll_output(), Some(output), "it goes on the same");
            self.own_model.output(now, &output);
            match output {
                Output::Transmit { bytes, lane } => self.lanes.push(bytes, lane),
                Output::Event(Event::Data { bytes, more, .. }) => {
                    self.to_peer.receive(codec, bytes, more);
                }
                Output::Event(Event::HeartbeatData(data)) => {
                    self.to_peer.receive_heartbeat_data(data)
                }
                Output::Session(
                    session::Event::Joined { policy, .. } | session::Event::Retuned(policy),
                ) if codec.has_handshake() => {
                    // A RETUNE that changes nothing is no event.
                    let mut sent = self.sent_policies.remove(0);
                    while self.in_force == Some(sent) {
                        sent = self.sent_policies.remove(0);
                    }
                    self.in_force = Some(sent);
                    assert_eq!(policy.detection(), sent, "both ends hold the same policy");
                }
                Output::Event(Event::Farewell { goodbye, text }) => {
                    let heard = Farewell { goodbye, text: text.into() };
                    let said = self.gateway_model.as_ref().and_then(|model| model.said.as_ref());
                    assert_eq!(said, Some(&heard), "what the gateway has said");
                }
                Output::Session(_)
                | Output::Event(_)
                | Output::Examine { .. }
                | Output::Patience(_)
                | Output::Admit => {}
                Output::Close(how) => closing = Some(how),
            }
        }
        assert_eq!(self.unsaved.poll_output(), None, "it goes on the same");
        self.lanes.flush(raw, &mut self.up, closing.is_some(), random);
        if let Some(how) = closing {
            self.open = false;
            // A reset discards the answers that a gateway that stood still has not read.
            self.healthy &= how != Closing::Abort;
            self.up.send(raw, closing_segment(how), random);
        }
    }
}

/// Returns whether the other end sent CLOSE after everything that it had accepted for sending.
pub(super) fn is_orderly_close(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::PeerClosed(CloseReason::Done | CloseReason::Drained | CloseReason::Kicked)
    )
}

/// Returns what the other end receives when a socket is closed.
pub(super) fn closing_segment(how: Closing) -> Segment {
    match how {
        Closing::Flush => Segment::Fin,
        Closing::Abort => Segment::Reset,
    }
}

/// Returns a random time about one `period` after `raw`.
pub(super) fn later(raw: u64, period: u64, random: &mut Random) -> u64 {
    if period == NEVER { NEVER } else { raw + period / 2 + random.below(period + 1) }
}
