//! A record of a machine's inputs and outputs, and its replay.
//!
//! The record holds the settings of the machine and when it starts, each input with its time, and a
//! digest of each output, which covers the bytes on the wire. That is enough to run the same
//! machine again, and to find the first output at which another version decides differently.
//!
//! # Format
//! `SYR2`, the kind of machine (1 byte: 1 for a hub, 2 for a beacon hub), the time at which it
//! starts in nanoseconds (8 bytes), its settings in plain form, then entries. An input is the byte
//! 1, its time in nanoseconds (8 bytes), and its plain form: a tag byte for each enum variant, then
//! the fields in order, integers little-endian in full width, byte strings after their length (4
//! bytes). An output is the byte 2 and its digest (8 bytes). Several inputs may come before the
//! outputs of all of them.

mod digest;

use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use crate::beacon::{self, BeaconHub};
use crate::driver::Timed;
use crate::hub::{self, Hub};
use crate::machine::InputOf;
pub use crate::plain::Damage;
use crate::plain::{Plain, Sink, Source};
use crate::tap::Tap;
use crate::time::Time;

const MAGIC: [u8; 4] = *b"SYR2";
const INPUT: u8 = 1;
const OUTPUT: u8 = 2;

/// A machine that can be recorded and replayed.
pub trait Recorded: Timed + Sized {
    /// The byte that names the kind of machine in a record.
    const KIND: u8;

    /// The settings from which the machine is made.
    type Settings;

    /// Makes the machine.
    fn make(settings: Self::Settings) -> Self;

    /// Appends the plain form of settings.
    fn put_settings(settings: &Self::Settings, out: &mut Vec<u8>);

    /// Decodes settings from the front of `from`.
    ///
    /// # Errors
    /// The bytes are not the plain form of settings.
    fn take_settings(from: &mut &[u8]) -> Result<Self::Settings, Damage>;

    /// Appends the plain form of an input.
    fn put_input(input: &InputOf<'_, Self>, out: &mut Vec<u8>);

    /// Decodes an input from the front of `from` without allocation.
    ///
    /// # Errors
    /// The bytes are not the plain form of an input.
    fn take_input<'a>(from: &mut &'a [u8]) -> Result<InputOf<'a, Self>, Damage>;

    /// Returns the digest of an output, which covers its bytes.
    fn digest(output: &Self::Output<'_>) -> u64;

    /// Returns the number of the link or device that an output is about.
    fn subject(output: &Self::Output<'_>) -> u64;
}

/// Decodes a value from the front of `from`.
fn take<'a, T: Plain<'a>>(from: &mut &'a [u8]) -> Result<T, Damage> {
    let mut source = Source::record(from);
    let value = T::take(&mut source)?;
    *from = source.rest();
    Ok(value)
}

/// Implements the encoding of a recorded machine by the plain forms of its types.
macro_rules! by_plain_forms {
    () => {
        fn put_settings(settings: &Self::Settings, out: &mut Vec<u8>) {
            settings.put(&mut Sink::record(out));
        }

        fn take_settings(from: &mut &[u8]) -> Result<Self::Settings, Damage> {
            take(from)
        }

        fn put_input(input: &InputOf<'_, Self>, out: &mut Vec<u8>) {
            input.put(&mut Sink::record(out));
        }

        fn take_input<'a>(from: &mut &'a [u8]) -> Result<InputOf<'a, Self>, Damage> {
            take(from)
        }

        fn digest(output: &Self::Output<'_>) -> u64 {
            digest::digest(output)
        }
    };
}

impl Recorded for Hub {
    const KIND: u8 = 1;
    type Settings = hub::Settings;

    fn make(settings: hub::Settings) -> Hub {
        Hub::new(settings)
    }

    fn subject(output: &hub::Output<'_>) -> u64 {
        match output {
            hub::Output::Session { session, .. } => *session,
            hub::Output::Link { link, .. }
            | hub::Output::Admit { link, .. }
            | hub::Output::Own { link, .. }
            | hub::Output::Resume { link, .. }
            | hub::Output::GoHome { link, .. }
            | hub::Output::HandedOver { link, .. } => u64::from(*link),
        }
    }

    by_plain_forms!();
}

impl Recorded for BeaconHub {
    const KIND: u8 = 2;
    type Settings = beacon::Settings;

    fn make(settings: beacon::Settings) -> BeaconHub {
        BeaconHub::new(settings)
    }

    fn subject(output: &beacon::Output) -> u64 {
        output.device()
    }

    by_plain_forms!();
}

/// A tap that records a machine's inputs and outputs.
///
/// The record grows without limit: the caller bounds it with [`Recorder::take`].
#[derive(Clone, Debug)]
pub struct Recorder<M> {
    record: Vec<u8>,
    machine: PhantomData<M>,
}

impl<M: Recorded> Recorder<M> {
    /// Creates a recorder for a machine with these settings that starts at `start`.
    pub fn new(start: Time, settings: &M::Settings) -> Recorder<M> {
        let mut record = MAGIC.to_vec();
        record.push(M::KIND);
        start.put(&mut Sink::record(&mut record));
        M::put_settings(settings, &mut record);
        Recorder { record, machine: PhantomData }
    }

    /// Returns the part of the record that was not taken out.
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

impl<M: Recorded> Tap<M> for Recorder<M> {
    fn input(&mut self, now: Time, input: &InputOf<'_, M>) {
        self.record.push(INPUT);
        now.put(&mut Sink::record(&mut self.record));
        M::put_input(input, &mut self.record);
    }

