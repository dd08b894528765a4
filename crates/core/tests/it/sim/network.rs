//! One direction of an emulated TCP connection: what is sent arrives late, in order, or never.

use std::collections::VecDeque;

use systole_core::link::Lane;
use systole_core::random::Random;

/// A lost segment is sent again after this long, doubled each time; the cap is that of the socket
/// options the project sets (1 s).
const RETRANSMISSION: u64 = 200_000_000;
const LONGEST_RETRANSMISSION: u64 = 1_000_000_000;

/// What travels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Parcel {
    /// The connection itself.
    Open,
    /// Whole frames.
    Bytes(Vec<u8>),
    /// The end of the stream.
    Fin,
    /// The end of everything.
    Reset,
}

/// How a path treats what travels on it; lengths in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quality {
    pub(super) delay: u64,
    pub(super) jitter: u64,
    /// Of 1,000 segments so many are lost once; of those as many again.
    pub(super) loss: u64,
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Path {
    pub(super) quality: Quality,
    queue: VecDeque<(u64, Parcel)>,
    last: u64,
    /// Nothing moves before this: an outage that heals.
    outage_until: u64,
    /// Whatever is sent vanishes.
    cut: bool,
    /// Its sender has closed it: nothing but a reset follows.
    closed: bool,
}

impl Path {
    pub(super) fn new(quality: Quality) -> Path {
        Path { quality, ..Path::default() }
    }

    pub(super) fn send(&mut self, raw: u64, parcel: Parcel, chance: &mut Random) {
        if self.cut || self.closed && parcel != Parcel::Reset {
            return;
        }
        if parcel == Parcel::Reset {
            // A reset overtakes nothing here, but what it finds unread on arrival is thrown away.
            self.queue.retain(|(_, parcel)| *parcel == Parcel::Open);
        }
        let Quality { delay, jitter, loss } = self.quality;
        let mut arrival = raw.max(self.outage_until) + delay + chance.below(jitter + 1);
        let mut again = RETRANSMISSION;
        while loss > 0 && chance.below(1_000) < loss {
            arrival += again;
            again = (again * 2).min(LONGEST_RETRANSMISSION);
        }
        self.last = self.last.max(arrival);
        self.queue.push_back((self.last, parcel));
    }

    /// What was sent last, before it leaves.
    pub(super) fn recall(&mut self) -> Option<Parcel> {
        self.queue.pop_back().map(|(_, parcel)| parcel)
    }

    /// Nothing that has not arrived moves before `until`; then everything does, in order.
    pub(super) fn outage(&mut self, until: u64) {
        self.outage_until = self.outage_until.max(until);
        for (arrival, _) in &mut self.queue {
            *arrival = (*arrival).max(until);
        }
        self.last = self.last.max(until);
    }

    /// Its sender sends no more.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// From now on everything vanishes, what is under way included.
    pub(super) fn cut(&mut self, raw: u64) {
        self.cut = true;
        self.queue.retain(|(arrival, _)| *arrival <= raw);
    }

    /// When the next parcel arrives, or arrived.
    pub(super) fn next(&self) -> Option<u64> {
        self.queue.front().map(|(arrival, _)| *arrival)
    }

    /// The next parcel that has arrived.
    pub(super) fn take(&mut self, raw: u64) -> Option<Parcel> {
        if self.next()? > raw {
            return None;
        }
        self.queue.pop_front().map(|(_, parcel)| parcel)
    }
}

/// The two lanes of one end's socket: what is polled together leaves together, and control may
/// overtake data.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    control: Vec<u8>,
    data: Vec<u8>,
    /// As they came.
    all: Vec<u8>,
}

impl Lanes {
    /// A frame wants to leave.
    pub(super) fn put(&mut self, bytes: &[u8], lane: Lane) {
        self.all.extend_from_slice(bytes);
        match lane {
            Lane::Control => self.control.extend_from_slice(bytes),
            Lane::Data => self.data.extend_from_slice(bytes),
        }
    }

    /// Sends what has gathered.
    pub(super) fn flush(&mut self, raw: u64, path: &mut Path, chance: &mut Random) {
        if self.all.is_empty() {
            return;
        }
        let bytes = if self.control.is_empty() || self.data.is_empty() || chance.below(2) == 0 {
            std::mem::take(&mut self.all)
        } else {
            [&self.control[..], &self.data].concat()
        };
        self.control.clear();
        self.data.clear();
        self.all.clear();
        path.send(raw, Parcel::Bytes(bytes), chance);
    }
}

/// Cuts `bytes` into up to three pieces.
pub(super) fn pieces<'a>(
    bytes: &'a [u8],
    chance: &mut Random,
) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    let mut cuts = [bytes.len(); 2];
    if chance.below(3) == 0 {
        cuts = cuts.map(|length| chance.below(length as u64 + 1) as usize);
        cuts.sort_unstable();
    }
    let [first, second] = cuts;
    [&bytes[..first], &bytes[first..second], &bytes[second..]]
        .into_iter()
        .filter(|piece| !piece.is_empty())
}
