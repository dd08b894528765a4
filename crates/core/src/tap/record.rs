//! A record of a hub's inputs and outputs, and its replay.
//!
//! The record holds each input completely, with its time, and a digest of each output, with the
//! bytes on the wire. It is enough to run the same hub again, and to find the first output at which
//! another version decides differently.
//!
//! A record does not hold the hub's initial state: the hub given to [`replay`] must be made by
//! [`Hub::new`] with the same time, shard, settings and seed.
//!
//! # Format
//! `SYR1`, then entries. An input is the byte 1, its time in nanoseconds (8 bytes), and its plain
//! form: a tag byte for each enum variant, then the fields in order, integers little-endian in full
//! width, byte strings after their length (4 bytes). An output is the byte 2 and its digest (8
//! bytes).

mod digest;
mod plain;

use alloc::vec::Vec;
use core::fmt;

use crate::hub::{Hub, Input, Output};
use crate::tap::{Machine, Tap};
use crate::time::Time;
use plain::Plain;

const MAGIC: [u8; 4] = *b"SYR1";
const INPUT: u8 = 1;
const OUTPUT: u8 = 2;

/// A tap that records a hub's inputs and outputs.
///
/// The record grows without limit: the caller bounds it with [`Recorder::take`].
#[derive(Clone, Debug)]
pub struct Recorder {
    record: Vec<u8>,
}

impl Recorder {
    /// Creates a recorder with an empty record.
    pub fn new() -> Recorder {
        Recorder { record: MAGIC.to_vec() }
    }

    /// Returns the record so far, without what was taken out.
    pub fn record(&self) -> &[u8] {
        &self.record
    }

    /// Takes out what was recorded since the last call; all pieces together are the record.
    pub fn take(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.record)
    }

    /// Drops the recorder and returns the rest of the record.
    pub fn into_record(self) -> Vec<u8> {
        self.record
    }
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder::new()
    }
}

impl Tap<Hub> for Recorder {
    fn input(&mut self, now: Time, input: &Input<'_>) {
        self.record.push(INPUT);
        now.put(&mut self.record);
        input.put(&mut self.record);
    }

    fn output(&mut self, output: &Output<'_>) {
        self.record.push(OUTPUT);
        digest::digest(output).put(&mut self.record);
    }
}

/// One entry of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry<'a> {
    /// An input of the hub.
    Input {
        /// The time of the input.
        now: Time,
        /// The input.
        input: Input<'a>,
    },
    /// The digest of an output of the hub.
    Output(u64),
}

/// An iterator over the entries of a record, without allocation. It ends after damage.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    whole: usize,
    rest: &'a [u8],
    started: bool,
    over: bool,
}

impl<'a> Entries<'a> {
    /// Creates an iterator over the entries of `record`.
    pub const fn new(record: &'a [u8]) -> Entries<'a> {
        Entries { whole: record.len(), rest: record, started: false, over: false }
    }

    /// Returns the number of bytes read so far.
    pub const fn offset(&self) -> usize {
        self.whole - self.rest.len()
    }

    fn read(&mut self) -> Result<Option<Entry<'a>>, Damage> {
        if !self.started {
            self.rest = self.rest.strip_prefix(&MAGIC).ok_or(Damage::Magic)?;
            self.started = true;
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut rest = self.rest;
        let entry = match u8::take(&mut rest)? {
            INPUT => Entry::Input { now: Time::take(&mut rest)?, input: Input::take(&mut rest)? },
            OUTPUT => Entry::Output(u64::take(&mut rest)?),
            _ => return Err(Damage::UnknownTag),
        };
        self.rest = rest;
        Ok(Some(entry))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let read = self.read().transpose();
        self.over = !matches!(read, Some(Ok(_)));
        read
    }
}

/// The damage of a record. Not the reader's fault; entries before it are good, entries after it
/// cannot be read, and a retry gives the same error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// The record does not begin with the magic of this version.
    Magic,
    /// The record ends within an entry, as after a crash of the recording process.
    Truncated,
    /// An entry has an unknown tag.
    UnknownTag,
    /// An entry has a policy that no constructor accepts.
    Policy,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Damage::Magic => "not a record of this version",
            Damage::Truncated => "it ends within an entry",
            Damage::UnknownTag => "an unknown tag",
            Damage::Policy => "an illegal policy",
        })
    }
}

