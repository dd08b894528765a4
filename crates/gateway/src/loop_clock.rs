//! The clock of a shard's loop: vigilant time, and the detection of stalls.

use std::sync::Arc;

use systole_core::vigilance::{Stamps, Turn, Vigilance};
use systole_core::{Span, Time};
use systole_net::Clock;

use crate::stats::{Distributions, ShardStats, seconds};

/// The vigilant clock of one loop; counts the stalls of that loop.
#[derive(Debug)]
pub(crate) struct LoopClock {
    clock: Clock,
    vigilance: Vigilance,
    stamps: Stamps,
    /// The monotonic times at which this turn's time was last moved on, and its last work recorded.
    moved: Span,
    recorded: Span,
    stats: Arc<ShardStats>,
    distributions: Distributions,
}

impl LoopClock {
    /// Starts vigilant time now.
    pub(crate) fn new(
        clock: Clock,
        stats: Arc<ShardStats>,
        distributions: Distributions,
    ) -> LoopClock {
        let now = clock.monotonic();
        let vigilance = Vigilance::new(now, clock.boottime());
        let stamps = Stamps::default();
        LoopClock { clock, vigilance, stamps, moved: now, recorded: now, stats, distributions }
    }

    /// Begins a turn, after a wait planned to last at most `planned`. Counts a stall.
    pub(crate) fn begin_turn(&mut self, planned: Span) {
        let monotonic = self.clock.monotonic();
        let late = self.vigilance.elapsed(monotonic).less(planned);
        let boottime = self.clock.boottime();
        (self.moved, self.recorded) = (monotonic, monotonic);
        if late > Span::ZERO {
            self.distributions.lag.observe(seconds(late));
        }
        if let Some(stall) = self.vigilance.turn(Turn { monotonic, boottime, planned }) {
            self.stats.stalls.add(1);
            self.stats.suspended_nanos.add(stall.suspended.as_nanos());
            self.stats.stalled_nanos.add((stall.absent + stall.suspended).as_nanos());
            self.stats.changed.notify_one();
        }
    }

    /// Records that a piece of this turn's work is done, so that the work is no stall.
    pub(crate) fn record_work(&mut self) {
        self.recorded = self.clock.monotonic();
        self.vigilance.work(self.recorded);
    }

    /// How long this turn has worked, as far as recorded, since its time was last moved on.
    pub(crate) fn worked(&self) -> Span {
        self.recorded.less(self.moved)
    }

    /// Moves the time of this turn on to the present; see [`Vigilance::advance`].
    pub(crate) fn advance(&mut self) {
        self.record_work();
        self.vigilance.advance();
        self.moved = self.recorded;
    }

    /// Records what this turn read; see [`Vigilance::read`].
    pub(crate) fn record_reads(&mut self, read: usize, open: usize, drained: bool) {
        self.vigilance.read(read, open, drained);
    }

    /// Records the state of the loop's only queue: empty, or last read up to an item that arrived
    /// at `stamp`, since 1970-01-01 UTC. Returns how far the loop is behind; `None` if unknown.
    pub(crate) fn record_queue(&mut self, empty: bool, stamp: Option<Span>) -> Option<Span> {
        let (wall, boottime) = (Span::from_millis(self.clock.wall_ms()), self.clock.boottime());
        if empty {
            self.stamps.emptied(wall, boottime);
            return Some(Span::ZERO);
        }
        let behind = self.stamps.behind(stamp?, wall, boottime)?;
        self.vigilance.read_up_to(behind);
        Some(behind)
    }

    /// The vigilant time up to which every socket has been read, and silence may be judged.
    pub(crate) fn horizon(&self) -> Time {
        self.vigilance.horizon()
    }

    /// The vigilant time up to which the silence of a link may be judged by its own socket; see
    /// [`Vigilance::limit`].
    pub(crate) fn limit(&self) -> Time {
        self.vigilance.limit()
    }

    /// Vigilant time at the beginning of this turn, or as far as it was advanced.
    pub(crate) fn now(&self) -> Time {
        self.vigilance.now()
    }

    /// Vigilant time at this moment.
    pub(crate) fn read_now(&self) -> Time {
        self.vigilance.at(self.clock.monotonic())
    }

    /// The monotonic clock at this moment, which all shards share.
    pub(crate) fn monotonic(&self) -> Span {
        self.clock.monotonic()
    }

    /// The wall clock, in milliseconds since 1970-01-01 UTC.
    pub(crate) fn wall_ms(&self) -> u64 {
        self.clock.wall_ms()
    }
}
