//! The interface of a machine, and a tap that observes all its inputs and outputs.
//!
//! A machine's outputs depend on its inputs alone, so a record of what passes here is enough to
//! run the machine again and compare its outputs.

pub mod record;

use crate::time::Time;

/// A state machine with one function for input and one for output.
pub trait Machine {
    /// An input: everything that can change the machine.
    type Input<'a>;
    /// An output: everything the machine requests or reports.
    type Output<'a>
    where
        Self: 'a;

    /// Handles one input.
    fn handle(&mut self, now: Time, input: Self::Input<'_>);

    /// Returns the next output; call until `None` after each input.
    fn poll_output(&mut self) -> Option<Self::Output<'_>>;
}

/// An observer of a machine's inputs and outputs.
pub trait Tap<M: Machine> {
    /// Observes an input before the machine handles it.
    fn input(&mut self, now: Time, input: &M::Input<'_>);

    /// Observes an output before the caller receives it.
    fn output(&mut self, output: &M::Output<'_>);
}

/// A tap that ignores everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Untapped;

impl<M: Machine> Tap<M> for Untapped {
    #[inline]
    fn input(&mut self, _: Time, _: &M::Input<'_>) {}

    #[inline]
    fn output(&mut self, _: &M::Output<'_>) {}
}

/// A machine together with its tap.
#[derive(Clone, Debug)]
pub struct Tapped<M, T> {
    machine: M,
    tap: T,
}

impl<M: Machine, T: Tap<M>> Tapped<M, T> {
    /// Combines `machine` and `tap`.
    pub const fn new(machine: M, tap: T) -> Tapped<M, T> {
        Tapped { machine, tap }
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
