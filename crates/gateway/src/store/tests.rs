//! The store: what survives a kill, a cut log, a full disk and a full table.

mod aside;
mod away;
mod bans;
mod counts;
mod unknown;

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use mio::{Poll, Token};
use systole_core::random::Random;
use systole_net::Clock;
use tempfile::TempDir;

use super::changes::Room;
use super::fixture::settings;
use super::*;
use crate::wake::wake_ups;

/// How many sessions of a killed gateway are remembered.
const REMEMBERED: usize = 5;

const NOW_MS: u64 = 1_800_000_000_000;

fn subscription(name: &str, events: &[&'static str]) -> Subscription {
    Subscription { name: name.into(), events: events.to_vec() }
}

fn told() -> Arc<[Subscription]> {
    [subscription("a", &["join", "leave"]), subscription("b", &["leave", "suspect"])].into()
}

fn open(settings: &StoreSettings) -> Result<Database, StoreError> {
    Database::open(settings, opening(told(), NOW_MS), Place::Disk)
}

fn opening(subscriptions: Arc<[Subscription]>, now_ms: u64) -> Opening {
    let listeners = ["native".into()].into();
    let trusted = ["198.51.100.0/24".parse().unwrap()].into();
    Opening { subscriptions, listeners, now_ms, remembered: REMEMBERED, trusted }
}

/// A store with one shard, which nobody wakes.
fn start(database: Database, settings: &StoreSettings) -> Store {
    let poll = Poll::new().unwrap();
    let (waker, _wake_ups) = wake_ups(poll.registry(), Token(0)).unwrap();
    let epochs = Arc::new(Epochs::above(database.first_epoch()));
    Store::start(database, settings, vec![waker], epochs).unwrap()
}

fn owing(session: u64) -> Owing {
    Owing {
        shard: 0,
        link: u32::try_from(session).unwrap(),
        admission: 1,
        session,
        epoch: session + 1_000,
        identity: format!("peer {}", session % 3).into(),
        listener: 0,
        address: (Ipv4Addr::LOCALHOST, 9).into(),
        at_ms: NOW_MS,
    }
}

fn noted(kind: &'static str, session: u64) -> Noted {
    let Owing { epoch, identity, address, at_ms, .. } = owing(session);
    let body = format!("{{\"kind\":\"{kind}\",\"session\":\"{session:016x}\"}}").into();
    let (listener, address) = ("native".into(), address.to_string());
    Noted { kind, at_ms, session, epoch, identity, listener, address, body }
}

/// Waits for the answers to `count` logins.
fn answers(store: &Store, count: usize) -> Vec<Owned> {
    let clock = Clock::start();
    let mut all = Vec::new();
    while all.len() < count {
        assert!(clock.monotonic() < Span::from_secs(30), "{} answers of {count}", all.len());
        all.extend(store.take_owned(0));
        std::thread::park_timeout(Duration::from_millis(1));
    }
    all
}

/// The kinds and sessions of what waits for a receiver.
fn waiting(store: &Store, receiver: &str) -> Vec<(String, u64)> {
    let entries = store.waiting(receiver, 0, 10_000).unwrap();
    entries.iter().map(|entry| (entry.kind.to_string(), entry.session)).collect()
}

/// Copies the files of a store as a kill at this moment would leave them.
fn image(of: &Path) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    for file in fs::read_dir(of).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    copy
}

fn lost(kinds: &[(&str, u64)]) -> Vec<(String, u64)> {
    kinds.iter().map(|(kind, session)| ((*kind).to_owned(), *session)).collect()
}

