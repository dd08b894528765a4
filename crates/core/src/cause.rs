//! Why a link ended, and how sure the diagnosis is.

mod saved;
mod verdict;

use core::fmt;

pub use verdict::Verdict;

use crate::denial::Denial;
use crate::wire::{CloseReason, Malformed};

/// The advice on [`Cause::AppHung`].
const LOOK_AT_HUNG: &str = "Look at the peer's process, which does not answer (a deadlock, a long \
                            pause, a debugger); or, if a proxy, NAT or load balancer stands on the \
                            way, at the path behind it: it may acknowledge for a peer that is cut \
                            off.";

/// The text of this cause says what the times of its verdict are: they are not those of the end.
const GATEWAY_LOST: &str = "the gateway ended without a drain while the session was online; when \
                            is unknown, and the times are those of its next start";

/// The reason why a link ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cause {
    /// The peer sent a CLOSE with this reason.
    PeerClosed(CloseReason),
    /// The peer's process ended: end of stream without a CLOSE.
    PeerExited,
    /// A live TCP stack refused our segment or aborted the connection.
    PeerReset,
    /// The peer's machine restarted: the peer returned with a new boot id.
    PeerRebooted,
    /// A NAT or firewall on the path forgot the connection: the same process returned.
    MiddleboxForgot,
    /// Something on the path ended a connection that was in use: the same process returned, and
    /// neither end had closed.
    MiddleboxReset,
    /// The peer's kernel acknowledges, but the application does not answer.
    AppHung,
    /// The peer's receive window is closed: the application has stopped reading.
    NotReading,
    /// The peer reads more slowly than our bounded queue allows.
    SlowConsumer,
    /// The path loses the segments of one direction or of both.
    PathLost {
        /// The direction in which segments are lost.
        direction: Direction,
        /// How many flows or hosts are affected.
        scope: Scope,
    },
    /// A router or the neighbour table reported that the peer cannot be reached.
    Unreachable,
    /// Our own interface, address or route is gone. The peer is not at fault.
    LocalNetworkDown,
    /// The next hop of this machine does not answer.
    LocalNeighbourGone,
    /// The peer connected, but did not complete the handshake in time.
    HandshakeTimeout,
    /// The peer sent illegal bytes, or held a frame incomplete for too long; the link was closed
    /// without an answer.
    Protocol(Malformed),
    /// An operator ended the session.
    Kicked,
    /// A newer login of the same identity took the session's place.
    Replaced,
    /// The token of the peer was not accepted, or is no longer valid.
    Unauthorized,
    /// The login of the peer was refused, for this reason.
    Refused(Denial),
    /// The peer sent more messages, bytes or heartbeats than its listener allows.
    Flooding,
    /// The gateway is being stopped or emptied.
    Drained,
    /// This end finished the session in good order.
    Finished,
    /// An error of this machine or process ended the link.
    LocalFault,
    /// The gateway was killed while the session was online; its next start found that out. No link
    /// ends with it.
    GatewayLost,
    /// The bound passed in silence, and the evidence supports no other cause.
    Unknown,
}

/// The direction in which a path loses segments, as far as the evidence shows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Direction {
    /// No segment of the peer arrives, and none of ours is acknowledged.
    Both,
    /// Segments of the peer arrive; ours do not reach the peer.
    Outbound,
    /// Our segments reached the peer, as its account shows; segments of the peer were lost.
    Inbound,
}

/// The extent of a path loss, as far as other links show it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scope {
    /// No other link gave evidence.
    Unknown,
    /// Only this flow is lost: other links of the same host live.
    Flow,
    /// The host is lost: other links of the same host died too, and other hosts live.
    Host,
    /// Many hosts are lost at once.
    Many,
    /// Only large packets are lost: a hop carries less than the packets that both ends send, and
    /// the router's message that says so is filtered (an MTU black hole).
    LargePackets,
}

impl Direction {
    /// Returns `both`, `outbound` or `inbound`.
    pub const fn name(self) -> &'static str {
        match self {
            Direction::Both => "both",
            Direction::Outbound => "outbound",
            Direction::Inbound => "inbound",
        }
    }
}

