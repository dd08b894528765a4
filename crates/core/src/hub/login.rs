//! Logins: from the answer that says who a peer is to the session in force.
//!
//! An identity has a home, to which a peer that arrived elsewhere goes first; so all its logins
//! meet in one hub, and one at a time has its turn. A login takes the place of an older one when it
//! is owned, and not before: until then it may still be refused. The time of HELLO alone says which
//! of two is older, never the order in which the answers come, so that each order ends in the same
//! state.

use alloc::vec::Vec;

use super::granted::{Grant, Granted};
use super::identities::Rival;
use super::sessions::Session;
use super::{Hub, Slot};
use crate::cause::Cause;
use crate::denial::Denial;
use crate::link::{self, Command, Goodbye, Logins};
use crate::plain::{plain_enum, plain_struct};
use crate::resume::Fresh;
use crate::time::{Span, Time};
use crate::wire::CloseReason;

/// The most logins of one identity that wait for their turn. Beyond that the oldest is sent away,
/// to come back: in a storm of logins each costs no more than a look at these.
const WAITING: usize = 32;

/// What the answer to an admission says about the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Login<'a> {
    /// When the peer's part of the handshake was complete, on the monotonic clock, which all hubs
    /// of a gateway share. It alone says which of two logins of an identity is the newer one.
    pub heard_at: Span,
    /// Who the peer is.
    pub proof: Proof<'a>,
    /// What else the session gets.
    pub grant: Grant<'a>,
}

plain_struct! { Login<'a> { heard_at, proof, grant } }

/// What is known of who a peer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof<'a> {
    /// Nothing is proved, and the identity that the peer claims is believed.
    Claim,
    /// The peer has proved this identity, by a certificate or a token. A peer that claims another
    /// one is sent away, and so is one whose proved identity is none: empty, too long, or with a
    /// control character.
    Proved(&'a str),
    /// The peer has proved nothing, and its claim is not believed: its session has no identity.
    Anonymous,
}

plain_enum! { Proof<'a> {
    0 => Claim {}
    1 => Proved { 0: identity }
    2 => Anonymous {}
} }

impl Login<'static> {
    /// The login of a peer whose claim is believed.
    pub const fn claim(heard_at: Span) -> Login<'static> {
        Login { heard_at, proof: Proof::Claim, grant: Grant { attributes: "", lasts: None } }
    }
}

/// A newer login that waits until it is known whether the session of an older one answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Contest {
    /// The link that waits, and the number of its admission.
    link: u32,
    admission: u32,
    since: Time,
}

plain_struct! { Contest { link, admission, since } }

impl Slot {
    pub(super) fn identity(&self) -> &str {
        self.peer.introduced().map_or("", |introduced| &introduced.identity)
    }
}

impl Hub {
    /// Takes the answer that says who a peer is, and opens its session, or sends the peer home.
    pub(super) fn identified(&mut self, now: Time, link: u32, admission: u32, login: Login<'_>) {
        let Login { heard_at, proof, grant } = login;
        if self.awaits(link, admission).is_none_or(|slot| slot.peer.login().is_some()) {
            return;
        }
        self.run_link(now, link, |peer, _, out| peer.identify(now, proof, out));
        if self.awaits(link, admission).is_none() {
            return;
        }
        self.granted.extend(Granted::new(now, grant).map(|granted| (link, granted)));
        let Some(slot) = self.slots.get_mut(link) else {
            return;
        };
        slot.proved = matches!(proof, Proof::Proved(_));
        slot.peer.log_in(heard_at);
        self.go_on(now, link);
    }

    /// Lets a peer of which it is known who it is log in, or sends it home.
    pub(super) fn go_on(&mut self, now: Time, link: u32) {
        let identity = self.slots.get(link).map_or("", Slot::identity);
        if identity.is_empty() || self.identities.home(identity) == self.sessions.shard() {
            self.seek_session(now, link);
        } else {
            self.strangers.push_back(link);
        }
    }

    /// Lets a peer that is at home log in: at once, or after another login of its identity. One at
    /// a time has its turn, so that the epochs of an identity rise as its sessions come in force.
    fn seek_session(&mut self, now: Time, link: u32) {
        let identity = self.slots.get(link).map_or("", Slot::identity);
        if identity.is_empty() {
            return self.open_session(now, link);
        }
        if !self.count_login(now, link) {
            return;
        }
        let identity = self.slots.get(link).map_or("", Slot::identity);
        self.identities.wait(identity, link, false);
        self.limit_waiting(now, link);
        self.give_turn(now, link);
    }

    /// Sends the oldest away of too many logins of one identity that wait.
    fn limit_waiting(&mut self, now: Time, link: u32) {
        let mut waiting = self.logins_like(link);
        waiting.retain(|(.., has_turn)| !has_turn);
        if let Some((_, oldest, _)) = waiting.first().filter(|_| waiting.len() > WAITING) {
            self.deny(now, *oldest, Denial::Waiting);
        }
    }

