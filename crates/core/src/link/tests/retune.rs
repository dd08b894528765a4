//! Retunes that a peer asks for.

use crate::session;
use alloc::vec::Vec;

use super::*;
use crate::wire::{Frame, Malformed, Welcome};

#[test]
fn several_retunes_in_one_read_change_the_policy_once() {
    let settings = Settings::new(Codec::Native, Side::Accepting, policy());
    let mut link = Link::new(Time::ZERO, settings, 1);
    let mut bytes = hello();
    for bound in 0..100 {
        let interval = Span::from_millis(1_000 + bound);
        let wish = Policy::new(Span::from_secs(2), interval, 3).unwrap();
        Codec::Native.encode(&Frame::Retune(wish), &mut bytes);
    }
    link.handle(Time::ZERO, World::Received(&bytes));
    admit(&mut link, Time::ZERO);
    let mut retuned = 0;
    let mut answers = 0;
    while let Some(output) = link.poll_output() {
        match output {
            Output::Session(session::Event::Retuned(_)) => retuned += 1,
            Output::Transmit { bytes, .. } => answers += u32::from(bytes.first() == Some(&0x60)),
            Output::Session(_)
            | Output::Event(_)
            | Output::Examine { .. }
            | Output::Patience(_)
            | Output::Admit
            | Output::Close(_) => {}
        }
    }
    assert_eq!((retuned, answers), (1, 100));
    assert_eq!(link.policy().bound(), Some(Span::from_millis(5_000)), "the first request");
}

#[test]
fn a_storm_of_requests_changes_the_policy_once_a_second() {
    let settings = Settings::new(Codec::Native, Side::Accepting, policy());
    let mut link = Link::new(Time::ZERO, settings, 1);
    link.handle(Time::ZERO, World::Received(&hello()));
    admit(&mut link, Time::ZERO);
    while link.poll_output().is_some() {}
    let (mut retuned, mut answers) = (0, 0);
    for step in 0..3_000 {
        let wish = Policy::new(Span::from_secs(2), Span::from_millis(1_000 + step % 2), 3).unwrap();
        let mut bytes = Vec::new();
        Codec::Native.encode(&Frame::Retune(wish), &mut bytes);
        link.handle(Time::from_millis(step), World::Received(&bytes));
        while let Some(output) = link.poll_output() {
            match output {
                Output::Session(session::Event::Retuned(_)) => retuned += 1,
                Output::Transmit { .. } => answers += 1,
                Output::Session(_)
                | Output::Event(_)
                | Output::Examine { .. }
                | Output::Patience(_)
                | Output::Admit
                | Output::Close(_) => {}
            }
        }
    }
    assert!((1..=3).contains(&retuned), "{retuned} changes in 3 s");
    assert_eq!(answers, 3_000, "each request is answered");
}

/// Lets a connecting link receive WELCOME with `welcomed` and RETUNE with `retuned`; returns the
/// cause of its end.
fn granted(welcomed: Policy, retuned: Policy) -> Option<Cause> {
    let side = Side::Connecting(Introduction::default());
    let mut link = Link::new(Time::ZERO, Settings::new(Codec::Native, side, policy()), 1);
    let welcome = Welcome {
        resumption: crate::wire::Resumption::NotAsked,
        windows: None,
        boot_id: BootId([7; 16]),
        instance_id: InstanceId([8; 16]),
        session: 9,
        epoch: 10,
        received: 0,
        server_time_ms: 11,
        resume_window_ms: 0,
        largest_data: 500,
        policy: welcomed,
        resume_token: &[],
    };
    let mut bytes = Vec::new();
    for frame in [Frame::Welcome(welcome), Frame::Retune(retuned)] {
        Codec::Native.encode(&frame, &mut bytes);
    }
    link.handle(Time::ZERO, World::Received(&bytes));
    let mut cause = None;
    while let Some(output) = link.poll_output() {
        if let Output::Session(session::Event::Left(verdict)) = output {
            cause = Some(verdict.cause);
        }
    }
    cause
}

#[test]
fn a_gateway_that_grants_shorter_times_than_the_shortest_breaks_the_protocol() {
    let times = |idle, interval| {
        Policy::new(Span::from_millis(idle), Span::from_millis(interval), 3).unwrap()
    };
    let legal = times(50, 50);
    assert_eq!(granted(legal, legal), None);
    assert_eq!(granted(Policy::never(), Policy::never()), None);
    for illegal in [times(49, 1_000), times(1_000, 49), times(1, 1)] {
        let broken = Some(Cause::Protocol(Malformed::Policy));
        assert_eq!(granted(illegal, legal), broken, "{illegal}");
        assert_eq!(granted(legal, illegal), broken, "{illegal}");
    }
}
