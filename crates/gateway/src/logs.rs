//! The log of the gateway: its lines, and switches that can change at run time.

use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use systole_core::link::BeatKind;
use tracing::level_filters::LevelFilter;
use tracing::{info, warn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::config::{Format, Level, Log};
use crate::events::Event;
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
        event.body.log();
    }
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
