//! Correlates verdicts of silence: groups verdicts that fall together into one outage, and settles
//! the scope of each path loss.
//!
//! Peers that lose one path at the same moment were last heard at different moments, at most one
//! idle time apart, so their verdicts fall within the idle time of their policy. Enough verdicts of
//! one network and listener within that window are one outage. Its beginning is reported once, when
//! no more verdicts are expected; its end is reported when half of its hosts have returned.
//!
//! Other links of the same host settle the scope of a single loss. A link that was heard, and whose
//! kernel acknowledged what we sent, while the probes of the lost one went unanswered shows that
//! only the flow is blocked, unless the host was suspect meanwhile: then the path may have healed.
//! A link that was only heard shows nothing of our direction, and the scope stays unknown. If other
//! links of the host died too and other hosts live, the host is lost. That is sure only if another
//! host of its network lives and none is suspect: the way to the others may be another one.

mod groups;
mod hosts;
mod saved;
mod scopes;
mod suspects;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use core::fmt;
use core::net::IpAddr;

use groups::{Group, Key};
use hosts::Hosts;
pub use hosts::{HOSTS, SIBLINGS};
use scopes::Unsettled;
pub use suspects::SUSPECTS;
use suspects::Suspects;

use crate::cause::{Cause, Confidence, Direction, Scope};
use crate::grounds::{Ground, Grounds};
use crate::machine::{self, Deadline, InputOf, Machine, Reason, kinds_of_input, saved_whole};
use crate::time::{Span, Time};
use crate::wire::BootId;

/// The minimum number of verdicts in an outage: one or two may fall together by chance. For our own
/// network one is enough, because its examination proves the fault.
pub const LEAST_AFFECTED: u32 = 3;

/// The minimum share of an outage: 1/10 of the sessions that were online in its network. In a large
/// network a few verdicts fall together at any time.
pub const LEAST_SHARE: u32 = 10;

/// The minimum number of hosts for [`Scope::Many`].
pub const MANY_HOSTS: usize = 3;

/// The time without another verdict after which an outage is reported, if no session of its network
/// is suspect; otherwise it is reported at the end of its window, so that its count is complete. A
/// local outage does not wait for suspects.
pub const QUIET: Span = Span::from_millis(500);

/// The minimum and maximum window, for any policy.
pub const WINDOW: (Span, Span) = (Span::from_secs(1), Span::from_secs(60));

/// The maximum number of networks with gathered verdicts or a current outage. When full, the oldest
/// group ends.
pub const GROUPS: usize = 1_024;

/// The maximum number of hosts per outage whose return is awaited. Verdicts of further hosts are
/// counted, but their return is not awaited.
pub const HOSTS_PER_OUTAGE: usize = 1_024;

/// The maximum number of networks with a session count. When full, sessions of other networks are
/// not counted, and an outage there reports too large a share.
pub const NETWORKS: usize = 65_536;

/// The maximum number of verdicts whose scope is open. When full, the scope of a further verdict
/// stays unknown.
pub const UNSETTLED: usize = 4_096;

/// The time after the last verdict at which an outage ends although its hosts have not returned.
pub const OUTAGE_TIMEOUT: Span = Span::from_secs(60 * 60);

/// A network prefix: the first 24 bits of an IPv4 address, or the first 48 of an IPv6 address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Network {
    /// The first 24 bits of an IPv4 address.
    V4([u8; 3]),
    /// The first 48 bits of an IPv6 address.
    V6([u8; 6]),
}

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Network {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Network::V4([a, b, c])
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, ..] = address.octets();
                Network::V6([a, b, c, d, e, f])
            }
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Network::V4([a, b, c]) => write!(f, "{a}.{b}.{c}.0/24"),
            Network::V6([a, b, c, d, e, g]) => {
                let word = |high, low| u16::from_be_bytes([high, low]);
                let (a, b, c) = (word(a, b), word(c, d), word(e, g));
                let net = core::net::Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0);
                write!(f, "{net}/48")
            }
        }
    }
}

/// The place of an outage: this machine, or one network of peers at one listener.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Site {
    /// This machine: its interface, address, route or gateway. One outage covers all listeners and
    /// networks.
    Local,
    /// The sessions of one listener in one network of peers.
    Network {
        /// The network of the peers.
        network: Network,
        /// The index of the listener.
        listener: u16,
    },
}

