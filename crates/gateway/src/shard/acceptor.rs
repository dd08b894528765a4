//! Accepting: in batches, and with a pause when no descriptor is left.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use systole_core::{Span, Time};

use crate::report::PauseReason;

/// How many links are accepted in a row before the loop looks at the others.
const ACCEPTS_PER_TURN: usize = 64;

/// How long accepting pauses before it is tried again, unless a descriptor becomes free before:
/// long enough not to spin, short enough for a waiting peer.
const PAUSE: Span = Span::from_millis(250);

/// Where a shard's links come in.
#[derive(Debug)]
pub(super) struct Acceptor {
    sockets: Vec<Listening>,
    /// The listener whose turn it is, so that a storm at one does not shut out the others.
    next: usize,
    paused_until: Option<Time>,
    /// The reason that was told, until accepting works again.
    told: Option<PauseReason>,
    max_links: usize,
    open: bool,
}

#[derive(Debug)]
struct Listening {
    socket: TcpListener,
    /// Peers may be waiting: the edge was seen, and not worked off.
    pending: bool,
}

/// What a try to accept brought.
#[derive(Debug)]
pub(super) enum Accepted {
    /// A link.
    Link { listener: u16, stream: TcpStream, address: SocketAddr },
    /// Accepting pauses from now on; told once.
    Paused(PauseReason),
    /// Accepting works again.
    Resumed,
    /// Nothing more for now.
    Nothing,
}

impl Acceptor {
    pub(super) fn new(sockets: Vec<TcpListener>, max_links: usize) -> Acceptor {
        let sockets =
            sockets.into_iter().map(|socket| Listening { socket, pending: true }).collect();
        Acceptor { sockets, next: 0, paused_until: None, told: None, max_links, open: true }
    }

    /// Peers are waiting at a listener.
    pub(super) fn ready(&mut self, listener: usize) {
        if let Some(listening) = self.sockets.get_mut(listener) {
            listening.pending = true;
        }
    }

    /// Accepts no more.
    pub(super) fn close(&mut self) {
        self.open = false;
        self.sockets.clear();
    }

    /// A descriptor became free.
    pub(super) fn relieve(&mut self) {
        if self.paused_until.is_some() {
            self.paused_until = Some(Time::ZERO);
        }
    }

    /// Whether a turn would accept anything.
    pub(super) fn is_pending(&self, now: Time) -> bool {
        self.paused_until.is_none_or(|until| until <= now)
            && self.sockets.iter().any(|listening| listening.pending)
    }

    /// How many links a turn may accept.
    pub(super) fn batch(&self) -> usize {
        ACCEPTS_PER_TURN
    }

    /// Accepts one link, while there are `links` of them.
    pub(super) fn accept(&mut self, now: Time, links: usize) -> Accepted {
        if !self.open || !self.is_pending(now) {
            return Accepted::Nothing;
        }
        if links >= self.max_links {
            return self.pause(now, PauseReason::LinkLimit);
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
                    return self.pause(now, reason(&error));
                }
            }
        }
        Accepted::Nothing
    }

    /// Whether a pause that was told is over.
    pub(super) fn resumed(&mut self) -> Accepted {
        match self.told.take_if(|_| self.paused_until.is_none()) {
            Some(_) => Accepted::Resumed,
            None => Accepted::Nothing,
        }
    }

    fn pause(&mut self, now: Time, reason: PauseReason) -> Accepted {
        self.paused_until = Some(now + PAUSE);
        if self.told.replace(reason) == Some(reason) {
            return Accepted::Nothing;
        }
        Accepted::Paused(reason)
    }
}

/// What has run out. Whatever else the error may be, trying again at once would spin.
fn reason(error: &io::Error) -> PauseReason {
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
    fn a_queue_at_one_listener_does_not_shut_out_the_others() {
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
        while let Accepted::Link { listener, .. } = acceptor.accept(Time::ZERO, 0) {
            order.push(listener);
        }
        assert_eq!(order, [0, 2, 0, 2, 0, 0]);
        drop(clients);
    }
}
