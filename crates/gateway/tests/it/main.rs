//! Tests of the gateway's shards over real sockets on loopback.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)] // In tests a panic is the report.

mod beacon;
mod leaving;
mod shard;

use std::thread::JoinHandle;

use systole_core::Span;
use systole_net::Clock;

/// Waits until a thread has ended.
fn wait_for_end(thread: &JoinHandle<()>) {
    let clock = Clock::start();
    while !thread.is_finished() {
        assert!(clock.monotonic() < Span::from_secs(20), "it still runs");
        std::thread::yield_now();
    }
}
