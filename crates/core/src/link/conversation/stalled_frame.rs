//! Stalled frames: a frame of the peer must be complete within its time limit.
//!
//! Without a limit, a peer that sends a frame a byte at a time would hold its memory for ever: each
//! byte is evidence of life.

use super::{Conversation, FLOOR_PER_SECOND, Stage};
use crate::cause::{Cause, Verdict};
use crate::link::outbound::Writer;
use crate::link::peer::Effect;
use crate::machine::{Deadline, Reason};
use crate::time::{Span, Time};
use crate::wire::Malformed;
use crate::wire::decoder::Incomplete;

impl Conversation {
    /// Returns when `frame` must be complete: after the bound D, or after the time that its length
    /// takes at [`FLOOR_PER_SECOND`] if that is longer.
    ///
    /// There is no such time where another rule judges the peer (in the handshake, after a
    /// half-close, while a probe is unanswered, or once the bound has passed), and where the policy
    /// ends no peer.
    pub(in crate::link) fn frame_deadline(&self, frame: &Incomplete) -> Option<Deadline> {
        let judged = self.stage == Stage::Established && self.policy.enforce();
        if !judged || self.liveness.is_in_doubt() || self.liveness.is_dead() {
            return None;
        }
        let limit = self.policy.bound()?.max(time_at_floor(frame.length));
        Some(Deadline::exact(frame.since + limit, Reason::Frame))
    }

    /// Ends the conversation with a peer whose frame was due at `due`.
    pub(in crate::link) fn end_by_stalled_frame(
        &mut self,
        now: Time,
        due: Time,
        out: &mut Writer<'_>,
    ) -> Effect {
        let cause = Cause::Protocol(Malformed::StalledFrame);
        let verdict = Verdict { due, ..self.verdict(now, cause) };
        self.end_with(verdict, out)
    }
}

/// Returns the time that `bytes` take at [`FLOOR_PER_SECOND`].
fn time_at_floor(bytes: usize) -> Span {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    Span::from_millis(bytes.saturating_mul(1_000) / FLOOR_PER_SECOND)
}
