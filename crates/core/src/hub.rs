//! The hub: the machine that makes all decisions about the links of one gateway shard.
//!
//! The shell numbers the links. The hub owns each link's `Peer` and one timing wheel for all
//! deadlines. A command for all links, such as a drain, visits a bounded number of links per step,
//! so that no input delays the others.

mod address;
mod frames;
mod presence;
mod sessions;
mod signal;
mod sweep;
mod timers;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;

use address::Address;
pub use frames::FRAME_MEMORY;
pub use presence::{Presence, Presences};
use sessions::{Place, Sessions};
pub use signal::{Counters, HubCommand, Input, Output};
use sweep::Sweep;
pub use sweep::{MAX_MESSAGES, MESSAGE_MEMORY};
use timers::{Grid, Timer};

use crate::budget::Budget;
use crate::gather;
use crate::link::departure::LEAVE_LIMIT;
use crate::link::{self, Context, Effect, Outbound, Peer, Settings, Writer};
use crate::pages::Slots;
use crate::random::Random;
use crate::tap::Machine;
use crate::time::{Span, Time};
use crate::wheel::{self, Wheel};
use crate::wire::CloseReason;

/// The maximum number of links in a hub: each may have a session, whose place is 24 bits of its
/// number.
pub const MAX_LINKS: u32 = 1 << 24;

/// The maximum number of wheel steps per [`Input::Deadline`]: about 100 µs of work.
pub const DEADLINE_STEPS: u32 = 1_024;

/// The number of wheel steps that a request to read a socket counts for: a system call costs about
/// as much. So one input makes at most 256 requests and one batch.
const POLL_STEPS: u32 = 3;

/// The number of due links whose deadlines are read together.
const DEADLINE_BATCH: usize = 32;

/// The machine for all links of one shard.
#[derive(Debug)]
pub struct Hub {
    grid: Grid,
    listeners: Vec<Settings>,
    slots: Slots<Slot>,
    sessions: Sessions,
    /// The sessions for which an epoch is to be asked, by their links.
    unowned: VecDeque<u32>,
    wheel: Wheel,
    sweeps: VecDeque<Sweep>,
    /// Once a drain has begun, the time within which its peers reconnect.
    draining: Option<Span>,
    /// The links that hold part of a frame, by the time from which the frame's time limit counts.
    frames: Budget<Time>,
    leave_limit: Span,
    /// Ended links, kept until the next input so that the shell can still query them.
    ended: Vec<u32>,
    /// More deadlines are due than one input may handle.
    backlog: bool,
    outbound: Outbound,
    random: Random,
    counters: Counters,
}

#[derive(Debug)]
struct Slot {
    peer: Peer,
    /// Milliseconds from open to established, plus one; 0 until the link is established.
    established: u32,
    address: Address,
    listener: u16,
    /// Whether the link is counted as demanding.
    demanding: bool,
    /// The generation of the link's session, and the number of its admission.
    generation: u32,
    /// The place of the link's session.
    place: Option<Place>,
}

impl Hub {
    /// Creates a hub that starts at `now`. All `listeners` must be of the accepting side.
    ///
    /// `shard` is the first byte of the session numbers; `seed` seeds the spread of probes and the
    /// session numbers, so it must be random.
    pub fn new(now: Time, shard: u8, listeners: Vec<Settings>, seed: u64) -> Hub {
        let mut random = Random::new(seed);
        Hub {
            grid: Grid::of_shard(shard),
            sessions: Sessions::new(shard, random.next_u32()),
            unowned: VecDeque::new(),
            listeners,
            slots: Slots::new(),
            wheel: Wheel::new(now),
            sweeps: VecDeque::new(),
            draining: None,
            frames: Budget::new(FRAME_MEMORY),
            leave_limit: LEAVE_LIMIT,
            ended: Vec::new(),
            backlog: false,
            outbound: Outbound::default(),
            random,
            counters: Counters::default(),
        }
    }

    /// Returns when the next [`Input::Deadline`] is due; the time may be in the past.
    pub fn next_deadline(&self) -> Option<Time> {
        if self.backlog || !self.sweeps.is_empty() {
            return Some(Time::ZERO);
        }
        self.wheel.next_deadline()
    }

    /// Returns the counters.
    pub fn counters(&self) -> Counters {
        let (heartbeats_in, heartbeats_out) = self.outbound.heartbeats();
        // Links in `ended` can still be queried, but are no longer open.
        let links = self.counters.links.saturating_sub(self.ended.len() as u32);
        let frame_bytes = self.frames.held() as u64;
        Counters { links, heartbeats_in, heartbeats_out, frame_bytes, ..self.counters }
    }

    /// Returns how long the leave-taking of a link that ends now may last.
    pub fn leave_limit(&self) -> Span {
        self.leave_limit
    }

