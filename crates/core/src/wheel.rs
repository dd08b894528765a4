//! A hierarchical timing wheel over small integer keys: one deadline per key, constant-time arm and
//! disarm, and expiry in bounded steps.
//!
//! # Lazy re-arming
//! A deadline that moves with every byte heard must not update the wheel with every byte. On
//! evidence the owner only stores its time beside the link. When the key fires, the owner computes
//! the true deadline from that time. If the deadline has been reached, the owner acts; otherwise it
//! arms the key again. So a link that is heard a thousand times a second updates the wheel once per
//! deadline's length. Only a deadline that moves earlier must be armed at once.
//!
//! ```
//! use systole_core::wheel::Wheel;
//! use systole_core::{Span, Time};
//!
//! let idle = Span::from_secs(15);
//! let mut wheel = Wheel::new(Time::ZERO);
//! wheel.arm(7, Time::ZERO + idle);
//! let last_heard = Time::from_millis(9_000); // evidence: one store, no wheel
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
//! Time is divided into ticks of [`TICK`]. A deadline belongs to the first tick that starts no
//! earlier than the deadline, so it never fires early, and late by less than one tick. Level 0 has
//! one slot for each of the next ticks, and each slot of a higher level spans a whole turn of the
//! level below. A key is at the lowest level whose turn contains both its tick and the wheel's
//! position. When the position enters a slot of a higher level, the keys of the slot move down; the
//! position stays at the start of the slot until all keys have moved. So any call can stop
//! anywhere, and keys can be armed and disarmed in between.
//!
//! A slot is a stack of chunks of keys, and each key stores its place in a chunk. A linked list of
//! keys would be simpler, but in a large table each step waits for memory: it was four times slower
//! at a million keys, and six times at ten million. The keys of a chunk are fetched in parallel.

use alloc::boxed::Box;

use crate::pages::Pages;
use crate::time::{Span, Time};

/// The resolution of the wheel: a deadline fires less than one tick late, 131 µs. A shorter tick
/// needs more levels; a longer one would be significant beside the allowed lateness of 2 ms.
pub const TICK: Span = Span::from_nanos(1 << TICK_BITS);

/// The limit of keys: every key is below it, because places in the chunks must fit in 32 bits. A
/// shard reaches the kernel's limit of descriptors long before.
pub const MAX_KEYS: u32 = 1 << 28;

const TICK_BITS: u32 = 17;
/// 512 slots per level: level 0 spans 67 ms, level 1 34 s, so a deadline of seconds moves down
/// once. With 64 slots it moves twice, which costs a third more.
const SLOT_BITS: u32 = 9;
const SLOTS: usize = 1 << SLOT_BITS;
const WORDS: usize = SLOTS / 64;
/// Enough levels for 2^47 ticks, the range of 64 bits of nanoseconds, and one more tick.
const LEVELS: usize = 6;
/// The tick at the end of time.
const TICK_AFTER_END: u64 = 1 << (64 - TICK_BITS);

/// The keys per chunk: with the two other fields of a chunk they fill two cache lines.
const CHUNK: u32 = 30;
/// A place is the number of a chunk, shifted by this, plus the position in the chunk.
const CHUNK_BITS: u32 = 5;
/// The place of a key that is not armed, and the end of a chain of chunks.
const NONE: u32 = u32::MAX;

/// A timing wheel with one deadline per key below [`MAX_KEYS`]. A key takes 12 bytes, and 4.3 more
/// while armed.
///
/// Keys that fire at the same tick come in an order that depends only on the previous calls.
#[derive(Debug)]
pub struct Wheel {
    nodes: Pages<Node>,
    chunks: Pages<Chunk>,
    /// The number of chunks ever made, and the first free one; free chunks are chained by `below`.
    chunks_made: u32,
    free: u32,
    /// The slots, by level, then index.
    slots: Box<[Slot; LEVELS * SLOTS]>,
    /// A bit for each slot that is not empty.
    occupied: [[u64; WORDS]; LEVELS],
    /// The position, in ticks: all earlier deadlines have fired.
    tick: u64,
    len: usize,
}

/// The deadline and the place of one key. The deadline is split in halves, which saves four bytes
/// of alignment.
#[derive(Clone, Copy, Debug)]
struct Node {
    high: u32,
    low: u32,
    place: u32,
}

/// A part of the stack of one slot. All chunks of a stack except the top one are full.
#[derive(Clone, Copy, Debug, Default)]
struct Chunk {
    below: u32,
    slot: u32,
    keys: [u32; CHUNK as usize],
}

