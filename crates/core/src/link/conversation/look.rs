//! Looks at the socket for the kernel's figures of the round trip: the cap of the retransmission
//! timeout follows them, and the round trip by which silence is judged.
//!
//! A link is looked at once when it is established, whenever an examination is made for another
//! reason, at the end of each suspicion, and when a round trip does not suit the cap in force.

use super::{Conversation, Stage};
use crate::kernel::{Cap, TcpSnapshot};
use crate::link::outbound::Writer;
use crate::link::peer::{Context, Effect};
use crate::liveness::{self, Role};
use crate::plain::{Damage, Plain, Sink, Source, plain_enum};
use crate::time::{Span, Time};
use crate::wire::Codec;

/// The kernel's figure of the round trip, as far as the link needs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Figure {
    /// Not needed.
    Known,
    /// Needed, and not requested yet.
    Wanted,
    /// Needed, and not requested yet, because a suspicion has ended.
    Recovered,
    /// Requested: the next examination shows it.
    Asked,
}

plain_enum! { Figure {
    0 => Known {}
    1 => Wanted {}
    2 => Asked {}
    3 => Recovered {}
} }

impl Conversation {
    /// Requests the examination of a link that was just established. The cap follows its figures;
    /// an end that sends probes measures its round trip by them, because the kernel has only the
    /// handshake, which may have waited for a neighbour's address.
    pub(super) fn ask_first_figure(&mut self, context: &Context<'_>, out: &mut Writer<'_>) {
        match context.settings.role {
            Role::Watch => self.ask_figure(context, out),
            Role::Probe if context.settings.examines => out.examine_socket(),
            Role::Probe => {}
        }
    }

    /// Requests an examination for the kernel's figures.
    pub(super) fn ask_figure(&mut self, context: &Context<'_>, out: &mut Writer<'_>) {
        self.figure = Figure::Known;
        if context.settings.examines {
            self.figure = Figure::Asked;
            out.examine_socket();
        }
    }

    /// Requests an examination if the kernel's figures are needed.
    #[inline]
    pub(in crate::link) fn ask_wanted_figure(
        &mut self,
        now: Time,
        context: &Context<'_>,
        out: &mut Writer<'_>,
    ) {
        match self.figure {
            Figure::Known | Figure::Asked => {}
            Figure::Wanted => self.ask_figure(context, out),
            Figure::Recovered => {
                if self.in_force.cap() > Cap::LEAST {
                    // The evidence that ended the suspicion has its timer armed anew.
                    let _ = self.check_raised_cap(now, context, out);
                }
                self.ask_figure(context, out);
            }
        }
    }

    /// Records that PING `sequence` was sent. One at a time is timed, as RFC 6298, section 3, does:
    /// where the round trip is longer than an interval, no pong answers the latest one.
    #[inline]
    pub(super) fn note_ping(&mut self, now: Time, sequence: u8) {
        self.outstanding.sent_ping(now);
        if self.timed == Sent::NEVER && self.codec == Codec::Native {
            (self.timed, self.timed_sequence) = (Sent::at(now), sequence);
        }
    }

    /// Handles the PONG to PING `sequence`, before the liveness machine hears it.
    #[inline]
    pub(super) fn note_pong(&mut self, now: Time, sequence: u8) {
        let behind = |other: u8| self.liveness.sequence().wrapping_sub(other);
        if let Some(age) = self.timed.age(now)
            && behind(sequence) <= behind(self.timed_sequence)
        {
            (self.answered, self.timed) = (self.timed, Sent::NEVER);
            self.compare_with_cap(age);
        }
    }

    /// Records the round trip of the latest heartbeat.
    #[inline]
    pub(super) fn note_answer(&mut self, now: Time, rtt: Span) {
        self.answered = Sent::at(now - rtt);
        self.compare_with_cap(rtt);
    }

    /// Wants the kernel's figures if a round trip does not suit the cap: more than half of it, or
    /// less than a third of a raised one. Where there is no cap each pong is worth a look. The
    /// pong alone proves nothing, because after an outage it measures the outage.
    #[inline]
    pub(super) fn compare_with_cap(&mut self, rtt: Span) {
        let cap = self.in_force.cap();
        let is_raised_for_less = cap != Cap::LEAST && rtt.times(3) < cap.span();
        let unsuited = cap == Cap::NONE || rtt.times(2) > cap.span() || is_raised_for_less;
        if unsuited && self.figure != Figure::Recovered {
            self.figure = Figure::Wanted;
        }
    }

    /// Returns the time within which an acknowledgement is expected; `None` if the kernel has
    /// measured nothing, or has waited longer than that: its figure tells nothing of this wait. The
    /// figure remembers an outage where a segment arrived and its acknowledgement was lost; a quick
    /// pong refutes it.
    fn expected_ack(&self, now: Time, tcp: &TcpSnapshot) -> Option<Span> {
        let figure = tcp.expected_ack()?;
        let longest = self.answered.longest_ack(now, tcp.last_ack);
        let expected = longest.map_or(figure, |longest| longest.min(figure));
        (tcp.unacked == 0 || tcp.last_ack <= expected).then_some(expected)
    }

