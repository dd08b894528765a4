//! Why certificates, keys or roots cannot be used.

use std::fmt;

/// Certificates, keys or roots that cannot be used. Nothing was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TlsError {
    /// The text is not PEM.
    Pem(String),
    /// The text holds no certificate.
    NoCertificate,
    /// The text holds no private key, or none of a kind that is known.
    NoKey,
    /// A certificate cannot be used.
    Certificate(String),
    /// The private key cannot be used.
    Key(String),
    /// The private key belongs to another certificate.
    OtherKey,
    /// The system has no certificates that vouch for others.
    NoRoots,
    /// The pin is not the SHA-256 of a public key in 64 hexadecimal digits.
    Pin,
    /// The address names a host for which no certificate can be checked.
    Name,
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Pem(why) => write!(f, "not PEM: {why}"),
            TlsError::NoCertificate => f.write_str("no certificate in it (BEGIN CERTIFICATE)"),
            TlsError::NoKey => f.write_str("no private key in it (BEGIN PRIVATE KEY)"),
            TlsError::Certificate(why) => write!(f, "the certificate cannot be used: {why}"),
            TlsError::Key(why) => write!(f, "the private key cannot be used: {why}"),
            TlsError::OtherKey => f.write_str("the private key is not that of the certificate"),
            TlsError::NoRoots => f.write_str(
                "this system has no certificates that vouch for others; name a CA, or install the \
                 package ca-certificates",
            ),
            TlsError::Pin => {
                f.write_str("a pin is the SHA-256 of the public key, in 64 hexadecimal digits")
            }
            TlsError::Name => f.write_str("no certificate can name this host"),
        }
    }
}

impl std::error::Error for TlsError {}
