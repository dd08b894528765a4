//! What makes a loop an observer: its clock, its vigilant time, and the stalls that it tells.

use std::sync::Arc;

use systole_core::vigilance::{Stamps, Turn, Vigilance};
use systole_core::{Span, Time};
use systole_net::Clock;

use crate::outlet::Outlet;
use crate::report::Report;
use crate::stats::{Distributions, ShardStats, seconds};

/// The longest wait of a loop. A stall is noticed by coming back later than planned, so the plan
/// must be short beside the deadlines it protects; ten wakes a second cost nothing.
pub(crate) const LONGEST_WAIT: Span = Span::from_millis(100);

/// The watch that one loop keeps.
#[derive(Debug)]
pub(crate) struct LoopClock {
    clock: Clock,
    vigilance: Vigilance,
    stamps: Stamps,
    stats: Arc<ShardStats>,
    distributions: Distributions,
}

impl LoopClock {
    /// Begins to watch.
    pub(crate) fn new(
        clock: Clock,
        stats: Arc<ShardStats>,
        distributions: Distributions,
    ) -> LoopClock {
        let vigilance = Vigilance::new(clock.monotonic(), clock.boottime());
        LoopClock { clock, vigilance, stamps: Stamps::default(), stats, distributions }
    }

    /// The loop came round after a wait that was to be no longer than `planned`. A stall is counted
    /// and told.
    pub(crate) fn wake(&mut self, planned: Span, outlet: &mut Outlet) {
        let monotonic = self.clock.monotonic();
        let late = self.vigilance.elapsed(monotonic).less(planned);
        let boottime = self.clock.boottime();
        if late > Span::ZERO {
            self.distributions.lag.observe(seconds(late));
        }
        if let Some(stall) = self.vigilance.turn(Turn { monotonic, boottime, planned }) {
            self.stats.stalls.add(1);
            self.stats.stalled_nanos.add((stall.absent + stall.suspended).as_nanos());
            let (absent, suspended) = (stall.absent, stall.suspended);
            outlet.tell(Report::Stalled { absent, suspended });
        }
    }

    /// A piece of this turn's work is done.
    pub(crate) fn worked(&mut self) {
        self.vigilance.work(self.clock.monotonic());
    }

    /// See [`Vigilance::read`].
    pub(crate) fn read(&mut self, read: usize, open: usize, drained: bool) {
        self.vigilance.read(read, open, drained);
    }

    /// A loop's only queue is empty, or what was read of it last was stamped so, since 1970-01-01
    /// UTC. Returns how far behind the loop is; `None` if that cannot be said.
    pub(crate) fn queue(&mut self, empty: bool, stamp: Option<Span>) -> Option<Span> {
        let (wall, boottime) = (Span::from_millis(self.clock.wall_ms()), self.clock.boottime());
        if empty {
            self.stamps.emptied(wall, boottime);
            return Some(Span::ZERO);
        }
        let behind = self.stamps.behind(stamp?, wall, boottime)?;
        self.vigilance.read_up_to(behind);
        Some(behind)
    }

    /// Up to when silence may be judged.
    pub(crate) fn horizon(&self) -> Time {
        self.vigilance.horizon()
    }

    /// Vigilant time, as it was when this turn began.
    pub(crate) fn now(&self) -> Time {
        self.vigilance.now()
    }

    /// Vigilant time, read anew.
    pub(crate) fn anew(&self) -> Time {
        self.vigilance.at(self.clock.monotonic())
    }

    /// The wall clock, in milliseconds since 1970-01-01 UTC.
    pub(crate) fn wall_ms(&self) -> u64 {
        self.clock.wall_ms()
    }
}
