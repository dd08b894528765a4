//! The frame that one end of a link holds in part, found independently of the decoder, from the
//! lengths that the protocol document names.

use systole_core::link::FLOOR_PER_SECOND;
use systole_core::wire::Codec;
use systole_core::{Span, Time};

/// The front of a frame.
#[derive(Debug)]
pub(super) struct Front {
    codec: Codec,
    bytes: Vec<u8>,
    /// The time from which the frame's time limit counts.
    since: Time,
}

impl Front {
    pub(super) fn new(codec: Codec) -> Front {
        Front { codec, bytes: Vec::new(), since: Time::ZERO }
    }

    /// Observes received bytes. The time of a frame that begins in them counts from `now`. Returns
    /// how many requests of a policy (RETUNE) have got complete.
    pub(super) fn receive(&mut self, received: &[u8], now: Time) -> u64 {
        let begun = !self.bytes.is_empty();
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

    /// Counts the frame's time anew from `at`.
    pub(super) fn restart(&mut self, at: Time) {
        self.since = at;
    }

    /// Forgets the frame: the stream has ended.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Returns the time from which the frame's time counts, and how many bytes are held.
    pub(super) fn held(&self) -> Option<(Time, usize)> {
        (!self.bytes.is_empty()).then_some((self.since, self.bytes.len()))
    }

    /// Returns when the frame must be complete if the bound is `bound`.
    pub(super) fn due(&self, bound: Span) -> Option<Time> {
        let (since, held) = self.held()?;
        let length = self.length(0).unwrap_or(held + 1) as u64;
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
