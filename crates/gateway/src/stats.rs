//! What each shard counts: written by its loop, read by the control plane, never locked.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use systole_core::Span;
use systole_core::cause::Cause;

/// A counter or gauge that one thread writes and others read now and then.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds `count`.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Sets the value.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counts of one shard.
#[derive(Debug, Default)]
pub struct ShardStats {
    /// Links open now.
    pub links: Cell,
    /// Connections open now, with those of ended links that may still have to read our goodbye.
    pub connections: Cell,
    /// Sessions online now.
    pub online: Cell,
    /// Sessions suspected now.
    pub suspects: Cell,
    /// Links accepted so far.
    pub accepted: Cell,
    /// Heartbeats received so far.
    pub heartbeats_in: Cell,
    /// Heartbeats sent so far.
    pub heartbeats_out: Cell,
    /// Bytes received so far.
    pub bytes_in: Cell,
    /// Bytes sent so far.
    pub bytes_out: Cell,
    /// Links ended so far, by cause, in the order of [`Cause::NAMES`].
    pub verdicts: [Cell; Cause::NAMES.len()],
    /// Bounds that passed unenforced.
    pub overdue: Cell,
    /// Times accepting paused.
    pub accept_pauses: Cell,
    /// Reports the control plane was too slow for.
    pub reports_missed: Cell,
    /// Stalls of the loop.
    pub stalls: Cell,
    /// Time lost in them, in nanoseconds.
    pub stalled_nanos: Cell,
    /// Turns of the loop.
    pub turns: Cell,
}

/// What a shard of beacons counts besides.
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
    /// Answers that the system did not take.
    pub unsent: Cell,
}

impl BeaconStats {
    /// Why a datagram is dropped: it is none of the protocol; its device has no key; its tag is
    /// wrong; it was heard before; there is no room for another device; its shard was too far
    /// behind.
    pub const REASONS: [&'static str; 6] =
        ["illegal", "unknown_device", "wrong_tag", "replayed", "full", "overloaded"];
}

/// The distributions, shared by all shards: each is touched rarely enough for a lock.
#[derive(Clone, Debug)]
pub struct Distributions {
    /// How long after its bound a verdict fell.
    pub lateness: Histogram,
    /// Round-trip times of our heartbeats.
    pub rtt: Histogram,
    /// How much later than planned the loop came round.
    pub lag: Histogram,
    /// Verdicts revised, by cause before and after.
    pub revised: Family<[(&'static str, &'static str); 2], Counter>,
    /// Outages found.
    pub outages: Counter,
}

/// Fine around the budget of 2 ms and 5 ms, coarse beyond; in seconds.
const LATENESS: [f64; 20] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_3, 0.000_5, 0.000_75, 0.001, 0.001_25, 0.001_5, 0.001_75,
    0.002, 0.002_5, 0.003, 0.004, 0.005, 0.007_5, 0.01, 0.05, 0.1, 1.0,
];

/// From a loopback to a satellite with a queue before it; in seconds.
const RTT: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0,
];

impl Default for Distributions {
    fn default() -> Distributions {
        Distributions {
            lateness: Histogram::new(LATENESS),
            rtt: Histogram::new(RTT),
            lag: Histogram::new(LATENESS),
            revised: Family::default(),
            outages: Counter::default(),
        }
    }
}

/// A length in seconds, as Prometheus wants it.
pub fn seconds(span: Span) -> f64 {
    std::time::Duration::from(span).as_secs_f64()
}
