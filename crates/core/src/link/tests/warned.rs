//! Warnings: causes that are known before the bound.

use crate::session;
use alloc::format;
use alloc::vec::Vec;

use super::*;
use crate::cause::Confidence;

type Warning = (u64, Cause, Confidence, Grounds);

/// Runs `link` from deadline to deadline until it is lost; each examination shows what `shows`
/// returns for its time in milliseconds. Returns the warnings and the verdict.
fn warnings(link: &mut Link, shows: impl Fn(u64) -> Examination) -> (Vec<Warning>, (u64, Cause)) {
    let mut warnings = Vec::new();
    let mut steps = Steps::default();
    while let Some(next) = link.next_deadline() {
        let millis = next.at.as_millis();
        steps.count(next.at);
        link.handle(next.at, Answer::Deadline);
        while let Some(output) = link.poll_output() {
            match output {
                Output::Examine { .. } => link.handle(next.at, Answer::Examined(shows(millis))),
                Output::Session(session::Event::Warned { cause, confidence, grounds }) => {
                    warnings.push((millis, cause, confidence, grounds));
                }
                Output::Session(session::Event::Left(verdict)) => {
                    return (warnings, (millis, verdict.cause));
                }
                Output::Session(_)
                | Output::Event(_)
                | Output::Transmit { .. }
                | Output::Patience(_)
                | Output::Admit
                | Output::Close(_) => {}
            }
        }
    }
    panic!("never lost: {warnings:?}");
}

fn silent(millis: u64) -> TcpSnapshot {
    TcpSnapshot { last_ack: Span::from_millis(millis), ..TcpSnapshot::default() }
}

const UNREACHABLE: World<'_> = World::Warned(SocketError::HostUnreachable);

#[test]
fn a_local_network_down_is_a_warning_at_the_suspicion_and_a_verdict_at_the_bound() {
    let shows = |millis| Examination {
        tcp: Some(silent(millis)),
        local_down: Some(true),
        ..Examination::default()
    };
    let (warnings, lost) = warnings(&mut link(Hung::End), shows);
    let grounds = Grounds::of(&[Ground::InterfaceDown]);
    assert_eq!(warnings, [(1_500, Cause::LocalNetworkDown, Confidence::High, grounds)], "once");
    assert_eq!(lost, (3_000, Cause::LocalNetworkDown));
}

#[test]
fn a_silent_neighbour_is_a_warning_once_retransmissions_show_it() {
    let shows = |millis: u64| Examination {
        tcp: Some(TcpSnapshot {
            unacked: 1,
            retransmits: u8::try_from((millis - 1_000) / 300).unwrap(),
            ..silent(millis)
        }),
        ..Examination::default()
    };
    let (warnings, lost) = warnings(&mut link(Hung::End), shows);
    let causes: Vec<_> = warnings.iter().map(|(at, cause, ..)| (*at, *cause)).collect();
    assert_eq!(causes, [(2_000, Cause::LocalNeighbourGone)], "at the second examination");
    assert_eq!(lost, (3_000, Cause::LocalNeighbourGone));
}

#[test]
fn a_routers_error_is_a_warning_at_once_while_a_probe_is_out_and_only_once() {
    let mut link = link(Hung::End);
    // The first probe is sent.
    link.handle(Time::from_millis(1_000), Answer::Deadline);
    while link.poll_output().is_some() {}
    let now = Time::from_millis(1_200);
    link.handle(now, UNREACHABLE);
    assert_eq!(
        link.poll_output(),
        Some(Output::Examine { route: true }),
        "the local network is examined"
    );
    link.handle(now, Answer::Examined(Examination::default()));
    let warning = session::Event::Warned {
        cause: Cause::Unreachable,
        confidence: Confidence::High,
        grounds: Grounds::of(&[Ground::RouterSaidUnreachable]),
    };
    assert_eq!(link.poll_output(), Some(Output::Session(warning)));
    link.handle(now, UNREACHABLE);
    assert_eq!(link.poll_output(), None, "the router repeats its error");
    let (warnings, lost) = warnings(&mut link, |_| Examination::default());
    assert_eq!((warnings, lost), (Vec::new(), (3_000, Cause::Unreachable)));
}

