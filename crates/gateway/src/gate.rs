//! Limits for each address: how many connections it may have, and how often it may come.
//!
//! An address is an IPv4 address or an IPv6 /64 ([`Origin`]). All shards share one gate, because
//! one address arrives at all of them. What an address has is counted while it has something, so
//! that table is bounded by the links; how often it comes, by `RATES`.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use governor::clock::Clock as Time;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use ipnet::IpNet;
use systole_core::Span;
use systole_core::origin::Origin;
use systole_net::Clock;

use crate::throttle::Throttle;

/// Maximum number of addresses of which it is known how often they came; a new one beyond these is
/// not limited in that, and by the other limits all the same.
const RATES: usize = 65_536;

/// Parts of the table, each with its lock, so that shards seldom wait for each other.
const PARTS: usize = 16;

/// The settings of a gate.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GateSettings {
    /// Networks whose addresses are not limited.
    pub trusted: Vec<IpNet>,
    /// Maximum of connections of one address at once; `None` for half of all links.
    pub connections: Option<NonZeroU32>,
    /// Maximum of connections of one address that are not online yet.
    pub half_open: NonZeroU32,
    /// Maximum of new connections of one address in a second; twice as many after a pause.
    pub per_second: NonZeroU32,
}

/// The reason why a connection is turned away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TurnedAway {
    /// Its address has as many connections as it may have.
    Connections,
    /// Its address has as many that are not online yet.
    HalfOpen,
    /// Its address comes too often.
    Rate,
    /// Half of all links are not online yet, of which its address has some.
    AllHalfOpen,
    /// Its address is banned.
    Banned,
}

impl TurnedAway {
    /// The names of all reasons, as in metrics.
    pub const NAMES: [&'static str; 5] =
        ["connections", "half_open", "rate", "all_half_open", "banned"];

    /// Returns the place of the reason in [`TurnedAway::NAMES`].
    pub const fn index(self) -> usize {
        match self {
            TurnedAway::Connections => 0,
            TurnedAway::HalfOpen => 1,
            TurnedAway::Rate => 2,
            TurnedAway::AllHalfOpen => 3,
            TurnedAway::Banned => 4,
        }
    }
}

/// The gate of a gateway. Clones share it.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

type Rates = RateLimiter<Origin, HashMapStateStore<Origin>, Now, NoOpMiddleware<Nanos>>;

struct Inner {
    trusted: Vec<IpNet>,
    connections: u32,
    half_open: u32,
    all_half_open: u32,
    rates: Rates,
    parts: [Mutex<HashMap<Origin, Has>>; PARTS],
    hasher: RandomState,
    /// The connections that are not online yet, of all addresses.
    waiting: AtomicU32,
    /// When the table of rates may be swept again, in milliseconds.
    sweep_at: AtomicU64,
    clock: Clock,
    lines: Mutex<Throttle>,
}

/// What an address has.
#[derive(Clone, Copy, Default)]
struct Has {
    connections: u32,
    half_open: u32,
}

/// The one clock, for the limits of rates.
#[derive(Clone, Copy)]
struct Now(Clock);

impl Time for Now {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(self.0.monotonic().as_nanos())
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate(…)")
    }
}

impl Gate {
    /// Makes the gate of a gateway that may have `links` links.
    pub fn new(settings: &GateSettings, links: u64, clock: Clock) -> Gate {
        let GateSettings { trusted, connections, half_open, per_second } = settings;
        let half = u32::try_from(links / 2).unwrap_or(u32::MAX).max(1);
        let burst = per_second.saturating_mul(NonZeroU32::MIN.saturating_add(1));
        let quota = Quota::per_second(*per_second).allow_burst(burst);
        let rates = Rates::new(quota, HashMapStateStore::default(), Now(clock));
        Gate(Arc::new(Inner {
            trusted: trusted.clone(),
            connections: connections.map_or(half, NonZeroU32::get),
            half_open: half_open.get(),
            all_half_open: half,
            rates,
            parts: Default::default(),
            hasher: RandomState::new(),
            waiting: AtomicU32::new(0),
            sweep_at: AtomicU64::new(0),
            clock,
            lines: Mutex::new(Throttle::new(3, Span::from_secs(60))),
        }))
    }

