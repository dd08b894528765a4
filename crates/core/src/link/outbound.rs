//! The outputs of links that wait to be polled: a queue, and one buffer for the bytes that they
//! refer to.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::ops::Range;

use super::{Closing, Event, Goodbye, Lane, Output};
use crate::kernel::Patience;
use crate::session;
use crate::wire::{Codec, DataKind, Frame};

/// The length in bytes below which a piece of a message is metered as a message: whoever cuts
/// messages to fit into segments sends longer ones, and each piece costs work, however short.
const SHORT_PIECE: usize = 1_024;

/// The capacity that the byte buffer keeps between inputs; more, as after a large message, is
/// freed.
const KEPT_CAPACITY: usize = 64 * 1024;

/// The outputs of one machine, each with the number of its link.
///
/// The shell polls all outputs after every input, so one input bounds the size.
#[derive(Debug, Default)]
pub(crate) struct Outbound {
    queue: VecDeque<(u32, Queued)>,
    bytes: Vec<u8>,
    heartbeats_in: u64,
    heartbeats_out: u64,
    /// Messages, and short pieces of messages, received.
    messages_in: u64,
    /// Requests of a policy received.
    requests_in: u64,
}

#[derive(Debug)]
enum Queued {
    Transmit(Lane, Range<u32>),
    Data { bytes: Range<u32>, more: bool, kind: DataKind },
    HeartbeatData(Range<u32>),
    Farewell(Goodbye, Range<u32>),
    Session(session::Event),
    Event(Event<'static>),
    Examine { route: bool },
    Patience(Patience),
    Admit,
    Close(Closing),
}

impl Outbound {
    /// Returns the writer for the outputs of `link`.
    #[inline]
    pub(crate) fn to(&mut self, link: u32) -> Writer<'_> {
        Writer { outbound: self, link }
    }

    /// Returns the next output with the number of its link.
    #[inline]
    pub(crate) fn poll(&mut self) -> Option<(u32, Output<'_>)> {
        let Some((link, queued)) = self.queue.pop_front() else {
            self.bytes.clear();
            if self.bytes.capacity() > KEPT_CAPACITY {
                self.bytes.shrink_to(KEPT_CAPACITY);
            }
            return None;
        };
        let bytes = |range: Range<u32>| {
            self.bytes.get(range.start as usize..range.end as usize).unwrap_or_default()
        };
        let output = match queued {
            Queued::Transmit(lane, range) => Output::Transmit { bytes: bytes(range), lane },
            Queued::Data { bytes: range, more, kind } => {
                Output::Event(Event::Data { bytes: bytes(range), more, kind })
            }
            Queued::HeartbeatData(range) => Output::Event(Event::HeartbeatData(bytes(range))),
            Queued::Farewell(goodbye, range) => {
                let text = str::from_utf8(bytes(range)).unwrap_or_default();
                Output::Event(Event::Farewell { goodbye, text })
            }
            Queued::Session(event) => Output::Session(event),
            Queued::Event(event) => Output::Event(event),
            Queued::Examine { route } => Output::Examine { route },
            Queued::Patience(patience) => Output::Patience(patience),
            Queued::Admit => Output::Admit,
            Queued::Close(closing) => Output::Close(closing),
        };
        Some((link, output))
    }

    /// Returns whether all outputs have been polled.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn set_heartbeats(&mut self, (received, sent): (u64, u64)) {
        (self.heartbeats_in, self.heartbeats_out) = (received, sent);
    }

    /// Returns how many messages were received, and heartbeats, as they are metered.
    pub(crate) fn metered(&self) -> (u64, u64) {
        (self.messages_in, self.heartbeats_in + self.requests_in)
    }

    /// Returns the numbers of heartbeats received and sent.
    pub(crate) fn heartbeats(&self) -> (u64, u64) {
        (self.heartbeats_in, self.heartbeats_out)
    }

    fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Range<u32> {
        let start = self.bytes.len() as u32;
        write(&mut self.bytes);
        start..self.bytes.len() as u32
    }
}

/// Writes the outputs of one link.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    outbound: &'a mut Outbound,
    link: u32,
}

impl Writer<'_> {
    /// Encodes a frame and queues it for transmission.
    #[inline]
    pub(crate) fn transmit(&mut self, codec: Codec, lane: Lane, frame: &Frame<'_>) {
        let range = self.outbound.append(|bytes| codec.encode(frame, bytes));
        if !range.is_empty() {
            self.push(Queued::Transmit(lane, range));
        }
    }

    /// Counts a heartbeat that arrived.
    #[inline]
    pub(crate) fn count_heartbeat_in(&mut self) {
        self.outbound.heartbeats_in += 1;
    }

    /// Counts a request of a policy that arrived: it is answered, as a heartbeat is.
    pub(crate) fn count_request_in(&mut self) {
        self.outbound.requests_in += 1;
    }

    /// Counts a heartbeat that was sent.
    #[inline]
    pub(crate) fn count_heartbeat_out(&mut self) {
        self.outbound.heartbeats_out += 1;
    }

    /// Queues a message or a part of it, as an event.
    pub(crate) fn data(&mut self, bytes: &[u8], more: bool, kind: DataKind) {
        self.outbound.messages_in += u64::from(!more || bytes.len() < SHORT_PIECE);
        let bytes = self.outbound.append(|buffer| buffer.extend_from_slice(bytes));
        self.push(Queued::Data { bytes, more, kind });
    }

    /// Queues business data that arrived with a heartbeat, as an event.
    pub(crate) fn heartbeat_data(&mut self, bytes: &[u8]) {
        let bytes = self.outbound.append(|buffer| buffer.extend_from_slice(bytes));
        self.push(Queued::HeartbeatData(bytes));
    }

    /// Queues the peer's CLOSE, as an event.
    pub(super) fn farewell(&mut self, goodbye: Goodbye, text: &str) {
        let text = self.outbound.append(|buffer| buffer.extend_from_slice(text.as_bytes()));
        self.push(Queued::Farewell(goodbye, text));
    }

    /// Queues an event of the session.
    pub(crate) fn session(&mut self, event: session::Event) {
        self.push(Queued::Session(event));
    }

    /// Queues an event of the link that carries no bytes.
    pub(crate) fn event(&mut self, event: Event<'static>) {
        self.push(Queued::Event(event));
    }

    /// Queues a request to examine the socket.
    pub(crate) fn examine(&mut self) {
        self.push(Queued::Examine { route: true });
    }

    /// Queues a request to examine the socket alone, and not our own address and route.
    pub(crate) fn examine_socket(&mut self) {
        self.push(Queued::Examine { route: false });
    }

    /// Queues the patience that the kernel must have.
    pub(crate) fn patience(&mut self, patience: Patience) {
        self.push(Queued::Patience(patience));
    }

    /// Queues a request to decide whether the peer gets a session.
    pub(crate) fn admit(&mut self) {
        self.push(Queued::Admit);
    }

    /// Queues a request to close the socket.
    pub(crate) fn close(&mut self, closing: Closing) {
        self.push(Queued::Close(closing));
    }

    #[inline]
    fn push(&mut self, queued: Queued) {
        self.outbound.queue.push_back((self.link, queued));
    }
}
