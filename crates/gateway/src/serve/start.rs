//! Binds the sockets and starts the shards.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{JoinHandle, available_parallelism};

use systole_core::hub::MAX_LINKS;
use systole_core::link::{Limits, Settings, Side};
use systole_net::listener::MAX_SHARDS;
use systole_net::{Clock, identity, limits, listener};
use tokio::sync::mpsc::{self, Receiver};

use super::error::ServeError;
use crate::admin::SPARE_CONNECTIONS;
use crate::config::{Config, Listener, Logic, Shards, codec_name};
use crate::epochs::Epochs;
use crate::events::{Events, Names};
use crate::gateway::{Gateway, ListenerState};
use crate::logs::Logs;
use crate::metrics::Metrics;
use crate::report::{REPORTS, Report};
use crate::shard::{self, ShardSetup};
use crate::stats::{Distributions, ShardStats};

/// Descriptors kept for what is neither a client nor an operator: polls, pipes, files.
const OWN_DESCRIPTORS: u64 = 32;

/// The queue of the admin listener: people and scrapers come one by one.
const ADMIN_BACKLOG: i32 = 128;

/// Sockets that listen already, for shards that do not run yet.
#[derive(Debug)]
pub(super) struct Bound {
    admin: TcpListener,
    /// For each listener, its sockets, one per shard.
    listeners: Vec<Vec<TcpListener>>,
    shards: usize,
}

/// A gateway whose shards run.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) gateway: Arc<Gateway>,
    pub(super) admin: TcpListener,
    pub(super) clock: Clock,
    pub(super) stats: Vec<Arc<ShardStats>>,
    pub(super) reports: Vec<Receiver<Report>>,
    pub(super) threads: Vec<JoinHandle<()>>,
}

/// Binds everything, or nothing.
pub(super) fn bind(config: &Config) -> Result<Bound, ServeError> {
    let shards = match config.shards {
        Shards::Auto => available_parallelism().map_or(1, usize::from).min(MAX_SHARDS),
        Shards::Exactly(number) => number.into(),
    };
    let failed = |what: &str, address| {
        let what = what.to_owned();
        move |error| ServeError::Bind { what, address, error }
    };
    let address = config.admin.address();
    let admin = listener::bind(address, ADMIN_BACKLOG, false)
        .map_err(failed("the admin interface", address))?;
    let mut listeners = Vec::new();
    for wanted in &config.listeners {
        let address = wanted.address();
        let what = format!("listener \"{}\"", wanted.name());
        let sockets = listener::bind_shards(address, shards).map_err(failed(&what, address))?;
        listeners.push(sockets);
    }
    Ok(Bound { admin, listeners, shards })
}

/// Starts the shards. If one cannot be started, those that were end with their handles.
pub(super) fn start(config: &Config, bound: Bound, logs: Logs) -> Result<Running, ServeError> {
    let Bound { admin, listeners: sockets, shards } = bound;
    let clock = Clock::start();
    let room = Room::find(config, shards);
    let epochs = Arc::new(Epochs::new(clock.wall_ms()));
    let distributions = Distributions::default();
    let stats: Vec<Arc<ShardStats>> = (0..shards).map(|_| Arc::default()).collect();
    let states = states(config, &sockets).map_err(ServeError::Thread)?;
    let settings = settings(config, clock).map_err(ServeError::Thread)?;
    let mut sockets: Vec<_> = sockets.into_iter().map(Vec::into_iter).collect();
    let (mut requests, mut reports, mut threads) = (Vec::new(), Vec::new(), Vec::new());
    for (index, stats) in stats.iter().enumerate() {
        let own = sockets.iter_mut().filter_map(Iterator::next);
        let (sender, receiver) = mpsc::channel(REPORTS);
        let setup = ShardSetup {
            index: u8::try_from(index).unwrap_or(u8::MAX),
            listeners: own.zip(settings.iter().cloned()).collect(),
            clock,
            seed: seed(index),
            max_links: room.links_per_shard,
            outbox_limit: usize::try_from(config.limits.outbox).unwrap_or(usize::MAX),
            echo: config.logic == Logic::Echo,
            epochs: epochs.clone(),
            reports: sender,
            stats: stats.clone(),
            distributions: distributions.clone(),
        };
        let shard = shard::spawn(setup).map_err(ServeError::Thread)?;
        requests.push(shard.requests);
        threads.push(shard.thread);
        reports.push(receiver);
    }
    let names = Names {
        listeners: states.iter().map(|state| state.name.clone()).collect(),
        descriptors: room.descriptors,
        max_links: u64::from(room.links_per_shard),
        links_by_descriptors: room.by_descriptors,
    };
    let kept = usize::try_from(config.limits.events).unwrap_or(usize::MAX);
    let events = Events::new(kept, clock.wall_ms(), names);
    let metrics = Metrics::new(stats.clone(), &distributions, clock);
    let gateway = Arc::new(Gateway::new(requests, states, events, metrics, logs));
    Ok(Running { gateway, admin, clock, stats, reports, threads })
}

/// How many links there is room for.
struct Room {
    descriptors: Option<u64>,
    links_per_shard: u32,
    by_descriptors: bool,
}

impl Room {
    /// Links may take what the descriptor limit leaves after all else, so that operators can still
    /// connect when clients have taken the rest.
    fn find(config: &Config, shards: usize) -> Room {
        let limit = limits::raise_descriptor_limit().unwrap_or_else(|error| {
            tracing::warn!(%error, "the limit on open files stays as it is");
            limits::descriptor_limit()
        });
        let subscribers = config.limits.sse_subscribers.saturating_add(SPARE_CONNECTIONS as u64);
        let per_shard = config.listeners.len() as u64 + 2;
        let own = subscribers.saturating_add(per_shard * shards as u64) + OWN_DESCRIPTORS;
        // A tiny limit is halved: better few links than none.
        let left = limit.soft.map(|limit| limit - own.min(limit / 2));
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
        let share = links.div_ceil(shards as u64).clamp(1, u64::from(MAX_LINKS));
        let links_per_shard = u32::try_from(share).unwrap_or(MAX_LINKS);
        Room { descriptors: limit.soft, links_per_shard, by_descriptors }
    }
}

fn states(config: &Config, sockets: &[Vec<TcpListener>]) -> std::io::Result<Vec<ListenerState>> {
    let state = |(wanted, sockets): (&Listener, &Vec<TcpListener>)| {
        let address: SocketAddr =
            sockets.first().map_or(Ok(wanted.address()), TcpListener::local_addr)?;
        let name = wanted.name().into();
        Ok(ListenerState::new(name, codec_name(wanted.codec()), address, wanted.policy()))
    };
    config.listeners.iter().zip(sockets).map(state).collect()
}

/// How each listener behaves.
fn settings(config: &Config, clock: Clock) -> std::io::Result<Vec<Settings>> {
    let boot_id = identity::boot_id();
    let instance_id = identity::instance_id()?;
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
            ..Settings::new(listener.codec(), Side::Accepting, listener.policy())
        }
    };
    Ok(config.listeners.iter().map(setting).collect())
}

/// Chance for one shard: it spreads load and guards nothing, so the hasher's keys are good enough.
fn seed(index: usize) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(index)
}
