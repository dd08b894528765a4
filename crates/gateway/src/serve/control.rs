//! The control plane of a running gateway: reports, signals, and the drain.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use systole_core::{Span, hub};
use systole_net::Clock;
use tokio::net::TcpListener;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use super::announce::{announce, remove};
use super::error::ServeError;
use super::options::ServeOptions;
use super::reload::Reloader;
use super::signals::{Signal, Signals};
use super::start::Running;
use super::threads::run_aside;
use crate::admin;
use crate::config::Config;
use crate::gateway::{Gateway, Lifecycle};
use crate::ready::ReadyFile;
use crate::report::{Fact, Heartbeat, Reports};
use crate::stats::ShardStats;
use crate::store::Store;

/// Maximum number of reports in one batch; subscribers are woken once per batch.
const REPORT_BATCH: usize = 1_024;

/// Maximum number of log lines of heartbeats before other tasks may run: at 20 µs each, 1.3 ms.
const TELEMETRY_BATCH: usize = 64;

/// Interval at which the control plane looks whether there is anything to sum up in the log. Each
/// kind of line has a limit of its own beside this.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(1);

/// Interval at which a drain counts the open connections.
const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Longest wait, while the gateway stops, for a subscriber that does not read the last events.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Time from the stop of the shards after which no subscriber is waited for: one that reads slowly
/// must not keep the gateway up. A subscriber that keeps up takes a million events in this time.
const READS_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest time without an event while shards stop. Each shard reports the end of each link; as
/// long as events come, the stop goes on.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a gateway that stops still tells events to webhooks; the rest waits on disk.
const TELL_TIMEOUT: Span = Span::from_secs(2);

/// How long a gateway that stops waits for its disk.
const STORE_TIMEOUT: Span = Span::from_secs(10);

/// Runs the gateway until it is stopped; returns the shard threads, which have ended or are about
/// to end. However it ends, all facts of the shards and the ends of event streams are delivered.
pub(super) async fn run(
    running: Running,
    mut config: Config,
    options: ServeOptions,
    ready_file: Option<ReadyFile>,
) -> Result<Vec<JoinHandle<()>>, ServeError> {
    let Running { gateway, admin, clock, stats, reports, threads } = running;
    let mut signals = Signals::install().map_err(ServeError::Thread)?;
    let mut forwarders = JoinSet::new();
    for (shard, reports) in reports.into_iter().enumerate() {
        let Reports { facts, strangers, telemetry } = reports;
        forwarders.spawn(forward_facts(gateway.clone(), shard, facts, clock));
        tokio::spawn(forward_strangers(gateway.clone(), strangers));
        tokio::spawn(forward_telemetry(gateway.clone(), telemetry));
    }
    tokio::spawn(sum_up(gateway.clone(), clock));
    let writing = gateway.clone();
    tokio::spawn(async move { writing.write_failed_bans().await });
    let correlating = gateway.clone();
    tokio::spawn(async move { correlating.correlate().await });
    let admin = TcpListener::from_std(admin).map_err(ServeError::Thread)?;
    let address = admin.local_addr().map_err(ServeError::Thread)?;
    let subscribers = usize::try_from(config.limits.sse_subscribers).unwrap_or(usize::MAX);
    let token = config.admin.token().cloned();
    let tls = config.admin.tls().map(|tls| (**tls).clone());
    let api = admin::Api::new(gateway.clone(), token, subscribers).over(tls);
    let admin = tokio::spawn(admin::serve(admin, api, gateway.phase()));

    let mut reloader = Reloader::new(options.config_file, options.overrides);
    let announced = announce(&gateway, &config, address, ready_file).await;
    let (served, ready_file) = match announced {
        Ok(file) => {
            (serve(&gateway, &mut config, &mut reloader, &mut signals, &mut forwarders).await, file)
        }
        Err(error) => (Err(error), None),
    };
    let drained = match served {
        Ok(()) => tokio::select! {
            () = drain(&gateway, &stats, &config) => Ok(()),
            () = wait_for_stop(&mut signals) => Err(ServeError::Interrupted),
        },
        Err(error) => Err(error),
    };
    let stopped = tokio::select! {
        stopped = stop(&gateway, &mut forwarders) => stopped,
        () = wait_for_stop(&mut signals) => Err(ServeError::Interrupted),
    };
    gateway.advance(Lifecycle::Stopped);
    gateway.tell_all_strangers();
    tell_the_rest(&gateway).await;
    // Bounded by the admin interface itself; a panic there is in the log already.
    let _ = admin.await;
    remove(ready_file).await;
    drained.and(stopped)?;
    tracing::info!("drained");
    Ok(threads)
}

