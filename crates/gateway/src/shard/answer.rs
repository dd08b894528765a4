//! Answers the requests of the control plane to a shard.

use std::sync::Arc;

use systole_core::flight::Flight;
use systole_core::hub::{Absence, Presence};
use systole_core::origin::Origin;
use systole_core::{Span, Time};

use super::shard_loop::{ShardLoop, Traffic};
use crate::bans::Banned;
use crate::report::{AwayInfo, SessionInfo, Shown, Subject};
use crate::request::{
    Filter, IDENTITIES_PER_REQUEST, Page, Request, SESSIONS_PER_PAGE, SLOTS_PER_SEARCH, SessionsOf,
    Sibling, Story,
};

/// What filters look at.
pub(crate) trait Selected {
    /// Whether the peer has this identity.
    fn has_identity(&self, identity: &str) -> bool;

    /// The index of the session's listener.
    fn listener(&self) -> u16;

    /// Whether the session is suspect.
    fn is_suspect(&self) -> bool;

    /// The number, identity, address and listener of the session.
    fn subject(&self) -> Subject;
}

/// A session that is online, as requests of the control plane see it.
pub(crate) trait Known: Selected {
    /// The flight recorder, if there is one.
    fn flight(&self) -> Option<Flight>;

    /// Describes the session at vigilant time `now`, which is `wall_ms` on the wall clock.
    fn info(&self, now: Time, wall_ms: u64) -> SessionInfo;
}

impl<T: Traffic> ShardLoop<T> {
    pub(crate) fn answer(&mut self, request: Request) {
        // Send errors are ignored: the caller no longer waits for the answer.
        match request {
            Request::Sessions { from, limit, filter, reply } => {
                let _ = reply.send(self.page(from, limit, &filter));
            }
            Request::Session { session, reply } => {
                let _ = reply.send(self.shown(session));
            }
            Request::Sibling { session, reply } => {
                let (now, wall_ms) = (self.clock.now(), self.clock.wall_ms());
                let tcp = T::tcp(self, session);
                let mut sibling = None;
                T::find(self, session, &mut |known| {
                    let SessionInfo { last_heard_ago_ms, suspect, .. } = known.info(now, wall_ms);
                    let heard_ago = Span::from_millis(last_heard_ago_ms);
                    sibling = Some(Sibling { heard_ago, suspect, tcp });
                });
                let _ = reply.send(sibling);
            }
            Request::Story { session, reply } => {
                let mut story = None;
                T::find(self, session, &mut |known| story = Some(Box::new(self.story(known))));
                T::find_away(self, session, &mut |absence| {
                    story = Some(Box::new(self.story_of_absence(absence)));
                });
                let _ = reply.send(story);
            }
            Request::Order { session, order, reply } => {
                let _ = reply.send(T::order(self, session, order));
            }
            Request::Deliver { to, message, claim, reply } => {
                if claim.take() {
                    let _ = reply.send(T::deliver(self, to, &message));
                }
            }
            Request::Identities { identities, limit, reply } => {
                let (now, wall_ms) = (self.clock.now(), self.clock.wall_ms());
                let find = |identity: &Arc<str>| {
                    let mut found = SessionsOf::default();
                    let limit = limit.min(SESSIONS_PER_PAGE);
                    T::of_identity(self, identity, &mut |known| {
                        if found.shown.len() < limit {
                            found.shown.push(known.info(now, wall_ms));
                        } else {
                            found.more += 1;
                        }
                    });
                    T::away_of_identity(self, identity, &mut |absence| {
                        if found.shown.len() + found.away.len() < limit {
                            found.away.push(AwayInfo::new(absence, now, wall_ms));
                        } else {
                            found.more += 1;
                        }
                    });
                    found
                };
                let few = identities.iter().take(IDENTITIES_PER_REQUEST);
                let _ = reply.send(few.map(find).collect());
            }
            Request::Move { session, to, reply } => {
                let _ = reply.send(T::hand_over(self, session, &to));
            }
            Request::LoggedIn(answer) => T::logged_in(self, answer),
            Request::Command(command) => T::command(self, command),
            Request::StopAccepting => T::stop_accepting(self),
            Request::Stop => self.stopping = true,
        }
    }

