//! The gateway: stands between clients and logic, and knows who is there.
//!
//! The data plane is one thread per shard with one loop each; the control plane (admin API,
//! metrics, events, logs) is Tokio. They talk through bounded channels and a waker.

pub mod admin;
pub mod beacon;
pub mod config;
mod correlation;
pub mod epochs;
pub mod events;
pub mod gateway;
pub mod logs;
mod loop_clock;
pub mod metrics;
mod outlet;
pub mod ready;
pub mod report;
pub mod request;
pub mod serve;
pub mod shard;
pub mod stats;
pub mod verdicts;

pub use config::Config;
pub use serve::{ServeError, ServeOptions, serve};
