//! Examination of a connection: the kernel's TCP state, the pending socket error, and whether our
//! own address and route still exist.

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use systole_core::Span;
use systole_core::kernel::{Examination, NextHop, SocketError, TcpSnapshot};

#[cfg(target_os = "linux")]
use crate::next_hop::NextHops;
use crate::sockopt::{self, TcpSocket};
use crate::tcp_info;

/// Age of the peer's last ACK below which our own network counts as up; less than the shortest
/// bound a listener grants.
const RECENT_ACK: Span = Span::from_millis(500);

/// Examines `socket`, our own address and route to the peer, and the next hop if something is sent
/// again. Costs about fifteen system calls: for suspects, never for all links.
///
/// Clears the pending error of the socket, whether final or soft (a router's message): the next
/// read or write does not return it. Never waits, never fails; a value that could not be read is
/// `None`. Address and route are checked in the network namespace of the calling thread, which must
/// be that of the socket.
pub fn examine(socket: &impl TcpSocket) -> Examination {
    RouteLookup::default().examine(socket)
}

/// Examines `socket` alone, without address and route: two system calls.
///
/// Clears the pending error of the socket, as [`examine`] does.
pub fn examine_socket(socket: &impl TcpSocket) -> Examination {
    // First: reading the error of a dead connection clears most of its state.
    let tcp = tcp_snapshot(socket);
    let socket = SockRef::from(socket);
    let error = match socket.take_error() {
        Ok(found) => found.as_ref().map(socket_error),
        Err(_) => None,
    };
    let ended = error.is_some_and(|error| !stands_despite(error, &socket));
    Examination { tcp, error, ended, local_down: None, next_hop: None, queued: false }
}

/// Returns the kernel's view of the connection alone; the pending error stays. Costs one system
/// call, and two more if segments ever arrived out of order.
pub fn tcp_snapshot(socket: &impl TcpSocket) -> Option<TcpSnapshot> {
    let socket = SockRef::from(socket);
    let (len, bytes) = sockopt::tcp_info(&socket)?;
    let tcp = tcp_info::parse(bytes.get(..len)?)?;
    // The counter never falls: whether one of them still waits only the memory shows.
    let gap = if tcp.gap == Some(true) { sockopt::holds_unreadable(&socket) } else { tcp.gap };
    Some(TcpSnapshot { gap, ..tcp })
}

/// Classifies an error of a TCP socket by what it shows about the peer.
pub fn socket_error(error: &io::Error) -> SocketError {
    // An error that shows nothing about the peer counts as a local one.
    #[allow(clippy::wildcard_enum_match_arm)] // `ErrorKind` is foreign and non-exhaustive.
    match error.kind() {
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe => SocketError::Reset,
        io::ErrorKind::ConnectionRefused => SocketError::Refused,
        io::ErrorKind::TimedOut => SocketError::TimedOut,
        io::ErrorKind::HostUnreachable => SocketError::HostUnreachable,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
            SocketError::NetworkUnreachable
        }
        _ if is_sent_by_router(error) => SocketError::HostUnreachable,
        _ => SocketError::Local,
    }
}

/// Returns whether `socket` is still connected although a call on it failed with `error`: usually
/// a router reported that the peer cannot be reached, which may be temporary.
///
/// Call this whenever a read or write fails on a socket with [`crate::socket_options`]. Once its
/// error is cleared, a connection that has ended reads as end of file, like a FIN of the peer.
pub fn outlived(error: &io::Error, socket: &impl TcpSocket) -> bool {
    stands_despite(socket_error(error), &SockRef::from(socket))
}

/// Returns whether a connection stands that has reported `error`. On Linux any error may be
/// outlived, and the state of the connection decides; elsewhere it is asked only after the errors
/// that are known to be temporary, since what it shows after a reset differs between systems.
fn stands_despite(error: SocketError, socket: &SockRef<'_>) -> bool {
    (cfg!(target_os = "linux") || error.is_unreachable()) && !is_gone(socket)
}

/// Returns whether a connection has ended, whatever ended it.
fn is_gone(socket: &SockRef<'_>) -> bool {
    // Of a connection, `getpeername` fails in the state CLOSE (`tcpi_state`) and in no other.
    socket.peer_addr().is_err()
}

/// Looks up our own addresses and routes, for several sockets one after the other.
///
/// Keeps a UDP socket for the next lookup from the same IPv4 address, which then costs three system
/// calls instead of six, and a netlink socket. Drop it soon: meanwhile it occupies two descriptors
/// and a UDP port.
#[derive(Debug, Default)]
pub struct RouteLookup {
    kept: Option<(IpAddr, Socket)>,
    #[cfg(target_os = "linux")]
    next_hops: NextHops,
}

impl RouteLookup {
    /// Examines `socket`; see [`examine`].
    pub fn examine(&mut self, socket: &impl TcpSocket) -> Examination {
        let found = examine_socket(socket);
        // A recent ACK came over our own interface. Checking address and route as well would be
        // more than half of the cost of an examination.
        if found.tcp.is_some_and(|tcp| tcp.last_ack < RECENT_ACK) {
            return Examination { local_down: Some(false), ..found };
        }
        let socket = SockRef::from(socket);
        let local = socket.local_addr().ok().and_then(|address| address.as_socket());
        // A dead connection has no peer address, but still its local one.
        let remote = socket.peer_addr().ok().and_then(|address| address.as_socket());
        let local_down = local.and_then(|local| self.local_down(local, remote));
        // A next hop matters only for what does not arrive.
        let repeats = found.tcp.is_some_and(|tcp| tcp.retransmits > 0);
        let ends = local.zip(remote).filter(|_| repeats && local_down == Some(false));
        let next_hop = ends.and_then(|(local, remote)| self.next_hop(local, remote));
        Examination { local_down, next_hop, ..found }
    }