/// What the world did, for [`Outages`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum World {
    /// A session is online.
    Joined {
        /// The session's number.
        session: u64,
        /// The index of its listener.
        listener: u16,
        /// The address of the peer.
        address: IpAddr,
        /// The boot id of the peer's machine; zeros if unknown.
        boot_id: BootId,
    },
    /// A session became suspect, and so did its host.
    Suspect {
        /// The session's number.
        session: u64,
        /// The index of its listener.
        listener: u16,
        /// The address of the peer.
        address: IpAddr,
    },
    /// A session is no longer suspect.
    Recovered {
        /// The session's number.
        session: u64,
    },
    /// A session that was online has ended.
    Ended {
        /// The session's number.
        session: u64,
        /// The index of its listener.
        listener: u16,
        /// The address of the peer.
        address: IpAddr,
        /// The boot id of the peer's machine; zeros if unknown.
        boot_id: BootId,
        /// The cause of the verdict.
        cause: Cause,
        /// The findings that support it.
        grounds: Grounds,
        /// The time since the last evidence of the peer.
        silent: Span,
        /// The part of `silent` in which probes went unanswered; a lower bound.
        asked: Span,
    },
}

/// An answer to a request of [`Outages`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The answer to [`Output::AskSiblings`]: the state of other sessions of the host.
    Siblings {
        /// The session that ended.
        session: u64,
        /// The time since the latest evidence of any sibling; `None` if none is online.
        heard_ago: Option<Span>,
        /// The time since our latest bytes left that reached a sibling at the first attempt, as an
        /// acknowledgement shows; `None` if none is known.
        reached_ago: Option<Span>,
        /// Whether a sibling is suspect.
        suspect: bool,
    },
    /// The next deadline may have come.
    Deadline,
}

/// An input of [`Outages`].
pub type Input = machine::Input<World, Answer>;

kinds_of_input!(World, Answer);

/// An output of [`Outages`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// An outage was detected.
    Began(Outage),
    /// An outage is over.
    Over(Outage),
    /// The scope of a verdict is settled, or stays unknown. [`Scope::Flow`]: another link of the
    /// same host lived and was reached meanwhile.
    Scoped {
        /// The session of the verdict.
        session: u64,
        /// The scope; [`Scope::Unknown`] if no other link gave evidence.
        scope: Scope,
        /// How sure the scope is.
        confidence: Confidence,
    },
    /// A request for the state of other sessions of a host, answered by [`Answer::Siblings`] or not
    /// at all.
    AskSiblings {
        /// The session that ended, whose scope is open.
        session: u64,
        /// Other sessions of the same host; 0 marks an unused place.
        siblings: [u64; SIBLINGS],
    },
}

/// Verdicts of silence that fell together at one place, reported as one outage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outage {
    /// The outage's number, from 1.
    pub number: u64,
    /// The place of the outage.
    pub place: Site,
    /// When the first verdict fell.
    pub began: Time,
    /// When the last verdict fell.
    pub last: Time,
    /// The number of verdicts.
    pub affected: u32,
    /// The number of sessions online at this place before the outage.
    pub of_online: u32,
    /// The number of affected hosts, at most [`HOSTS_PER_OUTAGE`].
    pub hosts: u32,
    /// The number of these hosts that returned.
    pub returned: u32,
    /// True if enough hosts returned; false while the outage goes on, and if it ended otherwise.
    pub recovered: bool,
}

/// The machine that groups verdicts of silence into outages and settles scopes.
#[derive(Clone, Debug, Default)]
pub struct Outages {
    hosts: Hosts,
    suspects: Suspects,
    groups: BTreeMap<Key, Group>,
    unsettled: BTreeMap<u64, Unsettled>,
    timers: BTreeSet<(Time, Timer)>,
    outputs: VecDeque<Output>,
    number: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Timer {
    Group(Key),
    Unsettled(u64),
}

/// A session that ended in silence: its host, its group, and the time and window of the verdict.
#[derive(Clone, Copy, Debug)]
struct SilentEnd {
    address: IpAddr,
    key: Key,
    at: Time,
    window: Span,
}

impl Outages {
    /// Creates a machine with no session online and no outage.
    pub fn new() -> Outages {
        Outages::default()
    }

