//! Vigilant time of a client, computed from the clock of `systole_net`.

use systole_core::vigilance::{Turn, Vigilance};
use systole_core::witness::Absences;
use systole_core::{Span, Time};
use systole_net::Clock;

/// Planned length of a wait without a deadline, which never counts as a stall.
pub(crate) const OPEN_ENDED: Span = Span::from_nanos(u64::MAX);

/// Clock of vigilant time: time in which the client was suspended, stopped or starved does not
/// count as silence of the server.
#[derive(Debug)]
pub(crate) struct LoopClock {
    clock: Clock,
    vigilance: Vigilance,
    absences: Absences,
}

impl LoopClock {
    pub(crate) fn start() -> LoopClock {
        let clock = Clock::start();
        let vigilance = Vigilance::new(clock.monotonic(), clock.boottime());
        LoopClock { clock, vigilance, absences: Absences::default() }
    }

    /// Reads the clocks after a wait that was planned to last at most `planned`.
    pub(crate) fn turn(&mut self, planned: Span) -> Time {
        let (monotonic, boottime) = (self.clock.monotonic(), self.clock.boottime());
        let stall = self.vigilance.turn(Turn { monotonic, boottime, planned });
        let now = self.vigilance.now();
        if let Some(stall) = stall {
            self.absences.note(now, stall.absent + stall.suspended, stall.suspended);
        }
        now
    }

    /// Reads the clock that continues while the machine is suspended.
    pub(crate) fn boottime(&self) -> Span {
        self.clock.boottime()
    }

    /// Returns the recent times in which this client was not watching.
    pub(crate) fn absences(&self) -> &Absences {
        &self.absences
    }

    /// Returns the vigilant time at the last turn.
    pub(crate) fn now(&self) -> Time {
        self.vigilance.now()
    }

    /// Records that the socket was read until it was empty.
    pub(crate) fn drained(&mut self) {
        self.vigilance.read(1, 1, true);
    }

    /// Returns the time up to which silence may be judged.
    pub(crate) fn horizon(&self) -> Time {
        self.vigilance.horizon()
    }

    /// Returns the wall clock at [`Time::ZERO`], in milliseconds since 1970-01-01 UTC.
    pub(crate) fn wall_origin_ms(&self) -> u64 {
        self.clock.wall_ms().saturating_sub(self.vigilance.now().as_millis())
    }
}
