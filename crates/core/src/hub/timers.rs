//! When the timers of the hub fire: those that may fire early stand on a grid, so that one turn of
//! a loop handles many, and their answers come together too. A wake-up costs more than the
//! heartbeat for which it comes.

use crate::driver::Timer;
use crate::link::Peer;
use crate::machine::Deadline;
use crate::policy::{Detection, Policy};
use crate::time::{Span, Time};

/// The number of timers of links that are not in doubt which may be expected to fire at once. More
/// cost less and delay verdicts (docs/performance.md, section 5): links whose answers came together
/// are due together, and if they fall silent together, each verdict waits for those before it.
const BATCH: u32 = 64;

/// The longest step of the grid. Bounds are whole seconds as a rule, and neither this step nor its
/// parts divide one: the verdict on peers that answered together does not come at the time of other
/// peers' probes.
const LONGEST_STEP: Span = Span::from_millis(450);

/// The grid of one shard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    /// The place of the grid in its step, in parts of 256.
    offset: u8,
}

impl Grid {
    /// Returns the grid of a shard. The grids of all shards are evenly apart, so that their work
    /// does not come at the same time: half a step, quarters of a step, and so on.
    pub(super) fn of_shard(shard: u8) -> Grid {
        Grid { offset: shard.reverse_bits() }
    }

    /// Returns `at`, moved to the grid before it.
    fn before(self, at: Time, step: Span) -> Time {
        let step = step.as_nanos();
        if step == 0 {
            return at;
        }
        let ahead = step - step / 256 * u64::from(self.offset);
        Time::from_nanos(at.as_nanos().saturating_sub(at.as_nanos().saturating_add(ahead) % step))
    }
}

/// Returns when to handle `deadline` of `peer`, in a hub with this number of `links`.
pub(super) fn timer(peer: &Peer, deadline: &Deadline, now: Time, links: u32, grid: Grid) -> Timer {
    let due = grid.before(deadline.at, step(deadline.slack, peer.policy(), links));
    let rearm = peer.rearm_slack(deadline);
    if rearm == Span::ZERO {
        return Timer::exact(due);
    }
    let early = grid.before(deadline.at, step(rearm, peer.policy(), links));
    Timer { due, fires: if early > now { early } else { due } }
}

/// Returns the step of the grid of a timer that may be early by `slack`: the longest of 450 ms,
/// 225 ms, 112.5 ms and so on that `slack` allows and in which at most [`BATCH`] timers are
/// expected, if all `links` have this policy.
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
    let parts = LONGEST_STEP.as_nanos().div_ceil(longest).next_power_of_two();
    Span::from_nanos(LONGEST_STEP.as_nanos() / parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step_us(slack_ms: u64, policy: &Policy, links: u32) -> u64 {
        step(Span::from_millis(slack_ms), policy, links).as_micros()
    }

    #[test]
    fn a_step_is_as_long_as_the_slack_and_the_number_of_links_allow() {
        let policy = Policy::standard();
        for (slack, links, expected) in [
            (500, 0, 450_000),
            (500, 1, 450_000),
            (500, 2_133, 450_000),
            (500, 2_134, 225_000),
            (500, 4_267, 112_500),
            (625, 1, 450_000),
            (449, 1, 225_000),
            (125, 1, 112_500),
            (100, 1, 56_250),
            (0, 1, 0),
        ] {
            assert_eq!(step_us(slack, &policy, links), expected, "{slack} ms, {links} links");
        }
        let many = step(Span::from_millis(500), &policy, 1 << 24);
        assert!(many > Span::ZERO && many.times(1 << 24) <= Span::from_secs(15).times(64));
    }

    #[test]
    fn without_a_bound_the_keepalive_counts() {
        let never = Policy::never().with_keepalive(Span::from_secs(1)).unwrap();
        assert_eq!(step_us(125, &never, 568), 112_500);
        assert_eq!(step_us(125, &never, 569), 56_250);
        assert_eq!(step_us(125, &Policy::never(), 1), 0, "nothing is sent");
    }

    #[test]
    fn a_time_moves_to_the_grid_before_it() {
        let (at, step) = (Time::from_nanos(1_000_000_001), Span::from_millis(125));
        let grid = Grid::of_shard(0);
        assert_eq!(grid.before(at, step), Time::from_millis(1_000));
        assert_eq!(grid.before(Time::from_millis(1_000), step), Time::from_millis(1_000));
        assert_eq!(grid.before(at, Span::ZERO), at);
    }

    #[test]
    fn the_grids_of_shards_are_evenly_apart() {
        let step = Span::from_nanos(256_000);
        let place = |shard| {
            let on_grid = Grid::of_shard(shard).before(Time::from_millis(1_000), step);
            on_grid.as_nanos() % step.as_nanos() / 1_000
        };
        assert_eq!([0, 1, 2, 3, 255].map(place), [0, 128, 64, 192, 255]);
        for shard in 0..=u8::MAX {
            let grid = Grid::of_shard(shard);
            for nanos in [0, 1, 127_999, 128_000, 255_999, 256_000, u64::MAX] {
                let (at, before) = (nanos, grid.before(Time::from_nanos(nanos), step).as_nanos());
                assert!(before <= at && at - before < 256_000, "shard {shard}: {before} for {at}");
            }
        }
    }

    #[test]
    fn no_bound_of_whole_seconds_is_a_number_of_steps() {
        let secs = |secs: u64| Span::from_secs(secs).as_nanos();
        for parts in (0..8).map(|exponent| 1 << exponent) {
            let step = LONGEST_STEP.as_nanos() / parts;
            assert!((1..60).all(|bound| bound % 9 == 0 || secs(bound) % step != 0), "{parts}");
        }
    }
}
