//! Online sessions by host and by network: counts, and the numbers of a few sessions per host.

use alloc::collections::BTreeMap;
use core::net::IpAddr;

use super::{NETWORKS, Network};
use crate::plain::plain_struct;
use crate::time::Time;
use crate::wire::BootId;

/// The maximum number of hosts with known sessions: twelve megabytes. When full, sessions of other
/// hosts have no siblings, and the scope of their losses stays unknown.
pub const HOSTS: usize = 65_536;

/// The maximum number of sessions per host known by number: enough to find a live one.
pub const SIBLINGS: usize = 4;

/// The counts of online sessions, and a few session numbers per host.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts {
    hosts: BTreeMap<IpAddr, Host>,
    networks: BTreeMap<(u16, Network), u32>,
    online: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Host {
    online: u32,
    sessions: [Sibling; SIBLINGS],
    /// The last two sessions that became suspect or ended in silence, and when.
    suspects: [Option<(u64, Time)>; 2],
}

/// A session that is known by number; 0 marks an unused place.
#[derive(Clone, Copy, Debug, Default)]
struct Sibling {
    session: u64,
    boot_id: BootId,
}

plain_struct! { Hosts { hosts, networks, online } if Hosts::is_legal }

plain_struct! { Host { online, sessions, suspects } }

plain_struct! { Sibling { session, boot_id } }

impl Hosts {
    fn is_legal(&self) -> bool {
        self.hosts.len() <= HOSTS && self.networks.len() <= NETWORKS
    }

    pub(super) fn online(&self) -> u32 {
        self.online
    }

    /// Returns the number of sessions online at other hosts.
    pub(super) fn others(&self, address: IpAddr) -> u32 {
        let own = self.hosts.get(&address).map_or(0, |host| host.online);
        self.online().saturating_sub(own)
    }

    /// Returns the least number of sessions online in a network at other hosts than `address`.
    pub(super) fn neighbours(&self, network: (u16, Network), address: IpAddr) -> u32 {
        // The host's own sessions may be those of another listener.
        let own = self.hosts.get(&address).map_or(0, |host| host.online);
        self.online_in(network).saturating_sub(own)
    }

    /// Returns the number of sessions online in a network.
    pub(super) fn online_in(&self, network: (u16, Network)) -> u32 {
        self.networks.get(&network).copied().unwrap_or(0)
    }

    pub(super) fn joined(
        &mut self,
        session: u64,
        address: IpAddr,
        boot_id: BootId,
        network: (u16, Network),
    ) {
        self.online = self.online.saturating_add(1);
        if self.networks.len() < NETWORKS || self.networks.contains_key(&network) {
            let online = self.networks.entry(network).or_default();
            *online = online.saturating_add(1);
        }
        if self.hosts.len() < HOSTS || self.hosts.contains_key(&address) {
            let host = self.hosts.entry(address).or_default();
            host.online = host.online.saturating_add(1);
            if let Some(free) = host.sessions.iter_mut().find(|known| known.session == 0) {
                *free = Sibling { session, boot_id };
            }
        }
    }

    pub(super) fn ended(&mut self, session: u64, address: IpAddr, network: (u16, Network)) {
        self.online = self.online.saturating_sub(1);
        if let Some(online) = self.networks.get_mut(&network) {
            *online = online.saturating_sub(1);
            if *online == 0 {
                self.networks.remove(&network);
            }
        }
        if let Some(host) = self.hosts.get_mut(&address) {
            host.online = host.online.saturating_sub(1);
            for known in host.sessions.iter_mut().filter(|known| known.session == session) {
                *known = Sibling::default();
            }
            if host.online == 0 {
                self.hosts.remove(&address);
            }
        }
    }

    /// Returns other sessions of the host, if any are known.
    pub(super) fn siblings(&self, address: IpAddr) -> Option<[u64; SIBLINGS]> {
        self.known(address, |_| true)
    }

    /// Returns other sessions of the same machine, if any are known; none if the machine is
    /// unknown.
    pub(super) fn siblings_of(&self, address: IpAddr, boot_id: BootId) -> Option<[u64; SIBLINGS]> {
        let is_known = boot_id != BootId::default();
        self.known(address, |known| is_known && known.boot_id == boot_id)
    }

    fn known(
        &self,
        address: IpAddr,
        is_wanted: impl Fn(&Sibling) -> bool,
    ) -> Option<[u64; SIBLINGS]> {
        let known = self.hosts.get(&address)?.sessions;
        let sessions = known.map(|it| if is_wanted(&it) { it.session } else { 0 });
        sessions.iter().any(|session| *session != 0).then_some(sessions)
    }

    pub(super) fn suspected(&mut self, address: IpAddr, session: u64, now: Time) {
        let Some(host) = self.hosts.get_mut(&address) else {
            return;
        };
        let [newest, older] = &mut host.suspects;
        if newest.is_none_or(|(known, _)| known != session) {
            *older = *newest;
        }
        *newest = Some((session, now));
    }

    /// Returns true if another session of the host was suspect at or after `since`.
    pub(super) fn was_suspect(&self, address: IpAddr, except: u64, since: Time) -> bool {
        let suspects = self.hosts.get(&address).map_or([None; 2], |host| host.suspects);
        suspects.iter().flatten().any(|(session, at)| *session != except && *at >= since)
    }
}
