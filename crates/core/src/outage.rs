//! Verdicts of silence that fall together: one outage rather than many deaths, and how much of a
//! path is lost.
//!
//! Peers that lose one path at one moment were last heard at different moments, at most as far
//! apart as heartbeats are: within the idle time of their policy their verdicts fall as well.
//! Verdicts of one network and listener within that window, if they are enough, are one outage. It
//! is told once, when no more can fall, and its end when half of its hosts are back.
//!
//! The scope of a single loss is settled by other links of the same host: one that was heard while
//! the lost one was asked in vain shows that the flow alone is blocked, unless the host was doubted
//! meanwhile, for then the path may have healed in between. Where others of the host died too and
//! other hosts live, the host is silent.

mod groups;
mod hosts;
mod suspects;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use core::fmt;
use core::net::IpAddr;

use groups::{Group, Key};
use hosts::Hosts;
pub use hosts::{GONE, HOSTS, SESSIONS, SETTLING, SIBLINGS};
pub use suspects::SUSPECTS;
use suspects::Suspects;

use crate::cause::{Cause, Direction, Scope};
use crate::tap::Machine;
use crate::time::{Span, Time};

/// Verdicts that make an outage, at the least: one or two fall together by chance. One is enough
/// where our own network is down, which chance does not explain.
pub const LEAST_AFFECTED: u32 = 3;

/// An outage takes at least one in so many of the sessions that were online in its network: in a
/// large one, a few fall together at any time.
pub const LEAST_SHARE: u32 = 10;

/// Hosts that make [`Scope::Many`], at the least.
pub const MANY_HOSTS: usize = 3;

/// An outage is told when nobody in its network is suspected any more and no verdict was added for
/// so long, or at the end of its window, so that its count is whole. What is down here is told
/// without waiting for the others.
pub const QUIET: Span = Span::from_millis(500);

/// The shortest and the longest window, whatever the policy.
pub const WINDOW: (Span, Span) = (Span::from_secs(1), Span::from_secs(60));

/// Networks whose verdicts are gathered, or whose outage goes on, at the same time. When full, the
/// one that began first is over.
pub const GROUPS: usize = 1_024;

/// Hosts of one outage whose return is waited for; more are counted, and not waited for.
pub const HOSTS_PER_OUTAGE: usize = 1_024;

/// Networks whose sessions are counted. When full, sessions of others are not, and an outage there
/// shows a share that is too large.
pub const NETWORKS: usize = 65_536;

/// Verdicts whose scope is being settled. When full, that of another stays unknown.
pub const UNSETTLED: usize = 4_096;

/// An outage whose hosts do not come back is over after this time without another verdict.
pub const FORGOTTEN: Span = Span::from_secs(60 * 60);

/// A network: the first 24 bits of an IPv4 address, the first 48 of an IPv6 address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Network {
    /// 24 bits.
    V4([u8; 3]),
    /// 48 bits.
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

/// Where an outage is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Site {
    /// Here: our own interface, address, route or next hop. All listeners and networks are one.
    Local,
    /// In a network of peers, as far as one listener has to do with it.
    Network {
        /// The network.
        network: Network,
        /// The index of the listener.
        listener: u16,
    },
}

/// What can change it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// A session is online.
    Joined {
        /// Which.
        session: u64,
        /// The index of its listener.
        listener: u16,
        /// Where it comes from.
        address: IpAddr,
    },
    /// A session is suspected: its host is doubted.
    Suspect {
        /// Which.
        session: u64,
        /// The index of its listener.
        listener: u16,
        /// Where it comes from.
        address: IpAddr,
    },
    /// A session is suspected no more.
    Recovered {
        /// Which.
        session: u64,
    },
    /// A session that was online has ended.
    Ended {
        /// Which.
        session: u64,
        /// The index of its listener.
        listener: u16,
        /// Where it came from.
        address: IpAddr,
        /// Why.
        cause: Cause,
        /// How long it had not been heard.
        silent: Span,
        /// For how long of that it was asked in vain; rather less than more.
        asked: Span,
    },
    /// What the siblings said that [`Output::AskSiblings`] asked for.
    Siblings {
        /// The session that had ended.
        session: u64,
        /// How long ago the one of them was heard that was heard last; `None` if none is online.
        heard_ago: Option<Span>,
        /// Whether one of them is suspected.
        suspect: bool,
    },
    /// Inputs were lost: who is online must be learned anew, from a list that is asked for after
    /// this. Until it is complete, an outage shows a share that is too large.
    Missed,
    /// The list names a session; one that is known or gone meanwhile changes nothing.
    Listed {
        /// Which.
        session: u64,
        /// The index of its listener.
        listener: u16,
        /// Where it comes from.
        address: IpAddr,
        /// Since when it is online.
        since: Time,
    },
    /// The list is complete.
    Learned,
    /// The time of the next deadline has come, or may have.
    Deadline,
}

