//! Whether the files of a store are still the ones that were opened, with all that was written.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The name of the database; its write-ahead log has the same with `-wal`.
pub(super) const FILE: &str = "systole.db";

/// The files of an open store: the database and its write-ahead log.
///
/// What is written into a file that was removed or replaced, the next start does not find; and a
/// log that was cut has lost what was written before. SQLite looks at neither while it has them
/// open.
#[derive(Debug)]
pub(super) struct Files {
    database: Seen,
    log: Seen,
}

/// A file, as it was after the last transaction.
#[derive(Debug)]
struct Seen {
    path: PathBuf,
    /// Its device and number.
    file: (u64, u64),
    length: u64,
}

impl Files {
    /// Looks at the files of a store in `directory` that was opened and written to.
    pub(super) fn look(directory: &Path) -> io::Result<Files> {
        let database = Seen::look(directory.join(FILE))?;
        let log = Seen::look(directory.join(format!("{FILE}-wal")))?;
        Ok(Files { database, log })
    }

    /// Returns the write-ahead log.
    pub(super) fn log(&self) -> &Path {
        &self.log.path
    }

    /// Looks whether both files are there, and no shorter than they were.
    pub(super) fn check(&self) -> io::Result<()> {
        self.database.check().and_then(|()| self.log.check())
    }

    /// Remembers the lengths after something was written. A file that was replaced since the last
    /// look keeps its old one, and the next look finds it.
    pub(super) fn note_written(&mut self) {
        self.database.note_written();
        self.log.note_written();
    }
}

impl Seen {
    fn look(path: PathBuf) -> io::Result<Seen> {
        let (file, length) = look(&path)?;
        Ok(Seen { path, file, length })
    }

    fn check(&self) -> io::Result<()> {
        let here = look(&self.path).ok();
        let what = match here {
            Some((file, length)) if file == self.file && length >= self.length => return Ok(()),
            Some((file, _)) if file == self.file => "was cut",
            _ => "was removed or replaced",
        };
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let what = format!("{name} {what} while it was open: restart the gateway");
        Err(io::Error::other(what))
    }

    fn note_written(&mut self) {
        if let Ok((file, length)) = look(&self.path)
            && file == self.file
        {
            self.length = length;
        }
    }
}

/// Returns device and number of a file, and its length.
fn look(path: &Path) -> io::Result<((u64, u64), u64)> {
    fs::metadata(path).map(|it| ((it.dev(), it.ino()), it.len()))
}
