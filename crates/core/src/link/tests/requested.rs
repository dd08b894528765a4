//! Heartbeats that the application wants.

use alloc::vec::Vec;

use super::*;
use crate::flight::Incident;
use crate::session;

/// A native link of the connecting side, and its HELLO as output.
fn client() -> Link {
    let settings = Settings {
        report_heartbeats: true,
        ..Settings::new(Codec::Line, Side::Connecting(Introduction::default()), policy())
    };
    Link::new(Time::ZERO, settings, 1)
}

/// Runs a link with a silent peer to its end, with a heartbeat on request each `period` if there is
/// one. Returns the times of suspicion and verdict, and the numbers of all PINGs in order.
fn run(period: Option<Span>) -> (Vec<Time>, Vec<u8>) {
    let mut link = client();
    let (mut times, mut numbers, mut steps) = (Vec::new(), Vec::new(), Steps::default());
    let mut request = period.map(|period| Time::ZERO + period);
    loop {
        while let Some(output) = link.poll_output() {
            if let Output::Event(Event::HeartbeatSent { beat: BeatKind::Ping, number, .. }) = output
            {
                numbers.push(number);
            } else if let Output::Session(session::Event::Left(verdict)) = output {
                times.push(verdict.at);
                return (times, numbers);
            } else if let Output::Session(session::Event::Suspect) = output {
                times.push(link.last_heard());
            }
        }
        let deadline = link.next_deadline().unwrap().at;
        let now = request.map_or(deadline, |request| request.min(deadline));
        steps.count(now);
        if Some(now) == request {
            link.handle(now, World::Command(Command::Heartbeat));
            request = period.map(|period| now + period);
        } else {
            link.handle(now, Answer::Deadline);
        }
    }
}

#[test]
fn heartbeats_on_request_change_neither_suspicion_nor_verdict() {
    let (times, numbers) = run(None);
    assert_eq!(numbers, [1, 2, 3, 4]);
    let (same, more) = run(Some(Span::from_millis(300)));
    assert_eq!(times, same);
    let probes: Vec<u8> = more.iter().copied().filter(|number| *number > 0).collect();
    assert_eq!(probes, [1, 2, 3, 4], "the probes of the policy go on");
    assert_eq!(more.len() - probes.len(), 10, "one each 0.3 s, up to the verdict at 3 s");
}

#[test]
fn a_heartbeat_on_request_measures_the_round_trip() {
    let mut link = client();
    while link.poll_output().is_some() {}
    link.handle(Time::from_millis(10), World::Command(Command::Heartbeat));
    assert!(link.flight().iter().any(|entry| entry.incident == Incident::Requested));
    while link.poll_output().is_some() {}
    link.handle(Time::from_millis(17), World::Received(b"pong\n"));
    assert_eq!(link.rtt(), Some(Span::from_millis(7)));
}

#[test]
fn no_heartbeat_goes_out_before_the_handshake_or_after_the_end() {
    let settings = Settings::new(Codec::Line, Side::Accepting, policy());
    let mut link = Link::new(Time::ZERO, settings, 1);
    link.handle(Time::ZERO, World::Command(Command::Heartbeat));
    assert_eq!(link.poll_output(), None);
    link.handle(Time::ZERO, World::Failed(SocketError::TimedOut));
    while link.poll_output().is_some() {}
    link.handle(Time::ZERO, World::Command(Command::Heartbeat));
    assert_eq!(link.poll_output(), None);
}
