//! The places for connections of the admin interface: who gets one, and who makes room.
//!
//! Four pools share no place, so that none can starve another. A connection starts among the
//! *arrivals*, until the head of its first request is complete. Then it is a *stranger*. A request
//! with the token moves it to the *trusted*, an event stream to the *subscribers*. Nobody is turned
//! away but subscribers: in a full pool, a connection of the address with the most makes room, the
//! one whose last request is the oldest. So a new health check is always served, whatever the other
//! connections fail to send or to read, and a flood displaces its own connections first.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use systole_core::Span;
use systole_core::origin::Origin;
use systole_net::Clock;
use tokio::sync::oneshot;

use crate::stats::AdminEnded;

/// Number of connections whose first request has not come. They are many, so that in a flood each
/// has time to do its handshake and to send its request, and cheap: each holds at most the head of
/// a request and the state of a handshake, and one descriptor. At 400 new connections a second from
/// ever more addresses each has 0.6 s.
const ARRIVALS: usize = 256;

/// Number of connections that have neither shown the token nor subscribed to events: probes of
/// supervisors, scrapers, dashboards and people. Each may hold about 150 KiB of buffers.
const STRANGERS: usize = 48;

/// Number of connections that have shown the token. They are few: the tools of the operators.
const TRUSTED: usize = 16;

/// Number of connections for requests other than event streams.
pub(crate) const SPARE_CONNECTIONS: usize = ARRIVALS + STRANGERS + TRUSTED;

/// Returns the number of `places` of arrivals, strangers or event streams that one IPv4 address or
/// one IPv6 /64 may have: two thirds, rounded up. So one client that opens connections without end
/// displaces only its own, and leaves places to the others.
const fn share_of_address(places: usize) -> usize {
    places.saturating_mul(2).div_ceil(3)
}

/// Time without progress of a write after which a subscriber makes room for a new one: a network
/// that loses packets delays a living subscriber by less.
const STALLED: Span = Span::from_secs(2);

/// Time after which a subscriber makes room for a new one, though it may well be reading: it
/// resumes with its last id and misses nothing. One that reads nothing on a silent stream cannot
/// be told from one that reads, and would keep its place for ever.
const TERM: Span = Span::from_secs(60);

/// The places of one admin interface; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Places {
    table: Arc<Mutex<Table>>,
    clock: Clock,
}

/// A place that a connection holds until the last clone is dropped.
#[derive(Clone, Debug)]
pub(super) struct Place {
    held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    places: Places,
    id: u64,
}

/// Error: the subscribers that have places keep them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Full {
    /// All places are taken.
    All,
    /// The address of the new subscriber has as many as it may have.
    Address,
}

impl Places {
    /// Makes places of which `subscribers` are for event streams.
    pub(super) fn new(subscribers: usize) -> Places {
        let table = Table { entries: BTreeMap::new(), last: 0, subscribers };
        Places { table: Arc::new(Mutex::new(table)), clock: Clock::start() }
    }

    /// Returns a place for a new connection from `address`. The receiver yields a reason when the
    /// connection has to be closed to make room.
    pub(super) fn open(&self, address: IpAddr) -> (Place, oneshot::Receiver<AdminEnded>) {
        let (evict, evicted) = oneshot::channel();
        let id = self.lock().open(Origin::from(address), self.clock.monotonic(), evict);
        (Place { held: Arc::new(Held { places: self.clone(), id }) }, evicted)
    }

