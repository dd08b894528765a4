//! The house rules of this repository that neither rustfmt nor clippy can express.
//!
//! Every check is a pure function from text to [`Problem`]s, tested on bad examples beside it; the
//! integration test reads the repository and hands each file to the checks that concern it.

pub mod arrows;
pub mod docs;
pub mod fuzz;
pub mod problem;
pub mod repo;
pub mod source;
pub mod words;

pub use problem::Problem;
