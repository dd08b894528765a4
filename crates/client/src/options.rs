//! Options of a client.

use std::fmt;
use std::time::Duration;

use systole_core::Policy;
use systole_core::link::{HANDSHAKE_TIMEOUT, Hung};
use systole_core::reconnect::Backoff;
use systole_core::wire::Codec;
use systole_net::tls::ClientTls;

use crate::token::TokenSource;

/// Default of [`Options::connect_timeout`], for the name and all its addresses: enough for three
/// retransmissions of a lost SYN.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Default of [`Options::token_timeout`]: as long as connecting may take, for a source that asks a
/// service of its own.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);

/// Options of a client; every field has a default.
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// The wire format. Default: [`Codec::Native`].
    pub codec: Codec,
    /// Identity that this client claims, without control characters; at most
    /// [`crate::wire::MAX_IDENTITY`] bytes, the rest is cut off. Default: empty, an anonymous
    /// client.
    pub identity: String,
    /// Token that proves the identity; at most [`crate::wire::MAX_TOKEN`] bytes, the rest is cut
    /// off. It is shown at every login, so it is of use only as long as it is valid: see
    /// [`Options::token_source`]. Default: empty.
    pub token: Vec<u8>,
    /// Where the token for each login comes from, instead of [`Options::token`]; only the native
    /// codec asks. With a source the answer `unauthorized` is not final: the client asks for
    /// another token and logs in again, after the delays of [`Options::reconnect`]. Default:
    /// `None`.
    pub token_source: Option<TokenSource>,
    /// Maximum time to wait for a token of the source. Default: 10 s.
    pub token_timeout: Duration,
    /// Policy to ask the gateway for; in codecs without negotiation, the policy in force. Default:
    /// the gateway's own, or [`Policy::standard`] in codecs without negotiation.
    pub policy: Option<Policy>,
    /// TLS, and whom to believe; `None` for a plain connection. Default: `None`.
    pub tls: Option<ClientTls>,
    /// Name expected in the server's certificate. Default: the host of the address.
    pub tls_name: Option<String>,
    /// Maximum time to resolve the name and connect to one of its addresses. Default: 10 s.
    pub connect_timeout: Duration,
    /// Maximum time of the handshake after that; while other addresses of the name are left, 2 s of
    /// it, or four times what connecting took. Default: 10 s.
    pub handshake_timeout: Duration,
    /// How to reconnect after a loss; `None` for not at all. Default: [`Backoff::default`].
    pub reconnect: Option<Backoff>,
    /// Maximum length of a received message in bytes; a longer one is dropped and reported.
    /// Default: 4 MiB.
    pub max_message: usize,
    /// Maximum number of bytes that wait to be sent, framing included; a longer message is refused.
    /// Those that the session's window keeps until they are acknowledged are not counted.
    /// A shorter queue reports backpressure earlier, a longer one later. At most 1 GiB; default:
    /// 8 MiB.
    pub send_queue: usize,
    /// What happens at the bound if the server's kernel acknowledges but its process does not
    /// answer. Default: the link ends.
    pub hung: Hung,
    /// Whether each heartbeat is reported as an event. Default: no.
    pub report_heartbeats: bool,
    /// Whether each connection that an address accepts is reported as an event. Default: no.
    pub report_accepted: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            codec: Codec::Native,
            identity: String::new(),
            token: Vec::new(),
            token_source: None,
            token_timeout: TOKEN_TIMEOUT,
            policy: None,
            tls: None,
            tls_name: None,
            connect_timeout: CONNECT_TIMEOUT,
            handshake_timeout: HANDSHAKE_TIMEOUT.into(),
            reconnect: Some(Backoff::default()),
            max_message: 4 << 20,
            send_queue: 8 << 20,
            hung: Hung::End,
            report_heartbeats: false,
            report_accepted: false,
        }
    }
}

impl fmt::Debug for Options {
    /// Formats selected fields, never the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("codec", &self.codec)
            .field("identity", &self.identity)
            .field("policy", &self.policy)
            .field("reconnect", &self.reconnect)
            .field("tls", &self.tls.is_some())
            .field("token_source", &self.token_source)
            .finish_non_exhaustive()
    }
}
