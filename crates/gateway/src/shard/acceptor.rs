//! Accepts links in batches, pauses when no descriptor is left, and empties the queues at the end.
//!
//! A shard has own sockets, whose queues only it empties, and sockets that it shares with the other
//! shards. The kernel wakes one shard for a connection at a shared socket. A shard that pauses
//! therefore takes its shared sockets out of its poll, so that others are woken instead, and every
//! shard also looks by itself from time to time: for a connection whose shard was woken and could
//! not take it.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use mio::Registry;
use mio::net::TcpStream;
use systole_core::gather::LONGEST_WAIT;
use systole_core::{Span, Time};

use super::listening::ListeningSocket;
use crate::report::PauseReason;

/// Maximum number of links accepted per turn, before the loop serves the other sockets.
const ACCEPTS_PER_TURN: usize = 64;

/// The same for a shard with shared sockets. What has queued while no gateway ran is spread over
/// the shards in portions of this size; smaller ones would cost more turns than they spread.
const SHARED_ACCEPTS_PER_TURN: usize = 8;

/// The length of a pause, unless a descriptor becomes free earlier: long enough not to spin, short
/// enough for a waiting peer.
const PAUSE: Span = Span::from_millis(250);

/// The time from one look at the shared sockets to the next. An idle shard turns as often anyway.
const LOOK_INTERVAL: Span = LONGEST_WAIT;

/// The time from the end of arrivals at an own socket to its close: a handshake that has begun
/// takes a round trip more, and its peer would be reset by the close.
const LAST_HANDSHAKES: Span = Span::from_millis(200);

/// Accepts a shard's links from all its listeners.
#[derive(Debug)]
pub(super) struct Acceptor {
    sockets: Vec<ListeningSocket>,
    /// The socket to accept from next, so that a storm at one does not starve the others.
    next: usize,
    paused_until: Option<Time>,
    /// Whether peers wait during the pause, as far as this shard can know.
    peers_wait: bool,
    /// The reason reported for the pause, until accepting works again or nobody waits for it.
    reported: Option<PauseReason>,
    next_look: Time,
    /// When sockets whose queues are empty are closed; `None` while the shard listens.
    close_at: Option<Time>,
    max_links: usize,
}

/// A link that was accepted.
#[derive(Debug)]
pub(super) struct NewLink {
    pub(super) listener: u16,
    pub(super) stream: TcpStream,
    pub(super) address: SocketAddr,
    /// Whether it came from a shared socket: it may have queued before this gateway started, and
    /// has inherited no option then.
    pub(super) is_shared: bool,
}

/// The result of an attempt to accept.
#[derive(Debug)]
pub(super) enum Accepted {
    /// A link was accepted.
    Link(NewLink),
    /// Accepting pauses from now on; returned once per pause and reason.
    Paused(PauseReason),
    /// No peer is waiting, or accepting is paused.
    Nothing,
}

impl Acceptor {
    pub(super) fn new(sockets: Vec<ListeningSocket>, max_links: usize) -> Acceptor {
        Acceptor {
            sockets,
            next: 0,
            paused_until: None,
            peers_wait: false,
            reported: None,
            next_look: Time::ZERO,
            close_at: None,
            max_links,
        }
    }

    /// Records that peers are waiting at a listener.
    pub(super) fn mark_pending(&mut self, listener: usize) {
        let marked = self.sockets.iter_mut().find(|it| usize::from(it.listener) == listener);
        if let Some(listening) = marked {
            listening.pending = true;
        }
    }

    /// Begins a turn. Returns the maximum number of links to accept in it.
    pub(super) fn begin_turn(&mut self, now: Time) -> usize {
        let mut shared = self.sockets.iter_mut().filter(|listening| listening.is_shared).peekable();
        if shared.peek().is_none() {
            return ACCEPTS_PER_TURN;
        }
        if self.next_look <= now {
            self.next_look = now + LOOK_INTERVAL;
            shared.for_each(|listening| listening.pending = true);
        }
        SHARED_ACCEPTS_PER_TURN
    }

    /// Ends a turn: puts the sockets into the poll, or takes them out, as the turn has left them,
    /// and closes those that are to be closed.
    ///
    /// # Errors
    /// Errors of the system. The next turn tries again.
    pub(super) fn end_turn(&mut self, now: Time, registry: &Registry) -> io::Result<()> {
        if self.close_at.is_some_and(|at| at <= now) {
            self.sockets.retain(|listening| listening.pending);
        }
        let is_paused = self.paused_until.is_some();
        self.sockets.iter_mut().try_for_each(|listening| {
            listening.set_registered(registry, !(listening.is_shared && is_paused))
        })
    }

