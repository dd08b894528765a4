//! The other end: what a device states next, and what an answer means to it.

use super::datagram::{Answer, Says, Statement};
use crate::time::Span;

/// One device's side of the protocol. It has no clock and needs no storage: whatever it forgets,
/// the gateway tells it.
#[derive(Clone, Debug)]
pub struct Device {
    device: u64,
    challenge: u32,
    counter: u32,
}

/// What an answer meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// The latest statement was heard. State again within a quarter of the bound.
    Latest {
        /// The detection bound, cut to tenths of a second; `None` if silence is never judged.
        bound: Option<Span>,
    },
    /// The gateway wants another statement, at once.
    Again,
    /// Nothing new: it answers an older statement, or another device.
    Nothing,
}

impl Device {
    /// A device that knows nothing yet. `chance` should differ from start to start.
    pub const fn new(device: u64, chance: u32) -> Device {
        Device { device, challenge: 0, counter: chance }
    }

    /// The next statement.
    pub fn state(&mut self, status: u16, leaving: bool) -> Statement {
        self.counter = self.counter.wrapping_add(1);
        let Device { device, challenge, counter } = *self;
        Statement { device, challenge, counter, status, leaving }
    }

    /// An answer arrived, and its tag was right.
    pub fn handle(&mut self, answer: Answer) -> Heard {
        if answer.device != self.device {
            return Heard::Nothing;
        }
        match answer.says {
            Says::Heard { counter, bound_tenths } => {
                if (answer.challenge, counter) != (self.challenge, self.counter) {
                    return Heard::Nothing;
                }
                let bound = Span::from_millis(u64::from(bound_tenths) * 100);
                Heard::Latest { bound: (bound_tenths > 0).then_some(bound) }
            }
            Says::Again { above, echo } => {
                if echo != self.counter as u16 {
                    return Heard::Nothing;
                }
                (self.challenge, self.counter) = (answer.challenge, above);
                Heard::Again
            }
        }
    }
}
