//! Tables of links, sessions and devices: searches of mostly empty slots, and places that come and
//! go.

use std::hint::black_box;
use std::time::Duration;

use systole_core::pages::{PAGE, Places, Slots};
use systole_core::random::Random;

use super::{Figures, timed};

/// The slots that one step of a search visits, and the size of a slot, as in the hub.
const SLOTS_PER_STEP: usize = 4_096;
const SLOT: usize = 432;

/// Measures the longest step of a search, and a search of the whole table in one step, in µs. The
/// table is full of links and then empty but for one link in each page.
pub(crate) fn scan_cell(links: u32) -> Figures {
    let mut table = Slots::new();
    for index in 0..links {
        table.insert(index, [u64::from(index); SLOT / 8]);
    }
    for index in (0..links).filter(|index| !(*index as usize).is_multiple_of(PAGE)) {
        table.remove(index);
    }
    let (mut longest, mut from) = (Duration::ZERO, Some(0));
    while let Some(start) = from {
        let mut scan = table.scan(start, SLOTS_PER_STEP);
        longest = longest.max(timed(|| {
            black_box(scan.by_ref().count());
        }));
        from = scan.cursor();
    }
    let all = timed(|| {
        black_box(table.scan(0, usize::MAX).count());
    });
    [longest.as_nanos() as f64 / 1e3, all.as_nanos() as f64 / 1e3, 0.0, 0.0, 0.0]
}

/// The values that one turn of a loop adds or removes at most: it takes as many socket events.
const PER_TURN: usize = 256;

/// The size of a value: an online device, more than a session.
const VALUE: usize = 144;

/// The number of runs of the same operations, of which the shortest time of each turn counts: what
/// else the machine does must not look like a long turn.
const RUNS: usize = 3;

/// Measures the longest turn in which values are added to a table, removed at random from the full
/// table, and added again, in µs.
pub(crate) fn places_cell(links: u32) -> Figures {
    let turns = (links as usize).div_ceil(PER_TURN);
    let mut shortest = vec![[Duration::MAX; 3]; turns];
    for _ in 0..RUNS {
        let mut table = Places::new(links);
        let mut random = Random::new(7);
        let mut order: Vec<u32> = (0..links).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, random.below(last as u64 + 1) as usize);
        }
        let add = |shortest: &mut [[Duration; 3]], phase: usize, table: &mut Places<_>| {
            for (turn, shortest) in order.chunks(PER_TURN).zip(shortest) {
                let took = timed(|| {
                    for value in turn {
                        black_box(table.add([u64::from(*value); VALUE / 8]));
                    }
                });
                shortest[phase] = shortest[phase].min(took);
            }
        };
        add(&mut shortest, 0, &mut table);
        for (turn, shortest) in order.chunks(PER_TURN).zip(&mut shortest) {
            let took = timed(|| {
                for place in turn {
                    black_box(table.remove(*place));
                }
            });
            shortest[1] = shortest[1].min(took);
        }
        add(&mut shortest, 2, &mut table);
    }
    let longest = |phase: usize| {
        let longest = shortest.iter().map(|turn| turn[phase]).max().unwrap_or_default();
        longest.as_nanos() as f64 / 1e3
    };
    [longest(0), longest(1), longest(2), 0.0, 0.0]
}
