//! The turns of the errands, against a store in memory.

use std::collections::BTreeMap;

use systole_core::random::Random;

use super::*;
use crate::webhooks::courier::{Outcome, Parcel, SHARE_OF_ADDRESS};
use crate::webhooks::shelf::{Shelf, entry_of};

/// Puts in ever more identities of some addresses, with `most` entries for each answer of the store
/// at most, and now and then one entry of another address.
fn run(seed: u64, addresses: u64, most: u64) {
    // All kinds of errands have had their turn by then, and all addresses.
    let longest = 2 * 4 + addresses;
    let share = usize::try_from(addresses).unwrap() * SHARE_OF_ADDRESS;
    let mut chance = Random::new(seed);
    let mut errands = Errands::new(Courier::new(8, Span::from_secs(86_400), seed));
    let (mut store, mut now) = (Shelf::default(), Span::from_secs(1));
    let (mut number, mut identities, mut others) = (0, 0, BTreeMap::new());
    // With one seed the identities are all new, with another each comes often.
    let again = seed % 4;
    for answers in 0..300 {
        for _ in 0..chance.below(most / 2 + 1) {
            let is_new = identities == 0 || chance.below(4) >= again;
            identities += u64::from(is_new);
            let key = if is_new { identities } else { 1 + chance.below(identities) };
            // It logs in, and out.
            let address = key % addresses;
            (1..=2).for_each(|it| store.add(entry_of(address, number + it, key)));
            number += 2;
        }
        if answers % 10 == 0 {
            number += 1;
            store.add(entry_of(100 + answers, number, 1_000_000 + answers));
            others.insert(number, answers);
        }
        errands.has_more();
        if let Some(errand) = errands.begin(now) {
            let answer = store.answer(errand, false);
            errands.finish(now, answer);
        }
        let in_hand = WINDOW - errands.courier.room();
        assert!(in_hand <= share + 2 * READ_AT_ONCE, "seed {seed}: {in_hand} in hand");
        now = now + Span::from_millis(15);
        for _ in 0..2 {
            let Some(parcel) = errands.courier.next(now) else { break };
            let number = parcel.entry.number;
            let is_bad = !others.contains_key(&number) && chance.below(4) < seed % 3;
            if is_bad {
                let failed = Outcome::Failed { alone: true, retry_after: None };
                errands.courier.finish(now, number, failed);
                continue;
            }
            errands.courier.finish(now, number, Outcome::Taken);
            store.remove(number);
            others.remove(&number);
        }
        let waits = others.values().next().map_or(0, |since| answers - since);
        assert!(waits <= longest, "seed {seed}: {waits} answers, and it still waits");
    }
    assert!(identities > 1_000 && store.times_aside > 500, "{identities}");
}

#[test]
fn addresses_with_ever_more_identities_delay_no_other_beyond_a_few_answers_of_the_store() {
    // All kinds of errands have a turn while less than a page comes.
    let most = READ_AT_ONCE as u64 / 4;
    (0..12).for_each(|seed| run(seed, 1, most));
    (0..12).for_each(|seed| run(seed, 2, most));
}

#[test]
fn an_address_whose_many_identities_have_many_events_has_its_share_in_hand_and_gets_all() {
    const IDENTITIES: u64 = 300;
    let mut errands = Errands::new(Courier::new(8, Span::from_secs(86_400), 1));
    let (mut store, mut now) = (Shelf::default(), Span::from_secs(1));
    let all = 1..=40 * IDENTITIES;
    all.for_each(|number| store.add(entry_of(1, number, number % IDENTITIES)));
    let mut last_of: BTreeMap<Box<str>, u64> = BTreeMap::new();
    while !store.entries.is_empty() {
        store.serve(&mut errands, now, &mut || false);
        let in_hand = WINDOW - errands.courier.room();
        assert!(in_hand <= SHARE_OF_ADDRESS + READ_AT_ONCE, "{in_hand} in hand");
        let Some(Parcel { entry, .. }) = errands.courier.next(now) else {
            now = now.max(errands.courier.next_deadline().expect("more is owed"));
            continue;
        };
        now = now + Span::from_millis(1);
        errands.courier.finish(now, entry.number, Outcome::Taken);
        store.remove(entry.number);
        assert!(last_of.insert(entry.key, entry.number) < Some(entry.number), "in order");
    }
    assert_eq!(errands.courier.room(), WINDOW);
}

#[test]
fn a_store_that_fails_is_asked_again_for_the_same() {
    let mut errands = Errands::new(Courier::new(8, Span::from_secs(86_400), 1));
    let mut store = Shelf::default();
    (1..=600).for_each(|number| store.add(entry_of(1, number, number)));
    let mut now = Span::from_secs(1);
    let (mut fails, mut told) = (false, 0);
    while told < 600 {
        fails = !fails;
        if let Some(errand) = errands.begin(now) {
            let answer = store.answer(errand, fails);
            errands.finish(now, answer);
            assert_eq!(errands.asks_again_at(now), fails.then(|| now + ASK_AGAIN));
        }
        while let Some(parcel) = errands.courier.next(now) {
            errands.courier.finish(now, parcel.entry.number, Outcome::Taken);
            store.remove(parcel.entry.number);
            told += 1;
        }
        now = now + ASK_AGAIN;
        assert!(now < Span::from_secs(600), "{told} told");
    }
    assert!(store.entries.is_empty());
}
