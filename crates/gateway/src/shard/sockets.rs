//! The sockets of a shard's links: reading, writing, queueing unsent bytes, and closing.

mod outboxes;

use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use systole_core::budget::Budget;
use systole_core::hub::MAX_LINKS;
use systole_core::kernel::{Examination, Patience, SocketError};
use systole_core::link::Lane;
use systole_core::pages::Places;
use systole_core::{Span, Time};
use systole_net::examine::examine_socket;
use systole_net::transport::{Held, Layer, ReadOutcome, Socket, Transport, Written};
use systole_net::{RouteLookup, socket_options};

use super::departures::Departures;

/// Maximum number of sockets closed per turn. A close costs about 10 µs in the kernel, and when
/// thousands of links die at once, closes must not delay verdicts.
const CLOSES_PER_TURN: usize = 64;

/// The time after which a write is tried again that met one error of a standing connection after
/// the other: soon, and no busy loop while a router floods us with its messages.
const WRITE_AGAIN: Span = Span::from_millis(10);

/// The readiness for which links are registered. Priority shows urgent data.
#[cfg(target_os = "linux")]
const READINESS: Interest = Interest::READABLE.add(Interest::WRITABLE).add(Interest::PRIORITY);
#[cfg(not(target_os = "linux"))]
const READINESS: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// Results of carried-out outputs, to be fed back to the hub.
#[derive(Debug)]
pub(super) enum Feedback {
    /// The outbox is full: the peer reads too slowly.
    Overflowed,
    /// A write failed. Unread bytes are read first, since they may hold the peer's goodbye.
    Failed,
    /// A write met an error, and the connection stands.
    Warned(SocketError),
    /// The hub asked for an examination of the socket, and with `route` of our own route.
    Examine { route: bool },
}

/// One link's socket, its transport and its unsent frames.
pub(super) type Conn<T> = Socket<TcpStream, T, Note>;

// The memory of a connection beside its link. A debug build of mio adds a field of its own.
const _: () = assert!(cfg!(debug_assertions) || size_of::<Conn<Layer>>() <= 24);

/// What the shard notes of a socket.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) state: ConnState,
    /// [`UNREAD`] and [`WINDOW`], in one byte: another one would add eight to each connection.
    bits: u8,
}

/// The loop reads the socket in the next turn without an event.
const UNREAD: u8 = 1;

/// The session has a window.
const WINDOW: u8 = 2;

impl Note {
    /// The note of a socket that was just accepted.
    pub(super) const NEW: Note = Note { state: ConnState::Open, bits: 0 };

    const fn has(&self, bit: u8) -> bool {
        self.bits & bit != 0
    }

    const fn set(&mut self, bit: u8, is_set: bool) {
        self.bits = if is_set { self.bits | bit } else { self.bits & !bit };
    }
}

/// The state of a connection's end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ConnState {
    /// The hub has the link.
    Open,
    /// The hub has the link, and the peer waits for its admission: the socket is not read, and
    /// whether it is readable is noted.
    Waiting,
    /// The hub has ended the link, and its last bytes are being delivered; see [`Departures`].
    Leaving,
    /// The connection is marked for close.
    Marked,
}

/// All sockets of a shard, and the frames gathered for one of them.
#[derive(Debug)]
pub(super) struct Sockets<T> {
    /// The connections, by link number. Like the hub's tables, it never moves its entries.
    pub(super) conns: Places<Conn<T>>,
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
    /// The links whose sockets are written again without an event.
    again: BTreeSet<u32>,
    /// Our routes to the peers examined in this turn.
    routes: RouteLookup,
}

impl<T: Transport> Sockets<T> {
    pub(super) fn new(outbox_limit: usize, outbox_memory: usize) -> Sockets<T> {
        Sockets {
            conns: Places::new(MAX_LINKS),
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
            again: BTreeSet::new(),
            routes: RouteLookup::default(),
        }
    }

