//! The system calls that apply [`SocketOptions`] to a connection.

use std::io;

use socket2::{SockRef, TcpKeepalive};
use systole_core::Span;

use super::{MAX_USER_TIMEOUT_MS, SendState, SocketOptions, UNSENT};
use crate::sockopt::{self, TcpSocket};

/// Reports which options the kernel accepted on one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Applied {
    /// Small writes are sent at once (`TCP_NODELAY`).
    pub nodelay: bool,
    /// Unsent bytes in the kernel are limited (`TCP_NOTSENT_LOWAT`): Linux.
    pub unsent: bool,
    /// Keepalive with its three parameters.
    pub keepalive: bool,
    /// `TCP_USER_TIMEOUT`: Linux.
    pub user_timeout: bool,
    /// `TCP_RTO_MAX_MS`: Linux 6.15.
    pub rto_max: bool,
    /// Routers' messages are reported at once (`IP_RECVERR`, `IPV6_RECVERR`): Linux.
    pub soft_errors: bool,
}

impl Applied {
    /// Returns the names of the options the kernel refused, for a one-time warning.
    pub fn missing(&self) -> impl Iterator<Item = &'static str> + use<> {
        let Applied { nodelay, unsent, keepalive, user_timeout, rto_max, soft_errors } = *self;
        let parts = [
            (nodelay, "TCP_NODELAY"),
            (unsent, "TCP_NOTSENT_LOWAT"),
            (keepalive, "keepalive"),
            (user_timeout, "TCP_USER_TIMEOUT"),
            (rto_max, "TCP_RTO_MAX_MS"),
            (soft_errors, "IP_RECVERR"),
        ];
        parts.into_iter().filter_map(|(took, name)| (!took).then_some(name))
    }
}

/// Applies `options` to a connection in [`SendState::Sending`], as far as this system has them; a
/// link works without any.
///
/// On Linux, accepted connections inherit the options of the listening socket.
///
/// After this, the next call on the socket reports a router's message, also as an error of a read
/// or write, while the connection continues.
pub fn apply(options: &SocketOptions, socket: &impl TcpSocket) -> Applied {
    let socket = SockRef::from(socket);
    set_thin_linear_timeouts(&socket);
    // There must be no low cap without the user timeout it needs: first the timeout, then the cap,
    // and if the kernel took it, the timeout that belongs to the cap.
    let (user_timeout, rto_max) = options.timeouts(SendState::Sending);
    let has_user_timeout = write_user_timeout(&socket, options.user_timeout).is_ok();
    let has_rto_max = has_user_timeout && write_rto_max(&socket, rto_max).is_ok();
    if has_rto_max {
        let _ = write_user_timeout(&socket, user_timeout);
    }
    Applied {
        nodelay: socket.set_tcp_nodelay(true).is_ok(),
        unsent: sockopt::set_notsent_lowat(&socket, UNSENT).is_ok(),
        keepalive: socket.set_tcp_keepalive(&keepalive(options)).is_ok(),
        user_timeout: has_user_timeout,
        rto_max: has_rto_max,
        soft_errors: write_recverr(&socket).is_ok(),
    }
}

/// Adapts the options of a connection to another state; call [`apply`] before.
///
/// Call it in time: a kernel with `TCP_RTO_MAX_MS` gives up 14 s after bytes were stranded or a
/// closed window fell silent.
///
/// # Errors
/// Errors of the system; the link stays usable, with its former user timeout. The lack of these
/// options on a system is no error.
pub fn enter(options: &SocketOptions, state: SendState, socket: &impl TcpSocket) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let (user_timeout, rto_max) = options.timeouts(state);
    // There must be no low cap without the user timeout it needs.
    let change = match state {
        SendState::Sending | SendState::Stranded => {
            write_user_timeout(&socket, options.user_timeout).and_then(|()| {
                match write_rto_max(&socket, rto_max) {
                    Ok(()) => write_user_timeout(&socket, user_timeout),
                    refused => ignore_missing_option(refused),
                }
            })
        }
        SendState::Closed => ignore_missing_option(write_rto_max(&socket, rto_max))
            .and_then(|()| write_user_timeout(&socket, user_timeout)),
    };
    ignore_missing_option(change)
}

/// Sets only the user timeout; `None` switches it off.
///
/// Without it and under a low `TCP_RTO_MAX_MS`, the connection ends at the 15th retransmission,
/// after about 15 s: [`enter`] sets both.
///
/// # Errors
/// Errors of the system; `Unsupported` on systems without this option.
pub fn set_user_timeout(timeout: Option<Span>, socket: &impl TcpSocket) -> io::Result<()> {
    write_user_timeout(&SockRef::from(socket), timeout.unwrap_or(Span::ZERO))
}

fn keepalive(options: &SocketOptions) -> TcpKeepalive {
    let keepalive = TcpKeepalive::new()
        .with_time(options.keepalive_idle.into())
        .with_interval(options.keepalive_interval.into());
    #[cfg(any(target_os = "linux", target_vendor = "apple", windows))]
    let keepalive = keepalive.with_retries(options.keepalive_probes);
    keepalive
}

