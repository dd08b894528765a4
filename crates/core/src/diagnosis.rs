//! Finds why a peer is silent, from two or more examinations of its socket.
//!
//! The diagnosis separates two kinds of evidence: bytes of the peer's application, and
//! acknowledgements, which the peer's kernel sends without the application. A peer is dead only if
//! both are stale. If only the application is stale, it hangs or does not read.
//!
//! [`diagnose`] is a table: its rows are tried from the top, and the first row that fits gives the
//! cause. A row that needs a field which the kernel does not report never fits, so missing data
//! leads to [`Cause::Unknown`] and never to a guess.

mod reset;
mod since;

pub use crate::grounds::{Ground, Grounds};
pub use reset::{DELAYED_ACK, Reset, diagnose_reset};

use since::Since;

use crate::cause::{Cause, Confidence, Direction, Scope};
use crate::kernel::{Examination, NextHop, SocketError, TcpSnapshot};
use crate::plain::plain_struct;
use crate::time::{Span, Time};

/// The least time for which an acknowledgement counts as fresh, for policies with short intervals.
pub const LEAST_FRESHNESS: Span = Span::from_secs(1);

/// The longest time from one retransmission of the peer to the next, under the least cap
/// (`TCP_RTO_MAX_MS`).
const RETRANSMISSION: Span = Span::from_secs(1);

/// The number of unanswered retransmissions of one segment that indicates a lost path. A single
/// loss is common, two in a row are rare.
const LOST_RETRANSMISSIONS: u8 = 2;

/// How many times as long as it was the round trip may take on a path that merely became slow: as
/// many as a suspicion waits for.
const SLOWER: u64 = 4;

/// The number of retransmissions that did not leave this machine which shows that the next hop is
/// silent, however many left before. One may be held back by our own full queue.
const HELD_BACK: u32 = 2;

/// The least time from a segment to its first retransmission on Linux; more if the round trip is
/// longer.
const LEAST_TIMEOUT: Span = Span::from_millis(200);

/// How many times that time a segment of the peer must be missing before its size may be the
/// reason: it is sent again three times meanwhile, each time after twice the time of before.
const MISSING: u64 = 1 + 2 + 4;

/// The number of examinations in a row that must show the same segment missing. Each follows a
/// probe of ours, and a lossy path loses one of them, or its acknowledgement.
const MISSING_LOOKS: u8 = 3;

/// The largest payload that every path must carry (RFC 9293, 3.7.1). A larger segment may be lost
/// because of its size.
const SMALL_SEGMENT: u64 = 536;

/// The examinations of a peer's socket since suspicion began, summarised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Doubts {
    first: TcpSnapshot,
    last: TcpSnapshot,
    first_at: Time,
    last_at: Time,
    seen: bool,
    /// The time from the examination that first showed a retransmission to the latest segment of
    /// the peer: its segments arrive, and ours do not, or late.
    heard_after_retransmission: Span,
    retransmitting: Since,
    /// The first segment of the peer that shows this.
    heard_at: Option<Time>,
    /// A segment of ours that left later had no answer within the round trip.
    unheard: bool,
    /// The peer acknowledged what it was sent before the first examination.
    acknowledged: Since,
    /// The same segment of the peer is missing before others, and none of ours was lost.
    missing: Since,
    /// The number of examinations in a row that have shown it.
    missing_looks: u8,
    /// The last error by which somebody reported the peer unreachable, unless an acknowledgement
    /// has refuted it since.
    error: Option<SocketError>,
    /// The count of acknowledged bytes that refutes the error: all that had left by the first
    /// snapshot after it.
    error_refuted_by: Option<u64>,
    local_down: bool,
    next_hop: Option<NextHop>,
}

/// A diagnosed cause with its confidence and grounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Diagnosis {
    /// The cause that fits the evidence.
    pub cause: Cause,
    /// How sure the cause is.
    pub confidence: Confidence,
    /// The findings that support the cause.
    pub grounds: Grounds,
}

/// The silence of one peer that [`diagnose`] explains: its length, and the probe interval.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    /// The time since the last bytes from the peer's application.
    pub lasted: Span,
    /// The policy's interval between two probes.
    pub interval: Span,
    /// Whether the bound has passed; it has not if the kernel gave up before.
    pub beyond_bound: bool,
    /// Whether a probe was sent in this silence.
    pub probed: bool,
}

