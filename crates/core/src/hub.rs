//! Many links in one machine: what a gateway's shard decides.
//!
//! The shell numbers the links; the hub keeps their peers, one timing wheel for all deadlines, and
//! knows who is online. Whatever concerns all links at once, such as a drain, is done a bounded
//! number of links at a time, so that no input stalls the others.

mod address;
mod presence;
mod sweep;

use alloc::vec::Vec;
use core::net::SocketAddr;

use address::Address;
pub use presence::Presence;
use sweep::Sweep;

use crate::link::{self, Context, Effect, Outbound, Peer, SessionKey, Settings};
use crate::pages::Pages;
use crate::policy::Policy;
use crate::random::Random;
use crate::tap::Machine;
use crate::time::{Span, Time};
use crate::wheel::Wheel;

/// The most links a hub takes: their numbers share a session's with the shard and a serial.
pub const MAX_LINKS: u32 = 1 << 24;

/// How many steps of the wheel one [`Input::Deadline`] may cost: about 100 µs of work.
pub const DEADLINE_STEPS: u32 = 1_024;

/// Links whose deadlines are looked at side by side.
const DEADLINE_BATCH: usize = 32;

/// What can change a hub.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input<'a> {
    /// A peer connected.
    Opened {
        /// The number by which the shell will call this link. Numbers are reused once the link's
        /// `Close` was polled, are below [`MAX_LINKS`], and should be handed out densely; one that
        /// is taken or too large is closed at once.
        link: u32,
        /// The index of its listener; of an unknown one the link is closed at once.
        listener: u16,
        /// Where it comes from.
        address: SocketAddr,
        /// Its session's epoch, if it gets that far: above all that any shard has given before,
        /// which only the shell can know.
        epoch: u64,
    },
    /// Something happened to a link, or is wanted of it. For unknown links it is ignored.
    Link {
        /// Which.
        link: u32,
        /// What.
        input: link::Input<'a>,
    },
    /// The time of the next deadline has come, or may have.
    Deadline,
    /// Something is wanted of all links.
    Command(HubCommand),
}

/// What may be wanted of all links.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HubCommand {
    /// Put this policy in force for a listener: for new links at once, for the others in turn.
    Retune {
        /// The index of the listener.
        listener: u16,
        /// The policy.
        policy: Policy,
    },
    /// Say goodbye to every link, in turn.
    Drain {
        /// Each peer is asked to come back at a random point within this time.
        reconnect_within: Span,
    },
    /// Tell every heartbeat as an event, or no longer.
    ReportHeartbeats(bool),
}

/// What a hub wants, or tells, of one link.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Output<'a> {
    /// Which link.
    pub link: u32,
    /// What.
    pub output: link::Output<'a>,
}

/// What the hub counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Links now open, in handshake or established.
    pub links: u32,
    /// Links now established.
    pub online: u32,
    /// Links now suspected.
    pub suspects: u32,
    /// Heartbeats received so far, asked and answered.
    pub heartbeats_in: u64,
    /// Heartbeats sent so far, asked and answered.
    pub heartbeats_out: u64,
}

/// The machine of one shard.
#[derive(Debug)]
pub struct Hub {
    shard: u8,
    serial: u64,
    listeners: Vec<Settings>,
    slots: Pages<Option<Slot>>,
    wheel: Wheel,
    sweeps: Vec<Sweep>,
    /// Ended, but still to be looked at while their last outputs are polled.
    ended: Vec<u32>,
    /// The wheel has more that is due than one input may do.
    backlog: bool,
    outbound: Outbound,
    random: Random,
    counters: Counters,
}

#[derive(Debug)]
struct Slot {
    peer: Peer,
    /// Whole milliseconds since the link was opened, and one; 0 if it never was.
    established: u32,
    address: Address,
    listener: u16,
}

impl Hub {
    /// A hub that starts at `now`, with these listeners, of which all have the accepting side.
    ///
    /// `shard` is the first byte of its sessions' numbers; `seed` is chance, for spreading.
    pub fn new(now: Time, shard: u8, listeners: Vec<Settings>, seed: u64) -> Hub {
        // Session numbers of different runs differ: milliseconds of the wall clock, then a count.
        let origin = listeners.first().map_or(0, |settings| settings.wall_origin_ms);
        Hub {
            shard,
            serial: origin << 20,
            listeners,
            slots: Pages::new(),
            wheel: Wheel::new(now),
            sweeps: Vec::new(),
            ended: Vec::new(),
            backlog: false,
            outbound: Outbound::default(),
            random: Random::new(seed),
            counters: Counters::default(),
        }
    }

    /// When to call with [`Input::Deadline`] unless something changes before; it may
    /// be in the past.
    pub fn next_deadline(&self) -> Option<Time> {
        if self.backlog || !self.sweeps.is_empty() {
            return Some(Time::ZERO);
        }
        self.wheel.next_deadline()
    }

    /// What was counted.
    pub fn counters(&self) -> Counters {
        let (heartbeats_in, heartbeats_out) = self.outbound.heartbeats();
        // Those that have just ended can still be looked at, but are open no longer.
        let links = self.counters.links.saturating_sub(self.ended.len() as u32);
        Counters { links, heartbeats_in, heartbeats_out, ..self.counters }
    }

    /// The settings of each listener.
    pub fn listeners(&self) -> &[Settings] {
        &self.listeners
    }

