//! A growing table whose growth never moves an entry: fixed pages of entries, made on first use.
//!
//! A `Vec` that doubles copies everything it holds at once, which at a million entries is a stall
//! that every link of a shard would feel, and for that moment it needs three times its memory.
//! Here growth makes one page; only the directory, one pointer per page, is ever copied.

use alloc::boxed::Box;
use alloc::vec::Vec;

/// Entries per page. Small enough that a page is made in microseconds, large enough that the
/// directory of ten million entries (160 kB) stays in the processor's cache.
pub const PAGE: usize = 512;

/// A table indexed by `u32`, in pages of [`PAGE`] entries.
///
/// Memory follows the highest number of pages in use: a page is made when one of its entries is
/// first asked for mutably by [`Pages::entry`], and kept for the life of the table. Indices should
/// therefore be handed out densely, lowest free first.
#[derive(Debug)]
pub struct Pages<T> {
    directory: Vec<Option<Box<[T; PAGE]>>>,
}

impl<T> Pages<T> {
    /// An empty table, which owns no memory.
    pub const fn new() -> Pages<T> {
        Pages { directory: Vec::new() }
    }

    /// The entry at `index`, or `None` if its page was never made.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&T> {
        let (page, offset) = split(index);
        Some(&self.directory.get(page)?.as_ref()?[offset])
    }

    /// The entry at `index` for changing, or `None` if its page was never made.
    #[inline]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let (page, offset) = split(index);
        Some(&mut self.directory.get_mut(page)?.as_mut()?[offset])
    }

    /// How many entries the pages made so far hold. Each costs its size in memory, used or not.
    pub fn capacity(&self) -> usize {
        self.directory.iter().flatten().count() * PAGE
    }

    /// The entries from `start` upwards in order of their index, without pages never made.
    ///
    /// Lazy: a caller that takes a bounded number does a bounded amount of work, but for a step
    /// over each page never made.
    pub fn iter_from(&self, start: u32) -> impl Iterator<Item = (u32, &T)> {
        let (first, offset) = split(start);
        let pages = self.directory.iter().enumerate().skip(first);
        pages.filter_map(|(page, entries)| Some((page, entries.as_ref()?))).flat_map(
            move |(page, entries)| {
                let skipped = if page == first { offset } else { 0 };
                let entries = entries.iter().enumerate().skip(skipped);
                entries.map(move |(offset, entry)| (join(page, offset), entry))
            },
        )
    }
}

impl<T: Default> Pages<T> {
    /// The entry at `index` for changing; its page is made, full of defaults, if need be.
    #[inline]
    pub fn entry(&mut self, index: u32) -> &mut T {
        let (page, offset) = split(index);
        if page >= self.directory.len() {
            self.lengthen(page);
        }
        &mut self.directory[page].get_or_insert_with(new_page)[offset]
    }

    #[cold]
    fn lengthen(&mut self, page: usize) {
        self.directory.resize_with(page + 1, || None);
    }
}

impl<T> Default for Pages<T> {
    fn default() -> Pages<T> {
        Pages::new()
    }
}

/// Made on the heap entry by entry: an array of large entries would not fit the stack.
#[cold]
fn new_page<T: Default>() -> Box<[T; PAGE]> {
    let mut entries = Vec::with_capacity(PAGE);
    entries.resize_with(PAGE, T::default);
    match entries.into_boxed_slice().try_into() {
        Ok(page) => page,
        Err(_) => unreachable!("the slice has PAGE entries"),
    }
}

#[inline]
const fn split(index: u32) -> (usize, usize) {
    let index = index as usize;
    (index / PAGE, index % PAGE)
}

/// Only indices that came in as `u32` have pages, so the way back loses nothing.
const fn join(page: usize, offset: usize) -> u32 {
    (page * PAGE + offset) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_asked_for_is_absent_and_costs_nothing() {
        let mut table: Pages<u64> = Pages::new();
        assert_eq!(table.capacity(), 0);
        assert_eq!(table.get(0), None);
        *table.entry(5 * PAGE as u32) = 7;
        assert_eq!(table.capacity(), PAGE);
        assert_eq!(table.get(0), None);
        assert_eq!(table.get_mut(5 * PAGE as u32 - 1), None);
        assert_eq!(table.get(5 * PAGE as u32), Some(&7));
        assert_eq!(table.get(5 * PAGE as u32 + 1), Some(&0));
        assert_eq!(table.get(u32::MAX), None);
    }

    #[test]
    fn growth_moves_nothing() {
        let mut table: Pages<u64> = Pages::new();
        *table.entry(3) = 9;
        let before: *const u64 = table.get(3).unwrap();
        for index in 0..100_000 {
            *table.entry(index) += 1;
        }
        let after: *const u64 = table.get(3).unwrap();
        assert_eq!(before, after);
        assert_eq!(table.get(3), Some(&10));
    }

    #[test]
    fn a_scan_starts_anywhere_and_steps_over_holes() {
        let mut table: Pages<u32> = Pages::new();
        for index in [3, PAGE as u32 * 2 + 1] {
            *table.entry(index) = index;
        }
        let found = |start: u32| table.iter_from(start).find(|(_, value)| **value != 0);
        assert_eq!(found(0), Some((3, &3)));
        assert_eq!(found(3), Some((3, &3)));
        assert_eq!(found(4), Some((PAGE as u32 * 2 + 1, &(PAGE as u32 * 2 + 1))));
        assert_eq!(found(PAGE as u32 + 7), Some((PAGE as u32 * 2 + 1, &(PAGE as u32 * 2 + 1))));
        assert_eq!(found(PAGE as u32 * 2 + 2), None);
        assert_eq!(table.iter_from(u32::MAX).count(), 0);
        assert_eq!(table.iter_from(0).count(), 2 * PAGE);
    }
}
