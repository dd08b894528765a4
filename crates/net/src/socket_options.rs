//! The options of a TCP connection, translated from the patience that the core wants of the kernel:
//! the kernel gives up later than the core would, and still gives up if the process is stopped.
//!
//! The arithmetic, the values of each preset, and what was measured are in `docs/sockets.md`.

use std::io;

use socket2::{SockRef, TcpKeepalive};
use systole_core::Span;
use systole_core::kernel::{Patience, SendState};

use crate::sockopt::{self, TcpSocket};

/// For a peer whose silence is not judged: RFC 1122 lets no kernel ask sooner than after two hours.
pub const LAST_RESORT: Span = Span::from_secs(7_200);

/// The cap of the retransmission time while data flows, which is the least that Linux takes. After
/// an outage the same socket moves again within this time.
pub const RTO_MAX: Span = Span::from_secs(1);

/// The largest cap that Linux takes, and what it has of itself.
const RTO_MAX_OF_LINUX: Span = Span::from_secs(120);

/// How many keepalive probes go unanswered; the user timeout ends at the same moment.
const KEEPALIVE_PROBES: u32 = 3;

/// The longest `TCP_KEEPIDLE` and `TCP_KEEPINTVL` that Linux takes.
const MAX_KEEPALIVE_SECS: u64 = 32_767;

/// The longest `TCP_USER_TIMEOUT` that Linux takes: 24 days and 20 hours.
const MAX_USER_TIMEOUT_MS: u64 = i32::MAX as u64;

/// The least by which the kernel is later than the core: what a stalled process may lose before
/// its kernel acts for it.
const LEAST_MARGIN_SECS: u64 = 6;

/// When Linux gives up by the number of its attempts alone, under the least cap: after 15
/// retransmissions, or 15 questions whether it may send.
const BY_NUMBER: Span = Span::from_secs(14);

/// Unsent bytes that the kernel holds: a heartbeat overtakes what waits in our own queue, but not
/// these, which take half a second at 1 Mbit/s. Less would wake a fast sender more often.
pub const UNSENT: u32 = 64 * 1024;

/// What to tell the kernel about one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SocketOptions {
    /// Nothing heard for this long: the kernel asks. Whole seconds.
    pub keepalive_idle: Span,
    /// From one question to the next. Whole seconds.
    pub keepalive_interval: Span,
    /// How many questions may go unanswered.
    pub keepalive_probes: u32,
    /// How long sent data may stay unacknowledged: `TCP_USER_TIMEOUT`.
    pub user_timeout: Span,
    /// Cap of the retransmission time in [`SendState::Stranded`]: `TCP_RTO_MAX_MS`.
    pub rto_max_stranded: Span,
    /// The same in [`SendState::Closed`].
    pub rto_max_closed: Span,
}

impl SocketOptions {
    /// Returns the options of a link that shall survive a silence of `outage`.
    ///
    /// `None` is for a link that silence never ends. It counts as [`LAST_RESORT`]: off means off,
    /// for the kernel too, but a host that has been gone for two hours is not kept for ever.
    ///
    /// The kernel gives up at L + max(L / 4, 6 s), where L is the outage, rounded up to whole
    /// seconds, whether data is in flight (user timeout) or not (keepalive). Beyond 24 days and 20
    /// hours it knows no longer timeout, and would give up before such a policy.
    pub fn new(outage: Option<Span>) -> SocketOptions {
        let outage = outage.unwrap_or(LAST_RESORT);
        let idle = secs_up(outage);
        let margin = secs_up(outage).div_ceil(4).max(LEAST_MARGIN_SECS);
        let interval = margin.div_ceil(u64::from(KEEPALIVE_PROBES));
        let timeout = idle.saturating_add(interval.saturating_mul(KEEPALIVE_PROBES.into()));
        let user_timeout = Span::from_secs(timeout).min(Span::from_millis(MAX_USER_TIMEOUT_MS));
        // Whole seconds: the kernel counts in jiffies, and would otherwise round.
        let part = |parts: u64| {
            let cap = Span::from_secs(secs_up(user_timeout).div_ceil(parts));
            cap.clamp(RTO_MAX, RTO_MAX_OF_LINUX)
        };
        SocketOptions {
            keepalive_idle: Span::from_secs(idle.clamp(1, MAX_KEEPALIVE_SECS)),
            keepalive_interval: Span::from_secs(interval.clamp(1, MAX_KEEPALIVE_SECS)),
            keepalive_probes: KEEPALIVE_PROBES,
            user_timeout,
            rto_max_stranded: part(8),
            rto_max_closed: part(2),
        }
    }