/// Handles signals until a drain is requested. That ends a reload too, which may wait for the file
/// system.
async fn serve(
    gateway: &Gateway,
    config: &mut Config,
    reloader: &mut Reloader,
    signals: &mut Signals,
    forwarders: &mut JoinSet<()>,
) -> Result<(), ServeError> {
    let mut phase = gateway.phase();
    let mut reloads = false;
    loop {
        let running = reloads;
        let reload = async {
            match running {
                true => reloader.reload(gateway, config).await,
                false => pending().await,
            }
        };
        let mut reload = pin!(reload);
        let mut again = false;
        reloads = loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::Stop => return Ok(()),
                    // The file may have changed since it was read.
                    Signal::Reload if running => again = true,
                    Signal::Reload => break true,
                },
                () = reload.as_mut() => break again,
                // The gateway holds the sender, so only a drain ends the wait.
                _ = phase.wait_for(|phase| *phase != Lifecycle::Running) => return Ok(()),
                _ = forwarders.join_next() => return Err(ServeError::ShardEnded),
            }
        };
    }
}

/// Forwards the facts of one shard to the gateway until the shard has ended.
async fn forward_facts(
    gateway: Arc<Gateway>,
    shard: usize,
    mut facts: Receiver<Fact>,
    clock: Clock,
) {
    let forward = async {
        let mut batch = Vec::new();
        while facts.recv_many(&mut batch, REPORT_BATCH).await > 0 {
            for fact in batch.drain(..) {
                gateway.room().await;
                gateway.note(fact);
            }
            gateway.events().wake();
        }
    };
    tokio::select! {
        () = forward => {}
        () = gateway.watch(shard, clock) => {}
    }
    gateway.look(shard, clock);
}

/// Forwards the connections of one shard that were never a session, and gives way after each short
/// batch: a flood of strangers holds up no fact.
async fn forward_strangers(gateway: Arc<Gateway>, mut strangers: Receiver<Fact>) {
    let mut batch = Vec::new();
    while strangers.recv_many(&mut batch, TELEMETRY_BATCH).await > 0 {
        batch.drain(..).for_each(|fact| gateway.note_stranger(fact));
        tokio::task::yield_now().await;
    }
}

/// Logs from time to time what is not logged one by one. Never ends.
async fn sum_up(gateway: Arc<Gateway>, clock: Clock) {
    let mut ticks = interval(SUMMARY_INTERVAL);
    loop {
        ticks.tick().await;
        gateway.tell_strangers(clock.monotonic());
        gateway.tell_refusals(clock.monotonic());
        gateway.logs().tell_dropped(clock.monotonic());
    }
}

/// Forwards the telemetry of one shard until the shard has ended. A task of its own, which gives
/// way after each short batch: a flood of heartbeat lines holds up no fact.
async fn forward_telemetry(gateway: Arc<Gateway>, mut telemetry: Receiver<Heartbeat>) {
    let mut batch = Vec::new();
    while telemetry.recv_many(&mut batch, TELEMETRY_BATCH).await > 0 {
        batch.drain(..).for_each(|heartbeat| gateway.logs().heartbeat(&heartbeat));
        tokio::task::yield_now().await;
    }
}

