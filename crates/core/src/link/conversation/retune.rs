//! Retune: changing the policy in force, or asking the accepting side to change it.

use super::Conversation;
use crate::cause::Cause;
use crate::flight::Incident;
use crate::link::Lane;
use crate::link::outbound::Writer;
use crate::link::peer::Context;
use crate::liveness;
use crate::plain::{Damage, Plain, Sink, Source};
use crate::policy::Policy;
use crate::session;
use crate::time::{Span, Time};
use crate::wire::{Frame, Malformed};

/// The least time between two changes of the policy that a peer asks for; a request before is
/// answered with the policy in force. Each change is an event and two system calls, and nobody's
/// circumstances change faster.
const RETUNE_REST: Span = Span::from_secs(1);

impl Conversation {
    /// Returns whether the policy has changed since the last call.
    pub(in crate::link) fn take_retuned(&mut self) -> bool {
        core::mem::take(&mut self.retuned)
    }

    /// Handles RETUNE: a decision of the accepting side, or a request to it.
    pub(super) fn handle_retune(
        &mut self,
        now: Time,
        policy: Policy,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) {
        if context.settings.connects() {
            // Shorter times than any gateway may grant would have this end do nothing but probe.
            if policy.patient().is_err() {
                let _ = self.end(now, Cause::Protocol(Malformed::Policy), out);
                return;
            }
            return self.put_in_force(now, policy, context, out);
        }
        out.count_request_in();
        let granted = context.settings.limits.grant(Some(policy), context.settings.policy);
        // What the listener or an operator decided for this session is not the peer's to change.
        let granted = granted.with_conduct_of(&self.policy);
        if granted != self.policy && self.granted.is_rested(now) {
            self.granted = Granted::at(now);
            self.retune(now, granted, context, out);
        } else {
            out.transmit(self.codec, Lane::Control, &Frame::Retune(self.policy));
            self.record_sent(now, Lane::Control);
        }
    }

    /// Retunes on command. Before the handshake is complete, replaces the initial policy.
    pub(super) fn command_retune(
        &mut self,
        now: Time,
        policy: Policy,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) {
        if self.is_established() {
            self.retune(now, policy, context, out);
            self.retuned = false;
        } else {
            self.policy = policy;
        }
    }

    /// Changes the policy, or asks the accepting side to change it.
    fn retune(
        &mut self,
        now: Time,
        policy: Policy,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) {
        let negotiates = self.codec.has_handshake();
        if negotiates {
            out.transmit(self.codec, Lane::Control, &Frame::Retune(policy));
            self.record_sent(now, Lane::Control);
        }
        if !(context.settings.connects() && negotiates) {
            self.put_in_force(now, policy, context, out);
        }
    }

    fn put_in_force(
        &mut self,
        now: Time,
        policy: Policy,
        context: &mut Context<'_>,
        out: &mut Writer<'_>,
    ) {
        let from = self.policy;
        let policy =
            if context.settings.connects() { policy.with_conduct_of(&from) } else { policy };
        if policy == from {
            return;
        }
        self.policy = policy;
        self.retuned = true;
        self.flight.record(now, Incident::Retuned);
        let seed = context.random.next_u32();
        self.feed_liveness(now, liveness::Input::Retuned { from, seed }, out);
        self.end_keep_unless_kept();
        out.session(session::Event::Retuned(self.policy));
        self.update_patience(out);
    }
}

/// When a request of the peer last changed the policy, in milliseconds modulo 2^32. After 50 days
/// without a change one request may meet the second in which it is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Granted(u32);

impl Granted {
    /// Returns a time before `now` after which the first request of a peer is granted.
    pub(super) fn long_before(now: Time) -> Granted {
        let at = Granted::at(now - RETUNE_REST);
        Granted(at.0.wrapping_sub(RETUNE_REST.as_millis() as u32))
    }

    fn at(time: Time) -> Granted {
        Granted(time.as_millis() as u32)
    }

    /// Returns the milliseconds from this time to `now`.
    fn age(self, now: Time) -> u32 {
        Granted::at(now).0.wrapping_sub(self.0)
    }

    /// Returns whether the change is [`RETUNE_REST`] old.
    fn is_rested(self, now: Time) -> bool {
        u64::from(self.age(now)) >= RETUNE_REST.as_millis()
    }
}

/// In a saved state: the age in milliseconds, modulo 2^32 too. So no clock is too young for it.
impl Plain<'_> for Granted {
    fn put(&self, out: &mut Sink<'_>) {
        self.age(out.origin()).put(out);
    }

    fn take(from: &mut Source<'_>) -> Result<Granted, Damage> {
        let age = u32::take(from)?;
        Ok(Granted(Granted::at(from.origin()).0.wrapping_sub(age)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_keeps_its_age_on_any_clock() {
        let ms = Time::from_millis;
        let wrapped = ms((1 << 32) + 5_000);
        for (at, saved) in [(ms(4_600), ms(5_000)), (ms((1 << 32) + 4_600), wrapped)] {
            for loaded in [ms(0), ms(300), ms(5_000), wrapped] {
                let mut state = alloc::vec::Vec::new();
                Granted::at(at).put(&mut Sink::state(saved, &mut state));
                let moved = Granted::take(&mut Source::state(loaded, &state)).unwrap();
                assert!(!moved.is_rested(loaded + Span::from_millis(599)), "{loaded:?}");
                assert!(moved.is_rested(loaded + Span::from_millis(600)), "{loaded:?}");
            }
        }
    }
}
