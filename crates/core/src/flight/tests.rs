//! Tests the ring: encoding, order, counts, and stamps over the whole life of a link.

use alloc::string::ToString;
use alloc::vec::Vec;

use super::*;
use crate::cause::Cause;
use crate::kernel::SocketError;
use crate::wire::CloseReason;

const DAY: Span = Span::from_secs(86_400);

fn at(millis: u64) -> Time {
    Time::from_millis(1_000 + millis)
}

fn incidents(flight: &Flight) -> Vec<(Incident, u32)> {
    flight.iter().map(|entry| (entry.incident, entry.count)).collect()
}

#[test]
fn every_incident_is_decoded_as_it_was_encoded() {
    let all = [
        Incident::Opened,
        Incident::Introduced,
        Incident::Heard { bytes: 0 },
        Incident::Heard { bytes: 3 },
        Incident::Heard { bytes: 49_152 },
        Incident::Pong { rtt: Span::from_micros(0) },
        Incident::Pong { rtt: Span::from_micros(49_152 * 64) },
        Incident::Probe { number: 31 },
        Incident::Keepalive,
        Incident::Requested,
        Incident::DataSent,
        Incident::Suspect,
        Incident::Recovered,
        Incident::Overdue,
        Incident::Examined(Findings::default()),
        Incident::Examined(Findings::FRESH.with(Findings::LOCAL_DOWN, true)),
        Incident::Unexaminable,
        Incident::Error(SocketError::Reset),
        Incident::Error(SocketError::Local),
        Incident::Held,
        Incident::Released,
        Incident::Retuned,
        Incident::Fin,
        Incident::CloseSaid(CloseReason::Drained),
        Incident::CloseHeard(CloseReason::Other(31)),
        Incident::Hung,
        Incident::Confirm,
        Incident::verdict(Cause::PeerExited),
        Incident::verdict(Cause::Unknown),
    ];
    for incident in all {
        assert_eq!(incident.code().incident(), Some(incident));
        assert_eq!(Code::of_word(incident.code().word(63)), incident.code());
    }
}

#[test]
fn values_above_the_maximum_are_stored_as_the_maximum() {
    let same = |given: Incident, stored| assert_eq!(given.code().incident(), Some(stored));
    same(Incident::Heard { bytes: u32::MAX }, Incident::Heard { bytes: 49_152 });
    let three_seconds = Span::from_micros(49_152 * 64);
    same(Incident::Pong { rtt: DAY }, Incident::Pong { rtt: three_seconds });
    same(Incident::Probe { number: 255 }, Incident::Probe { number: 31 });
    let other = |byte| Incident::CloseSaid(CloseReason::Other(byte));
    same(other(200), other(31));
}

#[test]
fn rounded_values_are_displayed_as_bounds() {
    let heard = |bytes| Incident::Heard { bytes }.to_string();
    let exact = ["heard bytes without content", "heard 1 byte", "heard 2 bytes"];
    assert_eq!([heard(0), heard(1), heard(2)], exact);
    assert_eq!([heard(4), heard(1_024)], ["heard up to 5 bytes", "heard up to 1535 bytes"]);
    assert_eq!(heard(49_152), "heard 49152 bytes or more");
    let pong = |micros| Incident::Pong { rtt: Span::from_micros(micros) }.to_string();
    assert_eq!([pong(0), pong(64)], ["pong within 0.064 ms", "pong within 0.128 ms"]);
    assert_eq!(pong(49_152 * 64), "pong after 3.145 s or more");
    let findings = Findings::FRESH.with(Findings::WAITING, true).with(Findings::LOCAL_DOWN, false);
    assert_eq!(findings.to_string(), "its kernel acknowledged lately, bytes wait");
}

#[test]
fn compressed_numbers_keep_their_order_and_precision() {
    for mantissa in [SIZE_MANTISSA, COUNT_MANTISSA] {
        let mut before = 0;
        for number in 0..70_000 {
            let compressed = compress(number, mantissa);
            let least = decompress(compressed, mantissa);
            assert!(compressed >= before && least <= number);
            assert!(
                number - least <= number >> mantissa.min(1)
                    && compress(least, mantissa) == compressed
            );
            before = compressed;
        }
    }
    assert!(compress(u32::from(u16::MAX), COUNT_MANTISSA) < 1 << COUNT_BITS);
}

const SIZE_MANTISSA: u32 = 1;

