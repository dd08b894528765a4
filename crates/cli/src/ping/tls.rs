//! The options of `ping` for TLS.

use std::fs;
use std::path::{Path, PathBuf};

use systole_client::tls::{Believe, ClientTls, Identity, Pin};

/// Whom `ping` believes, and what it shows.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "TLS")]
pub(super) struct TlsArgs {
    /// Speak TLS, and believe certificates for which one of this system vouches
    #[arg(long)]
    tls: bool,

    /// Speak TLS, and believe the certificates in FILE (PEM), and those for which one of them
    /// vouches
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// Speak TLS, and believe the one key whose SHA-256 (of its SubjectPublicKeyInfo) this is,
    /// whatever name and time its certificate has
    #[arg(long, value_name = "HEX", conflicts_with = "ca", value_parser = Pin::from_hex)]
    pin: Option<Pin>,

    /// Speak TLS, and believe anyone: whoever stands on the way can read and change everything
    #[arg(long, conflicts_with_all = ["ca", "pin"])]
    insecure: bool,

    /// Name expected in the certificate [default: the host of HOST:PORT]
    #[arg(long, value_name = "NAME")]
    pub(super) tls_name: Option<String>,

    /// Certificate (PEM) to show if the server asks for one
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,

    /// Private key (PEM) of --cert
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
}

impl TlsArgs {
    /// Returns whether TLS was asked for.
    pub(super) const fn is_spoken(&self) -> bool {
        let is_believing = self.tls || self.insecure || self.ca.is_some() || self.pin.is_some();
        is_believing || self.cert.is_some() || self.tls_name.is_some()
    }

    /// Returns whether certificates were named that vouch for others.
    pub(super) const fn names_roots(&self) -> bool {
        self.ca.is_some()
    }

    /// Returns whether a certificate of our own is shown to a server that asks for one.
    pub(super) const fn shows_certificate(&self) -> bool {
        self.cert.is_some()
    }

    /// Returns the TLS that was asked for; `None` for a plain connection.
    pub(super) fn read(&self) -> Result<Option<ClientTls>, String> {
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                let identity = Identity::from_pem(&read(cert)?, &read(key)?);
                Some(identity.map_err(|error| format!("{}: {error}", cert.display()))?)
            }
            _ => None,
        };
        let roots = self.ca.as_deref().map(read).transpose()?;
        let believe = match (&roots, self.pin) {
            (Some(roots), _) => Believe::Roots(roots),
            (None, Some(pin)) => Believe::Pinned(pin),
            (None, None) if self.insecure => Believe::Anyone,
            (None, None) if self.tls || identity.is_some() || self.tls_name.is_some() => {
                Believe::System
            }
            (None, None) => return Ok(None),
        };
        let tls = ClientTls::new(&believe, identity.as_ref());
        tls.map(Some).map_err(|error| match &self.ca {
            Some(file) => format!("{}: {error}", file.display()),
            None => error.to_string(),
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}
