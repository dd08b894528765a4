//! What is told of a suspect before its bound has passed.

use alloc::format;
use alloc::vec::Vec;

use super::*;
use crate::cause::Confidence;

type Word = (u64, Cause, Confidence, Grounds);

/// Runs `link` from deadline to deadline until it is lost; each look shows what `shows` says of its
/// time. Returns the early words, and the verdict.
fn words(link: &mut Link, shows: impl Fn(u64) -> Examination) -> (Vec<Word>, (u64, Cause)) {
    let mut words = Vec::new();
    while let Some(next) = link.next_deadline() {
        let millis = next.at.as_millis();
        link.handle(next.at, Input::Deadline);
        while let Some(output) = link.poll_output() {
            match output {
                Output::Examine => link.handle(next.at, Input::Examined(shows(millis))),
                Output::Event(Event::Warned { cause, confidence, grounds }) => {
                    words.push((millis, cause, confidence, grounds));
                }
                Output::Event(Event::Lost { verdict, .. }) => {
                    return (words, (millis, verdict.cause));
                }
                Output::Event(_) | Output::Transmit { .. } | Output::Close(_) => {}
            }
        }
    }
    panic!("never lost: {words:?}");
}

fn silent(millis: u64) -> TcpSnapshot {
    TcpSnapshot { last_ack: Span::from_millis(millis), ..TcpSnapshot::default() }
}

const UNREACHABLE: Input<'_> = Input::Warned(SocketError::HostUnreachable);

#[test]
fn our_own_network_is_named_at_the_suspicion_and_the_verdict_falls_at_the_bound() {
    let shows = |millis| Examination {
        tcp: Some(silent(millis)),
        local_down: Some(true),
        ..Examination::default()
    };
    let (words, lost) = words(&mut link(Hung::End), shows);
    let grounds = Grounds::of(&[Ground::InterfaceDown]);
    assert_eq!(words, [(1_500, Cause::LocalNetworkDown, Confidence::High, grounds)], "once");
    assert_eq!(lost, (3_000, Cause::LocalNetworkDown));
}

#[test]
fn a_neighbour_is_named_once_its_silence_shows() {
    let shows = |millis: u64| Examination {
        tcp: Some(TcpSnapshot {
            unacked: 1,
            retransmits: u8::try_from((millis - 1_000) / 300).unwrap(),
            ..silent(millis)
        }),
        ..Examination::default()
    };
    let (words, lost) = words(&mut link(Hung::End), shows);
    let told: Vec<_> = words.iter().map(|(at, cause, ..)| (*at, *cause)).collect();
    assert_eq!(told, [(2_000, Cause::LocalNeighbourGone)], "at the second look");
    assert_eq!(lost, (3_000, Cause::LocalNeighbourGone));
}

#[test]
fn a_router_is_quoted_at_once_while_the_peer_is_asked_and_once() {
    let mut link = link(Hung::End);
    // The first probe leaves.
    link.handle(Time::from_millis(1_000), Input::Deadline);
    while link.poll_output().is_some() {}
    let now = Time::from_millis(1_200);
    link.handle(now, UNREACHABLE);
    assert_eq!(link.poll_output(), Some(Output::Examine), "is it our own network?");
    link.handle(now, Input::Examined(Examination::default()));
    let word = Event::Warned {
        cause: Cause::Unreachable,
        confidence: Confidence::High,
        grounds: Grounds::of(&[Ground::RouterSaidUnreachable]),
    };
    assert_eq!(link.poll_output(), Some(Output::Event(word)));
    link.handle(now, UNREACHABLE);
    assert_eq!(link.poll_output(), None, "it comes again with each retransmission");
    let (words, lost) = words(&mut link, |_| Examination::default());
    assert_eq!((words, lost), (Vec::new(), (3_000, Cause::Unreachable)));
}

#[test]
fn a_routers_word_about_our_own_network_is_no_word_about_the_route() {
    let mut link = link(Hung::End);
    link.handle(Time::from_millis(1_000), Input::Deadline);
    while link.poll_output().is_some() {}
    let now = Time::from_millis(1_200);
    link.handle(now, UNREACHABLE);
    while link.poll_output().is_some() {}
    let local_down = Some(true);
    link.handle(now, Input::Examined(Examination { local_down, ..Examination::default() }));
    let told = core::iter::from_fn(|| link.poll_output().map(|output| format!("{output:?}")));
    assert!(told.last().unwrap().contains("LocalNetworkDown"));
}

