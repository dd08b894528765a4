//! A hierarchical timing wheel over small integer keys: one deadline per key, constant-time arm and
//! disarm, and expiry in bounded steps.
//!
//! # The lazy pattern
//! A deadline that moves with every byte heard must not touch the wheel with every byte. Its owner
//! keeps the time of the last evidence beside the link and does nothing else on hearing: one store.
//! When the entry fires, the owner computes the true deadline from that time. If it has been
//! reached, the owner acts; if it lies later, the owner arms the key again for it. So the wheel
//! touches a link that is heard a thousand times a second once per deadline's length. Only of a
//! deadline that comes nearer must the wheel be told at once.
//!
//! ```
//! use systole_core::wheel::Wheel;
//! use systole_core::{Span, Time};
//!
//! let idle = Span::from_secs(15);
//! let mut wheel = Wheel::new(Time::ZERO);
//! wheel.arm(7, Time::ZERO + idle);
//! let last_heard = Time::from_millis(9_000); // hearing: one store, no wheel
//!
//! let now = Time::from_millis(15_001);
//! let mut budget = 1_000;
//! while let Some(key) = wheel.expire(now, &mut budget) {
//!     let deadline = last_heard + idle;
//!     if deadline > now {
//!         wheel.arm(key, deadline);
//!     }
//! }
//! assert_eq!(wheel.armed(7), Some(Time::from_millis(24_000)));
//! ```
//!
//! # How it works
//! Time is cut into ticks of [`TICK`]; a deadline belongs to the first tick that starts no earlier
//! than it, so it never fires early and late by less than one tick. Level 0 has one slot for each
//! of the next ticks, and each slot of a level above spans a whole turn of the level below. A key
//! stands at the lowest level whose turn holds both its tick and the wheel's position. When the
//! position enters a slot of a higher level, its keys move down; the position does not leave the
//! start of that slot before they all have. So any call can stop anywhere, and keys can be armed
//! and disarmed in between.
//!
//! A slot is a stack of chunks of keys, and each key knows its place in a chunk. A list threaded
//! through the keys would be simpler, but in a large table each step along it waits for memory: it
//! was four times slower at a million keys and six at ten. The keys of a chunk are fetched side by
//! side.

use alloc::boxed::Box;

use crate::pages::Pages;
use crate::time::{Span, Time};

/// A deadline fires less than this late: 131 µs. Shorter only adds levels for the keys to fall
/// through; longer would show beside the 2 ms that a verdict may be late.
pub const TICK: Span = Span::from_nanos(1 << TICK_BITS);

/// Keys are below this. A shard meets the kernel's limit on descriptors long before, and places in
/// the chunks must fit 32 bits.
pub const MAX_KEYS: u32 = 1 << 28;

const TICK_BITS: u32 = 17;
/// 512 slots a level: a level spans 67 ms, the next 34 s, so that a deadline of seconds moves down
/// once. With 64 it moves twice, and costs a third more.
const SLOT_BITS: u32 = 9;
const SLOTS: usize = 1 << SLOT_BITS;
const WORDS: usize = SLOTS / 64;
/// Enough for 2^47 ticks, all that 64 bits of nanoseconds hold, and the one after them.
const LEVELS: usize = 6;
/// The tick at the end of time.
const LAST_TICK: u64 = 1 << (64 - TICK_BITS);

/// Keys per chunk: two cache lines with the chunk's own two fields.
const CHUNK: u32 = 30;
/// A place is the number of a chunk, shifted by this, and the position in it.
const CHUNK_BITS: u32 = 5;
/// The place of a key that is not armed, and the chunk below the lowest of a stack.
const NONE: u32 = u32::MAX;

/// One deadline per key below [`MAX_KEYS`]: 12 bytes for the key, and 4.3 more while it is armed.
///
/// Keys that fire at the same tick come in an order that depends on the calls made alone.
#[derive(Debug)]
pub struct Wheel {
    nodes: Pages<Node>,
    chunks: Pages<Chunk>,
    /// How many chunks were ever made, and the first of those now free, chained by `below`.
    chunks_made: u32,
    free: u32,
    /// By level, then index.
    slots: Box<[Slot; LEVELS * SLOTS]>,
    /// A bit for each slot that is not empty.
    occupied: [[u64; WORDS]; LEVELS],
    /// The position, in ticks: everything due before it has fired.
    tick: u64,
    len: usize,
}