    /// Returns the settings of each listener.
    pub fn listeners(&self) -> &[Settings] {
        &self.listeners
    }

    /// Returns the presence of a link. A link that has ended is available until the next input.
    pub fn presence(&self, link: u32) -> Option<Presence<'_>> {
        self.slots.get(link).map(|slot| Presence::of(link, slot, &self.sessions))
    }

    /// Searches at most `limit` numbers from `from` upwards for established links. Numbers without
    /// a link count too.
    pub fn presences(&self, from: u32, limit: usize) -> Presences<'_> {
        Presences::new(self.slots.scan(from, limit), &self.sessions)
    }

    /// Returns the established link that carries this session.
    pub fn find(&self, session: u64) -> Option<u32> {
        let link = self.sessions.find(session)?.link();
        self.slots.get(link)?.peer.is_established().then_some(link)
    }

    fn open(&mut self, now: Time, link: u32, listener: u16, address: SocketAddr) {
        let mut out = self.outbound.to(link);
        let Some(settings) = self.listeners.get(usize::from(listener)) else {
            return out.close(link::Closing::Abort);
        };
        let taken = self.slots.get(link).is_some();
        if taken || link >= MAX_LINKS {
            return out.close(link::Closing::Abort);
        }
        let mut context = Context { settings, random: &mut self.random };
        let peer = Peer::open(now, &mut context, &mut out);
        if let Some(deadline) = peer.next_deadline() {
            self.wheel.arm(link, deadline.at);
        }
        let demanding = gather::is_demanding(peer.policy());
        let address = address.into();
        let generation = self.sessions.next_generation();
        let slot =
            Slot { peer, established: 0, address, listener, demanding, generation, place: None };
        self.slots.insert(link, slot);
        self.counters.links += 1;
        self.counters.demanding += u32::from(demanding);
        if let Some(reconnect_within) = self.draining {
            self.drain(now, link, reconnect_within);
        }
    }

    /// Opens the session of a peer that may have one.
    fn open_session(&mut self, now: Time, link: u32, admission: u32) {
        if self.awaits(link, admission).is_none_or(|slot| slot.place.is_some()) {
            return;
        }
        let place = self.sessions.open(admission, link);
        if place.is_none() {
            let full = CloseReason::Full.into();
            return self.handle_link(now, link, link::Input::Refused(full));
        }
        if let Some(slot) = self.slots.get_mut(link) {
            slot.place = place;
            self.unowned.push_back(link);
        }
    }

    /// Returns the link if it waits for the answer to this admission.
    fn awaits(&self, link: u32, admission: u32) -> Option<&Slot> {
        let slot = self.slots.get(link)?;
        (slot.generation == admission && slot.peer.awaits_admission()).then_some(slot)
    }

    #[inline]
    fn handle_link(&mut self, now: Time, link: u32, input: link::Input<'_>) {
        self.run_link(now, link, |peer, context, out| peer.handle(now, input, context, out));
    }

    /// Runs one step of a link, and keeps the counters, the timer and the memory of its frame.
    #[inline]
    fn run_link(
        &mut self,
        now: Time,
        link: u32,
        step: impl FnOnce(&mut Peer, &mut Context<'_>, &mut Writer<'_>) -> Effect,
    ) {
        let Some(slot) = self.slots.get_mut(link) else {
            return;
        };
        let Some(settings) = self.listeners.get(usize::from(slot.listener)) else {
            return;
        };
        let before = (slot.peer.is_established(), slot.peer.is_suspect());
        let was_within_frame = slot.peer.is_within_frame();
        let was_in_doubt = slot.peer.liveness().is_in_doubt();
        let mut context = Context { settings, random: &mut self.random };
        let effect = step(&mut slot.peer, &mut context, &mut self.outbound.to(link));
        let counts_frame = was_within_frame || slot.peer.is_within_frame();
        let after = (slot.peer.is_established(), slot.peer.is_suspect());
        if before != after {
            if after.0 && !before.0 {
                let millis = now.since(slot.peer.flight().opened()).as_millis();
                slot.established =
                    u32::try_from(millis).map_or(u32::MAX, |ms| ms.saturating_add(1));
            }
            self.counters.online += u32::from(after.0);
            self.counters.online -= u32::from(before.0);
            self.counters.suspects += u32::from(after.1);
            self.counters.suspects -= u32::from(before.1);
        }
        match effect {
            Effect::None => {}
            Effect::Rearm => {
                // A policy that changes moves the deadline.
                let demanding = gather::is_demanding(slot.peer.policy());
                let counted = core::mem::replace(&mut slot.demanding, demanding);
                self.counters.demanding += u32::from(demanding);
                self.counters.demanding -= u32::from(counted);
                let is_cleared = was_in_doubt && !slot.peer.liveness().is_in_doubt();
                self.rearm(now, link, is_cleared);
            }
            Effect::Ended => {
                let counted = core::mem::take(&mut slot.demanding);
                self.counters.demanding -= u32::from(counted);
                self.wheel.disarm(link);
                self.ended.push(link);
            }
        }
        if counts_frame {
            self.count_frame(link);
        }
    }

    /// Arms the wheel for a link's next deadline. Lazy: an entry that is too early stays, because
    /// it is armed again when it fires. Not so for a link whose doubt `is_cleared`: its entry is
    /// exact, and would cost a wake-up of its own, while those of trusted links stand on the grid.
    fn rearm(&mut self, now: Time, link: u32, is_cleared: bool) {
        let Some(slot) = self.slots.get(link) else {
            return;
        };
        match (slot.peer.next_deadline(), self.wheel.armed(link)) {
            (Some(next), Some(armed)) if armed <= next.at && !is_cleared => {}
            (Some(next), _) => {
                let timer = Timer::of(&slot.peer, &next, now, self.counters.links, self.grid);
                // A deadline that this input has put into the past fires at once, and is judged no
                // more than a tick before the input, whatever the horizon: see `expire`.
                self.wheel.arm(link, timer.fires.max(now - wheel::TICK));
            }
            (None, _) => {}
        }
    }

    /// Handles the due deadlines, in batches: due links lie anywhere in memory, and the cache
    /// misses of one batch overlap.
    fn expire(&mut self, now: Time, horizon: Time) {
        let mut steps = DEADLINE_STEPS;
        let mut batch = [(0, Time::ZERO, None); DEADLINE_BATCH];
        loop {
            let mut due = 0;
            for entry in &mut batch {
                let Some(link) = self.wheel.expire(now, &mut steps) else { break };
                *entry = (link, self.wheel.position(), None);
                due += 1;
            }
            for (link, _, timer) in batch.iter_mut().take(due) {
                let slot = self.slots.get(*link);
                *timer = slot.and_then(|slot| {
                    let deadline = slot.peer.next_deadline()?;
                    Some(Timer::of(&slot.peer, &deadline, now, self.counters.links, self.grid))
                });
            }
            for &(link, armed, timer) in batch.iter().take(due) {
                match timer {
                    Some(timer) if timer.due.max(armed) <= horizon => {
                        self.handle_link(horizon, link, link::Input::Deadline);
                    }
                    Some(timer) if timer.due <= now => {
                        steps = steps.saturating_sub(POLL_STEPS);
                        // Asked again if there is no answer.
                        self.wheel.arm(link, now + wheel::TICK);
                        self.outbound.to(link).poll();
                    }
                    Some(timer) => self.wheel.arm(link, timer.fires),
                    None => {}
                }
            }
            if due < DEADLINE_BATCH {
                break;
            }
        }
        self.backlog = steps == 0;
    }

    #[cold]
    fn remove_ended(&mut self) {
        while let Some(link) = self.ended.pop() {
            if let Some(slot) = self.slots.remove(link) {
                self.counters.links -= 1;
                if let Some(place) = slot.place {
                    self.sessions.end(place);
                }
            }
        }
    }
}

