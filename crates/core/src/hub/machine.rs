//! The hub as a machine: its inputs, its outputs in their order, and its deadlines.

use alloc::vec::Vec;

use super::sessions::Place;
use super::{Answer, Hub, Input, Output, PLACE_OF_AWAY, Part, Slot, World, timers};
use crate::driver::{Moved, Timed, Timer};
use crate::link;
use crate::machine::{Deadline, Machine, Reason};
use crate::plain::Damage;
use crate::time::Time;

impl Machine for Hub {
    type World<'a> = World<'a>;
    type Answer = Answer;
    type Output<'a> = Output<'a>;
    type Part = Part;

    #[inline]
    fn handle<'a>(&mut self, now: Time, input: impl Into<Input<'a>>) {
        let has_ended = !self.ended.is_empty() || self.away.has_ended();
        if has_ended && self.outbound.is_empty() {
            self.remove_ended();
        }
        match input.into() {
            Input::World(world) => self.world(now, world),
            Input::Answer(answer) => self.answer(now, answer),
        }
    }

    #[inline]
    fn poll_output(&mut self) -> Option<Output<'_>> {
        if let Some(link) = self.unowned.pop_front()
            && let Some(Slot { generation, place: Some(place), .. }) = self.slots.get(link)
        {
            let session = self.sessions.number(*generation, Some(*place), link);
            return Some(Output::Own { link, admission: *generation, session });
        }
        if let Some(link) = self.strangers.pop_front()
            && let Some(slot) = self.slots.get(link)
        {
            let shard = self.goal(slot);
            return Some(Output::GoHome { link, admission: slot.generation, shard });
        }
        if let Some(link) = self.resuming.pop_front()
            && let Some(slot) = self.slots.get(link)
            && let Some(wish) = slot.peer.wish()
        {
            let session = wish.key.session;
            return Some(Output::Resume { link, admission: slot.generation, session });
        }
        if self.outbound.is_empty()
            && let Some((link, state)) = self.handed_over.pop_front()
        {
            self.leave(link);
            self.polled_state = state;
            return Some(Output::HandedOver { link, state: &self.polled_state });
        }
        let (link, output) = self.outbound.poll()?;
        if link & PLACE_OF_AWAY != 0 {
            let place = Place::new(link & !PLACE_OF_AWAY)?;
            let session = self.sessions.number_in(place)?;
            let link::Output::Session(event) = output else {
                return None;
            };
            return Some(Output::Session { session, event });
        }
        if output == link::Output::Admit {
            let admission = self.slots.get(link).map_or(0, |slot| slot.generation);
            return Some(Output::Admit { link, admission });
        }
        Some(Output::Link { link, output })
    }

    fn deadline_of(&self, part: Part) -> Option<Deadline> {
        match part {
            Part::Common if self.sweeps.is_empty() => {
                self.away.next_end().map(|at| Deadline::exact(at, Reason::Expiry))
            }
            Part::Common => Some(Deadline::exact(Time::ZERO, Reason::Sweep)),
            Part::Session(_) => None,
            Part::Link(link) => self.deadline_of_link(link),
        }
    }

    fn parts(&self) -> Vec<Part> {
        self.all_parts()
    }

    fn save_part(&self, now: Time, part: Part, out: &mut Vec<u8>) {
        self.put_part(now, part, out);
    }

    fn load_part(&mut self, now: Time, part: Part, state: &mut &[u8]) -> Result<(), Damage> {
        self.take_part(now, part, state)
    }
}

impl Timed for Hub {
    const COMMON: Part = Part::Common;

    fn part(number: u32) -> Part {
        Part::Link(number)
    }

    fn fired(part: Part) -> Answer {
        Answer::Deadline(part)
    }

    #[inline]
    fn timer(&self, number: u32, now: Time) -> Option<Timer> {
        let peer = &self.slots.get(number)?.peer;
        let deadline = self.deadline_of_link(number)?;
        Some(timers::timer(peer, &deadline, now, self.counters.links, self.grid))
    }

    #[inline]
    fn poll_moved(&mut self) -> Option<Moved> {
        self.moved.pop()
    }
}
