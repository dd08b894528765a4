//! Tests of the gateway's shards over real sockets on loopback.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)] // In tests a panic is the report.

mod beacon;
mod leaving;
mod shard;
