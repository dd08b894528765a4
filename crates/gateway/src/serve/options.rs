//! The options of [`serve`](crate::serve).

use std::path::PathBuf;

use crate::config::Overrides;

/// Options of [`serve`](crate::serve) that are not part of the configuration.
#[derive(Clone, Debug, Default)]
pub struct ServeOptions {
    /// The file to write once the gateway is ready; see [`crate::ready`].
    pub ready_file: Option<PathBuf>,
    /// The configuration file, which a reload reads again.
    pub config_file: Option<PathBuf>,
    /// Environment and command-line overrides; also applied on reload.
    pub overrides: Overrides,
}
