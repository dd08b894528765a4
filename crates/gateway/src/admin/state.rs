//! State shared by the handlers of the admin API.

use std::sync::Arc;

use super::answer::Trouble;
use super::once::Once;
use super::send::Reach;
use crate::config::Token;
use crate::gateway::Gateway;

/// State shared by the handlers; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    /// The gateway that the handlers read and control.
    pub(super) gateway: Arc<Gateway>,
    /// The token that requests must present, if any.
    pub(super) token: Option<Token>,
    /// The messages that were sent, by their keys.
    pub(super) sent: Arc<Once<Reach>>,
}

impl Shared {
    /// Returns the index of a listener.
    ///
    /// # Errors
    /// There is none of this name.
    pub(super) fn listener(&self, name: &str) -> Result<u16, Trouble> {
        self.gateway.listener(name).ok_or_else(|| Trouble::no_listener(name))
    }
}
