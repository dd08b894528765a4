//! Tests of the decoder: streams in random pieces, at the limits, and after an error.

use systole_core::wire::{
    self, Beat, Close, CloseReason, Codec, DataKind, Decoder, Frame, Malformed, line, message1028,
};

use crate::generator::{self, Pool, Random};

const CODECS: [Codec; 3] = [Codec::Native, Codec::Message1028, Codec::Line];

/// The number of random streams per run, over all codecs.
const CASES: u64 = 20_000;

fn decoder(codec: Codec) -> Decoder {
    Decoder::new(codec, codec.max_data() as u32)
}

fn data(bytes: &[u8]) -> Frame<'_> {
    Frame::data(bytes, false, DataKind::Eleven)
}

/// Feeds all of `input`; returns the number of frames.
fn feed(decoder: &mut Decoder, mut input: &[u8]) -> Result<usize, Malformed> {
    let mut frames = 0;
    while decoder.next(&mut input)?.is_some() {
        frames += 1;
    }
    assert!(input.is_empty(), "None means that all input is consumed");
    Ok(frames)
}

#[test]
fn encoded_frames_are_decoded_from_any_pieces() {
    let pool = Pool::new(&mut Random(1));
    for seed in 0..CASES {
        let run = std::panic::catch_unwind(|| check_random_stream(seed, &pool));
        assert!(run.is_ok(), "seed {seed}");
    }
}

fn check_random_stream(seed: u64, pool: &Pool) {
    let mut random = Random(seed);
    let codec = CODECS[random.up_to(CODECS.len() - 1)];
    let count = random.up_to(6);
    let frames: Vec<_> = (0..count).map(|_| generator::frame(codec, &mut random, pool)).collect();
    let mut bytes = Vec::new();
    for frame in &frames {
        codec.encode(frame, &mut bytes);
    }
    let mut decoder = decoder(codec);
    let mut expected = frames.iter();
    let longest = if random.flip() { 8 } else { bytes.len() };
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        let (mut piece, after) = rest.split_at(random.up_to(longest).min(rest.len()));
        rest = after;
        while let Some(frame) = decoder.next(&mut piece).unwrap() {
            assert_eq!(Some(&frame), expected.next());
        }
        assert!(piece.is_empty(), "None means that all input is consumed");
        assert!(decoder.held() <= codec.max_frame());
    }
    assert_eq!(expected.next(), None);
    assert_eq!(decoder.held(), 0, "the stream ends between frames");
}

#[test]
fn the_longest_data_is_accepted_and_one_byte_more_refused() {
    let bytes = vec![b'x'; wire::MAX_DATA];
    for codec in CODECS {
        let longest = &bytes[..codec.max_data()];
        let mut stream = Vec::new();
        codec.encode(&data(longest), &mut stream);
        assert!(stream.len() <= codec.max_frame());
        assert_eq!(feed(&mut decoder(codec), &stream), Ok(1), "{codec}");

        let mut pieces = decoder(codec);
        let (last, front) = stream.split_last().unwrap();
        for (index, byte) in front.iter().enumerate() {
            assert_eq!(feed(&mut pieces, &[*byte]), Ok(0));
            assert_eq!(pieces.held(), index + 1, "held bytes are those that arrived");
        }
        let mut input = &[*last][..];
        assert_eq!(pieces.next(&mut input), Ok(Some(data(longest))), "{codec} byte by byte");
    }
    let refused = Err(Malformed::TooLong);
    assert_eq!(feed(&mut decoder(Codec::Line), &bytes), refused, "no room for the line feed");
    assert_eq!(feed(&mut decoder(Codec::Native), &[0x50, 0x81, 0x80, 0x04]), refused);
}

#[test]
fn a_smaller_data_limit_applies_only_to_data() {
    let mut native = Decoder::new(Codec::Native, 10);
    assert_eq!(feed(&mut native, b"\x50\x0a0123456789"), Ok(1));
    assert_eq!(feed(&mut native, b"\x12\x01\x0b01234567890"), Ok(1), "business data is not DATA");
    assert_eq!(feed(&mut native, b"\x50\x0b"), Err(Malformed::TooLong), "at the header");

    let mut lines = Decoder::new(Codec::Line, 10);
    assert_eq!(feed(&mut lines, b"0123456789\n012345678\r\n"), Ok(2));
    assert_eq!(feed(&mut lines, b"01234"), Ok(0));
    assert_eq!(feed(&mut lines, b"567890"), Err(Malformed::TooLong), "before the line feed");

    let mut messages = Decoder::new(Codec::Message1028, 10);
    let mut message = Vec::new();
    Codec::Message1028.encode(&data(b"x"), &mut message);
    assert_eq!(feed(&mut messages, &message), Ok(1), "the length is fixed");
}

