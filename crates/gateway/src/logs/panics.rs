//! Panics as lines of the log, written by a thread that is there before the first one.
//!
//! The thread that panics cannot log itself: it may have been logging, and a subscriber is not
//! entered twice. A new thread is no help either: the system may refuse it, and the lack of threads
//! may be what the panic is about.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io;
use std::panic::PanicHookInfo;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Builder};
use std::time::Duration;

/// Maximum number of panics that wait to be logged. The first one aborts the process, unless it was
/// built to unwind; what is beyond is not logged.
const WAITING: usize = 64;

/// Longest wait until a panic is logged: the names of a backtrace may take seconds.
const LIMIT: Duration = Duration::from_secs(10);

/// The way to the thread.
pub(super) struct Panics(SyncSender<Panic>);

struct Panic {
    text: String,
    place: Option<String>,
    thread: String,
    trace: Option<Backtrace>,
    /// Closed when it is logged.
    logged: SyncSender<()>,
}

impl Panics {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system refuses it.
    pub(super) fn start() -> io::Result<Panics> {
        let (sender, panics) = sync_channel(WAITING);
        drop(Builder::new().name("panic".to_owned()).spawn(move || log_all(&panics))?);
        Ok(Panics(sender))
    }

    /// Logs a panic of this thread, and waits until that is done, for a limited time.
    pub(super) fn log(&self, info: &PanicHookInfo<'_>) {
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let trace = Backtrace::capture();
        let (logged, until) = sync_channel(0);
        let panic = Panic {
            text: text.unwrap_or("without a message").to_owned(),
            place: info.location().map(ToString::to_string),
            thread: thread::current().name().unwrap_or_default().to_owned(),
            trace: (trace.status() == BacktraceStatus::Captured).then_some(trace),
            logged,
        };
        if self.0.try_send(panic).is_ok() {
            // It ends with an error when the other end is dropped.
            let _ = until.recv_timeout(LIMIT);
        }
    }
}

fn log_all(panics: &Receiver<Panic>) {
    while let Ok(Panic { text, place, thread, trace, logged }) = panics.recv() {
        let backtrace = trace.map(|trace| trace.to_string());
        tracing::error!(thread, place, backtrace, "panic: {text}");
        drop(logged);
    }
}
