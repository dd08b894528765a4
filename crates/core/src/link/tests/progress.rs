//! Peers that take bytes while they are silent, quickly, slowly or not at all.

use crate::session;
use alloc::vec::Vec;

use super::*;
use crate::kernel::SendState;
use crate::liveness::Role;

const fn ms(millis: u64) -> Time {
    Time::from_millis(millis)
}

/// A link with an interval of 2 s and D = 8 s that was sent data, and whose round trip of 3 s
/// delays the suspicion beyond the bound.
fn slow_link(role: Role) -> Link {
    let policy = Policy::new(Span::from_secs(2), Span::from_secs(2), 3).unwrap();
    let policy = policy.with_spread(false);
    let settings =
        Settings { examines: true, role, ..Settings::new(Codec::Line, Side::Accepting, policy) };
    let mut link = Link::new(Time::ZERO, settings, 1);
    link.handle(Time::ZERO, World::Received(b"ping\n"));
    admit(&mut link, Time::ZERO);
    let data = Command::Send { bytes: &[7; 4_096], more: false, kind: DataKind::default() };
    link.handle(Time::ZERO, World::Command(data));
    while link.poll_output().is_some() {}
    link.peer.set_round_trip(Span::from_secs(3));
    link
}

/// The socket of a peer that takes so many bytes a second of those that wait for it.
fn taking(rate: u64) -> impl Fn(u64) -> TcpSnapshot {
    move |millis| TcpSnapshot {
        unacked: 10,
        notsent: Some(100_000),
        bytes_acked: Some(millis * rate / 1_000),
        ..acknowledging(0)
    }
}

#[test]
fn a_slow_peer_with_a_long_round_trip_lives_as_long_as_it_takes_bytes() {
    for role in [Role::Probe, Role::Watch] {
        let found = run(&mut slow_link(role), 100_000, taking(3_000));
        assert_eq!(found.lost.map(|(at, _)| at), None, "{role:?}");
        let found = run(&mut slow_link(role), 100_000, taking(500));
        assert_eq!(found.lost.map(|(at, _)| at), Some(8_000), "{role:?} below the floor rate");
    }
}

#[test]
fn a_hung_peer_with_a_long_round_trip_is_told_as_hung() {
    let shows = |_: u64| TcpSnapshot { bytes_acked: Some(4_096), ..acknowledging(0) };
    let found = run(&mut slow_link(Role::Probe), 100_000, shows);
    let lost = found.lost.map(|(at, verdict)| (at, verdict.cause));
    assert_eq!(lost, Some((8_000, Cause::AppHung)));
}

#[test]
fn bytes_that_no_longer_wait_are_no_progress() {
    let shows = |millis: u64| TcpSnapshot { bytes_acked: Some(millis * 4), ..acknowledging(0) };
    let found = run(&mut link(Hung::End), 60_000, shows);
    assert_eq!(found.recovered, [], "its kernel took them");
    let lost = found.lost.map(|(at, verdict)| (at, verdict.cause));
    assert_eq!(lost, Some((3_000, Cause::AppHung)));
}

#[test]
fn progress_without_a_suspicion_refutes_an_error_of_a_router() {
    let one = Policy::new(Span::from_secs(1), Span::from_millis(500), 1).unwrap();
    let mut link = link(Hung::End);
    link.handle(Time::ZERO, World::Command(Command::Retune(one.with_spread(false))));
    while link.poll_output().is_some() {}
    run(&mut link, 1_000, taking(0));
    link.handle(ms(1_200), World::Warned(SocketError::HostUnreachable));
    poll(&mut link, ms(1_200), &taking(0), &mut Run::default());
    let taken = TcpSnapshot { bytes_acked: Some(100_000), ..taking(0)(0) };
    let silent = TcpSnapshot { last_ack: Span::from_secs(60), ..taken };
    let found = run(&mut link, 10_000, |at| if at < 2_000 { taken } else { silent });
    let lost = found.lost.map(|(at, verdict)| (at, verdict.cause));
    assert_eq!(lost, Some((3_000, Cause::Unknown)));
}

/// A snapshot of a peer that reads slowly, at a moment in which its window is closed or open.
fn slow_reader(closed: bool) -> TcpSnapshot {
    let (send_window, unacked) = if closed { (Some(0), 0) } else { (Some(4_096), 2) };
    TcpSnapshot {
        notsent: Some(100_000),
        send_window,
        unacked,
        backoff: u8::from(closed),
        last_sent: Span::from_millis(700),
        ..acknowledging(0)
    }
}

