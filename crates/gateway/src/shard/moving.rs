//! Links that move from one shard to another. The state in the hub goes with them, the socket with
//! its transport and its unsent frames, and results of the socket that the hub has not received.

use std::collections::VecDeque;
use std::mem;

use systole_core::hub;
use systole_core::kernel::SocketError;
use systole_core::link;

use super::opening::Accept;
use super::shard_loop::ShardLoop;
use super::sockets::{Conn, ConnState, Feedback};
use super::streams::Streams;
use crate::identity::Refusal;
use crate::request::{Arrivals, Parcel};

/// A link on its way from one shard to another. Not printable: it holds bytes of the peer.
struct Packed<T> {
    conn: Conn<T>,
    /// The state from [`hub::Output::HandedOver`].
    state: Vec<u8>,
    feedback: Vec<Feedback>,
}

impl<T: Accept> ShardLoop<Streams<T>> {
    /// Moves the link of a session to another shard. Returns false, and changes nothing, if the
    /// session is not online here, if facts about it wait, which must not be overtaken by facts
    /// from there, or if the other shard takes no request now.
    pub(super) fn hand_over(&mut self, session: u64, to: &Arrivals) -> bool {
        let Some(link) = self.hub.machine().find(session) else {
            return false;
        };
        if self.reports.holds(session) || !self.traffic.sockets.is_open(link) {
            return false;
        }
        let Some(packed) = self.pack(link) else {
            return false;
        };
        let parcel = Parcel(Box::new(packed));
        if self.reports.holds(session) {
            // A command for all links has just reached it, and its fact waits now.
            self.arrive(parcel);
            return false;
        }
        match to.deliver(parcel) {
            Ok(()) => true,
            Err(parcel) => {
                self.arrive(parcel);
                false
            }
        }
    }

    /// Sends a peer to the shard that is the home of its identity, or away if that shard takes no
    /// link now.
    pub(super) fn go_home(&mut self, link: u32, admission: u32, shard: u8) {
        let Some(home) = self.traffic.siblings.get(usize::from(shard)).cloned() else {
            return self.refuse(link, admission, Refusal::HomeBusy);
        };
        if !self.traffic.sockets.is_open(link) {
            return;
        }
        let Some(packed) = self.pack(link) else {
            return;
        };
        if let Err(parcel) = home.deliver(Parcel(Box::new(packed))) {
            // The hub asks for its home again.
            self.traffic.full_home = Some(shard);
            self.arrive(parcel);
            self.traffic.full_home = None;
        }
    }

    /// Takes a link out of this shard.
    fn pack(&mut self, link: u32) -> Option<Packed<T>> {
        self.hub.handle(self.clock.now(), hub::World::HandOver { link });
        self.carry_outputs();
        let Some(state) = self.traffic.handed_over.take() else {
            // A command for all links was applied to the link first, and has ended it.
            self.carry_out();
            return None;
        };
        let sockets = &mut self.traffic.sockets;
        // Frames of such commands may still be unwritten; the results of the writes go with the
        // link.
        sockets.flush();
        let (own, others): (VecDeque<_>, _) =
            mem::take(&mut sockets.feedback).into_iter().partition(|(of, _)| *of == link);
        sockets.feedback = others;
        let mut conn = sockets.take(link)?;
        self.traffic.forget_unread(link);
        // Its home counts it until it is online.
        self.traffic.half_open.remove(link);
        // Fails only for a socket that is not registered.
        let _ = self.poll.registry().deregister(conn.stream_mut());
        let feedback = own.into_iter().map(|(_, feedback)| feedback).collect();
        self.carry_out();
        Some(Packed { conn, state, feedback })
    }

    /// Takes a link over that another shard has packed.
    pub(super) fn arrive(&mut self, Parcel(parcel): Parcel) {
        let Ok(packed) = parcel.downcast::<Packed<T>>() else {
            return;
        };
        let Packed { mut conn, state, feedback } = *packed;
        if conn.note.state != ConnState::Waiting {
            conn.note.state = ConnState::Open;
        }
        // It may have moved because of the plaintext in front of it.
        let held = conn.transport().held();
        // Without its socket the link cannot live: it fails as soon as the hub has it.
        let (link, is_registered) = match self.traffic.sockets.add(self.poll.registry(), conn) {
            Some(link) => (link, true),
            None => (hub::MAX_LINKS - 1, false),
        };
        let now = self.clock.now();
        self.hub.handle(now, hub::World::TakenOver { link, state: &state });
        let answers = feedback.into_iter().map(|feedback| (link, feedback));
        self.traffic.sockets.feedback.extend(answers);
        self.note_login(link);
        self.carry_out();
        if !is_registered {
            let input = link::World::Failed(SocketError::Local);
            self.hub.handle(now, hub::World::Link { link, input });
            return self.carry_out();
        }
        if held.memory > 0 {
            self.hold(link, held);
        }
        self.traffic.sockets.count_outbox(link);
        self.traffic.sockets.make_room();
        self.traffic.sockets.writable(link, now);
        self.traffic.sockets.set_unread(link, false);
        self.carry_out();
        self.end_if_banned(link);
        // At once: the horizon of this shard does not hold for this socket, and its link may be
        // due. The transport may hold plaintext too, of which the kernel reports nothing.
        self.readable(link, true);
        self.expire_when_due();
    }
}

impl<T: Accept> ShardLoop<Streams<T>> {
    /// Counts a link that has come, until it is online, if its address has limits.
    fn note_login(&mut self, link: u32) {
        let known = self.hub.machine().presence(link);
        let known = known.filter(|known| known.established.is_none());
        if let (Some(known), Some(gate)) = (known, &self.traffic.gate)
            && gate.limits(known.address.ip())
        {
            self.traffic.half_open.add_login(link);
        }
    }

    /// Records that the socket of a peer that waits for its admission is readable. If the peer has
    /// closed its side, its login is withdrawn.
    pub(super) fn readable_while_waiting(&mut self, link: u32, is_closed: bool) {
        self.traffic.sockets.set_unread(link, true);
        if is_closed {
            let input = link::World::Ended;
            self.hub.handle(self.clock.now(), hub::World::Link { link, input });
            self.carry_out();
        }
    }
}

impl<T> Streams<T> {
    /// Schedules the socket of a peer that was admitted for reading.
    pub(super) fn resume(&mut self, link: u32)
    where
        T: Accept,
    {
        if self.sockets.resume(link) {
            self.sockets.set_unread(link, true);
            self.unread.push(link);
        }
    }

    /// Drops a link from those that are read in the next turn.
    fn forget_unread(&mut self, link: u32) {
        self.unread.retain(|unread| *unread != link);
        self.handshakes.retain(|unread| *unread != link);
    }
}
