//! Leave-taking: the connections of ended links until their close, each driven by a [`Departure`].

use std::collections::{BTreeMap, BTreeSet};

use systole_core::kernel::{Patience, SendState};
use systole_core::link::Departure;
use systole_core::link::departure::{Answer, Input, Output, World};
use systole_core::wire::outbox::Outbox;
use systole_core::{Machine, Span, Time};
use systole_net::examine::tcp_snapshot;
use systole_net::socket_options;
use systole_net::transport::{ReadOutcome, Transport};

use super::sockets::{ConnState, Sockets};

/// Maximum number of reads of one leaving socket per turn, so that the others get their share.
const READS_PER_TURN: usize = 4;

/// Maximum number of departures examined per turn, each at the cost of a system call: about 0.5 ms.
const DEPARTURES_PER_TURN: usize = 256;

/// The departures of a shard, by link. Only connections that are leaving take memory here, and
/// there are no more of them than connections.
#[derive(Debug, Default)]
pub(super) struct Departures {
    links: BTreeMap<u32, Entry>,
    /// The time to which each departure is armed.
    deadlines: BTreeSet<(Time, u32)>,
}

#[derive(Debug)]
struct Entry {
    departure: Departure,
    /// The departure's time in `deadlines`. It is moved only when a deadline comes earlier; one
    /// that came too early is armed again when it fires.
    armed: Option<Time>,
}

impl Departures {
    /// Returns when the next departure may be due.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Forgets a link whose socket is to be closed.
    pub(super) fn remove(&mut self, link: u32) {
        if let Some(at) = self.links.remove(&link).and_then(|entry| entry.armed) {
            self.deadlines.remove(&(at, link));
        }
    }

    fn arm(&mut self, link: u32) {
        let Some(entry) = self.links.get_mut(&link) else {
            return;
        };
        let Some(next) = entry.departure.next_deadline().map(|next| next.at) else {
            return;
        };
        if entry.armed.is_some_and(|armed| armed <= next) {
            return;
        }
        if let Some(armed) = entry.armed.replace(next) {
            self.deadlines.remove(&(armed, link));
        }
        self.deadlines.insert((next, link));
    }

    /// Takes a link whose time has come.
    fn take_due(&mut self, now: Time) -> Option<u32> {
        let &(at, link) = self.deadlines.first().filter(|(at, _)| *at <= now)?;
        self.deadlines.remove(&(at, link));
        if let Some(entry) = self.links.get_mut(&link) {
            entry.armed = None;
        }
        Some(link)
    }
}

impl<T: Transport> Sockets<T> {
    /// Starts the leave-taking of a link that the hub has ended; it lasts at most `limit`.
    pub(super) fn start_leaving(&mut self, link: u32, now: Time, limit: Span) {
        self.flush();
        let Some(conn) = self.conns.get_mut(link) else {
            return;
        };
        if conn.outbox().is_some_and(Outbox::has_gap) {
            // Its data gave way to that of others after the hub had ended the link.
            return self.give_up(link);
        }
        conn.note.state = ConnState::Leaving;
        let has_ended = conn.has_ended();
        conn.finish();
        let only_the_close_is_left = conn.outbox().is_none();
        let entry = Entry { departure: Departure::new(now, limit), armed: None };
        self.departures.links.insert(link, entry);
        if has_ended {
            self.feed_departure(link, now, World::Ended);
        }
        if only_the_close_is_left {
            self.write_queued(link);
        }
        self.continue_departure(link, now);
    }

    /// Ends the connection of an ended link with a reset: the end of the stream would look like the
    /// end of the data, of which a part is discarded.
    pub(super) fn give_up(&mut self, link: u32) {
        self.undelivered += 1;
        if let Some(conn) = self.conns.get(link) {
            // It fails only on a connection that has failed.
            let _ = socket_options::reset_on_close(conn.stream());
        }
        self.mark_for_close(link);
    }