/// Closes all links, and waits until they are closed, at most for the drain limit.
async fn drain(gateway: &Gateway, stats: &[Arc<ShardStats>], config: &Config) {
    gateway.advance(Lifecycle::Draining);
    gateway.events().set_patience(READ_TIMEOUT);
    let limit = config.drain.limit;
    tracing::info!(links = links(stats), limit_ms = limit.as_millis(), "draining");
    let reconnect_within = config.drain.reconnect_within;
    let command = hub::HubCommand::Drain { limit, reconnect_within };
    // At the limit the links of a shard that is too busy are closed.
    let (stopped, told) = tokio::join!(gateway.stop_accepting(), gateway.command(command));
    if stopped.is_err() || told.is_err() {
        tracing::warn!("a shard is too busy to drain; its links will be closed at the limit");
    }
    let empty = async {
        let mut ticks = interval(DRAIN_POLL_INTERVAL);
        // Stopping earlier could lose a CLOSE that is still being sent. Beacons have no connection,
        // and leave in steps. While a listener is emptied, links come that are still to be drained.
        while listening(stats) > 0 || connections(stats) > 0 || links(stats) > 0 {
            ticks.tick().await;
        }
    };
    if timeout(Duration::from(limit), empty).await.is_err() {
        let connections = connections(stats);
        tracing::warn!(connections, "the drain limit has passed: closing what is open");
    }
}

/// Stops the shards, and waits until all of their facts are taken.
async fn stop(gateway: &Gateway, forwarders: &mut JoinSet<()>) -> Result<(), ServeError> {
    gateway.advance(Lifecycle::Draining);
    gateway.store().into_iter().for_each(Store::begin_stop);
    gateway.events().set_patience(READ_TIMEOUT);
    let stopped = gateway.stop().await;
    let taken = async {
        loop {
            let before = gateway.events().last();
            let ended = async { while forwarders.join_next().await.is_some() {} };
            match timeout(STOP_TIMEOUT, ended).await {
                Ok(()) => return Ok(()),
                Err(_) if stopped.is_ok() && gateway.events().last() > before => {}
                Err(_) => return Err(ServeError::ShardStuck),
            }
        }
    };
    let mut taken = pin!(taken);
    match timeout(READS_TIMEOUT, taken.as_mut()).await {
        Ok(taken) => taken,
        Err(_) => {
            gateway.events().set_patience(Duration::ZERO);
            taken.await
        }
    }
}

/// Tells what is left to those who are told about sessions, for a limited time, and closes the
/// store. What is not told waits there.
async fn tell_the_rest(gateway: &Arc<Gateway>) {
    let Some(store) = gateway.store().cloned() else {
        return;
    };
    let mut ticks = interval(DRAIN_POLL_INTERVAL);
    let flushing = store.clone();
    let flushed = run_aside("flush", move || flushing.flush());
    let told = async {
        // Without a thread the senders find later what is still on its way into the store.
        if let Ok(flushed) = flushed {
            let _ = flushed.await;
        }
        // Each as soon as it has nothing more to carry now.
        while !gateway.senders().iter().all(|sender| sender.stop(TELL_TIMEOUT)) {
            ticks.tick().await;
        }
    };
    // What is under way to a receiver that hangs takes longer: it comes again after the start.
    let _ = timeout(Duration::from(TELL_TIMEOUT), told).await;
    let left = store.stats().entries.get();
    let stopping = store.clone();
    let is_stopped = match run_aside("stop", move || stopping.stop(STORE_TIMEOUT)) {
        Ok(stopped) => stopped.await.unwrap_or(false),
        // Nothing else is left to be done meanwhile.
        Err(_) => store.stop(STORE_TIMEOUT),
    };
    if !is_stopped {
        let hint = "after the next start some sessions leave as lost with the gateway";
        tracing::error!(hint, "the store could not be written to the end");
    } else if left > 0 {
        tracing::info!(left, "events wait on disk for webhooks");
    }
}

fn links(stats: &[Arc<ShardStats>]) -> u64 {
    stats.iter().map(|shard| shard.links.get()).sum()
}

fn connections(stats: &[Arc<ShardStats>]) -> u64 {
    stats.iter().map(|shard| shard.connections.get()).sum()
}

fn listening(stats: &[Arc<ShardStats>]) -> u64 {
    stats.iter().map(|shard| shard.listening.get()).sum()
}

