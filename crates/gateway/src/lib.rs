//! The gateway: accepts client links, decides which sessions are alive, and publishes presence.
//!
//! The data plane has one thread with one loop per shard. The control plane (admin API, metrics,
//! events, log) runs on Tokio. They communicate through bounded channels and a waker.
//!
//! - [`serve`] runs a gateway with a [`Config`] and [`ServeOptions`]; [`ServeError`] is its error.
//!   [`inherited_sockets`] are those that the parent of the process passed to it; [`unbindable`]
//!   finds the addresses at which it could not listen here, [`unopenable`] the store that it could
//!   not open.
//! - [`config`] reads a configuration file and applies overrides.
//! - [`ready`] is the file that publishes the addresses of a running gateway.
//! - [`gate`] limits what one address may have; [`bans`] keep out who is banned.
//! - [`identity`] verifies the tokens of clients.
//! - [`shard`] and [`beacon`] start single shards, for tests and benchmarks. [`logic`] answers the
//!   data of their links, [`epochs`] numbers their sessions, [`request`] controls a shard,
//!   [`report`] and [`stats`] are what it publishes.
//! - [`store`] keeps on disk what is owed about sessions; [`webhooks`] tell it to whom it is owed.
//! - [`gateway`], [`events`] and [`verdicts`] are the control plane's view of all shards. Only this
//!   crate uses them.

mod admin;
pub mod bans;
pub mod beacon;
pub mod config;
mod correlation;
pub mod epochs;
pub mod events;
pub mod gate;
pub mod gateway;
pub mod identity;
mod json;
pub mod logic;
mod logs;
mod loop_clock;
mod metrics;
pub mod ready;
pub mod report;
mod report_sender;
pub mod request;
mod serve;
pub mod shard;
mod shard_watch;
pub mod stats;
pub mod store;
mod throttle;
pub mod verdicts;
mod wake;
pub mod webhooks;

pub use config::Config;
pub use serve::{ServeError, ServeOptions, inherited_sockets, serve, unbindable, unopenable};
