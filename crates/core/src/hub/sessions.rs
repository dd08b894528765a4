//! The sessions of a shard, each with its number, its epoch and its link.

use alloc::collections::BTreeMap;
use core::num::NonZeroU32;

use crate::link::SessionKey;
use crate::pages::Places;

/// The bits of a session's number that hold its place.
const PLACE_BITS: u32 = 24;

/// The maximum number of sessions of a shard: as many as places fit into a session's number.
const MAX_SESSIONS: u32 = 1 << PLACE_BITS;

/// The place of a session, or the number of a link: below 2^24, so that `None` takes no memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place(NonZeroU32);

/// All sessions of a shard.
#[derive(Debug)]
pub(super) struct Sessions {
    shard: u8,
    /// The generation given last. All places share one count, which begins at random: the numbers
    /// of different runs differ, and a number comes again after 2^32 sessions at the earliest.
    generation: u32,
    places: Places<Session>,
    /// The places of the sessions whose numbers name another place, because they were made
    /// elsewhere, and the numbers of the sessions in these places.
    foreign: BTreeMap<u64, u32>,
    foreign_numbers: BTreeMap<u32, u64>,
}

/// A session: the logical relation with a peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    /// The generation in the session's number, unless that is among the foreign ones.
    generation: u32,
    /// [`NONE`] while the session is away: no link has so high a number.
    link: Place,
    /// 0 until the session is owned.
    epoch: u64,
}

/// Instead of the number of a link.
const NONE: Place = Place::LAST;

// A part of the memory of an idle link.
const _: () = assert!(size_of::<Option<Session>>() <= 16);

/// A session in a saved state.
pub(super) struct SavedSession {
    pub(super) number: u64,
    pub(super) epoch: u64,
    pub(super) link: Option<Place>,
}

impl Session {
    /// Returns its link; `None` while it is away.
    pub(super) fn link(&self) -> Option<u32> {
        (self.link != NONE).then(|| self.link.get())
    }

    /// Returns the epoch; 0 until the session is owned.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Place {
    pub(super) const FIRST: Place = Place(NonZeroU32::MIN);
    pub(super) const LAST: Place = Place(NonZeroU32::MAX);

    pub(super) fn new(place: u32) -> Option<Place> {
        NonZeroU32::new(place.wrapping_add(1)).map(Place)
    }

    pub(super) fn get(self) -> u32 {
        self.0.get() - 1
    }
}

impl Sessions {
    pub(super) const fn new(shard: u8, generation: u32) -> Sessions {
        let places = Places::new(MAX_SESSIONS);
        let foreign_numbers = BTreeMap::new();
        Sessions { shard, generation, places, foreign: BTreeMap::new(), foreign_numbers }
    }

    /// Returns the number of the shard, which is the first byte of its sessions' numbers.
    pub(super) fn shard(&self) -> u8 {
        self.shard
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

    /// Takes over a session that was made elsewhere, and returns its place; `None` if there is no
    /// room, or if the session is here already.
    pub(super) fn adopt(&mut self, key: SessionKey, link: u32) -> Option<Place> {
        let SessionKey { session: number, epoch } = key;
        if self.find(number).is_some() {
            return None;
        }
        let (link, generation) = (Place::new(link)?, generation_of(number));
        let place = self.places.add(Session { generation, link, epoch })?;
        self.note_number(number, place);
        Place::new(place)
    }

    /// Keeps the number of a session in a place if the place and the generation do not make it.
    fn note_number(&mut self, number: u64, place: u32) {
        if self.numbered(generation_of(number), place) != number {
            self.foreign.insert(number, place);
            self.foreign_numbers.insert(place, number);
        }
    }

    /// Returns the number of the session in a place.
    fn number_at(&self, place: u32) -> Option<u64> {
        let session = self.places.get(place)?;
        let foreign = self.foreign_numbers.get(&place);
        Some(foreign.map_or_else(|| self.numbered(session.generation, place), |number| *number))
    }

    /// Returns number and epoch of a session; `None` until it is owned.
    pub(super) fn key(&self, place: Place) -> Option<SessionKey> {
        let (session, epoch) = (self.number_at(place.get())?, self.get(place)?.epoch);
        (epoch != 0).then_some(SessionKey { session, epoch })
    }

    /// Returns the number of a session that is made here.
    fn numbered(&self, generation: u32, place: u32) -> u64 {
        let low = place & (MAX_SESSIONS - 1);
        u64::from(self.shard) << 56 | u64::from(generation) << PLACE_BITS | u64::from(low)
    }

    /// Returns the number of the session in `place`; without one, a number of the link that no
    /// session has, because each link has a generation of its own.
    pub(super) fn number(&self, generation: u32, place: Option<Place>, link: u32) -> u64 {
        let own = place.and_then(|place| self.number_at(place.get()));
        own.unwrap_or_else(|| self.numbered(generation, link))
    }

    /// Returns the generation given last.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    pub(super) fn set_generation(&mut self, generation: u32) {
        self.generation = generation;
    }

