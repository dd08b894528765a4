//! The sockets of a shard's links: reading, writing, queueing unsent bytes, and closing.

mod outboxes;

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};

use mio::net::TcpStream;
use slab::Slab;
use systole_core::Time;
use systole_core::budget::Budget;
use systole_core::kernel::{Examination, Patience, SocketError};
use systole_core::link::Lane;
use systole_core::wire::outbox::Outbox;
use systole_net::examine::{examine_socket, outlived, socket_error};
use systole_net::{RouteLookup, socket_options};

use super::departures::Departures;

/// Maximum number of sockets closed per turn. A close costs about 10 µs in the kernel, and when
/// thousands of links die at once, closes must not delay verdicts.
const CLOSES_PER_TURN: usize = 64;

/// Results of carried-out outputs, to be fed back to the hub.
#[derive(Debug)]
pub(super) enum Feedback {
    /// The outbox is full: the peer reads too slowly.
    Overflowed,
    /// A write failed. Unread bytes are read first, since they may hold the peer's goodbye.
    Failed,
    /// A write returned a router's error; the connection stands.
    Warned(SocketError),
    /// The hub asked for an examination of the socket, and with `route` of our own route.
    Examine { route: bool },
}

/// One link's socket and its unsent bytes.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) stream: TcpStream,
    /// The bytes that the socket has not accepted; `None` if there are none.
    pub(super) outbox: Option<Box<Outbox>>,
    pub(super) state: ConnState,
    /// Whether the peer has closed its side.
    pub(super) fin_received: bool,
    /// Whether the loop reads the socket in the next turn without an event.
    unread: bool,
    /// The error after which the socket accepts no more bytes.
    failed: Option<SocketError>,
}

// The memory of a connection beside its link. A debug build of mio adds a field of its own.
const _: () = assert!(cfg!(debug_assertions) || size_of::<Conn>() <= 24);

/// The state of a connection's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ConnState {
    /// The hub has the link.
    Open,
    /// The hub has ended the link, and its last bytes are being delivered; see [`Departures`].
    Leaving,
    /// The connection is marked for close.
    Marked,
}

impl Conn {
    pub(super) fn new(stream: TcpStream) -> Conn {
        Conn {
            stream,
            outbox: None,
            state: ConnState::Open,
            fin_received: false,
            unread: false,
            failed: None,
        }
    }

    /// The error with which the kernel gave up the connection, if a write has met one. After a
    /// reset the peer's FIN may still be unread.
    fn gave_up(&self) -> Option<SocketError> {
        self.failed.filter(|error| match error {
            SocketError::TimedOut
            | SocketError::HostUnreachable
            | SocketError::NetworkUnreachable
            | SocketError::Refused
            | SocketError::Local => true,
            SocketError::Reset => false,
        })
    }

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

/// The result of one read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReadOutcome {
    /// This many bytes were read, and there may be more.
    Bytes(usize),
    /// The socket holds no bytes now.
    Empty,
    /// The peer closed its side; returned once.
    Ended,
    /// The socket reported a router's error; the connection stands.
    Warned(SocketError),
    /// The socket failed.
    Failed(SocketError),
}

/// All sockets of a shard, and the frames gathered for one of them.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) conns: Slab<Conn>,
    pub(super) feedback: VecDeque<(u32, Feedback)>,
    pub(super) bytes_out: u64,
    outbox_limit: usize,
    /// The memory of all outboxes; the largest gives way.
    outboxes: Budget<Reverse<usize>>,
    /// The number of links that gave way.
    pub(super) outboxes_dropped: u64,
    /// The number of leave-takings that ended before everything was acknowledged.
    pub(super) undelivered: u64,
    /// The frames of the link `gathered_for`, gathered so that they leave in one write.
    gathered: Vec<u8>,
    /// The end of each gathered frame in `gathered`, and the frame's lane.
    frames: Vec<(usize, Lane)>,
    gathered_for: u32,
    pub(super) departures: Departures,
    marked: VecDeque<u32>,
    /// Our routes to the peers examined in this turn.
    routes: RouteLookup,
}

