//! The database of the store: SQLite with a write-ahead log.
//!
//! A transaction is whole or absent whatever ends the process, and with `sync = "commit"` whatever
//! ends the machine, as <https://sqlite.org/wal.html> states. docs/store.md has the comparison with
//! others.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction};

use super::changes::{Changes, Room, rows};
use super::dead_letters::DeadLetters;
use super::error::StoreError;
use super::inbox::Batch;
use super::left_behind::{LeftBehind, Lost, give_leaves};
use super::origins::Origins;
use super::place::{FILE, Files};
use super::probe::probe_access;
use super::reading::oldest;
use super::rows::Entry;
use super::tally::Tally;
use super::{StoreSettings, Subscription};
use super::{aside, bans, schema};
use crate::bans::{Kept, Unwritten};
use crate::epochs::EPOCHS_PER_MS;

/// How many epochs are set aside at once: those of 17 minutes, which no run gives between two
/// transactions.
const BLOCK: u64 = EPOCHS_PER_MS << 20;

/// Maximum number of statements that stay prepared: more than the store has, so that none is
/// prepared again.
const STATEMENTS: usize = 32;

/// Maximum number of the oldest entries that make room at once.
const EVICTED_AT_ONCE: u64 = 10_000;

/// Where a store is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In the directory of its settings.
    Disk,
    /// In memory, for a gateway that goes on without one on disk.
    Memory,
}

/// What a store is opened with.
#[derive(Clone, Debug)]
pub struct Opening {
    /// Who is told.
    pub subscriptions: Arc<[Subscription]>,
    /// The names of the listeners, by index.
    pub listeners: Arc<[Arc<str>]>,
    /// The wall clock.
    pub now_ms: u64,
    /// Maximum number of sessions that a killed gateway left behind of which all is remembered.
    pub remembered: usize,
    /// Networks of which no address has a share of the rows.
    pub trusted: Arc<[IpNet]>,
}

/// An open database.
#[derive(Debug)]
pub struct Database {
    connection: Connection,
    directory: PathBuf,
    /// Its files; `None` in memory.
    files: Option<Files>,
    subscriptions: Arc<[Subscription]>,
    listeners: Arc<[Arc<str>]>,
    /// Sessions about which something is owed, and entries.
    owed: u64,
    entries: u64,
    /// Of the entries, those of each subscription.
    waiting: Vec<u64>,
    origins: Origins,
    /// The entries for these subscriptions, by key.
    keys: Tally,
    left_behind: LeftBehind,
    /// The bans that were in force when it was opened.
    bans: Vec<Kept>,
    /// The first epoch of this run, and the end of those that are set aside.
    first_epoch: u64,
    epochs_below: u64,
    #[cfg(test)]
    is_limit_lifted: Arc<std::sync::atomic::AtomicBool>,
}

