//! Sessions that are away: without a link, until they are resumed or end.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::net::SocketAddr;

use super::granted::Granted;
use super::kept::Holder;
use super::reach::Unsendable;
use super::sessions::{Place, Session};
use super::sweep::SWEEP_STEP;
use super::{Hub, PLACE_OF_AWAY};
use crate::cause::{Cause, Verdict};
use crate::link::{Command, Introduced, Resumable, WhenFull, cause_of};
use crate::origin::Shares;
use crate::plain::plain_struct;
use crate::resume::{Digest, NotResumed};
use crate::session;
use crate::time::{Span, Time};
use crate::wire::{BootId, InstanceId};

/// The usual number of sessions of a hub that may be away at once: as many as links of a large
/// gateway, which a failure of its network cuts together.
pub const AWAY_SESSIONS: u32 = 100_000;

/// How many sessions that ended while they were away are remembered, so that their clients are told
/// why. Each takes about 50 bytes, and those of the last minutes matter.
pub(super) const LAPSED: usize = 4_096;

/// A session that is away.
#[derive(Debug)]
pub(super) struct Away {
    pub(super) resumable: Resumable,
    pub(super) introduced: Introduced,
    pub(super) proved: bool,
    pub(super) listener: u16,
    address: SocketAddr,
    pub(super) granted: Option<Granted>,
    /// When the session has logged in.
    logged_in: Option<Span>,
    /// The number of commands for all links that have reached its last link.
    pub(super) commands: u64,
    /// When the session ends.
    until: Time,
    /// Its number among those that went away, in order.
    serial: u64,
    /// The session has ended, and is kept until that is told.
    is_over: bool,
}

plain_struct! { Away {
    resumable,
    introduced,
    proved,
    listener,
    address,
    granted,
    logged_in,
    commands,
    until,
    serial,
    is_over
} }

/// All sessions of a hub that are away.
#[derive(Debug)]
pub(super) struct Absences {
    table: BTreeMap<Place, Box<Away>>,
    ends: BTreeSet<(Time, Place)>,
    /// Those that have ended, until all outputs were polled.
    over: Vec<Place>,
    limit: usize,
    /// The sessions by the addresses of their last links, which decide whose makes room.
    shares: Shares,
    serials: BTreeMap<u64, Place>,
    next_serial: u64,
    lapsed: Lapsed,
}

/// The sessions that ended last while they were away.
#[derive(Clone, Debug, Default)]
pub(super) struct Lapsed {
    why: BTreeMap<u64, (Digest, NotResumed)>,
    order: VecDeque<u64>,
}

plain_struct! { Lapsed { why, order } if Lapsed::is_legal }

impl Lapsed {
    fn is_legal(&self) -> bool {
        self.order.len() <= LAPSED && self.order.iter().all(|number| self.why.contains_key(number))
    }

    fn add(&mut self, number: u64, digest: Digest, why: NotResumed) {
        if self.why.insert(number, (digest, why)).is_none() {
            self.order.push_back(number);
        }
        if self.order.len() > LAPSED
            && let Some(oldest) = self.order.pop_front()
        {
            self.why.remove(&oldest);
        }
    }

    /// Returns why a session has ended, to whom shows its token.
    pub(super) fn get(&self, number: u64, digest: &Digest) -> NotResumed {
        let found = self.why.get(&number).filter(|(of, _)| of == digest);
        found.map_or(NotResumed::Unknown, |(_, why)| *why)
    }
}

/// A read-only view of a session that is away, or that has ended so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Absence<'a> {
    /// The session's number.
    pub session: u64,
    /// The session's epoch.
    pub epoch: u64,
    /// The index of its listener.
    pub listener: u16,
    /// The address of its last link.
    pub address: SocketAddr,
    /// The identity of its peer; empty if it has none.
    pub identity: &'a str,
    /// What else is known of the peer; see [`Grant::attributes`](super::Grant::attributes).
    pub attributes: &'a str,
    /// The peer's boot id; zeros if unknown.
    pub boot_id: BootId,
    /// The peer's instance id; zeros if unknown.
    pub instance_id: InstanceId,
    /// The verdict on its last link.
    pub verdict: &'a Verdict,
    /// When the session ends unless it is resumed.
    pub until: Time,
    /// The messages that wait for the peer.
    pub waiting: u64,
}

