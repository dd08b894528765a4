//! The accepting end: its certificates, and whether clients show theirs.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert,
    WebPkiClientVerifier,
};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error, InconsistentKeys, ServerConfig};

use super::{CertificateFacts, TlsError, certificates, provider, roots};
use crate::transport::Tls;

/// A certificate, those that vouch for it, and its private key.
#[derive(Clone, Debug)]
pub struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// Reads a certificate chain, the end's own first, and its private key.
    ///
    /// # Errors
    /// One of them cannot be used, or they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Identity, TlsError> {
        let chain = certificates(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::NoKey)?;
        for certificate in &chain {
            ParsedCertificate::try_from(certificate)
                .map_err(|error| TlsError::Certificate(error.to_string()))?;
        }
        let key = provider().key_provider.load_private_key(key);
        let key = key.map_err(|error| TlsError::Key(error.to_string()))?;
        let certified = CertifiedKey::new(chain, key);
        let other_key = Error::InconsistentKeys(InconsistentKeys::KeyMismatch);
        certified.keys_match().map_err(|error| {
            if error == other_key { TlsError::OtherKey } else { TlsError::Key(error.to_string()) }
        })?;
        Ok(Identity(Arc::new(certified)))
    }

    /// Returns what the certificate says of itself; `None` if that cannot be read.
    pub fn facts(&self) -> Option<CertificateFacts> {
        self.0.cert.first().and_then(CertificateFacts::of)
    }

    /// Shows this certificate to every server that asks for one.
    pub(super) fn resolver(&self) -> Arc<SingleCertAndKey> {
        Arc::new(self.0.clone().into())
    }

    /// Whether the certificate is for this name.
    fn is_for(&self, name: &ServerName<'_>) -> bool {
        let parsed = self.0.cert.first().map(ParsedCertificate::try_from);
        parsed.and_then(Result::ok).is_some_and(|it| verify_server_name(&it, name).is_ok())
    }
}

/// Chooses the first certificate for the name that a client asks for (SNI, RFC 6066); the first of
/// all for clients that ask for none or for another.
#[derive(Debug)]
struct ByName(Vec<Identity>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let asked = name.and_then(|name| self.0.iter().find(|it| it.is_for(&name)));
        asked.or(self.0.first()).map(|identity| identity.0.clone())
    }
}

/// The TLS of a listener. Clones share it; what is replaced holds for later connections.
#[derive(Clone, Debug)]
pub struct ServerTls(Arc<RwLock<Arc<ServerConfig>>>);

impl ServerTls {
    /// Creates the TLS of a listener with at least one certificate. With `client_roots`, PEM
    /// certificates, each client must show a certificate for which one of them vouches. With
    /// `alpn`, clients that name protocols (RFC 7301) must name one of these.
    ///
    /// # Errors
    /// There is no certificate, or the roots cannot be used.
    pub fn new(
        identities: Vec<Identity>,
        client_roots: Option<&[u8]>,
        alpn: &[&[u8]],
    ) -> Result<ServerTls, TlsError> {
        if identities.is_empty() {
            return Err(TlsError::NoCertificate);
        }
        let unusable = |error: &dyn std::error::Error| TlsError::Certificate(error.to_string());
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(&error))?;
        let builder = match client_roots {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let roots = Arc::new(roots(pem)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
                let verifier = verifier.build().map_err(|error| unusable(&error))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(ByName(identities)));
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        // A cache of sessions would take memory for each client. Clients of long-lived connections
        // handshake rarely.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(ServerTls(Arc::new(RwLock::new(Arc::new(config)))))
    }

    /// Whether both are clones of one.
    pub fn is_same(&self, other: &ServerTls) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Takes over the certificates and roots of `other`; connections that stand keep theirs.
    pub fn replace(&self, other: &ServerTls) {
        let config = other.config();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = config;
    }

    /// Creates the accepting end of one connection.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn accept(&self) -> Result<Tls, rustls::Error> {
        Tls::accept(self.config())
    }

    /// Returns what is in force for new connections, for a shell that drives rustls in its own way.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
