//! What one transaction changes, and the counts that follow from it.

use rusqlite::{OptionalExtension, Transaction, params};

use super::Subscription;
use super::left_behind::Lost;
use super::origins::OriginChanges;
use super::rows::Noted;
use super::tally::TallyChanges;

/// How many rows there may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Room {
    /// In all.
    pub(super) max_rows: u64,
    /// Events of one identity.
    pub(super) share: u64,
    /// Rows of one address.
    pub(super) share_of_address: u64,
}

/// What changes with a transaction.
pub(super) struct Changes<'a> {
    pub(super) owed: u64,
    pub(super) entries: u64,
    pub(super) waiting: Vec<u64>,
    pub(super) epochs_below: u64,
    pub(super) origins: OriginChanges<'a>,
    pub(super) keys: TallyChanges<'a>,
}

impl Changes<'_> {
    pub(super) fn owe(&mut self, tx: &Transaction<'_>, row: &Lost) -> rusqlite::Result<()> {
        let insert =
            "INSERT OR IGNORE INTO owed(session, epoch, identity, listener, address, since_ms)
            VALUES(?1, ?2, ?3, ?4, ?5, ?6)";
        let Lost { session, epoch, identity, listener, address, since_ms } = row;
        let (session, epoch) = (session.cast_signed(), epoch.cast_signed());
        let since = since_ms.cast_signed();
        let values = params![session, epoch, &**identity, &**listener, address, since];
        if tx.prepare_cached(insert)?.execute(values)? > 0 {
            self.owed += 1;
            self.origins.owe(address, 1);
        }
        Ok(())
    }

    pub(super) fn forget(
        &mut self,
        tx: &Transaction<'_>,
        session: u64,
        epoch: u64,
    ) -> rusqlite::Result<()> {
        // Without RETURNING, for which SQLite makes a table in memory each time.
        let select = "SELECT address FROM owed WHERE epoch = ?1 AND session = ?2";
        let key = [epoch.cast_signed(), session.cast_signed()];
        let mut select = tx.prepare_cached(select)?;
        let gone = select.query_row(key, |row| row.get::<_, String>(0)).optional()?;
        if let Some(address) = gone {
            let delete = "DELETE FROM owed WHERE epoch = ?1 AND session = ?2";
            tx.prepare_cached(delete)?.execute(key)?;
            self.owed = self.owed.saturating_sub(1);
            self.origins.owe(&address, -1);
        }
        Ok(())
    }

    /// Writes an event for those who want it; returns how many entries found no room. A join and a
    /// leave always have some: a login that would take more was refused.
    pub(super) fn note(
        &mut self,
        tx: &Transaction<'_>,
        noted: &Noted,
        subscriptions: &[Subscription],
        room: Room,
    ) -> rusqlite::Result<u64> {
        let is_owed = subscriptions.iter().any(Subscription::is_owed);
        match noted.kind {
            // Already there, except for a beacon, which no answer waits for.
            "join" if is_owed => self.owe(tx, &Lost::of(noted))?,
            "leave" => self.forget(tx, noted.session, noted.epoch)?,
            _ => {}
        }
        let wanting = subscriptions.iter().filter(|to| to.wants(noted.kind));
        let (origin, key) = (self.origins.of(&noted.address), noted.key());
        if !matches!(noted.kind, "join" | "leave") {
            let all = rows(self.owed, self.waiting.iter().sum(), subscriptions);
            let is_over = self.keys.rows(&key) >= room.share
                || self.origins.rows(&origin) >= room.share_of_address;
            if all >= room.max_rows || is_over {
                return Ok(wanting.count() as u64);
            }
        }
        for (to, waiting) in subscriptions.iter().zip(&mut self.waiting) {
            if to.wants(noted.kind) {
                insert(tx, &to.name, &origin, noted)?;
                self.origins.add(&origin, 1);
                self.keys.add(&key, 1);
                self.entries += 1;
                *waiting += 1;
            }
        }
        Ok(0)
    }

    pub(super) fn settle(
        &mut self,
        tx: &Transaction<'_>,
        number: u64,
        subscriptions: &[Subscription],
    ) -> rusqlite::Result<()> {
        let select = "SELECT receiver, origin, key FROM entry WHERE number = ?1";
        let mut select = tx.prepare_cached(select)?;
        let gone = select.query_row([number.cast_signed()], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
        });
        // One that has made room is gone already.
        let Some((receiver, origin, key)) = gone.optional()? else {
            return Ok(());
        };
        let delete = "DELETE FROM entry WHERE number = ?1";
        tx.prepare_cached(delete)?.execute([number.cast_signed()])?;
        self.entries = self.entries.saturating_sub(1);
        let counts = subscriptions.iter().zip(&mut self.waiting);
        for (_, waiting) in counts.filter(|(to, _)| *to.name == receiver) {
            *waiting = waiting.saturating_sub(1);
            self.origins.add(&origin, -1);
            self.keys.add(&key, -1);
        }
        Ok(())
    }
}

impl Lost {
    fn of(noted: &Noted) -> Lost {
        Lost {
            session: noted.session,
            epoch: noted.epoch,
            identity: noted.identity.clone(),
            listener: noted.listener.clone(),
            address: noted.address.clone(),
            since_ms: noted.at_ms,
        }
    }
}

pub(super) fn rows(owed: u64, entries: u64, subscriptions: &[Subscription]) -> u64 {
    let owed_to = subscriptions.iter().filter(|to| to.is_owed()).count() as u64;
    owed.saturating_mul(owed_to).saturating_add(entries)
}

pub(super) fn insert(
    tx: &Transaction<'_>,
    receiver: &str,
    origin: &str,
    noted: &Noted,
) -> rusqlite::Result<()> {
    let insert = "INSERT INTO entry(receiver, key, session, epoch, kind, at_ms, body, origin)
        VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let (session, epoch) = (noted.session.cast_signed(), noted.epoch.cast_signed());
    let (key, at_ms) = (noted.key(), noted.at_ms.cast_signed());
    let values = params![receiver, key, session, epoch, noted.kind, at_ms, &*noted.body, origin];
    tx.prepare_cached(insert)?.execute(values)?;
    Ok(())
}
