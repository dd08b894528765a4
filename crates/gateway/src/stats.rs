//! The counters of each shard, written by its loop and read by the control plane without a lock.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use systole_core::Span;
use systole_core::cause::Cause;
use tokio::sync::Notify;

use crate::gate::TurnedAway;
use crate::identity::Refusal;
use crate::report::PauseReason;

/// A counter or gauge that one thread writes and other threads read. A reader that sees a value
/// also sees what the writer wrote to other cells before.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds `count` to the value.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Release);
    }

    /// Sets the value.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Release);
    }

    /// Returns the value.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// Whether a shard accepts connections, written by its loop and read by other threads.
#[derive(Debug, Default)]
pub struct Accepting(AtomicU8);

impl Accepting {
    /// The reasons by their stored number, from 1; 0 is stored while connections are accepted.
    const REASONS: [PauseReason; 5] = [
        PauseReason::DescriptorLimit,
        PauseReason::HostLimit,
        PauseReason::LinkLimit,
        PauseReason::ControlPlane,
        PauseReason::BeaconLimit,
    ];

    /// Records that accepting is paused.
    pub fn pause(&self, reason: PauseReason) {
        let number = match reason {
            PauseReason::DescriptorLimit => 1,
            PauseReason::HostLimit => 2,
            PauseReason::LinkLimit => 3,
            PauseReason::ControlPlane => 4,
            PauseReason::BeaconLimit => 5,
        };
        self.0.store(number, Ordering::Relaxed);
    }

    /// Records that connections are accepted.
    pub fn resume(&self) {
        self.0.store(0, Ordering::Relaxed);
    }

    /// Returns why accepting is paused; `None` while connections are accepted.
    pub fn paused(&self) -> Option<PauseReason> {
        let number = usize::from(self.0.load(Ordering::Relaxed));
        Self::REASONS.get(number.checked_sub(1)?).copied()
    }
}

/// The counters and the state of one shard.
#[derive(Debug, Default)]
pub struct ShardStats {
    /// Links now open.
    pub links: Cell,
    /// Connections now open, including those of ended links whose peer may still read our goodbye.
    pub connections: Cell,
    /// Listening sockets now open; a drain empties them before it closes them.
    pub listening: Cell,
    /// Sessions now online.
    pub online: Cell,
    /// Sessions now suspect.
    pub suspects: Cell,
    /// Sessions now away, without a link.
    pub away: Cell,
    /// Sessions resumed.
    pub resumed: Cell,
    /// Requests to resume a session that was gone.
    pub not_resumed: Cell,
    /// Requests to resume a session with a token that was not its own.
    pub resumptions_refused: Cell,
    /// Links accepted.
    pub accepted: Cell,
    /// Heartbeats received.
    pub heartbeats_in: Cell,
    /// Heartbeats sent.
    pub heartbeats_out: Cell,
    /// Bytes received.
    pub bytes_in: Cell,
    /// Bytes sent.
    pub bytes_out: Cell,
    /// Memory that incomplete frames take now, in bytes.
    pub frame_bytes: Cell,
    /// Memory that messages take until they are acknowledged, in bytes.
    pub window_bytes: Cell,
    /// Links ended because their incomplete frame was the oldest when the memory was full.
    pub frames_dropped: Cell,
    /// Memory that unsent bytes take now, in bytes.
    pub outbox_bytes: Cell,
    /// Links ended because their queue was the longest when the memory was full.
    pub outboxes_dropped: Cell,
    /// Leave-takings that ended before the peer had acknowledged everything.
    pub undelivered: Cell,
    /// Leave-takings of refused peers that were cut short, since places were needed.
    pub cut_leaves: Cell,
    /// Sessions and links of strangers that ended, by cause, in the order of [`Cause::NAMES`].
    pub verdicts: [Cell; Cause::NAMES.len()],
    /// Links ended whose session went away, by cause: the session is in `verdicts` once it has
    /// ended too.
    pub went_away: [Cell; Cause::NAMES.len()],
    /// The part of `verdicts` on connections that were never a session.
    pub strangers: [Cell; Cause::NAMES.len()],
    /// Connections turned away at the limit of their address, by reason, in the order of
    /// [`TurnedAway::NAMES`].
    pub turned_away: [Cell; TurnedAway::NAMES.len()],
    /// Logins refused, by reason, in the order of [`Refusal::NAMES`].
    pub refused: [Cell; Refusal::NAMES.len()],
    /// Logins whose peer was gone before their webhook was asked.
    pub logins_withdrawn: Cell,
    /// Bounds that passed unenforced.
    pub overdue: Cell,
    /// Verdicts that the kernel forced before the bound.
    pub early: Cell,
    /// Pauses of accepting.
    pub accept_pauses: Cell,
    /// Whether connections are accepted.
    pub accepting: Accepting,
    /// Sessions of which facts wait for the control plane.
    pub facts_waiting: Cell,
    /// Telemetry dropped because the control plane was too slow.
    pub telemetry_dropped: Cell,
    /// Stalls of the loop.
    pub stalls: Cell,
    /// Time lost in stalls, in nanoseconds.
    pub stalled_nanos: Cell,
    /// The part of `stalled_nanos` for which the host was suspended.
    pub suspended_nanos: Cell,
    /// Turns of the loop.
    pub turns: Cell,
    /// Notified after a stall, a change of `accepting`, or dropped telemetry.
    pub changed: Notify,
}

