//! Fuzzes the reader of records, and the hub with arbitrary inputs.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    systole_fuzz::record(input);
});