impl Machine for Hub {
    type Input<'a> = Input<'a>;
    type Output<'a> = Output<'a>;

    #[inline]
    fn handle(&mut self, now: Time, input: Input<'_>) {
        if !self.ended.is_empty() {
            self.remove_ended();
        }
        match input {
            Input::Opened { link, listener, address } => self.open(now, link, listener, address),
            Input::Identified { link, admission } => self.open_session(now, link, admission),
            Input::Refused { link, admission, goodbye } => {
                if self.awaits(link, admission).is_some() {
                    self.handle_link(now, link, link::Input::Refused(goodbye));
                }
            }
            Input::Owned { session, epoch } => {
                if let Some((link, key)) = self.sessions.own(session, epoch) {
                    self.handle_link(now, link, link::Input::Admitted(key));
                }
            }
            Input::Link { link, input } => {
                self.handle_link(now, link, input);
                if self.frames.must_give_way().is_some() {
                    self.make_room(now);
                }
            }
            Input::Deadline { horizon } => {
                let horizon = horizon.min(now);
                self.sweep(now);
                self.expire(now, horizon);
            }
            Input::Command(command) => self.command(command),
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
        let (link, output) = self.outbound.poll()?;
        if output == link::Output::Admit {
            let admission = self.slots.get(link).map_or(0, |slot| slot.generation);
            return Some(Output::Admit { link, admission });
        }
        Some(Output::Link { link, output })
    }
}

// The memory of a link, without its socket and its share of the wheel.
const _: () = assert!(size_of::<Option<Slot>>() <= 432);

#[cfg(test)]
mod tests;
