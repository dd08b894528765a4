//! Keys that a webhook has put aside: the first entry of each has failed and rests.
//!
//! A receiver may refuse the events of any number of identities. What a webhook has to remember of
//! each while it rests is kept here, so that its memory stays bounded: in a temporary table of the
//! database, of which SQLite keeps some 2 MB in memory and the rest in a temporary file. It ends
//! with the process: after a restart each entry is tried at once.

use rusqlite::{Connection, params};
use systole_core::Span;

use super::database::get;

/// The table; it is no part of the file of the store.
const TABLE: &str = "
    CREATE TEMP TABLE aside(
        receiver TEXT NOT NULL, key TEXT NOT NULL, number INTEGER NOT NULL,
        attempts INTEGER NOT NULL, first_at INTEGER NOT NULL, due INTEGER NOT NULL,
        PRIMARY KEY(receiver, key)) WITHOUT ROWID;
    CREATE INDEX temp.aside_due ON aside(receiver, due);";

/// A key that is put aside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Aside {
    /// The key.
    pub key: Box<str>,
    /// The number of its first entry.
    pub number: u64,
    /// The attempts at that entry.
    pub attempts: u32,
    /// When the first of them was.
    pub first_at: Span,
    /// When the next one is due.
    pub due: Span,
}

/// Keys whose next attempt is due.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TakenBack {
    /// The keys.
    pub keys: Vec<Aside>,
    /// When the next one of the others is due.
    pub next_due: Option<Span>,
}

pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(TABLE)
}

/// Puts keys aside, all of them or none.
pub(super) fn put(connection: &Connection, receiver: &str, keys: &[Aside]) -> rusqlite::Result<()> {
    // It writes to no other table, so nothing waits for the disk.
    let tx = connection.unchecked_transaction()?;
    let insert = "INSERT OR REPLACE INTO temp.aside(receiver, key, number, attempts, first_at, due)
        VALUES(?1, ?2, ?3, ?4, ?5, ?6)";
    let mut insert = tx.prepare_cached(insert)?;
    for Aside { key, number, attempts, first_at, due } in keys {
        let (first_at, due) = (signed(*first_at), signed(*due));
        insert.execute(params![receiver, key, number.cast_signed(), attempts, first_at, due])?;
    }
    drop(insert);
    tx.commit()
}

/// Takes keys back whose next attempt is due at `now`, at most `limit`, the earliest first.
pub(super) fn take_back(
    connection: &Connection,
    receiver: &str,
    now: Span,
    limit: usize,
) -> rusqlite::Result<TakenBack> {
    let tx = connection.unchecked_transaction()?;
    let select = "SELECT key, number, attempts, first_at, due FROM temp.aside
        WHERE receiver = ?1 AND due <= ?2 ORDER BY due LIMIT ?3";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut select = tx.prepare_cached(select)?;
    let rows = select.query_map(params![receiver, signed(now), limit], |row| {
        Ok(Aside {
            key: row.get::<_, String>(0)?.into(),
            number: get(1)(row)?,
            attempts: row.get(2)?,
            first_at: Span::from_nanos(get(3)(row)?),
            due: Span::from_nanos(get(4)(row)?),
        })
    })?;
    let keys: Vec<Aside> = rows.collect::<rusqlite::Result<_>>()?;
    let mut delete =
        tx.prepare_cached("DELETE FROM temp.aside WHERE receiver = ?1 AND key = ?2")?;
    for Aside { key, .. } in &keys {
        delete.execute(params![receiver, key])?;
    }
    let next = "SELECT min(due) FROM temp.aside WHERE receiver = ?1";
    let next: Option<i64> = tx.prepare_cached(next)?.query_row([receiver], |row| row.get(0))?;
    drop((select, delete));
    tx.commit()?;
    Ok(TakenBack { keys, next_due: next.map(|due| Span::from_nanos(due.cast_unsigned())) })
}

/// The database has signed numbers; these suffice for 292 years.
fn signed(span: Span) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}