plain_struct! { Doubts {
    first,
    last,
    first_at,
    last_at,
    seen,
    heard_after_retransmission,
    retransmitting,
    heard_at,
    unheard,
    acknowledged,
    missing,
    missing_looks,
    error,
    error_refuted_by,
    local_down,
    next_hop
} }

impl Doubts {
    /// Creates an empty summary; suspicion began at `now`.
    pub const fn new(now: Time) -> Doubts {
        const NOTHING: TcpSnapshot = TcpSnapshot {
            unacked: 0,
            sacked: 0,
            segment: 0,
            notsent: None,
            retransmits: 0,
            backoff: 0,
            probes: 0,
            last_ack: Span::ZERO,
            last_sent: Span::ZERO,
            rtt: Span::ZERO,
            rttvar: Span::ZERO,
            timestamps: false,
            total_retrans: 0,
            bytes_acked: None,
            bytes_sent: None,
            bytes_retrans: None,
            bytes_received: None,
            send_window: None,
            window_limited: None,
            gap: None,
        };
        Doubts {
            first: NOTHING,
            last: NOTHING,
            first_at: now,
            last_at: now,
            seen: false,
            heard_after_retransmission: Span::ZERO,
            retransmitting: Since::NEVER,
            heard_at: None,
            unheard: false,
            acknowledged: Since::NEVER,
            missing: Since::NEVER,
            missing_looks: 0,
            error: None,
            error_refuted_by: None,
            local_down: false,
            next_hop: None,
        }
    }

    /// Adds one examination. Returns how many bytes the peer's kernel acknowledged since the
    /// previous examination.
    pub fn see(&mut self, now: Time, examination: &Examination) -> u64 {
        if examination.error.is_some_and(SocketError::is_unreachable) {
            // The kernel's timeout may follow it, and does not explain it.
            (self.error, self.error_refuted_by) = (examination.error, None);
        }
        if let Some(local_down) = examination.local_down {
            (self.local_down, self.next_hop) = (local_down, examination.next_hop);
        }
        let Some(tcp) = examination.tcp else {
            return 0;
        };
        let before = if self.seen { self.last } else { tcp };
        if !self.seen {
            (self.first, self.first_at, self.seen) = (tcp, now, true);
        }
        self.refute_error(&tcp);
        let acknowledged = tcp.bytes_acked != before.bytes_acked;
        self.note_heard(now, &tcp, acknowledged);
        self.note_gap(now, &before, &tcp);
        (self.last, self.last_at) = (tcp, now);
        let acknowledged = tcp.is_all_acknowledged() || self.is_first_covered(0);
        self.acknowledged.note(now, acknowledged);
        tcp.bytes_acked.unwrap_or(0).saturating_sub(before.bytes_acked.unwrap_or(0))
    }

    /// Forgets the error if the peer's kernel has acknowledged the segment that it was about. The
    /// kernel passes on no error about a segment that was acknowledged before.
    fn refute_error(&mut self, tcp: &TcpSnapshot) {
        let Some(acked) = tcp.bytes_acked.filter(|_| self.error.is_some()) else {
            return;
        };
        let needed = self.error_refuted_by.or_else(|| tcp.acked_when_delivered());
        if tcp.unacked == 0 || self.error_refuted_by.is_some_and(|needed| acked >= needed) {
            self.error = None;
        }
        self.error_refuted_by = needed;
    }

    /// Notes whether the peer is heard although it acknowledges nothing. `acknowledged` is whether
    /// it has acknowledged something since the previous examination.
    fn note_heard(&mut self, now: Time, tcp: &TcpSnapshot, acknowledged: bool) {
        // The first retransmission may have left at any time since the previous examination.
        let heard = now - tcp.last_ack;
        self.heard_after_retransmission = self
            .retransmitting
            .note(now, tcp.retransmits > 0)
            .map_or(Span::ZERO, |since| self.heard_after_retransmission.max(heard.since(since)));
        let expected = tcp.expected_ack().unwrap_or_default();
        if acknowledged || self.heard_after_retransmission <= expected {
            (self.heard_at, self.unheard) = (None, false);
            return;
        }
        let heard_at = *self.heard_at.get_or_insert(heard);
        let left_later = now - tcp.last_sent > heard_at && tcp.last_sent > expected;
        self.unheard |= left_later && tcp.retransmits >= LOST_RETRANSMISSIONS;
    }

