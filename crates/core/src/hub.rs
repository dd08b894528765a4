//! The hub: the machine that makes all decisions about the links of one gateway shard.
//!
//! The shell numbers the links, and a [`Driver`](crate::driver::Driver) keeps their deadlines in
//! its wheel. A command for all links, such as a drain, visits a bounded number of links per step,
//! so that no input delays the others.

mod address;
mod away;
mod frames;
mod frequency;
mod granted;
mod identities;
mod kept;
mod login;
mod machine;
mod meter;
mod presence;
mod rate;
mod reach;
mod resume;
mod saved;
mod sessions;
mod signal;
mod sweep;
mod timers;
mod transfer;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::SocketAddr;

use address::Address;
use away::Absences;
pub use away::{AWAY_SESSIONS, Absence};
pub use frames::FRAME_MEMORY;
use frequency::Frequencies;
use granted::Granted;
pub use granted::{Grant, MAX_ATTRIBUTES};
use identities::Identities;
pub use kept::WINDOW_MEMORY;
use kept::{Holder, Kept};
use login::Contest;
pub use login::{Login, Proof};
use meter::Meter;
pub use presence::{Presence, Presences};
pub use reach::Unsendable;
use sessions::{Place, Sessions};
pub use signal::{Answer, Counters, HubCommand, Input, Output, Part, Settings, World};
use sweep::Sweep;
pub use sweep::{MAX_MESSAGES, MESSAGE_MEMORY};
use timers::Grid;

use crate::budget::Budget;
use crate::driver::Moved;
use crate::gather;
use crate::link::departure::LEAVE_LIMIT;
use crate::link::{self, Context, Effect, Outbound, Peer, Writer};
use crate::pages::Slots;
use crate::random::Random;
use crate::time::{Span, Time};

/// The maximum number of links in a hub: each may have a session, whose place is 24 bits of its
/// number.
pub const MAX_LINKS: u32 = 1 << 24;

/// Marks the outputs of a session that is away, which has no link, with its place.
const PLACE_OF_AWAY: u32 = 1 << 31;

/// The machine for all links of one shard.
#[derive(Debug)]
pub struct Hub {
    grid: Grid,
    listeners: Vec<link::Settings>,
    slots: Slots<Slot>,
    sessions: Sessions,
    identities: Identities,
    /// How often identities have logged in lately.
    frequencies: Frequencies,
    /// The links that go to the homes of their identities ([`Output::GoHome`]).
    strangers: VecDeque<u32>,
    /// The sessions that have no link.
    away: Absences,
    /// The links whose peers may resume their sessions ([`Output::Resume`]).
    resuming: VecDeque<u32>,
    /// The newer logins that wait, by the link of the session that is to answer.
    contests: BTreeMap<u32, Contest>,
    /// The links whose sessions wait for the request of an epoch ([`Output::Own`]).
    unowned: VecDeque<u32>,
    /// The links whose deadlines may have moved.
    moved: Vec<Moved>,
    sweeps: VecDeque<Sweep>,
    /// The number of commands for all links so far.
    commands: u64,
    /// For each listener, the number of the last command that retuned it.
    retuned: Vec<u64>,
    /// For each link that came from another hub, the number of the last command for all links that
    /// it has received.
    ahead: BTreeMap<u32, u64>,
    /// What the sessions of links were granted, for those that were granted anything.
    granted: BTreeMap<u32, Granted>,
    /// What links have sent, at listeners that limit it.
    meters: BTreeMap<u32, Meter>,
    /// Whether any listener limits what is sent.
    has_rates: bool,
    /// The states of links that go to another hub, until they are polled.
    handed_over: VecDeque<(u32, Vec<u8>)>,
    /// The last polled one of these states, which the output borrows.
    polled_state: Vec<u8>,
    /// Once a drain has begun, the time within which its peers reconnect.
    draining: Option<Span>,
    /// The links that hold part of a frame: whether they are established, and the time from which
    /// the frame's time limit counts.
    frames: Budget<(bool, Time)>,
    /// What links keep for their peers' acknowledgements, in bytes, and at most.
    kept: Kept,
    leave_limit: Span,
    /// Ended links, kept until all outputs were polled so that the shell can still query them.
    ended: Vec<u32>,
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
    /// Whether the peer has proved its identity.
    proved: bool,
    /// The generation of the link's session, and the number of its admission.
    generation: u32,
    /// The place of the link's session.
    place: Option<Place>,
}