    /// Gives the newest of the logins that wait its turn, if it is nobody's: those of the identity
    /// of `link`.
    fn give_turn(&mut self, now: Time, link: u32) {
        let waiting = self.logins_like(link);
        let is_free = waiting.iter().all(|(.., has_turn)| !has_turn);
        let Some(&(_, newest, _)) = waiting.last().filter(|_| is_free) else {
            return;
        };
        let identity = self.slots.get(newest).map_or("", Slot::identity);
        self.identities.wait(identity, newest, true);
        self.take_turn(now, newest);
    }

    /// Returns the logins of the identity of `link` that wait, and the one that has its turn, the
    /// oldest first: the time of HELLO, the link, and whether it has its turn.
    fn logins_like(&self, link: u32) -> Vec<(Span, u32, bool)> {
        let Some(slot) = self.slots.get(link) else {
            return Vec::new();
        };
        let waiting = self.identities.waiting(slot.identity()).into_iter();
        let logins = waiting.filter_map(|(link, has_turn)| {
            let other = self.slots.get(link).filter(|other| is_same(other, slot))?;
            Some((other.peer.login()?, link, has_turn))
        });
        let mut logins: Vec<_> = logins.collect();
        logins.sort_unstable();
        logins
    }

    /// Opens the session of a peer whose turn it is, unless newer ones stand in its way, or the
    /// listener protects older ones that answer.
    fn take_turn(&mut self, now: Time, link: u32) {
        let Some(slot) = self.slots.get(link) else {
            return;
        };
        let Some(settings) = self.listeners.get(usize::from(slot.listener)) else {
            return;
        };
        let Logins { refuse, .. } = settings.logins;
        let limit = settings.logins.limit();
        let rivals = self.rivals(slot);
        let newer = rivals.iter().filter(|rival| Some(rival.heard_at) > slot.peer.login()).count();
        if newer >= limit {
            return self.handle_link(now, link, link::Answer::Refused(replaced().into()));
        }
        let is_silent = |rival: &Rival| {
            let rival = self.sessions.get(rival.place).and_then(Session::link);
            rival.and_then(|link| self.slots.get(link)).is_none_or(|slot| slot.peer.is_suspect())
        };
        if refuse && rivals.len() >= limit && !rivals.iter().any(is_silent) {
            return self.contest(now, link, &rivals);
        }
        self.open_session(now, link);
    }

    /// Takes a login that is over from those that wait, and gives the next its turn.
    #[cold]
    pub(super) fn end_turn(&mut self, now: Time, link: u32) {
        let slot = self.slots.get(link);
        if slot.is_some_and(|slot| self.identities.stop_waiting(slot.identity(), link)) {
            self.give_turn(now, link);
        }
    }

    /// Asks the oldest rival for an answer, and lets the newer login wait for it.
    fn contest(&mut self, now: Time, link: u32, rivals: &[Rival]) {
        let oldest = rivals.first().and_then(|rival| self.sessions.get(rival.place));
        let Some(oldest) = oldest.and_then(Session::link) else {
            return self.open_session(now, link);
        };
        let (Some(slot), Some(rival)) = (self.slots.get(link), self.slots.get(oldest)) else {
            return;
        };
        let patience = rival.peer.liveness().patience_under(rival.peer.policy());
        let contest = Contest { link, admission: slot.generation, since: now };
        self.contests.insert(oldest, contest);
        self.run_link(now, link, |peer, _, _| peer.contest(Some(now + patience)));
        self.handle_link(now, oldest, link::World::Command(Command::Heartbeat));
    }

    /// Decides a contest, if it can be decided: the session that answers keeps its place.
    #[cold]
    pub(super) fn decide(&mut self, now: Time, rival: u32) {
        let Some(contest) = self.contests.get(&rival).copied() else {
            return;
        };
        let Contest { link, admission, since } = contest;
        let slot = self.slots.get(rival);
        let has_answered = slot.is_some_and(|slot| slot.peer.liveness().last_heard() > since);
        let is_lost = slot.is_none_or(|slot| slot.peer.is_suspect() || slot.peer.is_over());
        let newcomer = self.awaits(link, admission);
        let is_late = newcomer.is_none_or(|slot| slot.peer.is_contest_over(now));
        if !has_answered && !is_lost && !is_late {
            return;
        }
        let is_waiting = newcomer.is_some();
        self.contests.remove(&rival);
        if is_waiting && has_answered && !is_lost {
            self.deny(now, link, Denial::InUse);
        } else if is_waiting {
            self.end_contest(now, link);
        }
    }

    /// Decides the contest in which a login has waited long enough.
    #[cold]
    pub(super) fn decide_for(&mut self, now: Time, link: u32) {
        let found = self.contests.iter().find(|(_, contest)| contest.link == link);
        match found.map(|(rival, _)| *rival) {
            Some(rival) => self.decide(now, rival),
            // The older session has gone.
            None => self.end_contest(now, link),
        }
    }

    fn end_contest(&mut self, now: Time, link: u32) {
        self.run_link(now, link, |peer, _, _| peer.contest(None));
        self.open_session(now, link);
    }

