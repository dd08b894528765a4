//! A table of values with empty slots: gives empty pages back, and is searched in bounded steps.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::{PAGE, Pages, join, split};

/// A table of values indexed by `u32`, in pages of [`PAGE`] slots.
///
/// A page is freed when its last value is removed, so memory follows the pages in use. One empty
/// page is kept: a table whose last value comes and goes must not allocate each time.
#[derive(Debug)]
pub struct Slots<T> {
    pages: Pages<Option<T>>,
    /// The number of values in each page.
    used: Vec<u16>,
    spare: Option<Box<[Option<T>; PAGE]>>,
}

const _: () = assert!(PAGE <= u16::MAX as usize);

impl<T> Slots<T> {
    /// Creates an empty table, which allocates no memory.
    pub const fn new() -> Slots<T> {
        Slots { pages: Pages::new(), used: Vec::new(), spare: None }
    }

    /// Returns the value at `index`, if there is one.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&T> {
        self.pages.get(index)?.as_ref()
    }

    /// Returns the value at `index` mutably, if there is one.
    #[inline]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.pages.get_mut(index)?.as_mut()
    }

    /// Puts a value at `index`, and returns the value that was there.
    pub fn insert(&mut self, index: u32, value: T) -> Option<T> {
        let (page, _) = split(index);
        if self.pages.get(index).is_none()
            && let Some(spare) = self.spare.take()
        {
            self.pages.put_page(page, spare);
        }
        let former = self.pages.entry(index).replace(value);
        if former.is_none() {
            let pages = self.used.len().max(page + 1);
            self.used.resize(pages, 0);
            if let Some(used) = self.used.get_mut(page) {
                *used += 1;
            }
        }
        former
    }

    /// Removes the value at `index` and returns it; frees the page if it was the last one there.
    pub fn remove(&mut self, index: u32) -> Option<T> {
        let removed = self.pages.get_mut(index)?.take()?;
        let (page, _) = split(index);
        let used = self.used.get_mut(page)?;
        *used -= 1;
        if *used == 0 {
            let emptied = self.pages.take_page(page);
            if self.spare.is_none() {
                self.spare = emptied;
            }
            self.used.truncate(self.pages.directory.len());
        }
        Some(removed)
    }

    /// Returns the number of values in a page.
    pub(super) fn used_in(&self, page: usize) -> usize {
        self.used.get(page).map_or(0, |used| usize::from(*used))
    }

    /// Returns the number of slots in all allocated pages, the spare page included.
    pub fn capacity(&self) -> usize {
        self.pages.capacity() + self.spare.as_ref().map_or(0, |spare| spare.len())
    }

    /// Searches at most `limit` slots from index `start` upwards. The limit counts empty slots too,
    /// because each costs a cache miss; a page that is not allocated counts as one.
    pub fn scan(&self, start: u32, limit: usize) -> Scan<'_, T> {
        Scan { directory: &self.pages.directory, next: u64::from(start), visited: 0, limit }
    }
}

impl<T> Default for Slots<T> {
    fn default() -> Slots<T> {
        Slots::new()
    }
}

/// A search for values in a bounded number of slots.
#[derive(Debug)]
pub struct Scan<'a, T> {
    directory: &'a [Option<Box<[Option<T>; PAGE]>>],
    /// The first slot not visited; wider than an index, because it may be behind the last one.
    next: u64,
    visited: usize,
    limit: usize,
}

impl<T> Scan<'_, T> {
    /// Returns the index at which the next scan continues; `None` if nothing is left.
    pub fn cursor(&self) -> Option<u32> {
        let next = u32::try_from(self.next).ok()?;
        (split(next).0 < self.directory.len()).then_some(next)
    }

    /// Returns the number of slots visited so far; a missing page counts as one.
    pub const fn visited(&self) -> usize {
        self.visited
    }
}

