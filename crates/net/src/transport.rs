//! What stands between a link and the bytes of its connection: one socket half for the gateway, the
//! client and the tools.
//!
//! It makes the system calls and says what came of them; what follows from that is decided in
//! `systole-core`.

mod socket;

pub use socket::{Socket, Stream};

use std::io;

use systole_core::kernel::SocketError;

use crate::examine::socket_error;

/// The result of one read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadOutcome {
    /// This many bytes were read, and there may be more.
    Bytes(usize),
    /// The socket holds no bytes now.
    Empty,
    /// The peer closed its side; returned once.
    Ended,
    /// The socket reported a router's error; the connection stands.
    Warned(SocketError),
    /// The socket failed.
    Failed(Failure),
}

/// The result of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Written {
    /// The number of bytes that the socket took.
    pub bytes: usize,
    /// A router's error that the socket reported; the connection stands.
    pub warning: Option<SocketError>,
    /// The error after which the socket takes no more bytes. What the peer sent before it may
    /// still be unread.
    pub failure: Option<Failure>,
}

/// The error that ended a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failure {
    /// The error, by what it shows about the peer.
    pub error: SocketError,
    /// Whether our own system aborted the connection, as some do when their own network changes:
    /// the peer has sent no reset. Known only when the error is first reported.
    pub aborted: bool,
}

impl Failure {
    fn new(error: &io::Error) -> Failure {
        let aborted = error.kind() == io::ErrorKind::ConnectionAborted;
        Failure { error: socket_error(error), aborted }
    }

    /// A failure that was reported before.
    const fn repeated(error: SocketError) -> Failure {
        Failure { error, aborted: false }
    }
}
