//! The sockets of a shard's links: writing, queueing what they do not take, and closing.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::ops::Range;

use mio::net::TcpStream;
use slab::Slab;
use systole_core::kernel::{Examination, SocketError};
use systole_core::link::Lane;
use systole_core::wire::DataKind;
use systole_core::wire::outbox::Outbox;
use systole_core::{Span, Time};
use systole_net::examine::{outlived, socket_error};
use systole_net::socket_options::{self, SocketOptions};

/// How long a link that we ended may take to read our goodbye and close its side. Closing at once
/// could destroy the goodbye: unread bytes turn a close into a reset.
pub(super) const LINGER: Span = Span::from_secs(1);

/// How many sockets are closed per turn. A close costs the kernel about 10 µs, and when thousands
/// of links die at once their verdicts must not wait for each other's sockets.
const CLOSES_PER_TURN: usize = 64;

/// What a socket's shell has to tell the hub after its outputs were carried out.
#[derive(Debug)]
pub(super) enum Feedback {
    /// The peer reads too slowly.
    Overflowed,
    /// The socket failed while it was written to. What it holds unread comes first: the goodbye of
    /// a peer that left answers unread is among it.
    Failed,
    /// A router said something while it was written to; the connection stands.
    Warned(SocketError),
    /// The hub wants a look at the socket.
    Examine,
    /// Data to be echoed.
    Echo { bytes: Range<usize>, more: bool, kind: DataKind },
}

/// One link's socket.
#[derive(Debug)]
pub(super) struct Conn {
    stream: TcpStream,
    /// What the socket has not taken; nothing while it keeps up.
    outbox: Option<Box<Outbox>>,
    state: ConnState,
    /// The peer has closed its side.
    ended: bool,
    /// The loop comes back to it without an event.
    unread: bool,
    /// It takes no more bytes, because of this.
    failed: Option<SocketError>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ConnState {
    /// The hub knows it.
    Open,
    /// Ended by us: waiting for the peer to read our goodbye and close.
    Leaving { until: Time },
    /// To be closed.
    Marked,
}

impl Conn {
    pub(super) fn new(stream: TcpStream) -> Conn {
        Conn {
            stream,
            outbox: None,
            state: ConnState::Open,
            ended: false,
            unread: false,
            failed: None,
        }
    }
}

impl Conn {
    /// A stream that has ended reads as ended ever after; the error that says that the peer takes
    /// nothing any more must be asked for.
    fn read_after_end(&mut self) -> ReadOutcome {
        if let Some(error) = self.failed {
            return ReadOutcome::Failed(error);
        }
        match self.stream.take_error() {
            Ok(None) => ReadOutcome::Empty,
            Ok(Some(error)) | Err(error) if outlived(&error, &self.stream) => {
                ReadOutcome::Warned(socket_error(&error))
            }
            Ok(Some(error)) | Err(error) => {
                let error = socket_error(&error);
                (self.failed, self.outbox) = (Some(error), None);
                ReadOutcome::Failed(error)
            }
        }
    }
}

/// What one read brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReadOutcome {
    /// So many bytes, and there may be more.
    Bytes(usize),
    /// Nothing more for now.
    Empty,
    /// The peer closed its side; told once.
    Ended,
    /// A router said something; the connection stands.
    Warned(SocketError),
    /// The socket failed.
    Failed(SocketError),
}

/// All sockets of a shard, and the bytes on their way to one of them.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) conns: Slab<Conn>,
    pub(super) feedback: VecDeque<(u32, Feedback)>,
    pub(super) bytes_out: u64,
    echo: Vec<u8>,
    outbox_limit: usize,
    /// The frames of one link, gathered so that they leave in one write.
    gathered: Vec<u8>,
    /// Where each gathered frame ends, and its lane.
    frames: Vec<(usize, Lane)>,
    gathered_for: u32,
    leaving: VecDeque<(Time, u32)>,
    marked: VecDeque<u32>,
}

impl Sockets {
    pub(super) fn new(outbox_limit: usize) -> Sockets {
        Sockets {
            conns: Slab::new(),
            feedback: VecDeque::new(),
            bytes_out: 0,
            echo: Vec::new(),
            outbox_limit,
            gathered: Vec::new(),
            frames: Vec::new(),
            gathered_for: 0,
            leaving: VecDeque::new(),
            marked: VecDeque::new(),
        }
    }

    /// Whether the hub still knows this link.
    pub(super) fn is_open(&self, link: u32) -> bool {
        self.conns.get(link as usize).is_some_and(|conn| conn.state == ConnState::Open)
    }

    /// Whether the loop comes back to this socket without an event.
    pub(super) fn is_unread(&self, link: u32) -> bool {
        self.conns.get(link as usize).is_some_and(|conn| conn.unread)
    }

    pub(super) fn set_unread(&mut self, link: u32, unread: bool) {
        if let Some(conn) = self.conns.get_mut(link as usize) {
            conn.unread = unread;
        }
    }