impl<'a, T> Iterator for Scan<'a, T> {
    type Item = (u32, &'a T);

    fn next(&mut self) -> Option<(u32, &'a T)> {
        while self.visited < self.limit {
            let index = self.cursor()?;
            let (page, offset) = split(index);
            self.visited += 1;
            let Some(slots) = self.directory.get(page)? else {
                self.next = u64::from(join(page, 0)) + PAGE as u64;
                continue;
            };
            self.next += 1;
            if let Some(value) = &slots[offset] {
                return Some((index, value));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use super::*;
    use crate::random::Random;

    const MILLION: u32 = 1_000_000;

    /// Scans the whole table in steps of `limit`; returns what was found, and the number of steps.
    fn scan_all(table: &Slots<u32>, limit: usize) -> (Vec<(u32, u32)>, usize) {
        let (mut found, mut steps) = (Vec::new(), 0);
        let mut from = Some(0);
        while let Some(start) = from {
            let mut scan = table.scan(start, limit);
            found.extend(scan.by_ref().map(|(index, value)| (index, *value)));
            assert!(scan.visited() <= limit, "{} slots visited", scan.visited());
            assert!(scan.cursor().is_none_or(|cursor| cursor > start), "no progress");
            (from, steps) = (scan.cursor(), steps + 1);
        }
        (found, steps)
    }

    #[test]
    fn a_million_empty_slots_cost_no_more_than_the_limit() {
        let mut table = Slots::new();
        for index in 0..MILLION {
            table.insert(index, index);
        }
        // One value is left in each page, so that no page is given back.
        let is_kept = |index: u32| index as usize % PAGE == PAGE - 1;
        for index in (0..MILLION).filter(|index| !is_kept(*index)) {
            table.remove(index);
        }
        let mut scan = table.scan(0, 256);
        assert_eq!((scan.next(), scan.visited(), scan.cursor()), (None, 256, Some(256)));
        let (found, steps) = scan_all(&table, 256);
        assert_eq!(found.len(), MILLION as usize / PAGE);
        assert_eq!(steps, MILLION as usize / PAGE * PAGE / 256);
    }

    #[test]
    fn pages_are_given_back_and_missing_ones_count_as_one_slot() {
        let mut table = Slots::new();
        for index in 0..MILLION {
            table.insert(index, index);
        }
        assert_eq!(table.capacity(), (MILLION as usize).next_multiple_of(PAGE));
        for index in (0..MILLION).filter(|index| *index != 700_000) {
            table.remove(index);
        }
        assert_eq!(table.capacity(), 2 * PAGE, "the page in use and the spare one");
        let missing = 700_000 / PAGE;
        let mut scan = table.scan(0, MILLION as usize);
        assert_eq!(scan.next(), Some((700_000, &700_000)));
        assert!(scan.visited() <= missing + PAGE, "{} visited", scan.visited());
        table.remove(700_000);
        assert_eq!(table.capacity(), PAGE);
        assert_eq!((table.scan(0, 9).next(), table.scan(0, 9).cursor()), (None, None));
        assert_eq!(table.used.len(), 0);
    }

    #[test]
    fn a_value_that_comes_and_goes_needs_no_new_page() {
        let mut table = Slots::new();
        table.insert(0, 1);
        let first: *const u32 = table.get(0).unwrap();
        for _ in 0..10 {
            table.remove(0);
            table.insert(0, 1);
            assert_eq!(first, core::ptr::from_ref(table.get(0).unwrap()));
        }
    }

    #[test]
    fn the_table_agrees_with_a_map() {
        let mut random = Random::new(5);
        let mut table = Slots::new();
        let mut map = BTreeMap::new();
        for round in 0..100_000 {
            let index = random.below(8) as u32 * 3_000 + random.below(4) as u32;
            if random.below(2) == 0 {
                assert_eq!(table.insert(index, round), map.insert(index, round));
            } else {
                assert_eq!(table.remove(index), map.remove(&index));
            }
            assert_eq!(table.get(index), map.get(&index));
            assert_eq!(table.get_mut(index), map.get_mut(&index));
            if round % 100 == 0 {
                let limit = 1 + random.below(700) as usize;
                let (found, _) = scan_all(&table, limit);
                assert_eq!(found, map.iter().map(|(i, v)| (*i, *v)).collect::<Vec<_>>());
            }
        }
        assert_eq!(table.scan(u32::MAX, 9).next(), None);
        assert_eq!(table.get(u32::MAX), None);
    }
}
