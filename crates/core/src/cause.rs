//! Why a link ended, and how sure we are of it.

use core::fmt;

use crate::grounds::{Ground, Grounds};
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
    /// What the cause rests on, where it was diagnosed.
    pub grounds: Grounds,
}

impl Verdict {
    /// Whether a deadline passed, rather than something having happened.
    pub fn is_silence(&self) -> bool {
        self.grounds.contains(Ground::ApplicationSilent) || self.cause == Cause::HandshakeTimeout
    }
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
    /// Its machine restarted: it came back with another boot id.
    PeerRebooted,
    /// Something on the way forgot the connection: the same process came back.
    MiddleboxForgot,
    /// Its kernel acknowledges, its application does not answer.
    AppHung,
    /// Its window is closed: its application has stopped reading.
    NotReading,
    /// It reads, but more slowly than our bounded queue allows.
    SlowConsumer,
    /// Nothing comes back.
    PathLost {
        /// Which way segments are lost.
        direction: Direction,
        /// How much is affected.
        scope: Scope,
    },
    /// A router or the neighbour table said that it cannot be reached.
    Unreachable,
    /// Our own interface, address or route is gone. No peer is condemned as such.
    LocalNetworkDown,
    /// Our own next hop does not answer.
    LocalNeighbourGone,
    /// Connected, and never introduced itself.
    HandshakeTimeout,
    /// It sent something illegal; closed without an answer.
    Protocol(Malformed),
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

/// Which way a path loses segments, as far as one end can tell.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// Nothing of the peer arrives, and nothing of ours is acknowledged.
    Both,
    /// The peer's segments arrive; ours do not.
    Outbound,
    /// Ours arrived, as the peer said when it came back; the peer's did not.
    Inbound,
}

/// How much a lost path affects, as far as other links tell.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scope {
    /// No other link can tell.
    Unknown,
    /// This flow alone: other links of the same host live.
    Flow,
    /// This host: other links of it died too, and other hosts live.
    Host,
    /// Many hosts at once.
    Many,
}

impl Direction {
    /// `both`, `outbound` or `inbound`.
    pub const fn name(self) -> &'static str {
        match self {
            Direction::Both => "both",
            Direction::Outbound => "outbound",
            Direction::Inbound => "inbound",
        }
    }
}

impl Scope {
    /// `unknown`, `flow`, `host` or `many`.
    pub const fn name(self) -> &'static str {
        match self {
            Scope::Unknown => "unknown",
            Scope::Flow => "flow",
            Scope::Host => "host",
            Scope::Many => "many",
        }
    }
}