impl Absences {
    pub(super) fn new(limit: u32) -> Absences {
        Absences {
            table: BTreeMap::new(),
            ends: BTreeSet::new(),
            over: Vec::new(),
            limit: limit as usize,
            shares: Shares::default(),
            serials: BTreeMap::new(),
            next_serial: 0,
            lapsed: Lapsed::default(),
        }
    }

    pub(super) fn get(&self, place: Place) -> Option<&Away> {
        self.table.get(&place).map(|away| &**away)
    }

    /// Returns the session in a place, unless it has ended.
    pub(super) fn present(&self, place: Place) -> Option<&Away> {
        self.get(place).filter(|away| !away.is_over)
    }

    pub(super) fn len(&self) -> usize {
        self.table.len() - self.over.len()
    }

    /// Returns when the first session ends.
    #[inline]
    pub(super) fn next_end(&self) -> Option<Time> {
        self.ends.first().map(|(at, _)| *at)
    }

    pub(super) fn has_ended(&self) -> bool {
        !self.over.is_empty()
    }

    pub(super) fn put(&mut self, place: Place, away: Box<Away>) {
        if !away.is_over {
            self.ends.insert((away.until, place));
            self.shares.add(away.address.ip().into(), away.serial);
            self.serials.insert(away.serial, place);
            self.next_serial = self.next_serial.max(away.serial + 1);
        }
        self.table.insert(place, away);
    }

    /// Forgets when a session ends, and whose it is.
    fn withdraw(&mut self, place: Place) {
        if let Some(away) = self.table.get(&place) {
            self.ends.remove(&(away.until, place));
            self.shares.remove(away.address.ip().into(), away.serial);
            self.serials.remove(&away.serial);
        }
    }

    /// Returns the session that makes room, if there are too many: of the address that has most of
    /// them the one that went away first. So nobody pushes out the sessions of others.
    fn must_give_way(&self) -> Option<Place> {
        let first = self.shares.first_to_go().filter(|_| self.len() > self.limit)?;
        self.serials.get(&first).copied()
    }

    /// Takes a session that goes on.
    pub(super) fn take(&mut self, place: Place) -> Option<Box<Away>> {
        self.present(place)?;
        self.withdraw(place);
        self.table.remove(&place)
    }

    pub(super) fn lapsed(&self) -> &Lapsed {
        &self.lapsed
    }

    pub(super) fn set_lapsed(&mut self, lapsed: Lapsed) {
        self.lapsed = lapsed;
    }
}

impl Away {
    pub(super) fn identity(&self) -> &str {
        &self.introduced.identity
    }

    pub(super) fn logged_in(&self) -> Option<Span> {
        self.logged_in
    }

    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }
}

