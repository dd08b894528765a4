//! One connection: bytes, liveness and handshake in one machine.
//!
//! [`Link`] is that machine for whoever has one connection: a client, a tool, a blocking server
//! with a thread per peer. A gateway holds many of them in a [`crate::hub::Hub`].

mod outbound;
mod peer;

use alloc::boxed::Box;

pub(crate) use outbound::Outbound;
pub use peer::HALF_CLOSED;
pub(crate) use peer::{Context, Effect, Peer};

use crate::cause::{Cause, Confidence, Verdict};
use crate::flight::Flight;
use crate::grounds::Grounds;
use crate::kernel::{Examination, SocketError};
use crate::liveness::{Deadline, Role};
use crate::policy::{Detection, Policy};
use crate::random::Random;
use crate::tap::Machine;
use crate::time::{Span, Time};
use crate::wire::{Account, BootId, CloseReason, Codec, DataKind, InstanceId, MAX_DATA};

/// The longest piece into which DATA is cut, so that the next frame boundary, at which a heartbeat
/// may overtake, is near: 8 KiB are 65 ms at 1 Mbit/s.
pub const PIECE: usize = 8 * 1024;

/// How long a handshake may take unless a listener says otherwise: three retransmissions of a lost
/// segment fit, and a silent peer holds its descriptor no longer.
pub const HANDSHAKE_TIMEOUT: Span = Span::from_secs(10);

/// How one end of a link behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which bytes are spoken.
    pub codec: Codec,
    /// Who speaks first.
    pub side: Side,
    /// Whether this end probes, or only watches.
    pub role: Role,
    /// The policy to begin with; on the connecting side the gateway's WELCOME replaces it.
    pub policy: Policy,
    /// Which policies the other end may ask for.
    pub limits: Limits,
    /// How long the handshake may take.
    pub handshake_timeout: Span,
    /// The longest DATA body accepted, 1 to [`MAX_DATA`] bytes.
    pub max_data: u32,
    /// Changes when this machine restarts.
    pub boot_id: BootId,
    /// Changes when this process restarts.
    pub instance_id: InstanceId,
    /// The wall clock at [`Time::ZERO`], in milliseconds since 1970-01-01 UTC; for display.
    pub wall_origin_ms: u64,
    /// Whether each heartbeat is told as an event.
    pub report_heartbeats: bool,
    /// Whether the shell can look at the socket when asked, [`Output::Examine`]. Where it cannot,
    /// a silence ends as [`crate::cause::Cause::Unknown`].
    pub examines: bool,
    /// What becomes of a peer whose machine lives and whose application does not answer.
    pub hung: Hung,
}

/// What becomes, at the bound, of a peer that hangs or does not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Hung {
    /// It ends: whoever waits for it waits in vain, alive or not.
    #[default]
    End,
    /// It is told, and ends only if it is still silent after this long: for peers that are
    /// debugged, or pause to load a level, and whose sessions are dear.
    Keep(Span),
}

impl Settings {
    /// Sensible settings for one end that speaks `codec` and judges by `policy`; the ids unknown.
    pub fn new(codec: Codec, side: Side, policy: Policy) -> Settings {
        Settings {
            codec,
            side,
            role: Role::Probe,
            policy,
            limits: Limits::default(),
            handshake_timeout: HANDSHAKE_TIMEOUT,
            max_data: MAX_DATA as u32,
            boot_id: BootId::default(),
            instance_id: InstanceId::default(),
            wall_origin_ms: 0,
            report_heartbeats: false,
            examines: false,
            hung: Hung::End,
        }
    }
}

/// Which side of the handshake this end is on.
#[derive(Clone, Debug)]
pub enum Side {
    /// Was connected to: waits for HELLO, answers WELCOME.
    Accepting,
    /// Connected: says HELLO, waits for WELCOME.
    Connecting(Introduction),
}

/// What a connecting end says of itself.
#[derive(Clone, Default)]
pub struct Introduction {
    /// Who it says it is; at most [`crate::wire::MAX_IDENTITY`] bytes, the rest is cut.
    pub identity: Box<str>,
    /// What proves it; at most [`crate::wire::MAX_TOKEN`] bytes, the rest is cut.
    pub token: Box<[u8]>,
    /// The policy it asks for, if it has a wish.
    pub asks: Option<Policy>,
    /// How its link before this one ended, if this process had one.
    pub account: Option<Account>,
}

impl core::fmt::Debug for Introduction {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Introduction { identity, token: _, asks, account } = self;
        f.debug_struct("Introduction")
            .field("identity", identity)
            .field("asks", asks)
            .field("account", account)
            .finish()
    }
}

/// The shortest idle and interval granted to a peer that asks: within a bound that is granted, a
/// shorter one would only buy it a flood of probes.
pub const LEAST_PATIENCE: Span = Span::from_millis(50);