#[test]
fn what_is_owed_survives_a_kill_and_what_has_left_is_owed_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let store = start(open(&settings).unwrap(), &settings);
    (1..=4).for_each(|session| assert!(store.owe(owing(session))));
    assert!(answers(&store, 4).iter().all(|owned| owned.is_granted));
    for (kind, session) in [("join", 1), ("join", 2), ("suspect", 2), ("leave", 1)] {
        store.note(noted(kind, session));
    }
    store.waive(4, 1_004);
    store.flush();
    let a = lost(&[("join", 1), ("join", 2), ("leave", 1)]);
    assert_eq!((waiting(&store, "a"), store.stats().owed.get()), (a.clone(), 2));
    let b = lost(&[("suspect", 2), ("leave", 1)]);
    assert_eq!(waiting(&store, "b"), b);
    // The receiver has taken the first; the gateway is killed.
    store.settle(store.waiting("a", 0, 1).unwrap()[0].number);
    store.flush();
    while store.counts("a").waiting == 3 {}
    let copy = image(directory.path());
    let again = super::tests::settings(copy.path());
    let store = start(open(&again).unwrap(), &again);
    assert_eq!(store.stats().lost.get(), 2);
    let a = lost(&[("join", 2), ("leave", 1), ("leave", 2), ("leave", 3)]);
    assert_eq!((waiting(&store, "a"), store.stats().owed.get()), (a, 0));
    let entries = store.waiting("a", 0, 10).unwrap();
    assert!(entries[2].body.contains("\"cause\":\"gateway_lost\""), "{}", entries[2].body);
    assert!(entries[2].body.contains("\"identity\":\"peer 2\""), "{}", entries[2].body);
    // Once, whatever comes.
    assert!(store.stop(Span::from_secs(10)));
    let database = open(&again).unwrap();
    assert_eq!((database.left_behind().count, database.counted()), (0, (0, 4 + 4)));
}

#[test]
fn of_many_sessions_of_a_killed_gateway_the_latest_are_remembered_and_all_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let store = start(open(&settings).unwrap(), &settings);
    (1..=9).for_each(|session| assert!(store.owe(owing(session))));
    answers(&store, 9);
    let copy = image(directory.path());
    let again = super::tests::settings(copy.path());
    let store = start(open(&again).unwrap(), &again);
    let left = store.left_behind();
    assert_eq!((left.count, left.at_ms, store.stats().lost.get()), (9, NOW_MS, 9));
    let facts = left.latest.iter().map(|lost| lost.fact(NOW_MS, 0).subject);
    let sessions: Vec<_> = facts.map(|it| (it.session, it.epoch, it.identity)).collect();
    let expected: Vec<_> =
        (5..=9).map(owing).map(|it| (it.session, it.epoch, it.identity)).collect();
    assert_eq!(sessions, expected);
    assert_eq!(waiting(&store, "a").len(), 9);
    // Remembered once: the run after that knows nothing of them.
    assert!(store.stop(Span::from_secs(10)));
    let again = open(&again).unwrap();
    assert_eq!((again.left_behind().count, again.left_behind().latest.len()), (0, 0));
}

#[test]
fn a_log_that_is_cut_anywhere_loses_whole_transactions_from_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    drop(open(&settings).unwrap());
    let store = start(open(&settings).unwrap(), &settings);
    // Transactions of one login, one after the other.
    for session in 1..=12 {
        assert!(store.owe(owing(session)));
        answers(&store, 1);
    }
    let whole = image(directory.path());
    let log = fs::read(whole.path().join("systole.db-wal")).unwrap();
    let mut chance = Random::new(7);
    let mut seen = std::collections::BTreeSet::new();
    let cuts = (0..120).map(|_| usize::try_from(chance.below(log.len() as u64)).unwrap());
    for cut in cuts.chain([0, 31, 32, 33, log.len()]) {
        let copy = image(whole.path());
        fs::write(copy.path().join("systole.db-wal"), &log[..cut]).unwrap();
        let again = super::tests::settings(copy.path());
        let database = open(&again).unwrap_or_else(|error| panic!("cut at {cut}: {error}"));
        let lost = database.left_behind().count;
        let store = start(database, &again);
        let expected: Vec<_> = (1..=lost).map(|session| ("leave".to_owned(), session)).collect();
        assert_eq!(waiting(&store, "a"), expected, "cut at {cut}");
        seen.insert(lost);
        assert!(store.stop(Span::from_secs(10)));
    }
    assert!(seen.contains(&0) && seen.contains(&12) && seen.len() > 8, "{seen:?}");
}

#[test]
fn epochs_never_go_back_even_if_the_clock_does() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let first = open(&settings).unwrap();
    let given = Epochs::above(first.first_epoch());
    let last = (0..1_000).map(|_| given.next()).last().unwrap();
    drop(first);
    for earlier in [NOW_MS - 86_400_000, 0] {
        let again = Database::open(&settings, opening(told(), earlier), Place::Disk).unwrap();
        assert!(again.first_epoch() >= last, "the clock says {earlier}");
    }
    // A run that gives more than were set aside sets more aside, before they are used.
    let mut long = open(&settings).unwrap();
    let far = long.first_epoch() + (1 << 40) - 5;
    long.write(&inbox::Batch::default(), Room { max_rows: 1, share: 1, share_of_address: 1 }, far)
        .unwrap();
    drop(long);
    assert!(open(&settings).unwrap().first_epoch() > far);
}

