//! What stands between a link and the bytes of its connection: the transport, which makes no system
//! calls, and over it one socket half for the gateway, the client and the tools.
//!
//! A [`Transport`] turns received bytes into plaintext, and plaintext into bytes to send. The
//! [`Socket`] makes the calls and says what came of them; what follows from that is decided in
//! `systole-core`. A frame waits for the socket as plaintext in its lane, so that control overtakes
//! data; below that a transport keeps one record.

mod plain;
mod socket;
#[cfg(feature = "tokio")]
mod tokio_stream;

pub use plain::Plain;
pub use socket::{Socket, Stream};
#[cfg(feature = "tokio")]
pub use tokio_stream::TokioStream;

use std::io;

use systole_core::kernel::SocketError;

use crate::examine::socket_error;

/// The largest number of bytes of plaintext in one record, as in TLS: at most so much data is
/// sealed before a control frame.
pub const MAX_RECORD: usize = 16 * 1024;

/// What turns received bytes into plaintext, and plaintext into bytes to send.
///
/// The order of calls, for the bytes that come: [`Transport::open`] with what a read returned, and
/// while [`Transport::holds_more`], again with nothing, before the next read. So a transport holds
/// a part of a record and one read at most. For the bytes that go: [`Transport::seal`], a write,
/// and [`Transport::sent`] with what the socket took.
pub trait Transport {
    /// Opens the bytes of the peer that stand in the first `received` bytes of `buffer`, and puts
    /// plaintext in their place.
    fn open(&mut self, buffer: &mut [u8], received: usize) -> Opened;

    /// Returns whether [`Transport::open`] has more to say without more bytes: plaintext that found
    /// no room, or the peer's own close behind it.
    fn holds_more(&self) -> bool;

    /// Returns whether the peer has closed its side in the transport's own way. What follows is
    /// opened as [`Opened::Nothing`].
    fn has_closed(&self) -> bool;

    /// Handles the end of the stream, and returns what it means; `None` if the peer's own close has
    /// been told before.
    fn end(&mut self) -> Option<End>;

    /// Returns the bytes to send next: the rest of what is sealed, or else the front of
    /// `plaintext`, sealed as one record of at most [`MAX_RECORD`] bytes of plaintext; empty if
    /// there is nothing to send.
    fn seal<'a>(&'a mut self, plaintext: &'a [u8]) -> &'a [u8];

    /// Removes the first `count` of the bytes that [`Transport::seal`] has just returned, which the
    /// socket has taken. Returns how many bytes at the front of that plaintext must not be handed
    /// in again: they were sent, or are held sealed.
    fn sent(&mut self, count: usize) -> usize;

    /// Returns whether [`Transport::seal`] has something to send without plaintext.
    fn has_unsent(&self) -> bool;

    /// Adds the transport's own close behind all plaintext: no more comes after the first call
    /// of [`Transport::seal`] without any.
    fn finish(&mut self);
}

/// What a transport has opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opened {
    /// So many bytes of plaintext, at the front of the buffer.
    Plaintext(usize),
    /// No plaintext: a part of a record, or a record of the transport itself.
    Nothing,
    /// The peer's own close; told once.
    Closed,
    /// The bytes are illegal. What the standard demands as an answer may be unsent.
    Illegal,
}

/// What the end of a stream means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The peer has closed its side.
    Closed,
    /// The stream ended without the transport's own close: somebody on the way may have cut it.
    Truncated,
}

/// The result of one read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReadOutcome {
    /// Plaintext was read.
    Bytes {
        /// The number of bytes, at the front of the buffer.
        count: usize,
        /// Whether another read may find more at once. If not, the socket is empty: the read did
        /// not fill the buffer (epoll(7), question 9), and the transport holds no plaintext. A
        /// stream that has ended or holds urgent data, before which a read stops, has more all the
        /// same.
        more: bool,
    },
    /// Bytes were read that hold no plaintext.
    Heard {
        /// As in [`ReadOutcome::Bytes`].
        more: bool,
    },
    /// Neither the socket nor the transport holds anything now.
    Empty,
    /// The peer closed its side; returned once.
    Ended(End),
    /// The socket reported a router's error; the connection stands.
    Warned(SocketError),
    /// The peer sent bytes that are illegal in the transport.
    Illegal,
    /// The socket failed.
    Failed(Failure),
}

/// The result of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Written {
    /// The number of bytes that the socket took.
    pub bytes: usize,
    /// The number of bytes at the front of the plaintext that need not be handed in again.
    pub taken: usize,
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

#[cfg(test)]
mod tests;
