//! The patience that a link emits after each input that changes it.

use alloc::vec::Vec;

use super::*;
use crate::kernel::{Patience, SendState};
use crate::wire::CloseReason;

const SENDING: SendState = SendState::Sending;

fn secs(outage: u64) -> Patience {
    Patience::new(Some(Span::from_secs(outage)), SENDING)
}

const NEVER: Patience = Patience::new(None, SENDING);

/// Hands in an input; returns the patience that the link then emits, at most one.
fn after<'a>(link: &mut Link, millis: u64, input: impl Into<Input<'a>>) -> Option<Patience> {
    let now = Time::from_millis(millis);
    link.handle(now, input);
    admit(link, now);
    patience(link)
}

/// Returns the patience that the link emits, at most one.
pub(super) fn patience(link: &mut Link) -> Option<Patience> {
    let outputs = core::iter::from_fn(|| {
        link.poll_output().map(|output| match output {
            Output::Patience(patience) => Some(patience),
            Output::Admit
            | Output::Session(_)
            | Output::Event(_)
            | Output::Transmit { .. }
            | Output::Examine { .. }
            | Output::Close(_) => None,
        })
    });
    let found: Vec<_> = outputs.flatten().collect();
    assert!(found.len() <= 1, "{found:?}");
    found.first().copied()
}

const HEARD: World<'_> = World::Received(b"hello\n");

fn retune(policy: Policy) -> World<'static> {
    World::Command(Command::Retune(policy))
}

fn hold(secs: u64) -> World<'static> {
    World::Command(Command::Hold(Span::from_secs(secs)))
}

const RELEASE: World<'_> = World::Command(Command::Release);

/// An accepting `line` link under the standard policy, before its first frame.
fn fresh() -> Link {
    let settings = Settings {
        examines: true,
        ..Settings::new(Codec::Line, Side::Accepting, Policy::standard())
    };
    Link::new(Time::ZERO, settings, 1)
}

#[test]
fn a_link_under_its_listeners_policy_emits_nothing() {
    let mut link = fresh();
    assert_eq!(patience(&mut link), None);
    for millis in 0..20 {
        assert_eq!(after(&mut link, millis * 1_000, HEARD), None);
    }
}

#[test]
fn a_link_that_gets_another_policy_emits_it() {
    let settings = Settings {
        policy: Policy::datacenter(),
        ..Settings::new(Codec::Line, Side::Accepting, Policy::standard())
    };
    let mut link = Link::new(Time::ZERO, settings, 1);
    assert_eq!(after(&mut link, 0, HEARD), Some(secs(2)), "the listener was retuned");
    let mut link = fresh();
    assert_eq!(after(&mut link, 0, retune(Policy::datacenter())), None, "not introduced yet");
    assert_eq!(after(&mut link, 1_000, HEARD), Some(secs(2)));
}

#[test]
fn a_retune_there_and_back_leaves_the_first_patience() {
    let mut link = fresh();
    after(&mut link, 0, HEARD);
    assert_eq!(after(&mut link, 0, retune(Policy::datacenter())), Some(secs(2)));
    assert_eq!(after(&mut link, 0, retune(Policy::standard())), Some(secs(30)));
    // A silence that the old policy allows stays allowed until there is evidence.
    assert_eq!(after(&mut link, 14_000, retune(Policy::datacenter())), Some(secs(16)));
    assert_eq!(after(&mut link, 14_500, HEARD), Some(secs(2)));
    assert_eq!(after(&mut link, 14_500, retune(Policy::never())), Some(NEVER));
    let observed = Policy::datacenter().with_enforce(false);
    assert_eq!(after(&mut link, 14_500, retune(observed)), None);
    assert_eq!(after(&mut link, 14_500, retune(Policy::standard())), Some(secs(30)));
}

#[test]
fn a_hold_and_its_end_are_emitted() {
    let mut link = fresh();
    after(&mut link, 0, HEARD);
    assert_eq!(after(&mut link, 10_000, hold(60)), Some(secs(10 + 60 + 30)));
    assert_eq!(after(&mut link, 20_000, HEARD), None, "the hold continues");
    assert_eq!(after(&mut link, 69_000, HEARD), None);
    assert_eq!(after(&mut link, 71_000, HEARD), Some(secs(30)), "the hold is over");
    assert_eq!(after(&mut link, 72_000, HEARD), None);

    assert_eq!(after(&mut link, 72_000, hold(60)), Some(secs(90)));
    assert_eq!(after(&mut link, 75_000, RELEASE), Some(secs(33)), "silent for 3 s");
    assert_eq!(after(&mut link, 76_000, HEARD), Some(secs(30)));

    assert_eq!(after(&mut link, 76_000, hold(1 << 32)), Some(secs((1 << 22) - 2)), "without end");
    assert_eq!(after(&mut link, 76_000, RELEASE), Some(secs(30)));
}