#[test]
fn a_local_network_down_outweighs_a_routers_error() {
    let mut link = link(Hung::End);
    link.handle(Time::from_millis(1_000), Answer::Deadline);
    while link.poll_output().is_some() {}
    let now = Time::from_millis(1_200);
    link.handle(now, UNREACHABLE);
    while link.poll_output().is_some() {}
    let local_down = Some(true);
    link.handle(now, Answer::Examined(Examination { local_down, ..Examination::default() }));
    let outputs = core::iter::from_fn(|| link.poll_output().map(|output| format!("{output:?}")));
    assert!(outputs.last().unwrap().contains("LocalNetworkDown"));
}

#[test]
fn a_routers_error_before_the_first_probe_is_a_warning_at_the_probe_unless_evidence_comes() {
    let mut waiting = link(Hung::End);
    waiting.handle(Time::from_millis(500), UNREACHABLE);
    assert_eq!(waiting.poll_output(), None);
    let (warned, lost) = warnings(&mut waiting, |_| Examination::default());
    let causes: Vec<_> = warned.iter().map(|(at, cause, ..)| (*at, *cause)).collect();
    assert_eq!(causes, [(1_000, Cause::Unreachable)], "at the first probe");
    assert_eq!(lost.0, 3_000);

    let mut heard = link(Hung::End);
    heard.handle(Time::from_millis(500), UNREACHABLE);
    heard.handle(Time::from_millis(600), World::Received(b"hello\n"));
    while heard.poll_output().is_some() {}
    assert_eq!(
        warnings(&mut heard, |_| Examination::default()),
        (Vec::new(), (3_600, Cause::Unknown))
    );
}

#[test]
fn a_routers_error_is_a_warning_even_if_the_shell_cannot_examine() {
    let settings = Settings::new(Codec::Line, Side::Accepting, policy());
    let mut link = Link::new(Time::ZERO, settings, 1);
    link.handle(Time::ZERO, World::Received(b"ping\n"));
    admit(&mut link, Time::ZERO);
    while link.poll_output().is_some() {}
    link.handle(Time::from_millis(500), UNREACHABLE);
    let (warnings, _) = warnings(&mut link, |_| panic!("the shell cannot examine"));
    assert_eq!(warnings.len(), 1);
}

/// A link with an idle of a minute, to which data was sent at 1 s, at its examination at 8 s.
pub(super) fn outstanding() -> Link {
    let policy = Policy::new(Span::from_secs(60), Span::from_secs(1), 3).unwrap();
    let settings =
        Settings { examines: true, ..Settings::new(Codec::Line, Side::Accepting, policy) };
    let mut link = Link::new(Time::ZERO, settings, 1);
    link.handle(Time::ZERO, World::Received(b"ping\n"));
    admit(&mut link, Time::ZERO);
    let send = Command::Send { bytes: b"news", more: false, kind: DataKind::default() };
    link.handle(Time::from_millis(1_000), World::Command(send));
    while link.poll_output().is_some() {}
    assert_eq!(link.next_deadline().map(|next| next.at), Some(EXAMINED_AT));
    link.handle(EXAMINED_AT, Answer::Deadline);
    assert_eq!(link.poll_output(), Some(Output::Examine { route: false }));
    assert_eq!(link.poll_output(), None);
    link
}

pub(super) const EXAMINED_AT: Time = Time::from_millis(8_000);

#[test]
fn an_examination_for_outstanding_bytes_raises_no_suspicion_and_loses_no_error() {
    let examined = |error| {
        let tcp = Some(silent(8_000));
        Answer::Examined(Examination {
            tcp,
            error,
            ended: error == Some(SocketError::Reset),
            local_down: Some(true),
            ..Examination::default()
        })
    };
    let mut link = outstanding();
    link.handle(EXAMINED_AT, examined(None));
    assert_eq!(link.poll_output(), None, "the peer is not suspect");
    assert_eq!(link.next_deadline().map(|next| next.at), Some(Time::from_millis(16_000)));

    let mut reset = outstanding();
    reset.handle(EXAMINED_AT, examined(Some(SocketError::Reset)));
    let outputs = core::iter::from_fn(|| reset.poll_output().map(|output| format!("{output:?}")));
    assert!(outputs.last().unwrap().contains("Close"), "the socket does not report it again");

    let mut routed = outstanding();
    routed.handle(EXAMINED_AT, examined(Some(SocketError::HostUnreachable)));
    assert_eq!(routed.poll_output(), None);
    routed.handle(EXAMINED_AT, World::Failed(SocketError::TimedOut));
    let first = routed.poll_output().map(|output| format!("{output:?}"));
    assert!(first.unwrap().contains("LocalNetworkDown"), "kept for the verdict");
}

