//! The kernel's view of a connection, and how long the kernel must not give it up, as plain data.
//!
//! Nothing here makes system calls: a shell examines the socket when a machine requests it, and
//! passes the result in. A field that an older kernel or another system does not report is `None`,
//! and every conclusion that needs the field stays unknown.

mod cap;

pub(crate) use cap::Blind;
pub use cap::Cap;

use crate::plain::{Damage, Plain, Sink, Source, plain_struct};
use crate::policy::Policy;
use crate::time::Span;

/// One snapshot of a TCP connection: Linux `TCP_INFO` (`struct tcp_info`, linux/tcp.h).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct TcpSnapshot {
    /// Segments sent and not yet acknowledged (`tcpi_unacked`).
    pub unacked: u32,
    /// Those of them that the peer's kernel has although an earlier one is missing there
    /// (`tcpi_sacked`).
    pub sacked: u32,
    /// The payload of the largest segment that is sent on this path (`tcpi_snd_mss`).
    pub segment: u32,
    /// Bytes in the socket buffer that were not yet sent (`tcpi_notsent_bytes`, Linux 4.6).
    pub notsent: Option<u32>,
    /// Retransmissions of the current segment (`tcpi_retransmits`); 0 after an acknowledgement.
    pub retransmits: u8,
    /// Doublings of the retransmission time (`tcpi_backoff`).
    pub backoff: u8,
    /// Unanswered window or keepalive probes (`tcpi_probes`).
    pub probes: u8,
    /// Time since the peer's last acceptable segment, duplicates included (`tcpi_last_ack_recv`).
    pub last_ack: Span,
    /// Time since data of ours last left, retransmissions included (`tcpi_last_data_sent`). Window
    /// probes carry none.
    pub last_sent: Span,
    /// Smoothed round-trip time (`tcpi_rtt`).
    pub rtt: Span,
    /// Mean deviation of the round-trip time (`tcpi_rttvar`).
    pub rttvar: Span,
    /// Whether the connection has timestamps (`tcpi_options`): the kernel then also measures the
    /// round trip of what it has retransmitted.
    pub timestamps: bool,
    /// Retransmissions so far (`tcpi_total_retrans`).
    pub total_retrans: u32,
    /// Bytes acknowledged so far (`tcpi_bytes_acked`, Linux 4.1).
    pub bytes_acked: Option<u64>,
    /// Payload bytes sent so far, retransmissions included (`tcpi_bytes_sent`, Linux 4.19).
    pub bytes_sent: Option<u64>,
    /// Payload bytes retransmitted so far (`tcpi_bytes_retrans`, Linux 4.19).
    pub bytes_retrans: Option<u64>,
    /// Bytes received so far (`tcpi_bytes_received`, Linux 4.1).
    pub bytes_received: Option<u64>,
    /// The receive window that the peer offers (`tcpi_snd_wnd`, Linux 5.4).
    pub send_window: Option<u32>,
    /// Time spent limited by the peer's window (`tcpi_rwnd_limited`, Linux 4.9).
    pub window_limited: Option<Span>,
    /// Whether segments of the peer wait here behind one that is missing (`tcpi_rcv_ooopack`, Linux
    /// 5.4, and `SO_MEMINFO`). A socket that was read to its end holds memory for nothing else.
    pub gap: Option<bool>,
}

plain_struct! { TcpSnapshot {
    unacked,
    sacked,
    segment,
    notsent,
    retransmits,
    backoff,
    probes,
    last_ack,
    last_sent,
    rtt,
    rttvar,
    timestamps,
    total_retrans,
    bytes_acked,
    bytes_sent,
    bytes_retrans,
    bytes_received,
    send_window,
    window_limited,
    gap
} }

impl TcpSnapshot {
    /// Returns the time within which the kernel expects an acknowledgement: the smoothed round trip
    /// and four times its deviation (RFC 6298). `None` before the first measurement.
    ///
    /// After an outage this is still the round trip of the path, while the answer to what was sent
    /// during the outage has taken as long as the outage.
    pub fn expected_ack(&self) -> Option<Span> {
        (self.rtt > Span::ZERO).then(|| self.rtt + self.rttvar.times(4))
    }

