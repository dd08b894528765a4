//! The decoder: frames from a byte stream that arrives in any pieces.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use super::extent::Extent;
use super::{Beat, Codec, Frame, Malformed, line, message1028, native};
use crate::plain::{Damage, Plain, Sink, Source, plain_struct};
use crate::time::Time;

/// The first allocation for a partial frame in bytes, enough for a small frame.
const FIRST_HOLD: usize = 32;

/// A decoder that turns received bytes into frames.
///
/// Frames that arrive whole are decoded in place. The decoder owns memory only while it holds part
/// of a frame: at most twice the bytes that have arrived (or 32 bytes), regardless of the declared
/// length, and never more than [`Codec::max_frame`].
pub struct Decoder {
    /// A partial frame, or the frame that the last call returned, or what of a sealed record the
    /// transport holds; `None` if there is none of these.
    partial: Option<Box<Partial>>,
    max_data: u32,
    codec: Codec,
    state: State,
}

// Each idle link of the gateway owns a decoder; see the budget for memory per session.
const _: () = assert!(size_of::<Decoder>() <= 16);

/// The front of a frame, and what the transport holds of the sealed record that brings the rest.
struct Partial {
    /// Empty if the record alone is incomplete.
    bytes: Vec<u8>,
    /// The length of the whole frame in bytes, as far as it is known.
    length: usize,
    sealed: Sealed,
    /// The time from which the time limit counts; set by [`Decoder::count_from`].
    since: Option<Time>,
}

/// What a transport holds of a sealed record that has arrived in part.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Sealed {
    /// The memory that the transport takes for it, in bytes; 0 if it holds nothing.
    pub(crate) memory: u32,
    /// The length of the whole record in bytes, as far as it is known.
    pub(crate) length: u32,
}

plain_struct! { Sealed { memory, length } }

/// A frame, or a sealed record of the transport, that has arrived only in part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Incomplete {
    /// The bytes that must arrive until nothing is incomplete, those that have arrived included, as
    /// far as they are known: what the frame or the record announces, or for a line at least the
    /// bytes that have arrived.
    pub(crate) length: usize,
    /// The time from which the time limit counts.
    pub(crate) since: Time,
    /// The memory that the frame and the record take, in bytes.
    pub(crate) memory: usize,
}

#[derive(Clone, Copy)]
enum State {
    /// The stream is between two frames; no part of one is held.
    Between,
    /// `partial` is the front of a frame.
    Within,
    /// `partial` is the frame that was returned last.
    HandedOut,
    /// Illegal bytes arrived; frame boundaries are lost.
    Poisoned(Malformed),
}

impl Decoder {
    /// Creates a decoder at the beginning of a stream.
    ///
    /// `max_data` limits the bytes of one `Data` in addition to [`Codec::max_data`]; in a line the
    /// carriage return counts too. Messages of `message1028` have a fixed length regardless.
    pub fn new(codec: Codec, max_data: u32) -> Decoder {
        let max_data = max_data.min(codec.max_data() as u32);
        Decoder { partial: None, max_data, codec, state: State::Between }
    }

    /// Returns the decoder's codec.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Returns the number of held bytes of a partial frame, at most [`Codec::max_frame`].
    pub fn held(&self) -> usize {
        match (self.state, &self.partial) {
            (State::Within, Some(partial)) => partial.bytes.len(),
            (State::Within | State::Between | State::HandedOut | State::Poisoned(_), _) => 0,
        }
    }

    /// Returns whether part of a frame is held, or part of a sealed record beside the decoder.
    #[inline]
    pub(crate) fn is_within_frame(&self) -> bool {
        self.partial.is_some()
    }

    /// Returns the frame or the record of which a part is held, once its time is known.
    pub(crate) fn incomplete(&self) -> Option<Incomplete> {
        let Partial { bytes, length, sealed, since } = &**self.partial.as_ref()?;
        // The record brings more of the frame, and perhaps more than the rest of it.
        let with_record = bytes.len().saturating_add(sealed.length as usize);
        let memory = size_of::<Partial>() + bytes.capacity();
        let memory = memory.saturating_add(sealed.memory as usize);
        Some(Incomplete { length: with_record.max(*length), since: (*since)?, memory })
    }

