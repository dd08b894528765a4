//! Admission: what a link does between the peer's part of the handshake and the answer.

use super::*;
use crate::machine::Reason;
use crate::wire::{Close, CloseReason, Malformed};

const KEY: SessionKey = SessionKey { session: 7, epoch: 9 };

/// An accepting link whose peer has sent `bytes`.
fn waiting(codec: Codec, bytes: &[u8]) -> Link {
    let settings = Settings::new(codec, Side::Accepting, policy());
    let mut link = Link::new(Time::ZERO, settings, 1);
    link.handle(Time::ZERO, World::Received(bytes));
    assert_eq!(link.poll_output(), Some(Output::Admit));
    assert_eq!(link.poll_output(), None, "the rest waits");
    link
}

/// Takes all outputs; returns the bytes sent, the events, and how the socket is closed.
fn outputs(link: &mut Link) -> (Vec<u8>, Vec<alloc::string::String>, Option<Closing>) {
    let (mut sent, mut events, mut closing) = (Vec::new(), Vec::new(), None);
    while let Some(output) = link.poll_output() {
        match output {
            Output::Transmit { bytes, .. } => sent.extend_from_slice(bytes),
            Output::Session(event) => events.push(alloc::format!("{event:?}")),
            Output::Event(event) => events.push(alloc::format!("{event:?}")),
            Output::Close(how) => closing = Some(how),
            Output::Admit | Output::Examine { .. } | Output::Patience(_) => {}
        }
    }
    (sent, events, closing)
}

#[test]
fn the_link_names_the_session_before_its_join_and_the_farewell_before_its_leave() {
    let mut link = waiting(Codec::Native, &hello());
    link.handle(Time::ZERO, Answer::admitted(KEY));
    let mut close = Vec::new();
    let reason = CloseReason::Done;
    let frame = Close { reason, final_: true, return_after_ms: 0, text: "" };
    Codec::Native.encode(&Frame::Close(frame), &mut close);
    let mut events = outputs(&mut link).1;
    link.handle(Time::from_millis(1), World::Received(&close));
    events.extend(outputs(&mut link).1);
    let names =
        ["Established { session: 7, epoch: 9 }", "Joined {", "Farewell { goodbye:", "Left("];
    assert!(events.iter().zip(names).all(|(event, name)| event.starts_with(name)), "{events:?}");
    assert_eq!(events.len(), names.len(), "{events:?}");
}

#[test]
fn what_follows_the_first_frame_waits_for_the_admission() {
    let mut first = hello();
    Codec::Native.encode(&Frame::Ping(crate::wire::Beat::bare(3)), &mut first);
    let mut link = waiting(Codec::Native, &first);
    link.handle(Time::from_millis(100), World::Received(&[0x50, 2, b'h']));
    assert_eq!(outputs(&mut link), (Vec::new(), Vec::new(), None));
    link.handle(Time::from_millis(200), Answer::admitted(KEY));
    let (sent, events, _) = outputs(&mut link);
    assert_eq!((sent.first(), sent.last_chunk()), (Some(&0x40), Some(&[0x20, 3])), "and the PONG");
    assert!(events.first().is_some_and(|event| event.contains("epoch: 9")), "{events:?}");
    link.handle(Time::from_millis(300), World::Received(b"i"));
    assert!(outputs(&mut link).1.iter().any(|event| event.contains("bytes: [104, 105]")));
}

#[test]
fn the_first_frame_itself_waits_in_codecs_without_a_handshake() {
    for (first, echoed) in [(&b"ping\nx"[..], "pong\n"), (b"ping\r\n", "pong\n"), (b"hi\n", "")] {
        let mut link = waiting(Codec::Line, first);
        link.handle(Time::ZERO, Answer::admitted(KEY));
        let (sent, events, _) = outputs(&mut link);
        assert_eq!(sent, echoed.as_bytes());
        assert_eq!(events.iter().any(|event| event.starts_with("Data")), echoed.is_empty());
    }
}

#[test]
fn a_peer_that_waits_is_not_judged_by_its_silence_and_later_no_more_for_having_waited() {
    let mut link = waiting(Codec::Line, b"ping\n");
    let limit = Settings::new(Codec::Line, Side::Accepting, policy()).handshake_timeout;
    let late = Time::ZERO + limit - Span::from_millis(1);
    assert_eq!(link.next_deadline().unwrap().reason, Reason::Admission);
    link.handle(late, Answer::Deadline);
    assert_eq!(outputs(&mut link), (Vec::new(), Vec::new(), None), "D passed long ago");
    link.handle(late, Answer::admitted(KEY));
    outputs(&mut link);
    assert_eq!(link.last_heard(), Time::ZERO);
    let run = run(&mut link, late.as_millis() + 10_000, acknowledging);
    assert_eq!(run.lost.unwrap().0, late.as_millis() + 3_000);
}

#[test]
fn a_peer_that_nobody_admits_in_time_is_sent_away_and_is_not_at_fault() {
    let mut link = waiting(Codec::Native, &hello());
    let due = link.next_deadline().unwrap().at;
    link.handle(due, Answer::Deadline);
    let (sent, events, closing) = outputs(&mut link);
    assert_eq!((sent.first(), sent.get(2)), (Some(&0x70), Some(&8)));
    assert!(events.iter().any(|event| event.contains("LocalFault")), "{events:?}");
    assert_eq!(closing, Some(Closing::Abort));
    link.handle(due, Answer::admitted(KEY));
    assert_eq!(outputs(&mut link), (Vec::new(), Vec::new(), None), "too late");
}

#[test]
fn a_refused_peer_reads_why_and_an_answer_to_no_question_has_no_effect() {
    let refusal = Answer::Refused(CloseReason::Unauthorized.into());
    let mut link = waiting(Codec::Native, &hello());
    link.handle(Time::ZERO, refusal);
    let (sent, _, closing) = outputs(&mut link);
    assert_eq!((sent.first(), sent.get(2)), (Some(&0x70), Some(&4)));
    assert_eq!(closing, Some(Closing::Flush));
    let mut link = waiting(Codec::Native, &hello());
    link.handle(Time::ZERO, Answer::admitted(KEY));
    outputs(&mut link);
    for input in [refusal, Answer::admitted(KEY)] {
        link.handle(Time::ZERO, input);
        assert_eq!(outputs(&mut link), (Vec::new(), Vec::new(), None));
    }
}

#[test]
fn bytes_beyond_the_limit_end_a_link_that_waits() {
    let longest = [&[b'x'; 65_000][..], b"\n"].concat();
    let mut link = waiting(Codec::Line, &longest);
    link.handle(Time::ZERO, World::Received(&[b'x'; 64_000]));
    assert_eq!(outputs(&mut link), (Vec::new(), Vec::new(), None));
    link.handle(Time::ZERO, World::Received(&[b'x'; 6_000]));
    let (_, events, closing) = outputs(&mut link);
    let cause = alloc::format!("{:?}", Malformed::OutOfPlace);
    assert!(events.iter().any(|event| event.contains(&cause)), "{events:?}");
    assert_eq!(closing, Some(Closing::Abort));
}

#[test]
fn the_end_of_the_stream_ends_a_link_that_waits() {
    for codec in [Codec::Native, Codec::Line] {
        let first = if codec == Codec::Native { hello() } else { b"ping\n".to_vec() };
        let mut link = waiting(codec, &first);
        link.handle(Time::ZERO, World::Ended);
        let (_, events, closing) = outputs(&mut link);
        assert!(events.iter().any(|event| event.contains("PeerExited")), "{events:?}");
        assert_eq!(closing, Some(Closing::Flush));
    }
}
