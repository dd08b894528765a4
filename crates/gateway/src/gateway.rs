//! The handle through which the control plane queries and controls the shards.

mod ask;
pub(crate) mod ban;
mod facts;
mod left_behind;
mod reach;
mod refusals;
mod siblings;
mod strangers;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use systole_core::{Policy, Span, hub};
use systole_net::Clock;
use tokio::sync::{broadcast, watch};
use tokio::time::{sleep, timeout};

use crate::bans::Bans;
use crate::correlation::{Correlation, Questions};
use crate::events::{Events, Limit};
use crate::logs::Logs;
use crate::metrics::Metrics;
use crate::report::Shown;
use crate::request::{Filter, Order, Page, Refused, Request, Requests, SESSIONS_PER_PAGE, Story};
use crate::shard_watch::{Changes, LOOK_INTERVAL, ShardWatch};
use crate::stats::ShardStats;
use crate::store::Store;
use crate::verdicts::{STRANGERS, VERDICTS, Verdicts};
use crate::webhooks::Sender;
use ask::ask;
pub(crate) use reach::{Known, reached};
use refusals::Refusals;
pub(crate) use strangers::Stranger;
use strangers::Strangers;

/// Longest wait for a shard's answer. A turn of its loop takes milliseconds, so a shard that takes
/// longer is stalled, and the caller should know.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Maximum number of requests for one page of sessions, so that a filter with few matches does not
/// search all links at once; the cursor continues where the search stopped.
pub const ASKS_PER_PAGE: usize = 32;

/// The wait before a request to a busy shard is repeated.
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// The phase of a gateway's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lifecycle {
    /// The gateway serves.
    Running,
    /// The gateway drains: it accepts no new connections.
    Draining,
    /// All shards have ended and all reports are published.
    Stopped,
}

/// One listener, as the control plane sees it.
#[derive(Debug)]
pub struct ListenerState {
    /// The listener's name in the configuration.
    pub name: Arc<str>,
    /// The name of the codec that clients use.
    pub codec: &'static str,
    /// The address that clients connect to.
    pub address: SocketAddr,
    policy: Mutex<InForce>,
}

/// The policy of a listener.
#[derive(Clone, Copy, Debug)]
struct InForce {
    policy: Policy,
    /// Whether all shards have it; not so after a retune that failed at some of them.
    everywhere: bool,
}

impl ListenerState {
    /// Makes a listener that starts with `policy`.
    pub fn new(
        name: Arc<str>,
        codec: &'static str,
        address: SocketAddr,
        policy: Policy,
    ) -> ListenerState {
        let in_force = InForce { policy, everywhere: true };
        ListenerState { name, codec, address, policy: Mutex::new(in_force) }
    }

    /// Returns the policy in force.
    pub fn policy(&self) -> Policy {
        self.in_force().policy
    }

    /// Returns whether `policy` is in force at all shards.
    pub(crate) fn has_policy(&self, policy: Policy) -> bool {
        let held = self.in_force();
        held.everywhere && held.policy == policy
    }

    fn in_force(&self) -> MutexGuard<'_, InForce> {
        self.policy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running gateway, as its control plane sees it.
#[derive(Debug)]
pub struct Gateway {
    shards: Vec<Requests>,
    stats: Vec<Arc<ShardStats>>,
    watches: Vec<Mutex<ShardWatch>>,
    /// Held while a command goes to all shards: two commands at once reach all in one order.
    fan_out: tokio::sync::Mutex<()>,
    /// Held while a message goes to all sessions.
    broadcasting: tokio::sync::Mutex<()>,
    listeners: Vec<ListenerState>,
    events: Events,
    verdicts: Verdicts,
    refusals: Mutex<Refusals>,
    strangers: Mutex<Strangers>,
    stranger_feed: broadcast::Sender<Arc<Stranger>>,
    metrics: Metrics,
    logs: Logs,
    correlation: Correlation,
    /// Held from correlation to publication, so that findings follow the facts that they rest on.
    in_order: Mutex<()>,
    questions: Questions,
    /// Where events are written for those who are told; `None` if nobody is.
    store: Option<Store>,
    senders: Vec<Sender>,
    bans: Arc<Bans>,
    phase: watch::Sender<Lifecycle>,
}

/// The reason why a shard gave no answer. The gateway's fault, not the caller's; the sessions are
/// unharmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShardUnavailable {
    /// The shard refused the request or was too slow to answer: try again.
    Busy,
    /// The shard has ended: the gateway is stopping.
    Gone,
}

