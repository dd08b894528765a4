//! Bans: identities, devices and addresses that may have no session for a time.
//!
//! A ban is looked at when a connection comes (its address), and before a session exists, when
//! identity and device are known, in the shard that is the home of the identity. Whoever sets a ban
//! ends the sessions that are online after that; so none is left, and none comes between.
//!
//! In a run bans end by the monotonic clock, which nobody sets. With a store they are written there
//! with the end by the wall clock, and read before the first connection of the next run.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use systole_core::Span;
use systole_core::origin::Origin;
use systole_core::wire::BootId;
use systole_net::Clock;
use tokio::sync::{Mutex, MutexGuard, Notify};

/// Maximum number of bans, in memory and in a store: some megabytes with their texts. Beyond it a
/// new one is refused: an old one must not end because of another.
pub(crate) const LIMIT: usize = 10_000;

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
    table: RwLock<HashMap<Banned, Term>>,
    /// Whether the table has bans, for those who ask at each connection: most gateways have none.
    /// Changed under the lock of the table.
    has_some: AtomicBool,
    /// Held while bans are written, so that a store gets the changes in their order.
    writing: Mutex<()>,
    /// Whether the next write is of the whole table: some have ended, or a write has failed.
    is_stale: AtomicBool,
    /// Whether the last write has failed.
    has_failed: AtomicBool,
    /// Notified when a write has failed.
    failed: Notify,
}

/// How long a ban lasts, and what its peer is told.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Term {
    /// When it ends, on the monotonic clock.
    until: Span,
    /// How long it was set for.
    lasts: Span,
    /// A text for the people of the peer; empty for none.
    text: Arc<str>,
}

/// What a banned peer is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptOut {
    /// How much longer it is banned.
    pub left: Span,
    /// A text for its people, at most [`MAX_CLOSE_TEXT`](systole_core::wire::MAX_CLOSE_TEXT) bytes;
    /// empty for none.
    pub text: Arc<str>,
}

/// A ban, as it is kept over a restart.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// Who is banned.
    pub who: Banned,
    /// When it ends, in milliseconds since 1970-01-01 UTC.
    pub until_ms: u64,
    /// How long it was set for.
    pub lasts: Span,
    /// As [`KeptOut::text`].
    pub text: Arc<str>,
}

/// What a store has not got yet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Unwritten {
    /// Whether these are all bans, and the others that are written have ended.
    pub is_whole: bool,
    /// Bans that have ended.
    pub lifted: Vec<Banned>,
    /// Bans that are in force.
    pub in_force: Vec<Kept>,
}

/// Error: there are as many bans as there may be. The caller's fault: lift some.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooMany;

impl Bans {
    /// Makes an empty table, whose times are those of `clock`.
    pub fn new(clock: Clock) -> Bans {
        Bans {
            clock,
            table: RwLock::default(),
            has_some: AtomicBool::new(false),
            writing: Mutex::default(),
            is_stale: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
            failed: Notify::new(),
        }
    }

    /// Puts the bans in force that a former run has left, as long as the wall clock says, and no
    /// longer than they were set for.
    pub fn load(&self, kept: Vec<Kept>) {
        let (now, now_ms) = (self.clock.monotonic(), self.clock.wall_ms());
        let mut table = self.write();
        for Kept { who, until_ms, lasts, text } in kept {
            let left = Span::from_millis(until_ms.saturating_sub(now_ms)).min(lasts);
            table.insert(who, Term { until: now + left, lasts, text });
        }
        self.has_some.store(!table.is_empty(), Ordering::Release);
        self.is_stale.store(true, Ordering::Relaxed);
    }

    /// Bans all of `who` from now on, or nobody; a ban that there is already gets this time, and
    /// this text for the people of the peers.
    ///
    /// # Errors
    /// There are too many bans.
    pub fn set(&self, who: &[Banned], lasts: Span, text: &str) -> Result<(), TooMany> {
        let now = self.clock.monotonic();
        let mut table = self.write();
        let before = table.len();
        table.retain(|_, term| term.until > now);
        if table.len() < before {
            self.is_stale.store(true, Ordering::Relaxed);
        }
        let new = who.iter().filter(|who| !table.contains_key(who)).count();
        if table.len() + new > LIMIT {
            return Err(TooMany);
        }
        let term = Term { until: now + lasts, lasts, text: text.into() };
        table.extend(who.iter().map(|who| (who.clone(), term.clone())));
        self.has_some.store(!table.is_empty(), Ordering::Release);
        Ok(())
    }

