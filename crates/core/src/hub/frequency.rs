//! How often each identity logs in, at its home: so many times in a minute, on average.
//!
//! The generic cell rate algorithm, as for what a peer sends: one time for each identity, which
//! runs ahead of the present by what its logins cost. A minute ahead is too far. So an identity may
//! use up a minute's logins at once, and then has one each time that it has paid for one. A refused
//! login costs nothing.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use super::Hub;
use crate::denial::Denial;
use crate::link::{self, Goodbye};
use crate::plain::plain_struct;
use crate::time::{Span, Time};
use crate::wire::CloseReason;

/// How far an identity may be ahead of its rate.
const AHEAD: Span = Span::from_secs(60);

/// The shortest time after which a peer may come back: haste gains nothing.
const RETURN_AFTER: Span = Span::from_secs(5);

/// The maximum number of identities that are counted, some 5 MB. An identity is forgotten when it
/// has paid. Beyond the maximum the one that is nearest to that is forgotten, so that a crowd of
/// others does not wash out one that logs in again and again.
const COUNTED: usize = 1 << 16;

/// How many identities that have paid are forgotten at each login: more than are added.
const FORGOTTEN: usize = 2;

/// An identity: a keyed digest, and what it is worth, since claims and proofs do not meet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    digest: u64,
    proved: bool,
}

/// The identities that have logged in lately.
#[derive(Debug, Default)]
pub(super) struct Frequencies {
    paid_until: BTreeMap<Key, Time>,
    order: BTreeSet<(Time, Key)>,
}

/// An identity that has logged in lately, in a saved state.
pub(super) struct Frequency {
    digest: u64,
    proved: bool,
    paid_until: Time,
}

plain_struct! { Frequency { digest, proved, paid_until } }

impl Frequencies {
    /// Counts a login.
    ///
    /// # Errors
    /// There are more than `per_minute`; returns after which time there is room for one.
    fn count(&mut self, now: Time, key: Key, per_minute: u32) -> Result<(), Span> {
        let Some(cost) = 60_000_000_000_u64.checked_div(u64::from(per_minute)) else {
            return Ok(());
        };
        let known = self.paid_until.get(&key).copied();
        let paid_until = known.unwrap_or(now).max(now) + Span::from_nanos(cost);
        let ahead = paid_until.since(now);
        if ahead > AHEAD {
            return Err(ahead.less(AHEAD));
        }
        for _ in 0..FORGOTTEN {
            self.forget_first(|first| first <= now);
        }
        if known.is_none() && self.paid_until.len() >= COUNTED {
            self.forget_first(|_| true);
        }
        self.set(key, paid_until);
        Ok(())
    }

    fn set(&mut self, key: Key, paid_until: Time) {
        if let Some(before) = self.paid_until.insert(key, paid_until) {
            self.order.remove(&(before, key));
        }
        self.order.insert((paid_until, key));
    }

    /// Forgets the identity that has paid first, if that is at a time such as is asked for.
    fn forget_first(&mut self, is_such: impl Fn(Time) -> bool) {
        let first = self.order.first().copied().filter(|(paid_until, _)| is_such(*paid_until));
        if let Some((paid_until, key)) = first {
            self.order.remove(&(paid_until, key));
            self.paid_until.remove(&key);
        }
    }

    /// Returns all, for a saved state.
    pub(super) fn saved(&self) -> Vec<Frequency> {
        let each = self.order.iter().map(|(paid_until, Key { digest, proved })| Frequency {
            digest: *digest,
            proved: *proved,
            paid_until: *paid_until,
        });
        each.collect()
    }

    /// Makes the table from a saved state, as far as there is room.
    pub(super) fn load(saved: Vec<Frequency>) -> Frequencies {
        let mut loaded = Frequencies::default();
        for Frequency { digest, proved, paid_until } in saved.into_iter().take(COUNTED) {
            loaded.set(Key { digest, proved }, paid_until);
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
        let digest = self.identities.whole_digest(slot.identity());
        let key = Key { digest, proved: slot.proved };
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
        Key { digest, proved: true }
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
        let claim = Key { proved: false, ..key(1) };
        assert_eq!(each(&mut all, now, claim), Ok(()));
        let before = now + Span::from_millis(19_999);
        assert_eq!(each(&mut all, before, key(1)), Err(Span::from_millis(1)));
        assert_eq!(each(&mut all, now + Span::from_secs(20), key(1)), Ok(()));
        assert!((0..1_000).all(|_| all.count(now, key(2), 0).is_ok()), "no limit is none");
    }

    #[test]
    fn a_crowd_washes_out_nobody_who_logs_in_too_often_and_leaves_nothing_behind() {
        let mut all = Frequencies::default();
        let now = Time::from_millis(1_000);
        assert!((0..60).all(|_| all.count(now, key(u64::MAX), 60).is_ok()));
        for other in 0..(COUNTED as u64 + 1_000) {
            assert_eq!(all.count(now, key(other), 60), Ok(()));
        }
        assert_eq!((all.paid_until.len(), all.order.len()), (COUNTED, COUNTED));
        assert!(all.count(now, key(u64::MAX), 60).is_err(), "it is still counted");
        let later = now + Span::from_secs(100);
        for other in 0..COUNTED as u64 {
            assert_eq!(all.count(later, key(other), 60), Ok(()));
            assert!(all.paid_until.len() <= COUNTED);
        }
        let much_later = later + Span::from_secs(100);
        for other in 0..COUNTED as u64 {
            let now = much_later + Span::from_secs(other * 2);
            assert_eq!(all.count(now, key(other), 60), Ok(()));
        }
        assert_eq!(all.paid_until.len(), 1, "those that have paid are forgotten");
    }
}