    /// Returns how many sessions are known to be online.
    pub fn online(&self) -> u32 {
        self.hosts.online()
    }

    fn session_ended(&mut self, now: Time, session: u64, key: Key, address: IpAddr, end: End) {
        let End { boot_id, cause, grounds, silent, asked } = end;
        let window = silent.less(asked).max(WINDOW.0).min(WINDOW.1);
        let until = now + window + QUIET;
        let unsettled = Unsettled { address, key, at: now, silent, asked, until, alive: false };
        let place = match cause {
            Cause::LocalNetworkDown => Key::Local,
            // A silent next hop may be the peer itself, which is no fault of this machine.
            Cause::LocalNeighbourGone if grounds.contains(Ground::GatewaySilent) => Key::Local,
            Cause::LocalNeighbourGone
            | Cause::PathLost { .. }
            | Cause::Unreachable
            | Cause::Unknown => key,
            Cause::AppHung => {
                // Many machines may share the address of a proxy that acknowledges for them all.
                let siblings = self.hosts.siblings_of(address, boot_id);
                if siblings.is_some() {
                    self.ask(session, unsettled, siblings);
                }
                return;
            }
            Cause::PeerClosed(_)
            | Cause::PeerExited
            | Cause::PeerReset
            | Cause::PeerRebooted
            | Cause::MiddleboxForgot
            | Cause::MiddleboxReset
            | Cause::NotReading
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
            | Cause::LocalFault
            | Cause::GatewayLost => return,
        };
        self.gather(SilentEnd { address, key: place, at: now, window });
        self.hosts.suspected(address, session, now);
        let unscoped = matches!(
            cause,
            Cause::PathLost {
                direction: Direction::Both | Direction::Outbound,
                scope: Scope::Unknown
            }
        );
        if unscoped {
            self.ask(session, unsettled, self.hosts.siblings(address));
        }
    }

    fn expire(&mut self, now: Time) {
        while let Some((at, timer)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Group(key) => self.group_deadline(key),
                Timer::Unsettled(session) => self.settle_at_deadline(session),
            }
        }
    }
}

/// The machine, the cause with its grounds, and the times of one ended session.
#[derive(Clone, Copy, Debug)]
struct End {
    boot_id: BootId,
    cause: Cause,
    grounds: Grounds,
    silent: Span,
    asked: Span,
}

impl Machine for Outages {
    type World<'a> = World;
    type Answer = Answer;
    type Output<'a> = Output;
    type Part = ();

    fn handle<'a>(&mut self, now: Time, input: impl Into<InputOf<'a, Self>>) {
        match input.into() {
            Input::World(World::Joined { session, listener, address, boot_id }) => {
                let network = address.into();
                self.hosts.joined(session, address, boot_id, (listener, network));
                self.returned(Key::Network { network, listener }, address);
                self.returned(Key::Local, address);
            }
            Input::World(World::Suspect { session, listener, address }) => {
                self.hosts.suspected(address, session, now);
                let network = address.into();
                self.suspects.insert(session, Key::Network { network, listener });
            }
            Input::World(World::Recovered { session }) => {
                if let Some(key) = self.suspects.remove(session) {
                    self.rearm(key);
                }
            }
            Input::World(World::Ended {
                session,
                listener,
                address,
                boot_id,
                cause,
                grounds,
                silent,
                asked,
            }) => {
                let network = address.into();
                self.hosts.ended(session, address, (listener, network));
                if let Some(key) = self.suspects.remove(session) {
                    self.rearm(key);
                }
                let key = Key::Network { network, listener };
                let end = End { boot_id, cause, grounds, silent, asked };
                self.session_ended(now, session, key, address, end);
            }
            Input::Answer(Answer::Siblings { session, heard_ago, reached_ago, suspect }) => {
                self.siblings_answered(now, session, (heard_ago, reached_ago), suspect);
            }
            Input::Answer(Answer::Deadline) => self.expire(now),
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn deadline_of(&self, (): ()) -> Option<Deadline> {
        self.timers.first().map(|(at, _)| Deadline::exact(*at, Reason::Settle))
    }

    saved_whole!(machine, now, state, Outages::load(now, state)?);
}

#[cfg(test)]
mod tests;
