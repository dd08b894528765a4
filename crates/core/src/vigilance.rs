//! Vigilant time: a clock that advances only while the observer was watching.
//!
//! A peer must not get a verdict of silence for a time in which the observer did not read. Bytes
//! may wait in the kernel for two reasons: the loop did not run (overload, SIGSTOP, a breakpoint, a
//! paused VM, a suspended host), or a busy loop has not reached the socket yet. In the first case
//! vigilant time stands still, which moves every deadline by exactly the stall. In the second case
//! silence up to the horizon, the time up to which every socket has been read, is judged at once;
//! later silence of a link only after its own socket was read, so that no verdict waits for the
//! sockets of others.

mod stamps;

pub use stamps::{LEEWAY, LONGEST, Stamps};

use crate::time::{Span, Time};

/// The lateness of a turn above which it counts as a stall. Less is ordinary scheduling, and
/// appears as lateness of verdicts.
pub const TOLERANCE: Span = Span::from_millis(50);

/// One turn of an observer's loop, with the readings of its clocks.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// The monotonic clock, which stands still while the host is suspended.
    pub monotonic: Span,
    /// The boot-time clock, which also runs during suspension (Linux `CLOCK_BOOTTIME`); the
    /// monotonic clock on systems without one.
    pub boottime: Span,
    /// The wait that the loop planned after the last turn.
    pub planned: Span,
}

/// A time in which the observer did not watch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stall {
    /// The time in which the loop should have run, but did not.
    pub absent: Span,
    /// The time in which the host was suspended.
    pub suspended: Span,
}

/// The vigilant clock of one observer.
#[derive(Clone, Debug)]
pub struct Vigilance {
    now: Time,
    /// Vigilant time at the start of this turn, when the wait ended.
    began: Time,
    /// The monotonic clock at the start of this turn.
    turned: Span,
    /// The raw clocks at `now`.
    monotonic: Span,
    boottime: Span,
    /// The time since `now` that was spent at work, up to the reading `seen`.
    worked: Span,
    seen: Span,
    horizon: Time,
    sweep_began: Time,
    sweep_read: u64,
    /// The sockets that were open when the sweep began: an upper limit of those ready then.
    sweep_open: u64,
    /// A stall may have fallen between the wait and the reading of the clock: sockets that became
    /// ready in it are not among those that the wait reported.
    stall_unread: bool,
    /// When the last stall was found, until every socket has been read since.
    stalled_at: Option<Time>,
}

impl Vigilance {
    /// Creates a clock that starts at [`Time::ZERO`], with these readings of the raw clocks.
    pub const fn new(monotonic: Span, boottime: Span) -> Vigilance {
        Vigilance {
            now: Time::ZERO,
            began: Time::ZERO,
            turned: monotonic,
            monotonic,
            boottime,
            worked: Span::ZERO,
            seen: monotonic,
            horizon: Time::ZERO,
            sweep_began: Time::ZERO,
            sweep_read: 0,
            sweep_open: 0,
            stall_unread: false,
            stalled_at: None,
        }
    }

