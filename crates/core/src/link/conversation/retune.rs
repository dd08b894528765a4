//! Retune: changing the policy in force, or asking the accepting side to change it.

use super::Conversation;
use crate::flight::Incident;
use crate::link::outbound::Writer;
use crate::link::peer::Context;
use crate::link::{Event, Lane};
use crate::liveness;
use crate::policy::Policy;
use crate::time::Time;
use crate::wire::Frame;

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
            return self.put_in_force(now, policy, context, out);
        }
        let granted = context.settings.limits.grant(Some(policy), context.settings.policy);
        // At most one change per read; further requests are answered with the policy in force.
        if self.retuned || granted == self.policy {
            out.transmit(self.codec, Lane::Control, &Frame::Retune(self.policy));
            self.record_sent(now);
        } else {
            self.retune(now, granted, context, out);
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
            self.record_sent(now);
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
        self.policy =
            if context.settings.connects() { policy.with_conduct_of(&from) } else { policy };
        self.retuned = true;
        self.flight.record(now, Incident::Retuned);
        let seed = context.random.next_u32();
        self.feed_liveness(now, liveness::Input::Retuned { from, seed }, out);
        out.event(Event::Retuned(self.policy));
    }
}
