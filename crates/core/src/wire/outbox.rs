//! The send queue of a socket: three bounded lanes that never split a frame.
//!
//! The shell keeps an outbox for a socket only while the socket is full.

use alloc::collections::VecDeque;
use core::fmt;

use crate::link::Lane;

/// The maximum number of bytes in the control lane, beside the limit for data: a handshake, a CLOSE
/// and a dozen of the largest heartbeats. A peer with more than that waiting does not read.
pub const CONTROL_RESERVE: usize = 16 * 1024;

/// The maximum number of bytes in the last lane, beside the limit for data: the longest CLOSE. A
/// full data lane cannot refuse it.
pub const LAST_RESERVE: usize = 1 + 2 + super::MAX_CONTROL;

/// The bytes that each chunk of data counts against the limit beside its own, so that many tiny
/// chunks cannot use more memory than the limit.
pub const BOUNDARY: usize = size_of::<u32>();

/// The send queue of one socket.
///
/// Control goes before data at the next boundary between chunks, and the last lane goes after both.
/// The queue holds at most its limit of data, [`CONTROL_RESERVE`] of control and [`LAST_RESERVE`],
/// in buffers of at most twice that; when empty it holds no memory.
#[derive(Debug)]
pub struct Outbox {
    control: VecDeque<u8>,
    data: VecDeque<u8>,
    last: VecDeque<u8>,
    /// The rest of each chunk of data in bytes. Control needs no boundaries: nothing overtakes it.
    chunks: VecDeque<u32>,
    /// Whether the first chunk of data has been written in part, so that control must wait for it.
    front_begun: bool,
    /// Whether data was discarded: nothing that follows it may be sent.
    has_gap: bool,
    limit: usize,
}

impl Outbox {
    /// Creates an empty outbox for at most `limit` bytes of data; each chunk counts four more.
    pub const fn new(limit: usize) -> Outbox {
        Outbox {
            control: VecDeque::new(),
            data: VecDeque::new(),
            last: VecDeque::new(),
            chunks: VecDeque::new(),
            front_begun: false,
            has_gap: false,
            limit,
        }
    }

    /// Queues `bytes`, one or more whole frames, at the end of a lane. The last lane takes one
    /// push, after which nothing may follow.
    ///
    /// # Errors
    /// The lane has no room for all of `bytes`, the last lane is in use, or data was discarded that
    /// `bytes` would have followed; none was queued, and the queue stays usable.
    pub fn push(&mut self, lane: Lane, bytes: &[u8]) -> Result<(), Full> {
        if bytes.is_empty() {
            return Ok(());
        }
        if !self.last.is_empty() || self.has_gap && lane != Lane::Control {
            return Err(Full { lane });
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
            Lane::Last => {
                if bytes.len() > LAST_RESERVE {
                    return Err(Full { lane });
                }
                self.last.extend(bytes);
            }
        }
        Ok(())
    }

    /// Queues the rest of a frame whose beginning was written to the socket while nothing was
    /// queued. Control must wait for it. The rest counts as data, whatever the frame is, because a
    /// data frame may be longer than the control lane.
    ///
    /// # Errors
    /// As [`Outbox::push`]; the frame stays incomplete, and the stream is unusable.
    pub fn push_begun(&mut self, rest: &[u8]) -> Result<(), Full> {
        debug_assert!(self.is_empty(), "bytes are queued before the begun frame");
        self.push(Lane::Data, rest)?;
        self.front_begun = !rest.is_empty();
        Ok(())
    }

    /// Returns the number of data bytes that [`Outbox::push`] would accept now in one chunk.
    pub fn room(&self) -> usize {
        self.limit.saturating_sub(self.held()).saturating_sub(BOUNDARY)
    }

    /// Returns what the queued data counts against the limit: its bytes plus [`BOUNDARY`] a chunk.
    pub fn held(&self) -> usize {
        self.data.len() + self.chunks.len() * BOUNDARY
    }

