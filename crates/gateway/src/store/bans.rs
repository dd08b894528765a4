//! The table of bans: who may have no session, and until when by the wall clock.

use std::net::IpAddr;

use rusqlite::{Connection, Transaction, params};
use systole_core::Span;
use systole_core::wire::{BootId, is_close_text};

use crate::bans::{Banned, Kept, LIMIT, Unwritten};

/// `lasts_ms` is how long the ban was set for: what is left of it is never more, whatever the wall
/// clock says.
pub(super) const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS ban(
        kind TEXT NOT NULL, who TEXT NOT NULL, until_ms INTEGER NOT NULL,
        lasts_ms INTEGER NOT NULL, text TEXT NOT NULL DEFAULT '',
        PRIMARY KEY(kind, who)) WITHOUT ROWID;";

/// Brings the table of version 3 to version 4. Of its bans no text is known.
pub(super) const FROM_3: &str = "ALTER TABLE ban ADD COLUMN text TEXT NOT NULL DEFAULT '';";

/// Deletes the bans that are over, and reads the others, as many as there may be.
pub(super) fn read(tx: &Transaction<'_>, now_ms: u64) -> rusqlite::Result<Vec<Kept>> {
    tx.execute("DELETE FROM ban WHERE until_ms <= ?1", [signed(now_ms)])?;
    let select = "SELECT kind, who, until_ms, lasts_ms, text FROM ban ORDER BY kind, who LIMIT ?1";
    let mut select = tx.prepare(select)?;
    let number = |column, row: &rusqlite::Row<'_>| {
        row.get::<_, i64>(column).map(|number| u64::try_from(number).unwrap_or(0))
    };
    let rows = select.query_map([signed(LIMIT as u64)], |row| {
        let (kind, who): (String, String) = (row.get(0)?, row.get(1)?);
        let lasts = Span::from_millis(number(3, row)?);
        let until_ms = number(2, row)?;
        // Somebody may have written another one by hand.
        let text = row.get_ref(4)?.as_str().ok().filter(|text| is_close_text(text));
        let text = text.unwrap_or_default().into();
        Ok(banned(&kind, &who).map(|who| Kept { who, until_ms, lasts, text }))
    })?;
    // Nothing that this version has written is skipped.
    rows.filter_map(Result::transpose).collect()
}

/// Writes what has changed, all of it or nothing.
pub(super) fn write(connection: &mut Connection, bans: &Unwritten) -> rusqlite::Result<()> {
    let tx = connection.transaction()?;
    if bans.is_whole {
        tx.execute("DELETE FROM ban", [])?;
    }
    for who in &bans.lifted {
        let (kind, who) = columns(who);
        let delete = "DELETE FROM ban WHERE kind = ?1 AND who = ?2";
        tx.prepare_cached(delete)?.execute([kind, &*who])?;
    }
    for Kept { who, until_ms, lasts, text } in &bans.in_force {
        let (kind, who) = columns(who);
        let insert = "INSERT OR REPLACE INTO ban(kind, who, until_ms, lasts_ms, text)
            VALUES(?1, ?2, ?3, ?4, ?5)";
        let values = params![kind, who, signed(*until_ms), signed(lasts.as_millis()), &**text];
        tx.prepare_cached(insert)?.execute(values)?;
    }
    tx.commit()
}

fn columns(who: &Banned) -> (&'static str, String) {
    match who {
        Banned::Identity(identity) => ("identity", identity.to_string()),
        Banned::Device(id) => ("device", format!("{:032x}", u128::from_be_bytes(id.0))),
        Banned::Address(origin) => ("address", origin.address().to_string()),
    }
}

fn banned(kind: &str, who: &str) -> Option<Banned> {
    match kind {
        "identity" => Some(Banned::Identity(who.into())),
        "device" => {
            let number = u128::from_str_radix(who, 16).ok()?;
            Some(Banned::Device(BootId(number.to_be_bytes())))
        }
        "address" => Some(Banned::Address(who.parse::<IpAddr>().ok()?.into())),
        _ => None,
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