impl Hub {
    /// Lets the session of a link that has ended be away, if the link has left it behind.
    #[cold]
    pub(super) fn go_away(&mut self, now: Time, link: u32) {
        let left = self.slots.get_mut(link).and_then(|slot| slot.peer.take_resumable());
        let Some((resumable, slot)) = left.and_then(|left| Some((left, self.slots.get(link)?)))
        else {
            return;
        };
        let (Some(place), logged_in) = (slot.place, self.logged_in(slot)) else {
            return;
        };
        let introduced = slot.peer.introduced().map(Introduced::known).unwrap_or_default();
        let granted = self.granted.get(&link).cloned();
        // A token ends its session whether that is away or not.
        let end = granted.as_ref().and_then(Granted::until);
        let until = end.map_or(resumable.until(), |end| end.min(resumable.until()));
        // It goes on at once, on the link that has replaced its own.
        let goes_on = resumable.verdict().cause == Cause::Replaced;
        let commands = self.sweeps.front().map_or(self.commands, |sweep| sweep.number - 1);
        let away = Away {
            introduced,
            proved: slot.proved,
            listener: slot.listener,
            address: slot.address.get(),
            granted,
            logged_in,
            commands,
            until,
            serial: self.away.next_serial,
            is_over: false,
            resumable: *resumable,
        };
        self.sessions.set_link(place, None);
        self.kept.count(Holder::Away(place), 0, away.resumable.kept_bytes());
        self.away.put(place, Box::new(away));
        if self.draining.is_some() {
            self.end_away(now, place, None);
        }
        while !goes_on && let Some(place) = self.away.must_give_way() {
            self.end_away(now, place, None);
        }
    }

    /// Ends a session that is away, for a cause, or for that of which its link was lost.
    pub(super) fn end_away(&mut self, now: Time, place: Place, cause: Option<Cause>) {
        let Some(away) = self.away.table.get_mut(&place).filter(|away| !away.is_over) else {
            return;
        };
        let lost = *away.resumable.verdict();
        let (before, digest) = (away.resumable.kept_bytes(), away.resumable.digest());
        let verdict = cause.map_or(lost, |cause| Verdict::of(cause, now, lost.last_heard));
        self.identities.remove(&away.introduced.identity, place);
        away.is_over = true;
        self.away.withdraw(place);
        self.away.over.push(place);
        self.kept.count(Holder::Away(place), before, 0);
        if let (Some(number), Some(digest)) = (self.sessions.number_in(place), digest) {
            let why = if cause.is_some() { NotResumed::Ended } else { NotResumed::Expired };
            self.away.lapsed.add(number, digest, why);
        }
        self.outbound.to(PLACE_OF_AWAY | place.get()).session(session::Event::Left(verdict));
    }

    /// Ends the sessions whose time is over: at most [`SWEEP_STEP`] at once.
    pub(super) fn expire_away(&mut self, now: Time) {
        for _ in 0..SWEEP_STEP {
            let Some(&(_, place)) = self.away.ends.first().filter(|(at, _)| *at <= now) else {
                return;
            };
            let end = self.away.get(place).and_then(|away| away.granted.as_ref()?.until());
            let cause = end.filter(|end| *end <= now).map(|_| Cause::Unauthorized);
            self.end_away(now, place, cause);
        }
    }

    /// Ends a bounded number of the sessions that are away; returns whether there are more.
    pub(super) fn drain_away(&mut self, now: Time) -> bool {
        let first = self.away.ends.iter().take(SWEEP_STEP).map(|(_, place)| *place);
        let first: Vec<Place> = first.collect();
        for place in first {
            self.end_away(now, place, None);
        }
        !self.away.ends.is_empty()
    }

    /// Forgets the sessions that have ended while they were away.
    pub(super) fn remove_over(&mut self) {
        while let Some(place) = self.away.over.pop() {
            self.away.table.remove(&place);
            self.sessions.end(place);
        }
    }

    /// Handles a command for a session: its link's, or what can be done while it is away.
    pub(super) fn command_session(&mut self, now: Time, session: u64, command: Command<'_>) {
        let Some(place) = self.sessions.place_of(session) else {
            return;
        };
        if let Some(link) = self.sessions.get(place).and_then(Session::link) {
            return self.handle_link(now, link, crate::link::World::Command(command));
        }
        match command {
            Command::Send { bytes, .. } => self.send_away(now, place, bytes),
            Command::Close { goodbye, .. } => {
                self.end_away(now, place, Some(cause_of(goodbye.reason)));
            }
            Command::Taken { length } => {
                if let Some(away) = self.away.table.get_mut(&place) {
                    away.resumable.take(length);
                }
            }
            Command::HeartbeatData(_)
            | Command::Retune(_)
            | Command::Hold(_)
            | Command::Release
            | Command::Heartbeat
            | Command::Flush => {}
        }
    }

