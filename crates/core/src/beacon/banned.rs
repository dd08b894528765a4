//! Statements of banned devices and from banned addresses: none is accepted, now or later.

use super::window::{CounterClass, Window};
use super::{BeaconHub, Statement};
use crate::cause::Cause;
use crate::time::Time;

impl BeaconHub {
    /// Refuses a statement of a device that is banned, or that comes from a banned address. Ends
    /// the device if it is online and the statement is its newest: an old one, which anybody could
    /// repeat from a banned address, ends nobody.
    pub(super) fn handle_banned(&mut self, now: Time, statement: Statement) {
        self.counters.banned += 1;
        let Statement { device, challenge, counter, .. } = statement;
        let Some(number) = self.table.find(device) else {
            // A replay of this statement is refused after the ban, too.
            let floor = self.floors.of(device);
            if floor.admits(statement) {
                floor.raise(challenge, counter);
            }
            return;
        };
        if self.record_counter(number, statement) == CounterClass::Newest {
            self.end(now, number, Cause::Kicked);
        }
    }

    /// Records the counter of a statement of an online device, so that it is accepted once.
    pub(super) fn record_counter(&mut self, number: u32, statement: Statement) -> CounterClass {
        let Some(entry) = self.table.get_mut(number) else {
            return CounterClass::Old;
        };
        let slot = &mut entry.value;
        if statement.challenge == slot.challenge {
            return slot.window.record(statement.counter);
        }
        let floor = self.floors.of(statement.device);
        if !floor.admits(statement) {
            return CounterClass::Old;
        }
        slot.challenge = statement.challenge;
        slot.window = Window::new(statement.counter, floor.counter());
        CounterClass::Newest
    }
}
