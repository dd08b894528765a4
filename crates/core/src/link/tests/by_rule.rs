//! Rules and rows of docs/rules.md that only a whole link shows.

use crate::session;
use alloc::vec::Vec;

use super::*;
use crate::cause::Confidence;
use crate::flight::Incident;
use crate::wire::{Close, CloseReason, Frame, Malformed};

/// The errors by which a connection that stands reports a router, a firewall or the peer's host.
const UNREACHABLE: [SocketError; 3] =
    [SocketError::HostUnreachable, SocketError::NetworkUnreachable, SocketError::Refused];

/// Hands `input` to `link`, answers its examinations with `shown`, and returns the verdict if there
/// is one.
fn verdict<'a>(
    link: &mut Link,
    at: u64,
    input: impl Into<Input<'a>>,
    shown: Examination,
) -> Option<Verdict> {
    let now = Time::from_millis(at);
    link.handle(now, input);
    let mut lost = None;
    while let Some(output) = link.poll_output() {
        if let Output::Session(session::Event::Left(verdict)) = output {
            lost = Some(verdict);
        } else if let Output::Examine { .. } = output {
            link.handle(now, Answer::Examined(shown));
        }
    }
    lost
}

/// Returns the cause and the confidence of the verdict on a silent peer whose first probe went out
/// at 1 s, if `input` comes at 1.2 s.
fn after_a_probe<'a>(input: impl Into<Input<'a>>, tcp: TcpSnapshot) -> Option<(Cause, Confidence)> {
    let mut link = link(Hung::End);
    let shown = Examination { tcp: Some(tcp), ..Examination::default() };
    assert_eq!(verdict(&mut link, 1_000, Answer::Deadline, shown), None);
    verdict(&mut link, 1_200, input, shown).map(|found| (found.cause, found.confidence))
}

/// The kernel's view after a reset: last heard `last_ack` ms ago, the last `owed` bytes never
/// acknowledged.
fn reset(last_ack: u64, owed: u64) -> TcpSnapshot {
    TcpSnapshot {
        last_ack: Span::from_millis(last_ack),
        bytes_acked: Some(100),
        bytes_sent: Some(100 + owed),
        bytes_retrans: Some(0),
        ..TcpSnapshot::default()
    }
}

#[test]
fn rule_1_a_part_of_a_frame_is_evidence() {
    let mut whole = Vec::new();
    Codec::Line.encode(&Frame::data(b"news", false, DataKind::default()), &mut whole);
    let mut link = link(Hung::End);
    run(&mut link, 2_400, acknowledging);
    let now = Time::from_millis(2_900);
    link.handle(now, World::Received(&whole[..1]));
    let mut heard = Run::default();
    poll(&mut link, now, &acknowledging, &mut heard);
    assert_eq!(heard.recovered, [2_900]);
    let (at, verdict) = run(&mut link, 10_000, acknowledging).lost.unwrap();
    assert_eq!((at, verdict.last_heard), (5_900, now), "a new bound from the part");
}

#[test]
fn rule_1_bytes_without_plaintext_are_evidence_and_no_part_of_a_frame() {
    let mut link = link(Hung::End);
    run(&mut link, 2_400, acknowledging);
    let now = Time::from_millis(2_900);
    link.handle(now, World::Heard);
    let mut heard = Run::default();
    poll(&mut link, now, &acknowledging, &mut heard);
    assert_eq!(heard.recovered, [2_900]);
    let incident = Incident::Heard { bytes: 0 };
    assert!(link.flight().iter().any(|entry| entry.incident == incident));
    let (at, verdict) = run(&mut link, 10_000, acknowledging).lost.unwrap();
    assert_eq!((at, verdict.last_heard), (5_900, now), "a new bound");
    assert_eq!(verdict.cause, Cause::AppHung, "it is judged as silent, not as a stalled frame");
}

#[test]
fn bytes_that_the_transport_cannot_open_end_the_link_without_an_answer() {
    let mut link = link(Hung::End);
    run(&mut link, 2_400, acknowledging);
    link.handle(Time::from_millis(2_500), World::Illegal(Malformed::Record));
    let mut seen = Run::default();
    poll(&mut link, Time::from_millis(2_500), &acknowledging, &mut seen);
    let verdict = seen.lost.map(|(_, verdict)| verdict.cause);
    assert_eq!(verdict, Some(Cause::Protocol(Malformed::Record)));
}

#[test]
fn a_request_of_http_is_no_client_of_a_line_listener() {
    let cause = |lines: &[u8]| {
        let settings = Settings::new(Codec::Line, Side::Accepting, Policy::default());
        let mut link = Link::new(Time::ZERO, settings, 1);
        let shown = Examination::default();
        let first = verdict(&mut link, 1, World::Received(lines), shown);
        first.map(|verdict| verdict.cause)
    };
    for request in
        ["GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HEAD /x HTTP/1.0\n", "OPTIONS * HTTP/1.1\n"]
    {
        let expected = Some(Cause::Protocol(Malformed::HttpRequest));
        assert_eq!(cause(request.as_bytes()), expected, "{request}");
    }
    assert_eq!(cause(b"PRI * HTTP/2.0\r\n\r\n"), Some(Cause::Protocol(Malformed::HttpRequest)));
    for line in
        ["GET / HTTP/1.1", "GET / HTTP/x.1\n", "get / HTTP/1.1\n", "GET  HTTP/1.1\n", "ping\n"]
    {
        assert_eq!(cause(line.as_bytes()), None, "{line}");
    }
    assert_eq!(cause(b"ping\nGET / HTTP/1.1\n"), None, "data of a client");
}