/// What is owed about a session of an identity, and an event of it.
fn owing_of(session: u64, identity: &str) -> Owing {
    Owing { identity: identity.into(), ..owing(session) }
}

fn noted_of(kind: &'static str, session: u64, identity: &str) -> Noted {
    Noted { identity: identity.into(), ..noted(kind, session) }
}

#[test]
fn an_identity_whose_events_nobody_takes_leaves_room_to_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(directory.path());
    (settings.max_rows, settings.max_rows_per_identity) = (1_000, 20);
    let store = start(open(&settings).unwrap(), &settings);
    let log_in = |session, identity| {
        assert!(store.owe(owing_of(session, identity)));
        answers(&store, 1)[0].is_granted
    };
    let mut session = 0;
    // Three rows each: the leave for two receivers, and a join.
    while log_in(session, "one") {
        for kind in ["join", "leave"] {
            store.note(noted_of(kind, session, "one"));
        }
        store.flush();
        session += 1;
        assert!(session < 100, "it fills the store");
    }
    assert_eq!(session, 6, "18 rows are there, and no room for three more");
    let counts = (store.stats().over_share.get(), store.stats().refused.get());
    assert_eq!((counts, store.health().is_full), ((1, 1), false));
    assert!(log_in(100, "other") && log_in(101, "") && log_in(102, ""));
    // Other events fill its share and go no further.
    for _ in 0..10 {
        store.note(noted_of("suspect", 5, "one"));
        store.note(noted_of("suspect", 100, "other"));
    }
    store.flush();
    assert_eq!(store.stats().dropped.get(), 8);
    let of_one = waiting(&store, "b").iter().filter(|(_, session)| *session == 5).count();
    assert_eq!(of_one, 3, "a leave and two of the suspicions");
    store.waiting("a", 0, 1_000).unwrap().iter().for_each(|entry| store.settle(entry.number));
    store.waiting("b", 0, 1_000).unwrap().iter().for_each(|entry| store.settle(entry.number));
    while store.counts("a").waiting + store.counts("b").waiting > 0 {}
    assert!(log_in(200, "one"), "its events were taken");
}

/// A session of an identity of its own, from an address.
fn owing_from(session: u64, address: &str) -> Owing {
    let address = (address.parse::<std::net::IpAddr>().unwrap(), 7).into();
    Owing { identity: format!("only {session}").into(), address, ..owing(session) }
}

fn noted_from(kind: &'static str, session: u64, address: &str) -> Noted {
    let Owing { identity, address, .. } = owing_from(session, address);
    Noted { identity, address: address.to_string(), ..noted(kind, session) }
}

#[test]
fn an_address_with_ever_new_identities_leaves_room_to_the_others() {
    const ONE: [&str; 2] = ["2001:db8::1", "2001:db8::2"];
    const TRUSTED: &str = "198.51.100.7";
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(directory.path());
    (settings.max_rows, settings.max_rows_per_address) = (1_000, 20);
    let mut store = start(open(&settings).unwrap(), &settings);
    let log_in = |store: &Store, session, address| {
        assert!(store.owe(owing_from(session, address)));
        answers(store, 1)[0].is_granted
    };
    let mut session = 0;
    // Three rows each: the leave for two receivers, and a join.
    while log_in(&store, session, ONE[session as usize % 2]) {
        for kind in ["join", "leave"] {
            store.note(noted_from(kind, session, ONE[session as usize % 2]));
        }
        store.flush();
        session += 1;
        assert!(session < 100, "it fills the store");
    }
    assert_eq!(session, 6, "18 rows are there, and no room for three more");
    assert_eq!((store.stats().over_share.get(), store.health().is_full), (1, false));
    for session in 100..120 {
        assert!(log_in(&store, session, TRUSTED), "a trusted network has no share");
        store.note(noted_from("join", session, TRUSTED));
    }
    assert!(log_in(&store, 200, "2001:db8:0:1::1"));
    // Other events fill its share and go no further; nor does a restart forget.
    (0..10).for_each(|_| store.note(noted_from("suspect", 5, ONE[0])));
    store.flush();
    assert_eq!(store.stats().dropped.get(), 8);
    assert!(store.stop(Span::from_secs(10)));
    store = start(open(&settings).unwrap(), &settings);
    assert!(!log_in(&store, 300, ONE[1]) && log_in(&store, 301, "2001:db8:0:1::1"));
    for receiver in ["a", "b"] {
        let all = store.waiting(receiver, 0, 1_000).unwrap();
        all.iter().for_each(|entry| store.settle(entry.number));
    }
    while store.counts("a").waiting + store.counts("b").waiting > 0 {}
    // What is owed counts as well: two rows each, and three are to fit.
    let granted = (400..420).filter(|session| log_in(&store, *session, ONE[0])).count();
    assert_eq!(granted, 9);
    store.waive(400, 1_400);
    store.flush();
    assert!(log_in(&store, 500, ONE[0]) && !log_in(&store, 501, ONE[0]));
}

