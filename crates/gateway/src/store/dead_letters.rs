//! Dead letters: entries that no receiver will get, in a file for people.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::Serialize;
use serde_json::value::RawValue;

use super::rows::Entry;
use crate::json::to_json;

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
    /// The file cannot be written, or is no regular file. None of the entries is in it.
    pub fn add(&self, entries: &[Entry], why: &str) -> io::Result<()> {
        let mut lines = String::new();
        for entry in entries {
            let event: &RawValue = serde_json::from_str(&entry.body)?;
            lines += &to_json(&Line { number: entry.number, why, event })?;
            lines.push('\n');
        }
        let found = fs::metadata(&self.path);
        if found.as_ref().is_ok_and(|file| !file.is_file()) {
            return Err(no_file());
        }
        let size = found.map_or(0, |file| file.len());
        if size > 0 && size + lines.len() as u64 > MAX_FILE {
            fs::rename(&self.path, self.path.with_extension("jsonl.1"))?;
        }
        // A FIFO that takes the place of the file meanwhile would wait for a reader.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = flags.bits().cast_signed();
        let mut options = OpenOptions::new();
        let options = options.create(true).append(true).custom_flags(flags);
        let mut file: File = options.open(&self.path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(no_file());
        }
        let before = metadata.len();
        let written = file.write_all(lines.as_bytes()).and_then(|()| file.sync_data());
        if written.is_err() {
            // Half a line would spoil the next one.
            let _ = file.set_len(before);
        }
        written
    }
}

fn no_file() -> io::Error {
    let what = "something else has its place: only a regular file is written. Move it away";
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::json::tests::{HARMFUL, assert_harmless};
    use crate::webhooks::fixture::harmful_entry;

    #[test]
    fn a_letter_holds_no_harmful_character_whenever_its_event_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let letters = DeadLetters::new(directory.path(), "a");
        letters.add(&[harmful_entry()], HARMFUL).unwrap();
        let line = fs::read_to_string(letters.path()).unwrap();
        assert_harmless(&line, "/why");
        assert_harmless(&line, "/event/identity");
    }

    #[test]
    fn what_is_no_regular_file_is_refused_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let letters = DeadLetters::new(directory.path(), "a");
        assert!(Command::new("mkfifo").arg(letters.path()).status().unwrap().success());
        let refused = |letters: &DeadLetters| {
            let (done, answer) = mpsc::channel();
            let letters = letters.clone();
            std::thread::spawn(move || done.send(letters.add(&[], "why")));
            let added = answer.recv_timeout(Duration::from_secs(20)).expect("it waits");
            assert!(added.unwrap_err().to_string().contains("only a regular file"));
        };
        refused(&letters);
        // With a reader it could be opened.
        let reader = OpenOptions::new().read(true).write(true).open(letters.path()).unwrap();
        refused(&letters);
        drop(reader);
        fs::remove_file(letters.path()).unwrap();
        std::os::unix::fs::symlink("/dev/null", letters.path()).unwrap();
        refused(&letters);
        fs::remove_file(letters.path()).unwrap();
        fs::create_dir(letters.path()).unwrap();
        refused(&letters);
        fs::remove_dir(letters.path()).unwrap();
        letters.add(&[], "why").unwrap();
    }
}
