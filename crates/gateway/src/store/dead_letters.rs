//! Dead letters: entries that no receiver will get, in a file for people.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::value::RawValue;

use super::rows::Entry;

/// The size at which a file is put aside as `….1`, in the place of the one before: some hundred
/// thousand letters.
const MAX_FILE: u64 = 64 << 20;

/// The dead letters of one receiver: a line of JSON for each.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    path: PathBuf,
}

#[derive(Serialize)]
struct Line<'a> {
    number: u64,
    why: &'a str,
    event: &'a RawValue,
}

impl DeadLetters {
    /// Returns those of a receiver, in the directory of the store.
    pub fn new(directory: &Path, receiver: &str) -> DeadLetters {
        DeadLetters { path: directory.join(format!("dead-letters-{receiver}.jsonl")) }
    }

    /// Returns the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds entries, and returns when they are on disk.
    ///
    /// # Errors
    /// The file cannot be written. None of the entries is in it.
    pub fn add(&self, entries: &[Entry], why: &str) -> io::Result<()> {
        let mut lines = Vec::new();
        for entry in entries {
            let event: &RawValue = serde_json::from_str(&entry.body)?;
            serde_json::to_writer(&mut lines, &Line { number: entry.number, why, event })?;
            lines.push(b'\n');
        }
        let size = fs::metadata(&self.path).map_or(0, |file| file.len());
        if size > 0 && size + lines.len() as u64 > MAX_FILE {
            fs::rename(&self.path, self.path.with_extension("jsonl.1"))?;
        }
        let mut file: File = OpenOptions::new().create(true).append(true).open(&self.path)?;
        let before = file.metadata()?.len();
        let written = file.write_all(&lines).and_then(|()| file.sync_data());
        if written.is_err() {
            // Half a line would spoil the next one.
            let _ = file.set_len(before);
        }
        written
    }
}
