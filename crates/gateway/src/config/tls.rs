//! Reads the settings of TLS: certificates, their keys, and who vouches for clients.

use std::fmt;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;

use systole_net::tls::{CertificateFacts, Identity, ServerTls, TlsError, Validity};
use toml::de::DeValue;

use super::Config;
use super::file::read_text;
use super::section::{Given, Reading, Section};
use super::value;

/// Maximum number of certificates of one listener: it looks for the right one in this list.
const MAX_CERTIFICATES: usize = 16;

/// Maximum size of a file of certificates or of a key, in bytes: a chain of long certificates, or
/// the roots of a whole system.
const MAX_FILE: u64 = 1 << 20;

/// The TLS of a listener. Two are equal if both are the same one.
#[derive(Clone)]
pub struct Tls {
    server: ServerTls,
    certificates: Arc<[CertificateFacts]>,
}

impl Tls {
    /// Returns what its certificates say of themselves.
    pub fn certificates(&self) -> &[CertificateFacts] {
        &self.certificates
    }
}

impl Deref for Tls {
    type Target = ServerTls;

    fn deref(&self) -> &ServerTls {
        &self.server
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Tls) -> bool {
        self.server.is_same(&other.server)
    }
}

impl Eq for Tls {}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(…)")
    }
}

impl Config {
    /// Returns the TLS of each listener that has it, and of the admin interface, by name.
    pub fn tls(&self) -> impl Iterator<Item = (&str, &Tls)> {
        let listeners = self.listeners.iter().filter_map(|it| Some((it.name(), it.tls()?)));
        listeners.chain(self.admin.tls().map(|tls| ("[admin]", tls)))
    }
}

/// Maximum number of names of a certificate that are shown.
const MAX_NAMES: usize = 8;