/// A deadline in halves, which saves four bytes of alignment, and the key's place in the chunks.
#[derive(Clone, Copy, Debug)]
struct Node {
    high: u32,
    low: u32,
    place: u32,
}

/// A piece of the stack of one slot. All but the top one of a stack are full.
#[derive(Clone, Copy, Debug, Default)]
struct Chunk {
    below: u32,
    slot: u32,
    keys: [u32; CHUNK as usize],
}

/// The top chunk of a stack, and how many keys are in it; an empty stack counts as full, so that
/// "no room" is one comparison.
#[derive(Clone, Copy, Debug)]
struct Slot {
    top: u32,
    filled: u32,
}

const _: () = assert!(size_of::<Node>() == 12 && size_of::<Chunk>() == 128);
const _: () = assert!(CHUNK <= 1 << CHUNK_BITS);
const _: () = assert!(LEVELS as u32 * SLOT_BITS > 64 - TICK_BITS);
const _: () = assert!(
    (MAX_KEYS / CHUNK + (LEVELS * SLOTS) as u32 + 1) as u64 * (1 << CHUNK_BITS) < NONE as u64
);

impl Default for Node {
    fn default() -> Node {
        Node { high: 0, low: 0, place: NONE }
    }
}

impl Node {
    fn deadline(&self) -> Time {
        Time::from_nanos(u64::from(self.high) << 32 | u64::from(self.low))
    }
}

impl Wheel {
    /// A wheel with nothing armed, whose time begins at `start`.
    pub fn new(start: Time) -> Wheel {
        Wheel {
            nodes: Pages::new(),
            chunks: Pages::new(),
            chunks_made: 0,
            free: NONE,
            slots: Box::new([Slot { top: NONE, filled: CHUNK }; LEVELS * SLOTS]),
            occupied: [[0; WORDS]; LEVELS],
            tick: tick_reached(start),
            len: 0,
        }
    }

    /// Arms `key` for `at`, or moves it there if it is armed. A time already past fires at the next
    /// tick. Constant time.
    ///
    /// # Panics
    /// If `key` is not below [`MAX_KEYS`]: the table of links it numbers must stay below it.
    pub fn arm(&mut self, key: u32, at: Time) {
        assert!(key < MAX_KEYS, "a key above the limit");
        self.disarm(key);
        self.len += 1;
        let nanos = at.as_nanos();
        let node = self.nodes.entry(key);
        node.high = (nanos >> 32) as u32;
        node.low = nanos as u32;
        // The tick being worked off takes no more: what is armed for the past on every expiry would
        // keep the wheel from ever leaving it.
        let due = due_tick(at).max(self.tick + 1).min(LAST_TICK);
        self.push(due, key);
    }

    /// Disarms `key`; nothing if it is not armed. Constant time.
    pub fn disarm(&mut self, key: u32) {
        let Some(node) = self.nodes.get_mut(key).filter(|node| node.place != NONE) else {
            return;
        };
        let place = core::mem::replace(&mut node.place, NONE);
        self.len -= 1;
        let (chunk, offset) = (place >> CHUNK_BITS, place % (1 << CHUNK_BITS));
        let slot = self.chunks.entry(chunk).slot as usize;
        let last = self.pop(slot);
        if last != key {
            self.chunks.entry(chunk).keys[offset as usize] = last;
            self.nodes.entry(last).place = place;
        }
    }

    /// For when `key` is armed, if it is.
    pub fn armed(&self, key: u32) -> Option<Time> {
        let node = self.nodes.get(key)?;
        (node.place != NONE).then(|| node.deadline())
    }

    /// How many keys are armed.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no key is armed.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The next key whose deadline has been reached at `now`, disarmed.
    ///
    /// Handing out a key costs one unit of `budget`, and so does moving one a level down; no call
    /// does more work than it has budget. After `None`, a budget of 0 says that there may be more
    /// to do at this `now`, and any other that there is not. A `now` that lies before that of an
    /// earlier call finds nothing.
    #[inline]
    pub fn expire(&mut self, now: Time, budget: &mut u32) -> Option<u32> {
        let reached = tick_reached(now);
        if reached < self.tick {
            return None;
        }
        while *budget > 0 {
            match self.pending() {
                Some(slot) if slot < SLOTS => {
                    *budget -= 1;
                    self.len -= 1;
                    let key = self.pop(slot);
                    self.nodes.entry(key).place = NONE;
                    return Some(key);
                }
                Some(slot) => self.descend(slot, budget),
                None => match self.next_stop() {
                    Some(stop) if stop <= reached => self.tick = stop,
                    Some(_) | None => {
                        self.tick = reached;
                        return None;
                    }
                },
            }
        }
        None
    }