    pub(super) fn read(&mut self, link: u32, scratch: &mut [u8]) -> ReadOutcome {
        let Some(conn) = self.conns.get_mut(link as usize) else {
            return ReadOutcome::Empty;
        };
        loop {
            return match conn.stream.read(scratch) {
                Ok(0) if conn.ended => conn.read_after_end(),
                Ok(0) => {
                    conn.ended = true;
                    ReadOutcome::Ended
                }
                Ok(count) => ReadOutcome::Bytes(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    conn.failed.map_or(ReadOutcome::Empty, ReadOutcome::Failed)
                }
                Err(error) if outlived(&error, &conn.stream) => {
                    ReadOutcome::Warned(socket_error(&error))
                }
                Err(error) => ReadOutcome::Failed(socket_error(&error)),
            };
        }
    }

    /// Gathers frames for `link`; they leave with the next [`Sockets::flush`].
    #[inline]
    pub(super) fn transmit(&mut self, link: u32, lane: Lane, bytes: &[u8]) {
        if self.gathered_for != link {
            self.flush();
            self.gathered_for = link;
        }
        self.gathered.extend_from_slice(bytes);
        self.frames.push((self.gathered.len(), lane));
    }

    /// Looks at a socket, and lets its timeouts follow what is seen.
    pub(super) fn examine(&self, link: u32, options: Option<&SocketOptions>) -> Examination {
        let Some(conn) = self.conns.get(link as usize) else {
            return Examination::default();
        };
        let examination = systole_net::examine::examine(&conn.stream);
        if let (Some(tcp), Some(options)) = (&examination.tcp, options) {
            // A connection that is ending takes no options, and needs none.
            let _ =
                socket_options::enter(options, socket_options::SendState::of(tcp), &conn.stream);
        }
        examination
    }

    /// Gives a socket the options that a policy asks for.
    pub(super) fn prepare(&self, link: u32, options: &SocketOptions) {
        if let Some(conn) = self.conns.get(link as usize) {
            let _ = socket_options::apply(options, &conn.stream);
        }
    }

    /// Notes that the hub wants a look.
    pub(super) fn request_examination(&mut self, link: u32) {
        self.feedback.push_back((link, Feedback::Examine));
    }

    /// Keeps data that is to be echoed once the hub's outputs have been carried out.
    pub(super) fn echo(&mut self, link: u32, bytes: &[u8], more: bool, kind: DataKind) {
        let start = self.echo.len();
        self.echo.extend_from_slice(bytes);
        let bytes = start..self.echo.len();
        self.feedback.push_back((link, Feedback::Echo { bytes, more, kind }));
    }

    /// What the hub is to be told next. Frames are written once there is nothing else to tell, so
    /// that the echoes of many small messages leave in one write.
    pub(super) fn next_feedback(&mut self) -> Option<(u32, Feedback)> {
        if self.feedback.is_empty() {
            self.flush();
        }
        self.feedback.pop_front()
    }

    /// The bytes of an echo.
    pub(super) fn echoed(&self, bytes: Range<usize>) -> &[u8] {
        self.echo.get(bytes).unwrap_or_default()
    }

    /// Forgets all echoes.
    pub(super) fn end_echo(&mut self) {
        self.echo.clear();
    }

    /// Writes what is gathered; what the socket does not take is queued.
    #[inline]
    pub(super) fn flush(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        let link = self.gathered_for;
        let conn = self.conns.get_mut(link as usize);
        if let Some(conn) = conn.filter(|conn| conn.failed.is_none()) {
            let mut warning = None;
            let written = match &conn.outbox {
                Some(_) => Ok(0),
                None => write(&mut conn.stream, &self.gathered, &mut warning),
            };
            if let Some(error) = warning {
                self.feedback.push_back((link, Feedback::Warned(error)));
            }
            match written {
                Ok(count) => {
                    self.bytes_out += count as u64;
                    if count < self.gathered.len() {
                        self.queue(link, count);
                    }
                }
                Err(failure) => {
                    conn.failed = Some(failure);
                    self.feedback.push_back((link, Feedback::Failed));
                }
            }
        }
        self.gathered.clear();
        self.frames.clear();
    }

    /// Queues what is gathered from byte `written` on.
    #[cold]
    fn queue(&mut self, link: u32, written: usize) {
        let Some(conn) = self.conns.get_mut(link as usize) else {
            return;
        };
        let limit = self.outbox_limit;
        let outbox = conn.outbox.get_or_insert_with(|| Box::new(Outbox::new(limit)));
        let mut start = 0;
        for &(end, lane) in &self.frames {
            let rest = self.gathered.get(start.max(written)..end).unwrap_or_default();
            let pushed = if start < written && written < end {
                outbox.push_begun(rest)
            } else {
                outbox.push(lane, rest)
            };
            start = end;
            if pushed.is_err() {
                self.feedback.push_back((link, Feedback::Overflowed));
                return;
            }
        }
    }

