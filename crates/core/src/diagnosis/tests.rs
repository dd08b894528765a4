//! Tests each row of the diagnosis table: the examinations that lead to a cause, and similar ones
//! that must not.

use alloc::vec;
use alloc::vec::Vec;

use super::*;

fn ms(millis: u64) -> Time {
    Time::from_millis(millis)
}

fn span(millis: u64) -> Span {
    Span::from_millis(millis)
}

/// Idle 1 s, interval 0.5 s, 4 probes: D = 3 s.
const CASE: Case = Case {
    lasted: Span::from_millis(3_000),
    interval: Span::from_millis(500),
    beyond_bound: true,
    probed: false,
};

/// A connection on which nothing is wrong.
fn healthy() -> TcpSnapshot {
    TcpSnapshot {
        notsent: Some(0),
        last_ack: span(40),
        last_sent: span(2_900),
        rtt: span(1),
        total_retrans: 7,
        segment: 1_448,
        bytes_acked: Some(1_000),
        bytes_sent: Some(1_000),
        bytes_retrans: Some(0),
        bytes_received: Some(900),
        send_window: Some(64_000),
        window_limited: Some(Span::ZERO),
        gap: Some(false),
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

/// The sender's view of a path that carries no large packet: 5,000 bytes and a PING were sent, of
/// which the peer has the PING.
fn black_hole() -> TcpSnapshot {
    TcpSnapshot {
        unacked: 5,
        sacked: 1,
        retransmits: 3,
        backoff: 3,
        last_ack: span(500),
        total_retrans: 10,
        bytes_sent: Some(1_000 + 5_002 + 3 * 1_448),
        bytes_retrans: Some(3 * 1_448),
        ..healthy()
    }
}

const LARGE_OUT: Cause =
    Cause::PathLost { direction: Direction::Outbound, scope: Scope::LargePackets };
const LARGE_IN: Cause =
    Cause::PathLost { direction: Direction::Inbound, scope: Scope::LargePackets };
const BOTH: Cause = Cause::PathLost { direction: Direction::Both, scope: Scope::Unknown };
const OUTBOUND: Cause = Cause::PathLost { direction: Direction::Outbound, scope: Scope::Unknown };

/// One example of a row of "From signals to verdict" in docs/rules.md.
struct Row {
    number: u8,
    signals: &'static str,
    first: Examination,
    last: Examination,
    cause: Cause,
    confidence: Confidence,
}

/// The rows that rest on examinations of a silent peer. Each example also has the signals of rows
/// below it where both can be, because the first row that matches gives the cause.
fn rows() -> Vec<Row> {
    use Cause as C;
    use Confidence::{High, Medium};
    use SocketError as E;
    let row = |number, signals, first, last, cause, confidence| Row {
        number,
        signals,
        first,
        last,
        cause,
        confidence,
    };
    let before = examination(healthy());
    let trying = examination(TcpSnapshot { unacked: 1, retransmits: 1, ..healthy() });
    let with = |error, tcp| Examination { error: Some(error), ..examination(tcp) };
    let stranded =
        TcpSnapshot { notsent: Some(8), probes: 3, backoff: 3, last_ack: span(3_000), ..healthy() };
    let unsent = TcpSnapshot { retransmits: 4, unacked: 4, last_ack: span(3_000), ..healthy() };
    let searching = TcpSnapshot { retransmits: 12, total_retrans: 16, ..unsent };
    let acknowledged = TcpSnapshot { bytes_acked: Some(1_008), ..healthy() };
    let closed = TcpSnapshot { send_window: Some(0), notsent: Some(9), backoff: 2, ..healthy() };
    let duplicates = TcpSnapshot { last_ack: span(200), ..lost() };
    let down = |tcp| Examination { local_down: Some(true), ..with(E::HostUnreachable, tcp) };
    let gone = C::LocalNeighbourGone;
    vec![
        row(6, "our own address is gone", before, down(lost()), C::LocalNetworkDown, High),
        row(6, "nothing leaves", before, examination(stranded), C::LocalNetworkDown, High),
        row(
            6,
            "and a route",
            before,
            with(E::NetworkUnreachable, stranded),
            C::LocalNetworkDown,
            High,
        ),
        row(7, "retransmissions do not leave", trying, examination(unsent), gone, High),
        row(7, "and our own stack says so", trying, with(E::HostUnreachable, unsent), gone, High),
        row(7, "after some had left", trying, with(E::HostUnreachable, searching), gone, High),
        row(8, "host unreachable", before, with(E::HostUnreachable, lost()), C::Unreachable, High),
        row(8, "no route", before, with(E::NetworkUnreachable, lost()), C::Unreachable, High),
        row(8, "port unreachable", before, with(E::Refused, lost()), C::Unreachable, High),
        row(9, "small ones arrive", trying, examination(black_hole()), LARGE_OUT, Medium),
        row(10, "a probe was acknowledged", before, examination(acknowledged), C::AppHung, Medium),
        row(11, "a closed window", before, examination(closed), C::NotReading, High),
        row(13, "segments of the peer arrive", trying, examination(duplicates), OUTBOUND, High),
        row(14, "nothing comes back", trying, examination(lost()), BOTH, Medium),
        row(
            15,
            "the kernel gave up a hung peer",
            before,
            with(E::TimedOut, acknowledged),
            C::AppHung,
            Medium,
        ),
        row(
            15,
            "after a router's word",
            with(E::NetworkUnreachable, TcpSnapshot { unacked: 4, ..healthy() }),
            with(E::TimedOut, lost()),
            C::Unreachable,
            High,
        ),
        row(15, "the kernel gave up a path", trying, with(E::TimedOut, lost()), BOTH, Medium),
        row(16, "nothing was sent", before, before, C::Unknown, Medium),
    ]
}

#[test]
fn each_row_of_the_document_gives_its_cause() {
    for Row { number, signals, first, last, cause, confidence } in rows() {
        let found = after(first, last);
        assert_eq!((found.cause, found.confidence), (cause, confidence), "{number}: {signals}");
    }
}

/// The signals of a row, less one of them, never give its cause.
#[test]
fn a_row_without_one_of_its_signals_does_not_match() {
    let changed = |number: u8, change: fn(&mut TcpSnapshot)| {
        let mut found = rows();
        found.retain(|row| row.number == number);
        for mut row in found {
            row.last.error = None;
            row.last.local_down = None;
            row.last.tcp.as_mut().map(change).unwrap();
            assert_ne!(after(row.first, row.last).cause, row.cause, "{number}: {}", row.signals);
        }
    };
    changed(6, |tcp| tcp.notsent = Some(0));
    changed(6, |tcp| tcp.unacked = 1);
    changed(6, |tcp| tcp.send_window = Some(0));
    changed(6, |tcp| tcp.probes = 0);
    changed(6, |tcp| tcp.backoff = 0);
    changed(7, |tcp| tcp.total_retrans += 3);
    changed(7, |tcp| tcp.retransmits = 1);
    changed(9, |tcp| tcp.sacked = 0);
    changed(9, |tcp| tcp.retransmits = 1);
    changed(9, |tcp| tcp.bytes_acked = Some(2_448));
    changed(9, |tcp| tcp.bytes_retrans = Some(3 * 536));
    // Three of the four large segments arrived: one was lost by chance.
    changed(9, |tcp| tcp.sacked = 4);
    changed(9, |tcp| tcp.bytes_retrans = None);
    changed(10, |tcp| tcp.bytes_acked = Some(1_000));
    changed(10, |tcp| tcp.rtt = span(1_501));
    changed(10, |tcp| {
        (tcp.unacked, tcp.retransmits, tcp.total_retrans) = (1, 1, tcp.total_retrans + 1);
    });
    changed(10, |tcp| tcp.send_window = Some(0));
    changed(10, |tcp| tcp.gap = Some(true));
    changed(10, |tcp| tcp.last_ack = span(2_000));
    changed(11, |tcp| tcp.send_window = Some(64_000));
    changed(11, |tcp| tcp.notsent = Some(0));
    changed(11, |tcp| (tcp.last_ack, tcp.probes) = (span(2_000), 1));
    changed(13, |tcp| tcp.bytes_acked = Some(1_008));
    changed(13, |tcp| tcp.unacked = 0);
    changed(13, |tcp| tcp.retransmits = 1);
    changed(13, |tcp| tcp.last_ack = span(1_600));
    changed(14, |tcp| tcp.retransmits = 1);
    changed(14, |tcp| tcp.last_ack = span(100));
    let fresh = examination(TcpSnapshot { last_ack: span(900), ..lost() });
    assert_eq!(after(examination(healthy()), fresh).cause, Cause::Unknown, "14: a fresh kernel");
}

#[test]
fn acknowledged_bytes_without_an_answer_show_a_hung_application() {
    let first = examination(healthy());
    let last = examination(TcpSnapshot { bytes_acked: Some(1_008), ..healthy() });
    let found = after(first, last);
    assert_eq!((found.cause, found.confidence), (Cause::AppHung, Confidence::Medium));
    assert!(found.grounds.contains(Ground::KernelFresh));
    assert!(found.grounds.contains(Ground::BytesAcknowledged));
    assert_eq!(found.grounds.iter().count(), 3);
    let nothing_sent = examination(healthy());
    assert_eq!(after(first, nothing_sent).cause, Cause::Unknown, "an old ACK proves nothing");
}

/// Other traffic's queue of ten seconds on the way: what is acknowledged now was in flight when the
/// silence began.
#[test]
fn acknowledged_bytes_of_before_the_silence_show_no_hung_application() {
    let probed = |at, last| {
        let mut doubts = Doubts::new(ms(0));
        let queue = TcpSnapshot { unacked: 9, bytes_sent: Some(8_010), ..healthy() };
        doubts.see(ms(1_500), &examination(queue));
        for at in [at, 3_000] {
            doubts.see(ms(at), &examination(TcpSnapshot { bytes_acked: Some(last), ..queue }));
        }
        diagnose(&Case { probed: true, ..CASE }, &doubts).cause
    };
    assert_eq!(probed(2_500, 8_009), Cause::Unknown);
    assert_eq!(probed(2_500, 8_010), Cause::AppHung, "the probe too");
    // After an outage the answer may wait for a retransmission of the peer.
    assert_eq!(probed(2_501, 8_010), Cause::Unknown, "acknowledged just now");
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

/// 8,003 bytes in five full segments and a tail of 763 bytes, which alone arrived.
#[test]
fn the_tail_of_a_large_message_that_alone_arrives_shows_a_narrow_path() {
    let tail = |outstanding: u64| TcpSnapshot {
        unacked: 6,
        bytes_sent: Some(1_000 + outstanding + 3 * 1_448),
        ..black_hole()
    };
    let cause = |tcp| after(examination(healthy()), examination(tcp)).cause;
    assert_eq!(cause(tail(5 * 1_448 + 763)), LARGE_OUT);
    assert_eq!(cause(tail(5 * 1_448 + 1_447)), LARGE_OUT);
    assert_ne!(cause(tail(6 * 1_448)), LARGE_OUT, "a full segment arrived");
}

#[test]
fn an_answer_to_a_window_probe_long_ago_is_no_fresh_acknowledgement() {
    let closed = |last_ack| TcpSnapshot {
        send_window: Some(0),
        notsent: Some(9),
        backoff: 2,
        last_ack: span(last_ack),
        ..healthy()
    };
    for (last_ack, fresh) in [(900, true), (1_396, false)] {
        let found = after(examination(healthy()), examination(closed(last_ack)));
        assert_eq!(found.cause, Cause::NotReading);
        assert_eq!(found.grounds.contains(Ground::KernelFresh), fresh, "{last_ack}");
    }
}

/// A filter on the way came and went, and what it refused has arrived at another attempt.
#[test]
fn an_acknowledgement_of_what_a_routers_word_was_about_refutes_the_word() {
    let sent = |acked, unacked| TcpSnapshot {
        unacked,
        bytes_acked: Some(acked),
        bytes_sent: Some(1_100),
        ..healthy()
    };
    let told = |error| Examination { error, ..examination(sent(1_000, 2)) };
    let cause = |last| after(told(Some(SocketError::Refused)), examination(last)).cause;
    assert_eq!(cause(sent(1_000, 2)), Cause::Unreachable);
    assert_eq!(cause(sent(1_099, 1)), Cause::Unreachable, "a part");
    let more = |acked| TcpSnapshot { bytes_sent: Some(1_200), ..sent(acked, 1) };
    assert_eq!(cause(more(1_100)), Cause::Unknown, "later bytes are on their way");
    assert_eq!(cause(more(1_099)), Cause::Unreachable);
    assert_ne!(cause(sent(1_100, 0)), Cause::Unreachable);
    assert_eq!(cause(TcpSnapshot { bytes_acked: None, ..sent(1_100, 0) }), Cause::Unreachable);
    let old = |acked, unacked| TcpSnapshot { bytes_sent: None, ..sent(acked, unacked) };
    let told_old = Examination { error: Some(SocketError::Refused), ..examination(old(1_000, 2)) };
    let cause = |last| after(told_old, examination(last)).cause;
    assert_eq!(cause(old(1_100, 1)), Cause::Unreachable, "an old kernel does not count");
    assert_ne!(cause(old(1_100, 0)), Cause::Unreachable);

    // A socket reports its error apart from its state, and another error is about later bytes.
    let mut doubts = Doubts::new(ms(0));
    let word = Examination { error: Some(SocketError::Refused), ..Examination::default() };
    let mut see = |at, shown: Examination| {
        doubts.see(ms(at), &shown);
        doubts.error().is_some()
    };
    assert!(see(1_000, word) && see(1_000, examination(sent(1_000, 2))));
    assert!(see(2_000, word) && see(2_000, examination(more(1_000))));
    assert!(see(2_500, examination(more(1_100))) && !see(3_000, examination(more(1_200))));
    assert!(!see(3_500, told(Some(SocketError::TimedOut))));
}

/// A silent peer whose segments wait behind a missing one, at these times; each examination follows
/// a probe of ours.
fn with_gap(times: &[u64], change: fn(usize, &mut TcpSnapshot)) -> Diagnosis {
    let mut doubts = Doubts::new(ms(0));
    for (look, at) in times.iter().enumerate() {
        let acked = 1_000 + 8 * look as u64;
        let mut tcp = TcpSnapshot {
            gap: Some(true),
            bytes_acked: Some(acked),
            bytes_sent: Some(acked),
            ..healthy()
        };
        change(look, &mut tcp);
        doubts.see(ms(*at), &examination(tcp));
    }
    diagnose(&Case { probed: true, ..CASE }, &doubts)
}

#[test]
fn a_segment_that_stays_missing_on_a_path_without_losses_was_too_large() {
    const LOOKS: &[u64] = &[1_500, 2_000, 2_500, 3_000];
    let found = with_gap(LOOKS, |_, _| {});
    assert_eq!((found.cause, found.confidence), (LARGE_IN, Confidence::Medium));
    assert!(found.grounds.contains(Ground::SegmentMissing));
    assert_eq!(with_gap(&[1_500, 2_200, 2_900], |_, _| {}).cause, LARGE_IN, "three attempts");
    assert_eq!(with_gap(&[1_500, 2_200, 2_899], |_, _| {}).cause, Cause::Unknown, "too soon");
    assert_eq!(with_gap(&[1_500, 3_000], |_, _| {}).cause, Cause::Unknown, "two looks");
    let slow = |_: usize, tcp: &mut TcpSnapshot| tcp.rtt = span(215);
    assert_eq!(with_gap(LOOKS, slow).cause, Cause::Unknown, "fewer attempts in that time");
}

/// Loss by chance destroys our probes and their acknowledgements too, and lets small segments pass.
#[test]
fn a_missing_segment_on_a_lossy_path_is_no_sign_of_its_size() {
    const LOOKS: &[u64] = &[1_500, 2_000, 2_500, 3_000];
    let cause = |change| with_gap(LOOKS, change).cause;
    let ours_was_lost = |look: usize, tcp: &mut TcpSnapshot| {
        tcp.total_retrans += u32::from(look > 1);
    };
    assert_eq!(cause(ours_was_lost), Cause::Unknown);
    let ours_is_out = |look: usize, tcp: &mut TcpSnapshot| {
        (tcp.retransmits, tcp.unacked) = (u8::from(look == 3), u32::from(look == 3));
        tcp.total_retrans += tcp.unacked;
    };
    assert_eq!(cause(ours_is_out), Cause::Unknown);
    let it_came = |look: usize, tcp: &mut TcpSnapshot| {
        *tcp.bytes_received.as_mut().unwrap() += 7 * u64::from(look > 1);
    };
    assert_eq!(cause(it_came), Cause::Unknown, "another one is missing now");
    let was_whole = |look: usize, tcp: &mut TcpSnapshot| tcp.gap = Some(look != 1);
    assert_eq!(cause(was_whole), Cause::Unknown);
    let nothing_acked = |_: usize, tcp: &mut TcpSnapshot| tcp.bytes_acked = Some(1_000);
    assert_eq!(cause(nothing_acked), Cause::Unknown, "none of our probes arrived");
    let old = |_: usize, tcp: &mut TcpSnapshot| tcp.bytes_received = None;
    assert_eq!(cause(old), Cause::Unknown, "an old kernel");
}

/// The ledger learns from it that the peer's direction is not lost as a whole.
#[test]
fn a_verdict_without_a_cause_tells_what_still_arrived() {
    let found = |tcp| {
        let found = after(examination(healthy()), examination(tcp));
        (found.cause, found.grounds)
    };
    let silent = Grounds::of(&[Ground::ApplicationSilent]);
    let fresh = TcpSnapshot { gap: Some(true), ..healthy() };
    let arriving = silent.with(Ground::KernelFresh).with(Ground::SegmentMissing);
    assert_eq!(found(fresh), (Cause::Unknown, arriving));
    let stale = TcpSnapshot { last_ack: span(60_000), ..healthy() };
    assert_eq!(found(stale), (Cause::Unknown, silent));
    let (cause, grounds) = found(TcpSnapshot { gap: Some(true), ..lost() });
    assert!(matches!(cause, Cause::PathLost { direction: Direction::Both, .. }));
    assert!(grounds.contains(Ground::SegmentMissing));
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

/// Segments that the peer sent before ours were late arrive for a while on a path that became slow.
#[test]
fn a_peer_heard_soon_after_a_retransmission_shows_no_lost_direction_for_sure() {
    let first = TcpSnapshot { unacked: 1, retransmits: 1, last_ack: span(500), ..healthy() };
    let found = |rtt, heard_after: u64| {
        let last_ack = span(1_500 - heard_after);
        let last = TcpSnapshot { rtt: span(rtt), last_ack, ..lost() };
        let found = after(examination(first), examination(last));
        (found.cause, found.confidence)
    };
    assert_eq!(found(1, 1_000), (OUTBOUND, Confidence::High));
    assert_eq!(found(1, 999), (OUTBOUND, Confidence::Medium));
    assert_eq!(found(300, 1_200), (OUTBOUND, Confidence::High));
    assert_eq!(found(300, 1_199), (OUTBOUND, Confidence::Medium));
    assert_eq!(found(600, 601), (OUTBOUND, Confidence::Medium));
    assert_eq!(found(600, 600), (Cause::Unknown, Confidence::Medium), "on its way before");
}

/// A path that carries no large packets looks like a lost direction while only data is on its way:
/// the kernel sends nothing small before the first large segment is acknowledged.
#[test]
fn large_segments_that_are_lost_alone_show_no_lost_direction_for_sure() {
    let first = TcpSnapshot { unacked: 1, retransmits: 1, last_ack: span(500), ..healthy() };
    let found = |bytes_retrans, total_retrans| {
        let last = TcpSnapshot { bytes_retrans, total_retrans, last_ack: span(200), ..lost() };
        let found = after(examination(first), examination(last));
        (found.cause, found.confidence)
    };
    assert_eq!(found(Some(3 * 536), 10), (OUTBOUND, Confidence::High));
    assert_eq!(found(Some(3 * 536 + 1), 10), (OUTBOUND, Confidence::Medium));
    assert_eq!(found(None, 10), (OUTBOUND, Confidence::Medium), "an old kernel");
}

/// The peer is heard again on a path that was lost both ways and has healed, and then resets what
/// reaches it: only what left after it was heard, and had no answer, shows the direction.
#[test]
fn our_direction_alone_was_lost_if_what_left_after_the_peer_was_heard_had_no_answer() {
    let first = TcpSnapshot { unacked: 1, retransmits: 1, last_ack: span(1_500), ..lost() };
    let is_unheard = |heard, sent, change: fn(&mut TcpSnapshot)| {
        let mut last = TcpSnapshot { last_ack: span(heard), last_sent: span(sent), ..lost() };
        change(&mut last);
        let mut doubts = Doubts::new(ms(0));
        doubts.see(ms(1_500), &examination(first));
        doubts.see(ms(3_000), &examination(last));
        doubts.is_unheard()
    };
    assert!(is_unheard(300, 200, |_| ()));
    assert!(!is_unheard(300, 400, |_| ()), "nothing left since it was heard");
    assert!(!is_unheard(300, 1, |_| ()), "the answer may be on its way");
    assert!(!is_unheard(1_500, 200, |_| ()), "heard before");
    assert!(!is_unheard(300, 200, |tcp| tcp.bytes_acked = Some(1_001)));
    assert!(!is_unheard(300, 200, |tcp| tcp.retransmits = 1));
    // It was heard before an examination at which the latest segment is newer than ours.
    let mut doubts = Doubts::new(ms(0));
    for (at, heard, sent) in [(1_500, 900, 100), (2_500, 100, 600), (3_500, 100, 600)] {
        assert!(!doubts.is_unheard());
        let tcp = TcpSnapshot { last_ack: span(heard), last_sent: span(sent), ..lost() };
        doubts.see(ms(at), &examination(tcp));
    }
    assert!(doubts.is_unheard());
}

#[test]
fn errors_of_the_path_lead_to_unreachable_and_no_others() {
    for error in [SocketError::HostUnreachable, SocketError::NetworkUnreachable] {
        let last = Examination { error: Some(error), ..examination(lost()) };
        assert_eq!(after(examination(healthy()), last).cause, Cause::Unreachable);
    }
    let outstanding = examination(TcpSnapshot { unacked: 4, ..healthy() });
    let soft = Examination { error: Some(SocketError::NetworkUnreachable), ..outstanding };
    assert_eq!(after(soft, examination(lost())).cause, Cause::Unreachable, "it is remembered");
    for error in [SocketError::Reset, SocketError::Local, SocketError::TimedOut] {
        let stands = Examination { error: Some(error), ..examination(lost()) };
        assert_eq!(after(examination(healthy()), stands).cause, BOTH, "{error:?}");
    }
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

/// Our own stack reports the host unreachable when it cannot find the next hop.
#[test]
fn the_report_of_our_own_neighbour_table_is_no_routers_word() {
    let first_look = |tcp, next_hop, error| {
        let mut doubts = Doubts::new(ms(0));
        let local_down = Some(false);
        let shown = Examination { error, local_down, next_hop, ..examination(tcp) };
        doubts.see(ms(5_000), &shown);
        early_word(&doubts)
            .map(|found| (found.cause, found.grounds.contains(Ground::GatewaySilent)))
    };
    // The connection has retransmitted before, so its counters show nothing at the first look.
    let tcp = TcpSnapshot { unacked: 1, retransmits: 4, total_retrans: 9, ..healthy() };
    let hop = |is_peer, is_silent| Some(NextHop { is_peer, is_silent });
    let host = Some(SocketError::HostUnreachable);
    let gone = Cause::LocalNeighbourGone;
    assert_eq!(first_look(tcp, hop(false, true), host), Some((gone, true)));
    assert_eq!(first_look(tcp, hop(true, true), host), Some((gone, false)), "the peer itself");
    assert_eq!(first_look(tcp, hop(false, true), None), Some((gone, true)));
    assert_eq!(first_look(tcp, hop(false, false), host), Some((Cause::Unreachable, false)));
    // Not known: only a second look shows whether what is sent again leaves.
    assert_eq!(first_look(tcp, None, host), None);
    let other = Some(SocketError::Refused);
    assert_eq!(first_look(tcp, None, other), Some((Cause::Unreachable, false)));
    let held_back = TcpSnapshot { total_retrans: 3, ..tcp };
    assert_eq!(first_look(held_back, None, host), Some((gone, false)), "more tries than left");
    assert_eq!(first_look(held_back, None, None), None);
    // A neighbour that is searched for anew at this moment.
    let sent_once = TcpSnapshot { retransmits: 0, ..tcp };
    assert_eq!(first_look(sent_once, hop(false, true), None), None);
    let told_again = Examination { error: host, ..examination(tcp) };
    let left = TcpSnapshot { retransmits: 5, total_retrans: 10, ..tcp };
    assert_eq!(after(told_again, examination(left)).cause, Cause::Unreachable, "it left");
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
    let early = Case { beyond_bound: false, probed: true, ..CASE };
    let mut doubts = Doubts::new(Time::ZERO);
    for (at, snapshot) in [(0, healthy()), (1_000, healthy())] {
        let tcp = Some(TcpSnapshot { bytes_acked: Some(at), ..snapshot });
        let examination = Examination { tcp, ..Examination::default() };
        doubts.see(Time::from_millis(at), &examination);
    }
    assert_eq!(diagnose(&Case { probed: true, ..CASE }, &doubts).cause, Cause::AppHung);
    let found = diagnose(&early, &doubts);
    assert_eq!((found.cause, found.grounds), (Cause::Unknown, Grounds::default()));
    doubts.see(Time::from_millis(2_000), &examination(lost()));
    assert!(!diagnose(&early, &doubts).grounds.contains(Ground::ApplicationSilent));
}

#[test]
fn a_hung_application_is_seen_although_the_first_examination_came_after_the_acknowledgement() {
    let case = Case { probed: true, ..CASE };
    let shown = TcpSnapshot {
        unacked: 0,
        notsent: Some(0),
        last_ack: Span::from_millis(400),
        bytes_acked: Some(10),
        send_window: Some(60_000),
        ..TcpSnapshot::default()
    };
    let mut doubts = Doubts::new(Time::ZERO);
    for at in [0, 1_000] {
        doubts.see(ms(at), &Examination { tcp: Some(shown), ..Examination::default() });
    }
    assert_eq!(diagnose(&case, &doubts).cause, Cause::AppHung);
    assert_eq!(diagnose(&CASE, &doubts).cause, Cause::Unknown, "nothing was sent");
}
