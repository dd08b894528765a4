//! Connections between network namespaces, with real faults between them.
//!
//! Needs root and `ip` on Linux; says so and passes without them, unless `SYSTOLE_REQUIRE_TOOLS` is
//! set.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod faults;
mod namespaces;