    /// Returns the user timeout (zero: none) and the cap of the retransmission time in that state.
    /// A kernel without such a cap keeps the user timeout while a window is open.
    pub const fn timeouts(&self, send: SendState) -> (Span, Span) {
        match send {
            SendState::Sending if self.gives_up_by_number() => (Span::ZERO, RTO_MAX),
            SendState::Stranded if self.gives_up_by_number() => (Span::ZERO, self.rto_max_stranded),
            SendState::Sending => (self.user_timeout, RTO_MAX),
            SendState::Stranded => (self.user_timeout, self.rto_max_stranded),
            SendState::Closed => (Span::ZERO, self.rto_max_closed),
            // A connection without a process ends once its retransmission time reaches the cap.
            SendState::Leaving => (Span::ZERO, RTO_MAX_OF_LINUX),
        }
    }

    /// Whether the cap alone ends the connection late enough, and soon enough.
    ///
    /// Linux counts the user timeout of bytes that cannot leave from a stamp which it may leave
    /// standing when they could: after two failures of our own network that lie further apart than
    /// the timeout, it ends the connection at once. So there is none where none is needed.
    const fn gives_up_by_number(&self) -> bool {
        self.user_timeout.as_nanos() <= BY_NUMBER.as_nanos()
    }
}

/// Which options took on one connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Applied {
    /// Small writes leave at once (`TCP_NODELAY`).
    pub nodelay: bool,
    /// Few unsent bytes lie before a heartbeat (`TCP_NOTSENT_LOWAT`): Linux.
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
    /// The options that did not take, by name, for whoever says so once.
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

/// Prepares a connection before its link is made, as far as this system has the options; a link
/// works without any.
///
/// On Linux a listening socket may be prepared instead: what it accepts inherits all.
///
/// Routers' messages are then reported by whatever call touches the socket next, also as an error
/// of a read or write, while the connection lives on.
pub fn prepare(patience: &Patience, socket: &impl TcpSocket) -> Applied {
    let socket = SockRef::from(socket);
    let options = SocketOptions::new(patience.outage());
    set_linear(&socket);
    // Never a low cap alone, unless it was found to be enough: first the timeout, then the cap,
    // and where that took, the timeout that goes with it.
    let (user_timeout, rto_max) = options.timeouts(patience.send());
    let timed = set_user_timeout(&socket, options.user_timeout).is_ok();
    let capped = timed && set_rto_max(&socket, rto_max).is_ok();
    if capped {
        let _ = set_user_timeout(&socket, user_timeout);
    }
    Applied {
        nodelay: socket.set_tcp_nodelay(true).is_ok(),
        unsent: sockopt::set_notsent_lowat(&socket, UNSENT).is_ok(),
        keepalive: socket.set_tcp_keepalive(&keepalive(&options)).is_ok(),
        user_timeout: timed,
        rto_max: capped,
        soft_errors: set_soft_errors(&socket).is_ok(),
    }
}

/// Puts another patience in force on a connection that has [`prepare`] behind it.
///
/// # Errors
/// Those of the system; the link stays usable, with its former timeouts. A system without these
/// options is no error.
pub fn follow(patience: &Patience, socket: &impl TcpSocket) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let options = SocketOptions::new(patience.outage());
    let (user_timeout, rto_max) = options.timeouts(patience.send());
    // At no moment may there be a low cap without the user timeout that it needs.
    match patience.send() {
        SendState::Sending | SendState::Stranded => {
            let timed = set_user_timeout(&socket, options.user_timeout);
            absent_is_fine(timed.and_then(|()| match set_rto_max(&socket, rto_max) {
                Ok(()) => set_user_timeout(&socket, user_timeout),
                absent => absent_is_fine(absent),
            }))?;
        }
        SendState::Closed => {
            absent_is_fine(set_rto_max(&socket, rto_max))?;
            absent_is_fine(set_user_timeout(&socket, user_timeout))?;
        }
        SendState::Leaving => {
            absent_is_fine(set_rto_max(&socket, rto_max))?;
            // Keepalive does nothing while bytes wait, and later ends what the peer left half-open.
            return absent_is_fine(set_user_timeout(&socket, user_timeout));
        }
    }
    socket.set_tcp_keepalive(&keepalive(&options))
}

