//! When the timers of the hub fire: those that may fire early stand on a grid, so that one turn of
//! a loop handles many, and their answers come together too. A wake-up costs more than the
//! heartbeat for which it comes.

use crate::link::Peer;
use crate::liveness::Deadline;
use crate::policy::{Detection, LONGEST_SLACK, Policy};
use crate::time::{Span, Time};

/// The number of timers of links that are not in doubt which may be expected to fire at once. More
/// cost less and delay verdicts (docs/performance.md, section 5): links whose answers came together
/// are due together, and if they fall silent together, each verdict waits for those before it.
const BATCH: u32 = 16;

/// When to handle a deadline.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timer {
    /// The time from which the input [`Deadline`](crate::link::Input::Deadline) has its effect.
    pub(super) due: Time,
    /// The time at which the timer fires. It may lie before `due`; then it is armed again.
    pub(super) fires: Time,
}

impl Timer {
    /// Returns when to handle `deadline` of `peer`, which is one of so many `links`.
    pub(super) fn of(peer: &Peer, deadline: &Deadline, now: Time, links: u32) -> Timer {
        let due = on_grid(deadline.at, step(deadline.slack, peer.policy(), links));
        let rearm = peer.rearm_slack(deadline);
        if rearm == Span::ZERO {
            return Timer { due, fires: due };
        }
        let early = on_grid(deadline.at, step(rearm, peer.policy(), links));
        Timer { due, fires: if early > now { early } else { due } }
    }
}

/// Returns the step of the grid of a timer that may be early by `slack`: the longest of 500 ms,
/// 250 ms, 125 ms and so on that `slack` allows and in which at most [`BATCH`] timers are expected,
/// if all `links` have this policy.
fn step(slack: Span, policy: &Policy, links: u32) -> Span {
    let period = match policy.detection() {
        Detection::Bounded { idle, .. } => idle,
        Detection::Never => policy.keepalive().unwrap_or(Span::ZERO),
    };
    let filled = period.as_nanos().saturating_mul(u64::from(BATCH)) / u64::from(links.max(1));
    let longest = slack.as_nanos().min(filled);
    if longest == 0 {
        return Span::ZERO;
    }
    // The least power of two by which the longest step must be divided.
    let parts = LONGEST_SLACK.as_nanos().div_ceil(longest).next_power_of_two();
    Span::from_nanos(LONGEST_SLACK.as_nanos() / parts)
}

/// Returns `at`, moved to the grid before it.
fn on_grid(at: Time, step: Span) -> Time {
    match at.as_nanos().checked_rem(step.as_nanos()) {
        Some(past) => Time::from_nanos(at.as_nanos() - past),
        None => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step_ms(slack_ms: u64, policy: &Policy, links: u32) -> u64 {
        step(Span::from_millis(slack_ms), policy, links).as_millis()
    }

    #[test]
    fn a_step_is_as_long_as_the_slack_and_the_number_of_links_allow() {
        let policy = Policy::standard();
        for (slack, links, expected) in [
            (500, 0, 500),
            (500, 1, 500),
            (500, 480, 500),
            (500, 481, 250),
            (500, 1_920, 125),
            (625, 1, 500),
            (499, 1, 250),
            (125, 1, 125),
            (100, 1, 62),
            (0, 1, 0),
        ] {
            assert_eq!(step_ms(slack, &policy, links), expected, "{slack} ms, {links} links");
        }
        let many = step(Span::from_millis(500), &policy, 1 << 24);
        assert!(many > Span::ZERO && many.times(1 << 24) <= Span::from_secs(15).times(16));
    }

    #[test]
    fn without_a_bound_the_keepalive_counts() {
        let never = Policy::never().with_keepalive(Span::from_secs(1)).unwrap();
        assert_eq!(step_ms(125, &never, 128), 125);
        assert_eq!(step_ms(125, &never, 129), 62);
        assert_eq!(step_ms(125, &Policy::never(), 1), 0, "nothing is sent");
    }

    #[test]
    fn a_time_moves_to_the_grid_before_it() {
        let (at, step) = (Time::from_nanos(1_000_000_001), Span::from_millis(125));
        assert_eq!(on_grid(at, step), Time::from_millis(1_000));
        assert_eq!(on_grid(Time::from_millis(1_000), step), Time::from_millis(1_000));
        assert_eq!(on_grid(at, Span::ZERO), at);
    }
}
