//! The driver of a machine with many deadlines: it owns the machine's timing wheel and its tap.
//!
//! The wheel is not part of the machine. The machine receives a due deadline as an input, which is
//! recorded like any other; timers that fire too early are not. The state of the wheel need not be
//! saved: the wheel is armed again from the deadlines of the machine's parts.
//!
//! # How silence is judged
//! [`Driver::expire`] receives the horizon, the time up to which every socket has been read. A part
//! whose deadline lies within it is judged at the horizon, unless a later input has set the
//! deadline. For any other part whose deadline has come, the socket must be read first:
//! [`Driver::poll_read`] names it, and [`Driver::judge`] judges it.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use crate::machine::{InputOf, Machine};
use crate::plain::Damage;
use crate::tap::{Tap, Untapped};
use crate::time::Time;
use crate::wheel::{TICK, Wheel};

/// The maximum number of wheel steps per [`Driver::expire`]: about 100 µs of work.
pub const DEADLINE_STEPS: u32 = 1_024;

/// The number of wheel steps that a request to read a socket counts for: a system call costs about
/// as much. So one call makes at most 256 requests and one batch.
const READ_STEPS: u32 = 3;

/// The number of due parts whose deadlines are read together.
pub(crate) const DEADLINE_BATCH: usize = 32;

/// A machine whose parts have numbers, and so can have their deadlines in a wheel.
pub trait Timed: Machine {
    /// The part that performs the work for all other parts, step by step.
    const COMMON: Self::Part;

    /// Returns the part with this number, below [`wheel::MAX_KEYS`](crate::wheel::MAX_KEYS).
    fn part(number: u32) -> Self::Part;

    /// Returns the answer which states that the deadline of a part has come.
    fn fired(part: Self::Part) -> Self::Answer;

    /// Returns when the deadline of a part is to be handled; `None` if the part has no deadline.
    fn timer(&self, number: u32, now: Time) -> Option<Timer>;

    /// Returns the next part whose deadline may have moved earlier, or is gone.
    fn poll_moved(&mut self) -> Option<Moved>;
}

/// When to handle a deadline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timer {
    /// The time from which the deadline can be handled.
    pub due: Time,
    /// The time at which the timer fires. It may lie before `due`; then it is armed again.
    pub fires: Time,
}

impl Timer {
    /// Returns a timer that fires when the deadline is due.
    pub const fn exact(at: Time) -> Timer {
        Timer { due: at, fires: at }
    }
}

/// A part whose deadline has moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moved {
    /// The number of the part.
    pub number: u32,
    /// Whether the timer must be armed for the new deadline at once. If not, a timer that fires too
    /// early may stay, because it is armed again when it fires.
    pub is_exact: bool,
}

/// A machine together with its wheel and its tap.
#[derive(Debug)]
pub struct Driver<M, T = Untapped> {
    machine: M,
    tap: T,
    wheel: Wheel,
    /// The parts that are due, and whose sockets must be read before they are judged.
    unread: VecDeque<u32>,
    /// More deadlines are due than one call may handle.
    backlog: bool,
}

impl<M: Timed> Driver<M> {
    /// Combines a machine that starts at `now` with a wheel.
    pub fn new(now: Time, machine: M) -> Driver<M> {
        Driver::tapped(now, machine, Untapped)
    }
}

impl<M: Timed, T: Tap<M>> Driver<M, T> {
    /// Combines a machine that starts at `now` with a wheel and a tap.
    pub fn tapped(now: Time, machine: M, tap: T) -> Driver<M, T> {
        let (wheel, unread) = (Wheel::new(now), VecDeque::new());
        Driver { machine, tap, wheel, unread, backlog: false }
    }

    /// Saves the state of the machine, loads it into `machine`, a new one with the same settings,
    /// and continues with that one and a new wheel. Poll all outputs before.
    ///
    /// # Errors
    /// The new machine has other settings. The driver keeps the present machine.
    pub fn reload(&mut self, now: Time, mut machine: M) -> Result<(), Damage> {
        let (parts, mut state) = (self.machine.parts(), Vec::new());
        for part in &parts {
            self.machine.save_part(now, *part, &mut state);
        }
        let mut state = state.as_slice();
        for part in parts {
            machine.load_part(now, part, &mut state)?;
        }
        self.machine = machine;
        // Deadlines are handled at the horizon, which may be behind `now`.
        let handled = self.wheel.position().min(now);
        (self.wheel, self.backlog) = (Wheel::new(handled), false);
        self.unread.clear();
        self.arm_moved(handled);
        Ok(())
    }

    /// Returns the machine, read-only.
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// Returns the tap.
    pub const fn tap(&self) -> &T {
        &self.tap
    }

    /// Returns the tap for changes.
    pub const fn tap_mut(&mut self) -> &mut T {
        &mut self.tap
    }

    /// Drops the machine and returns the tap.
    pub fn into_tap(self) -> T {
        self.tap
    }

