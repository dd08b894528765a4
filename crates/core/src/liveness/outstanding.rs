//! Outstanding bytes: when the socket is examined because the peer does not answer what we sent,
//! although it is not suspect yet.

use super::{Deadline, Liveness, Reason, State};
use crate::time::{Span, Time};

/// The time for which our bytes may be outstanding (sent and unanswered) before the socket is
/// examined.
///
/// A kernel that caps its retransmission time at 1 s gives up a connection 14 s after bytes were
/// lost or a closed window fell silent, whatever its user timeout, unless an examination finds that
/// in time. After 8 s half of its retransmissions are left.
pub const OUTSTANDING: Span = Span::from_secs(8);

/// The resolution of `examined`, in nanoseconds: 67 ms. The `u32` saturates after nine years;
/// examinations before a suspicion then stop.
const RESOLUTION: u64 = 1 << 26;

impl Liveness {
    /// Returns whether anything was sent since the last evidence and the peer is not in doubt.
    pub(crate) fn is_outstanding(&self) -> bool {
        matches!(self.state, State::Listening { .. }) && self.last_sent > self.last_heard
    }

    #[inline]
    pub(super) fn send(&mut self, now: Time) {
        let answered = self.last_sent <= self.last_heard;
        self.last_sent = self.last_sent.max(now);
        if answered && self.is_outstanding() {
            self.record_examination(now);
        }
    }

    /// Sets the time after which the next examination is scheduled.
    pub(super) fn record_examination(&mut self, now: Time) {
        if let State::Listening { examined, .. } = &mut self.state {
            // Rounded up, so that one examination is never due twice.
            *examined = u32::try_from(now.as_nanos().div_ceil(RESOLUTION)).unwrap_or(u32::MAX);
        }
    }

    /// Returns the deadline of the next examination, a whole number of [`OUTSTANDING`] after the
    /// last evidence; `None` if no bytes are outstanding.
    pub(super) fn examine_deadline(&self) -> Option<Deadline> {
        let State::Listening { examined, .. } = self.state else {
            return None;
        };
        if !self.is_outstanding() || examined == u32::MAX {
            return None;
        }
        let examined = Time::from_nanos(u64::from(examined).saturating_mul(RESOLUTION));
        let passed = examined.since(self.last_heard).as_nanos() / OUTSTANDING.as_nanos();
        let at = self.last_heard + OUTSTANDING.times(passed.saturating_add(1));
        Some(Deadline { at, reason: Reason::Examine })
    }
}