impl Hub {
    /// Creates a hub without links.
    pub fn new(settings: Settings) -> Hub {
        let Settings { shard, homes, listeners, seed, frame_memory, window_memory, away } =
            settings;
        let mut random = Random::new(seed);
        Hub {
            grid: Grid::of_shard(shard),
            sessions: Sessions::new(shard, random.next_u32()),
            identities: Identities::new(homes),
            frequencies: Frequencies::default(),
            strangers: VecDeque::new(),
            away: Absences::new(away),
            resuming: VecDeque::new(),
            contests: BTreeMap::new(),
            unowned: VecDeque::new(),
            retuned: alloc::vec![0; listeners.len()],
            slots: Slots::new(),
            moved: Vec::new(),
            sweeps: VecDeque::new(),
            commands: 0,
            ahead: BTreeMap::new(),
            granted: BTreeMap::new(),
            meters: BTreeMap::new(),
            has_rates: listeners.iter().any(|it| it.rates != link::Rates::default()),
            listeners,
            handed_over: VecDeque::new(),
            polled_state: Vec::new(),
            draining: None,
            frames: Budget::new(frame_memory),
            kept: Kept::new(window_memory),
            leave_limit: LEAVE_LIMIT,
            ended: Vec::new(),
            outbound: Outbound::default(),
            random,
            counters: Counters::default(),
        }
    }

    /// Returns the counters.
    pub fn counters(&self) -> Counters {
        let (heartbeats_in, heartbeats_out) = self.outbound.heartbeats();
        // Links in `ended` can still be queried, but are no longer open.
        let links = self.counters.links.saturating_sub(self.ended.len() as u32);
        let frame_bytes = self.frames.held() as u64;
        let window_bytes = self.kept.bytes() as u64;
        let away = self.away.len() as u32;
        Counters {
            links,
            heartbeats_in,
            heartbeats_out,
            frame_bytes,
            window_bytes,
            away,
            ..self.counters
        }
    }

    /// Returns how long the leave-taking of a link that ends now may last.
    pub fn leave_limit(&self) -> Span {
        self.leave_limit
    }

    /// Returns the settings of each listener.
    pub fn listeners(&self) -> &[link::Settings] {
        &self.listeners
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
        self.moved.push(Moved { number: link, is_exact: true });
        let demanding = gather::is_demanding(peer.policy());
        let address = address.into();
        let generation = self.sessions.next_generation();
        let slot = Slot {
            peer,
            established: 0,
            address,
            listener,
            demanding,
            proved: false,
            generation,
            place: None,
        };
        self.slots.insert(link, slot);
        self.counters.links += 1;
        self.counters.demanding += u32::from(demanding);
        if let Some(reconnect_within) = self.draining {
            self.drain(now, link, reconnect_within);
        }
    }

    /// Returns the token by which the peer proves its identity, while its login waits for
    /// [`World::Identified`]; empty if it has sent none. It must not be logged.
    pub fn token(&self, link: u32) -> &[u8] {
        self.slots.get(link).map_or(&[], |slot| slot.peer.token())
    }

    /// Returns what the peer shows as the token of the session that it wants to resume, while it
    /// waits for [`Answer::Resumed`]. It must not be logged.
    pub fn shown(&self, link: u32) -> &[u8] {
        self.slots.get(link).map_or(&[], |slot| slot.peer.shown())
    }

    /// Returns the link if it waits for the answer to this admission.
    fn awaits(&self, link: u32, admission: u32) -> Option<&Slot> {
        let slot = self.slots.get(link)?;
        (slot.generation == admission && slot.peer.awaits_admission()).then_some(slot)
    }

