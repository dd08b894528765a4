//! One direction of an emulated TCP connection: segments arrive in order after a delay, or never.

use std::collections::VecDeque;

use systole_core::link::Lane;
use systole_core::random::Random;

/// The first retransmission timeout in nanoseconds; it doubles each time.
const RETRANSMISSION: u64 = 200_000_000;
/// The cap of the retransmission timeout: 1 s, as the socket options set it.
const LONGEST_RETRANSMISSION: u64 = 1_000_000_000;

/// A unit of transmission.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Segment {
    /// The start of the connection.
    Open,
    /// Whole frames.
    Bytes(Vec<u8>),
    /// Bytes that hold no plaintext: of a record of `length` bytes the first, for which a transport
    /// takes this memory; or what completes such a record, with no memory.
    NoPlaintext { memory: u32, length: u32 },
    /// The end of the stream.
    Fin,
    /// A reset of the connection.
    Reset,
}

impl Segment {
    /// A record without plaintext, or the rest of one.
    pub(super) const WITHOUT_PLAINTEXT: Segment = Segment::NoPlaintext { memory: 0, length: 0 };

    /// Draws a part of a sealed record.
    pub(super) fn part(random: &mut Random) -> Segment {
        let length = 1 + random.below(16_406) as u32;
        Segment::NoPlaintext { memory: 1 + random.below(length.into()) as u32, length }
    }
}

/// The quality of a path; times in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quality {
    pub(super) delay: u64,
    pub(super) jitter: u64,
    /// The loss per 1,000 transmissions, retransmissions included.
    pub(super) loss: u64,
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Path {
    pub(super) quality: Quality,
    queue: VecDeque<(u64, Segment)>,
    last: u64,
    /// The number of bytes sent so far.
    pub(super) sent: u64,
    /// The end of an outage, before which nothing arrives.
    outage_until: u64,
    /// Whether the path loses everything from now on.
    cut: bool,
    /// Whether the sender has closed the path: only a reset may follow.
    closed: bool,
}

impl Path {
    pub(super) fn new(quality: Quality) -> Path {
        Path { quality, ..Path::default() }
    }

    pub(super) fn send(&mut self, raw: u64, segment: Segment, random: &mut Random) {
        if self.cut || self.closed && segment != Segment::Reset {
            return;
        }
        if segment == Segment::Reset {
            // A reset discards what was not read before.
            self.queue.retain(|(_, segment)| *segment == Segment::Open);
        }
        let Quality { delay, jitter, loss } = self.quality;
        let mut arrival = raw.max(self.outage_until) + delay + random.below(jitter + 1);
        let mut again = RETRANSMISSION;
        while loss > 0 && random.below(1_000) < loss {
            arrival += again;
            again = (again * 2).min(LONGEST_RETRANSMISSION);
        }
        if let Segment::Bytes(bytes) = &segment {
            self.sent += bytes.len() as u64;
        }
        self.last = self.last.max(arrival);
        self.queue.push_back((self.last, segment));
    }

    /// Sends a record without plaintext, perhaps in two parts.
    pub(super) fn send_without_plaintext(&mut self, raw: u64, random: &mut Random) {
        if random.below(2) == 0 {
            let part = Segment::part(random);
            self.send(raw, part, random);
        }
        self.send(raw, Segment::WITHOUT_PLAINTEXT, random);
    }

    /// Returns when the segment that was sent last arrives.
    pub(super) fn last_arrival(&self) -> u64 {
        self.last
    }

    /// Takes back the segment that was sent last.
    pub(super) fn recall(&mut self) -> Option<Segment> {
        self.queue.pop_back().map(|(_, segment)| segment)
    }

    /// Starts an outage: what has not arrived arrives at `until` or later, in order.
    pub(super) fn outage(&mut self, until: u64) {
        self.outage_until = self.outage_until.max(until);
        for (arrival, _) in &mut self.queue {
            *arrival = (*arrival).max(until);
        }
        self.last = self.last.max(until);
    }

    /// Closes the path: the sender sends no more.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Cuts the path: everything in flight and everything sent later is lost.
    pub(super) fn cut(&mut self, raw: u64) {
        self.cut = true;
        self.queue.retain(|(arrival, _)| *arrival <= raw);
    }

    /// Returns the arrival time of the next segment, which may be in the past.
    pub(super) fn next(&self) -> Option<u64> {
        self.queue.front().map(|(arrival, _)| *arrival)
    }

    /// Returns whether the next segment ends the stream.
    pub(super) fn ends_next(&self) -> bool {
        matches!(self.queue.front(), Some((_, Segment::Fin | Segment::Reset)))
    }

    /// Takes the next segment that has arrived.
    pub(super) fn take(&mut self, raw: u64) -> Option<Segment> {
        if self.next()? > raw {
            return None;
        }
        self.queue.pop_front().map(|(_, segment)| segment)
    }
}

/// The lanes of one end's socket: frames polled together are sent together, control may overtake
/// data, and the last lane goes after both. A full socket sometimes keeps data back, until the next
/// frames or the close.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    control: Vec<u8>,
    data: Vec<u8>,
    last: Vec<u8>,
    /// All frames in the order in which they were polled.
    all: Vec<u8>,
}

impl Lanes {
    /// Queues a frame.
    pub(super) fn push(&mut self, bytes: &[u8], lane: Lane) {
        self.all.extend_from_slice(bytes);
        match lane {
            Lane::Control => self.control.extend_from_slice(bytes),
            Lane::Data => self.data.extend_from_slice(bytes),
            Lane::Last => self.last.extend_from_slice(bytes),
        }
    }

    /// Sends the queued frames, all of them if the link `closes`.
    pub(super) fn flush(&mut self, raw: u64, path: &mut Path, closes: bool, random: &mut Random) {
        if self.all.is_empty() {
            return;
        }
        if !closes && !self.data.is_empty() && random.below(8) == 0 {
            let control = std::mem::take(&mut self.control);
            self.all.clone_from(&self.data);
            if !control.is_empty() {
                path.send(raw, Segment::Bytes(control), random);
            }
            return;
        }
        let bytes = if self.control.is_empty() || self.data.is_empty() || random.below(2) == 0 {
            std::mem::take(&mut self.all)
        } else {
            [&self.control[..], &self.data, &self.last].concat()
        };
        self.control.clear();
        self.data.clear();
        self.last.clear();
        self.all.clear();
        path.send(raw, Segment::Bytes(bytes), random);
    }
}

/// Splits `bytes` into up to three pieces at random positions.
pub(super) fn split_randomly<'a>(
    bytes: &'a [u8],
    random: &mut Random,
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let mut cuts = [bytes.len(); 2];
    if random.below(3) == 0 {
        cuts = cuts.map(|length| random.below(length as u64 + 1) as usize);
        cuts.sort_unstable();
    }
    let [first, second] = cuts;
    [&bytes[..first], &bytes[first..second], &bytes[second..]]
        .into_iter()
        .filter(|piece| !piece.is_empty())
}