/// What it wants, or tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// An outage was found.
    Began(Outage),
    /// An outage is over.
    Over(Outage),
    /// The scope of a verdict is settled, or nobody can tell.
    Scoped {
        /// Whose verdict.
        session: u64,
        /// How much is lost; [`Scope::Unknown`] if nobody was there to tell.
        scope: Scope,
    },
    /// Other sessions of a host should be looked at; answered by [`Input::Siblings`], or never.
    AskSiblings {
        /// The session that has ended.
        session: u64,
        /// Sessions of the same host; zeros are none.
        siblings: [u64; SIBLINGS],
    },
}

/// An outage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outage {
    /// Its number, from 1.
    pub number: u64,
    /// Where.
    pub place: Site,
    /// When the first verdict fell.
    pub began: Time,
    /// When the last verdict fell.
    pub last: Time,
    /// How many verdicts.
    pub affected: u32,
    /// How many sessions were online there before.
    pub of_online: u32,
    /// From how many hosts, up to [`HOSTS_PER_OUTAGE`].
    pub hosts: u32,
    /// How many of these hosts came back.
    pub returned: u32,
    /// Whether enough came back; `false` while it goes on, and where it was given up.
    pub recovered: bool,
}

/// Correlates verdicts.
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

/// A verdict whose scope may become known.
#[derive(Clone, Copy, Debug)]
struct Unsettled {
    address: IpAddr,
    key: Key,
    at: Time,
    silent: Span,
    asked: Span,
    /// When it stays unknown.
    until: Time,
    /// A sibling was heard: whatever else, the host lives.
    alive: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Timer {
    Group(Key),
    Unsettled(u64),
}

/// A verdict of silence, as it is handed around.
#[derive(Clone, Copy, Debug)]
struct SilentEnd {
    address: IpAddr,
    key: Key,
    at: Time,
    window: Span,
}

impl Outages {
    /// Nobody online, and no outage.
    pub fn new() -> Outages {
        Outages::default()
    }

    /// When to call with [`Input::Deadline`] unless something changes before.
    pub fn next_deadline(&self) -> Option<Time> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// How many sessions are known to be online.
    pub fn online(&self) -> u32 {
        self.hosts.online()
    }

    /// Whether the list of those who are online is still awaited.
    pub fn is_learning(&self) -> bool {
        self.hosts.is_learning()
    }

    fn ended(&mut self, now: Time, session: u64, key: Key, address: IpAddr, end: End) {
        let End { cause, silent, asked } = end;
        let place = match cause {
            Cause::LocalNetworkDown | Cause::LocalNeighbourGone => Key::Local,
            Cause::PathLost { .. } | Cause::Unreachable | Cause::Unknown => key,
            Cause::PeerClosed(_)
            | Cause::PeerExited
            | Cause::PeerReset
            | Cause::PeerRebooted
            | Cause::MiddleboxForgot
            | Cause::AppHung
            | Cause::NotReading
            | Cause::SlowConsumer
            | Cause::HandshakeTimeout
            | Cause::Protocol(_)
            | Cause::Kicked
            | Cause::Drained
            | Cause::Finished
            | Cause::LocalFault => return,
        };
        let window = silent.less(asked).max(WINDOW.0).min(WINDOW.1);
        self.gather(SilentEnd { address, key: place, at: now, window });
        self.hosts.doubt(address, session, now);
        let unscoped = matches!(
            cause,
            Cause::PathLost {
                direction: Direction::Both | Direction::Outbound,
                scope: Scope::Unknown
            }
        );
        if unscoped && self.unsettled.len() < UNSETTLED {
            let until = now + window + QUIET;
            let unsettled =
                Unsettled { address, key: place, at: now, silent, asked, until, alive: false };
            if self.unsettled.insert(session, unsettled).is_none() {
                self.timers.insert((until, Timer::Unsettled(session)));
            }
            if let Some(siblings) = self.hosts.siblings(address) {
                self.outputs.push_back(Output::AskSiblings { session, siblings });
            }
        }
    }