    /// Notes what the transport holds of a sealed record, which takes the place of what was noted
    /// before.
    pub(crate) fn set_sealed(&mut self, sealed: Sealed) {
        if sealed.memory == 0 {
            self.clear_sealed();
        } else if !matches!(self.state, State::Poisoned(_)) {
            self.partial.get_or_insert_with(Partial::empty).sealed = sealed;
        }
    }

    /// Forgets what the transport holds of a sealed record. The time of a frame that is incomplete
    /// goes on.
    pub(crate) fn clear_sealed(&mut self) {
        match (&mut self.partial, self.state) {
            (Some(partial), State::Within | State::HandedOut) => partial.sealed = Sealed::default(),
            (partial, State::Between | State::Poisoned(_)) => *partial = None,
            (None, State::Within | State::HandedOut) => {}
        }
    }

    /// Counts the time limit of a partial frame from `at`, unless it counts from another time.
    pub(crate) fn count_from(&mut self, at: Time) {
        if let Some(partial) = &mut self.partial {
            partial.since.get_or_insert(at);
        }
    }

    /// Counts the time limit of a partial frame anew from `at`.
    pub(crate) fn restart_count(&mut self, at: Time) {
        if let Some(partial) = &mut self.partial {
            partial.since = Some(at);
        }
    }

    /// Releases the frame that was returned last, or a partial one whose rest will not arrive.
    pub(crate) fn discard(&mut self) {
        if let State::Within | State::HandedOut = self.state {
            self.release();
            self.state = State::Between;
        }
    }

    /// Releases the bytes of a frame; what is known of a sealed record stays.
    fn release(&mut self) {
        self.partial.take_if(|partial| {
            (partial.bytes, partial.length) = (Vec::new(), 0);
            partial.sealed == Sealed::default()
        });
    }

