//! Believing certificates for which others vouch, and those that were given themselves.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use x509_parser::parse_x509_certificate;
use x509_parser::prelude::{ASN1Time, X509Certificate, X509Version};

use super::{Distrust, TlsError, provider};

/// Believes a certificate for which a root vouches, and one that was given itself.
///
/// Who makes a certificate that signs itself gets one of an authority, most often; the rules of
/// paths (RFC 5280, 6.1) refuse that of a server. Given byte by byte, it needs no path: its key is
/// the one that was given, and its name, time and purpose are checked as those of any other.
#[derive(Debug)]
pub(super) struct ByRoots {
    /// `None` if there is no root.
    paths: Option<Arc<WebPkiServerVerifier>>,
    given: Vec<CertificateDer<'static>>,
}

impl ByRoots {
    /// Believes those for which one of `roots` vouches, and those in `given`.
    pub(super) fn new(
        roots: RootCertStore,
        given: Vec<CertificateDer<'static>>,
    ) -> Result<ByRoots, TlsError> {
        if roots.is_empty() {
            return Ok(ByRoots { paths: None, given });
        }
        let paths = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider());
        let paths = paths.build().map_err(|error| TlsError::Certificate(error.to_string()))?;
        Ok(ByRoots { paths: Some(paths), given })
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
        let Some(paths) = &self.paths else {
            return Err(CertificateError::UnknownIssuer.into());
        };
        let found = paths.verify_server_cert(certificate, between, name, ocsp, now);
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
        let algorithms = provider().signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
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

/// Returns whether a certificate that was given may vouch for others: it is that of an authority,
/// or too old to say so (RFC 5280, 4.2.1.9). With the key of a server nobody may speak for another
/// one.
pub(super) fn may_vouch(certificate: &CertificateDer<'_>) -> bool {
    details(certificate).is_none_or(|it| it.is_ca() || it.version() != X509Version::V3)
}

fn is_authority(certificate: &CertificateDer<'_>) -> bool {
    details(certificate).is_some_and(|it| it.is_ca())
}

fn details<'a>(certificate: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    parse_x509_certificate(certificate).ok().map(|(_, parsed)| parsed)
}
