//! What is wrong with bytes that no peer may send.

use core::fmt;

/// The reason why received bytes are illegal.
///
/// The peer's fault; the link is unusable; a retry fails in the same way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Malformed {
    /// The frame kind or message type is unknown.
    UnknownKind,
    /// A flag is unknown.
    UnknownFlag,
    /// A varint is too large or not in its shortest form.
    Varint,
    /// A length is above its limit, or a limit in a WELCOME is out of range.
    TooLong,
    /// A body ends before its last field.
    Truncated,
    /// A body has bytes after its last field, or in a HELLO field that the flags declare unused.
    LeftOver,
    /// A text is not UTF-8.
    NotText,
    /// A text has a control character.
    ControlCharacter,
    /// HELLO has another magic: not this protocol.
    Magic,
    /// HELLO or WELCOME has a version other than 1; the rest of the body was not read.
    Version,
    /// A policy is one that no constructor accepts.
    Policy,
    /// A legal frame arrived at the wrong time, for example DATA before HELLO, or an
    /// acknowledgement in a session without a window.
    OutOfPlace,
    /// A frame was not complete within its time limit: the bound D, or its length at
    /// [`FLOOR_PER_SECOND`](crate::link::FLOOR_PER_SECOND) if that takes longer.
    StalledFrame,
    /// The incomplete frames of many links reached the limit of their memory, and this frame was
    /// the oldest of them.
    OldestFrame,
    /// The transport cannot open a record.
    Record,
    /// The first line is the request line of HTTP: a health check or a scanner, not a client.
    HttpRequest,
    /// Bytes of TLS arrived where it is not spoken.
    Tls,
    /// The first bytes were none of TLS where it is spoken.
    NoTls,
    /// The peer ended the handshake of TLS by an alert: most often it does not believe our
    /// certificate.
    TlsRefused,
    /// The peer showed no certificate, or one that is not believed.
    Certificate,
    /// The peer claims another identity than it has proved by its certificate or its token.
    Claim,
    /// The peer's certificate names nobody, or its name is too long for an identity.
    Subject,
    /// The peer acknowledges what was never sent.
    Acknowledgement,
    /// The peer has sent more than the window allows.
    BeyondWindow,
}

crate::plain::plain_enum! { Malformed {
    0 => UnknownKind {}
    1 => UnknownFlag {}
    2 => Varint {}
    3 => TooLong {}
    4 => Truncated {}
    5 => LeftOver {}
    6 => NotText {}
    7 => Magic {}
    8 => Version {}
    9 => Policy {}
    10 => OutOfPlace {}
    11 => StalledFrame {}
    12 => OldestFrame {}
    13 => Record {}
    14 => ControlCharacter {}
    15 => HttpRequest {}
    16 => Tls {}
    17 => NoTls {}
    18 => TlsRefused {}
    19 => Certificate {}
    20 => Claim {}
    21 => Subject {}
    22 => Acknowledgement {}
    23 => BeyondWindow {}
} }

impl Malformed {
    /// Returns a short name for logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Malformed::UnknownKind => "unknown kind",
            Malformed::UnknownFlag => "unknown flag",
            Malformed::Varint => "bad varint",
            Malformed::TooLong => "too long",
            Malformed::Truncated => "truncated body",
            Malformed::LeftOver => "bytes left over",
            Malformed::NotText => "text is not UTF-8",
            Malformed::ControlCharacter => "control character in a text",
            Malformed::Magic => "not this protocol",
            Malformed::Version => "unknown version",
            Malformed::Policy => "illegal policy",
            Malformed::OutOfPlace => "legal frame out of place",
            Malformed::StalledFrame => "stalled frame",
            Malformed::OldestFrame => "oldest frame at the memory limit",
            Malformed::Record => "illegal record of the transport",
            Malformed::HttpRequest => "HTTP request",
            Malformed::Tls => "TLS without being asked for",
            Malformed::NoTls => "no TLS",
            Malformed::TlsRefused => "TLS refused by the peer",
            Malformed::Certificate => "no certificate that is believed",
            Malformed::Claim => "the claimed identity is not the proved one",
            Malformed::Subject => "the certificate names no identity",
            Malformed::Acknowledgement => "acknowledgement of what was never sent",
            Malformed::BeyondWindow => "more than the window allows",
        }
    }
}

impl Malformed {
    /// Returns what an operator can do about it.
    pub(crate) const fn advice(self) -> &'static str {
        match self {
            Malformed::StalledFrame => {
                "Look who sends frames a few bytes at a time, or what slows the peer's path down."
            }
            Malformed::OldestFrame => {
                "Look who holds frames incomplete, or raise limits.incomplete_frames if all of \
                 them are honest."
            }
            Malformed::Tls => {
                "Have the client connect without TLS, or give this listener a certificate."
            }
            Malformed::NoTls => "Have the client connect with TLS.",
            Malformed::TlsRefused => {
                "Look whether the client believes this certificate: its name, its time, and who \
                 vouches for it."
            }
            Malformed::Certificate => {
                "Look whether the peer has a certificate, and whether a root of this end vouches \
                 for it."
            }
            Malformed::Claim => {
                "Have the peer claim no identity, or the one in its certificate or its token."
            }
            Malformed::Subject => {
                "Give the peer a certificate whose subject (a URI, a DNS name, else the common \
                 name) has 1 to 64 bytes."
            }
            Malformed::Acknowledgement | Malformed::BeyondWindow => {
                "Look which version of its library the peer has: it does not keep to the window."
            }
            Malformed::UnknownKind
            | Malformed::UnknownFlag
            | Malformed::Varint
            | Malformed::TooLong
            | Malformed::Truncated
            | Malformed::LeftOver
            | Malformed::NotText
            | Malformed::ControlCharacter
            | Malformed::Magic
            | Malformed::Version
            | Malformed::Policy
            | Malformed::OutOfPlace
            | Malformed::HttpRequest
            | Malformed::Record => "Look who speaks another protocol to this port.",
        }
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl core::error::Error for Malformed {}