#[test]
fn logins_of_one_address_at_once_count_together() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(directory.path());
    settings.max_rows_per_address = 20;
    let store = start(open(&settings).unwrap(), &settings);
    let inbox = &store.0.inbox;
    inbox.owe_all((1..=30).map(|session| owing_from(session, "192.0.2.1")).collect());
    let granted = answers(&store, 30).iter().filter(|owned| owned.is_granted).count();
    assert_eq!(granted, 6, "of three rows each");
}

#[test]
fn a_store_of_version_1_keeps_all_that_it_owes() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let old = rusqlite::Connection::open(directory.path().join("systole.db")).unwrap();
    old.execute_batch(
        "PRAGMA application_id = 1400468340; PRAGMA user_version = 1; PRAGMA journal_mode = WAL;
        CREATE TABLE owed(
            session INTEGER NOT NULL, epoch INTEGER NOT NULL, identity TEXT NOT NULL,
            listener TEXT NOT NULL, address TEXT NOT NULL, since_ms INTEGER NOT NULL,
            PRIMARY KEY(epoch, session)) WITHOUT ROWID;
        CREATE TABLE entry(
            number INTEGER PRIMARY KEY AUTOINCREMENT, receiver TEXT NOT NULL, key TEXT NOT NULL,
            session INTEGER NOT NULL, epoch INTEGER NOT NULL, kind TEXT NOT NULL,
            at_ms INTEGER NOT NULL, body TEXT NOT NULL);
        CREATE INDEX entry_of ON entry(receiver, number);
        CREATE INDEX entry_of_key ON entry(receiver, key, number);
        CREATE TABLE epochs(one INTEGER PRIMARY KEY CHECK(one = 1), below INTEGER);
        INSERT INTO owed VALUES(7, 1007, 'ada', 'native', '192.0.2.1:4711', 1800000000000);
        INSERT INTO entry(receiver, key, session, epoch, kind, at_ms, body)
            VALUES('a', 'bob', 3, 1003, 'join', 1800000000000, '{}');",
    )
    .unwrap();
    drop(old);
    let store = start(open(&settings).unwrap(), &settings);
    assert_eq!(waiting(&store, "a"), lost(&[("join", 3), ("leave", 7)]));
    assert_eq!(waiting(&store, "b"), lost(&[("leave", 7)]));
    let all = store.waiting("a", 0, 9).unwrap();
    all.iter().for_each(|entry| store.settle(entry.number));
    while store.counts("a").waiting > 0 {}
    assert!(store.stop(Span::from_secs(10)));
    assert_eq!(open(&settings).unwrap().counted(), (0, 1));
}

#[test]
fn logins_of_one_identity_at_once_count_together() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(directory.path());
    settings.max_rows_per_identity = 20;
    let store = start(open(&settings).unwrap(), &settings);
    let inbox = &store.0.inbox;
    inbox.owe_all((1..=30).map(|session| owing_of(session, "one")).collect());
    let granted = answers(&store, 30).iter().filter(|owned| owned.is_granted).count();
    assert_eq!(granted, 6, "of three rows each");
}

