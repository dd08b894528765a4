//! Decides how long a loop waits after a turn, and how much of it as a rest, so that one turn
//! handles several heartbeats.
//!
//! A heartbeat costs its own handling and a share of a turn of the loop: the wake-up, the poll, the
//! clock. The turns are most of the cost, and no application waits for the answer to a heartbeat.
//! So while only heartbeats flow, the loop rests between turns: readiness of a socket does not end
//! a rest, a command does, and so does a deadline. Data ends the rests for a while: in a
//! conversation nothing is delayed, and only a message after a silence may wait for one rest.

use crate::policy::Policy;
use crate::time::{Span, Time};

/// The default of the longest rest. It saves most of the turns of a gateway whose links send a few
/// heartbeats per millisecond, and is short compared with the round trip of a message.
pub const LONGEST_REST: Span = Span::from_millis(4);

/// The longest rest beside a demanding link, and the longest that may pass a deadline: it is short
/// compared with the 2 ms by which a verdict may be late.
pub const BRIEF_REST: Span = Span::from_micros(750);

/// The longest wait of a loop. A stall is detected by a wake-up later than planned, so the planned
/// wait must be short compared with the deadlines; ten wake-ups a second cost nothing.
pub const LONGEST_WAIT: Span = Span::from_millis(100);

/// A bound up to this one, which is that of [`Policy::demanding`], says that times matter.
const DEMANDING_BOUND: Span = Span::from_secs(8);

/// The time after data in which the loop does not rest, because more data is likely.
const NO_REST_AFTER_DATA: Span = Span::from_millis(100);

/// The minimum number of expected heartbeats of the peers that makes a rest cheaper than separate
/// turns: a rest takes a wake-up and a system call more, and after it the memory of the sockets is
/// no longer in the processor's caches. Measured: at 3.6 a rest costs as much as it saves, at 7 it
/// saves a tenth to a quarter.
const MIN_EXPECTED: u64 = 5;

/// The minimum time over which the frequency of heartbeats is measured. The gaps between single
/// heartbeats say little about it.
const MEASURED: Span = Span::from_millis(20);

/// Returns whether links under `policy` are demanding: beside them a loop rests only briefly.
pub fn is_demanding(policy: &Policy) -> bool {
    policy.bound().is_some_and(|bound| bound <= DEMANDING_BOUND)
}

/// The rule that decides how long a loop waits after a turn.
#[derive(Clone, Debug)]
pub struct Gather {
    longest: Span,
    passes_deadlines: bool,
    arrivals: Arrivals,
    last_data: Option<Time>,
    /// The number of heartbeats last sent that were no answers, and are not answered.
    awaited: u64,
}

/// A turn of a loop: what it did, and what comes next.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// When the turn began.
    pub began: Time,
    /// The present time, at the end of the turn.
    pub now: Time,
    /// The number of sockets or datagrams read.
    pub read: usize,
    /// The number of heartbeats sent.
    pub sent: u64,
    /// Whether data was received or sent.
    pub data: bool,
    /// Whether the next turn has work already.
    pub busy: bool,
    /// Whether a link is demanding; see [`is_demanding`].
    pub demanding: bool,
    /// The next deadline. It may be in the past.
    pub deadline: Option<Time>,
}

/// How long a loop waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wait {
    /// The first part: the loop waits for commands alone.
    pub rest: Span,
    /// The part after the rest: the loop waits for commands and sockets. Zero means that it only
    /// asks which sockets are ready. After a rest that a command has ended, this part is left out.
    pub poll: Span,
}

impl Wait {
    /// Returns the length of both parts.
    pub fn total(&self) -> Span {
        self.rest + self.poll
    }
}

impl Gather {
    /// Creates the rule for a loop of links that begins at `now` and rests for at most `longest`,
    /// never beyond a deadline.
    pub const fn of_links(now: Time, longest: Span) -> Gather {
        Gather::new(now, longest, false)
    }

    /// Creates the rule for a loop of beacons that begins at `now` and rests for at most `longest`.
    /// With a million devices some deadline is always near: rests are brief, and may pass them.
    pub fn of_beacons(now: Time, longest: Span) -> Gather {
        Gather::new(now, longest.min(BRIEF_REST), true)
    }