/// The position at which a listing of sessions continues.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cursor {
    /// The shard.
    pub shard: usize,
    /// The shard's first link not yet examined.
    pub link: u32,
}

impl Gateway {
    /// Makes a gateway of shards and listeners, each in the order of its index.
    pub fn new(
        shards: Vec<Requests>,
        stats: Vec<Arc<ShardStats>>,
        listeners: Vec<ListenerState>,
        events: Events,
        metrics: Metrics,
        logs: Logs,
    ) -> Gateway {
        let phase = watch::Sender::new(Lifecycle::Running);
        let (correlation, questions) = Correlation::new(events.names().clone());
        let questions = Mutex::new(Some(questions));
        Gateway {
            shards,
            watches: stats.iter().map(|_| Mutex::default()).collect(),
            stats,
            fan_out: tokio::sync::Mutex::default(),
            broadcasting: tokio::sync::Mutex::default(),
            listeners,
            events,
            verdicts: Verdicts::new(VERDICTS, STRANGERS),
            refusals: Mutex::default(),
            strangers: Mutex::default(),
            stranger_feed: strangers::feed(),
            metrics,
            logs,
            correlation,
            in_order: Mutex::default(),
            questions,
            store: None,
            senders: Vec::new(),
            bans: Arc::new(Bans::new(Clock::start())),
            phase,
        }
    }

    /// Lets events be written for those who are told, and carried to them.
    pub(crate) fn with_store(self, store: Option<Store>, senders: Vec<Sender>) -> Gateway {
        Gateway { store, senders, ..self }
    }

    /// Lets the shards and this handle share their bans.
    pub(crate) fn with_bans(self, bans: Arc<Bans>) -> Gateway {
        Gateway { bans, ..self }
    }

    /// Returns who may have no session.
    pub(crate) fn bans(&self) -> &Bans {
        &self.bans
    }

    /// Returns those who are told about sessions.
    pub(crate) fn senders(&self) -> &[Sender] {
        &self.senders
    }

    /// Returns where events are written for those who are told.
    pub fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// Waits until there is room for a fact.
    pub(crate) async fn room(&self) {
        self.events.room().await;
        if let Some(store) = &self.store {
            store.room().await;
        }
    }

    /// Returns the listeners, by index.
    pub fn listeners(&self) -> &[ListenerState] {
        &self.listeners
    }

    /// Returns the index of the listener called `name`.
    pub fn listener(&self, name: &str) -> Option<u16> {
        let index = self.listeners.iter().position(|listener| *listener.name == *name)?;
        u16::try_from(index).ok()
    }

    /// Returns the name of a listener; empty for an unknown index.
    pub fn listener_name(&self, index: u16) -> Arc<str> {
        self.events.names().listeners.get(usize::from(index)).cloned().unwrap_or_default()
    }

    /// Returns the published events.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Returns the last verdicts.
    pub fn verdicts(&self) -> &Verdicts {
        &self.verdicts
    }

    /// Returns the metrics.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Returns the logs.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// Returns the phase of the gateway, to read and to wait for.
    pub fn phase(&self) -> watch::Receiver<Lifecycle> {
        self.phase.subscribe()
    }

    /// Advances to `phase`; never goes back.
    pub fn advance(&self, phase: Lifecycle) {
        self.phase.send_if_modified(|now| {
            let is_later = phase as u8 > *now as u8;
            if is_later {
                *now = phase;
            }
            is_later
        });
    }