/// Sets the user timeout alone; `None` switches it off.
///
/// Switched off under a low `TCP_RTO_MAX_MS` the connection ends at the 15th retransmission, after
/// about 15 s: [`follow`] does both.
///
/// # Errors
/// Those of the system; `Unsupported` where it has no such option.
pub fn user_timeout(timeout: Option<Span>, socket: &impl TcpSocket) -> io::Result<()> {
    set_user_timeout(&SockRef::from(socket), timeout.unwrap_or(Span::ZERO))
}

fn keepalive(options: &SocketOptions) -> TcpKeepalive {
    let keepalive = TcpKeepalive::new()
        .with_time(options.keepalive_idle.into())
        .with_interval(options.keepalive_interval.into());
    #[cfg(any(target_os = "linux", target_vendor = "apple", windows))]
    let keepalive = keepalive.with_retries(options.keepalive_probes);
    keepalive
}

/// The first six retransmissions of a stream with little in flight follow each other without
/// doubling, so that a heartbeat is through at once when a short outage is over. Old kernels have
/// it, and what goes without is only slower.
fn set_linear(socket: &SockRef<'_>) {
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_thin_linear_timeouts(true);
    #[cfg(not(target_os = "linux"))]
    let _ = socket;
}

fn set_user_timeout(socket: &SockRef<'_>, timeout: Span) -> io::Result<()> {
    sockopt::set_user_timeout_ms(
        socket,
        millis(timeout.min(Span::from_millis(MAX_USER_TIMEOUT_MS))),
    )
}

fn set_rto_max(socket: &SockRef<'_>, cap: Span) -> io::Result<()> {
    sockopt::set_rto_max_ms(socket, millis(cap))
}

/// An IPv6 socket may carry IPv4, and each has its own option; the socket's own family counts.
fn set_soft_errors(socket: &SockRef<'_>) -> io::Result<()> {
    let v4 = sockopt::set_recverr_v4(socket);
    if socket.local_addr()?.is_ipv6() { sockopt::set_recverr_v6(socket) } else { v4 }
}

