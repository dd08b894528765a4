//! Who is online, by host and by network: counts, and a few sessions of each host to ask.

use alloc::collections::{BTreeMap, BTreeSet};
use core::net::IpAddr;

use super::{NETWORKS, Network};
use crate::time::Time;

/// Sessions that are counted, each by its number, so that none counts twice however it is learned
/// of: 40 MB at most. When full, others are not counted, neither in nor out.
pub const SESSIONS: usize = 1 << 21;

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
    counted: BTreeSet<u64>,
    /// Who ended since who is online began to be learned anew, until that is done.
    gone: Option<BTreeSet<u64>>,
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
        u32::try_from(self.counted.len()).unwrap_or(u32::MAX)
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

    pub(super) fn joined(&mut self, session: u64, address: IpAddr, network: (u16, Network)) {
        if self.counted.len() == SESSIONS || !self.counted.insert(session) {
            return;
        }
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

    pub(super) fn ended(&mut self, session: u64, address: IpAddr, network: (u16, Network)) {
        if let Some(gone) = self.gone.as_mut().filter(|gone| gone.len() < GONE) {
            gone.insert(session);
        }
        if !self.counted.remove(&session) {
            return;
        }
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
        *self = Hosts { gone: Some(BTreeSet::new()), ..Hosts::default() };
    }

    /// A list names a session; it may be older than what was told meanwhile.
    pub(super) fn listed(&mut self, session: u64, address: IpAddr, network: (u16, Network)) {
        if self.gone.as_ref().is_some_and(|gone| !gone.contains(&session)) {
            self.joined(session, address, network);
        }
    }

    pub(super) fn is_learning(&self) -> bool {
        self.gone.is_some()
    }

    /// All are listed.
    pub(super) fn learned(&mut self) {
        self.gone = None;
    }
}
