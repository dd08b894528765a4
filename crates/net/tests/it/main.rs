//! Tests of connections between network namespaces, with real faults on the path.
//!
//! They need root and `ip` on Linux. Without them they print a note and pass, unless
//! `SYSTOLE_REQUIRE_TOOLS` is set.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod faults;
mod large_packets;
mod namespaces;
mod refusals;
