//! Vigilant time: a clock that advances only while the observer was watching.
//!
//! Before a peer is condemned for its silence, the observer asks itself whether it listened. Two
//! things stand between a byte in the kernel and the machine: the loop may not have run (overload,
//! SIGSTOP, a breakpoint, a paused VM, a suspended host), and a busy loop may not have reached that
//! socket yet. The first makes vigilant time stand still, which moves every deadline by exactly the
//! stall; the second holds judgement back at a horizon, the time up to which every socket was read.

mod stamps;

pub use stamps::{LEEWAY, LONGEST, Stamps};

use crate::time::{Span, Time};

/// How much later than planned the loop may come round before the excess counts as a stall. Less is
/// ordinary scheduling, and shows as lateness of verdicts.
pub const TOLERANCE: Span = Span::from_millis(50);

/// One turn of an observer's loop, as its shell saw it.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// The monotonic clock, which stands still while the host is suspended.
    pub monotonic: Span,
    /// The boot-time clock, which does not (Linux `CLOCK_BOOTTIME`); the monotonic one where there
    /// is none.
    pub boottime: Span,
    /// How long the loop meant to be away since the last turn.
    pub planned: Span,
}

/// A time during which nobody watched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stall {
    /// How long the loop did not run although it should have.
    pub absent: Span,
    /// How long the host was suspended.
    pub suspended: Span,
}

/// The vigilant clock of one observer.
#[derive(Clone, Debug)]
pub struct Vigilance {
    now: Time,
    monotonic: Span,
    boottime: Span,
    /// What the present turn has watched at work, and the reading up to which it has been seen.
    worked: Span,
    seen: Span,
    horizon: Time,
    sweep_began: Time,
    sweep_read: u64,
    /// How many sockets were open when the sweep began: no more were ready then.
    sweep_open: u64,
    /// A stall may have come between the wait and the clock: what became ready in it was not among
    /// what the wait reported.
    blind: bool,
}

impl Vigilance {
    /// A clock that starts at [`Time::ZERO`] with the raw clocks at these values.
    pub const fn new(monotonic: Span, boottime: Span) -> Vigilance {
        Vigilance {
            now: Time::ZERO,
            monotonic,
            boottime,
            worked: Span::ZERO,
            seen: monotonic,
            horizon: Time::ZERO,
            sweep_began: Time::ZERO,
            sweep_read: 0,
            sweep_open: 0,
            blind: false,
        }
    }

    /// The loop came round. Advances vigilant time by what was watched, and returns the stall if
    /// there was one.
    pub fn turn(&mut self, turn: Turn) -> Option<Stall> {
        let elapsed = turn.monotonic.less(self.monotonic);
        let elapsed_boot = turn.boottime.less(self.boottime);
        let lost = self.seen.less(self.monotonic).less(self.worked);
        self.monotonic = self.monotonic.max(turn.monotonic);
        self.boottime = self.boottime.max(turn.boottime);
        let suspended = elapsed_boot.less(elapsed);
        let away = turn.monotonic.less(self.seen);
        let stalled = away > turn.planned + TOLERANCE;
        let absent = lost + if stalled { away.less(turn.planned) } else { Span::ZERO };
        let stalled = absent > Span::ZERO;
        self.now = self.now + elapsed.less(absent);
        self.seen = self.monotonic;
        self.worked = Span::ZERO;
        if stalled || suspended > TOLERANCE {
            self.blind = true;
            return Some(Stall { absent, suspended });
        }
        None
    }

    /// The loop is at work, and shows it between two pieces of its work: a turn with much to do is
    /// no stall, however long it takes; a piece of more than [`TOLERANCE`] is.
    pub fn work(&mut self, monotonic: Span) {
        let piece = monotonic.less(self.seen);
        self.seen = self.seen.max(monotonic);
        if piece <= TOLERANCE {
            self.worked = self.worked + piece;
        }
    }

