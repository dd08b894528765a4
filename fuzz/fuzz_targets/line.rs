//! Fuzzes the decoder of `line`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    systole_fuzz::decode(systole_core::wire::Codec::Line, input);
});
