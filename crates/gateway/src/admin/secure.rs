//! TLS of the admin interface: the handshake, and what a client gets that speaks plain HTTP.

use std::io::{self, ErrorKind};

use systole_net::tls::ServerTls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::wire::Wire;

/// The protocol name (ALPN) of HTTP/1.1, the only version that is spoken here.
pub(crate) const HTTP: &[u8] = b"http/1.1";

/// The body for clients that speak plain HTTP, in the form of all errors.
const PLAIN_HTTP: &str = concat!(
    r#"{"error":"this port speaks TLS","#,
    r#""hint":"use https:// instead of http://"}"#,
    "\n"
);

/// Most bytes of a plain request that are read before the answer: those that have come with its
/// first byte. Unread, they would make the kernel reset the connection, and the answer with it.
const REQUEST: usize = 16 * 1024;

/// Does the handshake of one connection.
///
/// # Errors
/// The client speaks no TLS, or refuses this end; it was told so.
pub(super) async fn accept(tls: &ServerTls, mut wire: Wire) -> io::Result<TlsStream<Wire>> {
    // Every method of HTTP begins with a capital letter, and no record of TLS does.
    if wire.first_byte().await?.is_some_and(|byte| byte.is_ascii_uppercase()) {
        let _ = wire.read(&mut vec![0; REQUEST]).await?;
        let answer = format!(
            "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{PLAIN_HTTP}",
            PLAIN_HTTP.len()
        );
        wire.write_all(answer.as_bytes()).await?;
        wire.shutdown().await?;
        return Err(io::Error::new(ErrorKind::InvalidData, "the client speaks plain HTTP"));
    }
    TlsAcceptor::from(tls.config()).accept(wire).await
}
