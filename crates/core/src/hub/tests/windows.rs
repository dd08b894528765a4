//! The memory of all windows of a hub.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use super::*;
use crate::random::Random;
use crate::window::{KEPT_MEMORY, Limits};
use crate::wire::WINDOWS;

const LIMIT: usize = 100_000;

/// A hub whose clients keep windows, and take nothing.
fn hub() -> Driver<Hub> {
    let limits = Limits { messages: 1_000, bytes: 40_000 };
    let window = Some(link::Windows::new(limits, link::Takes::AtOnce));
    let native = link::Settings::new(Codec::Native, Side::Accepting, Policy::default());
    let settings = super::super::Settings {
        shard: 0,
        homes: Homes::SINGLE,
        listeners: Vec::from([link::Settings { window, ..native }]),
        seed: 42,
        frame_memory: FRAME_MEMORY,
        window_memory: LIMIT,
        away: AWAY_SESSIONS,
    };
    Driver::new(Time::ZERO, Hub::new(settings))
}

/// Polls all outputs; returns the links that have ended, with their causes.
fn ended(hub: &mut Driver<Hub>) -> Vec<(u32, Cause)> {
    let mut ended = Vec::new();
    while let Some(output) = hub.poll_output() {
        if let Output::Link { link, output: link::Output::Session(session::Event::Left(verdict)) } =
            output
        {
            ended.push((link, verdict.cause));
        }
    }
    ended
}

fn welcome(hub: &mut Driver<Hub>, link: u32) {
    hub.handle(Time::ZERO, World::Opened { link, listener: 0, address: ADDRESS });
    let mut bytes = Vec::new();
    let hello = Hello { capabilities: WINDOWS, ..Hello::default() };
    Codec::Native.encode(&Frame::Hello(hello), &mut bytes);
    hub.handle(Time::ZERO, World::Link { link, input: link::World::Received(&bytes) });
    ended(hub);
    admit(hub, Time::ZERO, link);
    assert_eq!(ended(hub), []);
}

#[test]
fn the_link_that_keeps_most_gives_way_and_the_sum_is_kept_exactly() {
    for seed in 0..50 {
        let mut random = Random::new(seed);
        let mut hub = hub();
        let mut kept = [0; 8];
        let mut alive: BTreeSet<u32> = (0..8).collect();
        alive.iter().for_each(|link| welcome(&mut hub, *link));
        for step in 0..200 {
            let link = random.below(8) as u32;
            if !alive.contains(&link) {
                continue;
            }
            // One that sends short messages never keeps much.
            let length = if link == 0 { 1 } else { random.below(6_000) as usize };
            let bytes = [7; 6_000];
            let bytes = &bytes[..length];
            let send = link::Command::Send { bytes, more: false, kind: DataKind::Eleven };
            hub.handle(Time::ZERO, World::Link { link, input: link::World::Command(send) });
            kept[link as usize] += length + KEPT_MEMORY;
            for (gone, cause) in ended(&mut hub) {
                assert_eq!(cause, Cause::SlowConsumer);
                assert!(gone != 0 || kept[0] > 40_000, "seed {seed}, step {step}");
                let most = kept.iter().max().unwrap();
                let is_full = kept[gone as usize] > 40_000;
                assert!(is_full || kept[gone as usize] + 4_096 > *most, "the largest, in steps");
                assert!(is_full || kept.iter().sum::<usize>() > LIMIT, "and only at the limit");
                kept[gone as usize] = 0;
                alive.remove(&gone);
            }
            let sum: usize = kept.iter().sum();
            assert!(sum <= LIMIT);
            assert_eq!(hub.machine().counters().window_bytes, sum as u64, "seed {seed}");
        }
        assert!(alive.len() < 8 && alive.contains(&0), "seed {seed}");
    }
}

#[test]
fn messages_without_bytes_take_memory_too() {
    let mut hub = hub();
    (0..2).for_each(|link| welcome(&mut hub, link));
    let mut ends = Vec::new();
    for count in 1..=1_000 {
        for link in 0..2 {
            let send = link::Command::Send { bytes: b"", more: false, kind: DataKind::Eleven };
            hub.handle(Time::ZERO, World::Link { link, input: link::World::Command(send) });
            ends.extend(ended(&mut hub));
        }
        if ends.is_empty() {
            let window_bytes = hub.machine().counters().window_bytes;
            assert_eq!(window_bytes, (2 * count * KEPT_MEMORY) as u64);
        }
    }
    assert_eq!(ends, [(0, Cause::SlowConsumer)]);
}
