//! The liveness machine of one link: evidence and deadlines in; probes, suspicion and the verdict
//! out.
//!
//! A link has two clocks. `last_heard`, the time of the last evidence, alone decides suspicion and
//! the verdict: sending to a dead peer never keeps it alive. The later of `last_heard` and
//! `last_sent` decides whether a keepalive is due. Evidence costs a store and touches no timer: the
//! owner of the timers reads the next deadline only when the last one fires (see [`crate::wheel`]).

mod commands;
mod detection;
mod round_trip;
mod saved;
mod signal;

pub use signal::{Evidence, Input, Output, Silence};

use crate::machine::{Deadline, Reason};
use crate::policy::Policy;
use crate::time::{Span, Time};
use detection::{Lead, Probing};

/// The least time for which a probe is out before the peer is suspect; `interval` if that is less.
/// One second tolerates one retransmission on nearly every path.
const LEAST_SUSPICION: Span = Span::from_secs(1);

/// The largest count of unconfirmed heartbeats: sequence numbers are compared modulo 256.
const MAX_UNCONFIRMED: u8 = 127;

/// Whether this end of a link sends probes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// This end sends probes when the peer is silent, and gives a verdict at the bound.
    Probe,
    /// This end sends no probes, and gives a verdict at the same bound: the peer is expected to
    /// send.
    Watch,
}

crate::plain::plain_enum! { Role {
    0 => Probe {}
    1 => Watch {}
} }

/// The liveness machine of one link: decides when to probe the peer, suspect it and give it up.
#[derive(Clone, Debug)]
pub struct Liveness {
    last_heard: Time,
    last_sent: Time,
    /// The time from which silence counts: `last_heard`, unless a hold or a retune moved it later.
    silent_since: Time,
    /// When the latest heartbeat was sent.
    beat_sent: Time,
    state: State,
    /// The decaying maximum of the round trips, in microseconds; 0 before the first sample.
    rtt_us: u32,
    /// The time that the latest answer took, retransmissions included, in microseconds; 0 before
    /// the first.
    answer_us: u32,
    /// The sequence number of the latest heartbeat sent.
    sequence: u8,
    /// The number of latest heartbeats that no pong has confirmed.
    unconfirmed: u8,
    role: Role,
    pending: Pending,
    /// The share of the longest lead, in 256ths, by which this link's probes are sent early in all
    /// silences but the first.
    lead: u8,
    /// Whether the peer was suspect while the latest heartbeat was out: its pong may answer a
    /// retransmission, and gives no sample.
    ambiguous: bool,
    /// Whether the operator's hold has set `silent_since`, if that is later than the last evidence.
    held: bool,
    /// Whether a retune alone has set `silent_since`, if that is later than the last evidence. The
    /// next retune counts from the last evidence again.
    retuned: bool,
}

const _: () = assert!(size_of::<Liveness>() <= 64);

#[derive(Clone, Copy, Debug)]
enum State {
    /// The handshake is not complete.
    Handshake { until: Time },
    /// Evidence is recent. The first probe is sent by `lead` before `idle`.
    Listening { lead: Lead },
    /// The peer is silent, and `sent` probes are out, the first since `since`.
    Probing { sent: u8, suspect: bool, since: Time },
    /// The bound has passed, and the hung peer is kept until `until`. `probed` is whether its last
    /// probe was sent.
    Kept { sent: u8, probed: bool, until: Time },
    /// The bound has passed, unenforced. It was stretched by `stretch_ms` for a long round trip.
    Overdue { sent: u8, stretch_ms: u32, due: Time },
    /// The peer has closed its side. `overdue` is whether `until` has passed, unenforced.
    HalfClosed { overdue: bool, until: Time },
    /// The verdict has fallen. `suspect` is whether a suspicion was reported before it.
    Dead { sent: u8, in_handshake: bool, suspect: bool, stretch_ms: u32, due: Time },
}

/// What a silent peer had got by its verdict: the number of probes, and whether it was suspect.
#[derive(Clone, Copy, Default)]
struct Probed {
    sent: u8,
    suspect: bool,
}

