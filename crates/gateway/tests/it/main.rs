//! Tests of the gateway's shards over real sockets on loopback.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)] // In tests a panic is the report.

mod beacon;
mod leaving;
mod shard;
mod shared;

use std::thread::JoinHandle;

use systole_core::Span;
use systole_gateway::request::{Request, Requests};
use systole_net::Clock;
use tokio::sync::oneshot;

/// Waits until a thread has ended.
fn wait_for_end(thread: &JoinHandle<()>) {
    let clock = Clock::start();
    while !thread.is_finished() {
        assert!(clock.monotonic() < Span::from_secs(20), "it still runs");
        std::thread::yield_now();
    }
}

/// Checks that an idle shard, whose longest wait is 100 ms, answers more requests than one turn
/// takes without such a wait. None of them names a session that is online.
fn assert_answered_together(requests: &Requests) {
    let mut answers = Vec::new();
    let clock = Clock::start();
    for _ in 0..200 {
        let (reply, answer) = oneshot::channel();
        requests.send(Request::Session { session: 1, reply }).unwrap();
        answers.push(answer);
    }
    for answer in answers {
        assert_eq!(answer.blocking_recv().unwrap(), None);
    }
    let took = clock.monotonic();
    assert!(took < Span::from_millis(90), "{took}");
}