    /// The sockets that the last wait reported have all been read: `read` of them, of `open` in
    /// all. `drained` says that no other socket was ready when the wait ended; after a stall that
    /// says too little, and it takes another wait.
    ///
    /// A kernel queue of ready sockets is worked off in order, so that after as many reads as there
    /// are sockets each one that was ready at the beginning has been read, however busy the rest.
    pub fn read(&mut self, read: usize, open: usize, drained: bool) {
        self.sweep_read = self.sweep_read.saturating_add(read as u64);
        let blind = core::mem::take(&mut self.blind);
        if drained && !blind {
            self.horizon = self.now;
        } else if self.sweep_read >= self.sweep_open {
            self.horizon = self.horizon.max(self.sweep_began);
        } else {
            return;
        }
        self.sweep_began = self.now;
        self.sweep_read = 0;
        self.sweep_open = open as u64;
    }

    /// What this turn has read is not all there is, but all that had arrived `behind` before it.
    /// Where the only socket is a queue with stamps, this is known long before the queue is empty.
    pub fn read_up_to(&mut self, behind: Span) {
        self.horizon = self.horizon.max(self.now - behind);
    }

    /// Vigilant time.
    pub const fn now(&self) -> Time {
        self.now
    }

    /// Vigilant time at a reading of the monotonic clock within the present turn.
    pub fn at(&self, monotonic: Span) -> Time {
        self.now + self.worked + monotonic.less(self.seen).min(TOLERANCE)
    }

    /// How long ago, at a reading of the monotonic clock, the loop last came round.
    pub const fn elapsed(&self, monotonic: Span) -> Span {
        monotonic.less(self.monotonic)
    }

