//! A tap that observes all inputs and outputs of a machine.
//!
//! A machine's outputs depend on its inputs alone, so a record of what passes here is enough to
//! run the machine again and compare its outputs.

pub mod record;

use crate::machine::{InputOf, Machine};
use crate::time::Time;

/// An observer of a machine's inputs and outputs.
pub trait Tap<M: Machine> {
    /// Observes an input before the machine handles it.
    fn input(&mut self, now: Time, input: &InputOf<'_, M>);

    /// Observes an output before the caller receives it.
    fn output(&mut self, output: &M::Output<'_>);
}

/// A tap that ignores everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Untapped;

impl<M: Machine> Tap<M> for Untapped {
    #[inline]
    fn input(&mut self, _: Time, _: &InputOf<'_, M>) {}

    #[inline]
    fn output(&mut self, _: &M::Output<'_>) {}
}
