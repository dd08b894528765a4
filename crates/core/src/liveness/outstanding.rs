//! What we sent and nobody has answered: when its socket is looked at although nobody is suspected
//! yet.

use super::{Deadline, Liveness, Reason, State};
use crate::time::{Span, Time};

/// How long bytes of ours may go unanswered before their socket is looked at. A kernel that caps
/// its retransmission time at a second gives up 14 s after bytes were stranded or a closed window
/// fell silent, whatever it was told, unless a look finds that in time; half of its probes are left
/// then.
pub const OUTSTANDING: Span = Span::from_secs(8);

/// In which the time of a look is kept, in nanoseconds: 67 ms. After nine years of it nobody looks
/// any more before a suspicion.
const UNIT: u64 = 1 << 26;

impl Liveness {
    /// Whether something was sent since the peer was last heard, and nobody is suspected.
    pub(crate) fn is_outstanding(&self) -> bool {
        matches!(self.state, State::Listening { .. }) && self.last_sent > self.last_heard
    }

    #[inline]
    pub(super) fn send(&mut self, now: Time) {
        let answered = self.last_sent <= self.last_heard;
        self.last_sent = self.last_sent.max(now);
        if answered && self.is_outstanding() {
            self.schedule_examination(now);
        }
    }

    /// The time from which the next look is reckoned.
    pub(super) fn schedule_examination(&mut self, now: Time) {
        if let State::Listening { looked, .. } = &mut self.state {
            // Rounded up, so that a look is never due twice.
            *looked = u32::try_from(now.as_nanos().div_ceil(UNIT)).unwrap_or(u32::MAX);
        }
    }

    /// At a whole number of [`OUTSTANDING`] after the peer was last heard.
    pub(super) fn examine_deadline(&self) -> Option<Deadline> {
        let State::Listening { looked, .. } = self.state else {
            return None;
        };
        if !self.is_outstanding() || looked == u32::MAX {
            return None;
        }
        let looked = Time::from_nanos(u64::from(looked).saturating_mul(UNIT));
        let passed = looked.since(self.last_heard).as_nanos() / OUTSTANDING.as_nanos();
        let at = self.last_heard + OUTSTANDING.times(passed.saturating_add(1));
        Some(Deadline { at, reason: Reason::Examine })
    }
}