    /// When [`Wheel::expire`] next has something to do, or `None` if nothing is armed.
    ///
    /// Never later than the moment the earliest deadline fires. It may be sooner, because keys move
    /// down the levels on the way: one wake-up more for a deadline of seconds, never more than one
    /// per level, and keys move with their whole slot. A time that has passed means that work is
    /// left over.
    pub fn next_deadline(&self) -> Option<Time> {
        let stop = match self.pending() {
            Some(_) => self.tick,
            None => self.next_stop()?,
        };
        Some(Time::from_nanos(stop.saturating_mul(TICK.as_nanos())))
    }

    /// The slot of the present position at the lowest level where it is not empty: at level 0 its
    /// keys are due, above they must move down.
    #[inline]
    fn pending(&self) -> Option<usize> {
        (0..LEVELS).find_map(|level| {
            let index = index(self.tick, level);
            let filled = self.occupied[level][index / 64] & (1 << (index % 64)) != 0;
            filled.then_some(level * SLOTS + index)
        })
    }

    /// The tick at which the next slot after the present position begins that is not empty.
    ///
    /// Slots of a lower level all begin before the next slot of a higher one.
    fn next_stop(&self) -> Option<u64> {
        (0..LEVELS).find_map(|level| {
            let ahead = next_set(&self.occupied[level], index(self.tick, level))?;
            let shift = level as u32 * SLOT_BITS;
            let turn = self.tick >> shift >> SLOT_BITS << SLOT_BITS;
            Some((turn + ahead as u64) << shift)
        })
    }

    /// Moves keys of the top chunk of `slot` down to where the position now wants them, as many as
    /// the budget allows.
    ///
    /// In two passes: the first fetches all deadlines at once, so that their cache misses overlap.
    fn descend(&mut self, slot: usize, budget: &mut u32) {
        let Slot { top, filled } = self.slots[slot];
        let keys = self.chunks.entry(top).keys;
        let kept = filled.saturating_sub(*budget);
        let moved = &keys[kept as usize..filled as usize];
        let mut due = [0; CHUNK as usize];
        for (due, key) in due.iter_mut().zip(moved) {
            *due = due_tick(self.nodes.entry(*key).deadline());
        }
        *budget -= filled - kept;
        self.slots[slot].filled = kept;
        if kept == 0 {
            self.drop_chunk(slot);
        }
        for (due, key) in due.iter().zip(moved) {
            self.push((*due).max(self.tick), *key);
        }
    }

    /// Puts `key` into the slot that the tick `due` belongs to, seen from the present position.
    #[inline]
    fn push(&mut self, due: u64, key: u32) {
        let level = level(due, self.tick);
        let index = index(due, level);
        let slot = level * SLOTS + index;
        if self.slots[slot].filled == CHUNK {
            self.occupied[level][index / 64] |= 1 << (index % 64);
            self.add_chunk(slot);
        }
        let Slot { top, filled } = self.slots[slot];
        self.slots[slot].filled += 1;
        self.chunks.entry(top).keys[filled as usize] = key;
        self.nodes.entry(key).place = top << CHUNK_BITS | filled;
    }

    /// Takes the topmost key of `slot`, which is not empty, and leaves its place to the caller.
    #[inline]
    fn pop(&mut self, slot: usize) -> u32 {
        self.slots[slot].filled -= 1;
        let Slot { top, filled } = self.slots[slot];
        let key = self.chunks.entry(top).keys[filled as usize];
        if filled == 0 {
            self.drop_chunk(slot);
        }
        key
    }

    fn add_chunk(&mut self, slot: usize) {
        let mut chunk = self.free;
        if chunk == NONE {
            chunk = self.chunks_made;
            self.chunks_made += 1;
        } else {
            self.free = self.chunks.entry(chunk).below;
        }
        let added = self.chunks.entry(chunk);
        added.below = self.slots[slot].top;
        added.slot = slot as u32;
        self.slots[slot] = Slot { top: chunk, filled: 0 };
    }