impl Cause {
    /// The names of all causes, as metrics and the API show them.
    pub const NAMES: [&'static str; 19] = [
        "peer_closed",
        "peer_exited",
        "peer_reset",
        "peer_rebooted",
        "middlebox_forgot",
        "app_hung",
        "not_reading",
        "slow_consumer",
        "path_lost",
        "unreachable",
        "local_network_down",
        "local_neighbour_gone",
        "handshake_timeout",
        "protocol",
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
            Cause::PeerRebooted => 3,
            Cause::MiddleboxForgot => 4,
            Cause::AppHung => 5,
            Cause::NotReading => 6,
            Cause::SlowConsumer => 7,
            Cause::PathLost { .. } => 8,
            Cause::Unreachable => 9,
            Cause::LocalNetworkDown => 10,
            Cause::LocalNeighbourGone => 11,
            Cause::HandshakeTimeout => 12,
            Cause::Protocol(_) => 13,
            Cause::Kicked => 14,
            Cause::Drained => 15,
            Cause::Finished => 16,
            Cause::LocalFault => 17,
            Cause::Unknown => 18,
        }
    }

    /// This cause's name, without its particulars.
    pub const fn name(self) -> &'static str {
        Cause::NAMES[self.index()]
    }

    /// How sure this cause is where no diagnosis says otherwise.
    pub const fn confidence(self) -> Confidence {
        match self {
            Cause::PeerClosed(_)
            | Cause::PeerRebooted
            | Cause::MiddleboxForgot
            | Cause::HandshakeTimeout
            | Cause::Protocol(_)
            | Cause::SlowConsumer
            | Cause::Kicked
            | Cause::Drained
            | Cause::Finished
            | Cause::LocalFault => Confidence::Certain,
            Cause::PeerExited
            | Cause::PeerReset
            | Cause::AppHung
            | Cause::NotReading
            | Cause::Unreachable
            | Cause::LocalNetworkDown
            | Cause::LocalNeighbourGone => Confidence::High,
            Cause::PathLost { .. } | Cause::Unknown => Confidence::Medium,
        }
    }

    /// Whether the peer's return, or what happens to others, may still show a better cause.
    pub const fn is_provisional(self) -> bool {
        match self {
            Cause::PeerReset | Cause::PathLost { .. } | Cause::Unreachable | Cause::Unknown => true,
            Cause::PeerClosed(_)
            | Cause::PeerExited
            | Cause::PeerRebooted
            | Cause::MiddleboxForgot
            | Cause::AppHung
            | Cause::NotReading
            | Cause::SlowConsumer
            | Cause::LocalNetworkDown
            | Cause::LocalNeighbourGone
            | Cause::HandshakeTimeout
            | Cause::Protocol(_)
            | Cause::Kicked
            | Cause::Drained
            | Cause::Finished
            | Cause::LocalFault => false,
        }
    }

    /// What an operator can do about it, in one sentence.
    pub const fn advice(self) -> &'static str {
        match self {
            Cause::PeerClosed(_) => "Nothing: the peer ended the session in good order.",
            Cause::PeerExited => "Look at the peer's own log: its process ended without a goodbye.",
            Cause::PeerReset => {
                "Look whether the peer restarted, or whether a firewall on the way resets \
                 connections it forgot."
            }
            Cause::PeerRebooted => "Look at the peer's machine: it restarted.",
            Cause::MiddleboxForgot => {
                "Let heartbeats come more often than the NAT or firewall on the way forgets: \
                 shorten idle or set keepalive."
            }
            Cause::AppHung => {
                "Look at the peer's process: its machine answers, the process does not (a \
                 deadlock, a long pause, a debugger)."
            }
            Cause::NotReading => {
                "Look at the peer's process: it has stopped reading what it is sent."
            }
            Cause::SlowConsumer => {
                "Send this peer less, or raise limits.outbox if it only lags for moments."
            }
            Cause::PathLost { .. } => {
                "Look at the network between here and the peer, or whether its machine is off."
            }
            Cause::Unreachable => {
                "Ask whoever runs the route: a router refuses to pass packets on."
            }
            Cause::LocalNetworkDown => {
                "Look at this machine's own interface, address and routes; the peers are not at \
                 fault."
            }
            Cause::LocalNeighbourGone => {
                "Look at this machine's next hop: it does not answer on the local network."
            }
            Cause::HandshakeTimeout => {
                "Look who connects without speaking: a port scan, a health check, or a client \
                 that waits to be spoken to."
            }
            Cause::Protocol(_) => "Look who speaks another protocol to this port.",
            Cause::Kicked => "Nothing: an operator ended the session.",
            Cause::Drained => "Nothing: the gateway was emptied.",
            Cause::Finished => "Nothing: we ended the session in good order.",
            Cause::LocalFault => "Look at this machine's log: memory, descriptors, disk.",
            Cause::Unknown => {
                "Look at the timeline: what the kernel showed fits no cause, or could not be read, \
                 as on any system but Linux."
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::PeerClosed(reason) => write!(f, "the peer said goodbye: {reason}"),
            Cause::PeerExited => f.write_str("the peer's process ended without a goodbye"),
            Cause::PeerReset => f.write_str("the peer's machine reset the connection"),
            Cause::PeerRebooted => f.write_str("the peer's machine restarted"),
            Cause::MiddleboxForgot => f.write_str("something on the way forgot the connection"),
            Cause::AppHung => f.write_str("the peer's machine answers, its application does not"),
            Cause::NotReading => f.write_str("the peer's application has stopped reading"),
            Cause::SlowConsumer => f.write_str("read more slowly than the bounded queue allows"),
            Cause::PathLost { direction, scope } => {
                f.write_str(match direction {
                    Direction::Both => "nothing comes back",
                    Direction::Outbound => "what we send does not arrive",
                    Direction::Inbound => "what the peer sends does not arrive",
                })?;
                f.write_str(match scope {
                    Scope::Unknown => "",
                    Scope::Flow => ", on this flow alone",
                    Scope::Host => ", from the whole host",
                    Scope::Many => ", from many hosts at once",
                })
            }
            Cause::Unreachable => f.write_str("a router said that the peer cannot be reached"),
            Cause::LocalNetworkDown => f.write_str("our own network is down"),
            Cause::LocalNeighbourGone => f.write_str("our own next hop does not answer"),
            Cause::HandshakeTimeout => f.write_str("connected, but never introduced itself"),
            Cause::Protocol(malformed) => write!(f, "illegal bytes: {malformed}"),
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
