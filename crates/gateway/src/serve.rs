//! Runs a gateway until it is told to stop.

use std::fmt;
use std::path::PathBuf;

use crate::config::{Config, Overrides};

/// What serving needs besides the configuration.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    /// Where to say that the gateway is ready; see [`crate::ready`].
    pub ready_file: Option<PathBuf>,
    /// The file that the configuration came from, to read again when asked to.
    pub config_file: Option<PathBuf>,
    /// What stands over that file, then as now.
    pub overrides: Overrides,
}

/// Why serving ended other than by a request to stop.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// This build has no data plane.
    Unavailable,
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Unavailable => f.write_str("this build cannot serve yet"),
        }
    }
}

impl std::error::Error for ServeError {}

/// Serves until told to stop, then drains.
///
/// # Errors
/// Always [`ServeError::Unavailable`]; nothing was started.
pub fn serve(_config: Config, _options: ServeOptions) -> Result<(), ServeError> {
    Err(ServeError::Unavailable)
}