    /// Lets a connection in and counts it, or turns it away.
    ///
    /// # Errors
    /// The limit that its address has reached.
    pub fn enter(&self, address: IpAddr) -> Result<(), TurnedAway> {
        let Some(origin) = self.limited(address) else {
            return Ok(());
        };
        let found = self.try_enter(origin);
        if let Err(why) = found {
            self.tell(address, why);
        }
        found
    }

    fn try_enter(&self, origin: Origin) -> Result<(), TurnedAway> {
        let inner = &self.0;
        let mut part = self.part(origin);
        let has = part.get(&origin).copied().unwrap_or_default();
        if has.connections >= inner.connections {
            return Err(TurnedAway::Connections);
        }
        if has.half_open >= inner.half_open {
            return Err(TurnedAway::HalfOpen);
        }
        if has.half_open > 0 && inner.waiting.load(Ordering::Relaxed) >= inner.all_half_open {
            return Err(TurnedAway::AllHalfOpen);
        }
        if inner.rates.len() >= RATES && self.may_sweep() {
            inner.rates.retain_recent();
        }
        if inner.rates.len() < RATES && inner.rates.check_key(&origin).is_err() {
            return Err(TurnedAway::Rate);
        }
        let has = part.entry(origin).or_default();
        has.connections += 1;
        has.half_open += 1;
        inner.waiting.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the table of rates may be swept, which takes a millisecond: once in a second.
    fn may_sweep(&self) -> bool {
        let now = self.0.clock.monotonic().as_millis();
        let due = |at: u64| (at <= now).then_some(now.saturating_add(1_000));
        self.0.sweep_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, due).is_ok()
    }

    /// Notes that a connection is online.
    pub fn introduce(&self, address: IpAddr) {
        if let Some(origin) = self.limited(address) {
            self.change(origin, |has| has.half_open = has.half_open.saturating_sub(1));
            self.one_less_waits();
        }
    }

    /// Notes the end of a connection that was let in.
    pub fn leave(&self, address: IpAddr, was_online: bool) {
        let Some(origin) = self.limited(address) else {
            return;
        };
        self.change(origin, |has| {
            has.connections = has.connections.saturating_sub(1);
            has.half_open = has.half_open.saturating_sub(u32::from(!was_online));
        });
        if !was_online {
            self.one_less_waits();
        }
    }

