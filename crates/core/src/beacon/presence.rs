//! Read-only views of the devices online.

use super::table::Entry;
use super::{BeaconHub, Presence, Slot, Subject};
use crate::pages::Scan;

impl BeaconHub {
    /// Returns the presence of a device, if it is online.
    pub fn presence(&self, device: u64) -> Option<Presence> {
        let number = self.table.find(device)?;
        self.table.get(number).map(|entry| self.presence_of(number, entry))
    }

    /// Returns the presence of the device at place `number` of the table, if there is one.
    pub fn presence_at(&self, number: u32) -> Option<Presence> {
        self.table.get(number).map(|entry| self.presence_of(number, entry))
    }

    /// Searches at most `limit` places of the table from `number` upwards for devices. Empty places
    /// count too.
    pub fn presences(&self, number: u32, limit: usize) -> Presences<'_> {
        Presences { hub: self, scan: self.table.scan(number, limit) }
    }

    fn presence_of(&self, number: u32, entry: &Entry<Slot>) -> Presence {
        let slot = &entry.value;
        Presence {
            subject: self.subject(number, entry),
            last_heard: slot.liveness.last_heard(),
            suspect: slot.liveness.is_suspect(),
            held_until: slot.liveness.held_until(),
            policy: *self.rollout.applied_to(slot),
        }
    }

    pub(super) fn subject(&self, number: u32, entry: &Entry<Slot>) -> Subject {
        let slot = &entry.value;
        let serial = slot.epoch & 0xffff_ffff;
        Subject {
            device: entry.device(),
            session: u64::from(self.shard) << 56 | serial << 24 | u64::from(number),
            epoch: slot.epoch,
            address: slot.address.into(),
            since: slot.since,
            status: slot.status,
        }
    }
}

/// A search for online devices in a bounded number of places, in order.
#[derive(Debug)]
pub struct Presences<'a> {
    hub: &'a BeaconHub,
    scan: Scan<'a, Entry<Slot>>,
}

impl Presences<'_> {
    /// Returns the place at which the next search continues; `None` if nothing is left.
    pub fn cursor(&self) -> Option<u32> {
        self.scan.cursor()
    }
}

impl Iterator for Presences<'_> {
    type Item = Presence;

    fn next(&mut self) -> Option<Presence> {
        let (number, entry) = self.scan.next()?;
        Some(self.hub.presence_of(number, entry))
    }
}
