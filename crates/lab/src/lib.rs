//! The fault lab: injects real faults, and judges the verdicts.
//!
//! Each run builds its own network of namespaces (gateway, router, hosts), starts the `systole`
//! binary in them as gateway and as peers, injects a fault, compares the observer's reports with
//! the expected ones, and removes everything. Runs share nothing, so they can run in parallel. The
//! table of scenarios is `scenario/table.rs`; `judge.rs`, which is pure, judges the reports.

mod arithmetic;
mod busy;
mod control;
mod gateway;
mod inject;
pub mod judge;
mod lab;
mod log;
pub mod matrix;
mod namespace;
mod network;
mod peer;
mod process;
mod progress;
mod proxy;
mod record;
mod relay;
pub mod report;
mod run;
mod scenario;
mod stage;
pub mod started;
pub mod svg;
mod tools;
mod trouble;

pub use lab::{MAX_JOBS, MAX_REPEAT, Options, clean, list, run};
pub use peer::{SUBCOMMAND, run as run_peer};
pub use record::{Finding, Lane, Mark, Run};
pub use scenario::Role;
pub use trouble::Trouble;
