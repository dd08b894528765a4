//! When to connect again: full jitter under a cap, and what the gateway said about coming back.
//!
//! After a gateway's restart all its clients come back. A delay drawn evenly from zero to a bound
//! that doubles with each failure spreads them best (Brooker, "Exponential Backoff And Jitter",
//! 2015); a fixed part in it would only keep them in step.

use core::fmt;

use crate::link::Goodbye;
use crate::random::Random;
use crate::time::{Span, Time};
use crate::wire::CloseReason;

/// The longest `cap`: who waits longer than a day is not reconnecting any more.
pub const LONGEST_CAP: Span = Span::from_secs(24 * 60 * 60);

/// How long to wait between attempts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backoff {
    base: Span,
    cap: Span,
    stable: Span,
    attempts: Option<u32>,
}

impl Default for Backoff {
    /// From up to 500 ms to up to 30 s, without end; a link that lasted 10 s was a success. Thirty
    /// seconds are the default bound D: an outage is noticed no faster than that either.
    fn default() -> Backoff {
        Backoff {
            base: Span::from_millis(500),
            cap: Span::from_secs(30),
            stable: Span::from_secs(10),
            attempts: None,
        }
    }
}

impl Backoff {
    /// The delay before attempt n (from 1) is drawn from zero to `base`·2^(n−1), and never to more
    /// than `cap`. The count starts anew after a link that stood for `stable`; one that was
    /// established and broke at once, as behind a balancer without backends, is a failure.
    ///
    /// # Errors
    /// Refuses a `base` below 1 ms, and a `cap` below `base` or above [`LONGEST_CAP`].
    pub fn new(base: Span, cap: Span, stable: Span) -> Result<Backoff, BackoffError> {
        if base < Span::from_millis(1) {
            return Err(BackoffError::BaseTooShort);
        }
        if cap < base {
            return Err(BackoffError::CapBelowBase);
        }
        if cap > LONGEST_CAP {
            return Err(BackoffError::CapTooLong);
        }
        Ok(Backoff { base, cap, stable, attempts: None })
    }

    /// The same delays, given up after this many failures in a row.
    #[must_use]
    pub const fn with_attempts(self, attempts: u32) -> Backoff {
        Backoff { attempts: Some(attempts), ..self }
    }

    /// The longest delay before attempt number `attempt`, from 1.
    pub fn longest(&self, attempt: u32) -> Span {
        let doubled = 1_u64.checked_shl(attempt.saturating_sub(1)).unwrap_or(u64::MAX);
        self.base.times(doubled).min(self.cap)
    }
}

/// Why a backoff was refused. The caller's fault; ask again with other values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BackoffError {
    /// `base` was below 1 ms.
    BaseTooShort,
    /// `cap` was below `base`.
    CapBelowBase,
    /// `cap` was above [`LONGEST_CAP`].
    CapTooLong,
}

impl fmt::Display for BackoffError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BackoffError::BaseTooShort => "base must be at least 1 ms",
            BackoffError::CapBelowBase => "cap must be at least base",
            BackoffError::CapTooLong => "cap must be at most 24 hours",
        })
    }
}

impl core::error::Error for BackoffError {}

/// What happened to the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// The handshake is complete.
    Established,
    /// The link ended, or an attempt failed.
    Ended {
        /// What the gateway said about coming back, if it said goodbye.
        farewell: Option<Goodbye>,
    },
}

/// What to do after an end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Connect again.
    Wait {
        /// Which attempt in a row this will be, from 1.
        attempt: u32,
        /// How long to wait before it.
        delay: Span,
    },
    /// Connect no more.
    Stop(Stop),
}

/// Why to connect no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The gateway said not to come back.
    Told,
    /// The gateway gave a reason that another attempt would only meet again, or bring about: the
    /// token is not accepted, the version not spoken, another session of this identity is newer.
    Refused(CloseReason),
    /// As many attempts in a row as were allowed have failed.
    Exhausted,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Told => f.write_str("the gateway said not to come back"),
            Stop::Refused(reason) => write!(f, "coming back is of no use: {reason}"),
            Stop::Exhausted => f.write_str("all attempts to reconnect have failed"),
        }
    }
}

/// The reconnecting of one client.
#[derive(Clone, Debug)]
pub struct Reconnect {
    backoff: Backoff,
    random: Random,
    failures: u32,
    established: Option<Time>,
    next: Option<Next>,
}

impl Reconnect {
    /// `seed` is chance, and must differ from client to client.
    pub const fn new(backoff: Backoff, seed: u64) -> Reconnect {
        Reconnect { backoff, random: Random::new(seed), failures: 0, established: None, next: None }
    }

    /// The door in.
    pub fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::Established => self.established = Some(now),
            Input::Ended { farewell } => {
                let stood = self.established.take().map(|since| now.since(since));
                if stood.is_some_and(|stood| stood >= self.backoff.stable) {
                    self.failures = 0;
                }
                self.next = Some(self.decide(farewell));
            }
        }
    }

    /// The door out: what to do, once after each end.
    pub fn poll_output(&mut self) -> Option<Next> {
        self.next.take()
    }

    fn decide(&mut self, farewell: Option<Goodbye>) -> Next {
        if farewell.is_some_and(|goodbye| goodbye.stay_away) {
            return Next::Stop(Stop::Told);
        }
        if let Some(reason) = farewell.map(|goodbye| goodbye.reason).filter(is_lasting) {
            return Next::Stop(Stop::Refused(reason));
        }
        if self.backoff.attempts.is_some_and(|allowed| self.failures >= allowed) {
            return Next::Stop(Stop::Exhausted);
        }
        self.failures = self.failures.saturating_add(1);
        let attempt = self.failures;
        // The slot comes first and chance on top: at the slot itself all of one slot would meet.
        let slot = farewell.map_or(Span::ZERO, |goodbye| goodbye.return_after);
        Next::Wait { attempt, delay: slot + self.random.up_to(self.backoff.longest(attempt)) }
    }
}

