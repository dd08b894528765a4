//! Listening sockets: one port shared by all shards, and the setup of accepted connections.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::sockopt::TcpSocket;

/// Number of connections that may wait to be accepted, per listening socket.
///
/// Sized for a reconnect storm after a restart. The kernel caps it at `net.core.somaxconn`, 4,096
/// by default.
pub const BACKLOG: i32 = 4_096;

/// Maximum number of shards on one port: a session's number starts with the shard's, in one byte.
pub const MAX_SHARDS: usize = 256;

/// Opens a non-blocking socket that listens on `addr`; with port 0, the system chooses the port.
///
/// With `shared`, other `shared` sockets of this user may listen on the same port, and the kernel
/// distributes connections among them. A port in `TIME_WAIT` can be bound at once. An IPv6 socket
/// accepts no IPv4 connections, so that both can be bound to the same port.
///
/// # Errors
/// Errors of the system, mostly `AddrInUse` and `PermissionDenied`; nothing stays open.
/// `Unsupported` for `shared` on systems that cannot share a port.
pub fn bind(addr: SocketAddr, backlog: i32, shared: bool) -> io::Result<TcpListener> {
    let socket = open(addr, shared)?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Finds out whether [`bind`] could open `addr` now, without listening: nobody can connect.
///
/// # Errors
/// The error that [`bind`] would return.
pub fn probe(addr: SocketAddr) -> io::Result<()> {
    open(addr, false).map(drop)
}

/// Opens and binds a socket that does not listen yet.
fn open(addr: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // On Windows this option would let two programs take the same port.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if shared {
        share_port(&socket)?;
    }
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Inherited by accepted connections. Without it, a byte that the peer sent as urgent data is
    // missing in the stream. A read still stops before that byte, so after urgent data (priority
    // readiness) a short read does not mean that the socket is empty.
    socket.set_out_of_band_inline(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// Opens `shards` sockets that listen on the same address, with [`BACKLOG`] each.
///
/// With port 0, the system chooses the port of the first socket and the others use the same. All
/// sockets are bound or none. A port on which another program listens is refused, even if it is
/// shared: a second gateway started by mistake would get half of the clients.
///
/// # Errors
/// See [`bind`]; `InvalidInput` for 0 shards or more than [`MAX_SHARDS`].
pub fn bind_shards(addr: SocketAddr, shards: usize) -> io::Result<Vec<TcpListener>> {
    let bind = |addr, shared| bind(addr, BACKLOG, shared);
    bind_each(addr, shards, bind, TcpListener::local_addr)
}

/// Stops arrivals at a listening socket that is about to be closed. Handshakes that have begun are
/// completed; after them the queue only gets shorter.
///
/// The close resets what is in the queue, so the queue is emptied first; without this, connections
/// that arrive between the last accept and the close would be reset too. The kernel drops the first
/// packet of new peers, as it does when a queue is full: they try again a second later, and are
/// refused if nobody listens then. Never for a socket that another process goes on using.
///
/// # Errors
/// `Unsupported` where the system has no socket filters, else the error of the system. Nothing has
/// changed then.
#[cfg(target_os = "linux")]
pub fn stop_arrivals(socket: &impl TcpSocket) -> io::Result<()> {
    use socket2::SockFilter;
    /// A classic BPF program over the TCP header. Accepted connections inherit it, and it does them
    /// no harm: a SYN is of no use to them.
    const DROP_SYN: [SockFilter; 4] = [
        // Load the byte with the flags.
        SockFilter::new(0x30, 0, 0, 13),
        // Unless SYN is set, skip one instruction.
        SockFilter::new(0x45, 0, 1, 0x02),
        // Keep nothing of the packet.
        SockFilter::new(0x06, 0, 0, 0),
        // Keep all of it.
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ];
    SockRef::from(socket).attach_filter(&DROP_SYN)
}

/// Does nothing: this system has no socket filters.
///
/// # Errors
/// Always `Unsupported`.
#[cfg(not(target_os = "linux"))]
pub fn stop_arrivals(_socket: &impl TcpSocket) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Binds `shards` sockets of any kind to the same address: all or none. `bind` binds one, to a
/// shared port or not.
pub(crate) fn bind_each<S>(
    addr: SocketAddr,
    shards: usize,
    bind: impl Fn(SocketAddr, bool) -> io::Result<S>,
    local_addr: impl Fn(&S) -> io::Result<SocketAddr>,
) -> io::Result<Vec<S>> {
    if shards == 0 || shards > MAX_SHARDS {
        let text = format!("shards must be 1 to {MAX_SHARDS}, not {shards}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let shared = shards > 1;
    if shared && addr.port() != 0 {
        // Only an unshared bind fails if the port is in use by shared sockets.
        drop(bind(addr, false)?);
    }
    let first = bind(addr, shared)?;
    let chosen = local_addr(&first)?;
    let mut sockets = vec![first];
    while sockets.len() < shards {
        sockets.push(bind(chosen, shared)?);
    }
    Ok(sockets)
}

#[cfg(unix)]
pub(crate) fn share_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

#[cfg(not(unix))]
pub(crate) fn share_port(_socket: &Socket) -> io::Result<()> {
    let text = "this system cannot share a port between shards; run with one shard";
    Err(io::Error::new(io::ErrorKind::Unsupported, text))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    #[cfg(target_os = "linux")]
    use std::time::Duration;

    use systole_core::kernel::{Patience, SendState};

    use super::*;
    use crate::socket_options::prepare;

    const ANY_PORT: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn all_shards_use_the_port_of_the_first() {
        let listeners = bind_shards(ANY_PORT, 4).unwrap();
        let first = listeners[0].local_addr().unwrap();
        assert_ne!(first.port(), 0);
        assert_eq!(listeners.len(), 4);
        for listener in &listeners {
            assert_eq!(listener.local_addr().unwrap(), first);
            assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn each_connection_reaches_exactly_one_shard() {
        let listeners = bind_shards(ANY_PORT, 2).unwrap();
        let addr = listeners[0].local_addr().unwrap();
        // A connected client is already in the queue of a listener, so no wait is needed.
        let clients: Vec<_> = (0..16).map(|_| TcpStream::connect(addr).unwrap()).collect();
        let mut accepted = Vec::new();
        for listener in &listeners {
            while let Ok((stream, from)) = listener.accept() {
                assert!(SockRef::from(&stream).out_of_band_inline().unwrap(), "inherited");
                prepare(&Patience::new(None, SendState::Sending), &stream);
                assert!(stream.nodelay().unwrap());
                accepted.push(from);
            }
        }
        accepted.sort();
        let mut expected: Vec<_> = clients.iter().map(|c| c.local_addr().unwrap()).collect();
        expected.sort();
        assert_eq!(accepted, expected);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn after_arrivals_are_stopped_a_queue_is_emptied_for_good() {
        let socket = bind(ANY_PORT, BACKLOG, false).unwrap();
        let address = socket.local_addr().unwrap();
        let early = TcpStream::connect(address).unwrap();
        stop_arrivals(&socket).unwrap();
        let late = TcpStream::connect_timeout(&address, Duration::from_millis(50)).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        let (accepted, from) = socket.accept().unwrap();
        assert_eq!(from, early.local_addr().unwrap());
        assert_eq!(socket.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        // As a connection that has inherited the filter.
        stop_arrivals(&accepted).unwrap();
        io::Write::write_all(&mut &early, b"x").unwrap();
        assert_eq!(io::Read::read(&mut &accepted, &mut [0]).unwrap(), 1);
    }

    #[test]
    fn a_second_gateway_on_the_same_port_is_refused() {
        for (first, second) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
            let listeners = bind_shards(ANY_PORT, first).unwrap();
            let addr = listeners[0].local_addr().unwrap();
            let error = bind_shards(addr, second).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{first} {second}");
            drop(listeners);
            assert_eq!(bind_shards(addr, second).unwrap().len(), second);
        }
    }

    #[test]
    fn a_probe_finds_what_cannot_be_bound() {
        let taken = bind(ANY_PORT, BACKLOG, false).unwrap();
        let address = taken.local_addr().unwrap();
        assert_eq!(probe(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(taken);
        probe(address).unwrap();
        // Of the block for documentation (RFC 5737), which no machine has.
        let foreign = SocketAddr::from(([192, 0, 2, 1], 0));
        assert_eq!(probe(foreign).unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }

    #[test]
    fn the_number_of_shards_is_bounded() {
        for shards in [0, MAX_SHARDS + 1] {
            let error = bind_shards(ANY_PORT, shards).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{shards}");
        }
    }
}