    #[inline]
    fn world(&mut self, now: Time, world: World<'_>) {
        match world {
            World::Link { link, input } => {
                if self.has_rates && matches!(input, link::World::Received(_)) {
                    self.handle_metered(now, link, input);
                } else {
                    self.handle_link(now, link, input);
                }
                if self.frames.must_give_way().is_some() {
                    self.make_room(now);
                }
            }
            World::Opened { link, listener, address } => self.open(now, link, listener, address),
            World::Identified { link, admission, login } => {
                self.identified(now, link, admission, login);
            }
            World::Refused { link, admission, denied } => {
                if self.awaits(link, admission).is_some() {
                    self.handle_link(now, link, link::Answer::Refused(denied));
                }
            }
            World::Crowded { link } => {
                self.run_link(now, link, |peer, _, out| peer.end_by_crowd(now, out));
            }
            World::HandOver { link } => self.hand_over(now, link),
            World::TakenOver { link, state } => {
                self.take_over(now, link, state);
                if self.frames.must_give_way().is_some() {
                    self.make_room(now);
                }
            }
            World::Command(command) => self.command(command),
            World::Session { session, command } => self.command_session(now, session, command),
        }
    }

    #[inline]
    fn answer(&mut self, now: Time, answer: Answer) {
        match answer {
            Answer::Deadline(Part::Link(link)) => self.handle_deadline(now, link),
            Answer::Deadline(Part::Common) => {
                self.sweep(now);
                self.expire_away(now);
            }
            Answer::Deadline(Part::Session(_)) => {}
            Answer::Examined { link, examination } => {
                self.handle_link(now, link, link::Answer::Examined(examination));
            }
            Answer::Owned { session, epoch, fresh } => self.owned(now, session, epoch, fresh),
            Answer::Resumed { link, admission, shown, fresh } => {
                self.resumed(now, link, admission, (shown, fresh));
            }
        }
    }

    #[inline]
    fn handle_link<'a>(&mut self, now: Time, link: u32, input: impl Into<link::Input<'a>>) {
        let input = input.into();
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
        let has_waited = slot.peer.awaits_admission();
        let kept = slot.peer.kept_bytes();
        let mut context = Context { settings, random: &mut self.random };
        let effect = step(&mut slot.peer, &mut context, &mut self.outbound.to(link));
        let counts_frame = was_within_frame || slot.peer.is_within_frame();
        let is_beyond = self.kept.count(Holder::Link(link), kept, slot.peer.kept_bytes());
        let after = (slot.peer.is_established(), slot.peer.is_suspect());
        if before != after {
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
                // The timer of a link in doubt is exact, and would cost a wake-up of its own;
                // those of trusted links stand on the grid.
                let is_cleared = was_in_doubt && !slot.peer.liveness().is_in_doubt();
                self.moved.push(Moved { number: link, is_exact: is_cleared });
            }
            Effect::Ended => {
                let counted = core::mem::take(&mut slot.demanding);
                self.counters.demanding -= u32::from(counted);
                self.moved.push(Moved { number: link, is_exact: true });
                self.ended.push(link);
            }
        }
        let wishes = !has_waited && slot.peer.wish().is_some();
        let is_admission_over = has_waited && !slot.peer.awaits_admission();
        let is_contest_over = effect == Effect::Rearm && slot.peer.is_contest_over(now);
        if counts_frame {
            self.count_frame(link);
        }
        if is_beyond {
            self.make_room_in_windows(now, Holder::Link(link));
        }
        if effect == Effect::Ended {
            self.go_away(now, link);
            self.forget_login(link);
        }
        if wishes {
            self.seek_resumption(link);
        }
        if is_admission_over {
            self.end_turn(now, link);
        }
        if !self.contests.is_empty() && self.contests.contains_key(&link) {
            self.decide(now, link);
        } else if is_contest_over {
            self.decide_for(now, link);
        }
    }

    #[cold]
    fn remove_ended(&mut self) {
        while let Some(link) = self.ended.pop() {
            self.counters.links -= 1;
            self.forget_link(link);
        }
        self.remove_over();
    }

    /// Removes a link and its session from the tables.
    fn forget_link(&mut self, link: u32) {
        self.forget_login(link);
        self.contests.remove(&link);
        if let Some(place) = self.slots.remove(link).and_then(|slot| slot.place)
            && self.sessions.is_held(place, link)
        {
            self.sessions.end(place);
        }
        self.frames.set(link, None);
        self.ahead.remove(&link);
        self.granted.remove(&link);
        self.meters.remove(&link);
    }
}

// The memory of a link, without its socket and its share of the wheel.
const _: () = assert!(size_of::<Option<Slot>>() <= 408);

#[cfg(test)]
mod tests;