    /// Consumes bytes from the front of `input` and returns the next frame, or `None` when all of
    /// `input` is consumed.
    ///
    /// Call it until it returns `None`: the memory of a frame that arrived in pieces is released by
    /// the next call. For the same reason a frame is valid only until the next call.
    ///
    /// # Errors
    /// The bytes are illegal, reported as early as possible: kind and flags at the first byte, a
    /// length at the header. The peer's fault; frame boundaries are lost, so every further call
    /// returns the same error.
    #[inline]
    pub fn next<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Frame<'a>>, Malformed> {
        // Fast path: nearly all traffic of idle links is whole two-byte heartbeats.
        if matches!((self.codec, self.state), (Codec::Native, State::Between))
            && let [kind @ (native::BARE_PING | native::BARE_PONG), sequence, rest @ ..] = *input
        {
            *input = rest;
            let beat = Beat::bare(*sequence);
            return Ok(Some(match *kind {
                native::BARE_PING => Frame::Ping(beat),
                _ => Frame::Pong(beat),
            }));
        }
        self.next_any(input)
    }

    fn next_any<'a, 'i: 'a>(
        &'a mut self,
        input: &mut &'i [u8],
    ) -> Result<Option<Frame<'a>>, Malformed> {
        match self.state {
            State::Poisoned(malformed) => {
                self.partial = None;
                Err(malformed)
            }
            State::Between => self.next_in_place(input),
            State::HandedOut => {
                self.discard();
                self.next_in_place(input)
            }
            State::Within => self.next_held(input),
        }
    }

    /// Returns the next frame when nothing is held: decodes it in place, or holds its front.
    fn next_in_place<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Frame<'a>>, Malformed> {
        if input.is_empty() {
            return Ok(None);
        }
        let length = match self.extent(input, input).map_err(|it| self.poison(it))? {
            Extent::Whole(length) | Extent::AtLeast(length) => length,
        };
        let Some((whole, rest)) = input.split_at_checked(length) else {
            self.hold(input, length);
            self.state = State::Within;
            *input = &[];
            return Ok(None);
        };
        *input = rest;
        parse(self.codec, whole).map(Some).map_err(|it| self.poison(it))
    }

    /// Returns the next frame when its front is held.
    fn next_held<'a>(&'a mut self, input: &mut &[u8]) -> Result<Option<Frame<'a>>, Malformed> {
        loop {
            let front = self.partial.as_ref().map_or(&[][..], |partial| &partial.bytes);
            let (held, extent) = (front.len(), self.extent(front, input));
            let extent = extent.map_err(|it| self.poison(it))?;
            let (Extent::Whole(length) | Extent::AtLeast(length)) = extent;
            let missing = length.saturating_sub(held);
            let (taken, rest) = input.split_at(missing.min(input.len()));
            self.hold(taken, length);
            *input = rest;
            if taken.len() < missing {
                return Ok(None);
            }
            if matches!(extent, Extent::Whole(_)) {
                break;
            }
        }
        // The frame borrows `partial` until the next call, which releases it.
        let Decoder { partial, codec, state, .. } = self;
        let whole = partial.as_ref().map_or(&[][..], |partial| &partial.bytes);
        let frame = parse(*codec, whole);
        *state = match frame {
            Ok(_) => State::HandedOut,
            Err(malformed) => State::Poisoned(malformed),
        };
        frame.map(Some)
    }

    /// Measures the frame that starts with `front`; `fresh` are the bytes not examined before.
    fn extent(&self, front: &[u8], fresh: &[u8]) -> Result<Extent, Malformed> {
        let max_data = self.max_data as usize;
        match self.codec {
            Codec::Native => native::extent(front, max_data),
            Codec::Message1028 => message1028::extent(front),
            Codec::Line => line::extent(self.held(), fresh, max_data + 1),
        }
    }

    /// Appends `bytes` to the partial frame of `length` bytes; the memory doubles, up to the
    /// longest frame.
    fn hold(&mut self, bytes: &[u8], length: usize) {
        let partial = self.partial.get_or_insert_with(Partial::empty);
        partial.length = length;
        let held = &mut partial.bytes;
        let needed = held.len() + bytes.len();
        if needed > held.capacity() {
            let doubled = held.capacity().saturating_mul(2).max(FIRST_HOLD);
            let capacity = doubled.min(self.codec.max_frame()).max(needed);
            held.reserve_exact(capacity - held.len());
        }
        held.extend_from_slice(bytes);
    }

    fn poison(&mut self, malformed: Malformed) -> Malformed {
        self.partial = None;
        self.state = State::Poisoned(malformed);
        malformed
    }
}

/// In a saved state: the settings, the partial frame, what is known of a sealed record, and the
/// error. A frame that was handed out is not part of it.
impl Plain<'_> for Decoder {
    fn put(&self, out: &mut Sink<'_>) {
        let Decoder { partial, max_data, codec, state } = self;
        codec.put(out);
        max_data.put(out);
        let (partial, malformed) = match state {
            State::Within | State::Between => (partial.as_ref(), None),
            State::HandedOut => (None, None),
            State::Poisoned(malformed) => (None, Some(malformed)),
        };
        malformed.copied().put(out);
        partial.is_some().put(out);
        if let Some(partial) = partial {
            let Partial { bytes, length, sealed, since } = &**partial;
            // What the memory of many links adds up to must be the same after the load.
            for size in [bytes.capacity(), *length] {
                u32::try_from(size).unwrap_or(u32::MAX).put(out);
            }
            since.put(out);
            bytes.put(out);
            sealed.put(out);
        }
    }

    fn take(from: &mut Source<'_>) -> Result<Decoder, Damage> {
        let codec = Codec::take(from)?;
        let max_data = u32::take(from)?;
        let malformed = <Option<_> as Plain>::take(from)?;
        let partial = if bool::take(from)? { Some(Partial::take(codec, from)?) } else { None };
        let state = match (malformed, &partial) {
            (None, None) => State::Between,
            (None, Some(partial)) if partial.bytes.is_empty() => State::Between,
            (None, Some(_)) => State::Within,
            (Some(malformed), None) => State::Poisoned(malformed),
            (Some(_), Some(_)) => return Err(Damage::Illegal),
        };
        let decoder = Decoder { partial: partial.map(Box::new), max_data, codec, state };
        let is_legal = max_data as usize <= codec.max_data();
        if is_legal { Ok(decoder) } else { Err(Damage::Illegal) }
    }
}

