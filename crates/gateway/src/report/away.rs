//! A session that is away, as the API shows it.

use std::net::SocketAddr;

use serde::Serialize;
use systole_core::Time;
use systole_core::hub::Absence;
use utoipa::ToSchema;

use super::{Attributes, SessionInfo, session_text};

/// One session that is away, as the API shows it: it has no connection, and waits for another one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct AwayInfo {
    /// The session's number, 16 hexadecimal digits.
    pub session: String,
    /// The session's epoch, in decimal; a JSON number would lose the last digits.
    pub epoch: String,
    /// The identity that the peer claims; empty if the peer gave none.
    pub identity: String,
    /// The index of the session's listener.
    #[serde(skip)]
    pub listener: u16,
    /// The peer's address on the connection that was lost.
    #[schema(value_type = String)]
    pub address: SocketAddr,
    /// When the connection was lost, in milliseconds since 1970-01-01 UTC.
    pub since_ms: u64,
    /// How long the session still waits for another connection.
    pub ends_in_ms: u64,
    /// The name of the cause for which the connection was lost.
    pub cause: &'static str,
    /// How many messages wait for the peer.
    pub waiting: u64,
    /// What else the proof of the identity says of the peer; absent if nothing.
    #[serde(skip_serializing_if = "Attributes::is_empty")]
    #[schema(value_type = Object)]
    pub attributes: Attributes,
}

/// One session, as the API shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shown {
    /// It is online.
    Online(Box<SessionInfo>),
    /// It is away.
    Away(Box<AwayInfo>),
}

impl AwayInfo {
    /// Describes `absence` at vigilant time `now`, which is `wall_ms` on the wall clock.
    pub fn new(absence: &Absence<'_>, now: Time, wall_ms: u64) -> AwayInfo {
        AwayInfo {
            session: session_text(absence.session),
            epoch: absence.epoch.to_string(),
            identity: absence.identity.to_owned(),
            listener: absence.listener,
            address: absence.address,
            since_ms: wall_ms.saturating_sub(now.since(absence.verdict.at).as_millis()),
            ends_in_ms: absence.until.since(now).as_millis(),
            cause: absence.verdict.cause.name(),
            waiting: absence.waiting,
            attributes: Attributes(absence.attributes.into()),
        }
    }
}