    /// Returns how many connections have places at most.
    pub(super) fn limit(&self) -> usize {
        self.lock().subscribers.saturating_add(SPARE_CONNECTIONS)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        // Each change of the table is complete before anything can panic.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Records that the head of a request is complete: of all strangers of its address this one
    /// makes room last.
    pub(super) fn asked(&self) {
        self.held.places.lock().asked(self.held.id);
    }

    /// Moves the place to the trusted: the connection has shown the token.
    pub(super) fn trust(&self) {
        self.held.places.lock().trust(self.held.id);
    }

    /// Moves the place to the subscribers, where it stays until the connection is closed.
    ///
    /// # Errors
    /// All places of subscribers, or all that the address may have, are taken, and none of them can
    /// be asked to make room.
    pub(super) fn subscribe(&self) -> Result<(), Full> {
        let now = self.now();
        self.held.places.lock().subscribe(self.held.id, now)
    }

    /// Records that a write makes no progress, since now.
    pub(super) fn stalled(&self) {
        let now = self.now();
        self.held.places.lock().set_stalled(self.held.id, Some(now));
    }

    /// Records that a write makes progress again.
    pub(super) fn flowing(&self) {
        self.held.places.lock().set_stalled(self.held.id, None);
    }

    fn now(&self) -> Span {
        self.held.places.clock.monotonic()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.places.lock().entries.remove(&self.id);
    }
}

/// The connections that hold places, without a clock and without sockets.
#[derive(Debug)]
struct Table {
    entries: BTreeMap<u64, Entry>,
    /// The last number given to a connection or a request; the numbers order them in time.
    last: u64,
    subscribers: usize,
}

#[derive(Debug)]
struct Entry {
    origin: Origin,
    pool: Pool,
    /// The number of the last request; of the connection, until it makes one.
    asked: u64,
    /// When the connection came, or became a subscriber: the time since the start.
    since: Span,
    /// Since when a write makes no progress.
    stalled: Option<Span>,
    evict: oneshot::Sender<AdminEnded>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pool {
    Arrival,
    Stranger,
    Trusted,
    Subscriber,
}

impl Table {
    fn open(&mut self, origin: Origin, now: Span, evict: oneshot::Sender<AdminEnded>) -> u64 {
        self.make_room(Pool::Arrival, origin);
        self.last += 1;
        let id = self.last;
        let pool = Pool::Arrival;
        let entry = Entry { origin, pool, asked: id, since: now, stalled: None, evict };
        self.entries.insert(id, entry);
        id
    }

    fn asked(&mut self, id: u64) {
        let Some(&Entry { origin, pool, .. }) = self.entries.get(&id) else {
            return;
        };
        if pool == Pool::Arrival {
            self.make_room(Pool::Stranger, origin);
        }
        self.last += 1;
        let last = self.last;
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.asked = last;
            if pool == Pool::Arrival {
                entry.pool = Pool::Stranger;
            }
        }
    }

    fn trust(&mut self, id: u64) {
        let Some(&Entry { origin, pool: Pool::Arrival | Pool::Stranger, .. }) =
            self.entries.get(&id)
        else {
            return;
        };
        self.make_room(Pool::Trusted, origin);
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.pool = Pool::Trusted;
        }
    }

