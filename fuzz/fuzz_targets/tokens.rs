//! Fuzzes the verification of tokens, and the reading of the keys for it.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    systole_fuzz::tokens(input);
});
