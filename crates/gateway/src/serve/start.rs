//! Binds the sockets and starts the shards.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::thread::{JoinHandle, available_parallelism};

use systole_core::home::Homes;
use systole_core::hub::MAX_LINKS;
use systole_core::link::{Limits, Settings, Side, Takes, Windows};
use systole_net::identity::{boot_id, instance_id};
use systole_net::listener::MAX_SHARDS;
use systole_net::{Clock, datagrams, inherited, limits, listener};

use super::error::ServeError;
use super::inherited::Unclaimed;
use super::told::{look_up_services, senders, start_store};
use crate::admin::SPARE_CONNECTIONS;
use crate::bans::Bans;
use crate::beacon::{self, BeaconSetup, BeaconShard};
use crate::config::{BEACON, BeaconListener, ClientIdentity, Config, Listener, Shards, codec_name};
use crate::events::{Events, Names};
use crate::gate::Gate;
use crate::gateway::{Gateway, ListenerState};
use crate::identity;
use crate::logic::Logic;
use crate::logs::Logs;
use crate::metrics::Metrics;
use crate::report::{FACTS, ReportChannels, Reports, channels};
use crate::request::{Arrivals, Requests};
use crate::shard::{self, Door, ListenerTls, ListenerTokens, Shard, ShardListener, ShardSetup};
use crate::stats::{BeaconStats, Distributions, ShardStats};
use crate::store::Store;

/// Descriptors that the process has open beside its shards and connections: standard streams, the
/// poll and the signals of the control plane, the admin listener, files.
const PROCESS_DESCRIPTORS: u64 = 32;

/// Descriptors of a shard beside its listening sockets: the poll, and both ends of its wake-ups.
const SHARD_DESCRIPTORS: u64 = 3;

/// Descriptors of a beacon shard: its socket, the poll, both ends of its wake-ups for requests, and
/// the wake-up for statements from other shards.
const BEACON_SHARD_DESCRIPTORS: u64 = 5;

/// The listening sockets of shards that are not started yet.
#[derive(Debug)]
pub(super) struct BoundSockets {
    admin: TcpListener,
    /// The sockets of each stream listener.
    listeners: Vec<ListenerSockets>,
    /// The sockets of each beacon listener, one per shard.
    beacons: Vec<Vec<UdpSocket>>,
    shards: usize,
}

/// The sockets of one stream listener, one per shard.
#[derive(Debug)]
struct ListenerSockets {
    sockets: Vec<TcpListener>,
    /// Whether they are one inherited socket.
    is_shared: bool,
}

/// A gateway whose shards are running.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) gateway: Arc<Gateway>,
    pub(super) admin: TcpListener,
    pub(super) clock: Clock,
    pub(super) stats: Vec<Arc<ShardStats>>,
    pub(super) reports: Vec<Reports>,
    pub(super) threads: Vec<JoinHandle<()>>,
}

/// The admin interface in errors.
pub(super) const ADMIN: &str = "the admin interface";

/// Returns the words for a listener in errors.
pub(super) fn listener_phrase(name: &str) -> String {
    format!("listener \"{name}\"")
}

