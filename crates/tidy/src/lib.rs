//! Checks for the rules of this repository that neither rustfmt nor clippy can express.
//!
//! Every check is a pure function from text to [`Problem`]s, with unit tests on bad examples. The
//! integration test reads the repository and applies the checks to each file.

pub mod arrows;
pub mod docs;
pub mod fuzz;
pub mod problem;
pub mod repo;
pub mod rules;
pub mod source;
pub mod words;

pub use problem::Problem;