    fn output(&mut self, output: &M::Output<'_>) {
        self.record.push(OUTPUT);
        M::digest(output).put(&mut Sink::record(&mut self.record));
    }
}

/// One entry of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry<I> {
    /// An input of the machine.
    Input {
        /// The time of the input.
        now: Time,
        /// The input.
        input: I,
    },
    /// The digest of an output of the machine.
    Output(u64),
}

/// An iterator over the entries of a record, without allocation. It ends after damage.
#[derive(Clone, Debug)]
pub struct Entries<'a, M> {
    whole: usize,
    rest: &'a [u8],
    over: bool,
    machine: PhantomData<M>,
}

impl<'a, M: Recorded> Entries<'a, M> {
    /// Reads the head of `record`. Returns the time at which the machine starts, its settings, and
    /// an iterator over the entries.
    ///
    /// # Errors
    /// The record is of another version or kind of machine, or damaged.
    pub fn open(record: &'a [u8]) -> Result<(Time, M::Settings, Entries<'a, M>), Damage> {
        let mut rest = record.strip_prefix(&MAGIC).ok_or(Damage::Magic)?;
        if take::<u8>(&mut rest)? != M::KIND {
            return Err(Damage::Kind);
        }
        let start = take(&mut rest)?;
        let settings = M::take_settings(&mut rest)?;
        let entries = Entries { whole: record.len(), rest, over: false, machine: PhantomData };
        Ok((start, settings, entries))
    }

    /// Returns the number of bytes read so far.
    pub const fn offset(&self) -> usize {
        self.whole - self.rest.len()
    }

    fn read(&mut self) -> Result<Option<Entry<InputOf<'a, M>>>, Damage> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut rest = self.rest;
        let entry = match take::<u8>(&mut rest)? {
            INPUT => Entry::Input { now: take(&mut rest)?, input: M::take_input(&mut rest)? },
            OUTPUT => Entry::Output(take(&mut rest)?),
            _ => return Err(Damage::UnknownTag),
        };
        self.rest = rest;
        Ok(Some(entry))
    }
}

impl<'a, M: Recorded> Iterator for Entries<'a, M> {
    type Item = Result<Entry<InputOf<'a, M>>, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let read = self.read().transpose();
        self.over = !matches!(read, Some(Ok(_)));
        read
    }
}

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
    /// The time at which the machine started.
    pub from: Time,
    /// The time of the last input; that of the start before the first.
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
    /// The machine decided differently: its version is not that of the recording.
    Diverged {
        /// The number of the first different entry, from 0.
        entry: u64,
        /// The time of the last input, in the machine's time.
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
        /// The number of the link or device of the replayed output.
        subject: u64,
        /// The digest in the record.
        recorded: u64,
        /// The digest in the replay.
        replayed: u64,
    },
    /// The record has an output, but the machine has none.
    Missing {
        /// The digest in the record.
        recorded: u64,
    },
    /// The machine has an output, but the next entry of the record is an input.
    Surplus {
        /// The number of the link or device of the replayed output.
        subject: u64,
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
                    Divergence::Other { subject, .. } => {
                        write!(f, "the replay has a different output, for {subject}")
                    }
                    Divergence::Missing { .. } => f.write_str("the replay has no output"),
                    Divergence::Surplus { subject, .. } => {
                        write!(f, "the replay has an extra output, for {subject}")
                    }
                }
            }
        }
    }
}

impl core::error::Error for ReplayError {}

/// Makes the machine of `record` again, replays the inputs, and compares the outputs with the
/// recorded ones.
///
/// # Errors
/// The first difference, or damage of the record. No bytes cause a panic.
pub fn replay<M: Recorded>(record: &[u8]) -> Result<ReplaySummary, ReplayError> {
    let (from, settings, mut entries) = Entries::<M>::open(record)
        .map_err(|damage| ReplayError::Damaged { entry: 0, offset: 0, damage })?;
    let mut summary = ReplaySummary { from, until: from, ..ReplaySummary::default() };
    let mut machine = M::make(settings);
    let mut number = 0;
    // After a recorded output the recording polled all outputs before it handed in an input.
    let mut is_polled = false;
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
                is_polled = true;
                compare(&mut machine, recorded)
            }
            Entry::Input { now, input } => {
                let left = core::mem::take(&mut is_polled).then(|| machine.poll_output()).flatten();
                let surplus = left.map(|output| Divergence::Surplus {
                    subject: M::subject(&output),
                    replayed: M::digest(&output),
                });
                match surplus {
                    Some(surplus) => Err(surplus),
                    None => {
                        machine.handle(now, input);
                        while machine.poll_moved().is_some() {}
                        summary.inputs += 1;
                        summary.until = now;
                        Ok(())
                    }
                }
            }
        };
        result.map_err(|divergence| ReplayError::Diverged {
            entry: number,
            at: summary.until,
            divergence,
        })?;
        number += 1;
    }
    while machine.poll_output().is_some() {
        summary.unrecorded += 1;
    }
    Ok(summary)
}

fn compare<M: Recorded>(machine: &mut M, recorded: u64) -> Result<(), Divergence> {
    let Some(output) = machine.poll_output() else {
        return Err(Divergence::Missing { recorded });
    };
    let replayed = M::digest(&output);
    if replayed == recorded {
        Ok(())
    } else {
        Err(Divergence::Other { subject: M::subject(&output), recorded, replayed })
    }
}

#[cfg(test)]
mod tests;
