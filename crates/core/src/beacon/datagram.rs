//! The bytes of beacons, as `docs/protocol.md` draws them.
//!
//! Whoever holds the keys computes and checks the tags; here they are twelve opaque bytes.

use core::fmt;

/// The length of every beacon datagram, in bytes: an answer is never longer than what it answers.
pub const DATAGRAM: usize = 32;

/// How many of its bytes the tag covers: all before it.
pub const SIGNED: usize = DATAGRAM - TAG;

/// The length of a tag: 96 bits, as in RFC 2404. Guessing one takes 2^95 datagrams on average.
pub const TAG: usize = 12;

const STATEMENT: u8 = 0xb1;
const HEARD: u8 = 0xb2;
const CHALLENGE: u8 = 0xb3;

const LEAVING: u8 = 0x01;

/// What proves a datagram.
pub type Tag = [u8; TAG];

/// One datagram, without its tag.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Datagram {
    /// From a device.
    Statement(Statement),
    /// To a device.
    Answer(Answer),
}

/// "I am alive", from a device.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Statement {
    /// Who says it.
    pub device: u64,
    /// The challenge it was last told; 0 if none.
    pub challenge: u32,
    /// Higher than in any earlier statement under the same challenge.
    pub counter: u32,
    /// Two bytes of its owner's, carried as they are.
    pub status: u16,
    /// Whether it says goodbye.
    pub leaving: bool,
}

/// To a device, about one of its statements.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Answer {
    /// Whom it is for.
    pub device: u64,
    /// The challenge now in force.
    pub challenge: u32,
    /// What it says.
    pub says: Says,
}

/// What an answer says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Says {
    /// Statement `counter` was heard.
    Heard {
        /// The counter of the statement.
        counter: u32,
        /// The detection bound in tenths of a second; 0 if silence is never judged.
        bound_tenths: u16,
    },
    /// The statement may be an old one; say it again, under this challenge.
    Again {
        /// The next counter must be above this one.
        above: u32,
        /// The low 16 bits of the counter of the statement.
        echo: u16,
    },
}

/// Why bytes are no beacon datagram.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BadDatagram {
    /// Not [`DATAGRAM`] bytes.
    Length,
    /// A kind that the document does not name.
    Kind,
    /// A flag that the document does not name.
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
    /// Reads one datagram. Its tag is returned unchecked: nothing may be believed before the tag
    /// was compared.
    ///
    /// # Errors
    /// What the document calls illegal; the sender's fault, to be dropped without an answer.
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
        Ok((Datagram::Answer(Answer { device, challenge, says }), tag))
    }

    /// The bytes that the tag covers. The tag follows them.
    pub fn encode(&self) -> [u8; SIGNED] {
        let (kind, flags, value, device, challenge, counter) = match *self {
            Datagram::Statement(Statement { device, challenge, counter, status, leaving }) => {
                let flags = if leaving { LEAVING } else { 0 };
                (STATEMENT, flags, status, device, challenge, counter)
            }
            Datagram::Answer(Answer { device, challenge, says }) => match says {
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