    /// The socket may take more.
    pub(super) fn writable(&mut self, link: u32) {
        let Some(conn) = self.conns.get_mut(link as usize) else {
            return;
        };
        let Some(outbox) = &mut conn.outbox else {
            return;
        };
        while !outbox.is_empty() {
            let front = outbox.front();
            let mut warning = None;
            let written = write(&mut conn.stream, front, &mut warning);
            if let Some(error) = warning {
                self.feedback.push_back((link, Feedback::Warned(error)));
            }
            match written {
                Ok(count) => {
                    let all = count == front.len();
                    self.bytes_out += count as u64;
                    outbox.advance(count);
                    if !all {
                        return;
                    }
                }
                Err(failure) => {
                    conn.failed = Some(failure);
                    conn.outbox = None;
                    self.feedback.push_back((link, Feedback::Failed));
                    return;
                }
            }
        }
        conn.outbox = None;
        if let ConnState::Leaving { .. } = conn.state {
            self.shutdown_write(link);
        }
    }

    /// The hub has ended a link that may still have to read our goodbye.
    pub(super) fn leave(&mut self, link: u32, now: Time) {
        self.flush();
        let Some(conn) = self.conns.get_mut(link as usize) else {
            return;
        };
        let until = now + LINGER;
        conn.state = ConnState::Leaving { until };
        self.leaving.push_back((until, link));
        if conn.outbox.is_none() {
            self.shutdown_write(link);
        }
    }

    /// Our goodbye is written: what is left is the peer's.
    fn shutdown_write(&mut self, link: u32) {
        match self.conns.get_mut(link as usize) {
            Some(conn) if conn.ended => self.mark_for_close(link),
            Some(conn) => {
                let _ = conn.stream.shutdown(Shutdown::Write);
            }
            None => {}
        }
    }

    /// The hub has ended a link of which nothing more is expected. What is gathered for it is
    /// written when its turn to be closed comes, and if the socket does not take it, it is lost.
    pub(super) fn mark_for_close(&mut self, link: u32) {
        if self.gathered_for == link && !self.gathered.is_empty() {
            self.queue(link, 0);
            self.gathered.clear();
            self.frames.clear();
        }
        if let Some(conn) = self.conns.get_mut(link as usize)
            && conn.state != ConnState::Marked
        {
            conn.state = ConnState::Marked;
            self.marked.push_back(link);
        }
    }

    /// A link that is leaving became readable: whatever it says is too late; when it closes, so do
    /// we.
    pub(super) fn drain_until_fin(&mut self, link: u32, scratch: &mut [u8]) {
        let Some(ConnState::Leaving { .. }) = self.conns.get(link as usize).map(|conn| conn.state)
        else {
            return;
        };
        match self.read(link, scratch) {
            ReadOutcome::Ended | ReadOutcome::Failed(_) => self.mark_for_close(link),
            ReadOutcome::Bytes(_) | ReadOutcome::Empty | ReadOutcome::Warned(_) => {}
        }
    }

    /// Closes some of what is to be closed. Returns how many descriptors became free.
    pub(super) fn reap(&mut self, now: Time) -> usize {
        while let Some(&(until, link)) = self.leaving.front().filter(|(until, _)| *until <= now) {
            self.leaving.pop_front();
            let phase = self.conns.get(link as usize).map(|conn| conn.state);
            if phase == Some(ConnState::Leaving { until }) {
                self.mark_for_close(link);
            }
        }
        let count = self.marked.len().min(CLOSES_PER_TURN);
        for link in self.marked.drain(..count) {
            let mut conn = self.conns.remove(link as usize);
            if let Some(outbox) = conn.outbox.take() {
                let _ = write(&mut conn.stream, outbox.front(), &mut None);
            }
        }
        count
    }

    /// Whether sockets wait to be closed.
    pub(super) fn has_marked(&self) -> bool {
        !self.marked.is_empty()
    }

    /// When the next link that is leaving is to be closed.
    pub(super) fn next_leave(&self) -> Option<Time> {
        self.leaving.front().map(|(until, _)| *until)
    }
}

/// Writes once; a full socket takes nothing.
fn write(
    stream: &mut TcpStream,
    bytes: &[u8],
    warning: &mut Option<SocketError>,
) -> Result<usize, SocketError> {
    loop {
        return match stream.write(bytes) {
            Ok(count) => Ok(count),
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            // Reading the warning has taken it off the socket.
            Err(error) if warning.is_none() && outlived(&error, stream) => {
                *warning = Some(socket_error(&error));
                continue;
            }
            Err(error) => Err(socket_error(&error)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_echoes_of_many_small_messages_leave_in_one_write() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let mut sockets = Sockets::new(1_000);
        let link = sockets.conns.insert(Conn::new(TcpStream::from_std(stream))) as u32;
        for _ in 0..100 {
            sockets.echo(link, b"a", false, DataKind::default());
        }
        while let Some((link, feedback)) = sockets.next_feedback() {
            let Feedback::Echo { bytes, .. } = feedback else { panic!("{feedback:?}") };
            assert_eq!(sockets.bytes_out, 0, "not one by one");
            let bytes = sockets.echoed(bytes).to_vec();
            sockets.transmit(link, Lane::Data, &bytes);
        }
        assert_eq!(sockets.bytes_out, 100);
        drop(peer);
    }
}