    /// What is known of a link; until the next input also of one that has just ended.
    pub fn presence(&self, link: u32) -> Option<Presence<'_>> {
        self.slots.get(link)?.as_ref().map(|slot| Presence::of(link, slot))
    }

    /// The established links from number `from` upwards, in order.
    pub fn presences(&self, from: u32) -> impl Iterator<Item = Presence<'_>> {
        self.slots
            .iter_from(from)
            .filter_map(|(link, slot)| Some((link, slot.as_ref()?)))
            .filter(|(_, slot)| slot.peer.is_established())
            .map(|(link, slot)| Presence::of(link, slot))
    }

    /// The link that carries this session.
    pub fn find(&self, session: u64) -> Option<u32> {
        let link = u32::try_from(session & u64::from(MAX_LINKS - 1)).ok()?;
        let slot = self.slots.get(link)?.as_ref()?;
        (slot.peer.is_established() && slot.peer.session().session == session).then_some(link)
    }

    fn open(&mut self, now: Time, link: u32, listener: u16, address: SocketAddr, epoch: u64) {
        let mut out = self.outbound.to(link);
        let Some(settings) = self.listeners.get(usize::from(listener)) else {
            return out.close(link::Closing::Abort);
        };
        let taken = self.slots.get(link).is_some_and(Option::is_some);
        if taken || link >= MAX_LINKS {
            return out.close(link::Closing::Abort);
        }
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial & 0xffff_ffff;
        let session = u64::from(self.shard) << 56 | serial << 24 | u64::from(link);
        let key = SessionKey { session, epoch };
        let mut context = Context { settings, random: &mut self.random };
        let peer = Peer::open(now, key, &mut context, &mut out);
        if let Some(deadline) = peer.next_deadline() {
            self.wheel.arm(link, deadline.at);
        }
        let slot = Some(Slot { peer, established: 0, address: address.into(), listener });
        *self.slots.entry(link) = slot;
        self.counters.links += 1;
    }

    #[inline]
    fn input(&mut self, now: Time, link: u32, input: link::Input<'_>) {
        let Some(Some(slot)) = self.slots.get_mut(link) else {
            return;
        };
        let Some(settings) = self.listeners.get(usize::from(slot.listener)) else {
            return;
        };
        let was = (slot.peer.is_established(), slot.peer.is_suspect());
        let mut context = Context { settings, random: &mut self.random };
        let effect = slot.peer.handle(now, input, &mut context, &mut self.outbound.to(link));
        let is = (slot.peer.is_established(), slot.peer.is_suspect());
        if was != is {
            if is.0 && !was.0 {
                let after = now.since(slot.peer.flight().opened()).as_millis();
                slot.established = u32::try_from(after).unwrap_or(u32::MAX - 1) + 1;
            }
            self.counters.online += u32::from(is.0);
            self.counters.online -= u32::from(was.0);
            self.counters.suspects += u32::from(is.1);
            self.counters.suspects -= u32::from(was.1);
        }
        match effect {
            Effect::None => {}
            Effect::Rearm => self.rearm(link),
            Effect::Ended => {
                self.wheel.disarm(link);
                self.ended.push(link);
            }
        }
    }

    /// Deadlines are re-armed lazily: an entry that is earlier than need be stays where it is.
    fn rearm(&mut self, link: u32) {
        let Some(Some(slot)) = self.slots.get(link) else {
            return;
        };
        match (slot.peer.next_deadline(), self.wheel.armed(link)) {
            (Some(next), Some(armed)) if armed <= next.at => {}
            (Some(next), _) => self.wheel.arm(link, next.at),
            (None, _) => {}
        }
    }

    /// In batches: the links that are due lie anywhere in memory, and reading a batch of them side
    /// by side costs little more than waiting for one.
    fn expire(&mut self, now: Time) {
        let mut steps = DEADLINE_STEPS;
        let mut batch = [(0, None); DEADLINE_BATCH];
        loop {
            let mut due = 0;
            for (entry, link) in
                batch.iter_mut().zip(core::iter::from_fn(|| self.wheel.expire(now, &mut steps)))
            {
                *entry = (link, None);
                due += 1;
            }
            for (link, deadline) in batch.iter_mut().take(due) {
                let slot = self.slots.get(*link).and_then(Option::as_ref);
                *deadline = slot.and_then(|slot| slot.peer.next_deadline());
            }
            for &(link, deadline) in batch.iter().take(due) {
                match deadline {
                    Some(due) if due.at <= now => self.input(now, link, link::Input::Deadline),
                    Some(due) => self.wheel.arm(link, due.at),
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
    fn forget_ended(&mut self) {
        while let Some(link) = self.ended.pop() {
            if self.slots.get_mut(link).and_then(Option::take).is_some() {
                self.counters.links -= 1;
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
            self.forget_ended();
        }
        match input {
            Input::Opened { link, listener, address, epoch } => {
                self.open(now, link, listener, address, epoch);
            }
            Input::Link { link, input } => self.input(now, link, input),
            Input::Deadline => {
                self.sweep(now);
                self.expire(now);
            }
            Input::Command(command) => self.command(command),
        }
    }

    #[inline]
    fn poll_output(&mut self) -> Option<Output<'_>> {
        self.outbound.poll().map(|(link, output)| Output { link, output })
    }
}

// What a link costs before its socket, its share of the wheel apart.
const _: () = assert!(size_of::<Option<Slot>>() <= 432);

#[cfg(test)]
mod tests;
