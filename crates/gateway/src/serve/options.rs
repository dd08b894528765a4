//! The options of [`serve`](crate::serve).

use std::net::TcpListener;
use std::path::PathBuf;

use crate::config::{ConfigFile, Overrides};

/// Options of [`serve`](crate::serve) that are not part of the configuration.
#[derive(Debug, Default)]
pub struct ServeOptions {
    /// The file to write once the gateway is ready, and to remove when it has ended; see
    /// [`crate::ready`].
    pub ready_file: Option<PathBuf>,
    /// The configuration file, which a reload reads again.
    pub config_file: Option<ConfigFile>,
    /// Environment and command-line overrides; also applied on reload.
    pub overrides: Overrides,
    /// Non-blocking listening sockets that another process holds open, as
    /// [`inherited_sockets`](crate::inherited_sockets) returns them. The listener, or the admin
    /// interface, whose address one has uses it instead of a socket of its own; one without such a
    /// listener is an error.
    pub inherited: Vec<TcpListener>,
}
