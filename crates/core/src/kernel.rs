//! The kernel's view of a connection, as plain data.
//!
//! Nothing here makes system calls: a shell examines the socket when a machine requests it, and
//! passes the result in. A field that an older kernel or another system does not report is `None`,
//! and every conclusion that needs the field stays unknown.

use crate::time::Span;

/// One snapshot of a TCP connection: Linux `TCP_INFO` (`struct tcp_info`, linux/tcp.h).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct TcpSnapshot {
    /// Segments sent and not yet acknowledged (`tcpi_unacked`).
    pub unacked: u32,
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
    /// Time since the last data of the peer (`tcpi_last_data_recv`).
    pub last_data: Span,
    /// Smoothed round-trip time (`tcpi_rtt`).
    pub rtt: Span,
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
}

impl TcpSnapshot {
    /// Returns true if a segment of ours was never acknowledged; `None` if the kernel has no
    /// counters of sent bytes. Also valid after a reset has cleared [`TcpSnapshot::unacked`].
    ///
    /// On a connection opened by this end the SYN counts as an acknowledged byte, so a single
    /// unacknowledged byte goes unnoticed; a heartbeat has at least two.
    pub fn is_owed(&self) -> Option<bool> {
        Some(self.bytes_sent?.saturating_sub(self.bytes_retrans?) > self.bytes_acked?)
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
    /// ECONNREFUSED: no process listens on the port.
    Refused,
    /// ETIMEDOUT: our kernel gave up. This alone does not prove that the peer is dead.
    TimedOut,
    /// EHOSTUNREACH, EHOSTDOWN: a router or the neighbour table reported the host unreachable.
    HostUnreachable,
    /// ENETUNREACH, ENETDOWN: there is no route to the peer.
    NetworkUnreachable,
    /// Any other error: a fault of this machine.
    Local,
}

/// The result of one examination of a socket. The snapshot is taken before the error is read,
/// because reading the error clears part of what the snapshot shows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Examination {
    /// The kernel's view of the connection; `None` where the kernel has none.
    pub tcp: Option<TcpSnapshot>,
    /// The pending error, or the soft error that a router reported.
    pub error: Option<SocketError>,
    /// Whether our own interface is down or our address is gone; `None` if this is not known.
    pub local_down: Option<bool>,
}
