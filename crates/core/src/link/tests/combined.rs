//! Commands, ends and errors that meet in one silence.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::half_close::established;
use super::*;

const fn ms(millis: u64) -> Time {
    Time::from_millis(millis)
}

/// Hands in an input, and answers examinations with `tcp`. Returns the events as text.
fn events<'a>(
    link: &mut Link,
    millis: u64,
    input: impl Into<Input<'a>>,
    tcp: TcpSnapshot,
) -> Vec<String> {
    link.handle(ms(millis), input);
    let mut events = Vec::new();
    loop {
        let mut examine = false;
        while let Some(output) = link.poll_output() {
            match output {
                Output::Examine { .. } => examine = true,
                Output::Session(event) => events.push(format!("{event:?}")),
                Output::Event(event) => events.push(format!("{event:?}")),
                Output::Transmit { .. }
                | Output::Patience(_)
                | Output::Admit
                | Output::Close(_) => {}
            }
        }
        if !examine {
            return events;
        }
        let shown = Examination { tcp: Some(tcp), ..Examination::default() };
        link.handle(ms(millis), Answer::Examined(shown));
    }
}

fn command(link: &mut Link, millis: u64, command: Command<'_>) {
    events(link, millis, World::Command(command), acknowledging(0));
}

fn end(link: &mut Link, millis: u64) -> Vec<String> {
    events(link, millis, World::Ended, acknowledging(0))
}

fn lost_by(
    link: &mut Link,
    until: u64,
    shows: impl Fn(u64) -> TcpSnapshot,
) -> Option<(u64, Cause)> {
    run(link, until, shows).lost.map(|(at, verdict)| (at, verdict.cause))
}

const MINUTE: Span = Span::from_secs(60);

/// D = 600 s.
fn long() -> Policy {
    let policy = Policy::new(Span::from_secs(300), Span::from_secs(100), 3).unwrap();
    policy.with_spread(false)
}

#[test]
fn a_hold_outlasts_a_half_close_in_either_order() {
    let mut held_first = established(Codec::Native);
    command(&mut held_first, 100, Command::Hold(MINUTE));
    end(&mut held_first, 700);
    let mut closed_first = established(Codec::Native);
    end(&mut closed_first, 700);
    command(&mut closed_first, 800, Command::Hold(MINUTE));
    for (mut link, expected) in [(held_first, 60_100), (closed_first, 60_800)] {
        let lost = lost_by(&mut link, 100_000, |_| acknowledging(0));
        assert_eq!(lost, Some((expected, Cause::PeerExited)));
    }
}

#[test]
fn a_release_ends_the_hold_of_a_half_closed_peer() {
    let mut link = established(Codec::Native);
    end(&mut link, 700);
    command(&mut link, 800, Command::Hold(MINUTE));
    command(&mut link, 900, Command::Release);
    let lost = lost_by(&mut link, 100_000, |_| acknowledging(0));
    assert_eq!(lost, Some((2_700, Cause::PeerExited)));
}

#[test]
fn an_overdue_half_closed_peer_on_hold_is_not_ended_by_an_enforced_policy() {
    let mut link = established(Codec::Native);
    command(&mut link, 100, Command::Retune(policy().with_enforce(false)));
    end(&mut link, 700);
    events(&mut link, 2_700, Answer::Deadline, acknowledging(0));
    command(&mut link, 3_000, Command::Hold(MINUTE));
    command(&mut link, 4_000, Command::Retune(policy()));
    let lost = lost_by(&mut link, 100_000, |_| acknowledging(0));
    assert_eq!(lost, Some((63_000, Cause::PeerExited)));
}

#[test]
fn a_held_half_closed_peer_is_examined_for_its_bytes_and_the_kernel_waits_for_it() {
    let mut link = established(Codec::Native);
    end(&mut link, 700);
    link.handle(ms(800), World::Command(Command::Hold(MINUTE)));
    let mut patience = None;
    while let Some(output) = link.poll_output() {
        if let Output::Patience(found) = output {
            patience = found.outage();
        }
    }
    assert!(patience >= Some(MINUTE), "{patience:?}");
    let stuck = TcpSnapshot { unacked: 1, retransmits: 5, ..acknowledging(0) };
    let examined = run(&mut link, 50_000, |_| stuck).examinations;
    assert!(examined.len() >= 5, "{examined:?}");
}

#[test]
fn the_ping_after_a_half_close_counts_as_outstanding() {
    let mut link = established(Codec::Native);
    command(&mut link, 100, Command::Retune(long().with_enforce(false)));
    run(&mut link, 9_000, acknowledging);
    end(&mut link, 9_100);
    let stuck = TcpSnapshot { unacked: 1, retransmits: 5, ..acknowledging(0) };
    let examined = run(&mut link, 60_000, |_| stuck).examinations;
    assert!(examined.len() > 3, "{examined:?}");
}

