//! Floors: what is kept, against replay, of all devices that are not online.

use alloc::vec::Vec;

use super::Statement;
use crate::plain::plain_struct;
use crate::random::Random;
use crate::time::{Span, Time};

/// The number of places of the table for each group. A device that raises its floor with a stolen
/// key hinders only the few hundred of its group, and 16 bytes per 256 places are nothing beside
/// the places.
pub const GROUP: u32 = 256;

/// The least time from one new challenge of a group to the next. Challenges of 32 bits that follow
/// each other then take 136 years to come round, whatever a device does.
pub const CHALLENGE_REST: Span = Span::from_secs(1);

/// A counter from this value on asks for a new challenge, under which counters begin at 1 again.
pub(super) const RENEWAL_COUNTER: u32 = 1 << 31;

/// The floors of all groups.
#[derive(Clone, Debug)]
pub(super) struct Floors {
    groups: Vec<Floor>,
    /// The random hash seed, so that nobody can choose devices of one group.
    seed: u64,
}

/// The present challenge of a group, and the highest counter, under this challenge, of any of its
/// devices that was removed or refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Floor {
    challenge: u32,
    counter: u32,
    /// The time from which a new challenge may begin.
    renewable_at: Time,
}

plain_struct! { Floors { groups, seed } }

plain_struct! { Floor { challenge, counter, renewable_at } }

impl Floors {
    /// Whether these floors are for a table of the same size.
    pub(super) fn are_like(&self, others: &Floors) -> bool {
        self.groups.len() == others.groups.len()
    }

    pub(super) fn new(places: u32, random: &mut Random) -> Floors {
        let seed = random.next_u64();
        let challenge = random.next_u32().max(1);
        let floor = Floor { challenge, counter: 0, renewable_at: Time::ZERO };
        Floors { groups: alloc::vec![floor; places.div_ceil(GROUP).max(1) as usize], seed }
    }

    /// Returns the floor of the group that a device belongs to.
    pub(super) fn of(&mut self, device: u64) -> &mut Floor {
        let hash = Random::new(device ^ self.seed).next_u64() >> 32;
        let group = (hash * self.groups.len() as u64) >> 32;
        &mut self.groups[group as usize]
    }
}

impl Floor {
    pub(super) const fn challenge(&self) -> u32 {
        self.challenge
    }

    pub(super) const fn counter(&self) -> u32 {
        self.counter
    }

    /// Returns whether a statement is newer than all statements of removed and refused devices.
    /// How far it is above does not matter: whatever is not accepted must be refused for ever.
    pub(super) const fn admits(&self, statement: Statement) -> bool {
        statement.challenge == self.challenge && statement.counter > self.counter
    }

    /// Raises the floor: statements up to this counter are refused from now on.
    pub(super) fn raise(&mut self, challenge: u32, counter: u32) {
        if challenge == self.challenge {
            self.counter = self.counter.max(counter);
        }
    }

    /// Begins a new challenge for devices that are not online, and returns whether that is allowed
    /// yet. A random challenge could be one of those before.
    pub(super) fn renew(&mut self, now: Time) -> bool {
        if now < self.renewable_at {
            return false;
        }
        self.challenge = self.challenge.wrapping_add(1).max(1);
        self.counter = 0;
        self.renewable_at = now + CHALLENGE_REST;
        true
    }
}