impl core::error::Error for Damage {}

/// The summary of a complete replay.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReplaySummary {
    /// The number of inputs replayed.
    pub inputs: u64,
    /// The number of outputs, all equal to the recorded ones.
    pub outputs: u64,
    /// The number of outputs of the last input that are not in the record: 0, unless the recording
    /// ended before all were polled.
    pub unrecorded: u64,
    /// The time of the last input.
    pub until: Time,
}

/// The reason why a replay stopped early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplayError {
    /// The record is damaged.
    Damaged {
        /// The number of the entry, from 0.
        entry: u64,
        /// The byte offset at which that entry begins.
        offset: usize,
        /// The damage of the entry.
        damage: Damage,
    },
    /// The hub decided differently: its version, settings or seed are not those of the recording.
    Diverged {
        /// The number of the first different entry, from 0.
        entry: u64,
        /// The time of the last input, in the hub's time.
        at: Time,
        /// The difference.
        divergence: Divergence,
    },
}

/// The difference between a replay and its record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Divergence {
    /// The output differs from the recorded one.
    Other {
        /// The link of the replayed output.
        link: u32,
        /// The digest in the record.
        recorded: u64,
        /// The digest in the replay.
        replayed: u64,
    },
    /// The record has an output, but the hub has none.
    Missing {
        /// The digest in the record.
        recorded: u64,
    },
    /// The hub has an output, but the next entry of the record is an input.
    Surplus {
        /// The link of the replayed output.
        link: u32,
        /// The digest in the replay.
        replayed: u64,
    },
}

impl fmt::Display for ReplayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplayError::Damaged { entry, offset, damage } => {
                write!(f, "entry {entry}, at byte {offset}: the record is damaged: {damage}")
            }
            ReplayError::Diverged { entry, at, divergence } => {
                write!(f, "entry {entry}, at {}: ", at.since(Time::ZERO))?;
                match divergence {
                    Divergence::Other { link, .. } => {
                        write!(f, "the replay has a different output, for link {link}")
                    }
                    Divergence::Missing { .. } => f.write_str("the replay has no output"),
                    Divergence::Surplus { link, .. } => {
                        write!(f, "the replay has an extra output, for link {link}")
                    }
                }
            }
        }
    }
}

impl core::error::Error for ReplayError {}

/// Replays the inputs of `record` on `hub`, and compares the outputs with the recorded ones.
/// `hub` must be made in the same way as the recorded one.
///
/// # Errors
/// The first difference, or damage of the record. No bytes cause a panic.
pub fn replay(mut hub: Hub, record: &[u8]) -> Result<ReplaySummary, ReplayError> {
    let mut summary = ReplaySummary::default();
    let mut entries = Entries::new(record);
    let mut number = 0;
    loop {
        let offset = entries.offset();
        let entry = match entries.next() {
            None => break,
            Some(Ok(entry)) => entry,
            Some(Err(damage)) => {
                return Err(ReplayError::Damaged { entry: number, offset, damage });
            }
        };
        let result = match entry {
            Entry::Output(recorded) => {
                summary.outputs += 1;
                compare(&mut hub, recorded)
            }
            Entry::Input { now, input } => feed(&mut hub, now, input).inspect(|()| {
                summary.inputs += 1;
                summary.until = now;
            }),
        };
        result.map_err(|divergence| ReplayError::Diverged {
            entry: number,
            at: summary.until,
            divergence,
        })?;
        number += 1;
    }
    while hub.poll_output().is_some() {
        summary.unrecorded += 1;
    }
    Ok(summary)
}

fn feed(hub: &mut Hub, now: Time, input: Input<'_>) -> Result<(), Divergence> {
    if let Some(output) = hub.poll_output() {
        let replayed = digest::digest(&output);
        return Err(Divergence::Surplus { link: output.link(), replayed });
    }
    hub.handle(now, input);
    Ok(())
}

fn compare(hub: &mut Hub, recorded: u64) -> Result<(), Divergence> {
    let Some(output) = hub.poll_output() else {
        return Err(Divergence::Missing { recorded });
    };
    let replayed = digest::digest(&output);
    if replayed == recorded {
        Ok(())
    } else {
        Err(Divergence::Other { link: output.link(), recorded, replayed })
    }
}

#[cfg(test)]
mod tests;