    fn drop_chunk(&mut self, slot: usize) {
        let chunk = self.slots[slot].top;
        let dropped = self.chunks.entry(chunk);
        let below = core::mem::replace(&mut dropped.below, self.free);
        self.free = chunk;
        self.slots[slot] = Slot { top: below, filled: CHUNK };
        if below == NONE {
            let index = slot % SLOTS;
            self.occupied[slot / SLOTS][index / 64] &= !(1 << (index % 64));
        }
    }
}

/// The tick whose start `now` has reached. The end of time counts as the start of the tick after
/// it, so that no deadline is out of reach.
#[inline]
const fn tick_reached(now: Time) -> u64 {
    if now.as_nanos() == u64::MAX { LAST_TICK } else { now.as_nanos() >> TICK_BITS }
}

/// The first tick that starts no earlier than `at`.
#[inline]
const fn due_tick(at: Time) -> u64 {
    at.as_nanos().div_ceil(TICK.as_nanos())
}

/// The lowest level one turn of which holds both ticks.
#[inline]
const fn level(due: u64, tick: u64) -> usize {
    ((due ^ tick) | 1).ilog2() as usize / SLOT_BITS as usize
}

/// The lowest bit set above `index`.
fn next_set(words: &[u64; WORDS], index: usize) -> Option<usize> {
    let behind = u64::MAX >> (63 - index % 64);
    let first = index / 64;
    let ahead = words
        .iter()
        .enumerate()
        .skip(first)
        .map(|(word, bits)| (word, if word == first { bits & !behind } else { *bits }));
    let (word, bits) = ahead.into_iter().find(|(_, bits)| *bits != 0)?;
    Some(word * 64 + bits.trailing_zeros() as usize)
}