#[test]
fn a_hung_peer_that_is_kept_extends_the_patience() {
    let mut link = link(Hung::Keep(Span::from_secs(60)));
    let mut emitted = Vec::new();
    let mut steps = Steps::default();
    while let Some(next) = link.next_deadline().filter(|next| next.at < Time::from_millis(50_000)) {
        let millis = next.at.as_millis();
        steps.count(next.at);
        link.handle(next.at, Answer::Deadline);
        while let Some(output) = link.poll_output() {
            match output {
                Output::Examine { .. } => {
                    let tcp = Some(acknowledging(millis));
                    let examination = Examination { tcp, ..Examination::default() };
                    link.handle(next.at, Answer::Examined(examination));
                }
                Output::Patience(patience) => emitted.push((millis, patience)),
                Output::Admit
                | Output::Session(_)
                | Output::Event(_)
                | Output::Transmit { .. }
                | Output::Close(_) => {}
            }
        }
    }
    assert_eq!(emitted, [(3_000, secs(63))], "once, up to the end of the keep");
    assert_eq!(after(&mut link, 50_000, World::Received(b"pong\n")), Some(secs(3)));
}

#[test]
fn the_last_bytes_of_a_link_get_the_patience_of_leaving_before_the_close() {
    let endings = [
        (World::Command(Command::close(CloseReason::Kicked)), true),
        (World::Ended, true),
        (World::Overflowed, false),
        (World::Failed(SocketError::Local), false),
    ];
    for (input, leaves) in endings {
        let mut link = fresh();
        after(&mut link, 0, HEARD);
        link.handle(Time::from_millis(1_000), input);
        let mut last = [None; 2];
        while let Some(output) = link.poll_output() {
            last = match output {
                Output::Patience(patience) => [last[1], Some(Ok(patience))],
                Output::Close(closing) => [last[1], Some(Err(closing))],
                Output::Admit
                | Output::Session(_)
                | Output::Event(_)
                | Output::Transmit { .. }
                | Output::Examine { .. } => [None; 2],
            };
        }
        let leaving = Patience::new(None, SendState::Leaving);
        let expected = match leaves {
            true => [Some(Ok(leaving)), Some(Err(Closing::Flush))],
            false => [None, Some(Err(Closing::Abort))],
        };
        assert_eq!(last, expected, "{input:?}");
    }
}

/// Checks, with random inputs, that no silence outlasts the patience that was emitted last.
#[test]
fn no_mix_of_commands_lets_the_kernel_end_the_link_before_the_core() {
    let mut random = Random::new(11);
    for _ in 0..300 {
        let mut link = fresh();
        let mut allowed = Patience::of(&Policy::standard());
        let (mut now, mut heard) = (0, 0);
        let mut step = |link: &mut Link, millis: u64, input: Input<'_>| {
            allowed = after(link, millis, input).unwrap_or(allowed);
            allowed.outage().map_or(u64::MAX, Span::as_millis)
        };
        step(&mut link, 0, HEARD.into());
        for _ in 0..40 {
            let next = now + random.below(20_000);
            let mut over = false;
            while let Some(due) = link.next_deadline().filter(|due| due.at.as_millis() <= next) {
                let at = due.at.as_millis();
                let outage = step(&mut link, at, Answer::Deadline.into());
                let outage = outage.max(step(
                    &mut link,
                    at,
                    Answer::Examined(Examination::default()).into(),
                ));
                assert!(at - heard <= outage, "at {at} ms, heard at {heard} ms: {outage} ms");
                over |= link.next_deadline().is_none_or(|next| next.at <= due.at);
                if over {
                    break;
                }
            }
            if over {
                break;
            }
            now = next;
            let policies = [
                Policy::standard(),
                Policy::datacenter(),
                Policy::demanding(),
                Policy::never(),
                Policy::relaxed().with_enforce(false),
            ];
            let input = match random.below(6) {
                0 => hold(random.below(90)),
                1 => RELEASE,
                2 | 3 => retune(policies[random.below(5) as usize]),
                _ => HEARD,
            };
            if input == HEARD {
                heard = now;
            }
            let outage = step(&mut link, now, input.into());
            assert!(now - heard <= outage, "at {now} ms, heard at {heard} ms: {outage} ms");
        }
    }
}
