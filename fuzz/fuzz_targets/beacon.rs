//! Arbitrary bytes for the datagrams of beacons, and the hub they are fed to.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    systole_fuzz::beacon(input);
});
