//! The transport of a link: plain, or TLS.

use systole_core::wire::Codec;
use systole_net::tls::ALPN;
use systole_net::transport::{Layer, Transport};

use crate::error::TlsProgress;
use crate::{ConnectError, Options};

/// A transport that a client can begin.
pub(crate) trait Begin: Transport + Sized + Send + Sync + 'static {
    /// Makes the transport of a connection to `host`.
    fn begin(options: &Options, host: &str) -> Result<Self, ConnectError>;

    /// Returns how far TLS came; `None` for another transport.
    fn tls_progress(&self) -> Option<TlsProgress> {
        None
    }
}

impl Begin for Layer {
    fn begin(options: &Options, host: &str) -> Result<Layer, ConnectError> {
        let Some(tls) = &options.tls else {
            return Ok(Layer::Plain);
        };
        let name = options.tls_name.as_deref().unwrap_or(host);
        let alpn: &[&[u8]] = match options.codec {
            Codec::Native => &[ALPN],
            Codec::Message1028 | Codec::Line => &[],
        };
        tls.connect(name, alpn).map(Layer::from).map_err(ConnectError::Tls)
    }

    fn tls_progress(&self) -> Option<TlsProgress> {
        let tls = self.tls()?;
        Some(match tls.distrust() {
            Some(why) => TlsProgress::Distrusted(why),
            None if tls.is_secured() => TlsProgress::Complete,
            None => TlsProgress::Begun,
        })
    }
}
