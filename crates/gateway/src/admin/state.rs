//! What the handlers of the admin API share.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::config::Token;
use crate::gateway::Gateway;

/// What the handlers share; cheap to copy.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    /// The gateway that is looked at and steered.
    pub(super) gateway: Arc<Gateway>,
    /// What requests must present.
    pub(super) token: Option<Token>,
    /// One permit for each subscriber to events that may still come.
    pub(super) subscribers: Arc<Semaphore>,
}
