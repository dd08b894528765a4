//! Keys that a webhook has put aside: the first entry of each has failed and rests.
//!
//! A receiver may refuse the events of any number of identities. What a webhook has to remember of
//! each while it rests is kept here, so that its memory stays bounded: in a temporary table of the
//! database, of which SQLite keeps some 2 MB in memory and the rest in a temporary file. It ends
//! with the process: after a restart each entry is tried at once.
//!
//! The addresses of the clients take turns when keys are taken back, so that one with many keys
//! that are due delays those of no other.

use std::collections::VecDeque;

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use systole_core::Span;

use super::database::get;

/// The tables; they are no part of the file of the store. `turn` has a row for each address that
/// has keys: none of them is due before `since`, and of those that are due the address with the
/// earliest is next.
const TABLES: &str = "
    CREATE TEMP TABLE aside(
        receiver TEXT NOT NULL, key TEXT NOT NULL, origin TEXT NOT NULL, number INTEGER NOT NULL,
        attempts INTEGER NOT NULL, first_at INTEGER NOT NULL, due INTEGER NOT NULL,
        PRIMARY KEY(receiver, key)) WITHOUT ROWID;
    CREATE INDEX temp.aside_due ON aside(receiver, origin, due);
    CREATE TEMP TABLE turn(
        receiver TEXT NOT NULL, origin TEXT NOT NULL, since INTEGER NOT NULL,
        PRIMARY KEY(receiver, origin)) WITHOUT ROWID;
    CREATE INDEX temp.turn_since ON turn(receiver, since);";

/// A key that is put aside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Aside {
    /// The key.
    pub key: Box<str>,
    /// The address of the client, as [`Entry::origin`](super::Entry::origin).
    pub origin: Box<str>,
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
    connection.execute_batch(TABLES)
}

/// Puts keys aside, all of them or none.
pub(super) fn put(connection: &Connection, receiver: &str, keys: &[Aside]) -> rusqlite::Result<()> {
    // It writes to no other table, so nothing waits for the disk.
    let tx = connection.unchecked_transaction()?;
    let insert = "INSERT OR REPLACE INTO
        temp.aside(receiver, key, origin, number, attempts, first_at, due)
        VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let mut insert = tx.prepare_cached(insert)?;
    let turn = "INSERT INTO temp.turn(receiver, origin, since) VALUES(?1, ?2, ?3)
        ON CONFLICT DO UPDATE SET since = min(since, excluded.since)";
    let mut turn = tx.prepare_cached(turn)?;
    for Aside { key, origin, number, attempts, first_at, due } in keys {
        let (number, first_at, due) = (number.cast_signed(), signed(*first_at), signed(*due));
        insert.execute(params![receiver, key, origin, number, attempts, first_at, due])?;
        turn.execute(params![receiver, origin, due])?;
    }
    drop((insert, turn));
    tx.commit()
}

/// Takes keys back whose next attempt is due at `now`, at most `limit`: the earliest of each
/// address, in turns.
pub(super) fn take_back(
    connection: &Connection,
    receiver: &str,
    now: Span,
    limit: usize,
) -> rusqlite::Result<TakenBack> {
    let tx = connection.unchecked_transaction()?;
    let mut waiting = next_addresses(&tx, receiver, now, limit)?;
    let mut keys = Vec::new();
    while keys.len() < limit
        && let Some(origin) = waiting.pop_front()
    {
        keys.extend(take_earliest(&tx, receiver, &origin, now)?);
        match next_due(&tx, receiver, &origin)? {
            Some(due) if due <= signed(now) => waiting.push_back(origin),
            due => set_turn(&tx, receiver, &origin, due)?,
        }
    }
    // Behind all that were due before. A nanosecond more keeps their order.
    for (since, origin) in (signed(now)..).zip(&waiting) {
        set_turn(&tx, receiver, origin, Some(since))?;
    }
    let next = "SELECT min(since) FROM temp.turn WHERE receiver = ?1";
    let next: Option<i64> = tx.prepare_cached(next)?.query_row([receiver], |row| row.get(0))?;
    tx.commit()?;
    Ok(TakenBack { keys, next_due: next.map(|due| Span::from_nanos(due.cast_unsigned())) })
}

/// Returns the addresses whose turn is next, at most `limit`.
fn next_addresses(
    tx: &Transaction<'_>,
    receiver: &str,
    now: Span,
    limit: usize,
) -> rusqlite::Result<VecDeque<String>> {
    let select = "SELECT origin FROM temp.turn
        WHERE receiver = ?1 AND since <= ?2 ORDER BY since LIMIT ?3";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut select = tx.prepare_cached(select)?;
    select.query_map(params![receiver, signed(now), limit], |row| row.get(0))?.collect()
}

/// Takes the key of an address that is due first, if it is.
fn take_earliest(
    tx: &Transaction<'_>,
    receiver: &str,
    origin: &str,
    now: Span,
) -> rusqlite::Result<Option<Aside>> {
    let select = "SELECT key, number, attempts, first_at, due FROM temp.aside
        WHERE receiver = ?1 AND origin = ?2 AND due <= ?3 ORDER BY due LIMIT 1";
    let mut select = tx.prepare_cached(select)?;
    let earliest = select.query_row(params![receiver, origin, signed(now)], |row| {
        Ok(Aside {
            key: row.get::<_, String>(0)?.into(),
            origin: origin.into(),
            number: get(1)(row)?,
            attempts: row.get(2)?,
            first_at: Span::from_nanos(get(3)(row)?),
            due: Span::from_nanos(get(4)(row)?),
        })
    });
    let earliest = earliest.optional()?;
    if let Some(Aside { key, .. }) = &earliest {
        let delete = "DELETE FROM temp.aside WHERE receiver = ?1 AND key = ?2";
        tx.prepare_cached(delete)?.execute(params![receiver, key])?;
    }
    Ok(earliest)
}

/// Returns when the next key of an address is due.
fn next_due(tx: &Transaction<'_>, receiver: &str, origin: &str) -> rusqlite::Result<Option<i64>> {
    let next = "SELECT min(due) FROM temp.aside WHERE receiver = ?1 AND origin = ?2";
    tx.prepare_cached(next)?.query_row([receiver, origin], |row| row.get(0))
}

/// Notes since when it is the turn of an address; never if it has no keys.
fn set_turn(
    tx: &Transaction<'_>,
    receiver: &str,
    origin: &str,
    since: Option<i64>,
) -> rusqlite::Result<()> {
    let Some(since) = since else {
        let delete = "DELETE FROM temp.turn WHERE receiver = ?1 AND origin = ?2";
        tx.prepare_cached(delete)?.execute([receiver, origin])?;
        return Ok(());
    };
    let update = "UPDATE temp.turn SET since = ?3 WHERE receiver = ?1 AND origin = ?2";
    tx.prepare_cached(update)?.execute(params![receiver, origin, since])?;
    Ok(())
}

/// The database has signed numbers; these suffice for 292 years.
fn signed(span: Span) -> i64 {
    i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)
}
