//! A model of one end's TCP, written from docs/sockets.md and RFC 6298: the figures that an
//! examination shows of a path with any round trip, and when the kernel would give up.

use std::collections::VecDeque;

use systole_core::Span;
use systole_core::kernel::{Cap, Examination, Patience, TcpSnapshot};

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLI;

/// The least retransmission timeout of Linux.
const LEAST_TIMEOUT: u64 = 200 * MILLI;

/// The retransmissions of a thin stream that do not double the timeout, under the least cap.
const LINEAR: u8 = 6;

/// One segment; times in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Segment {
    sent: u64,
    acknowledged: u64,
    /// The round trip of the copy that arrives.
    round_trip: u64,
    bytes: u64,
    retransmitted: bool,
}

/// The sending side of one connection.
#[derive(Debug)]
pub(super) struct Tcp {
    timestamps: bool,
    segments: VecDeque<Segment>,
    /// The smoothed round trip and its deviation.
    smoothed: u64,
    deviation: u64,
    timeout: u64,
    timer: u64,
    backoff: u8,
    retransmits: u8,
    total_retrans: u32,
    bytes_acked: u64,
    last_ack: u64,
    /// The first retransmission since everything retransmitted was last acknowledged.
    episode: Option<u64>,
    cap: u64,
    gives_up_after: u64,
}

impl Tcp {
    /// Creates the sending side of a connection whose handshake took `round_trip`.
    pub(super) fn new(round_trip: u64, timestamps: bool) -> Tcp {
        Tcp {
            timestamps,
            segments: VecDeque::new(),
            smoothed: round_trip,
            deviation: round_trip / 2,
            timeout: SECOND,
            timer: 0,
            backoff: 0,
            retransmits: 0,
            total_retrans: 0,
            bytes_acked: 0,
            last_ack: 0,
            episode: None,
            cap: SECOND,
            gives_up_after: u64::MAX,
        }
    }

    /// Puts a patience in force.
    pub(super) fn follow(&mut self, patience: &Patience) {
        self.cap = patience.cap().span().as_nanos();
        let outage = patience.outage().map_or(7_200, |outage| outage.as_millis().div_ceil(1_000));
        let caps = self.cap.saturating_mul(3).div_ceil(SECOND);
        let margin = outage.div_ceil(4).max(6).max(caps);
        let user_timeout = (outage + margin.div_ceil(3) * 3) * SECOND;
        // Without a user timeout, at the 15th attempt.
        let attempts = (0..15).map(|n| (LEAST_TIMEOUT << n).min(self.cap)).sum::<u64>();
        self.gives_up_after = if user_timeout <= 14 * SECOND { attempts } else { user_timeout };
    }

    /// Records bytes that are sent at `now`, and acknowledged at `acknowledged` on a path with
    /// `round_trip`; later than that only if copies of them were lost.
    pub(super) fn sent(&mut self, now: u64, acknowledged: u64, round_trip: u64, bytes: u64) {
        self.advance(now);
        if self.segments.is_empty() {
            self.timer = now + self.timeout.min(self.cap);
        }
        let acknowledged =
            self.segments.back().map_or(acknowledged, |last| last.acknowledged.max(acknowledged));
        let retransmitted = false;
        let lost = acknowledged > now + round_trip + 50 * MILLI;
        let round_trip = if lost { round_trip } else { acknowledged - now };
        self.segments.push_back(Segment {
            sent: now,
            acknowledged,
            round_trip,
            bytes,
            retransmitted,
        });
    }

    /// Returns what an examination at `now` shows.
    pub(super) fn examine(&mut self, now: u64) -> Examination {
        self.advance(now);
        let tcp = TcpSnapshot {
            unacked: self.segments.len() as u32,
            notsent: Some(0),
            retransmits: self.retransmits,
            backoff: self.backoff,
            last_ack: Span::from_nanos(now - self.last_ack),
            rtt: Span::from_micros(self.smoothed / 1_000),
            rttvar: Span::from_micros(self.deviation / 1_000),
            timestamps: self.timestamps,
            total_retrans: self.total_retrans,
            bytes_acked: Some(self.bytes_acked),
            send_window: Some(60_000),
            ..TcpSnapshot::default()
        };
        Examination { tcp: Some(tcp), ..Examination::default() }
    }

    /// Returns the cap in force.
    pub(super) fn cap(&self) -> Span {
        Span::from_nanos(self.cap)
    }

    /// Runs up to `now`; panics if the kernel gives up a connection whose bytes arrive.
    fn advance(&mut self, now: u64) {
        while let Some(front) = self.segments.front().copied() {
            if front.acknowledged.min(self.timer) > now {
                return;
            }
            if front.acknowledged <= self.timer {
                self.acknowledge(front);
            } else {
                self.expire();
            }
        }
    }

    fn acknowledge(&mut self, front: Segment) {
        self.segments.pop_front();
        let at = front.acknowledged;
        self.last_ack = self.last_ack.max(at);
        self.bytes_acked += front.bytes;
        self.retransmits = 0;
        if self.timestamps || !front.retransmitted {
            let difference = front.round_trip.abs_diff(self.smoothed);
            self.deviation = self.deviation - self.deviation / 4 + difference / 4;
            let longer = front.round_trip > self.smoothed;
            let step = difference / 8;
            self.smoothed =
                if longer { self.smoothed + step } else { self.smoothed - step.min(self.smoothed) };
            self.timeout = self.measured_timeout();
            self.backoff = 0;
        }
        let spurious = self.timestamps && front.round_trip == at - front.sent;
        if spurious || !self.segments.iter().any(|segment| segment.retransmitted) {
            self.episode = None;
        } else if let Some(next) = self.segments.front_mut() {
            // In recovery, an acknowledgement brings the next retransmission.
            next.retransmitted = true;
            self.total_retrans += 1;
        }
        self.timer = at + self.timeout.min(self.cap);
    }

    fn expire(&mut self) {
        let at = self.timer;
        let since = *self.episode.get_or_insert(at);
        assert!(at - since < self.gives_up_after, "the kernel gives up at {at}: {self:?}");
        self.retransmits = self.retransmits.saturating_add(1);
        self.total_retrans += 1;
        if let Some(front) = self.segments.front_mut() {
            front.retransmitted = true;
        }
        let linear = self.cap() == Cap::LEAST.span() && self.retransmits <= LINEAR;
        if linear {
            (self.backoff, self.timeout) = (0, self.measured_timeout());
        } else {
            self.backoff = self.backoff.saturating_add(1);
            self.timeout = self.timeout.saturating_mul(2);
        }
        self.timeout = self.timeout.min(self.cap);
        self.timer = at + self.timeout;
    }

    fn measured_timeout(&self) -> u64 {
        (self.smoothed + (4 * self.deviation).max(LEAST_TIMEOUT)).min(self.cap)
    }
}
