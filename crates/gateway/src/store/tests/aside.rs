//! Keys that are put aside: the addresses of their clients take turns.

use std::collections::BTreeMap;

use rusqlite::Connection;

use super::*;
use crate::store::aside::{create, put, take_back};

fn aside(origin: &str, key: u64, due: Span) -> Aside {
    let (key, origin) = (format!("{key} of {origin}").into(), origin.into());
    Aside { key, origin, number: 1, attempts: 3, first_at: Span::ZERO, due }
}

#[test]
fn an_address_with_any_number_of_keys_that_are_due_delays_no_other() {
    let connection = Connection::open_in_memory().unwrap();
    create(&connection).unwrap();
    let at = Span::from_secs;
    let many = |origin| (0..1_000).map(move |key| aside(origin, key, at(1))).collect::<Vec<_>>();
    put(&connection, "a", &many("192.0.2.1")).unwrap();
    put(&connection, "a", &many("192.0.2.2")).unwrap();
    put(&connection, "a", &[aside("192.0.2.9", 7, at(5)), aside("192.0.2.9", 8, at(90))]).unwrap();
    put(&connection, "b", &many("192.0.2.3")).unwrap();
    let take = |now, limit| {
        let taken = take_back(&connection, "a", now, limit).unwrap();
        let mut counts = BTreeMap::new();
        for it in &taken.keys {
            *counts.entry(it.origin.to_string()).or_insert(0) += 1;
        }
        (counts.into_values().collect::<Vec<_>>(), taken)
    };
    assert_eq!(take(at(2), 64).0, [32, 32]);
    let (counts, taken) = take(at(5), 65);
    assert_eq!(counts, [32, 32, 1], "the last one too, once it is due");
    assert_eq!(taken.next_due, Some(at(5)), "others are due");
    // One at a time, the turns go on where they were.
    let origins: Vec<_> = (0..6).map(|ms| take(at(6) + Span::from_millis(ms), 1).1).collect();
    let origins: Vec<_> = origins.iter().map(|taken| &*taken.keys[0].origin).collect();
    assert!(origins.windows(2).all(|two| two[0] != two[1]), "{origins:?}");
    // All come once, and what is not due stays.
    let (mut left, mut now) = (2_000 - 64 - 64 - 6, at(7));
    while left > 0 {
        now = now + Span::from_micros(1);
        let (_, taken) = take(now, 512);
        assert!(!taken.keys.is_empty(), "{left} are missing");
        left -= taken.keys.len();
    }
    let nothing = TakenBack { keys: Vec::new(), next_due: Some(at(90)) };
    assert_eq!(take(at(8), 512).1, nothing);
    assert_eq!(take(at(90), 512).1.keys, [aside("192.0.2.9", 8, at(90))]);
    assert_eq!(take(at(91), 512).1, TakenBack::default());
}

#[test]
fn more_addresses_than_are_taken_back_at_once_have_their_turns_too() {
    let connection = Connection::open_in_memory().unwrap();
    create(&connection).unwrap();
    let at = Span::from_secs;
    let name = |address: u64| format!("192.0.2.{address}");
    for address in 0..100 {
        let many: Vec<_> = (0..20).map(|key| aside(&name(address), key, at(1))).collect();
        put(&connection, "a", &many).unwrap();
    }
    put(&connection, "a", &[aside("203.0.113.1", 1, at(2))]).unwrap();
    let calls = (3..).find(|second| {
        let taken = take_back(&connection, "a", at(*second), 16).unwrap();
        taken.keys.iter().any(|it| &*it.origin == "203.0.113.1")
    });
    assert!(calls.unwrap() - 3 <= 101 / 16, "{calls:?}");
}
