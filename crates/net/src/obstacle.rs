//! Why an attempt to connect failed: from the system's error to an obstacle.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use systole_core::reconnect::Obstacle;

/// The kinds of error that decide alone.
const KINDS: [(ErrorKind, Obstacle); 12] = [
    (ErrorKind::ConnectionRefused, Obstacle::Refused),
    (ErrorKind::ConnectionReset, Obstacle::Refused),
    (ErrorKind::ConnectionAborted, Obstacle::Refused),
    (ErrorKind::TimedOut, Obstacle::NoAnswer),
    (ErrorKind::HostUnreachable, Obstacle::Unreachable),
    (ErrorKind::NetworkUnreachable, Obstacle::Unreachable),
    (ErrorKind::NetworkDown, Obstacle::Unreachable),
    // No local port is free, or the local address has just gone.
    (ErrorKind::AddrNotAvailable, Obstacle::Exhausted),
    (ErrorKind::AddrInUse, Obstacle::Exhausted),
    (ErrorKind::OutOfMemory, Obstacle::Exhausted),
    (ErrorKind::WouldBlock, Obstacle::Exhausted),
    // A link-local address without its zone.
    (ErrorKind::InvalidInput, Obstacle::Unusable),
];

/// Returns what the error of an attempt to connect to `address` means. An error that is not in the
/// tables is [`Obstacle::Other`], which is worth another attempt.
pub fn obstacle(error: &io::Error, address: &SocketAddr) -> Obstacle {
    let kind = error.kind();
    if kind == ErrorKind::PermissionDenied {
        let by_router = is_sent_by_router(error, address);
        return if by_router { Obstacle::Unreachable } else { Obstacle::NotAllowed };
    }
    let found = KINDS.iter().find(|(known, _)| *known == kind);
    found.map_or_else(|| by_number(error), |(_, obstacle)| *obstacle)
}

/// Returns whether a router may have caused an error that looks like a local prohibition. On Linux
/// the ICMPv6 message "administratively prohibited" becomes EACCES (`icmpv6_err_convert`); no
/// ICMPv4 message does, and a filter of this machine causes EPERM.
#[cfg(target_os = "linux")]
fn is_sent_by_router(error: &io::Error, address: &SocketAddr) -> bool {
    let is_access = error.raw_os_error() == Some(rustix::io::Errno::ACCESS.raw_os_error());
    is_access && address.is_ipv6()
}

#[cfg(not(target_os = "linux"))]
fn is_sent_by_router(_error: &io::Error, _address: &SocketAddr) -> bool {
    false
}

/// The errors that have no kind of their own.
#[cfg(unix)]
fn by_number(error: &io::Error) -> Obstacle {
    use rustix::io::Errno;
    /// The first five come from a router's ICMP message.
    const TABLE: [(Errno, Obstacle); 11] = [
        (Errno::HOSTDOWN, Obstacle::Unreachable),
        (Errno::NOPROTOOPT, Obstacle::Unreachable),
        (Errno::PROTO, Obstacle::Unreachable),
        (Errno::OPNOTSUPP, Obstacle::Unreachable),
        #[cfg(target_os = "linux")]
        (Errno::NONET, Obstacle::Unreachable),
        #[cfg(not(target_os = "linux"))]
        (Errno::NETRESET, Obstacle::Unreachable),
        (Errno::MFILE, Obstacle::Exhausted),
        (Errno::NFILE, Obstacle::Exhausted),
        (Errno::NOBUFS, Obstacle::Exhausted),
        (Errno::AFNOSUPPORT, Obstacle::Unusable),
        (Errno::PROTONOSUPPORT, Obstacle::Unusable),
        (Errno::PROTOTYPE, Obstacle::Unusable),
    ];
    let raw = error.raw_os_error();
    let found = TABLE.iter().find(|(errno, _)| raw == Some(errno.raw_os_error()));
    found.map_or(Obstacle::Other, |(_, obstacle)| *obstacle)
}