    fn answered(&mut self, now: Time, session: u64, heard_ago: Option<Span>, suspect: bool) {
        let Some(unsettled) = self.unsettled.get_mut(&session) else {
            return;
        };
        let Some(heard_ago) = heard_ago else {
            return;
        };
        let heard = now - heard_ago;
        let asked_from = unsettled.at - unsettled.asked;
        if heard <= asked_from {
            return;
        }
        unsettled.alive = true;
        let silent_from = unsettled.at - unsettled.silent;
        let (address, session_of) = (unsettled.address, session);
        if !suspect && !self.hosts.was_doubted(address, session_of, silent_from) {
            self.settle(session, Scope::Flow);
        }
    }

    fn settle(&mut self, session: u64, scope: Scope) {
        if let Some(unsettled) = self.unsettled.remove(&session) {
            self.timers.remove(&(unsettled.until, Timer::Unsettled(session)));
            self.outputs.push_back(Output::Scoped { session, scope });
        }
    }

    /// Nobody answered for the flow: others of its host, or of its network, may tell.
    fn give_up(&mut self, session: u64) {
        let Some(unsettled) = self.unsettled.remove(&session) else {
            return;
        };
        if unsettled.alive {
            return;
        }
        let group = self.groups.get(&unsettled.key);
        let deaths = group.map_or(0, |group| group.deaths_of(unsettled.address));
        let scope = if group.is_some_and(Group::is_many) {
            Scope::Many
        } else if deaths > 1 && self.hosts.others(unsettled.address) > 0 {
            Scope::Host
        } else {
            Scope::Unknown
        };
        self.outputs.push_back(Output::Scoped { session, scope });
    }

    fn expire(&mut self, now: Time) {
        while let Some((at, timer)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Group(key) => self.group_due(key),
                Timer::Unsettled(session) => self.give_up(session),
            }
        }
    }
}

/// What an end was like.
#[derive(Clone, Copy, Debug)]
struct End {
    cause: Cause,
    silent: Span,
    asked: Span,
}

impl Machine for Outages {
    type Input<'a> = Input;
    type Output<'a> = Output;

    fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::Joined { session, listener, address } => {
                let network = address.into();
                self.hosts.joined(now, session, address, (listener, network));
                self.returned(Key::Network { network, listener }, address);
                self.returned(Key::Local, address);
            }
            Input::Suspect { session, listener, address } => {
                self.hosts.doubt(address, session, now);
                let network = address.into();
                self.suspects.suspected(session, Key::Network { network, listener });
            }
            Input::Recovered { session } => {
                if let Some(key) = self.suspects.settled(session) {
                    self.rearm(key);
                }
            }
            Input::Ended { session, listener, address, cause, silent, asked } => {
                let network = address.into();
                self.hosts.ended(now, session, address, (listener, network));
                if let Some(key) = self.suspects.settled(session) {
                    self.rearm(key);
                }
                let key = Key::Network { network, listener };
                self.ended(now, session, key, address, End { cause, silent, asked });
            }
            Input::Siblings { session, heard_ago, suspect } => {
                self.answered(now, session, heard_ago, suspect);
            }
            Input::Missed => {
                self.hosts.forget();
                self.suspects = Suspects::default();
            }
            Input::Listed { session, listener, address, since } => {
                let network = address.into();
                self.hosts.listed(now, session, address, (listener, network));
                for key in [Key::Network { network, listener }, Key::Local] {
                    self.was_back(key, address, since);
                }
            }
            Input::Learned => self.hosts.learned(now),
            Input::Deadline => self.expire(now),
        }
    }

    fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}

#[cfg(test)]
mod tests;
