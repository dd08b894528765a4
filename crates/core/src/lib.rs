//! The decisions of Systole, pure: when a peer is probed, suspected and given up, what goes on the
//! wire, and who is online.
//!
//! Nothing here reads a clock, opens a socket, logs, or draws a random number. Every machine has
//! one door in (`handle`, with an explicit time) and one door out (`poll_output`).
#![no_std]

extern crate alloc;

pub mod beacon;
pub mod cause;
pub mod diagnosis;
pub mod flight;
pub mod gather;
pub mod grounds;
pub mod hub;
pub mod kernel;
pub mod ledger;
pub mod link;
pub mod liveness;
pub mod outage;
pub mod pages;
pub mod policy;
pub mod random;
pub mod reconnect;
pub mod tap;
pub mod time;
pub mod vigilance;
pub mod wheel;
pub mod wire;
pub mod witness;

pub use hub::Hub;
pub use link::Link;
pub use policy::Policy;
pub use tap::Machine;
pub use time::{Span, Time};
