//! The courier against a simple model: what each key is owed, in order.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn entry(number: u64, key: u64) -> Entry {
    Entry {
        number,
        key: key.to_string().into(),
        session: number,
        epoch: number,
        kind: "leave".into(),
        at_ms: 0,
        body: "{}".into(),
    }
}

const SECOND: Span = Span::from_secs(1);

/// Hands the courier what it has left in the store, where there is room for it.
fn serve_left(courier: &mut Courier, now: Span, store: &[Entry]) {
    while let Some((key, after)) = courier.wanted() {
        let left = store.iter().filter(|it| it.key == key && it.number > after);
        let page: Vec<_> = left.take(SHARE).cloned().collect();
        let is_all = page.len() < SHARE;
        courier.take_left(now, &key, page, is_all);
    }
}

fn draw(chance: &mut Random) -> Outcome {
    match chance.below(8) {
        0..=2 => Outcome::Taken,
        3 => Outcome::Rejected,
        4 => Outcome::Failed { alone: false, retry_after: Some(SECOND.times(chance.below(900))) },
        5 => Outcome::Failed { alone: true, retry_after: None },
        _ => Outcome::Failed { alone: false, retry_after: None },
    }
}

/// Random outcomes at random times; at the end the receiver takes everything.
fn run(seed: u64) {
    let mut chance = Random::new(seed);
    let concurrency = 1 + chance.below(6) as usize;
    let give_up_after = SECOND.times(1 + chance.below(600));
    let mut courier = Courier::new(concurrency, give_up_after, seed);
    let mut now = SECOND;
    // The model: for each key what it is still owed, in order; and what is under way.
    let mut owed: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut under_way: BTreeMap<u64, (u64, u32)> = BTreeMap::new();
    let mut attempts: BTreeMap<u64, u32> = BTreeMap::new();
    let mut first_at: BTreeMap<u64, Span> = BTreeMap::new();
    let (mut number, mut failures, mut store) = (0, 0, Vec::new());
    for step in 0..1_200 {
        let is_ending = step >= 400;
        now = now + Span::from_millis(chance.below(if is_ending { 70_000 } else { 800 }));
        if !is_ending && chance.below(3) == 0 {
            number += 1 + chance.below(3);
            let key = chance.below(5);
            owed.entry(key).or_default().push(number);
            store.push(entry(number, key));
            courier.take(now, entry(number, key));
        }
        serve_left(&mut courier, now, &store);
        while let Some(Parcel { entry, attempt }) = courier.next(now) {
            let key: u64 = entry.key.parse().unwrap();
            assert!(!under_way.contains_key(&key), "one of a key at a time (seed {seed})");
            assert_eq!(owed[&key][0], entry.number, "in order (seed {seed})");
            let attempts = attempts.entry(entry.number).or_default();
            *attempts += 1;
            assert_eq!(attempt, *attempts, "seed {seed}");
            first_at.entry(entry.number).or_insert(now);
            under_way.insert(key, (entry.number, attempt));
            let limit = if failures >= 8 { 1 } else { concurrency };
            assert!(under_way.len() <= limit.max(1), "seed {seed}");
            if failures >= 8 {
                break;
            }
        }
        let keys: Vec<u64> = under_way.keys().copied().collect();
        for key in keys {
            if !is_ending && chance.below(3) == 0 {
                continue;
            }
            let (number, _) = under_way.remove(&key).unwrap();
            let outcome = if is_ending { Outcome::Taken } else { draw(&mut chance) };
            let is_failure = matches!(outcome, Outcome::Failed { .. });
            let counts = matches!(outcome, Outcome::Failed { alone: false, .. });
            failures = if counts { failures + 1 } else { 0 };
            let settled = courier.finish(now, number, outcome);
            let is_over = is_failure && now.less(first_at[&number]) >= give_up_after;
            match outcome {
                Outcome::Taken => assert_eq!(settled, Settled::Taken),
                Outcome::Failed { .. } if !is_over => assert_eq!(settled, Settled::Again),
                Outcome::Failed { .. } | Outcome::Rejected => {
                    assert_eq!(settled, Settled::Dead(entry(number, key)), "seed {seed}");
                    if chance.below(4) == 0 {
                        courier.not_buried(now, number);
                        continue;
                    }
                    courier.buried(now, number);
                }
            }
            if settled != Settled::Again {
                assert_eq!(owed.get_mut(&key).unwrap().remove(0), number);
            }
            assert_eq!(courier.is_down(), failures >= 8, "seed {seed}");
        }
    }
    let left: Vec<_> = owed.values().flatten().collect();
    assert!(left.is_empty(), "seed {seed} still owes {left:?}");
    assert_eq!((courier.room(), courier.next_deadline()), (WINDOW, None));
}

#[test]
fn each_key_gets_what_it_is_owed_once_and_in_order_whatever_fails() {
    (0..2_000).for_each(run);
}

