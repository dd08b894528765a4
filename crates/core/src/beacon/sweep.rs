//! What operators want of beacons: of one, at once; of all, a bounded number at a time.

use super::{BeaconCommand, BeaconHub, Event};
use crate::cause::Cause;
use crate::liveness;
use crate::policy::Policy;
use crate::time::Time;

/// How many devices one step of a retune touches: about 100 µs of work.
pub(super) const SWEEP_STEP: usize = 1_024;

/// Which policy is in force for whom while one takes the place of another.
#[derive(Debug)]
pub(super) struct Tuning {
    policy: Policy,
    former: Policy,
    /// Counts the retunes; a device with another number has not seen the last one.
    number: u8,
    /// The place in the table from which the last retune goes on.
    next: Option<u32>,
    /// The one that comes after it.
    waiting: Option<Policy>,
}

impl Tuning {
    pub(super) const fn new(policy: Policy) -> Tuning {
        Tuning { policy, former: policy, number: 0, next: None, waiting: None }
    }

    pub(super) const fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(super) const fn number(&self) -> u8 {
        self.number
    }

    /// The policy of a device that has seen retune `tuned`.
    pub(super) const fn policy_of(&self, tuned: u8) -> &Policy {
        if tuned == self.number { &self.policy } else { &self.former }
    }

    /// A retune waits for the one before it, so that there are never three policies at a time; of
    /// several that wait only the last matters.
    fn retune(&mut self, policy: Policy) {
        if self.next.is_some() {
            self.waiting = Some(policy);
            return;
        }
        self.former = core::mem::replace(&mut self.policy, policy);
        self.number = self.number.wrapping_add(1);
        self.next = Some(0);
    }
}

impl BeaconHub {
    pub(super) fn command(&mut self, now: Time, command: BeaconCommand) {
        let (device, input) = match command {
            BeaconCommand::Retune(policy) => return self.tuning.retune(policy),
            BeaconCommand::Drain => return self.draining = self.draining.or(Some(0)),
            BeaconCommand::Hold { device, span } => {
                (device, liveness::Input::Hold { until: now + span })
            }
            BeaconCommand::Release { device } => (device, liveness::Input::Release),
            BeaconCommand::Kick { device } => {
                if let Some(number) = self.table.find(device) {
                    self.end(now, number, Cause::Kicked);
                }
                return;
            }
        };
        if let Some(number) = self.table.find(device) {
            self.liveness(now, number, input);
        }
    }

    /// Whether there is anything to do for all devices in turn.
    pub(super) fn is_sweeping(&self) -> bool {
        self.tuning.next.is_some() || self.draining.is_some() && self.table.len() > 0
    }

    /// One step of what is under way for all devices.
    pub(super) fn sweep(&mut self, now: Time) {
        let Some(next) = self.draining else {
            return self.retune_some(now);
        };
        let mut next = next;
        for _ in 0..SWEEP_STEP {
            let Some((number, _)) = self.table.iter_from(next).next() else {
                break;
            };
            self.end(now, number, Cause::Drained);
            next = number + 1;
        }
        self.draining = Some(next);
    }

    fn retune_some(&mut self, now: Time) {
        let Some(next) = self.tuning.next else {
            return;
        };
        let mut visited = 0;
        let mut last = None;
        while visited < SWEEP_STEP {
            let from = last.map_or(next, |last| last + 1);
            let Some((number, _)) = self.table.iter_from(from).next() else {
                break;
            };
            self.tune(now, number);
            last = Some(number);
            visited += 1;
        }
        self.tuning.next = last.map(|last| last + 1).filter(|_| visited == SWEEP_STEP);
        if self.tuning.next.is_none()
            && let Some(policy) = self.tuning.waiting.take()
        {
            self.tuning.retune(policy);
        }
    }

    /// Puts the policy in force for a device that has another one.
    pub(super) fn tune(&mut self, now: Time, number: u32) {
        let Some(entry) = self.table.get_mut(number) else {
            return;
        };
        if entry.value.tuned == self.tuning.number {
            return;
        }
        entry.value.tuned = self.tuning.number;
        let (from, seed) = (self.tuning.former, self.random.next_u32());
        let input = liveness::Input::Retuned { from, seed };
        let liveness = &mut entry.value.liveness;
        self.counters.suspects -= u32::from(liveness.is_suspect());
        liveness.handle(now, input, &self.tuning.policy);
        self.counters.suspects += u32::from(liveness.is_suspect());
        self.rearm(number);
        self.tell(number, Event::Retuned(self.tuning.policy));
        self.carry(now, number);
    }
}
