//! Resumptions: a peer that shows the token of its session gets that session, here at its home.
//!
//! Nobody is asked who the peer is: its token says that it is the one that has logged in. A session
//! is resumed from its old link too, if the peer has noticed its end first.

use super::kept::Holder;
use super::login::is_claimed_by;
use super::sessions::{Place, Session};
use super::{Hub, Slot};
use crate::link::{self, Command, SessionKey};
use crate::resume::{Digest, Fresh, NotResumed};
use crate::time::Time;
use crate::wire::CloseReason;

/// Why a session is not resumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rejection {
    /// The peer gets a new session, if it may have one.
    New(NotResumed),
    /// The peer has shown a token that was used, or was never given: it is not who has logged in,
    /// or a late copy of its own HELLO. It is sent away.
    Token,
}

impl Hub {
    /// Asks about a peer that wants to resume a session, or sends it to the session's shard.
    #[cold]
    pub(super) fn seek_resumption(&mut self, link: u32) {
        let Some(wish) = self.slots.get(link).and_then(|slot| slot.peer.wish()) else {
            return;
        };
        let shard = shard_of(wish.key);
        if shard != self.sessions.shard() && self.identities.has_shard(shard) {
            return self.strangers.push_back(link);
        }
        self.resuming.push_back(link);
    }

    /// Returns the shard to which a link goes: that of the session it resumes, or the home of its
    /// identity.
    pub(super) fn goal(&self, slot: &Slot) -> u8 {
        let wish = slot.peer.wish();
        wish.map_or_else(|| self.identities.home(slot.identity()), |wish| shard_of(wish.key))
    }

    /// Resumes the session that a peer asks for, if that is still possible.
    pub(super) fn resumed(
        &mut self,
        now: Time,
        link: u32,
        admission: u32,
        (shown, fresh): (Digest, Fresh),
    ) {
        if self.awaits(link, admission).is_none_or(|slot| slot.peer.wish().is_none()) {
            return;
        }
        match self.judge(link, &shown) {
            Ok(place) => self.resume(now, link, place, (shown, fresh)),
            Err(rejection) => self.reject(now, link, rejection),
        }
    }

    /// Returns the place of the session that a peer may resume.
    fn judge(&self, link: u32, shown: &Digest) -> Result<Place, Rejection> {
        let unknown = Rejection::New(NotResumed::Unknown);
        let slot = self.slots.get(link).ok_or(unknown)?;
        let wish = slot.peer.wish().ok_or(unknown)?;
        let SessionKey { session, epoch } = wish.key;
        let lapsed = self.away.lapsed().get(session, shown);
        let place = self.sessions.place_of(session).ok_or(Rejection::New(lapsed))?;
        let is_meant =
            self.sessions.key(place).is_some_and(|key| key == SessionKey { session, epoch });
        let (listener, identity, expects) = match self.sessions.get(place).and_then(Session::link) {
            Some(former) => {
                let of = self.slots.get(former).ok_or(unknown)?;
                (of.listener, of.identity(), of.peer.expects(shown))
            }
            None => {
                let away = self.away.get(place).ok_or(unknown)?;
                if away.is_over() {
                    return Err(Rejection::New(lapsed));
                }
                (away.listener, away.identity(), away.resumable.expects(shown))
            }
        };
        if !is_meant || listener != slot.listener {
            return Err(unknown);
        }
        let is_right = expects && is_claimed_by(slot.identity(), identity);
        if is_right { Ok(place) } else { Err(Rejection::Token) }
    }

    fn reject(&mut self, now: Time, link: u32, rejection: Rejection) {
        match rejection {
            Rejection::New(why) => {
                self.counters.not_resumed += 1;
                self.run_link(now, link, |peer, _, out| peer.refuse_resumption(why, out));
            }
            Rejection::Token => {
                self.counters.resumptions_refused += 1;
                let goodbye = link::Goodbye::from(CloseReason::Unauthorized);
                self.handle_link(now, link, link::Answer::Refused(goodbye.into()));
            }
        }
    }

    fn resume(&mut self, now: Time, link: u32, place: Place, (shown, fresh): (Digest, Fresh)) {
        if let Some(former) = self.sessions.get(place).and_then(Session::link) {
            self.run_link(now, former, |peer, _, out| peer.supersede(now, out));
        }
        let unknown = Rejection::New(NotResumed::Unknown);
        let (Some(away), Some(key)) = (self.away.take(place), self.sessions.key(place)) else {
            return self.reject(now, link, unknown);
        };
        let Some(slot) = self.slots.get_mut(link) else {
            return self.away.put(place, away);
        };
        if !slot.peer.wish().is_some_and(|wish| away.resumable.agrees(wish)) {
            self.away.put(place, away);
            return self.reject(now, link, Rejection::New(NotResumed::Counts));
        }
        let away = *away;
        slot.place = Some(place);
        slot.proved = away.proved;
        let millis = now.since(slot.peer.flight().opened()).as_millis();
        slot.established = u32::try_from(millis).map_or(u32::MAX, |ms| ms.saturating_add(1));
        let listener = usize::from(slot.listener);
        self.sessions.set_link(place, Some(link));
        self.granted.extend(away.granted.map(|granted| (link, granted)));
        self.kept.count(Holder::Away(place), away.resumable.kept_bytes(), 0);
        self.counters.resumed += 1;
        let session = (away.resumable, away.introduced);
        self.run_link(now, link, |peer, context, out| {
            peer.resume(now, session, (key, shown, fresh), context, out)
        });
        if self.retuned.get(listener).is_some_and(|number| *number > away.commands)
            && let Some(policy) = self.listeners.get(listener).map(|settings| settings.policy)
        {
            self.handle_link(now, link, link::World::Command(Command::Retune(policy)));
        }
    }
}

/// Returns the shard that made a session, in the first byte of its number.
const fn shard_of(key: SessionKey) -> u8 {
    (key.session >> 56) as u8
}
