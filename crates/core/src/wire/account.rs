//! What a client that comes back says of the link it had before.

use alloc::vec::Vec;

use super::Malformed;
use super::fields::{self, Fields};
use crate::cause::{Cause, Direction};

/// How one end of a link saw it end, told to the other on return.
///
/// All times are of the client's own clocks, in milliseconds, and saturate at 2^32 − 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Account {
    /// The session that the link carried.
    pub session: u64,
    /// How it ended, as the client saw it.
    pub saw: Saw,
    /// The longest time in which it heard nothing, within the last interval × probes of the link:
    /// while it would have asked in vain, had it been silent.
    pub silent_ms: u32,
    /// How long ago the link ended when this is said, by a clock that does not stop in suspension.
    pub ended_ms: u32,
    /// For how long it was not watching, within the last D of the link and since: suspended
    /// or stopped.
    pub absent_ms: u32,
    /// How much of that its machine was suspended.
    pub suspended_ms: u32,
}

/// How one end saw a link end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Saw {
    /// The other end said CLOSE.
    Goodbye,
    /// The stream ended without a goodbye.
    Ended,
    /// A reset arrived.
    Reset,
    /// The bound passed, and nothing came back.
    Silence,
    /// The other end was heard, and acknowledged nothing.
    Unheard,
    /// The other machine acknowledged, and the other application did not answer.
    Hung,
    /// A router said that the other end cannot be reached.
    Unreachable,
    /// Its own network was down or changed.
    NetworkDown,
    /// It ended the link itself, for a reason of its own.
    Own,
    /// Anything else.
    Other(u8),
}

impl Saw {
    /// What `byte` stands for.
    pub const fn from_byte(byte: u8) -> Saw {
        match byte {
            1 => Saw::Goodbye,
            2 => Saw::Ended,
            3 => Saw::Reset,
            4 => Saw::Silence,
            5 => Saw::Unheard,
            6 => Saw::Hung,
            7 => Saw::Unreachable,
            8 => Saw::NetworkDown,
            9 => Saw::Own,
            other => Saw::Other(other),
        }
    }

    /// The byte that stands for this.
    pub const fn to_byte(self) -> u8 {
        match self {
            Saw::Goodbye => 1,
            Saw::Ended => 2,
            Saw::Reset => 3,
            Saw::Silence => 4,
            Saw::Unheard => 5,
            Saw::Hung => 6,
            Saw::Unreachable => 7,
            Saw::NetworkDown => 8,
            Saw::Own => 9,
            Saw::Other(byte) => byte,
        }
    }

    /// Its name in the document.
    pub const fn name(self) -> &'static str {
        match self {
            Saw::Goodbye => "goodbye",
            Saw::Ended => "ended",
            Saw::Reset => "reset",
            Saw::Silence => "silence",
            Saw::Unheard => "unheard",
            Saw::Hung => "hung",
            Saw::Unreachable => "unreachable",
            Saw::NetworkDown => "network down",
            Saw::Own => "own",
            Saw::Other(_) => "other",
        }
    }
}

impl From<Cause> for Saw {
    fn from(cause: Cause) -> Saw {
        match cause {
            Cause::PeerClosed(_) => Saw::Goodbye,
            Cause::PeerExited => Saw::Ended,
            Cause::PeerReset | Cause::PeerRebooted | Cause::MiddleboxForgot => Saw::Reset,
            Cause::AppHung | Cause::NotReading => Saw::Hung,
            Cause::PathLost { direction: Direction::Outbound, .. } => Saw::Unheard,
            Cause::PathLost { direction: Direction::Both | Direction::Inbound, .. }
            | Cause::Unknown => Saw::Silence,
            Cause::Unreachable => Saw::Unreachable,
            Cause::LocalNetworkDown | Cause::LocalNeighbourGone => Saw::NetworkDown,
            Cause::SlowConsumer
            | Cause::HandshakeTimeout
            | Cause::Protocol(_)
            | Cause::Kicked
            | Cause::Drained
            | Cause::Finished
            | Cause::LocalFault => Saw::Own,
        }
    }
}

impl Account {
    /// How many bytes it takes.
    pub(super) const SIZE: usize = 8 + 1 + 4 * 4;

    pub(super) fn parse(body: &mut Fields<'_>) -> Result<Account, Malformed> {
        Ok(Account {
            session: body.u64()?,
            saw: Saw::from_byte(body.u8()?),
            silent_ms: body.u32()?,
            ended_ms: body.u32()?,
            absent_ms: body.u32()?,
            suspended_ms: body.u32()?,
        })
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        fields::put_u64(self.session, out);
        out.push(self.saw.to_byte());
        for value in [self.silent_ms, self.ended_ms, self.absent_ms, self.suspended_ms] {
            fields::put_u32(value, out);
        }
    }
}