/// Binds all sockets, or none. An address of which a socket is inherited is not bound.
pub(super) fn bind(
    config: &Config,
    inherited: Vec<TcpListener>,
) -> Result<BoundSockets, ServeError> {
    let shards = match config.shards {
        Shards::Auto => available_parallelism().map_or(1, usize::from).min(MAX_SHARDS),
        Shards::Exactly(number) => number.into(),
    };
    // Each beacon listener has as many shards of its own as the stream listeners share.
    let shards = shards.min(MAX_SHARDS / (1 + config.beacons.len())).max(1);
    let failed = |what: &str, address| {
        let what = what.to_owned();
        move |error| ServeError::Bind { what, address, error }
    };
    let mut unclaimed = Unclaimed::new(inherited)?;
    let address = config.admin.address();
    let admin = match unclaimed.take(address) {
        Some(socket) => Ok(socket),
        // A flood of connections must not overflow the queue, which costs a health check behind it
        // a second or more; to be accepted after all of them costs it milliseconds.
        None => listener::bind(address, listener::BACKLOG, false),
    };
    let admin = admin.map_err(failed(ADMIN, address))?;
    let mut listeners = Vec::new();
    for wanted in &config.listeners {
        let address = wanted.address();
        let what = listener_phrase(wanted.name());
        let (sockets, is_shared) = match unclaimed.take(address) {
            Some(socket) => (inherited::share(socket, shards), true),
            None => (listener::bind_shards(address, shards), false),
        };
        let sockets = sockets.map_err(failed(&what, address))?;
        listeners.push(ListenerSockets { sockets, is_shared });
    }
    unclaimed.finish()?;
    let mut beacons = Vec::new();
    for wanted in &config.beacons {
        let address = wanted.address();
        let what = listener_phrase(wanted.name());
        let sockets = datagrams::bind_datagrams(address, shards).map_err(failed(&what, address))?;
        beacons.push(sockets);
    }
    Ok(BoundSockets { admin, listeners, beacons, shards })
}

/// Starts the shards. If one cannot be started, the others end when their handles are dropped.
pub(super) fn start(
    config: &Config,
    bound: BoundSockets,
    logs: Logs,
) -> Result<Running, ServeError> {
    let BoundSockets { admin, listeners: sockets, beacons, shards } = bound;
    let clock = Clock::start();
    let budget = LinkBudget::compute(config, shards);
    let links = u64::from(budget.links_per_shard).saturating_mul(shards as u64);
    let gate = Gate::new(&config.addresses, links, clock);
    let bans = Arc::new(Bans::new(clock));
    let distributions = Distributions::default();
    let states = listener_states(config, &sockets, &beacons).map_err(ServeError::Thread)?;
    let settings = link_settings(config, clock).map_err(ServeError::Thread)?;
    let mut sockets: Vec<_> =
        sockets.into_iter().map(|it| (it.sockets.into_iter(), it.is_shared)).collect();
    let has_tokens = config.listeners.iter().any(|listener| listener.verifier().is_some());
    let (jobs, pool) = identity::jobs();
    let mut started = StartedShards::default();
    let (doors, siblings, homes) = homes(shards).map_err(ServeError::Thread)?;
    let (store, epochs) = start_store(config, clock, &doors, &bans)?;
    for (index, door) in doors.into_iter().enumerate() {
        let listeners = sockets.iter_mut().zip(&settings).zip(&config.listeners);
        let own = listeners.filter_map(|(((sockets, is_shared), settings), listener)| {
            Some(shard_listener(sockets.next()?, *is_shared, settings.clone(), listener))
        });
        let (reports, stats) = started.prepare();
        let setup = ShardSetup {
            index: u8::try_from(index).unwrap_or(u8::MAX),
            listeners: own.collect(),
            homes,
            siblings: siblings.clone(),
            clock,
            seed: seed(index),
            max_links: budget.links_per_shard,
            outbox_limit: usize::try_from(config.limits.outbox).unwrap_or(usize::MAX),
            outbox_memory: share(config.limits.outbox_total, shards),
            frame_memory: share(config.limits.incomplete_frames, shards),
            window_memory: share(config.limits.windows, shards),
            away: away_share(config.limits.away, shards),
            longest_rest: config.rest,
            logic: Logic::new(config.logic),
            jobs: has_tokens.then(|| jobs.clone()),
            epochs: epochs.clone(),
            store: store.clone().filter(Store::has_receivers),
            gate: Some(gate.clone()),
            bans: bans.clone(),
            reports,
            stats,
            distributions: distributions.clone(),
        };
        started.add(shard::spawn(setup, door).map_err(ServeError::Thread)?);
    }
    start_beacons(&mut started, config, beacons, clock, &bans, &distributions)
        .map_err(ServeError::Thread)?;
    let StartedShards { requests, stats, reports, threads, beacons } = started;
    look_up_services(config).map_err(ServeError::Thread)?;
    if has_tokens {
        let has_webhooks = config.listeners.iter().any(|listener| listener.webhook().is_some());
        pool.start(requests.clone(), clock, has_webhooks).map_err(ServeError::Thread)?;
    }
    let events = event_ring(config, clock, &states, &budget, store.as_ref());
    let senders = senders(config, store.as_ref(), clock).map_err(ServeError::Thread)?;
    let metrics = Metrics::new(stats.clone(), beacons, &distributions, clock, logs.clone());
    let metrics = metrics.with_store(store.as_ref(), &senders);
    let gateway = Gateway::new(requests, stats.clone(), states, events, metrics, logs);
    let gateway = gateway.with_verdicts(kept(config.limits.verdicts));
    let gateway = Arc::new(gateway.with_store(store, senders).with_bans(bans));
    if let Some(store) = gateway.store() {
        gateway.note_left_behind(store.left_behind());
    }
    Ok(Running { gateway, admin, clock, stats, reports, threads })
}

