//! The only place that prints: data to stdout, messages to stderr.
//!
//! What is printed as text may come from a stranger: an identity, an answer of a server, a file. It
//! is escaped here, so that it controls no terminal, and a line of a message has a limit.

use std::io::{self, BufWriter, Stderr, Stdout, Write};
#[cfg(unix)]
use std::time::Duration;

#[cfg(unix)]
use systole_core::Span;
use systole_core::text::Escaped;
#[cfg(unix)]
use systole_net::Clock;

use crate::clip;

/// Longest wait for stderr with an error, which is the last thing that a command prints. Nobody may
/// read stderr, and the process must end.
#[cfg(unix)]
const ERROR_TIMEOUT: Span = Span::from_secs(1);

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
            let _ = writeln!(self.messages, "{}", Escaped::lines(&clip::lines(text.trim_end())));
        }
    }

    /// Prints an error to stderr, and waits for that for a limited time. A failure is ignored:
    /// there is no other place to report it.
    pub(crate) fn error(&mut self, text: &str) {
        if !self.is_stuck {
            let text = format!("error: {}\n", Escaped::lines(&clip::lines(text.trim_end())));
            self.is_stuck = !self.write_in_time(text.as_bytes());
        }
    }

    /// Writes to stderr, past the lock that a thread may hold which waits for stderr. Returns
    /// whether stderr took all of it in time.
    #[cfg(unix)]
    fn write_in_time(&mut self, mut text: &[u8]) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        use rustix::io::{Errno, write};
        let clock = Clock::start();
        while !text.is_empty() {
            let left = ERROR_TIMEOUT.less(clock.monotonic());
            let Ok(left) = Timespec::try_from(Duration::from(left)) else {
                return false;
            };
            let mut stderr = [PollFd::new(&self.messages, PollFlags::OUT)];
            match poll(&mut stderr, Some(&left)) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(_) => return false,
            }
            let piece = text.get(..PIPE_PIECE).unwrap_or(text);
            match write(&self.messages, piece) {
                Ok(count) => text = text.get(count..).unwrap_or_default(),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(_) => return true,
            }
        }
        true
    }

    #[cfg(not(unix))]
    fn write_in_time(&mut self, text: &[u8]) -> bool {
        let _ = self.messages.write_all(text);
        true
    }
}