    /// Returns the bytes to write next; empty only if nothing is queued.
    ///
    /// More may follow: write, call [`Outbox::advance`], and call again.
    pub fn front(&self) -> &[u8] {
        match self.next_lane() {
            Lane::Control => self.control.as_slices().0,
            Lane::Data => {
                let bytes = self.data.as_slices().0;
                // While control waits, only the begun frame may go before it.
                let begun = self.chunks.front().map_or(0, |chunk| *chunk as usize);
                if self.control.is_empty() { bytes } else { bytes.get(..begun).unwrap_or(bytes) }
            }
            Lane::Last => self.last.as_slices().0,
        }
    }

    /// Removes the first `n` bytes of [`Outbox::front`], which the socket has accepted. Nothing may
    /// have been pushed since `front`.
    pub fn advance(&mut self, n: usize) {
        let n = n.min(self.front().len());
        match self.next_lane() {
            Lane::Control => {
                self.control.drain(..n);
            }
            Lane::Data => {
                self.data.drain(..n);
                self.shorten_chunks(n);
            }
            Lane::Last => {
                self.last.drain(..n);
            }
        }
        if self.is_empty() {
            *self = Outbox::new(self.limit);
        }
    }

    /// Discards the data of which nothing was written and the last lane, which would have followed
    /// it, and returns their memory. Until the queue is empty it takes only control.
    pub fn discard_data(&mut self) {
        let begun = self.chunks.front().filter(|_| self.front_begun).map_or(0, |rest| *rest);
        self.data.truncate(begun as usize);
        self.chunks.truncate(usize::from(self.front_begun));
        self.data.shrink_to_fit();
        self.chunks.shrink_to_fit();
        self.last = VecDeque::new();
        self.has_gap = true;
    }

    /// Returns whether data was discarded, so that the peer cannot be sent everything.
    pub fn has_gap(&self) -> bool {
        self.has_gap
    }

    /// Returns the memory that the queue takes, in bytes.
    pub fn memory(&self) -> usize {
        let queued = self.control.capacity() + self.data.capacity() + self.last.capacity();
        size_of::<Outbox>() + queued + self.chunks.capacity() * BOUNDARY
    }

    /// Returns whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.control.is_empty() && self.data.is_empty() && self.last.is_empty()
    }

    /// Returns the number of bytes in all lanes.
    pub fn len(&self) -> usize {
        self.control.len() + self.data.len() + self.last.len()
    }

    /// Returns the lane of the next bytes.
    fn next_lane(&self) -> Lane {
        if !self.control.is_empty() && !self.front_begun {
            Lane::Control
        } else if self.data.is_empty() {
            Lane::Last
        } else {
            Lane::Data
        }
    }

    /// Removes `n` bytes from the chunk lengths.
    fn shorten_chunks(&mut self, n: usize) {
        let mut n = u32::try_from(n).unwrap_or(u32::MAX);
        while let Some(chunk) = self.chunks.front_mut().filter(|_| n > 0) {
            self.front_begun = n < *chunk;
            if self.front_begun {
                *chunk -= n;
                return;
            }
            n -= *chunk;
            self.chunks.pop_front();
        }
    }
}