/// Runs a link whose peer says something `every` so many seconds while bytes wait for it. Returns
/// the states of the sending side that were put in force, and when the peer was said not to read.
fn talking(
    seconds: u64,
    every: usize,
    shows: impl Fn(u64) -> TcpSnapshot,
) -> (Vec<SendState>, Vec<u64>) {
    let policy = Policy::new(Span::from_secs(15), Span::from_secs(5), 3).unwrap();
    let settings =
        Settings { examines: true, ..Settings::new(Codec::Line, Side::Accepting, policy) };
    let mut link = Link::new(Time::ZERO, settings, 1);
    let (mut states, mut warned) = (Vec::new(), Vec::new());
    let mut step = |link: &mut Link, now: Time, input: Input<'_>| {
        link.handle(now, input);
        admit(link, now);
        loop {
            let mut examine = false;
            while let Some(output) = link.poll_output() {
                match output {
                    Output::Examine { .. } => examine = true,
                    Output::Patience(patience) => states.push(patience.send()),
                    Output::Session(session::Event::Warned {
                        cause: Cause::NotReading, ..
                    }) => {
                        warned.push(now.as_millis());
                    }
                    Output::Session(_)
                    | Output::Event(_)
                    | Output::Transmit { .. }
                    | Output::Admit
                    | Output::Close(_) => {}
                }
            }
            if !examine {
                return;
            }
            // The look at the admission: the first answer is on its way.
            let tcp = match now {
                Time::ZERO => TcpSnapshot { unacked: 1, ..acknowledging(0) },
                _ => shows(now.as_millis()),
            };
            let tcp = Some(tcp);
            link.handle(now, Answer::Examined(Examination { tcp, ..Examination::default() }));
        }
    };
    let mut steps = Steps::default();
    for second in (0..seconds).step_by(every) {
        step(&mut link, ms(second * 1_000), World::Received(b"ping\n").into());
        let until = ms((second + every as u64) * 1_000 - 1);
        while let Some(next) = link.next_deadline().filter(|next| next.at <= until) {
            steps.count(next.at);
            step(&mut link, next.at, Answer::Deadline.into());
        }
    }
    (states, warned)
}

#[test]
fn a_window_that_closes_again_and_again_counts_as_closed_until_everything_has_arrived() {
    let (states, _) = talking(100, 1, |millis| slow_reader(millis / 8_000 % 2 == 1));
    assert_eq!(states, [SendState::Closed], "the kernel counts from its first window probe");
    let (states, _) = talking(100, 1, |millis| match millis {
        0..50_000 => slow_reader(millis / 8_000 % 2 == 1),
        _ => acknowledging(0),
    });
    assert_eq!(states, [SendState::Closed, SendState::Sending]);
}

#[test]
fn a_peer_that_reads_slowly_is_not_told_as_one_that_does_not_read() {
    let (_, warned) = talking(200, 1, |_| slow_reader(true));
    assert_eq!(warned, []);
    let stuck = |_| TcpSnapshot { last_sent: Span::from_secs(60), ..slow_reader(true) };
    let (_, warned) = talking(200, 1, stuck);
    assert_eq!(warned, [16_000]);
}

#[test]
fn a_peer_that_does_not_read_is_reported_once_until_its_window_opens() {
    let stuck = |_: u64| TcpSnapshot {
        last_sent: Span::from_secs(60),
        last_ack: Span::from_millis(500),
        ..slow_reader(true)
    };
    // It says something every 20 s: always after a suspicion, never as late as the bound.
    let (_, warned) = talking(200, 20, stuck);
    assert_eq!(warned.len(), 1, "{warned:?}");
}

#[test]
fn a_kept_peer_survives_a_window_probe_that_was_lost() {
    let not_reading = |age: u64, probes| TcpSnapshot {
        notsent: Some(9_000),
        send_window: Some(0),
        backoff: 4,
        probes,
        last_ack: Span::from_millis(age),
        ..acknowledging(0)
    };
    // At 15 s a probe of the kernel is unanswered, and the last answer is older than the bound.
    let lost = |at| if at == 15_000 { not_reading(6_000, 1) } else { not_reading(40, 0) };
    let found = run(&mut link(Hung::Keep(Span::from_secs(60))), 100_000, lost);
    assert_eq!(
        found.lost.map(|(at, verdict)| (at, verdict.cause)),
        Some((63_000, Cause::NotReading))
    );
    let dead = |at| if at < 14_000 { not_reading(40, 0) } else { not_reading(at - 13_000, 3) };
    let found = run(&mut link(Hung::Keep(Span::from_secs(60))), 100_000, dead);
    assert!(found.lost.is_some_and(|(at, _)| at <= 18_000), "its machine is dead");
}
