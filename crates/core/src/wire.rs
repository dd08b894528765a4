//! The wire formats: frames of the native protocol and of two older ones, and their decoder.
//!
//! `docs/protocol.md` is normative; the tests read its examples.

mod account;
mod extent;
mod fields;
mod handshake;
mod malformed;
mod varint;

pub mod decoder;
pub mod joiner;
pub mod line;
pub mod message1028;
pub mod native;
pub mod outbox;

use alloc::vec::Vec;
use core::fmt;

pub use account::{Account, Saw};
pub use decoder::Decoder;
pub use handshake::{BootId, Hello, InstanceId, Resume, Resumption, WINDOWS, Welcome};
pub use malformed::Malformed;

use crate::policy::Policy;

/// The maximum length of a DATA body in bytes: large enough for most messages in one piece, small
/// enough that a heartbeat behind it waits only microseconds.
pub const MAX_DATA: usize = 65_536;
/// The maximum length of a HELLO or WELCOME body in bytes.
pub const MAX_HANDSHAKE: usize = 2_048;
/// The maximum length of a RETUNE or CLOSE body in bytes.
pub const MAX_CONTROL: usize = 256;
/// The maximum length of the business data in one heartbeat, in bytes.
pub const MAX_HEARTBEAT_DATA: usize = 1_024;
/// The maximum length of a resume token in bytes.
pub const MAX_RESUME_TOKEN: usize = 64;
/// The maximum length of an identity in bytes.
pub const MAX_IDENTITY: usize = 64;
/// The maximum length of a token in bytes.
pub const MAX_TOKEN: usize = 1_024;
/// The maximum length of the text of a CLOSE in bytes.
pub const MAX_CLOSE_TEXT: usize = 128;

/// The wire format of a link.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Codec {
    /// The native protocol: two-byte heartbeats, handshake, negotiated policy.
    Native,
    /// The older protocol of 1,028-byte messages: a big-endian type and 1,024 bytes of data.
    Message1028,
    /// The older protocol of text lines: `ping`, `pong` and data.
    Line,
}

crate::plain::plain_enum! { Codec {
    0 => Native {}
    1 => Message1028 {}
    2 => Line {}
} }

impl Codec {
    /// Appends `frame` to `out`.
    ///
    /// The caller must keep to the limits of this module and to [`Codec::max_data`]. A frame that
    /// the codec cannot express (for example a HELLO as a line) appends nothing; see
    /// [`native::encode`], [`message1028::encode`] and [`line::encode`].
    pub fn encode(self, frame: &Frame<'_>, out: &mut Vec<u8>) {
        match self {
            Codec::Native => native::encode(frame, out),
            Codec::Message1028 => message1028::encode(frame, out),
            Codec::Line => line::encode(frame, out),
        }
    }

    /// Returns the maximum length of one `Data` in bytes.
    pub const fn max_data(self) -> usize {
        match self {
            Codec::Native => MAX_DATA,
            Codec::Message1028 => message1028::MAX_DATA,
            Codec::Line => line::MAX_LINE - 1,
        }
    }

    /// Returns whether a message arrives as it is: not longer than [`Codec::max_data`], and, as a
    /// line, without a line feed, and neither a heartbeat nor the end of one that is cut.
    pub fn carries(self, message: &[u8]) -> bool {
        let fits = message.len() <= self.max_data();
        match self {
            Codec::Native | Codec::Message1028 => fits,
            Codec::Line => {
                let mut line = message.to_vec();
                line.push(b'\n');
                let is_data =
                    matches!(line::parse(&line), Frame::Data { bytes, .. } if bytes == message);
                fits && is_data && !message.contains(&b'\n')
            }
        }
    }

    /// Returns the maximum length of a frame in bytes, header included. A decoder never holds more.
    pub const fn max_frame(self) -> usize {
        match self {
            // The kind, five bytes of varint for an acknowledgement, and three for the length.
            Codec::Native => 1 + 5 + 3 + MAX_DATA,
            Codec::Message1028 => message1028::MESSAGE,
            Codec::Line => line::MAX_LINE,
        }
    }

    /// Returns whether the client must begin with HELLO. Without a handshake the first message
    /// introduces the client.
    pub const fn has_handshake(self) -> bool {
        match self {
            Codec::Native => true,
            Codec::Message1028 | Codec::Line => false,
        }
    }