    const fn new(now: Time, longest: Span, passes_deadlines: bool) -> Gather {
        let arrivals = Arrivals { count: 0, since: now, measured: (0, MEASURED) };
        Gather { longest, passes_deadlines, arrivals, last_data: None, awaited: 0 }
    }

    /// Returns how long to wait after `turn`.
    pub fn wait(&mut self, turn: &Turn) -> Wait {
        if turn.data {
            self.last_data = Some(turn.began);
        }
        if turn.busy {
            return Wait::default();
        }
        let until_deadline = turn.deadline.map_or(LONGEST_WAIT, |at| at.since(turn.now));
        let whole = until_deadline.min(LONGEST_WAIT);
        let rest = if self.pays(turn) { self.rest(turn, until_deadline) } else { Span::ZERO };
        Wait { rest, poll: whole.less(rest) }
    }

    /// Returns whether a rest would likely gather several events, and delays no conversation.
    fn pays(&mut self, turn: &Turn) -> bool {
        let read = turn.read as u64;
        let answered = read.min(self.awaited);
        // Heartbeats that answer none will be answered; how soon is not known for older ones.
        self.awaited = match turn.sent.saturating_sub(read) {
            0 => self.awaited - answered,
            asked => asked,
        };
        // That all answers have come says nothing about what comes next.
        self.arrivals.count(turn.began, read - answered);
        if self.last_data.is_some_and(|last| turn.began.since(last) < NO_REST_AFTER_DATA) {
            return false;
        }
        self.arrivals.expected_in(self.longest(turn)) >= MIN_EXPECTED
    }

    /// Returns the length of a rest that pays. It counts from the beginning of the turn, so that
    /// the work of a long turn is not added to the wait of those who come in it.
    fn rest(&self, turn: &Turn, until_deadline: Span) -> Span {
        let rest = self.longest(turn).less(turn.now.since(turn.began));
        if self.passes_deadlines { rest } else { rest.min(until_deadline) }
    }

    fn longest(&self, turn: &Turn) -> Span {
        if turn.demanding { self.longest.min(BRIEF_REST) } else { self.longest }
    }
}

/// How frequently heartbeats arrive that answer none of ours.
#[derive(Clone, Copy, Debug)]
struct Arrivals {
    /// Those that arrived after `since`.
    count: u64,
    since: Time,
    /// The number in the latest measurement, and its length.
    measured: (u64, Span),
}

impl Arrivals {
    fn count(&mut self, now: Time, arrived: u64) {
        self.count += arrived;
        let elapsed = now.since(self.since);
        if elapsed >= MEASURED {
            *self = Arrivals { count: 0, since: now, measured: (self.count, elapsed) };
        }
    }

