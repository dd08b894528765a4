//! The flight recorder of one link: a fixed ring of its latest events, read after a verdict.
//!
//! Every link needs this memory, so an event takes only six bytes: kind, count and time. Equal
//! events in a row share one entry with a count. Two kinds that alternate, such as probe and pong,
//! take two entries. So the ring covers much more than the last 32 heartbeats.

mod incident;

use core::mem::swap;

use crate::plain::{Damage, Plain, Sink, Source, plain_struct};
use crate::time::{Span, Time};
use incident::{COUNT_BITS, Code, compress, decompress};
pub use incident::{Findings, Incident};

/// The number of entries in the ring. A new entry replaces the oldest.
pub const ENTRIES: usize = 32;

/// The number of compressed entries. The two latest entries are separate, with exact counts.
const OLDER: usize = ENTRIES - 2;

/// The initial unit of stamps: 2^16 ns, 66 µs, which covers 3 days. The unit doubles when the link
/// outlives the range: a stamp is exact to a two-billionth of the link's age, and never overflows.
const FIRST_UNIT: u8 = 16;

/// The mantissa bits among the six bits of a count.
const COUNT_MANTISSA: u32 = 2;

/// The flight recorder: the last [`ENTRIES`] entries of one link.
///
/// The fields that every read of the socket updates are adjacent, at the front.
#[derive(Clone, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Flight {
    opened: Time,
    latest: Run,
    previous: Run,
    /// The unit of all stamps, as a power of 2 in nanoseconds.
    unit: u8,
    /// The index of the next compressed entry.
    next: u8,
    /// The kind and count of each compressed entry.
    words: [u16; OLDER],
    /// The last time of each compressed entry.
    stamps: [u32; OLDER],
}

const _: () = assert!(size_of::<Flight>() <= 208);

/// The unit at which a stamp covers the whole range of `Time`.
const LAST_UNIT: u8 = 32;

/// Equal events in a row; the run is empty if the count is 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
struct Run {
    at: u32,
    count: u16,
    code: Code,
}

/// One entry of a flight recorder: an incident, its time and its count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// When the incident last happened; at most one stamp unit too early.
    pub at: Time,
    /// What happened.
    pub incident: Incident,
    /// How often the incident happened.
    pub count: u32,
    /// True if the incident may have happened more often than `count`.
    pub or_more: bool,
}

impl Flight {
    /// Creates the recorder of a link opened at `now`, which is its first event.
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

    /// Returns when the link was opened.
    pub const fn opened(&self) -> Time {
        self.opened
    }

    /// Records an incident.
    #[inline]
    pub fn record(&mut self, now: Time, incident: Incident) {
        let code = incident.code();
        let at = self.stamp(now);
        if self.latest.accepts(code) {
            self.latest.add(at, code);
        } else {
            self.switch_run(at, code);
        }
    }

    /// Records a read of `bytes` bytes, unless an incident that implies a read has the same stamp.
    #[inline]
    pub fn heard(&mut self, now: Time, bytes: usize) {
        let at = self.stamp(now);
        if self.latest.at == at && self.latest.code.implies_heard() {
            return;
        }
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let code = Incident::Heard { bytes }.code();
        if self.latest.accepts(code) {
            self.latest.add(at, code);
        } else {
            self.switch_run(at, code);
        }
    }

    /// Iterates over the entries, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Entry> + '_ {
        let (newer, older) = self.words.split_at(usize::from(self.next).min(OLDER));
        let (newer_stamps, older_stamps) = self.stamps.split_at(newer.len());
        let words = older.iter().chain(newer);
        let stamps = older_stamps.iter().chain(newer_stamps);
        let ring = words.zip(stamps).filter_map(|(word, stamp)| self.older(*word, *stamp));
        ring.chain(self.recent(self.previous)).chain(self.recent(self.latest))
    }

    fn older(&self, word: u16, stamp: u32) -> Option<Entry> {
        let compressed = word & ((1 << COUNT_BITS) - 1);
        let count = decompress(compressed, COUNT_MANTISSA);
        Some(Entry {
            at: self.time(stamp),
            incident: Code::of_word(word).incident()?,
            count,
            or_more: decompress(compressed + 1, COUNT_MANTISSA) > count + 1,
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
            Err(_) => self.double_unit(nanos),
        }
    }

    /// Adds an event of another kind than the latest.
    fn switch_run(&mut self, at: u32, code: Code) {
        if self.previous.accepts(code) {
            swap(&mut self.latest, &mut self.previous);
            return self.latest.add(at, code);
        }
        if self.previous.count > 0 {
            let index = usize::from(self.next);
            let count = compress(u32::from(self.previous.count), COUNT_MANTISSA);
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

    /// Moves the opening later by `span`, up to the origin of the clock on which the link was
    /// loaded. What happened before the origin is put there; the rest keeps its time.
    fn move_opening(&mut self, span: Span) {
        let units = u32::try_from(span.as_nanos().div_ceil(1 << self.unit)).unwrap_or(u32::MAX);
        for stamp in
            [&mut self.latest.at, &mut self.previous.at].into_iter().chain(&mut self.stamps)
        {
            *stamp = stamp.saturating_sub(units);
        }
    }

    /// Doubles the unit until `nanos` fits.
    #[cold]
    fn double_unit(&mut self, nanos: u64) -> u32 {
        loop {
            self.unit += 1;
            self.latest.at >>= 1;
            self.previous.at >>= 1;
            for stamp in &mut self.stamps {
                *stamp >>= 1;
            }
            // At the latest at `LAST_UNIT`.
            if let Ok(stamp) = u32::try_from(nanos >> self.unit) {
                return stamp;
            }
        }
    }
}

impl Plain<'_> for Flight {
    fn put(&self, out: &mut Sink<'_>) {
        let Flight { opened, latest, previous, unit, next, words, stamps } = self;
        opened.put(out);
        latest.put(out);
        previous.put(out);
        unit.put(out);
        next.put(out);
        words.put(out);
        stamps.put(out);
    }

    fn take(from: &mut Source<'_>) -> Result<Flight, Damage> {
        let (opened, before) = from.time()?;
        let mut flight = Flight {
            opened,
            latest: Plain::take(from)?,
            previous: Plain::take(from)?,
            unit: Plain::take(from)?,
            next: Plain::take(from)?,
            words: Plain::take(from)?,
            stamps: Plain::take(from)?,
        };
        let is_legal = (FIRST_UNIT..=LAST_UNIT).contains(&flight.unit)
            && usize::from(flight.next) < OLDER
            && flight.latest.count > 0;
        if !is_legal {
            return Err(Damage::Illegal);
        }
        flight.move_opening(before);
        Ok(flight)
    }
}

plain_struct! { Run { at, count, code } }

impl Run {
    #[inline]
    fn accepts(self, code: Code) -> bool {
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
