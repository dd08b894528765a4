//! The round trip R of a link, and when the verdict falls under a long one.

use super::{Liveness, Role, State};
use crate::policy::{Detection, Policy};
use crate::time::{Span, Time};

impl Liveness {
    /// Returns the round-trip time R that suspicion is measured by, and for which the bound is
    /// stretched; `None` before the first sample.
    ///
    /// A decaying maximum: the greater of the latest sample and 7/8 of the value before it. Probes
    /// that were retransmitted give no sample (Karn's algorithm, RFC 6298 section 3); after a
    /// suspicion the kernel's own figure replaces the value.
    pub const fn rtt(&self) -> Option<Span> {
        match self.rtt_us {
            0 => None,
            micros => Some(Span::from_micros(micros as u64)),
        }
    }

    /// Returns the time that the latest answer took, also where it may answer a retransmission:
    /// from a heartbeat to its pong, or from the first probe of a silence to the end of the
    /// suspicion. `None` if the kernel has measured since.
    pub(crate) fn latest_answer(&self) -> Option<Span> {
        (self.answer_us > 0).then(|| Span::from_micros(u64::from(self.answer_us)))
    }

    pub(super) fn note_answer(&mut self, after: Span) {
        self.answer_us = micros(after);
    }

    /// Forgets the latest answer, because the kernel has measured a round trip since.
    pub(crate) fn forget_answer(&mut self) {
        self.answer_us = 0;
    }

    /// Returns when the bound passes under `policy` unless there is evidence before; `None` if
    /// silence is never judged.
    pub(crate) fn due(&self, policy: &Policy) -> Option<Time> {
        let since = match self.state {
            State::Probing { since, .. } => Some(since),
            // It has passed. The first probe, from which it counted, is forgotten.
            State::Dead { due, .. } => return Some(due),
            State::Handshake { .. }
            | State::Listening { .. }
            | State::Kept { .. }
            | State::Overdue { .. }
            | State::HalfClosed { .. } => None,
        };
        Some(self.silent_since + policy.bound()? + self.stretch(since, policy))
    }

    /// Returns the longest time from the start of this silence to its verdict, as far as it is
    /// known before the first probe; `None` if silence is never judged.
    pub(crate) fn longest_silence(&self, policy: &Policy) -> Option<Span> {
        let Detection::Bounded { idle, .. } = policy.detection() else {
            return None;
        };
        let bound = policy.bound()?;
        let answered = (idle + self.round_trip()).min(bound.times(2));
        // The first probe may have left late.
        let due = self.due(policy)?.since(self.silent_since);
        Some(bound.max(answered).max(due))
    }

    /// Returns by how much the bound is stretched in this silence: until a round trip after its
    /// first probe, which left at `since`, and at most to twice the bound. A watching end, which
    /// sends no probes, counts from `idle`, when the peer sends one.
    pub(super) fn stretch(&self, since: Option<Time>, policy: &Policy) -> Span {
        let Detection::Bounded { idle, interval, probes } = policy.detection() else {
            return Span::ZERO;
        };
        let bound = idle + interval.times(u64::from(probes));
        let probed = match (since, self.role) {
            (Some(since), _) => since,
            (None, Role::Watch) => self.silent_since + idle,
            (None, Role::Probe) => return Span::ZERO,
        };
        (probed + self.round_trip()).since(self.silent_since + bound).min(bound)
    }

    /// Takes the kernel's figure for R. During a silence the figure only raises R, so that no
    /// deadline that has passed moves.
    pub(super) fn replace_round_trip(&mut self, now: Time, rtt: Span, policy: &Policy) {
        let watches = self.role == Role::Watch && matches!(self.state, State::Listening { .. });
        let silent = match policy.detection() {
            Detection::Bounded { idle, .. } if watches => now >= self.silent_since + idle,
            Detection::Bounded { .. } | Detection::Never => {
                matches!(self.state, State::Probing { .. })
            }
        };
        let least = if silent { self.rtt_us } else { 0 };
        self.rtt_us = micros(rtt).max(least);
    }

    /// Takes a round trip that no retransmission can have lengthened.
    pub(super) fn sample_round_trip(&mut self, rtt: Span) {
        self.rtt_us = micros(rtt).max(self.rtt_us - self.rtt_us / 8);
    }

    pub(super) fn round_trip(&self) -> Span {
        Span::from_micros(u64::from(self.rtt_us))
    }
}

/// Returns a round trip in microseconds, at least 1.
fn micros(rtt: Span) -> u32 {
    u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX).max(1)
}
