//! Messages from outside: from the admin interface to clients.

use systole_core::hub::{self, Unsendable};
use systole_core::link::{self, Command};
use systole_core::wire::DataKind;

use super::opening::Accept;
use super::shard_loop::ShardLoop;
use super::streams::Streams;
use crate::report::attributes_of;
use crate::request::{Delivered, SENDS_PER_REQUEST, SLOTS_PER_SEARCH, Target};

impl<T: Accept> ShardLoop<Streams<T>> {
    pub(super) fn deliver(&mut self, to: Target, message: &[u8]) -> Delivered {
        let hub = self.hub.machine();
        let mut next = None;
        let links = match to {
            Target::Session(session) => hub.find(session).into_iter().collect(),
            Target::Identity(identity) => hub.links_of(&identity),
            Target::All { from, listener, attribute } => {
                let mut found = Vec::new();
                let mut presences = hub.presences(from, SLOTS_PER_SEARCH);
                while found.len() < SENDS_PER_REQUEST
                    && let Some(known) = presences.next()
                {
                    let has = attribute.as_ref().is_none_or(|wanted| {
                        let (name, value) = &**wanted;
                        !known.attributes.is_empty()
                            && attributes_of(known.attributes).get(name) == Some(value)
                    });
                    if has && listener.is_none_or(|listener| listener == known.listener) {
                        found.push(known.link);
                    }
                }
                next = presences.cursor();
                found
            }
        };
        let mut delivered = Delivered { next, ..Delivered::default() };
        for link in links {
            match self.send_from_outside(link, message) {
                Ok(()) => delivered.queued += 1,
                Err(Unsendable::Unfit) => delivered.unfit += 1,
                Err(Unsendable::Busy) => delivered.busy += 1,
                Err(Unsendable::Gone) => {}
            }
        }
        delivered
    }

    /// Sends a message on a link. Whoever sends from outside does not see what waits for the peer,
    /// so nobody must end as a slow consumer for it: there must be room.
    fn send_from_outside(&mut self, link: u32, message: &[u8]) -> Result<(), Unsendable> {
        self.hub.machine().can_send(link, message)?;
        if !self.traffic.sockets.has_room_for(link, message.len()) {
            return Err(Unsendable::Busy);
        }
        let kind = DataKind::Eleven;
        let input = link::World::Command(Command::Send { bytes: message, more: false, kind });
        self.hub.handle(self.clock.now(), hub::World::Link { link, input });
        self.carry_out();
        Ok(())
    }
}
