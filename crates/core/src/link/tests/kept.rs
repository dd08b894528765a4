//! Hung peers that are kept beyond the bound.

use crate::session;
use alloc::vec::Vec;

use super::*;

/// The times of the probes to a peer that is kept for a minute: up to the bound, and once in each
/// further bound.
fn probes_at() -> impl Iterator<Item = u64> {
    [1_000, 1_500, 2_000, 2_500].into_iter().chain((1..=20).map(|n| 2_500 + n * 3_000))
}

/// The socket of a peer whose kernel acknowledges each probe until its machine dies at `dies`.
fn answering(dies: u64, millis: u64) -> TcpSnapshot {
    let before = probes_at().filter(|at| *at < millis.min(dies));
    let last = probes_at().filter(|at| *at < millis.min(dies)).last().unwrap_or(0);
    TcpSnapshot {
        last_ack: Span::from_millis(millis - last),
        bytes_acked: Some(before.count() as u64 * 5),
        ..acknowledging(0)
    }
}

#[test]
fn a_hung_peer_is_kept_and_ends_after_the_time() {
    let mut link = link(Hung::Keep(Span::from_secs(60)));
    let kept = run(&mut link, 100_000, |millis| answering(u64::MAX, millis));
    assert_eq!(kept.hung, [(3_000, Cause::AppHung)]);
    let (before, after) = kept.examinations.split_at(4);
    assert_eq!(before, [1_500, 2_000, 2_500, 3_000]);
    let rounds: Vec<u64> = (1..=20).flat_map(|n| [2_500 + n * 3_000, 3_000 + n * 3_000]).collect();
    assert_eq!(after, rounds, "at one probe and at the end of each further bound");
    let (at, verdict) = kept.lost.unwrap();
    assert_eq!((at, verdict.cause), (63_000, Cause::AppHung));
    assert_eq!(verdict.probes, 24);
}

#[test]
fn a_machine_that_dies_while_its_peer_is_kept_is_a_lost_path() {
    let mut link = link(Hung::Keep(Span::from_secs(60)));
    let kept = run(&mut link, 100_000, |millis| {
        let before = answering(20_000, millis);
        let (unacked, retransmits) = if millis > 20_500 { (1, 2) } else { (0, 0) };
        let total_retrans = u32::from(retransmits);
        TcpSnapshot { unacked, retransmits, total_retrans, ..before }
    });
    assert_eq!(kept.hung, [(3_000, Cause::AppHung)]);
    let cause = Cause::PathLost { direction: Direction::Both, scope: Scope::Unknown };
    assert_eq!(kept.lost.map(|(at, verdict)| (at, verdict.cause)), Some((21_000, cause)));
}

#[test]
fn a_hung_peer_that_wakes_is_recovered() {
    let mut link = link(Hung::Keep(Span::from_secs(60)));
    let kept = run(&mut link, 30_000, acknowledging);
    assert_eq!(kept.hung.len(), 1);
    assert!(kept.lost.is_none());
    link.handle(Time::from_millis(30_000), World::Received(b"pong\n"));
    let mut woken = Run::default();
    poll(&mut link, Time::from_millis(30_000), &acknowledging, &mut woken);
    assert_eq!(woken.recovered, [30_000]);
    let next = link.next_deadline().unwrap();
    assert_eq!(next.at, Time::from_millis(31_000), "the first probe after idle");
}

#[test]
fn a_lost_path_is_not_kept() {
    let mut link = link(Hung::Keep(Span::from_secs(60)));
    let lost = |millis: u64| TcpSnapshot {
        unacked: 1,
        retransmits: u8::try_from(millis / 700).unwrap(),
        total_retrans: u32::try_from(millis / 700).unwrap(),
        last_ack: Span::from_millis(millis),
        bytes_acked: Some(5),
        ..acknowledging(0)
    };
    let (at, verdict) = run(&mut link, 100_000, lost).lost.unwrap();
    let cause = Cause::PathLost { direction: Direction::Both, scope: Scope::Unknown };
    assert_eq!((at, verdict.cause), (3_000, cause));
}

#[test]
fn a_kept_peer_whose_policy_is_no_longer_enforced_is_reported_and_not_ended() {
    let mut link = link(Hung::Keep(Span::from_secs(60)));
    let kept = run(&mut link, 30_000, |millis| answering(u64::MAX, millis));
    assert_eq!(kept.hung.len(), 1);
    let observed = Command::Retune(policy().with_enforce(false));
    link.handle(Time::from_millis(30_000), World::Command(observed));
    let rest = run(&mut link, 1_000_000, |millis| answering(u64::MAX, millis));
    assert!(rest.lost.is_none(), "{:?}", rest.lost);
}

#[test]
fn a_peer_that_is_kept_after_one_probe_is_suspect_before_it_is_hung_and_recovers_once() {
    let one_probe = Policy::new(Span::from_secs(1), Span::from_millis(500), 1).unwrap();
    let mut link = link(Hung::Keep(Span::from_secs(60)));
    link.handle(Time::ZERO, World::Command(Command::Retune(one_probe.with_spread(false))));
    let mut doubts = Vec::new();
    let mut note = |link: &mut Link, now: u64| {
        let mut examine = false;
        while let Some(output) = link.poll_output() {
            match output {
                Output::Session(session::Event::Suspect) => doubts.push((now, "suspect")),
                Output::Session(session::Event::Hung { .. }) => doubts.push((now, "hung")),
                Output::Session(session::Event::Recovered) => doubts.push((now, "recovered")),
                Output::Examine { .. } => examine = true,
                Output::Session(_)
                | Output::Event(_)
                | Output::Transmit { .. }
                | Output::Patience(_)
                | Output::Admit
                | Output::Close(_) => {}
            }
        }
        examine
    };
    for now in [1_000, 1_500] {
        link.handle(Time::from_millis(now), Answer::Deadline);
        while note(&mut link, now) {
            let tcp = Some(TcpSnapshot { bytes_acked: Some(now), ..acknowledging(now) });
            let examination = Examination { tcp, ..Examination::default() };
            link.handle(Time::from_millis(now), Answer::Examined(examination));
        }
    }
    link.handle(Time::from_millis(1_600), World::Received(b"pong\n"));
    note(&mut link, 1_600);
    let alone = doubts.iter().map(|(_, what)| *what).collect::<Vec<_>>();
    assert!(matches!(alone[..], ["suspect", "hung", "recovered"] | []), "{doubts:?}");
}