    /// Returns the cap that suits the kernel's figures; the cap in force where there are none.
    /// While the kernel measures nothing, only a pong lowers a raised cap.
    pub(super) fn suitable_cap(&mut self, now: Time, tcp: &TcpSnapshot) -> Cap {
        let cap = self.in_force.cap();
        let are_wrong = self.blind.see(tcp);
        let suited_to = |ack: Span| Cap::at_least(ack.times(2));
        if are_wrong || is_blind(tcp) && cap != Cap::LEAST {
            let longest = self.answered.longest_ack(now, tcp.last_ack);
            let bound = longest.map_or(Cap::NONE, suited_to);
            return if are_wrong { bound } else { bound.min(cap) };
        }
        self.expected_ack(now, tcp).map_or(cap, suited_to)
    }

    /// Sends a heartbeat because the cap was just raised, or is raised as a suspicion ends: if the
    /// kernel's figure remembers an outage that is over, its pong refutes the figure before the
    /// next outage. Only where this end may send probes, and none is out.
    pub(super) fn check_raised_cap(
        &mut self,
        now: Time,
        context: &Context<'_>,
        out: &mut Writer<'_>,
    ) -> Effect {
        let probes = context.settings.role == Role::Probe;
        match probes && self.stage == Stage::Established && !self.liveness.is_in_doubt() {
            true => self.command_heartbeat(now, context, out),
            false => Effect::None,
        }
    }

    /// Replaces the round trip of the liveness machine by the kernel's figure, where the link needs
    /// it: after a suspicion, at an end that sends no probes, and when it was requested. Any other
    /// figure only lengthens a round trip that was measured: with several probes out, pongs rarely
    /// answer the latest. Returns whether that changed the round trip.
    pub(super) fn note_round_trip(
        &mut self,
        now: Time,
        tcp: &TcpSnapshot,
        context: &Context<'_>,
        out: &mut Writer<'_>,
    ) -> bool {
        let needed = core::mem::replace(&mut self.figure, Figure::Known) != Figure::Known;
        let watches = context.settings.role == Role::Watch;
        let before = self.liveness.rtt();
        // Where the kernel measures nothing, only the answers can show a longer round trip, until
        // it measures again.
        let figure = match is_blind(tcp) {
            true => self.liveness.latest_answer().max(before),
            false => tcp.expected_ack(),
        };
        if needed && is_blind(tcp) {
            self.figure = Figure::Wanted;
        }
        if !is_blind(tcp) && figure.is_some() {
            // An earlier answer may have measured an outage, and tells nothing of a later silence.
            self.liveness.forget_answer();
        }
        let replaces = needed || watches || self.liveness.is_suspect();
        if let Some(rtt) = figure
            && (replaces || before.is_some() && figure > before)
        {
            self.liveness.handle(now, liveness::Input::KernelRoundTrip(rtt), &self.policy);
            self.follow_round_trip(out);
        }
        self.liveness.rtt() != before
    }
}

/// When a heartbeat was sent, in milliseconds modulo 2^32, rounded down; 0 for none. After 50 days
/// without a pong the cap may be too low, until the next look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sent(u32);

impl Sent {
    pub(super) const NEVER: Sent = Sent(0);

    fn at(sent: Time) -> Sent {
        Sent((sent.as_millis() as u32).max(1))
    }

    /// Returns the longest time that an acknowledgement can have taken since the pong to this
    /// heartbeat; the kernel had its last one `last_ack` ago. `None` before the first pong.
    ///
    /// A pong carries the acknowledgement of its heartbeat, and of all that was sent before. So
    /// what was acknowledged later was sent after that heartbeat.
    fn longest_ack(self, now: Time, last_ack: Span) -> Option<Span> {
        Some(self.age(now)?.less(last_ack).max(Span::from_millis(1)))
    }

    fn age(self, now: Time) -> Option<Span> {
        let age = (now.as_millis() as u32).wrapping_sub(self.0);
        (self != Self::NEVER).then(|| Span::from_millis(u64::from(age)))
    }
}

/// In a saved state: the age in milliseconds, modulo 2^32 too.
impl Plain<'_> for Sent {
    fn put(&self, out: &mut Sink<'_>) {
        let age = self.age(out.origin()).map(|age| age.as_millis() as u32);
        age.put(out);
    }

    fn take(from: &mut Source<'_>) -> Result<Sent, Damage> {
        let age: Option<u32> = Plain::take(from)?;
        let now = from.origin().as_millis() as u32;
        Ok(age.map_or(Self::NEVER, |age| Sent(now.wrapping_sub(age).max(1))))
    }
}

/// Returns whether the kernel measures no round trip: without timestamps it measures none of what
/// it has retransmitted, and keeps the doubled timeout until it has measured again.
fn is_blind(tcp: &TcpSnapshot) -> bool {
    !tcp.timestamps && tcp.backoff > 0
}
