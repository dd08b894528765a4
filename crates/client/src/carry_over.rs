//! State that each link of a client passes to the next.

use std::net::SocketAddr;

use systole_core::Policy;
use systole_core::witness::Past;

use crate::FlushError;
use crate::old_flow::OldFlow;
use crate::shared::FlushReply;

/// The application's settings for every link, and the record of the previous link.
#[derive(Debug, Default)]
pub(crate) struct CarryOver {
    pub(crate) heartbeat_data: Vec<u8>,
    pub(crate) policy: Option<Policy>,
    /// How the previous link ended; the next handshake reports it.
    pub(crate) past: Option<Past>,
    /// The server's address on the last link; a name may have several.
    pub(crate) server: Option<SocketAddr>,
    /// The connection of the last link, if silence ended it; until the next attempt.
    pub(crate) old_flow: Option<OldFlow>,
    /// Whether the last link ended before all its messages were acknowledged.
    pub(crate) undelivered: bool,
    /// Whether messages were lost with a link and no flush has reported it yet.
    pub(crate) unreported_loss: bool,
}

impl CarryOver {
    /// Answers a flush on a link that has ended, and its messages with it.
    pub(crate) fn refuse_flush(&mut self, reply: FlushReply) {
        // A canceled flush reports nothing.
        if reply.send(Err(FlushError::Lost)).is_ok() {
            self.unreported_loss = false;
        }
    }
}
