//! The connecting end: whom it believes.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use sha2::{Digest, Sha256};

use super::roots::{ByRoots, may_vouch};
use super::server::Identity;
use super::{TlsError, certificates, provider, vouching};
use crate::transport::Tls;

/// The SHA-256 of a public key (its SubjectPublicKeyInfo, as RFC 7469, 2.4 counts it).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pin([u8; 32]);

impl Pin {
    /// Reads 64 hexadecimal digits.
    ///
    /// # Errors
    /// The text is something else.
    pub fn from_hex(text: &str) -> Result<Pin, TlsError> {
        let digits: Option<Vec<u8>> =
            text.chars().map(|c| c.to_digit(16).and_then(|it| u8::try_from(it).ok())).collect();
        let digits = digits.filter(|it| it.len() == 64).ok_or(TlsError::Pin)?;
        let mut pin = [0; 32];
        for (byte, pair) in pin.iter_mut().zip(digits.chunks(2)) {
            *byte = pair.iter().fold(0, |byte, digit| byte << 4 | digit);
        }
        Ok(Pin(pin))
    }

    /// Returns the pin as [`Pin::from_hex`] reads it.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns the pin of a certificate's public key; `None` if the certificate is illegal.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Pin> {
        let parsed = ParsedCertificate::try_from(certificate).ok()?;
        let key = parsed.subject_public_key_info();
        Some(Pin(Sha256::digest(&key).into()))
    }
}

/// Whose certificates a client believes.
#[derive(Clone, Debug)]
pub enum Believe<'a> {
    /// Those for which a certificate of this system vouches.
    System,
    /// Those for which one of these certificates vouches, and these themselves, as PEM.
    Roots(&'a [u8]),
    /// One with this public key, whatever its name and time say.
    Pinned(Pin),
    /// Every one: whoever stands on the way can read and change everything.
    Anyone,
}

/// The TLS of a client.
#[derive(Clone, Debug)]
pub struct ClientTls(Arc<ClientConfig>);

impl ClientTls {
    /// Creates the TLS of a client, which shows `identity` if it is asked for one.
    ///
    /// # Errors
    /// The roots cannot be used, or the system has none.
    pub fn new(believe: &Believe<'_>, identity: Option<&Identity>) -> Result<ClientTls, TlsError> {
        let unusable = |error: Error| TlsError::Certificate(error.to_string());
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(unusable)?;
        let verifier: Arc<dyn ServerCertVerifier> = match believe {
            Believe::System => Arc::new(ByRoots::new(system_roots()?, Vec::new())?),
            Believe::Roots(pem) => {
                let given = certificates(pem)?;
                let roots = given.iter().filter(|it| may_vouch(it)).cloned().collect();
                Arc::new(ByRoots::new(vouching(roots)?, given)?)
            }
            Believe::Pinned(pin) => Arc::new(ByKey::new(Some(*pin))),
            Believe::Anyone => Arc::new(ByKey::new(None)),
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder.with_client_cert_resolver(identity.resolver()),
        };
        config.resumption = rustls::client::Resumption::disabled();
        Ok(ClientTls(Arc::new(config)))
    }

    /// Creates the connecting end of one connection to `host`, a name or an address, which names
    /// these protocols (ALPN, RFC 7301).
    ///
    /// # Errors
    /// No certificate can name the host.
    pub fn connect(&self, host: &str, alpn: &[&[u8]]) -> Result<Tls, TlsError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| TlsError::Name)?;
        Tls::connect(self.0.clone(), name, alpn)
            .map_err(|error| TlsError::Certificate(error.to_string()))
    }
}

/// Returns the certificates of this system that vouch for others, as far as they are readable.
pub fn system_certificates() -> Vec<CertificateDer<'static>> {
    rustls_native_certs::load_native_certs().certs
}

fn system_roots() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    // Some of a system's certificates may be too old; the others still vouch.
    roots.add_parsable_certificates(system_certificates());
    if roots.is_empty() { Err(TlsError::NoRoots) } else { Ok(roots) }
}

/// Believes whoever holds the private key of a certificate: of the pinned one, or of any.
#[derive(Debug)]
struct ByKey {
    pin: Option<Pin>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ByKey {
    fn new(pin: Option<Pin>) -> ByKey {
        let CryptoProvider { signature_verification_algorithms, .. } = *provider();
        ByKey { pin, algorithms: signature_verification_algorithms }
    }
}

impl ServerCertVerifier for ByKey {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.pin.is_some() && self.pin != Pin::of(certificate) {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
