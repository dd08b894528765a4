//! Who is online, by host and by network: counts, and a few sessions of each host to ask.

use alloc::collections::{BTreeMap, BTreeSet};
use core::net::IpAddr;

use super::{NETWORKS, Network};
use crate::time::{Span, Time};

/// Sessions that are told apart while they are learned anew, so that none counts twice: 40 MB at
/// most. When full, others are not counted in, and their ends count others out.
pub const SESSIONS: usize = 1 << 21;

/// How long after the end of a list reports may still speak of the time before it.
pub const SETTLING: Span = Span::from_secs(60);

/// Sessions that end while the others are being listed, and are remembered because the list may
/// still name them. When full, such a one may be counted although it is gone.
pub const GONE: usize = 65_536;

/// Hosts of which sessions are known. When full, those of others have no siblings, and the scope of
/// their losses stays unknown. Eight megabytes at most.
pub const HOSTS: usize = 65_536;

/// Sessions of one host that are known by number: enough to find one that lives.
pub const SIBLINGS: usize = 4;

/// The table.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts {
    hosts: BTreeMap<IpAddr, Host>,
    networks: BTreeMap<(u16, Network), u32>,
    online: u32,
    learning: Option<Learning>,
}

/// Who is known by number, while a list of who is online and reports may speak of the same.
#[derive(Clone, Debug, Default)]
struct Learning {
    counted: BTreeSet<u64>,
    /// Who ended since this began.
    gone: BTreeSet<u64>,
    /// The list is complete, and this ends then.
    until: Option<Time>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Host {
    online: u32,
    sessions: [u64; SIBLINGS],
    /// The last two sessions that were doubted, and when.
    doubts: [Option<(u64, Time)>; 2],
}

impl Hosts {
    pub(super) fn online(&self) -> u32 {
        self.online
    }

    /// Sessions online at other hosts.
    pub(super) fn others(&self, address: IpAddr) -> u32 {
        let own = self.hosts.get(&address).map_or(0, |host| host.online);
        self.online().saturating_sub(own)
    }

    /// Sessions online in a network.
    pub(super) fn online_in(&self, network: (u16, Network)) -> u32 {
        self.networks.get(&network).copied().unwrap_or(0)
    }

    pub(super) fn joined(
        &mut self,
        now: Time,
        session: u64,
        address: IpAddr,
        network: (u16, Network),
    ) {
        self.settle(now);
        if let Some(learning) = &mut self.learning
            && (learning.counted.len() == SESSIONS || !learning.counted.insert(session))
        {
            return;
        }
        self.online = self.online.saturating_add(1);
        if self.networks.len() < NETWORKS || self.networks.contains_key(&network) {
            let online = self.networks.entry(network).or_default();
            *online = online.saturating_add(1);
        }
        if self.hosts.len() < HOSTS || self.hosts.contains_key(&address) {
            let host = self.hosts.entry(address).or_default();
            host.online = host.online.saturating_add(1);
            if let Some(free) = host.sessions.iter_mut().find(|known| **known == 0) {
                *free = session;
            }
        }
    }

    pub(super) fn ended(
        &mut self,
        now: Time,
        session: u64,
        address: IpAddr,
        network: (u16, Network),
    ) {
        self.settle(now);
        if let Some(Learning { counted, gone, .. }) = &mut self.learning {
            if gone.len() < GONE {
                gone.insert(session);
            }
            if !counted.remove(&session) {
                return;
            }
        }
        self.online = self.online.saturating_sub(1);
        if let Some(online) = self.networks.get_mut(&network) {
            *online = online.saturating_sub(1);
            if *online == 0 {
                self.networks.remove(&network);
            }
        }
        if let Some(host) = self.hosts.get_mut(&address) {
            host.online = host.online.saturating_sub(1);
            for known in host.sessions.iter_mut().filter(|known| **known == session) {
                *known = 0;
            }
            if host.online == 0 {
                self.hosts.remove(&address);
            }
        }
    }

    /// Others of that host, if any are known.
    pub(super) fn siblings(&self, address: IpAddr) -> Option<[u64; SIBLINGS]> {
        let sessions = self.hosts.get(&address)?.sessions;
        sessions.iter().any(|known| *known != 0).then_some(sessions)
    }

    pub(super) fn doubt(&mut self, address: IpAddr, session: u64, now: Time) {
        let Some(host) = self.hosts.get_mut(&address) else {
            return;
        };
        let [newest, older] = &mut host.doubts;
        if newest.is_none_or(|(known, _)| known != session) {
            *older = *newest;
        }
        *newest = Some((session, now));
    }

    /// Whether another session of that host was doubted since.
    pub(super) fn was_doubted(&self, address: IpAddr, except: u64, since: Time) -> bool {
        let doubts = self.hosts.get(&address).map_or([None; 2], |host| host.doubts);
        doubts.iter().flatten().any(|(session, at)| *session != except && *at >= since)
    }

    /// Who is online must be learned anew.
    pub(super) fn forget(&mut self) {
        *self = Hosts { learning: Some(Learning::default()), ..Hosts::default() };
    }

    /// A list names a session; it may be older than what was told meanwhile.
    pub(super) fn listed(
        &mut self,
        now: Time,
        session: u64,
        address: IpAddr,
        network: (u16, Network),
    ) {
        let gone = self.learning.as_ref().map(|learning| learning.gone.contains(&session));
        if self.is_learning() && gone == Some(false) {
            self.joined(now, session, address, network);
        }
    }

    pub(super) fn is_learning(&self) -> bool {
        self.learning.as_ref().is_some_and(|learning| learning.until.is_none())
    }

    /// Whether sessions are known by number.
    #[cfg(test)]
    pub(super) fn knows_numbers(&self) -> bool {
        self.learning.is_some()
    }

    /// All are listed.
    pub(super) fn learned(&mut self, now: Time) {
        if let Some(learning) = &mut self.learning {
            learning.until = Some(now + SETTLING);
        }
    }

    /// Numbers cost memory for each session, so they are kept no longer than they are needed.
    fn settle(&mut self, now: Time) {
        let until = self.learning.as_ref().and_then(|learning| learning.until);
        if until.is_some_and(|until| now >= until) {
            self.learning = None;
        }
    }
}
