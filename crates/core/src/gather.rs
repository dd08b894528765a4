//! Decides when a loop rests between turns, so that one turn handles several heartbeats.
//!
//! A heartbeat costs its own handling and a share of a turn of the loop: the wake-up, the poll, the
//! clock. If many heartbeats arrive per millisecond, the turns are most of the cost, and no
//! application waits for the answer to a heartbeat. So while only heartbeats arrive, and at a high
//! rate, the loop rests briefly between turns. Data is not delayed: the first data ends the rests.

use crate::time::{Span, Time};

/// The longest rest. It may delay a verdict, so it is small compared with the allowed 2 ms.
pub const LONGEST_REST: Span = Span::from_micros(750);

/// The time after data in which the loop does not rest, because more data is likely.
const NO_REST_AFTER_DATA: Span = Span::from_millis(100);

/// The minimum number of expected events that makes a rest cheaper than separate turns.
const MIN_EXPECTED: u64 = 2;

/// The rule that decides how long a loop rests between turns.
#[derive(Clone, Debug)]
pub struct Gather {
    last_turn: Time,
    last_data: Option<Time>,
}

impl Gather {
    /// Creates the rule for a loop that begins at `now`.
    pub const fn new(now: Time) -> Gather {
        Gather { last_turn: now, last_data: None }
    }

    /// Returns how long to rest before the next turn, counted from `now`, after a turn that began
    /// at
    /// `now` and handled `events` events; `data` is true if there was data among them.
    pub fn rest(&mut self, now: Time, events: usize, data: bool) -> Span {
        let elapsed = now.since(self.last_turn);
        self.last_turn = now;
        if data {
            self.last_data = Some(now);
        }
        if self.last_data.is_some_and(|last| now.since(last) < NO_REST_AFTER_DATA) {
            return Span::ZERO;
        }
        let events = events as u64;
        let expected = LONGEST_REST.times(events).as_nanos();
        let wanted = elapsed.times(MIN_EXPECTED).as_nanos();
        if events > 0 && expected >= wanted { LONGEST_REST } else { Span::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(micros: u64) -> Time {
        Time::ZERO + Span::from_micros(micros)
    }

    #[test]
    fn frequent_heartbeats_cause_rests_and_rare_ones_do_not() {
        let mut gather = Gather::new(us(0));
        assert_eq!(gather.rest(us(100), 1, false), LONGEST_REST);
        assert_eq!(gather.rest(us(850), 7, false), LONGEST_REST, "and goes on while it pays");
        assert_eq!(gather.rest(us(1_600), 1, false), Span::ZERO, "one could have been had alone");
        assert_eq!(gather.rest(us(9_600), 1, false), Span::ZERO);
        assert_eq!(gather.rest(us(9_700), 0, false), Span::ZERO, "nothing came");
    }

    #[test]
    fn data_is_never_delayed() {
        let mut gather = Gather::new(us(0));
        assert_eq!(gather.rest(us(100), 50, true), Span::ZERO);
        assert_eq!(gather.rest(us(200), 50, false), Span::ZERO);
        assert_eq!(gather.rest(us(100_099), 5_000, false), Span::ZERO);
        assert_eq!(gather.rest(us(100_200), 50, false), LONGEST_REST);
    }
}