impl Scope {
    /// Returns `unknown`, `flow`, `host`, `many` or `large_packets`.
    pub const fn name(self) -> &'static str {
        match self {
            Scope::Unknown => "unknown",
            Scope::Flow => "flow",
            Scope::Host => "host",
            Scope::Many => "many",
            Scope::LargePackets => "large_packets",
        }
    }
}

impl Cause {
    /// The names of all causes, as metrics and the API show them.
    pub const NAMES: [&'static str; 25] = [
        "peer_closed",
        "peer_exited",
        "peer_reset",
        "peer_rebooted",
        "middlebox_forgot",
        "middlebox_reset",
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
        "replaced",
        "unauthorized",
        "refused",
        "flooding",
        "drained",
        "finished",
        "local_fault",
        "gateway_lost",
        "unknown",
    ];

    /// Returns the position of this cause's name in [`Cause::NAMES`].
    pub const fn index(self) -> usize {
        match self {
            Cause::PeerClosed(_) => 0,
            Cause::PeerExited => 1,
            Cause::PeerReset => 2,
            Cause::PeerRebooted => 3,
            Cause::MiddleboxForgot => 4,
            Cause::MiddleboxReset => 5,
            Cause::AppHung => 6,
            Cause::NotReading => 7,
            Cause::SlowConsumer => 8,
            Cause::PathLost { .. } => 9,
            Cause::Unreachable => 10,
            Cause::LocalNetworkDown => 11,
            Cause::LocalNeighbourGone => 12,
            Cause::HandshakeTimeout => 13,
            Cause::Protocol(_) => 14,
            Cause::Kicked => 15,
            Cause::Replaced => 16,
            Cause::Unauthorized => 17,
            Cause::Refused(_) => 18,
            Cause::Flooding => 19,
            Cause::Drained => 20,
            Cause::Finished => 21,
            Cause::LocalFault => 22,
            Cause::GatewayLost => 23,
            Cause::Unknown => 24,
        }
    }

