//! Why a peer's certificate is not believed.

use std::fmt;

use rustls::{CertificateError, Error};

/// Why a peer's certificate is not believed. The peer's fault, or that of whoever chose whom to
/// believe; a retry fails in the same way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Distrust {
    /// The peer showed none.
    Missing,
    /// Its time is over, by the clock of this machine.
    Expired,
    /// Its time has not come yet, by the clock of this machine.
    NotYetValid,
    /// It is for other names than the expected one.
    OtherName,
    /// It has no alternative name at all; a common name does not count.
    NoName,
    /// Nobody who is believed has signed it.
    UnknownIssuer,
    /// It is an authority's, and used as that of an end.
    Authority,
    /// It is for another purpose.
    Purpose,
    /// Its key is not the pinned one.
    OtherKey,
    /// It is illegal, revoked, or made with an algorithm that is not known.
    Illegal,
}

impl Distrust {
    /// Returns what an error says of the peer's certificate; `None` if it is about something else.
    pub(crate) fn of(error: &Error) -> Option<Distrust> {
        if let Error::InvalidCertificate(why) = error {
            return Some(Distrust::why(why));
        }
        matches!(error, Error::NoCertificatesPresented).then_some(Distrust::Missing)
    }

    fn why(error: &CertificateError) -> Distrust {
        use CertificateError as Why;
        if let Why::Other(other) = error {
            return other.0.downcast_ref().copied().unwrap_or(Distrust::Illegal);
        }
        if matches!(error, Why::Expired | Why::ExpiredContext { .. }) {
            Distrust::Expired
        } else if matches!(error, Why::NotValidYet | Why::NotValidYetContext { .. }) {
            Distrust::NotYetValid
        } else if is_nameless(error) {
            Distrust::NoName
        } else if matches!(error, Why::NotValidForName | Why::NotValidForNameContext { .. }) {
            Distrust::OtherName
        } else if matches!(error, Why::UnknownIssuer | Why::BadSignature) {
            // An authority of the same name has another key.
            Distrust::UnknownIssuer
        } else if matches!(error, Why::InvalidPurpose | Why::InvalidPurposeContext { .. }) {
            Distrust::Purpose
        } else if matches!(error, Why::ApplicationVerificationFailure) {
            Distrust::OtherKey
        } else {
            Distrust::Illegal
        }
    }
}

/// Returns whether a certificate has no name at all.
fn is_nameless(error: &CertificateError) -> bool {
    let CertificateError::NotValidForNameContext { presented, .. } = error else { return false };
    presented.is_empty()
}

impl fmt::Display for Distrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Distrust::Missing => "is missing",
            Distrust::Expired => "has expired",
            Distrust::NotYetValid => "is not valid yet",
            Distrust::OtherName => "is for other names than the expected one",
            Distrust::NoName => "has no name in subjectAltName, and a common name does not count",
            Distrust::UnknownIssuer => "is signed by nobody who is believed",
            Distrust::Authority => "is that of an authority, which is none for a server",
            Distrust::Purpose => "is for another purpose",
            Distrust::OtherKey => "has another key than the pinned one",
            Distrust::Illegal => "cannot be checked",
        })
    }
}

impl std::error::Error for Distrust {}