/// The outputs that were not polled yet, one bit each, in the order in which they are polled.
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

    fn take(&mut self, bit: u8) -> bool {
        let set = self.0 & bit != 0;
        self.0 &= !bit;
        set
    }
}

impl Liveness {
    /// Creates the liveness of a link that was opened at `now`. Unless the handshake is complete
    /// within `handshake`, the verdict falls then.
    pub const fn new(now: Time, role: Role, handshake: Span) -> Liveness {
        Liveness {
            last_heard: now,
            last_sent: now,
            silent_since: now,
            beat_sent: now,
            state: State::Handshake {
                until: Time::from_nanos(now.as_nanos().saturating_add(handshake.as_nanos())),
            },
            rtt_us: 0,
            answer_us: 0,
            sequence: 0,
            unconfirmed: 0,
            role,
            pending: Pending(0),
            lead: 0,
            ambiguous: false,
            held: false,
            retuned: false,
        }
    }

    /// Handles one input at `now`. `policy` is the policy in force. A `now` earlier than the one
    /// before does no harm.
    #[inline]
    pub fn handle(&mut self, now: Time, input: Input, policy: &Policy) {
        match input {
            Input::Heard(evidence) => self.hear(now, evidence),
            Input::Sent => self.last_sent = self.last_sent.max(now),
            Input::Introduced { .. }
            | Input::Deadline
            | Input::Heartbeat
            | Input::Retuned { .. }
            | Input::Hold { .. }
            | Input::Keep { .. }
            | Input::HalfClosed { .. }
            | Input::KernelRoundTrip(_)
            | Input::Release => self.handle_other(now, input, policy),
        }
    }

