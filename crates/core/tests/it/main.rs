//! The tests of `systole-core` that stand outside it: one binary.
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod beacon;
mod document;
mod generator;
mod protocol;
mod seeds;
mod sim;
mod stream;