    /// Returns true if a segment of ours was never acknowledged; `None` if the kernel has no
    /// counters of sent bytes. Also valid after a reset has cleared [`TcpSnapshot::unacked`].
    ///
    /// On a connection opened by this end the SYN counts as an acknowledged byte, so a single
    /// unacknowledged byte goes unnoticed; a heartbeat has at least two.
    pub fn is_owed(&self) -> Option<bool> {
        Some(self.outstanding()? > 0)
    }

    /// Returns the number of payload bytes that were sent and are not acknowledged; `None` if the
    /// kernel has no counters of sent bytes. One too few on a connection opened by this end, whose
    /// SYN counts as an acknowledged byte.
    pub fn outstanding(&self) -> Option<u64> {
        let sent = self.bytes_sent?.saturating_sub(self.bytes_retrans?);
        Some(sent.saturating_sub(self.bytes_acked?))
    }

    /// Returns what [`TcpSnapshot::bytes_acked`] is at least once the peer's kernel has all that
    /// had left at this snapshot; `None` if the kernel has no counters of sent bytes.
    pub fn acked_when_delivered(&self) -> Option<u64> {
        // The count of outstanding bytes may be one too small.
        let outstanding = self.outstanding()?.max(u64::from(self.unacked > 0));
        Some(self.bytes_acked?.saturating_add(outstanding))
    }

    /// Returns true if `later` shows that all that had left at this snapshot has arrived, and at
    /// the first attempt: what is sent again may arrive only because a path has healed.
    pub fn is_delivered_by(&self, later: &TcpSnapshot) -> bool {
        let repeated = self.retransmits > 0 || later.total_retrans > self.total_retrans;
        let needed = self.acked_when_delivered().zip(later.bytes_acked);
        let arrived = needed.is_some_and(|(needed, acked)| acked >= needed);
        !repeated && (self.unacked == 0 || arrived)
    }

    /// Returns true if the kernel has nothing unsent or unacknowledged; false where it has no count
    /// of unsent bytes.
    pub fn is_all_acknowledged(&self) -> bool {
        self.unacked == 0 && self.notsent == Some(0)
    }

    /// Returns true if what this end sends is held up: it is sent again, probed for, or waits
    /// unsent or before a closed window. False for bytes that are merely on their way.
    pub fn is_held_up(&self) -> bool {
        let sends_again = self.retransmits > 0 || self.backoff > 0 || self.probes > 0;
        sends_again || self.send_window == Some(0) || self.notsent.is_some_and(|bytes| bytes > 0)
    }

    /// Returns true if the peer's window admits none of the waiting bytes: the window is 0, or too
    /// small for a segment (RFC 9293, 3.8.6.2.1) while the peer answers window probes.
    pub fn is_window_closed(&self) -> bool {
        let (Some(window), unsent) = (self.send_window, self.notsent.unwrap_or(0)) else {
            return false;
        };
        window == 0 || self.unacked == 0 && self.probes <= 1 && window < unsent
    }

    /// Returns true if bytes wait although the window is open, nothing is in flight, and window
    /// probes are unanswered.
    pub fn is_stranded(&self) -> bool {
        let waiting = self.notsent.is_some_and(|bytes| bytes > 0);
        waiting && self.unacked == 0 && self.probes > 0 && !self.is_window_closed()
    }
}

/// An error that a socket reports, classified by what it shows about the peer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SocketError {
    /// ECONNRESET, EPIPE, ECONNABORTED: a live stack reset the connection.
    Reset,
    /// ECONNREFUSED. Of a connection that stands: the peer's host or a firewall reported the port
    /// unreachable. Of one that does not: no process listens on the port.
    Refused,
    /// ETIMEDOUT: our kernel gave up. This alone does not prove that the peer is dead.
    TimedOut,
    /// EHOSTUNREACH, EHOSTDOWN: a router or the neighbour table reported the host unreachable.
    /// Also EACCES, ENOPROTOOPT, EPROTO, ENONET and EOPNOTSUPP, by which a connection reports that
    /// a router or the peer's host refuses its packets.
    HostUnreachable,
    /// ENETUNREACH, ENETDOWN: there is no route to the peer.
    NetworkUnreachable,
    /// Any other error: a fault of this machine.
    Local,
}