    /// Keeps a whole message for a session that is away.
    fn send_away(&mut self, now: Time, place: Place, message: &[u8]) {
        let Some(away) = self.away.table.get_mut(&place).filter(|away| !away.is_over) else {
            return;
        };
        let before = away.resumable.kept_bytes();
        let windows = self.listeners.get(usize::from(away.listener)).and_then(|it| it.window);
        let full = windows.map(|windows| windows.full).unwrap_or_default();
        if away.resumable.send(message, false).is_ok() {
            let kept = away.resumable.kept_bytes();
            if self.kept.count(Holder::Away(place), before, kept) {
                self.make_room_in_windows(now, Holder::Away(place));
            }
        } else if full == WhenFull::Gap {
            away.resumable.skip();
        } else {
            self.end_away(now, place, Some(Cause::SlowConsumer));
        }
    }

    /// Returns the view of a session that is away. One that has ended so is available until the
    /// outputs have been polled and another input comes.
    pub fn absence(&self, session: u64) -> Option<Absence<'_>> {
        let place = self.sessions.place_of(session)?;
        self.absence_in(place, self.away.get(place)?)
    }

    /// Returns whether a session is away now, and has not ended.
    pub fn is_away(&self, session: u64) -> bool {
        self.sessions.place_of(session).is_some_and(|place| self.away.present(place).is_some())
    }

    /// Returns how many messages wait for a session that is away now, and has not ended.
    ///
    /// # Errors
    /// It is not away, or its codec does not carry the message.
    pub fn can_keep(&self, session: u64, message: &[u8]) -> Result<u64, Unsendable> {
        let away = self.sessions.place_of(session).and_then(|place| self.away.present(place));
        let away = away.ok_or(Unsendable::Gone)?;
        let settings = self.listeners.get(usize::from(away.listener)).ok_or(Unsendable::Gone)?;
        let (sent, acknowledged) = away.resumable.progress();
        let is_fit = settings.codec.carries(message);
        is_fit.then_some(sent - acknowledged).ok_or(Unsendable::Unfit)
    }

    /// Returns at most `limit` sessions that are away, from the place `from` upwards, and the place
    /// at which the next search continues; `None` if nothing is left.
    pub fn absences(&self, from: u32, limit: usize) -> (Vec<Absence<'_>>, Option<u32>) {
        let Some(first) = Place::new(from) else {
            return (Vec::new(), None);
        };
        let mut rest = self.away.table.range(first..);
        let found = rest.by_ref().filter(|(_, away)| !away.is_over).take(limit);
        let found = found.filter_map(|(place, away)| self.absence_in(*place, away)).collect();
        (found, rest.next().map(|(place, _)| place.get()))
    }

    /// Returns the numbers of the sessions of an identity that are away.
    pub fn absent_sessions_of(&self, identity: &str) -> Vec<u64> {
        let is_away =
            |place| self.away.present(place).is_some_and(|away| away.identity() == identity);
        let rivals = self.identities.rivals(identity, is_away).into_iter();
        rivals.filter_map(|rival| self.sessions.number_in(rival.place)).collect()
    }

    fn absence_in<'a>(&'a self, place: Place, away: &'a Away) -> Option<Absence<'a>> {
        let (sent, acknowledged) = away.resumable.progress();
        Some(Absence {
            session: self.sessions.number_in(place)?,
            epoch: self.sessions.get(place).map_or(0, Session::epoch),
            listener: away.listener,
            address: away.address,
            identity: away.identity(),
            attributes: away.granted.as_ref().map_or("", |granted| &granted.attributes),
            boot_id: away.introduced.boot_id,
            instance_id: away.introduced.instance_id,
            verdict: away.resumable.verdict(),
            until: away.until,
            waiting: sent - acknowledged,
        })
    }
}
