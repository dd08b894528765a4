//! The layers between a link and its connection: the transport, and over it the socket half of a
//! link, one for the gateway, the client and the tools.
//!
//! A [`Transport`] turns received bytes into plaintext, and plaintext into bytes to send; it makes
//! no system calls. The [`Socket`] makes them and returns their results; `systole-core` decides
//! what follows from these. A frame waits for the socket as plaintext, in a queue for control or
//! one for data, so that control overtakes data. Below these queues a transport holds at most one
//! record.

#[cfg(feature = "tls")]
mod layer;
mod plain;
mod socket;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tokio")]
mod tokio_stream;

#[cfg(feature = "tls")]
pub use layer::Layer;
pub use plain::Plain;
pub use socket::{Socket, Stream};
#[cfg(feature = "tls")]
pub use tls::Tls;
#[cfg(feature = "tokio")]
pub use tokio_stream::TokioStream;

use std::io;

use systole_core::kernel::SocketError;
use systole_core::link::World;
use systole_core::wire::Malformed;

use crate::examine::socket_error;

/// The maximum number of bytes of plaintext in one record, as in TLS: a control frame waits behind
/// at most this much sealed data.
pub const MAX_RECORD: usize = 16 * 1024;

/// A layer that turns received bytes into plaintext, and plaintext into bytes to send.
///
/// After each read, call [`Transport::open`] with the bytes that the read returned, and then, while
/// [`Transport::holds_more`], again with no bytes, before the next read. So a transport holds at
/// most a part of a record and one read. To send, call [`Transport::seal`], write the bytes that it
/// returns, and call [`Transport::sent`] with the number of bytes that the socket took.
pub trait Transport {
    /// Opens the first `received` bytes of `buffer`, which the peer sent, and replaces them by
    /// plaintext.
    fn open(&mut self, buffer: &mut [u8], received: usize) -> Opened;

    /// Returns whether [`Transport::open`] has another result without more bytes: plaintext that
    /// did not fit into the buffer, or the close of the peer's transport after it.
    fn holds_more(&self) -> bool;

    /// Returns whether the peer's transport has announced its close, as TLS does by `close_notify`.
    /// All later bytes are opened as [`Opened::Nothing`].
    fn has_closed(&self) -> bool;

    /// Returns what the transport holds of the peer that it cannot open before more has come.
    fn held(&self) -> Held;

    /// Handles the end of the stream, and returns what the end means; `None` if
    /// [`Opened::Closed`] was returned before.
    fn end(&mut self) -> Option<End>;

    /// Returns the bytes to send next: the rest of what is sealed, or else the front of
    /// `plaintext`, sealed as one record of at most [`MAX_RECORD`] bytes of plaintext; empty if
    /// there is nothing to send, or nothing but plaintext before the transport is open.
    fn seal<'a>(&'a mut self, plaintext: &'a [u8]) -> &'a [u8];

    /// Removes the first `count` of the bytes that [`Transport::seal`] has just returned: the
    /// socket has taken them. Returns how many bytes at the front of the plaintext must not be
    /// passed to [`Transport::seal`] again, because they were sent or are held sealed.
    fn sent(&mut self, count: usize) -> usize;

    /// Returns whether [`Transport::seal`] has something to send without plaintext, or takes
    /// plaintext since the last call of [`Transport::open`].
    fn has_unsent(&self) -> bool;

    /// Returns whether the transport takes plaintext: its handshake is over, and nothing illegal
    /// has come.
    fn is_open(&self) -> bool;

    /// Adds the close of the transport after all plaintext. Once [`Transport::seal`] was called
    /// without plaintext, no more plaintext may follow.
    fn finish(&mut self);
}

/// The result of [`Transport::open`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opened {
    /// The number of bytes of plaintext, at the front of the buffer.
    Plaintext(usize),
    /// No plaintext: a part of a record, or a record of the transport itself.
    Nothing,
    /// The peer's transport announced its close; returned once.
    Closed,
    /// The bytes are illegal, and why; returned once. The answer that the transport's standard
    /// demands, such as an alert, may still be unsent, and plaintext is not taken any more.
    Illegal(Malformed),
}

/// What a transport holds of a record that has arrived in part, or of records that wait for the
/// rest of a message of the transport itself.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Held {
    /// The memory that they take, in bytes; 0 if nothing is held.
    pub memory: u32,
    /// The bytes that have arrived and those that are known to follow: the length of the record
    /// once its header has come.
    pub length: u32,
}

impl Held {
    /// Returns the input that lets a link count what is held.
    pub const fn as_input(self) -> World<'static> {
        World::Held { memory: self.memory, length: self.length }
    }
}

/// What the end of a stream means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The peer has closed its side.
    Closed,
    /// The stream ended although the transport had not announced its close: somebody on the path
    /// may have cut it.
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
        /// not fill the buffer (epoll(7), question 9), and the transport holds no plaintext. Two
        /// cases are not covered, so read on in them: a stream that has ended, and urgent data,
        /// before which a read stops.
        more: bool,
    },
    /// Bytes were read, and they hold no plaintext.
    Heard {
        /// As in [`ReadOutcome::Bytes`].
        more: bool,
    },
    /// Neither the socket nor the transport holds anything now.
    Empty,
    /// The peer closed its side; returned once.
    Ended(End),
    /// The socket reported an error, and the connection stands: read again.
    Warned(SocketError),
    /// The peer sent bytes that are illegal in the transport, and why.
    Illegal(Malformed),
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
    /// An error that the socket reported although the connection stands.
    pub warning: Option<SocketError>,
    /// Whether the socket reported such errors so often that the write was given up for now. No
    /// event says when to go on, so call [`Socket::flush`] again soon.
    pub again: bool,
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
    /// Whether the peer had closed its side before (`EPIPE`): its FIN may still be unread. Known
    /// only when the error is first reported.
    pub after_fin: bool,
}

impl Failure {
    fn new(error: &io::Error) -> Failure {
        let kind = error.kind();
        let aborted = kind == io::ErrorKind::ConnectionAborted;
        let after_fin = kind == io::ErrorKind::BrokenPipe;
        Failure { error: socket_error(error), aborted, after_fin }
    }

    /// A failure that was reported before.
    const fn repeated(error: SocketError) -> Failure {
        Failure { error, aborted: false, after_fin: false }
    }
}

#[cfg(test)]
mod tests;