    /// Returns how many are expected within `span`, rounded down.
    fn expected_in(&self, span: Span) -> u64 {
        let (count, length) = self.measured;
        span.times(count).as_nanos() / length.as_nanos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn us(micros: u64) -> Span {
        Span::from_micros(micros)
    }

    fn at(micros: u64) -> Time {
        Time::ZERO + us(micros)
    }

    /// A turn that took no time and read this number of sockets.
    fn turn(micros: u64, read: usize) -> Turn {
        Turn {
            began: at(micros),
            now: at(micros),
            read,
            sent: 0,
            data: false,
            busy: false,
            demanding: false,
            deadline: None,
        }
    }

    fn links() -> Gather {
        Gather::of_links(at(0), LONGEST_REST)
    }

    /// A rule that has measured many heartbeats, at a time of 20 ms.
    fn frequent(longest: Span) -> Gather {
        let mut gather = Gather::of_links(at(0), longest);
        gather.wait(&turn(20_000, 1_000));
        gather
    }

    #[test]
    fn frequent_heartbeats_cause_rests_and_rare_ones_do_not() {
        let mut gather = links();
        let rest = Wait { rest: LONGEST_REST, poll: LONGEST_WAIT.less(LONGEST_REST) };
        let none = Wait { rest: Span::ZERO, poll: LONGEST_WAIT };
        assert_eq!(gather.wait(&turn(100, 20)), none, "not measured yet");
        assert_eq!(gather.wait(&turn(20_000, 5)), rest, "25 in 20 ms are 5 in a rest");
        assert_eq!(gather.wait(&turn(24_000, 0)), rest, "a gap says little");
        assert_eq!(gather.wait(&turn(40_000, 24)), none, "too few");
        assert_eq!(gather.wait(&turn(40_100, 24)), none);
        assert_eq!(gather.wait(&turn(60_000, 1)), rest);
        assert_eq!(gather.wait(&turn(160_000, 5)), none, "a silence ends it");
    }

    #[test]
    fn the_answers_to_probes_cause_no_rests() {
        let mut gather = links();
        assert_eq!(gather.wait(&Turn { sent: 30, ..turn(20_000, 0) }).rest, Span::ZERO);
        assert_eq!(gather.wait(&turn(40_000, 28)).rest, Span::ZERO);
        assert_eq!(gather.wait(&turn(60_000, 2)).rest, Span::ZERO, "all have come");
        assert_eq!(gather.wait(&turn(80_000, 25)).rest, LONGEST_REST, "these are no answers");
    }

    #[test]
    fn answers_to_heartbeats_of_the_peers_are_not_awaited() {
        let mut gather = links();
        let answering = Turn { sent: 20, ..turn(150_000, 20) };
        assert_eq!(gather.wait(&answering).rest, Span::ZERO);
    }

    #[test]
    fn data_is_never_delayed() {
        let mut gather = links();
        assert_eq!(gather.wait(&Turn { data: true, ..turn(100, 50) }).rest, Span::ZERO);
        assert_eq!(gather.wait(&turn(200, 50)).rest, Span::ZERO);
        assert_eq!(gather.wait(&turn(100_099, 5_000)).rest, Span::ZERO);
        assert_eq!(gather.wait(&turn(100_200, 50)).rest, LONGEST_REST);
    }

    #[test]
    fn a_rest_ends_at_the_next_deadline() {
        let mut gather = frequent(LONGEST_REST);
        let next = |deadline| Turn { deadline: Some(at(deadline)), ..turn(21_000, 50) };
        let mut wait = |deadline| gather.wait(&next(deadline));
        assert_eq!(wait(21_300), Wait { rest: us(300), poll: Span::ZERO });
        assert_eq!(wait(26_000), Wait { rest: us(4_000), poll: us(1_000) });
        assert_eq!(wait(20_900), Wait::default(), "it has passed");
    }

    #[test]
    fn rests_beside_a_demanding_link_are_brief() {
        let demanding = Turn { demanding: true, ..turn(21_000, 50) };
        assert_eq!(frequent(LONGEST_REST).wait(&demanding).rest, BRIEF_REST);
        assert_eq!(frequent(us(100)).wait(&demanding).rest, us(100), "the setting is shorter");
        for (policy, expected) in [
            (Policy::standard(), false),
            (Policy::relaxed(), false),
            (Policy::kernel_like(), false),
            (Policy::never(), false),
            (Policy::demanding(), true),
            (Policy::datacenter(), true),
        ] {
            assert_eq!(is_demanding(&policy), expected, "{policy}");
        }
    }

    #[test]
    fn a_busy_loop_and_a_loop_without_rests_do_not_rest() {
        let busy = Turn { busy: true, ..turn(21_000, 50) };
        assert_eq!(frequent(LONGEST_REST).wait(&busy), Wait::default());
        let wait = frequent(Span::ZERO).wait(&Turn { sent: 50, ..turn(21_000, 50) });
        assert_eq!(wait, Wait { rest: Span::ZERO, poll: LONGEST_WAIT });
    }

    #[test]
    fn the_work_of_a_turn_shortens_the_rest_after_it() {
        let long = Turn { now: at(23_000), ..turn(21_000, 50) };
        assert_eq!(frequent(LONGEST_REST).wait(&long).rest, us(2_000));
        let longer = Turn { now: at(26_000), ..turn(21_000, 50) };
        assert_eq!(frequent(LONGEST_REST).wait(&longer).rest, Span::ZERO);
    }

    #[test]
    fn a_loop_of_beacons_rests_briefly_and_passes_deadlines() {
        let mut gather = Gather::of_beacons(at(0), LONGEST_REST);
        let wait = gather.wait(&Turn { deadline: Some(at(20_100)), ..turn(20_000, 1_000) });
        assert_eq!(wait, Wait { rest: BRIEF_REST, poll: Span::ZERO });
    }
}