#[test]
fn whoever_speaks_tls_to_a_plain_end_is_told_apart_at_once() {
    let connecting = (Codec::Native, Side::Connecting(Introduction::default()));
    let accepting = [Codec::Native, Codec::Message1028, Codec::Line];
    let ends = accepting.map(|codec| (codec, Side::Accepting)).into_iter().chain([connecting]);
    for (codec, side) in ends {
        let mut link = Link::new(Time::ZERO, Settings::new(codec, side, Policy::default()), 1);
        let mut seen = Run::default();
        link.handle(Time::from_millis(1), World::Received(&[0x16, 3, 1, 2, 0, 1]));
        poll(&mut link, Time::from_millis(1), &acknowledging, &mut seen);
        let cause = seen.lost.map(|(_, verdict)| verdict.cause);
        assert_eq!(cause, Some(Cause::Protocol(Malformed::Tls)), "{codec:?}");
    }
}

#[test]
fn rule_4_bytes_without_plaintext_do_not_extend_the_handshake() {
    let settings = Settings::new(Codec::Native, Side::Accepting, Policy::default());
    let due = Time::ZERO + settings.handshake_timeout;
    let mut link = Link::new(Time::ZERO, settings, 1);
    link.handle(Time::from_millis(1), World::Heard);
    assert_eq!(link.next_deadline().map(|deadline| deadline.at), Some(due));
}

#[test]
fn rule_14_an_error_of_a_connection_that_stands_ends_nothing_before_the_bound() {
    let errors = [SocketError::Local, SocketError::Reset, SocketError::TimedOut];
    for error in UNREACHABLE.into_iter().chain(errors) {
        let mut told = link(Hung::End);
        assert_eq!(verdict(&mut told, 500, World::Warned(error), Examination::default()), None);
        let (at, _) = run(&mut told, 10_000, |_| TcpSnapshot::default()).lost.unwrap();
        assert_eq!(at, 3_000, "{error:?}, reported by a read or a write");

        let mut examined = link(Hung::End);
        for at in [1_000, 1_500, 2_000, 2_500] {
            let shown = Examination { error: Some(error), ..Examination::default() };
            assert_eq!(
                verdict(&mut examined, at, Answer::Deadline, shown),
                None,
                "{error:?}, {at}"
            );
        }
        let last = verdict(&mut examined, 3_000, Answer::Deadline, Examination::default());
        assert_eq!(last.map(|verdict| verdict.is_early()), Some(false), "{error:?}, by a look");
    }
}

#[test]
fn rows_2_and_3_an_end_with_a_goodbye_is_closed_and_one_without_is_exited() {
    let mut bytes = Vec::new();
    let mut link = half_close::established(Codec::Native);
    let goodbye = Close { reason: CloseReason::Done, final_: false, return_after_ms: 0, text: "" };
    Codec::Native.encode(&Frame::Close(goodbye), &mut bytes);
    let said = verdict(&mut link, 500, World::Received(&bytes), Examination::default()).unwrap();
    let closed = Cause::PeerClosed(CloseReason::Done);
    assert_eq!((said.cause, said.confidence), (closed, Confidence::Certain));

    let exited = after_a_probe(World::Ended, TcpSnapshot::default());
    assert_eq!(exited, Some((Cause::PeerExited, Confidence::High)));
}

#[test]
fn rows_4_and_5_a_reset_is_an_exit_if_nothing_was_owed_and_a_reset_if_something_was() {
    let failed = World::Failed(SocketError::Reset);
    let exited = after_a_probe(failed, reset(100, 0));
    assert_eq!(exited, Some((Cause::PeerExited, Confidence::High)));
    let refused = after_a_probe(failed, reset(1_200, 5));
    assert_eq!(refused.map(|(cause, _)| cause), Some(Cause::PeerReset));
}

#[test]
fn row_8_each_error_of_the_path_is_a_warning_and_the_cause_at_the_bound() {
    for error in UNREACHABLE {
        let mut link = link(Hung::End);
        verdict(&mut link, 1_000, Answer::Deadline, Examination::default());
        let now = Time::from_millis(1_200);
        link.handle(now, World::Warned(error));
        let mut warned = false;
        while let Some(output) = link.poll_output() {
            warned |= matches!(
                output,
                Output::Session(session::Event::Warned { cause: Cause::Unreachable, .. })
            );
            if let Output::Examine { .. } = output {
                link.handle(now, Answer::Examined(Examination::default()));
            }
        }
        assert!(warned, "{error:?}");
        let (at, verdict) = run(&mut link, 10_000, |_| TcpSnapshot::default()).lost.unwrap();
        assert_eq!((at, verdict.cause), (3_000, Cause::Unreachable), "{error:?}");
    }
}