/// The policies a listener grants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The shortest bound; a shorter wish is answered with the listener's own policy.
    pub shortest_bound: Span,
    /// The longest bound; a longer wish, or the wish never to be judged, likewise.
    pub longest_bound: Span,
}

impl Default for Limits {
    /// From 1 s, below which ordinary jitter kills, to 10 minutes.
    fn default() -> Limits {
        Limits { shortest_bound: Span::from_secs(1), longest_bound: Span::from_secs(600) }
    }
}

impl Limits {
    /// What is granted to an end that asks for `wish` at a listener whose own policy is `own`.
    pub fn grant(&self, wish: Option<Policy>, own: Policy) -> Policy {
        let within = |wish: &Policy| {
            let patient = match wish.detection() {
                Detection::Never => false,
                Detection::Bounded { idle, interval, .. } => idle.min(interval) >= LEAST_PATIENCE,
            };
            let bound = self.shortest_bound..=self.longest_bound;
            patient && wish.bound().is_some_and(|asked| bound.contains(&asked))
        };
        match wish.filter(within) {
            // Only the numbers are the peer's to choose; how we behave is ours.
            Some(wish) => wish.with_conduct_of(&own),
            None => own,
        }
    }
}

/// What can change a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input<'a> {
    /// Bytes arrived.
    Received(&'a [u8]),
    /// The stream ended: the peer's side is closed. It may still read, and is written to until it
    /// resets or [`HALF_CLOSED`] has passed; in `line`, and before the handshake, the link ends.
    Ended,
    /// The socket failed.
    Failed(SocketError),
    /// A router said that the peer cannot be reached, and the connection stands all the same: it is
    /// remembered for the verdict, told if the peer is asked in vain, [`Event::Warned`], and
    /// evidence of the peer outweighs it.
    Warned(SocketError),
    /// The answer to [`Output::Examine`], to be given before any other input for this link.
    Examined(Examination),
    /// What the peer was to read exceeds the bounded queue.
    Overflowed,
    /// The time of the next deadline has come, or may have.
    Deadline,
    /// The application or an operator wants something.
    Command(Command<'a>),
}

/// What an application or an operator may want of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    /// Send a message. Before the handshake is complete it is refused and dropped.
    Send {
        /// The message, or a piece of one; cut into pieces of at most [`PIECE`] where the codec can
        /// say so.
        bytes: &'a [u8],
        /// Whether the message goes on in the next command of this kind.
        more: bool,
        /// The message type, for `message1028`.
        kind: DataKind,
    },
    /// Let these bytes ride on every heartbeat from now on; none if empty. More than
    /// [`crate::wire::MAX_HEARTBEAT_DATA`] is refused, and the former bytes stay.
    HeartbeatData(&'a [u8]),
    /// Put this policy in force (accepting side), or ask for it (connecting side).
    Retune(Policy),
    /// No suspicion and no verdict for this long.
    Hold(Span),
    /// End a hold.
    Release,
    /// End the link in good order.
    Close(Goodbye),
}

/// How this end says goodbye.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Goodbye {
    /// Why.
    pub reason: CloseReason,
    /// Whether the peer should stay away.
    pub stay_away: bool,
    /// How long the peer should wait before connecting again.
    pub return_after: Span,
}

impl From<CloseReason> for Goodbye {
    fn from(reason: CloseReason) -> Goodbye {
        Goodbye { reason, stay_away: false, return_after: Span::ZERO }
    }
}

/// What a link wants, or tells.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Output<'a> {
    /// Send these bytes, whole frames, in the order of their lane.
    Transmit {
        /// The bytes.
        bytes: &'a [u8],
        /// Which queue they stand in while the socket is full.
        lane: Lane,
    },
    /// Something happened.
    Event(Event<'a>),
    /// Look at the socket and hand in what it shows, [`Input::Examined`], at once.
    Examine,
    /// Close the socket; the link takes no further input.
    Close(Closing),
}

/// The two queues to a socket. Control goes first, at the next frame boundary.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Lane {
    /// Heartbeats, handshake, retune, close.
    Control,
    /// Data.
    Data,
}

/// How to close a socket.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Closing {
    /// Send what is queued, then close.
    Flush,
    /// Close at once; what is queued is of no use to anybody.
    Abort,
}

