//! What the control plane asks of a shard, and the answers.

use systole_core::hub::{self, Presence};
use systole_core::link::{self, Command, Goodbye};
use systole_core::wire::CloseReason;
use systole_core::{Machine, Span};

use super::shard_loop::ShardLoop;
use crate::report::{SessionInfo, Subject};
use crate::request::{Filter, LINKS_PER_SEARCH, Order, Page, Request, SESSIONS_PER_PAGE, Story};

impl ShardLoop {
    pub(super) fn answer(&mut self, request: Request) {
        // Whoever asked may have gone: then the answer is of no use to anybody.
        match request {
            Request::Sessions { from, limit, filter, reply } => {
                let _ = reply.send(self.page(from, limit, &filter));
            }
            Request::Session { session, reply } => {
                let hub = self.hub.machine();
                let known = hub.find(session).and_then(|link| hub.presence(link));
                let info = known.map(|known| self.info(&known));
                let _ = reply.send(info);
            }
            Request::Story { session, reply } => {
                let hub = self.hub.machine();
                let known = hub.find(session).and_then(|link| hub.presence(link));
                let _ = reply.send(known.map(|known| Box::new(self.story(&known))));
            }
            Request::Order { session, order, reply } => {
                let link = self.hub.machine().find(session);
                if let Some(link) = link {
                    let input = link::Input::Command(command(order));
                    self.hub.handle(self.clock.now(), hub::Input::Link { link, input });
                    self.carry();
                }
                let _ = reply.send(link.is_some());
            }
            Request::Command(command) => {
                self.hub.handle(self.clock.now(), hub::Input::Command(command));
                self.carry();
            }
            Request::StopAccepting => self.acceptor.close(),
            Request::Stop => self.stopping = true,
        }
    }

    fn page(&self, from: u32, limit: usize, filter: &Filter) -> Page {
        let limit = limit.clamp(1, SESSIONS_PER_PAGE);
        let mut page = Page::default();
        for (looked_at, known) in self.hub.machine().presences(from).enumerate() {
            if page.sessions.len() == limit || looked_at == LINKS_PER_SEARCH {
                page.next = Some(known.link);
                break;
            }
            if matches(filter, &known) {
                page.sessions.push(self.info(&known));
            }
        }
        page
    }

    fn story(&self, known: &Presence<'_>) -> Story {
        Story {
            subject: Subject::new(known),
            suspect: known.suspect,
            flight: Some(known.flight.clone()),
            now: self.clock.now(),
            wall_ms: self.clock.wall_ms(),
        }
    }

    fn info(&self, known: &Presence<'_>) -> SessionInfo {
        SessionInfo::new(known, self.clock.now(), self.clock.wall_ms())
    }
}

fn matches(filter: &Filter, known: &Presence<'_>) -> bool {
    filter.identity.as_ref().is_none_or(|identity| known.identity == identity)
        && filter.listener.is_none_or(|listener| known.listener == listener)
        && filter.suspect.is_none_or(|suspect| known.suspect == suspect)
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
