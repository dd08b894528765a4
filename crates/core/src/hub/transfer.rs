//! Links that move from one hub to another, as when the shard at which a peer arrived is not the
//! home of its session.
//!
//! A command for all links reaches a link that moves exactly once, whichever of the two hubs
//! received the command first. All hubs of a gateway receive these commands in the same order, so
//! the number of the last one that has reached a link tells which are missing.

use alloc::vec::Vec;
use core::net::SocketAddr;

use super::granted::Granted;
use super::kept::Holder;
use super::meter::Meter;
use super::sweep::{Sweep, Task};
use super::{Hub, MAX_LINKS, Slot};
use crate::driver::Moved;
use crate::gather;
use crate::link::{self, Closing, Peer, SessionKey};
use crate::plain::{Damage, Plain, Sink, Source, plain_struct};
use crate::time::{Span, Time};
use crate::wire::CloseReason;

/// The state of a link that moves, apart from the peer itself.
struct Luggage {
    listener: u16,
    established: u32,
    address: SocketAddr,
    session: Option<SessionKey>,
    /// Whether the peer has proved its identity.
    proved: bool,
    /// When the session in force has logged in.
    logged_in: Option<Span>,
    /// The number of commands for all links that have reached the link.
    commands: u64,
    granted: Option<Granted>,
    meter: Option<Meter>,
}

plain_struct! { Luggage {
    listener,
    established,
    address,
    session,
    proved,
    logged_in,
    commands,
    granted,
    meter
} }

impl Hub {
    /// Emits the state of a link, with which the link is gone, without an event.
    pub(super) fn hand_over(&mut self, now: Time, link: u32) {
        self.meet_sweeps(now, link);
        let Some(slot) = self.slots.get(link).filter(|slot| !slot.peer.is_over()) else {
            return;
        };
        let session = slot.place.and_then(|place| self.sessions.key(place));
        let luggage = Luggage {
            listener: slot.listener,
            established: slot.established,
            address: slot.address.get(),
            session,
            proved: slot.proved,
            logged_in: self.logged_in(slot),
            commands: self.commands.max(self.reached(link)),
            granted: self.granted.get(&link).cloned(),
            meter: self.meters.get(&link).copied(),
        };
        let mut state = Vec::new();
        luggage.put(&mut Sink::state(now, &mut state));
        slot.peer.save(now, &mut state);
        self.handed_over.push_back((link, state));
        self.end_turn(now, link);
    }

    /// Forgets a link whose state is polled now: until then the shell can query it for the events
    /// that came before.
    pub(super) fn leave(&mut self, link: u32) {
        self.count_link(link, false);
        self.forget_link(link);
        self.moved.push(Moved { number: link, is_exact: true });
    }

    /// Takes over a link. One that cannot be taken over is closed.
    pub(super) fn take_over(&mut self, now: Time, link: u32, state: &[u8]) {
        let is_free = link < MAX_LINKS && self.slots.get(link).is_none();
        let Some((luggage, peer)) = self.unpack(now, state).ok().filter(|_| is_free) else {
            return self.outbound.to(link).close(Closing::Abort);
        };
        let Luggage {
            listener,
            established,
            address,
            session,
            proved,
            logged_in,
            commands,
            granted,
            meter,
        } = luggage;
        let slot = Slot {
            demanding: gather::is_demanding(peer.policy()),
            peer,
            established,
            address: address.into(),
            listener,
            proved,
            generation: self.sessions.next_generation(),
            place: session.and_then(|key| self.sessions.adopt(key, link)),
        };
        let is_homeless = session.is_some() && slot.place.is_none();
        let awaits_admission = slot.peer.awaits_admission();
        let is_resuming = slot.peer.wish().is_some();
        let is_identified = slot.peer.login().is_some();
        self.slots.insert(link, slot);
        self.restore_login(link, logged_in);
        self.granted.extend(granted.map(|granted| (link, granted)));
        self.meters.extend(meter.map(|meter| (link, meter)));
        self.count_link(link, true);
        self.count_frame(link);
        self.moved.push(Moved { number: link, is_exact: true });
        if is_homeless {
            let full = link::Command::close(CloseReason::Full);
            return self.handle_link(now, link, link::World::Command(full));
        }
        if is_identified {
            self.go_on(now, link);
        } else if is_resuming {
            self.seek_resumption(link);
        } else if awaits_admission {
            self.outbound.to(link).admit();
        }
        self.catch_up(now, link, listener, commands);
        if let Some(reconnect_within) = self.draining {
            // As for a link that opens, whatever its former hub has or has not received.
            self.drain(now, link, reconnect_within);
        }
        // Later commands have higher numbers than any that this hub has had.
        if commands > self.commands || !self.sweeps.is_empty() {
            self.ahead.insert(link, self.commands.max(commands));
        }
    }

    fn unpack(&self, now: Time, mut state: &[u8]) -> Result<(Luggage, Peer), Damage> {
        let mut from = Source::state(now, state);
        let luggage = Luggage::take(&mut from)?;
        state = from.rest();
        let settings = self.listeners.get(usize::from(luggage.listener));
        let peer = Peer::load(now, settings.ok_or(Damage::Settings)?, &mut state)?;
        if peer.is_over() {
            return Err(Damage::Illegal);
        }
        Ok((luggage, peer))
    }

    /// Applies to a link, before it moves, the commands whose sweeps have not reached it yet.
    fn meet_sweeps(&mut self, now: Time, link: u32) {
        let reached = self.reached(link);
        let is_ahead = |sweep: &&Sweep| sweep.number > reached && sweep.next <= link;
        let tasks: Vec<Task> =
            self.sweeps.iter().filter(is_ahead).map(|sweep| sweep.task.clone()).collect();
        for task in &tasks {
            self.apply(now, link, task);
        }
    }

    /// Applies to a link that has moved here the commands after the number `reached`, which its
    /// former hub had not received: those whose sweeps are in progress, and of those whose sweeps
    /// are over, retunes and the drain. The link misses a message whose sweep is over.
    fn catch_up(&mut self, now: Time, link: u32, listener: u16, reached: u64) {
        if self.commands <= reached {
            return;
        }
        let is_missed = |sweep: &&Sweep| sweep.number > reached;
        let mut tasks: Vec<Task> =
            self.sweeps.iter().filter(is_missed).map(|sweep| sweep.task.clone()).collect();
        let index = usize::from(listener);
        let is_retune =
            |task: &Task| matches!(task, Task::Retune { listener: of, .. } if *of == listener);
        if self.retuned.get(index).is_some_and(|number| *number > reached)
            && !tasks.iter().any(is_retune)
            && let Some(settings) = self.listeners.get(index)
        {
            tasks.insert(0, Task::Retune { listener, policy: settings.policy });
        }
        for task in &tasks {
            self.apply(now, link, task);
        }
    }

    /// Counts a link that moves here or away, without an event.
    fn count_link(&mut self, link: u32, comes: bool) {
        let Some(slot) = self.slots.get(link) else {
            return;
        };
        let kept = slot.peer.kept_bytes();
        let (before, now) = if comes { (0, kept) } else { (kept, 0) };
        self.kept.count(Holder::Link(link), before, now);
        let counters = &mut self.counters;
        let counts = [
            (&mut counters.links, true),
            (&mut counters.online, slot.peer.is_established()),
            (&mut counters.suspects, slot.peer.is_suspect()),
            (&mut counters.demanding, slot.demanding),
        ];
        for (count, is_one) in counts {
            if comes {
                *count += u32::from(is_one);
            } else {
                *count -= u32::from(is_one);
            }
        }
    }
}
