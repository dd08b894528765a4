//! What the control plane polls of each shard: whether it accepts connections and why not, how long
//! it was stalled, and how much telemetry it dropped. A shard only stores these; changes between
//! two looks are published as one.

use std::time::Duration;

use crate::events::{Body, Names};
use crate::report::PauseReason;
use crate::stats::ShardStats;

/// The least time between two looks at a shard, so that a state that changes back and forth does
/// not flood the log and the events.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The state of one shard at the last look.
#[derive(Debug, Default)]
pub(crate) struct ShardWatch {
    paused: Option<PauseReason>,
    absent_nanos: u64,
    suspended_nanos: u64,
    dropped: u64,
}

/// What changed at a shard since the last look.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// The events to publish.
    pub bodies: Vec<Body>,
    /// The number of heartbeat lines dropped.
    pub dropped: u64,
}

impl ShardWatch {
    /// Looks at a shard.
    pub(crate) fn look(&mut self, shard: usize, stats: &ShardStats, names: &Names) -> Changes {
        let mut changes = Changes::default();
        // The shard writes these two in the other order, so that a suspension is never published
        // without its stall.
        let absent = stats.stalled_nanos.get();
        let suspended = stats.suspended_nanos.get();
        if absent > self.absent_nanos {
            let millis = |nanos: u64| nanos / 1_000_000;
            changes.bodies.push(Body::Stalled {
                shard,
                absent_ms: millis(absent - self.absent_nanos),
                suspended_ms: millis(suspended.saturating_sub(self.suspended_nanos)),
            });
            (self.absent_nanos, self.suspended_nanos) = (absent, suspended);
        }
        let paused = stats.accepting.paused();
        if paused != self.paused {
            changes.bodies.push(match paused {
                Some(reason) => names.paused(shard, reason),
                None => Body::AcceptingResumed { shard },
            });
            self.paused = paused;
        }
        let dropped = stats.telemetry_dropped.get();
        changes.dropped = dropped.saturating_sub(self.dropped);
        self.dropped = dropped;
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(changes: &Changes) -> Vec<&'static str> {
        changes.bodies.iter().map(Body::kind).collect()
    }

    #[test]
    fn changes_between_two_looks_are_one_and_nothing_is_published_twice() {
        let names = Names {
            listeners: Vec::new(),
            descriptors: None,
            max_links: 1,
            links_by_descriptors: false,
        };
        let stats = ShardStats::default();
        let mut watch = ShardWatch::default();
        assert_eq!(kinds(&watch.look(0, &stats, &names)), [""; 0]);
        for _ in 0..3 {
            stats.suspended_nanos.add(1_000_000_000);
            stats.stalled_nanos.add(2_000_000_000);
        }
        stats.accepting.pause(PauseReason::HostLimit);
        stats.accepting.pause(PauseReason::LinkLimit);
        stats.telemetry_dropped.add(5);
        let changes = watch.look(0, &stats, &names);
        assert_eq!((kinds(&changes), changes.dropped), (vec!["stalled", "accepting_paused"], 5));
        let stalled = serde_json::to_value(&changes.bodies[0]).unwrap();
        assert_eq!(
            (&stalled["absent_ms"], &stalled["suspended_ms"]),
            (&6_000.into(), &3_000.into())
        );
        let changes = watch.look(0, &stats, &names);
        assert_eq!((kinds(&changes), changes.dropped), (vec![], 0));
        stats.accepting.resume();
        assert_eq!(kinds(&watch.look(0, &stats, &names)), ["accepting_resumed"]);
    }
}
