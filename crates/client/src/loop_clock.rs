//! A client's clocks: vigilant time, from the one place where clocks are read.

use systole_core::vigilance::{Turn, Vigilance};
use systole_core::witness::Absences;
use systole_core::{Span, Time};
use systole_net::Clock;

/// A wait that plans no end: however long it takes, it was watched.
pub(crate) const OPEN_ENDED: Span = Span::from_nanos(u64::MAX);

/// Vigilant time: a client that slept, was stopped or starved does not blame the server for it.
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

    /// The client woke from a wait that was to last `planned` at most.
    pub(crate) fn turn(&mut self, planned: Span) -> Time {
        let (monotonic, boottime) = (self.clock.monotonic(), self.clock.boottime());
        let stall = self.vigilance.turn(Turn { monotonic, boottime, planned });
        let now = self.vigilance.now();
        if let Some(stall) = stall {
            self.absences.note(now, stall.absent + stall.suspended, stall.suspended);
        }
        now
    }

    /// A clock that does not stop in suspension, read anew.
    pub(crate) fn boottime(&self) -> Span {
        self.clock.boottime()
    }

    /// When this client was not watching, lately.
    pub(crate) fn absences(&self) -> &Absences {
        &self.absences
    }

    /// Vigilant time at the last turn.
    pub(crate) fn now(&self) -> Time {
        self.vigilance.now()
    }

    /// The socket was read until it held nothing more.
    pub(crate) fn drained(&mut self) {
        self.vigilance.read(1, 1, true);
    }

    /// The time up to which silence may be judged.
    pub(crate) fn horizon(&self) -> Time {
        self.vigilance.horizon()
    }

    /// The wall clock at [`Time::ZERO`], in milliseconds since 1970-01-01 UTC.
    pub(crate) fn wall_origin_ms(&self) -> u64 {
        self.clock.wall_ms().saturating_sub(self.vigilance.now().as_millis())
    }
}