/// Requests linear timeouts: the first six retransmissions of a thin stream do not double the
/// timeout, so that a heartbeat arrives soon after a short outage. A refusal is ignored, since it
/// only makes the link slower.
fn set_thin_linear_timeouts(socket: &SockRef<'_>) {
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_thin_linear_timeouts(true);
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}

fn write_user_timeout(socket: &SockRef<'_>, timeout: Span) -> io::Result<()> {
    sockopt::set_user_timeout_ms(
        socket,
        millis(timeout.min(Span::from_millis(MAX_USER_TIMEOUT_MS))),
    )
}

fn write_rto_max(socket: &SockRef<'_>, cap: Span) -> io::Result<()> {
    sockopt::set_rto_max_ms(socket, millis(cap))
}

/// Sets `IP_RECVERR` and, on an IPv6 socket, `IPV6_RECVERR`: it may carry IPv4 too. The result is
/// that of the socket's own family.
fn write_recverr(socket: &SockRef<'_>) -> io::Result<()> {
    let v4 = sockopt::set_recverr_v4(socket);
    if socket.local_addr()?.is_ipv6() { sockopt::set_recverr_v6(socket) } else { v4 }
}

/// Turns the error of a kernel that lacks an option (ENOPROTOOPT or EINVAL) into success.
fn ignore_missing_option(result: io::Result<()>) -> io::Result<()> {
    let Err(error) = result else {
        return Ok(());
    };
    let unknown = matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput);
    if unknown || is_no_such_option(&error) { Ok(()) } else { Err(error) }
}

#[cfg(unix)]
fn is_no_such_option(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::NOPROTOOPT.raw_os_error())
}

#[cfg(not(unix))]
fn is_no_such_option(_error: &io::Error) -> bool {
    false
}

fn millis(span: Span) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(target_os = "linux")]
#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::socket_options::tests::cases;

    /// The only option that may be missing: kernels before 6.15 lack it.
    const NEWEST_OPTION: &str = "TCP_RTO_MAX_MS";

    fn assert_in_force(
        socket: &impl TcpSocket,
        options: &SocketOptions,
        state: SendState,
        name: &str,
    ) {
        let socket = SockRef::from(socket);
        let (mut user_timeout, rto_max) = options.timeouts(state);
        let cap = sockopt::rto_max_ms(&socket);
        if cap.is_none() && state != SendState::Closed {
            user_timeout = options.user_timeout;
        }
        assert!(socket.tcp_nodelay().unwrap(), "{name}");
        assert!(socket.tcp_thin_linear_timeouts().unwrap(), "{name}");
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT, "{name}");
        assert!(socket.keepalive().unwrap(), "{name}");
        let read = (
            Span::from(socket.tcp_keepalive_time().unwrap()),
            Span::from(socket.tcp_keepalive_interval().unwrap()),
            socket.tcp_keepalive_retries().unwrap(),
            socket.tcp_user_timeout().unwrap().unwrap_or(Duration::ZERO),
        );
        let asked = (
            options.keepalive_idle,
            options.keepalive_interval,
            options.keepalive_probes,
            user_timeout.into(),
        );
        assert_eq!(read, asked, "{name}");
        if let Some(cap) = cap {
            assert_eq!(u64::from(cap), rto_max.as_millis(), "{name}");
        }
        let v6 = socket.local_addr().unwrap().is_ipv6();
        assert!(sockopt::has_recverr(&socket, v6), "{name}");
    }

    #[test]
    fn all_options_are_in_force_on_both_ends() {
        for (name, options, _) in cases() {
            for listen in ["127.0.0.1:0", "[::1]:0"] {
                let listener = TcpListener::bind(listen).unwrap();
                let applied = apply(&options, &listener);
                assert!(applied.missing().all(|part| part == NEWEST_OPTION), "{name}: {applied:?}");
                let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                assert_eq!(apply(&options, &stream), applied, "{name}");
                assert_in_force(&stream, &options, SendState::Sending, &name);
                let (accepted, _) = listener.accept().unwrap();
                assert_in_force(&accepted, &options, SendState::Sending, &name);
                for state in
                    [SendState::Closed, SendState::Stranded, SendState::Closed, SendState::Sending]
                {
                    enter(&options, state, &stream).unwrap();
                    assert_in_force(&stream, &options, state, &name);
                }
            }
        }
    }

    #[test]
    fn the_user_timeout_can_be_set_and_cleared() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let read = || SockRef::from(&listener).tcp_user_timeout().unwrap();
        set_user_timeout(Some(Span::from_secs(5)), &listener).unwrap();
        assert_eq!(read(), Some(Duration::from_secs(5)));
        set_user_timeout(None, &listener).unwrap();
        assert_eq!(read(), None);
    }
}
