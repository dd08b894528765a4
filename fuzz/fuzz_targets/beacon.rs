//! Fuzzes the decoder of beacon datagrams, and the beacon hub.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    systole_fuzz::beacon(input);
});
