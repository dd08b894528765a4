//! The sessions in force of each identity.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::sessions::Place;
use crate::home::Homes;
use crate::time::Span;

/// The sessions in force that have an identity. What an identity is worth is part of its name: a
/// claim that nobody has checked never meets an identity that was proved.
#[derive(Debug)]
pub(super) struct Identities {
    homes: Homes,
    /// The times of login, by a part of the identity's digest and the session's place: identities
    /// stand in the links alone, and those with the same digest are told apart there.
    logins: BTreeMap<(u32, Place), Span>,
    /// The links whose logins wait for their turn, and those that have it.
    waiting: BTreeMap<(u32, u32), bool>,
}

/// A session in force of an identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Rival {
    /// When its HELLO was complete.
    pub(super) heard_at: Span,
    pub(super) place: Place,
}

impl Identities {
    pub(super) const fn new(homes: Homes) -> Identities {
        Identities { homes, logins: BTreeMap::new(), waiting: BTreeMap::new() }
    }

    /// Returns the number of the shard that is the home of an identity.
    pub(super) fn home(&self, identity: &str) -> u8 {
        self.homes.of(identity)
    }

    /// Returns whether there is a shard with this number.
    pub(super) fn has_shard(&self, shard: u8) -> bool {
        u16::from(shard) < self.homes.shards.max(1)
    }

    pub(super) fn add(&mut self, identity: &str, rival: Rival) {
        let Rival { heard_at, place } = rival;
        self.logins.insert((self.digest(identity), place), heard_at);
    }

    pub(super) fn remove(&mut self, identity: &str, place: Place) {
        self.logins.remove(&(self.digest(identity), place));
    }

    /// Returns when the session in a place logged in; `None` if it is not in force.
    pub(super) fn heard_at(&self, identity: &str, place: Place) -> Option<Span> {
        self.logins.get(&(self.digest(identity), place)).copied()
    }

    /// Returns the sessions in force of an identity and of those with the same digest: `is_same`
    /// tells them apart. The oldest login comes first.
    pub(super) fn rivals(&self, identity: &str, is_same: impl Fn(Place) -> bool) -> Vec<Rival> {
        let digest = self.digest(identity);
        let range = (digest, Place::FIRST)..=(digest, Place::LAST);
        let found = self.logins.range(range).filter(|((_, place), _)| is_same(*place));
        let mut rivals: Vec<Rival> = found
            .map(|((_, place), heard_at)| Rival { heard_at: *heard_at, place: *place })
            .collect();
        rivals.sort_unstable();
        rivals
    }

    /// Lets the login of a link wait, or have its turn.
    pub(super) fn wait(&mut self, identity: &str, link: u32, has_turn: bool) {
        self.waiting.insert((self.digest(identity), link), has_turn);
    }

    /// Takes the login of a link from those that wait; returns whether it was among them.
    pub(super) fn stop_waiting(&mut self, identity: &str, link: u32) -> bool {
        !self.waiting.is_empty() && self.waiting.remove(&(self.digest(identity), link)).is_some()
    }

    /// Returns the links whose logins wait, or have their turn, of an identity and of those with
    /// the same digest.
    pub(super) fn waiting(&self, identity: &str) -> Vec<(u32, bool)> {
        let digest = self.digest(identity);
        let found = self.waiting.range((digest, 0)..=(digest, u32::MAX));
        found.map(|((_, link), has_turn)| (*link, *has_turn)).collect()
    }

    /// Returns the whole digest, which no two identities share in practice.
    pub(super) fn whole_digest(&self, identity: &str) -> u64 {
        self.homes.digest(identity)
    }

    /// Returns the upper half of the digest: the home depends on the lower one.
    fn digest(&self, identity: &str) -> u32 {
        (self.homes.digest(identity) >> 32) as u32
    }
}