    /// Returns whether our direction was lost while that of the peer was not: it was heard although
    /// it acknowledged nothing, and what left after that had no answer. If both had been lost, and
    /// the peer was heard because they have healed, there would have been one.
    pub(crate) const fn is_unheard(&self) -> bool {
        self.unheard
    }

    /// Notes whether a segment of the peer is missing that was missing `before`, on a path that
    /// loses nothing of ours.
    fn note_gap(&mut self, now: Time, before: &TcpSnapshot, tcp: &TcpSnapshot) {
        let same = tcp.bytes_received.is_some() && tcp.bytes_received == before.bytes_received;
        let lossless = tcp.retransmits == 0 && tcp.total_retrans == before.total_retrans;
        let shown = tcp.gap == Some(true) && same && lossless;
        self.missing.note(now, shown);
        self.missing_looks = if shown { self.missing_looks.saturating_add(1) } else { 0 };
    }

    /// Returns the last error by which somebody reported the peer unreachable, unless an
    /// acknowledgement has refuted it.
    pub const fn error(&self) -> Option<SocketError> {
        self.error
    }

    /// Returns when the last snapshot was taken.
    pub const fn last_at(&self) -> Time {
        self.last_at
    }

    /// Whether a large segment of the peer never arrives, and small ones do: an MTU black hole,
    /// seen by the receiver. A lossy path destroys all of several retransmissions seldom, and
    /// hardly ever while it loses none of our probes and of their acknowledgements.
    fn is_large_segment_missing(&self) -> bool {
        let probed = self.acknowledged().is_some_and(|bytes| bytes > 0);
        let timeout = self.last.expected_ack().unwrap_or_default().max(LEAST_TIMEOUT);
        let long = self.missing.holds_for(timeout.times(MISSING), self.last_at);
        probed && long && self.missing_looks >= MISSING_LOOKS
    }

    /// Bytes acknowledged from the first to the last snapshot; `None` if the kernel has no counter.
    fn acknowledged(&self) -> Option<u64> {
        Some(self.last.bytes_acked?.saturating_sub(self.first.bytes_acked?))
    }

    /// Whether the peer acknowledged what asked for an answer, and had the time to answer: a round
    /// trip, and that of a retransmission, for which an answer waits after an outage. Bytes that
    /// were in flight before the silence say nothing about it. If a probe is out, the first
    /// snapshot came after it.
    fn is_answer_owed(&self, probed: bool, interval: Span) -> bool {
        let time = self.last.rtt.max(interval.min(RETRANSMISSION));
        let had_time = self.acknowledged.holds_for(time, self.last_at);
        // The SYN of a connecting end counts as an acknowledged byte.
        let later = if probed { 0 } else { 2 };
        had_time && (self.is_first_covered(later) || probed && self.last.is_all_acknowledged())
    }

    /// Whether the last snapshot shows all bytes acknowledged that were written before the first,
    /// and `more` beyond them.
    fn is_first_covered(&self, more: u64) -> bool {
        self.first.outstanding().zip(self.first.notsent).is_some_and(|(sent, not)| {
            let written = self.first.bytes_acked.unwrap_or(0) + sent + u64::from(not);
            self.last.bytes_acked.is_some_and(|acknowledged| acknowledged >= written + more)
        })
    }

    /// Whether the next hop does not answer: by our own neighbour table, or because retransmissions
    /// did not leave.
    fn is_neighbour_gone(&self) -> bool {
        let tcp = &self.last;
        if tcp.retransmits > 0 && self.next_hop.is_some_and(|hop| hop.is_silent) {
            return true;
        }
        // `retransmits` counts attempts; `total_retrans` counts only segments that left this
        // machine. Before the neighbour is given up, and once in each further search for it, one
        // leaves.
        let tried = u32::from(tcp.retransmits.saturating_sub(self.first.retransmits));
        let left = tcp.total_retrans.saturating_sub(self.first.total_retrans);
        let held_back = tried.saturating_sub(left);
        let own = self.error == Some(SocketError::HostUnreachable);
        tried > 0 && (left.saturating_mul(2) <= tried || held_back >= HELD_BACK)
            || own && u32::from(tcp.retransmits) > tcp.total_retrans
    }