/// Which slot of `level` holds `tick`.
#[inline]
const fn index(tick: u64, level: usize) -> usize {
    (tick >> (level as u32 * SLOT_BITS)) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use alloc::collections::BTreeMap;
    use alloc::vec::Vec;

    const MILLI: u64 = 1_000_000;
    const DAY: u64 = 24 * 3_600 * 1_000 * MILLI;

    /// A length whose magnitude is random too, so that all levels and both ends are met.
    fn length(chance: &mut Random) -> u64 {
        let bits = chance.below(65) as u32;
        chance.next_u64().checked_shr(bits).unwrap_or(0)
    }

    fn at(nanos: u64) -> Time {
        Time::from_nanos(nanos)
    }

    fn drain(wheel: &mut Wheel, now: u64) -> Vec<u32> {
        let mut budget = u32::MAX;
        let fired = core::iter::from_fn(|| wheel.expire(at(now), &mut budget)).collect();
        assert_ne!(budget, 0);
        fired
    }

    /// The wheel beside the plainest table that could replace it.
    struct Twin {
        wheel: Wheel,
        /// Deadlines, and from when on each can be late: a key may be armed for the past.
        table: BTreeMap<u32, (u64, u64)>,
        now: u64,
        seed: u64,
    }

    impl Twin {
        fn arm(&mut self, key: u32, nanos: u64) {
            self.wheel.arm(key, at(nanos));
            self.table.insert(key, (nanos, nanos.max(self.now)));
        }

        /// Expires with `budget`, checks each key, and whether any is overdue once nothing is left.
        fn expire(&mut self, budget: u32, chance: &mut Random) {
            let mut left = budget;
            let mut fired = 0;
            loop {
                let before = left;
                let Some(key) = self.wheel.expire(at(self.now), &mut left) else { break };
                assert!(left < before, "seed {}: a key for nothing", self.seed);
                fired += 1;
                let due = self.table.remove(&key);
                let (due, _) =
                    due.unwrap_or_else(|| panic!("seed {}: {key} was not armed", self.seed));
                assert!(due <= self.now, "seed {}: {key} fired early", self.seed);
                // The lazy pattern: half of them go back, some for a time already past.
                match chance.below(4) {
                    0 => self.arm(key, self.now.saturating_add(length(chance))),
                    1 => self.arm(key, self.now.saturating_sub(chance.below(TICK.as_nanos() * 3))),
                    _ => {}
                }
            }
            assert!(fired <= budget, "seed {}: more keys than budget", self.seed);
            if left > 0 {
                let overdue = |from: u64| {
                    from.checked_add(TICK.as_nanos()).is_some_and(|last| last <= self.now)
                };
                let late = self.table.iter().find(|(_, (_, from))| overdue(*from));
                assert_eq!(late, None, "seed {}: overdue at {}", self.seed, self.now);
            }
        }

        /// The promised wake-up is never after the first deadline's firing, and is worth it.
        fn check_next(&mut self) {
            assert_eq!(self.wheel.len(), self.table.len(), "seed {}", self.seed);
            let Some(next) = self.wheel.next_deadline() else {
                assert!(self.table.is_empty(), "seed {}: no deadline told", self.seed);
                return;
            };
            let first = self.table.values().map(|(_, from)| *from).min();
            let bound = first.map(|from| from.saturating_add(TICK.as_nanos()));
            assert!(Some(next.as_nanos()) <= bound, "seed {}: wake-up too late", self.seed);
        }
    }

    fn run(seed: u64) {
        let mut chance = Random::new(seed);
        let start = if seed.is_multiple_of(3) { 0 } else { length(&mut chance) };
        let wheel = Wheel::new(at(start));
        let mut twin = Twin { wheel, table: BTreeMap::new(), now: start, seed };
        let keys = 1 + chance.below(60);
        for _ in 0..300 {
            let key = chance.below(keys) as u32;
            match chance.below(8) {
                0..=3 => twin.arm(key, twin.now.saturating_add(length(&mut chance))),
                4 => {
                    twin.wheel.disarm(key);
                    twin.table.remove(&key);
                }
                5 => twin.arm(key, length(&mut chance)),
                _ => {
                    if chance.below(2) == 0 {
                        twin.now = twin.now.saturating_add(length(&mut chance) >> 8);
                    } else if let Some(next) = twin.wheel.next_deadline() {
                        // What is promised to be worth a wake-up must be.
                        twin.now = twin.now.max(next.as_nanos());
                        let mut one = 1;
                        let fired = twin.wheel.expire(at(twin.now), &mut one);
                        assert_eq!(one, 0, "seed {seed}: a wake-up for nothing");
                        if let Some(key) = fired {
                            let (due, _) = twin.table.remove(&key).unwrap();
                            assert!(due <= twin.now, "seed {seed}: {key} fired early");
                        }
                    }
                    let budget =
                        if chance.below(2) == 0 { u32::MAX } else { chance.below(6) as u32 };
                    twin.expire(budget, &mut chance);
                }
            }
            assert_eq!(
                twin.wheel.armed(key).map(Time::as_nanos),
                twin.table.get(&key).map(|(due, _)| *due),
                "seed {seed}"
            );
            twin.check_next();
        }
        twin.now = u64::MAX;
        while !twin.table.is_empty() {
            twin.expire(1 + chance.below(9) as u32, &mut chance);
            for key in 0..keys as u32 {
                if chance.below(2) == 0 {
                    twin.wheel.disarm(key);
                    twin.table.remove(&key);
                }
            }
        }
        assert!(twin.wheel.is_empty(), "seed {seed}");
    }

    #[test]
    fn behaves_as_a_sorted_table_would() {
        for seed in 0..5_000 {
            run(seed);
        }
    }

    #[test]
    fn fires_at_its_tick_and_not_a_nanosecond_sooner() {
        let tick = TICK.as_nanos();
        for due in [1, tick - 1, tick, tick + 1, 15_000 * MILLI, 50 * DAY, 1 << 63] {
            let mut wheel = Wheel::new(Time::ZERO);
            wheel.arm(3, at(due));
            assert_eq!(drain(&mut wheel, due - 1), [], "{due} fired early");
            assert_eq!(drain(&mut wheel, due.next_multiple_of(tick)), [3], "{due} was late");
        }
    }

    #[test]
    fn the_end_of_time_is_reached() {
        let mut wheel = Wheel::new(Time::ZERO);
        wheel.arm(0, at(u64::MAX));
        assert_eq!(drain(&mut wheel, u64::MAX - 1), []);
        assert_eq!(wheel.next_deadline(), Some(at(u64::MAX)));
        assert_eq!(drain(&mut wheel, u64::MAX), [0]);
    }

    #[test]
    fn sleeping_from_wake_up_to_wake_up_takes_few() {
        for due in [MILLI, 15_000 * MILLI, 50 * DAY, 400 * 365 * DAY] {
            let mut wheel = Wheel::new(at(12_345_678_901));
            wheel.arm(0, at(due + 12_345_678_901));
            let mut wakes = 0;
            while let Some(next) = wheel.next_deadline() {
                wakes += 1;
                drain(&mut wheel, next.as_nanos());
            }
            assert!(wakes <= LEVELS, "{wakes} wake-ups for {due} ns");
        }
    }

    #[test]
    fn a_million_at_one_instant_come_in_bounded_steps() {
        const KEYS: u32 = 1_000_000;
        const STEP: u32 = 1_000;
        let due = 15_000 * MILLI;
        let mut wheel = Wheel::new(Time::ZERO);
        for key in 0..KEYS {
            wheel.arm(key, at(due));
        }
        let now = due.next_multiple_of(TICK.as_nanos());
        let mut seen = alloc::vec![false; KEYS as usize];
        let mut steps = 0;
        while !wheel.is_empty() {
            let mut budget = STEP;
            while let Some(key) = wheel.expire(at(now), &mut budget) {
                assert!(!core::mem::replace(&mut seen[key as usize], true), "{key} came twice");
            }
            steps += 1;
        }
        assert!(seen.iter().all(|seen| *seen));
        // Each moves down once and is handed out: two units.
        assert!(steps <= 2 * KEYS / STEP + 1, "{steps} steps");
        assert_eq!(wheel.next_deadline(), None);
    }

    #[test]
    fn a_slot_being_worked_off_may_change() {
        let due = 15_000 * MILLI;
        let now = due + TICK.as_nanos();
        let mut wheel = Wheel::new(Time::ZERO);
        for key in 0..100 {
            wheel.arm(key, at(due));
        }
        let mut budget = 50;
        assert_eq!(wheel.expire(at(now), &mut budget), None);
        assert_eq!((budget, wheel.len()), (0, 100));
        wheel.disarm(0);
        wheel.disarm(70);
        wheel.arm(1, at(due + 40_000 * MILLI));
        wheel.arm(71, at(due + 1));
        wheel.arm(99, at(3));
        let mut fired = drain(&mut wheel, now + TICK.as_nanos());
        fired.sort_unstable();
        let expected: Vec<u32> = (2..100).filter(|key| *key != 70).collect();
        assert_eq!(fired, expected);
        assert_eq!(wheel.armed(1), Some(at(due + 40_000 * MILLI)));
        assert_eq!(wheel.len(), 1);
    }

    #[test]
    fn time_may_jump_by_years_and_not_back() {
        let mut wheel = Wheel::new(Time::ZERO);
        wheel.arm(1, at(MILLI));
        wheel.arm(2, at(30 * 365 * DAY));
        wheel.arm(3, at(90 * 365 * DAY));
        assert_eq!(drain(&mut wheel, 60 * 365 * DAY), [1, 2]);
        wheel.arm(1, at(MILLI));
        assert_eq!(drain(&mut wheel, 2 * MILLI), []);
        assert_eq!(drain(&mut wheel, 60 * 365 * DAY + TICK.as_nanos()), [1]);
        assert_eq!(drain(&mut wheel, 91 * 365 * DAY), [3]);
    }

    #[test]
    fn arming_for_the_past_on_every_expiry_does_not_hold_the_wheel() {
        let mut wheel = Wheel::new(Time::ZERO);
        wheel.arm(1, at(MILLI));
        wheel.arm(2, at(2 * MILLI));
        let (mut budget, mut fired) = (100, Vec::new());
        while let Some(key) = wheel.expire(at(3 * MILLI), &mut budget) {
            fired.push(key);
            wheel.arm(key, Time::ZERO);
        }
        assert!(fired.contains(&2) && budget > 0, "{fired:?}");
    }

    #[test]
    fn memory_follows_what_is_armed_at_a_time() {
        let mut wheel = Wheel::new(Time::ZERO);
        let mut chance = Random::new(1);
        for round in 0..200_u64 {
            for key in 0..1_000 {
                wheel.arm(key, at(round * MILLI + length(&mut chance)));
            }
            drain(&mut wheel, round * MILLI);
        }
        // As many full chunks as it takes, and one more for each slot.
        let bound = 1_000 / CHUNK + (LEVELS * SLOTS) as u32;
        assert!(wheel.chunks_made <= bound, "{} chunks", wheel.chunks_made);
    }

    #[test]
    fn the_highest_key_is_taken() {
        let mut wheel = Wheel::new(Time::ZERO);
        wheel.arm(MAX_KEYS - 1, at(1));
        assert_eq!(drain(&mut wheel, MILLI), [MAX_KEYS - 1]);
    }

    #[test]
    #[should_panic(expected = "a key above the limit")]
    fn a_key_above_the_limit_is_refused() {
        Wheel::new(Time::ZERO).arm(MAX_KEYS, Time::ZERO);
    }
}
