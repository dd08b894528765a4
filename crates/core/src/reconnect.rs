//! Decides when a client reconnects: exponential backoff with full jitter and a cap, and the
//! gateway's instructions in CLOSE.
//!
//! After a gateway's restart all its clients reconnect. A delay drawn evenly from zero to a limit
//! that doubles with each failure spreads them best (Brooker, "Exponential Backoff And Jitter",
//! 2015); a fixed part would only keep them in step.
//!
//! An obstacle that no attempt can overcome, such as a name that does not exist, ends a client that
//! was never welcomed. One that was welcomed before goes on: what worked once may work again.

use core::fmt;

use crate::link::Goodbye;
use crate::random::Random;
use crate::time::{Span, Time};
use crate::wire::CloseReason;

/// The maximum `cap`: a client that waits longer than a day no longer reconnects.
pub const LONGEST_CAP: Span = Span::from_secs(24 * 60 * 60);

/// The longest time for which a CLOSE keeps a client away: the longest that a gateway can be
/// configured to spread its clients over. A faulty or hostile server could ask for 49 days.
pub const LONGEST_SLOT: Span = LONGEST_CAP;

/// The delays between attempts to connect, and the number of attempts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backoff {
    base: Span,
    cap: Span,
    stable: Span,
    attempts: Option<u32>,
}

impl Default for Backoff {
    /// Delays from up to 500 ms to up to 30 s, unlimited attempts; a link that lasted 10 s counts
    /// as a success. Thirty seconds are the default bound D: an outage is not detected faster
    /// either.
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
    /// Creates a backoff. The delay before attempt n (from 1) is drawn from zero to `base`·2^(n−1),
    /// at most `cap`. The count restarts after a link that lasted for `stable`; a link that is
    /// established and breaks at once, as behind a balancer without backends, is a failure.
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

    /// Returns the same delays, with a limit of `attempts` failures in a row.
    #[must_use]
    pub const fn with_attempts(self, attempts: u32) -> Backoff {
        Backoff { attempts: Some(attempts), ..self }
    }

    /// Returns the longest delay before attempt number `attempt`, from 1.
    pub fn longest(&self, attempt: u32) -> Span {
        let doubled = 1_u64.checked_shl(attempt.saturating_sub(1)).unwrap_or(u64::MAX);
        self.base.times(doubled).min(self.cap)
    }
}

/// The reason why a backoff was refused. The caller's fault; try again with other values.
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

/// Why an attempt failed before a server could answer it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Obstacle {
    /// The text is no address: it has no port, or is not `host:port`.
    NoAddress,
    /// The name service says that the name does not exist, or has no address.
    NoSuchName,
    /// The name service did not answer, or failed.
    NameService,
    /// This machine does not allow the connection: a filter of its own, or a missing privilege.
    NotAllowed,
    /// This machine cannot connect to such an address: its family is not supported, or a zone is
    /// missing.
    Unusable,
    /// The server's machine refused: nothing listens there now.
    Refused,
    /// A router, or the lack of a route, said that the address is unreachable.
    Unreachable,
    /// Nothing came back in time.
    NoAnswer,
    /// The application has no token for the login at the moment.
    NoToken,
    /// This machine lacks a resource: descriptors, ports, memory, threads.
    Exhausted,
    /// Another error.
    Other,
}

impl Obstacle {
    /// Returns whether another attempt would meet the same obstacle. Networks and servers change by
    /// themselves; addresses, names and permissions change only if somebody changes them.
    pub const fn is_final(self) -> bool {
        match self {
            Obstacle::NoAddress
            | Obstacle::NoSuchName
            | Obstacle::NotAllowed
            | Obstacle::Unusable => true,
            Obstacle::NameService
            | Obstacle::Refused
            | Obstacle::Unreachable
            | Obstacle::NoAnswer
            | Obstacle::NoToken
            | Obstacle::Exhausted
            | Obstacle::Other => false,
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Obstacle::NoAddress => "this is no address",
            Obstacle::NoSuchName => "the name does not exist",
            Obstacle::NameService => "the name service does not answer",
            Obstacle::NotAllowed => "this machine does not allow it",
            Obstacle::Unusable => "this machine cannot use the address",
            Obstacle::Refused => "the connection was refused",
            Obstacle::Unreachable => "the address is unreachable",
            Obstacle::NoAnswer => "nothing came back",
            Obstacle::NoToken => "there is no token",
            Obstacle::Exhausted => "this machine lacks a resource",
            Obstacle::Other => "an error of the system",
        })
    }
}