/// The error of a full lane of an [`Outbox`].
///
/// The peer's fault: it reads too slowly. The outbox stays usable; retry after some was written,
/// unless the last lane is in use: its frame ends the stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full {
    /// The full lane.
    pub lane: Lane,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.lane {
            Lane::Control => "no room for another heartbeat: the peer does not read",
            Lane::Data => "no room for more data: the peer reads too slowly",
            Lane::Last => "no room for another last frame",
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

    #[test]
    fn the_last_lane_goes_after_everything_and_ends_the_queue() {
        let mut outbox = Outbox::new(20);
        outbox.push(Lane::Data, &[1; 16]).unwrap();
        assert_eq!(outbox.room(), 0);
        outbox.push(Lane::Control, b"beat").unwrap();
        assert_eq!(outbox.push(Lane::Last, &[9; LAST_RESERVE + 1]), Err(Full { lane: Lane::Last }));
        outbox.push(Lane::Last, &[9; LAST_RESERVE]).unwrap();
        for lane in [Lane::Control, Lane::Data, Lane::Last] {
            assert_eq!(outbox.push(lane, b"more"), Err(Full { lane }), "nothing follows it");
        }
        assert_eq!(outbox.len(), 16 + 4 + LAST_RESERVE);
        let mut written = Vec::new();
        while !outbox.is_empty() {
            written.push(outbox.front()[0]);
            outbox.advance(1);
        }
        let expected = [&b"beat"[..], &[1; 16], &[9; LAST_RESERVE]].concat();
        assert_eq!(written, expected);
        outbox.push(Lane::Data, &[1; 16]).unwrap();
    }

    /// Returns a chunk whose bytes identify its lane and number.
    fn chunk(lane: Lane, number: u8, len: usize) -> Vec<u8> {
        let mark = if lane == Lane::Control { 0x80 } else { 0 };
        vec![mark | number & 0x7f; len]
    }

    /// A reference model: whole chunks in two lists, at most one of them begun.
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
    fn the_outbox_agrees_with_the_model_under_random_use() {
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
                                Lane::Data | Lane::Last => model.data.push_back(bytes),
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
    fn control_overtakes_data_at_the_next_boundary() {
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
    fn the_rest_of_a_frame_goes_before_control_and_may_exceed_its_reserve() {
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
    fn a_full_lane_refuses_more_bytes_and_stays_usable() {
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
    fn each_tiny_chunk_also_counts_its_boundary() {
        let mut outbox = Outbox::new(60);
        let pushed = (0..60).take_while(|_| outbox.push(Lane::Data, &[7]).is_ok()).count();
        assert_eq!(pushed, 60 / (1 + BOUNDARY));
    }

    #[test]
    fn discarding_keeps_control_and_the_begun_frame_and_nothing_goes_behind_the_gap() {
        let mut outbox = Outbox::new(1 << 20);
        outbox.push(Lane::Data, &[1; 100]).unwrap();
        outbox.push(Lane::Data, &[2; 100_000]).unwrap();
        outbox.advance(40);
        outbox.push(Lane::Control, &[3; 5]).unwrap();
        outbox.push(Lane::Last, &[9; 5]).unwrap();
        assert!(outbox.memory() > 100_000);
        assert!(!outbox.has_gap());
        outbox.discard_data();
        assert!(outbox.has_gap() && outbox.memory() < 1_000, "{}", outbox.memory());
        for lane in [Lane::Data, Lane::Last] {
            assert_eq!(outbox.push(lane, &[4; 10]), Err(Full { lane }));
        }
        let mut written = Vec::new();
        while written.len() < 60 {
            written.extend_from_slice(outbox.front());
            outbox.advance(outbox.front().len());
        }
        assert_eq!(written, [1; 60], "the begun frame is not split");
        assert_eq!((outbox.front(), outbox.len()), (&[3; 5][..], 5));
        outbox.push(Lane::Control, &[3; 2]).unwrap();
        outbox.advance(5);
        outbox.advance(2);
        assert!(outbox.is_empty() && !outbox.has_gap());
        outbox.push(Lane::Data, &[4; 10]).unwrap();
        outbox.discard_data();
        assert!(outbox.is_empty(), "no data was begun");
    }

    #[test]
    fn an_empty_outbox_holds_no_memory() {
        let mut outbox = Outbox::new(1 << 20);
        outbox.push(Lane::Data, &[1; 1 << 19]).unwrap();
        outbox.push(Lane::Control, &[1; 100]).unwrap();
        while !outbox.is_empty() {
            outbox.advance(usize::MAX);
        }
        let bytes = [&outbox.control, &outbox.data, &outbox.last].map(VecDeque::capacity);
        assert_eq!((bytes, outbox.chunks.capacity()), ([0; 3], 0));
        assert_eq!(outbox.room(), (1 << 20) - BOUNDARY);
    }
}
