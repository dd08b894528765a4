//! Reading sockets, and feeding the hub what was read.

use mio::event::Event as Readiness;
use systole_core::{Span, hub, link};
use systole_net::transport::{Held, ReadOutcome};

use super::{FIRST_LISTENER, LARGE_READ, Streams};
use crate::shard::opening::Accept;
use crate::shard::shard_loop::{ShardLoop, WAKER};

/// Maximum number of reads of one socket per turn, so that the others get their share.
const READS_PER_TURN: usize = 8;

/// Size of the first read of a socket in a turn, in bytes. The hub takes what was read at once, and
/// 4,096 frames of two bytes with their echoes take it 0.35 ms.
pub(super) const FIRST_READ: usize = 8 * 1024;

/// Work below which a read is followed by a large one: frames of 20 bytes or more.
const CHEAP_READ: Span = Span::from_micros(100);

impl<T: Accept> ShardLoop<Streams<T>> {
    /// Continues to read the sockets that may hold unread bytes. Returns how many.
    pub(super) fn read_unread(&mut self) -> usize {
        let unread = std::mem::take(&mut self.traffic.unread);
        for &link in &unread {
            self.traffic.sockets.set_unread(link, false);
            self.readable(link, true);
            self.expire_when_due();
        }
        unread.len()
    }

    /// Handles the readiness of a socket. Returns 1 if the socket is a link's, otherwise 0.
    #[inline]
    pub(super) fn socket_ready(&mut self, event: &Readiness) -> usize {
        let token = event.token();
        if token == WAKER {
            return 0;
        }
        if token.0 >= FIRST_LISTENER {
            self.traffic.acceptor.mark_pending(token.0 - FIRST_LISTENER);
            return 0;
        }
        let link = token.0 as u32;
        if event.is_writable() {
            self.write(link);
        }
        // A socket left unread has had its reads of this turn, and is read again in the next.
        let readable = event.is_readable()
            || event.is_read_closed()
            || event.is_error()
            || event.is_priority();
        if readable && self.traffic.sockets.is_waiting(link) {
            self.readable_while_waiting(link, event.is_read_closed());
        } else if readable && self.traffic.sockets.is_shaking_hands(link) {
            self.traffic.defer_handshake(link);
        } else if readable && !self.traffic.sockets.is_unread(link) {
            let until_empty = event.is_read_closed() || event.is_error() || has_urgent_data(event);
            self.readable(link, until_empty);
        }
        1
    }

    /// Reads a socket and feeds the hub. A read after which there is no more has emptied the socket
    /// and its transport, so a second read is needed only if the stream may have ended, or if it
    /// holds urgent data, before which a read stops.
    #[inline]
    pub(in crate::shard) fn readable(&mut self, link: u32, until_empty: bool) {
        if !self.traffic.sockets.is_open(link) {
            if self.traffic.sockets.drain_until_fin(
                link,
                self.clock.now(),
                &mut self.traffic.scratch,
            ) {
                self.read_in_next_turn(link);
            }
            return;
        }
        let now = self.clock.now();
        let mut size = FIRST_READ;
        for _ in 0..READS_PER_TURN {
            if self.traffic.sockets.is_waiting(link) {
                // What is left is read after the admission; there may be no further edge for it.
                return self.traffic.sockets.set_unread(link, true);
            }
            let scratch = self.traffic.scratch.get_mut(..size).unwrap_or_default();
            let (outcome, held) = self.traffic.sockets.read(link, scratch);
            let (input, goes_on) = match outcome {
                ReadOutcome::Empty => return,
                ReadOutcome::Bytes { count, more } => {
                    let took = self.receive(link, count, held);
                    if !more && !until_empty || !self.traffic.sockets.is_open(link) {
                        return;
                    }
                    if self.is_look_due() {
                        break;
                    }
                    size = if took < CHEAP_READ { LARGE_READ } else { FIRST_READ };
                    continue;
                }
                ReadOutcome::Heard { more } => (link::World::Heard, more || until_empty),
                ReadOutcome::Warned(error) => (link::World::Warned(error), true),
                // A pending error is read after the end of the stream.
                ReadOutcome::Ended(_) => (link::World::Ended, true),
                ReadOutcome::Illegal(why) => (link::World::Illegal(why), false),
                ReadOutcome::Failed(failure) => (link::World::Failed(failure.error), false),
            };
            self.hub.handle(now, hub::World::Link { link, input });
            self.carry_out();
            if held.memory > 0 || matches!(outcome, ReadOutcome::Heard { .. }) {
                self.hold(link, held);
            }
            if !goes_on || !self.traffic.sockets.is_open(link) {
                return;
            }
        }
        self.read_in_next_turn(link);
    }

    /// Feeds the hub `count` bytes that were read, and what the transport holds behind them.
    /// Returns the work that this took.
    #[inline]
    fn receive(&mut self, link: u32, count: usize, held: Held) -> Span {
        let before = self.clock.worked();
        self.traffic.bytes_in += count as u64;
        let bytes = self.traffic.scratch.get(..count).unwrap_or_default();
        let input = link::World::Received(bytes);
        self.hub.handle(self.clock.now(), hub::World::Link { link, input });
        self.carry_out();
        if held.memory > 0 {
            self.hold(link, held);
        }
        self.clock.record_work();
        self.clock.worked().less(before)
    }

    /// Feeds the hub what the transport of a link holds of an incomplete record, unless the link
    /// has ended or moved: where it arrives, it is told again.
    #[cold]
    pub(in crate::shard) fn hold(&mut self, link: u32, held: Held) {
        if self.traffic.sockets.is_open(link) {
            let input = held.as_input();
            self.hub.handle(self.clock.now(), hub::World::Link { link, input });
            self.carry_out();
        }
    }

    /// Schedules a read of a socket in the next turn, without an event.
    pub(in crate::shard) fn read_in_next_turn(&mut self, link: u32) {
        if !self.traffic.sockets.is_unread(link) {
            self.traffic.sockets.set_unread(link, true);
            self.traffic.unread.push(link);
        }
    }
}

/// Returns whether a socket may hold urgent data, before which a read stops. Only Linux reports it.
fn has_urgent_data(event: &Readiness) -> bool {
    event.is_priority() || !cfg!(target_os = "linux")
}
