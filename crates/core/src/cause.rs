//! Why a link ended, and how sure we are of it.

use core::fmt;

use crate::time::Time;
use crate::wire::{CloseReason, Malformed};

/// The end of a link: what, how sure, and the times it rests on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Verdict {
    /// Why the link ended.
    pub cause: Cause,
    /// How sure that is.
    pub confidence: Confidence,
    /// When the verdict fell.
    pub at: Time,
    /// When it was due: the deadline that passed, or `at` where no deadline was involved.
    pub due: Time,
    /// The last evidence of the peer.
    pub last_heard: Time,
    /// How many probes were unanswered.
    pub probes: u8,
}

/// Why a link ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cause {
    /// It said goodbye: a CLOSE with this reason.
    PeerClosed(CloseReason),
    /// Its process ended: end of stream without a goodbye.
    PeerExited,
    /// A live stack refused our segment, or aborted the connection.
    PeerReset,
    /// Connected, and never introduced itself.
    HandshakeTimeout,
    /// It sent something illegal; closed without an answer.
    Protocol(Malformed),
    /// It reads, but more slowly than our bounded queue allows.
    SlowConsumer,
    /// An operator ended the session.
    Kicked,
    /// The gateway is being stopped or emptied.
    Drained,
    /// We ended the session ourselves, in good order.
    Finished,
    /// Our own error.
    LocalFault,
    /// The evidence supports none of these; the bound passed in silence.
    Unknown,
}

impl Cause {
    /// The names of all causes, as metrics and the API show them.
    pub const NAMES: [&'static str; 11] = [
        "peer_closed",
        "peer_exited",
        "peer_reset",
        "handshake_timeout",
        "protocol",
        "slow_consumer",
        "kicked",
        "drained",
        "finished",
        "local_fault",
        "unknown",
    ];

    /// The position of this cause's name in [`Cause::NAMES`].
    pub const fn index(self) -> usize {
        match self {
            Cause::PeerClosed(_) => 0,
            Cause::PeerExited => 1,
            Cause::PeerReset => 2,
            Cause::HandshakeTimeout => 3,
            Cause::Protocol(_) => 4,
            Cause::SlowConsumer => 5,
            Cause::Kicked => 6,
            Cause::Drained => 7,
            Cause::Finished => 8,
            Cause::LocalFault => 9,
            Cause::Unknown => 10,
        }
    }

    /// This cause's name, without its particulars.
    pub const fn name(self) -> &'static str {
        Cause::NAMES[self.index()]
    }

    /// How sure this cause is, given the evidence that leads to it.
    pub const fn confidence(self) -> Confidence {
        match self {
            Cause::PeerClosed(_)
            | Cause::HandshakeTimeout
            | Cause::Protocol(_)
            | Cause::SlowConsumer
            | Cause::Kicked
            | Cause::Drained
            | Cause::Finished
            | Cause::LocalFault => Confidence::Certain,
            Cause::PeerExited | Cause::PeerReset => Confidence::High,
            Cause::Unknown => Confidence::Medium,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::PeerClosed(reason) => write!(f, "the peer said goodbye: {reason}"),
            Cause::PeerExited => f.write_str("the peer's process ended without a goodbye"),
            Cause::PeerReset => f.write_str("the peer's machine reset the connection"),
            Cause::HandshakeTimeout => f.write_str("connected, but never introduced itself"),
            Cause::Protocol(malformed) => write!(f, "illegal bytes: {malformed}"),
            Cause::SlowConsumer => f.write_str("read more slowly than the bounded queue allows"),
            Cause::Kicked => f.write_str("ended by an operator"),
            Cause::Drained => f.write_str("ended by a drain"),
            Cause::Finished => f.write_str("ended by us, in good order"),
            Cause::LocalFault => f.write_str("an error of our own"),
            Cause::Unknown => f.write_str("silent beyond the bound, cause unknown"),
        }
    }
}

/// How sure a cause is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Confidence {
    /// Likely, on evidence that has other explanations.
    Medium,
    /// The evidence has no other common explanation.
    High,
    /// Said by the peer, or our own decision.
    Certain,
}

impl Confidence {
    /// `medium`, `high` or `certain`.
    pub const fn name(self) -> &'static str {
        match self {
            Confidence::Medium => "medium",
            Confidence::High => "high",
            Confidence::Certain => "certain",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_where_their_index_says() {
        assert_eq!(Cause::PeerClosed(CloseReason::Done).name(), "peer_closed");
        assert_eq!(Cause::LocalFault.name(), "local_fault");
        assert_eq!(Cause::Unknown.name(), "unknown");
        assert_eq!(Cause::Unknown.index() + 1, Cause::NAMES.len());
    }
}
