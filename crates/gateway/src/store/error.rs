//! Why a store cannot be opened.

use std::fmt;
use std::path::PathBuf;

/// The reason why a store cannot be opened. Nothing in it was changed.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// The directory cannot be made or read.
    Directory {
        /// The directory.
        path: PathBuf,
        /// The error of the system.
        error: std::io::Error,
    },
    /// Another process has it open.
    InUse(PathBuf),
    /// It was written by a newer version, or by another program.
    Foreign(PathBuf),
    /// The database fails.
    Database {
        /// Its file.
        path: PathBuf,
        /// The error of the database.
        error: rusqlite::Error,
    },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the store cannot be opened: ")?;
        match self {
            StoreError::Directory { path, error } => {
                write!(f, "{}: {error}", path.display())?;
                f.write_str("\nhint: `path` in [store] is a directory that this user may write; ")?;
                f.write_str("the one above it must exist")
            }
            StoreError::InUse(path) => {
                write!(f, "another process uses {}", path.display())?;
                f.write_str("\nhint: stop the other gateway, or give each a `path` of its own")
            }
            StoreError::Foreign(path) => {
                write!(f, "{} is of a newer version, or not a store", path.display())?;
                f.write_str("\nhint: run the version that wrote it, or set another `path`; ")?;
                f.write_str("cleanups that are still owed would be forgotten with it")
            }
            StoreError::Database { path, error } => {
                write!(f, "{}: {error}", path.display())?;
                f.write_str("\nhint: the cleanups of sessions that were online when the gateway ")?;
                f.write_str(
                    "ended are in it. If it is damaged, `sqlite3 FILE .recover` may save ",
                )?;
                f.write_str("them; move it away to begin anew, and clean up after all that ")?;
                f.write_str("were online. `required = false` in [store] serves without it")
            }
        }
    }
}

impl std::error::Error for StoreError {}
