//! Bans: identities, devices and addresses that may have no session for a time.
//!
//! Held in memory: a restart forgets them. A ban is looked at when a connection comes (its
//! address), and before a session exists, when identity and device are known, in the shard that is
//! the home of the identity. Whoever sets a ban ends the sessions that are online after that; so
//! none is left, and none comes between.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

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
    until: RwLock<HashMap<Banned, Span>>,
    /// Whether the table has bans, for those who ask at each connection: most gateways have none.
    /// Changed under the lock of the table.
    has_some: AtomicBool,
}

/// Error: there are as many bans as there may be. The caller's fault: lift some.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooMany;

impl Bans {
    /// Makes an empty table, whose times are those of `clock`.
    pub fn new(clock: Clock) -> Bans {
        Bans { clock, until: RwLock::default(), has_some: AtomicBool::new(false) }
    }

    /// Bans all of `who` from now on, or nobody; a ban that there is already gets this time.
    ///
    /// # Errors
    /// There are too many bans.
    pub fn set(&self, who: &[Banned], lasts: Span) -> Result<(), TooMany> {
        let now = self.clock.monotonic();
        let mut until = self.write();
        until.retain(|_, until| *until > now);
        let new = who.iter().filter(|who| !until.contains_key(who)).count();
        if until.len() + new > BANS {
            return Err(TooMany);
        }
        until.extend(who.iter().map(|who| (who.clone(), now + lasts)));
        self.has_some.store(!until.is_empty(), Ordering::Release);
        Ok(())
    }

    /// Ends a ban; returns whether there was one.
    pub fn lift(&self, who: &Banned) -> bool {
        let now = self.clock.monotonic();
        let mut until = self.write();
        let was_banned = until.remove(who).is_some_and(|until| until > now);
        self.has_some.store(!until.is_empty(), Ordering::Release);
        was_banned
    }

    /// Returns all bans that are in force, and how long they last, in a fixed order.
    pub fn all(&self) -> Vec<(Banned, Span)> {
        let now = self.clock.monotonic();
        let mut all: Vec<_> = self
            .read()
            .iter()
            .filter(|(_, until)| **until > now)
            .map(|(who, until)| (who.clone(), until.less(now)))
            .collect();
        all.sort_unstable();
        all
    }

    /// Returns the time, in milliseconds since 1970-01-01 UTC.
    pub fn wall_ms(&self) -> u64 {
        self.clock.wall_ms()
    }

    /// Returns true if nobody is banned. Returns false if somebody is, or was until now.
    pub fn is_empty(&self) -> bool {
        !self.has_some.load(Ordering::Acquire)
    }

    /// Returns how long an address is banned; `None` if it is not.
    pub fn of_address(&self, address: IpAddr) -> Option<Span> {
        if self.is_empty() {
            return None;
        }
        left(&self.read(), &Banned::Address(address.into()), self.clock.monotonic())
    }

    /// Returns how long a peer is banned; `None` if it is not.
    pub fn of_peer(&self, identity: &str, device: BootId, address: IpAddr) -> Option<Span> {
        if self.is_empty() {
            return None;
        }
        let device = (device != BootId::default()).then_some(Banned::Device(device));
        let identity = (!identity.is_empty()).then(|| Banned::Identity(identity.into()));
        let address = Some(Banned::Address(address.into()));
        let (now, until) = (self.clock.monotonic(), self.read());
        let all = [identity, device, address].into_iter().flatten();
        all.filter_map(|who| left(&until, &who, now)).max()
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<Banned, Span>> {
        self.until.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<Banned, Span>> {
        self.until.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn left(until: &HashMap<Banned, Span>, who: &Banned, now: Span) -> Option<Span> {
    let until = until.get(who).copied();
    until.filter(|until| *until > now).map(|until| until.less(now))
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
        bans.set(&[named("ada")], hour).unwrap();
        assert!(bans.of_peer("ada", BootId::default(), here).is_some());
        assert_eq!(bans.of_peer("bob", device, here), None);
        bans.set(&[Banned::Device(device)], hour).unwrap();
        assert!(bans.of_peer("bob", device, here).is_some());
        assert_eq!(bans.of_peer("bob", BootId::default(), here), None, "unknown is no device");
        let network = Origin::from("2001:db8::1".parse::<IpAddr>().unwrap());
        bans.set(&[Banned::Address(network)], hour).unwrap();
        assert!(bans.of_address("2001:db8::2".parse().unwrap()).is_some(), "the whole /64");
        assert_eq!(bans.of_address(here), None);
        assert_eq!(bans.all().len(), 3);
        assert!(bans.lift(&named("ada")) && !bans.lift(&named("ada")));
        bans.set(&[named("eve")], Span::ZERO).unwrap();
        assert_eq!(bans.of_peer("eve", BootId::default(), here), None, "its time is over");
        assert_eq!(bans.all().len(), 2);
    }

    #[test]
    fn a_ban_ends_by_itself_and_a_new_one_takes_its_place_be_it_longer_or_shorter() {
        let bans = Bans::new(Clock::start());
        let (nobody, here) = (BootId::default(), "192.0.2.1".parse().unwrap());
        let left = || bans.of_peer("ada", nobody, here);
        assert!(bans.is_empty() && left().is_none());
        for secs in [60, 3_600, 5] {
            bans.set(&[named("ada")], Span::from_secs(secs)).unwrap();
            let left = left().unwrap();
            assert!(left <= Span::from_secs(secs) && left > Span::from_secs(secs - 4), "{left}");
        }
        bans.set(&[Banned::Address(Origin::from(here))], Span::from_secs(60)).unwrap();
        assert!(left().unwrap() > Span::from_secs(50), "the longest of those that apply");
        assert!(bans.lift(&Banned::Address(Origin::from(here))) && !bans.is_empty());
        bans.set(&[named("ada")], Span::from_millis(1)).unwrap();
        while left().is_some() {
            std::thread::yield_now();
        }
        assert!(bans.all().is_empty());
        assert!(!bans.lift(&named("ada")), "it was over");
        assert!(bans.is_empty());
    }

    #[test]
    fn a_full_table_refuses_new_bans_and_keeps_the_old_ones() {
        let bans = Bans::new(Clock::start());
        let hour = Span::from_secs(3_600);
        for number in 0..BANS {
            assert_eq!(bans.set(&[named(&number.to_string())], hour), Ok(()));
        }
        assert_eq!(bans.set(&[named("one more")], hour), Err(TooMany));
        assert_eq!(bans.set(&[named("7")], hour), Ok(()), "it is there already");
        assert!(bans.lift(&named("8")));
        assert_eq!(bans.set(&[named("7"), named("one more"), named("two")], hour), Err(TooMany));
        assert_eq!(bans.all().len(), BANS - 1, "all of them or nobody");
        assert_eq!(bans.set(&[named("one more")], hour), Ok(()));
        assert_eq!(bans.set(&[named("9")], Span::ZERO), Ok(()));
        assert_eq!(bans.set(&[named("two")], hour), Ok(()), "in the place of one that is over");
    }
}
