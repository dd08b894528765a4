//! Operator commands for beacons: for one device at once, for all in bounded steps.

use alloc::vec::Vec;

use super::{BeaconCommand, BeaconHub, Slot};
use crate::cause::Cause;
use crate::liveness;
use crate::plain::plain_struct;
use crate::policy::Policy;
use crate::session::Event;
use crate::time::{Span, Time};

/// The number of devices that one step of a sweep handles: about 100 µs of work.
pub(super) const SWEEP_STEP: usize = 1_024;

/// The number of places that one step of a sweep visits, empty ones included: at most 0.1 ms, since
/// each visit may cost a cache miss.
pub(super) const SWEEP_PLACES: usize = 4_096;

/// The replacement of one policy by another, device by device.
#[derive(Clone, Debug)]
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

plain_struct! { PolicyRollout { policy, former, generation, next, queued } }

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

    /// Returns the policy last applied to a device.
    pub(super) const fn applied_to(&self, slot: &Slot) -> &Policy {
        if slot.generation == self.generation { &self.policy } else { &self.former }
    }

    /// Returns the policy that a device is judged by: the one last applied, with the bound that the
    /// device was told if that is longer. The device cannot know of a shorter bound before its next
    /// statement is answered, and until then it states as often as the longer one demands.
    pub(super) fn policy_of(&self, slot: &Slot) -> Policy {
        let (policy, told) = (*self.applied_to(slot), slot.told_tenths);
        match policy.bound() {
            // A device that was told that silence is never judged need not state for as long as it
            // likes, so no time is late enough for a verdict.
            Some(_) if told == 0 => policy.unjudged(),
            Some(bound) if told > tenths_of(&policy) => {
                let by = u64::from(told) * 100 - bound.as_millis();
                policy.lengthened(Span::from_millis(by))
            }
            Some(_) | None => policy,
        }
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

/// Returns the bound of a policy as devices are told it: in tenths of a second, 0 for none.
pub(super) fn tenths_of(policy: &Policy) -> u16 {
    let tenths = |bound: Span| u16::try_from(bound.as_millis() / 100).unwrap_or(u16::MAX);
    policy.bound().map_or(0, |bound| tenths(bound).max(1))
}

impl BeaconHub {
    pub(super) fn command(&mut self, now: Time, command: BeaconCommand) {
        let (device, input) = match command {
            BeaconCommand::Retune(policy) => return self.rollout.retune(policy),
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

    /// Returns whether a drain or a retune is in progress. A retune goes no further once a drain
    /// has begun: nobody is left for whom it matters.
    pub(super) fn is_sweeping(&self) -> bool {
        match self.draining {
            Some(_) => self.table.len() > 0,
            None => self.rollout.next.is_some(),
        }
    }

    /// Performs one step of the drain or retune in progress.
    pub(super) fn sweep(&mut self, now: Time) {
        let Some(next) = self.draining else {
            return self.retune_step(now);
        };
        let (found, cursor) = self.next_devices(next);
        for number in found {
            self.end(now, number, Cause::Drained);
        }
        // No device comes while a drain is in progress, so behind the end there is nothing.
        self.draining = Some(cursor.unwrap_or(u32::MAX));
    }

    /// Returns the devices of the next step of a sweep, and where the step after it begins.
    fn next_devices(&self, from: u32) -> (Vec<u32>, Option<u32>) {
        let mut scan = self.table.scan(from, SWEEP_PLACES);
        let found = scan.by_ref().take(SWEEP_STEP).map(|(number, _)| number).collect();
        (found, scan.cursor())
    }

    fn retune_step(&mut self, now: Time) {
        let Some(next) = self.rollout.next else {
            return;
        };
        let (found, cursor) = self.next_devices(next);
        for number in found {
            self.apply_policy(now, number);
        }
        self.rollout.next = cursor;
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
        let from = self.rollout.policy_of(&entry.value);
        entry.value.generation = self.rollout.generation;
        let policy = self.rollout.policy_of(&entry.value);
        let input = liveness::Input::Retuned { from, seed: self.random.next_u32() };
        let liveness = &mut entry.value.liveness;
        self.counters.suspects -= u32::from(liveness.is_suspect());
        liveness.handle(now, input, &policy);
        self.counters.suspects += u32::from(liveness.is_suspect());
        self.rearm(number);
        self.emit(number, Event::Retuned(self.rollout.policy));
        self.forward_liveness_outputs(now, number);
    }
}