    /// Adds a connection and registers its socket. Returns the link's number, or `None` if there is
    /// no room, or no memory for the registration.
    pub(super) fn add(&mut self, registry: &Registry, conn: Conn<T>) -> Option<u32> {
        let link = self.conns.add(conn)?;
        let stream = self.conns.get_mut(link)?.stream_mut();
        if registry.register(stream, Token(link as usize), READINESS).is_err() {
            self.conns.remove(link);
            return None;
        }
        Some(link)
    }

    #[cfg(test)]
    pub(super) fn stream(&self, link: u32) -> Option<&TcpStream> {
        self.conns.get(link).map(Socket::stream)
    }

    /// Whether the hub still has this link.
    pub(super) fn is_open(&self, link: u32) -> bool {
        self.conns.get(link).is_some_and(|conn| match conn.note.state {
            ConnState::Open | ConnState::Waiting => true,
            ConnState::Leaving | ConnState::Marked => false,
        })
    }

    /// Whether the peer waits for its admission.
    pub(super) fn is_waiting(&self, link: u32) -> bool {
        self.conns.get(link).is_some_and(|conn| conn.note.state == ConnState::Waiting)
    }

    /// Stops reading a socket whose peer waits for its admission.
    pub(super) fn suspend(&mut self, link: u32) {
        if let Some(conn) = self.conns.get_mut(link)
            && conn.note.state == ConnState::Open
        {
            conn.note.state = ConnState::Waiting;
        }
    }

    /// Reads a socket again. Returns whether something has come meanwhile.
    pub(super) fn resume(&mut self, link: u32) -> bool {
        let conn = self.conns.get_mut(link);
        conn.filter(|conn| conn.note.state == ConnState::Waiting).is_some_and(|conn| {
            conn.note.state = ConnState::Open;
            let is_unread = conn.note.has(UNREAD);
            conn.note.set(UNREAD, false);
            is_unread
        })
    }

    /// Takes a socket out, with all that waits for it.
    pub(super) fn take(&mut self, link: u32) -> Option<Conn<T>> {
        self.outboxes.set(link, None);
        self.conns.remove(link)
    }

    /// Whether the hub has this link, and the handshake of its transport is not over.
    #[inline]
    pub(super) fn is_shaking_hands(&self, link: u32) -> bool {
        self.conns
            .get(link)
            .is_some_and(|conn| conn.note.state == ConnState::Open && !conn.transport().is_open())
    }

    /// Whether the loop reads this socket in the next turn without an event.
    pub(super) fn is_unread(&self, link: u32) -> bool {
        self.conns.get(link).is_some_and(|conn| conn.note.has(UNREAD))
    }

    pub(super) fn set_unread(&mut self, link: u32, unread: bool) {
        if let Some(conn) = self.conns.get_mut(link) {
            conn.note.set(UNREAD, unread);
        }
    }

    /// Notes that the session of a link has a window: it bounds what is queued, instead of the
    /// limit of outboxes. What a message of the window needs may be more than that.
    pub(super) fn set_window(&mut self, link: u32) {
        if let Some(conn) = self.conns.get_mut(link) {
            conn.note.set(WINDOW, true);
        }
    }

    /// Reads a socket once. Returns also what the transport then holds of an incomplete record.
    pub(super) fn read(&mut self, link: u32, scratch: &mut [u8]) -> (ReadOutcome, Held) {
        let Some(conn) = self.conns.get_mut(link) else {
            return (ReadOutcome::Empty, Held::default());
        };
        let outcome = conn.read(scratch);
        let held = conn.transport().held();
        if conn.has_answer() {
            let written = conn.flush();
            self.note_written(link, &written);
            self.count_outbox(link);
        }
        if let ReadOutcome::Failed(_) | ReadOutcome::Illegal(_) = outcome {
            // What was queued is dropped.
            self.count_outbox(link);
        }
        (outcome, held)
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
        let Some(conn) = self.conns.get(link) else {
            return Examination::default();
        };
        let gathered = self.gathered_for == link && !self.gathered.is_empty();
        let queued = gathered || !conn.is_flushed();
        let found =
            if route { self.routes.examine(conn.stream()) } else { examine_socket(conn.stream()) };
        Examination { queued, ..found }
    }

