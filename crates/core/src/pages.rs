//! A growable table that never moves its entries: fixed pages of entries, allocated on first use.
//!
//! A `Vec` that doubles copies all its entries at once. At a million entries this stalls every link
//! of the shard, and takes three times the memory for a moment. Here growth allocates one page;
//! only the directory, one pointer per page, is ever copied.

mod places;
mod slots;

use alloc::boxed::Box;
use alloc::vec::Vec;

pub use places::Places;
pub use slots::{Scan, Slots};

/// The entries per page. Small enough to allocate a page in microseconds, large enough that the
/// directory of ten million entries (160 kB) stays in the processor's cache.
pub const PAGE: usize = 512;

/// A table indexed by `u32`, in pages of [`PAGE`] entries.
///
/// A page is allocated by the first call of [`Pages::entry`] for one of its indices, and kept for
/// the life of the table. So memory follows the highest number of pages in use: assign indices
/// densely, lowest free first. [`Slots`] gives pages back.
#[derive(Debug)]
pub struct Pages<T> {
    directory: Vec<Option<Box<[T; PAGE]>>>,
}

impl<T> Pages<T> {
    /// Creates an empty table, which allocates no memory.
    pub const fn new() -> Pages<T> {
        Pages { directory: Vec::new() }
    }

    /// Returns the entry at `index`, or `None` if its page was never allocated.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&T> {
        let (page, offset) = split(index);
        Some(&self.directory.get(page)?.as_ref()?[offset])
    }

    /// Returns the entry at `index` mutably, or `None` if its page was never allocated.
    #[inline]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let (page, offset) = split(index);
        Some(&mut self.directory.get_mut(page)?.as_mut()?[offset])
    }

    /// Returns the number of entries in all allocated pages. Unused entries take memory too.
    pub fn capacity(&self) -> usize {
        self.directory.iter().flatten().count() * PAGE
    }

    /// Takes a page out of the table, as if it had never been allocated.
    fn take_page(&mut self, page: usize) -> Option<Box<[T; PAGE]>> {
        let taken = self.directory.get_mut(page)?.take();
        while let Some(None) = self.directory.last() {
            self.directory.pop();
        }
        taken
    }
}

impl<T: Default> Pages<T> {
    /// Puts a page into the table, where there is none.
    fn put_page(&mut self, page: usize, entries: Box<[T; PAGE]>) {
        if page >= self.directory.len() {
            self.extend_directory(page);
        }
        self.directory[page].get_or_insert(entries);
    }

    /// Returns the entry at `index` mutably; allocates its page with default entries if needed.
    #[inline]
    pub fn entry(&mut self, index: u32) -> &mut T {
        let (page, offset) = split(index);
        if page >= self.directory.len() {
            self.extend_directory(page);
        }
        &mut self.directory[page].get_or_insert_with(new_page)[offset]
    }

    #[cold]
    fn extend_directory(&mut self, page: usize) {
        self.directory.resize_with(page + 1, || None);
    }
}

impl<T> Default for Pages<T> {
    fn default() -> Pages<T> {
        Pages::new()
    }
}

/// Allocates a page entry by entry: an array of large entries would not fit on the stack.
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

/// Lossless: pages exist only for indices that were passed as `u32`.
const fn join(page: usize, offset: usize) -> u32 {
    (page * PAGE + offset) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_entries_are_absent_and_take_no_memory() {
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
    fn growth_moves_no_entry() {
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
}
