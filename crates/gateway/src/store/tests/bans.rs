//! Bans in the store: what survives a kill, and what a clock that is set makes of it.

use systole_core::wire::{BootId, MAX_CLOSE_TEXT};

use super::*;
use crate::bans::{Banned, Bans, Kept, LIMIT, TooMany};

const HOUR: Span = Span::from_secs(3_600);

fn named(name: &str) -> Banned {
    Banned::Identity(name.into())
}

/// One of each kind.
fn each() -> [Banned; 4] {
    let address = |text: &str| Banned::Address(text.parse::<std::net::IpAddr>().unwrap().into());
    [
        named("it's \u{1f980}"),
        Banned::Device(BootId([0xa7; 16])),
        address("192.0.2.1"),
        address("2001:db8::9"),
    ]
}

/// Runs a future that waits for the thread of a store.
fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Writes the bans of `who` as they are in memory, as the gateway does.
fn write(store: &Store, bans: &Bans, who: &[Banned]) -> bool {
    wait(async {
        let _turn = bans.write_turn().await;
        let is_written = store.write_bans(bans.unwritten(who)).await;
        bans.note_written(is_written);
        is_written
    })
}

/// What the start of a gateway finds when the wall clock shows `now_ms`.
fn found(settings: &StoreSettings, now_ms: u64) -> Vec<Kept> {
    Database::open(settings, opening([].into(), now_ms), Place::Disk).unwrap().take_bans()
}

/// What a gateway finds that starts now after one that was killed with its store in `directory`.
fn after_a_kill(directory: &TempDir) -> Vec<Kept> {
    let copy = image(directory.path());
    found(&settings(copy.path()), Clock::start().wall_ms())
}

fn who(kept: &[Kept]) -> Vec<Banned> {
    let mut who: Vec<_> = kept.iter().map(|kept| kept.who.clone()).collect();
    who.sort_unstable();
    who
}

#[test]
fn bans_that_were_answered_survive_a_kill_and_those_that_have_ended_are_gone() {
    for sync in [None, Some(Span::from_secs(60))] {
        let directory = tempfile::tempdir().unwrap();
        let settings = StoreSettings { sync, ..settings(directory.path()) };
        let store = start(open(&settings).unwrap(), &settings);
        let bans = Bans::new(Clock::start());
        bans.load(Vec::new());
        for one in each() {
            bans.set(std::slice::from_ref(&one), HOUR, "").unwrap();
            assert!(write(&store, &bans, &[one]));
        }
        let mut all = each().to_vec();
        all.sort_unstable();
        let kept = after_a_kill(&directory);
        assert_eq!(who(&kept), all);
        let until = Clock::start().wall_ms() + HOUR.as_millis();
        assert!(kept.iter().all(|kept| kept.lasts == HOUR));
        assert!(kept.iter().all(|kept| (until - 60_000..=until).contains(&kept.until_ms)));
        // One is lifted, one gets another time, one ends by itself.
        let [first, second, third, fourth] = each();
        bans.lift(&first);
        assert!(write(&store, &bans, &[first]));
        bans.set(std::slice::from_ref(&second), HOUR.times(2), "").unwrap();
        assert!(write(&store, &bans, std::slice::from_ref(&second)));
        bans.set(std::slice::from_ref(&third), Span::ZERO, "").unwrap();
        assert!(write(&store, &bans, &[third]));
        let kept = after_a_kill(&directory);
        assert_eq!(who(&kept), [second.clone(), fourth]);
        assert!(kept.iter().any(|kept| kept.who == second && kept.lasts == HOUR.times(2)));
    }
}

#[test]
fn the_wall_clock_ends_a_ban_over_a_restart_and_none_outlasts_its_own_length() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let bans = Bans::new(Clock::start());
    bans.set(&[named("ada")], HOUR, "").unwrap();
    let store = start(open(&settings).unwrap(), &settings);
    assert!(write(&store, &bans, &[named("ada")]));
    assert!(store.stop(Span::from_secs(10)));
    let now_ms = Clock::start().wall_ms();
    assert_eq!(found(&settings, now_ms + 3_000_000).len(), 1);
    // The clock was set back, by years and by minutes: an hour from the start is the most.
    let here = "192.0.2.1".parse().unwrap();
    let left = |until_ms| {
        let bans = Bans::new(Clock::start());
        bans.load(vec![Kept { who: named("ada"), until_ms, lasts: HOUR, text: "".into() }]);
        bans.of_peer("ada", BootId::default(), here).map(|it| it.left)
    };
    for until_ms in [u64::MAX, now_ms + 4_000_000] {
        let left = left(until_ms).unwrap();
        assert!(left <= HOUR && left > HOUR.less(Span::from_secs(60)), "{left}");
    }
    let short = left(now_ms + 120_000).unwrap();
    assert!(short <= Span::from_secs(120), "{short}");
    assert_eq!(left(now_ms - 1), None);
    // A start at which it is over deletes it.
    assert_eq!(found(&settings, now_ms + 3_700_000), []);
    assert_eq!(found(&settings, now_ms), []);
}

