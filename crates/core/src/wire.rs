//! The bytes: frames of the native protocol and of the two older ones, and their decoder.
//!
//! `docs/protocol.md` is the authority; the tests read it.

mod account;
mod extent;
mod fields;
mod handshake;
mod varint;

pub mod decoder;
pub mod line;
pub mod message1028;
pub mod native;
pub mod outbox;

use alloc::vec::Vec;
use core::fmt;

pub use account::{Account, Saw};
pub use decoder::Decoder;
pub use handshake::{BootId, Hello, InstanceId, Resume, Welcome};

use crate::policy::Policy;

/// The longest DATA body, in bytes: large enough for any message worth sending in one piece, small
/// enough that a heartbeat behind it waits for microseconds.
pub const MAX_DATA: usize = 65_536;
/// The longest body of HELLO and WELCOME.
pub const MAX_HANDSHAKE: usize = 2_048;
/// The longest body of RETUNE and CLOSE.
pub const MAX_CONTROL: usize = 256;
/// The most business data that may ride on one heartbeat.
pub const MAX_HEARTBEAT_DATA: usize = 1_024;
/// The longest resume token.
pub const MAX_RESUME_TOKEN: usize = 64;
/// The longest identity.
pub const MAX_IDENTITY: usize = 64;
/// The longest token.
pub const MAX_TOKEN: usize = 1_024;
/// The longest text of a CLOSE.
pub const MAX_CLOSE_TEXT: usize = 128;

/// Which bytes a link speaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Codec {
    /// Our own protocol: two-byte heartbeats, handshake, negotiated policy.
    Native,
    /// Messages of 1,028 bytes: a big-endian type and 1,024 bytes of data.
    Message1028,
    /// `ping` and `pong` as lines of text.
    Line,
}

impl Codec {
    /// Appends `frame` to `out`.
    ///
    /// The caller keeps to the limits of this module and to [`Codec::max_data`]. What a codec
    /// cannot express (a HELLO as a line, say) appends nothing; see [`native::encode`],
    /// [`message1028::encode`] and [`line::encode`].
    pub fn encode(self, frame: &Frame<'_>, out: &mut Vec<u8>) {
        match self {
            Codec::Native => native::encode(frame, out),
            Codec::Message1028 => message1028::encode(frame, out),
            Codec::Line => line::encode(frame, out),
        }
    }

    /// The most bytes one `Data` may carry.
    pub const fn max_data(self) -> usize {
        match self {
            Codec::Native => MAX_DATA,
            Codec::Message1028 => message1028::MAX_DATA,
            Codec::Line => line::MAX_LINE - 1,
        }
    }

    /// The longest frame in bytes, its header included: what a decoder holds at the very most.
    pub const fn max_frame(self) -> usize {
        match self {
            // The kind, and three bytes of varint for the length.
            Codec::Native => 1 + 3 + MAX_DATA,
            Codec::Message1028 => message1028::MESSAGE,
            Codec::Line => line::MAX_LINE,
        }
    }

    /// Whether the client introduces itself with HELLO; otherwise its first message does.
    pub const fn has_handshake(self) -> bool {
        match self {
            Codec::Native => true,
            Codec::Message1028 | Codec::Line => false,
        }
    }

