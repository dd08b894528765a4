//! Errors: for each, whose fault it is, and whether to retry.

use std::fmt;
use std::io;
use std::time::Duration;

use systole_core::cause::Verdict;
use systole_core::link::Goodbye;
use systole_core::reconnect::{self, Obstacle};
use systole_core::text::Escaped;
use systole_net::tls::{Distrust, TlsError};

/// Error of an attempt to connect. Nothing stays open; retry with [`crate::Client::connect`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// No address was found. The caller's fault, or that of the name service.
    Resolve {
        /// The name as given by the caller.
        name: String,
        /// The message of the system.
        why: String,
        /// What it means, and whether another attempt may overcome it.
        obstacle: Obstacle,
    },
    /// The identity in the options has a control character. The caller's fault; do not retry.
    Identity,
    /// No certificate can name the host, or TLS cannot begin. The caller's fault; do not retry.
    Tls(TlsError),
    /// There is no token: the source in the options failed, or gave one that cannot be used. The
    /// fault of the source; another attempt asks it again.
    Token {
        /// What the source says, at most 512 characters of it.
        why: String,
        /// Whether the source gave again the token that the server refused.
        again: bool,
    },
    /// No address accepted the connection; this is the error of the last one. The fault of the
    /// server or of the path, or a prohibition on this machine.
    Io {
        /// The kind of the error.
        kind: io::ErrorKind,
        /// The message of the system.
        why: String,
        /// What it means, and whether another attempt may overcome it.
        obstacle: Obstacle,
    },
    /// The server did not answer within this time. The fault of the server, which may be
    /// overloaded, or of the path.
    Timeout(Duration),
    /// The connection was established, but its handshake failed. The server's fault, or a refusal.
    Handshake {
        /// Why the link ended.
        verdict: Verdict,
        /// The gateway's CLOSE, if one arrived, which says whether to reconnect.
        farewell: Option<Goodbye>,
        /// The first bytes that came back, at most 64: they show which protocol the server speaks.
        answer: Vec<u8>,
        /// What the server's CLOSE says to people; empty without one. It is not escaped.
        text: Box<str>,
        /// How far TLS came; `None` for a plain connection.
        tls: Option<TlsProgress>,
    },
}

/// How far TLS came before a handshake failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TlsProgress {
    /// It was begun, and is not complete.
    Begun,
    /// The server showed a certificate that is not believed.
    Distrusted(Distrust),
    /// It is complete: what failed came later.
    Complete,
}

impl ConnectError {
    /// Returns whether the same attempt may succeed later. What a server refuses because of its
    /// token does not; with another token it may.
    pub fn is_retryable(&self) -> bool {
        if matches!(self, ConnectError::Identity | ConnectError::Tls(_)) {
            return false;
        }
        match self.farewell() {
            Some(goodbye) => goodbye.stop().is_none(),
            None => self.obstacle().is_none_or(|obstacle| !obstacle.is_final()),
        }
    }

    /// Returns what was in the way; `None` if the server itself refused.
    pub fn obstacle(&self) -> Option<Obstacle> {
        match self {
            ConnectError::Resolve { obstacle, .. } | ConnectError::Io { obstacle, .. } => {
                Some(*obstacle)
            }
            ConnectError::Timeout(_) => Some(Obstacle::NoAnswer),
            ConnectError::Token { .. } => Some(Obstacle::NoToken),
            ConnectError::Handshake { .. } | ConnectError::Identity | ConnectError::Tls(_) => None,
        }
    }

    pub(crate) fn farewell(&self) -> Option<Goodbye> {
        match self {
            ConnectError::Handshake { farewell, .. } => *farewell,
            ConnectError::Resolve { .. }
            | ConnectError::Identity
            | ConnectError::Tls(_)
            | ConnectError::Token { .. }
            | ConnectError::Io { .. }
            | ConnectError::Timeout(_) => None,
        }
    }

    /// Returns the error as the machine that decides about reconnecting takes it.
    pub(crate) fn input(&self) -> reconnect::Input {
        match self.obstacle() {
            Some(obstacle) => reconnect::Input::Blocked(obstacle),
            None => reconnect::Input::Ended { farewell: self.farewell() },
        }
    }

