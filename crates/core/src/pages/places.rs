//! A table that chooses the place of each value: the lowest page with room, so that memory follows
//! the number of values.

use alloc::collections::BTreeSet;

use super::{PAGE, Scan, Slots, join};

/// A table of values in places that it chooses. Adding a value visits at most one page, and
/// finds it in a set with one entry for each page with room.
#[derive(Debug)]
pub struct Places<T> {
    slots: Slots<T>,
    /// The pages below `pages` that have room; they may have been given back.
    open: BTreeSet<u32>,
    /// The number of pages that were in use at a time, from the first one on.
    pages: u32,
    len: u32,
    limit: u32,
}

impl<T> Places<T> {
    /// Creates an empty table for at most `limit` values, which allocates no memory.
    pub const fn new(limit: u32) -> Places<T> {
        Places { slots: Slots::new(), open: BTreeSet::new(), pages: 0, len: 0, limit }
    }

    /// Returns the number of values.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether the table is empty.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the value at `place`, if there is one.
    #[inline]
    pub fn get(&self, place: u32) -> Option<&T> {
        self.slots.get(place)
    }

    /// Returns the value at `place` mutably, if there is one.
    #[inline]
    pub fn get_mut(&mut self, place: u32) -> Option<&mut T> {
        self.slots.get_mut(place)
    }

    /// Adds a value and returns its place, which is below the limit; `None` if the table is full.
    pub fn add(&mut self, value: T) -> Option<u32> {
        if self.len >= self.limit {
            return None;
        }
        let page = match self.open.first() {
            Some(page) => *page,
            None => {
                self.open.insert(self.pages);
                self.pages += 1;
                self.pages - 1
            }
        };
        let first = join(page as usize, 0);
        let mut places = (first..self.limit).take(PAGE);
        let all = places.len();
        let place = places.find(|place| self.slots.get(*place).is_none())?;
        self.slots.insert(place, value);
        self.len += 1;
        if self.slots.used_in(page as usize) == all {
            self.open.remove(&page);
        }
        Some(place)
    }

    /// Puts a value into a free place, as when a saved table is loaded. Returns false if the place
    /// is taken, or not below the limit.
    pub fn put(&mut self, place: u32, value: T) -> bool {
        if place >= self.limit || self.slots.get(place).is_some() {
            return false;
        }
        let page = place / PAGE as u32;
        while self.pages <= page {
            self.open.insert(self.pages);
            self.pages += 1;
        }
        self.slots.insert(place, value);
        self.len += 1;
        let places = (join(page as usize, 0)..self.limit).take(PAGE).len();
        if self.slots.used_in(page as usize) == places {
            self.open.remove(&page);
        }
        true
    }

    /// Removes the value at `place` and returns it.
    pub fn remove(&mut self, place: u32) -> Option<T> {
        let removed = self.slots.remove(place)?;
        self.len -= 1;
        self.open.insert(place / PAGE as u32);
        Some(removed)
    }

    /// Searches at most `limit` places from `from` upwards for values, in order.
    pub fn scan(&self, from: u32, limit: usize) -> Scan<'_, T> {
        self.slots.scan(from, limit)
    }

    /// Returns the number of places in all allocated pages.
    pub fn capacity(&self) -> usize {
        self.slots.capacity()
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;
    use alloc::vec::Vec;

    use super::*;
    use crate::random::Random;

    #[test]
    fn places_are_dense_and_memory_follows_the_values() {
        let mut table = Places::new(1 << 24);
        let many = 100 * PAGE as u32;
        let places: Vec<u32> = (0..many).map(|value| table.add(value).unwrap()).collect();
        assert!(places.iter().copied().eq(0..many));
        for place in 0..many {
            assert_eq!(table.remove(place), Some(place));
        }
        assert!(table.is_empty() && table.capacity() <= PAGE, "{} places", table.capacity());
        assert_eq!(table.add(7), Some(0));
    }

    #[test]
    fn a_full_table_takes_nothing_until_a_place_is_free() {
        let limit = PAGE as u32 + 3;
        let mut table = Places::new(limit);
        for value in 0..limit {
            assert_eq!(table.add(value), Some(value));
        }
        assert_eq!(table.add(0), None);
        assert_eq!(table.remove(limit - 2), Some(limit - 2));
        assert_eq!(table.add(9), Some(limit - 2));
        assert_eq!(table.add(9), None);
    }

    #[test]
    fn random_operations_match_a_map() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let limit = 1 + random.below(4 * PAGE as u64) as u32;
            let (mut table, mut model) = (Places::new(limit), BTreeMap::new());
            for step in 0..3_000_u32 {
                if random.below(20) == 0 {
                    let place = random.below(u64::from(limit) + 3) as u32;
                    let is_free = place < limit && !model.contains_key(&place);
                    assert_eq!(table.put(place, step), is_free, "seed {seed}");
                    if is_free {
                        model.insert(place, step);
                    }
                } else if random.below(9) < 4 + u64::from(step / 1_500) {
                    let place = random.below(u64::from(limit)) as u32;
                    assert_eq!(table.remove(place), model.remove(&place), "seed {seed}");
                } else if let Some(place) = table.add(step) {
                    let lowest = (0..limit).find(|place| !model.contains_key(place));
                    assert_eq!(Some(place), lowest, "seed {seed}");
                    model.insert(place, step);
                } else {
                    assert_eq!(model.len(), limit as usize, "seed {seed}");
                }
                assert_eq!(table.len() as usize, model.len(), "seed {seed}");
            }
            for place in 0..limit {
                assert_eq!(table.get(place), model.get(&place), "seed {seed}");
            }
        }
    }
}
