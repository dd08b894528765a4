//! Decides which address of a name a client connects to: staggered attempts, as RFC 8305 ("Happy
//! Eyeballs") demands, and one handshake at a time.
//!
//! Attempts start [`STAGGER`] apart, so an address that does not answer delays the next one by no
//! more. The first address that accepts the connection is introduced to; the other attempts are
//! canceled before they have sent a byte, so that no gateway holds a session for a link that lost.
//! Two handshakes at once would be two logins of one identity, of which the gateway ends the older:
//! possibly the one that won. If a handshake fails, the next address is tried.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;

use crate::machine::{Deadline, Reason};
use crate::time::{Span, Time};

/// The time from the start of one attempt to the start of the next, if none fails before: the
/// "Connection Attempt Delay" that RFC 8305 recommends in section 5.
pub const STAGGER: Span = Span::from_millis(250);

/// The time limit of a handshake while other addresses are left, or four times what connecting took
/// if that is longer. A gateway answers within one round trip; an address that accepts and does not
/// answer must not use up the time of the others. The last address has the whole limit.
pub const HANDSHAKE_PATIENCE: Span = Span::from_secs(2);

/// The maximum number of addresses that are tried: all of them have started after 4 s.
pub const MAX_ADDRESSES: usize = 16;

/// An input of [`Dial`]. An attempt is known by its number, which [`Output::Connect`] has given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input<'a> {
    /// The name has these addresses, in the order of the system (RFC 6724). A new round begins.
    Resolved {
        /// The addresses.
        addresses: &'a [SocketAddr],
        /// The time limit for connecting to one of them, the handshake not included.
        within: Span,
    },
    /// The address has accepted the connection.
    Connected(usize),
    /// The connection was refused, or its handshake has failed.
    Failed(usize),
    /// The handshake is complete.
    Welcomed(usize),
    /// The server has refused the handshake for good: other addresses would do the same.
    Refused(usize),
    /// The time of [`Dial::next_deadline`] may have come.
    Deadline,
}

/// A request of [`Dial`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// Start to connect to this address.
    Connect {
        /// The number of the attempt.
        attempt: usize,
        /// The address.
        address: SocketAddr,
    },
    /// Close the connection of this attempt, or stop connecting.
    Cancel(usize),
    /// Start the handshake on the connection of this attempt.
    Introduce {
        /// The number of the attempt.
        attempt: usize,
        /// The time limit of the handshake.
        within: Span,
    },
    /// The round has failed.
    GiveUp,
}

/// The machine that chooses among the addresses of a name; it remembers which have failed.
#[derive(Clone, Debug)]
pub struct Dial {
    /// The time limit of a handshake.
    handshake: Span,
    /// The addresses of the latest round that have failed, the earliest failure first.
    failed: Vec<SocketAddr>,
    attempts: Vec<Attempt>,
    phase: Phase,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    address: SocketAddr,
    stage: Stage,
    /// When it started last.
    started: Time,
    /// A later attempt was accepted while this one had no answer.
    overtaken: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Waiting,
    Connecting,
    Introducing,
    Failed,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// No round is running.
    Idle,
    /// Attempts start and wait for an answer, until `until`.
    Connecting { next_start: Option<Time>, until: Time },
    /// One attempt is in its handshake; `left` remains for connecting to another address.
    Introducing { left: Span },
}

impl Dial {
    /// Creates the machine of one name. A handshake may take `handshake`.
    pub const fn new(handshake: Span) -> Dial {
        Dial {
            handshake,
            failed: Vec::new(),
            attempts: Vec::new(),
            phase: Phase::Idle,
            outputs: VecDeque::new(),
        }
    }

    /// Handles an input at `now`. Inputs of attempts that were canceled have no effect.
    pub fn handle(&mut self, now: Time, input: Input<'_>) {
        match input {
            Input::Resolved { addresses, within } => self.begin(now, addresses, within),
            Input::Connected(number) => self.connected(now, number),
            Input::Failed(number) => self.attempt_failed(now, number),
            Input::Welcomed(number) => self.welcomed(number),
            Input::Refused(number) => {
                if self.stage(number) == Some(Stage::Introducing) {
                    self.give_up();
                }
            }
            Input::Deadline => self.expire(now),
        }
    }

    /// Returns the next output; call until `None` after each input.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns when to hand in [`Input::Deadline`]; `None` during a handshake, which has its own
    /// limit, and between rounds.
    pub fn next_deadline(&self) -> Option<Deadline> {
        let Phase::Connecting { next_start, until } = self.phase else {
            return None;
        };
        let until = Deadline::exact(until, Reason::Handshake);
        let start = next_start.map(|at| Deadline::exact(at, Reason::Handshake));
        Deadline::earlier(start, Some(until))
    }

    fn begin(&mut self, now: Time, addresses: &[SocketAddr], within: Span) {
        let mut order = interleave(addresses);
        order.truncate(MAX_ADDRESSES);
        self.failed.retain(|address| order.contains(address));
        order.retain(|address| !self.failed.contains(address));
        order.extend_from_slice(&self.failed);
        let attempt =
            |address| Attempt { address, stage: Stage::Waiting, started: now, overtaken: false };
        self.attempts = order.into_iter().map(attempt).collect();
        self.connect_within(now, within);
    }

