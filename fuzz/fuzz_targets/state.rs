//! Fuzzes the loading of a link's state, and the link that was loaded.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    systole_fuzz::state(input);
});
