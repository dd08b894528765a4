//! The scopes of single losses: settled by siblings that live, or at a deadline by other verdicts.

use core::net::IpAddr;

use super::groups::{Group, Key};
use super::hosts::SIBLINGS;
use super::{Outages, Output, QUIET, Timer, UNSETTLED};
use crate::cause::{Confidence, Scope};
use crate::time::{Span, Time};

/// A verdict whose scope is open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unsettled {
    pub(super) address: IpAddr,
    pub(super) key: Key,
    pub(super) at: Time,
    pub(super) silent: Span,
    pub(super) asked: Span,
    /// The deadline for evidence from siblings.
    pub(super) until: Time,
    /// A sibling was heard since the first unanswered probe, so the host is not lost as a whole.
    pub(super) alive: bool,
}

impl Outages {
    /// Opens the scope of a verdict, and asks for the state of `siblings`.
    pub(super) fn ask(
        &mut self,
        session: u64,
        unsettled: Unsettled,
        siblings: Option<[u64; SIBLINGS]>,
    ) {
        if self.unsettled.len() >= UNSETTLED {
            return;
        }
        let until = unsettled.until;
        if self.unsettled.insert(session, unsettled).is_none() {
            self.timers.insert((until, Timer::Unsettled(session)));
        }
        if let Some(siblings) = siblings {
            self.outputs.push_back(Output::AskSiblings { session, siblings });
        }
    }

    pub(super) fn siblings_answered(
        &mut self,
        now: Time,
        session: u64,
        (heard_ago, reached_ago): (Option<Span>, Option<Span>),
        suspect: bool,
    ) {
        let Some(unsettled) = self.unsettled.get_mut(&session) else {
            return;
        };
        let asked_from = unsettled.at - unsettled.asked;
        let meanwhile = |ago: Option<Span>| ago.is_some_and(|ago| now - ago > asked_from);
        if !meanwhile(heard_ago) {
            return;
        }
        unsettled.alive = true;
        // A later look may show a path that has healed since.
        let reached = meanwhile(reached_ago) && now <= unsettled.at + QUIET;
        let silent_from = unsettled.at - unsettled.silent;
        let (address, session_of) = (unsettled.address, session);
        if reached && !suspect && !self.hosts.was_suspect(address, session_of, silent_from) {
            self.settle(session, Scope::Flow);
        }
    }

    pub(super) fn settle(&mut self, session: u64, scope: Scope) {
        if let Some(unsettled) = self.unsettled.remove(&session) {
            self.timers.remove(&(unsettled.until, Timer::Unsettled(session)));
            let confidence = Confidence::High;
            self.outputs.push_back(Output::Scoped { session, scope, confidence });
        }
    }

    /// Settles a scope at its deadline, without a live sibling: by other verdicts of the host or
    /// the network.
    pub(super) fn settle_at_deadline(&mut self, session: u64) {
        let Some(unsettled) = self.unsettled.remove(&session) else {
            return;
        };
        if unsettled.alive {
            return;
        }
        let group = self.groups.get(&unsettled.key);
        let verdicts = group.map_or(0, |group| group.verdicts_on(unsettled.address));
        let (scope, confidence) = if group.is_some_and(Group::is_many) {
            (Scope::Many, Confidence::High)
        } else if verdicts > 1 && self.hosts.others(unsettled.address) > 0 {
            (Scope::Host, self.confidence_in_host(&unsettled))
        } else {
            (Scope::Unknown, Confidence::High)
        };
        self.outputs.push_back(Output::Scoped { session, scope, confidence });
    }

    /// Returns how sure it is that the host is lost, and not the way to it. Hosts of other networks
    /// may be reached by another next hop, so only a host of its own network shows that the way is
    /// open: one that is online while no other of the network is in doubt or has fallen.
    fn confidence_in_host(&self, unsettled: &Unsettled) -> Confidence {
        let Key::Network { network, listener } = unsettled.key else {
            return Confidence::Medium;
        };
        let neighbours = self.hosts.neighbours((listener, network), unsettled.address);
        let alone = self.groups.get(&unsettled.key).is_some_and(|group| group.hosts() == 1);
        if neighbours > 0 && alone && !self.suspects.any_in(unsettled.key) {
            Confidence::High
        } else {
            Confidence::Medium
        }
    }
}
