//! How an end proves in TLS who it is, and whom it believes: certificates, keys and roots.
//!
//! Everything is given as PEM (RFC 7468). Reading the files is up to the caller.

mod client;
mod distrust;
mod error;
mod facts;
mod roots;
mod server;
mod subject;

pub use client::{Believe, ClientTls, Pin, system_certificates};
pub use distrust::Distrust;
pub use error::TlsError;
pub use facts::{CertificateFacts, Validity};
pub use server::{Identity, ServerTls};
pub use subject::subject;

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// The protocol name (ALPN, RFC 7301) of the native codec.
pub const ALPN: &[u8] = b"systole/1";

/// Returns the cryptography of this process, to be passed explicitly: nothing depends on a global
/// default.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Seeds the random numbers of this thread. Its first handshake would do so, which takes a tenth of
/// a second: the cryptography gathers entropy from the jitter of the processor, for each thread.
pub fn seed_thread() {
    // If this fails, the first handshake tries again, and fails for the reason.
    let _ = provider().secure_random.fill(&mut [0; 32]);
}

/// Reads all certificates of a PEM text.
///
/// # Errors
/// It is no PEM, or holds none.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let read = read.map_err(|error| TlsError::Pem(error.to_string()))?;
    if read.is_empty() { Err(TlsError::NoCertificate) } else { Ok(read) }
}

/// Reads certificates that vouch for others.
fn roots(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    vouching(certificates(pem)?)
}

/// Collects certificates that vouch for others.
fn vouching(certificates: Vec<CertificateDer<'static>>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| TlsError::Certificate(error.to_string()))?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests;