    /// Closes the connection of an ended link early, because its place is needed: the kernel goes
    /// on to deliver what it was given.
    pub(super) fn cut_leave(&mut self, link: u32) {
        let entry = self.departures.links.get(&link);
        let (Some(entry), Some(conn)) = (entry, self.conns.get(link)) else {
            return;
        };
        if !conn.is_flushed() {
            return self.give_up(link);
        }
        if !entry.departure.is_acknowledged() {
            self.undelivered += 1;
            let patience = Patience::new(None, SendState::Orphaned);
            // Without it the kernel gives up sooner, if the peer is slow.
            let _ = socket_options::follow(&patience, conn.stream());
        }
        self.mark_for_close(link);
    }

    /// Hands in to a departure that the socket took bytes: all of them, or some.
    pub(super) fn continue_departure(&mut self, link: u32, now: Time) {
        let Some(conn) = self.conns.get(link) else {
            return;
        };
        if conn.note.state == ConnState::Leaving {
            let input = if conn.is_flushed() { World::Flushed } else { World::Taken };
            self.feed_departure(link, now, input);
        }
    }

    /// Reads and discards bytes of a leaving link, up to the end of the stream. Returns whether
    /// there may be more.
    pub(super) fn drain_until_fin(&mut self, link: u32, now: Time, scratch: &mut [u8]) -> bool {
        if self.conns.get(link).is_none_or(|conn| conn.note.state != ConnState::Leaving) {
            return false;
        }
        for _ in 0..READS_PER_TURN {
            let before = self.bytes_out;
            let (outcome, _) = self.read(link, scratch);
            if self.bytes_out > before {
                // With an answer of the transport the socket took what was queued.
                self.continue_departure(link, now);
            }
            let input = match outcome {
                ReadOutcome::Failed(_) => World::Failed,
                ReadOutcome::Empty if self.has_fin(link) => World::Ended,
                ReadOutcome::Empty => return false,
                // A pending error is read after the end of the stream.
                ReadOutcome::Bytes { .. }
                | ReadOutcome::Heard { .. }
                | ReadOutcome::Illegal(_)
                | ReadOutcome::Warned(_)
                | ReadOutcome::Ended(_) => continue,
            };
            self.feed_departure(link, now, input);
            return false;
        }
        true
    }

    /// Feeds the departures whose time has come.
    pub(super) fn expire_departures(&mut self, now: Time) {
        for _ in 0..DEPARTURES_PER_TURN {
            let Some(link) = self.departures.take_due(now) else {
                return;
            };
            self.feed_departure(link, now, Answer::Deadline);
        }
    }

    fn has_fin(&self, link: u32) -> bool {
        self.conns.get(link).is_some_and(|conn| conn.has_ended())
    }

