//! Counts of rows by a text, kept in memory beside the database.

use std::collections::HashMap;

use rusqlite::Connection;

use super::Subscription;
use super::database::get;

/// The rows of each text, as of the last transaction: a place for each text that has rows, so never
/// more places than the store has rows.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Tally(HashMap<Box<str>, u64>);

/// What a transaction changes in a tally.
#[derive(Debug)]
pub(super) struct TallyChanges<'a> {
    before: &'a Tally,
    changes: HashMap<Box<str>, i64>,
}

impl Tally {
    /// Counts the entries of each key that wait for these subscriptions.
    pub(super) fn of_keys(
        connection: &Connection,
        subscriptions: &[Subscription],
    ) -> rusqlite::Result<Tally> {
        let mut tally = Tally::default();
        let count = "SELECT key, count(*) FROM entry WHERE receiver = ?1 GROUP BY key";
        let mut count = connection.prepare(count)?;
        for to in subscriptions {
            let mut rows = count.query([&*to.name])?;
            while let Some(row) = rows.next()? {
                tally.add(row.get::<_, String>(0)?.into(), get(1)(row)?.cast_signed());
            }
        }
        Ok(tally)
    }

    /// Returns the rows of a text.
    pub(super) fn rows(&self, of: &str) -> u64 {
        self.0.get(of).copied().unwrap_or(0)
    }

    /// Begins a transaction.
    pub(super) fn begin(&self) -> TallyChanges<'_> {
        TallyChanges { before: self, changes: HashMap::new() }
    }

    /// Takes the changes of a transaction that is committed.
    pub(super) fn apply(&mut self, changes: HashMap<Box<str>, i64>) {
        changes.into_iter().for_each(|(of, by)| self.add(of, by));
    }

    /// Adds rows, or removes them if negative.
    pub(super) fn add(&mut self, of: Box<str>, by: i64) {
        let rows = self.rows(&of).saturating_add_signed(by);
        if rows == 0 {
            self.0.remove(&of);
        } else {
            self.0.insert(of, rows);
        }
    }

    /// All texts that have rows.
    #[cfg(test)]
    pub(super) fn all(&self) -> std::collections::BTreeMap<String, u64> {
        self.0.iter().map(|(of, rows)| (of.to_string(), *rows)).collect()
    }
}

impl TallyChanges<'_> {
    /// Notes that rows were written, or removed if negative.
    pub(super) fn add(&mut self, of: &str, by: i64) {
        match self.changes.get_mut(of) {
            Some(change) => *change += by,
            None => drop(self.changes.insert(of.into(), by)),
        }
    }

    /// Returns the rows of a text with those of this transaction.
    pub(super) fn rows(&self, of: &str) -> u64 {
        let change = self.changes.get(of).copied().unwrap_or(0);
        self.before.rows(of).saturating_add_signed(change)
    }

    /// Ends the transaction; [`Tally::apply`] takes the changes.
    pub(super) fn take(self) -> HashMap<Box<str>, i64> {
        self.changes
    }
}