    /// Ends the lookups of routes for this turn.
    pub(super) fn forget_routes(&mut self) {
        self.routes = RouteLookup::default();
    }

    /// Sets the options by which the kernel has this patience with a connection.
    pub(super) fn follow(&self, link: u32, patience: &Patience) {
        if let Some(conn) = self.conns.get(link) {
            // A connection that is ending refuses options, and needs none.
            let _ = socket_options::follow(patience, conn.stream());
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
        if let Some(conn) = self.conns.get_mut(link) {
            let written = conn.write(&self.gathered);
            self.note_written(link, &written);
            if written.taken < self.gathered.len() {
                self.queue(link, written.taken);
            }
        }
        self.gathered.clear();
        self.frames.clear();
    }

    /// Counts what a socket took, and queues its errors for the hub.
    #[inline]
    pub(super) fn note_written(&mut self, link: u32, written: &Written) {
        self.bytes_out += written.bytes as u64;
        if let Some(error) = written.warning {
            self.feedback.push_back((link, Feedback::Warned(error)));
        }
        if written.again {
            self.again.insert(link);
        }
        if written.failure.is_some() {
            self.feedback.push_back((link, Feedback::Failed));
        }
    }

    /// Queues the gathered frames, of which a write has taken the first `taken` bytes.
    #[cold]
    fn queue(&mut self, link: u32, taken: usize) {
        let Some(conn) = self.conns.get_mut(link) else {
            return;
        };
        // Whatever its limit, an outbox counts in the memory of all.
        let limit = if conn.note.has(WINDOW) { usize::MAX } else { self.outbox_limit };
        if conn.queue(&self.gathered, &self.frames, taken, limit).is_err() {
            self.feedback.push_back((link, Feedback::Overflowed));
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

    /// Takes the links whose sockets are to be written again without an event.
    pub(super) fn take_again(&mut self) -> BTreeSet<u32> {
        std::mem::take(&mut self.again)
    }

    /// Returns by when the next turn must begin, because a socket is to be written again.
    pub(super) fn next_again(&self, now: Time) -> Option<Time> {
        (!self.again.is_empty()).then_some(now + WRITE_AGAIN)
    }

    pub(super) fn write_queued(&mut self, link: u32) {
        let Some(conn) = self.conns.get_mut(link) else {
            return;
        };
        if conn.is_flushed() {
            return;
        }
        let written = conn.flush();
        self.note_written(link, &written);
        if self.conns.get(link).is_some_and(|conn| conn.outbox().is_none()) {
            self.count_outbox(link);
        }
    }

    /// Marks the socket of an ended link for close. Frames gathered for the link are written at the
    /// close, and lost if the socket does not accept them.
    pub(super) fn mark_for_close(&mut self, link: u32) {
        if self.gathered_for == link && !self.gathered.is_empty() {
            self.queue(link, 0);
            self.gathered.clear();
            self.frames.clear();
        }
        if let Some(conn) = self.conns.get_mut(link)
            && conn.note.state != ConnState::Marked
        {
            conn.note.state = ConnState::Marked;
            self.departures.remove(link);
            self.marked.push_back(link);
        }
    }

    /// Closes some of the marked sockets, and calls `closed` with the link of each. Returns the
    /// number of sockets closed.
    pub(super) fn close_marked(&mut self, mut closed: impl FnMut(u32)) -> usize {
        let count = self.marked.len().min(CLOSES_PER_TURN);
        for link in self.marked.drain(..count) {
            closed(link);
            self.outboxes.set(link, None);
            if let Some(mut conn) = self.conns.remove(link) {
                conn.write_last_words();
            }
        }
        count
    }

    /// Whether any socket is marked for close.
    pub(super) fn has_marked(&self) -> bool {
        !self.marked.is_empty()
    }
}