    /// Whether the error may be the report of our own stack that it cannot find the next hop: the
    /// neighbour table is not known, and a single examination does not show whether retransmissions
    /// leave.
    fn may_be_own_report(&self) -> bool {
        let single = self.seen && self.first_at == self.last_at;
        let unclear = single && self.last.retransmits > 0 && self.next_hop.is_none();
        unclear && self.error == Some(SocketError::HostUnreachable)
    }

    /// Whether large segments were retransmitted in vain while the peer received smaller ones that
    /// were sent later: an MTU black hole, seen by the sender.
    fn are_large_segments_lost(&self) -> bool {
        let tcp = &self.last;
        // If a large segment had arrived, those that did not could not hold all the other bytes.
        let missing = u64::from(tcp.unacked.saturating_sub(tcp.sacked));
        let segment = u64::from(tcp.segment);
        // What arrived is small, or together less than one full segment, as the tail of a message.
        let arrived = u64::from(tcp.sacked).saturating_mul(SMALL_SEGMENT);
        let most = missing.saturating_mul(segment) + arrived.max(segment.saturating_sub(1));
        let large = self.retransmitted_small() == Some(false);
        large && tcp.sacked > 0 && tcp.outstanding().is_some_and(|bytes| bytes <= most)
    }

    /// Whether what was retransmitted since the first examination is small on average, so that its
    /// size is no reason for its loss; `None` if that is not known.
    fn retransmitted_small(&self) -> Option<bool> {
        let (tcp, before) = (&self.last, &self.first);
        let bytes = tcp.bytes_retrans?.saturating_sub(before.bytes_retrans?);
        let segments = u64::from(tcp.total_retrans.saturating_sub(before.total_retrans));
        (segments > 0).then(|| bytes <= segments.saturating_mul(SMALL_SEGMENT))
    }
}

/// Returns the age up to which an acknowledgement counts as fresh, if probes are `interval` apart.
pub(crate) fn freshness(interval: Span) -> Span {
    interval.times(2).max(LEAST_FRESHNESS)
}

/// Returns a cause that is visible before the bound has passed, if there is one: a fault that a
/// router, our own network or our own next hop shows. Provisional: evidence from the peer refutes
/// the cause.
pub fn early_word(doubts: &Doubts) -> Option<Diagnosis> {
    use Ground as G;
    if doubts.local_down {
        return Some(high(Cause::LocalNetworkDown, &[G::InterfaceDown]));
    }
    let tcp = &doubts.last;
    if tcp.send_window.is_some() && tcp.is_stranded() && tcp.backoff > 0 && tcp.probes > 1 {
        return Some(high(Cause::LocalNetworkDown, &[G::BytesWaiting, G::NothingLeft]));
    }
    if doubts.is_neighbour_gone() {
        let found = high(Cause::LocalNeighbourGone, &[G::Retransmitting, G::NeighbourSilent]);
        let is_gateway = doubts.next_hop.is_some_and(|hop| !hop.is_peer);
        let grounds = if is_gateway { found.grounds.with(G::GatewaySilent) } else { found.grounds };
        return Some(Diagnosis { grounds, ..found });
    }
    // Last, because a silent next hop makes our own stack report the host unreachable.
    let told = doubts.error.is_some() && !doubts.may_be_own_report();
    told.then(|| high(Cause::Unreachable, &[G::RouterSaidUnreachable]))
}

/// Finds the cause of a silence from the examinations of the peer's socket.
///
/// Before the bound, no cause rests on the silence of the application.
pub fn diagnose(case: &Case, doubts: &Doubts) -> Diagnosis {
    let found = first_match(case, doubts);
    match (case.beyond_bound, found.cause) {
        (true, _) => found,
        (false, Cause::AppHung) => unknown(&[]),
        (false, _) => {
            Diagnosis { grounds: found.grounds.without(Ground::ApplicationSilent), ..found }
        }
    }
}