/// Makes the ring of events, with the names that they need.
fn event_ring(
    config: &Config,
    clock: Clock,
    states: &[ListenerState],
    budget: &LinkBudget,
    store: Option<&Store>,
) -> Events {
    let mut listeners: Vec<_> = states.iter().map(|state| state.name.clone()).collect();
    for lost in store.iter().flat_map(|store| &store.left_behind().latest) {
        if !listeners.contains(&lost.listener) {
            listeners.push(lost.listener.clone());
        }
    }
    let names = Names {
        listeners,
        descriptors: budget.descriptors,
        max_links: u64::from(budget.links_per_shard),
        links_by_descriptors: budget.by_descriptors,
    };
    Events::new(kept(config.limits.events), clock.wall_ms(), names)
}

/// Returns a number of things to keep in memory.
pub(super) fn kept(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Returns what one shard has of a listener.
fn shard_listener(
    socket: TcpListener,
    is_shared: bool,
    settings: Settings,
    listener: &Listener,
) -> ShardListener {
    let tls = listener.tls().map(|tls| ListenerTls {
        server: (**tls).clone(),
        subject_is_identity: listener.client_identity() == ClientIdentity::Subject,
    });
    let anonymous = listener.anonymous();
    let verifier = listener.verifier().cloned();
    let tokens = verifier.map(|verifier| ListenerTokens { verifier, anonymous });
    ShardListener { socket, is_shared, settings, tls, tokens }
}

/// Makes the ways into all shards, and chooses the homes of identities.
fn homes(shards: usize) -> std::io::Result<(Vec<Door>, Arc<[Arrivals]>, Homes)> {
    let doors = (0..shards).map(|_| Door::new()).collect::<Result<Vec<_>, _>>()?;
    let siblings = doors.iter().map(|door| door.arrivals().clone()).collect();
    let homes = Homes { shards: u16::try_from(shards).unwrap_or(u16::MAX), key: seed(shards) };
    Ok((doors, siblings, homes))
}

/// The shards started so far, in the order of their numbers.
#[derive(Debug, Default)]
struct StartedShards {
    requests: Vec<Requests>,
    stats: Vec<Arc<ShardStats>>,
    reports: Vec<Reports>,
    threads: Vec<JoinHandle<()>>,
    /// The number and the additional counts of each beacon shard.
    beacons: Vec<(usize, Arc<BeaconStats>)>,
}

impl StartedShards {
    /// Creates the channels and the counts of the next shard.
    fn prepare(&mut self) -> (ReportChannels, Arc<ShardStats>) {
        let (sender, receiver) = channels(FACTS);
        let stats = Arc::<ShardStats>::default();
        self.reports.push(receiver);
        self.stats.push(stats.clone());
        (sender, stats)
    }

    fn add(&mut self, shard: Shard) {
        self.requests.push(shard.requests);
        self.threads.push(shard.thread);
    }
}

/// Returns the setup of the shards of one beacon listener, before it is known which shards they
/// are.
fn beacon_setup(
    config: &Config,
    wanted: &BeaconListener,
    listener: u16,
    shards: usize,
    clock: Clock,
    bans: &Arc<Bans>,
    distributions: &Distributions,
) -> std::io::Result<BeaconSetup> {
    let shards = u32::try_from(shards).unwrap_or(u32::MAX).max(1);
    // Devices are assigned to shards at random, so each shard gets a spare of 1/16.
    let share = wanted.max_beacons().div_ceil(shards);
    let spare = if shards > 1 { share.div_ceil(16) } else { 0 };
    // A challenge must never repeat, so the seed must be new at each start.
    let [a, b, c, d, e, f, g, h, ..] = instance_id()?.0;
    Ok(BeaconSetup {
        first_index: 0,
        listener,
        policy: wanted.policy(),
        max_beacons: share.saturating_add(spare),
        longest_rest: config.rest,
        bans: bans.clone(),
        keys: wanted.keys().clone(),
        clock,
        seed: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        distributions: distributions.clone(),
    })
}

/// Starts the shards of all beacon listeners.
fn start_beacons(
    started: &mut StartedShards,
    config: &Config,
    beacons: Vec<Vec<UdpSocket>>,
    clock: Clock,
    bans: &Arc<Bans>,
    distributions: &Distributions,
) -> std::io::Result<()> {
    for (number, (wanted, sockets)) in config.beacons.iter().zip(beacons).enumerate() {
        let listener = u16::try_from(config.listeners.len() + number).unwrap_or(u16::MAX);
        let shards = sockets.len();
        let setup = beacon_setup(config, wanted, listener, shards, clock, bans, distributions)?;
        start_beacon_shards(started, setup, sockets)?;
    }
    Ok(())
}

/// Starts the shards of one beacon listener.
fn start_beacon_shards(
    started: &mut StartedShards,
    mut setup: BeaconSetup,
    sockets: Vec<UdpSocket>,
) -> std::io::Result<()> {
    setup.first_index = u8::try_from(started.stats.len()).unwrap_or(u8::MAX);
    let own = sockets.into_iter().map(|socket| {
        let number = started.stats.len();
        let (reports, stats) = started.prepare();
        let beacon_stats = Arc::<BeaconStats>::default();
        started.beacons.push((number, beacon_stats.clone()));
        BeaconShard { socket, reports, stats, beacon_stats }
    });
    let own = own.collect();
    beacon::spawn(&setup, own)?.into_iter().for_each(|shard| started.add(shard));
    Ok(())
}

/// The number of links that each shard may hold, and why.
struct LinkBudget {
    /// The descriptor limit of the process.
    descriptors: Option<u64>,
    links_per_shard: u32,
    /// Whether the descriptor limit, not the configuration, limits the links.
    by_descriptors: bool,
}

impl LinkBudget {
    /// Computes the budget. Other uses of descriptors come first, so that operators can connect
    /// when links have taken the rest.
    fn compute(config: &Config, shards: usize) -> LinkBudget {
        let limit = limits::raise_descriptor_limit().unwrap_or_else(|error| {
            tracing::warn!(%error, "the limit on open files stays as it is");
            limits::descriptor_limit()
        });
        let left = limit.soft.map(|limit| room_for_links(config, shards as u64, limit));
        let wanted = config.limits.max_links.map(u64::from);
        let by_descriptors = match (wanted, left) {
            (Some(wanted), Some(left)) => left < wanted,
            (None, Some(_)) => true,
            (Some(_) | None, None) => false,
        };
        if let (true, Some(wanted), Some(left)) = (by_descriptors, wanted, left) {
            let hint = "raise the limit on open files, such as LimitNOFILE= in the systemd unit";
            tracing::warn!(max_links = wanted, room = left, hint, "fewer links than configured");
        }
        let links = wanted.unwrap_or(u64::MAX).min(left.unwrap_or(u64::MAX));
        let shards = shards as u64;
        // A configured number is reached, and the room is not exceeded.
        let share = if by_descriptors { links / shards } else { links.div_ceil(shards) };
        let share = share.clamp(1, u64::from(MAX_LINKS));
        let links_per_shard = u32::try_from(share).unwrap_or(MAX_LINKS);
        LinkBudget { descriptors: limit.soft, links_per_shard, by_descriptors }
    }
}

/// Returns how many links fit into a limit of `limit` descriptors, beside those that `shards`
/// shards and the control plane have open, and the connections of the admin interface. Under a very
/// small limit those connections take at most half of the rest.
fn room_for_links(config: &Config, shards: u64, limit: u64) -> u64 {
    let per_shard = config.listeners.len() as u64
        + SHARD_DESCRIPTORS
        + BEACON_SHARD_DESCRIPTORS * config.beacons.len() as u64;
    let rest = limit.saturating_sub(per_shard * shards + PROCESS_DESCRIPTORS);
    let admin = config.limits.sse_subscribers.saturating_add(SPARE_CONNECTIONS as u64);
    rest - admin.min(rest / 2)
}

/// Returns the control plane's view of the listeners; beacon listeners come last.
fn listener_states(
    config: &Config,
    sockets: &[ListenerSockets],
    beacons: &[Vec<UdpSocket>],
) -> std::io::Result<Vec<ListenerState>> {
    let stream = |(wanted, ListenerSockets { sockets, .. }): (&Listener, &ListenerSockets)| {
        let address: SocketAddr =
            sockets.first().map_or(Ok(wanted.address()), TcpListener::local_addr)?;
        let name = wanted.name().into();
        Ok(ListenerState::new(name, codec_name(wanted.codec()), address, wanted.policy()))
    };
    let beacon = |(wanted, sockets): (&BeaconListener, &Vec<UdpSocket>)| {
        let address = sockets.first().map_or(Ok(wanted.address()), UdpSocket::local_addr)?;
        Ok(ListenerState::new(wanted.name().into(), BEACON, address, wanted.policy()))
    };
    let streams = config.listeners.iter().zip(sockets).map(stream);
    streams.chain(config.beacons.iter().zip(beacons).map(beacon)).collect()
}

/// Returns the settings of the links of each stream listener.
fn link_settings(config: &Config, clock: Clock) -> std::io::Result<Vec<Settings>> {
    let boot_id = boot_id();
    let instance_id = instance_id()?;
    let wall_origin_ms = clock.wall_ms().saturating_sub(clock.monotonic().as_millis());
    let setting = |listener: &Listener| {
        let bounds = listener.bounds();
        Settings {
            role: listener.role(),
            limits: Limits { shortest_bound: *bounds.start(), longest_bound: *bounds.end() },
            handshake_timeout: config.handshake_timeout,
            max_data: listener.max_data(),
            boot_id,
            instance_id,
            wall_origin_ms,
            report_heartbeats: config.log.heartbeats,
            examines: true,
            hung: config.hung,
            logins: listener.sessions(),
            rates: listener.rates(),
            window: windows(listener),
            ..Settings::new(listener.codec(), Side::Accepting, listener.policy())
        }
    };
    Ok(config.listeners.iter().map(setting).collect())
}

/// Returns the windows of the sessions of a listener.
fn windows(listener: &Listener) -> Option<Windows> {
    let resume = listener.resume();
    listener.window().map(|limits| Windows {
        outlives: resume.window,
        full: resume.when_full,
        // Without a logic server, a message is taken when it has arrived.
        ..Windows::new(limits, Takes::AtOnce)
    })
}

/// Returns a shard's share of the sessions that may be away: one at least, since a limit of fewer
/// than there are shards does not say whose sessions end with their links.
fn away_share(limit: u64, shards: usize) -> u32 {
    u32::try_from(limit.div_ceil(shards.max(1) as u64)).unwrap_or(u32::MAX)
}

/// Returns a shard's share of a limit of the whole gateway in bytes.
fn share(limit: u64, shards: usize) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX) / shards.max(1)
}

/// Returns the random seed of one shard. The seed only spreads load and protects no secret, so the
/// keys of the standard hasher are sufficient.
pub(super) fn seed(index: usize) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(index)
}