#[cfg(not(unix))]
fn by_number(_error: &io::Error) -> Obstacle {
    Obstacle::Other
}

#[cfg(all(test, unix))]
mod tests {
    use rustix::io::Errno;

    use super::*;

    /// The whole table: the error, what it means over IPv4 and over IPv6, and whether that is
    /// final.
    const TABLE: [(Errno, Obstacle, Obstacle, bool); 24] = [
        (Errno::CONNREFUSED, Obstacle::Refused, Obstacle::Refused, false),
        (Errno::CONNRESET, Obstacle::Refused, Obstacle::Refused, false),
        (Errno::CONNABORTED, Obstacle::Refused, Obstacle::Refused, false),
        (Errno::TIMEDOUT, Obstacle::NoAnswer, Obstacle::NoAnswer, false),
        (Errno::HOSTUNREACH, Obstacle::Unreachable, Obstacle::Unreachable, false),
        (Errno::NETUNREACH, Obstacle::Unreachable, Obstacle::Unreachable, false),
        (Errno::NETDOWN, Obstacle::Unreachable, Obstacle::Unreachable, false),
        (Errno::HOSTDOWN, Obstacle::Unreachable, Obstacle::Unreachable, false),
        (Errno::NOPROTOOPT, Obstacle::Unreachable, Obstacle::Unreachable, false),
        (Errno::PROTO, Obstacle::Unreachable, Obstacle::Unreachable, false),
        (Errno::OPNOTSUPP, Obstacle::Unreachable, Obstacle::Unreachable, false),
        (Errno::ADDRNOTAVAIL, Obstacle::Exhausted, Obstacle::Exhausted, false),
        (Errno::ADDRINUSE, Obstacle::Exhausted, Obstacle::Exhausted, false),
        (Errno::MFILE, Obstacle::Exhausted, Obstacle::Exhausted, false),
        (Errno::NFILE, Obstacle::Exhausted, Obstacle::Exhausted, false),
        (Errno::NOBUFS, Obstacle::Exhausted, Obstacle::Exhausted, false),
        (Errno::NOMEM, Obstacle::Exhausted, Obstacle::Exhausted, false),
        (Errno::AGAIN, Obstacle::Exhausted, Obstacle::Exhausted, false),
        (Errno::INTR, Obstacle::Other, Obstacle::Other, false),
        (Errno::PERM, Obstacle::NotAllowed, Obstacle::NotAllowed, true),
        (Errno::INVAL, Obstacle::Unusable, Obstacle::Unusable, true),
        (Errno::AFNOSUPPORT, Obstacle::Unusable, Obstacle::Unusable, true),
        (Errno::PROTONOSUPPORT, Obstacle::Unusable, Obstacle::Unusable, true),
        (Errno::PROTOTYPE, Obstacle::Unusable, Obstacle::Unusable, true),
    ];

    #[test]
    fn each_error_of_connect_has_its_place_in_the_table() {
        let (v4, v6) = ("192.0.2.1:1".parse().unwrap(), "[2001:db8::1]:1".parse().unwrap());
        for (errno, over_v4, over_v6, is_final) in TABLE {
            let error = io::Error::from(errno);
            assert_eq!(obstacle(&error, &v4), over_v4, "{errno:?}");
            assert_eq!(obstacle(&error, &v6), over_v6, "{errno:?}");
            assert_eq!(over_v4.is_final(), is_final, "{errno:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn only_over_ipv6_a_router_may_say_permission_denied() {
        let (v4, v6) = ("192.0.2.1:1".parse().unwrap(), "[2001:db8::1]:1".parse().unwrap());
        let denied = io::Error::from(Errno::ACCESS);
        assert_eq!(obstacle(&denied, &v4), Obstacle::NotAllowed);
        assert_eq!(obstacle(&denied, &v6), Obstacle::Unreachable);
    }
}