    /// The time up to which every socket has been read, and silence may be judged.
    pub const fn horizon(&self) -> Time {
        self.horizon
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Span {
        Span::from_millis(millis)
    }

    fn turn(clock: &mut Vigilance, at_ms: u64, boot_ms: u64, planned_ms: u64) -> Option<Stall> {
        clock.turn(Turn { monotonic: ms(at_ms), boottime: ms(boot_ms), planned: ms(planned_ms) })
    }

    #[test]
    fn watched_time_passes_and_a_stall_does_not() {
        let mut clock = Vigilance::new(ms(1_000), ms(1_000));
        assert_eq!(turn(&mut clock, 1_100, 1_100, 100), None);
        assert_eq!(clock.now(), Time::from_millis(100));
        let stall = turn(&mut clock, 11_200, 11_200, 100);
        assert_eq!(stall, Some(Stall { absent: ms(10_000), suspended: Span::ZERO }));
        assert_eq!(clock.now(), Time::from_millis(200), "moved by exactly the planned wait");
    }

    #[test]
    fn ordinary_lag_is_lateness_and_not_a_stall() {
        let mut clock = Vigilance::new(ms(0), ms(0));
        assert_eq!(turn(&mut clock, 60, 60, 10), None);
        assert_eq!(clock.now(), Time::from_millis(60));
        assert!(turn(&mut clock, 121, 121, 10).is_some());
        assert_eq!(clock.now(), Time::from_millis(70));
    }

    #[test]
    fn work_is_watching_and_a_stall_within_it_is_not() {
        let mut clock = Vigilance::new(ms(0), ms(0));
        for at in [30, 60, 90, 120] {
            clock.work(ms(at));
        }
        assert_eq!(clock.at(ms(125)), Time::from_millis(125));
        assert_eq!(turn(&mut clock, 130, 130, 0), None);
        assert_eq!(clock.now(), Time::from_millis(130));
        clock.work(ms(140));
        clock.work(ms(5_140));
        clock.work(ms(5_150));
        assert_eq!(clock.at(ms(5_150)), Time::from_millis(150));
        let stall = turn(&mut clock, 5_160, 5_160, 10);
        assert_eq!(stall, Some(Stall { absent: ms(5_000), suspended: Span::ZERO }));
        assert_eq!(clock.now(), Time::from_millis(160));
    }

    #[test]
    fn suspend_is_told_and_does_not_count() {
        let mut clock = Vigilance::new(ms(0), ms(0));
        let stall = turn(&mut clock, 10, 3_600_010, 10);
        assert_eq!(stall, Some(Stall { absent: Span::ZERO, suspended: ms(3_600_000) }));
        assert_eq!(clock.now(), Time::from_millis(10));
    }

    #[test]
    fn clocks_that_run_backwards_do_no_harm() {
        let mut clock = Vigilance::new(ms(100), ms(100));
        assert_eq!(turn(&mut clock, 50, 40, 10), None);
        assert_eq!(clock.now(), Time::ZERO);
        assert_eq!(clock.at(ms(50)), Time::ZERO);
    }

    #[test]
    fn judgement_waits_for_every_socket_that_was_ready() {
        let mut clock = Vigilance::new(ms(0), ms(0));
        turn(&mut clock, 10, 10, 10);
        clock.read(5, 100, true);
        assert_eq!(clock.horizon(), Time::from_millis(10));
        turn(&mut clock, 20, 20, 10);
        clock.read(40, 100, false);
        turn(&mut clock, 30, 30, 10);
        clock.read(40, 100, false);
        assert_eq!(clock.horizon(), Time::from_millis(10), "80 of 100 read");
        turn(&mut clock, 40, 40, 10);
        clock.read(40, 100, false);
        assert_eq!(clock.horizon(), Time::from_millis(10), "what was ready when the sweep began");
        turn(&mut clock, 50, 50, 10);
        clock.read(100, 100, false);
        assert_eq!(clock.horizon(), Time::from_millis(40));
        clock.read(1, 100, true);
        assert_eq!(clock.horizon(), Time::from_millis(50));
    }

    #[test]
    fn sockets_that_close_meanwhile_do_not_shorten_the_wait_for_the_others() {
        let mut clock = Vigilance::new(ms(0), ms(0));
        turn(&mut clock, 10, 10, 10);
        clock.read(5, 100, true);
        turn(&mut clock, 20, 20, 10);
        clock.read(40, 60, false);
        turn(&mut clock, 30, 30, 10);
        clock.read(40, 20, false);
        assert_eq!(clock.horizon(), Time::from_millis(10), "20 were ready and are unread");
    }

    #[test]
    fn what_came_in_a_stall_is_read_before_anybody_is_judged() {
        let mut clock = Vigilance::new(ms(0), ms(0));
        turn(&mut clock, 10, 10, 10);
        clock.read(0, 100, true);
        // The wait ended with one socket, then the process was stopped, then the clock was read.
        assert!(turn(&mut clock, 10_010, 10_010, 100).is_some());
        clock.read(1, 100, true);
        assert_eq!(clock.horizon(), Time::from_millis(10));
        turn(&mut clock, 10_011, 10_011, 0);
        clock.read(30, 100, true);
        assert_eq!(clock.horizon(), Time::from_millis(111));
    }

    #[test]
    fn a_backlog_holds_judgement_back_by_its_age_alone() {
        let mut clock = Vigilance::new(ms(0), ms(0));
        turn(&mut clock, 100, 100, 100);
        clock.read(5, 131_072, true);
        for at in [200, 300, 400] {
            turn(&mut clock, at, at, 100);
            clock.read(512, 131_072, false);
            assert!(clock.horizon() < Time::from_millis(at - 70));
            clock.read_up_to(ms(70));
            assert_eq!(clock.horizon(), Time::from_millis(at - 70));
            clock.read_up_to(ms(90));
            assert_eq!(clock.horizon(), Time::from_millis(at - 70), "never back");
        }
        // Nor does a sweep that ends later than it began take it back.
        turn(&mut clock, 500, 500, 100);
        clock.read_up_to(ms(10));
        clock.read(131_072, 131_072, false);
        assert_eq!(clock.horizon(), Time::from_millis(490));
    }
}