impl Partial {
    fn empty() -> Box<Partial> {
        Box::new(Partial { bytes: Vec::new(), length: 0, sealed: Sealed::default(), since: None })
    }

    fn take(codec: Codec, from: &mut Source<'_>) -> Result<Partial, Damage> {
        let (capacity, length) = (u32::take(from)? as usize, u32::take(from)? as usize);
        let since = <Option<_> as Plain>::take(from)?;
        let held = <&[u8]>::take(from)?;
        let sealed = Sealed::take(from)?;
        // The same limits as in `hold`.
        let most = held.len().saturating_mul(2).max(FIRST_HOLD).min(codec.max_frame());
        let is_frame = !held.is_empty()
            && held.len() < length
            && length <= codec.max_frame()
            && (held.len()..=most).contains(&capacity);
        let is_record = held.is_empty() && (capacity, length) == (0, 0) && sealed.memory > 0;
        if !is_frame && !is_record {
            return Err(Damage::Illegal);
        }
        let mut bytes = Vec::with_capacity(capacity);
        bytes.extend_from_slice(held);
        Ok(Partial { bytes, length, sealed, since })
    }
}

impl fmt::Debug for Decoder {
    /// Prints how many bytes are held, not which: they may contain a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("codec", &self.codec)
            .field("max_data", &self.max_data)
            .field("held", &self.held())
            .finish_non_exhaustive()
    }
}

