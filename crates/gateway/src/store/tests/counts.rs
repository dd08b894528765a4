//! The counts that are kept in memory: always what the tables say.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use rusqlite::StatementStatus;

use super::super::inbox::Batch;
use super::*;

/// Shares that some identities and addresses reach.
const ROOM: Room = Room { max_rows: 300, share: 40, share_of_address: 80 };

const STEPS: u64 = 400;

/// Counts the rows of tables by a text.
fn tables(database: &Database, select: &str, receivers: &[&str]) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    let mut select = database.connection().prepare(select).unwrap();
    for receiver in receivers {
        let rows = select.query_map([receiver], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)));
        for (of, count) in rows.unwrap().map(Result::unwrap) {
            *all.entry(of).or_default() += count.cast_unsigned();
        }
    }
    all
}

/// Compares the counts with the tables.
fn check(database: &Database, step: u64) {
    let told = database.subscriptions().clone();
    let names: Vec<&str> = told.iter().map(|to| &*to.name).collect();
    let keys = "SELECT key, count(*) FROM entry WHERE receiver = ?1 GROUP BY key";
    assert_eq!(database.keys().all(), tables(database, keys, &names), "step {step}");
    let origins = "SELECT origin, count(*) FROM entry
        WHERE receiver = ?1 AND origin != '' GROUP BY origin";
    let mut origins = tables(database, origins, &names);
    let owed_to = told.iter().filter(|to| to.is_owed()).count() as u64;
    let owed = "SELECT address, count(*) FROM owed WHERE ?1 = ?1 GROUP BY address";
    for (address, count) in tables(database, owed, &[""]) {
        let origin = database.origins().of(&address);
        if !origin.is_empty() && owed_to > 0 {
            *origins.entry(origin.into()).or_default() += count * owed_to;
        }
    }
    assert_eq!(database.origins().all(), origins, "step {step}");
    let count = |select: &str, of: &str| {
        let count = database.connection().query_row(select, [of], |row| row.get::<_, i64>(0));
        count.unwrap().cast_unsigned()
    };
    let owed = count("SELECT count(*) FROM owed WHERE ?1 = ?1", "");
    let entries = count("SELECT count(*) FROM entry WHERE ?1 = ?1", "");
    assert_eq!(database.counted(), (owed, entries), "step {step}");
    let waiting = "SELECT count(*) FROM entry WHERE receiver = ?1";
    let waiting: Vec<_> = names.iter().map(|name| count(waiting, name)).collect();
    assert_eq!(database.waiting_each(), waiting, "step {step}");
}

/// A batch of anything, in any order.
fn batch(random: &mut Random, database: &Database) -> Batch {
    let mut batch = Batch::default();
    let (first, last) = ("SELECT min(number) FROM entry", "SELECT max(number) FROM entry");
    let number = |select| {
        let found = database.connection().query_row(select, [], |row| row.get::<_, Option<i64>>(0));
        found.unwrap().unwrap_or(0).cast_unsigned()
    };
    let (first, last) = (number(first), number(last));
    for _ in 0..random.below(12) {
        let session = random.below(60);
        // One of these networks is trusted, one session in five has no identity.
        let net = ["192.0.2", "198.51.100", "203.0.113"][usize::try_from(session % 3).unwrap()];
        let address = format!("{net}.{}:9", session % 2);
        let identity =
            if session.is_multiple_of(5) { String::new() } else { format!("peer {session}") };
        match random.below(6) {
            0 => batch
                .owings
                .push(Owing { address: address.parse().unwrap(), ..owing_of(session, &identity) }),
            1 => batch.waived.push((session, session + 1_000)),
            2 => batch.settled.push(first + random.below(last - first + 2)),
            kind => {
                let kind = ["join", "leave", "suspect"][usize::try_from(kind - 3).unwrap()];
                let noted = noted_of(kind, session, &identity);
                batch.notes.push_back(Noted { address, ..noted });
            }
        }
    }
    batch
}

/// Writes until the disk is full: what fails leaves all counts as they were.
fn fill_disk(random: &mut Random, database: &mut Database) {
    let lifted = database.limit_size();
    let room = Room { max_rows: u64::MAX, share: u64::MAX, share_of_address: u64::MAX };
    let mut has_failed = false;
    for step in 0..100 {
        let mut batch = batch(random, database);
        batch.notes.extend((0..200).map(|session| noted_of("leave", session, "many")));
        has_failed |= database.write(&batch, room, 1).is_err();
        check(database, step);
    }
    assert!(has_failed, "the disk has no end");
    lifted.store(true, Ordering::Relaxed);
    database.shrink_log();
}

#[test]
fn a_statement_is_not_planned_again_for_other_values() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(&settings(directory.path())).unwrap();
    let select = "SELECT number FROM entry WHERE receiver = ?1 AND number > ?2 LIMIT ?3";
    let mut select = database.connection().prepare(select).unwrap();
    for limit in 5..10 {
        assert!(!select.exists((limit.to_string(), limit, limit)).unwrap());
    }
    assert_eq!(select.get_status(StatementStatus::RePrepare), 0);
}

#[test]
fn the_counts_are_what_the_tables_say_whatever_is_written_and_opened() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(directory.path());
    settings.sync = Some(Span::from_secs(1));
    // With other webhooks than before, as after a change of the configuration.
    let only_a: Arc<[Subscription]> = [subscription("a", &["join", "suspect"])].into();
    let with_c = [subscription("b", &["leave"]), subscription("c", &["join", "leave"])].into();
    let told: [Arc<[Subscription]>; 4] = [told(), only_a, with_c, [].into()];
    let mut random = Random::new(7);
    let mut database = open(&settings).unwrap();
    let (mut dropped, mut reopened) = (0, 0);
    for step in 0..STEPS {
        match random.below(40) {
            0 => {
                drop(database);
                let told = told[usize::try_from(reopened % 4).unwrap()].clone();
                let opening = opening(told, NOW_MS + step);
                database = Database::open(&settings, opening, Place::Disk).unwrap();
                reopened += 1;
                check(&database, step);
                if reopened == 5 {
                    fill_disk(&mut random, &mut database);
                }
            }
            1 | 2 => drop(database.evict(random.below(60)).unwrap()),
            _ => {
                let batch = batch(&mut random, &database);
                dropped += database.write(&batch, ROOM, 1).unwrap();
            }
        }
        check(&database, step);
    }
    assert!(dropped > 0 && reopened > 5, "{dropped} {reopened}");
    // Places of texts that have no rows any more would be there for ever.
    let all = database.counted().1;
    while database.counted().1 > 0 {
        drop(database.evict(all).unwrap());
    }
    assert!(database.keys().all().is_empty());
}
