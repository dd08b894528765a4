//! The accounts of links that are still open at this end.

use alloc::collections::BTreeMap;
use core::net::IpAddr;

use super::{ACCOUNTS, PendingVerdict};
use crate::origin::{Origin, Shares};
use crate::time::Time;
use crate::wire::{Account, BootId, InstanceId};

/// An account with its sender.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceivedAccount {
    pub(super) at: Time,
    /// The host that sent the account.
    pub(super) host: IpAddr,
    pub(super) boot_id: BootId,
    pub(super) instance_id: InstanceId,
    pub(super) account: Account,
}

/// The session and the process of which an account speaks. Anyone can name the session, but only
/// the process knows its ids, so nobody else can replace its account.
type Key = (u64, BootId, InstanceId);

/// Accounts that wait for the verdict on their link, by serial number: the first is the oldest.
#[derive(Clone, Debug, Default)]
pub(super) struct EarlyAccounts {
    accounts: BTreeMap<u64, ReceivedAccount>,
    serials: BTreeMap<Key, u64>,
    shares: Shares,
}

impl EarlyAccounts {
    /// Returns how many accounts wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.accounts.len(), self.serials.len());
        self.accounts.len()
    }

    /// Returns the accounts by serial number.
    pub(super) fn accounts(&self) -> &BTreeMap<u64, ReceivedAccount> {
        &self.accounts
    }

    /// Adds an account with a new serial number. It replaces the one of the same process on the
    /// same session; in a full table one makes room (see [`crate::origin`]).
    pub(super) fn insert(&mut self, serial: u64, received: ReceivedAccount) {
        if let Some(former) = self.serials.insert(key(&received), serial) {
            self.remove(former);
            self.serials.insert(key(&received), serial);
        }
        self.shares.add(Origin::from(received.host), serial);
        self.accounts.insert(serial, received);
        if self.accounts.len() > ACCOUNTS
            && let Some(first) = self.shares.first_to_go()
        {
            self.remove(first);
        }
    }

    /// Removes the account that the process of a session has given of it.
    pub(super) fn take(&mut self, held: &PendingVerdict) -> Option<ReceivedAccount> {
        let key = (held.session, held.boot_id, held.instance_id);
        let serial = *self.serials.get(&key)?;
        self.remove(serial)
    }

    /// Removes the oldest account if `is_old` of its time is true. Returns false otherwise.
    pub(super) fn remove_oldest(&mut self, is_old: impl FnOnce(Time) -> bool) -> bool {
        let oldest = self.accounts.first_key_value().filter(|(_, received)| is_old(received.at));
        oldest.map(|(serial, _)| *serial).and_then(|serial| self.remove(serial)).is_some()
    }

    fn remove(&mut self, serial: u64) -> Option<ReceivedAccount> {
        let received = self.accounts.remove(&serial)?;
        self.serials.remove(&key(&received));
        self.shares.remove(Origin::from(received.host), serial);
        Some(received)
    }
}

fn key(received: &ReceivedAccount) -> Key {
    (received.account.session, received.boot_id, received.instance_id)
}
