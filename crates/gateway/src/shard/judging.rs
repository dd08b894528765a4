//! When deadlines are looked at within a turn, and how a link is judged whose socket was read.

use systole_core::{Span, Time};

use super::opening::Accept;
use super::shard_loop::ShardLoop;
use super::streams::Streams;

/// The work after which a turn checks deadlines before it reads on: a verdict must not wait until
/// all ready sockets are read. The socket that is being read is continued in the next turn.
const WORK_PER_LOOK: Span = Span::from_micros(500);

impl<T: Accept> ShardLoop<Streams<T>> {
    /// Returns whether the turn has done [`WORK_PER_LOOK`] since it last checked deadlines.
    pub(super) fn is_look_due(&self) -> bool {
        self.clock.worked() >= WORK_PER_LOOK
    }

    pub(super) fn expire_when_due(&mut self) {
        if self.is_look_due() {
            self.expire();
        }
    }

    /// Reads a socket whose link is to be judged, and judges the link if the socket was read until
    /// it was empty. The driver names a link that stays unread again at each tick, so a read here
    /// must not stop early.
    pub(super) fn answer_poll(&mut self, link: u32, now: Time) {
        if self.traffic.sockets.is_waiting(link) {
            self.hub.judge(now, link);
            return self.carry_out();
        }
        // A socket left unread has had its reads of this turn.
        if !self.traffic.sockets.is_unread(link) {
            self.readable(link, false);
        }
        if self.traffic.sockets.is_open(link) && !self.traffic.sockets.is_unread(link) {
            self.hub.judge(now, link);
            self.carry_out();
        }
        self.clock.record_work();
    }
}
