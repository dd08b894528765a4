//! The verdict on a link.

use super::{Cause, Confidence};
use crate::grounds::{Ground, Grounds};
use crate::time::{Span, Time};

/// The verdict on a link: a cause, a confidence, and the times and grounds behind them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Verdict {
    /// Why the link ended.
    pub cause: Cause,
    /// How sure the cause is.
    pub confidence: Confidence,
    /// When the verdict fell.
    pub at: Time,
    /// When the verdict was due: the deadline that passed; the end of the bound, later than `at`,
    /// if the kernel gave up before it; `at` if no deadline was involved.
    pub due: Time,
    /// By how much the bound was stretched for a long round trip: `due` is this much later than the
    /// last evidence and D.
    pub stretch: Span,
    /// When the last evidence of the peer arrived.
    pub last_heard: Time,
    /// The number of unanswered probes.
    pub probes: u8,
    /// The findings that support the cause; empty where no diagnosis was made.
    pub grounds: Grounds,
}

impl Verdict {
    /// Returns a verdict that falls now for a cause that needs no diagnosis.
    pub fn of(cause: Cause, now: Time, last_heard: Time) -> Verdict {
        Verdict {
            cause,
            confidence: cause.confidence(),
            at: now,
            due: now,
            stretch: Span::ZERO,
            last_heard,
            probes: 0,
            grounds: Grounds::default(),
        }
    }

    /// Returns true if the verdict fell because a deadline passed without evidence.
    pub fn is_silence(&self) -> bool {
        self.grounds.contains(Ground::ApplicationSilent) || self.cause == Cause::HandshakeTimeout
    }

    /// Whether the kernel forced the verdict before the bound had passed. An error of ours: the
    /// kernel is set to be more patient than the bound.
    pub fn is_early(&self) -> bool {
        self.at < self.due
    }

    /// By how much the verdict fell later than it was due, in microseconds; negative if earlier.
    pub fn late_us(&self) -> i64 {
        let micros = |span: Span| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        micros(self.at.since(self.due)) - micros(self.due.since(self.at))
    }
}