    fn subscribe(&mut self, id: u64, now: Span) -> Result<(), Full> {
        // A connection that has been evicted must evict no other.
        let &Entry { origin, pool, .. } = self.entries.get(&id).ok_or(Full::All)?;
        // Who has the token and is on this machine can change its limits anyhow, and must not be
        // kept out by a program there that has not.
        if !(origin.is_loopback() && pool == Pool::Trusted) {
            let share = share_of_address(self.subscribers);
            let of_address = |entry: &Entry| entry.origin == origin;
            self.make_room_for_stream(share, now, of_address).ok_or(Full::Address)?;
        }
        self.make_room_for_stream(self.subscribers, now, |_| true).ok_or(Full::All)?;
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.pool = Pool::Subscriber;
            entry.since = now;
        }
        Ok(())
    }

    /// Evicts a subscriber of a kind if `limit` of them have places: one that is stalled, or else
    /// the oldest. Returns `None` if neither may be evicted yet.
    fn make_room_for_stream(
        &mut self,
        limit: usize,
        now: Span,
        is_kind: impl Fn(&Entry) -> bool,
    ) -> Option<()> {
        let is_kind = |entry: &Entry| entry.pool == Pool::Subscriber && is_kind(entry);
        let kind = || self.entries.iter().filter(|(_, entry)| is_kind(entry));
        if kind().count() < limit {
            return Some(());
        }
        let overdue = |since: Span, limit| now >= since + limit;
        let stalled = kind().filter_map(|(id, entry)| Some((entry.stalled?, *id))).min();
        let stalled = stalled.filter(|(since, _)| overdue(*since, STALLED));
        let oldest = kind().map(|(id, entry)| (entry.since, *id)).min();
        let oldest = oldest.filter(|(since, _)| overdue(*since, TERM));
        let (_, victim) = stalled.or(oldest)?;
        self.evict(victim, AdminEnded::SubscriberDisplaced);
        Some(())
    }

    fn set_stalled(&mut self, id: u64, since: Option<Span>) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.stalled = since;
        }
    }

    /// Evicts a connection of `pool` if it is full, or if `origin` has its share of it, so that
    /// there is a place for a further connection of `origin`.
    fn make_room(&mut self, pool: Pool, origin: Origin) {
        let (places, share) = match pool {
            Pool::Arrival => (ARRIVALS, share_of_address(ARRIVALS)),
            Pool::Stranger => (STRANGERS, share_of_address(STRANGERS)),
            Pool::Trusted => (TRUSTED, TRUSTED),
            // Subscribers make room by rules of their own.
            Pool::Subscriber => return,
        };
        let members = || self.entries.iter().filter(|(_, entry)| entry.pool == pool);
        let own = || members().filter(|(_, entry)| entry.origin == origin);
        let oldest = own().min_by_key(|(_, entry)| entry.asked).map(|(id, _)| *id);
        if let Some(oldest) = oldest.filter(|_| own().count() >= share) {
            let reason =
                if share < places { AdminEnded::AddressLimit } else { AdminEnded::Displaced };
            self.evict(oldest, reason);
        } else if members().count() >= places
            && let Some(victim) = self.of_fullest(pool, origin)
        {
            self.evict(victim, AdminEnded::Displaced);
        }
    }

    /// Returns the connection of `pool` that makes room for one of `newcomer`: of the origins that
    /// then have the most, the connection whose last request is the oldest.
    fn of_fullest(&self, pool: Pool, newcomer: Origin) -> Option<u64> {
        let mut counts = BTreeMap::from([(newcomer, 1_usize)]);
        let members = || self.entries.iter().filter(|(_, entry)| entry.pool == pool);
        for (_, entry) in members() {
            *counts.entry(entry.origin).or_default() += 1;
        }
        let rank = |(_, entry): &(&u64, &Entry)| {
            (counts.get(&entry.origin).copied(), Reverse(entry.asked))
        };
        members().max_by_key(rank).map(|(id, _)| *id)
    }

    fn evict(&mut self, id: u64, reason: AdminEnded) {
        if let Some(entry) = self.entries.remove(&id) {
            // A connection that has just ended needs no order to end.
            let _ = entry.evict.send(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A place, and the receiver of the reason for which it was lost.
    type Opened = (Place, oneshot::Receiver<AdminEnded>);

    /// Opens a connection that sends nothing.
    fn arrive(places: &Places, address: [u8; 4]) -> Opened {
        places.open(IpAddr::from(address))
    }

    /// Opens a connection that sends a request.
    fn open(places: &Places, address: [u8; 4]) -> Opened {
        let opened = arrive(places, address);
        opened.0.asked();
        opened
    }

    fn origin(last: u8) -> Origin {
        Origin::from(IpAddr::from([10, 0, 0, last]))
    }

    fn reason((_, evicted): &mut Opened) -> Option<AdminEnded> {
        evicted.try_recv().ok()
    }

    #[test]
    fn a_newcomer_displaces_the_stranger_that_asked_longest_ago() {
        let places = Places::new(1);
        let mut all: Vec<Opened> =
            (0..STRANGERS).map(|n| open(&places, [10, 0, 0, (n % 4) as u8])).collect();
        all[0].0.asked();
        let mut new = open(&places, [10, 0, 0, 9]);
        assert_eq!(reason(&mut all[1]), Some(AdminEnded::Displaced));
        assert!(all.iter_mut().all(|held| reason(held).is_none()));
        drop(all.pop());
        open(&places, [10, 0, 0, 9]);
        assert_eq!(reason(&mut new), None, "a place was free");
    }

    #[test]
    fn one_address_displaces_only_its_own() {
        for (pool, connect) in
            [(ARRIVALS, arrive as fn(&Places, [u8; 4]) -> Opened), (STRANGERS, open)]
        {
            let places = Places::new(1);
            let mut other = connect(&places, [10, 0, 0, 1]);
            let mut all: Vec<Opened> =
                (0..10 * pool).map(|_| connect(&places, [10, 0, 0, 2])).collect();
            let reasons: Vec<_> = all.iter_mut().filter_map(reason).collect();
            let displaced = all.len() - share_of_address(pool);
            assert_eq!(reasons, [AdminEnded::AddressLimit].repeat(displaced));
            assert_eq!(reason(&mut other), None);
        }
    }

    /// Whether it has sent its head, or sends it later than thousands of others have come.
    #[test]
    fn a_flood_from_many_addresses_displaces_its_own_first() {
        for (pool, connect) in
            [(ARRIVALS, arrive as fn(&Places, [u8; 4]) -> Opened), (STRANGERS, open)]
        {
            let places = Places::new(1);
            let mut own = connect(&places, [10, 0, 1, 1]);
            let addresses = pool - 1;
            let flood: Vec<Opened> = (0..10 * pool)
                .map(|n| connect(&places, [10, 0, 0, (n % addresses) as u8]))
                .collect();
            own.0.asked();
            assert_eq!(reason(&mut own), None);
            drop(flood);
        }
    }

    /// At 400 connections a second it has more than 400 ms, from wherever the flood comes.
    #[test]
    fn whoever_connects_has_time_to_send_a_request_in_any_flood() {
        for hosts in [1, 2, 300, 10_000] {
            let places = Places::new(1);
            let mut own = arrive(&places, [10, 0, 0, 0]);
            let flood = |n: usize| {
                let host = n % hosts;
                arrive(&places, [10, 0, (host >> 8) as u8, host as u8])
            };
            let _flood: Vec<Opened> = (0..share_of_address(ARRIVALS) - 1).map(flood).collect();
            own.0.asked();
            assert_eq!(reason(&mut own), None, "{hosts}");
        }
    }

    #[test]
    fn strangers_displace_no_one_who_showed_the_token_or_reads_events() {
        let places = Places::new(1);
        let mut trusted = open(&places, [10, 0, 0, 1]);
        trusted.0.trust();
        let mut subscriber = open(&places, [10, 0, 0, 1]);
        assert_eq!(subscriber.0.subscribe(), Ok(()));
        let mut flood: Vec<Opened> =
            (0..1_000).map(|n| open(&places, [10, 0, 1, (n % 200) as u8])).collect();
        assert_eq!((reason(&mut trusted), reason(&mut subscriber)), (None, None));
        let newest = flood.last_mut().unwrap();
        newest.0.trust();
        assert_eq!(reason(newest), None);
        let more = |last: u8| -> Vec<Opened> {
            let one = |_| open(&places, [10, 0, 0, last]);
            (0..TRUSTED).map(one).inspect(|(place, _)| place.trust()).collect()
        };
        let _others = more(3);
        assert_eq!(reason(&mut trusted), None, "one address displaces its own");
        let _own = more(1);
        assert_eq!(reason(&mut trusted), Some(AdminEnded::Displaced), "the oldest of its own");
    }

    #[test]
    fn a_subscriber_makes_room_only_when_it_is_stalled_or_its_term_is_over() {
        let mut table = Table { entries: BTreeMap::new(), last: 0, subscribers: 2 };
        let open = |table: &mut Table, at: Span| {
            let (evict, evicted) = oneshot::channel();
            (table.open(origin(1), at, evict), evicted)
        };
        let (first, mut first_evicted) = open(&mut table, Span::ZERO);
        let (second, mut second_evicted) = open(&mut table, Span::ZERO);
        assert_eq!(table.subscribe(first, Span::ZERO), Ok(()));
        assert_eq!(table.subscribe(second, Span::ZERO), Ok(()));
        let (third, mut third_evicted) = open(&mut table, Span::ZERO);
        table.set_stalled(second, Some(Span::ZERO));
        table.set_stalled(second, None);
        table.set_stalled(second, Some(Span::from_secs(1)));
        assert_eq!(table.subscribe(third, Span::from_millis(2_999)), Err(Full::Address));
        assert_eq!(table.subscribe(third, Span::from_secs(3)), Ok(()));
        assert_eq!(second_evicted.try_recv(), Ok(AdminEnded::SubscriberDisplaced));
        let (fourth, _evicted) = open(&mut table, Span::from_secs(4));
        assert_eq!(table.subscribe(fourth, TERM.less(Span::from_nanos(1))), Err(Full::Address));
        assert_eq!(table.subscribe(fourth, TERM), Ok(()));
        assert_eq!(first_evicted.try_recv(), Ok(AdminEnded::SubscriberDisplaced));
        assert!(third_evicted.try_recv().is_err());
    }

    /// Opens a connection, with the token or without, and asks for an event stream.
    fn subscribe(places: &Places, address: [u8; 4], trusted: bool) -> (Opened, Result<(), Full>) {
        let opened = open(places, address);
        if trusted {
            opened.0.trust();
        }
        let result = opened.0.subscribe();
        (opened, result)
    }

    #[test]
    fn one_address_leaves_places_for_event_streams_to_the_others() {
        assert_eq!([1, 2, 3, 64].map(share_of_address), [1, 2, 2, 43]);
        for trusted in [false, true] {
            let places = Places::new(6);
            let own: Vec<_> = (0..6).map(|_| subscribe(&places, [10, 0, 0, 1], trusted)).collect();
            let results: Vec<_> = own.iter().map(|(_, result)| *result).collect();
            assert_eq!(results[..4], [Ok(()); 4]);
            assert_eq!(results[4..], [Err(Full::Address); 2]);
            let other = subscribe(&places, [10, 0, 0, 2], false);
            let last = subscribe(&places, [127, 0, 0, 1], false);
            assert_eq!((other.1, last.1), (Ok(()), Ok(())));
            assert_eq!(subscribe(&places, [10, 0, 0, 3], true).1, Err(Full::All));
        }
    }

    #[test]
    fn loopback_with_the_token_gets_any_place_for_an_event_stream() {
        let places = Places::new(3);
        let local: Vec<_> = (0..2).map(|_| subscribe(&places, [127, 0, 0, 1], false)).collect();
        assert!(local.iter().all(|(_, result)| result.is_ok()));
        assert_eq!(subscribe(&places, [127, 0, 0, 1], false).1, Err(Full::Address));
        assert_eq!(subscribe(&places, [127, 0, 0, 1], true).1, Ok(()));
    }

    #[test]
    fn a_connection_that_was_evicted_takes_no_place_for_an_event_stream() {
        let mut table = Table { entries: BTreeMap::new(), last: 0, subscribers: 1 };
        let address = origin(1);
        let (evict, mut evicted) = oneshot::channel();
        let subscriber = table.open(address, Span::ZERO, evict);
        assert_eq!(table.subscribe(subscriber, Span::ZERO), Ok(()));
        let gone = table.open(address, Span::ZERO, oneshot::channel().0);
        table.evict(gone, AdminEnded::Displaced);
        assert_eq!(table.subscribe(gone, TERM), Err(Full::All));
        assert!(evicted.try_recv().is_err());
    }

    #[test]
    fn at_its_share_an_address_displaces_only_its_own_event_streams() {
        let mut table = Table { entries: BTreeMap::new(), last: 0, subscribers: 3 };
        let open = |table: &mut Table, last: u8| {
            let (evict, evicted) = oneshot::channel();
            (table.open(origin(last), Span::ZERO, evict), evicted)
        };
        let mut all: Vec<_> = [2, 1, 1, 1].map(|last| open(&mut table, last)).into();
        for (index, (id, _)) in all.iter().take(3).enumerate() {
            assert_eq!(table.subscribe(*id, Span::from_secs(index as u64)), Ok(()));
        }
        assert_eq!(table.subscribe(all[3].0, TERM), Err(Full::Address), "the other's is older");
        assert_eq!(table.subscribe(all[3].0, TERM + Span::from_secs(1)), Ok(()));
        let evicted: Vec<_> = all.iter_mut().map(|(_, it)| it.try_recv().is_ok()).collect();
        assert_eq!(evicted, [false, true, false, false]);
    }
}
