//! Who is online, by host and by network: counts, and a few sessions of each host to ask.

use alloc::collections::BTreeMap;
use core::net::IpAddr;

use super::{NETWORKS, Network};
use crate::time::{Span, Time};

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
    /// Sessions from before are not counted.
    since: Option<Time>,
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
        self.online.saturating_sub(own)
    }

    /// Sessions online in a network.
    pub(super) fn online_in(&self, network: (u16, Network)) -> u32 {
        self.networks.get(&network).copied().unwrap_or(0)
    }

    pub(super) fn joined(&mut self, session: u64, address: IpAddr, network: (u16, Network)) {
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
        lasted: Span,
    ) {
        if self.since.is_some_and(|since| now.since(since) < lasted) {
            return;
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
    pub(super) fn forget(&mut self, now: Time) {
        *self = Hosts { since: Some(now), ..Hosts::default() };
    }
}
