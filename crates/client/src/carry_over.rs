//! State that each link of a client passes to the next.

use std::net::SocketAddr;

use systole_core::Policy;
use systole_core::witness::Past;

use crate::old_flow::OldFlow;
use crate::shared::{FlushAnswer, FlushReply, Shared};

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
    /// Number of times that messages were lost with a link.
    pub(crate) losses: u64,
}

impl CarryOver {
    /// Returns whether messages were lost of which the application does not know.
    pub(crate) fn has_unreported_loss(&self, shared: &Shared) -> bool {
        shared.reported_losses() < self.losses
    }

    /// Answers a flush on a link that has ended, and its messages with it.
    pub(crate) fn refuse_flush(&self, reply: FlushReply) {
        // A canceled flush reports nothing.
        let _ = reply.send(FlushAnswer::Lost { losses: self.losses });
    }
}
