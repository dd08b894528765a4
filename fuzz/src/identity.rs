//! The gateway's own files that verify tokens. They are compiled here once more, because the whole
//! gateway takes many minutes to build with the flags of the fuzzers, and these files need little.
//! rustfmt skips them, since it looks for their tests in another place.
#![allow(dead_code, unused_imports, reason = "the gateway uses more of them")]

#[rustfmt::skip]
#[path = "../../crates/gateway/src/identity/keys.rs"]
mod keys;
#[rustfmt::skip]
#[path = "../../crates/gateway/src/identity/refusal.rs"]
mod refusal;
#[rustfmt::skip]
#[path = "../../crates/gateway/src/identity/rules.rs"]
mod rules;

pub(crate) use keys::Keys;
pub(crate) use rules::Rules;
