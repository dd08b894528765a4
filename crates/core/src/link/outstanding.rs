//! Outstanding bytes: whether bytes of ours may wait in the kernel, and when the socket is examined
//! because of them.

use super::Lane;
use crate::machine::{Deadline, Reason};
use crate::plain::{Damage, Plain, Sink, Source};
use crate::time::{Span, Time};

/// The time for which our bytes may be outstanding before the socket is examined, and the time from
/// one such examination to the next.
///
/// A kernel that caps its retransmission timeout at 1 s gives up a connection 14 s after bytes were
/// stranded or a closed window fell silent, whatever the user timeout, unless an examination shows
/// the state in time. After 8 s half of the attempts are left. Evidence from the peer delays no
/// examination: a peer may send and not read.
pub const OUTSTANDING: Span = Span::from_secs(8);

/// The time from an examination that showed a retransmission to the next one.
///
/// If the round trip has grown beyond the cap, the first acknowledgement after that shows it. With
/// a cap of 1 s the kernel may give up 14 s after its first retransmission. Looks after 8 s and
/// 12 s find every round trip up to 12 s in time.
pub const RETRANSMITTING: Span = Span::from_secs(4);

/// The resolution of the time of the next examination, which is rounded down: 125 ms. It lets the
/// examinations of many links fall due together. Thirty bits of it are four years; later,
/// outstanding bytes cause no examination.
const RESOLUTION: u64 = 125_000_000;

const KIND_BITS: u32 = 2;
const LATEST: u32 = u32::MAX >> KIND_BITS;

/// The kind of our bytes that may be outstanding, and when the socket is examined because of them,
/// in four bytes.
///
/// Each send sets it. Only a proof that the peer's kernel has all our bytes clears it: an
/// examination, or the PONG to the latest PING if no data was sent before the PING, which may
/// overtake it, and nothing after the PING.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Outstanding(u32);

/// The first of the kinds, which ascend by what clears them: nothing is outstanding.
const NOTHING: u32 = 0;
/// Only control frames, the latest of them a PING.
const UP_TO_A_PING: u32 = 1;
/// Only control frames, the latest of them not a PING. The next PING follows all of them.
const CONTROL: u32 = 2;
/// Data, which a PING may overtake on its way to the kernel.
const DATA: u32 = 3;

impl Outstanding {
    #[inline]
    pub(super) fn is_any(self) -> bool {
        self.kind() != NOTHING
    }

    /// Records that a frame other than a PING was sent in `lane`.
    #[inline]
    pub(super) fn sent(&mut self, now: Time, lane: Lane) {
        let kind = match lane {
            Lane::Control => CONTROL,
            Lane::Data | Lane::Last => DATA,
        };
        if self.kind() < kind {
            self.raise(now, kind);
        }
    }

    /// Records that a PING was sent.
    pub(super) fn sent_ping(&mut self, now: Time) {
        match self.kind() {
            NOTHING => self.raise(now, UP_TO_A_PING),
            DATA => {}
            _ => self.0 = self.0 & !3 | UP_TO_A_PING,
        }
    }

    /// Records that the latest PING was answered.
    pub(super) fn ping_answered(&mut self) {
        if self.kind() == UP_TO_A_PING {
            *self = Outstanding::default();
        }
    }

    /// Records an examination. The next one is due [`OUTSTANDING`] later, or [`RETRANSMITTING`] if
    /// the kernel `retransmits`, unless `all` bytes are acknowledged.
    pub(super) fn examined(&mut self, now: Time, all: bool, retransmits: bool) {
        if all {
            *self = Outstanding::default();
        } else if self.is_any() {
            let pause = if retransmits { RETRANSMITTING } else { OUTSTANDING };
            self.0 = units(now + pause) << KIND_BITS | self.kind();
        }
    }

    /// Returns when the socket must be examined; `None` if nothing is outstanding.
    pub(super) fn deadline(self) -> Option<Deadline> {
        let due = self.0 >> KIND_BITS;
        if !self.is_any() || due == LATEST {
            return None;
        }
        let at = Time::from_nanos(u64::from(due) * RESOLUTION);
        Some(Deadline::exact(at, Reason::Examine))
    }

    #[inline]
    fn kind(self) -> u32 {
        self.0 & 3
    }

    fn raise(&mut self, now: Time, kind: u32) {
        let due = if self.is_any() { self.0 >> KIND_BITS } else { units(now + OUTSTANDING) };
        self.0 = due << KIND_BITS | kind;
    }
}

/// In a saved state: the kind, and the time if anything is outstanding.
impl Plain<'_> for Outstanding {
    fn put(&self, out: &mut Sink<'_>) {
        (self.kind() as u8).put(out);
        if !self.is_any() {
            return;
        }
        match self.0 >> KIND_BITS {
            LATEST => Time::from_nanos(u64::MAX).put(out),
            due => Time::from_nanos(u64::from(due) * RESOLUTION).put(out),
        }
    }

    /// Decodes a time between two units as the later one: on another clock the examination comes
    /// up to [`RESOLUTION`] later, and never earlier at each move.
    fn take(from: &mut Source<'_>) -> Result<Outstanding, Damage> {
        let kind = u32::from(u8::take(from)?);
        if kind == NOTHING {
            return Ok(Outstanding::default());
        }
        if kind > DATA {
            return Err(Damage::UnknownTag);
        }
        let due = Time::take(from)?.as_nanos().div_ceil(RESOLUTION);
        let due = u32::try_from(due).map_or(LATEST, |units| units.min(LATEST));
        Ok(Outstanding(due << KIND_BITS | kind))
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
        bytes.examined(ms(9_000), false, false);
        assert_eq!(at(bytes), Some(17_000));
        bytes.examined(ms(17_000), false, true);
        assert_eq!(at(bytes), Some(21_000), "sooner while the kernel retransmits");
        bytes.examined(ms(21_000), true, false);
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

    fn moved(bytes: Outstanding, saved: Time, loaded: Time) -> Outstanding {
        let mut state = alloc::vec::Vec::new();
        bytes.put(&mut Sink::state(saved, &mut state));
        Outstanding::take(&mut Source::state(loaded, &state)).unwrap()
    }

    #[test]
    fn on_another_clock_the_examination_is_due_later_by_less_than_a_unit() {
        let mut bytes = Outstanding::default();
        assert_eq!(moved(bytes, ms(9), ms(0)), bytes);
        bytes.sent(ms(1_000), Lane::Data);
        assert_eq!(moved(bytes, ms(2_000), ms(2_000)), bytes);
        assert_eq!(at(moved(bytes, ms(2_000), ms(5_125))), Some(12_125));
        assert_eq!(at(moved(bytes, ms(2_000), ms(5_126))), Some(12_250));
        assert_eq!(at(moved(bytes, ms(2_000), ms(5_249))), Some(12_250));
        assert_eq!(at(moved(bytes, ms(2_000), ms(500))), Some(7_500), "sent before the origin");
        bytes.sent(Time::from_nanos(u64::MAX), Lane::Control);
        let mut never = Outstanding::default();
        never.sent(Time::from_nanos(u64::MAX), Lane::Data);
        assert_eq!(moved(never, Time::from_nanos(u64::MAX), ms(1)), never);
        assert!(Outstanding::take(&mut Source::state(ms(0), &[4; 9])).is_err());
    }
}
