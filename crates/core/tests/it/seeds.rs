//! The fuzzers' corpus begins with the blocks of the document and one message of each older kind.
//!
//! `SYSTOLE_WRITE_SEEDS=1 cargo test -p systole-core seeds` writes what is missing.

use std::path::{Path, PathBuf};

use systole_core::wire::{Beat, Codec, DataKind, Frame};

use crate::document;

/// A fuzz input starts with a byte that says how long the pieces are; see `fuzz/src/lib.rs`.
const PIECES: [u8; 2] = [0, 1];

#[test]
fn every_block_has_its_seeds() {
    let corpus = document::root().join("fuzz/corpus");
    for block in document::blocks() {
        let word = if block.illegal { "illegal" } else { "hex" };
        hold(&corpus.join("native"), &format!("{word} {}", block.title), &block.bytes);
    }
    let beats = [Frame::Ping(Beat::bare(0)), Frame::Pong(Beat::bare(0))];
    let data = [DataKind::Eleven, DataKind::TwentyOne];
    let data = data.map(|kind| Frame::Data { bytes: b"hello", more: false, kind });
    for codec in [Codec::Message1028, Codec::Line] {
        let mut all = Vec::new();
        beats.iter().chain(&data).for_each(|frame| codec.encode(frame, &mut all));
        hold(&corpus.join(codec.name()), "one of each", &all);
    }
    let mut swapped = vec![0; Codec::Message1028.max_frame()];
    swapped[0] = 2;
    hold(&corpus.join("message1028"), "pong in the other byte order", &swapped);
    hold(&corpus.join("line"), "carriage returns", b"ping\r\npong\r\n\r\nhello\r\r\nend");
}

/// Compares the seeds of that name with what they should be, or writes them when asked to.
fn hold(folder: &Path, title: &str, bytes: &[u8]) {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    let name: String = title.to_lowercase().chars().map(plain).collect();
    for piece in PIECES {
        let path: PathBuf = folder.join(format!("{}-{piece}", name.trim_matches('-')));
        let mut seed = vec![piece];
        seed.extend_from_slice(bytes);
        if std::env::var_os("SYSTOLE_WRITE_SEEDS").is_some() {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(&path, &seed).unwrap();
        }
        let found = std::fs::read(&path).ok();
        assert_eq!(found.as_ref(), Some(&seed), "{} is missing or old", path.display());
    }
}
