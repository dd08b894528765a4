//! The gateway's parts over real sockets on loopback.
#![allow(clippy::unwrap_used)] // In tests a panic is the report.

mod shard;
