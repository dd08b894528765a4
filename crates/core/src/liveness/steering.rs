//! What operators want, and verdicts that are put off, change about a link's liveness.

use super::{Deadline, Input, Liveness, Pending, Reason, Role, State};
use crate::policy::{Detection, Policy};
use crate::time::Time;

impl Liveness {
    /// Apart from what comes with every byte, which is small enough to stand where it is called.
    #[inline(never)]
    pub(super) fn handle_rare(&mut self, now: Time, input: Input, policy: &Policy) {
        match input {
            Input::Heard(_) | Input::Sent => {}
            Input::Introduced { seed } => self.introduce(now, seed, policy),
            Input::Deadline => self.expire(now, policy),
            Input::Retuned { from, seed } => self.retune(now, &from, policy, seed),
            Input::Hold { until } => self.hold(until),
            Input::Keep { until } => self.keep(until),
            Input::HalfClosed { until } => self.half_close(now, until),
            Input::Release => self.silent_since = self.silent_since.min(now).max(self.last_heard),
        }
    }

    /// The new policy never condemns for a silence that the old one allowed: the verdict falls no
    /// sooner than the earlier of the old deadline and one new bound from now.
    pub(super) fn retune(&mut self, now: Time, from: &Policy, to: &Policy, seed: u32) {
        match self.state {
            State::Greeting { .. } | State::HalfClosed { .. } | State::Dead { .. } => return,
            State::Overdue { .. } if to.enforce() => {
                self.silent_since = self.silent_since.max(now);
                self.state = State::Probing { since: now, sent: 0, suspect: true };
            }
            State::Kept { .. }
            | State::Overdue { .. }
            | State::Listening { .. }
            | State::Probing { .. } => {}
        }
        let Some(bound) = to.bound() else {
            self.trust();
            return;
        };
        let allowed = match from.bound() {
            Some(old) => (self.silent_since + old).min(now + bound),
            None => now + bound,
        };
        self.silent_since = self.silent_since.max(allowed - bound);
        match &mut self.state {
            State::Listening { lead_ms: lead, .. } => *lead = lead_ms(to, seed),
            State::Probing { .. }
            | State::Greeting { .. }
            | State::HalfClosed { .. }
            | State::Kept { .. }
            | State::Overdue { .. }
            | State::Dead { .. } => {}
        }
    }

    pub(super) fn keep(&mut self, until: Time) {
        if let State::Dead { sent, in_handshake: false, .. } = self.state {
            self.state = State::Kept { until, sent, asked: false };
        }
    }

    /// Whoever was spared is asked once more, an interval before it is judged again: what its
    /// kernel showed then says nothing of what it is like now.
    pub(super) fn kept_deadline(&self, until: Time, asked: bool, policy: &Policy) -> Deadline {
        match (policy.detection(), self.role) {
            (Detection::Bounded { interval, .. }, Role::Probe) if !asked => {
                Deadline { at: until - interval, reason: Reason::Probe }
            }
            (Detection::Bounded { .. } | Detection::Never, Role::Probe | Role::Watch) => {
                Deadline { at: until, reason: Reason::Verdict }
            }
        }
    }

    pub(super) fn ask_once_more(&mut self, now: Time, until: Time, sent: u8) {
        self.state = State::Kept { until, sent: sent.saturating_add(1), asked: true };
        self.beat(now);
        self.pending.0 |= Pending::PROBE;
    }

    pub(super) fn half_close(&mut self, now: Time, until: Time) {
        if let State::Greeting { .. } | State::HalfClosed { .. } | State::Dead { .. } = self.state {
            return;
        }
        self.state = State::HalfClosed { until };
        self.beat(now);
        self.pending.0 = Pending::KEEPALIVE;
    }

    pub(super) fn hold(&mut self, until: Time) {
        if let State::Greeting { .. } | State::HalfClosed { .. } | State::Dead { .. } = self.state {
            return;
        }
        self.silent_since = self.silent_since.max(until);
        self.trust();
    }
}

/// How long before `idle` the first probe goes out: a random part of `idle/2`.
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
