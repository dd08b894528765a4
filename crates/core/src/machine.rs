//! The shape that all machines of this crate have.
//!
//! Everything that can change a machine is an input with an explicit time, and everything that the
//! machine requests or reports is an output. Inputs are of two kinds: what the world did, and
//! answers to the machine's own requests. A replay repeats both; a run under another policy repeats
//! the first kind and computes the second anew.

use alloc::vec::Vec;

pub use crate::plain::Damage;
use crate::plain::{Plain, Sink, Source};
use crate::time::{Span, Time};

/// A state machine with one function for input and one for output.
pub trait Machine {
    /// What the world did: bytes, an end, an error, a command, the result of a login.
    type World<'a>;
    /// An answer to a request of the machine: a deadline reached, a socket examined, a login
    /// admitted.
    type Answer;
    /// An output: everything the machine requests or reports.
    type Output<'a>
    where
        Self: 'a;
    /// A part of the machine that has a deadline and a saved state of its own.
    type Part: Copy;

    /// Handles one input.
    fn handle<'a>(&mut self, now: Time, input: impl Into<InputOf<'a, Self>>)
    where
        Self: Sized;

    /// Returns the next output; call until `None` after each input.
    fn poll_output(&mut self) -> Option<Self::Output<'_>>;

    /// Returns the deadline of a part, with its reason; `None` if no deadline is set, or if there
    /// is no such part.
    fn deadline_of(&self, part: Self::Part) -> Option<Deadline>;

    /// Returns all parts that exist, in the order in which they must be loaded.
    fn parts(&self) -> Vec<Self::Part>;

    /// Appends the state of a part at `now` to `out`, with every time as an age or a time to come,
    /// so that the state can be loaded on another clock. Poll all outputs before: they are not
    /// saved. Nothing is appended for a part that does not exist.
    fn save_part(&self, now: Time, part: Self::Part, out: &mut Vec<u8>);

    /// Loads the state of a part from the front of `state`, into a new machine of the same
    /// settings.
    ///
    /// # Errors
    /// The state is damaged, or of a machine with other settings. Discard the machine then.
    fn load_part(&mut self, now: Time, part: Self::Part, state: &mut &[u8]) -> Result<(), Damage>;

    /// Returns the deadline of a machine that has one part.
    fn next_deadline(&self) -> Option<Deadline>
    where
        Self: Machine<Part = ()>,
    {
        self.deadline_of(())
    }
}

/// An input: everything that can change a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input<W, A> {
    /// What the world did.
    World(W),
    /// An answer to a request of the machine.
    Answer(A),
}

impl<'a, W: Plain<'a>, A: Plain<'a>> Plain<'a> for Input<W, A> {
    fn put(&self, out: &mut Sink<'_>) {
        match self {
            Input::World(world) => {
                0_u8.put(out);
                world.put(out);
            }
            Input::Answer(answer) => {
                1_u8.put(out);
                answer.put(out);
            }
        }
    }

    fn take(from: &mut Source<'a>) -> Result<Self, Damage> {
        match u8::take(from)? {
            0 => W::take(from).map(Input::World),
            1 => A::take(from).map(Input::Answer),
            _ => Err(Damage::UnknownTag),
        }
    }
}

/// The input of a machine.
pub type InputOf<'a, M> = Input<<M as Machine>::World<'a>, <M as Machine>::Answer>;

/// The time at which a machine must receive the answer that its deadline has come, and the reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Deadline {
    /// The time.
    pub at: Time,
    /// How much earlier the answer may come and still have its effect: a probe or a keepalive that
    /// leaves early does no harm. So a loop with many links can send many in one turn, as a kernel
    /// does with timers (`PR_SET_TIMERSLACK` in prctl(2)). Zero for all other reasons.
    pub slack: Span,
    /// The reason.
    pub reason: Reason,
}

impl Deadline {
    pub(crate) const fn exact(at: Time, reason: Reason) -> Deadline {
        Deadline { at, slack: Span::ZERO, reason }
    }

    /// Returns the earlier of two deadlines, or the first of two at one time.
    pub(crate) fn earlier(first: Option<Deadline>, second: Option<Deadline>) -> Option<Deadline> {
        match (first, second) {
            (Some(a), Some(b)) => Some(if b.at < a.at { b } else { a }),
            (first, second) => first.or(second),
        }
    }
}

/// The reason of a deadline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The handshake must be complete.
    Handshake,
    /// The peer must be admitted or refused.
    Admission,
    /// A probe is due.
    Probe,
    /// A keepalive is due.
    Keepalive,
    /// The socket is to be examined because our bytes are outstanding.
    Examine,
    /// The peer becomes suspect.
    Suspicion,
    /// The verdict is due.
    Verdict,
    /// The verdict on a peer that closed its side is due.
    HalfClose,
    /// An incomplete frame must be complete.
    Frame,
    /// The session ends, because the proof of its identity does.
    Expiry,
    /// The next step of the work for all links or devices is due.
    Sweep,
    /// The delivery of the last bytes is to be examined or given up.
    Leave,
    /// An outage, or the scope of a verdict, is decided with the evidence so far.
    Settle,
}

/// The methods of [`Machine`] that save and load a machine of one part, by its own `save` and an
/// expression that loads it.
macro_rules! saved_whole {
    ($machine:ident, $now:ident, $state:ident, $load:expr) => {
        fn parts(&self) -> alloc::vec::Vec<()> {
            alloc::vec![()]
        }

        fn save_part(&self, now: Time, (): (), out: &mut alloc::vec::Vec<u8>) {
            self.save(now, out);
        }

        fn load_part(
            &mut self,
            $now: Time,
            (): (),
            $state: &mut &[u8],
        ) -> Result<(), crate::plain::Damage> {
            let $machine = self;
            *$machine = $load;
            Ok(())
        }
    };
}
pub(crate) use saved_whole;

/// Implements `From` for the two kinds of input of a machine, so that `handle` accepts both.
macro_rules! kinds_of_input {
    ($world:ty, $answer:ty) => {
        impl<'a> From<$world> for crate::machine::Input<$world, $answer> {
            #[inline]
            fn from(world: $world) -> Self {
                crate::machine::Input::World(world)
            }
        }

        impl<'a> From<$answer> for crate::machine::Input<$world, $answer> {
            #[inline]
            fn from(answer: $answer) -> Self {
                crate::machine::Input::Answer(answer)
            }
        }
    };
}
pub(crate) use kinds_of_input;
