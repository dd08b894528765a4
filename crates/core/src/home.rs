//! Homes: which shard of a gateway decides about the sessions of an identity.
//!
//! All sessions of one identity have one home, so that the logins of one person meet in one
//! machine, and no lock or directory is shared. The home of a session without an identity is where
//! its link arrived.

use core::hash::Hasher;

use crate::plain::plain_struct;

/// How the identities are spread over the shards. The same in all shards of a gateway.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Homes {
    /// The number of shards, numbered from 0; 0 counts as 1.
    pub shards: u16,
    /// A random key, new at each start: nobody outside can choose identities that share a home.
    pub key: u64,
}

plain_struct! { Homes { shards, key } }

impl Homes {
    /// One shard, which is the home of all.
    pub const SINGLE: Homes = Homes { shards: 1, key: 0 };

    /// Returns the number of the shard that is the home of an identity.
    pub fn of(&self, identity: &str) -> u8 {
        let shards = u64::from(self.shards.max(1));
        u8::try_from(self.digest(identity) % shards).unwrap_or(u8::MAX)
    }

    /// Returns a keyed digest of an identity: SipHash-2-4 (Aumasson and Bernstein, 2012).
    #[expect(deprecated, reason = "the standard library names no other hash whose result is fixed")]
    pub(crate) fn digest(&self, identity: &str) -> u64 {
        let mut hasher = core::hash::SipHasher::new_with_keys(self.key, !self.key);
        hasher.write(identity.as_bytes());
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;

    use super::*;

    #[test]
    fn homes_are_even_and_differ_by_key() {
        let homes = Homes { shards: 8, key: 7 };
        let mut counts = [0_u32; 8];
        let mut same = 0;
        for index in 0..8_000 {
            let identity = format!("user-{index}");
            counts[usize::from(homes.of(&identity))] += 1;
            same += u32::from(homes.of(&identity) == Homes { key: 8, ..homes }.of(&identity));
        }
        assert!(counts.iter().all(|count| (850..1_150).contains(count)), "{counts:?}");
        assert!((850..1_150).contains(&same), "{same}");
    }

    #[test]
    fn one_shard_is_the_home_of_all() {
        for shards in [0, 1] {
            assert_eq!(Homes { shards, key: 3 }.of("ada"), 0);
        }
        assert!((0..1_000).any(|key| Homes { shards: 256, key }.of("ada") == 255));
    }
}
