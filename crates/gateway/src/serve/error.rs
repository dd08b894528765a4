//! The errors that end [`serve`](crate::serve).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::store::StoreError;

/// The error that kept a gateway from starting or from a complete drain. Except after those
/// that start nothing, shard threads may still run: the process should end.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// An address could not be bound. Nothing was started.
    Bind {
        /// The listener, as a phrase.
        what: String,
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        error: io::Error,
    },
    /// What the parent of this process passed is no listening TCP socket. Nothing was started.
    Inherited(io::Error),
    /// Two inherited sockets listen at one address. Nothing was started.
    InheritedTwice {
        /// The address.
        address: SocketAddr,
    },
    /// An inherited socket belongs to no listener. Nothing was started.
    InheritedUnclaimed {
        /// The address of the socket.
        address: SocketAddr,
        /// The configured addresses: of the admin interface and of the stream listeners.
        sought: Vec<SocketAddr>,
    },
    /// The system refused a thread, a poll or a signal handler.
    Thread(io::Error),
    /// The ready file could not be written.
    ReadyFile {
        /// The path of the ready file.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// The store cannot be opened. Nothing was started, and nothing in it was changed.
    Store(StoreError),
    /// A shard thread ended unexpectedly. The log has the reason.
    ShardEnded,
    /// A shard did not stop when requested.
    ShardStuck,
    /// A second signal ended the drain.
    Interrupted,
}

/// Hints for an address that cannot be bound, by kind of system error.
const BIND_HINTS: [(io::ErrorKind, &str); 3] = [
    (
        io::ErrorKind::AddrInUse,
        "another program listens there; stop it, or choose another address (--listen, --admin)",
    ),
    (io::ErrorKind::PermissionDenied, "ports below 1024 need a privilege; choose a higher one"),
    (io::ErrorKind::AddrNotAvailable, "this machine does not have that address"),
];

impl ServeError {
    /// Returns true if the gateway had started: then its log has the error.
    pub fn is_logged(&self) -> bool {
        match self {
            ServeError::ShardEnded | ServeError::ShardStuck | ServeError::Interrupted => true,
            ServeError::Bind { .. }
            | ServeError::Inherited(_)
            | ServeError::InheritedTwice { .. }
            | ServeError::InheritedUnclaimed { .. }
            | ServeError::Thread(_)
            | ServeError::Store(_)
            | ServeError::ReadyFile { .. } => false,
        }
    }
}

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
            ServeError::Inherited(error) => {
                write!(f, "an inherited descriptor cannot be used: {error}")?;
                f.write_str("\nhint: pass sockets that listen for TCP (Accept=no in systemd); ")?;
                f.write_str("beacon listeners open their UDP sockets themselves")
            }
            ServeError::InheritedTwice { address } => {
                write!(f, "two inherited sockets listen at {address}")?;
                f.write_str("\nhint: pass one: all shards accept from it")
            }
            ServeError::InheritedUnclaimed { address, sought } => {
                write!(f, "no listener takes the inherited socket at {address}")?;
                f.write_str("\nhint: give a listener the same address; configured are ")?;
                let sought: Vec<_> = sought.iter().map(SocketAddr::to_string).collect();
                f.write_str(&sought.join(", "))
            }
            ServeError::Thread(error) => {
                write!(f, "the system refuses what the gateway runs on: {error}")?;
                f.write_str("\nhint: check the limits on processes, threads and open files")
            }
            ServeError::ReadyFile { path, error } => {
                write!(f, "the ready file {} cannot be written: {error}", path.display())
            }
            ServeError::Store(error) => error.fmt(f),
            ServeError::ShardEnded => f.write_str(
                "a shard ended unexpectedly\nhint: this is an error of ours: please report it",
            ),
            ServeError::ShardStuck => f.write_str("a shard did not stop when requested"),
            ServeError::Interrupted => f.write_str("the drain was cut short by a second signal"),
        }
    }
}

impl std::error::Error for ServeError {}
