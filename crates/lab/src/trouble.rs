//! Why a run could not be made.

use std::fmt;
use std::io;

/// The lab could not do what it was asked: its own fault, or this machine's; never a verdict about
/// the program under test. Whatever was built is gone, and running again is safe.
#[derive(Clone, Debug)]
pub struct Trouble {
    what: String,
    again: bool,
}

impl Trouble {
    pub(crate) fn new(what: impl Into<String>) -> Trouble {
        Trouble { what: what.into(), again: false }
    }

    /// This machine was too busy to make the fault as it should be. Another time it may not be.
    pub(crate) fn busy(what: impl Into<String>) -> Trouble {
        Trouble { what: what.into(), again: true }
    }

    /// Whether the same run may succeed when it is made again.
    pub(crate) fn is_busy(&self) -> bool {
        self.again
    }

    /// For `map_err`: what was attempted when `error` happened.
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
