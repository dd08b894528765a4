//! TLS of the bench: its certificate, the links that speak it, and the bare echo to compare with.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::{ServerConfig, ServerConnection};
use systole_net::tls::{Believe, ClientTls, Identity, ServerTls};
use systole_net::transport::{Opened, Tls, Transport};

/// The files of certificate and key in the directory of a target.
pub(crate) const CERTIFICATE: &str = "cert.pem";
pub(crate) const KEY: &str = "key.pem";

/// Makes a certificate with a key of ECDSA P-256 for targets that the bench starts, and writes both
/// into `directory`.
pub(crate) fn write_certificate(directory: &Path) -> io::Result<()> {
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]);
    let certificate = certificate.and_then(|it| it.self_signed(&key)).map_err(io::Error::other)?;
    fs::write(directory.join(CERTIFICATE), certificate.pem())?;
    fs::write(directory.join(KEY), key.serialize_pem())
}

/// Makes the TLS of the links. Whom they talk to is known.
pub(crate) fn client() -> io::Result<ClientTls> {
    ClientTls::new(&Believe::Anyone, None).map_err(io::Error::other)
}

/// Makes the connecting end of a link.
pub(crate) fn connect(client: &ClientTls) -> io::Result<Box<Tls>> {
    client.connect("localhost", &[]).map(Box::new).map_err(io::Error::other)
}

/// Opens `received` bytes of `buffer`; returns the number of bytes of plaintext that are there
/// now.
pub(crate) fn open(tls: &mut Tls, buffer: &mut [u8], received: usize) -> io::Result<usize> {
    match tls.open(buffer, received) {
        Opened::Plaintext(count) => Ok(count),
        Opened::Nothing => Ok(0),
        Opened::Closed => Err(io::ErrorKind::UnexpectedEof.into()),
        Opened::Illegal(why) => Err(io::Error::new(io::ErrorKind::InvalidData, why.name())),
    }
}

/// Sends what TLS has to say of its own, and then `plaintext`. Fails if the socket does not take
/// everything.
pub(crate) fn write(tls: &mut Tls, stream: &TcpStream, plaintext: &[u8]) -> io::Result<()> {
    let mut taken = 0;
    loop {
        let sealed = tls.seal(plaintext.get(taken..).unwrap_or_default());
        if sealed.is_empty() {
            let is_done = taken >= plaintext.len();
            return if is_done { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) };
        }
        let length = sealed.len();
        let count = rustix::io::write(stream, sealed)?;
        taken += tls.sent(count);
        if count < length {
            return Err(io::ErrorKind::WriteZero.into());
        }
    }
}

/// The accepting end of the bare echo: rustls as its own examples use it.
pub(crate) struct Echo(Box<ServerConnection>);

impl Echo {
    /// Reads certificate and key from `directory`.
    pub(crate) fn config(directory: &Path) -> io::Result<Arc<ServerConfig>> {
        let (chain, key) = (fs::read(directory.join(CERTIFICATE))?, fs::read(directory.join(KEY))?);
        let identity = Identity::from_pem(&chain, &key).map_err(io::Error::other)?;
        let tls = ServerTls::new(vec![identity], None, &[]).map_err(io::Error::other)?;
        Ok(tls.config())
    }

    pub(crate) fn new(config: Arc<ServerConfig>) -> io::Result<Echo> {
        ServerConnection::new(config).map(Box::new).map(Echo).map_err(io::Error::other)
    }

    /// Reads once, and sends back what was said. Returns whether the connection goes on.
    pub(crate) fn turn(&mut self, mut stream: &TcpStream, buffer: &mut [u8]) -> bool {
        match self.0.read_tls(&mut stream) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
        if self.0.process_new_packets().is_err() {
            return false;
        }
        while let Ok(count @ 1..) = self.0.reader().read(buffer) {
            if self.0.writer().write_all(&buffer[..count]).is_err() {
                return false;
            }
        }
        while self.0.wants_write() {
            if self.0.write_tls(&mut stream).is_err() {
                return false;
            }
        }
        true
    }
}
