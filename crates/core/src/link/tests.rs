//! What becomes of a suspect: the looks that are asked for, and the verdict that comes of them.

mod early;
mod half_close;

use alloc::vec::Vec;

use super::*;
use crate::cause::{Confidence, Direction, Scope};
use crate::diagnosis::{Ground, Grounds};
use crate::kernel::TcpSnapshot;

/// Idle 1 s, interval 0.5 s, 4 probes: suspect at 1.5 s, D = 3 s.
fn policy() -> Policy {
    let policy = Policy::new(Span::from_secs(1), Span::from_millis(500), 4).unwrap();
    policy.with_spread(false)
}

/// An accepting `line` link that was introduced at time zero.
fn link(hung: Hung) -> Link {
    let settings =
        Settings { examines: true, hung, ..Settings::new(Codec::Line, Side::Accepting, policy()) };
    let mut link = Link::new(Time::ZERO, settings, SessionKey::default(), 1);
    link.handle(Time::ZERO, Input::Received(b"ping\n"));
    while link.poll_output().is_some() {}
    link
}

/// What a run of a link came to.
#[derive(Default)]
struct Run {
    looks: Vec<u64>,
    hung: Vec<(u64, Cause)>,
    recovered: Vec<u64>,
    lost: Option<(u64, Verdict)>,
}

/// Runs `link` until it is lost or `until`, answering each look by `shows` of its time in ms.
fn run(link: &mut Link, until: u64, shows: impl Fn(u64) -> TcpSnapshot) -> Run {
    let mut run = Run::default();
    while let Some(next) = link.next_deadline().filter(|next| next.at <= Time::from_millis(until)) {
        let now = next.at;
        link.handle(now, Input::Deadline);
        take(link, now, &shows, &mut run);
        if run.lost.is_some() {
            break;
        }
    }
    run
}

fn take(link: &mut Link, now: Time, shows: &impl Fn(u64) -> TcpSnapshot, run: &mut Run) {
    let millis = now.as_millis();
    let mut asked = true;
    while asked {
        asked = false;
        while let Some(output) = link.poll_output() {
            match output {
                Output::Examine => asked = true,
                Output::Event(Event::Hung { cause, .. }) => run.hung.push((millis, cause)),
                Output::Event(Event::Recovered) => run.recovered.push(millis),
                Output::Event(Event::Lost { verdict, .. }) => run.lost = Some((millis, verdict)),
                Output::Event(_) | Output::Transmit { .. } | Output::Close(_) => {}
            }
        }
        if asked {
            run.looks.push(millis);
            let tcp = Some(shows(millis));
            link.handle(now, Input::Examined(Examination { tcp, ..Examination::default() }));
        }
    }
}

/// A machine that acknowledges each heartbeat, of five bytes, whatever its application does.
fn acknowledging(millis: u64) -> TcpSnapshot {
    TcpSnapshot {
        notsent: Some(0),
        last_ack: Span::from_millis(40),
        bytes_acked: Some(millis / 500 * 5),
        send_window: Some(60_000),
        ..TcpSnapshot::default()
    }
}

/// When a peer that is kept for a minute is asked: up to the bound, and once in each further one.
fn asked() -> impl Iterator<Item = u64> {
    [1_000, 1_500, 2_000, 2_500].into_iter().chain((1..=20).map(|n| 2_500 + n * 3_000))
}

/// A machine that acknowledges what it is asked, until it dies.
fn answering(dies: u64, millis: u64) -> TcpSnapshot {
    let before = asked().filter(|at| *at < millis.min(dies));
    let last = asked().filter(|at| *at < millis.min(dies)).last().unwrap_or(0);
    TcpSnapshot {
        last_ack: Span::from_millis(millis - last),
        bytes_acked: Some(before.count() as u64 * 5),
        ..acknowledging(0)
    }
}

#[test]
fn a_suspect_is_looked_at_with_each_probe_and_at_the_bound_and_nobody_else_is() {
    let mut link = link(Hung::End);
    let run = run(&mut link, 10_000, acknowledging);
    assert_eq!(run.looks, [1_500, 2_000, 2_500, 3_000], "suspicion, two more probes, bound");
    let (at, verdict) = run.lost.unwrap();
    assert_eq!((at, verdict.cause), (3_000, Cause::AppHung));
    assert_eq!(verdict.due, Time::from_millis(3_000));
    assert!(verdict.grounds.contains(Ground::BytesAcknowledged) && verdict.is_silence());
}

#[test]
fn evidence_ends_the_looking() {
    let mut link = link(Hung::End);
    run(&mut link, 2_000, acknowledging);
    link.handle(Time::from_millis(2_100), Input::Received(b"pong\n"));
    while link.poll_output().is_some() {}
    let silent = run(&mut link, 4_500, acknowledging);
    assert_eq!(silent.looks.first(), Some(&3_600), "anew, with the next suspicion");
}

