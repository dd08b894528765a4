//! Wakes a loop from another thread, whether it polls its sockets or rests.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use mio::{Events, Interest, Poll, Registry, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use systole_core::Span;
use systole_core::gather::Wait;

/// The number of wake-ups taken at once. More that have not been taken only cost another read.
const TAKEN_AT_ONCE: usize = 64;

/// The sending end of a loop's wake-ups.
#[derive(Clone, Debug)]
pub(crate) struct LoopWaker {
    stream: Arc<UnixStream>,
}

/// A loop's own end of its wake-ups. It is readable while a wake-up has not been taken.
#[derive(Debug)]
pub(crate) struct WakeUps {
    stream: mio::net::UnixStream,
}

/// Creates both ends, and registers the loop's end with its poll.
pub(crate) fn wake_ups(registry: &Registry, token: Token) -> io::Result<(LoopWaker, WakeUps)> {
    let (sender, receiver) = UnixStream::pair()?;
    sender.set_nonblocking(true)?;
    receiver.set_nonblocking(true)?;
    let mut stream = mio::net::UnixStream::from_std(receiver);
    registry.register(&mut stream, token, Interest::READABLE)?;
    Ok((LoopWaker { stream: Arc::new(sender) }, WakeUps { stream }))
}

impl LoopWaker {
    /// Ends the wait of the loop: the present one, or else the next.
    ///
    /// # Errors
    /// The loop has ended.
    pub(crate) fn wake(&self) -> io::Result<()> {
        match (&*self.stream).write(&[0]) {
            // As many wake-ups as the socket holds have not been taken: one is enough.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl WakeUps {
    /// Rests, and then polls the sockets. A wake-up ends both.
    ///
    /// # Errors
    /// The operating system cannot wait.
    pub(crate) fn wait(&self, poll: &mut Poll, events: &mut Events, wait: Wait) -> io::Result<()> {
        let woken = wait.rest > Span::ZERO && self.rest(wait.rest)?;
        let left = if woken { Span::ZERO } else { wait.poll };
        poll.poll(events, Some(Duration::from(left)))
    }

    /// Waits for a wake-up for at most `span`, whatever happens on other sockets. Returns whether
    /// there was one, and takes it.
    ///
    /// # Errors
    /// The operating system cannot wait.
    pub(crate) fn rest(&self, span: Span) -> io::Result<bool> {
        let nanos = i64::try_from(span.as_nanos()).unwrap_or(i64::MAX);
        let timeout = Timespec { tv_sec: nanos / 1_000_000_000, tv_nsec: nanos % 1_000_000_000 };
        let mut sockets = [PollFd::new(&self.stream, PollFlags::IN)];
        match poll(&mut sockets, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => Ok(false),
            Ok(_) => {
                self.take();
                Ok(true)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the wake-ups so far: the loop now looks for their reasons.
    pub(crate) fn take(&self) {
        let mut taken = [0; TAKEN_AT_ONCE];
        while (&self.stream).read(&mut taken).is_ok_and(|count| count == TAKEN_AT_ONCE) {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mio::{Events, Poll};
    use systole_net::Clock;

    use super::*;

    const TOKEN: Token = Token(7);
    /// Longer than a test takes: nothing waits for this time.
    const LONG: Span = Span::from_secs(600);

    fn poll_and_ends() -> (Poll, LoopWaker, WakeUps) {
        let poll = Poll::new().unwrap();
        let (waker, wake_ups) = wake_ups(poll.registry(), TOKEN).unwrap();
        (poll, waker, wake_ups)
    }

    /// Returns whether the poll of the loop is woken now.
    fn is_polled(poll: &mut Poll) -> bool {
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        events.iter().any(|event| event.token() == TOKEN)
    }

    #[test]
    fn a_wake_up_ends_a_rest_at_once_from_another_thread() {
        let (_poll, waker, wake_ups) = poll_and_ends();
        let other = std::thread::spawn(move || waker.wake());
        assert!(wake_ups.rest(LONG).unwrap(), "otherwise this test takes ten minutes");
        other.join().unwrap().unwrap();
    }

    #[test]
    fn each_wait_sees_a_wake_up_that_no_other_has_taken() {
        let (mut poll, waker, wake_ups) = poll_and_ends();
        waker.wake().unwrap();
        assert!(is_polled(&mut poll));
        wake_ups.take();
        assert!(!wake_ups.rest(Span::ZERO).unwrap() && !is_polled(&mut poll));
        waker.wake().unwrap();
        assert!(wake_ups.rest(LONG).unwrap());
        assert!(!wake_ups.rest(Span::ZERO).unwrap() && !is_polled(&mut poll), "it was taken");
        waker.wake().unwrap();
        assert!(is_polled(&mut poll), "the next one is seen");
    }

    #[test]
    fn wake_ups_that_nobody_takes_fill_the_socket_and_do_no_harm() {
        let (mut poll, waker, wake_ups) = poll_and_ends();
        for _ in 0..100_000 {
            waker.wake().unwrap();
        }
        assert!(is_polled(&mut poll));
        wake_ups.take();
        assert!(!wake_ups.rest(Span::ZERO).unwrap());
        drop(wake_ups);
        assert!(waker.wake().is_err(), "the loop has ended");
    }

    #[test]
    fn a_rest_is_not_shorter_than_asked_though_sockets_are_ready() {
        let (poll, _waker, wake_ups) = poll_and_ends();
        let (mut peer, own) = UnixStream::pair().unwrap();
        own.set_nonblocking(true).unwrap();
        let mut own = mio::net::UnixStream::from_std(own);
        poll.registry().register(&mut own, Token(1), Interest::READABLE).unwrap();
        peer.write_all(b"ping").unwrap();
        let (clock, span) = (Clock::start(), Span::from_millis(3));
        assert!(!wake_ups.rest(span).unwrap());
        assert!(clock.monotonic() >= span);
    }
}
