//! What serving needs besides the configuration.

use std::path::PathBuf;

use crate::config::Overrides;

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