#[test]
fn each_native_limit_is_accepted_and_one_byte_more_refused() {
    let (token, text) = ([7; wire::MAX_TOKEN], "x".repeat(wire::MAX_CLOSE_TEXT));
    let close = Close { reason: CloseReason::Done, final_: false, return_after_ms: 0, text: &text };
    let beat = Beat { data: Some(&token[..wire::MAX_HEARTBEAT_DATA]), ..Beat::bare(1) };
    for frame in [Frame::Close(close), Frame::Ping(beat)] {
        let mut stream = Vec::new();
        Codec::Native.encode(&frame, &mut stream);
        let mut input = &stream[..];
        assert_eq!(decoder(Codec::Native).next(&mut input), Ok(Some(frame)));
    }
    // A CLOSE with a text of one byte more than the limit.
    let mut stream = vec![0x70, 0x89, 0x01, 0, 0, 0, 0, 0, 0, 0x81, 0x01];
    stream.extend_from_slice(&[b'x'; wire::MAX_CLOSE_TEXT + 1]);
    assert_eq!(feed(&mut decoder(Codec::Native), &stream), Err(Malformed::TooLong));
    for header in [&[0x30, 0x81, 0x10][..], &[0x40, 0x81, 0x10], &[0x60, 0x81, 0x02]] {
        let refused = feed(&mut decoder(Codec::Native), header);
        assert_eq!(refused, Err(Malformed::TooLong), "{header:x?}");
    }
}

#[test]
fn an_error_is_permanent() {
    for (codec, illegal) in [
        (Codec::Native, &[0x70, 0x08, 1, 0, 0, 0, 0, 0, 0, 0xff][..]),
        (Codec::Message1028, &[0, 0, 0, 3]),
    ] {
        for pieces in [1, illegal.len()] {
            let mut decoder = decoder(codec);
            let error = illegal.chunks(pieces).find_map(|it| feed(&mut decoder, it).err());
            let error = error.expect("the bytes are illegal");
            let mut legal = Vec::new();
            codec.encode(&Frame::Ping(Beat::bare(0)), &mut legal);
            assert_eq!(feed(&mut decoder, &legal), Err(error));
            assert_eq!(feed(&mut decoder, &[]), Err(error));
            assert_eq!(decoder.held(), 0);
        }
    }
}

#[test]
fn message1028_accepts_a_pong_in_either_byte_order_and_sends_one() {
    let mut message = [0; message1028::MESSAGE];
    for front in [[0, 0, 0, 2], [2, 0, 0, 0]] {
        message[..4].copy_from_slice(&front);
        message[100] = 0xff;
        let mut input = &message[..];
        let mut decoder = decoder(Codec::Message1028);
        assert_eq!(decoder.next(&mut input), Ok(Some(Frame::Pong(Beat::bare(0)))));
    }
    for front in [[0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 12], [11, 0, 0, 0]] {
        let refused = feed(&mut decoder(Codec::Message1028), &front);
        assert_eq!(refused, Err(Malformed::UnknownKind), "{front:?}");
    }
    let mut written = Vec::new();
    let beat = Beat { sequence: 9, taken: Some(1), data: Some(b"lost") };
    Codec::Message1028.encode(&Frame::Pong(beat), &mut written);
    assert_eq!((written.len(), &written[..4]), (1_028, &[0, 0, 0, 2][..]));
    assert!(written[4..].iter().all(|&byte| byte == 0));
}

#[test]
fn message1028_pads_data_and_keeps_its_type() {
    for (kind, byte) in [(DataKind::Eleven, 11), (DataKind::TwentyOne, 21)] {
        let mut written = Vec::new();
        let frame = Frame::data(b"abc", false, kind);
        Codec::Message1028.encode(&frame, &mut written);
        assert_eq!(&written[..8], &[0, 0, 0, byte, b'a', b'b', b'c', 0]);
        assert_eq!(written.len(), message1028::MESSAGE);
        let mut input = &written[..];
        let expected = Frame::data(&written[4..], false, kind);
        assert_eq!(decoder(Codec::Message1028).next(&mut input), Ok(Some(expected)));
    }
}

#[test]
fn lines_end_in_a_line_feed_with_an_optional_carriage_return() {
    let mut decoder = decoder(Codec::Line);
    let mut input = &b"ping\npong\r\nPING\n\n \rx\r\r\nrest"[..];
    let expected = [
        Frame::Ping(Beat::bare(0)),
        Frame::Pong(Beat::bare(0)),
        data(b"PING"),
        data(b""),
        data(b" \rx\r"),
    ];
    let mut again = Vec::new();
    for frame in expected {
        let decoded = decoder.next(&mut input).unwrap().unwrap();
        assert_eq!(decoded, frame);
        Codec::Line.encode(&decoded, &mut again);
    }
    assert_eq!(decoder.next(&mut input), Ok(None));
    assert_eq!(decoder.held(), 4);
    assert_eq!(again, b"ping\npong\nPING\n\n \rx\r\r\n");
    assert_eq!(line::MAX_LINE, Codec::Line.max_frame());
}

#[test]
fn frames_that_an_older_codec_cannot_express_append_nothing() {
    let close = Close { reason: CloseReason::Done, final_: true, return_after_ms: 0, text: "" };
    for codec in [Codec::Message1028, Codec::Line] {
        let mut out = Vec::new();
        codec.encode(&Frame::Close(close), &mut out);
        codec.encode(&Frame::Retune(systole_core::Policy::never()), &mut out);
        assert!(out.is_empty() && !codec.has_handshake(), "{codec}");
    }
}

#[test]
fn codecs_are_found_by_name() {
    for codec in CODECS {
        assert_eq!(Codec::by_name(codec.name()), Some(codec));
    }
    assert_eq!(Codec::by_name("Native"), None);
}
