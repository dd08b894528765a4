//! Why serving ended other than by a drain.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Why serving ended other than by a drain. But for `Bind`, shards may still run in threads of
/// their own: the process should end.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// An address could not be bound. Nothing was started.
    Bind {
        /// What was to listen there.
        what: String,
        /// Where.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// A thread, a poll or a signal handler could not be had.
    Thread(io::Error),
    /// The ready file could not be written.
    ReadyFile {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A shard ended that nobody had told to: an error of ours, which the log tells.
    ShardEnded,
    /// A shard did not stop when told to.
    ShardStuck,
    /// A second signal ended the drain.
    Interrupted,
}

/// What to do when an address cannot be bound, by what the system says.
const BIND_HINTS: [(io::ErrorKind, &str); 3] = [
    (io::ErrorKind::AddrInUse, "another program listens there; stop it, or choose another port"),
    (io::ErrorKind::PermissionDenied, "ports below 1024 need a privilege; choose a higher one"),
    (io::ErrorKind::AddrNotAvailable, "this machine does not have that address"),
];

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Bind { what, address, error } => {
                write!(f, "{what} cannot listen at {address}: {error}")?;
                match BIND_HINTS.iter().find(|(kind, _)| *kind == error.kind()) {
                    Some((_, hint)) => write!(f, "\nhint: {hint}"),
                    None => Ok(()),
                }
            }
            ServeError::Thread(error) => {
                write!(f, "the system refuses what the gateway runs on: {error}")?;
                f.write_str("\nhint: look at the limits on processes, threads and open files")
            }
            ServeError::ReadyFile { path, error } => {
                write!(f, "the ready file {} cannot be written: {error}", path.display())
            }
            ServeError::ShardEnded => f.write_str(
                "a shard ended unexpectedly\nhint: this is an error of ours: please report it",
            ),
            ServeError::ShardStuck => f.write_str("a shard did not stop when told to"),
            ServeError::Interrupted => f.write_str("the drain was cut short by a second signal"),
        }
    }
}

impl std::error::Error for ServeError {}