/// Returns the names of a certificate for people.
pub fn show_names(facts: &CertificateFacts) -> String {
    let names = &facts.names;
    let shown = names.iter().take(MAX_NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MAX_NAMES) {
        0 if names.is_empty() => "no names".to_owned(),
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Returns why clients refuse a certificate at this time, if they do.
pub fn refused_because(facts: &CertificateFacts, wall_ms: u64) -> Option<String> {
    match facts.validity_at(wall_ms) {
        Validity::Valid => None,
        Validity::NotYet => {
            Some(format!("the certificate is not valid before {}: clients refuse it", facts.from))
        }
        Validity::Expired => {
            Some(format!("the certificate has expired on {}: clients refuse it", facts.until))
        }
    }
}

/// Where the identity of a client comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ClientIdentity {
    /// The client claims one, which is believed.
    #[default]
    Claim,
    /// The subject of its certificate, see [`systole_net::tls::subject`]. A client that claims
    /// another is refused.
    Subject,
}

/// Names of the sources of identities in the file.
const CLIENT_IDENTITIES: [(&str, ClientIdentity); 2] =
    [("claim", ClientIdentity::Claim), ("subject", ClientIdentity::Subject)];

/// The settings of TLS in one section.
#[derive(Debug)]
pub(super) struct TlsSettings {
    certificate: Option<Given<Vec<String>>>,
    key: Option<Given<Vec<String>>>,
    client_roots: Option<Given<Vec<String>>>,
    client_identity: Option<Given<ClientIdentity>>,
}

impl TlsSettings {
    /// Takes the settings out of a section.
    pub(super) fn take(reading: &mut Reading<'_>, section: &mut Section<'_>) -> TlsSettings {
        TlsSettings {
            certificate: section.take(reading, "certificate", files),
            key: section.take(reading, "key", files),
            client_roots: section.take(reading, "client_roots", files),
            client_identity: section.take(
                reading,
                "client_identity",
                value::chosen(&CLIENT_IDENTITIES),
            ),
        }
    }

    /// Takes the settings of a section whose clients show no certificates.
    pub(super) fn take_pair(reading: &mut Reading<'_>, section: &mut Section<'_>) -> TlsSettings {
        TlsSettings {
            certificate: section.take(reading, "certificate", files),
            key: section.take(reading, "key", files),
            client_roots: None,
            client_identity: None,
        }
    }

    /// Whether each client must show a certificate.
    pub(super) fn has_client_roots(&self) -> bool {
        self.client_roots.is_some()
    }

    /// Returns whether there is to be TLS.
    pub(super) fn is_given(&self) -> bool {
        self.certificate.is_some()
    }

    /// Returns the place and the key of each setting that was given.
    pub(super) fn given(&self) -> impl Iterator<Item = (Range<usize>, &'static str)> {
        let all = [
            (self.certificate.as_ref().map(|it| &it.span), "certificate"),
            (self.key.as_ref().map(|it| &it.span), "key"),
            (self.client_roots.as_ref().map(|it| &it.span), "client_roots"),
            (self.client_identity.as_ref().map(|it| &it.span), "client_identity"),
        ];
        all.into_iter().filter_map(|(span, key)| Some((span?.clone(), key)))
    }

    /// Returns where the identity of clients comes from, or reports the problem: only a verified
    /// certificate proves one.
    pub(super) fn client_identity(&self, reading: &mut Reading<'_>) -> ClientIdentity {
        let Some(given) = &self.client_identity else {
            return ClientIdentity::default();
        };
        if given.value == ClientIdentity::Subject && self.client_roots.is_none() {
            let what = "`client_identity` = \"subject\" needs `client_roots`".to_owned();
            let help = "say who vouches for the certificates of clients".to_owned();
            reading.problems.add(Some(given.span.clone()), what, Some(help));
        }
        given.value
    }

    /// Reads the files that were given, or reports the problem. Relative paths start from
    /// `directory`; `alpn` has the names of the protocols that are spoken.
    pub(super) fn read(
        &self,
        reading: &mut Reading<'_>,
        directory: &Path,
        alpn: &[&[u8]],
    ) -> Option<Tls> {
        let (certificate, key) = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => (certificate, key),
            (None, None) => {
                if let Some(roots) = &self.client_roots {
                    let what = "`client_roots` needs `certificate` and `key`".to_owned();
                    reading.problems.add(Some(roots.span.clone()), what, None);
                }
                return None;
            }
            (Some(given), None) => return refuse(reading, given, "`certificate` needs `key`"),
            (None, Some(given)) => return refuse(reading, given, "`key` needs `certificate`"),
        };
        if certificate.value.len() != key.value.len() {
            return refuse(reading, key, "`key` must have one file for each `certificate`");
        }
        let mut identities = Vec::new();
        for (chain_name, key_name) in certificate.value.iter().zip(&key.value) {
            let read = |name: &str| read_file(&directory.join(name));
            let (chain, secret) = match (read(chain_name), read(key_name)) {
                (Ok(chain), Ok(secret)) => (chain, secret),
                (Err(what), _) => return refuse(reading, certificate, &what),
                (_, Err(what)) => return refuse(reading, key, &what),
            };
            match Identity::from_pem(&chain, &secret) {
                Ok(identity) => identities.push(identity),
                Err(TlsError::OtherKey) => {
                    let what = format!("{key_name} is not the key of {chain_name}");
                    return refuse(reading, key, &what);
                }
                Err(error) => {
                    let at_key = matches!(error, TlsError::NoKey | TlsError::Key(_));
                    let (given, name) =
                        if at_key { (key, key_name) } else { (certificate, chain_name) };
                    return refuse(reading, given, &format!("the file {name}: {error}"));
                }
            }
        }
        let mut roots = Vec::new();
        for name in self.client_roots.iter().flat_map(|given| &given.value) {
            match read_file(&directory.join(name)) {
                Ok(pem) => roots.extend(pem),
                Err(what) => return refuse(reading, self.client_roots.as_ref()?, &what),
            }
        }
        let roots = self.client_roots.as_ref().map(|given| (given, roots));
        let certificates = identities.iter().filter_map(Identity::facts).collect();
        let made = ServerTls::new(identities, roots.as_ref().map(|it| &it.1[..]), alpn);
        match made {
            Ok(server) => Some(Tls { server, certificates }),
            Err(error) => {
                let given = roots.map_or(certificate, |it| it.0);
                let what = format!("the file {}: {error}", given.value.join(", "));
                refuse(reading, given, &what)
            }
        }
    }
}

fn refuse<T>(reading: &mut Reading<'_>, given: &Given<Vec<String>>, what: &str) -> Option<T> {
    reading.problems.add(Some(given.span.clone()), what.to_owned(), None);
    None
}

/// Converts the name of a file, or a list of names.
fn files(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let texts: Option<Vec<String>> = match value.as_str() {
        Some(text) => Some(vec![text.to_owned()]),
        None => value.as_array().and_then(|list| {
            list.iter().map(|entry| entry.get_ref().as_str().map(str::to_owned)).collect()
        }),
    };
    let legal = |texts: &Vec<String>| {
        (1..=MAX_CERTIFICATES).contains(&texts.len()) && !texts.iter().any(String::is_empty)
    };
    texts.filter(legal).ok_or_else(|| format!("a file, or a list of 1 to {MAX_CERTIFICATES} files"))
}

/// Reads a file of certificates or keys. The error names the file.
fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let text = read_text(path, MAX_FILE).map(String::into_bytes);
    text.map_err(|error| format!("the file {} cannot be read: {error}", path.display()))
}