/// Waits for a stop signal.
async fn wait_for_stop(signals: &mut Signals) {
    while signals.next().await != Signal::Stop {}
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc::sync_channel;

    use systole_core::Span;
    use systole_core::wire::{BootId, InstanceId};
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

    use super::*;
    use crate::config::Log;
    use crate::events::{Body, Events, Names};
    use crate::logs::Logs;
    use crate::metrics::Metrics;
    use crate::report::channels;
    use crate::report::tests::{joined, left, reset, returned};
    use crate::request::{Request, Requests};
    use crate::stats::Distributions;
    use crate::wake::wake_ups;

    fn gateway() -> Gateway {
        gateway_of(Vec::new(), Vec::new(), Logs::detached(&Log::default()))
    }

    /// The number of events that the gateways of these tests keep.
    const KEPT: usize = 64;

    fn gateway_of(shards: Vec<Requests>, stats: Vec<Arc<ShardStats>>, logs: Logs) -> Gateway {
        let names = Names {
            listeners: Vec::new(),
            descriptors: None,
            max_links: 1,
            links_by_descriptors: false,
        };
        let metrics = Metrics::new(
            Vec::new(),
            Vec::new(),
            &Distributions::default(),
            Clock::start(),
            logs.clone(),
        );
        Gateway::new(shards, stats, Vec::new(), Events::new(KEPT, 1, names), metrics, logs)
    }

    /// Forwards one event at a time, with a wait of `pause` before each.
    async fn forward_slowly(events: Events, count: u32, pause: Duration) {
        for _ in 0..count {
            tokio::time::sleep(pause).await;
            events.publish_body(0, Body::AcceptingResumed { shard: 0 });
        }
    }

    /// Counts the lines of a log, each of which takes as long as one to a terminal.
    struct SlowLines(Arc<AtomicU64>);

    impl<S: tracing::Subscriber> Layer<S> for SlowLines {
        fn on_event(&self, _: &tracing::Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, Ordering::SeqCst);
            let clock = Clock::start();
            while clock.monotonic() < Span::from_micros(20) {}
        }
    }

    #[tokio::test]
    async fn a_fact_does_not_wait_behind_a_flood_of_heartbeat_lines() {
        let lines = Arc::new(AtomicU64::new(0));
        let log = tracing_subscriber::registry().with(SlowLines(lines.clone()));
        let _guard = tracing::subscriber::set_default(log);
        let logs = Logs::detached(&Log { heartbeats: true, ..Log::default() });
        let gateway = Arc::new(gateway_of(Vec::new(), Vec::new(), logs));
        let (senders, Reports { facts, telemetry, .. }) = channels(16);
        let heard = gateway.clone();
        let shard = std::thread::spawn(move || {
            let mut most = 0;
            for session in 0..10 {
                let before = lines.load(Ordering::SeqCst);
                senders.facts.blocking_send(joined(session)).unwrap();
                while heard.events().last() <= session {
                    let _ = senders.telemetry.try_send(Heartbeat::example());
                }
                most = most.max(lines.load(Ordering::SeqCst) - before);
            }
            most
        });
        tokio::spawn(forward_telemetry(gateway.clone(), telemetry));
        forward_facts(gateway, 0, facts, Clock::start()).await;
        let most = shard.join().unwrap();
        assert!(most <= 10 * TELEMETRY_BATCH as u64, "{most} heartbeat lines before a fact");
    }

    /// Sets the host of a fact: facts of one host are correlated.
    fn of_host(host: u8, fact: Fact) -> Fact {
        let Fact { mut subject, .. } = fact;
        subject.identity = format!("peer {host}").into();
        subject.boot_id = BootId([host; 16]);
        subject.instance_id = InstanceId([host; 16]);
        Fact { subject, ..fact }
    }

    #[test]
    fn a_revised_verdict_comes_after_its_leave_although_two_shards_report_at_once() {
        const ROUNDS: u64 = 20_000;
        let gateway = gateway();
        let mut subscriber = gateway.events().subscribe();
        let (begun, left, seen) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let wait_for = |round: u64, cell: &AtomicU64| {
            while cell.load(Ordering::SeqCst) < round {
                std::thread::yield_now();
            }
        };
        let (mut revised, mut too_early) = (0, 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 1..=ROUNDS {
                    begun.store(round, Ordering::SeqCst);
                    gateway.note(of_host(1, reset(2 * round)));
                    left.store(round, Ordering::SeqCst);
                    wait_for(round, &seen);
                }
            });
            for round in 1..=ROUNDS {
                let fact = of_host(1, returned(2 * round + 1, 2 * round));
                wait_for(round, &begun);
                // The join falls into each part of the other call.
                (0..round % 256).for_each(|_| std::hint::spin_loop());
                gateway.note(fact);
                wait_for(round, &left);
                let events = subscriber.ready().unwrap();
                seen.store(round, Ordering::SeqCst);
                let place = |kind| events.iter().position(|event| event.body.kind() == kind);
                if let Some(revision) = place("verdict_revised") {
                    revised += 1;
                    too_early += u64::from(place("leave").is_none_or(|leave| leave > revision));
                }
            }
        });
        assert!(revised > 0, "no verdict was revised");
        assert_eq!(too_early, 0, "of {revised} revisions");
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_shard_does_not_keep_the_others_from_draining() {
        let poll = mio::Poll::new().unwrap();
        let (waker, _wake_ups) = wake_ups(poll.registry(), mio::Token(1)).unwrap();
        let (busy, _unread) = sync_channel(1);
        busy.try_send(Request::StopAccepting).unwrap();
        let (free, received) = sync_channel(16);
        let shards = [busy, free].map(|sender| Requests::new(sender, waker.clone()));
        let stats: Vec<Arc<ShardStats>> = vec![Arc::default(), Arc::default()];
        stats[1].links.set(1);
        let logs = Logs::detached(&Log::default());
        let gateway = gateway_of(shards.into(), stats.clone(), logs);
        drain(&gateway, &stats, &Config::default()).await;
        let received: Vec<_> = received.try_iter().collect();
        assert!(
            matches!(received[..], [Request::StopAccepting, Request::Command(_)]),
            "{received:?}"
        );
    }

    /// Stops a gateway with `leaves` sessions, whose facts wait in their channel.
    async fn stop_with(gateway: &Arc<Gateway>, leaves: u64) {
        let (senders, Reports { facts, .. }) = channels(leaves as usize);
        (0..leaves).for_each(|session| senders.facts.try_send(left(session)).unwrap());
        drop(senders);
        let mut forwarders = JoinSet::new();
        forwarders.spawn(forward_facts(gateway.clone(), 0, facts, Clock::start()));
        stop(gateway, &mut forwarders).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscriber_that_reads_gets_all_events_of_a_stop() {
        let gateway = Arc::new(gateway());
        let mut subscriber = gateway.events().subscribe();
        let reader = tokio::spawn(async move {
            let mut leaves = 0;
            while leaves < 5_000 {
                let batch = subscriber.next().await?;
                leaves += batch.iter().filter(|event| event.body.kind() == "leave").count();
            }
            Ok::<_, crate::events::Gap>(leaves)
        });
        stop_with(&gateway, 5_000).await;
        assert_eq!(reader.await.unwrap(), Ok(5_000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscriber_that_does_not_read_delays_a_stop_once_and_by_no_more_than_the_limit() {
        let gateway = Arc::new(gateway());
        let _silent = [gateway.events().subscribe(), gateway.events().subscribe()];
        let short = Duration::from_millis(10);
        let stopped = timeout(READ_TIMEOUT + short, stop_with(&gateway, 5_000)).await;
        stopped.expect("the stop is delayed for longer");
        assert_eq!(gateway.events().last(), 5_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscriber_that_reads_slowly_does_not_keep_the_gateway_up() {
        let gateway = Arc::new(gateway());
        let mut slow = gateway.events().subscribe();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(READ_TIMEOUT / 2).await;
                let _ = slow.ready();
            }
        });
        let longest = READS_TIMEOUT + READ_TIMEOUT;
        timeout(longest, stop_with(&gateway, 5_000)).await.expect("the stop is delayed for longer");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_as_long_as_events_come() {
        for (pause, is_delivered) in [(STOP_TIMEOUT / 2, true), (STOP_TIMEOUT * 2, false)] {
            let gateway = gateway();
            let mut forwarders = JoinSet::new();
            forwarders.spawn(forward_slowly(gateway.events().clone(), 20, pause));
            let stopped = stop(&gateway, &mut forwarders).await;
            assert_eq!(stopped.is_ok(), is_delivered, "{stopped:?}");
            assert_eq!(gateway.events().last() == 20, is_delivered);
        }
    }
}
