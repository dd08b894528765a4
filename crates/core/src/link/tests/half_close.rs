//! A half-closed peer: what is still sent to it, and when the verdict falls.

use crate::session;
use alloc::vec::Vec;

use super::*;
use crate::cause::Confidence;
use crate::machine::Reason;
use crate::wire::{Decoder, Frame, Hello};

const AT: Time = Time::from_millis(700);

/// An accepting link whose handshake was complete at time zero.
pub(super) fn established(codec: Codec) -> Link {
    established_with(codec, Hung::End)
}

fn established_with(codec: Codec, hung: Hung) -> Link {
    let settings =
        Settings { examines: true, hung, ..Settings::new(codec, Side::Accepting, policy()) };
    let mut link = Link::new(Time::ZERO, settings, 1);
    let mut first = Vec::new();
    let hello = Hello { identity: "ada", ..Hello::default() };
    let frame = if codec.has_handshake() {
        Frame::Hello(hello)
    } else {
        Frame::Ping(crate::wire::Beat::bare(0))
    };
    codec.encode(&frame, &mut first);
    link.handle(Time::ZERO, World::Received(&first));
    admit(&mut link, Time::ZERO);
    while link.poll_output().is_some() {}
    link
}

/// The outputs that one input led to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outputs {
    pings: u32,
    closes: u32,
    data: u32,
    examinations: u32,
    events: u32,
    lost: Option<(Cause, Confidence, Grounds)>,
    closing: Option<Closing>,
}

fn handle<'a>(link: &mut Link, codec: Codec, now: Time, input: impl Into<Input<'a>>) -> Outputs {
    link.handle(now, input);
    let mut outputs = Outputs::default();
    while let Some(output) = link.poll_output() {
        match output {
            Output::Transmit { mut bytes, .. } => {
                match Decoder::new(codec, 65_536).next(&mut bytes).unwrap().unwrap() {
                    Frame::Ping(_) => outputs.pings += 1,
                    Frame::Close(_) => outputs.closes += 1,
                    Frame::Data { .. } => outputs.data += 1,
                    other @ (Frame::Pong(_)
                    | Frame::Hello(_)
                    | Frame::Welcome(_)
                    | Frame::Ack { .. }
                    | Frame::Retune(_)) => panic!("{other:?}"),
                }
            }
            Output::Session(session::Event::Left(verdict)) => {
                outputs.lost = Some((verdict.cause, verdict.confidence, verdict.grounds));
            }
            Output::Session(_) | Output::Event(_) => outputs.events += 1,
            Output::Patience(_) | Output::Admit => {}
            Output::Examine { .. } => outputs.examinations += 1,
            Output::Close(closing) => outputs.closing = Some(closing),
        }
    }
    outputs
}

#[test]
fn a_half_closed_peer_is_probed_and_sent_data_until_it_resets() {
    for codec in [Codec::Native, Codec::Message1028] {
        let mut link = established(codec);
        let probed = handle(&mut link, codec, AT, World::Ended);
        assert_eq!(probed, Outputs { pings: 1, ..Outputs::default() }, "{codec}");
        let again = handle(&mut link, codec, AT, World::Ended);
        assert_eq!(again, Outputs::default(), "{codec}: every later read reports the end again");
        let send = Command::Send { bytes: b"late", more: false, kind: DataKind::default() };
        let sent = handle(&mut link, codec, AT, World::Command(send));
        assert_eq!(sent.data, 1, "{codec}");
        let reset = handle(&mut link, codec, AT, World::Failed(SocketError::Reset));
        let grounds = Grounds::of(&[Ground::SideClosed, Ground::Reset]);
        assert_eq!(reset.lost, Some((Cause::PeerExited, Confidence::High, grounds)), "{codec}");
        assert_eq!((reset.examinations, reset.closing), (0, Some(Closing::Flush)), "{codec}");
    }
}

#[test]
fn a_half_closed_peer_that_reads_on_ends_at_a_fixed_deadline() {
    let mut link = established(Codec::Native);
    handle(&mut link, Codec::Native, AT, World::Ended);
    let until = AT + HALF_CLOSED;
    for command in [
        Command::Release,
        Command::HeartbeatData(b"hp=97"),
        Command::Send { bytes: b"late", more: false, kind: DataKind::default() },
    ] {
        let outputs = handle(&mut link, Codec::Native, AT, World::Command(command));
        assert_eq!((outputs.events, outputs.lost), (0, None), "{command:?}");
        let next = link.next_deadline().unwrap();
        assert_eq!((next.at, next.reason), (until, Reason::HalfClose), "{command:?}");
    }
    // The bound of the policy is long past and reports nothing.
    let early = handle(&mut link, Codec::Native, until - Span::from_millis(1), Answer::Deadline);
    assert_eq!(early, Outputs::default());
    let last = handle(&mut link, Codec::Native, until, Answer::Deadline);
    let grounds = Grounds::of(&[Ground::SideClosed]);
    assert_eq!(last.lost, Some((Cause::PeerExited, Confidence::Medium, grounds)));
    assert_eq!((last.closes, last.closing), (1, Some(Closing::Flush)));
}

