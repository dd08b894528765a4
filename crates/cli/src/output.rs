//! The only place that prints: data to stdout, messages to stderr.
//!
//! What is printed as text may come from a stranger: an identity, an answer of a server, a file. It
//! is escaped here, so that it controls no terminal.

use std::io::{self, BufWriter, Stderr, Stdout, Write};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use systole_core::text::Escaped;

/// Longest wait for stderr with an error, which is the last thing that a command prints. Nobody may
/// read stderr, and the process must end.
const ERROR_TIMEOUT: Duration = Duration::from_secs(1);

/// The number of bytes that a pipe takes without waiting if it is writable (`_POSIX_PIPE_BUF`).
#[cfg(unix)]
const PIPE_PIECE: usize = 512;

/// The stdout and stderr of a command.
#[derive(Debug)]
pub(crate) struct Output {
    data: BufWriter<Stdout>,
    messages: Stderr,
    /// Whether stderr took an error too late: it may never take anything more.
    is_stuck: bool,
}

impl Output {
    pub(crate) fn new() -> Output {
        let (data, messages) = (BufWriter::new(io::stdout()), io::stderr());
        Output { data, messages, is_stuck: false }
    }

    /// Writes a line of data, which may stay in a buffer until [`Output::flush`].
    pub(crate) fn line(&mut self, line: &str) -> io::Result<()> {
        writeln!(self.data, "{}", Escaped::lines(line))
    }

    /// Writes data unchanged.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.data.write_all(bytes)
    }

    /// Flushes the buffered data.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.data.flush()
    }

    /// Prints a message to stderr. A failure is ignored: stderr may be closed.
    pub(crate) fn note(&mut self, text: &str) {
        if !self.is_stuck {
            let _ = writeln!(self.messages, "{}", Escaped::lines(text.trim_end()));
        }
    }

    /// Prints an error to stderr, and waits for that for a limited time. A failure is ignored:
    /// there is no other place to report it.
    pub(crate) fn error(&mut self, text: &str) {
        if self.is_stuck {
            return;
        }
        let text = format!("error: {}\n", Escaped::lines(text.trim_end()));
        let (printed, wait) = sync_channel(1);
        let mut messages = io::stderr();
        let print = {
            let text = text.clone();
            move || {
                let _ = messages.write_all(text.as_bytes());
                let _ = printed.send(());
            }
        };
        match thread::Builder::new().spawn(print) {
            Ok(_) => self.is_stuck = wait.recv_timeout(ERROR_TIMEOUT).is_err(),
            // The error may well be that there is no thread.
            Err(_) => self.error_here(&text),
        }
    }

    /// Prints an error without a thread: as much of it as stderr takes at once.
    #[cfg(unix)]
    fn error_here(&mut self, text: &str) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let timeout = Timespec { tv_sec: ERROR_TIMEOUT.as_secs() as i64, tv_nsec: 0 };
        for piece in text.as_bytes().chunks(PIPE_PIECE) {
            let mut stderr = [PollFd::new(&self.messages, PollFlags::OUT)];
            let ready = poll(&mut stderr, Some(&timeout)).is_ok_and(|count| count > 0);
            if !ready || self.messages.write_all(piece).is_err() {
                self.is_stuck = true;
                return;
            }
        }
    }

    #[cfg(not(unix))]
    fn error_here(&mut self, text: &str) {
        let _ = self.messages.write_all(text.as_bytes());
    }
}