crate::plain::plain_enum! { SocketError {
    0 => Reset {}
    1 => HostUnreachable {}
    2 => Local {}
    3 => NetworkUnreachable {}
    4 => Refused {}
    5 => TimedOut {}
} }

impl SocketError {
    /// Returns whether this error of a connection that stands shows that a router, a firewall or
    /// the peer's host reports the peer unreachable.
    pub const fn is_unreachable(self) -> bool {
        match self {
            SocketError::Refused
            | SocketError::HostUnreachable
            | SocketError::NetworkUnreachable => true,
            SocketError::Reset | SocketError::TimedOut | SocketError::Local => false,
        }
    }
}

/// The next hop to the peer, by the routes and the neighbour table of this machine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NextHop {
    /// Whether the next hop is the peer itself: both are on one network. Otherwise it is a gateway,
    /// behind which there are more peers.
    pub is_peer: bool,
    /// Whether the next hop does not answer questions for its link-layer address.
    pub is_silent: bool,
}

plain_struct! { NextHop { is_peer, is_silent } }

/// The result of one examination of a socket. The snapshot is taken before the error is read,
/// because reading the error clears part of what the snapshot shows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Examination {
    /// The kernel's view of the connection; `None` where the kernel has none.
    pub tcp: Option<TcpSnapshot>,
    /// The pending error, or the soft error that a router reported.
    pub error: Option<SocketError>,
    /// Whether the connection has ended with `error`, which no later call reports again.
    pub ended: bool,
    /// Whether our own interface is down or our address is gone; `None` if this is not known.
    pub local_down: Option<bool>,
    /// The next hop to a peer to which something is sent again; `None` if this is not known.
    pub next_hop: Option<NextHop>,
    /// Whether the shell still holds bytes of this link that the kernel has not taken.
    pub queued: bool,
}

plain_struct! { Examination { tcp, error, ended, local_down, next_hop, queued } }

impl Examination {
    /// Returns whether the examination shows that the peer's kernel has acknowledged all our bytes.
    /// False where a field is missing that would show it.
    pub fn is_all_acknowledged(&self) -> bool {
        !self.queued && self.tcp.as_ref().is_some_and(TcpSnapshot::is_all_acknowledged)
    }
}

/// How long the kernel must not give up a connection. The machine of a link decides; a shell
/// translates it into socket options.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Patience {
    outage: Option<Span>,
    send: SendState,
    cap: Cap,
}

impl Plain<'_> for Patience {
    fn put(&self, out: &mut Sink<'_>) {
        self.outage().put(out);
        self.send().put(out);
        self.cap().put(out);
    }

    fn take(from: &mut Source<'_>) -> Result<Self, Damage> {
        let outage = Plain::take(from)?;
        let patience = Patience::new(outage, Plain::take(from)?).with_cap(Plain::take(from)?);
        // It is rounded and cut: another outage would be encoded as another.
        if patience.outage() == outage { Ok(patience) } else { Err(Damage::Illegal) }
    }
}

/// The longest [`Patience::outage`]: 48 days, in whole seconds. No kernel has a timeout of more
/// than 25 days, and the link remembers the outage in 22 bits.
pub const LONGEST_OUTAGE: Span = Span::from_secs((1 << 22) - 2);

impl Patience {
    /// Creates a patience with the least cap; `outage` is rounded up to a whole second, and cut to
    /// [`LONGEST_OUTAGE`].
    pub const fn new(outage: Option<Span>, send: SendState) -> Patience {
        let outage = match outage {
            Some(outage) => {
                let secs = outage.as_nanos().div_ceil(1_000_000_000);
                let longest = LONGEST_OUTAGE.as_nanos() / 1_000_000_000;
                Some(Span::from_secs(if secs < longest { secs } else { longest }))
            }
            None => None,
        };
        Patience { outage, send, cap: Cap::LEAST }
    }

    /// Returns this patience with another cap than the least.
    #[must_use]
    pub const fn with_cap(self, cap: Cap) -> Patience {
        Patience { cap, ..self }
    }

    /// Returns the patience that `policy` needs for a link that is not on hold or kept.
    pub fn of(policy: &Policy) -> Patience {
        let outage = if policy.enforce() { policy.bound() } else { None };
        Patience::new(outage, SendState::Sending)
    }

