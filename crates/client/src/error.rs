//! What can go wrong, whose fault it is, and what to do about it.

use std::fmt;
use std::io;
use std::time::Duration;

use systole_core::cause::Verdict;
use systole_core::link::Goodbye;

/// Why there is no link. Nothing stays open; try again with [`crate::Client::connect`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name was not found. The caller's fault, or that of the name service.
    Resolve {
        /// The name as it was given.
        name: String,
        /// What the system said.
        why: String,
    },
    /// No address of the name accepted; the last one's answer. The server's fault or the path's.
    Io {
        /// What kind of error.
        kind: io::ErrorKind,
        /// What the system said.
        why: String,
    },
    /// Nobody answered in this time. The server's fault, who is full, or the path's.
    Timeout(Duration),
    /// Connected, but the handshake failed. The server's fault, or it does not want us.
    Handshake {
        /// Why.
        verdict: Verdict,
        /// What the gateway said about coming back, if it said goodbye.
        farewell: Option<Goodbye>,
    },
}

impl ConnectError {
    /// Whether the same attempt may succeed later.
    pub fn is_retryable(&self) -> bool {
        match self {
            // A name service has its bad moments as well.
            ConnectError::Io { .. } | ConnectError::Timeout(_) | ConnectError::Resolve { .. } => {
                true
            }
            ConnectError::Handshake { farewell, .. } => {
                farewell.is_none_or(|goodbye| !goodbye.stay_away)
            }
        }
    }

    pub(crate) fn farewell(&self) -> Option<Goodbye> {
        match self {
            ConnectError::Handshake { farewell, .. } => *farewell,
            ConnectError::Resolve { .. } | ConnectError::Io { .. } | ConnectError::Timeout(_) => {
                None
            }
        }
    }

    pub(crate) fn from_io(error: &io::Error) -> ConnectError {
        ConnectError::Io { kind: error.kind(), why: error.to_string() }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Resolve { name, why } => write!(f, "no address for {name:?}: {why}"),
            ConnectError::Io { why, .. } => write!(f, "not connected: {why}"),
            ConnectError::Timeout(after) => write!(f, "not connected: no answer in {after:?}"),
            ConnectError::Handshake { verdict, .. } => {
                write!(f, "connected, but not accepted: {}", verdict.cause)
            }
        }
    }
}

impl std::error::Error for ConnectError {}

/// Why a message was not taken. None of it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SendError {
    /// There is no link at the moment. Nobody's fault here; try again after
    /// [`crate::Event::Reconnected`].
    NotConnected,
    /// Longer than can ever be sent. The caller's fault; do not try again.
    TooLong {
        /// The most bytes that this client's queue or codec takes.
        longest: usize,
    },
    /// The queue is full: the server reads more slowly than we write. Try again, or use
    /// [`crate::Client::send`], which waits.
    Full,
    /// The client is at its end. Connect anew.
    Closed,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::NotConnected => f.write_str("no link at the moment"),
            SendError::TooLong { longest } => write!(f, "longer than {longest} bytes"),
            SendError::Full => f.write_str("the queue is full: the server reads too slowly"),
            SendError::Closed => f.write_str("the client is at its end"),
        }
    }
}

impl std::error::Error for SendError {}