/// What happened on a link.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event<'a> {
    /// The handshake is complete.
    Established {
        /// The session's number; 0 in codecs without one, on the connecting side.
        session: u64,
        /// Its epoch; likewise.
        epoch: u64,
        /// The policy in force.
        policy: Policy,
        /// What a connecting peer says of its link before this one.
        account: Option<Account>,
    },
    /// A probe has been out for longer than it should.
    Suspect,
    /// A router, our own network or our own neighbour says already, of a peer that is asked in
    /// vain, why its verdict would fall. Nothing ends, and evidence of the peer outweighs it; at
    /// most once in a silence.
    Warned {
        /// What the verdict would be now.
        cause: Cause,
        /// How sure that is.
        confidence: Confidence,
        /// What it rests on.
        grounds: Grounds,
    },
    /// The suspicion is over.
    Recovered,
    /// The bound has passed, and the policy says only to tell.
    Overdue {
        /// When the verdict would have fallen.
        due: Time,
    },
    /// The bound has passed; the peer hangs or does not read, and is kept for a while.
    Hung {
        /// Which of the two.
        cause: Cause,
        /// When it will end unless it is heard.
        until: Time,
    },
    /// A message, or a piece of one.
    Data {
        /// The bytes.
        bytes: &'a [u8],
        /// Whether the message goes on in the next event of this kind.
        more: bool,
        /// The message type, for `message1028`.
        kind: DataKind,
    },
    /// Business data that rode on a heartbeat.
    HeartbeatData(&'a [u8]),
    /// Another policy is in force.
    Retuned(Policy),
    /// A heartbeat of ours came back after this long.
    RoundTrip(Span),
    /// A heartbeat left; told only if the settings ask for it.
    HeartbeatSent {
        /// Whether it asks or answers.
        beat: BeatKind,
        /// Its sequence number; 0 in codecs without one.
        sequence: u8,
        /// Which probe of this silence it is, from 1; 0 if it is none.
        number: u8,
    },
    /// A heartbeat arrived; told only if the settings ask for it.
    HeartbeatReceived {
        /// Whether it asks or answers.
        beat: BeatKind,
        /// Its sequence number; 0 in codecs without one.
        sequence: u8,
    },
    /// The link has ended.
    Lost {
        /// Why, and when.
        verdict: Verdict,
        /// What the peer said about coming back, if it said goodbye.
        farewell: Option<Goodbye>,
    },
}

/// The two kinds of heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BeatKind {
    /// It asks.
    Ping,
    /// It answers.
    Pong,
}

/// One connection's machine.
#[derive(Debug)]
pub struct Link {
    settings: Settings,
    peer: Peer,
    outbound: Outbound,
    random: Random,
}

impl Link {
    /// A link that was opened at `now`. On the connecting side HELLO is waiting to be polled.
    ///
    /// `seed` is chance, for spreading; `session` is what an accepting end will call this session.
    pub fn new(now: Time, settings: Settings, session: SessionKey, seed: u64) -> Link {
        let mut outbound = Outbound::default();
        let mut random = Random::new(seed);
        let mut context = Context { settings: &settings, random: &mut random };
        let peer = Peer::open(now, session, &mut context, &mut outbound.to(0));
        Link { settings, peer, outbound, random }
    }

    /// When to call with [`Input::Deadline`] unless something changes before.
    pub fn next_deadline(&self) -> Option<Deadline> {
        self.peer.next_deadline()
    }

    /// The peer's machine and its process, once it introduced itself; zeros where it did not say.
    pub fn peer_ids(&self) -> Option<(BootId, InstanceId)> {
        self.peer.introduced().map(|introduced| (introduced.boot_id, introduced.instance_id))
    }

    /// The policy in force.
    pub fn policy(&self) -> &Policy {
        self.peer.policy()
    }

    /// The longest piece into which a message is cut, in bytes: [`PIECE`], less if the gateway said
    /// so, or all that one message of a codec holds that cannot say that it goes on.
    pub fn piece(&self) -> usize {
        self.peer.piece()
    }

    /// The smoothed round-trip time, once one was measured.
    pub fn smoothed_rtt(&self) -> Option<Span> {
        self.peer.liveness().smoothed_rtt()
    }

    /// What happened lately, the verdict included once it has fallen.
    pub fn flight(&self) -> &Flight {
        self.peer.flight()
    }

    /// The last evidence of the peer.
    pub fn last_heard(&self) -> Time {
        self.peer.liveness().last_heard()
    }
}

/// What an accepting end knows of a session before it begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SessionKey {
    /// The session's number.
    pub session: u64,
    /// Its epoch.
    pub epoch: u64,
}

impl Machine for Link {
    type Input<'a> = Input<'a>;
    type Output<'a> = Output<'a>;

    fn handle(&mut self, now: Time, input: Input<'_>) {
        let mut context = Context { settings: &self.settings, random: &mut self.random };
        let _ = self.peer.handle(now, input, &mut context, &mut self.outbound.to(0));
    }

    fn poll_output(&mut self) -> Option<Output<'_>> {
        self.outbound.poll().map(|(_, output)| output)
    }
}

#[cfg(test)]
mod tests;