    /// Starts a turn of the loop: advances vigilant time by the watched time, and returns the stall
    /// if there was one.
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
        (self.began, self.turned) = (self.now, self.monotonic);
        self.seen = self.monotonic;
        self.worked = Span::ZERO;
        if stalled || suspended > TOLERANCE {
            self.stall_unread = true;
            self.stalled_at = Some(self.now);
            return Some(Stall { absent, suspended });
        }
        None
    }

    /// Reports progress between two pieces of work in a turn. A long turn is no stall, but a single
    /// piece longer than [`TOLERANCE`] is.
    pub fn work(&mut self, monotonic: Span) {
        let piece = monotonic.less(self.seen);
        self.seen = self.seen.max(monotonic);
        if piece <= TOLERANCE {
            self.worked = self.worked + piece;
        } else {
            self.stall_unread = true;
            self.stalled_at = Some(self.now);
        }
    }

    /// Moves [`Vigilance::now`] on by the work reported since, within a long turn. The horizon does
    /// not follow: sockets that became ready since the wait are unread.
    pub fn advance(&mut self) {
        let worked = core::mem::take(&mut self.worked);
        self.now = self.now + worked;
        self.monotonic = self.monotonic + worked;
        self.boottime = self.boottime + worked;
    }

    /// Reports that all `read` sockets of the last wait have been read; `open` sockets exist.
    /// `drained` is true if no other socket was ready when the wait ended. After a stall `drained`
    /// is not sufficient, and another wait is needed.
    ///
    /// The kernel returns ready sockets in order. So after as many reads as there are sockets, each
    /// socket that was ready at the beginning has been read, however busy the others are.
    pub fn read(&mut self, read: usize, open: usize, drained: bool) {
        self.sweep_read = self.sweep_read.saturating_add(read as u64);
        let stall_unread = core::mem::take(&mut self.stall_unread);
        if drained && !stall_unread {
            self.horizon = self.began;
        } else if self.sweep_read >= self.sweep_open {
            self.horizon = self.horizon.max(self.sweep_began);
        } else {
            return;
        }
        if self.stalled_at.is_some_and(|at| self.horizon >= at) {
            self.stalled_at = None;
        }
        self.sweep_began = self.began;
        self.sweep_read = 0;
        self.sweep_open = open as u64;
    }

    /// Reports that everything has been read that arrived at least `behind` before this turn. For a
    /// single socket with kernel timestamps this is known long before its queue is empty.
    pub fn read_up_to(&mut self, behind: Span) {
        self.horizon = self.horizon.max(self.began - behind);
    }

    /// Returns the time up to which the silence of a link may be judged once its own socket has
    /// been read: the present. After a stall it is the horizon, until every socket has been read.
    pub const fn limit(&self) -> Time {
        if self.stalled_at.is_some() { self.horizon } else { self.now }
    }

    /// Returns vigilant time at the start of this turn, or as far as it was advanced.
    pub const fn now(&self) -> Time {
        self.now
    }

    /// Returns vigilant time at a reading of the monotonic clock within this turn.
    pub fn at(&self, monotonic: Span) -> Time {
        self.now + self.worked + monotonic.less(self.seen).min(TOLERANCE)
    }

    /// Returns the time from the start of this turn to a reading of the monotonic clock.
    pub const fn elapsed(&self, monotonic: Span) -> Span {
        monotonic.less(self.turned)
    }

    /// Returns the horizon: the time up to which every socket has been read. A verdict of silence
    /// may fall only for deadlines up to it.
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
    fn watched_time_counts_and_a_stall_does_not() {
        let mut clock = Vigilance::new(ms(1_000), ms(1_000));
        assert_eq!(turn(&mut clock, 1_100, 1_100, 100), None);
        assert_eq!(clock.now(), Time::from_millis(100));
        let stall = turn(&mut clock, 11_200, 11_200, 100);
        assert_eq!(stall, Some(Stall { absent: ms(10_000), suspended: Span::ZERO }));
        assert_eq!(clock.now(), Time::from_millis(200), "moved by exactly the planned wait");
    }

    #[test]
    fn a_small_delay_is_lateness_and_not_a_stall() {
        let mut clock = Vigilance::new(ms(0), ms(0));
        assert_eq!(turn(&mut clock, 60, 60, 10), None);
        assert_eq!(clock.now(), Time::from_millis(60));
        assert!(turn(&mut clock, 121, 121, 10).is_some());
        assert_eq!(clock.now(), Time::from_millis(70));
    }

    #[test]
    fn work_counts_as_watched_and_a_stall_within_it_does_not() {
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
    fn suspension_is_reported_and_does_not_count() {
        let mut clock = Vigilance::new(ms(0), ms(0));
        let stall = turn(&mut clock, 10, 3_600_010, 10);
        assert_eq!(stall, Some(Stall { absent: Span::ZERO, suspended: ms(3_600_000) }));
        assert_eq!(clock.now(), Time::from_millis(10));
    }

    #[test]
    fn clocks_that_run_backwards_are_tolerated() {
        let mut clock = Vigilance::new(ms(100), ms(100));
        assert_eq!(turn(&mut clock, 50, 40, 10), None);
        assert_eq!(clock.now(), Time::ZERO);
        assert_eq!(clock.at(ms(50)), Time::ZERO);
    }

    #[test]
    fn the_horizon_waits_for_every_socket_that_was_ready() {
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
    fn one_link_is_judged_up_to_this_turn_but_after_a_stall_all_sockets_are_read_first() {
        let mut clock = Vigilance::new(ms(0), ms(0));
        turn(&mut clock, 5, 5, 10);
        clock.read(1, 100, true);
        turn(&mut clock, 10, 10, 10);
        clock.read(40, 100, false);
        assert_eq!((clock.horizon(), clock.limit()), (Time::from_millis(5), Time::from_millis(10)));
        assert!(turn(&mut clock, 5_020, 5_020, 10).is_some());
        clock.read(100, 100, false);
        assert_eq!(clock.limit(), clock.horizon(), "what became ready in the stall is unread");
        let stalled_at = clock.now();
        turn(&mut clock, 5_030, 5_030, 10);
        clock.read(60, 100, false);
        assert!(clock.limit() == clock.horizon() && clock.limit() < stalled_at);
        turn(&mut clock, 5_040, 5_040, 10);
        clock.read(40, 100, false);
        assert_eq!((clock.horizon(), clock.limit()), (stalled_at, clock.now()));
    }

    #[test]
    fn a_long_turn_advances_and_its_horizon_stays_at_the_wait() {
        let mut clock = Vigilance::new(ms(0), ms(0));
        turn(&mut clock, 10, 10, 10);
        clock.work(ms(13));
        clock.advance();
        assert_eq!((clock.now(), clock.limit()), (Time::from_millis(13), Time::from_millis(13)));
        assert_eq!(clock.at(ms(14)), Time::from_millis(14));
        assert_eq!(clock.elapsed(ms(14)), ms(4));
        clock.read(5, 100, true);
        assert_eq!(clock.horizon(), Time::from_millis(10));
        assert_eq!(turn(&mut clock, 20, 20, 0), None);
        assert_eq!(clock.now(), Time::from_millis(20));
        // A stall within the turn: nobody is judged until all sockets were read.
        clock.work(ms(5_020));
        clock.work(ms(5_021));
        clock.advance();
        assert_eq!((clock.now(), clock.limit()), (Time::from_millis(21), clock.horizon()));
        clock.read(5, 100, true);
        assert_eq!(clock.limit(), clock.horizon());
        let stall = turn(&mut clock, 5_030, 5_030, 10);
        assert_eq!(stall, Some(Stall { absent: ms(5_000), suspended: Span::ZERO }));
        assert_eq!(clock.now(), Time::from_millis(30));
    }

    #[test]
    fn sockets_that_close_do_not_move_the_horizon_early() {
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
    fn bytes_that_arrived_in_a_stall_are_read_before_a_verdict() {
        let mut clock = Vigilance::new(ms(0), ms(0));
        turn(&mut clock, 10, 10, 10);
        clock.read(0, 100, true);
        // The wait returned one socket, the process was stopped, and then the clock was read.
        assert!(turn(&mut clock, 10_010, 10_010, 100).is_some());
        clock.read(1, 100, true);
        assert_eq!(clock.horizon(), Time::from_millis(10));
        turn(&mut clock, 10_011, 10_011, 0);
        clock.read(30, 100, true);
        assert_eq!(clock.horizon(), Time::from_millis(111));
    }

    #[test]
    fn a_backlog_delays_the_horizon_by_its_age_only() {
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
        // A completed sweep with an earlier start does not move the horizon back.
        turn(&mut clock, 500, 500, 100);
        clock.read_up_to(ms(10));
        clock.read(131_072, 131_072, false);
        assert_eq!(clock.horizon(), Time::from_millis(490));
    }
}
