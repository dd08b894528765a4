//! When a loop should let small things gather instead of coming round for each of them.
//!
//! A heartbeat costs its handling once, and the turn of the loop that finds it: the wake, the poll,
//! the clock. When many arrive per millisecond the turns are most of the cost, and nobody is
//! waiting for the answer to a heartbeat. So while nothing but heartbeats flows and they come
//! thick, the loop rests a moment between turns. Data is never made to wait: the first of it ends
//! the resting.

use crate::time::{Span, Time};

/// The longest rest. A verdict may be late by it, so it is small beside the 2 ms allowed.
pub const LONGEST_REST: Span = Span::from_micros(750);

/// How long after data the loop does not rest: a conversation is under way.
const QUIET: Span = Span::from_millis(100);

/// Things that must be expected in one rest for it to be worth its own wake.
const WORTHWHILE: u64 = 2;

/// Decides how long a loop rests between turns.
#[derive(Clone, Debug)]
pub struct Gather {
    last_turn: Time,
    last_data: Option<Time>,
}

impl Gather {
    /// A loop that begins at `now`.
    pub const fn new(now: Time) -> Gather {
        Gather { last_turn: now, last_data: None }
    }

    /// A turn that began at `now` handled `things`, and `data` was among them. Returns how long to
    /// rest before the next, counted from `now`.
    pub fn rest(&mut self, now: Time, things: usize, data: bool) -> Span {
        let elapsed = now.since(self.last_turn);
        self.last_turn = now;
        if data {
            self.last_data = Some(now);
        }
        if self.last_data.is_some_and(|last| now.since(last) < QUIET) {
            return Span::ZERO;
        }
        let things = things as u64;
        let expected = LONGEST_REST.times(things).as_nanos();
        let wanted = elapsed.times(WORTHWHILE).as_nanos();
        if things > 0 && expected >= wanted { LONGEST_REST } else { Span::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(micros: u64) -> Time {
        Time::ZERO + Span::from_micros(micros)
    }

    #[test]
    fn thick_heartbeats_gather_and_thin_ones_do_not() {
        let mut gather = Gather::new(us(0));
        assert_eq!(gather.rest(us(100), 1, false), LONGEST_REST);
        assert_eq!(gather.rest(us(850), 7, false), LONGEST_REST, "and goes on while it pays");
        assert_eq!(gather.rest(us(1_600), 1, false), Span::ZERO, "one could have been had alone");
        assert_eq!(gather.rest(us(9_600), 1, false), Span::ZERO);
        assert_eq!(gather.rest(us(9_700), 0, false), Span::ZERO, "nothing came");
    }

    #[test]
    fn data_is_never_made_to_wait() {
        let mut gather = Gather::new(us(0));
        assert_eq!(gather.rest(us(100), 50, true), Span::ZERO);
        assert_eq!(gather.rest(us(200), 50, false), Span::ZERO);
        assert_eq!(gather.rest(us(100_099), 5_000, false), Span::ZERO);
        assert_eq!(gather.rest(us(100_200), 50, false), LONGEST_REST);
    }
}