/// An input of [`Reconnect`]: an event of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// The handshake is complete.
    Established,
    /// The link ended, or an attempt failed.
    Ended {
        /// The gateway's CLOSE with its instructions about reconnecting, if it sent one.
        farewell: Option<Goodbye>,
    },
    /// An attempt failed before a server could answer it.
    Blocked(Obstacle),
}

/// The decision after a link ended or an attempt failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Connect again.
    Wait {
        /// The number of the next attempt in a row, from 1.
        attempt: u32,
        /// The time to wait before the attempt.
        delay: Span,
    },
    /// Do not connect again.
    Stop(Stop),
}

/// The reason why a client does not connect again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stop {
    /// The gateway instructed the client not to reconnect.
    Told,
    /// The gateway gave a reason that another attempt would meet or cause again: the token is not
    /// accepted, the version is not supported, or another session of this identity is newer.
    Refused(CloseReason),
    /// No attempt can overcome this obstacle, and none has succeeded before.
    Blocked(Obstacle),
    /// The maximum number of attempts in a row have failed.
    Exhausted,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Told => f.write_str("the gateway said not to come back"),
            Stop::Refused(reason) => write!(f, "coming back is of no use: {reason}"),
            Stop::Blocked(obstacle) => write!(f, "trying again is of no use: {obstacle}"),
            Stop::Exhausted => f.write_str("all attempts to reconnect have failed"),
        }
    }
}

/// The machine that decides when one client reconnects.
#[derive(Clone, Debug)]
pub struct Reconnect {
    backoff: Backoff,
    random: Random,
    failures: u32,
    established: Option<Time>,
    /// Whether any link was established.
    welcomed: bool,
    /// Whether each attempt may have another token.
    has_fresh_tokens: bool,
    next: Option<Next>,
}

impl Reconnect {
    /// Creates the machine. `seed` determines the random delays, and must differ between clients.
    pub const fn new(backoff: Backoff, seed: u64) -> Reconnect {
        let random = Random::new(seed);
        Reconnect {
            backoff,
            random,
            failures: 0,
            established: None,
            welcomed: false,
            has_fresh_tokens: false,
            next: None,
        }
    }

    /// Returns the machine of a client that may have another token at each attempt: the reason
    /// `unauthorized` is then a failure like others, also with the flag "do not come back", which
    /// is about the token.
    #[must_use]
    pub const fn with_fresh_tokens(self) -> Reconnect {
        Reconnect { has_fresh_tokens: true, ..self }
    }

    /// Takes an input at `now`.
    pub fn handle(&mut self, now: Time, input: Input) {
        match input {
            Input::Established => {
                self.established = Some(now);
                self.welcomed = true;
            }
            Input::Blocked(obstacle) if obstacle.is_final() && !self.welcomed => {
                self.next = Some(Next::Stop(Stop::Blocked(obstacle)));
            }
            Input::Blocked(_) => self.next = Some(self.decide(None)),
            Input::Ended { farewell } => {
                let lasted = self.established.take().map(|since| now.since(since));
                if lasted.is_some_and(|lasted| lasted >= self.backoff.stable) {
                    self.failures = 0;
                }
                self.next = Some(self.decide(farewell));
            }
        }
    }

    /// Returns the next decision, once after each [`Input::Ended`].
    pub fn poll_output(&mut self) -> Option<Next> {
        self.next.take()
    }

    fn decide(&mut self, farewell: Option<Goodbye>) -> Next {
        let is_about_token = |goodbye: &Goodbye| goodbye.reason == CloseReason::Unauthorized;
        let is_answered = farewell.as_ref().is_some_and(is_about_token) && self.has_fresh_tokens;
        if let Some(stop) = farewell.as_ref().and_then(Goodbye::stop).filter(|_| !is_answered) {
            return Next::Stop(stop);
        }
        if self.backoff.attempts.is_some_and(|allowed| self.failures >= allowed) {
            return Next::Stop(Stop::Exhausted);
        }
        self.failures = self.failures.saturating_add(1);
        let attempt = self.failures;
        // The random delay follows the slot: otherwise all clients of one slot would arrive at
        // once.
        let slot = farewell.map_or(Span::ZERO, |goodbye| goodbye.return_after).min(LONGEST_SLOT);
        Next::Wait { attempt, delay: slot + self.random.up_to(self.backoff.longest(attempt)) }
    }
}

impl Goodbye {
    /// Returns why another attempt is of no use, if it is not.
    pub fn stop(&self) -> Option<Stop> {
        if self.stay_away {
            return Some(Stop::Told);
        }
        is_permanent(&self.reason).then_some(Stop::Refused(self.reason))
    }
}