#[test]
fn a_full_store_refuses_logins_and_keeps_what_is_owed() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(directory.path());
    settings.max_rows = 30;
    let store = start(open(&settings).unwrap(), &settings);
    // Three rows each: the leave for two receivers, and a join.
    for session in 1..=20 {
        assert!(store.owe(owing(session)));
    }
    let granted = answers(&store, 20).iter().filter(|owned| owned.is_granted).count() as u64;
    assert!((10..=14).contains(&granted), "{granted}");
    assert!(store.health().is_full);
    (1..=granted).for_each(|session| store.note(noted("join", session)));
    (1..=granted).for_each(|session| store.note(noted("suspect", session)));
    (1..=granted).for_each(|session| store.note(noted("leave", session)));
    store.flush();
    assert_eq!(waiting(&store, "a").len() as u64, 2 * granted, "all joins and leaves are kept");
    assert!(store.stats().dropped.get() > 0, "other events are not");
    // The receivers take what waits: there is room again.
    for receiver in ["a", "b"] {
        store
            .waiting(receiver, 0, 1_000)
            .unwrap()
            .iter()
            .for_each(|entry| store.settle(entry.number));
    }
    while store.counts("a").waiting + store.counts("b").waiting > 0 {}
    assert!(store.owe(owing(99)));
    assert!(answers(&store, 1)[0].is_granted);
    assert!(!store.health().is_full);
}

#[test]
fn the_oldest_entries_make_room_by_setting_and_are_dead_letters() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(directory.path());
    (settings.max_rows, settings.drops_oldest) = (30, true);
    let store = start(open(&settings).unwrap(), &settings);
    for session in 1..=40 {
        assert!(store.owe(owing(session)));
        assert!(answers(&store, 1)[0].is_granted, "{session}");
        store.note(noted("join", session));
        store.note(noted("leave", session));
    }
    store.flush();
    let kept = waiting(&store, "a").len();
    let letters = DeadLetters::new(directory.path(), "a");
    let dead = fs::read_to_string(letters.path()).unwrap();
    assert_eq!(kept + dead.lines().count(), 80, "each is in one place");
    assert!(dead.lines().next().unwrap().contains("\"why\":\"the store was full\""), "{dead}");
}

#[test]
fn a_failing_disk_refuses_logins_keeps_events_and_recovers() {
    for is_required in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = settings(directory.path());
        settings.is_required = is_required;
        let mut database = open(&settings).unwrap();
        let is_lifted = database.limit_size();
        let store = start(database, &settings);
        let mut session = 0;
        let failed = loop {
            session += 1;
            assert!(session < 100_000);
            assert!(store.owe(Owing { identity: "x".repeat(1_000).into(), ..owing(session) }));
            let owned = answers(&store, 1)[0];
            if !owned.is_granted || store.health().failing.is_some() {
                break owned;
            }
            store.note(noted("join", session));
        };
        assert_eq!(failed.is_granted, !is_required);
        assert!(store.health().failing.unwrap().contains("full"));
        assert_eq!(store.stats().undurable.get() > 0, !is_required);
        let before = store.counts("a").waiting;
        // Events wait meanwhile, and are written in order once there is room.
        (1..session).for_each(|session| store.note(noted("leave", session)));
        is_lifted.store(true, std::sync::atomic::Ordering::Relaxed);
        let clock = Clock::start();
        while store.stats().owed.get() > u64::from(!is_required) {
            assert!(clock.monotonic() < Span::from_secs(30), "{:?}", store.health());
            std::thread::park_timeout(Duration::from_millis(10));
        }
        assert_eq!(store.health().failing, None);
        let leaves = waiting(&store, "b");
        let expected: Vec<_> = (1..session).map(|it| ("leave".to_owned(), it)).collect();
        assert_eq!(leaves, expected);
        assert!(store.counts("a").waiting >= before);
    }
}

#[test]
fn a_store_in_use_a_foreign_file_and_a_damaged_one_are_told_apart_and_unchanged() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let first = open(&settings).unwrap();
    assert!(matches!(open(&settings), Err(StoreError::InUse(_))));
    drop(first);
    let file = directory.path().join("systole.db");
    let newer = rusqlite::Connection::open(&file).unwrap();
    newer.pragma_update(None, "user_version", schema::VERSION + 1).unwrap();
    drop(newer);
    let before = fs::read(&file).unwrap();
    let error = open(&settings).unwrap_err();
    assert!(matches!(error, StoreError::Foreign(_)), "{error}");
    assert!(error.to_string().contains("newer version"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), before);
    fs::write(&file, "not a database, but long enough to be taken for the head of one".repeat(9))
        .unwrap();
    let error = open(&settings).unwrap_err().to_string();
    assert!(error.contains("not a database") && error.contains(".recover"), "{error}");
    let nowhere = StoreSettings { directory: "/dev/null/store".into(), ..settings };
    let error = open(&nowhere).unwrap_err().to_string();
    assert!(error.contains("/dev/null/store"), "{error}");
}

