//! Retunes that a peer asks for.

use crate::session;
use alloc::vec::Vec;

use super::*;
use crate::wire::Frame;

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