fn parse(codec: Codec, whole: &[u8]) -> Result<Frame<'_>, Malformed> {
    match codec {
        Codec::Native => native::parse(whole),
        Codec::Message1028 => message1028::parse(whole),
        Codec::Line => Ok(line::parse(whole)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{DataKind, MAX_DATA};
    use alloc::vec;

    /// Returns the memory for the bytes of a partial frame.
    fn memory(decoder: &Decoder) -> usize {
        decoder.partial.as_ref().map_or(0, |partial| partial.bytes.capacity())
    }

    #[test]
    fn memory_is_bounded_by_the_received_bytes_and_released_after_the_frame() {
        let bytes = vec![b'x'; MAX_DATA];
        for codec in [Codec::Native, Codec::Message1028, Codec::Line] {
            let data = &bytes[..codec.max_data()];
            let mut stream = Vec::new();
            codec.encode(&Frame::data(data, false, DataKind::Eleven), &mut stream);
            let mut decoder = Decoder::new(codec, codec.max_data() as u32);
            for (index, byte) in stream.iter().enumerate() {
                let whole = decoder.next(&mut &[*byte][..]).unwrap().is_some();
                assert_eq!(whole, index + 1 == stream.len());
                let capacity = memory(&decoder);
                assert!(capacity <= FIRST_HOLD.max(2 * (index + 1)), "{codec}: {capacity}");
                assert!(capacity <= codec.max_frame(), "{codec}: {capacity}");
            }
            assert_eq!(decoder.held(), 0);
            assert_eq!(decoder.next(&mut &[][..]), Ok(None));
            assert_eq!(memory(&decoder), 0, "{codec} is idle");
        }
    }

    #[test]
    fn whole_frames_are_decoded_in_place() {
        let mut decoder = Decoder::new(Codec::Native, 65_536);
        let mut input = &b"\x10\x01\x50\x02hi\x21\x01\x05\x60"[..];
        let ends = input.as_ptr_range();
        for _ in 0..3 {
            let frame = decoder.next(&mut input).unwrap().unwrap();
            if let Frame::Data { bytes, .. } = frame {
                assert!(ends.contains(&bytes.as_ptr()), "not copied");
            }
            assert_eq!(memory(&decoder), 0);
        }
        assert_eq!(decoder.next(&mut input), Ok(None));
        assert_eq!(decoder.held(), 1);
    }

    #[test]
    fn an_error_releases_memory() {
        let mut decoder = Decoder::new(Codec::Native, 65_536);
        assert_eq!(decoder.next(&mut &b"\x60\x02\x00"[..]), Ok(None));
        assert_eq!(decoder.next(&mut &b"\x00"[..]), Err(Malformed::Truncated));
        assert_eq!(decoder.next(&mut &b"\x10\x01"[..]), Err(Malformed::Truncated));
        assert_eq!(memory(&decoder), 0);
    }

    #[test]
    fn a_partial_frame_reports_its_length_its_memory_and_its_time() {
        let at = |ms| Time::from_millis(ms);
        let mut decoder = Decoder::new(Codec::Native, 65_536);
        decoder.count_from(at(1));
        assert_eq!(decoder.incomplete(), None, "nothing is held");
        assert_eq!(decoder.next(&mut &b"\x50\x80\x80\x04"[..]), Ok(None));
        decoder.count_from(at(2));
        decoder.count_from(at(3));
        let memory = size_of::<Partial>() + FIRST_HOLD;
        let length = 1 + 3 + 65_536;
        assert_eq!(decoder.incomplete(), Some(Incomplete { length, since: at(2), memory }));
        decoder.restart_count(at(4));
        assert_eq!(decoder.incomplete().map(|it| it.since), Some(at(4)));
        decoder.discard();
        assert_eq!((decoder.incomplete(), decoder.held()), (None, 0));
        let mut line = Decoder::new(Codec::Line, 1_000);
        assert_eq!(line.next(&mut &b"abc"[..]), Ok(None));
        assert_eq!(line.next(&mut &b"def"[..]), Ok(None));
        line.count_from(at(5));
        assert_eq!(line.incomplete().map(|it| it.length), Some(7), "the line feed is missing");
        // The next frame counts from its own beginning.
        let mut rest = &b"\nabc"[..];
        assert!(line.next(&mut rest).unwrap().is_some());
        assert_eq!(line.next(&mut rest), Ok(None));
        assert_eq!(line.incomplete(), None);
        line.count_from(at(6));
        assert_eq!(line.incomplete().map(|it| it.since), Some(at(6)));
    }

    #[test]
    fn a_sealed_record_counts_beside_the_frame_that_it_continues_and_stays_when_that_is_released() {
        let at = |ms| Time::from_millis(ms);
        let record = Sealed { memory: 3_000, length: 16_401 };
        let mut decoder = Decoder::new(Codec::Native, 65_536);
        decoder.set_sealed(record);
        decoder.count_from(at(1));
        let memory = size_of::<Partial>() + 3_000;
        let alone = Incomplete { length: 16_401, since: at(1), memory };
        assert_eq!((decoder.incomplete(), decoder.held()), (Some(alone), 0));
        // Bytes that waited decode between the parts of the record.
        assert!(decoder.next(&mut &b"\x10\x01"[..]).unwrap().is_some());
        assert_eq!(decoder.next(&mut &b"\x50\x02h"[..]), Ok(None));
        let within = decoder.incomplete().unwrap();
        assert_eq!((within.length, within.since), (16_404, at(1)));
        assert_eq!(within.memory, memory + FIRST_HOLD);
        assert!(decoder.next(&mut &b"i"[..]).unwrap().is_some());
        assert_eq!(decoder.next(&mut &[][..]), Ok(None));
        assert_eq!(decoder.incomplete(), Some(alone));
        // The time of a frame goes on behind the record that has brought its front.
        assert_eq!(decoder.next(&mut &b"\x50\x02h"[..]), Ok(None));
        decoder.clear_sealed();
        let memory = size_of::<Partial>() + FIRST_HOLD;
        assert_eq!(decoder.incomplete(), Some(Incomplete { length: 4, since: at(1), memory }));
        decoder.set_sealed(record);
        decoder.set_sealed(Sealed::default());
        assert_eq!(decoder.incomplete().map(|it| it.memory), Some(memory));
        assert!(decoder.next(&mut &b"i"[..]).unwrap().is_some());
        assert_eq!(decoder.next(&mut &[][..]), Ok(None));
        assert_eq!(decoder.incomplete(), None);
        decoder.set_sealed(record);
        decoder.clear_sealed();
        assert!(!decoder.is_within_frame());
    }
}
