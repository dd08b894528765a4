//! Reads `[store]`: where it is kept what is owed about sessions.

use std::path::Path;

use systole_core::Span;
use toml::de::DeValue;

use super::section::{Given, Reading, Section};
use super::value::{self, Refused};
use crate::store::StoreSettings;

/// Default maximum of rows: half a gigabyte.
const DEFAULT_MAX_ROWS: u64 = 1_000_000;

/// The part of all rows that one identity may have by default: 10,000 of a million. A hundred
/// identities together can still fill the store, and one alone logs in 5,000 times before it waits.
const DEFAULT_SHARES: u64 = 100;

/// The part of all rows that one address may have by default: four of them together can still fill
/// the store, and one has room for the clients of a large network behind it.
const DEFAULT_SHARES_OF_ADDRESSES: u64 = 4;

/// What makes room in a full store.
const WHEN_FULL: [(&str, bool); 2] = [("refuse", false), ("dead_letters", true)];

/// Reads `[store]`; `None` if it is absent or was refused. It must be there if something is owed.
pub(super) fn read(
    reading: &mut Reading<'_>,
    mut section: Section<'_>,
    directory: &Path,
    is_needed: bool,
) -> Option<StoreSettings> {
    let place = section.span();
    let path = section.take(reading, "path", |value| match value::text(value) {
        Ok(text) if !text.is_empty() => Ok(text),
        _ => Err("the name of a directory in quotes".to_owned()),
    });
    let sync = section.take(reading, "sync", sync);
    let max_rows = section.take(reading, "max_rows", value::integer(1_000..=1_000_000_000));
    let shares = value::integer(10..=1_000_000_000);
    let share = section.take(reading, "max_rows_per_identity", shares);
    let shares = value::integer(10..=1_000_000_000);
    let of_address = section.take(reading, "max_rows_per_address", shares);
    let when_full = section.take(reading, "when_full", value::chosen(&WHEN_FULL));
    let required = section.take(reading, "required", value::boolean);
    let has_path = section.has("path");
    section.finish(reading);
    if (is_needed || place.is_some()) && !has_path {
        let is_absent = place.is_none();
        let what = if is_absent { "[[webhook]] needs a [store]" } else { "[store] has no `path`" };
        let help = "name a directory for what webhooks are still to be told, as in \
                    [store] path = \"/var/lib/systole\"";
        reading.problems.add(place, what.to_owned(), Some(help.to_owned()));
    }
    let max_rows = Given::or(max_rows, DEFAULT_MAX_ROWS);
    Some(StoreSettings {
        directory: directory.join(path?.value),
        sync: Given::or(sync, None),
        max_rows,
        max_rows_per_identity: Given::or(share, (max_rows / DEFAULT_SHARES).max(10)),
        max_rows_per_address: Given::or(of_address, max_rows / DEFAULT_SHARES_OF_ADDRESSES),
        drops_oldest: Given::or(when_full, false),
        is_required: Given::or(required, true),
    })
}

/// Reads when what is written must be on disk: `"commit"`, or how much later at the latest.
fn sync(value: &DeValue<'_>) -> Result<Option<Span>, Refused> {
    if value::text(value).as_deref() == Ok("commit") {
        return Ok(None);
    }
    let later = value::span(Span::from_millis(1)..=Span::from_secs(60))(value);
    later.map(Some).map_err(|refused| refused.or("\"commit\""))
}