#[test]
fn a_half_close_ends_a_suspicion_and_says_so() {
    let mut link = established(Codec::Native);
    run(&mut link, 1_600, acknowledging);
    let events = end(&mut link, 1_700);
    assert_eq!(events.first().map(String::as_str), Some("Recovered"), "{events:?}");
}

#[test]
fn an_end_after_a_passing_error_of_a_router_ends_nothing() {
    let mut link = established(Codec::Native);
    let warned = World::Warned(SocketError::HostUnreachable);
    events(&mut link, 100, warned, acknowledging(0));
    let events = end(&mut link, 700);
    assert!(!events.iter().any(|event| event.starts_with("Lost")), "{events:?}");
}

#[test]
fn a_kept_peer_under_a_longer_bound_is_judged_at_its_end() {
    let not_reading = |_: u64| TcpSnapshot {
        notsent: Some(9_000),
        send_window: Some(0),
        backoff: 2,
        ..acknowledging(0)
    };
    for (cause, shows) in [
        (Cause::AppHung, acknowledging as fn(u64) -> TcpSnapshot),
        (Cause::NotReading, not_reading),
    ] {
        let mut link = link(Hung::Keep(MINUTE));
        assert_eq!(run(&mut link, 5_000, shows).hung, [(3_000, cause)]);
        command(&mut link, 5_000, Command::Retune(long()));
        assert!(link.peer.is_suspect(), "it has not been heard");
        let rest = run(&mut link, 1_000_000, shows);
        assert_eq!(rest.hung, [(600_000, cause)], "and is kept again");
        assert_eq!(rest.lost.map(|(at, verdict)| (at, verdict.cause)), Some((660_000, cause)));
    }
}

#[test]
fn an_overdue_peer_under_a_longer_bound_is_overdue_at_its_end() {
    let mut link = established(Codec::Native);
    command(&mut link, 100, Command::Retune(policy().with_enforce(false)));
    run(&mut link, 5_000, acknowledging);
    command(&mut link, 5_000, Command::Retune(long().with_enforce(false)));
    let mut overdue = Vec::new();
    while overdue.is_empty() {
        let at = link.next_deadline().expect("it is judged again").at.as_millis();
        let events = events(&mut link, at, Answer::Deadline, acknowledging(0));
        overdue.extend(events.into_iter().filter(|event| event.starts_with("Overdue")));
        assert!(at <= 600_000, "{at}");
    }
}

#[test]
fn a_kept_peer_that_wakes_in_the_middle_of_a_frame_may_complete_it() {
    let mut link = link(Hung::Keep(MINUTE));
    events(&mut link, 500, World::Received(b"part of a "), acknowledging(0));
    assert_eq!(run(&mut link, 30_000, acknowledging).hung.len(), 1);
    events(&mut link, 30_000, World::Received(b"li"), acknowledging(0));
    let events = events(&mut link, 30_001, Answer::Deadline, acknowledging(0));
    assert!(!events.iter().any(|event| event.starts_with("Lost")), "{events:?}");
}

#[test]
fn what_a_peer_asks_for_does_not_undo_what_an_operator_decided() {
    let mut link = established(Codec::Native);
    command(&mut link, 100, Command::Retune(policy().with_enforce(false)));
    let wish = Policy::new(Span::from_secs(2), Span::from_secs(1), 3).unwrap();
    let mut bytes = Vec::new();
    Codec::Native.encode(&crate::wire::Frame::Retune(wish), &mut bytes);
    events(&mut link, 2_000, World::Received(&bytes), acknowledging(0));
    assert_eq!(link.policy().bound(), wish.bound());
    assert!(!link.policy().enforce(), "{:?}", link.policy());
}

#[test]
fn a_retune_is_no_hold() {
    let mut link = established(Codec::Native);
    let short = Policy::new(Span::from_millis(500), Span::from_millis(500), 2).unwrap();
    command(&mut link, 700, Command::Retune(short));
    assert_eq!(link.peer.liveness().held_until(), None);
}

#[test]
fn no_bytes_are_no_evidence() {
    let mut link = link(Hung::End);
    link.handle(ms(500), World::Received(b""));
    assert_eq!(link.last_heard(), Time::ZERO);
}

#[test]
fn an_ended_link_has_no_deadline() {
    let mut link = established(Codec::Native);
    link.handle(ms(500), World::Overflowed);
    assert_eq!(link.next_deadline(), None);
}
