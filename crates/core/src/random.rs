//! Pseudorandom numbers from a seed: the same seed gives the same numbers on every machine.

use crate::time::Span;

/// A SplitMix64 generator (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
/// 2014): eight bytes of state, sufficient to spread heartbeats and reconnects, not for secrets.
#[derive(Clone, Debug)]
pub struct Random(u64);

crate::plain::plain_struct! { Random { 0: state } }

impl Random {
    /// Creates the generator of the sequence of `seed`.
    pub const fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// Returns the next 64 random bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Returns the next 32 random bits.
    pub const fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    /// Returns a random number below `limit`; 0 if `limit` is 0.
    pub const fn below(&mut self, limit: u64) -> u64 {
        ((self.next_u64() as u128 * limit as u128) >> 64) as u64
    }

    /// Returns a random length in whole milliseconds, up to and including `longest`.
    pub const fn up_to(&mut self, longest: Span) -> Span {
        Span::from_millis(self.below(longest.as_millis().saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_of_a_seed_is_the_published_one() {
        let mut random = Random::new(1_234_567);
        assert_eq!(random.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(random.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn numbers_stay_below_their_limit() {
        let mut random = Random::new(7);
        assert!((0..10_000).all(|_| random.below(3) < 3));
        assert_eq!(random.below(0), 0);
        let longest = Span::from_millis(5);
        let drawn: alloc::collections::BTreeSet<_> =
            (0..1_000).map(|_| random.up_to(longest)).collect();
        assert_eq!(drawn.len(), 6);
    }
}
