//! What is read from the store: the entries that wait for a receiver.

use std::ops::RangeInclusive;

use rusqlite::{Connection, params};

use super::database::get;
use super::rows::Entry;

/// Entries that stand one after the other.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Page {
    /// Those of keys that are not put aside.
    pub entries: Vec<Entry>,
    /// The number of the last entry that was looked at, if there was one.
    pub last: Option<u64>,
    /// Whether there were as many as were asked for, so that more may follow.
    pub is_full: bool,
}

/// Reads the entries of a receiver after a number, in order, but for keys that are put aside.
/// Those count towards `limit`, so that a page costs the same however many they are.
pub(super) fn page(
    connection: &Connection,
    receiver: &str,
    after: u64,
    limit: usize,
) -> rusqlite::Result<Page> {
    let select = "SELECT number, key, session, epoch, kind, at_ms, body, origin,
            EXISTS(SELECT 1 FROM temp.aside AS it WHERE it.receiver = ?1 AND it.key = entry.key)
        FROM entry WHERE receiver = ?1 AND number > ?2 ORDER BY number LIMIT ?3";
    let mut select = connection.prepare_cached(select)?;
    let mut rows = select.query(params![receiver, after.cast_signed(), signed(limit)])?;
    let (mut page, mut looked_at) = (Page::default(), 0);
    while let Some(row) = rows.next()? {
        looked_at += 1;
        page.last = Some(get(0)(row)?);
        let is_aside: bool = row.get(8)?;
        if !is_aside {
            page.entries.push(read_entry(row)?);
        }
    }
    page.is_full = looked_at == limit;
    Ok(page)
}

/// Reads entries of a receiver, or of one of its keys, after the first of `numbers`.
pub(super) fn waiting(
    connection: &Connection,
    receiver: &str,
    key: Option<&str>,
    numbers: RangeInclusive<u64>,
    limit: usize,
) -> rusqlite::Result<Vec<Entry>> {
    let select = match key {
        None => {
            "SELECT number, key, session, epoch, kind, at_ms, body, origin FROM entry
            WHERE receiver = ?1 AND number > ?2 AND number <= ?3 ORDER BY number LIMIT ?4"
        }
        Some(_) => {
            "SELECT number, key, session, epoch, kind, at_ms, body, origin FROM entry
            WHERE receiver = ?1 AND number > ?2 AND number <= ?3 AND key = ?5
            ORDER BY number LIMIT ?4"
        }
    };
    let mut select = connection.prepare_cached(select)?;
    let after = numbers.start().cast_signed();
    let up_to = i64::try_from(*numbers.end()).unwrap_or(i64::MAX);
    let limit = signed(limit);
    let rows = match key {
        None => select.query_map(params![receiver, after, up_to, limit], read_entry)?,
        Some(key) => select.query_map(params![receiver, after, up_to, limit, key], read_entry)?,
    };
    rows.collect()
}

pub(super) fn read_entry(row: &rusqlite::Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        number: get(0)(row)?,
        key: row.get::<_, String>(1)?.into(),
        session: get(2)(row)?,
        epoch: get(3)(row)?,
        kind: row.get::<_, String>(4)?.into(),
        at_ms: get(5)(row)?,
        body: row.get::<_, String>(6)?.into(),
        origin: row.get::<_, String>(7)?.into(),
    })
}

fn signed(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
