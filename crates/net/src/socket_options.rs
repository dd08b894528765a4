//! Options of a TCP connection, computed from its policy, so that the kernel gives up later than
//! the core, and also when the process is stalled.
//!
//! The arithmetic, the values of each preset, and the measurements are in `docs/sockets.md`.

mod apply;

use systole_core::kernel::TcpSnapshot;
use systole_core::{Policy, Span};

pub use self::apply::{Applied, apply, enter, set_user_timeout};

/// Outage to survive under a policy that never ends a link: RFC 1122 requires a keepalive default
/// of no less than two hours.
pub const LAST_RESORT: Span = Span::from_secs(7_200);

/// Cap of the retransmission timeout while data flows, the least that Linux accepts. After an
/// outage the socket sends again within this time.
pub const RTO_MAX: Span = Span::from_secs(1);

/// Largest cap that Linux accepts, and its default.
const LINUX_RTO_MAX: Span = Span::from_secs(120);

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

/// Kernel timeouts of one connection, computed from its policy.
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
    /// Cap of the retransmission timeout in [`SendState::Stranded`]: `TCP_RTO_MAX_MS`.
    pub rto_max_stranded: Span,
    /// Cap of the retransmission timeout in [`SendState::Closed`].
    pub rto_max_closed: Span,
}

impl SocketOptions {
    /// Computes the options for a link under `policy` that must survive outages of `survive`.
    ///
    /// L, the longest outage to survive, is the policy's bound or `survive`, whichever is longer.
    /// For a policy that never ends a link, [`LAST_RESORT`] replaces the bound, so that a host
    /// that disappeared is not kept for ever.
    ///
    /// The kernel gives up at L + max(L / 4, 6 s), rounded up to whole seconds, whether data is in
    /// flight (user timeout) or not (keepalive). Its longest timeout is 24 days and 20 hours; it
    /// gives up before a policy with a longer bound.
    pub fn new(policy: &Policy, survive: Option<Span>) -> SocketOptions {
        let enforced = if policy.enforce() { policy.bound() } else { None };
        let outage = enforced.unwrap_or(LAST_RESORT).max(survive.unwrap_or(Span::ZERO));
        let idle = secs_up(outage);
        let margin = secs_up(outage).div_ceil(4).max(MIN_MARGIN_SECS);
        let interval = margin.div_ceil(u64::from(KEEPALIVE_PROBES));
        let timeout = idle.saturating_add(interval.saturating_mul(KEEPALIVE_PROBES.into()));
        let user_timeout = Span::from_secs(timeout).min(Span::from_millis(MAX_USER_TIMEOUT_MS));
        // Whole seconds: the kernel counts in jiffies, and rounds other values.
        let rto_max = |parts: u64| {
            let cap = Span::from_secs(secs_up(user_timeout).div_ceil(parts));
            cap.clamp(RTO_MAX, LINUX_RTO_MAX)
        };
        SocketOptions {
            keepalive_idle: Span::from_secs(idle.clamp(1, MAX_KEEPALIVE_SECS)),
            keepalive_interval: Span::from_secs(interval.clamp(1, MAX_KEEPALIVE_SECS)),
            keepalive_probes: KEEPALIVE_PROBES,
            user_timeout,
            rto_max_stranded: rto_max(8),
            rto_max_closed: rto_max(2),
        }
    }

