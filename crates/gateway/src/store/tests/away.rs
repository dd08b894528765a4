//! Sessions that go away and come back: what is owed about them stays owed until they end.

use super::*;

#[test]
fn a_session_that_is_away_is_owed_until_it_ends_and_a_killed_gateway_loses_it() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let told = || {
        let kinds: &[&str] = &["away", "resumed"];
        opening([subscription("a", &["leave"]), subscription("b", kinds)].into(), NOW_MS)
    };
    let open = |settings: &StoreSettings| Database::open(settings, told(), Place::Disk).unwrap();
    let store = start(open(&settings), &settings);
    (1..=2).for_each(|session| assert!(store.owe(owing(session))));
    answers(&store, 2);
    for (kind, session) in
        [("join", 1), ("join", 2), ("away", 1), ("resumed", 1), ("away", 1), ("away", 2)]
    {
        store.note(noted(kind, session));
    }
    store.flush();
    assert_eq!((waiting(&store, "a"), store.stats().owed.get()), (Vec::new(), 2));
    let b = lost(&[("away", 1), ("resumed", 1), ("away", 1), ("away", 2)]);
    assert_eq!(waiting(&store, "b"), b);
    // One ends while it is away; the gateway is killed.
    store.note(noted("leave", 1));
    store.flush();
    assert_eq!((waiting(&store, "a"), store.stats().owed.get()), (lost(&[("leave", 1)]), 1));
    let copy = image(directory.path());
    let again = super::settings(copy.path());
    let store = start(open(&again), &again);
    assert_eq!(waiting(&store, "a"), lost(&[("leave", 1), ("leave", 2)]));
    let entries = store.waiting("a", 0, 10).unwrap();
    assert!(entries[1].body.contains("\"cause\":\"gateway_lost\""), "{}", entries[1].body);
}
