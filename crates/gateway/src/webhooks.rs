//! Event webhooks: services of the operator that are told about sessions, by HTTP POST.
//!
//! What a receiver is to be told waits in the [`store`](crate::store) until it has taken it. A
//! [`Courier`] decides what goes to one receiver and when; threads of its own carry it there.

mod complaints;
mod courier;
mod errands;
#[cfg(test)]
pub(crate) mod fixture;
mod http;
mod names;
mod sender;
#[cfg(test)]
mod shelf;
mod signature;

use systole_core::Span;
use ureq::http::Uri;

pub use courier::{Courier, Outcome, Parcel, Settled};
pub(crate) use http::{agent, check_url, look_up, post};
pub(crate) use sender::{Sender, SenderStatus};
pub use signature::sign;

/// A receiver of events, as configured.
#[derive(Clone, PartialEq, Eq)]
pub struct Receiver {
    /// Its name, for people and for the file of its dead letters.
    pub name: String,
    /// Its URL.
    pub url: String,
    /// The key of the signatures.
    pub secret: String,
    /// The kinds of events that it gets.
    pub events: Vec<&'static str>,
    /// How long it may take for an answer.
    pub timeout: Span,
    /// How many events are under way to it at once.
    pub concurrency: usize,
    /// The time after the first attempt at which an event goes to the dead letters.
    pub give_up_after: Span,
    /// The certificates that vouch for it, in DER.
    pub roots: Vec<Vec<u8>>,
}

impl Receiver {
    /// Returns the URL without what may be a secret in it: user, password and query.
    pub fn shown_url(&self) -> String {
        shown_url(&self.url)
    }
}

/// Returns a URL without what may be a secret in it.
pub(crate) fn shown_url(url: &str) -> String {
    let Ok(uri) = url.parse::<Uri>() else {
        return String::new();
    };
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{}://{host}{}", uri.scheme_str().unwrap_or_default(), uri.path())
}

impl std::fmt::Debug for Receiver {
    /// Without the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("name", &self.name).finish_non_exhaustive()
    }
}
