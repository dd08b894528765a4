//! One listening socket of a shard: the shard's own, or one that all shards share.

use std::io;
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Registry, Token};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use systole_net::listener;

/// A listening socket, and its place in the poll of its shard.
#[derive(Debug)]
pub(super) struct ListeningSocket {
    /// The number of its listener.
    pub(super) listener: u16,
    /// Whether other shards accept from the same queue.
    pub(super) is_shared: bool,
    /// Whether peers may be waiting: an edge was seen, and the queue not yet found empty.
    pub(super) pending: bool,
    socket: TcpListener,
    token: Token,
    is_registered: bool,
    /// Whether a link was accepted in this turn.
    has_accepted: bool,
}

impl ListeningSocket {
    pub(super) fn new(
        listener: u16,
        socket: TcpListener,
        token: Token,
        is_shared: bool,
    ) -> ListeningSocket {
        ListeningSocket {
            listener,
            is_shared,
            pending: true,
            socket,
            token,
            is_registered: false,
            has_accepted: false,
        }
    }

    pub(super) fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let accepted = self.socket.accept()?;
        self.has_accepted = true;
        Ok(accepted)
    }

    /// Whether a peer waits in the queue at this moment, as far as can be known.
    pub(super) fn has_peers(&self) -> bool {
        let mut sockets = [PollFd::new(&self.socket, PollFlags::IN)];
        poll(&mut sockets, Some(&Timespec::default())).map_or(true, |ready| ready > 0)
    }

    /// Puts the socket into the poll of its shard, or takes it out.
    ///
    /// A shared socket that was accepted from is put in anew, behind those of the other shards: the
    /// kernel wakes the first shard in its list that waits, so that shards take links in turn.
    ///
    /// # Errors
    /// Errors of the system; the next call tries again.
    pub(super) fn set_registered(&mut self, registry: &Registry, wanted: bool) -> io::Result<()> {
        let moves = std::mem::take(&mut self.has_accepted) && self.is_shared;
        if self.is_registered && (moves || !wanted) {
            deregister(registry, &mut self.socket)?;
            self.is_registered = false;
        }
        if wanted && !self.is_registered {
            register(registry, &mut self.socket, self.token, self.is_shared)?;
            self.is_registered = true;
        }
        Ok(())
    }

    /// Prepares the end of the socket: its queue is to be emptied, and no peer joins any more.
    pub(super) fn stop_arrivals(&mut self) {
        // Without the filter of Linux, peers that arrive last may be reset.
        let _ = listener::stop_arrivals(&self.socket);
        self.pending = true;
    }
}

/// Registers a socket for edges. Of the shards that share a socket, the kernel wakes only one that
/// waits for each connection; those that do not wait see it at their next poll.
#[cfg(target_os = "linux")]
fn register(
    registry: &Registry,
    socket: &mut TcpListener,
    token: Token,
    is_shared: bool,
) -> io::Result<()> {
    use rustix::event::epoll::{EventData, EventFlags, add};
    if !is_shared {
        return registry.register(socket, token, mio::Interest::READABLE);
    }
    // mio has no exclusive registration.
    let flags = EventFlags::IN | EventFlags::ET | EventFlags::EXCLUSIVE;
    Ok(add(registry, &*socket, EventData::new_u64(token.0 as u64), flags)?)
}

/// Registers a socket for edges. All shards that share a socket are woken for each connection.
#[cfg(not(target_os = "linux"))]
fn register(
    registry: &Registry,
    socket: &mut TcpListener,
    token: Token,
    _is_shared: bool,
) -> io::Result<()> {
    registry.register(socket, token, mio::Interest::READABLE)
}

#[cfg(target_os = "linux")]
fn deregister(registry: &Registry, socket: &mut TcpListener) -> io::Result<()> {
    Ok(rustix::event::epoll::delete(registry, &*socket)?)
}

#[cfg(not(target_os = "linux"))]
fn deregister(registry: &Registry, socket: &mut TcpListener) -> io::Result<()> {
    registry.deregister(socket)
}
