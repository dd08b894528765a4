//! Detection: when a silent peer is probed, becomes suspect and is given up.

use super::{Deadline, LEAST_SUSPICION, Liveness, Pending, Probed, Reason, Role, State};
use crate::policy::{Detection, Policy};
use crate::time::{Span, Time};

/// How long before `idle` the first probe of a silence is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lead {
    /// The first silence of a link, or the first under a new policy: this many milliseconds, drawn
    /// from half of `idle`.
    First(u32),
    /// Later silences: the link's own small share, so that links that heard one broadcast do not
    /// probe together for ever.
    Own,
}

/// How far the probing of a silent peer has come.
#[derive(Clone, Copy)]
pub(super) struct Probing {
    /// The time by which the first probe is sent before `idle`.
    pub(super) lead: Span,
    /// When the first probe was sent.
    pub(super) since: Option<Time>,
    pub(super) sent: u8,
    pub(super) suspect: bool,
}

impl Probing {
    pub(super) const NOT_STARTED: Probing =
        Probing { lead: Span::ZERO, since: None, sent: 0, suspect: false };
}

impl Liveness {
    /// Applies the policy to the silence so far: verdict, suspicion and probe, in this order, so
    /// that a probe sent now does not raise a suspicion now.
    pub(super) fn advance_silence(&mut self, now: Time, policy: &Policy, mut probing: Probing) {
        let Detection::Bounded { idle, interval, probes } = policy.detection() else {
            return;
        };
        let bound = idle + interval.times(u64::from(probes));
        let stretch = self.stretch(probing.since, policy);
        let due = self.silent_since + bound + stretch;
        if now >= due {
            let Probing { sent, suspect, .. } = probing;
            return self.end_at(due, stretch, Probed { sent, suspect }, policy);
        }
        if !probing.suspect
            && self.suspicion_at(probing, idle, interval).is_some_and(|at| now >= at)
        {
            probing.suspect = true;
            self.ambiguous = true;
            probing.since = probing.since.or(Some(self.silent_since + idle));
            self.pending.0 |= Pending::SUSPECT;
        }
        let latest = now + policy.probe_slack();
        if self.probe_at(probing, policy).is_some_and(|at| latest >= at) {
            probing.sent = probing.sent.saturating_add(1).max(self.probes_due(latest, policy));
            probing.sent = probing.sent.min(probes);
            probing.since = probing.since.or(Some(now));
            self.record_heartbeat(now);
            self.ambiguous = probing.suspect;
            self.pending.0 |= Pending::PROBE;
        }
        if let Some(since) = probing.since {
            let Probing { sent, suspect, .. } = probing;
            self.state = State::Probing { since, sent, suspect };
        }
    }

    /// Returns the number of probes due up to `latest`: a late caller skips probes and does not
    /// send them all at once.
    fn probes_due(&self, latest: Time, policy: &Policy) -> u8 {
        let Detection::Bounded { idle, interval, .. } = policy.detection() else {
            return 0;
        };
        let first = self.silent_since + idle;
        if latest < first {
            return 0;
        }
        let further = latest.since(first).as_nanos() / interval.as_nanos().max(1);
        u8::try_from(further.saturating_add(1)).unwrap_or(u8::MAX)
    }

    /// Returns when the next probe is due; `None` if this end sends no more probes.
    fn probe_at(&self, probing: Probing, policy: &Policy) -> Option<Time> {
        let Detection::Bounded { idle, interval, probes } = policy.detection() else {
            return None;
        };
        if self.role == Role::Watch || probing.sent >= probes {
            return None;
        }
        let scheduled = self.silent_since + idle + interval.times(u64::from(probing.sent));
        Some(scheduled - probing.lead)
    }

    /// Returns the time by which the first probe of the present silence is sent before `idle`.
    pub(super) fn lead(&self, lead: Lead, policy: &Policy) -> Span {
        match (lead, policy.detection()) {
            (Lead::First(millis), _) => Span::from_millis(u64::from(millis)),
            (Lead::Own, Detection::Bounded { idle, interval, .. }) if policy.spread() => {
                let longest = interval.as_nanos().min(idle.as_nanos() / 8);
                Span::from_nanos(longest / 256 * u64::from(self.lead))
            }
            (Lead::Own, Detection::Bounded { .. } | Detection::Never) => Span::ZERO,
        }
    }

    /// Returns how long a probe is out before the peer is suspect, at this interval.
    fn patience(&self, interval: Span) -> Span {
        self.round_trip().times(4).max(LEAST_SUSPICION.min(interval))
    }

    /// Returns how long the peer has for the answer to a heartbeat that somebody waits for: as long
    /// as a probe is out before it is suspect, also where silence is never judged.
    pub(crate) fn patience_under(&self, policy: &Policy) -> Span {
        self.patience(match policy.detection() {
            Detection::Never => LEAST_SUSPICION,
            Detection::Bounded { interval, .. } => interval,
        })
    }

    /// Returns when the peer becomes suspect; `None` if it is suspect or no probe is out. A
    /// watching end, which sends no probes, counts from `idle`.
    fn suspicion_at(&self, probing: Probing, idle: Span, interval: Span) -> Option<Time> {
        let patience = self.patience(interval);
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
            State::Listening { lead } => {
                Probing { lead: self.lead(lead, policy), ..Probing::NOT_STARTED }
            }
            State::Probing { since, sent, suspect } => {
                Probing { lead: Span::ZERO, since: Some(since), sent, suspect }
            }
            State::Handshake { .. }
            | State::Kept { .. }
            | State::Overdue { .. }
            | State::HalfClosed { .. }
            | State::Dead { .. } => return None,
        };
        let bound = idle + interval.times(u64::from(probes));
        let due = self.silent_since + bound + self.stretch(probing.since, policy);
        let mut next = Deadline::exact(due, Reason::Verdict);
        if let Some(at) = self.suspicion_at(probing, idle, interval).filter(|at| *at < next.at) {
            next = Deadline::exact(at, Reason::Suspicion);
        }
        if let Some(at) = self.probe_at(probing, policy).filter(|at| *at < next.at) {
            next = Deadline { at, slack: policy.probe_slack(), reason: Reason::Probe };
        }
        Some(next)
    }
}

/// Returns the time by which the first probe of a link is sent before `idle`: a random part of
/// `idle/2`, in milliseconds.
pub(super) fn first_lead_ms(policy: &Policy, seed: u32) -> u32 {
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
