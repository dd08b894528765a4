//! Tests each row of the diagnosis table: the examinations that lead to a cause, and similar ones
//! that must not.

use super::*;

fn ms(millis: u64) -> Time {
    Time::from_millis(millis)
}

fn span(millis: u64) -> Span {
    Span::from_millis(millis)
}

/// Idle 1 s, interval 0.5 s, 4 probes: D = 3 s.
const CASE: Case =
    Case { lasted: Span::from_millis(3_000), interval: Span::from_millis(500), beyond_bound: true };

/// A connection on which nothing is wrong.
fn healthy() -> TcpSnapshot {
    TcpSnapshot {
        notsent: Some(0),
        last_ack: span(40),
        last_data: span(2_900),
        rtt: span(1),
        total_retrans: 7,
        bytes_acked: Some(1_000),
        bytes_received: Some(900),
        send_window: Some(64_000),
        window_limited: Some(Span::ZERO),
        ..TcpSnapshot::default()
    }
}

fn examination(tcp: TcpSnapshot) -> Examination {
    Examination { tcp: Some(tcp), ..Examination::default() }
}

/// The diagnosis after a first examination at 1.5 s and a last one at 3 s.
fn after(first: Examination, last: Examination) -> Diagnosis {
    let mut doubts = Doubts::new(ms(0));
    doubts.see(ms(1_500), &first);
    doubts.see(ms(3_000), &last);
    diagnose(&CASE, &doubts)
}

/// A path on which nothing comes back, as the last examination shows it.
fn lost() -> TcpSnapshot {
    TcpSnapshot {
        unacked: 4,
        retransmits: 3,
        backoff: 3,
        last_ack: span(3_000),
        total_retrans: 10,
        ..healthy()
    }
}

const BOTH: Cause = Cause::PathLost { direction: Direction::Both, scope: Scope::Unknown };
const OUTBOUND: Cause = Cause::PathLost { direction: Direction::Outbound, scope: Scope::Unknown };

#[test]
fn acknowledged_bytes_without_an_answer_show_a_hung_application() {
    let first = examination(healthy());
    let last = examination(TcpSnapshot { bytes_acked: Some(1_008), ..healthy() });
    let found = after(first, last);
    assert_eq!((found.cause, found.confidence), (Cause::AppHung, Confidence::High));
    assert!(found.grounds.contains(Ground::KernelFresh));
    assert!(found.grounds.contains(Ground::BytesAcknowledged));
    assert_eq!(found.grounds.iter().count(), 3);
    let nothing_sent = examination(healthy());
    assert_eq!(after(first, nothing_sent).cause, Cause::Unknown, "an old ACK proves nothing");
}

#[test]
fn a_closed_window_shows_an_application_that_does_not_read() {
    let closed = TcpSnapshot {
        send_window: Some(0),
        notsent: Some(10_000),
        backoff: 2,
        probes: 2,
        last_ack: span(400),
        ..healthy()
    };
    assert_eq!(after(examination(healthy()), examination(closed)).cause, Cause::NotReading);
    let stale = TcpSnapshot { last_ack: span(5_000), ..closed };
    assert_ne!(after(examination(healthy()), examination(stale)).cause, Cause::NotReading);
}

/// A live kernel answers each window probe, and the time to the next one doubles.
#[test]
fn answered_window_probes_show_an_application_that_does_not_read() {
    let closed = TcpSnapshot {
        send_window: Some(0),
        notsent: Some(32_850),
        backoff: 3,
        probes: 0,
        last_ack: span(1_396),
        ..healthy()
    };
    assert_eq!(after(examination(closed), examination(closed)).cause, Cause::NotReading);
    let unanswered = TcpSnapshot { probes: 1, ..closed };
    assert_ne!(after(examination(closed), examination(unanswered)).cause, Cause::NotReading);
    let retransmitted = TcpSnapshot { unacked: 1, ..closed };
    assert_ne!(after(examination(closed), examination(retransmitted)).cause, Cause::NotReading);
    let older_than_the_silence = TcpSnapshot { last_ack: span(3_000), ..closed };
    assert_ne!(
        after(examination(closed), examination(older_than_the_silence)).cause,
        Cause::NotReading
    );
}

#[test]
fn a_window_smaller_than_the_waiting_bytes_counts_as_closed() {
    let remainder = TcpSnapshot {
        send_window: Some(80),
        notsent: Some(5_000),
        backoff: 1,
        probes: 1,
        last_ack: span(300),
        ..healthy()
    };
    assert_eq!(after(examination(healthy()), examination(remainder)).cause, Cause::NotReading);
    let ours = TcpSnapshot { probes: 3, backoff: 3, last_ack: span(3_000), ..remainder };
    assert_eq!(after(examination(healthy()), examination(ours)).cause, Cause::LocalNetworkDown);
    let in_flight = TcpSnapshot { unacked: 2, probes: 0, backoff: 0, ..remainder };
    assert_eq!(after(examination(healthy()), examination(in_flight)).cause, Cause::Unknown);
}

