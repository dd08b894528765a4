//! Answers the requests of the control plane to a shard.

use systole_core::Span;
use systole_core::hub::{self, Presence};
use systole_core::link::{self, Command, Goodbye};
use systole_core::wire::CloseReason;

use super::shard_loop::ShardLoop;
use crate::report::{SessionInfo, Subject};
use crate::request::{Filter, Order, Page, Request, SESSIONS_PER_PAGE, SLOTS_PER_SEARCH, Story};

impl ShardLoop {
    pub(super) fn answer(&mut self, request: Request) {
        // Send errors are ignored: the caller no longer waits for the answer.
        match request {
            Request::Sessions { from, limit, filter, reply } => {
                let _ = reply.send(self.page(from, limit, &filter));
            }
            Request::Session { session, reply } => {
                let hub = self.hub.machine();
                let presence = hub.find(session).and_then(|link| hub.presence(link));
                let info = presence.map(|presence| self.info(&presence));
                let _ = reply.send(info);
            }
            Request::Story { session, reply } => {
                let hub = self.hub.machine();
                let presence = hub.find(session).and_then(|link| hub.presence(link));
                let _ = reply.send(presence.map(|presence| Box::new(self.story(&presence))));
            }
            Request::Order { session, order, reply } => {
                let link = self.hub.machine().find(session);
                if let Some(link) = link {
                    let input = link::World::Command(command(order));
                    self.hub.handle(self.clock.now(), hub::World::Link { link, input });
                    self.carry_out();
                }
                let _ = reply.send(link.is_some());
            }
            Request::Command(command) => {
                self.hub.handle(self.clock.now(), hub::World::Command(command));
                self.carry_out();
            }
            Request::StopAccepting => {
                self.acceptor.stop(self.clock.now(), self.poll.registry());
            }
            Request::Stop => self.stopping = true,
        }
    }

    fn page(&self, from: u32, limit: usize, filter: &Filter) -> Page {
        let limit = limit.clamp(1, SESSIONS_PER_PAGE);
        let mut page = Page::default();
        let mut presences = self.hub.machine().presences(from, SLOTS_PER_SEARCH);
        while page.sessions.len() < limit
            && let Some(presence) = presences.next()
        {
            if matches(filter, &presence) {
                page.sessions.push(self.info(&presence));
            }
        }
        page.next = presences.cursor();
        page
    }

    fn story(&self, presence: &Presence<'_>) -> Story {
        Story {
            subject: Subject::new(presence),
            suspect: presence.suspect,
            flight: Some(presence.flight.clone()),
            now: self.clock.now(),
            wall_ms: self.clock.wall_ms(),
        }
    }

    fn info(&self, presence: &Presence<'_>) -> SessionInfo {
        SessionInfo::new(presence, self.clock.now(), self.clock.wall_ms())
    }
}

fn matches(filter: &Filter, presence: &Presence<'_>) -> bool {
    filter.identity.as_ref().is_none_or(|identity| presence.identity == identity)
        && filter.listener.is_none_or(|listener| presence.listener == listener)
        && filter.suspect.is_none_or(|suspect| presence.suspect == suspect)
}

fn command(order: Order) -> Command<'static> {
    match order {
        Order::Kick { stay_away } => Command::Close(Goodbye {
            reason: CloseReason::Kicked,
            stay_away,
            return_after: Span::ZERO,
        }),
        Order::Hold(span) => Command::Hold(span),
        Order::Release => Command::Release,
        Order::Retune(policy) => Command::Retune(policy),
    }
}