#[test]
fn who_hangs_may_be_kept_for_a_while_and_ends_after_it() {
    let mut link = link(Hung::Keep(Span::from_secs(60)));
    let kept = run(&mut link, 100_000, |millis| answering(u64::MAX, millis));
    assert_eq!(kept.hung, [(3_000, Cause::AppHung)]);
    let (suspected, looks) = kept.looks.split_at(4);
    assert_eq!(suspected, [1_500, 2_000, 2_500, 3_000]);
    let rounds: Vec<u64> = (1..=20).flat_map(|n| [2_500 + n * 3_000, 3_000 + n * 3_000]).collect();
    assert_eq!(looks, rounds, "asked once in each further bound, and judged");
    let (at, verdict) = kept.lost.unwrap();
    assert_eq!((at, verdict.cause), (63_000, Cause::AppHung));
    assert_eq!(verdict.probes, 24);
}

#[test]
fn whose_machine_dies_while_it_is_kept_has_not_hung() {
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
fn who_hangs_and_wakes_is_online_as_if_nothing_had_been() {
    let mut link = link(Hung::Keep(Span::from_secs(60)));
    let kept = run(&mut link, 30_000, acknowledging);
    assert_eq!(kept.hung.len(), 1);
    assert!(kept.lost.is_none());
    link.handle(Time::from_millis(30_000), Input::Received(b"pong\n"));
    let mut woken = Run::default();
    take(&mut link, Time::from_millis(30_000), &acknowledging, &mut woken);
    assert_eq!(woken.recovered, [30_000]);
    let next = link.next_deadline().unwrap();
    assert_eq!(next.at, Time::from_millis(31_000), "an ordinary probe");
}

#[test]
fn a_dead_path_is_not_kept_for_those_who_hang() {
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
fn who_takes_a_large_message_slowly_lives_and_who_takes_a_byte_a_minute_does_not() {
    let taking = |per_second: u64| {
        move |millis: u64| TcpSnapshot {
            notsent: Some(1_000_000),
            bytes_acked: Some(millis * per_second / 1_000),
            ..acknowledging(0)
        }
    };
    let mut slow = link(Hung::End);
    let lived = run(&mut slow, 180_000, taking(55_000));
    assert!(lived.lost.is_none(), "three minutes over ten megabytes");
    assert!(!lived.recovered.is_empty());
    let mut stuck = link(Hung::End);
    let died = run(&mut stuck, 180_000, taking(1));
    assert_eq!(died.lost.map(|(at, _)| at), Some(3_000));
}

#[test]
fn a_shell_that_does_not_look_forfeits_it() {
    let mut link = link(Hung::End);
    let mut last = Time::ZERO;
    for _ in 0..7 {
        let Some(next) = link.next_deadline() else { break };
        last = next.at;
        link.handle(last, Input::Deadline);
        while link.poll_output().is_some() {}
    }
    assert_eq!(last, Time::from_millis(3_000));
    link.handle(Time::from_millis(3_001), Input::Received(b"too late\n"));
    let outputs = core::iter::from_fn(|| {
        link.poll_output().map(|output| match output {
            Output::Event(Event::Lost { verdict, .. }) => Some(verdict.cause),
            Output::Event(_) | Output::Transmit { .. } | Output::Examine | Output::Close(_) => None,
        })
    });
    assert_eq!(outputs.flatten().next(), Some(Cause::Unknown));
}

/// The verdict on a reset at `at`, the probes before it looked at as ever, and the last look, if
/// there is one, showing `tcp`.
fn reset_at(at: u64, tcp: Option<TcpSnapshot>) -> Verdict {
    let mut link = link(Hung::End);
    assert!(run(&mut link, at, acknowledging).lost.is_none());
    let now = Time::from_millis(at);
    link.handle(now, Input::Failed(SocketError::Reset));
    assert_eq!(link.poll_output(), Some(Output::Examine));
    assert_eq!(link.poll_output(), None, "no verdict before the look");
    link.handle(
        now,
        match tcp {
            Some(_) => Input::Examined(Examination { tcp, ..Examination::default() }),
            None => Input::Deadline,
        },
    );
    let mut lost = Run::default();
    take(&mut link, now, &acknowledging, &mut lost);
    lost.lost.unwrap().1
}

#[test]
fn a_reset_is_told_by_what_it_answers() {
    let kernel = |last_ack, sent| TcpSnapshot {
        last_ack: Span::from_millis(last_ack),
        bytes_sent: Some(sent),
        bytes_retrans: Some(0),
        bytes_acked: Some(20),
        ..TcpSnapshot::default()
    };
    let killed = reset_at(2_400, Some(kernel(360, 20)));
    assert_eq!((killed.cause, killed.confidence), (Cause::PeerExited, Confidence::High));
    assert!(killed.grounds.contains(Ground::NothingOwed));
    let forgotten = reset_at(2_400, Some(kernel(2_400, 25)));
    assert_eq!((forgotten.cause, forgotten.confidence), (Cause::PeerReset, Confidence::High));
    assert!(forgotten.grounds.contains(Ground::SegmentOwed));
}

#[test]
fn a_reset_without_a_look_is_told_by_what_was_sent_since() {
    let verdict = |at| {
        let verdict = reset_at(at, None);
        (verdict.cause, verdict.confidence)
    };
    assert_eq!(verdict(900), (Cause::PeerExited, Confidence::High), "nothing was waiting");
    assert_eq!(verdict(1_000), (Cause::PeerReset, Confidence::Medium), "just asked");
    assert_eq!(verdict(2_500), (Cause::PeerReset, Confidence::High), "after silence");
}

#[test]
fn a_routers_word_is_remembered_until_the_peer_is_heard() {
    let mut silent = link(Hung::End);
    let warned = Input::Warned(SocketError::HostUnreachable);
    silent.handle(Time::from_millis(1_100), warned);
    let lost = run(&mut silent, 10_000, |_| TcpSnapshot::default()).lost.unwrap();
    assert_eq!((lost.0, lost.1.cause), (3_000, Cause::Unreachable));

    let mut heard = link(Hung::End);
    heard.handle(Time::from_millis(1_100), warned);
    heard.handle(Time::from_millis(1_200), Input::Received(b"hello\n"));
    while heard.poll_output().is_some() {}
    let lost = run(&mut heard, 10_000, |_| TcpSnapshot::default()).lost.unwrap();
    assert_eq!((lost.0, lost.1.cause), (4_200, Cause::Unknown), "it was heard after that");
}

#[test]
fn an_error_that_a_look_took_ends_the_link_there_and_then() {
    let mut link = link(Hung::End);
    run(&mut link, 1_400, acknowledging);
    let now = Time::from_millis(1_500);
    link.handle(now, Input::Deadline);
    while link.poll_output().is_some() {}
    let error = Some(SocketError::Reset);
    link.handle(now, Input::Examined(Examination { error, ..Examination::default() }));
    let mut lost = Run::default();
    take(&mut link, now, &acknowledging, &mut lost);
    let lost = lost.lost.map(|(at, verdict)| (at, verdict.cause));
    assert_eq!(lost, Some((1_500, Cause::PeerReset)));
}

#[test]
fn acknowledged_heartbeats_are_no_progress_however_long_they_are() {
    let settings = Settings {
        examines: true,
        ..Settings::new(Codec::Message1028, Side::Connecting(Introduction::default()), policy())
    };
    let mut link = Link::new(Time::ZERO, settings, SessionKey::default(), 1);
    while link.poll_output().is_some() {}
    let shows = |millis: u64| TcpSnapshot {
        bytes_acked: Some((millis / 500 - 1) * 1_028),
        ..acknowledging(0)
    };
    let (at, verdict) = run(&mut link, 10_000, shows).lost.unwrap();
    assert_eq!((at, verdict.cause), (3_000, Cause::AppHung));
}

#[test]
fn a_wish_for_a_flood_of_probes_is_not_granted() {
    let limits = Limits::default();
    let own = Policy::default();
    let ask = |idle_ms, interval_ms, probes| {
        let wish = Policy::new(Span::from_millis(idle_ms), Span::from_millis(interval_ms), probes);
        limits.grant(Some(wish.unwrap()), own).bound()
    };
    assert_eq!(ask(1_000, 500, 2), Some(Span::from_secs(2)));
    assert_eq!(ask(1_999, 1, 1), own.bound(), "patience");
    assert_eq!(ask(100, 100, 2), own.bound(), "a bound below the shortest");
    assert_eq!(limits.grant(Some(Policy::never()), own), own);
}

#[test]
fn retunes_in_one_read_change_the_policy_once() {
    let settings = Settings::new(Codec::Native, Side::Accepting, policy());
    let mut link = Link::new(Time::ZERO, settings, SessionKey::default(), 1);
    let mut bytes = Vec::new();
    let client =
        Settings::new(Codec::Native, Side::Connecting(Introduction::default()), Policy::default());
    let mut hello = Link::new(Time::ZERO, client, SessionKey::default(), 1);
    while let Some(output) = hello.poll_output() {
        if let Output::Transmit { bytes: frame, .. } = output {
            bytes.extend_from_slice(frame);
        }
    }
    for bound in 0..100 {
        let interval = Span::from_millis(1_000 + bound);
        let wish = Policy::new(Span::from_secs(2), interval, 3).unwrap();
        Codec::Native.encode(&crate::wire::Frame::Retune(wish), &mut bytes);
    }
    link.handle(Time::ZERO, Input::Received(&bytes));
    let mut retuned = 0;
    let mut answers = 0;
    while let Some(output) = link.poll_output() {
        match output {
            Output::Event(Event::Retuned(_)) => retuned += 1,
            Output::Transmit { bytes, .. } => answers += u32::from(bytes.first() == Some(&0x60)),
            Output::Event(_) | Output::Examine | Output::Close(_) => {}
        }
    }
    assert_eq!((retuned, answers), (1, 100));
    assert_eq!(link.policy().bound(), Some(Span::from_millis(5_000)), "the first");
}