    /// Returns the name used in configuration, on command lines and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Codec::Native => "native",
            Codec::Message1028 => "message1028",
            Codec::Line => "line",
        }
    }

    /// Returns the codec with this name.
    pub fn by_name(name: &str) -> Option<Codec> {
        [Codec::Native, Codec::Message1028, Codec::Line].into_iter().find(|it| it.name() == name)
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One frame, borrowed from the decoded bytes.
///
/// All codecs share this type; the older ones have only `Ping`, `Pong` and `Data`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// PING: requests a PONG.
    Ping(Beat<'a>),
    /// PONG: answers a PING.
    Pong(Beat<'a>),
    /// HELLO: introduces the client.
    Hello(Hello<'a>),
    /// WELCOME: the gateway accepts the client.
    Welcome(Welcome<'a>),
    /// DATA: a message or a piece of one.
    Data {
        /// The bytes.
        bytes: &'a [u8],
        /// Whether the message continues in the next DATA.
        more: bool,
        /// The type of a `message1028` data message, 11 or 21; ignored by the other codecs.
        kind: DataKind,
        /// What rides on it; only in a session with windows.
        rider: Rider,
    },
    /// ACK: an acknowledgement that rides on nothing. It is no heartbeat and has no answer.
    Ack {
        /// How many messages of the session were taken, modulo 2^32.
        taken: u32,
        /// Whether the peer is to acknowledge at once.
        hurried: bool,
    },
    /// RETUNE: requests a policy (client) or puts it in force (gateway).
    Retune(Policy),
    /// CLOSE: the last frame.
    Close(Close<'a>),
}

impl<'a> Frame<'a> {
    /// Creates DATA on which nothing rides.
    pub const fn data(bytes: &'a [u8], more: bool, kind: DataKind) -> Frame<'a> {
        Frame::Data { bytes, more, kind, rider: Rider::NONE }
    }
}

/// The content of a PING or PONG.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Beat<'a> {
    /// The sequence number; 0 in codecs without one.
    pub sequence: u8,
    /// How many messages of the session were taken, modulo 2^32.
    pub taken: Option<u32>,
    /// The business data of the application.
    pub data: Option<&'a [u8]>,
}

impl Beat<'_> {
    /// Creates a heartbeat with only a sequence number.
    pub const fn bare(sequence: u8) -> Beat<'static> {
        Beat { sequence, taken: None, data: None }
    }
}

/// What rides on a DATA of a session with windows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Rider {
    /// How many messages of the session were taken, modulo 2^32.
    pub taken: Option<u32>,
    /// Whether the peer is to acknowledge this message at once.
    pub hurried: bool,
}

impl Rider {
    /// Nothing rides.
    pub const NONE: Rider = Rider { taken: None, hurried: false };
}

/// The two data types of `message1028`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum DataKind {
    /// Type 11, also used by the other codecs.
    #[default]
    Eleven,
    /// Type 21.
    TwentyOne,
}

crate::plain::plain_enum! { DataKind {
    0 => Eleven {}
    1 => TwentyOne {}
} }

/// The content of a CLOSE.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Close<'a> {
    /// The reason for closing.
    pub reason: CloseReason,
    /// Whether the peer must not reconnect.
    pub final_: bool,
    /// The time to wait before reconnecting, in milliseconds.
    pub return_after_ms: u32,
    /// A text for people, at most [`MAX_CLOSE_TEXT`] bytes without control characters.
    pub text: &'a str,
}

/// The reason in a CLOSE.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CloseReason {
    /// The application is finished.
    Done,
    /// The gateway is stopping or draining.
    Drained,
    /// An operator ended the session.
    Kicked,
    /// The bound passed without evidence from the peer.
    Silent,
    /// The token was not accepted.
    Unauthorized,
    /// A newer session of the same identity took over.
    Replaced,
    /// The peer reads too slowly.
    Slow,
    /// The protocol version is not supported.
    Version,
    /// The gateway accepts no more sessions at the moment.
    Full,
    /// The peer sends more than the gateway allows.
    Flooding,
    /// A reason that this version does not define.
    Other(u8),
}

crate::plain::plain_enum! { CloseReason {
    0 => Done {}
    1 => Drained {}
    2 => Kicked {}
    3 => Silent {}
    4 => Unauthorized {}
    5 => Replaced {}
    6 => Slow {}
    7 => Version {}
    8 => Full {}
    9 => Other { 0: byte }
    10 => Flooding {}
} }

impl CloseReason {
    /// Returns the reason for a byte on the wire.
    pub const fn from_byte(byte: u8) -> CloseReason {
        match byte {
            0 => CloseReason::Done,
            1 => CloseReason::Drained,
            2 => CloseReason::Kicked,
            3 => CloseReason::Silent,
            4 => CloseReason::Unauthorized,
            5 => CloseReason::Replaced,
            6 => CloseReason::Slow,
            7 => CloseReason::Version,
            8 => CloseReason::Full,
            9 => CloseReason::Flooding,
            other => CloseReason::Other(other),
        }
    }

    /// Returns the byte on the wire.
    pub const fn to_byte(self) -> u8 {
        match self {
            CloseReason::Done => 0,
            CloseReason::Drained => 1,
            CloseReason::Kicked => 2,
            CloseReason::Silent => 3,
            CloseReason::Unauthorized => 4,
            CloseReason::Replaced => 5,
            CloseReason::Slow => 6,
            CloseReason::Version => 7,
            CloseReason::Full => 8,
            CloseReason::Flooding => 9,
            CloseReason::Other(byte) => byte,
        }
    }

    /// Returns the name in the protocol document.
    pub const fn name(self) -> &'static str {
        match self {
            CloseReason::Done => "done",
            CloseReason::Drained => "drained",
            CloseReason::Kicked => "kicked",
            CloseReason::Silent => "silent",
            CloseReason::Unauthorized => "unauthorized",
            CloseReason::Replaced => "replaced",
            CloseReason::Slow => "slow",
            CloseReason::Version => "version",
            CloseReason::Full => "full",
            CloseReason::Flooding => "flooding",
            CloseReason::Other(_) => "other",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Returns whether a text may stand in a frame: it has no control character.
pub fn is_text(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// Returns whether a text may stand in a CLOSE: at most [`MAX_CLOSE_TEXT`] bytes without control
/// characters.
pub fn is_close_text(text: &str) -> bool {
    text.len() <= MAX_CLOSE_TEXT && is_text(text)
}

/// Returns whether a text may be the identity of a peer: not empty, of at most [`MAX_IDENTITY`]
/// bytes, without control characters.
pub fn is_identity(text: &str) -> bool {
    (1..=MAX_IDENTITY).contains(&text.len()) && is_text(text)
}