#[test]
fn an_entry_that_fails_rests_longer_each_time_and_holds_up_only_its_key() {
    let mut courier = Courier::new(4, SECOND.times(3_600), 1);
    courier.take(Span::ZERO, entry(1, 1));
    courier.take(Span::ZERO, entry(2, 1));
    let (mut now, mut rests) = (Span::ZERO, Vec::new());
    for other in 0..12 {
        let failing = courier.next(now).unwrap().entry.number;
        assert_eq!(failing, 1);
        let failed = Outcome::Failed { alone: false, retry_after: None };
        assert_eq!(courier.finish(now, 1, failed), Settled::Again);
        // Another key goes on at once, so the receiver is not taken for down.
        courier.take(now, entry(100 + other, 100 + other));
        assert_eq!(courier.next(now).unwrap().entry.number, 100 + other);
        courier.finish(now, 100 + other, Outcome::Taken);
        let due = courier.next_deadline().unwrap();
        rests.push(due.less(now));
        now = due;
    }
    let bounds = rests.iter().enumerate().all(|(n, rest)| {
        let longest = FIRST_REST.times(1 << n.min(16)).min(LONGEST_REST);
        *rest <= longest && *rest >= Span::from_nanos(longest.as_nanos() / 2)
    });
    assert!(bounds, "{rests:?}");
}

#[test]
fn a_receiver_that_is_down_is_tried_with_one_entry_at_a_time_and_is_back_at_once() {
    let mut courier = Courier::new(16, SECOND.times(86_400), 3);
    (1..=100).for_each(|number| courier.take(Span::ZERO, entry(number, number)));
    let mut now = Span::ZERO;
    let first: Vec<_> = std::iter::from_fn(|| courier.next(now)).collect();
    assert_eq!(first.len(), 16);
    for parcel in &first {
        courier.finish(
            now,
            parcel.entry.number,
            Outcome::Failed { alone: false, retry_after: None },
        );
    }
    assert!(courier.is_down() && courier.next(now).is_none());
    let mut tries = BTreeSet::new();
    for _ in 0..10 {
        now = courier.next_deadline().unwrap();
        let probe = courier.next(now).unwrap();
        assert!(courier.next(now).is_none(), "one at a time");
        tries.insert(probe.entry.number);
        courier.finish(
            now,
            probe.entry.number,
            Outcome::Failed { alone: false, retry_after: None },
        );
    }
    assert!(tries.len() > 3, "not the same entry for ever: {tries:?}");
    now = courier.next_deadline().unwrap();
    let probe = courier.next(now).unwrap();
    courier.finish(now, probe.entry.number, Outcome::Taken);
    assert!(!courier.is_down());
    assert_eq!(std::iter::from_fn(|| courier.next(now)).count(), 16, "all at once again");
}

#[test]
fn a_receiver_may_ask_for_a_longer_rest_and_not_for_an_endless_one() {
    let mut courier = Courier::new(1, SECOND.times(86_400), 3);
    courier.take(Span::ZERO, entry(1, 1));
    for (wanted, rest) in [(30, 30), (86_400, 60)] {
        let now = courier.next_deadline().unwrap();
        courier.next(now).unwrap();
        courier.finish(
            now,
            1,
            Outcome::Failed { alone: false, retry_after: Some(SECOND.times(wanted)) },
        );
        assert_eq!(courier.next_deadline(), Some(now + SECOND.times(rest)));
    }
}

#[test]
fn a_key_with_many_entries_or_bad_ones_leaves_room_to_the_others() {
    let mut courier = Courier::new(4, SECOND.times(86_400), 3);
    let mut store: Vec<Entry> = (1..=5_000).map(|number| entry(number, 1)).collect();
    store.extend((5_001..=5_100).map(|number| entry(number, number)));
    store.iter().for_each(|entry| courier.take(Span::ZERO, entry.clone()));
    assert_eq!(WINDOW - courier.room(), SHARE + 100, "its share, and all others");
    let (mut now, mut told, mut others) = (Span::ZERO, Vec::new(), 0);
    while others < 100 || told.len() < 5_000 {
        serve_left(&mut courier, now, &store);
        let Some(parcel) = courier.next(now) else {
            now = courier.next_deadline().expect("more is owed");
            continue;
        };
        let number = parcel.entry.number;
        // Each tenth of the many fails once, and the receiver answers for it alone.
        if number <= 5_000 && number % 10 == 0 && parcel.attempt == 1 {
            let failed = Outcome::Failed { alone: true, retry_after: None };
            assert_eq!(courier.finish(now, number, failed), Settled::Again);
            assert!(!courier.is_down());
            continue;
        }
        courier.finish(now, number, Outcome::Taken);
        if number > 5_000 {
            others += 1
        } else {
            told.push(number)
        }
        assert!(told.len() < 200 || others == 100, "the others do not wait for the many");
    }
    assert!(told.is_sorted() && told.len() == 5_000);
    assert_eq!((courier.room(), courier.wanted()), (WINDOW, None));
}