#[test]
fn a_full_table_of_bans_is_full_on_disk_too_and_not_more_than_that() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let store = start(open(&settings).unwrap(), &settings);
    let bans = Bans::new(Clock::start());
    let all: Vec<_> = (0..LIMIT).map(|number| named(&number.to_string())).collect();
    bans.set(&all, HOUR, "").unwrap();
    assert!(write(&store, &bans, &all));
    assert_eq!(bans.set(&[named("more")], HOUR, ""), Err(TooMany));
    // Ended in memory, and not by the wall clock: what takes its place pushes it out on disk.
    bans.set(&all[..5], Span::ZERO, "").unwrap();
    bans.set(&[named("more")], HOUR, "").unwrap();
    assert!(write(&store, &bans, &[named("more")]));
    let kept = after_a_kill(&directory);
    assert_eq!(kept.len(), LIMIT - 4);
    assert!(kept.iter().any(|kept| kept.who == named("more")));
    assert!(store.stop(Span::from_secs(10)));
    // Somebody has added some by hand; no more than the limit are read.
    let file = rusqlite::Connection::open(directory.path().join("systole.db")).unwrap();
    let insert = "INSERT INTO ban VALUES('identity', ?1, 9000000000000, -1, '')";
    (0..9).for_each(|name| {
        file.execute(insert, [format!("x{name}")]).unwrap();
    });
    file.execute("INSERT INTO ban VALUES('device', 'nonsense', 9000000000000, 1, '')", []).unwrap();
    drop(file);
    assert!(found(&settings, NOW_MS).len() <= LIMIT);
}

#[test]
fn what_a_failing_disk_did_not_take_is_written_with_the_next_ban() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let mut database = open(&settings).unwrap();
    let is_lifted = database.limit_size();
    let store = start(database, &settings);
    let bans = Bans::new(Clock::start());
    bans.set(&[named("lifted")], HOUR, "").unwrap();
    assert!(write(&store, &bans, &[named("lifted")]));
    let many: Vec<_> = (0..LIMIT / 2).map(|number| named(&format!("{number:064}"))).collect();
    bans.set(&many, HOUR, "").unwrap();
    assert!(!write(&store, &bans, &many) && bans.has_failed());
    assert!(store.health().failing.is_some());
    assert_eq!(who(&after_a_kill(&directory)), [named("lifted")], "all of it or nothing");
    bans.lift(&named("lifted"));
    is_lifted.store(true, std::sync::atomic::Ordering::Relaxed);
    // The limit is lifted by the next write of events.
    store.note(noted("join", 1));
    store.flush();
    assert!(write(&store, &bans, &[]) && !bans.has_failed());
    assert_eq!(who(&after_a_kill(&directory)), many);
}

#[test]
fn a_text_survives_a_kill_as_it_was_said_and_one_written_by_hand_is_legal_or_none() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let store = start(open(&settings).unwrap(), &settings);
    let bans = Bans::new(Clock::start());
    let longest = "\u{1f980}".repeat(MAX_CLOSE_TEXT / 4);
    for (name, text) in [("ada", "it's noon"), ("bob", &*longest), ("eve", "")] {
        bans.set(&[named(name)], HOUR, text).unwrap();
        assert!(write(&store, &bans, &[named(name)]));
    }
    let texts = |directory: &TempDir| {
        let bans = Bans::new(Clock::start());
        bans.load(after_a_kill(directory));
        let of = |name| bans.of_peer(name, BootId::default(), [192, 0, 2, 1].into()).unwrap().text;
        ["ada", "bob", "eve"].map(|name| of(name).to_string())
    };
    assert_eq!(texts(&directory), ["it's noon", &longest, ""]);
    bans.set(&[named("ada")], HOUR, "another one").unwrap();
    assert!(write(&store, &bans, &[named("ada")]));
    assert_eq!(texts(&directory)[0], "another one");
    assert!(store.stop(Span::from_secs(10)));
    let file = rusqlite::Connection::open(directory.path().join("systole.db")).unwrap();
    let too_long = "x".repeat(MAX_CLOSE_TEXT + 1);
    for (name, text) in [("ada", &b"a\x1b[2J"[..]), ("bob", too_long.as_bytes())] {
        let update = "UPDATE ban SET text = CAST(?2 AS TEXT) WHERE who = ?1";
        file.execute(update, rusqlite::params![name, text]).unwrap();
    }
    file.execute("UPDATE ban SET text = x'ff' WHERE who = 'eve'", []).unwrap();
    drop(file);
    assert_eq!(texts(&directory), ["", "", ""]);
}

