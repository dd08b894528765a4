//! The control plane of a running gateway: reports, signals, and the drain.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use systole_core::hub;
use systole_net::Clock;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use super::error::ServeError;
use super::options::ServeOptions;
use super::reload;
use super::signals::{Signal, Signals};
use super::start::Running;
use crate::admin;
use crate::config::Config;
use crate::gateway::{Gateway, Lifecycle, ListenerState};
use crate::ready::{Ready, ReadyListener};
use crate::report::Reports;
use crate::stats::ShardStats;

/// Maximum number of reports in one batch; subscribers are woken once per batch.
const REPORT_BATCH: usize = 1_024;

/// Interval at which a drain counts the open connections.
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Interval at which dropped telemetry is looked for, to log it even if nothing follows.
const DROPPED_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Time limit for a shard to stop: it closes every open link and reports each of them.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the gateway until it is drained; returns the shard threads, which have ended or are about
/// to end.
pub(super) async fn run(
    running: Running,
    mut config: Config,
    options: ServeOptions,
) -> Result<Vec<JoinHandle<()>>, ServeError> {
    let Running { gateway, admin, clock, stats, reports, threads } = running;
    let mut signals = Signals::install().map_err(ServeError::Thread)?;
    let mut forwarders = JoinSet::new();
    for (shard, receiver) in reports.into_iter().enumerate() {
        forwarders.spawn(forward_reports(gateway.clone(), shard, receiver, clock));
    }
    let correlating = gateway.clone();
    tokio::spawn(async move { correlating.correlate().await });
    let admin = TcpListener::from_std(admin).map_err(ServeError::Thread)?;
    let address = admin.local_addr().map_err(ServeError::Thread)?;
    let subscribers = usize::try_from(config.limits.sse_subscribers).unwrap_or(usize::MAX);
    let token = config.admin.token().cloned();
    let router = admin::router(gateway.clone(), token, subscribers);
    let connections = subscribers.saturating_add(admin::SPARE_CONNECTIONS);
    let phase = gateway.phase();
    let admin = tokio::spawn(admin::serve(admin, router, connections, phase));
    announce(&gateway, address, &options)?;

    let mut phase = gateway.phase();
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Stop => break,
                Signal::Reload => reload::reload(&gateway, &mut config, &options).await,
            },
            // The gateway holds the sender, so only a drain ends the wait.
            _ = phase.wait_for(|phase| *phase != Lifecycle::Running) => break,
            _ = forwarders.join_next() => return Err(ServeError::ShardEnded),
        }
    }
    tokio::select! {
        drained = drain(&gateway, &stats, &config, &mut forwarders) => drained?,
        () = wait_for_stop(&mut signals) => return Err(ServeError::Interrupted),
    }
    // Bounded by the admin interface itself; a panic there is in the log already.
    let _ = admin.await;
    Ok(threads)
}

/// Forwards the facts and the telemetry of one shard to the gateway until the shard has ended.
async fn forward_reports(gateway: Arc<Gateway>, shard: usize, reports: Reports, clock: Clock) {
    let Reports { mut facts, mut telemetry } = reports;
    let heartbeats = async {
        let mut batch = Vec::new();
        let mut dropped = 0;
        let mut ticks = interval(DROPPED_CHECK_INTERVAL);
        loop {
            tokio::select! {
                count = telemetry.recv_many(&mut batch, REPORT_BATCH) => {
                    if count == 0 {
                        // The shard has ended; the facts say so.
                        return std::future::pending::<()>().await;
                    }
                    batch.drain(..).for_each(|heartbeat| gateway.logs().heartbeat(&heartbeat));
                }
                _ = ticks.tick() => dropped = gateway.log_dropped(shard, dropped),
            }
        }
    };
    let forward = async {
        let mut batch = Vec::new();
        while facts.recv_many(&mut batch, REPORT_BATCH).await > 0 {
            let wall_ms = clock.wall_ms();
            for fact in batch.drain(..) {
                gateway.note(shard, fact, wall_ms);
            }
            gateway.events().wake();
        }
    };
    tokio::select! {
        () = forward => {}
        () = heartbeats => {}
    }
}

/// Logs the addresses of the gateway and writes the ready file.
fn announce(
    gateway: &Gateway,
    admin: std::net::SocketAddr,
    options: &ServeOptions,
) -> Result<(), ServeError> {
    for listener in gateway.listeners() {
        let ListenerState { name, codec, address, .. } = listener;
        tracing::info!(%name, codec, %address, policy = %listener.policy(), "listening");
    }
    tracing::info!(address = %admin, "admin interface");
    let Some(path) = &options.ready_file else {
        return Ok(());
    };
    let listeners = gateway.listeners().iter().map(|listener| ReadyListener {
        name: listener.name.to_string(),
        codec: listener.codec.to_owned(),
        address: listener.address,
    });
    let ready = Ready { pid: std::process::id(), admin, listeners: listeners.collect() };
    ready.write(path).map_err(|error| ServeError::ReadyFile { path: path.clone(), error })
}

/// Closes all links within the drain limit and stops the shards.
async fn drain(
    gateway: &Gateway,
    stats: &[Arc<ShardStats>],
    config: &Config,
    forwarders: &mut JoinSet<()>,
) -> Result<(), ServeError> {
    gateway.advance(Lifecycle::Draining);
    let limit = config.drain.limit;
    tracing::info!(links = links(stats), limit_ms = limit.as_millis(), "draining");
    let reconnect_within = config.drain.reconnect_within;
    let command = hub::HubCommand::Drain { limit, reconnect_within };
    // At the limit the links of a shard that is too busy are closed without CLOSE.
    if gateway.stop_accepting().await.is_err() || gateway.command(command).await.is_err() {
        tracing::warn!("a shard is too busy to drain; its links will be closed at the limit");
    }
    let empty = async {
        let mut ticks = interval(DRAIN_POLL_INTERVAL);
        // Stopping earlier could lose a CLOSE that is still being sent. Beacons have no connection,
        // and leave in steps.
        while connections(stats) > 0 || links(stats) > 0 {
            ticks.tick().await;
        }
    };
    if timeout(Duration::from(limit), empty).await.is_err() {
        let connections = connections(stats);
        tracing::warn!(connections, "the drain limit has passed: closing what is open");
    }
    gateway.stop().await.map_err(|_| ServeError::ShardStuck)?;
    let ended = async { while forwarders.join_next().await.is_some() {} };
    timeout(STOP_TIMEOUT, ended).await.map_err(|_| ServeError::ShardStuck)?;
    gateway.advance(Lifecycle::Stopped);
    tracing::info!("drained");
    Ok(())
}

fn links(stats: &[Arc<ShardStats>]) -> u64 {
    stats.iter().map(|shard| shard.links.get()).sum()
}

fn connections(stats: &[Arc<ShardStats>]) -> u64 {
    stats.iter().map(|shard| shard.connections.get()).sum()
}

/// Waits for a stop signal.
async fn wait_for_stop(signals: &mut Signals) {
    while signals.next().await != Signal::Stop {}
}