    /// Returns the next output; call it until `None` after each input.
    #[inline]
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.pending.0 == 0 {
            return None;
        }
        self.poll_pending()
    }

    /// Returns when to call [`Liveness::handle`] with [`Input::Deadline`], or `None` if no time
    /// matters.
    ///
    /// Evidence and sending only move the deadline later, with two exceptions: evidence that ends a
    /// doubt, and for a watching end a shorter round trip.
    pub fn next_deadline(&self, policy: &Policy) -> Option<Deadline> {
        match self.state {
            State::Handshake { until } => Some(Deadline::exact(until, Reason::Handshake)),
            State::Listening { .. } => {
                Deadline::earlier(self.detection_deadline(policy), self.keepalive_deadline(policy))
            }
            State::Probing { .. } => self.detection_deadline(policy),
            State::Kept { until, probed, .. } => Some(self.kept_deadline(until, probed, policy)),
            State::HalfClosed { until, overdue: false } => {
                Some(Deadline::exact(self.half_close_end(until), Reason::HalfClose))
            }
            State::HalfClosed { overdue: true, .. }
            | State::Overdue { .. }
            | State::Dead { .. } => None,
        }
    }

    /// Returns the time of the last evidence, or of the opening of the link if there was none.
    pub const fn last_heard(&self) -> Time {
        self.last_heard
    }

    /// Returns the time of the last send, or of the opening of the link if there was none.
    pub(crate) const fn last_sent(&self) -> Time {
        self.last_sent
    }

    /// Returns whether the peer is suspect, kept or overdue.
    pub const fn is_suspect(&self) -> bool {
        matches!(
            self.state,
            State::Probing { suspect: true, .. } | State::Kept { .. } | State::Overdue { .. }
        )
    }

    /// Returns whether the end of the silence ends a suspicion that was reported.
    pub(crate) const fn was_suspect(&self) -> bool {
        self.is_suspect() || matches!(self.state, State::Dead { suspect: true, .. })
    }

    /// Returns whether a probe is out, or the peer is suspect, kept or overdue.
    pub(crate) const fn is_in_doubt(&self) -> bool {
        matches!(self.state, State::Probing { .. } | State::Kept { .. } | State::Overdue { .. })
    }

    /// Returns the sequence number of the latest heartbeat.
    pub(crate) const fn sequence(&self) -> u8 {
        self.sequence
    }

    /// Returns the number of probes that were sent in this silence.
    pub(crate) const fn probes_out(&self) -> u8 {
        match self.state {
            State::Probing { sent, .. }
            | State::Kept { sent, .. }
            | State::Overdue { sent, .. }
            | State::Dead { sent, .. } => sent,
            State::Handshake { .. } | State::Listening { .. } | State::HalfClosed { .. } => 0,
        }
    }

    /// Returns whether the bound has passed, and the peer is kept.
    pub(crate) const fn is_kept(&self) -> bool {
        matches!(self.state, State::Kept { .. })
    }

    /// Returns whether the verdict has fallen.
    pub const fn is_dead(&self) -> bool {
        matches!(self.state, State::Dead { .. })
    }

    /// Returns whether no heartbeat is without its pong.
    pub(crate) const fn is_confirmed(&self) -> bool {
        self.unconfirmed == 0
    }

    /// Returns the time from which the peer's silence counts: the last evidence, or a later time
    /// that a hold or a retune has set.
    pub(crate) const fn silent_since(&self) -> Time {
        self.silent_since
    }

    /// Returns the end of a hold that was set since the last evidence, if any; it may be past.
    pub(crate) fn held_until(&self) -> Option<Time> {
        (self.held && self.silent_since > self.last_heard).then_some(self.silent_since)
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
                State::Handshake { .. }
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
        None
    }

    fn silence(&self) -> Option<Silence> {
        let (due, probes, stretch_ms, in_handshake) = match self.state {
            State::Overdue { due, sent, stretch_ms } => (due, sent, stretch_ms, false),
            State::HalfClosed { until, overdue: true } => (until, 0, 0, false),
            State::Dead { due, sent, stretch_ms, in_handshake, .. } => {
                (due, sent, stretch_ms, in_handshake)
            }
            State::Handshake { .. }
            | State::Listening { .. }
            | State::Probing { .. }
            | State::HalfClosed { overdue: false, .. }
            | State::Kept { .. } => {
                return None;
            }
        };
        let stretch = Span::from_millis(u64::from(stretch_ms));
        Some(Silence { due, stretch, last_heard: self.last_heard, probes, in_handshake })
    }

    #[inline]
    fn hear(&mut self, now: Time, evidence: Evidence) {
        if !matches!(self.state, State::Listening { .. }) && !self.accept_evidence(now, evidence) {
            return;
        }
        self.last_heard = self.last_heard.max(now);
        self.silent_since = self.silent_since.max(now);
        if let Evidence::Pong { sequence } = evidence {
            self.confirm_heartbeats(now, sequence);
        }
    }

    /// Returns whether evidence still counts; if so, ends the suspicion. A cold function, so that
    /// evidence of a peer that is not in doubt costs a comparison and two stores.
    #[cold]
    fn accept_evidence(&mut self, now: Time, evidence: Evidence) -> bool {
        if let State::Dead { in_handshake, .. } = self.state
            && (in_handshake || evidence != Evidence::Progress)
        {
            return false;
        }
        if let State::Probing { since, suspect: true, .. } = self.state
            && evidence != Evidence::Progress
        {
            self.note_answer(now.since(since));
        }
        self.clear_suspicion();
        true
    }

    /// Returns to `Listening`, and reports the recovery if a suspicion was reported.
    fn clear_suspicion(&mut self) {
        if let State::Handshake { .. } | State::Listening { .. } | State::HalfClosed { .. } =
            self.state
        {
            return;
        }
        if self.was_suspect() && !self.pending.take(Pending::SUSPECT) {
            self.pending.0 |= Pending::RECOVERED;
        }
        self.state = State::Listening { lead: Lead::Own };
    }

    /// Confirms the heartbeats up to `sequence`. Measures the round trip only if the pong can
    /// answer one heartbeat alone: the latest, by its sequence number, or the only one unconfirmed.
    fn confirm_heartbeats(&mut self, now: Time, sequence: Option<u8>) {
        let behind = match sequence {
            Some(sequence) => self.sequence.wrapping_sub(sequence),
            None => self.unconfirmed.saturating_sub(1),
        };
        if behind >= self.unconfirmed {
            return;
        }
        self.unconfirmed = behind;
        if behind == 0 {
            self.note_answer(now.since(self.beat_sent));
            if !self.ambiguous {
                self.sample_round_trip(now.since(self.beat_sent));
            }
            self.pending.0 |= Pending::ROUND_TRIP;
        }
    }

    fn introduce(&mut self, now: Time, seed: u32, policy: &Policy) {
        if let State::Handshake { .. } = self.state {
            // The peer may have waited for its admission, and is no more silent for that.
            self.excuse_until(now);
            let [lead, ..] = seed.to_le_bytes();
            self.lead = lead;
            let lead = Lead::First(detection::first_lead_ms(policy, seed));
            self.state = State::Listening { lead };
        }
    }

    /// Lets silence count from `until` at the earliest.
    fn excuse_until(&mut self, until: Time) {
        self.retuned = false;
        self.silent_since = self.silent_since.max(until);
    }

    fn expire(&mut self, now: Time, policy: &Policy) {
        match self.state {
            State::Handshake { until } => {
                if now >= until {
                    self.state = State::Dead {
                        due: until,
                        sent: 0,
                        stretch_ms: 0,
                        in_handshake: true,
                        suspect: false,
                    };
                    self.pending.0 |= Pending::DEAD;
                }
            }
            State::Listening { lead } => {
                let keepalive = self.keepalive_deadline(policy);
                let lead = self.lead(lead, policy);
                self.advance_silence(now, policy, Probing { lead, ..Probing::NOT_STARTED });
                let quiet = matches!(self.state, State::Listening { .. });
                if quiet && keepalive.is_some_and(|keepalive| now + keepalive.slack >= keepalive.at)
                {
                    self.record_heartbeat(now);
                    self.pending.0 |= Pending::KEEPALIVE;
                }
            }
            State::Probing { since, sent, suspect } => {
                let lead = Span::ZERO;
                self.advance_silence(
                    now,
                    policy,
                    Probing { lead, since: Some(since), sent, suspect },
                );
            }
            State::Kept { until, sent, probed } => {
                let next = self.kept_deadline(until, probed, policy);
                if now < until && now >= next.at {
                    self.probe_kept(now, until, sent);
                }
                if now >= until {
                    self.end_at(until, Span::ZERO, Probed { sent, suspect: true }, policy);
                }
            }
            State::HalfClosed { until, overdue: false } => {
                let until = self.half_close_end(until);
                if now >= until && policy.enforce() {
                    self.end_at(until, Span::ZERO, Probed::default(), policy);
                } else if now >= until {
                    self.state = State::HalfClosed { until, overdue: true };
                    self.pending.0 |= Pending::OVERDUE;
                }
            }
            State::HalfClosed { overdue: true, .. }
            | State::Overdue { .. }
            | State::Dead { .. } => {}
        }
    }

    /// Lets the verdict fall that was due at `due`, `stretch` after the bound, or reports the peer
    /// as overdue if the policy is not enforced. Whoever is overdue is suspect, and is reported as
    /// suspect first.
    fn end_at(&mut self, due: Time, stretch: Span, probed: Probed, policy: &Policy) {
        let Probed { sent, suspect } = probed;
        let stretch_ms = u32::try_from(stretch.as_millis()).unwrap_or(u32::MAX);
        if policy.enforce() {
            self.state = State::Dead { due, sent, stretch_ms, in_handshake: false, suspect };
            self.pending.0 |= Pending::DEAD;
            return;
        }
        self.state = State::Overdue { due, sent, stretch_ms };
        self.ambiguous = true;
        self.pending.0 |= Pending::OVERDUE | if suspect { 0 } else { Pending::SUSPECT };
    }

    fn keepalive_deadline(&self, policy: &Policy) -> Option<Deadline> {
        let keepalive = policy.keepalive()?;
        let at = self.last_heard.max(self.last_sent) + keepalive;
        Some(Deadline { at, slack: policy.keepalive_slack(), reason: Reason::Keepalive })
    }

    /// Numbers a heartbeat that is sent now.
    fn record_heartbeat(&mut self, now: Time) {
        self.sequence = self.sequence.wrapping_add(1);
        self.unconfirmed = self.unconfirmed.saturating_add(1).min(MAX_UNCONFIRMED);
        self.beat_sent = now;
        self.ambiguous = self.is_suspect();
        self.last_sent = self.last_sent.max(now);
    }
}

#[cfg(test)]
mod tests;
