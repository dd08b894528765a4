//! Fuzz harnesses: properties that must hold for any bytes given to a codec, a hub, a record, a
//! saved state, or the verification of a token.

mod identity;
mod tokens;

use std::net::SocketAddr;

use systole_core::beacon::{self, BeaconHub, Datagram, SIGNED};
use systole_core::denial::{Denial, Denied};
use systole_core::driver::Driver;
use systole_core::hub::Hub;
use systole_core::kernel::{Examination, SocketError, TcpSnapshot};
use systole_core::link::{
    Answer, Command, Hung, Input, Introduction, Link, SessionKey, Settings, Side, World,
};
use systole_core::tap::Tap;
use systole_core::tap::record::{Entries, Entry, Recorder, replay};
use systole_core::wire::joiner::{Joined, Joiner};
use systole_core::wire::{CloseReason, Codec, DataKind, Decoder, Frame, Malformed};
use systole_core::{Machine, Policy, Span, Time};

pub use tokens::tokens;

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
    let Ok((start, settings, mut entries)) = Entries::<Hub>::open(input) else { return };
    let mut recorded_again = Recorder::<Hub>::new(start, &settings);
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
                matches!(output, beacon::Output::Session { .. } | beacon::Output::Status { .. }),
                "an answer without a statement: {output:?}"
            );
        }
    }
}

/// The longest input for [`state`]. A longer one could hold thousands of PINGs, whose answers take
/// more memory than an allocation may.
const LONGEST_STATE: usize = 4_096;

/// Reads `input`, after a byte that selects the settings, as the state of a link, and what follows
/// the state as inputs of that link. Panics if the link is not the same after it was saved and
/// loaded once more, before each input.
pub fn state(input: &[u8]) {
    let Some((&selected, mut rest)) = input.split_first() else { return };
    if rest.len() > LONGEST_STATE {
        return;
    }
    let settings = settings(selected);
    let mut now = Time::from_millis(10_000);
    let Ok(mut link) = Link::load(now, settings.clone(), &mut rest) else { return };
    let mut copy = Vec::new();
    while let Some((&[kind, size], after)) = rest.split_first_chunk() {
        let mut saved = Vec::new();
        link.save(now, &mut saved);
        let loaded = Link::load(now, settings.clone(), &mut saved.as_slice());
        link = loaded.expect("a state that a link has saved");
        copy.clear();
        link.save(now, &mut copy);
        assert_eq!(copy, saved);
        let taken;
        (taken, rest) = after.split_at(after.len().min(if kind < 128 { size.into() } else { 0 }));
        link.handle(now, link_input(kind, size, taken));
        while link.poll_output().is_some() {}
        now = match link.next_deadline() {
            Some(next) if kind % 2 == 0 => next.at.max(now),
            Some(_) | None => now + Span::from_millis(u64::from(size)),
        };
    }
}

fn settings(selected: u8) -> Settings {
    let codec = [Codec::Native, Codec::Message1028, Codec::Line][usize::from(selected % 4).min(2)];
    let side = match selected & 4 {
        0 => Side::Accepting,
        _ => Side::Connecting(Introduction::default()),
    };
    let hung = if selected & 16 == 0 { Hung::End } else { Hung::Keep(Span::from_secs(9)) };
    Settings { examines: selected & 8 != 0, hung, ..Settings::new(codec, side, Policy::default()) }
}

fn link_input(kind: u8, size: u8, bytes: &[u8]) -> Input<'_> {
    let tcp = TcpSnapshot {
        notsent: Some(u32::from(size & 1)),
        retransmits: size >> 4 & 3,
        gap: Some(size & 8 != 0),
        last_ack: Span::from_millis(u64::from(size) * 50),
        bytes_acked: Some(u64::from(size) << 8),
        send_window: Some(u32::from(size & 2)),
        ..TcpSnapshot::default()
    };
    let span = Span::from_millis(u64::from(size) * 100);
    World::Command(match kind {
        0..64 => return World::Received(bytes).into(),
        64..92 => Command::Send { bytes, more: size & 1 != 0, kind: DataKind::Eleven },
        92..94 => return World::Heard.into(),
        94..96 => {
            let (memory, length) = (bytes.len() as u32, u32::from(size) << 6);
            return World::Held { memory, length }.into();
        }
        96..128 => Command::HeartbeatData(bytes),
        128..160 => return Answer::Deadline.into(),
        160..200 => {
            let tcp = (kind < 190).then_some(tcp);
            return Answer::Examined(Examination { tcp, ..Examination::default() }).into();
        }
        200..210 => return Answer::admitted(SessionKey { session: 1, epoch: 2 }).into(),
        210..215 => {
            let why = Denial::ALL.get(usize::from(size)).copied();
            let denied = Denied { goodbye: CloseReason::Full.into(), why };
            return Answer::Refused(denied).into();
        }
        215..219 => return World::Ended.into(),
        219 => return World::Illegal(Malformed::Record).into(),
        220..225 => return World::Failed(SocketError::Reset).into(),
        225..230 => return World::Warned(SocketError::HostUnreachable).into(),
        230..235 => Command::Retune(Policy::demanding()),
        235..240 => Command::Hold(span),
        240..245 => Command::Release,
        245..249 => Command::Heartbeat,
        249.. => {
            let text = str::from_utf8(bytes).unwrap_or_default();
            Command::Close { goodbye: CloseReason::Done.into(), text }
        }
    })
    .into()
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
