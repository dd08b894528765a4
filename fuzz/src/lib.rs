//! Fuzz harnesses: properties that must hold for any bytes given to a codec, a hub or a record.

use std::net::SocketAddr;

use systole_core::beacon::{self, BeaconHub, Datagram, SIGNED};
use systole_core::driver::Driver;
use systole_core::hub::Hub;
use systole_core::tap::Tap;
use systole_core::tap::record::{Entries, Entry, Recorder, replay};
use systole_core::wire::joiner::{Joined, Joiner};
use systole_core::wire::{Codec, Decoder, Frame, Malformed};
use systole_core::{Machine, Policy, Time};

/// Decodes `input` after its first byte, once whole and once in the pieces that the first byte
/// selects, and panics if one of these properties does not hold:
///
/// - both ways give the same frames and the same error, and the error is permanent;
/// - the decoder holds no more than the longest frame;
/// - messages are joined from their pieces, and the joiner holds no more than its limit;
/// - each frame, encoded again, decodes to itself.
pub fn decode(codec: Codec, input: &[u8]) {
    let Some((&pieces, stream)) = input.split_first() else { return };
    let whole = Decoded::of(codec, [stream].into_iter());
    let cut = match pieces {
        0 => return,
        1..128 => Decoded::of(codec, stream.chunks(usize::from(pieces))),
        128.. => Decoded::of(codec, uneven(stream, usize::from(pieces) - 126)),
    };
    assert_eq!(whole.frames, cut.frames);
    assert_eq!(whole.error, cut.error);
}

/// Reads `input` as a record and feeds its inputs to a hub, regardless of the recorded outputs.
/// Panics if the entries that were read, recorded again, are not the same bytes.
pub fn record(input: &[u8]) {
    let _ = replay::<Hub>(input);
    let _ = replay::<BeaconHub>(input);
    let Ok((settings, mut entries)) = Entries::<Hub>::open(input) else { return };
    let mut recorded_again = Recorder::<Hub>::new(&settings);
    let mut fed = Hub::new(settings);
    let mut digests = Vec::new();
    while let Some(Ok(entry)) = entries.next() {
        let Entry::Input { now, input } = entry else {
            digests.push(entry);
            continue;
        };
        recorded_again.input(now, &input);
        fed.handle(now, input);
        while fed.poll_output().is_some() {}
    }
    if digests.is_empty() {
        assert_eq!(recorded_again.record(), &input[..entries.offset()]);
    }
}

/// Reads `input` as datagrams, the last of any length, and feeds the statements to a hub as if
/// their tags were right. Panics if a datagram, encoded again, is not the same bytes, or if there
/// are more answers than statements.
pub fn beacon(input: &[u8]) {
    let settings = beacon::Settings {
        shard: 1,
        policy: Policy::demanding(),
        max_beacons: 3,
        wall_origin_ms: 0,
        seed: 1,
    };
    let mut hub = Driver::new(Time::ZERO, BeaconHub::new(settings));
    for (n, bytes) in input.chunks(beacon::DATAGRAM).enumerate() {
        let Ok((datagram, tag)) = Datagram::decode(bytes) else { continue };
        assert_eq!(datagram.encode(), bytes[..SIGNED]);
        assert_eq!(tag, bytes[SIGNED..]);
        let Datagram::Statement(statement) = datagram else { continue };
        let address = SocketAddr::from(([127, 0, 0, 1], n as u16));
        let now = Time::from_millis(n as u64 * 100);
        hub.handle(now, beacon::World::Statement { statement, address });
        let mut answers = 0;
        while let Some(output) = hub.poll_output() {
            answers += usize::from(matches!(output, beacon::Output::Reply { .. }));
        }
        assert!(answers <= 1);
        hub.expire(now, now);
        while let Some(output) = hub.poll_output() {
            assert!(
                matches!(output, beacon::Output::Event { .. }),
                "an answer without a statement: {output:?}"
            );
        }
    }
}

/// Splits `stream` into pieces of one byte and of `size - 1` bytes alternately.
fn uneven(stream: &[u8], size: usize) -> impl Iterator<Item = &[u8]> {
    stream.chunks(size).flat_map(|chunk| <[&[u8]; 2]>::from(chunk.split_at(1)))
}

/// The result of decoding one stream.
struct Decoded {
    /// All frames, encoded again.
    frames: Vec<u8>,
    error: Option<Malformed>,
    joiner: Joiner,
    /// The pieces so far of a message whose end has not been decoded.
    pieces: Vec<u8>,
}

/// The longest message that is joined: a few short pieces.
const LONGEST_MESSAGE: usize = 100;

impl Decoded {
    fn of<'a>(codec: Codec, pieces: impl Iterator<Item = &'a [u8]>) -> Decoded {
        let mut decoder = Decoder::new(codec, codec.max_data() as u32);
        let mut decoded = Decoded {
            frames: Vec::new(),
            error: None,
            joiner: Joiner::new(LONGEST_MESSAGE),
            pieces: Vec::new(),
        };
        for mut piece in pieces {
            let error = decoded.feed(codec, &mut decoder, &mut piece).err();
            assert!(decoder.held() <= codec.max_frame());
            assert!(decoded.error.is_none() || decoded.error == error, "an error is permanent");
            assert!(error.is_some() || piece.is_empty(), "all input is consumed");
            decoded.error = error;
        }
        decoded
    }

    fn feed(
        &mut self,
        codec: Codec,
        decoder: &mut Decoder,
        piece: &mut &[u8],
    ) -> Result<(), Malformed> {
        while let Some(frame) = decoder.next(piece)? {
            let start = self.frames.len();
            codec.encode(&frame, &mut self.frames);
            let mut encoded_again = &self.frames[start..];
            assert!(encoded_again.len() <= codec.max_frame());
            let mut fresh = Decoder::new(codec, codec.max_data() as u32);
            assert_eq!(fresh.next(&mut encoded_again), Ok(Some(frame)));
            assert!(encoded_again.is_empty(), "exactly one frame");
            if let Frame::Data { bytes, more, .. } = frame {
                self.join(bytes, more);
            }
        }
        Ok(())
    }

    fn join(&mut self, piece: &[u8], more: bool) {
        self.pieces.extend_from_slice(piece);
        let joined = self.joiner.add(piece, more);
        assert!(self.joiner.memory() <= LONGEST_MESSAGE);
        let expected = (!more).then(|| std::mem::take(&mut self.pieces)).map(|message| {
            let length = message.len() as u64;
            match message.len() <= LONGEST_MESSAGE {
                true => Joined::Message(message.into()),
                false => Joined::TooLong { length },
            }
        });
        assert_eq!(joined, expected);
    }
}
