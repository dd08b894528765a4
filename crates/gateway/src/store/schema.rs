//! The tables of the store, and how those of an older version become the present ones.

use rusqlite::{Connection, Transaction};

use super::bans;

/// The version of the tables. A store of a later one is not opened.
pub(super) const VERSION: i64 = 4;

/// Marks a file as a store of this program: "Syst".
pub(super) const APPLICATION: i64 = 0x5379_7374;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS owed(
        session INTEGER NOT NULL, epoch INTEGER NOT NULL, identity TEXT NOT NULL,
        listener TEXT NOT NULL, address TEXT NOT NULL, since_ms INTEGER NOT NULL,
        PRIMARY KEY(epoch, session)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS entry(
        number INTEGER PRIMARY KEY AUTOINCREMENT, receiver TEXT NOT NULL, key TEXT NOT NULL,
        session INTEGER NOT NULL, epoch INTEGER NOT NULL, kind TEXT NOT NULL,
        at_ms INTEGER NOT NULL, body TEXT NOT NULL, origin TEXT NOT NULL DEFAULT '');
    CREATE INDEX IF NOT EXISTS entry_of ON entry(receiver, number);
    CREATE INDEX IF NOT EXISTS entry_of_key ON entry(receiver, key, number);
    CREATE TABLE IF NOT EXISTS epochs(one INTEGER PRIMARY KEY CHECK(one = 1), below INTEGER);";

/// Brings the tables of version 1 to version 2. Of its entries no origin is known, so they count
/// for no address. Version 3 has one table more, that of bans, and version 4 their texts.
const FROM_1: &str = "ALTER TABLE entry ADD COLUMN origin TEXT NOT NULL DEFAULT '';";

/// Whether a file is a store that this version reads, or empty.
pub(super) fn is_ours(connection: &Connection) -> rusqlite::Result<bool> {
    let pragma = |name| connection.pragma_query_value(None, name, |row| row.get(0));
    let (application, version): (i64, i64) = (pragma("application_id")?, pragma("user_version")?);
    let tables = "SELECT count(*) FROM sqlite_schema";
    let is_empty = connection.query_row(tables, [], |row| row.get::<_, i64>(0))? == 0;
    Ok(is_empty || (application == APPLICATION && (1..=VERSION).contains(&version)))
}

/// Makes the tables that are missing, and changes those of an older version.
pub(super) fn bring_up_to_date(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    let version: i64 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version == 1 {
        tx.execute_batch(FROM_1)?;
    }
    if version == 3 {
        tx.execute_batch(bans::FROM_3)?;
    }
    tx.execute_batch(TABLES)?;
    tx.execute_batch(bans::TABLE)?;
    tx.pragma_update(None, "application_id", APPLICATION)?;
    tx.pragma_update(None, "user_version", VERSION)
}
