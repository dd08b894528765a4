//! A hash table of devices by number, whose growth never moves an entry.
//!
//! Linear hashing (Litwin, 1980): each insertion splits at most one bucket in two, so that no
//! insertion stalls as it does when an ordinary hash table doubles. A bucket is a chain through its
//! entries, which are stored in pages: four bytes for the bucket and four in the entry. A lookup
//! costs two memory fetches. A B-tree has no stalls either, but takes five fetches at a million
//! entries, and three times the memory.

use crate::pages::{Pages, Places, Scan};
use crate::random::Random;

/// The end of a chain: no entry has this number.
const NONE: u32 = u32::MAX;

/// A table of values `T`, each found by its device or by its own dense number.
#[derive(Debug)]
pub(super) struct Table<T> {
    entries: Places<Entry<T>>,
    buckets: Pages<Bucket>,
    /// The number of buckets, at least 1.
    bucket_count: u32,
    /// The random hash seed, so that an attacker cannot choose devices that share a bucket.
    seed: u64,
}

/// The table entry of one device.
#[derive(Debug)]
pub(super) struct Entry<T> {
    device: u64,
    /// The next entry of the same bucket.
    next: u32,
    pub(super) value: T,
}

/// A bucket: the number of the first entry of its chain.
#[derive(Clone, Copy, Debug)]
struct Bucket(u32);

impl Default for Bucket {
    fn default() -> Bucket {
        Bucket(NONE)
    }
}

impl<T> Entry<T> {
    pub(super) const fn device(&self) -> u64 {
        self.device
    }
}

impl<T> Table<T> {
    /// Creates an empty table for at most `limit` entries.
    pub(super) fn new(seed: u64, limit: u32) -> Table<T> {
        let (entries, buckets) = (Places::new(limit), Pages::new());
        Table { entries, buckets, bucket_count: 1, seed }
    }

    pub(super) const fn len(&self) -> u32 {
        self.entries.len()
    }

    pub(super) fn get(&self, number: u32) -> Option<&Entry<T>> {
        self.entries.get(number)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut Entry<T>> {
        self.entries.get_mut(number)
    }

    /// Searches at most `limit` places from `number` upwards for entries, in order.
    pub(super) fn scan(&self, number: u32, limit: usize) -> Scan<'_, Entry<T>> {
        self.entries.scan(number, limit)
    }

    /// Returns the number of a device's entry.
    #[inline]
    pub(super) fn find(&self, device: u64) -> Option<u32> {
        let mut number = self.head_of(self.bucket_of(device));
        while let Some(entry) = self.get(number) {
            if entry.device == device {
                return Some(number);
            }
            number = entry.next;
        }
        None
    }

    /// Adds an entry for a device that has none. Returns its number; `None` if the table is full.
    pub(super) fn insert(&mut self, device: u64, value: T) -> Option<u32> {
        let number = self.entries.add(Entry { device, next: NONE, value })?;
        self.push_front(number, device);
        if self.len() > self.bucket_count {
            self.split_one();
        }
        Some(number)
    }

    /// Puts an entry at a free number, for a device that has none. Returns false if that is not so.
    pub(super) fn put(&mut self, number: u32, device: u64, value: T) -> bool {
        let entry = Entry { device, next: NONE, value };
        if self.find(device).is_some() || !self.entries.put(number, entry) {
            return false;
        }
        self.push_front(number, device);
        if self.len() > self.bucket_count {
            self.split_one();
        }
        true
    }

    /// Removes an entry and frees its number.
    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let entry = self.entries.remove(number)?;
        let bucket = self.bucket_of(entry.device);
        if self.head_of(bucket) == number {
            *self.buckets.entry(bucket) = Bucket(entry.next);
        } else {
            let mut before = self.head_of(bucket);
            while let Some(other) = self.get_mut(before) {
                if other.next == number {
                    other.next = entry.next;
                    break;
                }
                before = other.next;
            }
        }
        Some(entry.value)
    }

    fn head_of(&self, bucket: u32) -> u32 {
        self.buckets.get(bucket).map_or(NONE, |bucket| bucket.0)
    }

    /// Inserts an entry at the head of its bucket.
    fn push_front(&mut self, number: u32, device: u64) {
        let bucket = self.bucket_of(device);
        let head = core::mem::replace(self.buckets.entry(bucket), Bucket(number));
        if let Some(entry) = self.get_mut(number) {
            entry.next = head.0;
        }
    }

    /// Adds a bucket, and moves the entries that now belong there from the bucket that it halves.
    fn split_one(&mut self) {
        let added = self.bucket_count;
        let halved = added ^ 1 << added.ilog2();
        self.bucket_count += 1;
        let mut number = core::mem::take(self.buckets.entry(halved)).0;
        while let Some(entry) = self.get(number) {
            let (next, device) = (entry.next, entry.device);
            self.push_front(number, device);
            number = next;
        }
    }

    /// Returns the bucket of a device: the low bits of the hash, one bit fewer if that bucket does
    /// not exist yet.
    #[inline]
    fn bucket_of(&self, device: u64) -> u32 {
        let hash = Random::new(device ^ self.seed).next_u64() as u32;
        let mask = self.bucket_count.next_power_of_two() - 1;
        let bucket = hash & mask;
        if bucket < self.bucket_count { bucket } else { bucket & mask >> 1 }
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use super::*;

    #[test]
    fn the_table_agrees_with_a_map_while_growing_and_shrinking() {
        let mut random = Random::new(3);
        let mut table: Table<u64> = Table::new(9, 1 << 24);
        let mut map = BTreeMap::new();
        for round in 0..200_000_u64 {
            let device = random.below(6_000);
            let grows = round / 20_000 % 2 == 0;
            match table.find(device) {
                Some(number) => {
                    assert_eq!(table.get(number).unwrap().value, map[&device]);
                    assert_eq!(table.get(number).unwrap().device(), device);
                    if !grows || random.below(4) == 0 {
                        assert_eq!(table.remove(number), map.remove(&device));
                        assert!(table.get(number).is_none());
                    }
                }
                None => {
                    assert!(!map.contains_key(&device));
                    if grows {
                        let number = table.insert(device, round);
                        assert_eq!(table.find(device), number);
                        map.insert(device, round);
                    }
                }
            }
            assert_eq!(table.len() as usize, map.len());
        }
        let mut found: BTreeMap<u64, u64> = BTreeMap::new();
        found.extend(table.scan(0, usize::MAX).map(|(_, entry)| (entry.device(), entry.value)));
        assert_eq!(found, map);
    }

    #[test]
    fn numbers_stay_dense_and_chains_short() {
        let mut table: Table<()> = Table::new(1, 50_000);
        for device in 0..50_000 {
            assert_eq!(table.insert(device << 32, ()), Some(device as u32));
        }
        assert_eq!(table.insert(1, ()), None, "the table is full");
        let longest = (0..table.bucket_count).map(|bucket| {
            let mut length = 0;
            let mut number = table.head_of(bucket);
            while let Some(entry) = table.get(number) {
                (length, number) = (length + 1, entry.next);
            }
            length
        });
        assert!(longest.max().unwrap() < 20);
        let number = table.find(77 << 32).unwrap();
        table.remove(number);
        assert_eq!(table.insert(1, ()), Some(number), "free numbers are used again");
    }
}