/// Once the kernel has given up the connection, an examination or a failed call shows it.
#[test]
fn row_8_a_connection_that_ends_after_such_an_error_was_unreachable() {
    for error in UNREACHABLE {
        let mut ended = link(Hung::End);
        run(&mut ended, 1_100, acknowledging);
        let shown = Examination { error: Some(error), ended: true, ..Examination::default() };
        let lost = verdict(&mut ended, 1_200, World::Warned(error), shown).unwrap();
        assert_eq!((lost.cause, lost.is_early()), (Cause::Unreachable, true), "{error:?}");
        let failed = after_a_probe(World::Failed(error), TcpSnapshot::default());
        assert_eq!(failed.map(|(cause, _)| cause), Some(Cause::Unreachable), "{error:?}");
    }
}

#[test]
fn row_15_a_kernel_timeout_keeps_what_was_seen_before() {
    let mut link = link(Hung::End);
    run(&mut link, 2_700, acknowledging);
    let timeout = World::Failed(SocketError::TimedOut);
    let lost = verdict(&mut link, 3_100, timeout, Examination::default()).unwrap();
    assert_eq!(lost.cause, Cause::AppHung);
    assert!(lost.grounds.contains(Ground::KernelGaveUp));
    assert!(lost.grounds.contains(Ground::BytesAcknowledged));
}

/// Only the looks before the timeout count: the kernel has discarded what it knew of the path.
#[test]
fn row_15_an_examination_that_finds_the_timeout_shows_nothing_of_the_path() {
    let lost = TcpSnapshot {
        unacked: 2,
        retransmits: 6,
        total_retrans: 6,
        last_ack: Span::from_secs(2),
        ..TcpSnapshot::default()
    };
    let mut link = link(Hung::End);
    run(&mut link, 2_000, |_| lost);
    let purged = TcpSnapshot { bytes_acked: Some(9), notsent: Some(0), ..TcpSnapshot::default() };
    let shown = Examination {
        tcp: Some(purged),
        error: Some(SocketError::TimedOut),
        ended: true,
        ..Examination::default()
    };
    let found = verdict(&mut link, 2_500, Answer::Deadline, shown).unwrap();
    let both = Cause::PathLost { direction: Direction::Both, scope: Scope::Unknown };
    assert_eq!((found.cause, found.is_early(), found.probes), (both, true, 4));
    assert!(found.grounds.contains(Ground::KernelGaveUp) && !found.is_silence());
}

/// A peer that was not in doubt when the kernel gave up, 10 s after bytes were sent.
#[test]
fn row_15_a_timeout_before_any_doubt_is_judged_by_the_look_at_waiting_bytes() {
    let closed = TcpSnapshot {
        notsent: Some(90_000),
        send_window: Some(0),
        backoff: 4,
        last_ack: Span::from_millis(900),
        last_sent: Span::from_secs(8),
        ..TcpSnapshot::default()
    };
    let lost = TcpSnapshot {
        unacked: 3,
        retransmits: 9,
        last_ack: Span::from_secs(8),
        ..TcpSnapshot::default()
    };
    let delivered = TcpSnapshot { notsent: Some(0), ..TcpSnapshot::default() };
    let both = Cause::PathLost { direction: Direction::Both, scope: Scope::Unknown };
    for (tcp, heard, cause) in [
        (closed, false, Cause::NotReading),
        (closed, true, Cause::NotReading),
        (lost, false, both),
        (lost, true, Cause::Unknown),
        (delivered, false, Cause::Unknown),
    ] {
        let mut link = warned::outstanding();
        let shown = Examination { tcp: Some(tcp), ..Examination::default() };
        link.handle(warned::EXAMINED_AT, Answer::Examined(shown));
        if heard {
            let pong = World::Received(b"pong\n");
            assert_eq!(verdict(&mut link, 9_000, pong, Examination::default()), None);
        }
        let timeout = World::Failed(SocketError::TimedOut);
        let found = verdict(&mut link, 10_000, timeout, Examination::default()).unwrap();
        assert_eq!((found.cause, found.is_early()), (cause, true), "{tcp:?}, {heard}");
        assert!(!found.is_silence(), "the bound is a minute");
    }
}

#[test]
fn ends_that_this_end_decides_have_their_cause_with_certainty() {
    let close = |reason: CloseReason| World::Command(Command::close(reason));
    for (input, cause) in [
        (close(CloseReason::Kicked), Cause::Kicked),
        (close(CloseReason::Replaced), Cause::Replaced),
        (close(CloseReason::Unauthorized), Cause::Unauthorized),
        (close(CloseReason::Drained), Cause::Drained),
        (close(CloseReason::Done), Cause::Finished),
        (World::Overflowed, Cause::SlowConsumer),
        (World::Failed(SocketError::Local), Cause::LocalFault),
    ] {
        assert_eq!(after_a_probe(input, acknowledging(0)), Some((cause, Confidence::Certain)));
    }
}
