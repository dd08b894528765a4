//! What happened on one link lately: a fixed ring of events, to be read once the link has died.
//!
//! A fleet pays for this memory on every link, dead or not, so an event takes six bytes: what it
//! was, how often, and when. Like events in a row are one entry with a count, and so are two kinds
//! that take turns, as probe and pong do: the ring reaches back as far as the story does, not as
//! far as the last 32 heartbeats.

mod incident;

use core::mem::swap;

use crate::time::{Span, Time};
use incident::{COUNT_BITS, Code, expand, squeeze};
pub use incident::{Findings, Incident};

/// How many entries are kept; the oldest gives way.
pub const ENTRIES: usize = 32;

/// The two latest are kept apart, with exact counts.
const OLDER: usize = ENTRIES - 2;

/// Stamps begin with a unit of 2^16 ns, 66 µs, and hold 3 days of it. When a link outlives that the
/// unit doubles: a stamp is always good to a two-billionth of the link's age, and never overflows.
const FIRST_UNIT: u8 = 16;

/// Of a count's six bits two are the mantissa's.
const COUNT_MANTISSA: u32 = 2;

/// The last [`ENTRIES`] events of one link.
///
/// What is written on every read lies together at the front.
#[derive(Clone, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Flight {
    opened: Time,
    latest: Run,
    previous: Run,
    /// The unit of all stamps is 2 to this power, in nanoseconds.
    unit: u8,
    /// Where the next of the older ones goes.
    next: u8,
    /// What each was, and how often.
    words: [u16; OLDER],
    /// When each was, the last time.
    stamps: [u32; OLDER],
}

const _: () = assert!(size_of::<Flight>() <= 208);

/// Like events in a row. None yet if the count is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
struct Run {
    at: u32,
    count: u16,
    code: Code,
}

/// One entry of a flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// When it happened, the last time if it happened often; at most a unit early.
    pub at: Time,
    /// What.
    pub incident: Incident,
    /// How often.
    pub count: u32,
    /// Whether it may have been more often than that.
    pub or_more: bool,
}

impl Flight {
    /// A link that was opened at `now`, which is its first event.
    pub const fn new(now: Time) -> Flight {
        Flight {
            opened: now,
            latest: Run { at: 0, count: 1, code: Code::OPENED },
            previous: Run { at: 0, count: 0, code: Code::NOTHING },
            unit: FIRST_UNIT,
            next: 0,
            words: [0; OLDER],
            stamps: [0; OLDER],
        }
    }

    /// When the link was opened.
    pub const fn opened(&self) -> Time {
        self.opened
    }

    /// Notes what happened.
    #[inline]
    pub fn record(&mut self, now: Time, incident: Incident) {
        let code = incident.code();
        let at = self.stamp(now);
        if self.latest.takes(code) {
            self.latest.add(at, code);
        } else {
            self.turn(at, code);
        }
    }

    /// Notes that so many bytes were read, unless what they said is noted at this instant already.
    #[inline]
    pub fn heard(&mut self, now: Time, bytes: usize) {
        let at = self.stamp(now);
        if self.latest.at == at && self.latest.code.implies_heard() {
            return;
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let code = Incident::Heard { bytes }.code();
        if self.latest.takes(code) {
            self.latest.add(at, code);
        } else {
            self.turn(at, code);
        }
    }

    /// The entries, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        let (newer, older) = self.words.split_at(usize::from(self.next).min(OLDER));
        let (newer_stamps, older_stamps) = self.stamps.split_at(newer.len());
        let words = older.iter().chain(newer);
        let stamps = older_stamps.iter().chain(newer_stamps);
        let ring = words.zip(stamps).filter_map(|(word, stamp)| self.older(*word, *stamp));
        ring.chain(self.recent(self.previous)).chain(self.recent(self.latest))
    }

    fn older(&self, word: u16, stamp: u32) -> Option<Entry> {
        let squeezed = word & ((1 << COUNT_BITS) - 1);
        let count = expand(squeezed, COUNT_MANTISSA);
        Some(Entry {
            at: self.time(stamp),
            incident: Code::of_word(word).incident()?,
            count,
            or_more: expand(squeezed + 1, COUNT_MANTISSA) > count + 1,
        })
    }

    fn recent(&self, run: Run) -> Option<Entry> {
        let (count, or_more) = (u32::from(run.count), run.count == u16::MAX);
        Some(Entry { at: self.time(run.at), incident: run.code.incident()?, count, or_more })
    }

    fn time(&self, stamp: u32) -> Time {
        self.opened + Span::from_nanos(u64::from(stamp) << self.unit)
    }

    #[inline]
    fn stamp(&mut self, now: Time) -> u32 {
        let nanos = now.since(self.opened).as_nanos();
        match u32::try_from(nanos >> self.unit) {
            Ok(stamp) => stamp,
            Err(_) => self.coarsen(nanos),
        }
    }

    /// Another kind of event than the latest.
    fn turn(&mut self, at: u32, code: Code) {
        if self.previous.takes(code) {
            swap(&mut self.latest, &mut self.previous);
            return self.latest.add(at, code);
        }
        if self.previous.count > 0 {
            let index = usize::from(self.next);
            let count = squeeze(u32::from(self.previous.count), COUNT_MANTISSA);
            if let (Some(word), Some(stamp)) =
                (self.words.get_mut(index), self.stamps.get_mut(index))
            {
                *word = self.previous.code.word(count);
                *stamp = self.previous.at;
            }
            self.next = if index + 1 < OLDER { self.next + 1 } else { 0 };
        }
        self.previous = self.latest;
        self.latest = Run { at, count: 1, code };
    }

    /// Doubles the unit until `nanos` fits.
    #[cold]
    fn coarsen(&mut self, nanos: u64) -> u32 {
        loop {
            self.unit += 1;
            self.latest.at >>= 1;
            self.previous.at >>= 1;
            for stamp in &mut self.stamps {
                *stamp >>= 1;
            }
            // At 2^32 ns a stamp holds all that a `Time` does.
            if let Ok(stamp) = u32::try_from(nanos >> self.unit) {
                return stamp;
            }
        }
    }
}

impl Run {
    #[inline]
    fn takes(self, code: Code) -> bool {
        self.code.is_like(code)
    }

    #[inline]
    fn add(&mut self, at: u32, code: Code) {
        self.at = at;
        self.count = self.count.saturating_add(1);
        self.code = self.code.max(code);
    }
}

#[cfg(test)]
mod tests;
