//! The verdicts of one network: gathered, told, and over.

use alloc::collections::BTreeMap;
use core::net::IpAddr;

use super::{
    FORGOTTEN, GROUPS, HOSTS_PER_OUTAGE, LEAST_AFFECTED, LEAST_SHARE, MANY_HOSTS, Outage, Outages,
    Output, QUIET, SilentEnd, Site, Timer,
};
use crate::cause::Scope;
use crate::time::{Span, Time};

/// What verdicts are gathered by.
pub(super) type Key = Site;

/// Verdicts that fell together.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// The outage's number, once it is told.
    number: Option<u64>,
    first: Time,
    last: Time,
    window: Span,
    affected: u32,
    of_online: u32,
    hosts: BTreeMap<IpAddr, HostState>,
    returned: u32,
    timer: Time,
}

#[derive(Clone, Copy, Debug, Default)]
struct HostState {
    deaths: u32,
    is_back: bool,
}

impl Group {
    fn new(silence: &SilentEnd, of_online: u32) -> Group {
        Group {
            number: None,
            first: silence.at,
            last: silence.at,
            window: silence.window,
            affected: 0,
            of_online,
            hosts: BTreeMap::new(),
            returned: 0,
            timer: silence.at,
        }
    }

    /// Whether it is an outage of many hosts.
    pub(super) fn is_many(&self) -> bool {
        self.number.is_some() && self.hosts.len() >= MANY_HOSTS
    }

    /// How many verdicts fell on that host.
    pub(super) fn deaths_of(&self, address: IpAddr) -> u32 {
        self.hosts.get(&address).map_or(0, |host| host.deaths)
    }

    /// Whether a verdict of now falls together with these.
    fn takes(&self, at: Time) -> bool {
        self.number.is_some() || at.since(self.first) <= self.window
    }

    fn add(&mut self, silence: &SilentEnd) {
        self.last = self.last.max(silence.at);
        self.affected = self.affected.saturating_add(1);
        if self.hosts.len() < HOSTS_PER_OUTAGE || self.hosts.contains_key(&silence.address) {
            let host = self.hosts.entry(silence.address).or_default();
            host.deaths = host.deaths.saturating_add(1);
            if core::mem::take(&mut host.is_back) {
                self.returned = self.returned.saturating_sub(1);
            }
        }
    }

    fn is_enough(&self, place: Site) -> bool {
        match place {
            Site::Local => true,
            Site::Network { .. } => {
                self.affected >= LEAST_AFFECTED
                    && self.affected.saturating_mul(LEAST_SHARE) >= self.of_online
            }
        }
    }

    /// When something about it changes by itself. While others of its network are suspected it is
    /// not told before its window is over, so that its count is whole.
    fn due(&self, place: Site, awaited: bool) -> Time {
        let window_ends = (self.first + self.window).max(self.last);
        if self.number.is_some() {
            self.last + FORGOTTEN
        } else if self.is_enough(place) {
            if awaited { window_ends } else { window_ends.min(self.last + QUIET) }
        } else {
            // Kept until the last of its verdicts has asked it for its scope.
            self.last + self.window + QUIET.times(2)
        }
    }

    fn outage(&self, place: Site, recovered: bool) -> Outage {
        Outage {
            number: self.number.unwrap_or(0),
            place,
            began: self.first,
            last: self.last,
            affected: self.affected,
            of_online: self.of_online.max(self.affected),
            hosts: u32::try_from(self.hosts.len()).unwrap_or(u32::MAX),
            returned: self.returned,
            recovered,
        }
    }
}

impl Outages {
    /// Adds a verdict to those that fall together with it. Its session is counted out already.
    pub(super) fn gather(&mut self, silence: SilentEnd) {
        let key = silence.key;
        if self.groups.get(&key).is_some_and(|group| !group.takes(silence.at)) {
            self.end(key, false);
        }
        if !self.groups.contains_key(&key) {
            if self.groups.len() == GROUPS {
                let oldest = self.groups.iter().min_by_key(|(key, group)| (group.first, **key));
                if let Some(key) = oldest.map(|(key, _)| *key) {
                    self.end(key, false);
                }
            }
            let online = match key {
                Site::Local => self.hosts.online(),
                Site::Network { network, listener } => self.hosts.online_in((listener, network)),
            };
            let group = Group::new(&silence, online.saturating_add(1));
            self.timers.insert((group.timer, Timer::Group(key)));
            self.groups.insert(key, group);
        }
        if let Some(group) = self.groups.get_mut(&key) {
            group.add(&silence);
            self.rearm(key);
        }
    }

    /// A session came from that address.
    pub(super) fn returned(&mut self, key: Key, address: IpAddr) {
        let Some(group) = self.groups.get_mut(&key) else {
            return;
        };
        let Some(host) = group.hosts.get_mut(&address).filter(|host| !host.is_back) else {
            return;
        };
        host.is_back = true;
        group.returned = group.returned.saturating_add(1);
        let enough = group.returned as usize * 2 >= group.hosts.len();
        if group.number.is_some() && enough {
            self.end(key, true);
        }
    }

    /// A session is online at that address, whose join was not told. What is older than the last
    /// verdict may have survived.
    pub(super) fn was_back(&mut self, key: Key, address: IpAddr, since: Time) {
        if self.groups.get(&key).is_some_and(|group| since > group.last) {
            self.returned(key, address);
        }
    }

    pub(super) fn group_due(&mut self, key: Key) {
        let Some(group) = self.groups.get_mut(&key) else {
            return;
        };
        if group.number.is_some() || !group.is_enough(key) {
            return self.end(key, false);
        }
        self.number = self.number.saturating_add(1);
        group.number = Some(self.number);
        self.outputs.push_back(Output::Began(group.outage(key, false)));
        let (is_many, is_back) =
            (group.is_many(), group.returned as usize * 2 >= group.hosts.len());
        if is_many {
            self.settle_all(key);
        }
        // All may have come back while their verdicts were still being gathered.
        if is_back { self.end(key, true) } else { self.rearm(key) }
    }

    fn settle_all(&mut self, key: Key) {
        let of_key = |(session, unsettled): (&u64, &super::Unsettled)| {
            (unsettled.key == key && !unsettled.alive).then_some(*session)
        };
        let sessions: alloc::vec::Vec<u64> = self.unsettled.iter().filter_map(of_key).collect();
        for session in sessions {
            self.settle(session, Scope::Many);
        }
    }

    /// Forgets a group, and tells it if it was told.
    fn end(&mut self, key: Key, recovered: bool) {
        let Some(group) = self.groups.remove(&key) else {
            return;
        };
        self.timers.remove(&(group.timer, Timer::Group(key)));
        if group.number.is_some() {
            self.outputs.push_back(Output::Over(group.outage(key, recovered)));
        }
    }

    pub(super) fn rearm(&mut self, key: Key) {
        let awaited = self.suspects.are_in(key);
        if let Some(group) = self.groups.get_mut(&key) {
            self.timers.remove(&(group.timer, Timer::Group(key)));
            group.timer = group.due(key, awaited);
            self.timers.insert((group.timer, Timer::Group(key)));
        }
    }
}
