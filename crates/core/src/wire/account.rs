//! A returning client's account of how its previous link ended.

use alloc::vec::Vec;

use super::Malformed;
use super::fields::{self, Fields};
use crate::cause::{Cause, Direction};

/// A client's account of its previous link, sent in HELLO when it returns.
///
/// All times are from the client's own clocks, in milliseconds, and saturate at 2^32 − 1.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Account {
    /// The session of the previous link.
    pub session: u64,
    /// The end of the link as the client observed it.
    pub saw: Saw,
    /// The longest silence within the last interval × probes of the link: the time in which the
    /// probes of a silent link go unanswered.
    pub silent_ms: u32,
    /// The time since the link ended, by a clock that runs during suspension.
    pub ended_ms: u32,
    /// The time in which the client was suspended or stopped, within the last D of the link and
    /// since.
    pub absent_ms: u32,
    /// The part of `absent_ms` in which the client's machine was suspended.
    pub suspended_ms: u32,
}

crate::plain::plain_struct! { Account {
    session,
    saw,
    silent_ms,
    ended_ms,
    absent_ms,
    suspended_ms
} }

/// The end of a link as one end observed it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Saw {
    /// The peer sent CLOSE.
    Goodbye,
    /// The stream ended without CLOSE.
    Ended,
    /// A reset arrived.
    Reset,
    /// The bound passed without any evidence from the peer.
    Silence,
    /// The peer was heard, but acknowledged nothing.
    Unheard,
    /// The peer's kernel acknowledged, but its application did not answer.
    Hung,
    /// A router reported that the peer is unreachable.
    Unreachable,
    /// The observer's own network was down or changed.
    NetworkDown,
    /// The observer ended the link for a reason of its own.
    Own,
    /// The bound passed without any evidence from the peer, and the connection still passed nothing
    /// after a new one to the same peer was established.
    Blocked,
    /// As [`Saw::Reset`], after the peer had been heard, and had acknowledged nothing.
    UnheardReset,
    /// An end that this version does not define.
    Other(u8),
}

crate::plain::plain_enum! { Saw {
    0 => Goodbye {}
    1 => Ended {}
    2 => Reset {}
    3 => Silence {}
    4 => Unheard {}
    5 => Hung {}
    6 => Unreachable {}
    7 => NetworkDown {}
    8 => Own {}
    9 => Other { 0: byte }
    10 => Blocked {}
    11 => UnheardReset {}
} }

impl Saw {
    /// Returns the value for a byte on the wire.
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
            10 => Saw::Blocked,
            11 => Saw::UnheardReset,
            other => Saw::Other(other),
        }
    }

    /// Returns the byte on the wire.
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
            Saw::Blocked => 10,
            Saw::UnheardReset => 11,
            Saw::Other(byte) => byte,
        }
    }

    /// Returns the name in the protocol document.
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
            Saw::Blocked => "blocked",
            Saw::UnheardReset => "unheard, reset",
            Saw::Other(_) => "other",
        }
    }
}

impl From<Cause> for Saw {
    fn from(cause: Cause) -> Saw {
        match cause {
            Cause::PeerClosed(_) => Saw::Goodbye,
            Cause::PeerExited => Saw::Ended,
            Cause::PeerReset
            | Cause::PeerRebooted
            | Cause::MiddleboxForgot
            | Cause::MiddleboxReset => Saw::Reset,
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
            | Cause::Replaced
            | Cause::Unauthorized
            | Cause::Refused(_)
            | Cause::Flooding
            | Cause::Drained
            | Cause::Finished
            | Cause::LocalFault
            | Cause::GatewayLost => Saw::Own,
        }
    }
}

impl Account {
    /// The encoded length in bytes.
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
