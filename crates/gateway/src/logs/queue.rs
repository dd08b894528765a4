//! The queue between those who log and stderr, which nobody may read.
//!
//! A write to a full pipe or to a stopped terminal blocks for ever. So only one thread writes, and
//! all others put their lines into a bounded queue; a line that finds no room is dropped and
//! counted.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder};
use tracing_subscriber::fmt::MakeWriter;

/// Maximum number of lines in the queue: a drain logs the ends of that many sessions at once. A
/// line has about 400 bytes, so that a full queue takes 8 MiB.
pub(super) const QUEUED_LINES: usize = 16_384;

/// The queue of a log; clones are the same queue.
#[derive(Clone)]
pub(super) struct LogQueue {
    sender: NonBlocking,
    full: ErrorCounter,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Lines that were logged.
    logged: AtomicU64,
    /// Lines that could not be written.
    failed: AtomicU64,
    /// Lines that the thread is done with, written or not.
    done: Mutex<u64>,
    /// Notified whenever `done` has changed.
    progress: Condvar,
}

impl LogQueue {
    /// Starts the thread that writes to `out`, one line at a time.
    ///
    /// # Errors
    /// The system refuses a thread.
    pub(super) fn start(out: File, lines: usize) -> io::Result<LogQueue> {
        let shared = Arc::<Shared>::default();
        let thread = "log";
        // The library panics without a thread, so one is tried first.
        let tried = std::thread::Builder::new().name(thread.to_owned()).spawn(|| ())?;
        let _ = tried.join();
        let builder = NonBlockingBuilder::default().lossy(true);
        let builder = builder.buffered_lines_limit(lines).thread_name(thread);
        let (sender, guard) = builder.finish(Out { out, shared: shared.clone() });
        // Its drop prints to stdout if the queue is full. `flush` does what it is for.
        std::mem::forget(guard);
        Ok(LogQueue { full: sender.error_counter(), sender, shared })
    }

    /// Returns the number of lines that were dropped because the queue was full, or that could not
    /// be written.
    pub(super) fn dropped(&self) -> u64 {
        self.full() + self.shared.failed.load(Ordering::Relaxed)
    }

    /// Waits until what was logged before is written, at most for `limit`.
    pub(super) fn flush(&self, limit: Duration) {
        let logged = self.shared.logged.load(Ordering::Acquire);
        let done = self.shared.done.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |done: &mut u64| *done + self.full() < logged;
        let _ = self.shared.progress.wait_timeout_while(done, limit, waits);
    }

    fn full(&self) -> u64 {
        self.full.dropped_lines() as u64
    }
}

impl fmt::Debug for LogQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogQueue").field("dropped", &self.dropped()).finish_non_exhaustive()
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = LogQueue;

    fn make_writer(&'a self) -> LogQueue {
        self.clone()
    }
}

/// Takes one line a call.
impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.shared.logged.fetch_add(1, Ordering::Release);
        self.sender.write(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where the thread writes. Not [`io::Stderr`], whose lock a blocked write would hold.
struct Out {
    out: File,
    shared: Arc<Shared>,
}

impl Out {
    /// Writes a line, and waits for room also where stderr does not block: whoever else holds it
    /// may have set that.
    fn write_whole(&mut self, mut line: &[u8]) -> io::Result<()> {
        while !line.is_empty() {
            match self.out.write(line) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => line = line.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait_for_room()?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    #[cfg(unix)]
    fn wait_for_room(&self) -> io::Result<()> {
        use rustix::event::{PollFd, PollFlags, poll};
        match poll(&mut [PollFd::new(&self.out, PollFlags::OUT)], None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(not(unix))]
    fn wait_for_room(&self) -> io::Result<()> {
        Err(ErrorKind::WouldBlock.into())
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        let written = self.write_whole(line);
        if written.is_err() {
            self.shared.failed.fetch_add(1, Ordering::Relaxed);
        }
        *self.shared.done.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.shared.progress.notify_all();
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use systole_core::Span;
    use systole_net::Clock;

    use super::*;

    /// Far more than the buffer of a socket takes.
    const LINES: usize = 20_000;

    /// Returns a queue of 64 lines, and the other end of its socket, which nobody reads.
    fn unread() -> (LogQueue, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        let out = File::from(std::os::fd::OwnedFd::from(near));
        (LogQueue::start(out, 64).unwrap(), far)
    }

    #[test]
    fn a_stderr_that_does_not_block_loses_no_line_that_fits_the_queue() {
        let (near, mut far) = UnixStream::pair().unwrap();
        near.set_nonblocking(true).unwrap();
        let out = File::from(std::os::fd::OwnedFd::from(near));
        let mut queue = LogQueue::start(out, LINES).unwrap();
        for number in 0..LINES {
            queue.write_all(format!("{number:0>99}\n").as_bytes()).unwrap();
        }
        let mut line = [0; 100];
        for number in 0..LINES {
            far.read_exact(&mut line).unwrap();
            assert_eq!(line[..], *format!("{number:0>99}\n").as_bytes());
        }
        assert_eq!(queue.dropped(), 0);
    }

    #[test]
    fn a_reader_that_does_not_read_holds_up_nobody_and_what_it_misses_is_counted() {
        let (mut queue, mut far) = unread();
        let clock = Clock::start();
        for number in 0..LINES {
            queue.write_all(format!("{number:0>99}\n").as_bytes()).unwrap();
        }
        let dropped = queue.dropped();
        assert!(dropped > 0);
        queue.flush(Duration::from_millis(50));
        assert!(clock.monotonic() < Span::from_secs(10));
        // What was not dropped arrives once it is read.
        let kept = LINES as u64 - dropped;
        let mut bytes = vec![0; kept as usize * 100];
        far.read_exact(&mut bytes).unwrap();
        queue.flush(Duration::from_secs(60));
        assert_eq!(queue.dropped(), dropped);
        assert!(bytes.chunks(100).all(|line| line.ends_with(b"\n")));
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let (mut queue, far) = unread();
        drop(far);
        queue.write_all(b"a line\n").unwrap();
        queue.flush(Duration::from_secs(60));
        assert_eq!(queue.dropped(), 1);
    }
}
