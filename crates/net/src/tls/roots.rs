//! Believing certificates for which others vouch, and those that were given themselves.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use x509_parser::parse_x509_certificate;
use x509_parser::prelude::{ASN1Time, X509Certificate};

use super::{Distrust, TlsError, provider};

/// Believes a certificate for which a root vouches, and one that was given itself.
///
/// Who makes a certificate that signs itself gets one of an authority, most often; the rules of
/// paths (RFC 5280, 6.1) refuse that of a server. Given byte by byte, it needs no path: its key is
/// the one that was given, and its name, time and purpose are checked as those of any other.
#[derive(Debug)]
pub(super) struct ByRoots {
    paths: Arc<WebPkiServerVerifier>,
    given: Vec<CertificateDer<'static>>,
}

impl ByRoots {
    /// Believes those for which one of `roots` vouches, and those in `given`.
    pub(super) fn new(
        roots: RootCertStore,
        given: Vec<CertificateDer<'static>>,
    ) -> Result<ByRoots, TlsError> {
        let paths = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
        let paths = paths.build().map_err(|error| TlsError::Certificate(error.to_string()))?;
        Ok(ByRoots { paths, given })
    }
}

impl ServerCertVerifier for ByRoots {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.given.iter().any(|given| given.as_ref() == certificate.as_ref()) {
            check_alone(certificate, name, now)?;
            return Ok(ServerCertVerified::assertion());
        }
        let found = self.paths.verify_server_cert(certificate, between, name, ocsp, now);
        found.map_err(|error| {
            let is_other = matches!(error, Error::InvalidCertificate(CertificateError::Other(_)));
            match is_other && is_authority(certificate) {
                true => CertificateError::Other(OtherError(Arc::new(Distrust::Authority))).into(),
                false => error,
            }
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.paths.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.paths.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.paths.supported_verify_schemes()
    }
}

/// Checks the time, the purpose and the name of a certificate that was given itself.
fn check_alone(
    certificate: &CertificateDer<'_>,
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<(), Error> {
    // It refuses critical extensions that it does not know.
    let parsed = ParsedCertificate::try_from(certificate)?;
    let details = details(certificate).ok_or(CertificateError::BadEncoding)?;
    let now =
        i64::try_from(now.as_secs()).ok().and_then(|secs| ASN1Time::from_timestamp(secs).ok());
    let now = now.ok_or(CertificateError::BadEncoding)?;
    if now > details.validity().not_after {
        return Err(CertificateError::Expired.into());
    }
    if now < details.validity().not_before {
        return Err(CertificateError::NotValidYet.into());
    }
    let purposes = details.extended_key_usage().map_err(|_| CertificateError::BadEncoding)?;
    if purposes.is_some_and(|it| !it.value.server_auth) {
        return Err(CertificateError::InvalidPurpose.into());
    }
    verify_server_name(&parsed, name)
}

fn is_authority(certificate: &CertificateDer<'_>) -> bool {
    details(certificate).is_some_and(|it| it.is_ca())
}

fn details<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    parse_x509_certificate(certificate).ok().map(|(_, parsed)| parsed)
}
