//! Errors of the lab itself.

use std::fmt;
use std::io;

/// An error of the lab or of this machine, never a result for the program under test. Everything
/// that was built has been removed, and running again is safe.
#[derive(Clone, Debug)]
pub struct Trouble {
    what: String,
    busy: bool,
}

impl Trouble {
    pub(crate) fn new(what: impl Into<String>) -> Trouble {
        Trouble { what: what.into(), busy: false }
    }

    /// Creates the error that this machine was too busy for the fault. Another attempt may succeed.
    pub(crate) fn busy(what: impl Into<String>) -> Trouble {
        Trouble { what: what.into(), busy: true }
    }

    /// Whether another attempt may succeed.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Returns a function for `map_err` that adds what was attempted.
    pub(crate) fn while_doing(what: &str) -> impl Fn(io::Error) -> Trouble {
        move |error| Trouble::new(format!("{what}: {error}"))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Trouble {}