#[test]
fn equal_events_in_a_row_are_one_entry_with_the_last_time_and_the_largest_size() {
    let mut flight = Flight::new(at(0));
    for (index, bytes) in [2, 3, 2].into_iter().enumerate() {
        flight.heard(at(10 * index as u64), bytes);
    }
    let heard = (Incident::Heard { bytes: 3 }, 3);
    assert_eq!(incidents(&flight), [(Incident::Opened, 1), heard]);
    let last = flight.iter().last().map(|entry| at(20).since(entry.at));
    assert!(last.is_some_and(|early| early < Span::from_micros(66)));
}

#[test]
fn two_alternating_kinds_are_two_entries() {
    let mut flight = Flight::new(at(0));
    let pong = Incident::Pong { rtt: Span::from_micros(128) };
    for round in 0..1_000 {
        flight.record(at(1_000 * round), Incident::Probe { number: 1 });
        flight.record(at(1_000 * round + 1), pong);
        flight.heard(at(1_000 * round + 1), 3);
    }
    let probe = Incident::Probe { number: 1 };
    assert_eq!(incidents(&flight), [(Incident::Opened, 1), (probe, 1_000), (pong, 1_000)]);
    // A compressed entry has a rounded count, and `or_more` is set.
    flight.record(at(2_000_000), Incident::Suspect);
    flight.record(at(2_000_001), Incident::Recovered);
    let older = flight.iter().nth(1);
    assert!(older.is_some_and(|older| older.count == 896 && older.or_more));
}

#[test]
fn a_full_ring_replaces_the_oldest_entry() {
    let mut flight = Flight::new(at(0));
    let number = |index: u32| Incident::Probe { number: (index % 31) as u8 };
    for index in 1..=100 {
        flight.record(at(u64::from(index)), number(index));
        let kept = incidents(&flight);
        assert_eq!(kept.len(), ENTRIES.min(index as usize + 1));
        assert_eq!(kept.last(), Some(&(number(index), 1)));
    }
    let expected: Vec<_> = (69..=100).map(|index| (number(index), 1)).collect();
    assert_eq!(incidents(&flight), expected);
    assert!(flight.iter().is_sorted_by_key(|entry| entry.at));
}

#[test]
fn counts_saturate() {
    let mut flight = Flight::new(at(0));
    for index in 0..70_000 {
        flight.heard(at(index), 2);
    }
    let last = flight.iter().last();
    assert!(last.is_some_and(|last| last.count == 65_535 && last.or_more));
}

#[test]
fn stamps_cover_the_whole_life_of_a_link() {
    let mut flight = Flight::new(at(0));
    for days in [1, 4, 30, 3_650] {
        let now = at(0) + DAY.times(days);
        flight.record(now, Incident::Suspect);
        flight.record(now, Incident::Recovered);
        let last = flight.iter().last().map(|last| now.since(last.at).as_nanos());
        assert!(last.is_some_and(|early| early <= DAY.times(days).as_nanos() >> 31));
    }
    flight.record(Time::from_nanos(u64::MAX), Incident::Fin);
    assert_eq!(flight.iter().next().map(|first| first.at), Some(at(0)));
    assert!(flight.iter().is_sorted_by_key(|entry| entry.at));
}

/// Returns the recorder after it was saved at `saved` and loaded at `loaded`.
fn moved(flight: &Flight, saved: Time, loaded: Time) -> Flight {
    let mut state = Vec::new();
    flight.put(&mut Sink::state(saved, &mut state));
    Flight::take(&mut Source::state(loaded, &state)).unwrap()
}

#[test]
fn a_recorder_that_moves_keeps_all_ages_that_its_clock_can_hold() {
    let mut flight = Flight::new(Time::from_millis(1_000));
    for second in 2..60 {
        flight.record(
            Time::from_millis(second * 1_000),
            Incident::Probe { number: second as u8 % 31 },
        );
    }
    let now = Time::from_millis(61_000);
    assert_eq!(moved(&flight, now, now), flight);
    let ages = |flight: &Flight, now: Time| -> Vec<Span> {
        flight.iter().map(|entry| now.since(entry.at)).collect()
    };
    let older = Time::from_millis(500_000_000);
    assert_eq!(ages(&moved(&flight, now, older), older), ages(&flight, now));
    // The clock began ten seconds ago: the ages before are cut, and no event is in the future.
    let young = Time::from_millis(10_000);
    let late = moved(&flight, now, young);
    let unit = Span::from_nanos(1 << FIRST_UNIT);
    for (moved, age) in ages(&late, young).into_iter().zip(ages(&flight, now)) {
        let age = age.min(Span::from_secs(10));
        assert!((age..=age + unit).contains(&moved), "{moved} instead of {age}");
    }
    assert_eq!((late.opened(), late.iter().count()), (Time::ZERO, ENTRIES));
}
