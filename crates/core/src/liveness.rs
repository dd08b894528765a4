//! The liveness of one link: silence in; probes, suspicion and the verdict out.
//!
//! Two clocks decide. `last_heard`, the last evidence of the peer, alone decides suspicion and
//! death: sending to a dead peer never keeps it alive. The later of `last_heard` and `last_sent`
//! decides whether a keepalive is due. Hearing from a peer is a store; whoever keeps the deadlines
//! asks for the next one only when the last one fires (see [`crate::wheel`]).

mod outstanding;
mod signal;
mod steering;

pub use outstanding::OUTSTANDING;
pub use signal::{Deadline, Evidence, Input, Output, Reason, Silence};

use crate::policy::{Detection, Policy};
use crate::time::{Span, Time};

/// The least time a probe may be out before its sender grows suspicious, unless `interval` is less.
/// One second forgives one retransmission on nearly every path.
pub const LEAST_SUSPICION: Span = Span::from_secs(1);

/// Unanswered heartbeats beyond which counting stops: sequence numbers are compared modulo 256.
const MAX_UNCONFIRMED: u8 = 127;

/// Whether this end asks, or only listens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Sends probes into silence, and judges.
    Probe,
    /// Sends no probes, and judges all the same: the peer is expected to speak.
    Watch,
}

/// The liveness of one link.
#[derive(Clone, Debug)]
pub struct Liveness {
    last_heard: Time,
    last_sent: Time,
    /// Where silence counts from: `last_heard`, unless a hold or a retune moved it later.
    silent_since: Time,
    /// When the latest heartbeat left.
    beat_sent: Time,
    state: State,
    smoothed_rtt_us: u32,
    /// The sequence number of the latest heartbeat sent.
    sequence: u8,
    /// How many of the latest heartbeats no pong has confirmed.
    unconfirmed: u8,
    role: Role,
    pending: Pending,
}

const _: () = assert!(size_of::<Liveness>() <= 64);

#[derive(Clone, Copy, Debug)]
enum State {
    /// The handshake is not complete.
    Greeting { until: Time },
    /// The peer was heard recently. The first probe of a link goes out `lead_ms` before `idle`.
    /// What we sent since is looked after from `looked` on.
    Listening { lead_ms: u32, looked: u32 },
    /// Silence: `sent` probes are out, the first since `since`.
    Probing { sent: u8, suspect: bool, since: Time },
    /// The bound has passed, and the verdict was put off.
    Kept { sent: u8, asked: bool, until: Time },
    /// The bound has passed, unenforced.
    Overdue { sent: u8, due: Time },
    /// The peer has closed its side.
    HalfClosed { until: Time },
    /// Given up.
    Dead { sent: u8, in_handshake: bool, due: Time },
}

/// Outputs not yet taken, a bit each, polled in this order.
#[derive(Clone, Copy, Debug)]
struct Pending(u8);

impl Pending {
    const ROUND_TRIP: u8 = 1;
    const RECOVERED: u8 = 2;
    const SUSPECT: u8 = 4;
    const OVERDUE: u8 = 8;
    const DEAD: u8 = 16;
    const PROBE: u8 = 32;
    const KEEPALIVE: u8 = 64;
    const EXAMINE: u8 = 128;

    fn take(&mut self, bit: u8) -> bool {
        let set = self.0 & bit != 0;
        self.0 &= !bit;
        set
    }
}

impl Liveness {
    /// A link that was opened at `now`; unless it is introduced before `greeting` has passed, the
    /// verdict falls then.
    pub const fn new(now: Time, role: Role, greeting: Span) -> Liveness {
        Liveness {
            last_heard: now,
            last_sent: now,
            silent_since: now,
            beat_sent: now,
            state: State::Greeting {
                until: Time::from_nanos(now.as_nanos().saturating_add(greeting.as_nanos())),
            },
            smoothed_rtt_us: 0,
            sequence: 0,
            unconfirmed: 0,
            role,
            pending: Pending(0),
        }
    }

    /// The door in. `policy` is the one in force; times never run backwards by intent, and do no
    /// harm if they do.
    #[inline]
    pub fn handle(&mut self, now: Time, input: Input, policy: &Policy) {
        match input {
            Input::Heard(evidence) => self.hear(now, evidence),
            Input::Sent => self.send(now),
            Input::Introduced { .. }
            | Input::Deadline
            | Input::Retuned { .. }
            | Input::Hold { .. }
            | Input::Keep { .. }
            | Input::HalfClosed { .. }
            | Input::Release => self.handle_rare(now, input, policy),
        }
    }