/// Returns the first row of the table that matches.
fn first_match(case: &Case, doubts: &Doubts) -> Diagnosis {
    use Ground as G;
    let tcp = &doubts.last;
    let fresh = tcp.last_ack <= freshness(case.interval);
    let waiting = tcp.notsent.is_some_and(|bytes| bytes > 0);
    let closed = tcp.is_window_closed();
    let open = !closed && tcp.send_window.is_some();
    let acknowledged = doubts.acknowledged();
    let lost = tcp.unacked > 0 && tcp.retransmits >= LOST_RETRANSMISSIONS;
    let silent = Ground::ApplicationSilent;

    if let Some(found) = early_word(doubts) {
        return Diagnosis { grounds: found.grounds.with(silent), ..found };
    }
    if !doubts.seen {
        return unknown(&[silent]);
    }
    // One unanswered probe proves nothing of a fresh peer: Linux answers at most two a second. More
    // than one are a row of `early_word`.
    if open && tcp.is_stranded() && tcp.backoff > 0 && !fresh {
        return high(Cause::LocalNetworkDown, &[silent, G::BytesWaiting, G::NothingLeft]);
    }
    if lost && acknowledged == Some(0) && doubts.are_large_segments_lost() {
        let grounds = [silent, G::Retransmitting, G::NothingAcknowledged, G::LargeSegmentsLost];
        return large_packets(Direction::Outbound, &grounds);
    }
    // The kernel doubles the time between window probes, so the last answer may be old although
    // no probe is unanswered.
    let probing_window = tcp.unacked == 0 && tcp.backoff > 0;
    let probes_answered = probing_window && tcp.probes == 0 && tcp.last_ack < case.lasted;
    if (fresh || probes_answered) && closed && waiting {
        let found = high(Cause::NotReading, &[silent, G::WindowClosed, G::BytesWaiting]);
        let grounds = if fresh { found.grounds.with(G::KernelFresh) } else { found.grounds };
        return Diagnosis { grounds, ..found };
    }
    let nothing_repeated = tcp.retransmits == 0;
    if fresh && doubts.is_large_segment_missing() {
        return large_packets(Direction::Inbound, &[silent, G::KernelFresh, G::SegmentMissing]);
    }
    // What waits behind a missing segment may be the answer.
    let complete = tcp.gap != Some(true);
    let owed = doubts.is_answer_owed(case.probed, case.interval);
    if fresh && open && nothing_repeated && complete && owed {
        // Whoever stands in the middle may acknowledge too; other links of the host decide.
        let grounds = [silent, G::KernelFresh, G::BytesAcknowledged];
        return medium(Cause::AppHung, &grounds);
    }
    let (heard_after, expected) =
        (doubts.heard_after_retransmission, tcp.expected_ack().unwrap_or_default());
    // What the peer sent before our first retransmission may arrive up to a round trip later.
    if lost && acknowledged == Some(0) && heard_after > expected {
        let cause = Cause::PathLost { direction: Direction::Outbound, scope: Scope::Unknown };
        let grounds = [silent, G::Retransmitting, G::NothingAcknowledged, G::PeerStillHeard];
        let found = high(cause, &grounds);
        let is_late_enough = heard_after >= expected.times(SLOWER).max(RETRANSMISSION);
        // Once a large segment has timed out, the kernel sends no small one that may get through.
        let for_any_size = doubts.retransmitted_small() == Some(true);
        let is_sure = is_late_enough && for_any_size;
        let confidence = if is_sure { found.confidence } else { Confidence::Medium };
        return Diagnosis { confidence, ..found };
    }
    let found = if lost && !fresh {
        let cause = Cause::PathLost { direction: Direction::Both, scope: Scope::Unknown };
        medium(cause, &[silent, G::Retransmitting, G::KernelSilent])
    } else if fresh {
        unknown(&[silent, G::KernelFresh])
    } else {
        unknown(&[silent])
    };
    let grounds = if complete { found.grounds } else { found.grounds.with(G::SegmentMissing) };
    Diagnosis { grounds, ..found }
}

fn high(cause: Cause, grounds: &[Ground]) -> Diagnosis {
    Diagnosis { cause, confidence: Confidence::High, grounds: Grounds::of(grounds) }
}

fn medium(cause: Cause, grounds: &[Ground]) -> Diagnosis {
    Diagnosis { cause, confidence: Confidence::Medium, grounds: Grounds::of(grounds) }
}

/// An MTU black hole. Chance may lose one segment again and again, so the confidence is medium.
fn large_packets(direction: Direction, grounds: &[Ground]) -> Diagnosis {
    medium(Cause::PathLost { direction, scope: Scope::LargePackets }, grounds)
}

fn unknown(grounds: &[Ground]) -> Diagnosis {
    medium(Cause::Unknown, grounds)
}

#[cfg(test)]
mod tests;
