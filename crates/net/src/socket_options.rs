//! Options of a TCP connection, computed from the [`Patience`] that the core emits, so that the
//! kernel gives up later than the core, and also when the process is stalled.
//!
//! The arithmetic, the values of each preset, and the measurements are in `docs/sockets.md`.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use systole_core::Span;
use systole_core::kernel::{Cap, Patience, SendState};

use crate::sockopt::{self, TcpSocket};

/// Outage to survive on a link that silence never ends: RFC 1122 requires a keepalive default of no
/// less than two hours.
pub const LAST_RESORT: Span = Span::from_secs(7_200);

/// Least cap of the retransmission timeout, in force while the round trip is short. After an outage
/// the socket sends again within this time.
pub const RTO_MAX: Span = Cap::LEAST.span();

/// Largest cap that Linux accepts, and its default.
const LINUX_RTO_MAX: Span = Cap::NONE.span();

/// Number of caps in the minimum margin: two retransmissions in a row may be lost, and the third is
/// acknowledged within half a cap. Counts only with a raised cap, on a path with a long round trip.
const MARGIN_CAPS: u64 = 3;

/// Number of unanswered keepalive probes after which the kernel gives up; the user timeout expires
/// at the same time.
const KEEPALIVE_PROBES: u32 = 3;

/// Longest `TCP_KEEPIDLE` and `TCP_KEEPINTVL` that Linux accepts.
const MAX_KEEPALIVE_SECS: u64 = 32_767;

/// Longest `TCP_USER_TIMEOUT` that Linux accepts: 24 days and 20 hours.
const MAX_USER_TIMEOUT_MS: u64 = i32::MAX as u64;

/// Minimum time by which the kernel gives up later than the core: a process stalled for less does
/// not lose its links.
const MIN_MARGIN_SECS: u64 = 6;

/// Time after which Linux gives up by its attempt count alone, under [`RTO_MAX`]: 15
/// retransmissions or 15 window probes.
const ATTEMPTS_EXHAUSTED: Span = Span::from_secs(14);

/// Maximum number of unsent bytes in the kernel (`TCP_NOTSENT_LOWAT`). A heartbeat overtakes our
/// own queue, but not these bytes: half a second at 1 Mbit/s. Less would wake a fast sender more
/// often.
pub const UNSENT: u32 = 64 * 1024;

/// Kernel timeouts of one connection, computed from its patience.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketOptions {
    /// Silence after which the kernel sends its first keepalive probe. Whole seconds.
    pub keepalive_idle: Span,
    /// Time between two keepalive probes. Whole seconds.
    pub keepalive_interval: Span,
    /// Number of unanswered keepalive probes after which the kernel gives up.
    pub keepalive_probes: u32,
    /// Maximum time that sent data may stay unacknowledged: `TCP_USER_TIMEOUT`.
    pub user_timeout: Span,
    /// Cap of the retransmission timeout while the kernel can send: `TCP_RTO_MAX_MS`.
    pub rto_max: Span,
    /// Cap of the retransmission timeout in [`SendState::Stranded`].
    pub rto_max_stranded: Span,
    /// Cap of the retransmission timeout in [`SendState::Closed`].
    pub rto_max_closed: Span,
}

impl SocketOptions {
    /// Computes the options of a link that must survive a silence of `outage`, with a short round
    /// trip.
    pub fn new(outage: Option<Span>) -> SocketOptions {
        SocketOptions::of(&Patience::new(outage, SendState::Sending))
    }

    /// Computes the options of a link with this patience.
    ///
    /// Without an outage silence never ends the link. [`LAST_RESORT`] then replaces the outage, so
    /// that a host that disappeared is not kept for ever.
    ///
    /// The kernel gives up at L + max(L / 4, 6 s, 3 C), where L is the outage, rounded up to whole
    /// seconds, and C the cap, whether data is in flight (user timeout) or not (keepalive). Its
    /// longest timeout is 24 days and 20 hours; it gives up before a link with a longer outage.
    pub fn of(patience: &Patience) -> SocketOptions {
        let outage = patience.outage().unwrap_or(LAST_RESORT);
        let idle = secs_up(outage);
        let cap = patience.cap().span();
        let margin = secs_up(outage).div_ceil(4).max(MIN_MARGIN_SECS);
        let margin = margin.max(secs_up(cap.times(MARGIN_CAPS)));
        let interval = margin.div_ceil(u64::from(KEEPALIVE_PROBES));
        let timeout = idle.saturating_add(interval.saturating_mul(KEEPALIVE_PROBES.into()));
        let user_timeout = Span::from_secs(timeout).min(Span::from_millis(MAX_USER_TIMEOUT_MS));
        // Whole seconds: the kernel counts in jiffies, and rounds other values.
        let rto_max = |parts: u64| {
            let cap = Span::from_secs(secs_up(user_timeout).div_ceil(parts));
            cap.clamp(patience.cap().span(), LINUX_RTO_MAX)
        };
        SocketOptions {
            keepalive_idle: Span::from_secs(idle.clamp(1, MAX_KEEPALIVE_SECS)),
            keepalive_interval: Span::from_secs(interval.clamp(1, MAX_KEEPALIVE_SECS)),
            keepalive_probes: KEEPALIVE_PROBES,
            user_timeout,
            rto_max: cap,
            rto_max_stranded: rto_max(8),
            rto_max_closed: rto_max(2),
        }
    }

