//! The log of the gateway: its lines, and switches that can change at run time.
//!
//! Nobody waits for stderr: see [`queue`].

mod format;
mod panics;
mod queue;

use std::fs::File;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use systole_core::Span;
use systole_core::link::BeatKind;
use tracing::level_filters::LevelFilter;
use tracing::{info, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::config::{Format, Level, Log};
use crate::events::Event;
use crate::report::{Heartbeat, session_text};
use crate::throttle::Throttle;
pub(crate) use format::Lines;
use panics::Panics;
use queue::{LogQueue, QUEUED_LINES};

/// Longest wait, at the end of the process, for lines that are not written yet: a reader that reads
/// takes them in milliseconds.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Least time between two lines that say that lines were dropped.
const DROPS_EVERY: Span = Span::from_secs(10);

/// The log of the process, with switches for its level and for heartbeats.
#[derive(Clone, Debug)]
pub struct Logs {
    filter: Option<reload::Handle<Targets, Registry>>,
    queue: Option<LogQueue>,
    level: Arc<Mutex<Level>>,
    heartbeats: Arc<AtomicBool>,
    drops: Arc<Mutex<Drops>>,
}

/// What the log has said of lines that were dropped.
#[derive(Debug)]
struct Drops {
    told: u64,
    throttle: Throttle,
}

impl Logs {
    /// Starts logging of the whole process to stderr, panics included. If the process has a logger
    /// already, that one remains in use.
    ///
    /// # Errors
    /// The system refuses a thread or a descriptor.
    pub fn start(log: &Log) -> io::Result<Logs> {
        let queue = LogQueue::start(stderr()?, QUEUED_LINES)?;
        let (filter, handle) = reload::Layer::new(own_lines(log.level));
        let layer = lines(log.format).layer(queue.clone());
        let detached = Logs::detached(log);
        if tracing_subscriber::registry().with(filter).with(layer).try_init().is_err() {
            return Ok(detached);
        }
        let logs = Logs { filter: Some(handle), queue: Some(queue), ..detached };
        let (flushed, panics) = (logs.clone(), Panics::start()?);
        std::panic::set_hook(Box::new(move |info| {
            panics.log(info);
            // The process may abort.
            flushed.flush();
        }));
        Ok(logs)
    }

    /// Creates switches without a logger, for a process that has its own.
    pub fn detached(log: &Log) -> Logs {
        Logs {
            filter: None,
            queue: None,
            level: Arc::new(Mutex::new(log.level)),
            heartbeats: Arc::new(AtomicBool::new(log.heartbeats)),
            drops: Arc::new(Mutex::new(Drops { told: 0, throttle: Throttle::new(1, DROPS_EVERY) })),
        }
    }

    /// Waits until what was logged is written, for a limited time: call it before the process ends.
    pub fn flush(&self) {
        if let Some(queue) = &self.queue {
            queue.flush(FLUSH_TIMEOUT);
        }
    }

    /// Returns the number of lines that were dropped so far: nobody read stderr.
    pub fn lines_dropped(&self) -> u64 {
        self.queue.as_ref().map_or(0, LogQueue::dropped)
    }

    /// Logs how many lines were dropped since this was last said. `now` is the time of a monotonic
    /// clock.
    pub(crate) fn tell_dropped(&self, now: Span) {
        let mut drops = self.drops.lock().unwrap_or_else(PoisonError::into_inner);
        let dropped = self.lines_dropped();
        let lines = dropped.saturating_sub(drops.told);
        if lines == 0 || drops.throttle.admit(now).is_none() {
            return;
        }
        warn!(lines, "lines of this log were dropped: stderr was not read in time");
        // This line may have been dropped too, and is then said again.
        if self.lines_dropped() == dropped {
            drops.told = dropped;
        }
    }

    /// Sets the least important level that is logged.
    pub fn set_level(&self, level: Level) {
        // Held until the filter has it too, so that concurrent calls leave both at one level.
        let mut now = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        *now = level;
        if let Some(handle) = &self.filter {
            // Fails only when the subscriber is gone and nothing is logged.
            let _ = handle.modify(|filter| *filter = own_lines(level));
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

/// Returns how lines are written to stderr. Colours only on a terminal, and not if the environment
/// says `NO_COLOR`.
fn lines(format: Format) -> Lines {
    let is_terminal = io::stderr().is_terminal();
    let colours = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
    match format {
        Format::Auto if !is_terminal => Lines::Json,
        Format::Auto | Format::Human => Lines::Human { colours },
        Format::Json => Lines::Json,
    }
}

/// Returns stderr without its lock.
#[cfg(unix)]
fn stderr() -> io::Result<File> {
    use std::os::fd::AsFd;
    Ok(File::from(io::stderr().as_fd().try_clone_to_owned()?))
}

/// Returns stderr without its lock.
#[cfg(windows)]
fn stderr() -> io::Result<File> {
    use std::os::windows::io::AsHandle;
    Ok(File::from(io::stderr().as_handle().try_clone_to_owned()?))
}

/// Returns the filter for the lines of this workspace from a level on. Those of libraries are left
/// out: a stranger who sends illegal bytes could cause them without a limit, and they may hold
/// payloads.
fn own_lines(level: Level) -> Targets {
    let level = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    // The names of all crates of the workspace begin so.
    Targets::new().with_target("systole", level)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;
    use std::process::Command;
    use std::thread;

    use serde_json::{Value, json};
    use tracing::error;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    /// Keeps what is written.
    #[derive(Clone, Default)]
    pub(crate) struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Kept {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Kept {
        type Writer = Kept;

        fn make_writer(&'a self) -> Kept {
            self.clone()
        }
    }

    /// Not a test: what the test below runs as a process, since a hook is of the whole process.
    #[test]
    #[ignore = "the child process of another test"]
    fn panics_in_a_child() {
        let logs = Logs::start(&Log { format: Format::Json, ..Log::default() }).unwrap();
        let written = || logs.queue.as_ref().unwrap().flush(Duration::from_secs(60));
        // The threads of the log have their memory once they have written a panic.
        thread::spawn(|| panic!("the first")).join().unwrap_err();
        written();
        let thread = thread::Builder::new().name("shard-7".to_owned());
        let (start, started) = std::sync::mpsc::channel();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let panics = move || {
            // Its memory too is there before there is none: a message is allocated.
            ready.send(format!("{:?}", thread::current().id())).unwrap();
            started.recv().unwrap();
            panic!("bad luck: {}", "\u{1b}[2J\n");
        };
        let thread = thread.spawn(panics).unwrap();
        is_ready.recv().unwrap();
        #[cfg(target_os = "linux")]
        take_all_threads();
        start.send(()).unwrap();
        thread.join().unwrap_err();
        written();
    }

    /// Makes the system refuse threads: there is no memory for another stack.
    #[cfg(target_os = "linux")]
    fn take_all_threads() {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let (_, size) = status.split_once("VmSize:").unwrap();
        let size: u64 = size.split_whitespace().next().unwrap().parse().unwrap();
        let current = Some((size + 1_024) * 1_024);
        let limit = Rlimit { current, ..getrlimit(Resource::As) };
        setrlimit(Resource::As, limit).unwrap();
        let park = || thread::Builder::new().spawn(thread::park);
        // The stacks of threads that have ended are used again.
        let parked: Vec<_> = std::iter::from_fn(|| park().ok()).collect();
        assert!(parked.len() < 100);
    }

    #[test]
    fn libraries_write_no_lines_at_any_level() {
        for level in [Level::Error, Level::Trace] {
            let kept = Kept::default();
            let subscriber = tracing_subscriber::registry()
                .with(own_lines(level))
                .with(Lines::Json.layer(kept.clone()));
            tracing::subscriber::with_default(subscriber, || {
                error!(target: "rustls::common_state", "an alert of a stranger");
                error!(target: "hyper::proto", "a request");
                error!("of the gateway");
                error!(target: "systole", "of the program");
            });
            let text = kept.text();
            assert_eq!(text.lines().count(), 2, "{text}");
            assert!(text.contains("of the gateway") && text.contains("of the program"), "{text}");
        }
    }

    #[test]
    fn a_panic_is_a_line_of_the_log() {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--ignored", "--exact", "logs::tests::panics_in_a_child"]);
        let output = child.env_remove("RUST_BACKTRACE").output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let [first, line] = &stderr.lines().collect::<Vec<_>>()[..] else { panic!("{stderr}") };
        assert!(first.contains("panic: the first"), "{first}");
        assert!(!line.contains('\u{1b}'), "{line}");
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&line["level"], &line["message"], &line["thread"]),
            (&json!("ERROR"), &json!("panic: bad luck: \u{1b}[2J\n"), &json!("shard-7"))
        );
        assert!(line["place"].as_str().unwrap().contains("logs.rs:"), "{line}");
    }
}