impl Database {
    /// Opens a store at `place`, and gives the sessions that a killed gateway left behind their
    /// leave.
    ///
    /// # Errors
    /// The store cannot be opened or written; of one in memory, the memory does not suffice.
    pub fn open(
        settings: &StoreSettings,
        opening: Opening,
        place: Place,
    ) -> Result<Database, StoreError> {
        let directory = settings.directory.clone();
        let path = match place {
            Place::Disk => directory.join(FILE),
            Place::Memory => PathBuf::from(":memory:"),
        };
        let failed = |error: rusqlite::Error| match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                StoreError::InUse(path.clone())
            }
            // Of a file beside it, such as the write-ahead log.
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
                StoreError::Directory { path: path.clone(), error: io::Error::other(error) }
            }
            _ => StoreError::Database { path: path.clone(), error },
        };
        if place == Place::Disk {
            make(&directory)
                .map_err(|error| StoreError::Directory { path: directory.clone(), error })?;
            probe_access(&directory)?;
        }
        let connection = Connection::open(&path).map_err(failed)?;
        // Exclusive from the start: a second gateway at the same store would emit what this one
        // owes, and no memory is shared with other processes.
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE").map_err(failed)?;
        if !schema::is_ours(&connection).map_err(failed)? {
            return Err(StoreError::Foreign(path));
        }
        let Opening { subscriptions, listeners, now_ms, remembered, trusted } = opening;
        let origins = Origins::new(trusted, &subscriptions);
        let database = Database {
            connection,
            directory: directory.clone(),
            files: None,
            subscriptions,
            listeners,
            owed: 0,
            entries: 0,
            waiting: Vec::new(),
            origins,
            keys: Tally::default(),
            left_behind: LeftBehind::default(),
            bans: Vec::new(),
            first_epoch: 0,
            epochs_below: 0,
            #[cfg(test)]
            is_limit_lifted: Arc::default(),
        };
        let level = match (place, settings.sync) {
            (Place::Memory, _) => "OFF",
            (Place::Disk, None) => "FULL",
            (Place::Disk, Some(_)) => "NORMAL",
        };
        let mut database = database.prepare(level, now_ms, remembered).map_err(failed)?;
        if place == Place::Disk {
            let files = Files::look(&directory);
            let files = files.map_err(|error| StoreError::Directory { path: directory, error })?;
            database.files = Some(files);
        }
        Ok(database)
    }

    fn prepare(mut self, sync: &str, now_ms: u64, remembered: usize) -> rusqlite::Result<Database> {
        let connection = &self.connection;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", sync)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS);
        // SQLite would plan a statement anew for new values, though no statistics tell them apart.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        aside::create(connection)?;
        let tx = self.connection.transaction()?;
        schema::bring_up_to_date(&tx)?;
        self.bans = bans::read(&tx, now_ms)?;
        let below = "SELECT below FROM epochs";
        let below: Option<i64> = tx.query_row(below, [], |row| row.get(0)).optional()?;
        let wall = now_ms.saturating_mul(EPOCHS_PER_MS);
        self.first_epoch = wall.max(below.map_or(0, i64::cast_unsigned));
        self.epochs_below = set_aside(&tx, self.first_epoch)?;
        let (told, origins) = (&self.subscriptions, &mut self.origins);
        self.left_behind = give_leaves(&tx, told, origins, now_ms, remembered)?;
        origins.count(&tx, told)?;
        self.keys = Tally::of_keys(&tx, told)?;
        self.owed = tx.query_row("SELECT count(*) FROM owed", [], get(0))?;
        self.entries = tx.query_row("SELECT count(*) FROM entry", [], get(0))?;
        let count = "SELECT count(*) FROM entry WHERE receiver = ?1";
        let each = told.iter().map(|to| tx.query_row(count, [&*to.name], get(0)));
        self.waiting = each.collect::<rusqlite::Result<_>>()?;
        tx.commit()?;
        Ok(self)
    }

    /// Lets the database grow by few pages until the limit is lifted, as on a full disk.
    #[cfg(test)]
    pub(super) fn limit_size(&mut self) -> Arc<std::sync::atomic::AtomicBool> {
        let pages = self.connection.pragma_query_value(None, "page_count", |row| row.get(0));
        let pages: i64 = pages.unwrap_or(0);
        let _ = self.connection.pragma_update(None, "max_page_count", pages + 20);
        self.is_limit_lifted.clone()
    }

    /// Returns who is told.
    pub fn subscriptions(&self) -> &Arc<[Subscription]> {
        &self.subscriptions
    }

    /// Whether it ends with the process.
    pub fn is_volatile(&self) -> bool {
        self.files.is_none()
    }

    /// Returns what a killed gateway had left behind.
    pub fn left_behind(&self) -> &LeftBehind {
        &self.left_behind
    }

    /// Takes what a killed gateway had left behind.
    pub(super) fn take_left_behind(&mut self) -> LeftBehind {
        std::mem::take(&mut self.left_behind)
    }

    /// Takes the bans that were in force when it was opened.
    pub(crate) fn take_bans(&mut self) -> Vec<Kept> {
        std::mem::take(&mut self.bans)
    }

    /// Whether anybody is told about sessions.
    pub(super) fn has_receivers(&self) -> bool {
        !self.subscriptions.is_empty()
    }

    /// Returns an epoch above all that were given with this store, now or before.
    pub fn first_epoch(&self) -> u64 {
        self.first_epoch
    }

    /// Returns the number of sessions about which something is owed, and of entries.
    pub(super) fn counted(&self) -> (u64, u64) {
        (self.owed, self.entries)
    }

    /// Returns the rows that there are, or will be once all that is owed has become entries.
    pub(super) fn rows(&self) -> u64 {
        rows(self.owed, self.waiting.iter().sum(), &self.subscriptions)
    }

    /// Returns what counts the entries of each key.
    pub(super) fn keys(&self) -> &Tally {
        &self.keys
    }

    /// Returns what counts the rows of each address.
    pub(super) fn origins(&self) -> &Origins {
        &self.origins
    }

    /// Writes a batch, all of it or nothing. Entries of other kinds than join and leave are written
    /// while there is `room`; returns how many were not. `last_epoch` is the last one that was
    /// given.
    pub(super) fn write(
        &mut self,
        batch: &Batch,
        room: Room,
        last_epoch: u64,
    ) -> rusqlite::Result<u64> {
        #[cfg(test)]
        if self.is_limit_lifted.load(std::sync::atomic::Ordering::Relaxed) {
            self.connection.pragma_update(None, "max_page_count", 1_000_000)?;
        }
        self.check_place()?;
        let subscriptions = self.subscriptions.clone();
        let (owed, entries, waiting) = (self.owed, self.entries, self.waiting.clone());
        let (epochs_below, origins) = (self.epochs_below, self.origins.begin());
        let keys = self.keys.begin();
        let mut changes = Changes { owed, entries, waiting, epochs_below, origins, keys };
        let mut dropped = 0;
        let tx = self.connection.transaction()?;
        for owing in &batch.owings {
            let listener = self.listeners.get(usize::from(owing.listener));
            let row = Lost {
                session: owing.session,
                epoch: owing.epoch,
                identity: owing.identity.clone(),
                listener: listener.cloned().unwrap_or_default(),
                address: owing.address.to_string(),
                since_ms: owing.at_ms,
            };
            changes.owe(&tx, &row)?;
        }
        for (session, epoch) in &batch.waived {
            changes.forget(&tx, *session, *epoch)?;
        }
        for noted in &batch.notes {
            dropped += changes.note(&tx, noted, &subscriptions, room)?;
        }
        for number in &batch.settled {
            changes.settle(&tx, *number, &subscriptions)?;
        }
        if last_epoch > changes.epochs_below - BLOCK / 2 {
            changes.epochs_below = set_aside(&tx, last_epoch)?;
        }
        tx.commit()?;
        let Changes { owed, entries, waiting, epochs_below, origins, keys } = changes;
        let (origins, keys) = (origins.take(), keys.take());
        self.origins.apply(origins);
        self.keys.apply(keys);
        self.note_written();
        (self.owed, self.entries, self.epochs_below) = (owed, entries, epochs_below);
        self.waiting = waiting;
        Ok(dropped)
    }

    /// Writes what has changed of bans, all of it or nothing.
    pub(super) fn write_bans(&mut self, bans: &Unwritten) -> rusqlite::Result<()> {
        self.check_place()?;
        bans::write(&mut self.connection, bans)?;
        self.note_written();
        Ok(())
    }

    /// Moves the log into the database, and cuts it: on a full disk its place is what is missing.
    pub(super) fn shrink_log(&mut self) {
        // A log that somebody else has cut must not be taken for one that was cut here.
        if self.check_place().is_ok() {
            // It fails if nothing can be moved; the next write fails then, too.
            let _ = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
            self.note_written();
        }
    }

    /// Looks whether the files are still where they were opened, with all that was written.
    fn check_place(&self) -> rusqlite::Result<()> {
        let checked = self.files.as_ref().map_or(Ok(()), Files::check);
        checked.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
    }

    fn note_written(&mut self) {
        if let Some(files) = &mut self.files {
            files.note_written();
        }
    }

    /// Writes something without a meaning, to see whether that is possible.
    pub(super) fn probe(&mut self, last_epoch: u64) -> rusqlite::Result<()> {
        self.check_place()?;
        self.shrink_log();
        let last = last_epoch.max(self.first_epoch);
        let tx = self.connection.transaction()?;
        let below = set_aside(&tx, last)?;
        tx.commit()?;
        self.note_written();
        self.epochs_below = below;
        Ok(())
    }

    /// Moves the oldest entries to the dead letters, at least `count` if there are so many. Returns
    /// how many of each subscription.
    pub(super) fn evict(&mut self, count: u64) -> rusqlite::Result<Vec<u64>> {
        self.check_place()?;
        let count = count.min(EVICTED_AT_ONCE).cast_signed();
        let tx = self.connection.transaction()?;
        let mut letters: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        let (mut origins, mut keys) = (self.origins.begin(), self.keys.begin());
        for (receiver, entry) in oldest(&tx, count)? {
            if self.subscriptions.iter().any(|to| *to.name == *receiver) {
                origins.add(&entry.origin, -1);
                keys.add(&entry.key, -1);
            }
            letters.entry(receiver).or_default().push(entry);
        }
        // Those for receivers that are not configured any more too: they are owed.
        for (receiver, entries) in &letters {
            DeadLetters::new(&self.directory, receiver)
                .add(entries, "the store was full")
                .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        }
        let count_of = |to: &Subscription| letters.get(&*to.name).map_or(0, |it| it.len() as u64);
        let evicted: Vec<u64> = self.subscriptions.iter().map(count_of).collect();
        let delete = "DELETE FROM entry
            WHERE number IN (SELECT number FROM entry ORDER BY number LIMIT ?1)";
        let gone = tx.execute(delete, [count])? as u64;
        let (origins, keys) = (origins.take(), keys.take());
        tx.commit()?;
        self.origins.apply(origins);
        self.keys.apply(keys);
        self.note_written();
        self.entries = self.entries.saturating_sub(gone);
        for (waiting, gone) in self.waiting.iter_mut().zip(&evicted) {
            *waiting = waiting.saturating_sub(*gone);
        }
        Ok(evicted)
    }

    /// Returns how many entries wait for each subscription.
    pub(super) fn waiting_each(&self) -> &[u64] {
        &self.waiting
    }

    /// Returns the receivers that are not configured, with the number of entries for each.
    pub fn unclaimed(&self) -> Vec<(String, u64)> {
        let names = "SELECT receiver, count(*) FROM entry GROUP BY receiver";
        let read = || -> rusqlite::Result<Vec<(String, u64)>> {
            let mut select = self.connection.prepare(names)?;
            let rows = select.query_map([], |row| Ok((row.get(0)?, get(1)(row)?)))?;
            rows.collect()
        };
        let mut all = read().unwrap_or_default();
        all.retain(|(name, _)| self.subscriptions.iter().all(|to| *to.name != **name));
        all
    }

    /// Brings all that was written to disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        let Some(files) = &self.files else {
            return Ok(());
        };
        files.check()?;
        File::open(files.log())?.sync_data()
    }

    /// Returns the connection, for what is read, and for what is no part of the file.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Returns when the oldest entry of each subscription happened.
    pub(super) fn oldest_ms(&self) -> rusqlite::Result<Vec<Option<u64>>> {
        let oldest = "SELECT at_ms FROM entry WHERE receiver = ?1 ORDER BY number LIMIT 1";
        let mut oldest = self.connection.prepare_cached(oldest)?;
        let each =
            self.subscriptions.iter().zip(&self.waiting).map(|(to, waiting)| match waiting {
                0 => Ok(None),
                _ => oldest.query_row([&*to.name], get(0)).optional(),
            });
        each.collect()
    }
}

/// Makes the directory, for nobody but this user: identities and addresses are in it.
fn make(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if directory.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new().mode(0o700).create(directory)
}

/// Sets a block of epochs aside; returns its end.
fn set_aside(tx: &Transaction<'_>, last: u64) -> rusqlite::Result<u64> {
    let below = last.saturating_add(BLOCK).min(i64::MAX.cast_unsigned());
    let replace = "INSERT OR REPLACE INTO epochs(one, below) VALUES(1, ?1)";
    tx.execute(replace, [below.cast_signed()])?;
    Ok(below)
}

/// Reads a number of 64 bits: the database has signed ones.
pub(super) fn get(column: usize) -> impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<u64> {
    move |row| row.get(column).map(i64::cast_unsigned)
}