    /// Ends a ban; returns whether there was one.
    pub fn lift(&self, who: &Banned) -> bool {
        let now = self.clock.monotonic();
        let mut table = self.write();
        let was_banned = table.remove(who).is_some_and(|term| term.until > now);
        self.has_some.store(!table.is_empty(), Ordering::Release);
        was_banned
    }

    /// Returns all bans that are in force, in a fixed order.
    pub fn all(&self) -> Vec<(Banned, KeptOut)> {
        let now = self.clock.monotonic();
        let table = self.read();
        let in_force = table.iter().filter_map(|(who, term)| Some((who.clone(), term.at(now)?)));
        let mut all: Vec<_> = in_force.collect();
        drop(table);
        all.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
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

    /// Returns the ban of an address; `None` if there is none.
    pub fn of_address(&self, address: IpAddr) -> Option<KeptOut> {
        if self.is_empty() {
            return None;
        }
        self.read().get(&Banned::Address(address.into()))?.at(self.clock.monotonic())
    }

    /// Returns the ban of a peer, of several the one that lasts longest; `None` if there is none.
    pub fn of_peer(&self, identity: &str, device: BootId, address: IpAddr) -> Option<KeptOut> {
        if self.is_empty() {
            return None;
        }
        let device = (device != BootId::default()).then_some(Banned::Device(device));
        let identity = (!identity.is_empty()).then(|| Banned::Identity(identity.into()));
        let address = Some(Banned::Address(address.into()));
        let (now, table) = (self.clock.monotonic(), self.read());
        let all = [identity, device, address].into_iter().flatten();
        let in_force = all.filter_map(|who| table.get(&who).filter(|term| term.until > now));
        in_force.max_by_key(|term| term.until)?.at(now)
    }

    /// Waits until nobody else writes bans to a store. Hold it from [`Bans::unwritten`] to
    /// [`Bans::note_written`].
    pub(crate) async fn write_turn(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().await
    }

    /// Returns what is to be written now that the bans of `who` have changed.
    pub(crate) fn unwritten(&self, who: &[Banned]) -> Unwritten {
        let (now, now_ms) = (self.clock.monotonic(), self.clock.wall_ms());
        let table = self.read();
        let kept = |(who, term): (&Banned, &Term)| {
            let until_ms = now_ms.saturating_add(term.until.less(now).as_millis());
            Kept { who: who.clone(), until_ms, lasts: term.lasts, text: term.text.clone() }
        };
        if self.is_stale.swap(false, Ordering::Relaxed) {
            let in_force = table.iter().filter(|(_, term)| term.until > now).map(kept).collect();
            return Unwritten { is_whole: true, lifted: Vec::new(), in_force };
        }
        let mut unwritten = Unwritten::default();
        for who in who {
            match table.get_key_value(who) {
                Some(entry) => unwritten.in_force.push(kept(entry)),
                None => unwritten.lifted.push(who.clone()),
            }
        }
        unwritten
    }

    /// Notes whether what was to be written is on disk. If not, the next write is of all bans.
    pub(crate) fn note_written(&self, is_written: bool) {
        self.has_failed.store(!is_written, Ordering::Relaxed);
        if !is_written {
            self.is_stale.store(true, Ordering::Relaxed);
            self.failed.notify_one();
        }
    }

    /// Whether something could not be written, and is not written yet.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Waits until something could not be written.
    pub(crate) async fn until_failed(&self) {
        self.failed.notified().await;
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<Banned, Term>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<Banned, Term>> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Term {
    /// Returns what its peer is told at `now`; `None` if it is over.
    fn at(&self, now: Span) -> Option<KeptOut> {
        let is_in_force = self.until > now;
        is_in_force.then(|| KeptOut { left: self.until.less(now), text: self.text.clone() })
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
        bans.set(&[named("ada")], hour, "").unwrap();
        assert!(bans.of_peer("ada", BootId::default(), here).is_some());
        assert_eq!(bans.of_peer("bob", device, here), None);
        bans.set(&[Banned::Device(device)], hour, "").unwrap();
        assert!(bans.of_peer("bob", device, here).is_some());
        assert_eq!(bans.of_peer("bob", BootId::default(), here), None, "unknown is no device");
        let network = Origin::from("2001:db8::1".parse::<IpAddr>().unwrap());
        bans.set(&[Banned::Address(network)], hour, "").unwrap();
        assert!(bans.of_address("2001:db8::2".parse().unwrap()).is_some(), "the whole /64");
        assert_eq!(bans.of_address(here), None);
        assert_eq!(bans.all().len(), 3);
        assert!(bans.lift(&named("ada")) && !bans.lift(&named("ada")));
        bans.set(&[named("eve")], Span::ZERO, "").unwrap();
        assert_eq!(bans.of_peer("eve", BootId::default(), here), None, "its time is over");
        assert_eq!(bans.all().len(), 2);
    }

    #[test]
    fn a_ban_ends_by_itself_and_a_new_one_takes_its_place_be_it_longer_or_shorter() {
        let bans = Bans::new(Clock::start());
        let (nobody, here) = (BootId::default(), "192.0.2.1".parse().unwrap());
        let left = || bans.of_peer("ada", nobody, here).map(|it| it.left);
        assert!(bans.is_empty() && left().is_none());
        for secs in [60, 3_600, 5] {
            bans.set(&[named("ada")], Span::from_secs(secs), "").unwrap();
            let left = left().unwrap();
            assert!(left <= Span::from_secs(secs) && left > Span::from_secs(secs - 4), "{left}");
        }
        bans.set(&[Banned::Address(Origin::from(here))], Span::from_secs(60), "").unwrap();
        assert!(left().unwrap() > Span::from_secs(50), "the longest of those that apply");
        assert!(bans.lift(&Banned::Address(Origin::from(here))) && !bans.is_empty());
        bans.set(&[named("ada")], Span::from_millis(1), "").unwrap();
        while left().is_some() {
            std::thread::yield_now();
        }
        assert!(bans.all().is_empty());
        assert!(!bans.lift(&named("ada")), "it was over");
        assert!(bans.is_empty());
    }

    #[test]
    fn of_several_bans_the_one_that_lasts_longest_gives_the_text() {
        let bans = Bans::new(Clock::start());
        let (device, here) = (BootId([7; 16]), "192.0.2.1".parse::<IpAddr>().unwrap());
        let text = || bans.of_peer("ada", device, here).map(|it| it.text.to_string());
        bans.set(&[named("ada")], Span::from_secs(3_600), "an hour").unwrap();
        bans.set(&[Banned::Address(here.into())], Span::from_secs(60), "a minute").unwrap();
        assert_eq!(text().as_deref(), Some("an hour"));
        assert_eq!(&*bans.of_address(here).unwrap().text, "a minute");
        bans.set(&[Banned::Device(device)], Span::from_secs(7_200), "").unwrap();
        assert_eq!(text().as_deref(), Some(""));
        bans.set(&[Banned::Device(device)], Span::from_secs(7_200), "two hours").unwrap();
        assert_eq!(text().as_deref(), Some("two hours"), "the new one takes the place");
        let texts: Vec<_> = bans.all().into_iter().map(|(_, it)| it.text.to_string()).collect();
        assert_eq!(texts, ["an hour", "two hours", "a minute"]);
    }

    #[test]
    fn a_full_table_refuses_new_bans_and_keeps_the_old_ones() {
        let bans = Bans::new(Clock::start());
        let hour = Span::from_secs(3_600);
        for number in 0..LIMIT {
            assert_eq!(bans.set(&[named(&number.to_string())], hour, ""), Ok(()));
        }
        assert_eq!(bans.set(&[named("one more")], hour, ""), Err(TooMany));
        assert_eq!(bans.set(&[named("7")], hour, ""), Ok(()), "it is there already");
        assert!(bans.lift(&named("8")));
        assert_eq!(
            bans.set(&[named("7"), named("one more"), named("two")], hour, ""),
            Err(TooMany)
        );
        assert_eq!(bans.all().len(), LIMIT - 1, "all of them or nobody");
        assert_eq!(bans.set(&[named("one more")], hour, ""), Ok(()));
        assert_eq!(bans.set(&[named("9")], Span::ZERO, ""), Ok(()));
        assert_eq!(bans.set(&[named("two")], hour, ""), Ok(()), "in the place of one that is over");
    }
}
