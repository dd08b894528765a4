//! Arbitrary bytes for the reader of records, and arbitrary inputs for the hub.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    systole_fuzz::record(input);
});
