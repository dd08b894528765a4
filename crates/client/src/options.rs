//! How a client behaves.

use std::fmt;
use std::time::Duration;

use systole_core::Policy;
use systole_core::link::{HANDSHAKE_TIMEOUT, Hung};
use systole_core::reconnect::Backoff;
use systole_core::wire::Codec;

/// How long connecting may take unless the options say otherwise: name, and all addresses of it.
/// Three retransmissions of a lost SYN fit.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How a client behaves; every field has a default.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// Which bytes are spoken. Default: [`Codec::Native`].
    pub codec: Codec,
    /// Who this client says it is; at most [`systole_core::wire::MAX_IDENTITY`] bytes, the rest is
    /// cut. Default: nobody.
    pub identity: String,
    /// What proves it; at most [`systole_core::wire::MAX_TOKEN`] bytes, the rest is cut.
    pub token: Vec<u8>,
    /// The policy to ask for; where nobody is asked, as in the older codecs, the one in force.
    /// Default: the gateway's own, or [`Policy::standard`] where nobody is asked.
    pub policy: Option<Policy>,
    /// How long finding the address and connecting to it may take. Default: 10 s.
    pub connect_timeout: Duration,
    /// How long the handshake after that may take. Default: 10 s.
    pub handshake_timeout: Duration,
    /// How to come back after a loss; `None`: not at all. Default: [`Backoff::default`].
    pub reconnect: Option<Backoff>,
    /// The longest message received, in bytes; a longer one is dropped and told. Default: 4 MiB.
    pub max_message: usize,
    /// How many bytes may wait to be sent, framing included; a longer message is refused. Shorter
    /// means earlier backpressure, longer means later news of it. At most 1 GiB; default: 8 MiB.
    pub send_queue: usize,
    /// What becomes, at the bound, of a server whose machine lives and whose process does not
    /// answer. Default: the link ends.
    pub hung: Hung,
    /// Whether each heartbeat is told as an event. Default: no.
    pub report_heartbeats: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            codec: Codec::Native,
            identity: String::new(),
            token: Vec::new(),
            policy: None,
            connect_timeout: CONNECT_TIMEOUT,
            handshake_timeout: HANDSHAKE_TIMEOUT.into(),
            reconnect: Some(Backoff::default()),
            max_message: 4 << 20,
            send_queue: 8 << 20,
            hung: Hung::End,
            report_heartbeats: false,
        }
    }
}

impl fmt::Debug for Options {
    /// Everything but the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("codec", &self.codec)
            .field("identity", &self.identity)
            .field("policy", &self.policy)
            .field("reconnect", &self.reconnect)
            .finish_non_exhaustive()
    }
}
