//! What is written: sessions about which something is owed, and entries for receivers.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::events::{Body, Event};
use crate::json::to_json;
use crate::report::session_text;

/// What is owed about a session that is about to exist.
#[derive(Clone, Debug)]
pub struct Owing {
    /// The number of the shard that asks.
    pub shard: usize,
    /// The link, and the number of its admission.
    pub link: u32,
    /// The number of the admission.
    pub admission: u32,
    /// The session's number.
    pub session: u64,
    /// The session's epoch.
    pub epoch: u64,
    /// The identity; empty for none.
    pub identity: Box<str>,
    /// The index of the listener.
    pub listener: u16,
    /// The peer's address.
    pub address: SocketAddr,
    /// When the client logged in, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
}

/// An event of a session, to be written for those who want it.
#[derive(Clone, Debug)]
pub struct Noted {
    /// The kind, as in the JSON.
    pub kind: &'static str,
    /// When it happened, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// The session's number.
    pub session: u64,
    /// The session's epoch.
    pub epoch: u64,
    /// The identity; empty for none.
    pub identity: Box<str>,
    /// The name of the listener.
    pub listener: Arc<str>,
    /// The peer's address.
    pub address: String,
    /// The event as JSON, without a number.
    pub body: Box<str>,
}

/// An entry that waits for its receiver.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its number: later ones are higher, over restarts too.
    pub number: u64,
    /// Whose entries keep their order: the identity, or the number of a session without one.
    pub key: Box<str>,
    /// The session's number.
    pub session: u64,
    /// The session's epoch.
    pub epoch: u64,
    /// The kind of the event.
    pub kind: Box<str>,
    /// When the event happened, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// The event as JSON, without a number.
    pub body: Box<str>,
    /// The address of the client, or its IPv6 /64; empty if it is trusted, or not known.
    pub origin: Box<str>,
}

/// The entries that wait for a receiver.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// How many.
    pub waiting: u64,
    /// When the event of the oldest one happened, in milliseconds since 1970-01-01 UTC.
    pub oldest_at_ms: Option<u64>,
}

/// An event without a number: that of the stream means nothing after a restart.
#[derive(Serialize)]
struct Unnumbered<'a> {
    at_ms: u64,
    #[serde(flatten)]
    body: &'a Body,
}

impl Noted {
    /// Returns what is written of an event; `None` for one that is not about a session that was
    /// online.
    pub(crate) fn of(event: &Event) -> Option<Noted> {
        let session = event.body.session().filter(|session| session.established)?;
        Some(Noted {
            kind: event.body.kind(),
            at_ms: event.at_ms,
            session: u64::from_str_radix(&session.session, 16).ok()?,
            epoch: session.epoch.parse().ok()?,
            identity: session.identity.clone(),
            listener: session.listener.clone(),
            address: session.address.clone(),
            body: text_of(event.at_ms, &event.body)?,
        })
    }

    /// Returns whose entries keep their order.
    pub(super) fn key(&self) -> String {
        key(&self.identity, self.session)
    }
}

pub(super) fn text_of(at_ms: u64, body: &Body) -> Option<Box<str>> {
    to_json(&Unnumbered { at_ms, body }).ok().map(String::into)
}

fn key(identity: &str, session: u64) -> String {
    if identity.is_empty() { session_text(session) } else { identity.to_owned() }
}
