//! A problem that a check reports: the place, and what is wrong.

use std::fmt;

/// A broken rule in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Path of the file, relative to the root of the repository.
    pub path: String,
    /// Line, counted from 1.
    pub line: usize,
    /// Description of the problem, and of the correct form.
    pub what: String,
}

impl Problem {
    /// Creates a problem in line `line` (counted from 1) of the file `path`.
    pub fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}