#[test]
fn a_word_about_a_peer_that_is_not_asked_waits_for_the_first_probe_and_for_evidence() {
    let mut waiting = link(Hung::End);
    waiting.handle(Time::from_millis(500), UNREACHABLE);
    assert_eq!(waiting.poll_output(), None);
    let (words_told, lost) = words(&mut waiting, |_| Examination::default());
    let told: Vec<_> = words_told.iter().map(|(at, cause, ..)| (*at, *cause)).collect();
    assert_eq!(told, [(1_000, Cause::Unreachable)], "the first probe");
    assert_eq!(lost.0, 3_000);

    let mut heard = link(Hung::End);
    heard.handle(Time::from_millis(500), UNREACHABLE);
    heard.handle(Time::from_millis(600), Input::Received(b"hello\n"));
    while heard.poll_output().is_some() {}
    assert_eq!(
        words(&mut heard, |_| Examination::default()),
        (Vec::new(), (3_600, Cause::Unknown))
    );
}

#[test]
fn a_shell_that_cannot_look_hears_a_router_all_the_same() {
    let settings = Settings::new(Codec::Line, Side::Accepting, policy());
    let mut link = Link::new(Time::ZERO, settings, SessionKey::default(), 1);
    link.handle(Time::ZERO, Input::Received(b"ping\n"));
    while link.poll_output().is_some() {}
    link.handle(Time::from_millis(500), UNREACHABLE);
    let (words, _) = words(&mut link, |_| panic!("nobody can look"));
    assert_eq!(words.len(), 1);
}

/// A link that judges nobody for a minute and was sent something at 1 s, at its look at 8 s.
fn looked_at() -> Link {
    let policy = Policy::new(Span::from_secs(60), Span::from_secs(1), 3).unwrap();
    let settings =
        Settings { examines: true, ..Settings::new(Codec::Line, Side::Accepting, policy) };
    let mut link = Link::new(Time::ZERO, settings, SessionKey::default(), 1);
    link.handle(Time::ZERO, Input::Received(b"ping\n"));
    let send = Command::Send { bytes: b"news", more: false, kind: DataKind::default() };
    link.handle(Time::from_millis(1_000), Input::Command(send));
    while link.poll_output().is_some() {}
    assert_eq!(link.next_deadline().map(|next| next.at), Some(EXAMINED_AT));
    link.handle(EXAMINED_AT, Input::Deadline);
    assert_eq!(link.poll_output(), Some(Output::Examine));
    assert_eq!(link.poll_output(), None);
    link
}

const EXAMINED_AT: Time = Time::from_millis(8_000);

#[test]
fn a_look_at_what_goes_unanswered_raises_no_suspicion_and_loses_no_error() {
    let examined = |error| {
        Input::Examined(Examination { tcp: Some(silent(8_000)), error, local_down: Some(true) })
    };
    let mut link = looked_at();
    link.handle(EXAMINED_AT, examined(None));
    assert_eq!(link.poll_output(), None, "it was for the shell");
    assert_eq!(link.next_deadline().map(|next| next.at), Some(Time::from_millis(16_000)));

    let mut reset = looked_at();
    reset.handle(EXAMINED_AT, examined(Some(SocketError::Reset)));
    let told = core::iter::from_fn(|| reset.poll_output().map(|output| format!("{output:?}")));
    assert!(told.last().unwrap().contains("Close"), "nobody will read that error again");

    let mut routed = looked_at();
    routed.handle(EXAMINED_AT, examined(Some(SocketError::HostUnreachable)));
    assert_eq!(routed.poll_output(), None);
    routed.handle(EXAMINED_AT, Input::Ended);
    let told = core::iter::from_fn(|| routed.poll_output().map(|output| format!("{output:?}")));
    assert!(told.map(|told| told.contains("Unreachable")).next().unwrap(), "remembered");
}