    /// Stops listening. The own sockets are closed once the last handshakes have had time and the
    /// queues are empty, since the close resets what is in the queue. The shared ones are left at
    /// once: somebody else holds them open, and what is in their queues is served by the next
    /// gateway, while this one could only send it away.
    pub(super) fn stop(&mut self, now: Time, registry: &Registry) {
        self.close_at.get_or_insert(now + LAST_HANDSHAKES);
        self.sockets.retain_mut(|listening| {
            if listening.is_shared {
                // Closing alone would leave it in the poll, because the parent has it open.
                let _ = listening.set_registered(registry, false);
                return false;
            }
            listening.stop_arrivals();
            true
        });
    }

    /// Ends a pause early, since a descriptor became free.
    pub(super) fn end_pause(&mut self) {
        if self.paused_until.is_some() {
            self.paused_until = Some(Time::ZERO);
        }
    }

    /// Returns when sockets are to be closed whose queues are empty.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.close_at.filter(|_| self.sockets.iter().any(|listening| !listening.pending))
    }

    /// Returns the number of open listening sockets.
    pub(super) fn open(&self) -> usize {
        self.sockets.len()
    }

    /// Whether a turn would try to accept.
    pub(super) fn is_pending(&self, now: Time) -> bool {
        self.paused_until.is_none_or(|until| until <= now)
            && self.sockets.iter().any(|listening| listening.pending)
    }

    /// Whether a peer waits for which there is no place, given what [`Acceptor::accept`] is given.
    pub(super) fn is_short(&self, now: Time, connections: usize, places: usize) -> bool {
        connections.max(places) >= self.max_links
            && self.is_pending(now)
            && self.sockets.iter().any(|listening| listening.pending && listening.has_peers())
    }

    /// Accepts one link, given the number of connections, which includes those of ended links, and
    /// the number of places taken by open links and by ended sessions whose last fact waits.
    pub(super) fn accept(&mut self, now: Time, connections: usize, places: usize) -> Accepted {
        if !self.is_pending(now) {
            return Accepted::Nothing;
        }
        if connections >= self.max_links {
            return self.pause(now, PauseReason::LinkLimit);
        }
        if places >= self.max_links {
            return self.pause(now, PauseReason::ControlPlane);
        }
        let count = self.sockets.len();
        for index in (0..count).map(|step| (self.next + step) % count) {
            let Some(listening) = self.sockets.get_mut(index).filter(|listening| listening.pending)
            else {
                continue;
            };
            match listening.accept() {
                Ok((stream, address)) => {
                    let (listener, is_shared) = (listening.listener, listening.is_shared);
                    self.paused_until = None;
                    self.next = index + 1;
                    return Accepted::Link(NewLink { listener, stream, address, is_shared });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    listening.pending = false;
                    self.paused_until = None;
                }
                Err(error) => {
                    let transient = [ErrorKind::ConnectionAborted, ErrorKind::Interrupted];
                    if transient.contains(&error.kind()) {
                        continue;
                    }
                    // Without descriptors the kernel does not say that a queue is empty. At the
                    // end, peers in it are given up once no end of a link can make room for them.
                    let gives_up = connections == 0 && self.close_at.is_some_and(|at| at <= now);
                    if gives_up || !listening.has_peers() {
                        listening.pending = false;
                        self.paused_until = None;
                        continue;
                    }
                    return self.pause(now, pause_reason(&error));
                }
            }
        }
        Accepted::Nothing
    }

    /// Returns whether accepting works again, or nobody waits for it any more; true once after the
    /// end of a reported pause.
    pub(super) fn take_resumed(&mut self) -> bool {
        self.reported.take_if(|_| self.paused_until.is_none() || !self.peers_wait).is_some()
    }

    /// Pauses, and reports it if peers wait. Another shard may take the peers of a shared socket:
    /// they count once they are found waiting at the end of a pause.
    fn pause(&mut self, now: Time, reason: PauseReason) -> Accepted {
        let is_repeated = self.paused_until.replace(now + PAUSE).is_some();
        let mut pending = self.sockets.iter().filter(|listening| listening.pending);
        self.peers_wait = pending.any(|it| !it.is_shared || is_repeated && it.has_peers());
        if !self.peers_wait || self.reported.replace(reason) == Some(reason) {
            return Accepted::Nothing;
        }
        Accepted::Paused(reason)
    }
}

/// Returns the resource that has run out. Unknown errors also pause, since an immediate retry would
/// spin.
fn pause_reason(error: &io::Error) -> PauseReason {
    use rustix::io::Errno;
    if Errno::from_io_error(error) == Some(Errno::MFILE) {
        PauseReason::DescriptorLimit
    } else {
        PauseReason::HostLimit
    }
}

#[cfg(test)]
mod tests;