#[test]
fn a_full_queue_refuses_logins() {
    let inbox = Inbox::default();
    for session in 0..OWINGS as u64 {
        assert!(inbox.owe(owing(session)));
    }
    assert!(!inbox.owe(owing(7)));
    let work = inbox.take(None, false);
    assert_eq!(work.batch.owings.len(), OWINGS);
    assert!(inbox.owe(owing(7)));
}

#[tokio::test]
async fn the_control_plane_waits_while_many_events_wait_to_be_written() {
    let inbox = Inbox::default();
    for _ in 0..NOTES {
        assert!(inbox.has_room());
        inbox.note(noted("join", 1));
    }
    assert!(!inbox.has_room());
    let mut taken = 0;
    while taken < NOTES {
        let batch = inbox.take(None, false).batch;
        assert!(batch.notes.len() <= 2_048, "other logins wait for no more than this");
        taken += batch.notes.len();
    }
    assert!(inbox.has_room());
}

#[test]
fn entries_are_private_to_their_receiver_and_come_in_pages() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let store = start(open(&settings).unwrap(), &settings);
    (1..=7).for_each(|session| store.note(noted("join", session)));
    store.flush();
    let first = store.waiting("a", 0, 3).unwrap();
    assert_eq!(first.iter().map(|entry| entry.session).collect::<Vec<_>>(), [1, 2, 3]);
    let rest = store.waiting("a", first[2].number, 100).unwrap();
    assert_eq!(rest.iter().map(|entry| entry.session).collect::<Vec<_>>(), [4, 5, 6, 7]);
    assert_eq!(store.waiting("b", 0, 100), Some(Vec::new()));
    assert_eq!(store.counts("a"), Counts { waiting: 7, oldest_at_ms: Some(NOW_MS) });
    assert_eq!(store.stats().owed.get(), 7, "a join that nobody waited for is owed too");
    use std::os::unix::fs::PermissionsExt;
    let private = tempfile::tempdir().unwrap().path().join("new");
    fs::create_dir_all(private.parent().unwrap()).unwrap();
    drop(open(&super::tests::settings(&private)).unwrap());
    assert_eq!(fs::metadata(private).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn keys_that_are_put_aside_are_passed_over_until_they_are_due() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let store = start(open(&settings).unwrap(), &settings);
    // Of three identities in turn.
    (1..=7).for_each(|session| store.note(noted("join", session)));
    store.flush();
    let sessions = |page: &Page| page.entries.iter().map(|it| it.session).collect::<Vec<_>>();
    let first = store.waiting("a", 0, 3).unwrap();
    let aside = |place: usize, due| {
        let Entry { key, origin, number, .. } = first[place].clone();
        Aside { key, origin, number, attempts: 3, first_at: Span::from_nanos(7), due }
    };
    let [soon, late] = [1, 2].map(Span::from_secs);
    let (one, two) = (aside(0, late), aside(1, soon));
    assert_eq!(store.put_aside("a", vec![one.clone(), two.clone()]), Some(()));
    let page = store.page("a", 0, 5).unwrap();
    assert_eq!((sessions(&page), page.is_full), (vec![3], true));
    let page = store.page("a", page.last.unwrap(), 5).unwrap();
    assert_eq!((sessions(&page), page.is_full), (vec![6], false));
    assert_eq!(page.last.unwrap(), store.waiting("a", 0, 9).unwrap()[6].number);
    // It is of this receiver alone, and in no file that a later run reads.
    assert_eq!(store.take_back("b", late, 9), Some(TakenBack::default()));
    let nothing = TakenBack { keys: Vec::new(), next_due: Some(soon) };
    assert_eq!(store.take_back("a", Span::ZERO, 9), Some(nothing));
    let earliest = TakenBack { keys: vec![two], next_due: Some(late) };
    assert_eq!(store.take_back("a", late, 1), Some(earliest));
    assert_eq!(sessions(&store.page("a", 0, 9).unwrap()), [2, 3, 5, 6]);
    assert!(store.stop(Span::from_secs(10)));
    let store = start(open(&settings).unwrap(), &settings);
    let page = store.page("a", 0, 100).unwrap();
    assert_eq!(page.entries.iter().filter(|it| it.key == one.key).count(), 6, "all again");
}

