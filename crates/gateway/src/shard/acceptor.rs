//! Accepts links in batches, and pauses when no descriptor is left.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use systole_core::{Span, Time};

use crate::report::PauseReason;

/// Maximum number of links accepted per turn, before the loop serves the other sockets.
pub(super) const ACCEPTS_PER_TURN: usize = 64;

/// The length of a pause, unless a descriptor becomes free earlier: long enough not to spin, short
/// enough for a waiting peer.
const PAUSE: Span = Span::from_millis(250);

/// Accepts a shard's links from all its listeners.
#[derive(Debug)]
pub(super) struct Acceptor {
    sockets: Vec<ListeningSocket>,
    /// The listener to accept from next, so that a storm at one does not starve the others.
    next: usize,
    paused_until: Option<Time>,
    /// The reason reported for the pause, until accepting works again.
    reported: Option<PauseReason>,
    max_links: usize,
}

#[derive(Debug)]
struct ListeningSocket {
    socket: TcpListener,
    /// Whether peers may be waiting: an edge was seen, and the queue not yet found empty.
    pending: bool,
}

/// The result of an attempt to accept.
#[derive(Debug)]
pub(super) enum Accepted {
    /// A link was accepted.
    Link { listener: u16, stream: TcpStream, address: SocketAddr },
    /// Accepting pauses from now on; returned once per pause and reason.
    Paused(PauseReason),
    /// No peer is waiting, or accepting is paused.
    Nothing,
}

impl Acceptor {
    pub(super) fn new(sockets: Vec<TcpListener>, max_links: usize) -> Acceptor {
        let sockets =
            sockets.into_iter().map(|socket| ListeningSocket { socket, pending: true }).collect();
        Acceptor { sockets, next: 0, paused_until: None, reported: None, max_links }
    }

    /// Records that peers are waiting at a listener.
    pub(super) fn mark_pending(&mut self, listener: usize) {
        if let Some(listening) = self.sockets.get_mut(listener) {
            listening.pending = true;
        }
    }

    /// Closes the listening sockets.
    pub(super) fn close(&mut self) {
        self.sockets.clear();
    }

    /// Ends a pause early, since a descriptor became free.
    pub(super) fn end_pause(&mut self) {
        if self.paused_until.is_some() {
            self.paused_until = Some(Time::ZERO);
        }
    }

    /// Whether a turn would try to accept.
    pub(super) fn is_pending(&self, now: Time) -> bool {
        self.paused_until.is_none_or(|until| until <= now)
            && self.sockets.iter().any(|listening| listening.pending)
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
            match listening.socket.accept() {
                Ok((stream, address)) => {
                    self.paused_until = None;
                    self.next = index + 1;
                    let listener = u16::try_from(index).unwrap_or(u16::MAX);
                    return Accepted::Link { listener, stream, address };
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
                    return self.pause(now, pause_reason(&error));
                }
            }
        }
        Accepted::Nothing
    }

    /// Returns whether accepting works again; true once after the end of a reported pause.
    pub(super) fn take_resumed(&mut self) -> bool {
        self.reported.take_if(|_| self.paused_until.is_none()).is_some()
    }

    fn pause(&mut self, now: Time, reason: PauseReason) -> Accepted {
        self.paused_until = Some(now + PAUSE);
        if self.reported.replace(reason) == Some(reason) {
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
mod tests {
    use std::net;

    use super::*;

    #[test]
    fn a_queue_at_one_listener_does_not_starve_the_others() {
        let sockets: Vec<_> = (0..3)
            .map(|_| {
                let socket = net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
                socket.set_nonblocking(true).unwrap();
                socket
            })
            .collect();
        let connect = |socket: &net::TcpListener| {
            net::TcpStream::connect(socket.local_addr().unwrap()).unwrap()
        };
        let clients: Vec<_> = [0, 0, 0, 0, 2, 2].map(|index| connect(&sockets[index])).into();
        let sockets = sockets.into_iter().map(TcpListener::from_std).collect();
        let mut acceptor = Acceptor::new(sockets, 100);
        let mut order = Vec::new();
        while let Accepted::Link { listener, .. } = acceptor.accept(Time::ZERO, 0, 0) {
            order.push(listener);
        }
        assert_eq!(order, [0, 2, 0, 2, 0, 0]);
        drop(clients);
    }
}
