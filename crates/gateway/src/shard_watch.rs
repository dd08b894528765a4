//! What the control plane polls of each shard: whether it accepts connections and why not, how long
//! it was stalled, and how much telemetry it dropped. A shard only stores these; changes between
//! two looks are published as one, and what changes all the time is published rarely.

use std::time::Duration;

use systole_core::Span;

use crate::events::{Body, Names};
use crate::report::PauseReason;
use crate::stats::ShardStats;
use crate::throttle::Throttle;

/// The least time between two looks at a shard, so that a state that changes back and forth does
/// not flood the log and the events.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Least time between two events of one kind, once [`AT_ONCE`] came together: a client that opens
/// and closes a link at the limit, or a host that stalls all the time, must not fill the log and
/// wash the events of sessions out.
const EVENTS_EVERY: Span = Span::from_secs(10);

/// Number of events of one kind that are published at once: two pauses and their ends.
const AT_ONCE: u64 = 4;

/// The state of one shard as it was published last.
#[derive(Debug)]
pub(crate) struct ShardWatch {
    paused: Option<PauseReason>,
    absent_nanos: u64,
    suspended_nanos: u64,
    dropped: u64,
    pauses: Throttle,
    stalls: Throttle,
    drops: Throttle,
}

impl Default for ShardWatch {
    fn default() -> ShardWatch {
        ShardWatch {
            paused: None,
            absent_nanos: 0,
            suspended_nanos: 0,
            dropped: 0,
            pauses: Throttle::new(AT_ONCE, EVENTS_EVERY),
            stalls: Throttle::new(AT_ONCE, EVENTS_EVERY),
            drops: Throttle::new(1, EVENTS_EVERY),
        }
    }
}

/// What changed at a shard since the last look.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// The events to publish.
    pub bodies: Vec<Body>,
    /// The number of heartbeat lines dropped.
    pub dropped: u64,
    /// When to look again, because a change is held back.
    pub again_at: Option<Span>,
}

impl ShardWatch {
    /// Looks at a shard at `now`, the time of a monotonic clock.
    pub(crate) fn look(
        &mut self,
        shard: usize,
        stats: &ShardStats,
        names: &Names,
        now: Span,
    ) -> Changes {
        let mut changes = Changes::default();
        // The shard writes these two in the other order, so that a suspension is never published
        // without its stall.
        let absent = stats.stalled_nanos.get();
        let suspended = stats.suspended_nanos.get();
        if absent > self.absent_nanos && changes.may(&mut self.stalls, now) {
            let millis = |nanos: u64| nanos / 1_000_000;
            changes.bodies.push(Body::Stalled {
                shard,
                absent_ms: millis(absent - self.absent_nanos),
                suspended_ms: millis(suspended.saturating_sub(self.suspended_nanos)),
            });
            (self.absent_nanos, self.suspended_nanos) = (absent, suspended);
        }
        let paused = stats.accepting.paused();
        if paused != self.paused && changes.may(&mut self.pauses, now) {
            changes.bodies.push(match paused {
                Some(reason) => names.paused(shard, reason),
                None => Body::AcceptingResumed { shard },
            });
            self.paused = paused;
        }
        let dropped = stats.telemetry_dropped.get();
        if dropped > self.dropped && changes.may(&mut self.drops, now) {
            changes.dropped = dropped - self.dropped;
            self.dropped = dropped;
        }
        changes
    }
}

impl Changes {
    /// Returns whether a change may be published now, and otherwise notes when.
    fn may(&mut self, throttle: &mut Throttle, now: Span) -> bool {
        let may = throttle.admit(now).is_some();
        if !may {
            let next = throttle.next_at();
            self.again_at = Some(self.again_at.map_or(next, |known| known.min(next)));
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(changes: &Changes) -> Vec<&'static str> {
        changes.bodies.iter().map(Body::kind).collect()
    }

    /// Returns the names of a gateway without listeners.
    fn names() -> Names {
        Names {
            listeners: Vec::new(),
            descriptors: None,
            max_links: 1,
            links_by_descriptors: false,
        }
    }

    #[test]
    fn changes_between_two_looks_are_one_and_nothing_is_published_twice() {
        let names = names();
        let stats = ShardStats::default();
        let mut watch = ShardWatch::default();
        assert_eq!(kinds(&watch.look(0, &stats, &names, Span::ZERO)), [""; 0]);
        for _ in 0..3 {
            stats.suspended_nanos.add(1_000_000_000);
            stats.stalled_nanos.add(2_000_000_000);
        }
        stats.accepting.pause(PauseReason::HostLimit);
        stats.accepting.pause(PauseReason::LinkLimit);
        stats.telemetry_dropped.add(5);
        let changes = watch.look(0, &stats, &names, Span::ZERO);
        assert_eq!((kinds(&changes), changes.dropped), (vec!["stalled", "accepting_paused"], 5));
        let stalled = serde_json::to_value(&changes.bodies[0]).unwrap();
        assert_eq!(
            (&stalled["absent_ms"], &stalled["suspended_ms"]),
            (&6_000.into(), &3_000.into())
        );
        let changes = watch.look(0, &stats, &names, Span::ZERO);
        assert_eq!((kinds(&changes), changes.dropped), (vec![], 0));
        stats.accepting.resume();
        assert_eq!(kinds(&watch.look(0, &stats, &names, Span::ZERO)), ["accepting_resumed"]);
    }

    #[test]
    fn what_changes_all_the_time_is_published_rarely_and_at_last_as_it_is() {
        let names = names();
        let stats = ShardStats::default();
        let mut watch = ShardWatch::default();
        let mut bodies = Vec::new();
        // A minute of looks, ten a second; the state differs at each.
        for look in 0..600 {
            stats.stalled_nanos.add(1_000_000);
            stats.telemetry_dropped.add(1);
            match look % 2 {
                0 => stats.accepting.pause(PauseReason::LinkLimit),
                _ => stats.accepting.resume(),
            }
            let now = Span::from_millis(look * 100);
            let changes = watch.look(0, &stats, &names, now);
            assert!(changes.again_at.is_none_or(|at| at > now));
            bodies.extend(changes.bodies);
        }
        // The same reason again is no change: the state at the end is another.
        stats.accepting.pause(PauseReason::HostLimit);
        let changes = watch.look(0, &stats, &names, Span::from_secs(60));
        bodies.extend(changes.bodies);
        if let Some(at) = changes.again_at {
            bodies.extend(watch.look(0, &stats, &names, at).bodies);
        }
        assert!(bodies.len() <= 24, "{bodies:?}");
        let absent = bodies.iter().map(|body| {
            let Body::Stalled { absent_ms, .. } = body else { return 0 };
            *absent_ms
        });
        assert_eq!(absent.sum::<u64>(), 600, "no stall is lost");
        let last = bodies.iter().rfind(|body| body.kind().starts_with("accepting"));
        assert!(
            matches!(last, Some(Body::AcceptingPaused { reason: "host_limit", .. })),
            "{last:?}"
        );
    }
}