    /// Opens the session of a peer that may have one, and asks for its epoch.
    fn open_session(&mut self, now: Time, link: u32) {
        let Some(slot) = self.slots.get_mut(link) else {
            return;
        };
        slot.place = self.sessions.open(slot.generation, link);
        if slot.place.is_some() {
            self.unowned.push_back(link);
        } else {
            self.deny(now, link, Denial::NoPlace);
        }
    }

    /// Puts a session in force that has its epoch, in the place of those that are too many.
    pub(super) fn owned(&mut self, now: Time, session: u64, epoch: u64, fresh: Option<Fresh>) {
        let Some((link, place, heard_at)) = self.unowned_at(session) else {
            return;
        };
        let Some(key) = self.sessions.own(session, epoch) else {
            return;
        };
        let Some(slot) = self.slots.get(link) else {
            return;
        };
        let settings = self.listeners.get(usize::from(slot.listener));
        let limit = settings.map_or(1, |settings| settings.logins.limit());
        let rivals = self.rivals(slot);
        let too_many = (rivals.len() + 1).saturating_sub(limit);
        for rival in rivals.iter().take(too_many) {
            match self.sessions.get(rival.place).and_then(Session::link) {
                Some(link) => {
                    let close = Command::close(replaced());
                    self.handle_link(now, link, link::World::Command(close));
                }
                None => self.end_away(now, rival.place, Some(Cause::Replaced)),
            }
        }
        if let Some(slot) = self.slots.get_mut(link) {
            if !slot.identity().is_empty() {
                self.identities.add(slot.identity(), Rival { heard_at, place });
            }
            // Here, not by what becomes of it: bytes that have waited may end the link in the same
            // step, and its peer was welcomed all the same.
            let millis = now.since(slot.peer.flight().opened()).as_millis();
            slot.established = u32::try_from(millis).map_or(u32::MAX, |ms| ms.saturating_add(1));
        }
        self.handle_metered(now, link, link::Answer::Admitted { key, fresh });
    }

    /// Sends a peer away for whose session there is no room. It may come back.
    fn deny(&mut self, now: Time, link: u32, why: Denial) {
        let denied = why.with(CloseReason::Full.into());
        self.handle_link(now, link, link::Answer::Refused(denied));
    }

    /// Returns the sessions in force of the same identity, of the same worth, the oldest first.
    fn rivals(&self, slot: &Slot) -> Vec<Rival> {
        let identity = slot.identity();
        if identity.is_empty() {
            return Vec::new();
        }
        self.identities.rivals(identity, |place| {
            let Some(link) = self.sessions.get(place).and_then(Session::link) else {
                let away = self.away.present(place);
                return away
                    .is_some_and(|it| it.proved == slot.proved && it.identity() == identity);
            };
            let other = self.slots.get(link);
            other.is_some_and(|other| is_same(other, slot) && !other.peer.is_over())
        })
    }

    /// Forgets the login of a session that is no longer in force here.
    pub(super) fn forget_login(&mut self, link: u32) {
        let slot = self.slots.get(link);
        if let Some((slot, place)) = slot.and_then(|slot| Some((slot, slot.place?)))
            && self.sessions.is_held(place, link)
        {
            self.identities.remove(slot.identity(), place);
        }
    }

    /// Returns when the session of a link that is in force has logged in.
    pub(super) fn logged_in(&self, slot: &Slot) -> Option<Span> {
        self.identities.heard_at(slot.identity(), slot.place?)
    }

    /// Lets the login of a link that was loaded wait again, or have its turn.
    pub(super) fn restore_turn(&mut self, link: u32) {
        let Some(slot) = self.slots.get(link).filter(|slot| slot.peer.login().is_some()) else {
            return;
        };
        let has_turn = slot.place.is_some() || slot.peer.is_contesting();
        let is_home = self.identities.home(slot.identity()) == self.sessions.shard();
        if !slot.identity().is_empty() && (has_turn || is_home) {
            self.identities.wait(slot.identity(), link, has_turn);
        }
    }

    /// Puts the session of a link that was loaded, or has come from another hub, in force.
    pub(super) fn restore_login(&mut self, link: u32, heard_at: Option<Span>) {
        let slot = self.slots.get(link);
        let found = slot.and_then(|slot| Some((slot, slot.place?, heard_at?)));
        if let Some((slot, place, heard_at)) =
            found.filter(|(slot, ..)| !slot.identity().is_empty())
        {
            self.identities.add(slot.identity(), Rival { heard_at, place });
        }
    }
}

/// Returns whether a peer that claims one identity, or none, may have a session of the other.
pub(super) fn is_claimed_by(claimed: &str, identity: &str) -> bool {
    claimed.is_empty() || claimed == identity
}

/// Returns whether two links have the same identity, of the same worth.
fn is_same(one: &Slot, other: &Slot) -> bool {
    one.proved == other.proved && one.identity() == other.identity()
}

/// The goodbye to a peer in whose place is a newer login. Two devices of one user would otherwise
/// take turns for ever.
fn replaced() -> Goodbye {
    Goodbye { stay_away: true, ..CloseReason::Replaced.into() }
}