    /// Starts to connect to the next address.
    fn connect_within(&mut self, now: Time, within: Span) {
        self.phase = Phase::Connecting { next_start: None, until: now + within };
        self.start_next(now);
    }

    /// Starts the next attempt, if one is left. Gives up if none is left, and none is out.
    fn start_next(&mut self, now: Time) {
        let Phase::Connecting { next_start, .. } = &mut self.phase else {
            return;
        };
        let mut waiting = self.attempts.iter_mut().enumerate();
        let mut waiting = waiting.by_ref().filter(|(_, attempt)| attempt.stage == Stage::Waiting);
        *next_start = None;
        if let Some((number, attempt)) = waiting.next() {
            (attempt.stage, attempt.started) = (Stage::Connecting, now);
            let address = attempt.address;
            *next_start = waiting.next().map(|_| now + STAGGER);
            self.outputs.push_back(Output::Connect { attempt: number, address });
        } else if !self.attempts.iter().any(|attempt| attempt.stage == Stage::Connecting) {
            self.give_up();
        }
    }

    fn connected(&mut self, now: Time, number: usize) {
        let Phase::Connecting { until, .. } = self.phase else {
            return;
        };
        if self.stage(number) != Some(Stage::Connecting) {
            return;
        }
        self.phase = Phase::Introducing { left: until.since(now) };
        let took = self.attempts.get(number).map(|attempt| now.since(attempt.started));
        for (other, attempt) in self.attempts.iter_mut().enumerate() {
            if other == number {
                attempt.stage = Stage::Introducing;
            } else if attempt.stage == Stage::Connecting {
                attempt.stage = Stage::Waiting;
                attempt.overtaken |= other < number;
                self.outputs.push_back(Output::Cancel(other));
            }
        }
        let left = self.attempts.iter().filter(|attempt| attempt.stage == Stage::Waiting).count();
        let within = match u64::try_from(left).unwrap_or(u64::MAX) {
            0 => self.handshake,
            left => {
                let share = self.handshake.as_nanos() / left.saturating_add(1);
                let patience = took.unwrap_or_default().times(4).max(HANDSHAKE_PATIENCE);
                patience.min(Span::from_nanos(share))
            }
        };
        self.outputs.push_back(Output::Introduce { attempt: number, within });
    }

    fn attempt_failed(&mut self, now: Time, number: usize) {
        match (self.phase, self.stage(number)) {
            (Phase::Connecting { .. }, Some(Stage::Connecting)) => {
                self.fail(number);
                self.start_next(now);
            }
            (Phase::Introducing { left }, Some(Stage::Introducing)) => {
                self.fail(number);
                self.connect_within(now, left);
            }
            (Phase::Idle | Phase::Connecting { .. } | Phase::Introducing { .. }, _) => {}
        }
    }

    /// Ends the round. An address that was overtaken did not answer for longer than [`STAGGER`]; it
    /// goes to the back for the next round, so that it costs that time once.
    fn welcomed(&mut self, number: usize) {
        if self.stage(number) != Some(Stage::Introducing) {
            return;
        }
        for other in 0..self.attempts.len() {
            let overtaken = self.attempts.get(other).is_some_and(|attempt| attempt.overtaken);
            if overtaken && other != number {
                self.fail(other);
            }
        }
        if let Some(winner) = self.attempts.get(number).map(|attempt| attempt.address) {
            self.failed.retain(|address| *address != winner);
        }
        self.end();
    }

    fn expire(&mut self, now: Time) {
        let Phase::Connecting { next_start, until } = self.phase else {
            return;
        };
        if now >= until {
            for number in 0..self.attempts.len() {
                if self.stage(number) == Some(Stage::Connecting) {
                    self.fail(number);
                    self.outputs.push_back(Output::Cancel(number));
                }
            }
            self.give_up();
        } else if next_start.is_some_and(|at| now >= at) {
            self.start_next(now);
        }
    }

    fn stage(&self, number: usize) -> Option<Stage> {
        self.attempts.get(number).map(|attempt| attempt.stage)
    }

    /// Records that an address has failed, as the latest one.
    fn fail(&mut self, number: usize) {
        let Some(attempt) = self.attempts.get_mut(number) else {
            return;
        };
        attempt.stage = Stage::Failed;
        let address = attempt.address;
        self.failed.retain(|failed| *failed != address);
        self.failed.push(address);
    }

    fn give_up(&mut self) {
        self.outputs.push_back(Output::GiveUp);
        self.end();
    }

    fn end(&mut self) {
        self.attempts.clear();
        self.phase = Phase::Idle;
    }
}

/// Returns the addresses without repetitions, with the two families in turn (RFC 8305 section 4):
/// where one family is broken as a whole, the second attempt is of the other one.
fn interleave(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let of = |family: bool| {
        let same = move |address: &&SocketAddr| (address.is_ipv6() == first_is_v6) == family;
        addresses.iter().filter(same)
    };
    let (mut preferred, mut others) = (of(true), of(false));
    let mut order: Vec<SocketAddr> = Vec::with_capacity(addresses.len());
    loop {
        let pair = [preferred.next(), others.next()];
        if pair == [None, None] {
            return order;
        }
        for address in pair.into_iter().flatten() {
            if !order.contains(address) {
                order.push(*address);
            }
        }
    }
}

#[cfg(test)]
mod tests;