    fn one_less_waits(&self) {
        let less = |waiting: u32| Some(waiting.saturating_sub(1));
        let _ = self.0.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    fn change(&self, origin: Origin, change: impl FnOnce(&mut Has)) {
        if let Place::Occupied(mut place) = self.part(origin).entry(origin) {
            change(place.get_mut());
            if place.get().connections == 0 {
                place.remove();
            }
        }
    }

    /// Whether an address has limits: it is not trusted.
    pub fn limits(&self, address: IpAddr) -> bool {
        self.limited(address).is_some()
    }

    /// Returns by what an address is counted; `None` if it is trusted.
    fn limited(&self, address: IpAddr) -> Option<Origin> {
        let address = address.to_canonical();
        let is_trusted = self.0.trusted.iter().any(|network| network.contains(&address));
        (!is_trusted).then(|| Origin::from(address))
    }

    fn part(&self, origin: Origin) -> MutexGuard<'_, HashMap<Origin, Has>> {
        let place = usize::try_from(self.0.hasher.hash_one(origin)).unwrap_or(0) % PARTS;
        self.0.parts[place].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, address: IpAddr, why: TurnedAway) {
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(more) = lines.admit(self.0.clock.monotonic()) else {
            return;
        };
        let reason = TurnedAway::NAMES[why.index()];
        let hint = "if it is a proxy or a network of yours, name it in `trusted` of [addresses]";
        tracing::warn!(%address, reason, more, hint, "a connection was turned away");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(connections: u32, half_open: u32, per_second: u32, links: u64) -> Gate {
        let number = |number| NonZeroU32::new(number).unwrap();
        let settings = GateSettings {
            trusted: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8:1::/48".parse().unwrap()],
            connections: NonZeroU32::new(connections),
            half_open: number(half_open),
            per_second: number(per_second),
        };
        Gate::new(&settings, links, Clock::start())
    }

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_so_many_connections_and_others_as_many() {
        let gate = gate(3, 100, 1_000, 100);
        for _ in 0..3 {
            assert_eq!(gate.enter(at("192.0.2.1")), Ok(()));
        }
        assert_eq!(gate.enter(at("192.0.2.1")), Err(TurnedAway::Connections));
        assert_eq!(gate.enter(at("::ffff:192.0.2.1")), Err(TurnedAway::Connections));
        assert_eq!(gate.enter(at("192.0.2.2")), Ok(()));
        gate.introduce(at("192.0.2.1"));
        gate.leave(at("192.0.2.1"), true);
        assert_eq!(gate.enter(at("192.0.2.1")), Ok(()));
        for _ in 0..20 {
            assert_eq!(gate.enter(at("10.1.2.3")), Ok(()), "it is trusted");
            assert_eq!(gate.enter(at("2001:db8:1:2::3")), Ok(()), "so is this");
        }
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let gate = gate(2, 100, 1_000, 100);
        assert_eq!(gate.enter(at("2001:db8::1")), Ok(()));
        assert_eq!(gate.enter(at("2001:db8::ffff:2")), Ok(()));
        assert_eq!(gate.enter(at("2001:db8::3:3")), Err(TurnedAway::Connections));
        assert_eq!(gate.enter(at("2001:db8:0:1::3")), Ok(()));
    }

    #[test]
    fn half_open_connections_are_limited_for_each_address_and_for_all() {
        let one = gate(100, 2, 1_000, 1_000);
        assert_eq!([one.enter(at("192.0.2.1")), one.enter(at("192.0.2.1"))], [Ok(()); 2]);
        assert_eq!(one.enter(at("192.0.2.1")), Err(TurnedAway::HalfOpen));
        one.introduce(at("192.0.2.1"));
        assert_eq!(one.enter(at("192.0.2.1")), Ok(()), "one is online");
        let all = gate(100, 100, 1_000, 20);
        for host in 0..10 {
            assert_eq!(all.enter(at(&format!("192.0.2.{host}"))), Ok(()));
        }
        assert_eq!(all.enter(at("192.0.2.3")), Err(TurnedAway::AllHalfOpen));
        assert_eq!(all.enter(at("198.51.100.1")), Ok(()), "a new address still gets in");
        all.leave(at("192.0.2.5"), false);
        all.leave(at("198.51.100.1"), false);
        assert_eq!(all.enter(at("192.0.2.3")), Ok(()));
    }

    #[test]
    fn an_address_that_comes_too_often_waits_and_the_table_of_rates_is_bounded() {
        let gate = gate(u32::MAX, u32::MAX, 5, u64::MAX);
        let came = (0..1_000).filter(|_| gate.enter(at("192.0.2.1")).is_ok()).count();
        assert!((10..100).contains(&came), "twice as many as in a second, and a few: {came}");
        assert_eq!(gate.enter(at("192.0.2.1")), Err(TurnedAway::Rate));
        assert_eq!(gate.enter(at("192.0.2.2")), Ok(()));
        for host in 0..RATES as u32 + 100 {
            let _ = gate.enter(IpAddr::V4((0x0b00_0000 + host).into()));
        }
        assert!(gate.0.rates.len() <= RATES);
    }

    #[test]
    fn what_has_left_is_forgotten() {
        let gate = gate(10, 10, 1_000, 100);
        for host in 0..200 {
            let address = at(&format!("192.0.2.{host}"));
            gate.enter(address).unwrap();
            if host % 2 == 0 {
                gate.introduce(address);
            }
            gate.leave(address, host % 2 == 0);
        }
        let left: usize = gate.0.parts.iter().map(|part| part.lock().unwrap().len()).sum();
        assert_eq!((left, gate.0.waiting.load(Ordering::Relaxed)), (0, 0));
    }
}
