//! Outstanding bytes: whether bytes of ours may wait in the kernel, and when the socket is examined
//! because of them.

use super::Lane;
use crate::liveness::{Deadline, Reason};
use crate::time::{Span, Time};

/// The time for which our bytes may be outstanding before the socket is examined, and from one such
/// examination to the next.
///
/// A kernel that caps its retransmission time at 1 s gives up a connection 14 s after bytes were
/// stranded or a closed window fell silent, whatever its user timeout, unless an examination finds
/// that in time. After 8 s half of its retransmissions are left. That the peer is heard all the
/// time changes nothing: a peer may talk and not read.
pub const OUTSTANDING: Span = Span::from_secs(8);

/// The resolution in which the start of the wait is kept, rounded down: 125 ms. Examinations of
/// many links fall due together. Thirty bits of it are four years; links opened later than that
/// have no examination before a suspicion.
const RESOLUTION: u64 = 125_000_000;

const KIND_BITS: u32 = 2;
const LATEST: u32 = u32::MAX >> KIND_BITS;

/// What of ours may be outstanding in the kernel, and since when, in four bytes.
///
/// It is set by what is sent, and cleared only by what proves that the peer's kernel has it all: an
/// examination, or the PONG to the latest PING where nothing was sent that the PING could overtake
/// or precede.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Outstanding(u32);

/// The kinds of outstanding bytes, in ascending order of what clears them.
const NOTHING: u32 = 0;
/// Nothing but heartbeats and other control frames, and the latest of them is a PING.
const UP_TO_A_PING: u32 = 1;
/// Control frames, the latest of them not a PING. The next PING follows them all.
const CONTROL: u32 = 2;
/// Data, which a PING may overtake on its way to the kernel.
const DATA: u32 = 3;

impl Outstanding {
    #[inline]
    pub(super) fn is_any(self) -> bool {
        self.kind() != NOTHING
    }

    /// Notes that a frame was sent in this lane.
    #[inline]
    pub(super) fn sent(&mut self, now: Time, lane: Lane) {
        let kind = match lane {
            Lane::Control => CONTROL,
            Lane::Data => DATA,
        };
        if self.kind() < kind {
            self.raise(now, kind);
        }
    }

    /// Notes that a PING was sent.
    pub(super) fn sent_ping(&mut self, now: Time) {
        match self.kind() {
            NOTHING => self.raise(now, UP_TO_A_PING),
            DATA => {}
            _ => self.0 = self.0 & !3 | UP_TO_A_PING,
        }
    }

    /// Notes that the latest PING was answered.
    pub(super) fn ping_answered(&mut self) {
        if self.kind() == UP_TO_A_PING {
            *self = Outstanding::default();
        }
    }

    /// Notes an examination. The next is due [`OUTSTANDING`] later, unless this one shows that
    /// `all` was acknowledged.
    pub(super) fn examined(&mut self, now: Time, all: bool) {
        if all {
            *self = Outstanding::default();
        } else if self.is_any() {
            self.0 = units(now) << KIND_BITS | self.kind();
        }
    }

    /// Returns when the socket is to be examined; `None` if nothing is outstanding.
    pub(super) fn deadline(self) -> Option<Deadline> {
        let since = self.0 >> KIND_BITS;
        if !self.is_any() || since == LATEST {
            return None;
        }
        let at = Time::from_nanos(u64::from(since) * RESOLUTION) + OUTSTANDING;
        Some(Deadline { at, reason: Reason::Examine })
    }

    #[inline]
    fn kind(self) -> u32 {
        self.0 & 3
    }

    fn raise(&mut self, now: Time, kind: u32) {
        let since = if self.is_any() { self.0 >> KIND_BITS } else { units(now) };
        self.0 = since << KIND_BITS | kind;
    }
}

fn units(time: Time) -> u32 {
    u32::try_from(time.as_nanos() / RESOLUTION).map_or(LATEST, |units| units.min(LATEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(outstanding: Outstanding) -> Option<u64> {
        outstanding.deadline().map(|deadline| deadline.at.as_millis())
    }

    const fn ms(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    #[test]
    fn the_examination_is_due_eight_seconds_after_the_first_byte_and_after_each_examination() {
        let mut bytes = Outstanding::default();
        assert_eq!(at(bytes), None);
        bytes.sent(ms(1_000), Lane::Control);
        bytes.sent(ms(3_000), Lane::Data);
        bytes.sent_ping(ms(4_000));
        assert_eq!(at(bytes), Some(9_000), "more bytes delay nothing");
        bytes.examined(ms(9_000), false);
        assert_eq!(at(bytes), Some(17_000));
        bytes.examined(ms(17_000), true);
        assert_eq!(at(bytes), None);
    }

    #[test]
    fn only_a_pong_to_a_ping_that_followed_everything_shows_that_all_arrived() {
        let mut bytes = Outstanding::default();
        bytes.sent_ping(ms(0));
        bytes.ping_answered();
        assert!(!bytes.is_any());
        bytes.sent_ping(ms(0));
        bytes.sent(ms(0), Lane::Control);
        bytes.ping_answered();
        assert!(bytes.is_any(), "sent after the PING, in the same instant");
        bytes.sent_ping(ms(0));
        bytes.ping_answered();
        assert!(!bytes.is_any(), "the next PING followed it");
        bytes.sent(ms(0), Lane::Data);
        bytes.sent_ping(ms(0));
        bytes.ping_answered();
        assert!(bytes.is_any(), "a PING may overtake data");
    }

    #[test]
    fn beyond_four_years_nothing_is_due() {
        let mut bytes = Outstanding::default();
        bytes.sent(Time::from_nanos(u64::MAX), Lane::Data);
        assert_eq!((bytes.is_any(), at(bytes)), (true, None));
    }
}
