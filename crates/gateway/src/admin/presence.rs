//! Handlers that tell who is there, by identity.

use std::collections::HashSet;
use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use systole_core::wire::MAX_IDENTITY;
use utoipa::ToSchema;

use super::answer::{Json, PathText, Raw, Trouble};
use super::sessions::{AwayView, SessionView};
use super::state::Shared;
use crate::gateway::{Gateway, Known};
use crate::report::session_text;
use crate::request::SessionsOf;

/// Maximum number of identities in one request.
const IDENTITIES: usize = 1_000;

/// Longest body: as many identities of the longest kind, each byte of them written as an escape.
pub(super) const MAX_ASKED: usize = IDENTITIES * (MAX_IDENTITY * 6 + 4) + 1_024;

/// Who is there of an identity.
#[derive(Serialize, ToSchema)]
pub(super) struct Presence {
    /// The identity.
    identity: String,
    /// `online`, `suspect` (all its sessions online are), `away` (none is online, and one at least
    /// waits for another connection), `offline`, or `unknown` (neither, and none of the last
    /// sessions was its: `verdicts` in `[limits]` says how many are kept).
    state: &'static str,
    /// Its sessions that are online.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sessions: Vec<SessionView>,
    /// Its sessions that are away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    away: Vec<AwayView>,
    /// How many more are online or away, which the answer has no room for; absent if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    more: Option<u64>,
    /// How its last session ended, if it is offline.
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<Last>,
}

/// How the last session of an identity ended.
#[derive(Serialize, ToSchema)]
struct Last {
    /// The session's number.
    session: String,
    /// The session's epoch, in decimal.
    epoch: String,
    /// When it ended, in milliseconds since 1970-01-01 UTC.
    at_ms: u64,
    /// The name of the cause.
    cause: &'static str,
    /// The confidence in the cause: `medium`, `high` or `certain`.
    confidence: &'static str,
}

/// Who is there of many identities.
#[derive(Serialize, ToSchema)]
pub(super) struct PresenceList {
    /// One for each identity of the request, in its order; one that is repeated counts once.
    presences: Vec<Presence>,
}

/// The identities of a request.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// At most 1,000 identities.
    identities: Vec<String>,
}

/// Tells who is there of an identity.
#[utoipa::path(
    get,
    path = "/api/v1/presence/{identity}",
    params(("identity" = String, Path, description = "The identity")),
    responses((status = 200, body = Presence), (status = 503, body = Trouble))
)]
pub(super) async fn one(
    State(shared): State<Shared>,
    PathText(identity): PathText,
) -> Result<Json<Presence>, Trouble> {
    let mut presences = presences(&shared.gateway, vec![identity.into()]).await?;
    let unknown = || Trouble::bad("no identity", "name one in the path");
    presences.pop().map(Json).ok_or_else(unknown)
}

/// Tells who is there of at most 1,000 identities.
#[utoipa::path(
    post,
    path = "/api/v1/presence",
    request_body = Asked,
    responses((status = 200, body = PresenceList), (status = 503, body = Trouble))
)]
pub(super) async fn many(
    State(shared): State<Shared>,
    Raw(body): Raw,
) -> Result<Json<PresenceList>, Trouble> {
    let hint = "send {\"identities\": [\"ada\", \"bob\"]}, with at most 1,000 of them";
    let asked: Asked = serde_json::from_slice(&body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Trouble::bad(format!("the body is no list: line {line}, column {column}"), hint)
    })?;
    if asked.identities.len() > IDENTITIES {
        let error = format!("there are {} identities in the request", asked.identities.len());
        return Err(Trouble::bad(error, hint));
    }
    let mut seen = HashSet::new();
    let mut identities: Vec<Arc<str>> = asked.identities.into_iter().map(Arc::from).collect();
    identities.retain(|identity| seen.insert(identity.clone()));
    Ok(Json(PresenceList { presences: presences(&shared.gateway, identities).await? }))
}

async fn presences(gateway: &Gateway, identities: Vec<Arc<str>>) -> Result<Vec<Presence>, Trouble> {
    let known = gateway.presence(&identities).await?;
    let show = |(identity, known): (&Arc<str>, Known)| {
        let identity = identity.to_string();
        match known {
            Known::Unknown => Presence {
                identity,
                state: "unknown",
                sessions: Vec::new(),
                away: Vec::new(),
                more: None,
                last: None,
            },
            Known::Online(SessionsOf { shown, away, more }) => {
                let state = if shown.is_empty() {
                    "away"
                } else if shown.iter().all(|session| session.suspect) {
                    "suspect"
                } else {
                    "online"
                };
                let more = Some(more).filter(|more| *more > 0);
                let sessions = shown.into_iter();
                let sessions = sessions.map(|info| SessionView::new(gateway, info)).collect();
                let away = away.into_iter().map(|info| AwayView::new(gateway, info)).collect();
                Presence { identity, state, sessions, away, more, last: None }
            }
            Known::Offline(ended) => {
                let last = Last {
                    session: session_text(ended.subject.session),
                    epoch: ended.subject.epoch.to_string(),
                    at_ms: ended.at_ms,
                    cause: ended.verdict.cause.name(),
                    confidence: ended.verdict.confidence.name(),
                };
                Presence {
                    identity,
                    state: "offline",
                    sessions: Vec::new(),
                    away: Vec::new(),
                    more: None,
                    last: Some(last),
                }
            }
        }
    };
    Ok(identities.iter().zip(known).map(show).collect())
}