    /// Feeds a departure and carries out its outputs.
    fn feed_departure(&mut self, link: u32, now: Time, input: impl Into<Input>) {
        let entry = self.departures.links.get_mut(&link);
        let (Some(entry), Some(conn)) = (entry, self.conns.get(link)) else {
            return;
        };
        let departure = &mut entry.departure;
        departure.handle(now, input);
        while let Some(output) = departure.poll_output() {
            match output {
                Output::Examine => {
                    let seen = tcp_snapshot(conn.stream());
                    departure.handle(now, Answer::Examined(seen));
                }
                Output::ShutdownWrite => conn.shutdown_write(),
                Output::Patience(patience) => {
                    // Without it the kernel gives up sooner, if the peer is slow.
                    let _ = socket_options::follow(&patience, conn.stream());
                }
                Output::Reset => {
                    let _ = socket_options::reset_on_close(conn.stream());
                }
                Output::Close => {
                    self.undelivered += u64::from(!departure.is_acknowledged());
                    return self.mark_for_close(link);
                }
            }
        }
        self.departures.arm(link);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use systole_core::link::Lane;
    use systole_core::link::departure::{EXAMINE_INTERVAL, FIN_WAIT, LEAVE_LIMIT, STALL};

    use systole_net::transport::Plain;

    use super::super::sockets::{Conn, Note};
    use super::*;

    /// More than the kernel's buffers of one connection hold.
    const MUCH: usize = 16 << 20;

    const START: Time = Time::from_millis(1_000);

    /// Connects a link that leaves with `len` bytes queued; returns it with its peer.
    fn leaving(
        sockets: &mut Sockets<Plain>,
        listener: &TcpListener,
        len: usize,
    ) -> (u32, TcpStream) {
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let stream = mio::net::TcpStream::from_std(stream);
        let link = sockets.conns.add(Conn::new(stream, Plain, Note::NEW)).unwrap();
        sockets.transmit(link, Lane::Data, &vec![7; len]);
        sockets.start_leaving(link, START, LEAVE_LIMIT);
        (link, peer)
    }

    /// Expires departures up to `until` in virtual time, as the loop does.
    fn run(sockets: &mut Sockets<Plain>, until: Time) {
        while let Some(at) = sockets.departures.next_deadline().filter(|at| *at <= until) {
            sockets.expire_departures(at);
        }
    }

    #[test]
    fn a_peer_that_reads_nothing_is_given_up_and_one_that_reads_is_not() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut sockets = Sockets::new(2 * MUCH, usize::MAX);
        let (silent, mut kept_open) = leaving(&mut sockets, &listener, MUCH);
        let (reading, mut peer) = leaving(&mut sockets, &listener, MUCH);
        let mut buffer = vec![0; 64 * 1024];
        let mut now = START;
        while sockets.conns.get(silent).unwrap().note.state == ConnState::Leaving {
            // The peer must have read before the socket takes more.
            peer.read_exact(&mut buffer).unwrap();
            now = now + Span::from_millis(500);
            sockets.writable(reading, now);
            run(&mut sockets, now);
        }
        let took = now.since(START);
        assert!(took >= STALL && took <= STALL + EXAMINE_INTERVAL.times(2), "{took}");
        assert_eq!(sockets.conns.get(reading).unwrap().note.state, ConnState::Leaving);
        assert_eq!((sockets.close_marked(|_| {}), sockets.undelivered), (1, 1));
        let error = kept_open.read_to_end(&mut Vec::new()).expect_err("the data is not complete");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(sockets.departures.links.len(), 1);
    }

    /// Fills the table beyond what one turn handles.
    #[test]
    fn a_crowd_that_leaves_together_is_handled_in_several_turns_and_leaves_nothing_behind() {
        let count = DEPARTURES_PER_TURN + 44;
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut sockets = Sockets::new(1_000, usize::MAX);
        let peers: Vec<_> = (0..count).map(|_| leaving(&mut sockets, &listener, 10).1).collect();
        assert_eq!(sockets.departures.links.len(), count);
        assert_eq!(sockets.departures.deadlines.len(), count);
        let first = START + EXAMINE_INTERVAL;
        assert_eq!(sockets.departures.next_deadline(), Some(first));
        sockets.expire_departures(first);
        let rest = sockets.departures.deadlines.iter().filter(|(at, _)| *at == first).count();
        assert_eq!(rest, count - DEPARTURES_PER_TURN, "the rest waits for the next turn");
        // The kernels may acknowledge later than virtual time passes; then the stall limit ends it.
        run(&mut sockets, START + STALL + FIN_WAIT.times(3));
        assert!(sockets.departures.links.is_empty() && sockets.departures.deadlines.is_empty());
        let closed = std::iter::from_fn(|| Some(sockets.close_marked(|_| {})).filter(|n| *n > 0));
        assert_eq!(closed.sum::<usize>(), count);
        drop(peers);
    }

    #[test]
    fn a_peer_that_has_closed_is_closed_without_a_wait() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut sockets = Sockets::new(1_000, usize::MAX);
        let (link, mut peer) = leaving(&mut sockets, &listener, 10);
        peer.read_exact(&mut [0; 10]).unwrap();
        drop(peer);
        let mut scratch = [0; 64];
        while sockets.conns.get(link).unwrap().note.state == ConnState::Leaving {
            assert!(!sockets.drain_until_fin(link, START, &mut scratch));
        }
        assert!(sockets.departures.links.is_empty());
    }
}