impl Sockets {
    pub(super) fn new(outbox_limit: usize, outbox_memory: usize) -> Sockets {
        Sockets {
            conns: Slab::new(),
            feedback: VecDeque::new(),
            bytes_out: 0,
            outbox_limit,
            outboxes: Budget::new(outbox_memory),
            outboxes_dropped: 0,
            undelivered: 0,
            gathered: Vec::new(),
            frames: Vec::new(),
            gathered_for: 0,
            departures: Departures::default(),
            marked: VecDeque::new(),
            routes: RouteLookup::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn stream(&self, link: u32) -> Option<&TcpStream> {
        self.conns.get(link as usize).map(|conn| &conn.stream)
    }

    /// Whether the hub still has this link.
    pub(super) fn is_open(&self, link: u32) -> bool {
        self.conns.get(link as usize).is_some_and(|conn| conn.state == ConnState::Open)
    }

    /// Whether the loop reads this socket in the next turn without an event.
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
                Ok(0) if conn.fin_received => {
                    let outcome = conn.read_after_end();
                    self.count_outbox(link);
                    outcome
                }
                // A connection that the kernel gave up reads as ended once its error was taken.
                Ok(0) if let Some(error) = conn.gave_up() => ReadOutcome::Failed(error),
                Ok(0) => {
                    conn.fin_received = true;
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

    /// Gathers frames for `link`, to be written by the next [`Sockets::flush`].
    #[inline]
    pub(super) fn transmit(&mut self, link: u32, lane: Lane, bytes: &[u8]) {
        if self.gathered_for != link {
            self.flush();
            self.gathered_for = link;
        }
        self.gathered.extend_from_slice(bytes);
        self.frames.push((self.gathered.len(), lane));
    }

    /// Examines a socket, and whether bytes are queued that it has not taken.
    pub(super) fn examine(&mut self, link: u32, route: bool) -> Examination {
        let Some(conn) = self.conns.get(link as usize) else {
            return Examination::default();
        };
        let gathered = self.gathered_for == link && !self.gathered.is_empty();
        let queued = gathered || conn.outbox.is_some();
        let found =
            if route { self.routes.examine(&conn.stream) } else { examine_socket(&conn.stream) };
        Examination { queued, ..found }
    }

    /// Ends the lookups of routes for this turn.
    pub(super) fn forget_routes(&mut self) {
        self.routes = RouteLookup::default();
    }

    /// Sets the options by which the kernel has this patience with a connection.
    pub(super) fn follow(&self, link: u32, patience: &Patience) {
        if let Some(conn) = self.conns.get(link as usize) {
            // A connection that is ending refuses options, and needs none.
            let _ = socket_options::follow(patience, &conn.stream);
        }
    }

    /// Queues an examination for the hub.
    pub(super) fn request_examination(&mut self, link: u32, route: bool) {
        self.feedback.push_back((link, Feedback::Examine { route }));
    }

    /// Writes the gathered frames; queues the bytes that the socket does not accept.
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

    /// Queues the gathered frames from byte `written` on.
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
                break;
            }
        }
        self.count_outbox(link);
        self.make_room();
    }

    /// Writes queued bytes to a socket that became writable.
    pub(super) fn writable(&mut self, link: u32, now: Time) {
        let before = self.bytes_out;
        self.write_queued(link);
        if self.bytes_out > before {
            self.continue_departure(link, now);
        }
    }

    fn write_queued(&mut self, link: u32) {
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
                    return self.count_outbox(link);
                }
            }
        }
        conn.outbox = None;
        self.count_outbox(link);
    }

    /// Marks the socket of an ended link for close. Frames gathered for the link are written at the
    /// close, and lost if the socket does not accept them.
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
            self.departures.remove(link);
            self.marked.push_back(link);
        }
    }

    /// Closes some of the marked sockets. Returns the number of sockets closed.
    pub(super) fn close_marked(&mut self) -> usize {
        let count = self.marked.len().min(CLOSES_PER_TURN);
        for link in self.marked.drain(..count) {
            self.outboxes.set(link, None);
            let mut conn = self.conns.remove(link as usize);
            if let Some(outbox) = conn.outbox.take() {
                let _ = write(&mut conn.stream, outbox.front(), &mut None);
            }
        }
        count
    }

    /// Whether any socket is marked for close.
    pub(super) fn has_marked(&self) -> bool {
        !self.marked.is_empty()
    }
}

/// Writes once. Returns the number of bytes accepted; 0 if the socket is full.
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
            // The failed write has cleared the warning, so the write can be repeated.
            Err(error) if warning.is_none() && outlived(&error, stream) => {
                *warning = Some(socket_error(&error));
                continue;
            }
            Err(error) => Err(socket_error(&error)),
        };
    }
}