    /// Returns the first shard that accepts no connections, and the limit at which accepting is
    /// paused; `None` if all shards accept.
    pub(crate) fn paused(&self) -> Option<(usize, Limit)> {
        let mut shards = self.stats.iter().enumerate();
        shards.find_map(|(shard, stats)| {
            Some((shard, self.events.names().limit(stats.accepting.paused()?)))
        })
    }

    /// Publishes and logs what changed in the state of a shard since the last look. Returns when to
    /// look again even if nothing changes, on the monotonic clock.
    pub(crate) fn look(&self, shard: usize, clock: Clock) -> Option<Span> {
        let (stats, watch) = self.stats.get(shard).zip(self.watches.get(shard))?;
        let mut watch = watch.lock().unwrap_or_else(PoisonError::into_inner);
        let Changes { bodies, dropped, again_at } =
            watch.look(shard, stats, self.events.names(), clock.monotonic());
        for body in bodies {
            let event = self.events.publish_body(clock.wall_ms(), body);
            self.logs.event(&event);
        }
        if dropped > 0 {
            self.logs.dropped(shard, dropped);
        }
        self.events.wake();
        again_at
    }

    /// Looks at a shard whenever its state changes. Never ends.
    pub(crate) async fn watch(&self, shard: usize, clock: Clock) {
        let Some(stats) = self.stats.get(shard) else {
            return std::future::pending().await;
        };
        loop {
            let again_at = self.look(shard, clock);
            sleep(LOOK_INTERVAL).await;
            let changed = stats.changed.notified();
            match again_at {
                Some(at) => drop(timeout(at.less(clock.monotonic()).into(), changed).await),
                None => changed.await,
            }
        }
    }

    /// Returns at most `limit` sessions from `cursor` on, and the cursor of the next page. A page
    /// may hold fewer sessions, even none, and still have a successor.
    ///
    /// # Errors
    /// A shard gave no answer in time.
    pub async fn sessions(
        &self,
        filter: &Filter,
        mut cursor: Cursor,
        limit: usize,
    ) -> Result<(Page, Option<Cursor>), ShardUnavailable> {
        let mut found = Page::default();
        for _ in 0..ASKS_PER_PAGE {
            let Some(shard) = self.shards.get(cursor.shard) else {
                return Ok((found, None));
            };
            let has = found.sessions.len() + found.away.len();
            let limit = limit.saturating_sub(has).min(SESSIONS_PER_PAGE);
            if limit == 0 {
                break;
            }
            let filter = filter.clone();
            let Page { sessions, away, next } =
                ask(shard, |reply| Request::Sessions { from: cursor.link, limit, filter, reply })
                    .await?;
            found.sessions.extend(sessions);
            found.away.extend(away);
            cursor = match next {
                Some(link) => Cursor { link, ..cursor },
                None => Cursor { shard: cursor.shard + 1, link: 0 },
            };
        }
        let next = (cursor.shard < self.shards.len()).then_some(cursor);
        Ok((found, next))
    }

    /// Returns one session; `None` if it is neither online nor away.
    ///
    /// # Errors
    /// The session's shard gave no answer in time.
    pub async fn session(&self, session: u64) -> Result<Option<Shown>, ShardUnavailable> {
        match self.shard_of(session) {
            Some(shard) => ask(shard, |reply| Request::Session { session, reply }).await,
            None => Ok(None),
        }
    }

    /// Returns the recent history of a session; `None` if it is neither online nor away.
    ///
    /// # Errors
    /// The session's shard gave no answer in time.
    pub async fn story(&self, session: u64) -> Result<Option<Box<Story>>, ShardUnavailable> {
        match self.shard_of(session) {
            Some(shard) => ask(shard, |reply| Request::Story { session, reply }).await,
            None => Ok(None),
        }
    }