    /// Returns the error of this machine before any attempt.
    pub(crate) fn from_io(error: &io::Error) -> ConnectError {
        let obstacle = Obstacle::Other;
        ConnectError::Io { kind: error.kind(), why: error.to_string(), obstacle }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Resolve { name, why, obstacle: Obstacle::NoAddress } => {
                write!(f, "{name:?} is no address: {why}")
            }
            ConnectError::Resolve { name, why, .. } => write!(f, "no address for {name:?}: {why}"),
            ConnectError::Identity => f.write_str("the identity has a control character"),
            ConnectError::Tls(why) => write!(f, "no TLS: {why}"),
            ConnectError::Token { why, .. } => write!(f, "no token: {}", Escaped::line(why)),
            ConnectError::Io { why, .. } => write!(f, "not connected: {why}"),
            ConnectError::Timeout(after) => write!(f, "not connected: no answer in {after:?}"),
            ConnectError::Handshake { tls: Some(TlsProgress::Distrusted(why)), .. } => {
                write!(f, "connected, but the server's certificate {why}")
            }
            ConnectError::Handshake { verdict, text, .. } => {
                let colon = if text.is_empty() { "" } else { ": " };
                let text = Escaped::line(text);
                write!(f, "connected, but not accepted: {}{colon}{text}", verdict.cause)
            }
        }
    }
}

impl std::error::Error for ConnectError {}

/// Error of a call to the client; nothing was sent or changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SendError {
    /// There is no link at the moment, and no session that could be resumed. Not the caller's
    /// fault; retry after [`crate::Event::Reconnected`].
    NotConnected,
    /// The message is too long to be sent. The caller's fault; do not retry.
    TooLong {
        /// Maximum number of bytes that this client's queue and codec accept; at most 16 MiB in a
        /// session with a window.
        longest: usize,
    },
    /// The queue is full: the server reads, or acknowledges, more slowly than the client writes.
    /// Retry, or use [`crate::Client::send`], which waits.
    Full,
    /// The client has ended. Create a new one.
    Closed,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::NotConnected => f.write_str("no link at the moment"),
            SendError::TooLong { longest } => write!(f, "longer than {longest} bytes"),
            SendError::Full => f.write_str("the queue is full: the server reads too slowly"),
            SendError::Closed => f.write_str("the client has ended"),
        }
    }
}

impl std::error::Error for SendError {}

/// Error of [`crate::Client::flush`]; nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FlushError {
    /// There is no link at the moment. Not the caller's fault; retry after
    /// [`crate::Event::Reconnected`].
    NotConnected,
    /// The session has no window, so nobody acknowledges its messages: the codec is not
    /// [`crate::Codec::Native`], or the server offers none. Do not retry; ask the server's
    /// application for an answer instead.
    NoWindow,
    /// A link was lost before the server had acknowledged all of its messages. The fault of the
    /// server or of the path. Any part of them may have arrived: send again only what may arrive
    /// twice.
    Lost,
    /// A session was lost before the server had acknowledged all of its messages: it could not be
    /// resumed. The fault of the server or of the path. [`crate::Event::NotResumed`] has the
    /// messages, and says which of them cannot have arrived.
    NotResumed {
        /// How many messages were not acknowledged.
        unacknowledged: u64,
    },
    /// The client has ended, or is being closed. Create a new one.
    Closed,
}

impl fmt::Display for FlushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FlushError::NotResumed { unacknowledged } => {
                return write!(
                    f,
                    "the session is gone, and the server has not acknowledged {unacknowledged} \
                     messages; the event of the loss has them"
                );
            }
            FlushError::NotConnected => "no link at the moment; flush again once it is back",
            FlushError::NoWindow => {
                "the session has no window, so its messages are not acknowledged: the server needs \
                 the native codec and a version that offers windows"
            }
            FlushError::Lost => {
                "the link was lost before the server had acknowledged everything; send again what \
                 may arrive twice"
            }
            FlushError::Closed => "the client has ended; create a new one",
        })
    }
}

impl std::error::Error for FlushError {}

/// Error of [`crate::Client::close`]; the client has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum CloseError {
    /// The last link failed and its session was not resumed, or the server took no more bytes,
    /// before all its messages were acknowledged. The fault of the server or of the path. Any part
    /// of them may have arrived: send again only what may arrive twice, with a new client.
    Undelivered,
    /// The client had ended before, for the reason in [`crate::Event::Closed`], or its runtime was
    /// dropped.
    Closed,
}

impl fmt::Display for CloseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseError::Undelivered => {
                f.write_str("closed before the server had acknowledged everything")
            }
            CloseError::Closed => f.write_str("the client had already ended"),
        }
    }
}

impl std::error::Error for CloseError {}