    /// Returns the user timeout (zero: none) and the cap of the retransmission timeout in the state
    /// `send`. A kernel without such a cap keeps the user timeout while the window is open.
    pub const fn timeouts(&self, send: SendState) -> (Span, Span) {
        match send {
            SendState::Sending if self.attempt_count_suffices() => (Span::ZERO, self.rto_max),
            SendState::Stranded if self.attempt_count_suffices() => {
                (Span::ZERO, self.rto_max_stranded)
            }
            SendState::Sending => (self.user_timeout, self.rto_max),
            SendState::Stranded => (self.user_timeout, self.rto_max_stranded),
            SendState::Closed => (Span::ZERO, self.rto_max_closed),
            // After an outage the kernel tries again before the departure gives up.
            SendState::Leaving => (Span::ZERO, self.rto_max),
            // A connection without a process ends once its retransmission timeout reaches the cap.
            SendState::Orphaned => (Span::ZERO, LINUX_RTO_MAX),
        }
    }

    /// Returns whether the attempt count alone ends the connection in time, without a user timeout.
    ///
    /// Linux measures the user timeout of bytes that it cannot send from a timestamp that it may
    /// not reset once it can send again: after two failures of our own network that are further
    /// apart than the timeout, it ends the connection at once. Hence no user timeout where the
    /// attempt count suffices.
    const fn attempt_count_suffices(&self) -> bool {
        self.user_timeout.as_nanos() <= ATTEMPTS_EXHAUSTED.as_nanos()
    }
}

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
        parts.into_iter().filter_map(|(accepted, name)| (!accepted).then_some(name))
    }
}

/// Sets all options of a connection before its link is created, as far as this system has them; a
/// link works without any.
///
/// On Linux, accepted connections inherit the options of the listening socket.
///
/// After this, the next call on the socket reports a router's message, also as an error of a read
/// or write, while the connection continues.
pub fn prepare(patience: &Patience, socket: &impl TcpSocket) -> Applied {
    let socket = SockRef::from(socket);
    let options = SocketOptions::of(patience);
    set_thin_linear_timeouts(&socket, patience.cap());
    // There must be no low cap without the user timeout it needs: first the timeout, then the cap,
    // and if the kernel accepted it, the timeout that belongs to the cap.
    let (user_timeout, rto_max) = options.timeouts(patience.send());
    let has_user_timeout = write_user_timeout(&socket, options.user_timeout).is_ok();
    let has_rto_max = has_user_timeout && write_rto_max(&socket, rto_max).is_ok();
    if has_rto_max {
        let _ = write_user_timeout(&socket, user_timeout);
    }
    Applied {
        nodelay: socket.set_tcp_nodelay(true).is_ok(),
        unsent: sockopt::set_notsent_lowat(&socket, UNSENT).is_ok(),
        keepalive: socket.set_tcp_keepalive(&keepalive(&options)).is_ok(),
        user_timeout: has_user_timeout,
        rto_max: has_rto_max,
        soft_errors: write_recverr(&socket).is_ok(),
    }
}

/// Puts another patience in force on a connection; call [`prepare`] before.
///
/// # Errors
/// Errors of the system; the link stays usable, but some timeouts may be the former ones. The lack
/// of these options on a system is no error.
pub fn follow(patience: &Patience, socket: &impl TcpSocket) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let options = SocketOptions::of(patience);
    set_thin_linear_timeouts(&socket, patience.cap());
    let (user_timeout, rto_max) = options.timeouts(patience.send());
    // There must be no low cap without the user timeout it needs.
    match patience.send() {
        SendState::Sending | SendState::Stranded => {
            ignore_missing_option(
                write_user_timeout(&socket, options.user_timeout)
                    .and_then(|()| write_rto_max(&socket, rto_max))
                    .and_then(|()| write_user_timeout(&socket, user_timeout)),
            )?;
        }
        SendState::Closed | SendState::Leaving | SendState::Orphaned => {
            ignore_missing_option(write_rto_max(&socket, rto_max))?;
            ignore_missing_option(write_user_timeout(&socket, user_timeout))?;
        }
    }
    if matches!(patience.send(), SendState::Leaving | SendState::Orphaned) {
        // The keepalive stays as it is: it does nothing while bytes wait, and later ends a
        // connection that the peer left half-open.
        return Ok(());
    }
    socket.set_tcp_keepalive(&keepalive(&options))
}

