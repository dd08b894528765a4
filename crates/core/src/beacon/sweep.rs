//! Operator commands for beacons: for one device at once, for all in bounded steps.

use super::{BeaconCommand, BeaconHub, Event};
use crate::cause::Cause;
use crate::liveness;
use crate::policy::Policy;
use crate::time::Time;

/// The number of devices that one step of a sweep visits: about 100 µs of work.
pub(super) const SWEEP_STEP: usize = 1_024;

/// The replacement of one policy by another, device by device.
#[derive(Debug)]
pub(super) struct PolicyRollout {
    policy: Policy,
    former: Policy,
    /// The number of retunes so far; a device of another generation still has the former policy.
    generation: u8,
    /// The table place at which the current rollout continues; `None` if none is in progress.
    next: Option<u32>,
    /// The policy of the next rollout.
    queued: Option<Policy>,
}

impl PolicyRollout {
    pub(super) const fn new(policy: Policy) -> PolicyRollout {
        PolicyRollout { policy, former: policy, generation: 0, next: None, queued: None }
    }

    pub(super) const fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(super) const fn generation(&self) -> u8 {
        self.generation
    }

    /// Returns the policy in force for a device of this generation.
    pub(super) const fn policy_of(&self, generation: u8) -> &Policy {
        if generation == self.generation { &self.policy } else { &self.former }
    }

    /// Starts a rollout, or queues it behind the current one, so that at most two policies are in
    /// force. Of several queued policies only the last is kept.
    fn retune(&mut self, policy: Policy) {
        if self.next.is_some() {
            self.queued = Some(policy);
            return;
        }
        self.former = core::mem::replace(&mut self.policy, policy);
        self.generation = self.generation.wrapping_add(1);
        self.next = Some(0);
    }
}

impl BeaconHub {
    pub(super) fn command(&mut self, now: Time, command: BeaconCommand) {
        let (device, input) = match command {
            BeaconCommand::Retune(policy) => return self.rollout.retune(policy),
            BeaconCommand::HoldPlaces(places) => return self.held_places = places,
            BeaconCommand::Drain => return self.draining = self.draining.or(Some(0)),
            BeaconCommand::Hold { device, span } => {
                (device, liveness::Input::Hold { until: now + span })
            }
            BeaconCommand::Release { device } => (device, liveness::Input::Release),
            BeaconCommand::Kick { device } => {
                if let Some(number) = self.table.find(device) {
                    self.end(now, number, Cause::Kicked);
                    self.kicked.insert(now, device);
                }
                return;
            }
        };
        if let Some(number) = self.table.find(device) {
            self.handle_liveness(now, number, input);
        }
    }

    /// Returns whether a retune or a drain is in progress.
    pub(super) fn is_sweeping(&self) -> bool {
        self.rollout.next.is_some() || self.draining.is_some() && self.table.len() > 0
    }

    /// Performs one step of the drain or retune in progress.
    pub(super) fn sweep(&mut self, now: Time) {
        let Some(next) = self.draining else {
            return self.retune_step(now);
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

    fn retune_step(&mut self, now: Time) {
        let Some(next) = self.rollout.next else {
            return;
        };
        let mut visited = 0;
        let mut last = None;
        while visited < SWEEP_STEP {
            let from = last.map_or(next, |last| last + 1);
            let Some((number, _)) = self.table.iter_from(from).next() else {
                break;
            };
            self.apply_policy(now, number);
            last = Some(number);
            visited += 1;
        }
        self.rollout.next = last.map(|last| last + 1).filter(|_| visited == SWEEP_STEP);
        if self.rollout.next.is_none()
            && let Some(policy) = self.rollout.queued.take()
        {
            self.rollout.retune(policy);
        }
    }

    /// Puts the current policy in force for a device that still has the former one.
    pub(super) fn apply_policy(&mut self, now: Time, number: u32) {
        let Some(entry) = self.table.get_mut(number) else {
            return;
        };
        if entry.value.generation == self.rollout.generation {
            return;
        }
        entry.value.generation = self.rollout.generation;
        let (from, seed) = (self.rollout.former, self.random.next_u32());
        let input = liveness::Input::Retuned { from, seed };
        let liveness = &mut entry.value.liveness;
        self.counters.suspects -= u32::from(liveness.is_suspect());
        liveness.handle(now, input, &self.rollout.policy);
        self.counters.suspects += u32::from(liveness.is_suspect());
        self.rearm(number);
        self.emit(number, Event::Retuned(self.rollout.policy));
        self.forward_liveness_outputs(now, number);
    }
}
