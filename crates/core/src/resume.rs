//! The right to resume a session: the token that its client shows, and why a session cannot be
//! resumed.

use core::fmt;

use crate::plain::{plain_enum, plain_struct};

/// The length of a [`Token`] in bytes: nobody guesses one of 2^128.
pub const TOKEN: usize = 16;

/// A token with which a client resumes its session, once: the gateway gives a new one with each
/// WELCOME. Random bytes of the system; whoever knows them can take the session over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Token(pub [u8; TOKEN]);

plain_struct! { Token { 0: bytes } }

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<16 secret bytes>")
    }
}

/// What the gateway keeps of a token: the first half of its SHA-256, which the shell computes. Who
/// reads a saved state, or the memory of a gateway, cannot resume with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Digest(pub [u8; 16]);

plain_struct! { Digest { 0: bytes } }

/// A token that nobody has had before, and its digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fresh {
    /// The token.
    pub token: Token,
    /// Its digest.
    pub digest: Digest,
}

plain_struct! { Fresh { token, digest } }

/// Why a session was not resumed, as WELCOME says. Its client has a new session then.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum NotResumed {
    /// The gateway knows no such session: it was restarted, it ended long ago, or it belongs to
    /// another gateway or listener.
    Unknown,
    /// The time for which the session outlives its link was over.
    Expired,
    /// The session has ended while it was away: it was replaced or kicked, or too much waited for
    /// it.
    Ended,
    /// The client has received more than was sent to it, or less than it had acknowledged.
    Counts,
    /// The gateway has refused the client with CLOSE: the token was not the session's, or the
    /// client is banned. It has no new session.
    Refused,
}

plain_enum! { NotResumed {
    0 => Unknown {}
    1 => Expired {}
    2 => Ended {}
    3 => Counts {}
    4 => Refused {}
} }

impl NotResumed {
    /// All values, in the order of their codes.
    pub const ALL: [NotResumed; 5] = [
        NotResumed::Unknown,
        NotResumed::Expired,
        NotResumed::Ended,
        NotResumed::Counts,
        NotResumed::Refused,
    ];

    /// Returns the code in WELCOME.
    pub const fn code(self) -> u32 {
        match self {
            NotResumed::Unknown => 0,
            NotResumed::Expired => 1,
            NotResumed::Ended => 2,
            NotResumed::Counts => 3,
            NotResumed::Refused => 4,
        }
    }

    /// Returns what a code in WELCOME means. One that this version does not know means as much as
    /// [`NotResumed::Unknown`].
    pub const fn from_code(code: u32) -> NotResumed {
        match code {
            1 => NotResumed::Expired,
            2 => NotResumed::Ended,
            3 => NotResumed::Counts,
            4 => NotResumed::Refused,
            _ => NotResumed::Unknown,
        }
    }

    /// Returns the name, as JSON and metrics have it.
    pub const fn name(self) -> &'static str {
        match self {
            NotResumed::Unknown => "unknown",
            NotResumed::Expired => "expired",
            NotResumed::Ended => "ended",
            NotResumed::Counts => "counts",
            NotResumed::Refused => "refused",
        }
    }
}

impl fmt::Display for NotResumed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotResumed::Unknown => "the gateway knows no such session",
            NotResumed::Expired => "the session was away for too long",
            NotResumed::Ended => "the session has ended meanwhile",
            NotResumed::Counts => "the two ends do not agree on what was sent",
            NotResumed::Refused => "the gateway has refused to resume the session",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_printed() {
        assert_eq!(alloc::format!("{:?}", Token([7; TOKEN])), "<16 secret bytes>");
    }

    #[test]
    fn codes_are_read_back() {
        for (code, why) in NotResumed::ALL.into_iter().enumerate() {
            assert_eq!(why.code() as usize, code);
            assert_eq!(NotResumed::from_code(why.code()), why);
        }
        assert_eq!(NotResumed::from_code(99), NotResumed::Unknown);
    }
}
