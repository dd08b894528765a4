//! The state of a hub, part by part.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::away::{Away, Lapsed};
use super::frequency::{Frequencies, Frequency};
use super::granted::Granted;
use super::identities::Rival;
use super::kept::Holder;
use super::login::Contest;
use super::meter::Meter;
use super::sessions::{Place, SavedSession, Session};
use super::sweep::{Sweep, Task};
use super::{Counters, Hub, Part, Slot};
use crate::driver::Moved;
use crate::link::Peer;
use crate::plain::{Damage, Plain, Sink, Source, plain_enum, plain_struct};
use crate::policy::Policy;
use crate::random::Random;
use crate::time::{Span, Time};

/// What no link and no session owns.
struct Common {
    counters: Counters,
    heartbeats: (u64, u64),
    random: Random,
    generation: u32,
    commands: u64,
    draining: Option<Span>,
    leave_limit: Span,
    sweeps: Vec<Sweep>,
    listeners: Vec<ListenerState>,
    frequencies: Vec<Frequency>,
    lapsed: Lapsed,
}

plain_struct! { Common {
    counters,
    heartbeats,
    random,
    generation,
    commands,
    draining,
    leave_limit,
    sweeps,
    listeners,
    frequencies,
    lapsed
} }

/// What commands have changed of a listener's settings.
struct ListenerState {
    policy: Policy,
    report_heartbeats: bool,
    retuned: u64,
}

plain_struct! { ListenerState { policy, report_heartbeats, retuned } }

plain_struct! { Counters {
    links,
    online,
    suspects,
    demanding,
    heartbeats_in,
    heartbeats_out,
    frame_bytes,
    window_bytes,
    away,
    resumed,
    not_resumed,
    resumptions_refused,
    frames_dropped,
    messages_refused,
    messages_missed
} }

plain_struct! { Sweep { task, next, number } }

plain_enum! { Task {
    0 => Retune { listener: listener, policy: policy }
    1 => Send { listener: listener, message: message, kind: kind }
    2 => Drain { reconnect_within: reconnect_within }
} }

plain_struct! { SavedSession { number, epoch, link } }

/// What a link has beside its peer.
struct Head {
    listener: u16,
    established: u32,
    address: SocketAddr,
    demanding: bool,
    generation: u32,
    place: Option<Place>,
    ahead: Option<u64>,
    proved: bool,
    logged_in: Option<Span>,
    contest: Option<Contest>,
    granted: Option<Granted>,
    meter: Option<Meter>,
}

plain_struct! { Head {
    listener,
    established,
    address,
    demanding,
    generation,
    place,
    ahead,
    proved,
    logged_in,
    contest,
    granted,
    meter
} }

impl Hub {
    /// Returns all parts: first what is common, then the sessions, then the links.
    pub(super) fn all_parts(&self) -> Vec<Part> {
        // Ended links and their sessions are only kept for queries.
        let is_kept = |link: u32| self.slots.get(link).is_some_and(|slot| !slot.peer.is_over());
        let is_there = |place: u32, session: &Session| match session.link() {
            Some(link) => is_kept(link),
            None => Place::new(place).is_some_and(|place| self.away.present(place).is_some()),
        };
        let sessions = self.sessions.iter().filter(|(place, session)| is_there(*place, session));
        let sessions = sessions.map(|(place, _)| Part::Session(place));
        let links = self.slots.scan(0, usize::MAX).map(|(link, _)| link);
        let links = links.filter(|link| is_kept(*link)).map(Part::Link);
        core::iter::once(Part::Common).chain(sessions).chain(links).collect()
    }

    pub(super) fn put_part(&self, now: Time, part: Part, out: &mut Vec<u8>) {
        debug_assert!(self.outbound.is_empty(), "outputs are not part of the state");
        match part {
            Part::Common => self.common().put(&mut Sink::state(now, out)),
            Part::Session(place) => {
                if let Some(session) = self.sessions.at(place) {
                    let mut to = Sink::state(now, out);
                    session.put(&mut to);
                    if let (None, Some(place)) = (session.link, Place::new(place))
                        && let Some(away) = self.away.present(place)
                    {
                        away.put(&mut to);
                    }
                }
            }
            Part::Link(link) => {
                if let Some(slot) = self.slots.get(link) {
                    self.put_link(now, link, slot, out);
                }
            }
        }
    }

    fn put_link(&self, now: Time, link: u32, slot: &Slot, out: &mut Vec<u8>) {
        let Slot {
            peer, established, address, listener, demanding, proved, generation, place, ..
        } = slot;
        let head = Head {
            listener: *listener,
            established: *established,
            address: address.get(),
            demanding: *demanding,
            generation: *generation,
            place: *place,
            ahead: self.ahead.get(&link).copied(),
            proved: *proved,
            logged_in: self.logged_in(slot),
            contest: self.contests.get(&link).copied(),
            granted: self.granted.get(&link).cloned(),
            meter: self.meters.get(&link).copied(),
        };
        head.put(&mut Sink::state(now, out));
        peer.save(now, out);
    }