    /// Returns the longest silence that the connection must survive, counted from the last
    /// evidence; `None` if silence never ends the link.
    pub const fn outage(&self) -> Option<Span> {
        self.outage
    }

    /// Returns the state of the connection's sending side.
    pub const fn send(&self) -> SendState {
        self.send
    }

    /// Returns the cap of the retransmission timeout while the kernel can send, also in the
    /// leave-taking.
    pub const fn cap(&self) -> Cap {
        self.cap
    }
}

/// The state of a connection's sending side, as far as it changes the kernel's timeouts.
///
/// Linux counts window probes and gives up at the 15th that stays unanswered, whatever the user
/// timeout is. With a cap of one second on the retransmission timeout that is after 14 s, sooner
/// than the bounds of most policies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum SendState {
    /// The kernel sends, retransmits, or has nothing to send.
    #[default]
    Sending,
    /// The kernel cannot send although the window is open: our own interface, address or route is
    /// gone.
    Stranded,
    /// The peer has closed its window, or had closed it and not everything is acknowledged since.
    /// It may stay alive and closed for ever, and a user timeout, which the kernel counts from its
    /// first window probe, would end the connection nevertheless.
    Closed,
    /// The link has ended, and its last bytes are still delivered. The limits of the departure end
    /// the connection.
    Leaving,
    /// The socket is closed next, and the kernel goes on to deliver by its rules for connections
    /// without a process.
    Orphaned,
}

crate::plain::plain_enum! { SendState {
    0 => Sending {}
    1 => Closed {}
    2 => Stranded {}
    3 => Leaving {}
    4 => Orphaned {}
} }

impl SendState {
    /// Returns the state that a snapshot shows.
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let closed = TcpSnapshot { send_window: Some(0), ..stranded };
        assert_eq!(SendState::of(&closed), SendState::Closed);
        let remainder = TcpSnapshot { notsent: Some(100_000), ..stranded };
        assert_eq!(SendState::of(&remainder), SendState::Closed, "no segment fits");
        assert_eq!(SendState::of(&TcpSnapshot { probes: 2, ..remainder }), SendState::Stranded);
        assert_eq!(SendState::of(&TcpSnapshot::default()), SendState::Sending, "an old kernel");
    }

    #[test]
    fn only_what_arrives_at_the_first_attempt_shows_an_open_path() {
        let sent = TcpSnapshot {
            unacked: 2,
            total_retrans: 7,
            bytes_acked: Some(1_000),
            bytes_sent: Some(1_120),
            bytes_retrans: Some(100),
            ..TcpSnapshot::default()
        };
        let more = TcpSnapshot { bytes_sent: Some(1_200), ..sent };
        let acked = |bytes| TcpSnapshot { bytes_acked: Some(bytes), ..more };
        assert!(!sent.is_delivered_by(&sent), "on its way");
        assert!(!sent.is_delivered_by(&acked(1_019)));
        assert!(sent.is_delivered_by(&acked(1_020)), "later bytes may be on their way");
        assert!(!sent.is_delivered_by(&TcpSnapshot { total_retrans: 8, ..acked(1_020) }));
        assert!(!TcpSnapshot { retransmits: 1, ..sent }.is_delivered_by(&acked(1_020)));
        let uncounted = TcpSnapshot { bytes_sent: None, ..sent };
        assert!(!uncounted.is_delivered_by(&acked(2_000)), "an old kernel");
        let nothing = TcpSnapshot { unacked: 0, ..uncounted };
        assert!(nothing.is_delivered_by(&nothing));
    }

    #[test]
    fn only_a_kernel_that_counts_everything_shows_that_all_is_acknowledged() {
        let all = TcpSnapshot { notsent: Some(0), ..TcpSnapshot::default() };
        let shows = |tcp, queued| {
            Examination { tcp, queued, ..Examination::default() }.is_all_acknowledged()
        };
        assert!(shows(Some(all), false));
        assert!(!shows(Some(all), true), "the shell holds bytes");
        assert!(!shows(Some(TcpSnapshot { unacked: 1, ..all }), false));
        assert!(!shows(Some(TcpSnapshot { notsent: Some(1), ..all }), false));
        assert!(!shows(Some(TcpSnapshot { notsent: None, ..all }), false), "an old kernel");
        assert!(!shows(None, false));
    }
}