/// Makes the close of a connection a reset, which discards the bytes that the kernel has not
/// delivered: the peer reads an error after what it got, not the end of the stream.
///
/// # Errors
/// Errors of the system, on a connection that has failed already.
pub fn reset_on_close(socket: &impl TcpSocket) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
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
///
/// Not under a raised cap: on a connection without timestamps the kernel would then retransmit
/// every segment before its acknowledgement, and never measure the long round trip.
fn set_thin_linear_timeouts(socket: &SockRef<'_>, cap: Cap) {
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_thin_linear_timeouts(cap == Cap::LEAST);
    #[cfg(not(target_os = "linux"))]
    let _ = (socket, cap);
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

fn secs_up(span: Span) -> u64 {
    span.as_nanos().div_ceil(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use systole_core::Policy;
    use systole_core::policy::PRESETS;

    use super::*;

    const HOUR: Span = Span::from_secs(3_600);

    /// Returns the options under test, each with a name and the outage it must survive.
    fn cases() -> Vec<(String, SocketOptions, Span)> {
        let policy = |idle, interval, probes| {
            Policy::new(Span::from_millis(idle), Span::from_millis(interval), probes).unwrap()
        };
        let mut policies: Vec<_> =
            PRESETS.iter().map(|(name, policy)| ((*name).to_owned(), *policy)).collect();
        for (idle, interval, probes) in
            [(1, 1, 1), (999, 1, 100), (1_000, 500, 4), (3_600_000, 1, 1), (86_400_000, 1_000, 100)]
        {
            let name = format!("{idle}/{interval}/{probes}");
            policies.push((name, policy(idle, interval, probes)));
        }
        let bounds = policies.into_iter().map(|(name, policy)| (name, policy.bound().unwrap()));
        let holds =
            [Span::from_secs(60), HOUR, HOUR.times(20)].map(|span| (span.to_string(), span));
        let mut cases = Vec::new();
        for (name, outage) in bounds.chain(holds) {
            cases.push((name, SocketOptions::new(Some(outage)), outage));
        }
        cases
    }

    /// Returns when Linux ends an idle link: at the first probe at or after the user timeout.
    fn keepalive_gives_up(options: &SocketOptions) -> Span {
        let mut tick = options.keepalive_idle + options.keepalive_interval;
        while tick < options.user_timeout {
            tick = tick + options.keepalive_interval;
        }
        tick
    }

    /// Returns when Linux ends a link whose window probes stay unanswered, under `cap` throughout.
    fn window_probes_give_up(cap: Span) -> Span {
        let intervals = (0..=15).map(|n| Span::from_millis(200).times(1 << n).min(cap));
        intervals.fold(Span::ZERO, |sum, interval| sum + interval)
    }

    #[test]
    fn the_kernel_gives_up_later_than_the_core_but_in_bounded_time() {
        for (name, options, outage) in cases() {
            assert!(options.user_timeout > outage, "{name}: {options:?}");
            let at_most = outage + Span::from_nanos(outage.as_nanos() / 4) + Span::from_secs(12);
            assert!(options.user_timeout <= at_most, "{name}: {options:?}");
            let idle = keepalive_gives_up(&options);
            assert!(idle >= options.user_timeout, "{name}: {options:?}");
            assert!(
                idle <= options.user_timeout + options.keepalive_interval,
                "{name}: {options:?}"
            );
        }
    }

    #[test]
    fn window_probes_outlast_the_user_timeout_up_to_the_limits_of_linux() {
        for (name, options, _) in cases() {
            // Half of all probes may be spent when the state is detected.
            let cap = options.rto_max_stranded;
            assert!(
                cap.times(8) + RTO_MAX >= options.user_timeout || cap == LINUX_RTO_MAX,
                "{name}: {options:?}"
            );
            assert!(
                window_probes_give_up(cap) >= options.user_timeout || cap == LINUX_RTO_MAX,
                "{name}"
            );
            let cap = options.rto_max_closed;
            assert!(
                cap.times(2) + RTO_MAX >= options.user_timeout || cap == LINUX_RTO_MAX,
                "{name}: {options:?}"
            );
        }
    }

    /// A retransmission may be lost twice in a row on a slow path, and its bytes still flow.
    #[test]
    fn a_raised_cap_leaves_the_user_timeout_three_of_its_periods() {
        for cap in [1_250, 2_000, 24_000, 120_000].map(Span::from_millis).map(Cap::at_least) {
            for outage in [2, 16, 30, 3_600].map(Span::from_secs) {
                let patience = Patience::new(Some(outage), SendState::Sending).with_cap(cap);
                let options = SocketOptions::of(&patience);
                let (user_timeout, rto_max) = options.timeouts(SendState::Sending);
                assert_eq!(rto_max, cap.span());
                let least = outage + cap.span().times(3);
                let by_attempts = window_probes_give_up(rto_max);
                let gives_up = if user_timeout > Span::ZERO { user_timeout } else { by_attempts };
                assert!(gives_up >= least, "{cap:?} {outage}: {options:?}");
                assert!(options.rto_max_closed >= rto_max && options.rto_max_stranded >= rto_max);
                assert_eq!(options.timeouts(SendState::Leaving).1, rto_max);
            }
        }
    }

    #[test]
    fn a_link_that_silence_never_ends_has_only_the_last_resort() {
        let options = SocketOptions::new(None);
        assert_eq!(options.keepalive_idle, LAST_RESORT);
        assert_eq!(options.user_timeout, Span::from_secs(9_000));
    }

    /// Without a process, Linux ends a connection once its retransmission timeout reaches the cap.
    /// Until then the kernel must try again well before a departure gives up a peer.
    #[test]
    fn the_last_bytes_of_a_link_have_no_timeout_and_without_a_process_no_low_cap() {
        for (name, options, _) in cases() {
            let leaving = options.timeouts(SendState::Leaving);
            assert_eq!(leaving, (Span::ZERO, RTO_MAX), "{name}");
            let orphaned = options.timeouts(SendState::Orphaned);
            assert_eq!(orphaned, (Span::ZERO, LINUX_RTO_MAX), "{name}");
        }
        assert!(RTO_MAX.times(2) < systole_core::link::departure::STALL);
    }

    /// Without a user timeout, Linux gives up at the 15th retransmission or window probe.
    #[test]
    fn a_user_timeout_is_set_only_where_the_attempt_count_would_end_the_link_too_soon() {
        for (name, options, outage) in cases() {
            let (user_timeout, cap) = options.timeouts(SendState::Sending);
            assert_eq!(options.timeouts(SendState::Stranded).0, user_timeout, "{name}");
            if user_timeout == Span::ZERO {
                assert!(
                    window_probes_give_up(cap) > outage + Span::from_secs(MIN_MARGIN_SECS),
                    "{name}"
                );
            } else {
                assert_eq!(user_timeout, options.user_timeout, "{name}");
                assert!(user_timeout > ATTEMPTS_EXHAUSTED, "{name}");
            }
        }
        let short = SocketOptions::new(Some(Span::from_secs(3)));
        assert_eq!(short.timeouts(SendState::Sending).0, Span::ZERO);
    }

    #[test]
    fn the_longest_outage_gets_the_longest_timeouts_of_linux() {
        let options = SocketOptions::new(Some(Span::from_nanos(u64::MAX)));
        assert_eq!(options.user_timeout.as_millis(), MAX_USER_TIMEOUT_MS);
        assert_eq!(options.keepalive_idle, Span::from_secs(MAX_KEEPALIVE_SECS));
        assert_eq!(options.keepalive_interval, Span::from_secs(MAX_KEEPALIVE_SECS));
    }

    #[test]
    fn the_table_in_the_document_matches() {
        let document = include_str!("../../../docs/sockets.md");
        let never = ("never", Policy::never());
        for (name, policy) in PRESETS.iter().copied().chain([never]) {
            let options = SocketOptions::new(Patience::of(&policy).outage());
            let secs = |span: Span| (span.as_millis() / 1_000).to_string();
            let row = format!(
                "| `{name}` | {} | {} | {} / {} / {} | {} | {} | {} |",
                policy.bound().map_or("–".to_owned(), secs),
                secs(options.user_timeout),
                secs(options.keepalive_idle),
                secs(options.keepalive_interval),
                options.keepalive_probes,
                secs(RTO_MAX),
                secs(options.rto_max_stranded),
                secs(options.rto_max_closed),
            );
            assert!(document.lines().any(|line| line == row), "docs/sockets.md lacks\n{row}");
        }
    }

    #[cfg(target_os = "linux")]
    mod on_linux {
        use std::net::{TcpListener, TcpStream};
        use std::time::Duration;

        use super::*;

        /// The only option that may be missing: kernels before 6.15 lack it.
        const NEWEST_OPTION: &str = "TCP_RTO_MAX_MS";

        fn assert_in_force(
            socket: &impl TcpSocket,
            options: &SocketOptions,
            send: SendState,
            name: &str,
        ) {
            let socket = SockRef::from(socket);
            let (mut user_timeout, rto_max) = options.timeouts(send);
            let cap = sockopt::rto_max_ms(&socket);
            if cap.is_none() && send != SendState::Closed {
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
            let requested = (
                options.keepalive_idle,
                options.keepalive_interval,
                options.keepalive_probes,
                user_timeout.into(),
            );
            assert_eq!(read, requested, "{name}");
            if let Some(cap) = cap {
                assert_eq!(u64::from(cap), rto_max.as_millis(), "{name}");
            }
            let v6 = socket.local_addr().unwrap().is_ipv6();
            assert!(sockopt::has_recverr(&socket, v6), "{name}");
        }

        #[test]
        fn all_socket_options_are_in_force_on_both_ends() {
            for (name, options, outage) in cases() {
                let sending = Patience::new(Some(outage), SendState::Sending);
                for listen in ["127.0.0.1:0", "[::1]:0"] {
                    let listener = TcpListener::bind(listen).unwrap();
                    let applied = prepare(&sending, &listener);
                    assert!(
                        applied.missing().all(|part| part == NEWEST_OPTION),
                        "{name}: {applied:?}"
                    );
                    let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                    assert_eq!(prepare(&sending, &stream), applied, "{name}");
                    assert_in_force(&stream, &options, SendState::Sending, &name);
                    let (accepted, _) = listener.accept().unwrap();
                    assert_in_force(&accepted, &options, SendState::Sending, &name);
                    for send in [
                        SendState::Closed,
                        SendState::Stranded,
                        SendState::Closed,
                        SendState::Sending,
                    ] {
                        follow(&Patience::new(Some(outage), send), &stream).unwrap();
                        assert_in_force(&stream, &options, send, &name);
                    }
                    for (send, expected) in
                        [(SendState::Leaving, 1_000), (SendState::Orphaned, 120_000)]
                    {
                        follow(&Patience::new(None, send), &accepted).unwrap();
                        let accepted = SockRef::from(&accepted);
                        assert_eq!(accepted.tcp_user_timeout().unwrap(), None, "{name}");
                        let cap = sockopt::rto_max_ms(&accepted);
                        assert!(cap.is_none_or(|cap| cap == expected), "{name}: {cap:?}");
                    }
                }
            }
        }

        /// No option of an earlier patience stays in force under a later one.
        #[test]
        fn each_patience_replaces_all_options_of_the_one_before() {
            let outages = [Some(2), Some(30), None, Some(2), None, Some(30)]
                .map(|secs| secs.map(Span::from_secs));
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            prepare(&Patience::new(None, SendState::Sending), &stream);
            for outage in outages {
                follow(&Patience::new(outage, SendState::Sending), &stream).unwrap();
                let options = SocketOptions::new(outage);
                assert_in_force(&stream, &options, SendState::Sending, &format!("{outage:?}"));
            }
        }

        #[test]
        fn a_raised_cap_is_in_force_without_linear_timeouts_until_it_falls() {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let patience = Patience::new(Some(Span::from_secs(16)), SendState::Sending);
            prepare(&patience, &stream);
            for (needed, linear) in [(24, false), (120, false), (1, true)] {
                let cap = Cap::at_least(Span::from_secs(needed));
                follow(&patience.with_cap(cap), &stream).unwrap();
                let socket = SockRef::from(&stream);
                let found = sockopt::rto_max_ms(&socket).map(u64::from);
                assert!(found.is_none_or(|ms| ms == cap.span().as_millis()), "{found:?}");
                assert_eq!(socket.tcp_thin_linear_timeouts().unwrap(), linear);
                let user_timeout = socket.tcp_user_timeout().unwrap().unwrap();
                assert!(user_timeout.as_secs() >= 16 + 3 * needed, "{user_timeout:?}");
            }
        }

        #[test]
        fn the_user_timeout_can_be_set_and_cleared() {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let read = || SockRef::from(&listener).tcp_user_timeout().unwrap();
            write_user_timeout(&SockRef::from(&listener), Span::from_secs(5)).unwrap();
            assert_eq!(read(), Some(Duration::from_secs(5)));
            write_user_timeout(&SockRef::from(&listener), Span::ZERO).unwrap();
            assert_eq!(read(), None);
        }
    }
}
