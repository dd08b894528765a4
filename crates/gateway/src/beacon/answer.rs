//! Answers the requests of the control plane to a beacon shard.

use systole_core::beacon::{BeaconCommand, Presence, World};
use systole_core::wire::{BootId, InstanceId};
use systole_core::{Span, hub};

use super::beacon_loop::BeaconLoop;
use super::keys::device_text;
use crate::report::{SessionInfo, Subject, session_text};
use crate::request::{Filter, Order, Page, Request, SESSIONS_PER_PAGE, SLOTS_PER_SEARCH, Story};

/// Mask of the bits of a session's number that are the session's place in the table.
const PLACE_MASK: u64 = (1 << 24) - 1;

impl BeaconLoop {
    pub(super) fn answer(&mut self, request: Request) {
        // Send errors are ignored: the caller no longer waits for the answer.
        match request {
            Request::Sessions { from, limit, filter, reply } => {
                let _ = reply.send(self.page(from, limit, &filter));
            }
            Request::Session { session, reply } => {
                let _ = reply.send(self.find(session).map(|presence| self.info(&presence)));
            }
            Request::Story { session, reply } => {
                let presence = self.find(session);
                let _ = reply.send(presence.map(|presence| Box::new(self.story(&presence))));
            }
            Request::Order { session, order, reply } => {
                let found = self.find(session);
                if let Some(presence) = found {
                    self.order(presence.subject.device, order);
                }
                let _ = reply.send(found.is_some());
            }
            Request::Command(command) => match command {
                hub::HubCommand::Retune { listener, policy } if listener == self.listener => {
                    self.command(BeaconCommand::Retune(policy));
                }
                hub::HubCommand::Drain { .. } => self.command(BeaconCommand::Drain),
                hub::HubCommand::Retune { .. }
                | hub::HubCommand::Send { .. }
                | hub::HubCommand::ReportHeartbeats(_) => {}
            },
            // The drain that follows refuses devices that are not yet online.
            Request::StopAccepting => {}
            Request::Stop => self.stopping = true,
        }
    }

    pub(super) fn command(&mut self, command: BeaconCommand) {
        self.hub.handle(self.clock.now(), World::Command(command));
        self.carry_out();
    }

    /// Gives an order to one device. A retune of one device is not offered: all devices of a
    /// listener have the same bound.
    fn order(&mut self, device: u64, order: Order) {
        match order {
            Order::Kick { .. } => self.command(BeaconCommand::Kick { device }),
            Order::Hold(span) => self.command(BeaconCommand::Hold { device, span }),
            Order::Release => self.command(BeaconCommand::Release { device }),
            Order::Retune(_) => {}
        }
    }

    fn find(&self, session: u64) -> Option<Presence> {
        let place = u32::try_from(session & PLACE_MASK).ok()?;
        self.hub.machine().presence_at(place).filter(|presence| presence.subject.session == session)
    }

    fn page(&self, from: u32, limit: usize, filter: &Filter) -> Page {
        let limit = limit.clamp(1, SESSIONS_PER_PAGE);
        let mut page = Page::default();
        if filter.listener.is_some_and(|listener| listener != self.listener) {
            return page;
        }
        let mut presences = self.hub.machine().presences(from, SLOTS_PER_SEARCH);
        while page.sessions.len() < limit
            && let Some(presence) = presences.next()
        {
            let wanted = filter.suspect.is_none_or(|suspect| presence.suspect == suspect)
                && filter
                    .identity
                    .as_ref()
                    .is_none_or(|identity| device_text(presence.subject.device) == *identity);
            if wanted {
                page.sessions.push(self.info(&presence));
            }
        }
        page.next = presences.cursor();
        page
    }

    fn story(&self, presence: &Presence) -> Story {
        Story {
            subject: Subject {
                session: presence.subject.session,
                epoch: presence.subject.epoch,
                identity: device_text(presence.subject.device).into(),
                listener: self.listener,
                address: presence.subject.address,
                boot_id: BootId::default(),
                instance_id: InstanceId::default(),
                established: true,
            },
            suspect: presence.suspect,
            flight: None,
            now: self.clock.now(),
            wall_ms: self.clock.wall_ms(),
        }
    }

    fn info(&self, presence: &Presence) -> SessionInfo {
        let (now, wall_ms) = (self.clock.now(), self.clock.wall_ms());
        let held = presence.held_until.filter(|until| *until > now);
        let last_heard_ago_ms = now.since(presence.last_heard).as_millis();
        SessionInfo {
            session: session_text(presence.subject.session),
            epoch: presence.subject.epoch.to_string(),
            identity: device_text(presence.subject.device),
            listener: self.listener,
            address: presence.subject.address,
            since_ms: wall_ms.saturating_sub(now.since(presence.subject.since).as_millis()),
            last_heard_ago_ms,
            // The gateway sends only answers to statements.
            last_sent_ago_ms: last_heard_ago_ms,
            rtt_us: None,
            suspect: presence.suspect,
            held_for_ms: held.map(|until| until.since(now).as_millis()),
            bound_ms: presence.policy.bound().map(Span::as_millis),
            policy: presence.policy.to_string(),
        }
    }
}
