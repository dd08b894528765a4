//! State shared by the handlers of the admin API.

use std::sync::Arc;

use crate::config::Token;
use crate::gateway::Gateway;

/// State shared by the handlers; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    /// The gateway that the handlers read and control.
    pub(super) gateway: Arc<Gateway>,
    /// The token that requests must present, if any.
    pub(super) token: Option<Token>,
}
