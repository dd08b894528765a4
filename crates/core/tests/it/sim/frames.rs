//! The frame that one end of a link holds in part, found independently of the decoder, from the
//! lengths that the protocol document names.

use std::ops::RangeInclusive;

use systole_core::link::FLOOR_PER_SECOND;
use systole_core::wire::Codec;
use systole_core::{Span, Time};

/// The front of a frame.
#[derive(Debug)]
pub(super) struct Front {
    codec: Codec,
    bytes: Vec<u8>,
    /// The memory and the length of the sealed record that the transport holds in part.
    sealed: (usize, usize),
    /// The time from which the time limit counts.
    since: Time,
}

impl Front {
    pub(super) fn new(codec: Codec) -> Front {
        Front { codec, bytes: Vec::new(), sealed: (0, 0), since: Time::ZERO }
    }

    /// Observes received bytes. The time of a frame that begins in them counts from `now`. Returns
    /// how many requests of a policy (RETUNE) have got complete.
    pub(super) fn receive(&mut self, received: &[u8], now: Time) -> u64 {
        let begun = !self.bytes.is_empty();
        // The plaintext is that of the record.
        self.sealed = (0, 0);
        self.bytes.extend_from_slice(received);
        let (mut complete, mut requests) = (0, 0);
        while let Some(length) = self.whole(complete) {
            let is_request = self.codec == Codec::Native && self.bytes[complete] >> 4 == 6;
            requests += u64::from(is_request);
            complete += length;
        }
        self.bytes.drain(..complete);
        if !begun || complete > 0 {
            self.since = now;
        }
        requests
    }

    /// Observes what the transport holds of a sealed record. The time of one that begins counts
    /// from `now`, unless it continues a frame.
    pub(super) fn hold(&mut self, memory: usize, length: usize, now: Time) {
        if self.bytes.is_empty() && self.sealed.0 == 0 {
            self.since = now;
        }
        self.sealed = if memory > 0 { (memory, length) } else { (0, 0) };
    }

    /// Counts the frame's time anew from `at`.
    pub(super) fn restart(&mut self, at: Time) {
        self.since = at;
    }

    /// Forgets the frame: the stream has ended.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.sealed = (0, 0);
    }

    /// Returns the time from which the frame's time counts, and the least and the most memory that
    /// it may take, with the sealed record: twice its bytes, if they are `decoded`, and a fixed
    /// part.
    pub(super) fn held(&self, decoded: bool) -> Option<(Time, RangeInclusive<usize>)> {
        let bytes = if decoded { self.bytes.len() } else { 0 };
        let most = 2 * bytes.max(32) + 64 + self.sealed.0;
        let least = bytes + self.sealed.0;
        (least > 0).then_some((self.since, least..=most))
    }

    /// Returns when the frame must be complete if the bound is `bound`.
    pub(super) fn due(&self, bound: Span) -> Option<Time> {
        let (since, _) = self.held(true)?;
        let held = self.bytes.len();
        let frame = if held == 0 { 0 } else { self.length(0).unwrap_or(held + 1) };
        let length = frame.max(held + self.sealed.1) as u64;
        let at_floor = Span::from_millis(length * 1_000 / FLOOR_PER_SECOND);
        Some(since + bound.max(at_floor))
    }

    /// Returns the length of the frame at `from` if all of it has arrived.
    fn whole(&self, from: usize) -> Option<usize> {
        self.length(from).filter(|length| from + length <= self.bytes.len())
    }

    /// Returns the length of the frame at `from`, if it is known.
    fn length(&self, from: usize) -> Option<usize> {
        let bytes = self.bytes.get(from..).filter(|bytes| !bytes.is_empty())?;
        match self.codec {
            Codec::Line => bytes.iter().position(|byte| *byte == b'\n').map(|end| end + 1),
            Codec::Message1028 => Some(if bytes.len() < 4 { 4 } else { 1_028 }),
            Codec::Native => native_length(bytes),
        }
    }
}

fn native_length(bytes: &[u8]) -> Option<usize> {
    let kind = bytes[0];
    let is_heartbeat = matches!(kind >> 4, 1 | 2);
    let mut header = 1;
    if is_heartbeat {
        header += 1;
        if kind & 1 != 0 {
            header += varint(bytes.get(header..)?)?.1;
        }
        if kind & 2 == 0 {
            return Some(header);
        }
    }
    let (length, size) = varint(bytes.get(header..)?)?;
    Some(header + size + length)
}

/// Returns the value of a varint and its length.
fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let size = bytes.iter().position(|byte| byte & 0x80 == 0)? + 1;
    let digits = bytes[..size].iter().rev();
    Some((digits.fold(0, |value, byte| value << 7 | usize::from(byte & 0x7f)), size))
}