#[test]
fn a_look_at_bytes_that_are_merely_on_their_way_takes_no_memory() {
    let state = |tcp| {
        let mut link = outstanding();
        let examination = Examination { tcp, ..Examination::default() };
        link.handle(EXAMINED_AT, Answer::Examined(examination));
        while link.poll_output().is_some() {}
        let mut state = Vec::new();
        link.save(EXAMINED_AT, &mut state);
        state.len()
    };
    let on_their_way = TcpSnapshot { unacked: 1, notsent: Some(0), ..TcpSnapshot::default() };
    let unexamined = state(None);
    assert_eq!(state(Some(on_their_way)), unexamined);
    for held_up in [
        TcpSnapshot { retransmits: 1, ..on_their_way },
        TcpSnapshot { backoff: 1, ..on_their_way },
        TcpSnapshot { probes: 1, ..on_their_way },
        TcpSnapshot { send_window: Some(0), ..on_their_way },
        TcpSnapshot { notsent: Some(1), ..on_their_way },
    ] {
        assert!(state(Some(held_up)) > unexamined, "{held_up:?}");
    }
}

#[test]
fn a_routers_error_is_kept_until_there_is_evidence() {
    let mut silent = link(Hung::End);
    let warned = World::Warned(SocketError::HostUnreachable);
    silent.handle(Time::from_millis(1_100), warned);
    let lost = run(&mut silent, 10_000, |_| TcpSnapshot::default()).lost.unwrap();
    assert_eq!((lost.0, lost.1.cause), (3_000, Cause::Unreachable));

    let mut heard = link(Hung::End);
    heard.handle(Time::from_millis(1_100), warned);
    heard.handle(Time::from_millis(1_200), World::Received(b"hello\n"));
    while heard.poll_output().is_some() {}
    let lost = run(&mut heard, 10_000, |_| TcpSnapshot::default()).lost.unwrap();
    assert_eq!((lost.0, lost.1.cause), (4_200, Cause::Unknown), "evidence came after the error");
}

#[test]
fn a_warning_is_withdrawn_once_by_evidence_whether_the_peer_was_suspect_or_not() {
    for suspect in [false, true] {
        let mut link = link(Hung::End);
        run(&mut link, if suspect { 2_000 } else { 1_000 }, |_| TcpSnapshot::default());
        let now = Time::from_millis(2_100);
        let told = Examination::default();
        link.handle(now, UNREACHABLE);
        while let Some(output) = link.poll_output() {
            if let Output::Examine { .. } = output {
                link.handle(now, Answer::Examined(told));
            }
        }
        link.handle(now, World::Received(b"hello\n"));
        let mut heard = Run::default();
        poll(&mut link, now, &silent, &mut heard);
        assert_eq!(heard.recovered, [2_100], "suspect: {suspect}");
    }
}

/// The kernel acknowledged the probe that the router's word was about, and nothing answered.
#[test]
fn an_acknowledgement_after_a_routers_error_refutes_it() {
    let shows =
        |unacked| TcpSnapshot { unacked, bytes_acked: Some(5), notsent: Some(0), ..silent(40) };
    for (unacked, cause) in [(0, Cause::Unknown), (1, Cause::Unreachable)] {
        let mut link = link(Hung::End);
        link.handle(Time::from_millis(1_100), UNREACHABLE);
        let lost = run(&mut link, 10_000, |_| shows(unacked)).lost.unwrap();
        assert_eq!((lost.0, lost.1.cause), (3_000, cause), "{unacked} unacknowledged");
    }
}

#[test]
fn a_hold_does_not_make_a_routers_error_forgotten() {
    let mut link = link(Hung::End);
    link.handle(Time::from_millis(500), UNREACHABLE);
    let hold = Command::Hold(Span::from_secs(1));
    link.handle(Time::from_millis(600), World::Command(hold));
    while link.poll_output().is_some() {}
    let (warned, lost) = warnings(&mut link, |_| Examination::default());
    assert_eq!(warned.first().map(|(at, cause, ..)| (*at, *cause)), Some((2_600, lost.1)));
    assert_eq!(lost, (4_600, Cause::Unreachable));
}
