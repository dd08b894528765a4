//! State that each link of a client passes to the next.

use systole_core::Policy;
use systole_core::witness::Past;

/// The application's settings for every link, and the record of the previous link.
#[derive(Debug, Default)]
pub(crate) struct CarryOver {
    pub(crate) heartbeat_data: Vec<u8>,
    pub(crate) policy: Option<Policy>,
    /// How the previous link ended; the next handshake reports it.
    pub(crate) past: Option<Past>,
    /// Whether the last link ended before all its messages were acknowledged.
    pub(crate) undelivered: bool,
}
