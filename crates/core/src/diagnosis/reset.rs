//! Finds the origin of a reset: a process that ended with unread bytes, or a kernel that did not
//! know the connection.
//!
//! The two differ in what the reset answers. A restarted machine, or a NAT without a mapping, sends
//! a reset only in answer to a segment of ours. A kernel that closes a socket for its process sends
//! one unprompted, and has acknowledged the bytes that it holds.

use super::{Diagnosis, Ground, Grounds, high};
use crate::cause::{Cause, Confidence};
use crate::kernel::TcpSnapshot;
use crate::time::Span;

/// The maximum time for which Linux delays an acknowledgement.
pub const DELAYED_ACK: Span = Span::from_millis(200);

/// The state of a link at the moment a reset arrives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reset {
    /// The time since the last bytes from the peer's application.
    pub heard: Span,
    /// The time since we last sent bytes.
    pub sent: Span,
    /// The age up to which evidence counts as fresh.
    pub patience: Span,
    /// The kernel's view after the reset; `None` where the kernel has none.
    pub tcp: Option<TcpSnapshot>,
}

/// Finds the cause of a reset.
pub fn diagnose_reset(reset: &Reset) -> Diagnosis {
    use Ground as G;
    let silent = reset.tcp.map_or(reset.heard, |tcp| tcp.last_ack.min(reset.heard));
    let fresh = silent <= reset.patience;
    let Some((tcp, owed)) = reset.tcp.and_then(|tcp| Some((tcp, tcp.is_owed()?))) else {
        // No segment of ours was in flight that the reset could have answered.
        if reset.heard <= reset.sent {
            let confidence = if fresh { Confidence::High } else { Confidence::Medium };
            return Diagnosis { confidence, ..high(Cause::PeerExited, &[G::Reset]) };
        }
        let confidence = if fresh { Confidence::Medium } else { Confidence::High };
        return Diagnosis { confidence, ..high(Cause::PeerReset, &[G::Reset]) };
    };
    if owed {
        if tcp.last_ack <= tcp.rtt + DELAYED_ACK {
            // A kernel that has just acknowledged knows the connection: its process has most likely
            // ended with bytes unread while more were on their way.
            let exited = high(Cause::PeerExited, &[G::Reset, G::KernelFresh]);
            return Diagnosis { confidence: Confidence::Medium, ..exited };
        }
        // A live kernel may delay the acknowledgement, and may close the socket for its process
        // meanwhile. Within that time both origins are possible if the peer was heard recently.
        let crossed = fresh && reset.sent <= tcp.rtt + DELAYED_ACK;
        let confidence = if crossed { Confidence::Medium } else { Confidence::High };
        return Diagnosis { confidence, ..high(Cause::PeerReset, &[G::Reset, G::SegmentOwed]) };
    }
    if fresh {
        return high(Cause::PeerExited, &[G::Reset, G::NothingOwed, G::KernelFresh]);
    }
    // After a long silence a firewall may also have sent an unprompted reset. Probes of our own
    // kernel are not counted in `bytes_sent`, so the reset may have answered one of them.
    let (cause, grounds) = if tcp.probes > 0 {
        (Cause::PeerReset, Grounds::of(&[G::Reset]))
    } else {
        (Cause::PeerExited, Grounds::of(&[G::Reset, G::NothingOwed]))
    };
    Diagnosis { cause, confidence: Confidence::Medium, grounds }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Span = Span::from_secs(1);

    fn ms(millis: u64) -> Span {
        Span::from_millis(millis)
    }

    /// A kernel last heard `last_ack` ms ago that never acknowledged the last `owed` bytes.
    fn kernel(last_ack: u64, owed: u64) -> Option<TcpSnapshot> {
        Some(TcpSnapshot {
            last_ack: ms(last_ack),
            rtt: ms(50),
            bytes_acked: Some(100),
            bytes_sent: Some(100 + owed + 30),
            bytes_retrans: Some(30),
            ..TcpSnapshot::default()
        })
    }

    fn diagnosed(heard: u64, sent: u64, tcp: Option<TcpSnapshot>) -> (Cause, Confidence) {
        let reset = Reset { heard: ms(heard), sent: ms(sent), patience: PATIENCE, tcp };
        let found = diagnose_reset(&reset);
        assert!(found.grounds.contains(Ground::Reset));
        (found.cause, found.confidence)
    }

    #[test]
    fn a_process_killed_with_unread_bytes_has_acknowledged_everything() {
        assert_eq!(diagnosed(2_000, 400, kernel(360, 0)), (Cause::PeerExited, Confidence::High));
        // The kernel of a connecting end also counts its SYN.
        let connecting = kernel(360, 0).map(|tcp| TcpSnapshot { bytes_acked: Some(101), ..tcp });
        assert_eq!(diagnosed(2_000, 400, connecting), (Cause::PeerExited, Confidence::High));
    }

    #[test]
    fn a_machine_that_does_not_know_the_connection_leaves_bytes_unacknowledged() {
        for owed in [1, 2, 1_000] {
            let found = diagnosed(2_000, 1, kernel(2_000, owed));
            assert_eq!(found, (Cause::PeerReset, Confidence::High), "{owed}");
        }
        // The machine returned within a second, and earlier probes went unanswered.
        let found = diagnosed(900, 800, kernel(900, 2));
        assert_eq!(found, (Cause::PeerReset, Confidence::High));
    }

    #[test]
    fn a_probe_that_may_have_crossed_the_reset_lowers_the_confidence() {
        let found = |sent| diagnosed(900, sent, kernel(900, 2));
        assert_eq!(found(250), (Cause::PeerReset, Confidence::Medium), "RTT and delay");
        assert_eq!(found(251), (Cause::PeerReset, Confidence::High));
    }

    #[test]
    fn a_kernel_that_has_just_acknowledged_knows_the_connection() {
        for (last_ack, expected) in [
            (20, (Cause::PeerExited, Confidence::Medium)),
            (250, (Cause::PeerExited, Confidence::Medium)),
            (251, (Cause::PeerReset, Confidence::High)),
        ] {
            assert_eq!(diagnosed(2_300, 2_300, kernel(last_ack, 90_000)), expected, "{last_ack}");
        }
    }

    #[test]
    fn a_reset_after_a_long_silence_has_medium_confidence() {
        let stale = kernel(350_000, 0);
        assert_eq!(diagnosed(350_000, 350_000, stale), (Cause::PeerExited, Confidence::Medium));
        let asked = stale.map(|tcp| TcpSnapshot { probes: 1, ..tcp });
        assert_eq!(diagnosed(350_000, 350_000, asked), (Cause::PeerReset, Confidence::Medium));
    }

    #[test]
    fn without_byte_counters_the_send_time_decides() {
        let old = Some(TcpSnapshot { last_ack: ms(40), ..TcpSnapshot::default() });
        for tcp in [None, old] {
            let fresh = diagnosed(900, 900, tcp);
            assert_eq!(fresh, (Cause::PeerExited, Confidence::High), "nothing to answer");
            let between = diagnosed(900, 100, tcp);
            assert_eq!(between, (Cause::PeerReset, Confidence::Medium), "either");
        }
        assert_eq!(diagnosed(5_000, 9_000, None), (Cause::PeerExited, Confidence::Medium));
        assert_eq!(diagnosed(5_000, 100, None), (Cause::PeerReset, Confidence::High));
        let answering = diagnosed(5_000, 100, old);
        assert_eq!(answering, (Cause::PeerReset, Confidence::Medium), "its kernel lived just now");
    }
}
