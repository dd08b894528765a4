//! Tests of the joiner of pieces: random messages in random pieces, and the limit.

use systole_core::wire::joiner::{Joined, Joiner};
use systole_core::wire::{Codec, DataKind, Decoder, Frame, Rider};

use crate::generator::Random;

/// The number of random streams per run.
const CASES: u64 = 20_000;

#[test]
fn messages_are_joined_from_any_pieces() {
    for seed in 0..CASES {
        let run = std::panic::catch_unwind(|| check_random_messages(seed));
        assert!(run.is_ok(), "seed {seed}");
    }
}

/// Cuts random messages into random pieces, and compares what is joined with the messages.
fn check_random_messages(seed: u64) {
    let mut random = Random(seed);
    let limit = random.up_to(40);
    let mut joiner = Joiner::new(limit);
    for _ in 0..random.up_to(6) {
        let message: Vec<u8> = (0..random.up_to(60)).map(|_| random.next() as u8).collect();
        let longest = 1 + random.up_to(message.len());
        let mut rest = &message[..];
        let joined = loop {
            let (piece, after) = rest.split_at(random.up_to(longest).min(rest.len()));
            rest = after;
            // The last piece may be empty, and so may any other.
            let more = !rest.is_empty() || random.flip();
            let joined = joiner.add(piece, more);
            assert!(joiner.memory() <= limit, "{} of {limit}", joiner.memory());
            assert_eq!(joined.is_none(), more);
            if let Some(joined) = joined {
                break joined;
            }
        };
        assert_eq!(joiner.memory(), 0, "no memory between messages");
        let length = message.len() as u64;
        let expected = match message.len() <= limit {
            true => Joined::Message(message.as_slice().into()),
            false => Joined::TooLong { length },
        };
        assert_eq!(joined, expected);
    }
}

#[test]
fn of_a_message_that_is_too_long_only_the_length_is_kept() {
    let mut joiner = Joiner::new(5);
    assert_eq!(joiner.add(b"much", true), None);
    assert_eq!(joiner.memory(), 4);
    for _ in 1..1_000 {
        assert_eq!(joiner.add(b"much", true), None);
        assert_eq!(joiner.memory(), 0);
    }
    assert_eq!(joiner.add(b"", false), Some(Joined::TooLong { length: 4_000 }));
    assert_eq!(joiner.add(b"short", false), Some(Joined::Message(b"short".into())));
}

#[test]
fn a_message_in_one_piece_is_not_copied() {
    let mut joiner = Joiner::new(5);
    for piece in [&b"hello"[..], b""] {
        let joined = joiner.add(piece, false);
        let Some(Joined::Message(std::borrow::Cow::Borrowed(bytes))) = joined else {
            panic!("{joined:?}")
        };
        assert_eq!(bytes, piece);
    }
}

#[test]
fn the_pieces_of_a_stream_are_joined_as_they_are_decoded() {
    let message = vec![7; 3_000];
    let mut stream = Vec::new();
    for (index, bytes) in message.chunks(1_000).enumerate() {
        let frame =
            Frame::Data { bytes, more: index < 2, kind: DataKind::default(), rider: Rider::NONE };
        Codec::Native.encode(&frame, &mut stream);
    }
    let mut decoder = Decoder::new(Codec::Native, 1_000);
    let mut joiner = Joiner::new(3_000);
    let mut messages = Vec::new();
    for mut read in stream.chunks(7) {
        while let Some(Frame::Data { bytes, more, .. }) = decoder.next(&mut read).unwrap() {
            messages.extend(joiner.add(bytes, more).map(|joined| match joined {
                Joined::Message(message) => message.into_owned(),
                Joined::TooLong { length } => panic!("{length} bytes are not too long"),
            }));
        }
    }
    assert_eq!(messages, [message]);
}
