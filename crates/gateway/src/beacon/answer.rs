//! What the control plane asks of a shard of beacons, and the answers.

use systole_core::beacon::{BeaconCommand, Input, Presence};
use systole_core::wire::{BootId, InstanceId};
use systole_core::{Machine, Span, hub};

use super::beacon_loop::BeaconLoop;
use super::keys::device_text;
use crate::report::{SessionInfo, Subject, session_text};
use crate::request::{Filter, LINKS_PER_SEARCH, Order, Page, Request, SESSIONS_PER_PAGE, Story};

/// The bits of a session's number that are its place in the table.
const PLACE: u64 = (1 << 24) - 1;

impl BeaconLoop {
    pub(super) fn answer(&mut self, request: Request) {
        // Whoever asked may have gone: then the answer is of no use to anybody.
        match request {
            Request::Sessions { from, limit, filter, reply } => {
                let _ = reply.send(self.page(from, limit, &filter));
            }
            Request::Session { session, reply } => {
                let _ = reply.send(self.find(session).map(|known| self.info(&known)));
            }
            Request::Story { session, reply } => {
                let known = self.find(session);
                let _ = reply.send(known.map(|known| Box::new(self.story(&known))));
            }
            Request::Order { session, order, reply } => {
                let found = self.find(session);
                if let Some(known) = found {
                    self.order(known.subject.device, order);
                }
                let _ = reply.send(found.is_some());
            }
            Request::Command(command) => match command {
                hub::HubCommand::Retune { listener, policy } if listener == self.listener => {
                    self.command(BeaconCommand::Retune(policy));
                }
                hub::HubCommand::Drain { .. } => self.command(BeaconCommand::Drain),
                hub::HubCommand::Retune { .. } | hub::HubCommand::ReportHeartbeats(_) => {}
            },
            // What is not online yet is refused with the drain that follows.
            Request::StopAccepting => {}
            Request::Stop => self.stopping = true,
        }
    }

    fn command(&mut self, command: BeaconCommand) {
        self.hub.handle(self.clock.now(), Input::Command(command));
        self.carry();
    }

    /// A retune of one device alone is not offered: all of a listener are told the same bound.
    fn order(&mut self, device: u64, order: Order) {
        match order {
            Order::Kick { .. } => self.command(BeaconCommand::Kick { device }),
            Order::Hold(span) => self.command(BeaconCommand::Hold { device, span }),
            Order::Release => self.command(BeaconCommand::Release { device }),
            Order::Retune(_) => {}
        }
    }

    fn find(&self, session: u64) -> Option<Presence> {
        let place = u32::try_from(session & PLACE).ok()?;
        self.hub.presence_at(place).filter(|known| known.subject.session == session)
    }

    fn page(&self, from: u32, limit: usize, filter: &Filter) -> Page {
        let limit = limit.clamp(1, SESSIONS_PER_PAGE);
        let mut page = Page::default();
        if filter.listener.is_some_and(|listener| listener != self.listener) {
            return page;
        }
        for (looked_at, known) in self.hub.presences(from).enumerate() {
            if page.sessions.len() == limit || looked_at == LINKS_PER_SEARCH {
                page.next = Some(known.number);
                break;
            }
            let wanted = filter.suspect.is_none_or(|suspect| known.suspect == suspect)
                && filter
                    .identity
                    .as_ref()
                    .is_none_or(|identity| device_text(known.subject.device) == *identity);
            if wanted {
                page.sessions.push(self.info(&known));
            }
        }
        page
    }

    fn story(&self, known: &Presence) -> Story {
        Story {
            subject: Subject {
                session: known.subject.session,
                epoch: known.subject.epoch,
                identity: device_text(known.subject.device).into(),
                listener: self.listener,
                address: known.subject.address,
                boot_id: BootId::default(),
                instance_id: InstanceId::default(),
                established: true,
            },
            suspect: known.suspect,
            flight: None,
            now: self.clock.now(),
            wall_ms: self.clock.wall_ms(),
        }
    }

    fn info(&self, known: &Presence) -> SessionInfo {
        let (now, wall_ms) = (self.clock.now(), self.clock.wall_ms());
        let held = known.held_until.filter(|until| *until > now);
        let last_heard_ago_ms = now.since(known.last_heard).as_millis();
        SessionInfo {
            session: session_text(known.subject.session),
            epoch: known.subject.epoch.to_string(),
            identity: device_text(known.subject.device),
            listener: self.listener,
            address: known.subject.address,
            since_ms: wall_ms.saturating_sub(now.since(known.subject.since).as_millis()),
            last_heard_ago_ms,
            // Each statement is answered, and nothing else is sent.
            last_sent_ago_ms: last_heard_ago_ms,
            rtt_us: None,
            suspect: known.suspect,
            held_for_ms: held.map(|until| until.since(now).as_millis()),
            bound_ms: known.policy.bound().map(Span::as_millis),
            policy: known.policy.to_string(),
        }
    }
}