impl ShardStats {
    /// Records that accepting is paused, or that the reason has changed, and wakes the control
    /// plane.
    pub fn pause_accepting(&self, reason: PauseReason) {
        self.accept_pauses.add(1);
        self.accepting.pause(reason);
        self.changed.notify_one();
    }

    /// Records that accepting goes on, and wakes the control plane.
    pub fn resume_accepting(&self) {
        self.accepting.resume();
        self.changed.notify_one();
    }
}

/// The counters that only a beacon shard has.
#[derive(Debug, Default)]
pub struct BeaconStats {
    /// Datagrams received.
    pub datagrams_in: Cell,
    /// Datagrams sent.
    pub datagrams_out: Cell,
    /// Datagrams dropped without an answer, by reason, in the order of [`BeaconStats::REASONS`].
    pub dropped: [Cell; BeaconStats::REASONS.len()],
    /// Statements answered with a challenge.
    pub challenged: Cell,
    /// Answers that the kernel did not accept for sending.
    pub unsent: Cell,
}

impl BeaconStats {
    /// Names of the reasons why a datagram is dropped: it is not of the protocol; its device has no
    /// key; its tag is wrong; it was received before, or no challenge is left to answer it with;
    /// there is no room for another device; its shard was too far behind; it was kicked less than a
    /// minute ago; it or its address is banned.
    pub const REASONS: [&'static str; 8] = [
        "illegal",
        "unknown_device",
        "wrong_tag",
        "replayed",
        "full",
        "overloaded",
        "kicked",
        "banned",
    ];
}

/// Histograms and rare counters, shared by all shards; updates are rare enough for a lock.
#[derive(Clone, Debug)]
pub struct Distributions {
    /// How long after its bound each verdict fell.
    pub lateness: Histogram,
    /// By how much the bound of each verdict on silence was stretched for a long round trip.
    pub stretch: Histogram,
    /// Round-trip times of the gateway's heartbeats.
    pub rtt: Histogram,
    /// How much later than planned each turn of the loop began.
    pub lag: Histogram,
    /// Verdicts revised, by cause before and after.
    pub revised: Family<[(&'static str, &'static str); 2], Counter>,
    /// Outages found.
    pub outages: Counter,
    /// Connections of the admin interface that were ended at a limit, by reason.
    pub admin_ended: Family<[(&'static str, &'static str); 1], Counter>,
    /// Requests to read the configuration file again, by result.
    pub config_reloads: Family<[(&'static str, &'static str); 1], Counter>,
}

/// The result of a request to read the configuration file again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reloaded {
    /// What can change at run time is in force.
    Applied,
    /// A part is in force: a shard was too busy for the rest.
    Incomplete,
    /// Nothing has changed: the file was not read, or has a mistake.
    Refused,
}

impl Reloaded {
    /// All results.
    pub const ALL: [Reloaded; 3] = [Reloaded::Applied, Reloaded::Incomplete, Reloaded::Refused];

