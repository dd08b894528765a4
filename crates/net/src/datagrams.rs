//! UDP sockets: one port shared by all shards, with a receive buffer for bursts.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

use crate::listener::{bind_each, share_port};

/// Receive buffer requested for each socket, in bytes. The kernel counts about 768 bytes for a
/// small datagram: 20,000 of them are 100 ms of 200,000 a second.
pub const RECEIVE_BUFFER: usize = 16 << 20;

/// Binds `shards` non-blocking sockets to the same address; the kernel distributes senders among
/// them.
///
/// With port 0, the system chooses the port of the first socket and the others use the same. All
/// sockets are bound or none. A port that another program uses is refused, even if it is shared.
///
/// # Errors
/// Errors of the system, mostly `AddrInUse` and `PermissionDenied`; `InvalidInput` for 0 shards or
/// more than [`crate::listener::MAX_SHARDS`]; `Unsupported` for several where the system cannot
/// share a port.
pub fn bind_datagrams(addr: SocketAddr, shards: usize) -> io::Result<Vec<UdpSocket>> {
    bind_each(addr, shards, bind, UdpSocket::local_addr)
}

/// Finds out whether [`bind_datagrams`] could bind `addr` now, and leaves it free.
///
/// # Errors
/// The error that [`bind_datagrams`] would return.
pub fn probe(addr: SocketAddr) -> io::Result<()> {
    bind(addr, false).map(drop)
}

/// Requests a receive buffer of `bytes`, beyond the system's limit if this process is privileged,
/// and returns the size granted.
///
/// # Errors
/// The size cannot be read.
pub fn grow_receive_buffer(socket: &UdpSocket, bytes: usize) -> io::Result<usize> {
    let socket_ref = socket2::SockRef::from(socket);
    // A refusal shows in the size that is read below.
    let _ = socket_ref.set_recv_buffer_size(bytes);
    #[cfg(target_os = "linux")]
    if socket_ref.recv_buffer_size()? < bytes {
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(socket, bytes);
    }
    socket_ref.recv_buffer_size()
}

fn bind(addr: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if shared {
        share_port(&socket)?;
    }
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::MAX_SHARDS;

    #[test]
    fn shards_share_a_port_that_other_programs_cannot_bind() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let sockets = bind_datagrams(any, 3).unwrap();
        let addr = sockets[0].local_addr().unwrap();
        assert_ne!(addr.port(), 0);
        for socket in &sockets {
            assert_eq!(socket.local_addr().unwrap(), addr);
            assert!(grow_receive_buffer(socket, RECEIVE_BUFFER).unwrap() > 0);
        }
        for shards in [1, 2] {
            let error = bind_datagrams(addr, shards).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        }
        assert_eq!(probe(addr).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(sockets);
        probe(addr).unwrap();
        assert_eq!(bind_datagrams(addr, 2).unwrap().len(), 2);
        for shards in [0, MAX_SHARDS + 1] {
            let error = bind_datagrams(any, shards).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
