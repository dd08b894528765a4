//! Bans: identities, devices and addresses that may have no session for a time.
//!
//! Held in memory: a restart forgets them. A ban is looked at when a connection comes (its
//! address), and before a session exists, when identity and device are known, in the shard that is
//! the home of the identity. Whoever sets a ban ends the sessions that are online after that; so
//! none is left, and none comes between.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use systole_core::Span;
use systole_core::origin::Origin;
use systole_core::wire::BootId;
use systole_net::Clock;

/// Maximum number of bans, a megabyte or so. Beyond it a new one is refused: an old one must not
/// end because of another.
const BANS: usize = 10_000;

/// Who is banned.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Banned {
    /// Whoever has or claims this identity.
    Identity(Box<str>),
    /// The machine with this boot id.
    Device(BootId),
    /// An IPv4 address or an IPv6 /64.
    Address(Origin),
}

/// All bans of a gateway.
#[derive(Debug)]
pub struct Bans {
    clock: Clock,
    until: Mutex<HashMap<Banned, Span>>,
}

/// Error: there are as many bans as there may be. The caller's fault: lift some.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooMany;

impl Bans {
    /// Makes an empty table, whose times are those of `clock`.
    pub fn new(clock: Clock) -> Bans {
        Bans { clock, until: Mutex::default() }
    }

    /// Bans somebody from now on; a ban that there is already gets this time.
    ///
    /// # Errors
    /// There are too many bans.
    pub fn set(&self, who: Banned, lasts: Span) -> Result<(), TooMany> {
        let now = self.clock.monotonic();
        let mut until = self.lock();
        if until.len() >= BANS {
            until.retain(|_, until| *until > now);
        }
        if until.len() >= BANS && !until.contains_key(&who) {
            return Err(TooMany);
        }
        until.insert(who, now + lasts);
        Ok(())
    }

    /// Ends a ban; returns whether there was one.
    pub fn lift(&self, who: &Banned) -> bool {
        self.left(who).is_some() && self.lock().remove(who).is_some()
    }

    /// Returns all bans that are in force, and how long they last, in a fixed order.
    pub fn all(&self) -> Vec<(Banned, Span)> {
        let now = self.clock.monotonic();
        let mut all: Vec<_> = self
            .lock()
            .iter()
            .filter(|(_, until)| **until > now)
            .map(|(who, until)| (who.clone(), until.less(now)))
            .collect();
        all.sort_unstable();
        all
    }

    /// Returns how long an address is banned; `None` if it is not.
    pub fn of_address(&self, address: IpAddr) -> Option<Span> {
        if self.lock().is_empty() {
            return None;
        }
        self.left(&Banned::Address(address.into()))
    }

    /// Returns how long a peer is banned; `None` if it is not.
    pub fn of_peer(&self, identity: &str, device: BootId, address: IpAddr) -> Option<Span> {
        if self.lock().is_empty() {
            return None;
        }
        let device = (device != BootId::default()).then_some(Banned::Device(device));
        let identity = (!identity.is_empty()).then(|| Banned::Identity(identity.into()));
        let address = Some(Banned::Address(address.into()));
        [identity, device, address].into_iter().flatten().filter_map(|who| self.left(&who)).max()
    }

    fn left(&self, who: &Banned) -> Option<Span> {
        let now = self.clock.monotonic();
        let until = self.lock().get(who).copied();
        until.filter(|until| *until > now).map(|until| until.less(now))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Banned, Span>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Banned {
        Banned::Identity(name.into())
    }

    #[test]
    fn a_ban_holds_for_whoever_shares_what_is_banned_and_ends() {
        let bans = Bans::new(Clock::start());
        let (here, device) = ("192.0.2.1".parse().unwrap(), BootId([7; 16]));
        let hour = Span::from_secs(3_600);
        assert_eq!(bans.of_peer("ada", device, here), None);
        bans.set(named("ada"), hour).unwrap();
        assert!(bans.of_peer("ada", BootId::default(), here).is_some());
        assert_eq!(bans.of_peer("bob", device, here), None);
        bans.set(Banned::Device(device), hour).unwrap();
        assert!(bans.of_peer("bob", device, here).is_some());
        assert_eq!(bans.of_peer("bob", BootId::default(), here), None, "unknown is no device");
        bans.set(Banned::Address("2001:db8::1".parse::<IpAddr>().unwrap().into()), hour).unwrap();
        assert!(bans.of_address("2001:db8::2".parse().unwrap()).is_some(), "the whole /64");
        assert_eq!(bans.of_address(here), None);
        assert_eq!(bans.all().len(), 3);
        assert!(bans.lift(&named("ada")) && !bans.lift(&named("ada")));
        bans.set(named("eve"), Span::ZERO).unwrap();
        assert_eq!(bans.of_peer("eve", BootId::default(), here), None, "its time is over");
        assert_eq!(bans.all().len(), 2);
    }

    #[test]
    fn a_full_table_refuses_new_bans_and_keeps_the_old_ones() {
        let bans = Bans::new(Clock::start());
        let hour = Span::from_secs(3_600);
        for number in 0..BANS {
            assert_eq!(bans.set(named(&number.to_string()), hour), Ok(()));
        }
        assert_eq!(bans.set(named("one more"), hour), Err(TooMany));
        assert_eq!(bans.set(named("7"), hour), Ok(()), "it is there already");
        assert!(bans.lift(&named("8")));
        assert_eq!(bans.set(named("one more"), hour), Ok(()));
    }
}
