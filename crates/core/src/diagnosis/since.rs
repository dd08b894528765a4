//! What each of the latest examinations has shown, and since when.

use crate::plain::plain_struct;
use crate::time::{Span, Time};

/// Since when each examination has shown one thing; `None` if the latest has not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Since(Option<Time>);

plain_struct! { Since { 0: since } }

impl Since {
    /// No examination has shown it.
    pub(super) const NEVER: Since = Since(None);

    /// Notes what an examination at `now` shows. Returns since when each has shown it.
    pub(super) fn note(&mut self, now: Time, shown: bool) -> Option<Time> {
        self.0 = shown.then(|| self.0.unwrap_or(now));
        self.0
    }

    /// Returns whether each examination in the `time` before `now` has shown it.
    pub(super) fn holds_for(self, time: Span, now: Time) -> bool {
        self.0.is_some_and(|since| now.since(since) >= time)
    }
}