    /// The name in configuration, on command lines and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Codec::Native => "native",
            Codec::Message1028 => "message1028",
            Codec::Line => "line",
        }
    }

    /// The codec of that name.
    pub fn by_name(name: &str) -> Option<Codec> {
        [Codec::Native, Codec::Message1028, Codec::Line].into_iter().find(|it| it.name() == name)
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One frame, borrowed from the bytes it was decoded from.
///
/// All codecs share it; the older ones know only `Ping`, `Pong` and `Data`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame<'a> {
    /// Asks for a PONG.
    Ping(Beat<'a>),
    /// Answers a PING.
    Pong(Beat<'a>),
    /// The client introduces itself.
    Hello(Hello<'a>),
    /// The gateway accepts.
    Welcome(Welcome<'a>),
    /// A message, or a piece of one.
    Data {
        /// The bytes.
        bytes: &'a [u8],
        /// Whether the message continues in the next DATA.
        more: bool,
        /// The type of a `message1028` data message, 11 or 21; ignored by the other codecs.
        kind: DataKind,
    },
    /// Asks for a policy, or puts one in force.
    Retune(Policy),
    /// The last frame.
    Close(Close<'a>),
}

/// What a heartbeat carries besides itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Beat<'a> {
    /// The sequence number; 0 in codecs without one.
    pub sequence: u8,
    /// How many DATA messages were received in the session so far.
    pub received: Option<u32>,
    /// Business data.
    pub data: Option<&'a [u8]>,
}

impl Beat<'_> {
    /// A heartbeat that carries nothing but its sequence number.
    pub const fn bare(sequence: u8) -> Beat<'static> {
        Beat { sequence, received: None, data: None }
    }
}

/// The two data types of `message1028`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum DataKind {
    /// Type 11, and what the other codecs use.
    #[default]
    Eleven,
    /// Type 21.
    TwentyOne,
}

/// A goodbye.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Close<'a> {
    /// Why.
    pub reason: CloseReason,
    /// Whether the other end should stay away.
    pub final_: bool,
    /// How long to wait before connecting again, in milliseconds.
    pub return_after_ms: u32,
    /// For people; at most [`MAX_CLOSE_TEXT`] bytes.
    pub text: &'a str,
}

/// Why one end says goodbye.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CloseReason {
    /// Nothing more to say.
    Done,
    /// The gateway is being stopped or emptied.
    Drained,
    /// An operator ended the session.
    Kicked,
    /// The bound passed without evidence of the other end.
    Silent,
    /// The token was not accepted.
    Unauthorized,
    /// A newer session of the same identity took over.
    Replaced,
    /// The other end reads too slowly.
    Slow,
    /// This version of the protocol is not spoken here.
    Version,
    /// No more sessions are taken at the moment.
    Full,
    /// A reason this version does not name.
    Other(u8),
}

impl CloseReason {
    /// The reason that a byte on the wire stands for.
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
            other => CloseReason::Other(other),
        }
    }

    /// The byte on the wire.
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
            CloseReason::Other(byte) => byte,
        }
    }

    /// The name in the protocol document.
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
            CloseReason::Other(_) => "other",
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What was illegal about some bytes.
///
/// The peer's fault; the link is unusable; retrying sends the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Malformed {
    /// A kind or message type that does not exist.
    UnknownKind,
    /// A flag that does not exist.
    UnknownFlag,
    /// A varint in other than its shortest form, or too large.
    Varint,
    /// A length above its limit, or a WELCOME whose limit for DATA is none.
    TooLong,
    /// A body that ends before its fields do.
    Truncated,
    /// Bytes after the last field of a body, or in a field of HELLO that its flags declare unused.
    LeftOver,
    /// A text that is not UTF-8.
    NotText,
    /// HELLO with another magic: not our protocol at all.
    Magic,
    /// HELLO or WELCOME of a version other than 1; what follows the version was not looked at.
    Version,
    /// A policy that no constructor would accept.
    Policy,
    /// A legal frame where it may not stand, as DATA before HELLO.
    OutOfPlace,
}

impl Malformed {
    /// A short name for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Malformed::UnknownKind => "unknown kind",
            Malformed::UnknownFlag => "unknown flag",
            Malformed::Varint => "bad varint",
            Malformed::TooLong => "too long",
            Malformed::Truncated => "truncated body",
            Malformed::LeftOver => "bytes left over",
            Malformed::NotText => "text is not UTF-8",
            Malformed::Magic => "not this protocol",
            Malformed::Version => "unknown version",
            Malformed::Policy => "illegal policy",
            Malformed::OutOfPlace => "legal frame out of place",
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl core::error::Error for Malformed {}
