//! The log of the gateway: its lines, and switches that can change at run time.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use systole_core::cause::{Direction, Scope};
use systole_core::link::BeatKind;
use tracing::level_filters::LevelFilter;
use tracing::{info, warn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::{Format, Level, Log};
use crate::events::{Body, Event, OutageInfo, Revision, Session};
use crate::report::{Heartbeat, session_text};

/// The log of the process, with switches for its level and for heartbeats.
#[derive(Clone, Debug)]
pub struct Logs {
    filter: Option<reload::Handle<LevelFilter, Registry>>,
    level: Arc<Mutex<Level>>,
    heartbeats: Arc<AtomicBool>,
}

impl Logs {
    /// Starts logging of the whole process to stderr.
    ///
    /// # Errors
    /// The process has a logger already, which remains in use.
    pub fn start(log: &Log) -> Result<Logs, TryInitError> {
        let (filter, handle) = reload::Layer::new(level_filter(log.level));
        let human = match log.format {
            Format::Auto => io::stderr().is_terminal(),
            Format::Human => true,
            Format::Json => false,
        };
        let lines = fmt::layer().with_writer(io::stderr).with_target(false);
        let lines = if human {
            lines.with_ansi(io::stderr().is_terminal()).boxed()
        } else {
            lines.json().flatten_event(true).boxed()
        };
        tracing_subscriber::registry().with(filter).with(lines).try_init()?;
        Ok(Logs { filter: Some(handle), ..Logs::detached(log) })
    }

    /// Creates switches without a logger, for a process that has its own.
    pub fn detached(log: &Log) -> Logs {
        let heartbeats = Arc::new(AtomicBool::new(log.heartbeats));
        Logs { filter: None, level: Arc::new(Mutex::new(log.level)), heartbeats }
    }

    /// Sets the least important level that is logged.
    pub fn set_level(&self, level: Level) {
        // Held until the filter has it too, so that concurrent calls leave both at one level.
        let mut now = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        *now = level;
        if let Some(handle) = &self.filter {
            // Fails only when the subscriber is gone and nothing is logged.
            let _ = handle.modify(|filter| *filter = level_filter(level));
        }
    }

    /// Returns the least important level that is logged.
    pub fn level(&self) -> Level {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether heartbeats are logged.
    pub fn heartbeats(&self) -> bool {
        self.heartbeats.load(Ordering::Relaxed)
    }

    /// Sets whether heartbeats are logged. The shards need a command of their own.
    pub(crate) fn set_heartbeats(&self, on: bool) {
        self.heartbeats.store(on, Ordering::Relaxed);
    }

    /// Logs a heartbeat, if heartbeats are logged.
    pub(crate) fn heartbeat(&self, heartbeat: &Heartbeat) {
        if !self.heartbeats() {
            return;
        }
        let Heartbeat { session, identity, sent, beat, sequence } = heartbeat;
        let beat = match beat {
            BeatKind::Ping => "ping",
            BeatKind::Pong => "pong",
        };
        let way = if *sent { "sent" } else { "received" };
        let session = session_text(*session);
        info!(session, %identity, sequence, "{beat} {way}");
    }

    /// Logs that heartbeats of a shard were not logged.
    pub(crate) fn dropped(&self, shard: usize, count: u64) {
        warn!(shard, count, "heartbeat lines were dropped: the log is too slow for them");
    }

    /// Logs an event.
    pub(crate) fn event(&self, event: &Event) {
        match &event.body {
            Body::Stalled { shard, absent_ms, suspended_ms } => {
                warn!(shard, absent_ms, suspended_ms, "stalled: all deadlines moved by as much");
            }
            Body::AcceptingPaused { shard, reason, limit, hint } => {
                warn!(shard, reason, limit, hint, "accepting is paused; open links are unharmed");
            }
            Body::AcceptingResumed { shard } => info!(shard, "accepting again"),
            Body::Join { session, policy } => {
                let Session { session, identity, listener, address, .. } = session;
                let bound_ms = policy.bound_ms;
                info!(session, %identity, %listener, address, bound_ms, "join");
            }
            Body::Leave { session, end } => {
                let Session { session, identity, listener, address, .. } = session;
                info!(
                    session,
                    %identity,
                    %listener,
                    address,
                    cause = end.cause,
                    direction = end.loss.direction.map(Direction::name),
                    scope = end.loss.scope.map(Scope::name),
                    confidence = end.confidence,
                    detail = end.detail,
                    last_heard_ago_ms = end.last_heard_ago_ms,
                    probes = end.probes,
                    lasted_ms = end.lasted_ms,
                    "leave"
                );
            }
            Body::VerdictRevised { session, revision } => log_revision(session, revision),
            Body::Outage(info) => log_outage(info),
            Body::OutageOver(info) => log_outage_over(info),
            Body::Suspect(session) => log_session(session, "suspect"),
            Body::Recovered(session) => log_session(session, "recovered"),
            Body::Warned { session, cause, confidence, detail, .. } => {
                let Session { session, identity, listener, .. } = session;
                info!(session, %identity, %listener, cause, confidence, detail, "warned");
            }
            Body::Hung { session, cause } => {
                let Session { session, identity, listener, .. } = session;
                info!(session, %identity, %listener, cause, "hung: kept for a while");
            }
            Body::Overdue(session) => {
                log_session(session, "overdue: the bound has passed, unenforced")
            }
            Body::Retuned { session, policy } => {
                let Session { session, identity, .. } = session;
                info!(session, %identity, bound_ms = policy.bound_ms, "retuned");
            }
            Body::Moved { session, from } => {
                let Session { session, identity, address, .. } = session;
                info!(session, %identity, address, from, "moved");
            }
        }
    }
}

fn log_revision(session: &Session, revision: &Revision) {
    let Session { session, identity, .. } = session;
    let Revision { from, to, loss, confidence, detail, because, idle_ms, .. } = revision;
    let (direction, scope) = (loss.direction.map(Direction::name), loss.scope.map(Scope::name));
    info!(
        session,
        %identity,
        from,
        to,
        direction,
        scope,
        confidence,
        detail,
        because,
        idle_ms,
        "verdict revised"
    );
}

fn log_outage(info: &OutageInfo) {
    let (network, listener) = location(info);
    let OutageInfo { outage, affected, of_online, hosts, .. } = *info;
    warn!(outage, network, listener, affected, of_online, hosts, "outage");
}

fn log_outage_over(info: &OutageInfo) {
    let (network, listener) = location(info);
    let OutageInfo { outage, affected, hosts, returned, recovered, .. } = *info;
    info!(outage, network, listener, affected, hosts, returned, recovered, "outage over");
}

/// Logs a line about one session.
fn log_session(session: &Session, what: &str) {
    let Session { session, identity, listener, address, .. } = session;
    info!(session, %identity, %listener, address, "{what}");
}

/// Returns the network and the listener of an outage.
fn location(outage: &OutageInfo) -> (&str, &str) {
    let network = outage.network.as_deref().unwrap_or("our own");
    (network, outage.listener.as_deref().unwrap_or("all"))
}

fn level_filter(level: Level) -> LevelFilter {
    match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}