    /// Returns all sessions with their places, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Session)> {
        self.places.scan(0, usize::MAX)
    }

    /// Returns the session in a place, for a saved state.
    pub(super) fn at(&self, place: u32) -> Option<SavedSession> {
        let (number, session) = (self.number_at(place)?, self.places.get(place)?);
        let link = Some(session.link).filter(|link| *link != NONE);
        Some(SavedSession { number, epoch: session.epoch, link })
    }

    /// Puts a session into a place; false if it cannot be there.
    pub(super) fn put(&mut self, place: u32, session: SavedSession) -> bool {
        let SavedSession { number, epoch, link } = session;
        let (generation, link) = (generation_of(number), link.unwrap_or(NONE));
        let is_put = self.find(number).is_none()
            && self.places.put(place, Session { generation, link, epoch });
        if is_put {
            self.note_number(number, place);
        }
        is_put
    }

    pub(super) fn get(&self, place: Place) -> Option<&Session> {
        self.places.get(place.get())
    }

    /// Returns the session with this number.
    pub(super) fn find(&self, number: u64) -> Option<&Session> {
        self.places.get(self.place_with(number)?)
    }

    /// Returns the place of the session with this number.
    pub(super) fn place_of(&self, number: u64) -> Option<Place> {
        Place::new(self.place_with(number)?)
    }

    /// Returns the number of the session in a place.
    pub(super) fn number_in(&self, place: Place) -> Option<u64> {
        self.number_at(place.get())
    }

    /// Gives a session another link, or none.
    pub(super) fn set_link(&mut self, place: Place, link: Option<u32>) {
        if let Some(session) = self.places.get_mut(place.get()) {
            session.link = link.and_then(Place::new).unwrap_or(NONE);
        }
    }

    /// Returns whether the session in a place has this link.
    pub(super) fn is_held(&self, place: Place, link: u32) -> bool {
        self.get(place).and_then(Session::link) == Some(link)
    }

    fn place_with(&self, number: u64) -> Option<u32> {
        let own = place_of(number);
        if self.number_at(own) == Some(number) {
            return Some(own);
        }
        self.foreign.get(&number).copied()
    }

    /// Gives a session its epoch, which is not 0. Returns its key; `None` if there is no
    /// such session, or if it has an epoch.
    pub(super) fn own(&mut self, number: u64, epoch: u64) -> Option<SessionKey> {
        let session = self.places.get_mut(self.place_with(number)?)?;
        if session.epoch != 0 {
            return None;
        }
        session.epoch = epoch;
        Some(SessionKey { session: number, epoch })
    }

    /// Ends a session.
    pub(super) fn end(&mut self, place: Place) {
        self.places.remove(place.get());
        if let Some(number) = self.foreign_numbers.remove(&place.get()) {
            self.foreign.remove(&number);
        }
    }
}

const fn generation_of(number: u64) -> u32 {
    (number >> PLACE_BITS) as u32
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
        assert_eq!(sessions.find(second.1).and_then(Session::link), Some(1));
        sessions.end(first.0);
        assert!(sessions.find(first.1).is_none());
        let generation = sessions.next_generation();
        assert_eq!(sessions.open(generation, 7), Some(first.0), "the place is used again");
        assert!(sessions.find(first.1).is_none(), "under another number");
        assert!(sessions.find(second.1 ^ 1 << 56).is_none(), "another shard's");
    }

    #[test]
    fn a_session_that_was_made_elsewhere_keeps_its_number() {
        let (mut from, mut to) = (Sessions::new(1, 7), Sessions::new(2, 7));
        let place = from.open(8, 0).unwrap();
        let number = from.number(8, Some(place), 0);
        let key = from.own(number, 5).unwrap();
        let own = to.open(8, 3).unwrap();
        let adopted = to.adopt(key, 9).unwrap();
        assert_ne!(own, adopted);
        assert_eq!(to.find(number).map(|found| (found.link(), found.epoch())), Some((Some(9), 5)));
        assert_eq!(to.adopt(key, 4), None, "it is here already");
        to.end(adopted);
        assert!(to.find(number).is_none());
        assert!(to.foreign.is_empty() && to.foreign_numbers.is_empty());
        // Back home, its former place has another session.
        from.end(place);
        let other = from.open(9, 1).unwrap();
        let back = from.adopt(key, 2).unwrap();
        assert_eq!((other, from.find(number).and_then(Session::link)), (place, Some(2)));
        from.end(back);
        assert_eq!(from.get(other).and_then(Session::link), Some(1));
    }

    #[test]
    fn a_session_is_owned_once() {
        let mut sessions = Sessions::new(0, 0);
        let place = sessions.open(1, 9);
        let number = sessions.number(1, place, 9);
        let key = SessionKey { session: number, epoch: 5 };
        assert_eq!(sessions.own(number, 5), Some(key));
        assert_eq!(sessions.own(number, 6), None);
        assert_eq!(sessions.own(number + 1, 6), None);
    }
}
