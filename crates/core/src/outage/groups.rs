//! Groups of verdicts that fall together, and the outages that they become.

use alloc::collections::BTreeMap;
use core::net::IpAddr;

use super::{
    GROUPS, HOSTS_PER_OUTAGE, LEAST_AFFECTED, LEAST_SHARE, MANY_HOSTS, OUTAGE_TIMEOUT, Outage,
    Outages, Output, QUIET, SilentEnd, Site, Timer,
};
use crate::cause::Scope;
use crate::plain::plain_struct;
use crate::time::{Span, Time};

/// The key of a group of verdicts.
pub(super) type Key = Site;

/// Verdicts of one place that fell together.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// The outage's number, once `Began` was emitted.
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
    verdicts: u32,
    is_back: bool,
}

plain_struct! { Group {
    number,
    first,
    last,
    window,
    affected,
    of_online,
    hosts,
    returned,
    timer
} if Group::is_legal }

plain_struct! { HostState { verdicts, is_back } }

impl Group {
    fn is_legal(&self) -> bool {
        self.hosts.len() <= HOSTS_PER_OUTAGE && self.returned as usize <= self.hosts.len()
    }

    /// Returns the entry of the group's deadline among the timers.
    pub(super) fn timer(&self, key: Key) -> (Time, Timer) {
        (self.timer, Timer::Group(key))
    }

    fn new(end: &SilentEnd, of_online: u32) -> Group {
        Group {
            number: None,
            first: end.at,
            last: end.at,
            window: end.window,
            affected: 0,
            of_online,
            hosts: BTreeMap::new(),
            returned: 0,
            timer: end.at,
        }
    }

    /// Returns true if the group is a reported outage of many hosts.
    pub(super) fn is_many(&self) -> bool {
        self.number.is_some() && self.hosts.len() >= MANY_HOSTS
    }

    /// Returns on how many hosts verdicts fell.
    pub(super) fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// Returns how many verdicts fell on the host at `address`.
    pub(super) fn verdicts_on(&self, address: IpAddr) -> u32 {
        self.hosts.get(&address).map_or(0, |host| host.verdicts)
    }

    /// Returns true if a verdict at `at` belongs to this group.
    fn accepts(&self, at: Time) -> bool {
        self.number.is_some() || at.since(self.first) <= self.window
    }

    fn add(&mut self, end: &SilentEnd) {
        self.last = self.last.max(end.at);
        self.affected = self.affected.saturating_add(1);
        if self.hosts.len() < HOSTS_PER_OUTAGE || self.hosts.contains_key(&end.address) {
            let host = self.hosts.entry(end.address).or_default();
            host.verdicts = host.verdicts.saturating_add(1);
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

    /// Returns the deadline of the group. While sessions of the network are suspect, the outage is
    /// not reported before its window ends, so that its count is complete.
    fn due(&self, place: Site, has_suspects: bool) -> Time {
        let window_ends = (self.first + self.window).max(self.last);
        if self.number.is_some() {
            self.last + OUTAGE_TIMEOUT
        } else if self.is_enough(place) {
            if has_suspects { window_ends } else { window_ends.min(self.last + QUIET) }
        } else {
            // Kept until the scope of its last verdict is settled, which needs the group.
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
    /// Adds a verdict to its group. The session must no longer be counted as online.
    pub(super) fn gather(&mut self, end: SilentEnd) {
        let key = end.key;
        if self.groups.get(&key).is_some_and(|group| !group.accepts(end.at)) {
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
            let group = Group::new(&end, online.saturating_add(1));
            self.timers.insert((group.timer, Timer::Group(key)));
            self.groups.insert(key, group);
        }
        if let Some(group) = self.groups.get_mut(&key) {
            group.add(&end);
            self.rearm(key);
        }
    }

    /// Handles a session that joined from `address`: its host has returned.
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

    pub(super) fn group_deadline(&mut self, key: Key) {
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
        // The hosts may have returned while verdicts were still gathered.
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

    /// Removes a group; emits `Over` if `Began` was emitted for it.
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
        let has_suspects = self.suspects.any_in(key);
        if let Some(group) = self.groups.get_mut(&key) {
            self.timers.remove(&(group.timer, Timer::Group(key)));
            group.timer = group.due(key, has_suspects);
            self.timers.insert((group.timer, Timer::Group(key)));
        }
    }
}
