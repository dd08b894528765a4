//! The rare inputs of the liveness machine: retune, hold, keep, half-close, and heartbeats
//! that the application wants.

use super::detection::{Lead, first_lead_ms};
use super::{Deadline, Input, Liveness, Pending, Reason, Role, State};
use crate::policy::{Detection, Policy};
use crate::time::Time;

impl Liveness {
    /// Handles every input but `Heard` and `Sent`. Not inlined: only those two are on the hot path.
    #[inline(never)]
    pub(super) fn handle_other(&mut self, now: Time, input: Input, policy: &Policy) {
        match input {
            Input::Heard(_) | Input::Sent => {}
            Input::Introduced { seed } => self.introduce(now, seed, policy),
            Input::Deadline => self.expire(now, policy),
            Input::Heartbeat => self.request_heartbeat(now),
            Input::Retuned { from, seed } => self.retune(now, &from, policy, seed),
            Input::Hold { until } => self.hold(until),
            Input::Keep { until } => self.keep(until),
            Input::KernelRoundTrip(rtt) => self.replace_round_trip(now, rtt, policy),
            Input::HalfClosed { until } => self.half_close(now, until),
            Input::Release => {
                self.held = false;
                self.silent_since = self.silent_since.min(now).max(self.last_heard);
            }
        }
    }

    /// Puts the policy `to` in force. The verdict never falls for a silence that the old policy
    /// allowed: it falls no sooner than the earlier of the old deadline and one new bound from now.
    pub(super) fn retune(&mut self, now: Time, from: &Policy, to: &Policy, seed: u32) {
        match self.state {
            State::HalfClosed { until, overdue: true } if to.enforce() => {
                let until = until.max(now);
                self.state = State::HalfClosed { until, overdue: false };
                return;
            }
            State::Handshake { .. } | State::HalfClosed { .. } | State::Dead { .. } => return,
            State::Overdue { .. } if to.enforce() => {
                self.excuse_until(now);
                self.state = State::Probing { since: now, sent: 0, suspect: true };
            }
            State::Kept { .. }
            | State::Overdue { .. }
            | State::Listening { .. }
            | State::Probing { .. } => {}
        }
        let Some(bound) = to.bound() else {
            self.clear_suspicion();
            return;
        };
        let allowed = match self.due(from) {
            Some(due) => due.min(now + bound),
            None => now + bound,
        };
        // A longer bound counts from the last evidence, whatever the policies before allowed.
        let origin = if self.retuned { self.last_heard } else { self.silent_since };
        self.silent_since = origin.max(allowed - bound);
        self.retuned = origin == self.last_heard;
        match &mut self.state {
            State::Listening { lead } => *lead = Lead::First(first_lead_ms(to, seed)),
            // The new bound has not passed: the silence is judged anew at its end.
            State::Kept { .. } | State::Overdue { .. } if self.silent_since + bound > now => {
                self.state = State::Probing { since: now, sent: 0, suspect: true };
            }
            State::Probing { .. }
            | State::Handshake { .. }
            | State::HalfClosed { .. }
            | State::Kept { .. }
            | State::Overdue { .. }
            | State::Dead { .. } => {}
        }
    }

    /// Withdraws the verdict that has just fallen, and keeps the peer suspect until `until`. The
    /// suspicion is reported if it was not before.
    pub(super) fn keep(&mut self, until: Time) {
        if let State::Dead { sent, in_handshake: false, suspect, .. } = self.state {
            self.state = State::Kept { until, sent, probed: false };
            self.ambiguous = true;
            self.pending.0 |= if suspect { 0 } else { Pending::SUSPECT };
        }
    }

    /// Returns the next deadline of a kept peer. It is probed once more, one interval before
    /// `until`, because what its kernel showed at the bound is out of date by then.
    pub(super) fn kept_deadline(&self, until: Time, probed: bool, policy: &Policy) -> Deadline {
        match (policy.detection(), self.role) {
            (Detection::Bounded { interval, .. }, Role::Probe) if !probed => {
                Deadline::exact(until - interval, Reason::Probe)
            }
            (Detection::Bounded { .. } | Detection::Never, Role::Probe | Role::Watch) => {
                Deadline::exact(until, Reason::Verdict)
            }
        }
    }

    /// Sends the last probe of a kept peer.
    pub(super) fn probe_kept(&mut self, now: Time, until: Time, sent: u8) {
        self.state = State::Kept { until, sent: sent.saturating_add(1), probed: true };
        self.record_heartbeat(now);
        self.pending.0 |= Pending::PROBE;
    }

    /// Sends a heartbeat that the application wants. Not to a peer that has closed its side: it has
    /// got its last one, and can answer none.
    fn request_heartbeat(&mut self, now: Time) {
        match self.state {
            State::Handshake { .. } | State::HalfClosed { .. } | State::Dead { .. } => {}
            State::Listening { .. }
            | State::Probing { .. }
            | State::Kept { .. }
            | State::Overdue { .. } => {
                self.record_heartbeat(now);
                self.pending.0 |= Pending::KEEPALIVE;
            }
        }
    }

    /// Sends one heartbeat to a peer that closed its side, and counts its silence no longer.
    pub(super) fn half_close(&mut self, now: Time, until: Time) {
        if let State::Handshake { .. } | State::HalfClosed { .. } | State::Dead { .. } = self.state
        {
            return;
        }
        self.clear_suspicion();
        self.state = State::HalfClosed { until, overdue: false };
        self.record_heartbeat(now);
        self.pending.0 |= Pending::KEEPALIVE;
    }

    /// Returns when a half-closed peer ends whose time is over at `until`: not during a hold.
    pub(super) fn half_close_end(&self, until: Time) -> Time {
        self.held_until().map_or(until, |held| held.max(until))
    }

    /// Ends the suspicion, and counts silence from `until`. A half-closed peer is kept until then.
    pub(super) fn hold(&mut self, until: Time) {
        match &mut self.state {
            State::Handshake { .. } | State::Dead { .. } => return,
            State::HalfClosed { .. }
            | State::Listening { .. }
            | State::Probing { .. }
            | State::Kept { .. }
            | State::Overdue { .. } => {}
        }
        self.held = true;
        self.excuse_until(until);
        self.clear_suspicion();
    }
}