    /// Returns the value of the label `result`.
    pub const fn name(self) -> &'static str {
        match self {
            Reloaded::Applied => "applied",
            Reloaded::Incomplete => "incomplete",
            Reloaded::Refused => "refused",
        }
    }
}

/// The limit at which a connection of the admin interface was ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdminEnded {
    /// It sent a part of a request, and not the rest of the head in time.
    HeadTimeout,
    /// It sent no request in time, or no further one.
    Idle,
    /// The body of its request did not arrive in time.
    BodyTimeout,
    /// It did not read its answer or its events in time.
    WriteTimeout,
    /// It made room for a new connection, as the one whose last request was the oldest.
    Displaced,
    /// It made room for a new connection from its address, of which there were too many.
    AddressLimit,
    /// It made room for a new subscriber: it did not read, or had its place for long.
    SubscriberDisplaced,
    /// It was a subscriber that is behind by more events than are kept.
    Behind,
    /// It spoke no TLS where it is spoken, or its handshake failed.
    Handshake,
}

impl AdminEnded {
    /// All reasons.
    pub const ALL: [AdminEnded; 9] = [
        AdminEnded::HeadTimeout,
        AdminEnded::Idle,
        AdminEnded::BodyTimeout,
        AdminEnded::WriteTimeout,
        AdminEnded::Displaced,
        AdminEnded::AddressLimit,
        AdminEnded::SubscriberDisplaced,
        AdminEnded::Behind,
        AdminEnded::Handshake,
    ];

    /// Returns the value of the label `reason`.
    pub const fn name(self) -> &'static str {
        match self {
            AdminEnded::HeadTimeout => "head_timeout",
            AdminEnded::Idle => "idle",
            AdminEnded::BodyTimeout => "body_timeout",
            AdminEnded::WriteTimeout => "write_timeout",
            AdminEnded::Displaced => "displaced",
            AdminEnded::AddressLimit => "address_limit",
            AdminEnded::SubscriberDisplaced => "subscriber_displaced",
            AdminEnded::Behind => "behind",
            AdminEnded::Handshake => "handshake",
        }
    }
}

/// Buckets in seconds: fine around the budget of 2 ms and 5 ms, coarse beyond.
const LATENESS_BUCKETS: [f64; 20] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_3, 0.000_5, 0.000_75, 0.001, 0.001_25, 0.001_5, 0.001_75,
    0.002, 0.002_5, 0.003, 0.004, 0.005, 0.007_5, 0.01, 0.05, 0.1, 1.0,
];

/// Buckets in seconds, from a loopback to a satellite link behind a queue.
const RTT_BUCKETS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

/// Buckets in seconds, from no stretch to that of a patient policy.
const STRETCH_BUCKETS: [f64; 9] = [0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0];

impl Default for Distributions {
    fn default() -> Distributions {
        let admin_ended = Family::<_, Counter>::default();
        for reason in AdminEnded::ALL {
            // A counter that starts at 0 shows its first increase.
            drop(admin_ended.get_or_create(&[("reason", reason.name())]));
        }
        let config_reloads = Family::<_, Counter>::default();
        for result in Reloaded::ALL {
            drop(config_reloads.get_or_create(&[("result", result.name())]));
        }
        Distributions {
            lateness: Histogram::new(LATENESS_BUCKETS),
            stretch: Histogram::new(STRETCH_BUCKETS),
            rtt: Histogram::new(RTT_BUCKETS),
            lag: Histogram::new(LATENESS_BUCKETS),
            revised: Family::default(),
            outages: Counter::default(),
            admin_ended,
            config_reloads,
        }
    }
}

/// Converts a span to seconds, the unit of Prometheus.
pub fn seconds(span: Span) -> f64 {
    std::time::Duration::from(span).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pause_is_read_as_it_was_written() {
        let accepting = Accepting::default();
        assert_eq!(accepting.paused(), None);
        for reason in Accepting::REASONS {
            accepting.pause(reason);
            assert_eq!(accepting.paused(), Some(reason));
        }
        accepting.resume();
        assert_eq!(accepting.paused(), None);
    }
}
