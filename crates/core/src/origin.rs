//! Where an entry of a bounded table came from, and whose entry makes room when the table is full.
//!
//! A full table that dropped its oldest entry would let one sender of many entries push out those
//! of all others. So the origin with the most entries loses its oldest one: a flood from one origin
//! pushes out only its own, and a flood from many leaves each other origin as many as each of them.

use alloc::collections::{BTreeMap, BTreeSet};
use core::cmp::Reverse;
use core::net::{IpAddr, Ipv6Addr};

/// The address by which entries are counted: an IPv4 address, or the first 64 bits of an IPv6
/// address, because one host can have all addresses of an IPv6 /64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Origin(IpAddr);

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Origin {
        Origin(match address.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            // The loopback address is no part of a network.
            IpAddr::V6(address) if address.is_loopback() => IpAddr::V6(address),
            IpAddr::V6(address) => {
                let network = u128::from(address) >> 64 << 64;
                IpAddr::V6(Ipv6Addr::from(network))
            }
        })
    }
}

impl Origin {
    /// Returns the address; of an IPv6 network its first.
    pub const fn address(self) -> IpAddr {
        self.0
    }

    /// Returns true if the origin is this machine, by a loopback address.
    pub fn is_loopback(self) -> bool {
        self.0.is_loopback()
    }
}

/// The number of entries of each origin in one table, whose entries have rising serial numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shares {
    serials: BTreeSet<(Origin, u64)>,
    counts: BTreeMap<Origin, usize>,
    /// Each origin with its number of entries and its oldest entry; the last one makes room.
    ranks: BTreeSet<(usize, Reverse<u64>, Origin)>,
}

impl Shares {
    /// Counts an entry.
    pub(crate) fn add(&mut self, origin: Origin, serial: u64) {
        self.change(origin, |serials, count| {
            *count += usize::from(serials.insert((origin, serial)));
        });
    }

    /// Counts an entry no longer; does nothing if it is not counted.
    pub(crate) fn remove(&mut self, origin: Origin, serial: u64) {
        self.change(origin, |serials, count| {
            *count = count.saturating_sub(usize::from(serials.remove(&(origin, serial))));
        });
    }

    /// Returns the entry that makes room: the oldest entry of the origin with the most entries. Of
    /// several such origins it is the one with the oldest entry.
    pub(crate) fn first_to_go(&self) -> Option<u64> {
        self.ranks.last().map(|(_, Reverse(serial), _)| *serial)
    }

    fn change(
        &mut self,
        origin: Origin,
        change: impl FnOnce(&mut BTreeSet<(Origin, u64)>, &mut usize),
    ) {
        let mut count = self.counts.remove(&origin).unwrap_or(0);
        if let Some(oldest) = self.oldest(origin) {
            self.ranks.remove(&(count, Reverse(oldest), origin));
        }
        change(&mut self.serials, &mut count);
        if let Some(oldest) = self.oldest(origin) {
            self.counts.insert(origin, count);
            self.ranks.insert((count, Reverse(oldest), origin));
        }
    }

    fn oldest(&self, origin: Origin) -> Option<u64> {
        self.serials.range((origin, 0)..=(origin, u64::MAX)).next().map(|(_, serial)| *serial)
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;
    use crate::random::Random;

    fn origin(text: &str) -> Origin {
        Origin::from(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn a_host_is_one_origin_with_all_its_addresses() {
        assert_eq!(origin("2001:db8::1"), origin("2001:db8::2"));
        assert_ne!(origin("2001:db8::1"), origin("2001:db8:0:1::1"));
        assert_eq!(origin("::ffff:10.0.0.1"), origin("10.0.0.1"));
        assert_ne!(origin("10.0.0.1"), origin("10.0.0.2"));
        assert!(
            ["::1", "127.0.0.9", "::ffff:127.0.0.1"].map(origin).iter().all(|it| it.is_loopback())
        );
        assert!(!origin("::2").is_loopback());
    }

    /// Compares with a plain list of the entries.
    #[test]
    fn the_first_to_go_is_the_oldest_of_the_origin_with_the_most() {
        for seed in 0..50 {
            let mut random = Random::new(seed);
            let mut shares = Shares::default();
            let mut list: Vec<(Origin, u64)> = Vec::new();
            for serial in 0..300 {
                if random.below(3) > 0 {
                    let origin = Origin::from(IpAddr::from([10, 0, 0, random.below(5) as u8]));
                    shares.add(origin, serial);
                    list.push((origin, serial));
                } else if !list.is_empty() {
                    let (origin, serial) = list.remove(random.below(list.len() as u64) as usize);
                    shares.remove(origin, serial);
                    shares.remove(origin, serial);
                }
                let count = |of: &Origin| list.iter().filter(|(origin, _)| origin == of).count();
                let most = list.iter().map(|(origin, _)| count(origin)).max();
                let expected = list.iter().find(|(origin, _)| Some(count(origin)) == most);
                assert_eq!(shares.first_to_go(), expected.map(|(_, serial)| *serial));
                assert_eq!(shares.serials.len(), list.len());
                assert_eq!(shares.counts.len(), shares.ranks.len());
            }
        }
    }
}