    /// Gives an order to one session. Returns `false` if the session is not online, unless it is
    /// away and the order ends it.
    ///
    /// # Errors
    /// The session's shard gave no answer in time; the order may still have been carried out.
    pub async fn order(&self, session: u64, order: Order) -> Result<bool, ShardUnavailable> {
        match self.shard_of(session) {
            Some(shard) => ask(shard, |reply| Request::Order { session, order, reply }).await,
            None => Ok(false),
        }
    }

    /// Puts the policy that `change` makes of the present one in force, for all present and future
    /// sessions of a listener. Returns the policy before and the new one, which the shards apply
    /// after this returns. Two changes at once are made one after the other.
    ///
    /// # Errors
    /// The error of `change`, which then changes nothing; or a shard accepted no request in time,
    /// though others have. Repeat the call, so that all shards have the same policy.
    pub async fn retune<E: From<ShardUnavailable>>(
        &self,
        listener: u16,
        change: impl FnOnce(Policy) -> Result<Policy, E>,
    ) -> Result<(Policy, Policy), E> {
        let _turn = self.fan_out.lock().await;
        let Some(state) = self.listeners.get(usize::from(listener)) else {
            return Err(ShardUnavailable::Gone.into());
        };
        let old = state.policy();
        let new = change(old)?;
        state.in_force().everywhere = false;
        self.send_to_all(|| Request::Command(hub::HubCommand::Retune { listener, policy: new }))
            .await?;
        *state.in_force() = InForce { policy: new, everywhere: true };
        Ok((old, new))
    }

    /// Switches the logging of heartbeats on or off.
    ///
    /// # Errors
    /// As [`Gateway::retune`].
    pub async fn log_heartbeats(&self, on: bool) -> Result<(), ShardUnavailable> {
        self.logs.set_heartbeats(on);
        self.command(hub::HubCommand::ReportHeartbeats(on)).await
    }

    /// Gives a command to all shards.
    ///
    /// # Errors
    /// As [`Gateway::retune`].
    pub async fn command(&self, command: hub::HubCommand<'static>) -> Result<(), ShardUnavailable> {
        let _turn = self.fan_out.lock().await;
        self.send_to_all(|| Request::Command(command)).await
    }

    /// Stops listening on all shards. Peers that have queued at own sockets are accepted first.
    ///
    /// # Errors
    /// As [`Gateway::retune`].
    pub async fn stop_accepting(&self) -> Result<(), ShardUnavailable> {
        self.send_to_all(|| Request::StopAccepting).await
    }

    /// Ends all shards.
    ///
    /// # Errors
    /// A shard accepted no request in time.
    pub async fn stop(&self) -> Result<(), ShardUnavailable> {
        match self.send_to_all(|| Request::Stop).await {
            // A shard that has already ended needs no request.
            Ok(()) | Err(ShardUnavailable::Gone) => Ok(()),
            Err(ShardUnavailable::Busy) => Err(ShardUnavailable::Busy),
        }
    }

    /// Sends a request to all shards, and again for [`ANSWER_TIMEOUT`] to those that are busy. What
    /// one shard refuses still reaches the others.
    async fn send_to_all(&self, request: impl Fn() -> Request) -> Result<(), ShardUnavailable> {
        let mut left: Vec<&Requests> = self.shards.iter().collect();
        let mut result = Ok(());
        let send = async {
            loop {
                left.retain(|shard| match shard.send(request()) {
                    Ok(()) => false,
                    Err(Refused::Busy) => true,
                    Err(Refused::Gone) => {
                        result = Err(ShardUnavailable::Gone);
                        false
                    }
                });
                if left.is_empty() {
                    return;
                }
                sleep(RETRY_AFTER).await;
            }
        };
        match timeout(ANSWER_TIMEOUT, send).await {
            Ok(()) => result,
            Err(_) => Err(ShardUnavailable::Busy),
        }
    }

    /// Returns the shard of a session: the first byte of the session's number.
    fn shard_of(&self, session: u64) -> Option<&Requests> {
        self.shards.get(usize::try_from(session >> 56).ok()?)
    }
}