#[test]
fn entries_of_many_keys_are_read_at_once_up_to_a_limit() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let store = start(open(&settings).unwrap(), &settings);
    // Of three identities in turn.
    let each = LEFT_AT_ONCE as u64 + 10;
    (1..=3 * each).for_each(|session| store.note(noted("join", session)));
    store.flush();
    let first = store.waiting("a", 0, 3).unwrap();
    let wanted = |place: usize, after, limit| {
        let key = first[place].key.clone();
        Wanted { key, after, limit }
    };
    let read = |wanted: &[Wanted], up_to| {
        let left = store.left("a", wanted.to_vec(), up_to).unwrap();
        let sessions = |of_key: &Vec<Entry>| of_key.iter().map(|it| it.session).collect();
        left.iter().map(sessions).collect::<Vec<Vec<u64>>>()
    };
    let some = [wanted(2, first[2].number, 2), wanted(0, 0, 9), wanted(1, 0, 1)];
    let up_to = store.waiting("a", 0, 6).unwrap()[5].number;
    assert_eq!(read(&some, up_to), [vec![6], vec![1, 4], vec![2]]);
    let all = [wanted(0, 0, usize::MAX), wanted(1, 0, 1)];
    let left = read(&all, u64::MAX);
    assert_eq!((left.len(), left[0].len() as u64), (1, each), "the next key waits");
}

#[test]
fn a_store_whose_file_is_replaced_promises_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let store = start(open(&settings).unwrap(), &settings);
    assert!(store.owe(owing(1)));
    assert!(answers(&store, 1)[0].is_granted);
    fs::remove_file(directory.path().join("systole.db")).unwrap();
    assert!(store.owe(owing(2)));
    assert!(!answers(&store, 1)[0].is_granted);
    assert!(store.health().failing.unwrap().contains("removed or replaced"));
}

#[test]
fn a_store_whose_files_are_removed_replaced_or_cut_promises_nothing() {
    const LOG: &str = "systole.db-wal";
    let remove = |path: &Path| fs::remove_file(path).unwrap();
    let replace = |path: &Path| {
        let copy = path.with_extension("copy");
        fs::copy(path, &copy).unwrap();
        fs::rename(copy, path).unwrap();
    };
    let cut = |length: u64| {
        move |path: &Path| {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(length.min(file.metadata().unwrap().len() - 1)).unwrap();
        }
    };
    type Harm<'a> = (&'a str, &'a str, &'a dyn Fn(&Path));
    let harms: [Harm<'_>; 8] = [
        (LOG, "removed or replaced", &remove),
        (LOG, "removed or replaced", &replace),
        (LOG, "cut", &cut(0)),
        (LOG, "cut", &cut(u64::MAX)),
        ("systole.db", "removed or replaced", &remove),
        ("systole.db", "removed or replaced", &replace),
        ("systole.db", "cut", &cut(0)),
        ("systole.db", "cut", &cut(u64::MAX)),
    ];
    for sync in [None, Some(Span::from_millis(1))] {
        for (file, what, harm) in harms {
            let directory = tempfile::tempdir().unwrap();
            let settings = StoreSettings { sync, ..settings(directory.path()) };
            // What a run before has left is in the database, not only in the log.
            drop(open(&settings).unwrap());
            let store = start(open(&settings).unwrap(), &settings);
            assert!(store.owe(owing(1)));
            assert!(answers(&store, 1)[0].is_granted);
            harm(&directory.path().join(file));
            // However often it tries again, and whatever it cuts itself.
            for session in 2..5 {
                assert!(store.owe(owing(session)));
                assert!(!answers(&store, 1)[0].is_granted, "{file} {what}");
                let failing = store.health().failing.unwrap();
                assert!(failing.contains(&format!("{file} was {what}")), "{failing}");
            }
        }
    }
}

#[test]
fn a_log_that_the_store_cuts_itself_is_no_harm() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let mut database = open(&settings).unwrap();
    let room = Room { max_rows: 1_000, share: 1_000, share_of_address: 1_000 };
    for session in 1..=5 {
        let batch = inbox::Batch { owings: vec![owing(session)], ..inbox::Batch::default() };
        database.write(&batch, room, 0).unwrap();
        database.shrink_log();
        assert_eq!(fs::metadata(directory.path().join("systole.db-wal")).unwrap().len(), 0);
        database.probe(0).unwrap();
        database.sync().unwrap();
    }
}

