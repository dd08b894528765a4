//! The tests of `systole-core` that stand outside it: one binary.

mod document;
mod generator;
mod protocol;
mod seeds;
mod stream;
