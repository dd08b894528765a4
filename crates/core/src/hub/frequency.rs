//! How often each identity logs in, at its home: so many times in a minute, on average.
//!
//! A minute ahead of the rate is too far. So an identity may use up a minute's logins at once, and
//! then has one each time that it has paid for one. A refused login costs nothing.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::mem;

use super::Hub;
use super::rate::PaidUntil;
use crate::denial::Denial;
use crate::link::{self, Goodbye};
use crate::plain::plain_struct;
use crate::time::{Span, Time};
use crate::wire::CloseReason;

/// How far an identity may be ahead of its rate.
const AHEAD: Span = Span::from_secs(60);

/// The shortest time after which a peer may come back: haste gains nothing.
const RETURN_AFTER: Span = Span::from_secs(5);

/// The maximum number of identities in a generation, some 800 kB.
const GENERATION: usize = 1 << 15;

/// An identity: a keyed digest whose lowest bit says whether it was proved, since claims and proofs
/// do not meet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key(u64);

impl Key {
    fn new(digest: u64, proved: bool) -> Key {
        Key(digest & !1 | u64::from(proved))
    }
}

/// The identities that have logged in lately, in two generations. The older one is forgotten once
/// all in it have paid, or when the younger one is full. Who logs in again, or is refused, moves to
/// the younger one, so a crowd of others does not wash out one that logs in again and again.
#[derive(Debug, Default)]
pub(super) struct Frequencies {
    young: BTreeMap<Key, PaidUntil>,
    old: BTreeMap<Key, PaidUntil>,
    /// When all of the younger generation have paid.
    young_until: PaidUntil,
    /// When all of the older generation have paid.
    old_until: PaidUntil,
}

/// An identity that has logged in lately, in a saved state.
pub(super) struct Frequency {
    key: u64,
    paid_until: PaidUntil,
    is_young: bool,
}

plain_struct! { Frequency { key, paid_until, is_young } }

impl Frequencies {
    /// Counts a login.
    ///
    /// # Errors
    /// There are more than `per_minute`; returns after which time there is room for one.
    fn count(&mut self, now: Time, key: Key, per_minute: u32) -> Result<(), Span> {
        let Some(cost) = 60_000_000_000_u64.checked_div(u64::from(per_minute)) else {
            return Ok(());
        };
        let known = self.young.get(&key).or_else(|| self.old.get(&key)).copied();
        let before = known.unwrap_or_default();
        let paid_until = before.take(now, Span::from_nanos(cost));
        let excess = paid_until.ahead(now).less(AHEAD);
        let is_full = self.young.len() >= GENERATION && !self.young.contains_key(&key);
        if is_full || self.old_until.ahead(now) == Span::ZERO {
            self.old = mem::take(&mut self.young);
            self.old_until = self.young_until;
        }
        if excess > Span::ZERO {
            self.set(key, before);
            return Err(excess);
        }
        self.set(key, paid_until);
        Ok(())
    }

    fn set(&mut self, key: Key, paid_until: PaidUntil) {
        self.young.insert(key, paid_until);
        self.young_until = self.young_until.max(paid_until);
    }

    /// Returns all, for a saved state.
    pub(super) fn saved(&self) -> Vec<Frequency> {
        let generations = [(&self.old, false), (&self.young, true)];
        let each = generations.into_iter().flat_map(|(generation, is_young)| {
            generation.iter().map(move |(Key(key), paid_until)| Frequency {
                key: *key,
                paid_until: *paid_until,
                is_young,
            })
        });
        each.collect()
    }

    /// Makes the generations from a saved state, as far as there is room.
    pub(super) fn load(saved: Vec<Frequency>) -> Frequencies {
        let mut loaded = Frequencies::default();
        for Frequency { key, paid_until, is_young } in saved.into_iter().take(2 * GENERATION) {
            if is_young {
                loaded.set(Key(key), paid_until);
            } else {
                loaded.old.insert(Key(key), paid_until);
                loaded.old_until = loaded.old_until.max(paid_until);
            }
        }
        loaded
    }
}

