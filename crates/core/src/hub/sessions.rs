//! The sessions of a shard, each with its number, its epoch and its link.

use core::num::NonZeroU32;

use crate::link::SessionKey;
use crate::pages::Places;

/// The bits of a session's number that hold its place.
const PLACE_BITS: u32 = 24;

/// The maximum number of sessions of a shard: as many as places fit into a session's number.
const MAX_SESSIONS: u32 = 1 << PLACE_BITS;

/// The place of a session, or the number of a link: below 2^24, so that `None` takes no memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place(NonZeroU32);

/// All sessions of a shard.
#[derive(Debug)]
pub(super) struct Sessions {
    shard: u8,
    /// The generation given last. All places share one count, which begins at random: the numbers
    /// of different runs differ, and a number comes again after 2^32 sessions at the earliest.
    generation: u32,
    places: Places<Session>,
}

/// A session: the logical relation with a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    generation: u32,
    link: Place,
    /// 0 until the session is owned.
    epoch: u64,
}

// A part of the memory of an idle link.
const _: () = assert!(size_of::<Option<Session>>() <= 16);

impl Session {
    pub(super) fn link(&self) -> u32 {
        self.link.get()
    }

    /// Returns the epoch; 0 until the session is owned.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Place {
    fn new(place: u32) -> Option<Place> {
        NonZeroU32::new(place.wrapping_add(1)).map(Place)
    }

    fn get(self) -> u32 {
        self.0.get() - 1
    }
}

impl Sessions {
    pub(super) const fn new(shard: u8, generation: u32) -> Sessions {
        Sessions { shard, generation, places: Places::new(MAX_SESSIONS) }
    }

    /// Returns a generation for a link that may become a session.
    pub(super) fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    /// Opens a session for a link, and returns its place; `None` if there is no room.
    pub(super) fn open(&mut self, generation: u32, link: u32) -> Option<Place> {
        let link = Place::new(link)?;
        self.places.add(Session { generation, link, epoch: 0 }).and_then(Place::new)
    }

    /// Returns the number of the session in `place`; without one, a number of the link that no
    /// session has, because each link has a generation of its own.
    pub(super) fn number(&self, generation: u32, place: Option<Place>, link: u32) -> u64 {
        let low = place.map_or(link, Place::get) & (MAX_SESSIONS - 1);
        u64::from(self.shard) << 56 | u64::from(generation) << PLACE_BITS | u64::from(low)
    }

    pub(super) fn get(&self, place: Place) -> Option<&Session> {
        self.places.get(place.get())
    }

    /// Returns the session with this number.
    pub(super) fn find(&self, number: u64) -> Option<&Session> {
        let place = place_of(number);
        let session = self.places.get(place)?;
        let found = self.number(session.generation, Place::new(place), session.link());
        (found == number).then_some(session)
    }

    /// Gives a session its epoch, which is not 0. Returns its link and key; `None` if there is no
    /// such session, or if it has an epoch.
    pub(super) fn own(&mut self, number: u64, epoch: u64) -> Option<(u32, SessionKey)> {
        self.find(number)?;
        let session = self.places.get_mut(place_of(number))?;
        if session.epoch != 0 {
            return None;
        }
        session.epoch = epoch;
        Some((session.link(), SessionKey { session: number, epoch }))
    }

    /// Ends a session.
    pub(super) fn end(&mut self, place: Place) {
        self.places.remove(place.get());
    }
}

const fn place_of(number: u64) -> u32 {
    (number & (MAX_SESSIONS as u64 - 1)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_shard_generation_and_place_and_finds_only_its_session() {
        let mut sessions = Sessions::new(3, u32::MAX - 1);
        let [first, second] = [0, 1].map(|link| {
            let generation = sessions.next_generation();
            let place = sessions.open(generation, link).unwrap();
            (place, sessions.number(generation, Some(place), link))
        });
        assert_eq!(first.1, 0x03ff_ffff_ff00_0000);
        assert_eq!(second.1, 0x0300_0000_0000_0001, "the generation wraps");
        assert_eq!(sessions.find(second.1).map(Session::link), Some(1));
        sessions.end(first.0);
        assert!(sessions.find(first.1).is_none());
        let generation = sessions.next_generation();
        assert_eq!(sessions.open(generation, 7), Some(first.0), "the place is used again");
        assert!(sessions.find(first.1).is_none(), "under another number");
        assert!(sessions.find(second.1 ^ 1 << 56).is_none(), "another shard's");
    }

    #[test]
    fn a_session_is_owned_once() {
        let mut sessions = Sessions::new(0, 0);
        let place = sessions.open(1, 9);
        let number = sessions.number(1, place, 9);
        let key = SessionKey { session: number, epoch: 5 };
        assert_eq!(sessions.own(number, 5), Some((9, key)));
        assert_eq!(sessions.own(number, 6), None);
        assert_eq!(sessions.own(number + 1, 6), None);
    }
}