#[test]
fn a_store_is_well_again_without_a_login() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(directory.path());
    settings.max_rows = 30;
    let mut database = open(&settings).unwrap();
    let is_lifted = database.limit_size();
    let store = start(database, &settings);
    let long = |session| Owing { identity: "x".repeat(90_000).into(), ..owing(session) };
    assert!(store.owe(long(1)) && store.owe(long(2)));
    assert!(answers(&store, 2).iter().any(|owned| !owned.is_granted));
    assert!(store.health().failing.is_some());
    is_lifted.store(true, Ordering::Relaxed);
    let clock = Clock::start();
    while store.health().failing.is_some() {
        assert!(clock.monotonic() < Span::from_secs(30), "nobody logs in");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    (1..=30).for_each(|session| assert!(store.owe(owing(session))));
    let granted: Vec<_> =
        answers(&store, 30).into_iter().filter(|owned| owned.is_granted).collect();
    assert!(store.health().is_full);
    granted.iter().for_each(|owned| store.waive(owned.session, owned.epoch));
    while store.health().is_full {
        assert!(clock.monotonic() < Span::from_secs(60), "nobody logs in");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn what_is_owed_to_a_webhook_that_is_gone_blocks_nobody_and_makes_room_as_dead_letters() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(directory.path());
    (settings.max_rows, settings.drops_oldest) = (30, true);
    let store = start(open(&settings).unwrap(), &settings);
    (1..=8).for_each(|session| store.note(noted("join", session)));
    (1..=8).for_each(|session| store.note(noted("leave", session)));
    store.flush();
    assert!(store.stop(Span::from_secs(10)));
    // Only a webhook of another name is left.
    let told: Arc<[Subscription]> = [subscription("new", &["leave"])].into();
    let database = Database::open(&settings, opening(told, NOW_MS), Place::Disk).unwrap();
    let waits = |name: &str| (name.to_owned(), if name == "a" { 16 } else { 8 });
    assert_eq!(database.unclaimed(), [waits("a"), waits("b")]);
    let store = start(database, &settings);
    for session in 101..=140 {
        assert!(store.owe(owing(session)));
        assert!(answers(&store, 1)[0].is_granted, "{session}");
        store.note(noted("leave", session));
    }
    store.flush();
    let kept = store.counts("new").waiting;
    let lines = |name| {
        let letters = DeadLetters::new(directory.path(), name);
        fs::read_to_string(letters.path()).unwrap_or_default().lines().count() as u64
    };
    assert_eq!(kept + lines("new"), 40, "each is in one place");
    assert_eq!(store.stats().dead[0].get(), lines("new"));
    let left = store.stats().entries.get() - kept;
    assert_eq!(left + lines("a") + lines("b"), 24, "so are those of the former ones");
}

#[tokio::test]
async fn nobody_waits_for_a_store_that_fails_when_the_gateway_stops_or_goes_on_without() {
    for is_required in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = settings(directory.path());
        settings.is_required = is_required;
        let store = start(open(&settings).unwrap(), &settings);
        fs::remove_file(directory.path().join("systole.db")).unwrap();
        store.note(noted("join", 1));
        let clock = Clock::start();
        while store.health().failing.is_none() {
            assert!(clock.monotonic() < Span::from_secs(30));
            std::thread::park_timeout(Duration::from_millis(1));
        }
        (0..NOTES as u64 + 10).for_each(|_| store.note(noted("suspect", 1)));
        if is_required {
            let waits = tokio::time::timeout(Duration::from_millis(50), store.room()).await;
            assert!(waits.is_err(), "facts wait in the shards");
            store.begin_stop();
        } else {
            assert!(store.stats().dropped.get() > 0);
        }
        store.room().await;
    }
}

#[test]
fn a_login_that_is_written_while_the_gateway_stops_is_owed_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let store = start(open(&settings).unwrap(), &settings);
    // It is written when the stop begins, and answered after that.
    let shared = store.0.clone();
    store.when_written(Box::new(move || while !shared.inbox.is_stopping() {}));
    store.0.inbox.owe_and_note(owing(1), noted("suspect", 2));
    while store.stats().owed.get() == 0 {}
    assert!(store.stop(Span::from_secs(10)));
    assert_eq!(store.stats().owed.get(), 0);
    let store = start(open(&settings).unwrap(), &settings);
    assert_eq!(store.stats().lost.get(), 0);
}
