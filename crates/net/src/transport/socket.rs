//! The socket half of a link: reads, writes, the queue of unsent frames, and the delivery of the
//! last bytes.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;

use socket2::SockRef;
use systole_core::kernel::SocketError;
use systole_core::link::Lane;
use systole_core::wire::outbox::{Full, Outbox};

use super::{Failure, Opened, ReadOutcome, Transport, Written};
use crate::examine::{outlived, socket_error};
use crate::sockopt::TcpSocket;

/// The maximum number of errors of a connection that stands after which one write is repeated at
/// once. Each needs a packet of a router, so more in a row are a flood, which must not hold up the
/// other links.
const WARNINGS_PER_WRITE: u32 = 8;

/// A connected TCP socket whose calls do not block: of the standard library, of mio, or one whose
/// reads and writes go through a runtime.
pub trait Stream: TcpSocket {
    /// Reads as [`Read::read`] does.
    ///
    /// # Errors
    /// Those of the socket; `WouldBlock` if it holds no bytes.
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes as [`Write::write`] does.
    ///
    /// # Errors
    /// Those of the socket; `WouldBlock` if it is full.
    fn write(&self, bytes: &[u8]) -> io::Result<usize>;
}

impl<S: TcpSocket> Stream for S
where
    for<'a> &'a S: Read + Write,
{
    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut stream = self;
        Read::read(&mut stream, buffer)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut stream = self;
        Write::write(&mut stream, bytes)
    }
}

/// What is known of the end of what the peer sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fin {
    None,
    /// A write has shown that the peer had closed its side; what it sent before may be unread.
    Unread,
    Read,
}

/// One link's socket, its transport and its unsent frames.
#[derive(Debug)]
pub struct Socket<S, T, X = ()> {
    stream: S,
    transport: T,
    /// The frames that are not sealed and that the socket has not accepted; `None` if there are
    /// none.
    outbox: Option<Box<Outbox>>,
    fin: Fin,
    /// The error after which the socket accepts no more bytes.
    failed: Option<SocketError>,
    /// Data of the owner: a few flags take no memory here, because they fit into the padding.
    pub note: X,
}

impl<S: Stream, T: Transport, X> Socket<S, T, X> {
    /// Creates the half of a connected socket that does not block.
    pub const fn new(stream: S, transport: T, note: X) -> Socket<S, T, X> {
        Socket { stream, transport, outbox: None, fin: Fin::None, failed: None, note }
    }

    /// Returns the stream.
    pub const fn stream(&self) -> &S {
        &self.stream
    }

    /// Returns the stream, as its registration needs it.
    pub const fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// Returns the transport.
    pub const fn transport(&self) -> &T {
        &self.transport
    }

    /// Replaces the stream by another handle of the same socket.
    pub fn replace_stream(&mut self, stream: S) {
        self.stream = stream;
    }

    /// Returns whether the peer sends nothing more: it has closed its side, or the transport's.
    pub fn has_ended(&self) -> bool {
        self.fin == Fin::Read || self.transport.has_closed()
    }

    /// Returns whether the socket has accepted everything that was to be sent.
    pub fn is_flushed(&self) -> bool {
        self.outbox.is_none() && !self.transport.has_unsent()
    }

    /// Returns whether there is something to send that waits for the socket alone. Frames that wait
    /// for a handshake wait for the peer.
    pub fn awaits_room(&self) -> bool {
        self.transport.has_unsent() || self.outbox.is_some() && self.transport.is_open()
    }

    /// Returns whether the transport has something to send of its own, as the answer to what was
    /// read, or takes now what is queued.
    pub fn has_answer(&self) -> bool {
        self.transport.has_unsent()
    }

    /// Returns whether a read finds something that the transport holds, without a new byte from the
    /// kernel, which will not report it.
    pub fn holds_more(&self) -> bool {
        self.transport.holds_more()
    }

    /// Returns the queue of unsent frames; `None` if it is empty.
    pub fn outbox(&self) -> Option<&Outbox> {
        self.outbox.as_deref()
    }

    /// Discards the queued data; see [`Outbox::discard_data`].
    pub fn discard_data(&mut self) {
        if let Some(outbox) = &mut self.outbox {
            outbox.discard_data();
        }
    }

    /// Reads once.
    #[inline]
    pub fn read(&mut self, buffer: &mut [u8]) -> ReadOutcome {
        self.read_by(S::read, buffer)
    }

