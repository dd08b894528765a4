//! The decisions of Systole, pure: when a peer is probed, suspected and given up, what goes on the
//! wire, and who is online.
//!
//! Nothing here reads a clock, opens a socket, logs, or draws a random number. Every machine has one
//! door in (`handle`, with an explicit time) and one door out (`poll_output`).
#![no_std]

extern crate alloc;

pub mod liveness;
pub mod pages;
pub mod policy;
pub mod random;
pub mod time;
pub mod vigilance;
pub mod wheel;

pub use policy::Policy;
pub use time::{Span, Time};