/// A kernel older than an option answers ENOPROTOOPT or EINVAL.
fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
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

    /// Every options that a test looks at, with the outage it must outlive.
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

    /// When Linux ends an idle link: at the first question due at or after the user timeout.
    fn keepalive_ends(options: &SocketOptions) -> Span {
        let mut tick = options.keepalive_idle + options.keepalive_interval;
        while tick < options.user_timeout {
            tick = tick + options.keepalive_interval;
        }
        tick
    }

    /// When Linux ends a link whose probes stay unanswered, if each state was found at once.
    fn probes_end(cap: Span) -> Span {
        let fired = (0..=15).map(|n| Span::from_millis(200).times(1 << n).min(cap));
        fired.fold(Span::ZERO, |sum, interval| sum + interval)
    }

    #[test]
    fn the_kernel_gives_up_later_than_the_core_but_does() {
        for (name, options, outage) in cases() {
            assert!(options.user_timeout > outage, "{name}: {options:?}");
            let at_most = outage + Span::from_nanos(outage.as_nanos() / 4) + Span::from_secs(12);
            assert!(options.user_timeout <= at_most, "{name}: {options:?}");
            let idle = keepalive_ends(&options);
            assert!(idle >= options.user_timeout, "{name}: {options:?}");
            assert!(
                idle <= options.user_timeout + options.keepalive_interval,
                "{name}: {options:?}"
            );
        }
    }

    #[test]
    fn probes_outlast_the_user_timeout_up_to_what_linux_can() {
        for (name, options, _) in cases() {
            // Half of all probes may be spent when the state is noticed.
            let cap = options.rto_max_stranded;
            assert!(
                cap.times(8) + RTO_MAX >= options.user_timeout || cap == RTO_MAX_OF_LINUX,
                "{name}: {options:?}"
            );
            assert!(probes_end(cap) >= options.user_timeout || cap == RTO_MAX_OF_LINUX, "{name}");
            let cap = options.rto_max_closed;
            assert!(
                cap.times(2) + RTO_MAX >= options.user_timeout || cap == RTO_MAX_OF_LINUX,
                "{name}: {options:?}"
            );
        }
    }

    #[test]
    fn a_link_that_silence_never_ends_has_only_the_last_resort() {
        let options = SocketOptions::new(None);
        assert_eq!(options.keepalive_idle, LAST_RESORT);
        assert_eq!(options.user_timeout, Span::from_secs(9_000));
    }

    /// Without a process Linux ends a connection once its retransmission time reaches the cap.
    #[test]
    fn the_last_bytes_of_a_link_have_no_timeout_and_no_low_cap() {
        for (name, options, _) in cases() {
            let leaving = options.timeouts(SendState::Leaving);
            assert_eq!(leaving, (Span::ZERO, RTO_MAX_OF_LINUX), "{name}");
        }
    }

    /// Without a user timeout Linux gives up at the 15th retransmission or question.
    #[test]
    fn a_user_timeout_is_set_only_where_numbers_would_end_the_link_too_soon() {
        for (name, options, outage) in cases() {
            let (user_timeout, cap) = options.timeouts(SendState::Sending);
            assert_eq!(options.timeouts(SendState::Stranded).0, user_timeout, "{name}");
            if user_timeout == Span::ZERO {
                assert!(probes_end(cap) > outage + Span::from_secs(LEAST_MARGIN_SECS), "{name}");
            } else {
                assert_eq!(user_timeout, options.user_timeout, "{name}");
                assert!(user_timeout > BY_NUMBER, "{name}");
            }
        }
        let short = SocketOptions::new(Some(Span::from_secs(3)));
        assert_eq!(short.timeouts(SendState::Sending).0, Span::ZERO);
    }

    #[test]
    fn the_longest_policy_gets_what_linux_has() {
        let options = SocketOptions::new(Some(Span::from_nanos(u64::MAX)));
        assert_eq!(options.user_timeout.as_millis(), MAX_USER_TIMEOUT_MS);
        assert_eq!(options.keepalive_idle, Span::from_secs(MAX_KEEPALIVE_SECS));
        assert_eq!(options.keepalive_interval, Span::from_secs(MAX_KEEPALIVE_SECS));
    }

    #[test]
    fn the_table_of_the_document_holds() {
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

        /// A kernel before 6.15 lacks this one, and nothing else may be missing.
        const NEWEST: &str = "TCP_RTO_MAX_MS";

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
        fn all_socket_options_are_in_force_on_both_ends() {
            for (name, options, outage) in cases() {
                let sending = Patience::new(Some(outage), SendState::Sending);
                for listen in ["127.0.0.1:0", "[::1]:0"] {
                    let listener = TcpListener::bind(listen).unwrap();
                    let applied = prepare(&sending, &listener);
                    assert!(applied.missing().all(|part| part == NEWEST), "{name}: {applied:?}");
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
                    follow(&Patience::new(None, SendState::Leaving), &accepted).unwrap();
                    let accepted = SockRef::from(&accepted);
                    assert_eq!(accepted.tcp_user_timeout().unwrap(), None, "{name}");
                    let cap = sockopt::rto_max_ms(&accepted);
                    assert!(cap.is_none_or(|cap| cap == 120_000), "{name}: {cap:?}");
                }
            }
        }

        /// What one policy set may not outlast it.
        #[test]
        fn each_patience_leaves_nothing_of_the_one_before() {
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
        fn the_user_timeout_goes_off_and_on() {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let read = || SockRef::from(&listener).tcp_user_timeout().unwrap();
            user_timeout(Some(Span::from_secs(5)), &listener).unwrap();
            assert_eq!(read(), Some(Duration::from_secs(5)));
            user_timeout(None, &listener).unwrap();
            assert_eq!(read(), None);
        }
    }
}
