//! Damage: why bytes cannot be decoded.

use core::fmt;

/// The damage of a record or of a saved state. Not the reader's fault; what comes before it is
/// good, what comes after it cannot be read, and a retry gives the same error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Damage {
    /// The record does not begin with the magic of this version.
    Magic,
    /// The record is of another kind of machine.
    Kind,
    /// The bytes end within an entry, as after a crash of the recording process.
    Truncated,
    /// A value has an unknown tag.
    UnknownTag,
    /// A policy is one that no constructor accepts.
    Policy,
    /// A saved state has a value that no machine has.
    Illegal,
    /// A saved state is that of a link with another codec than the settings say.
    Settings,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Damage::Magic => "not a record of this version",
            Damage::Kind => "a record of another kind of machine",
            Damage::Truncated => "it ends within an entry",
            Damage::UnknownTag => "an unknown tag",
            Damage::Policy => "an illegal policy",
            Damage::Illegal => "an illegal value",
            Damage::Settings => "a state with other settings",
        })
    }
}

impl core::error::Error for Damage {}