#[test]
fn retransmissions_show_a_path_lost_both_ways_or_outbound() {
    let first = TcpSnapshot {
        unacked: 1,
        retransmits: 1,
        backoff: 1,
        last_ack: span(1_500),
        total_retrans: 8,
        ..healthy()
    };
    let found = after(examination(first), examination(lost()));
    assert_eq!((found.cause, found.confidence), (BOTH, Confidence::Medium));
    let duplicates = TcpSnapshot { last_ack: span(200), ..lost() };
    let found = after(examination(first), examination(duplicates));
    assert_eq!((found.cause, found.confidence), (OUTBOUND, Confidence::High));
    let once = TcpSnapshot { retransmits: 1, ..lost() };
    assert_eq!(
        after(examination(first), examination(once)).cause,
        Cause::Unknown,
        "one loss is no outage"
    );
}

#[test]
fn socket_errors_lead_to_unreachable_or_peer_reset() {
    for error in [SocketError::HostUnreachable, SocketError::NetworkUnreachable] {
        let last = Examination { error: Some(error), ..examination(lost()) };
        assert_eq!(after(examination(healthy()), last).cause, Cause::Unreachable);
    }
    let soft = Examination { error: Some(SocketError::HostUnreachable), ..examination(healthy()) };
    assert_eq!(after(soft, examination(lost())).cause, Cause::Unreachable, "it is remembered");
    let reset = Examination { error: Some(SocketError::Reset), ..examination(lost()) };
    assert_eq!(after(examination(healthy()), reset).cause, Cause::PeerReset);
}

#[test]
fn a_kernel_timeout_alone_is_no_cause() {
    let gave_up = Examination { error: Some(SocketError::TimedOut), ..examination(lost()) };
    assert_eq!(after(examination(healthy()), gave_up).cause, BOTH);
    let alone = Examination { error: Some(SocketError::TimedOut), ..Examination::default() };
    assert_eq!(after(alone, alone).cause, Cause::Unknown);
}

#[test]
fn local_faults_are_not_blamed_on_the_peer() {
    let stuck =
        TcpSnapshot { notsent: Some(8), probes: 3, backoff: 3, last_ack: span(3_000), ..healthy() };
    assert_eq!(after(examination(healthy()), examination(stuck)).cause, Cause::LocalNetworkDown);
    let reported = Examination { local_down: Some(true), ..examination(lost()) };
    assert_eq!(after(examination(healthy()), reported).cause, Cause::LocalNetworkDown);
    let first = TcpSnapshot { retransmits: 1, unacked: 1, ..healthy() };
    let unsent = TcpSnapshot { retransmits: 4, unacked: 4, last_ack: span(3_000), ..healthy() };
    assert_eq!(after(examination(first), examination(unsent)).cause, Cause::LocalNeighbourGone);
}

#[test]
fn missing_kernel_fields_lead_to_unknown() {
    let old = TcpSnapshot { bytes_acked: None, send_window: None, notsent: None, ..healthy() };
    assert_eq!(after(examination(old), examination(old)).cause, Cause::Unknown);
    let nothing = Examination::default();
    assert_eq!(after(nothing, nothing).cause, Cause::Unknown);
}

#[test]
fn acknowledged_bytes_are_counted_between_examinations() {
    let mut doubts = Doubts::new(ms(0));
    assert_eq!(
        doubts.see(ms(1_000), &examination(healthy())),
        0,
        "the first examination has no predecessor"
    );
    let more = TcpSnapshot { bytes_acked: Some(5_000), ..healthy() };
    assert_eq!(doubts.see(ms(2_000), &examination(more)), 4_000);
    assert_eq!(doubts.see(ms(3_000), &examination(more)), 0);
    assert_eq!(doubts.see(ms(4_000), &Examination::default()), 0);
}

#[test]
fn each_ground_has_its_bit() {
    for (bit, ground) in Ground::ALL.into_iter().enumerate() {
        assert_eq!(ground as usize, bit);
        assert_eq!(Grounds::of(&[ground]).iter().next(), Some(ground));
    }
}

#[test]
fn before_the_bound_nothing_rests_on_the_silence_of_the_application() {
    let early = Case { beyond_bound: false, ..CASE };
    let mut doubts = Doubts::new(Time::ZERO);
    for (at, snapshot) in [(0, healthy()), (1_000, healthy())] {
        let tcp = Some(TcpSnapshot { bytes_acked: Some(at), ..snapshot });
        let examination = Examination { tcp, ..Examination::default() };
        doubts.see(Time::from_millis(at), &examination);
    }
    assert_eq!(diagnose(&CASE, &doubts).cause, Cause::AppHung);
    let found = diagnose(&early, &doubts);
    assert_eq!((found.cause, found.grounds), (Cause::Unknown, Grounds::default()));
    doubts.see(Time::from_millis(2_000), &examination(lost()));
    assert!(!diagnose(&early, &doubts).grounds.contains(Ground::ApplicationSilent));
}