impl Hub {
    /// Counts the login of a peer that is at home; sends the peer away, and returns false, if its
    /// identity logs in too often.
    pub(super) fn count_login(&mut self, now: Time, link: u32) -> bool {
        let Some(slot) = self.slots.get(link) else {
            return false;
        };
        let settings = self.listeners.get(usize::from(slot.listener));
        let per_minute = settings.map_or(0, |settings| settings.logins.per_minute);
        let key = Key::new(self.identities.whole_digest(slot.identity()), slot.proved);
        let Err(wait) = self.frequencies.count(now, key, per_minute) else {
            return true;
        };
        let return_after = wait.max(RETURN_AFTER);
        let denied = Denial::TooOften.with(Goodbye { return_after, ..CloseReason::Full.into() });
        self.handle_link(now, link, link::Answer::Refused(denied));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    fn key(digest: u64) -> Key {
        Key::new(digest << 1, true)
    }

    /// The definition that docs/abuse.md gives, over all logins: any span of time has at most the
    /// rate in it, and a minute of the rate more.
    #[test]
    fn any_span_of_time_has_at_most_the_rate_and_a_minute_of_it() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let per_minute = 1 + random.below(90) as u32;
            let cost = 60_000_000_000 / u64::from(per_minute);
            let (mut all, mut now) = (Frequencies::default(), Time::from_millis(9_000));
            let mut admitted: Vec<Time> = Vec::new();
            for _ in 0..300 {
                now = now + Span::from_nanos(random.below(cost * 2));
                let fits = |first: usize| {
                    let count = (admitted.len() - first + 1) as u64;
                    count * cost <= now.since(admitted[first]).as_nanos() + AHEAD.as_nanos()
                };
                let expected = (0..admitted.len()).all(fits);
                let found = all.count(now, key(1), per_minute);
                assert_eq!(found.is_ok(), expected, "seed {seed}");
                if found.is_ok() {
                    admitted.push(now);
                }
            }
        }
    }

    #[test]
    fn there_is_room_again_when_it_was_said_and_claims_do_not_count_for_proofs() {
        let mut all = Frequencies::default();
        let now = Time::from_millis(1_000);
        let each = |all: &mut Frequencies, now, key| all.count(now, key, 3);
        assert!((0..3).all(|_| each(&mut all, now, key(1)).is_ok()));
        assert_eq!(each(&mut all, now, key(1)), Err(Span::from_secs(20)));
        let claim = Key::new(1 << 1, false);
        assert_eq!(each(&mut all, now, claim), Ok(()));
        let before = now + Span::from_millis(19_999);
        assert_eq!(each(&mut all, before, key(1)), Err(Span::from_millis(1)));
        assert_eq!(each(&mut all, now + Span::from_secs(20), key(1)), Ok(()));
        assert!((0..1_000).all(|_| all.count(now, key(2), 0).is_ok()), "no limit is none");
    }

    #[test]
    fn a_crowd_washes_out_nobody_who_logs_in_too_often_and_leaves_nothing_behind() {
        let mut all = Frequencies::default();
        let held = |all: &Frequencies| all.young.len() + all.old.len();
        let now = Time::from_millis(1_000);
        assert!((0..60).all(|_| all.count(now, key(u64::MAX), 60).is_ok()));
        for other in 0..3 * GENERATION as u64 {
            assert_eq!(all.count(now, key(other), 60), Ok(()));
            assert!(held(&all) <= 2 * GENERATION);
            if other % 30_000 == 0 {
                assert!(all.count(now, key(u64::MAX), 60).is_err(), "it is still counted");
            }
        }
        assert!(held(&all) > GENERATION);
        let much_later = now + Span::from_secs(200);
        for other in 0..100 {
            let now = much_later + Span::from_secs(other * 2);
            assert_eq!(all.count(now, key(other), 60), Ok(()));
        }
        assert!(held(&all) <= 3, "those that have paid are forgotten");
    }

    /// What is forgotten has paid, while no generation is full: no login is counted less.
    #[test]
    fn a_login_is_counted_as_if_nobody_were_forgotten() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let (mut all, mut reference) = (Frequencies::default(), BTreeMap::new());
            let mut now = Time::from_millis(5_000);
            for step in 0..500 {
                now = now + Span::from_millis(random.below(4_000));
                let key = key(random.below(6));
                let paid: PaidUntil = reference.get(&key).copied().unwrap_or_default();
                let next = paid.take(now, Span::from_secs(10));
                let fits = next.ahead(now) <= AHEAD;
                assert_eq!(all.count(now, key, 6).is_ok(), fits, "seed {seed}, step {step}");
                if fits {
                    reference.insert(key, next);
                }
                if random.below(20) == 0 {
                    all = Frequencies::load(all.saved());
                }
            }
        }
    }
}