    /// Reads once, directly from the kernel: a runtime may not know yet that there is something.
    pub fn read_directly(&mut self, buffer: &mut [u8]) -> ReadOutcome {
        self.read_by(|stream, buffer| (*SockRef::from(stream)).read(buffer), buffer)
    }

    #[inline]
    fn read_by(
        &mut self,
        read: impl Fn(&S, &mut [u8]) -> io::Result<usize>,
        buffer: &mut [u8],
    ) -> ReadOutcome {
        if self.transport.holds_more() {
            // Whether the kernel holds more is not known now.
            return self.open(buffer, 0, true);
        }
        loop {
            return match read(&self.stream, buffer) {
                Ok(0) if self.fin == Fin::Read => self.take_error(),
                // A connection that the kernel gave up reads as ended once its error was taken.
                Ok(0) if let Some(error) = self.gave_up() => {
                    ReadOutcome::Failed(Failure::repeated(error))
                }
                Ok(0) => {
                    self.fin = Fin::Read;
                    match self.transport.end() {
                        Some(end) => ReadOutcome::Ended(end),
                        None => continue,
                    }
                }
                Ok(count) => {
                    let filled = count == buffer.len();
                    self.open(buffer, count, filled)
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self
                    .failed
                    .map_or(ReadOutcome::Empty, |it| ReadOutcome::Failed(Failure::repeated(it))),
                Err(error) => self.classify(&error),
            };
        }
    }

    /// Opens `received` bytes of `buffer`, or what the transport holds.
    #[inline]
    fn open(&mut self, buffer: &mut [u8], received: usize, filled: bool) -> ReadOutcome {
        let opened = self.transport.open(buffer, received);
        let more = filled || self.transport.holds_more();
        match opened {
            Opened::Plaintext(count) => ReadOutcome::Bytes { count, more },
            Opened::Nothing => ReadOutcome::Heard { more },
            Opened::Closed => ReadOutcome::Ended(super::End::Closed),
            Opened::Illegal(why) => {
                // The transport takes nothing any more.
                self.outbox = None;
                ReadOutcome::Illegal(why)
            }
        }
    }

    /// Takes the error that the socket holds. A stream that has ended reads as ended ever after;
    /// the error that says that the peer takes nothing any more must be asked for.
    pub fn take_error(&mut self) -> ReadOutcome {
        if let Some(error) = self.failed {
            return ReadOutcome::Failed(Failure::repeated(error));
        }
        let taken = SockRef::from(&self.stream).take_error();
        let Some(error) = taken.unwrap_or_else(Some) else {
            return ReadOutcome::Empty;
        };
        let outcome = self.classify(&error);
        if let ReadOutcome::Failed(failure) = outcome {
            (self.failed, self.outbox) = (Some(failure.error), None);
        }
        outcome
    }

    /// Returns what an error of the socket means; [`ReadOutcome::Empty`] for one after which the
    /// call is only repeated.
    pub fn classify(&self, error: &io::Error) -> ReadOutcome {
        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
            ReadOutcome::Empty
        } else if outlived(error, &self.stream) {
            ReadOutcome::Warned(socket_error(error))
        } else {
            ReadOutcome::Failed(Failure::new(error))
        }
    }

    /// The error with which the kernel gave up the connection, if a write has met one.
    fn gave_up(&self) -> Option<SocketError> {
        self.failed.filter(|error| match error {
            SocketError::TimedOut
            | SocketError::HostUnreachable
            | SocketError::NetworkUnreachable
            | SocketError::Refused
            | SocketError::Local => true,
            SocketError::Reset => self.fin != Fin::Unread,
        })
    }

    /// Writes `frames` as far as the socket takes them, unless others wait. What it has not taken
    /// is to be queued with [`Socket::queue`].
    #[inline]
    pub fn write(&mut self, frames: &[u8]) -> Written {
        let mut written = Written::default();
        if self.failed.is_none() && self.outbox.is_none() {
            self.send(frames, &mut written);
        }
        written
    }

