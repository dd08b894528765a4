//! A record of all that passed a hub's doors, and its replay.
//!
//! Of each input the record holds the time and everything it says; of each output a digest of all
//! it says, the bytes on the wire included. So a record is enough to run the same hub again, and
//! to tell at which output another version of it first decides differently.
//!
//! What a record does not hold is the hub it began with: the one given to [`replay`] must be made
//! by [`Hub::new`] with the same time, shard, settings and seed.
//!
//! # The form
//! `SYR1`, then entries. An input is the byte 1, its time in nanoseconds (8 bytes), and its plain
//! form: a tag byte for each choice, then the fields in their order, integers little-endian and in
//! full width, bytes after their length (4 bytes). An output is the byte 2 and its digest (8
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

/// Writes down what passes a hub's doors.
///
/// It grows by what passes: whoever drives the hub bounds it, by taking the record out with
/// [`Recorder::take`] or by ending.
#[derive(Clone, Debug)]
pub struct Recorder {
    record: Vec<u8>,
}

impl Recorder {
    /// An empty record.
    pub fn new() -> Recorder {
        Recorder { record: MAGIC.to_vec() }
    }

    /// The record so far, without what was taken out.
    pub fn record(&self) -> &[u8] {
        &self.record
    }

    /// Takes out what was written since the last call; the pieces together are the record.
    pub fn take(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.record)
    }

    /// What is left of the record, and the end of the recorder.
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
    /// What the hub was told, and when.
    Input {
        /// When.
        now: Time,
        /// What.
        input: Input<'a>,
    },
    /// The digest of what it wanted, or told.
    Output(u64),
}

/// The entries of a record, read where they lie: nothing is allocated. After damage it ends.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    whole: usize,
    rest: &'a [u8],
    started: bool,
    over: bool,
}

impl<'a> Entries<'a> {
    /// The entries of `record`.
    pub const fn new(record: &'a [u8]) -> Entries<'a> {
        Entries { whole: record.len(), rest: record, started: false, over: false }
    }

    /// How many bytes of the record have been read.
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

/// What is wrong with a record. Not the reader's fault; what was read before it is good, and
/// nothing after it can be read; trying again reads the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// It does not begin as a record of this version does.
    Magic,
    /// It ends within an entry, as it does after a crash of the recording process.
    Truncated,
    /// A tag that stands for nothing.
    UnknownTag,
    /// A policy that no constructor would accept.
    Policy,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Damage::Magic => "not a record of this version",
            Damage::Truncated => "it ends within an entry",
            Damage::UnknownTag => "a tag that stands for nothing",
            Damage::Policy => "an illegal policy",
        })
    }
}

impl core::error::Error for Damage {}

/// What was replayed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReplaySummary {
    /// Inputs fed.
    pub inputs: u64,
    /// Outputs that were the same.
    pub outputs: u64,
    /// Outputs of the last input that the record does not have: none, unless the recording ended
    /// before all of them were polled.
    pub unrecorded: u64,
    /// The time of the last input.
    pub until: Time,
}

/// Why a replay stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplayError {
    /// The record cannot be read on.
    Damaged {
        /// The number of the entry, from 0.
        entry: u64,
        /// The byte at which that entry begins.
        offset: usize,
        /// What is wrong with it.
        damage: Damage,
    },
    /// The hub decided otherwise: it, its settings, or its seed are not those of the recording.
    Diverged {
        /// The number of the entry, from 0, at which the difference showed.
        entry: u64,
        /// When, in the hub's time.
        at: Time,
        /// How the two differ.
        divergence: Divergence,
    },
}

/// How a replay differs from its record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Divergence {
    /// Another output.
    Other {
        /// The link it is about now.
        link: u32,
        /// The digest in the record.
        recorded: u64,
        /// The digest now.
        replayed: u64,
    },
    /// The record has an output, and the hub has none.
    Missing {
        /// The digest in the record.
        recorded: u64,
    },
    /// The hub has an output, and the record goes on with an input.
    Surplus {
        /// The link it is about.
        link: u32,
        /// Its digest.
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
                        write!(f, "the replay says something else, about link {link}")
                    }
                    Divergence::Missing { .. } => f.write_str("the replay says nothing"),
                    Divergence::Surplus { link, .. } => {
                        write!(f, "the replay says something more, about link {link}")
                    }
                }
            }
        }
    }
}

impl core::error::Error for ReplayError {}

/// Feeds the inputs of `record` to `hub`, which must be made as the recorded one was, and compares
/// its outputs with the recorded ones.
///
/// # Errors
/// Stops at the first difference, or where the record is damaged. No bytes make it panic.
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
        let checked = match entry {
            Entry::Output(recorded) => {
                summary.outputs += 1;
                compare(&mut hub, recorded)
            }
            Entry::Input { now, input } => feed(&mut hub, now, input).inspect(|()| {
                summary.inputs += 1;
                summary.until = now;
            }),
        };
        checked.map_err(|divergence| ReplayError::Diverged {
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
        return Err(Divergence::Surplus { link: output.link, replayed });
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
        Err(Divergence::Other { link: output.link, recorded, replayed })
    }
}

#[cfg(test)]
mod tests;
