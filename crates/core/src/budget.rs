//! A budget of memory that many links share, and the order in which links give way.

use alloc::collections::{BTreeMap, BTreeSet};

/// A limit on the memory that many links hold together for one purpose.
///
/// Only links that hold memory have an entry. When the sum exceeds the limit, the link with the
/// least `K` gives way: with the time of the first byte the oldest, with the reversed amount the
/// largest.
#[derive(Clone, Debug)]
pub struct Budget<K> {
    limit: usize,
    held: usize,
    /// What each link holds, in bytes, and its place in `order`.
    holders: BTreeMap<u32, (K, usize)>,
    order: BTreeSet<(K, u32)>,
}

impl<K: Ord + Copy> Budget<K> {
    /// Creates a budget of `limit` bytes.
    pub const fn new(limit: usize) -> Budget<K> {
        Budget { limit, held: 0, holders: BTreeMap::new(), order: BTreeSet::new() }
    }

    /// Records what a link holds now: its place in the order and its bytes, or nothing.
    pub fn set(&mut self, link: u32, holding: Option<(K, usize)>) {
        let before = match holding {
            Some(holding) => self.holders.insert(link, holding),
            None => self.holders.remove(&link),
        };
        let (old, new) = (before.map(|(key, _)| key), holding.map(|(key, _)| key));
        if old != new {
            if let Some(old) = old {
                self.order.remove(&(old, link));
            }
            if let Some(new) = new {
                self.order.insert((new, link));
            }
        }
        self.held -= before.map_or(0, |(_, bytes)| bytes);
        self.held += holding.map_or(0, |(_, bytes)| bytes);
    }

    /// Returns the bytes that all links hold together.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Returns how many bytes more the links may hold before one must give way.
    pub fn room(&self) -> usize {
        self.limit.saturating_sub(self.held)
    }

    /// Returns the link that must give way: the first in the order, while the limit is exceeded.
    #[inline]
    pub fn must_give_way(&self) -> Option<u32> {
        if self.held <= self.limit {
            return None;
        }
        self.order.first().map(|(_, link)| *link)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cmp::Reverse;

    #[test]
    fn the_first_in_the_order_gives_way_until_the_rest_fits() {
        let mut budget = Budget::new(100);
        budget.set(1, Some((10, 40)));
        budget.set(2, Some((5, 60)));
        assert_eq!((budget.held(), budget.must_give_way()), (100, None), "the limit itself fits");
        assert_eq!(budget.room(), 0);
        budget.set(3, Some((20, 45)));
        assert_eq!(budget.must_give_way(), Some(2));
        budget.set(2, Some((30, 60)));
        assert_eq!(budget.must_give_way(), Some(1), "a place may change");
        budget.set(1, None);
        assert_eq!((budget.held(), budget.must_give_way()), (105, Some(3)));
        budget.set(3, None);
        assert_eq!((budget.held(), budget.must_give_way()), (60, None));
        budget.set(2, None);
        assert!(budget.holders.is_empty() && budget.order.is_empty() && budget.held == 0);
    }

    #[test]
    fn by_the_reversed_amount_no_link_below_the_average_gives_way() {
        let mut random = crate::random::Random::new(3);
        let mut budget = Budget::new(10_000);
        let mut held = [0_usize; 50];
        for _ in 0..20_000 {
            let link = random.below(50) as usize;
            let bytes = random.below(1_000) as usize;
            held[link] = bytes;
            budget.set(link as u32, (bytes > 0).then_some((Reverse(bytes), bytes)));
            while let Some(link) = budget.must_give_way() {
                let holders = held.iter().filter(|bytes| **bytes > 0).count();
                let given = core::mem::take(&mut held[link as usize]);
                let rest: usize = held.iter().sum();
                assert!(given * holders >= given + rest, "less than a fair share");
                budget.set(link, None);
            }
            assert_eq!(budget.held(), held.iter().sum::<usize>());
            assert!(budget.held() <= 10_000);
        }
    }
}
