//! Who sent a reset: a process that ended with bytes unread, or a kernel that did not know the
//! connection.
//!
//! What decides is what the reset answered. A machine that restarted, or a NAT that forgot, has
//! nothing to say until a segment of ours arrives; a kernel that closes for its process resets
//! unasked, and has acknowledged what it holds.

use super::{Diagnosis, Ground, Grounds, high};
use crate::cause::{Cause, Confidence};
use crate::kernel::TcpSnapshot;
use crate::time::Span;

/// For how long a kernel may sit on an acknowledgement: the most that Linux does.
pub const DELAYED_ACK: Span = Span::from_millis(200);

/// What is known when a reset comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reset {
    /// Since when the application has said nothing.
    pub heard: Span,
    /// Since when we have sent nothing.
    pub sent: Span,
    /// How long something heard counts as fresh.
    pub patience: Span,
    /// What the kernel still knows; `None` where it cannot be asked.
    pub tcp: Option<TcpSnapshot>,
}

/// The cause behind a reset.
pub fn diagnose_reset(reset: &Reset) -> Diagnosis {
    use Ground as G;
    let silent = reset.tcp.map_or(reset.heard, |tcp| tcp.last_ack.min(reset.heard));
    let fresh = silent <= reset.patience;
    let Some((tcp, owed)) = reset.tcp.and_then(|tcp| Some((tcp, tcp.is_owed()?))) else {
        // Nothing of ours was under way that the reset could have answered.
        if reset.heard <= reset.sent {
            let confidence = if fresh { Confidence::High } else { Confidence::Medium };
            return Diagnosis { confidence, ..high(Cause::PeerExited, &[G::Reset]) };
        }
        let confidence = if fresh { Confidence::Medium } else { Confidence::High };
        return Diagnosis { confidence, ..high(Cause::PeerReset, &[G::Reset]) };
    };
    if owed {
        // A kernel that lives may not have acknowledged it yet, and may have closed for its process
        // meanwhile: within that time either is possible where the peer was heard just before.
        let crossed = fresh && reset.sent <= tcp.rtt + DELAYED_ACK;
        let confidence = if crossed { Confidence::Medium } else { Confidence::High };
        return Diagnosis { confidence, ..high(Cause::PeerReset, &[G::Reset, G::SegmentOwed]) };
    }
    if fresh {
        return high(Cause::PeerExited, &[G::Reset, G::NothingOwed, G::KernelFresh]);
    }
    // After a long silence, unasked, a firewall may have sent it too; and what our own kernel asks
    // it does not count as sent.
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

    /// A kernel that was heard `last_ack` ms ago, and was sent that many bytes it never confirmed.
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

    fn told(heard: u64, sent: u64, tcp: Option<TcpSnapshot>) -> (Cause, Confidence) {
        let reset = Reset { heard: ms(heard), sent: ms(sent), patience: PATIENCE, tcp };
        let found = diagnose_reset(&reset);
        assert!(found.grounds.contains(Ground::Reset));
        (found.cause, found.confidence)
    }

    #[test]
    fn a_process_that_was_killed_with_bytes_unread_owes_nothing() {
        assert_eq!(told(2_000, 400, kernel(360, 0)), (Cause::PeerExited, Confidence::High));
        // As the kernel of a connecting end counts: its SYN, too.
        let connecting = kernel(360, 0).map(|tcp| TcpSnapshot { bytes_acked: Some(101), ..tcp });
        assert_eq!(told(2_000, 400, connecting), (Cause::PeerExited, Confidence::High));
    }

    #[test]
    fn a_machine_that_does_not_know_the_connection_never_acknowledged_what_it_answers() {
        for owed in [1, 2, 1_000] {
            let found = told(2_000, 1, kernel(2_000, owed));
            assert_eq!(found, (Cause::PeerReset, Confidence::High), "{owed}");
        }
        // Back within a second, and asked again and again before it was.
        let found = told(900, 800, kernel(900, 2));
        assert_eq!(found, (Cause::PeerReset, Confidence::High));
    }

    #[test]
    fn a_probe_that_may_have_crossed_the_reset_is_no_proof() {
        let found = |sent| told(900, sent, kernel(900, 2));
        assert_eq!(found(250), (Cause::PeerReset, Confidence::Medium), "RTT and delay");
        assert_eq!(found(251), (Cause::PeerReset, Confidence::High));
    }

    #[test]
    fn a_reset_out_of_a_long_silence_may_come_from_a_firewall() {
        let stale = kernel(350_000, 0);
        assert_eq!(told(350_000, 350_000, stale), (Cause::PeerExited, Confidence::Medium));
        let asked = stale.map(|tcp| TcpSnapshot { probes: 1, ..tcp });
        assert_eq!(told(350_000, 350_000, asked), (Cause::PeerReset, Confidence::Medium));
    }

    #[test]
    fn without_counts_only_what_was_sent_since_tells() {
        let old = Some(TcpSnapshot { last_ack: ms(40), ..TcpSnapshot::default() });
        for tcp in [None, old] {
            let fresh = told(900, 900, tcp);
            assert_eq!(fresh, (Cause::PeerExited, Confidence::High), "nothing to answer");
            let between = told(900, 100, tcp);
            assert_eq!(between, (Cause::PeerReset, Confidence::Medium), "either");
        }
        assert_eq!(told(5_000, 9_000, None), (Cause::PeerExited, Confidence::Medium));
        assert_eq!(told(5_000, 100, None), (Cause::PeerReset, Confidence::High));
        let answering = told(5_000, 100, old);
        assert_eq!(answering, (Cause::PeerReset, Confidence::Medium), "its kernel lived just now");
    }
}
