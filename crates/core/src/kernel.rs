//! What an operating system's kernel knows of a connection, as plain data.
//!
//! Nothing here asks a kernel; a shell does, when a machine wants an examination, and hands in what
//! it got. Where a field does not exist, on an older kernel or another system, it is `None`, and
//! whatever rests on it stays unknown.

use crate::time::Span;

/// One look at a TCP connection: Linux `TCP_INFO` (`struct tcp_info`, linux/tcp.h).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct TcpSnapshot {
    /// Segments sent and not acknowledged (`tcpi_unacked`).
    pub unacked: u32,
    /// Bytes handed over and not yet sent (`tcpi_notsent_bytes`, Linux 4.6).
    pub notsent: Option<u32>,
    /// Retransmissions of the present segment (`tcpi_retransmits`); 0 after an acknowledgement.
    pub retransmits: u8,
    /// Doublings of the retransmission time (`tcpi_backoff`).
    pub backoff: u8,
    /// Unanswered window or keepalive probes (`tcpi_probes`).
    pub probes: u8,
    /// Since when no segment of the peer was acceptable (`tcpi_last_ack_recv`). Duplicates count.
    pub last_ack: Span,
    /// Since when no data of the peer arrived (`tcpi_last_data_recv`).
    pub last_data: Span,
    /// Smoothed round-trip time (`tcpi_rtt`).
    pub rtt: Span,
    /// Retransmissions so far (`tcpi_total_retrans`).
    pub total_retrans: u32,
    /// Bytes acknowledged so far (`tcpi_bytes_acked`, Linux 4.1).
    pub bytes_acked: Option<u64>,
    /// Bytes of payload sent so far, those sent again included (`tcpi_bytes_sent`, Linux 4.19).
    pub bytes_sent: Option<u64>,
    /// Bytes of payload sent again so far (`tcpi_bytes_retrans`, Linux 4.19).
    pub bytes_retrans: Option<u64>,
    /// Bytes received so far (`tcpi_bytes_received`, Linux 4.1).
    pub bytes_received: Option<u64>,
    /// The window the peer offers (`tcpi_snd_wnd`, Linux 5.4).
    pub send_window: Option<u32>,
    /// Time spent limited by the peer's window (`tcpi_rwnd_limited`, Linux 4.9).
    pub window_limited: Option<Span>,
}

impl TcpSnapshot {
    /// Whether a segment of ours was never acknowledged, which can still be told once a reset has
    /// cleared [`TcpSnapshot::unacked`]; `None` if the kernel does not count what it sends.
    ///
    /// Where the connection was opened from here its SYN counts as an acknowledged byte, so that a
    /// single byte goes unnoticed; a heartbeat has at least two.
    pub fn is_owed(&self) -> Option<bool> {
        Some(self.bytes_sent?.saturating_sub(self.bytes_retrans?) > self.bytes_acked?)
    }

    /// Whether the peer's window takes nothing of what waits: it is 0, or a remainder into which no
    /// segment fits (RFC 9293, 3.8.6.2.1), while the peer answers what asks for more.
    pub fn is_window_closed(&self) -> bool {
        let (Some(window), unsent) = (self.send_window, self.notsent.unwrap_or(0)) else {
            return false;
        };
        window == 0 || self.unacked == 0 && self.probes <= 1 && window < unsent
    }

    /// Whether bytes wait that could leave, nothing is in flight, and questions go unanswered.
    pub fn is_stranded(&self) -> bool {
        let waiting = self.notsent.is_some_and(|bytes| bytes > 0);
        waiting && self.unacked == 0 && self.probes > 0 && !self.is_window_closed()
    }
}

/// An error that a socket reports, as far as it says something about the other end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SocketError {
    /// ECONNRESET, EPIPE, ECONNABORTED: a live stack refused.
    Reset,
    /// ECONNREFUSED: nobody listens.
    Refused,
    /// ETIMEDOUT: the kernel gave up. Not by itself a proof that the peer is dead.
    TimedOut,
    /// EHOSTUNREACH, EHOSTDOWN: a router or the neighbour table said so.
    HostUnreachable,
    /// ENETUNREACH, ENETDOWN: no route.
    NetworkUnreachable,
    /// Anything else: ours.
    Local,
}

/// All that one examination of a socket brings. The snapshot is taken before the error is read,
/// since reading an error clears part of what the snapshot would show.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Examination {
    /// The kernel's view; `None` where there is none.
    pub tcp: Option<TcpSnapshot>,
    /// The pending error, or the soft one that a router reported.
    pub error: Option<SocketError>,
    /// Whether our own interface is down or our address is gone, where that could be found out.
    pub local_down: Option<bool>,
}
