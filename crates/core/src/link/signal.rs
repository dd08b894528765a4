//! The inputs and outputs of a link.

use super::SessionKey;
use crate::denial::Denied;
use crate::kernel::{Examination, Patience, SocketError};
use crate::machine::{self, kinds_of_input};
use crate::policy::Policy;
use crate::resume::{Fresh, NotResumed};
use crate::session;
use crate::time::Span;
use crate::wire::{CloseReason, DataKind, Malformed};

/// What the world did to a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum World<'a> {
    /// Bytes arrived: plaintext, where the transport is sealed.
    Received(&'a [u8]),
    /// Bytes arrived that hold no plaintext: a part of a sealed record, or a record of the
    /// transport itself. They are evidence of the application, as a part of a frame is.
    Heard,
    /// The transport holds a part of a sealed record beside the link, or, with no memory, no longer
    /// holds one. It is judged as the part of a frame is: it has a time limit, and its memory
    /// counts among that of incomplete frames. Hand it in after what was read, because plaintext
    /// ([`World::Received`]) completes the record that was held before it.
    Held {
        /// The memory that the transport takes for it, in bytes; 0 if it holds nothing.
        memory: u32,
        /// The length of the whole record in bytes, as far as it is known.
        length: u32,
    },
    /// Bytes arrived that the transport cannot open, and why.
    Illegal(Malformed),
    /// The stream ended: the peer has closed its side. The peer may still read, so the link goes on
    /// sending until a reset arrives or [`HALF_CLOSED`](super::HALF_CLOSED) has passed. With the
    /// codec `line`, and before the handshake is complete, the link ends at once.
    Ended,
    /// The socket reported this error, and the connection has ended.
    Failed(SocketError),
    /// The socket reported this error, and the connection still stands. One by which somebody on
    /// the path reports the peer unreachable is kept for the verdict, and reported with
    /// [`session::Event::Warned`] once a probe is out; evidence and acknowledgements refute it.
    Warned(SocketError),
    /// The data queued for the peer exceeds the bounded queue.
    Overflowed,
    /// A command of the application or an operator.
    Command(Command<'a>),
}

crate::plain::plain_enum! { World<'a> {
    0 => Received { 0: bytes }
    1 => Ended {}
    2 => Failed { 0: failure }
    3 => Overflowed {}
    4 => Command { 0: command }
    5 => Warned { 0: error }
    6 => Heard {}
    7 => Illegal { 0: malformed }
    8 => Held { memory: memory, length: length }
} }

/// An answer to a wish of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The next deadline may have come. Whoever hands it in has read the socket until it was empty,
    /// and with it what the transport had opened, or has handed in unread bytes before, because
    /// silence is judged now.
    Deadline,
    /// The answer to [`Output::Examine`], before any other input for this link.
    Examined(Examination),
    /// The answer to [`Output::Admit`]: the peer has this session. Ignored if nobody asked.
    Admitted {
        /// Its number and epoch.
        key: SessionKey,
        /// A token with which the peer can resume it; `None` if nobody keeps sessions without a
        /// link.
        fresh: Option<Fresh>,
    },
    /// The answer to [`Output::Admit`]: the peer is sent away. Ignored if nobody asked.
    Refused(Denied),
}

/// An input of a link.
pub type Input<'a> = machine::Input<World<'a>, Answer>;

kinds_of_input!(World<'a>, Answer);

impl Answer {
    /// The answer that admits a peer to a session that cannot be resumed.
    pub const fn admitted(key: SessionKey) -> Answer {
        Answer::Admitted { key, fresh: None }
    }
}

/// A command of the application or an operator.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command<'a> {
    /// Send a message. Before the handshake is complete the message is dropped.
    Send {
        /// The message or a part of it; cut into pieces of at most [`PIECE`](super::PIECE) if the
        /// codec can mark a message as continued.
        bytes: &'a [u8],
        /// Whether the message continues in the next command of this kind.
        more: bool,
        /// The message type, for `message1028`.
        kind: DataKind,
    },
    /// Attach these bytes to every heartbeat from now on; empty for none. More than
    /// [`crate::wire::MAX_HEARTBEAT_DATA`] bytes are refused, and the previous bytes stay.
    HeartbeatData(&'a [u8]),
    /// Put this policy in force (accepting side), or ask for it (connecting side).
    Retune(Policy),
    /// Hold the link: no suspicion and no verdict for this time.
    Hold(Span),
    /// End a hold.
    Release,
    /// Send CLOSE and end the link.
    Close {
        /// The reason, and when to connect again.
        goodbye: Goodbye,
        /// A text for people; empty for none. One that does not fit into CLOSE
        /// ([`is_close_text`](crate::wire::is_close_text)) is left out.
        text: &'a str,
    },
    /// Send a PING now, on a link whose handshake is complete, and measure its round trip. It is
    /// not a probe: it changes neither the suspicion nor the bound.
    Heartbeat,
    /// The application has taken the oldest message that it had not taken. Only in a session with a
    /// window, where [`Takes::ByCommand`](super::Takes::ByCommand) is set.
    Taken {
        /// The length of the message in bytes.
        length: usize,
    },
    /// Ask the peer for an acknowledgement of all that was sent.
    Flush,
}

crate::plain::plain_enum! { Command<'a> {
    0 => Send { bytes: bytes, more: more, kind: kind }
    1 => HeartbeatData { 0: data }
    2 => Retune { 0: policy }
    3 => Hold { 0: span }
    4 => Release {}
    5 => Close { goodbye: goodbye, text: text }
    6 => Heartbeat {}
    7 => Taken { length: length }
    8 => Flush {}
} }

