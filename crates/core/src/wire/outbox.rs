//! Bytes that a socket has not taken yet: two lanes, bounded, frames never torn apart.
//!
//! Whoever writes to a socket keeps one while the socket is full, and none otherwise.

use alloc::collections::VecDeque;
use core::fmt;

use crate::link::Lane;

/// The most bytes the control lane holds, beyond the limit for data: a handshake, a goodbye and a
/// dozen of the largest heartbeats. A peer for whom more than that is waiting does not read.
pub const CONTROL_RESERVE: usize = 16 * 1024;

/// What a boundary between two chunks of data costs in bytes, counted against the limit, so that
/// many tiny chunks cannot hold more memory than the limit says.
pub const BOUNDARY: usize = size_of::<u32>();

/// Bytes waiting for one socket.
///
/// Control goes before data, from the next boundary between chunks on. It holds at most its limit
/// of data and [`CONTROL_RESERVE`] of control, in buffers of at most twice that; when the last byte
/// has gone it holds no memory.
#[derive(Debug)]
pub struct Outbox {
    control: VecDeque<u8>,
    data: VecDeque<u8>,
    /// How much is left of each chunk of data. Control needs no boundaries: nothing overtakes it.
    chunks: VecDeque<u32>,
    /// Whether the first chunk of data has been written in part, so that nothing may come between.
    torn: bool,
    limit: usize,
}

impl Outbox {
    /// An empty one that takes at most `limit` bytes of data, four more being counted per chunk.
    pub const fn new(limit: usize) -> Outbox {
        Outbox {
            control: VecDeque::new(),
            data: VecDeque::new(),
            chunks: VecDeque::new(),
            torn: false,
            limit,
        }
    }

    /// Queues `bytes`, one or more whole frames, behind what its lane holds already.
    ///
    /// # Errors
    /// The lane has no room for all of them; none was taken, and what was queued before stays good.
    pub fn push(&mut self, lane: Lane, bytes: &[u8]) -> Result<(), Full> {
        if bytes.is_empty() {
            return Ok(());
        }
        match lane {
            Lane::Control => {
                if bytes.len() > CONTROL_RESERVE - self.control.len() {
                    return Err(Full { lane });
                }
                self.control.extend(bytes);
            }
            Lane::Data => {
                let chunk = u32::try_from(bytes.len()).map_err(|_| Full { lane })?;
                if bytes.len() > self.room() {
                    return Err(Full { lane });
                }
                self.data.extend(bytes);
                self.chunks.push_back(chunk);
            }
        }
        Ok(())
    }

    /// Queues the rest of a frame whose beginning the socket has taken before anything was queued:
    /// nothing may come between, control included. It counts as data, whatever it is, because a
    /// frame of data may be longer than all that waits as control.
    ///
    /// # Errors
    /// As [`Outbox::push`]; the frame stays torn, and the stream is of no further use.
    pub fn push_begun(&mut self, rest: &[u8]) -> Result<(), Full> {
        debug_assert!(self.is_empty(), "something is queued before the frame that was begun");
        self.push(Lane::Data, rest)?;
        self.torn = !rest.is_empty();
        Ok(())
    }

    /// How many bytes of data would be taken now, in one chunk.
    pub fn room(&self) -> usize {
        self.limit.saturating_sub(self.held()).saturating_sub(BOUNDARY)
    }

    /// What the data that waits counts for against the limit: its bytes, and [`BOUNDARY`] a chunk.
    pub fn held(&self) -> usize {
        self.data.len() + self.chunks.len() * BOUNDARY
    }

    /// The bytes to write next; empty only if nothing is queued.
    ///
    /// There may be more behind them: write, [`Outbox::advance`], and ask again.
    pub fn front(&self) -> &[u8] {
        match self.lane() {
            Lane::Control => self.control.as_slices().0,
            Lane::Data => {
                let bytes = self.data.as_slices().0;
                // Where control waits, only the frame that has been begun may go before it.
                let begun = self.chunks.front().map_or(0, |chunk| *chunk as usize);
                if self.control.is_empty() { bytes } else { bytes.get(..begun).unwrap_or(bytes) }
            }
        }
    }