#[test]
fn a_half_close_ends_the_suspicion() {
    let mut link = established(Codec::Native);
    run(&mut link, 1_600, acknowledging);
    let now = Time::from_millis(1_700);
    handle(&mut link, Codec::Native, now, World::Ended);
    let rest = run(&mut link, 60_000, |_| panic!("no peer is suspect"));
    assert_eq!(
        rest.lost.map(|(at, verdict)| (at, verdict.cause)),
        Some((3_700, Cause::PeerExited))
    );
}

#[test]
fn a_half_close_ends_the_inquiry_and_the_time_for_which_a_peer_is_kept() {
    let mut link = established(Codec::Native);
    handle(&mut link, Codec::Native, AT, World::Warned(SocketError::HostUnreachable));
    handle(&mut link, Codec::Native, AT, World::Ended);
    let lost = handle(&mut link, Codec::Native, AT, World::Failed(SocketError::TimedOut)).lost;
    let grounds = Grounds::of(&[Ground::KernelGaveUp]);
    assert_eq!(lost, Some((Cause::Unknown, Confidence::Medium, grounds)), "the router was wrong");

    let hung = Hung::Keep(Span::from_secs(60));
    let mut kept = established_with(Codec::Native, hung);
    let open = |_| TcpSnapshot { unacked: 0, ..acknowledging(0) };
    assert_eq!(run(&mut kept, 3_500, open).hung, [(3_000, Cause::AppHung)]);
    kept.handle(Time::from_millis(3_700), World::Ended);
    let ordinary = crate::kernel::Patience::of(&policy());
    assert_eq!(patience::patience(&mut kept), Some(ordinary));
}

#[test]
fn a_line_peer_and_a_peer_before_its_handshake_end_at_once() {
    let exited = Some((Cause::PeerExited, Confidence::High, Grounds::of(&[Ground::SideClosed])));
    let mut line = established(Codec::Line);
    let outputs = handle(&mut line, Codec::Line, AT, World::Ended);
    assert_eq!(
        outputs,
        Outputs { lost: exited, closing: Some(Closing::Flush), ..Outputs::default() }
    );
    let settings = Settings::new(Codec::Native, Side::Accepting, policy());
    let mut mute = Link::new(Time::ZERO, settings, 1);
    assert_eq!(handle(&mut mute, Codec::Native, AT, World::Ended).lost, exited);
}

#[test]
fn an_end_after_a_passing_error_of_a_router_is_a_half_close() {
    let mut link = established(Codec::Native);
    handle(&mut link, Codec::Native, AT, World::Warned(SocketError::HostUnreachable));
    let outputs = handle(&mut link, Codec::Native, AT, World::Ended);
    assert_eq!(outputs.lost, None);
    assert_eq!(link.next_deadline().unwrap().reason, Reason::HalfClose);
}

#[test]
fn a_half_closed_peer_is_reported_and_not_ended_while_the_policy_is_not_enforced() {
    let mut link = established(Codec::Native);
    let retune = |link: &mut Link, at, enforce| {
        link.handle(at, World::Command(Command::Retune(policy().with_enforce(enforce))));
        while link.poll_output().is_some() {}
    };
    retune(&mut link, AT, false);
    handle(&mut link, Codec::Native, AT, World::Ended);
    link.handle(AT + HALF_CLOSED, Answer::Deadline);
    let due = AT + HALF_CLOSED;
    assert_eq!(link.poll_output(), Some(Output::Session(session::Event::Overdue { due })));
    assert_eq!(link.poll_output(), None);
    let next = link.next_deadline().map(|next| next.reason);
    assert_eq!(next, Some(Reason::Examine), "it is reported once");
    // Enforced again, it ends.
    let later = AT + Span::from_secs(60);
    retune(&mut link, later, true);
    let ended = handle(&mut link, Codec::Native, later, Answer::Deadline);
    assert_eq!(ended.lost.map(|(cause, ..)| cause), Some(Cause::PeerExited));
}

#[test]
fn a_hold_keeps_a_half_closed_peer() {
    let mut link = established(Codec::Native);
    handle(&mut link, Codec::Native, AT, World::Ended);
    let hold = World::Command(Command::Hold(Span::from_secs(60)));
    handle(&mut link, Codec::Native, AT, hold);
    // Meanwhile its socket is examined for the bytes that may wait.
    let mut next = link.next_deadline().unwrap();
    let mut steps = Steps::default();
    while next.reason == Reason::Examine {
        steps.count(next.at);
        let ended = handle(&mut link, Codec::Native, next.at, Answer::Deadline);
        assert_eq!(ended.lost, None);
        next = link.next_deadline().unwrap();
    }
    assert_eq!((next.at, next.reason), (AT + Span::from_secs(60), Reason::HalfClose));
}
