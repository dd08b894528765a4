//! The integration tests of `systole-core`, in one binary.
#![allow(clippy::unwrap_used, reason = "test helpers are test code")]

mod beacon;
mod departure;
mod document;
mod generator;
mod joiner;
mod protocol;
mod rules;
mod seeds;
mod sim;
mod stream;
mod takeover;
mod window;
