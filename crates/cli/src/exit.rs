//! The exit codes of the program.

use std::process::ExitCode;

/// How a command ended. Scripts rely on the numbers: they never change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Exit {
    /// The command succeeded.
    Success = 0,
    /// The usage was correct, but the command failed.
    Failure = 1,
    /// The flags or the configuration are wrong. Nothing was done.
    Usage = 2,
    /// The verdict on the peer is dead.
    PeerDead = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}
