//! A store that fails and is not required: what it drops, and what it never does.

use std::sync::atomic::Ordering;

use super::*;

/// A store that is not required and has one session, and what lets it work again. It fails, and has
/// no room for events.
fn failing(settings: &mut StoreSettings) -> (Store, Arc<std::sync::atomic::AtomicBool>, u64) {
    settings.is_required = false;
    let mut database = open(settings).unwrap();
    let is_lifted = database.limit_size();
    let store = start(database, settings);
    let mut written = 0;
    // Until the disk is full: a login or its join may be the first that finds no room there.
    while store.stats().undurable.get() == 0 {
        written += 1;
        assert!(store.owe(Owing { identity: "x".repeat(1_000).into(), ..owing(written) }));
        assert!(answers(&store, 1)[0].is_granted);
        if store.stats().undurable.get() == 0 {
            store.note(noted("join", written));
            store.flush();
        }
    }
    // The last one is not written; those before are.
    while store.0.inbox.has_room() {
        store.note(noted("suspect", 1));
    }
    (store, is_lifted, written)
}

/// Waits until the store works, and has written what waits.
fn recover(store: &Store, is_lifted: &std::sync::atomic::AtomicBool) {
    is_lifted.store(true, Ordering::Relaxed);
    let clock = Clock::start();
    while store.health().failing.is_some() {
        assert!(clock.monotonic() < Span::from_secs(30), "{:?}", store.health());
        std::thread::park_timeout(Duration::from_millis(10));
    }
    store.flush();
}

#[test]
fn a_session_that_is_owed_leaves_even_if_a_failing_store_has_no_room() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(directory.path());
    let (store, is_lifted, last) = failing(&mut settings);
    let dropped = store.stats().dropped.get();
    // Those that are written.
    (1..last).for_each(|session| store.note(noted("leave", session)));
    assert_eq!(store.stats().dropped.get(), dropped);
    // Of one that is not, nothing is kept, and nothing of a device without a login.
    for session in [last, last + 1] {
        store.note(noted("join", session));
        store.note(noted("suspect", session));
        store.note(noted("leave", session));
    }
    assert_eq!(store.stats().dropped.get(), dropped + 6);
    assert!(lock(&store.0.unknown).is_empty(), "what has left is forgotten");
    recover(&store, &is_lifted);
    assert_eq!(store.stats().owed.get(), 0);
    let leaves: Vec<_> =
        waiting(&store, "a").into_iter().filter(|(kind, _)| kind == "leave").collect();
    let expected: Vec<_> = (1..last).map(|it| ("leave".to_owned(), it)).collect();
    assert_eq!(leaves, expected, "each has its own end");
    assert!(store.stop(Span::from_secs(10)));
    assert_eq!(open(&settings).unwrap().left_behind().count, 0, "nobody is told as lost");
}

#[test]
fn a_flush_waits_for_all_events_however_many_transactions_they_take() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let store = start(open(&settings).unwrap(), &settings);
    let mut expected = 0;
    for _ in 0..20 {
        // More than fit into one transaction.
        for _ in 0..inbox::NOTES_AT_ONCE + 50 {
            store.note(noted("suspect", 1));
            expected += 1;
        }
        store.flush();
        let counted = store.stats().entries.get() + store.stats().dropped.get();
        assert_eq!(counted, expected);
    }
}

#[test]
fn a_login_that_was_written_before_the_store_failed_joins_and_leaves() {
    let mut unknown = unknown::Unknown::default();
    for session in 1..=4 {
        unknown.grant(session, session + 1_000, session % 2 == 1);
    }
    unknown.waive(3, 1_003);
    unknown.waive(4, 1_004);
    let mut keeps = |kind, session, has_room| unknown.keeps(&noted(kind, session), has_room);
    assert!(keeps("join", 1, false) && keeps("leave", 1, false), "it is written");
    assert!(!keeps("suspect", 1, false));
    assert!(!keeps("join", 2, false) && !keeps("leave", 2, false), "nothing is owed about it");
    assert!(keeps("join", 5, true) && keeps("leave", 5, false), "its join waits");
    assert!(!keeps("join", 6, false) && keeps("leave", 6, true), "there is room again");
    assert!(unknown.is_empty());
}