    /// The socket took the first `n` bytes of [`Outbox::front`]; nothing was pushed in between.
    pub fn advance(&mut self, n: usize) {
        let n = n.min(self.front().len());
        match self.lane() {
            Lane::Control => {
                self.control.drain(..n);
            }
            Lane::Data => {
                self.data.drain(..n);
                self.pass(n);
            }
        }
        if self.is_empty() {
            *self = Outbox::new(self.limit);
        }
    }

    /// Whether nothing is waiting.
    pub fn is_empty(&self) -> bool {
        self.control.is_empty() && self.data.is_empty()
    }

    /// How many bytes are waiting in both lanes.
    pub fn len(&self) -> usize {
        self.control.len() + self.data.len()
    }

    /// The lane whose turn it is.
    fn lane(&self) -> Lane {
        if self.torn || self.control.is_empty() { Lane::Data } else { Lane::Control }
    }

    /// Takes `n` bytes off the chunks of data.
    fn pass(&mut self, n: usize) {
        let mut n = u32::try_from(n).unwrap_or(u32::MAX);
        while let Some(chunk) = self.chunks.front_mut().filter(|_| n > 0) {
            self.torn = n < *chunk;
            if self.torn {
                *chunk -= n;
                return;
            }
            n -= *chunk;
            self.chunks.pop_front();
        }
    }
}

/// A lane of an [`Outbox`] has no room.
///
/// The peer's fault, who reads too slowly; the outbox is usable; try again after some was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full {
    /// Which lane.
    pub lane: Lane,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.lane {
            Lane::Control => "no room for another heartbeat: the peer does not read",
            Lane::Data => "no room for more data: the peer reads too slowly",
        })
    }
}

