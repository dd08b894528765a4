//! What is read from the store: the entries that wait for a receiver.

use rusqlite::{Connection, params};

use super::database::get;
use super::rows::Entry;

/// Number of entries of keys after which a question for more is answered: as long as a page.
pub(crate) const LEFT_AT_ONCE: usize = 512;

/// Entries of a key that are to be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The key.
    pub key: Box<str>,
    /// The number after which they stand.
    pub after: u64,
    /// How many are wanted at most.
    pub limit: usize,
}

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

/// Reads entries of a receiver after a number, in order.
pub(super) fn waiting(
    connection: &Connection,
    receiver: &str,
    after: u64,
    limit: usize,
) -> rusqlite::Result<Vec<Entry>> {
    let select = "SELECT number, key, session, epoch, kind, at_ms, body, origin FROM entry
        WHERE receiver = ?1 AND number > ?2 ORDER BY number LIMIT ?3";
    let mut select = connection.prepare_cached(select)?;
    select.query_map(params![receiver, after.cast_signed(), signed(limit)], read_entry)?.collect()
}

/// Reads entries of keys of a receiver up to a number, in order for each key. Returns those of the
/// first of the keys only, at least of one, if they have more than [`LEFT_AT_ONCE`].
pub(super) fn left(
    connection: &Connection,
    receiver: &str,
    wanted: &[Wanted],
    up_to: u64,
) -> rusqlite::Result<Vec<Vec<Entry>>> {
    let select = "SELECT number, key, session, epoch, kind, at_ms, body, origin FROM entry
        WHERE receiver = ?1 AND key = ?2 AND number > ?3 AND number <= ?4
        ORDER BY number LIMIT ?5";
    let mut select = connection.prepare_cached(select)?;
    let up_to = i64::try_from(up_to).unwrap_or(i64::MAX);
    let (mut left, mut count) = (Vec::new(), 0);
    for Wanted { key, after, limit } in wanted {
        if count >= LEFT_AT_ONCE {
            break;
        }
        let row = params![receiver, key, after.cast_signed(), up_to, signed(*limit)];
        let entries: Vec<_> = select.query_map(row, read_entry)?.collect::<Result<_, _>>()?;
        count += entries.len();
        left.push(entries);
    }
    Ok(left)
}

/// Reads the oldest entries of all receivers, with the receiver of each.
pub(super) fn oldest(
    connection: &Connection,
    limit: i64,
) -> rusqlite::Result<Vec<(String, Entry)>> {
    let select =
        "SELECT number, key, session, epoch, kind, at_ms, body, origin, receiver FROM entry
        ORDER BY number LIMIT ?1";
    let mut select = connection.prepare_cached(select)?;
    select.query_map([limit], |row| Ok((row.get(8)?, read_entry(row)?)))?.collect()
}

fn read_entry(row: &rusqlite::Row<'_>) -> rusqlite::Result<Entry> {
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
