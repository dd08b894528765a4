//! The state of a beacon hub: what is common, and each device.

use alloc::vec::Vec;

use super::floor::Floors;
use super::kicked::Kicked;
use super::sweep::PolicyRollout;
use super::{BeaconHub, Counters, Part, Slot};
use crate::plain::{Damage, Plain, Sink, Source, plain_struct};
use crate::random::Random;
use crate::time::Time;

/// What no device owns.
struct Common {
    serial: u64,
    held_places: u32,
    kicked: Kicked,
    rollout: PolicyRollout,
    draining: Option<u32>,
    floors: Floors,
    random: Random,
    counters: Counters,
}

plain_struct! { Common {
    serial,
    held_places,
    kicked,
    rollout,
    draining,
    floors,
    random,
    counters
} }

plain_struct! { Counters { online, suspects, heard, challenged, replayed, full, kicked, banned } }

impl BeaconHub {
    /// Returns all parts: first what is common, then the devices.
    pub(super) fn all_parts(&self) -> Vec<Part> {
        let devices = self.table.scan(0, usize::MAX).map(|(number, _)| Part::Device(number));
        core::iter::once(Part::Common).chain(devices).collect()
    }

    pub(super) fn put_part(&self, now: Time, part: Part, out: &mut Vec<u8>) {
        debug_assert!(self.outputs.is_empty(), "outputs are not part of the state");
        let out = &mut Sink::state(now, out);
        match part {
            Part::Common => Common {
                serial: self.serial,
                held_places: self.held_places,
                kicked: self.kicked.clone(),
                rollout: self.rollout.clone(),
                draining: self.draining,
                floors: self.floors.clone(),
                random: self.random.clone(),
                counters: self.counters(),
            }
            .put(out),
            Part::Device(number) => {
                if let Some(entry) = self.table.get(number) {
                    entry.device().put(out);
                    entry.value.put(out);
                }
            }
        }
    }

    pub(super) fn take_part(
        &mut self,
        now: Time,
        part: Part,
        state: &mut &[u8],
    ) -> Result<(), Damage> {
        let mut from = Source::state(now, state);
        match part {
            Part::Common => self.set_common(Common::take(&mut from)?)?,
            Part::Device(number) => {
                let (device, slot) = (u64::take(&mut from)?, Slot::take(&mut from)?);
                if !self.table.put(number, device, slot) {
                    return Err(Damage::Illegal);
                }
                self.rearm(number);
            }
        }
        *state = from.rest();
        Ok(())
    }

    fn set_common(&mut self, common: Common) -> Result<(), Damage> {
        let Common { serial, held_places, kicked, rollout, draining, floors, random, counters } =
            common;
        if !floors.are_like(&self.floors) {
            return Err(Damage::Settings);
        }
        (self.serial, self.held_places, self.draining) = (serial, held_places, draining);
        (self.kicked, self.rollout, self.floors) = (kicked, rollout, floors);
        (self.random, self.counters) = (random, counters);
        Ok(())
    }
}