/// Whether another attempt would meet the same answer.
fn is_lasting(reason: &CloseReason) -> bool {
    match reason {
        CloseReason::Unauthorized | CloseReason::Replaced | CloseReason::Version => true,
        CloseReason::Done
        | CloseReason::Drained
        | CloseReason::Kicked
        | CloseReason::Silent
        | CloseReason::Slow
        | CloseReason::Full
        | CloseReason::Other(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_millis(1_000);
    const FAILED: Input = Input::Ended { farewell: None };

    fn ms(millis: u64) -> Span {
        Span::from_millis(millis)
    }

    fn backoff() -> Backoff {
        Backoff::new(ms(100), ms(1_000), ms(5_000)).unwrap()
    }

    fn next(machine: &mut Reconnect, now: Time, input: Input) -> Next {
        machine.handle(now, input);
        let next = machine.poll_output().unwrap();
        assert_eq!(machine.poll_output(), None);
        next
    }

    fn goodbye(reason: CloseReason, stay_away: bool, return_after: Span) -> Input {
        Input::Ended { farewell: Some(Goodbye { reason, stay_away, return_after }) }
    }

    fn attempt(next: Next) -> u32 {
        match next {
            Next::Wait { attempt, .. } => attempt,
            Next::Stop(stop) => panic!("{stop}"),
        }
    }

    #[test]
    fn delays_fill_the_whole_range_and_never_exceed_it() {
        let (mut least, mut most) = ([u64::MAX; 7], [0; 7]);
        for seed in 0..2_000 {
            let mut machine = Reconnect::new(backoff(), seed);
            for n in 0..7 {
                let Next::Wait { attempt, delay } = next(&mut machine, NOW, FAILED) else {
                    panic!("stopped");
                };
                assert_eq!(attempt as usize, n + 1);
                least[n] = least[n].min(delay.as_millis());
                most[n] = most[n].max(delay.as_millis());
            }
        }
        for (n, longest) in [100, 200, 400, 800, 1_000, 1_000, 1_000].into_iter().enumerate() {
            assert!(most[n] <= longest && most[n] > longest * 98 / 100, "{n}: {}", most[n]);
            assert!(least[n] < longest / 50, "{n}: {}", least[n]);
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_delays() {
        let draw = |seed| {
            let mut machine = Reconnect::new(backoff(), seed);
            [(); 8].map(|()| next(&mut machine, NOW, FAILED))
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn a_slot_is_obeyed_to_the_full() {
        for seed in 0..200 {
            let mut machine = Reconnect::new(backoff(), seed);
            let told = goodbye(CloseReason::Drained, false, ms(2_500));
            let Next::Wait { attempt: 1, delay } = next(&mut machine, NOW, told) else {
                panic!("stopped");
            };
            assert!(delay >= ms(2_500) && delay <= ms(2_600), "{delay}");
        }
    }

    #[test]
    fn who_is_not_wanted_stays_away() {
        let mut machine = Reconnect::new(backoff(), 1);
        let told = goodbye(CloseReason::Kicked, true, Span::ZERO);
        assert_eq!(next(&mut machine, NOW, told), Next::Stop(Stop::Told));
        for reason in [CloseReason::Unauthorized, CloseReason::Replaced, CloseReason::Version] {
            let refused = goodbye(reason, false, Span::ZERO);
            assert_eq!(next(&mut machine, NOW, refused), Next::Stop(Stop::Refused(reason)));
        }
        let kicked = goodbye(CloseReason::Kicked, false, Span::ZERO);
        assert_eq!(attempt(next(&mut machine, NOW, kicked)), 1);
    }

    #[test]
    fn only_a_link_that_stood_starts_the_count_anew() {
        let mut machine = Reconnect::new(backoff(), 1);
        for expected in 1..=3 {
            machine.handle(NOW, Input::Established);
            assert_eq!(machine.poll_output(), None);
            let end = NOW + ms(4_999);
            assert_eq!(attempt(next(&mut machine, end, FAILED)), expected);
        }
        machine.handle(NOW, Input::Established);
        assert_eq!(attempt(next(&mut machine, NOW + ms(5_000), FAILED)), 1);
        assert_eq!(attempt(next(&mut machine, NOW + ms(20_000), FAILED)), 2);
    }

    #[test]
    fn attempts_can_be_limited() {
        let mut machine = Reconnect::new(backoff().with_attempts(2), 1);
        assert_eq!(attempt(next(&mut machine, NOW, FAILED)), 1);
        assert_eq!(attempt(next(&mut machine, NOW, FAILED)), 2);
        assert_eq!(next(&mut machine, NOW, FAILED), Next::Stop(Stop::Exhausted));
    }

    #[test]
    fn illegal_backoffs_do_not_exist_and_no_count_overflows() {
        let refused = |base, cap| Backoff::new(base, cap, Span::ZERO).err();
        assert_eq!(refused(Span::ZERO, ms(1)), Some(BackoffError::BaseTooShort));
        assert_eq!(refused(ms(2), ms(1)), Some(BackoffError::CapBelowBase));
        assert_eq!(refused(ms(2), LONGEST_CAP + ms(1)), Some(BackoffError::CapTooLong));
        assert_eq!(backoff().longest(0), ms(100));
        assert_eq!(backoff().longest(64), ms(1_000));
        assert_eq!(backoff().longest(65), ms(1_000));
        assert_eq!(backoff().longest(u32::MAX), ms(1_000));
    }
}
