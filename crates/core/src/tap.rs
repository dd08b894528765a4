//! The one place that all inputs and outputs of a machine pass.
//!
//! A machine is a function of its inputs: whoever writes down what passes here has everything that
//! is needed to run it again, and what it answered the first time.

pub mod record;

use crate::time::Time;

/// A machine with one door in and one door out.
pub trait Machine {
    /// Everything that can change it.
    type Input<'a>;
    /// Everything it wants, or tells.
    type Output<'a>
    where
        Self: 'a;

    /// The door in.
    fn handle(&mut self, now: Time, input: Self::Input<'_>);

    /// The door out: call until `None` after each input.
    fn poll_output(&mut self) -> Option<Self::Output<'_>>;
}

/// Listens to a machine's doors.
pub trait Tap<M: Machine> {
    /// An input is about to be handled.
    fn input(&mut self, now: Time, input: &M::Input<'_>);

    /// An output is about to be handed out.
    fn output(&mut self, output: &M::Output<'_>);
}

/// Listens to nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Untapped;

impl<M: Machine> Tap<M> for Untapped {
    #[inline]
    fn input(&mut self, _: Time, _: &M::Input<'_>) {}

    #[inline]
    fn output(&mut self, _: &M::Output<'_>) {}
}

/// A machine whose doors are listened to.
#[derive(Clone, Debug)]
pub struct Tapped<M, T> {
    machine: M,
    tap: T,
}

impl<M: Machine, T: Tap<M>> Tapped<M, T> {
    /// `machine`, with `tap` at its doors.
    pub const fn new(machine: M, tap: T) -> Tapped<M, T> {
        Tapped { machine, tap }
    }

    /// The machine, to look at.
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// The tap.
    pub const fn tap(&self) -> &T {
        &self.tap
    }

    /// The tap, to take out what it holds.
    pub const fn tap_mut(&mut self) -> &mut T {
        &mut self.tap
    }

    /// The tap, and the end of the machine.
    pub fn into_tap(self) -> T {
        self.tap
    }
}

impl<M: Machine, T: Tap<M>> Machine for Tapped<M, T> {
    type Input<'a> = M::Input<'a>;
    type Output<'a>
        = M::Output<'a>
    where
        Self: 'a;

    #[inline]
    fn handle(&mut self, now: Time, input: M::Input<'_>) {
        self.tap.input(now, &input);
        self.machine.handle(now, input);
    }

    #[inline]
    fn poll_output(&mut self) -> Option<M::Output<'_>> {
        let output = self.machine.poll_output()?;
        self.tap.output(&output);
        Some(output)
    }
}