    /// Returns this cause's name, without reason, direction or scope.
    pub const fn name(self) -> &'static str {
        Cause::NAMES[self.index()]
    }

    /// Returns the confidence that applies unless a diagnosis sets another.
    pub const fn confidence(self) -> Confidence {
        match self {
            Cause::PeerClosed(_)
            | Cause::PeerRebooted
            | Cause::MiddleboxForgot
            | Cause::MiddleboxReset
            | Cause::HandshakeTimeout
            | Cause::Protocol(_)
            | Cause::SlowConsumer
            | Cause::Kicked
            | Cause::Replaced
            | Cause::Unauthorized
            | Cause::Refused(_)
            | Cause::Flooding
            | Cause::Drained
            | Cause::Finished
            | Cause::LocalFault
            | Cause::GatewayLost => Confidence::Certain,
            Cause::PeerExited
            | Cause::PeerReset
            | Cause::NotReading
            | Cause::Unreachable
            | Cause::LocalNetworkDown
            | Cause::LocalNeighbourGone => Confidence::High,
            Cause::AppHung | Cause::PathLost { .. } | Cause::Unknown => Confidence::Medium,
        }
    }

    /// Returns true if the peer's return or the fate of other links may still show a better cause.
    pub const fn is_provisional(self) -> bool {
        match self {
            Cause::PeerExited
            | Cause::PeerReset
            | Cause::AppHung
            | Cause::PathLost { .. }
            | Cause::Unreachable
            | Cause::Unknown => true,
            Cause::PeerClosed(_)
            | Cause::PeerRebooted
            | Cause::MiddleboxForgot
            | Cause::MiddleboxReset
            | Cause::NotReading
            | Cause::SlowConsumer
            | Cause::LocalNetworkDown
            | Cause::LocalNeighbourGone
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
            | Cause::GatewayLost => false,
        }
    }

    /// Returns whether a session that can be resumed outlives a link that ended for this cause: the
    /// peer may still be there, and has not said that it is done. A peer that has judged a silence
    /// means to come back, and so do those that it drains.
    pub const fn leaves_away(self) -> bool {
        match self {
            Cause::PeerExited
            | Cause::PeerReset
            | Cause::MiddleboxForgot
            | Cause::MiddleboxReset
            | Cause::AppHung
            | Cause::NotReading
            | Cause::PathLost { .. }
            | Cause::Unreachable
            | Cause::LocalNetworkDown
            | Cause::LocalNeighbourGone
            | Cause::LocalFault
            | Cause::Unknown
            | Cause::PeerClosed(CloseReason::Silent | CloseReason::Drained) => true,
            Cause::PeerClosed(_)
            | Cause::PeerRebooted
            | Cause::SlowConsumer
            | Cause::HandshakeTimeout
            | Cause::Protocol(_)
            | Cause::Kicked
            | Cause::Replaced
            | Cause::Unauthorized
            | Cause::Refused(_)
            | Cause::Flooding
            | Cause::Drained
            | Cause::Finished
            | Cause::GatewayLost => false,
        }
    }

    /// Returns one sentence on what an operator can do about this cause.
    pub const fn advice(self) -> &'static str {
        match self {
            Cause::PeerClosed(_) => "Nothing: the peer ended the session in good order.",
            Cause::PeerExited => {
                "Look at the peer's own log: its process ended, or closed its side, without a \
                 goodbye."
            }
            Cause::PeerReset => {
                "Look whether the peer restarted, or whether a firewall on the way resets \
                 connections it forgot."
            }
            Cause::PeerRebooted => "Look at the peer's machine: it restarted.",
            Cause::MiddleboxForgot => {
                "Let heartbeats come more often than the NAT or firewall on the way forgets: \
                 shorten idle or set keepalive."
            }
            Cause::MiddleboxReset => {
                "Look at the firewalls, proxies and load balancers on the way: one of them ends \
                 connections that are in use."
            }
            Cause::AppHung => LOOK_AT_HUNG,
            Cause::NotReading => "Look at the peer's process: it no longer reads what it is sent.",
            Cause::SlowConsumer => {
                "Send this peer less, or raise limits.outbox if it only lags for moments."
            }
            Cause::PathLost { scope: Scope::LargePackets, .. } => {
                "Lower the MTU or clamp the MSS to what the path carries, let ICMP \
                 fragmentation-needed and packet-too-big pass, or set net.ipv4.tcp_mtu_probing=1 \
                 at both ends."
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
                "Look at the next hop, or at the peer if both are on one network: no answer."
            }
            Cause::HandshakeTimeout => {
                "Look who connects without speaking: a port scan, a health check, or a client \
                 that waits to be spoken to."
            }
            Cause::Protocol(malformed) => malformed.advice(),
            Cause::Kicked => "Nothing: an operator ended the session.",
            Cause::Replaced => {
                "Nothing, if the user went to another device; else look who logs in with this \
                 identity."
            }
            Cause::Unauthorized => {
                "Look at the token: its time, its issuer, its audience, the key that signed it."
            }
            Cause::Refused(denial) => denial.advice(),
            Cause::Flooding => "Look what the peer sends, or raise the rates of its listener.",
            Cause::Drained => "Nothing: the gateway was emptied.",
            Cause::Finished => "Nothing: we ended the session in good order.",
            Cause::LocalFault => "Look at this machine's log: memory, descriptors, disk.",
            Cause::GatewayLost => "Look in the log of the system for what killed the gateway.",
            Cause::Unknown => {
                "Look at the timeline: what the kernel showed fits no cause. Where it shows \
                 nothing (of a beacon, or on any system but Linux), look at the peer's power, \
                 network and log."
            }
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::PeerClosed(reason) => write!(f, "the peer said goodbye: {reason}"),
            Cause::PeerExited => {
                f.write_str("the peer's process ended, or closed its side, without a goodbye")
            }
            Cause::PeerReset => f.write_str("the peer's machine reset the connection"),
            Cause::PeerRebooted => f.write_str("the peer's machine restarted"),
            Cause::MiddleboxForgot => f.write_str("something on the way forgot the connection"),
            Cause::MiddleboxReset => {
                f.write_str("something on the way ended the connection while both ends lived")
            }
            Cause::AppHung => f.write_str("the peer's machine answers, its application does not"),
            Cause::NotReading => f.write_str("the peer's application has stopped reading"),
            Cause::SlowConsumer => f.write_str("read more slowly than the bounded queue allows"),
            Cause::PathLost { direction, scope: Scope::LargePackets } => {
                f.write_str(match direction {
                    Direction::Both => "large packets do not arrive",
                    Direction::Outbound => "the large packets that we send do not arrive",
                    Direction::Inbound => "the large packets that the peer sends do not arrive",
                })
            }
            Cause::PathLost { direction, scope } => {
                f.write_str(match direction {
                    Direction::Both => "nothing comes back",
                    Direction::Outbound => "what we send does not arrive",
                    Direction::Inbound => "what the peer sends does not arrive",
                })?;
                f.write_str(match scope {
                    Scope::Unknown | Scope::LargePackets => "",
                    Scope::Flow => ", on this flow alone",
                    Scope::Host => ", from the whole host",
                    Scope::Many => ", from many hosts at once",
                })
            }
            Cause::Unreachable => f.write_str("a router said that the peer cannot be reached"),
            Cause::LocalNetworkDown => f.write_str("our own network is down"),
            Cause::LocalNeighbourGone => f.write_str("our own next hop does not answer"),
            Cause::HandshakeTimeout => f.write_str("connected, but never introduced itself"),
            Cause::Protocol(Malformed::StalledFrame) => {
                f.write_str("began a frame and did not complete it in time")
            }
            Cause::Protocol(Malformed::OldestFrame) => {
                f.write_str("had the oldest incomplete frame when their memory was full")
            }
            Cause::Protocol(Malformed::Tls) => f.write_str("spoke TLS where it is not spoken"),
            Cause::Protocol(Malformed::NoTls) => f.write_str("spoke no TLS where it is spoken"),
            Cause::Protocol(Malformed::TlsRefused) => f.write_str("refused our TLS"),
            Cause::Protocol(Malformed::Certificate) => {
                f.write_str("showed no certificate that is believed")
            }
            Cause::Protocol(Malformed::Claim) => {
                f.write_str("claimed another identity than it has proved")
            }
            Cause::Protocol(Malformed::Subject) => {
                f.write_str("showed a certificate that names no identity")
            }
            Cause::Protocol(malformed) => write!(f, "illegal bytes: {malformed}"),
            Cause::Kicked => f.write_str("ended by an operator"),
            Cause::Replaced => f.write_str("replaced by a newer login of the same identity"),
            Cause::Unauthorized => {
                f.write_str("not authorized: its token was not accepted, or its time is over")
            }
            Cause::Refused(denial) => write!(f, "its login was refused: {denial}"),
            Cause::Flooding => f.write_str("it sent more than its listener allows"),
            Cause::Drained => f.write_str("ended by a drain"),
            Cause::Finished => f.write_str("ended by us, in good order"),
            Cause::LocalFault => f.write_str("an error of our own"),
            Cause::GatewayLost => f.write_str(GATEWAY_LOST),
            Cause::Unknown => f.write_str("lost for an unknown cause"),
        }
    }
}

/// The confidence in a cause.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Confidence {
    /// The cause is likely, but the evidence has other common explanations.
    Medium,
    /// The evidence has no other common explanation.
    High,
    /// The peer stated the cause, or the cause is our own decision.
    Certain,
}

impl Confidence {
    /// Returns `medium`, `high` or `certain`.
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
    fn each_name_stands_at_its_index() {
        assert_eq!(Cause::PeerClosed(CloseReason::Done).name(), "peer_closed");
        assert_eq!(Cause::LocalFault.name(), "local_fault");
        assert_eq!(Cause::Unknown.name(), "unknown");
        assert_eq!(Cause::Unknown.index() + 1, Cause::NAMES.len());
    }
}