    fn common(&self) -> Common {
        let states = self.listeners.iter().zip(&self.retuned);
        Common {
            counters: self.counters(),
            heartbeats: self.outbound.heartbeats(),
            random: self.random.clone(),
            generation: self.sessions.generation(),
            commands: self.commands,
            draining: self.draining,
            leave_limit: self.leave_limit,
            sweeps: self.sweeps.iter().cloned().collect(),
            listeners: states
                .map(|(settings, retuned)| ListenerState {
                    policy: settings.policy,
                    report_heartbeats: settings.report_heartbeats,
                    retuned: *retuned,
                })
                .collect(),
            frequencies: self.frequencies.saved(),
            lapsed: self.away.lapsed().clone(),
        }
    }

    pub(super) fn take_part(
        &mut self,
        now: Time,
        part: Part,
        state: &mut &[u8],
    ) -> Result<(), Damage> {
        match part {
            Part::Common => {
                let mut from = Source::state(now, state);
                let common = Common::take(&mut from)?;
                *state = from.rest();
                self.set_common(common)
            }
            Part::Session(place) => {
                let mut from = Source::state(now, state);
                let session = SavedSession::take(&mut from)?;
                let is_away = session.link.is_none();
                let away = if is_away { Some(Away::take(&mut from)?) } else { None };
                *state = from.rest();
                if !self.sessions.put(place, session) {
                    return Err(Damage::Illegal);
                }
                self.take_away(place, away);
                Ok(())
            }
            Part::Link(link) => self.take_link(now, link, state),
        }
    }

    fn set_common(&mut self, common: Common) -> Result<(), Damage> {
        let Common {
            counters,
            heartbeats,
            random,
            generation,
            commands,
            draining,
            leave_limit,
            sweeps,
            listeners,
            frequencies,
            lapsed,
        } = common;
        if listeners.len() != self.listeners.len() {
            return Err(Damage::Settings);
        }
        self.counters = counters;
        self.outbound.set_heartbeats(heartbeats);
        self.random = random;
        self.sessions.set_generation(generation);
        self.commands = commands;
        self.draining = draining;
        self.leave_limit = leave_limit;
        self.sweeps = VecDeque::from(sweeps);
        self.frequencies = Frequencies::load(frequencies);
        self.away.set_lapsed(lapsed);
        self.retuned.clear();
        for (settings, state) in self.listeners.iter_mut().zip(listeners) {
            let ListenerState { policy, report_heartbeats, retuned } = state;
            (settings.policy, settings.report_heartbeats) = (policy, report_heartbeats);
            self.retuned.push(retuned);
        }
        Ok(())
    }

    fn take_away(&mut self, place: u32, away: Option<Away>) {
        let (Some(place), Some(away)) = (Place::new(place), away) else {
            return;
        };
        if let Some(heard_at) = away.logged_in().filter(|_| !away.identity().is_empty()) {
            self.identities.add(away.identity(), Rival { heard_at, place });
        }
        self.kept.count(Holder::Away(place), 0, away.resumable.kept_bytes());
        self.away.put(place, Box::new(away));
    }

    fn take_link(&mut self, now: Time, link: u32, state: &mut &[u8]) -> Result<(), Damage> {
        let mut from = Source::state(now, state);
        let Head {
            listener,
            established,
            address,
            demanding,
            generation,
            place,
            ahead,
            proved,
            logged_in,
            contest,
            granted,
            meter,
        } = Head::take(&mut from)?;
        let settings = self.listeners.get(usize::from(listener)).ok_or(Damage::Settings)?;
        let mut rest = from.rest();
        let peer = Peer::load(now, settings, &mut rest)?;
        let kept = peer.kept_bytes();
        if self.slots.get(link).is_some() || link >= super::MAX_LINKS {
            return Err(Damage::Illegal);
        }
        *state = rest;
        let address = address.into();
        let slot =
            Slot { peer, established, address, listener, demanding, proved, generation, place };
        self.slots.insert(link, slot);
        self.contests.extend(contest.map(|contest| (link, contest)));
        self.restore_login(link, logged_in);
        self.restore_turn(link);
        self.ahead.extend(ahead.map(|number| (link, number)));
        self.granted.extend(granted.map(|granted| (link, granted)));
        self.meters.extend(meter.map(|meter| (link, meter)));
        self.count_frame(link);
        self.kept.count(Holder::Link(link), 0, kept);
        self.moved.push(Moved { number: link, is_exact: true });
        Ok(())
    }
}

impl Plain<'_> for Place {
    fn put(&self, out: &mut Sink<'_>) {
        self.get().put(out);
    }

    fn take(from: &mut Source<'_>) -> Result<Self, Damage> {
        Place::new(u32::take(from)?).ok_or(Damage::Illegal)
    }
}
