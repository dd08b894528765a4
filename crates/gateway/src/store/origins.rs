//! How many rows each address has in the store.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use rusqlite::Connection;
use systole_core::origin::Origin;

use super::Subscription;
use super::database::get;
use super::tally::{Tally, TallyChanges};

/// By what rows are counted: an IPv4 address or an IPv6 /64 as text, empty for one that is trusted
/// or unknown.
pub(super) type OriginText = Box<str>;

/// The rows of each origin, as of the last transaction: an entry for each that has some, so no more
/// than the store has rows.
#[derive(Clone, Debug)]
pub(super) struct Origins {
    trusted: Arc<[IpNet]>,
    /// What a session about which something is owed counts: a row for each that it is owed to.
    owed_to: u64,
    rows: Tally,
}

/// What a transaction changes in them.
#[derive(Debug)]
pub(super) struct OriginChanges<'a> {
    before: &'a Origins,
    rows: TallyChanges<'a>,
}

impl Origins {
    pub(super) fn new(trusted: Arc<[IpNet]>, subscriptions: &[Subscription]) -> Origins {
        let owed_to = subscriptions.iter().filter(|to| to.is_owed()).count() as u64;
        Origins { trusted, owed_to, rows: Tally::default() }
    }

    /// Counts the rows of a store.
    pub(super) fn count(
        &mut self,
        connection: &Connection,
        subscriptions: &[Subscription],
    ) -> rusqlite::Result<()> {
        let entries = "SELECT receiver, origin, count(*) FROM entry GROUP BY receiver, origin";
        let mut entries = connection.prepare(entries)?;
        let mut rows = entries.query([])?;
        while let Some(row) = rows.next()? {
            let (receiver, count) = (row.get::<_, String>(0)?, get(2)(row)?);
            if subscriptions.iter().any(|to| *to.name == *receiver) {
                self.add(row.get::<_, String>(1)?.into(), count.cast_signed());
            }
        }
        let mut owed = connection.prepare("SELECT address FROM owed")?;
        let mut rows = owed.query([])?;
        while let Some(row) = rows.next()? {
            let origin = self.of(&row.get::<_, String>(0)?);
            self.add(origin, self.owed_to.cast_signed());
        }
        Ok(())
    }

    /// Returns by what the rows of a peer at `address`, with its port, are counted.
    pub(super) fn of(&self, address: &str) -> OriginText {
        let parsed = address.parse::<SocketAddr>();
        parsed.map_or_else(|_| OriginText::default(), |it| self.of_ip(it.ip()))
    }

    pub(super) fn of_ip(&self, address: IpAddr) -> OriginText {
        let address = address.to_canonical();
        if self.trusted.iter().any(|network| network.contains(&address)) {
            return OriginText::default();
        }
        Origin::from(address).address().to_string().into()
    }

    pub(super) fn rows(&self, origin: &str) -> u64 {
        self.rows.rows(origin)
    }

    pub(super) fn begin(&self) -> OriginChanges<'_> {
        OriginChanges { before: self, rows: self.rows.begin() }
    }

    /// Takes the changes of a transaction that is committed.
    pub(super) fn apply(&mut self, changes: HashMap<OriginText, i64>) {
        self.rows.apply(changes);
    }

    fn add(&mut self, origin: OriginText, by: i64) {
        if !origin.is_empty() {
            self.rows.add(origin, by);
        }
    }

    /// All origins that have rows.
    #[cfg(test)]
    pub(super) fn all(&self) -> std::collections::BTreeMap<String, u64> {
        self.rows.all()
    }
}

impl OriginChanges<'_> {
    /// Returns by what the rows of a peer at `address`, with its port, are counted.
    pub(super) fn of(&self, address: &str) -> OriginText {
        self.before.of(address)
    }

    /// Notes that so many entries were written, or removed if negative.
    pub(super) fn add(&mut self, origin: &str, by: i64) {
        if !origin.is_empty() {
            self.rows.add(origin, by);
        }
    }

    /// Notes that something is owed about a session, or no longer.
    pub(super) fn owe(&mut self, address: &str, by: i64) {
        let rows = self.before.owed_to.cast_signed();
        self.add(&self.before.of(address), by * rows);
    }

    pub(super) fn rows(&self, origin: &str) -> u64 {
        self.rows.rows(origin)
    }

    pub(super) fn take(self) -> HashMap<OriginText, i64> {
        self.rows.take()
    }
}