/// A store of version 2.
const VERSION_2: &str = "
        PRAGMA application_id = 1400468340; PRAGMA user_version = 2; PRAGMA journal_mode = WAL;
        CREATE TABLE owed(
            session INTEGER NOT NULL, epoch INTEGER NOT NULL, identity TEXT NOT NULL,
            listener TEXT NOT NULL, address TEXT NOT NULL, since_ms INTEGER NOT NULL,
            PRIMARY KEY(epoch, session)) WITHOUT ROWID;
        CREATE TABLE entry(
            number INTEGER PRIMARY KEY AUTOINCREMENT, receiver TEXT NOT NULL, key TEXT NOT NULL,
            session INTEGER NOT NULL, epoch INTEGER NOT NULL, kind TEXT NOT NULL,
            at_ms INTEGER NOT NULL, body TEXT NOT NULL, origin TEXT NOT NULL DEFAULT '');
        CREATE INDEX entry_of ON entry(receiver, number);
        CREATE INDEX entry_of_key ON entry(receiver, key, number);
        CREATE TABLE epochs(one INTEGER PRIMARY KEY CHECK(one = 1), below INTEGER);
        INSERT INTO owed VALUES(7, 1007, 'ada', 'native', '192.0.2.1:4711', 1800000000000);
        INSERT INTO entry(receiver, key, session, epoch, kind, at_ms, body, origin)
            VALUES('a', 'bob', 3, 1003, 'join', 1800000000000, '{}', '192.0.2.9');";

/// What a store of version 3 has more: a ban of the year 2255.
const MORE_OF_VERSION_3: &str = "
        PRAGMA user_version = 3;
        CREATE TABLE ban(
            kind TEXT NOT NULL, who TEXT NOT NULL, until_ms INTEGER NOT NULL,
            lasts_ms INTEGER NOT NULL, PRIMARY KEY(kind, who)) WITHOUT ROWID;
        INSERT INTO ban VALUES('identity', 'eve', 9000000000000, 3600000);";

/// Makes a store by hand.
fn made_of(directory: &Path, statements: &[&str]) {
    let old = rusqlite::Connection::open(directory.join("systole.db")).unwrap();
    statements.iter().for_each(|each| old.execute_batch(each).unwrap());
}

#[test]
fn a_store_of_version_3_gets_the_texts_of_bans_and_keeps_the_bans() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    made_of(directory.path(), &[VERSION_2, MORE_OF_VERSION_3]);
    let mut database = open(&settings).unwrap();
    let text = "".into();
    let eve = Kept { who: named("eve"), until_ms: 9_000_000_000_000, lasts: HOUR, text };
    let kept = database.take_bans();
    assert_eq!(kept, [eve]);
    let store = start(database, &settings);
    assert_eq!(waiting(&store, "a"), lost(&[("join", 3), ("leave", 7)]));
    let bans = Bans::new(Clock::start());
    bans.load(kept);
    bans.set(&[named("ada")], HOUR, "an hour").unwrap();
    assert!(write(&store, &bans, &[named("ada")]));
    let kept = after_a_kill(&directory);
    let texts: Vec<_> = kept.iter().map(|it| (it.who.clone(), &*it.text)).collect();
    assert_eq!(texts, [(named("ada"), "an hour"), (named("eve"), "")]);
    assert_eq!(after_a_kill(&directory), kept, "opened as version 4");
}

#[test]
fn a_store_of_version_2_gets_the_table_and_keeps_what_it_owes() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    made_of(directory.path(), &[VERSION_2]);
    let store = start(open(&settings).unwrap(), &settings);
    assert_eq!(waiting(&store, "a"), lost(&[("join", 3), ("leave", 7)]));
    assert_eq!(&*store.waiting("a", 0, 1).unwrap()[0].origin, "192.0.2.9");
    let bans = Bans::new(Clock::start());
    bans.set(&each(), HOUR, "an hour").unwrap();
    assert!(write(&store, &bans, &each()));
    let kept = after_a_kill(&directory);
    assert!(kept.len() == 4 && kept.iter().all(|kept| &*kept.text == "an hour"));
}

#[test]
fn a_store_without_a_receiver_keeps_bans_and_refuses_no_login() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let opening = opening([].into(), NOW_MS);
    let store = start(Database::open(&settings, opening, Place::Disk).unwrap(), &settings);
    assert!(!store.has_receivers() && !store.is_required());
    let bans = Bans::new(Clock::start());
    bans.set(&each(), HOUR, "").unwrap();
    assert!(write(&store, &bans, &each()));
    assert_eq!(after_a_kill(&directory).len(), 4);
    // Nobody has the files any more: the answer says so.
    fs::remove_file(directory.path().join("systole.db")).unwrap();
    assert!(!write(&store, &bans, &each()));
    assert!(store.stop(Span::from_secs(10)) || bans.has_failed());
    assert!(!write(&store, &bans, &each()), "a store that has ended takes nothing");
}