impl core::error::Error for Full {}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;
    use crate::random::Random;

    /// Chunks are told apart by their bytes: lane, number, and place in the chunk.
    fn chunk(lane: Lane, number: u8, len: usize) -> Vec<u8> {
        let mark = if lane == Lane::Control { 0x80 } else { 0 };
        vec![mark | number & 0x7f; len]
    }

    /// The simple way: whole chunks in two lists, one of them perhaps begun.
    #[derive(Default)]
    struct Model {
        control: VecDeque<Vec<u8>>,
        data: VecDeque<Vec<u8>>,
        begun: Option<(Lane, Vec<u8>)>,
    }

    impl Model {
        fn next_byte(&mut self) -> Option<u8> {
            let (lane, mut rest) = match self.begun.take() {
                Some(begun) => begun,
                None => match self.control.pop_front() {
                    Some(chunk) => (Lane::Control, chunk),
                    None => (Lane::Data, self.data.pop_front()?),
                },
            };
            let byte = rest.remove(0);
            self.begun = (!rest.is_empty()).then_some((lane, rest));
            Some(byte)
        }
    }

    #[test]
    fn random_use_gives_the_bytes_that_the_simple_model_gives() {
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let (mut outbox, mut model) = (Outbox::new(600), Model::default());
            let (mut written, mut expected) = (Vec::new(), Vec::new());
            for number in 0..400_u32 {
                match random.below(5) {
                    0 | 1 => {
                        let lane = if random.below(3) == 0 { Lane::Control } else { Lane::Data };
                        let bytes = chunk(lane, number as u8, random.below(90) as usize);
                        if outbox.push(lane, &bytes).is_ok() && !bytes.is_empty() {
                            match lane {
                                Lane::Control => model.control.push_back(bytes),
                                Lane::Data => model.data.push_back(bytes),
                            }
                        }
                    }
                    2 | 3 => {
                        let front = outbox.front();
                        let n = (random.below(120) as usize).min(front.len());
                        written.extend_from_slice(&front[..n]);
                        expected.extend((0..n).map_while(|_| model.next_byte()));
                        outbox.advance(n);
                    }
                    _ => assert_eq!(outbox.is_empty(), outbox.front().is_empty()),
                }
                assert_eq!(written, expected, "seed {seed}");
                assert!(outbox.data.len() + outbox.chunks.len() * BOUNDARY <= 600);
            }
            while !outbox.is_empty() {
                let n = outbox.front().len();
                written.extend_from_slice(outbox.front());
                outbox.advance(n);
            }
            expected.extend(core::iter::from_fn(|| model.next_byte()));
            assert_eq!(written, expected, "seed {seed}");
        }
    }

    #[test]
    fn control_overtakes_at_the_next_boundary_and_not_before() {
        let mut outbox = Outbox::new(100);
        outbox.push(Lane::Data, b"first").unwrap();
        outbox.push(Lane::Data, b"second").unwrap();
        outbox.advance(2);
        outbox.push(Lane::Control, b"beat").unwrap();
        assert_eq!(outbox.front(), b"rst");
        outbox.advance(3);
        assert_eq!(outbox.front(), b"beat");
        outbox.advance(1);
        outbox.push(Lane::Control, b"!").unwrap();
        assert_eq!(outbox.front(), b"eat!");
        outbox.advance(4);
        assert_eq!(outbox.front(), b"second");
    }

    #[test]
    fn the_rest_of_a_frame_goes_before_control_and_may_be_longer_than_all_of_it() {
        let mut outbox = Outbox::new(2 * CONTROL_RESERVE);
        outbox.push_begun(&[1; CONTROL_RESERVE + 1]).unwrap();
        outbox.push(Lane::Data, b"next").unwrap();
        outbox.push(Lane::Control, b"beat").unwrap();
        outbox.advance(CONTROL_RESERVE);
        assert_eq!(outbox.front(), [1]);
        outbox.advance(1);
        assert_eq!(outbox.front(), b"beat");
        outbox.advance(4);
        assert_eq!(outbox.front(), b"next");
        outbox.advance(4);
        assert_eq!(outbox.push_begun(&[1; 2 * CONTROL_RESERVE]), Err(Full { lane: Lane::Data }));
    }

    #[test]
    fn both_lanes_refuse_what_exceeds_their_limit_and_go_on() {
        let mut outbox = Outbox::new(100);
        assert_eq!(outbox.room(), 96);
        outbox.push(Lane::Data, &[1; 60]).unwrap();
        assert_eq!(outbox.room(), 32);
        assert_eq!(outbox.push(Lane::Data, &[2; 33]), Err(Full { lane: Lane::Data }));
        outbox.push(Lane::Data, &[2; 32]).unwrap();
        assert_eq!(outbox.room(), 0);
        outbox.push(Lane::Control, &[3; CONTROL_RESERVE]).unwrap();
        assert_eq!(outbox.push(Lane::Control, &[3]), Err(Full { lane: Lane::Control }));
        assert_eq!(outbox.len(), 92 + CONTROL_RESERVE);
        outbox.advance(CONTROL_RESERVE);
        outbox.push(Lane::Control, &[3]).unwrap();
    }

    #[test]
    fn tiny_chunks_count_with_their_boundaries() {
        let mut outbox = Outbox::new(60);
        let pushed = (0..60).take_while(|_| outbox.push(Lane::Data, &[7]).is_ok()).count();
        assert_eq!(pushed, 60 / (1 + BOUNDARY));
    }

    #[test]
    fn nothing_is_held_when_nothing_waits() {
        let mut outbox = Outbox::new(1 << 20);
        outbox.push(Lane::Data, &[1; 1 << 19]).unwrap();
        outbox.push(Lane::Control, &[1; 100]).unwrap();
        while !outbox.is_empty() {
            outbox.advance(usize::MAX);
        }
        let held = outbox.control.capacity() + outbox.data.capacity() + outbox.chunks.capacity();
        assert_eq!(held, 0);
        assert_eq!(outbox.room(), (1 << 20) - BOUNDARY);
    }
}