    #[cfg(target_os = "linux")]
    fn next_hop(&mut self, local: SocketAddr, remote: SocketAddr) -> Option<NextHop> {
        self.next_hops.look_up(local, remote)
    }

    #[cfg(not(target_os = "linux"))]
    fn next_hop(&mut self, _: SocketAddr, _: SocketAddr) -> Option<NextHop> {
        None
    }

    /// Returns whether this machine has lost the address `local` or every route from it to
    /// `remote`; the route is checked only if `remote` is given.
    ///
    /// Sends nothing: it binds and connects a UDP socket, for which the kernel looks up address and
    /// route. `None` if that failed for another reason. A cable without a signal is not detected,
    /// since address and route remain; nor are routes that only TCP, a mark or a device binding may
    /// use.
    pub fn local_down(&mut self, local: SocketAddr, remote: Option<SocketAddr>) -> Option<bool> {
        if let (Some((kept, lookup)), Some(remote)) = (&self.kept, remote)
            && *kept == local.ip()
            && lookup.connect(&remote.into()).is_ok()
        {
            return Some(false);
        }
        self.kept = None;
        let lookup =
            Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP)).ok()?;
        let mut address = local;
        address.set_port(0);
        let route = |remote: SocketAddr| lookup.connect(&remote.into());
        let looked_up = lookup.bind(&address.into()).and_then(|()| remote.map_or(Ok(()), route));
        let Err(error) = looked_up else {
            // For IPv6, Linux checks the local address only when a socket is bound to it.
            self.kept = local.is_ipv4().then_some((local.ip(), lookup));
            return Some(false);
        };
        #[allow(clippy::wildcard_enum_match_arm)] // `ErrorKind` is foreign and non-exhaustive.
        match error.kind() {
            io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::HostUnreachable => Some(true),
            // Linux returns EINVAL for a blackhole route.
            io::ErrorKind::InvalidInput if cfg!(target_os = "linux") => Some(true),
            _ => None,
        }
    }
}

/// Returns whether `error` is one of those that a TCP connection gets only from an ICMP message and
/// that have no `ErrorKind` of their own (Linux `icmp_err_convert` and `icmpv6_err_convert`).
#[cfg(target_os = "linux")]
fn is_sent_by_router(error: &io::Error) -> bool {
    use rustix::io::Errno;
    const ALL: [Errno; 6] = [
        Errno::HOSTDOWN,
        Errno::ACCESS,
        Errno::NOPROTOOPT,
        Errno::PROTO,
        Errno::NONET,
        Errno::OPNOTSUPP,
    ];
    ALL.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(all(unix, not(target_os = "linux")))]
fn is_sent_by_router(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::HOSTDOWN.raw_os_error())
}

#[cfg(not(unix))]
fn is_sent_by_router(_error: &io::Error) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[cfg(unix)]
    #[test]
    fn socket_errors_are_classified() {
        use rustix::io::Errno;
        for (errno, expected) in [
            (Errno::CONNRESET, SocketError::Reset),
            (Errno::PIPE, SocketError::Reset),
            (Errno::CONNABORTED, SocketError::Reset),
            (Errno::CONNREFUSED, SocketError::Refused),
            (Errno::TIMEDOUT, SocketError::TimedOut),
            (Errno::HOSTUNREACH, SocketError::HostUnreachable),
            (Errno::HOSTDOWN, SocketError::HostUnreachable),
            (Errno::NETUNREACH, SocketError::NetworkUnreachable),
            (Errno::NETDOWN, SocketError::NetworkUnreachable),
            (Errno::NOBUFS, SocketError::Local),
            #[cfg(target_os = "linux")]
            (Errno::ACCESS, SocketError::HostUnreachable),
            #[cfg(target_os = "linux")]
            (Errno::NOPROTOOPT, SocketError::HostUnreachable),
            #[cfg(target_os = "linux")]
            (Errno::PROTO, SocketError::HostUnreachable),
        ] {
            assert_eq!(socket_error(&errno.into()), expected, "{errno:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn examining_a_healthy_connection_finds_no_fault() {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(listen).unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let found = examine(&stream);
            let tcp = found.tcp.unwrap();
            assert_eq!((tcp.unacked, tcp.retransmits, tcp.probes, tcp.backoff), (0, 0, 0, 0));
            assert_eq!((tcp.notsent, tcp.total_retrans), (Some(0), 0));
            assert!(tcp.send_window.is_some_and(|window| window > 0), "{tcp:?}");
            assert_eq!((found.error, found.local_down), (None, Some(false)), "{listen}");
        }
    }

    #[test]
    fn a_foreign_address_counts_as_lost() {
        // TEST-NET-1 belongs to nobody (RFC 5737).
        let foreign = "192.0.2.1:1".parse().unwrap();
        let mut routes = RouteLookup::default();
        assert_eq!(routes.local_down(foreign, None), Some(true));
        let own = "127.0.0.1:1".parse().unwrap();
        assert_eq!(routes.local_down(own, Some(own)), Some(false));
        assert_eq!(routes.local_down(foreign, Some(own)), Some(true));
    }
}
