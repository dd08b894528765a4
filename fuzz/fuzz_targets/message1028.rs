//! Fuzzes the decoder of `message1028`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    systole_fuzz::decode(systole_core::wire::Codec::Message1028, input);
});
