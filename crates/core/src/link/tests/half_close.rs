//! A peer that closes its side: what it is still sent, and when it is given up.

use alloc::vec::Vec;

use super::*;
use crate::cause::Confidence;
use crate::liveness::Reason;
use crate::wire::{Decoder, Frame, Hello};

const AT: Time = Time::from_millis(700);

/// An accepting link that was introduced at time zero.
fn established(codec: Codec) -> Link {
    let settings = Settings { examines: true, ..Settings::new(codec, Side::Accepting, policy()) };
    let mut link = Link::new(Time::ZERO, settings, SessionKey::default(), 1);
    let mut first = Vec::new();
    let hello = Hello {
        asks: None,
        resume: None,
        account: None,
        capabilities: 0,
        boot_id: BootId::default(),
        instance_id: InstanceId::default(),
        identity: "ada",
        token: &[],
    };
    let frame = if codec.has_handshake() {
        Frame::Hello(hello)
    } else {
        Frame::Ping(crate::wire::Beat::bare(0))
    };
    codec.encode(&frame, &mut first);
    link.handle(Time::ZERO, Input::Received(&first));
    while link.poll_output().is_some() {}
    link
}

/// What one input led to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    pings: u32,
    closes: u32,
    data: u32,
    looks: u32,
    events: u32,
    lost: Option<(Cause, Confidence, Grounds)>,
    closing: Option<Closing>,
}

fn tell(link: &mut Link, codec: Codec, now: Time, input: Input<'_>) -> Told {
    link.handle(now, input);
    let mut told = Told::default();
    while let Some(output) = link.poll_output() {
        match output {
            Output::Transmit { mut bytes, .. } => {
                match Decoder::new(codec, 65_536).next(&mut bytes).unwrap().unwrap() {
                    Frame::Ping(_) => told.pings += 1,
                    Frame::Close(_) => told.closes += 1,
                    Frame::Data { .. } => told.data += 1,
                    other @ (Frame::Pong(_)
                    | Frame::Hello(_)
                    | Frame::Welcome(_)
                    | Frame::Retune(_)) => panic!("{other:?}"),
                }
            }
            Output::Event(Event::Lost { verdict, .. }) => {
                told.lost = Some((verdict.cause, verdict.confidence, verdict.grounds));
            }
            Output::Event(_) => told.events += 1,
            Output::Examine => told.looks += 1,
            Output::Close(closing) => told.closing = Some(closing),
        }
    }
    told
}

#[test]
fn whoever_closes_its_side_is_asked_and_sent_what_it_waits_for_until_it_resets() {
    for codec in [Codec::Native, Codec::Message1028] {
        let mut link = established(codec);
        let asked = tell(&mut link, codec, AT, Input::Ended);
        assert_eq!(asked, Told { pings: 1, ..Told::default() }, "{codec}");
        let again = tell(&mut link, codec, AT, Input::Ended);
        assert_eq!(again, Told::default(), "{codec}: it reads as ended ever after");
        let send = Command::Send { bytes: b"late", more: false, kind: DataKind::default() };
        let sent = tell(&mut link, codec, AT, Input::Command(send));
        assert_eq!(sent.data, 1, "{codec}");
        let reset = tell(&mut link, codec, AT, Input::Failed(SocketError::Reset));
        let grounds = Grounds::of(&[Ground::SideClosed, Ground::Reset]);
        assert_eq!(reset.lost, Some((Cause::PeerExited, Confidence::High, grounds)), "{codec}");
        assert_eq!((reset.looks, reset.closing), (0, Some(Closing::Flush)), "{codec}");
    }
}

#[test]
fn whoever_reads_on_is_given_up_at_a_deadline_that_nothing_moves() {
    let mut link = established(Codec::Native);
    tell(&mut link, Codec::Native, AT, Input::Ended);
    let until = AT + HALF_CLOSED;
    for command in [
        Command::Hold(Span::from_secs(60)),
        Command::Release,
        Command::HeartbeatData(b"hp=97"),
        Command::Send { bytes: b"late", more: false, kind: DataKind::default() },
    ] {
        let told = tell(&mut link, Codec::Native, AT, Input::Command(command));
        assert_eq!((told.events, told.lost), (0, None), "{command:?}");
        let next = link.next_deadline().unwrap();
        assert_eq!((next.at, next.reason), (until, Reason::HalfClose), "{command:?}");
    }
    // A bound that is long past, and no word of it.
    let early = tell(&mut link, Codec::Native, until - Span::from_millis(1), Input::Deadline);
    assert_eq!(early, Told::default());
    let last = tell(&mut link, Codec::Native, until, Input::Deadline);
    let grounds = Grounds::of(&[Ground::SideClosed]);
    assert_eq!(last.lost, Some((Cause::PeerExited, Confidence::Medium, grounds)));
    assert_eq!((last.closes, last.closing), (1, Some(Closing::Flush)));
}

#[test]
fn a_suspicion_ends_with_the_stream() {
    let mut link = established(Codec::Native);
    run(&mut link, 1_600, acknowledging);
    let now = Time::from_millis(1_700);
    tell(&mut link, Codec::Native, now, Input::Ended);
    let rest = run(&mut link, 60_000, |_| panic!("nobody is suspected"));
    assert_eq!(
        rest.lost.map(|(at, verdict)| (at, verdict.cause)),
        Some((3_700, Cause::PeerExited))
    );
}

#[test]
fn lines_and_whoever_is_not_introduced_end_at_once() {
    let exited = Some((Cause::PeerExited, Confidence::High, Grounds::of(&[Ground::SideClosed])));
    let mut line = established(Codec::Line);
    let told = tell(&mut line, Codec::Line, AT, Input::Ended);
    assert_eq!(told, Told { lost: exited, closing: Some(Closing::Flush), ..Told::default() });
    let settings = Settings::new(Codec::Native, Side::Accepting, policy());
    let mut mute = Link::new(Time::ZERO, settings, SessionKey::default(), 1);
    assert_eq!(tell(&mut mute, Codec::Native, AT, Input::Ended).lost, exited);
}

#[test]
fn an_end_after_a_routers_word_is_the_kernel_giving_up() {
    let mut link = established(Codec::Native);
    tell(&mut link, Codec::Native, AT, Input::Warned(SocketError::HostUnreachable));
    let told = tell(&mut link, Codec::Native, AT, Input::Ended);
    assert_eq!(told.lost.map(|(cause, ..)| cause), Some(Cause::Unreachable));
}