impl Command<'_> {
    /// Returns the command to end the link with a CLOSE without a text.
    pub fn close(goodbye: impl Into<Goodbye>) -> Self {
        Command::Close { goodbye: goodbye.into(), text: "" }
    }
}

/// The content of a CLOSE: why a link ends, and when to connect again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Goodbye {
    /// The reason.
    pub reason: CloseReason,
    /// Whether the peer should not connect again.
    pub stay_away: bool,
    /// How long the peer should wait before it connects again.
    pub return_after: Span,
}

crate::plain::plain_struct! { Goodbye { reason, stay_away, return_after } }

impl From<CloseReason> for Goodbye {
    fn from(reason: CloseReason) -> Goodbye {
        Goodbye { reason, stay_away: false, return_after: Span::ZERO }
    }
}

/// A request or report of a link to its shell.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Output<'a> {
    /// Send these bytes, which are whole frames, in the order of their lane.
    Transmit {
        /// The bytes.
        bytes: &'a [u8],
        /// The queue that holds the bytes while the socket is full.
        lane: Lane,
    },
    /// An event of the session. It is an output of its own, and not one of [`Event`]: whoever
    /// reports sessions matches it alone and passes it on whole.
    Session(session::Event),
    /// An event that only the link knows.
    Event(Event<'a>),
    /// Examine the socket, and hand in the result with [`Answer::Examined`] at once.
    Examine {
        /// Whether to look up our own address and route too, which costs four times the rest. If
        /// not, [`Examination::local_down`] may be `None`.
        route: bool,
    },
    /// Let the kernel have this patience with the connection, and no less, until the next output of
    /// this kind. Before the first, [`Settings::patience`](super::Settings::patience) is in force.
    Patience(Patience),
    /// Decide whether the peer gets a session, and answer with [`Answer::Admitted`] or
    /// [`Answer::Refused`], within the time limit of the handshake. Until then do not read the
    /// socket. Only on the accepting side, and once for each link.
    Admit,
    /// Close the socket; the link takes no further input.
    Close(Closing),
}

/// The send queues of a socket. Control is sent first, at the next frame boundary.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Lane {
    /// The queue of heartbeats, handshake and retune, and of the CLOSE to a peer for which the
    /// queued data is dropped.
    Control,
    /// The queue of data.
    Data,
    /// The place of the CLOSE of an orderly end: after everything that is queued. Nothing may
    /// follow it.
    Last,
}

/// The way to close a socket.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Closing {
    /// Send what is queued, then close: a [`Departure`](super::Departure) decides how long that
    /// may take.
    Flush,
    /// Close at once and drop what is queued.
    Abort,
}

/// An event that only a link knows; see [`session::Event`] for what happens to its session.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Event<'a> {
    /// The handshake is complete; [`session::Event::Joined`] follows.
    Established {
        /// The session's number; 0 on the connecting side in codecs without a handshake.
        session: u64,
        /// The session's epoch; 0 as above.
        epoch: u64,
    },
    /// A message or a part of it arrived.
    Data {
        /// The bytes.
        bytes: &'a [u8],
        /// Whether the message continues in the next event of this kind.
        more: bool,
        /// The message type, for `message1028`.
        kind: DataKind,
    },
    /// Business data arrived with a heartbeat.
    HeartbeatData(&'a [u8]),
    /// The peer has acknowledged messages: there is room in the window.
    Acknowledged,
    /// The session that this link was to resume is gone, and why; it has a new one.
    /// [`Link::take_lapsed`](super::Link::take_lapsed) returns what is uncertain of the old.
    NotResumed(NotResumed),
    /// The pong to a heartbeat arrived after this time.
    RoundTrip(Span),
    /// A heartbeat was sent; reported only if [`Settings::report_heartbeats`] is set.
    ///
    /// [`Settings::report_heartbeats`]: super::Settings::report_heartbeats
    HeartbeatSent {
        /// The kind of heartbeat.
        beat: BeatKind,
        /// The sequence number; 0 in codecs without one.
        sequence: u8,
        /// The number of the probe in this silence, from 1; 0 if the heartbeat is not a probe.
        number: u8,
    },
    /// A heartbeat arrived; reported only if [`Settings::report_heartbeats`] is set.
    ///
    /// [`Settings::report_heartbeats`]: super::Settings::report_heartbeats
    HeartbeatReceived {
        /// The kind of heartbeat.
        beat: BeatKind,
        /// The sequence number; 0 in codecs without one.
        sequence: u8,
    },
    /// The peer's CLOSE arrived; [`session::Event::Left`] follows.
    Farewell {
        /// Its content.
        goodbye: Goodbye,
        /// Its text for people; empty for none. Escape it: the peer wrote it.
        text: &'a str,
    },
}

/// The two kinds of heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BeatKind {
    /// A request.
    Ping,
    /// An answer.
    Pong,
}