/// Returns true if another attempt would get the same answer.
fn is_permanent(reason: &CloseReason) -> bool {
    match reason {
        CloseReason::Unauthorized | CloseReason::Replaced | CloseReason::Version => true,
        CloseReason::Done
        | CloseReason::Drained
        | CloseReason::Kicked
        | CloseReason::Silent
        | CloseReason::Slow
        | CloseReason::Full
        | CloseReason::Flooding
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
    fn a_slot_is_waited_in_full() {
        for seed in 0..200 {
            let mut machine = Reconnect::new(backoff(), seed);
            let instructed = goodbye(CloseReason::Drained, false, ms(2_500));
            let Next::Wait { attempt: 1, delay } = next(&mut machine, NOW, instructed) else {
                panic!("stopped");
            };
            assert!(delay >= ms(2_500) && delay <= ms(2_600), "{delay}");
        }
    }

    #[test]
    fn a_slot_keeps_a_client_away_for_a_day_at_most() {
        for seed in 0..200 {
            let mut machine = Reconnect::new(backoff(), seed);
            let longest = Span::from_millis(u64::from(u32::MAX));
            let instructed = goodbye(CloseReason::Drained, false, longest);
            let Next::Wait { attempt: 1, delay } = next(&mut machine, NOW, instructed) else {
                panic!("stopped");
            };
            assert!(delay >= LONGEST_SLOT && delay <= LONGEST_SLOT + ms(100), "{delay}");
        }
    }

    #[test]
    fn a_refused_client_stops() {
        let mut machine = Reconnect::new(backoff(), 1);
        let instructed = goodbye(CloseReason::Kicked, true, Span::ZERO);
        assert_eq!(next(&mut machine, NOW, instructed), Next::Stop(Stop::Told));
        for reason in [CloseReason::Unauthorized, CloseReason::Replaced, CloseReason::Version] {
            let refused = goodbye(reason, false, Span::ZERO);
            assert_eq!(next(&mut machine, NOW, refused), Next::Stop(Stop::Refused(reason)));
        }
        let kicked = goodbye(CloseReason::Kicked, false, Span::ZERO);
        assert_eq!(attempt(next(&mut machine, NOW, kicked)), 1);
    }

    #[test]
    fn a_refused_token_stops_only_a_client_that_has_no_other() {
        let mut machine = Reconnect::new(backoff().with_attempts(2), 1).with_fresh_tokens();
        for (expected, stay_away) in [(1, true), (2, false)] {
            let refused = goodbye(CloseReason::Unauthorized, stay_away, Span::ZERO);
            assert_eq!(attempt(next(&mut machine, NOW, refused)), expected);
        }
        let refused = goodbye(CloseReason::Unauthorized, true, Span::ZERO);
        assert_eq!(next(&mut machine, NOW, refused), Next::Stop(Stop::Exhausted));
        let kicked = goodbye(CloseReason::Kicked, true, Span::ZERO);
        assert_eq!(next(&mut machine, NOW, kicked), Next::Stop(Stop::Told));
    }

    #[test]
    fn a_final_obstacle_stops_only_a_client_that_was_never_welcomed() {
        let finals =
            [Obstacle::NoAddress, Obstacle::NoSuchName, Obstacle::NotAllowed, Obstacle::Unusable];
        let others = [
            Obstacle::NameService,
            Obstacle::Refused,
            Obstacle::Unreachable,
            Obstacle::NoAnswer,
            Obstacle::NoToken,
            Obstacle::Exhausted,
            Obstacle::Other,
        ];
        for obstacle in finals {
            let mut machine = Reconnect::new(backoff(), 1);
            let stop = Next::Stop(Stop::Blocked(obstacle));
            assert_eq!(next(&mut machine, NOW, Input::Blocked(obstacle)), stop);
            machine.handle(NOW, Input::Established);
            assert_eq!(attempt(next(&mut machine, NOW, Input::Blocked(obstacle))), 1);
        }
        for obstacle in others {
            let mut machine = Reconnect::new(backoff().with_attempts(2), 1);
            for expected in 1..=2 {
                assert_eq!(attempt(next(&mut machine, NOW, Input::Blocked(obstacle))), expected);
            }
            let stop = Next::Stop(Stop::Exhausted);
            assert_eq!(next(&mut machine, NOW, Input::Blocked(obstacle)), stop);
        }
    }

    #[test]
    fn only_a_stable_link_restarts_the_count() {
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
    fn illegal_backoffs_are_refused_and_no_count_overflows() {
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
