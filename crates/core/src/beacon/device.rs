//! The device's end of the beacon protocol: what it states next and what an answer means.

use super::datagram::{Reply, Says, Statement};
use crate::time::Span;

/// A device's end of the beacon protocol. It has no clock and needs no storage: after a restart
/// the gateway's challenge supplies what the device has lost.
#[derive(Clone, Debug)]
pub struct Device {
    device: u64,
    challenge: u32,
    counter: u32,
}

/// The meaning of an answer for the device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// The latest statement was accepted. Send the next one within a quarter of the bound.
    Latest {
        /// The detection bound, rounded down to tenths of a second; `None` if silence is never
        /// judged.
        bound: Option<Span>,
    },
    /// The gateway demands another statement at once.
    Again,
    /// The answer is for an older statement or another device. Ignore it.
    Nothing,
}

impl Device {
    /// Creates a device without a challenge. `chance` should differ at each start.
    pub const fn new(device: u64, chance: u32) -> Device {
        Device { device, challenge: 0, counter: chance }
    }

    /// Returns the next statement to send.
    pub fn state(&mut self, status: u16, leaving: bool) -> Statement {
        self.counter = self.counter.wrapping_add(1);
        let Device { device, challenge, counter } = *self;
        Statement { device, challenge, counter, status, leaving }
    }

    /// Handles an answer whose tag was right.
    pub fn handle(&mut self, answer: Reply) -> Heard {
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