/// The top chunk of a stack, and the number of keys in it. An empty stack counts as full, so that
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
    /// Creates a wheel without armed keys, whose time begins at `start`.
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

    /// Arms `key` for `at`, or moves its deadline to `at` if it is armed. A deadline in the past
    /// fires at the next tick. Constant time.
    ///
    /// # Panics
    /// If `key` is not below [`MAX_KEYS`]: the caller must limit its table of links.
    pub fn arm(&mut self, key: u32, at: Time) {
        assert!(key < MAX_KEYS, "a key above the limit");
        self.disarm(key);
        self.len += 1;
        let nanos = at.as_nanos();
        let node = self.nodes.entry(key);
        node.high = (nanos >> 32) as u32;
        node.low = nanos as u32;
        // The current tick accepts no more keys: otherwise keys armed for the past on every expiry
        // would keep the wheel at this tick forever.
        let due = due_tick(at).max(self.tick + 1).min(TICK_AFTER_END);
        self.push(due, key);
    }

    /// Disarms `key`; no effect if it is not armed. Constant time.
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

    /// Returns the deadline of `key`, if it is armed.
    pub fn armed(&self, key: u32) -> Option<Time> {
        let node = self.nodes.get(key)?;
        (node.place != NONE).then(|| node.deadline())
    }

    /// Returns how many keys are armed.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Returns true if no key is armed.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Disarms and returns the next key whose deadline has been reached at `now`.
    ///
    /// Returning a key costs one unit of `budget`, and so does moving a key one level down; a call
    /// never does more work than its budget. After `None`, a remaining budget of 0 means that there
    /// may be more work at this `now`; any other budget means that there is none. A `now` earlier
    /// than that of a previous call returns `None`.
    #[inline]
    pub fn expire(&mut self, now: Time, budget: &mut u32) -> Option<u32> {
        let reached = tick_reached(now);
        if reached < self.tick {
            return None;
        }
        while *budget > 0 {
            match self.current_slot() {
                Some(slot) if slot < SLOTS => {
                    *budget -= 1;
                    self.len -= 1;
                    let key = self.pop(slot);
                    self.nodes.entry(key).place = NONE;
                    return Some(key);
                }
                Some(slot) => self.cascade(slot, budget),
                None => match self.next_occupied_tick() {
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

    /// Returns the time of the tick at which the wheel stands: after [`Wheel::expire`] has returned
    /// a key, the tick for which that key was armed.
    #[inline]
    pub fn position(&self) -> Time {
        Time::from_nanos(self.tick.saturating_mul(TICK.as_nanos()))
    }

    /// Returns when [`Wheel::expire`] next has work to do, or `None` if no key is armed.
    ///
    /// The time is never later than the moment when the earliest deadline fires. It may be earlier,
    /// because keys move down the levels: one more wake-up for a deadline of seconds, at most one
    /// per level, and all keys of a slot move together. A time in the past means that work is left.
    pub fn next_deadline(&self) -> Option<Time> {
        let stop = match self.current_slot() {
            Some(_) => self.tick,
            None => self.next_occupied_tick()?,
        };
        Some(Time::from_nanos(stop.saturating_mul(TICK.as_nanos())))
    }

    /// Returns the slot at the current position, of the lowest level where it is not empty. At
    /// level 0 its keys are due; at higher levels they must move down.
    #[inline]
    fn current_slot(&self) -> Option<usize> {
        (0..LEVELS).find_map(|level| {
            let index = index(self.tick, level);
            let filled = self.occupied[level][index / 64] & (1 << (index % 64)) != 0;
            filled.then_some(level * SLOTS + index)
        })
    }

    /// Returns the first tick of the next slot after the current position that is not empty.
    ///
    /// All slots of a lower level begin before the next slot of a higher level.
    fn next_occupied_tick(&self) -> Option<u64> {
        (0..LEVELS).find_map(|level| {
            let ahead = next_set(&self.occupied[level], index(self.tick, level))?;
            let shift = level as u32 * SLOT_BITS;
            let turn = self.tick >> shift >> SLOT_BITS << SLOT_BITS;
            Some((turn + ahead as u64) << shift)
        })
    }

    /// Moves keys of the top chunk of `slot` down to their slots at the current position, as many
    /// as the budget allows.
    ///
    /// Two passes: the first fetches all deadlines at once, so that their cache misses overlap.
    fn cascade(&mut self, slot: usize, budget: &mut u32) {
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

    /// Puts `key` into the slot of the tick `due`, as seen from the current position.
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

    /// Removes and returns the top key of `slot`, which must not be empty. The caller sets its
    /// place.
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

/// Returns the last tick whose start `now` has reached. The maximum `Time` counts as the start of
/// the tick after it, so that every deadline can be reached.
#[inline]
const fn tick_reached(now: Time) -> u64 {
    if now.as_nanos() == u64::MAX { TICK_AFTER_END } else { now.as_nanos() >> TICK_BITS }
}

/// Returns the first tick that starts no earlier than `at`.
#[inline]
const fn due_tick(at: Time) -> u64 {
    at.as_nanos().div_ceil(TICK.as_nanos())
}

/// Returns the lowest level of which one turn contains both ticks.
#[inline]
const fn level(due: u64, tick: u64) -> usize {
    ((due ^ tick) | 1).ilog2() as usize / SLOT_BITS as usize
}

/// Returns the lowest set bit above `index`.
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

/// Returns the slot of `level` that contains `tick`.
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

    /// Returns a length of random magnitude, so that all levels and both extremes are tested.
    fn random_length(random: &mut Random) -> u64 {
        let bits = random.below(65) as u32;
        random.next_u64().checked_shr(bits).unwrap_or(0)
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

    /// The wheel beside a simple table that models it.
    struct Model {
        wheel: Wheel,
        /// Deadlines, and the time from which each can be late: a key may be armed for the past.
        table: BTreeMap<u32, (u64, u64)>,
        now: u64,
        seed: u64,
    }

    impl Model {
        fn arm(&mut self, key: u32, nanos: u64) {
            self.wheel.arm(key, at(nanos));
            self.table.insert(key, (nanos, nanos.max(self.now)));
        }

        /// Expires with `budget`; checks each key, and that no key is overdue when no work is left.
        fn expire(&mut self, budget: u32, random: &mut Random) {
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
                // Lazy re-arming: half of the keys are armed again, some for the past.
                match random.below(4) {
                    0 => self.arm(key, self.now.saturating_add(random_length(random))),
                    1 => self.arm(key, self.now.saturating_sub(random.below(TICK.as_nanos() * 3))),
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

        /// Checks that the next wake-up is not later than the first deadline fires.
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
        let mut random = Random::new(seed);
        let start = if seed.is_multiple_of(3) { 0 } else { random_length(&mut random) };
        let wheel = Wheel::new(at(start));
        let mut model = Model { wheel, table: BTreeMap::new(), now: start, seed };
        let keys = 1 + random.below(60);
        for _ in 0..300 {
            let key = random.below(keys) as u32;
            match random.below(8) {
                0..=3 => model.arm(key, model.now.saturating_add(random_length(&mut random))),
                4 => {
                    model.wheel.disarm(key);
                    model.table.remove(&key);
                }
                5 => model.arm(key, random_length(&mut random)),
                _ => {
                    if random.below(2) == 0 {
                        model.now = model.now.saturating_add(random_length(&mut random) >> 8);
                    } else if let Some(next) = model.wheel.next_deadline() {
                        // Each wake-up must find work.
                        model.now = model.now.max(next.as_nanos());
                        let mut one = 1;
                        let fired = model.wheel.expire(at(model.now), &mut one);
                        assert_eq!(one, 0, "seed {seed}: a wake-up for nothing");
                        if let Some(key) = fired {
                            let (due, _) = model.table.remove(&key).unwrap();
                            assert!(due <= model.now, "seed {seed}: {key} fired early");
                        }
                    }
                    let budget =
                        if random.below(2) == 0 { u32::MAX } else { random.below(6) as u32 };
                    model.expire(budget, &mut random);
                }
            }
            assert_eq!(
                model.wheel.armed(key).map(Time::as_nanos),
                model.table.get(&key).map(|(due, _)| *due),
                "seed {seed}"
            );
            model.check_next();
        }
        model.now = u64::MAX;
        while !model.table.is_empty() {
            model.expire(1 + random.below(9) as u32, &mut random);
            for key in 0..keys as u32 {
                if random.below(2) == 0 {
                    model.wheel.disarm(key);
                    model.table.remove(&key);
                }
            }
        }
        assert!(model.wheel.is_empty(), "seed {seed}");
    }

    #[test]
    fn behaves_as_a_sorted_table() {
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
    fn a_deadline_at_the_maximum_time_fires() {
        let mut wheel = Wheel::new(Time::ZERO);
        wheel.arm(0, at(u64::MAX));
        assert_eq!(drain(&mut wheel, u64::MAX - 1), []);
        assert_eq!(wheel.next_deadline(), Some(at(u64::MAX)));
        assert_eq!(drain(&mut wheel, u64::MAX), [0]);
    }

    #[test]
    fn a_deadline_needs_at_most_one_wake_up_per_level() {
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
    fn a_million_keys_due_at_once_expire_in_bounded_steps() {
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
        // Each key moves down once and is returned once: two units.
        assert!(steps <= 2 * KEYS / STEP + 1, "{steps} steps");
        assert_eq!(wheel.next_deadline(), None);
    }

    #[test]
    fn a_slot_may_change_while_it_expires() {
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
    fn time_may_jump_by_years_but_not_back() {
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
    fn arming_for_the_past_on_every_expiry_does_not_stop_the_wheel() {
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
    fn memory_follows_the_number_of_armed_keys() {
        let mut wheel = Wheel::new(Time::ZERO);
        let mut random = Random::new(1);
        for round in 0..200_u64 {
            for key in 0..1_000 {
                wheel.arm(key, at(round * MILLI + random_length(&mut random)));
            }
            drain(&mut wheel, round * MILLI);
        }
        // The full chunks needed for all keys, and one more for each slot.
        let bound = 1_000 / CHUNK + (LEVELS * SLOTS) as u32;
        assert!(wheel.chunks_made <= bound, "{} chunks", wheel.chunks_made);
    }

    #[test]
    fn the_highest_key_is_accepted() {
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