    /// The door out: call until `None` after each input.
    #[inline]
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.pending.0 == 0 {
            return None;
        }
        self.poll_pending()
    }

    /// When to call with [`Input::Deadline`] unless something changes before; `None` if no time
    /// matters. Hearing and sending only move it later, with three exceptions: evidence that ends a
    /// doubt, for a watcher a round trip shorter than those before, and the first thing sent since
    /// the peer was heard.
    pub fn next_deadline(&self, policy: &Policy) -> Option<Deadline> {
        let earliest = |a: Option<Deadline>, b: Option<Deadline>| match (a, b) {
            (Some(a), Some(b)) => Some(if b.at < a.at { b } else { a }),
            (a, b) => a.or(b),
        };
        match self.state {
            State::Greeting { until } => Some(Deadline { at: until, reason: Reason::Handshake }),
            State::Listening { .. } => {
                let beat =
                    earliest(self.detection_deadline(policy), self.keepalive_deadline(policy));
                earliest(beat, self.examine_deadline())
            }
            State::Probing { .. } => self.detection_deadline(policy),
            State::Kept { until, asked, .. } => Some(self.kept_deadline(until, asked, policy)),
            State::HalfClosed { until } => Some(Deadline { at: until, reason: Reason::HalfClose }),
            State::Overdue { .. } | State::Dead { .. } => None,
        }
    }

    /// The last evidence of the peer; the opening of the link if there was none.
    pub const fn last_heard(&self) -> Time {
        self.last_heard
    }

    /// When we last sent anything; the opening of the link if never.
    pub const fn last_sent(&self) -> Time {
        self.last_sent
    }

    /// The smoothed round-trip time (RFC 6298, gain 1/8); `None` before the first measurement.
    pub const fn smoothed_rtt(&self) -> Option<Span> {
        match self.smoothed_rtt_us {
            0 => None,
            micros => Some(Span::from_micros(micros as u64)),
        }
    }

    /// Whether the peer is suspected, or overdue.
    pub const fn is_suspect(&self) -> bool {
        matches!(
            self.state,
            State::Probing { suspect: true, .. } | State::Kept { .. } | State::Overdue { .. }
        )
    }

    /// Whether a probe is out, or the peer is suspected or overdue.
    pub const fn is_in_doubt(&self) -> bool {
        matches!(self.state, State::Probing { .. } | State::Kept { .. } | State::Overdue { .. })
    }

    /// Whether the verdict has fallen.
    pub const fn is_dead(&self) -> bool {
        matches!(self.state, State::Dead { .. })
    }

    /// The end of a hold, if one was set since the last evidence; it may be past.
    pub fn held_until(&self) -> Option<Time> {
        (self.silent_since > self.last_heard).then_some(self.silent_since)
    }

    fn poll_pending(&mut self) -> Option<Output> {
        if self.pending.take(Pending::ROUND_TRIP) {
            let rtt = self.last_heard.since(self.beat_sent);
            return Some(Output::RoundTrip(rtt));
        }
        if self.pending.take(Pending::RECOVERED) {
            return Some(Output::Recovered);
        }
        if self.pending.take(Pending::SUSPECT) {
            return Some(Output::Suspect);
        }
        if self.pending.take(Pending::OVERDUE) {
            return self.silence().map(Output::Overdue);
        }
        if self.pending.take(Pending::DEAD) {
            return self.silence().map(Output::Dead);
        }
        if self.pending.take(Pending::PROBE) {
            let number = match self.state {
                State::Probing { sent, .. } | State::Kept { sent, .. } => sent,
                State::Greeting { .. }
                | State::Listening { .. }
                | State::Overdue { .. }
                | State::HalfClosed { .. }
                | State::Dead { .. } => 0,
            };
            return Some(Output::Probe { sequence: self.sequence, number });
        }
        if self.pending.take(Pending::KEEPALIVE) {
            let sequence = self.sequence;
            let closed = matches!(self.state, State::HalfClosed { .. });
            return Some(match closed {
                true => Output::Confirm { sequence },
                false => Output::Keepalive { sequence },
            });
        }
        if self.pending.take(Pending::EXAMINE) {
            return Some(Output::Examine);
        }
        None
    }

    fn silence(&self) -> Option<Silence> {
        let (due, probes, in_handshake) = match self.state {
            State::Overdue { due, sent } => (due, sent, false),
            State::Dead { due, sent, in_handshake } => (due, sent, in_handshake),
            State::Greeting { .. }
            | State::Listening { .. }
            | State::Probing { .. }
            | State::HalfClosed { .. }
            | State::Kept { .. } => {
                return None;
            }
        };
        Some(Silence { due, last_heard: self.last_heard, probes, in_handshake })
    }

    #[inline]
    fn hear(&mut self, now: Time, evidence: Evidence) {
        if !matches!(self.state, State::Listening { .. }) && !self.believe(evidence) {
            return;
        }
        self.last_heard = self.last_heard.max(now);
        self.silent_since = self.silent_since.max(now);
        if let Evidence::Pong { sequence } = evidence {
            self.confirm(now, sequence);
        }
    }

    /// Whether evidence still counts; if so, suspicion is over. Kept apart, so that hearing from a
    /// peer that nobody doubts is a comparison and two stores.
    #[cold]
    fn believe(&mut self, evidence: Evidence) -> bool {
        if let State::Dead { in_handshake, .. } = self.state
            && (in_handshake || evidence != Evidence::Progress)
        {
            return false;
        }
        self.trust();
        true
    }

    /// Leaves suspicion, if there was any.
    fn trust(&mut self) {
        if let State::Greeting { .. } | State::Listening { .. } | State::HalfClosed { .. } =
            self.state
        {
            return;
        }
        if (self.is_suspect() || self.is_dead()) && !self.pending.take(Pending::SUSPECT) {
            self.pending.0 |= Pending::RECOVERED;
        }
        self.state = State::Listening { lead_ms: 0, looked: 0 };
    }

    /// A round trip is measured only where the pong can belong to one heartbeat alone: the latest,
    /// by its number, or the only one outstanding.
    fn confirm(&mut self, now: Time, sequence: Option<u8>) {
        let behind = match sequence {
            Some(sequence) => self.sequence.wrapping_sub(sequence),
            None => self.unconfirmed.saturating_sub(1),
        };
        if behind >= self.unconfirmed {
            return;
        }
        self.unconfirmed = behind;
        if behind == 0 {
            let rtt_us = now.since(self.beat_sent).as_micros();
            let rtt_us = u32::try_from(rtt_us).unwrap_or(u32::MAX).max(1);
            self.smoothed_rtt_us = match self.smoothed_rtt_us {
                0 => rtt_us,
                old => {
                    let sum = u64::from(old) * 7 + u64::from(rtt_us);
                    u32::try_from(sum / 8).unwrap_or(u32::MAX).max(1)
                }
            };
            self.pending.0 |= Pending::ROUND_TRIP;
        }
    }

    fn introduce(&mut self, now: Time, seed: u32, policy: &Policy) {
        if let State::Greeting { .. } = self.state {
            self.last_heard = self.last_heard.max(now);
            self.silent_since = self.silent_since.max(now);
            self.state = State::Listening { lead_ms: steering::lead_ms(policy, seed), looked: 0 };
        }
    }

    fn expire(&mut self, now: Time, policy: &Policy) {
        match self.state {
            State::Greeting { until } => {
                if now >= until {
                    self.state = State::Dead { due: until, sent: 0, in_handshake: true };
                    self.pending.0 |= Pending::DEAD;
                }
            }
            State::Listening { lead_ms, .. } => {
                let keepalive = self.keepalive_deadline(policy);
                let look = self.examine_deadline();
                self.judge(now, policy, Doubt { lead_ms, ..Doubt::NONE });
                let quiet = matches!(self.state, State::Listening { .. });
                if quiet && keepalive.is_some_and(|keepalive| now >= keepalive.at) {
                    self.beat(now);
                    self.pending.0 |= Pending::KEEPALIVE;
                }
                if quiet && look.is_some_and(|look| now >= look.at) {
                    self.schedule_examination(now);
                    self.pending.0 |= Pending::EXAMINE;
                }
            }
            State::Probing { since, sent, suspect } => {
                self.judge(now, policy, Doubt { lead_ms: 0, since: Some(since), sent, suspect });
            }
            State::Kept { until, sent, asked } => {
                let ask = self.kept_deadline(until, asked, policy);
                if now < until && now >= ask.at {
                    self.ask_once_more(now, until, sent);
                }
                self.give_up_at(now, until, sent);
            }
            State::HalfClosed { until } => self.give_up_at(now, until, 0),
            State::Overdue { .. } | State::Dead { .. } => {}
        }
    }

    fn give_up_at(&mut self, now: Time, until: Time, sent: u8) {
        if now >= until {
            self.state = State::Dead { due: until, sent, in_handshake: false };
            self.pending.0 |= Pending::DEAD;
        }
    }

    /// Verdict, suspicion and probe, in this order: a probe that leaves now is not yet suspicious.
    fn judge(&mut self, now: Time, policy: &Policy, mut doubt: Doubt) {
        let Detection::Bounded { idle, interval, probes } = policy.detection() else {
            return;
        };
        let due = self.silent_since + idle + interval.times(u64::from(probes));
        if now >= due {
            let sent = doubt.sent;
            if policy.enforce() {
                self.state = State::Dead { due, sent, in_handshake: false };
                self.pending.0 |= Pending::DEAD;
            } else {
                self.state = State::Overdue { due, sent };
                self.pending.0 |= Pending::OVERDUE;
            }
            return;
        }
        if !doubt.suspect && self.suspicion_at(doubt, idle, interval).is_some_and(|at| now >= at) {
            doubt.suspect = true;
            doubt.since = doubt.since.or(Some(self.silent_since + idle));
            self.pending.0 |= Pending::SUSPECT;
        }
        if self.probe_at(doubt, idle, interval, probes).is_some_and(|at| now >= at) {
            doubt.sent = doubt.sent.saturating_add(1).max(self.scheduled(now, idle, interval));
            doubt.sent = doubt.sent.min(probes);
            doubt.since = doubt.since.or(Some(now));
            self.beat(now);
            self.pending.0 |= Pending::PROBE;
        }
        if let Some(since) = doubt.since {
            let Doubt { sent, suspect, .. } = doubt;
            self.state = State::Probing { since, sent, suspect };
        }
    }

    /// How many probes the schedule holds up to `now`: late callers skip, they do not catch up.
    fn scheduled(&self, now: Time, idle: Span, interval: Span) -> u8 {
        let first = self.silent_since + idle;
        if now < first {
            return 0;
        }
        let further = now.since(first).as_nanos() / interval.as_nanos().max(1);
        u8::try_from(further.saturating_add(1)).unwrap_or(u8::MAX)
    }

    fn probe_at(&self, doubt: Doubt, idle: Span, interval: Span, probes: u8) -> Option<Time> {
        if self.role == Role::Watch || doubt.sent >= probes {
            return None;
        }
        let scheduled = self.silent_since + idle + interval.times(u64::from(doubt.sent));
        Some(scheduled - Span::from_millis(u64::from(doubt.lead_ms)))
    }

    fn suspicion_at(&self, doubt: Doubt, idle: Span, interval: Span) -> Option<Time> {
        let rtt = Span::from_micros(u64::from(self.smoothed_rtt_us));
        let patience = rtt.times(4).max(LEAST_SUSPICION).min(interval);
        match (doubt.since, self.role) {
            (_, _) if doubt.suspect => None,
            (Some(since), _) => Some(since + patience),
            (None, Role::Probe) => None,
            (None, Role::Watch) => Some(self.silent_since + idle + patience),
        }
    }

    fn detection_deadline(&self, policy: &Policy) -> Option<Deadline> {
        let Detection::Bounded { idle, interval, probes } = policy.detection() else {
            return None;
        };
        let doubt = match self.state {
            State::Listening { lead_ms, .. } => Doubt { lead_ms, ..Doubt::NONE },
            State::Probing { since, sent, suspect } => {
                Doubt { lead_ms: 0, since: Some(since), sent, suspect }
            }
            State::Greeting { .. }
            | State::Kept { .. }
            | State::Overdue { .. }
            | State::HalfClosed { .. }
            | State::Dead { .. } => return None,
        };
        let due = self.silent_since + idle + interval.times(u64::from(probes));
        let mut next = Deadline { at: due, reason: Reason::Verdict };
        if let Some(at) = self.suspicion_at(doubt, idle, interval).filter(|at| *at < next.at) {
            next = Deadline { at, reason: Reason::Suspicion };
        }
        if let Some(at) = self.probe_at(doubt, idle, interval, probes).filter(|at| *at < next.at) {
            next = Deadline { at, reason: Reason::Probe };
        }
        Some(next)
    }

    fn keepalive_deadline(&self, policy: &Policy) -> Option<Deadline> {
        let keepalive = policy.keepalive()?;
        let at = self.last_heard.max(self.last_sent) + keepalive;
        Some(Deadline { at, reason: Reason::Keepalive })
    }

    fn beat(&mut self, now: Time) {
        self.sequence = self.sequence.wrapping_add(1);
        self.unconfirmed = self.unconfirmed.saturating_add(1).min(MAX_UNCONFIRMED);
        self.beat_sent = now;
        self.send(now);
    }
}

/// What is in doubt about a silent peer.
#[derive(Clone, Copy)]
struct Doubt {
    lead_ms: u32,
    since: Option<Time>,
    sent: u8,
    suspect: bool,
}

impl Doubt {
    const NONE: Doubt = Doubt { lead_ms: 0, since: None, sent: 0, suspect: false };
}

#[cfg(test)]
mod tests;