    /// Handles one input.
    #[inline]
    pub fn handle<'a>(&mut self, now: Time, input: impl Into<InputOf<'a, M>>) {
        let input = input.into();
        self.tap.input(now, &input);
        self.machine.handle(now, input);
        self.arm_moved(now);
    }

    /// Returns the next output; call until `None` after each call of another method.
    #[inline]
    pub fn poll_output(&mut self) -> Option<M::Output<'_>> {
        let output = self.machine.poll_output()?;
        self.tap.output(&output);
        Some(output)
    }

    /// Returns when to call [`Driver::expire`] next; the time may be in the past.
    pub fn next_deadline(&self) -> Option<Time> {
        if self.backlog {
            return Some(Time::ZERO);
        }
        let common = self.machine.deadline_of(M::COMMON).map(|deadline| deadline.at);
        match (common, self.wheel.next_deadline()) {
            (Some(common), Some(part)) => Some(common.min(part)),
            (common, part) => common.or(part),
        }
    }

    /// Performs one step of the work for all parts. Returns whether there was any.
    pub fn sweep(&mut self, now: Time) -> bool {
        let is_due = self.machine.deadline_of(M::COMMON).is_some_and(|common| common.at <= now);
        if is_due {
            self.handle_fired(now, M::COMMON);
        }
        is_due
    }

    /// Handles the due deadlines, and one step of the work for all parts. A call that comes early
    /// does no harm. `horizon` is the time up to which every socket has been read, at most `now`.
    ///
    /// Due parts lie anywhere in memory, so they are handled in batches, in which cache misses
    /// overlap.
    pub fn expire(&mut self, now: Time, horizon: Time) {
        let horizon = horizon.min(now);
        self.sweep(now);
        let mut steps = DEADLINE_STEPS;
        let mut batch = [(0, Time::ZERO, None); DEADLINE_BATCH];
        loop {
            let mut due = 0;
            for entry in &mut batch {
                let Some(number) = self.wheel.expire(now, &mut steps) else { break };
                *entry = (number, self.wheel.position(), None);
                due += 1;
            }
            for (number, _, timer) in batch.iter_mut().take(due) {
                *timer = self.machine.timer(*number, now);
            }
            for &(number, armed, timer) in batch.iter().take(due) {
                match timer {
                    Some(timer) if timer.due.max(armed) <= horizon => {
                        self.handle_fired(horizon, M::part(number));
                    }
                    Some(timer) if timer.due <= now => {
                        steps = steps.saturating_sub(READ_STEPS);
                        // If the part is not judged, this fires again and names it again.
                        self.wheel.arm(number, now + TICK);
                        self.unread.push_back(number);
                    }
                    Some(timer) => self.wheel.arm(number, timer.fires),
                    None => {}
                }
            }
            if due < DEADLINE_BATCH {
                break;
            }
        }
        self.backlog = steps == 0;
    }

    /// Returns the next part whose socket is to be read before it is judged; call until `None`
    /// after [`Driver::expire`]. A part that is not judged is named again by the next such call
    /// that comes a tick of the wheel later.
    pub fn poll_read(&mut self) -> Option<u32> {
        self.unread.pop_front()
    }

    /// Judges a part. Its socket must have been read until it was empty, or its unread bytes must
    /// have been handed in. Has no effect if no deadline has come.
    pub fn judge(&mut self, now: Time, number: u32) {
        if self.machine.timer(number, now).is_some_and(|timer| timer.due <= now) {
            self.handle_fired(now, M::part(number));
        }
    }

    #[cfg(test)]
    pub(crate) fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// Returns the time for which the timer of a part is armed.
    #[cfg(test)]
    pub(crate) fn armed(&self, number: u32) -> Option<Time> {
        self.wheel.armed(number)
    }

    fn handle_fired(&mut self, now: Time, part: M::Part) {
        self.handle(now, InputOf::<M>::Answer(M::fired(part)));
    }

    #[inline]
    fn arm_moved(&mut self, now: Time) {
        while let Some(moved) = self.machine.poll_moved() {
            self.arm(now, moved);
        }
    }

    /// Arms the wheel for the next deadline of a part. Lazy: a timer that fires too early stays,
    /// because it is armed again when it fires.
    fn arm(&mut self, now: Time, Moved { number, is_exact }: Moved) {
        match (self.machine.deadline_of(M::part(number)), self.wheel.armed(number)) {
            (Some(next), Some(armed)) if armed <= next.at && !is_exact => {}
            (Some(_), _) => {
                if let Some(timer) = self.machine.timer(number, now) {
                    // A deadline that this input has put into the past fires at once, and is judged
                    // no more than a tick before the input, whatever the horizon: see `expire`.
                    self.wheel.arm(number, timer.fires.max(now - TICK));
                }
            }
            (None, _) => self.wheel.disarm(number),
        }
    }
}
