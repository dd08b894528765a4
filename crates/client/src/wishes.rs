//! What the application wants of every link, and what one link hands to the next.

use systole_core::Policy;
use systole_core::witness::Past;

/// What every link hands to the next: what the application wants, and how it ended.
#[derive(Debug, Default)]
pub(crate) struct Wishes {
    pub(crate) heartbeat_data: Vec<u8>,
    pub(crate) policy: Option<Policy>,
    /// The link before, of which the next handshake gives an account.
    pub(crate) past: Option<Past>,
}
