//! The places for connections of the admin interface: who gets one, and who makes room.
//!
//! Three pools share no place, so that none can starve another. A connection starts among the
//! *strangers*. A request with the token moves it to the *trusted*, an event stream to the
//! *subscribers*. Nobody is turned away among strangers and trusted: in a full pool the connection
//! whose last request is the oldest makes room. So a new health check is always served, whatever
//! the other connections fail to send or to read.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use systole_core::Span;
use systole_net::Clock;
use tokio::sync::oneshot;

use crate::stats::AdminEnded;

/// Number of connections that have neither shown the token nor subscribed to events: probes of
/// supervisors, scrapers, dashboards and people. Each may hold about 150 KiB of buffers.
const STRANGERS: usize = 48;

/// Number of strangers from one IPv4 address or one IPv6 /64: one client that opens connections
/// without end displaces only its own, and leaves places to the others.
const STRANGERS_PER_ADDRESS: usize = 32;

/// Number of connections that have shown the token. They are few: the tools of the operators.
const TRUSTED: usize = 16;

/// Number of connections for requests other than event streams.
pub(crate) const SPARE_CONNECTIONS: usize = STRANGERS + TRUSTED;

/// Returns the number of event streams of `places` that one IPv4 address or one IPv6 /64 may have,
/// with or without the token: two thirds, rounded up, the same share as of the strangers. So one
/// address whose streams are all read leaves places to the others.
const fn streams_per_address(places: usize) -> usize {
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
        let id = self.lock().open(origin(address), self.clock.monotonic(), evict);
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
    /// Records that a request arrived: of all strangers this one makes room last.
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

/// Returns the address by which connections are counted: one host can have all addresses of an
/// IPv6 /64.
fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(network))
        }
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
    origin: IpAddr,
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
    Stranger,
    Trusted,
    Subscriber,
}

impl Table {
    fn open(&mut self, origin: IpAddr, now: Span, evict: oneshot::Sender<AdminEnded>) -> u64 {
        let neighbour = |entry: &Entry| entry.pool == Pool::Stranger && entry.origin == origin;
        self.make_room(STRANGERS_PER_ADDRESS, AdminEnded::AddressLimit, neighbour);
        self.make_room(STRANGERS, AdminEnded::Displaced, |entry| entry.pool == Pool::Stranger);
        self.last += 1;
        let id = self.last;
        let pool = Pool::Stranger;
        let entry = Entry { origin, pool, asked: id, since: now, stalled: None, evict };
        self.entries.insert(id, entry);
        id
    }

    fn asked(&mut self, id: u64) {
        self.last += 1;
        let last = self.last;
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.asked = last;
        }
    }

    fn trust(&mut self, id: u64) {
        if self.entries.get(&id).is_none_or(|entry| entry.pool != Pool::Stranger) {
            return;
        }
        self.make_room(TRUSTED, AdminEnded::Displaced, |entry| entry.pool == Pool::Trusted);
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
            let share = streams_per_address(self.subscribers);
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

    /// Evicts the connection with the oldest last request while `limit` connections of a kind have
    /// places, so that there is one for a further connection.
    fn make_room(&mut self, limit: usize, reason: AdminEnded, is_kind: impl Fn(&Entry) -> bool) {
        loop {
            let kind = || self.entries.iter().filter(|(_, entry)| is_kind(entry));
            let oldest = kind().min_by_key(|(_, entry)| entry.asked);
            match oldest.map(|(id, _)| *id) {
                Some(oldest) if kind().count() >= limit => self.evict(oldest, reason),
                Some(_) | None => return,
            }
        }
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

    fn open(places: &Places, address: [u8; 4]) -> Opened {
        places.open(IpAddr::from(address))
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
        let places = Places::new(1);
        let mut other = open(&places, [10, 0, 0, 1]);
        let mut all: Vec<Opened> =
            (0..10 * STRANGERS).map(|_| open(&places, [10, 0, 0, 2])).collect();
        let reasons: Vec<_> = all.iter_mut().filter_map(reason).collect();
        assert_eq!(reasons, [AdminEnded::AddressLimit].repeat(all.len() - STRANGERS_PER_ADDRESS));
        assert_eq!(reason(&mut other), None);
        let hosts: [IpAddr; 3] =
            ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(|text| text.parse().unwrap());
        assert_eq!(
            hosts.map(origin).map(|network| network == origin(hosts[0])),
            [true, true, false]
        );
        assert_eq!(origin("::ffff:10.0.0.1".parse().unwrap()), IpAddr::from([10, 0, 0, 1]));
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
        let more: Vec<Opened> = (0..TRUSTED).map(|_| open(&places, [10, 0, 0, 3])).collect();
        more.iter().for_each(|(place, _)| place.trust());
        assert_eq!(reason(&mut trusted), Some(AdminEnded::Displaced), "the oldest of its pool");
    }

    #[test]
    fn a_subscriber_makes_room_only_when_it_is_stalled_or_its_term_is_over() {
        let mut table = Table { entries: BTreeMap::new(), last: 0, subscribers: 2 };
        let open = |table: &mut Table, at: Span| {
            let (evict, evicted) = oneshot::channel();
            (table.open(IpAddr::from([10, 0, 0, 1]), at, evict), evicted)
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
        assert_eq!([1, 2, 3, 64].map(streams_per_address), [1, 2, 2, 43]);
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
        let address = IpAddr::from([10, 0, 0, 1]);
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
            (table.open(IpAddr::from([10, 0, 0, last]), Span::ZERO, evict), evicted)
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
