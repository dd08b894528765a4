//! The courier against a simple model: what each key is owed, in order.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::webhooks::errands::Errands;
use crate::webhooks::shelf::{Shelf, entry, entry_of};

/// An entry of one of two addresses, or of none, whatever its key.
fn mixed(number: u64, key: u64) -> Entry {
    match number % 3 {
        0 => entry(number, key),
        address => entry_of(address, number, key),
    }
}

const SECOND: Span = Span::from_secs(1);

/// The least rest after the `attempts`-th failure, as docs/webhooks.md has it.
fn least_rest(attempts: u32, is_down: bool, asked_for: Option<Span>) -> Span {
    let doubled = Span::from_millis(500).times(1 << (attempts - 1).min(10));
    let longest = SECOND.times(if is_down { 10 } else { 60 });
    let least = Span::from_nanos(doubled.min(longest).as_nanos() / 2);
    asked_for.map_or(least, |asked| asked.min(SECOND.times(60)).max(least))
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

/// What is under way, and what was tried when.
#[derive(Default)]
struct Tried {
    /// The entry of each key, and the number of its attempt.
    under_way: BTreeMap<u64, (u64, u32)>,
    attempts: BTreeMap<u64, u32>,
    first_at: BTreeMap<u64, Span>,
    rests_until: BTreeMap<u64, Span>,
}

impl Tried {
    /// Takes what is carried now; no more than `limit` may be under way then.
    fn begin_all(
        &mut self,
        courier: &mut Courier,
        now: Span,
        limit: usize,
        owed: &BTreeMap<u64, Vec<u64>>,
    ) {
        while let Some(parcel) = courier.next(now) {
            self.begin(now, &parcel, owed);
            assert!(self.under_way.len() <= limit);
        }
    }

    /// Takes an entry that is carried; `owed` is what its key is owed, in order.
    fn begin(&mut self, now: Span, parcel: &Parcel, owed: &BTreeMap<u64, Vec<u64>>) {
        let Parcel { entry, attempt } = parcel;
        let key: u64 = entry.key.parse().unwrap();
        assert_eq!(owed[&key][0], entry.number, "in order");
        let attempts = self.attempts.entry(entry.number).or_default();
        *attempts += 1;
        assert_eq!(attempt, attempts);
        self.first_at.entry(entry.number).or_insert(now);
        let rested = self.rests_until.get(&entry.number).is_none_or(|until| *until <= now);
        assert!(rested, "it rests");
        let other = self.under_way.insert(key, (entry.number, *attempt));
        assert_eq!(other, None, "one of a key at a time");
    }
}

/// Random outcomes at random times; at the end the receiver takes everything. Returns how often
/// keys were put aside.
fn run(seed: u64) -> usize {
    let mut chance = Random::new(seed);
    let concurrency = 1 + chance.below(6) as usize;
    let give_up_after = SECOND.times(1 + chance.below(600));
    let mut errands = Errands::new(Courier::new(concurrency, give_up_after, seed));
    // Some addresses have their share all the time.
    errands.courier.share_of_address = [SHARE_OF_ADDRESS, 1, 3][(seed % 3) as usize];
    let mut now = SECOND;
    // The model: for each key what it is still owed, in order; and what is under way.
    let mut owed: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    let mut tried = Tried::default();
    let (mut number, mut failures, mut store) = (0, 0, Shelf::default());
    // With many keys more of them rest than may in hand.
    let (keys, at_once) = if seed.is_multiple_of(20) { (150, 8) } else { (5, 1) };
    let mut store_chance = Random::new(seed + 1);
    let mut fails = || store_chance.below(8) == 0;
    for step in 0..4_000 {
        let is_ending = step >= 400;
        if is_ending && owed.values().all(Vec::is_empty) {
            break;
        }
        now = now + Span::from_millis(chance.below(if is_ending { 70_000 } else { 800 }));
        if !is_ending && chance.below(3) == 0 {
            for _ in 0..at_once {
                number += 1 + chance.below(3);
                let key = chance.below(keys);
                owed.entry(key).or_default().push(number);
                store.add(mixed(number, key));
            }
        }
        store.serve(&mut errands, now, &mut fails);
        let limit = if failures >= 8 { 1 } else { concurrency };
        tried.begin_all(&mut errands.courier, now, limit, &owed);
        let keys: Vec<u64> = tried.under_way.keys().copied().collect();
        for key in keys {
            if !is_ending && chance.below(3) == 0 {
                continue;
            }
            let (number, attempt) = tried.under_way.remove(&key).unwrap();
            let outcome = if is_ending { Outcome::Taken } else { draw(&mut chance) };
            let is_failure = matches!(outcome, Outcome::Failed { .. });
            let counts = matches!(outcome, Outcome::Failed { alone: false, .. });
            failures = if counts { failures + 1 } else { 0 };
            let settled = errands.courier.finish(now, number, outcome);
            if let Outcome::Failed { retry_after, .. } = outcome {
                tried
                    .rests_until
                    .insert(number, now + least_rest(attempt, failures >= 8, retry_after));
            }
            let is_over = is_failure && now.less(tried.first_at[&number]) >= give_up_after;
            match outcome {
                Outcome::Taken => assert_eq!(settled, Settled::Taken),
                Outcome::Failed { .. } if !is_over => assert_eq!(settled, Settled::Again),
                Outcome::Failed { .. } | Outcome::Rejected => {
                    assert_eq!(settled, Settled::Dead(mixed(number, key)), "seed {seed}");
                    if chance.below(4) == 0 {
                        errands.courier.not_buried(now, number);
                        continue;
                    }
                    errands.courier.buried(now, number);
                }
            }
            if settled != Settled::Again {
                assert_eq!(owed.get_mut(&key).unwrap().remove(0), number);
                store.remove(number);
            }
            assert_eq!(errands.courier.is_down(), failures >= 8, "seed {seed}");
        }
    }
    let left: Vec<_> = owed.values().flatten().collect();
    assert!(left.is_empty(), "seed {seed} still owes {left:?}");
    assert_eq!((errands.courier.room(), errands.courier.next_deadline()), (WINDOW, None));
    assert!(errands.courier.of_address.is_empty(), "seed {seed}");
    store.times_aside
}

#[test]
fn each_key_gets_what_it_is_owed_once_and_in_order_whatever_fails() {
    // A failure of the model names its seed by what is printed last.
    let aside: usize = (0..2_000).inspect(|seed| println!("seed {seed}")).map(run).sum();
    assert!(aside > 1_000, "{aside} were put aside");
}

#[test]
fn any_number_of_bad_identities_holds_up_no_other() {
    const BAD: u64 = 5_000;
    const EACH: u64 = 3;
    let give_up_after = SECOND.times(60);
    let mut errands = Errands::new(Courier::new(4, give_up_after, 3));
    let mut store = Shelf::default();
    for number in 1..=EACH * (BAD + 10) {
        // In turn; the good ones come last.
        store.add(entry(number, (number - 1) % (BAD + 10)));
    }
    let (mut now, mut attempts, mut good, mut dead) = (SECOND, 0, 0, 0);
    let mut last_of: BTreeMap<Box<str>, u64> = BTreeMap::new();
    let mut first_at: BTreeMap<u64, Span> = BTreeMap::new();
    while dead < BAD * EACH {
        store.serve(&mut errands, now, &mut || false);
        let Some(Parcel { entry, .. }) = errands.courier.next(now) else {
            now = errands.courier.next_deadline().expect("more is owed");
            continue;
        };
        attempts += 1;
        let first_at = *first_at.entry(entry.number).or_insert(now);
        now = now + Span::from_millis(2);
        let is_over = if entry.key.parse::<u64>().unwrap() >= BAD {
            errands.courier.finish(now, entry.number, Outcome::Taken);
            good += 1;
            true
        } else {
            let failed = Outcome::Failed { alone: true, retry_after: None };
            let is_dead =
                errands.courier.finish(now, entry.number, failed) == Settled::Dead(entry.clone());
            assert_eq!(is_dead, now.less(first_at) >= give_up_after);
            if is_dead {
                errands.courier.buried(now, entry.number);
                dead += 1;
            }
            is_dead
        };
        if is_over {
            store.remove(entry.number);
            let before = last_of.insert(entry.key, entry.number);
            assert!(before < Some(entry.number), "in order");
        }
        // One attempt at each of the bad ones, and as many again that failed before.
        let is_in_time = good == 10 * EACH || attempts <= 2 * (BAD + 10 * EACH);
        assert!(is_in_time, "{good} told after {attempts} attempts");
        assert!(errands.courier.room() > 0);
    }
    assert!(now < SECOND.times(3_600), "{now:?}");
    assert_eq!((errands.courier.room(), errands.courier.next_deadline()), (WINDOW, None));
}

#[test]
fn an_address_with_any_number_of_identities_holds_up_no_other() {
    const MANY: u64 = 20_000;
    const OTHERS: u64 = 50;
    let mut errands = Errands::new(Courier::new(4, SECOND.times(86_400), 3));
    let mut store = Shelf::default();
    (1..=MANY).for_each(|number| store.add(entry_of(1, number, number)));
    // Those that come last, and one of the many who logs in from elsewhere too.
    (1..=OTHERS).for_each(|it| store.add(entry_of(1 + it, MANY + it, MANY + it)));
    store.add(entry_of(99, MANY + OTHERS + 1, MANY));
    let (mut now, mut told, mut others, mut most) = (SECOND, BTreeSet::new(), 0, 0);
    while let Some(at) = {
        store.serve(&mut errands, now, &mut || false);
        errands.courier.next_deadline()
    } {
        now = now.max(at) + Span::from_millis(1);
        most = most.max(WINDOW - errands.courier.room());
        while let Some(Parcel { entry, attempt }) = errands.courier.next(now) {
            assert!(told.insert(entry.number) && attempt == 1);
            let is_last = entry.number > MANY + OTHERS;
            assert!(!is_last || told.contains(&MANY), "an identity keeps its order");
            others += u64::from(entry.number > MANY && !is_last);
            errands.courier.finish(now, entry.number, Outcome::Taken);
            store.remove(entry.number);
            store.serve(&mut errands, now, &mut || false);
        }
        let is_in_time = others == OTHERS || told.len() < 1_000;
        assert!(is_in_time, "{others} others told after {}", told.len());
    }
    assert_eq!(told.len() as u64, MANY + OTHERS + 1);
    assert!(most <= 2 * SHARE_OF_ADDRESS, "{most} in hand");
    assert_eq!(errands.courier.room(), WINDOW);
}

/// Compares with a list of what waits, and of the addresses in the order of their last turns.
#[test]
fn addresses_take_turns() {
    for seed in 0..2_000 {
        let mut chance = Random::new(seed);
        let mut turns = Turns::default();
        let mut list: Vec<(u64, u64)> = Vec::new();
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        for number in 0..120 {
            if chance.below(5) > 1 {
                let address = chance.below(6);
                turns.add(Span::ZERO, &entry_of(address, number, number));
                list.push((address, number));
                continue;
            }
            assert_eq!(turns.since().is_some(), !list.is_empty());
            let Some(next) = turns.next(Span::ZERO) else {
                assert!(list.is_empty(), "seed {seed}");
                continue;
            };
            let address = list.iter().find(|(_, of)| *of == next).unwrap().0;
            let first = list.iter().find(|(of, _)| *of == address).unwrap().1;
            assert_eq!(next, first, "the oldest of its address");
            // Nobody who waits since this address had its last turn has had none in between.
            let before = last.insert(address, number);
            let skipped = list.iter().filter(|(of, since)| {
                *of != address && before.is_some_and(|at| *since < at && last.get(of) < Some(&at))
            });
            assert_eq!(skipped.count(), 0, "seed {seed}");
            list.retain(|(_, of)| *of != next);
        }
    }
}

#[test]
fn a_full_store_may_remove_what_is_put_aside() {
    let mut errands = Errands::new(Courier::new(64, SECOND.times(86_400), 3));
    let mut store = Shelf::default();
    (1..=400).for_each(|number| store.add(entry(number, number % 200)));
    let mut never = || false;
    store.serve(&mut errands, SECOND, &mut never);
    while let Some(parcel) = errands.courier.next(SECOND) {
        let failed = Outcome::Failed { alone: true, retry_after: None };
        errands.courier.finish(SECOND, parcel.entry.number, failed);
    }
    store.serve(&mut errands, SECOND, &mut never);
    assert_eq!(store.aside.len(), 200 - RESTING);
    // Of some keys the first entry goes, of others both.
    let aside: Vec<_> = store.aside.values().map(|aside| aside.number).collect();
    for number in &aside {
        store.remove(*number);
        if number % 2 == 0 {
            store.remove(number + 200);
        }
    }
    let (mut now, mut told) = (SECOND, BTreeSet::new());
    while let Some(at) = errands.courier.next_deadline() {
        now = now.max(at);
        store.serve(&mut errands, now, &mut never);
        while let Some(Parcel { entry, attempt }) = errands.courier.next(now) {
            assert!(attempt == 1 || entry.number <= 200, "{entry:?}");
            assert!(told.insert(entry.number));
            errands.courier.finish(now, entry.number, Outcome::Taken);
            store.remove(entry.number);
        }
    }
    assert!(store.entries.is_empty(), "{:?}", store.entries.keys());
    assert_eq!(errands.courier.room(), WINDOW);
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
fn a_receiver_that_is_down_is_tried_each_ten_seconds_with_an_only_entry_too() {
    let mut courier = Courier::new(4, SECOND.times(86_400), 3);
    let mut now = Span::ZERO;
    courier.take(now, entry(1, 1));
    for failures in 1..=40 {
        courier.next(now).unwrap();
        courier.finish(now, 1, Outcome::Failed { alone: false, retry_after: None });
        let due = courier.next_deadline().unwrap();
        assert_eq!(courier.is_down(), failures >= 8);
        assert!(!courier.is_down() || due.less(now) <= SECOND.times(10), "{}", due.less(now));
        now = due;
    }
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
    let mut errands = Errands::new(Courier::new(4, SECOND.times(86_400), 3));
    let mut store = Shelf::default();
    (1..=5_000).for_each(|number| store.add(entry(number, 1)));
    (5_001..=5_100).for_each(|number| store.add(entry(number, number)));
    store.serve(&mut errands, Span::ZERO, &mut || false);
    assert_eq!(WINDOW - errands.courier.room(), SHARE + 100, "its share, and all others");
    let (mut now, mut told, mut others) = (Span::ZERO, Vec::new(), 0);
    while others < 100 || told.len() < 5_000 {
        store.serve(&mut errands, now, &mut || false);
        let Some(parcel) = errands.courier.next(now) else {
            now = errands.courier.next_deadline().expect("more is owed");
            continue;
        };
        let number = parcel.entry.number;
        // Each tenth of the many fails once, and the receiver answers for it alone.
        if number <= 5_000 && number % 10 == 0 && parcel.attempt == 1 {
            let failed = Outcome::Failed { alone: true, retry_after: None };
            assert_eq!(errands.courier.finish(now, number, failed), Settled::Again);
            assert!(!errands.courier.is_down());
            continue;
        }
        errands.courier.finish(now, number, Outcome::Taken);
        if number > 5_000 {
            others += 1
        } else {
            told.push(number)
        }
        assert!(told.len() < 200 || others == 100, "the others do not wait for the many");
    }
    assert!(told.is_sorted() && told.len() == 5_000);
    assert_eq!((errands.courier.room(), errands.courier.wanted()), (WINDOW, Vec::new()));
}
