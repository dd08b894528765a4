//! Encoding and decoding of beacon datagrams, as drawn in `docs/protocol.md`.
//!
//! The shell holds the keys and computes and checks the tags; here a tag is twelve opaque bytes.

use core::fmt;

/// The length of every beacon datagram in bytes. An answer is as long as its statement, so that
/// the gateway cannot amplify traffic.
pub const DATAGRAM: usize = 32;

/// The number of bytes that the tag covers: all bytes before the tag.
pub const SIGNED: usize = DATAGRAM - TAG;

/// The length of a tag in bytes: 96 bits, as in RFC 2404. To guess a tag takes 2^95 datagrams on
/// average.
pub const TAG: usize = 12;

const STATEMENT: u8 = 0xb1;
const HEARD: u8 = 0xb2;
const CHALLENGE: u8 = 0xb3;

const LEAVING: u8 = 0x01;

/// The authentication tag of a datagram.
pub type Tag = [u8; TAG];

/// A beacon datagram without its tag.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Datagram {
    /// A datagram from a device.
    Statement(Statement),
    /// A datagram to a device.
    Reply(Reply),
}

/// A statement of a device: "I am alive".
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Statement {
    /// The number of the device that sends the statement.
    pub device: u64,
    /// The last challenge that the device received; 0 if none.
    pub challenge: u32,
    /// The statement counter, higher than in any earlier statement under the same challenge.
    pub counter: u32,
    /// Two bytes that the application defines, passed on unchanged.
    pub status: u16,
    /// Whether the statement is a goodbye.
    pub leaving: bool,
}

crate::plain::plain_struct! { Statement { device, challenge, counter, status, leaving } }

/// The answer to one statement of a device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Reply {
    /// The number of the device that receives the answer.
    pub device: u64,
    /// The challenge now in force.
    pub challenge: u32,
    /// The content of the answer.
    pub says: Says,
}

/// The content of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Says {
    /// The statement was accepted.
    Heard {
        /// The counter of the statement.
        counter: u32,
        /// The detection bound in tenths of a second; 0 if silence is never judged.
        bound_tenths: u16,
    },
    /// The statement may be a replay; the device must state again under this challenge.
    Again {
        /// The value that the next counter must exceed.
        above: u32,
        /// The low 16 bits of the statement's counter.
        echo: u16,
    },
}

/// The reason why bytes are not a beacon datagram.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BadDatagram {
    /// The length is not [`DATAGRAM`] bytes.
    Length,
    /// The protocol document does not define the kind.
    Kind,
    /// The protocol document does not define a flag that is set.
    Flag,
}

impl fmt::Display for BadDatagram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadDatagram::Length => "not 32 bytes",
            BadDatagram::Kind => "an unknown kind",
            BadDatagram::Flag => "an unknown flag",
        })
    }
}

impl Datagram {
    /// Decodes one datagram and returns its tag unchecked. The caller must check the tag before it
    /// uses the datagram.
    ///
    /// # Errors
    /// The datagram is illegal by the protocol document: the sender's fault. Drop it unanswered.
    pub fn decode(bytes: &[u8]) -> Result<(Datagram, Tag), BadDatagram> {
        let bytes: &[u8; DATAGRAM] = bytes.try_into().map_err(|_| BadDatagram::Length)?;
        let [kind, flags, v0, v1, rest @ ..] = *bytes;
        let [d0, d1, d2, d3, d4, d5, d6, d7, h0, h1, h2, h3, c0, c1, c2, c3, tag @ ..] = rest;
        let value = u16::from_le_bytes([v0, v1]);
        let device = u64::from_le_bytes([d0, d1, d2, d3, d4, d5, d6, d7]);
        let challenge = u32::from_le_bytes([h0, h1, h2, h3]);
        let counter = u32::from_le_bytes([c0, c1, c2, c3]);
        let says = match kind {
            STATEMENT => {
                if flags & !LEAVING != 0 {
                    return Err(BadDatagram::Flag);
                }
                let leaving = flags & LEAVING != 0;
                let statement = Statement { device, challenge, counter, status: value, leaving };
                return Ok((Datagram::Statement(statement), tag));
            }
            HEARD => Says::Heard { counter, bound_tenths: value },
            CHALLENGE => Says::Again { above: counter, echo: value },
            _ => return Err(BadDatagram::Kind),
        };
        if flags != 0 {
            return Err(BadDatagram::Flag);
        }
        Ok((Datagram::Reply(Reply { device, challenge, says }), tag))
    }

    /// Encodes the bytes that the tag covers. The tag follows them on the wire.
    pub fn encode(&self) -> [u8; SIGNED] {
        let (kind, flags, value, device, challenge, counter) = match *self {
            Datagram::Statement(Statement { device, challenge, counter, status, leaving }) => {
                let flags = if leaving { LEAVING } else { 0 };
                (STATEMENT, flags, status, device, challenge, counter)
            }
            Datagram::Reply(Reply { device, challenge, says }) => match says {
                Says::Heard { counter, bound_tenths } => {
                    (HEARD, 0, bound_tenths, device, challenge, counter)
                }
                Says::Again { above, echo } => (CHALLENGE, 0, echo, device, challenge, above),
            },
        };
        let mut bytes = [0; SIGNED];
        bytes[0] = kind;
        bytes[1] = flags;
        bytes[2..4].copy_from_slice(&value.to_le_bytes());
        bytes[4..12].copy_from_slice(&device.to_le_bytes());
        bytes[12..16].copy_from_slice(&challenge.to_le_bytes());
        bytes[16..20].copy_from_slice(&counter.to_le_bytes());
        bytes
    }
}
