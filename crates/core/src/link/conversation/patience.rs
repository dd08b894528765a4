//! The kernel's patience: how long the kernel must not give up the connection. A link emits it when
//! it changes.

use super::{Conversation, Stage};
use crate::cause::{Cause, Confidence};
use crate::diagnosis::Ground;
use crate::grounds::Grounds;
use crate::kernel::{Examination, Patience, SendState, TcpSnapshot};
use crate::link::outbound::Writer;
use crate::link::outstanding::OUTSTANDING;
use crate::session;
use crate::time::{Span, Time};

impl Conversation {
    /// Emits the patience that the link needs, if another one is in force. Called after a change of
    /// the policy, a hold or a keep; has no effect before the handshake is complete.
    pub(super) fn update_patience(&mut self, out: &mut Writer<'_>) {
        if !self.is_established() {
            return;
        }
        let outage = self.outage();
        let send = self.in_force.get().send();
        let ordinary = Patience::of(&self.policy).outage();
        let patience = Patience::new(outage, send).with_cap(self.in_force.cap());
        if self.in_force.set(patience, patience.outage() != ordinary) {
            out.patience(patience);
        }
    }

    /// Returns whether evidence may shorten the patience in force.
    #[inline]
    pub(in crate::link) fn is_patience_extended(&self) -> bool {
        self.in_force.is_extended()
    }

    /// Emits the shorter patience that the link needs after evidence. During a hold the patience
    /// stays in force, although evidence makes it longer than needed.
    pub(in crate::link) fn restore_patience(&mut self, out: &mut Writer<'_>) {
        if self.liveness.held_until().is_none() {
            self.update_patience(out);
        }
    }

    /// Emits a longer patience if the round trip stretches the bound, or a late first probe does. A
    /// shorter one follows with the next evidence.
    #[inline]
    pub(super) fn follow_round_trip(&mut self, out: &mut Writer<'_>) {
        if self.liveness.longest_silence(&self.policy) > self.policy.bound() {
            self.update_patience(out);
        }
    }

    /// Emits the patience of a link that has ended, and whose last bytes the kernel still delivers.
    pub(super) fn leave(&mut self, out: &mut Writer<'_>) {
        let cap = self.in_force.cap();
        out.patience(Patience::new(None, SendState::Leaving).with_cap(cap));
    }

    /// Records what an examination shows of our bytes in the kernel. Emits
    /// [`session::Event::Warned`] if the peer is not in doubt, and two examinations in a row show
    /// bytes behind its closed window.
    pub(super) fn note_send_state(
        &mut self,
        now: Time,
        examination: &Examination,
        out: &mut Writer<'_>,
    ) {
        let retransmits = examination.tcp.is_some_and(|tcp| tcp.retransmits > 0);
        self.outstanding.examined(now, examination.is_all_acknowledged(), retransmits);
        let Some(tcp) = &examination.tcp else {
            return;
        };
        let outage = self.in_force.get().outage();
        let patience = Patience::new(outage, self.send_state(examination, tcp));
        let patience = patience.with_cap(self.suitable_cap(now, tcp));
        if self.in_force.set(patience, self.in_force.is_extended()) {
            out.patience(patience);
        }
        let doubted = self.liveness.is_in_doubt() || self.liveness.is_dead();
        let near = self.first_examination().is_some_and(|at| now >= at);
        let trusted = self.stage == Stage::Established && !doubted && !near;
        if !tcp.is_window_closed() {
            self.in_force.window_opened();
        } else if trusted && self.in_force.is_choked(waits(tcp), tcp.last_sent >= OUTSTANDING) {
            self.record_examination(now, examination);
            let grounds = [Ground::WindowClosed, Ground::BytesWaiting];
            out.session(session::Event::Warned {
                cause: Cause::NotReading,
                confidence: Confidence::High,
                grounds: Grounds::of(&grounds),
            });
        }
    }

    /// Returns the state of the sending side. A window that was closed and opens may close again
    /// before the next examination, while the kernel counts from its first probe: only once all is
    /// acknowledged is that over.
    fn send_state(&self, examination: &Examination, tcp: &TcpSnapshot) -> SendState {
        let was_closed = self.in_force.get().send() == SendState::Closed;
        if was_closed && !examination.is_all_acknowledged() {
            return SendState::Closed;
        }
        SendState::of(tcp)
    }

    /// Returns the longest silence that the link survives, from the last evidence to the verdict.
    fn outage(&self) -> Option<Span> {
        let longest = self.liveness.longest_silence(&self.policy);
        let longest = longest.filter(|_| self.policy.enforce())?;
        let heard = self.liveness.last_heard();
        let due = self.liveness.silent_since().max(heard) + longest;
        let end = self.kept_until().map_or(due, |until| until.max(due));
        Some(end.since(heard))
    }
}

/// Returns whether bytes wait in the kernel.
fn waits(tcp: &TcpSnapshot) -> bool {
    tcp.unacked > 0 || tcp.notsent.is_some_and(|bytes| bytes > 0)
}