plain_struct! { Slot {
    liveness,
    epoch,
    since,
    address,
    window,
    challenge,
    status,
    told_tenths,
    generation
} }

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;
    use core::net::SocketAddr;

    use super::*;
    use crate::beacon::window::{CounterClass, Window};
    use crate::liveness::{Evidence, Input, Liveness, Output, Role};
    use crate::machine::Deadline;
    use crate::plain::{Damage, Plain, Sink, Source};
    use crate::policy::Policy;
    use crate::random::Random;
    use crate::time::{Span, Time};

    fn outputs(slot: &mut Slot, ahead: Span) -> Vec<Output> {
        let polled = core::iter::from_fn(|| slot.liveness.poll_output());
        let back = |mut silence: crate::liveness::Silence| {
            silence.due = silence.due - ahead;
            silence.last_heard = silence.last_heard - ahead;
            silence
        };
        let polled = polled.map(|output| match output {
            Output::Overdue(silence) => Output::Overdue(back(silence)),
            Output::Dead(silence) => Output::Dead(back(silence)),
            same @ (Output::Probe { .. }
            | Output::Keepalive { .. }
            | Output::Confirm { .. }
            | Output::RoundTrip(_)
            | Output::Suspect
            | Output::Recovered) => same,
        });
        polled.collect()
    }

    #[test]
    fn a_device_that_moves_to_another_clock_at_every_input_goes_on_the_same() {
        let policy = Policy::demanding();
        let (mut dead, mut late) = (0, 0);
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let mut now = Time::from_millis(20_000_000);
            let address = SocketAddr::from(([10, 0, 0, 7], 9));
            let made = || Slot {
                liveness: Liveness::new(now, Role::Watch, Span::from_secs(1)),
                epoch: 7,
                since: now,
                address: address.into(),
                window: Window::new(500, 490),
                challenge: 0xc0ff_ee01,
                status: 3,
                told_tenths: 80,
                generation: 2,
            };
            let (mut slot, mut copy) = (made(), made());
            for slot in [&mut slot, &mut copy] {
                slot.liveness.handle(now, Input::Introduced { seed: 1 }, &policy);
            }
            let mut lead = Span::ZERO;
            for step in 0..100 {
                let mut state = Vec::new();
                copy.put(&mut Sink::state(now + lead, &mut state));
                lead = Span::from_nanos(random.next_u64() >> 2);
                let mut from = Source::state(now + lead, &state);
                copy = Slot::take(&mut from).unwrap();
                assert!(from.rest().is_empty());
                let mut cut = Source::state(now, &state[..random.below(70) as usize]);
                assert_eq!(Slot::take(&mut cut).err(), Some(Damage::Truncated));
                let next = slot.liveness.next_deadline(&policy);
                now = match next {
                    Some(next) if random.below(2) == 0 => next.at.max(now),
                    Some(_) | None => now + random.up_to(Span::from_millis(2_500)),
                };
                let input = match random.below(8) {
                    0..3 => Input::Heard(Evidence::Bytes),
                    3 => Input::Hold { until: now + Span::from_secs(9) },
                    _ => Input::Deadline,
                };
                slot.liveness.handle(now, input, &policy);
                copy.liveness.handle(now + lead, moved(input, lead), &policy);
                let polled = outputs(&mut slot, Span::ZERO);
                assert_eq!(outputs(&mut copy, lead), polled, "seed {seed}, step {step}");
                dead += u32::from(polled.iter().any(|it| matches!(it, Output::Dead(_))));
                let next = copy.liveness.next_deadline(&policy);
                let next = next.map(|next| Deadline { at: next.at - lead, ..next });
                assert_eq!(next, slot.liveness.next_deadline(&policy), "seed {seed}, step {step}");
                let counter = 450 + random.below(100) as u32;
                let class = slot.window.record(counter);
                assert_eq!(copy.window.record(counter), class);
                late += u32::from(class == CounterClass::Late);
                assert_eq!(copy.since - lead, slot.since);
                let known = |slot: &Slot| {
                    let Slot { epoch, address, challenge, status, told_tenths, .. } = *slot;
                    (epoch, address, challenge, status, told_tenths, slot.generation)
                };
                assert_eq!(known(&copy), known(&slot));
            }
        }
        assert!(dead > 50 && late > 500, "{dead} {late}");
    }

    /// Returns `input` on a clock that is `ahead`.
    fn moved(input: Input, ahead: Span) -> Input {
        match input {
            Input::Hold { until } => Input::Hold { until: until + ahead },
            same @ (Input::Heard(_)
            | Input::Sent
            | Input::Introduced { .. }
            | Input::Deadline
            | Input::Retuned { .. }
            | Input::Keep { .. }
            | Input::KernelRoundTrip(_)
            | Input::HalfClosed { .. }
            | Input::Heartbeat
            | Input::Release) => same,
        }
    }
}
