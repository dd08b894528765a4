//! The generic cell rate algorithm (ITU-T I.371): one time for each rate, which runs ahead of the
//! present by what was taken. How far ahead is too far is the caller's rule.

use crate::plain::{Damage, Plain, Sink, Source};
use crate::time::{Span, Time};

/// The time until which what was taken is paid for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct PaidUntil(Time);

impl PaidUntil {
    /// Adds the cost of what is taken now.
    pub(super) fn take(self, now: Time, cost: Span) -> PaidUntil {
        PaidUntil(self.0.max(now) + cost)
    }

    /// Returns how far it is ahead of the present.
    pub(super) fn ahead(self, now: Time) -> Span {
        self.0.since(now)
    }
}

impl Plain<'_> for PaidUntil {
    fn put(&self, out: &mut Sink<'_>) {
        self.0.put(out);
    }

    fn take(from: &mut Source<'_>) -> Result<Self, Damage> {
        Time::take(from).map(PaidUntil)
    }
}