    fn shown(&self, session: u64) -> Option<Shown> {
        let (now, wall_ms) = (self.clock.now(), self.clock.wall_ms());
        let mut shown = None;
        T::find(self, session, &mut |known| {
            shown = Some(Shown::Online(Box::new(known.info(now, wall_ms))));
        });
        T::find_away(self, session, &mut |absence| {
            shown = Some(Shown::Away(Box::new(AwayInfo::new(absence, now, wall_ms))));
        });
        shown
    }

    fn page(&self, from: u32, limit: usize, filter: &Filter) -> Page {
        let limit = limit.clamp(1, SESSIONS_PER_PAGE);
        let mut page = Page::default();
        if filter.listener.is_some_and(|listener| !T::has_listener(self, listener)) {
            return page;
        }
        let (now, wall_ms) = (self.clock.now(), self.clock.wall_ms());
        if filter.away {
            page.next = T::search_away(self, from, limit, &mut |absence| {
                if matches(filter, absence) {
                    page.away.push(AwayInfo::new(absence, now, wall_ms));
                }
            });
            return page;
        }
        page.next = T::search(self, from, SLOTS_PER_SEARCH, &mut |known| {
            if matches(filter, known) {
                page.sessions.push(known.info(now, wall_ms));
            }
            page.sessions.len() < limit
        });
        page
    }

    fn story(&self, known: &dyn Known) -> Story {
        Story {
            subject: known.subject(),
            suspect: known.is_suspect(),
            flight: known.flight(),
            away: None,
            now: self.clock.now(),
            wall_ms: self.clock.wall_ms(),
        }
    }

    fn story_of_absence(&self, absence: &Absence<'_>) -> Story {
        let (now, wall_ms) = (self.clock.now(), self.clock.wall_ms());
        Story {
            subject: Subject::absent(absence),
            suspect: false,
            flight: None,
            away: Some((*absence.verdict, AwayInfo::new(absence, now, wall_ms))),
            now,
            wall_ms,
        }
    }
}

fn matches(filter: &Filter, known: &(impl Selected + ?Sized)) -> bool {
    filter.identity.as_ref().is_none_or(|identity| known.has_identity(identity))
        && filter.listener.is_none_or(|listener| known.listener() == listener)
        && filter.suspect.is_none_or(|suspect| known.is_suspect() == suspect)
        && filter.banned.as_ref().is_none_or(|banned| match banned {
            Banned::Identity(identity) => known.has_identity(identity),
            Banned::Device(device) => known.subject().boot_id == *device,
            Banned::Address(origin) => Origin::from(known.subject().address.ip()) == *origin,
        })
}

impl Selected for Presence<'_> {
    fn has_identity(&self, identity: &str) -> bool {
        self.identity == identity
    }

    fn listener(&self) -> u16 {
        self.listener
    }

    fn is_suspect(&self) -> bool {
        self.suspect
    }

    fn subject(&self) -> Subject {
        Subject::new(self)
    }
}

impl Selected for Absence<'_> {
    fn has_identity(&self, identity: &str) -> bool {
        self.identity == identity
    }

    fn listener(&self) -> u16 {
        self.listener
    }

    fn is_suspect(&self) -> bool {
        false
    }

    fn subject(&self) -> Subject {
        Subject::absent(self)
    }
}

impl Known for Presence<'_> {
    fn flight(&self) -> Option<Flight> {
        Some(self.flight.clone())
    }

    fn info(&self, now: Time, wall_ms: u64) -> SessionInfo {
        SessionInfo::new(self, now, wall_ms)
    }
}
