//! The memory of all outboxes of a shard: what they take together, and which one gives way.

use std::cmp::Reverse;

use systole_core::wire::outbox::Outbox;
use systole_net::transport::Transport;

use super::{ConnState, Feedback, Sockets};

/// What a message may take in an outbox beyond its own bytes: the padding of a message of 1,028
/// bytes, or the heads of the pieces of a native one and their entries.
const OVERHEAD: usize = 1_100;

impl<T: Transport> Sockets<T> {
    /// Returns the memory of all outboxes in bytes.
    pub(in crate::shard) fn outbox_bytes(&self) -> u64 {
        self.outboxes.held() as u64
    }

    /// Returns whether a message of `len` bytes may be queued for a link: its outbox can take all
    /// of it, and no outbox has to give way.
    pub(in crate::shard) fn has_room_for(&self, link: u32, len: usize) -> bool {
        let outbox = self.conns.get(link).and_then(|conn| conn.outbox());
        let room = outbox.map_or(self.outbox_limit, Outbox::room);
        let needed = len.saturating_add(OVERHEAD);
        // A queue that grows doubles its memory.
        let memory = outbox.map_or(0, Outbox::memory).saturating_add(needed.saturating_mul(2));
        needed <= room && memory <= self.outboxes.room()
    }

    /// Counts the memory of a link's outbox anew.
    pub(in crate::shard) fn count_outbox(&mut self, link: u32) {
        let outbox = self.conns.get(link).and_then(|conn| conn.outbox());
        let memory = outbox.map(|outbox| outbox.memory());
        self.outboxes.set(link, memory.map(|memory| (Reverse(memory), memory)));
    }

    /// Ends the links with the largest outboxes until the others fit into the memory.
    pub(in crate::shard) fn make_room(&mut self) {
        while let Some(link) = self.outboxes.must_give_way() {
            // The little that is left of its outbox goes with the socket.
            self.outboxes.set(link, None);
            self.outboxes_dropped += 1;
            let Some(conn) = self.conns.get_mut(link) else {
                continue;
            };
            conn.discard_data();
            match conn.note.state {
                // In front, so that nothing is sent behind the gap that the discarded data leaves.
                ConnState::Open | ConnState::Waiting => {
                    self.feedback.push_front((link, Feedback::Overflowed))
                }
                ConnState::Leaving => self.give_up(link),
                ConnState::Marked => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::net::{TcpListener, TcpStream};

    use systole_core::Time;
    use systole_core::link::Lane;
    use systole_core::link::departure::LEAVE_LIMIT;

    use systole_net::transport::Plain;

    use super::super::{Conn, Note};
    use super::*;

    /// Adds a connected socket whose peer does not read.
    fn connect(sockets: &mut Sockets<Plain>, listener: &TcpListener) -> (u32, TcpStream) {
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let conn = Conn::new(mio::net::TcpStream::from_std(stream), Plain, Note::NEW);
        (sockets.conns.add(conn).unwrap(), peer)
    }

    /// Sends until `done`.
    fn send(sockets: &mut Sockets<Plain>, link: u32, done: impl Fn(&Sockets<Plain>) -> bool) {
        for _ in 0..100_000 {
            sockets.transmit(link, Lane::Data, &[7; 16 * 1024]);
            sockets.flush();
            if done(sockets) {
                return;
            }
        }
        panic!("the sockets accept everything");
    }

    #[test]
    fn the_largest_outbox_gives_way_and_small_ones_stay() {
        let memory = 1 << 20;
        let mut sockets = Sockets::new(1 << 30, memory);
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let links: Vec<_> = (0..4).map(|_| connect(&mut sockets, &listener)).collect();
        let [small @ .., (greedy, _)] = &links[..] else { panic!("four links") };
        for (link, _) in small {
            send(&mut sockets, *link, |sockets| !sockets.conns.get(*link).unwrap().is_flushed());
        }
        let held = sockets.outbox_bytes();
        assert!(held > 0 && sockets.feedback.is_empty());
        send(&mut sockets, *greedy, |sockets| !sockets.feedback.is_empty());
        let [(link, Feedback::Overflowed)] = sockets.feedback.make_contiguous() else {
            panic!("{:?}", sockets.feedback)
        };
        assert_eq!(link, greedy);
        assert_eq!((sockets.outbox_bytes(), sockets.outboxes_dropped), (held, 1));
        let left = sockets.conns.get(*greedy).unwrap().outbox().map(|outbox| outbox.memory());
        assert!(left.is_some_and(|left| left < 64 * 1024), "{left:?} of {memory}");
        // Memory is counted until the socket is closed.
        for (link, _) in small {
            assert!(sockets.outbox_bytes() > 0);
            sockets.mark_for_close(*link);
            sockets.close_marked(|_| {});
        }
        assert_eq!(sockets.outbox_bytes(), 0);
    }

    #[test]
    fn a_message_has_room_only_if_no_outbox_has_to_give_way() {
        let (limit, memory) = (64 * 1024, 1 << 20);
        let mut sockets = Sockets::new(limit, memory);
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let links: Vec<_> = (0..64).map(|_| connect(&mut sockets, &listener)).collect();
        let message = [7; 16 * 1024];
        assert!(sockets.has_room_for(links[0].0, limit - OVERHEAD));
        assert!(!sockets.has_room_for(links[0].0, limit - OVERHEAD + 1), "the link's limit");
        let mut refused = 0;
        for (link, _) in &links {
            while sockets.has_room_for(*link, message.len()) {
                sockets.transmit(*link, Lane::Data, &message);
                sockets.flush();
            }
            let full = sockets.conns.get(*link).unwrap().outbox();
            refused += usize::from(full.is_none_or(|full| full.room() >= 32 * 1024));
        }
        assert!(refused > 0, "the limit of all is met before those of the links");
        assert!(sockets.outbox_bytes() > memory as u64 / 2);
        assert_eq!((sockets.feedback.len(), sockets.outboxes_dropped), (0, 0));
    }

    #[test]
    fn a_link_that_is_leaving_gives_way_without_a_close_frame() {
        let mut sockets = Sockets::new(1 << 30, 4 << 20);
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let [before, after] = [(); 2].map(|()| connect(&mut sockets, &listener));
        // One gives way after its leave-taking began, the other between its end and that.
        send(&mut sockets, before.0, |sockets| sockets.outbox_bytes() > 0);
        sockets.transmit(before.0, Lane::Data, &vec![7; 3 << 20]);
        sockets.transmit(before.0, Lane::Last, b"close");
        sockets.start_leaving(before.0, Time::ZERO, LEAVE_LIMIT);
        assert!(sockets.departures.next_deadline().is_some());
        send(&mut sockets, after.0, |sockets| sockets.outboxes_dropped == 1);
        send(&mut sockets, after.0, |sockets| sockets.outboxes_dropped == 2);
        sockets.transmit(after.0, Lane::Last, b"close");
        sockets.start_leaving(after.0, Time::ZERO, LEAVE_LIMIT);
        assert_eq!(sockets.departures.next_deadline(), None);
        assert_eq!(sockets.close_marked(|_| {}), 2);
        for (_, mut peer) in [before, after] {
            let mut bytes = Vec::new();
            let error = peer.read_to_end(&mut bytes).expect_err("the data is not complete");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            assert!(!bytes.is_empty() && bytes.iter().all(|byte| *byte == 7));
        }
    }
}
