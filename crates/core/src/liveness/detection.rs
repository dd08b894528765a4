//! Detection: when a silent peer is probed, becomes suspect and is given up.

use super::{Deadline, LEAST_SUSPICION, Liveness, Pending, Reason, Role, State};
use crate::policy::{Detection, Policy};
use crate::time::{Span, Time};

/// How far the probing of a silent peer has come.
#[derive(Clone, Copy)]
pub(super) struct Probing {
    /// The time by which the first probe is sent before `idle`, in milliseconds.
    pub(super) lead_ms: u32,
    /// When the first probe was sent.
    pub(super) since: Option<Time>,
    pub(super) sent: u8,
    pub(super) suspect: bool,
}

impl Probing {
    pub(super) const NOT_STARTED: Probing =
        Probing { lead_ms: 0, since: None, sent: 0, suspect: false };
}

impl Liveness {
    /// Applies the policy to the silence so far: verdict, suspicion and probe, in this order, so
    /// that a probe sent now does not raise a suspicion now.
    pub(super) fn advance_silence(&mut self, now: Time, policy: &Policy, mut probing: Probing) {
        let Detection::Bounded { idle, interval, probes } = policy.detection() else {
            return;
        };
        let due = self.silent_since + idle + interval.times(u64::from(probes));
        if now >= due {
            let sent = probing.sent;
            if policy.enforce() {
                self.state = State::Dead { due, sent, in_handshake: false };
                self.pending.0 |= Pending::DEAD;
            } else {
                self.state = State::Overdue { due, sent };
                self.pending.0 |= Pending::OVERDUE;
            }
            return;
        }
        if !probing.suspect
            && self.suspicion_at(probing, idle, interval).is_some_and(|at| now >= at)
        {
            probing.suspect = true;
            probing.since = probing.since.or(Some(self.silent_since + idle));
            self.pending.0 |= Pending::SUSPECT;
        }
        if self.probe_at(probing, idle, interval, probes).is_some_and(|at| now >= at) {
            probing.sent = probing.sent.saturating_add(1).max(self.probes_due(now, idle, interval));
            probing.sent = probing.sent.min(probes);
            probing.since = probing.since.or(Some(now));
            self.record_heartbeat(now);
            self.pending.0 |= Pending::PROBE;
        }
        if let Some(since) = probing.since {
            let Probing { sent, suspect, .. } = probing;
            self.state = State::Probing { since, sent, suspect };
        }
    }

    /// Returns the number of probes due up to `now`: a late caller skips probes and does not send
    /// them all at once.
    fn probes_due(&self, now: Time, idle: Span, interval: Span) -> u8 {
        let first = self.silent_since + idle;
        if now < first {
            return 0;
        }
        let further = now.since(first).as_nanos() / interval.as_nanos().max(1);
        u8::try_from(further.saturating_add(1)).unwrap_or(u8::MAX)
    }

    /// Returns when the next probe is due; `None` if this end sends no more probes.
    fn probe_at(&self, probing: Probing, idle: Span, interval: Span, probes: u8) -> Option<Time> {
        if self.role == Role::Watch || probing.sent >= probes {
            return None;
        }
        let scheduled = self.silent_since + idle + interval.times(u64::from(probing.sent));
        Some(scheduled - Span::from_millis(u64::from(probing.lead_ms)))
    }

    /// Returns when the peer becomes suspect; `None` if it is suspect or no probe is out. A
    /// watching end, which sends no probes, counts from `idle`.
    fn suspicion_at(&self, probing: Probing, idle: Span, interval: Span) -> Option<Time> {
        let rtt = Span::from_micros(u64::from(self.smoothed_rtt_us));
        let patience = rtt.times(4).max(LEAST_SUSPICION).min(interval);
        match (probing.since, self.role) {
            (_, _) if probing.suspect => None,
            (Some(since), _) => Some(since + patience),
            (None, Role::Probe) => None,
            (None, Role::Watch) => Some(self.silent_since + idle + patience),
        }
    }

    /// Returns the next deadline of a silence: probe, suspicion or verdict.
    pub(super) fn detection_deadline(&self, policy: &Policy) -> Option<Deadline> {
        let Detection::Bounded { idle, interval, probes } = policy.detection() else {
            return None;
        };
        let probing = match self.state {
            State::Listening { lead_ms, .. } => Probing { lead_ms, ..Probing::NOT_STARTED },
            State::Probing { since, sent, suspect } => {
                Probing { lead_ms: 0, since: Some(since), sent, suspect }
            }
            State::Handshake { .. }
            | State::Kept { .. }
            | State::Overdue { .. }
            | State::HalfClosed { .. }
            | State::Dead { .. } => return None,
        };
        let due = self.silent_since + idle + interval.times(u64::from(probes));
        let mut next = Deadline { at: due, reason: Reason::Verdict };
        if let Some(at) = self.suspicion_at(probing, idle, interval).filter(|at| *at < next.at) {
            next = Deadline { at, reason: Reason::Suspicion };
        }
        if let Some(at) = self.probe_at(probing, idle, interval, probes).filter(|at| *at < next.at)
        {
            next = Deadline { at, reason: Reason::Probe };
        }
        Some(next)
    }
}

/// Returns the time by which the first probe of a link is sent before `idle`: a random part of
/// `idle/2`, in milliseconds.
pub(super) fn lead_ms(policy: &Policy, seed: u32) -> u32 {
    let Detection::Bounded { idle, .. } = policy.detection() else {
        return 0;
    };
    if !policy.spread() {
        return 0;
    }
    let half_ms = u32::try_from(idle.as_millis() / 2).unwrap_or(u32::MAX);
    let scaled = (u64::from(half_ms) * u64::from(seed)) >> 32;
    u32::try_from(scaled).unwrap_or(half_ms)
}
