//! One look at a connection: what the kernel knows of it, what error it holds, and whether our own
//! address and route are still there.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use systole_core::Span;
use systole_core::kernel::{Examination, SocketError};

use crate::sockopt::{self, TcpSocket};
use crate::tcp_info;

/// How recently the peer's kernel must have been heard to prove that our own network is up: less
/// than the shortest bound a listener grants.
const HEARD: Span = Span::from_millis(500);

/// Examines `socket`, which costs about ten system calls: for suspects, never for the fleet.
///
/// Takes the socket's error away, the final one or the soft one of a router's message: whoever
/// reads or writes next will not see it again. Never waits, never fails; what could not be found
/// out is `None`. The look at address and route happens in the network namespace of the thread that
/// asks, which must be that of the socket.
pub fn examine(socket: &impl TcpSocket) -> Examination {
    let socket = SockRef::from(socket);
    // First, since reading the error of a dead connection leaves little to see.
    let tcp = sockopt::tcp_info(&socket).and_then(|(len, bytes)| tcp_info::parse(&bytes[..len]));
    let error = match socket.take_error() {
        Ok(found) => found.as_ref().map(socket_error),
        Err(_) => None,
    };
    // A peer whose kernel was heard just now was heard over our interface: no need to ask for it,
    // which would cost four fifths of the look.
    let heard = tcp.is_some_and(|tcp| tcp.last_ack < HEARD);
    let local_down = if heard { Some(false) } else { local_down_of(&socket) };
    Examination { tcp, error, local_down }
}

/// What an error of a TCP socket says about the other end.
pub fn socket_error(error: &io::Error) -> SocketError {
    // Not `Other`: an error that nobody could name is nobody's but ours.
    #[allow(clippy::wildcard_enum_match_arm)] // The kinds are not ours and not all known.
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
        _ if is_host_down(error) => SocketError::HostUnreachable,
        _ => SocketError::Local,
    }
}

/// Whether `socket` is still connected although a call on it failed with `error`: a router said
/// that the peer cannot be reached, which may pass.
///
/// Ask wherever a read or write fails under [`crate::socket_options`]. The connection that
/// has ended reads as a plain end of file after its error was taken, and would be misjudged.
pub fn outlived(error: &io::Error, socket: &impl TcpSocket) -> bool {
    match socket_error(error) {
        // Only a connection that has not ended tells its peer.
        SocketError::HostUnreachable | SocketError::NetworkUnreachable => {
            SockRef::from(socket).peer_addr().is_ok()
        }
        SocketError::Reset | SocketError::Refused | SocketError::TimedOut | SocketError::Local => {
            false
        }
    }
}

/// Whether this machine has lost the address `local` or, if asked, every route from it to `remote`.
///
/// Nothing is sent: a UDP socket is bound and connected, for which the kernel looks both up.
/// `None` where that failed for another reason. A cable without a signal is not noticed, since
/// address and route outlive it; nor are routes that only TCP, a mark or a device binding may use.
pub fn local_down(local: SocketAddr, remote: Option<SocketAddr>) -> Option<bool> {
    let probe = Socket::new(Domain::for_address(local), Type::DGRAM, Some(Protocol::UDP)).ok()?;
    let mut local = local;
    local.set_port(0);
    let route = |remote: SocketAddr| probe.connect(&remote.into());
    let asked = probe.bind(&local.into()).and_then(|()| remote.map_or(Ok(()), route));
    let Err(error) = asked else {
        return Some(false);
    };
    #[allow(clippy::wildcard_enum_match_arm)] // The kinds are not ours and not all known.
    match error.kind() {
        io::ErrorKind::AddrNotAvailable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::NetworkDown
        | io::ErrorKind::HostUnreachable => Some(true),
        // Linux answers EINVAL for a blackhole route.
        io::ErrorKind::InvalidInput if cfg!(target_os = "linux") => Some(true),
        _ => None,
    }
}

fn local_down_of(socket: &SockRef<'_>) -> Option<bool> {
    let local = socket.local_addr().ok()?.as_socket()?;
    // A connection that has died has no peer any more, but still its address.
    let remote = socket.peer_addr().ok().and_then(|addr| addr.as_socket());
    local_down(local, remote)
}

/// EHOSTDOWN has no kind of its own.
#[cfg(unix)]
fn is_host_down(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::HOSTDOWN.raw_os_error())
}

#[cfg(not(unix))]
fn is_host_down(_error: &io::Error) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[cfg(unix)]
    #[test]
    fn errors_are_sorted_by_what_they_say() {
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
            (Errno::ACCESS, SocketError::Local),
        ] {
            assert_eq!(socket_error(&errno.into()), expected, "{errno:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_healthy_connection_shows_no_fault() {
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
    fn an_address_that_is_not_ours_is_seen() {
        // TEST-NET-1 belongs to nobody (RFC 5737).
        let foreign = "192.0.2.1:1".parse().unwrap();
        assert_eq!(local_down(foreign, None), Some(true));
        let own = "127.0.0.1:1".parse().unwrap();
        assert_eq!(local_down(own, Some(own)), Some(false));
    }
}
