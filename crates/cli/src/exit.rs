//! The exit codes.

use std::process::ExitCode;

/// How a command ended. Scripts rely on the numbers: they never change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Exit {
    /// It did what was asked.
    Success = 0,
    /// It was asked rightly, and failed.
    Failure = 1,
    /// It was asked wrongly: flags or configuration. Nothing was done.
    Usage = 2,
    /// The peer was given up as dead.
    PeerDead = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}