    /// Sends what is sealed and then `plaintext`, one record after the other, until everything is
    /// sent or the socket is full. Returns whether everything is sent.
    #[inline]
    fn send(&mut self, plaintext: &[u8], written: &mut Written) -> bool {
        let mut taken = 0;
        loop {
            let bytes = self.transport.seal(plaintext.get(taken..).unwrap_or_default());
            if bytes.is_empty() {
                return taken >= plaintext.len();
            }
            let len = bytes.len();
            match write_once(&self.stream, bytes, written) {
                Ok(count) => {
                    written.bytes += count;
                    taken += self.transport.sent(count);
                    written.taken = taken;
                    if count < len {
                        return false;
                    }
                }
                Err(failure) => {
                    self.fail(failure, written);
                    return false;
                }
            }
        }
    }

    /// Queues frames of which a write has taken the first `taken` bytes; `ends` has the end of
    /// each frame and its lane. The queue holds at most `limit` bytes of data. A socket that has
    /// failed drops the frames.
    ///
    /// # Errors
    /// A frame found no room; it and those behind it were not queued.
    #[cold]
    pub fn queue(
        &mut self,
        frames: &[u8],
        ends: &[(usize, Lane)],
        taken: usize,
        limit: usize,
    ) -> Result<(), Full> {
        if self.failed.is_some() {
            return Ok(());
        }
        let outbox = self.outbox.get_or_insert_with(|| Box::new(Outbox::new(limit)));
        let mut start = 0;
        for &(end, lane) in ends {
            let rest = frames.get(start.max(taken)..end).unwrap_or_default();
            if start < taken && taken < end {
                outbox.push_begun(rest)?;
            } else {
                outbox.push(lane, rest)?;
            }
            start = end;
        }
        Ok(())
    }

    /// Writes queued frames until none is left or the socket is full.
    pub fn flush(&mut self) -> Written {
        let mut written = Written::default();
        if self.failed.is_some() {
            return written;
        }
        loop {
            let front = self.outbox.as_deref().map_or(&[][..], Outbox::front);
            let bytes = self.transport.seal(front);
            if bytes.is_empty() {
                if front.is_empty() {
                    self.outbox = None;
                }
                return written;
            }
            let len = bytes.len();
            match write_once(&self.stream, bytes, &mut written) {
                Ok(count) => {
                    written.bytes += count;
                    let taken = self.transport.sent(count);
                    written.taken += taken;
                    if let Some(outbox) = self.outbox.as_mut().filter(|_| taken > 0) {
                        outbox.advance(taken);
                        if outbox.is_empty() {
                            self.outbox = None;
                        }
                    }
                    if count < len {
                        return written;
                    }
                }
                Err(failure) => {
                    self.fail(failure, &mut written);
                    return written;
                }
            }
        }
    }

    /// Announces that no more frames come: once everything that is queued was sent, the transport
    /// closes its side too. Frames that wait for a handshake are dropped, since the end of the
    /// handshake would have to be waited for.
    pub fn finish(&mut self) {
        if !self.transport.is_open() {
            self.outbox = None;
        }
        self.transport.finish();
    }

    /// Writes what is first in the queue, and drops the rest: the socket is about to be closed, and
    /// a peer that only seems to be gone may still read a CLOSE. The transport does not close its
    /// side, so that the end is not taken for the end of the data.
    pub fn write_last_words(&mut self) {
        let outbox = self.outbox.take();
        if self.failed.is_none() {
            let front = outbox.as_deref().map_or(&[][..], Outbox::front);
            self.send(front, &mut Written::default());
        }
    }

    /// Closes our side of the stream. It fails only on a connection that has failed.
    pub fn shutdown_write(&self) {
        let _ = SockRef::from(&self.stream).shutdown(Shutdown::Write);
    }

    #[cold]
    fn fail(&mut self, failure: Failure, written: &mut Written) {
        (self.failed, self.outbox) = (Some(failure.error), None);
        if failure.after_fin && self.fin == Fin::None {
            self.fin = Fin::Unread;
        }
        written.failure = Some(failure);
    }
}

/// Writes once. Returns the number of bytes accepted; 0 if the socket is full.
///
/// An error of a connection that stands was cleared by the write that met it, so the write is
/// repeated at once: its bytes were not taken, and no event would ask for them.
fn write_once<S: Stream>(
    stream: &S,
    bytes: &[u8],
    written: &mut Written,
) -> Result<usize, Failure> {
    let mut warnings = 0;
    while warnings < WARNINGS_PER_WRITE {
        match stream.write(bytes) {
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) if outlived(&error, stream) => {
                written.warning = Some(socket_error(&error));
                warnings += 1;
            }
            Err(error) => return Err(Failure::new(&error)),
        }
    }
    written.again = true;
    Ok(0)
}