    /// Returns the user timeout (zero: none) and the cap of the retransmission timeout in `state`.
    /// A kernel without such a cap keeps the user timeout while the window is open.
    pub const fn timeouts(&self, state: SendState) -> (Span, Span) {
        match state {
            SendState::Sending if self.attempt_count_suffices() => (Span::ZERO, RTO_MAX),
            SendState::Stranded if self.attempt_count_suffices() => {
                (Span::ZERO, self.rto_max_stranded)
            }
            SendState::Sending => (self.user_timeout, RTO_MAX),
            SendState::Stranded => (self.user_timeout, self.rto_max_stranded),
            SendState::Closed => (Span::ZERO, self.rto_max_closed),
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

/// State of the kernel's send side, as far as it changes the options.
///
/// Linux gives up at the 15th unanswered window probe, whatever the user timeout. With a cap of one
/// second that is after 14 s, sooner than most policies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum SendState {
    /// The kernel sends, retransmits, or has nothing to send.
    #[default]
    Sending,
    /// The kernel cannot send although the window is open: our own interface, address or route is
    /// gone.
    Stranded,
    /// The peer has closed its window. It may stay alive and closed for ever, and a user timeout
    /// would end the link nevertheless.
    Closed,
}

impl SendState {
    /// Derives the state from a snapshot.
    pub fn of(tcp: &TcpSnapshot) -> SendState {
        if tcp.is_window_closed() {
            SendState::Closed
        } else if tcp.is_stranded() {
            SendState::Stranded
        } else {
            SendState::Sending
        }
    }
}

fn secs_up(span: Span) -> u64 {
    span.as_nanos().div_ceil(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use systole_core::policy::PRESETS;

    use super::*;

    const HOUR: Span = Span::from_secs(3_600);

    /// Returns the options under test, each with a name and the outage it must survive.
    pub(super) fn cases() -> Vec<(String, SocketOptions, Span)> {
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
        let mut cases = Vec::new();
        for (name, policy) in policies {
            for survive in [Span::ZERO, Span::from_secs(1), Span::from_secs(60), HOUR.times(20)] {
                let outage = policy.bound().unwrap().max(survive);
                cases.push((
                    format!("{name}, survive {survive}"),
                    SocketOptions::new(&policy, Some(survive)),
                    outage,
                ));
            }
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

    #[test]
    fn a_policy_that_never_ends_a_link_leaves_only_the_last_resort() {
        let observe = Policy::datacenter().with_enforce(false);
        for policy in [Policy::never(), observe] {
            let options = SocketOptions::new(&policy, None);
            assert_eq!(options.keepalive_idle, LAST_RESORT);
            assert_eq!(options.user_timeout, Span::from_secs(9_000));
            assert_eq!(options, SocketOptions::new(&policy, Some(Span::from_secs(60))));
        }
    }

    /// Without a user timeout Linux gives up at the 15th retransmission or window probe.
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
        let short = Policy::new(Span::from_secs(1), Span::from_millis(500), 4).unwrap();
        assert_eq!(SocketOptions::new(&short, None).timeouts(SendState::Sending).0, Span::ZERO);
    }

    #[test]
    fn the_longest_policy_gets_the_longest_timeouts_of_linux() {
        let longest = Policy::new(Span::from_millis((1 << 40) - 1), Span::from_millis(1), 1);
        let options = SocketOptions::new(&longest.unwrap(), Some(Span::from_nanos(u64::MAX)));
        assert_eq!(options.user_timeout.as_millis(), MAX_USER_TIMEOUT_MS);
        assert_eq!(options.keepalive_idle, Span::from_secs(MAX_KEEPALIVE_SECS));
        assert_eq!(options.keepalive_interval, Span::from_secs(MAX_KEEPALIVE_SECS));
    }

    #[test]
    fn the_send_state_follows_the_snapshot() {
        let healthy =
            TcpSnapshot { notsent: Some(0), send_window: Some(65_535), ..Default::default() };
        assert_eq!(SendState::of(&healthy), SendState::Sending);
        let lost = TcpSnapshot { unacked: 1, retransmits: 3, backoff: 3, ..healthy };
        assert_eq!(SendState::of(&lost), SendState::Sending);
        let stranded = TcpSnapshot { notsent: Some(1), probes: 1, ..healthy };
        assert_eq!(SendState::of(&stranded), SendState::Stranded);
        assert_eq!(SendState::of(&TcpSnapshot { probes: 0, ..stranded }), SendState::Sending);
        let kept_alive = TcpSnapshot { probes: 1, ..healthy };
        assert_eq!(SendState::of(&kept_alive), SendState::Sending);
        assert_eq!(
            SendState::of(&TcpSnapshot { send_window: Some(0), ..stranded }),
            SendState::Closed
        );
        let remainder = TcpSnapshot { notsent: Some(100_000), ..stranded };
        assert_eq!(SendState::of(&remainder), SendState::Closed, "no segment fits");
        assert_eq!(SendState::of(&TcpSnapshot { probes: 2, ..remainder }), SendState::Stranded);
        assert_eq!(SendState::of(&TcpSnapshot::default()), SendState::Sending, "an old kernel");
    }

    #[test]
    fn the_table_in_the_document_matches() {
        let document = include_str!("../../../docs/sockets.md");
        let never = ("never", Policy::never());
        for (name, policy) in PRESETS.iter().copied().chain([never]) {
            let options = SocketOptions::new(&policy, None);
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
}
