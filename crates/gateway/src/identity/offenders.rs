//! The addresses from which logins were refused, so that guesses are few.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use systole_core::origin::Origin;
use systole_core::{Span, Time};

/// Refused logins of one address after which further ones are refused unseen. Many clients behind
/// one address translation may have old tokens at once, while a guess needs more tries than there
/// is time.
const MOST: u32 = 20;

/// The time over which refused logins of an address are counted, from the first one. Its logins are
/// refused unseen until it is over.
const WINDOW: Span = Span::from_secs(60);

/// Maximum number of addresses that are counted. Beyond it the one counted longest is forgotten: it
/// is the next to be forgotten anyway.
const ADDRESSES: usize = 4_096;

/// The addresses from which logins were refused within the last minute.
#[derive(Debug, Default)]
pub(crate) struct Offenders {
    /// The time of the first refusal, and their number.
    known: HashMap<Origin, (Time, u32)>,
    /// All of them, those that are forgotten first in front.
    order: VecDeque<Origin>,
}

impl Offenders {
    /// Counts a login that was refused.
    pub(crate) fn count(&mut self, now: Time, address: IpAddr) {
        self.forget(now);
        let origin = Origin::from(address);
        if let Some((_, refused)) = self.known.get_mut(&origin) {
            *refused = refused.saturating_add(1);
            return;
        }
        if self.order.len() >= ADDRESSES
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.known.insert(origin, (now, 1));
        self.order.push_back(origin);
    }

    /// Returns whether logins from an address are refused unseen.
    pub(crate) fn is_refused(&mut self, now: Time, address: IpAddr) -> bool {
        self.forget(now);
        self.known.get(&address.into()).is_some_and(|(_, refused)| *refused >= MOST)
    }

    /// Forgets the addresses whose time is over.
    fn forget(&mut self, now: Time) {
        while let Some(oldest) = self.order.front() {
            let began = self.known.get(oldest).map(|(began, _)| *began);
            if began.is_some_and(|began| now.since(began) < WINDOW) {
                return;
            }
            self.known.remove(oldest);
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_is_refused_unseen_after_some_bad_tokens_and_not_for_ever() {
        let mut offenders = Offenders::default();
        let (here, there) = (address("192.0.2.1"), address("192.0.2.2"));
        for second in 0..u64::from(MOST) {
            let now = Time::ZERO + Span::from_secs(second);
            assert!(!offenders.is_refused(now, here));
            offenders.count(now, here);
        }
        let now = Time::ZERO + WINDOW - Span::from_nanos(1);
        assert!(offenders.is_refused(now, here));
        assert!(offenders.is_refused(now, address("::ffff:192.0.2.1")), "the same host");
        assert!(!offenders.is_refused(now, there));
        assert!(!offenders.is_refused(Time::ZERO + WINDOW, here));
        assert!(offenders.known.is_empty() && offenders.order.is_empty());
    }

    #[test]
    fn all_addresses_of_a_host_are_one() {
        let mut offenders = Offenders::default();
        for last in 0..MOST {
            let address = Ipv6Addr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, last as u16]);
            offenders.count(Time::ZERO, address.into());
        }
        assert!(offenders.is_refused(Time::ZERO, address("2001:db8:0:1:ffff::9")));
        assert!(!offenders.is_refused(Time::ZERO, address("2001:db8:0:2::1")));
    }

    #[test]
    fn a_full_table_forgets_the_address_counted_longest() {
        let mut offenders = Offenders::default();
        let first = address("192.0.2.1");
        (0..MOST).for_each(|_| offenders.count(Time::ZERO, first));
        for number in 1..ADDRESSES as u32 {
            offenders.count(Time::from_millis(1), std::net::Ipv4Addr::from(number).into());
        }
        assert!(offenders.is_refused(Time::from_millis(2), first));
        offenders.count(Time::from_millis(2), address("192.0.2.2"));
        assert!(!offenders.is_refused(Time::from_millis(2), first));
        assert_eq!((offenders.known.len(), offenders.order.len()), (ADDRESSES, ADDRESSES));
    }
}
