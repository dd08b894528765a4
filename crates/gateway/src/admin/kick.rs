//! Handlers that end a session, and may keep its peer out for a time.

use std::ops::RangeInclusive;

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use systole_core::wire::BootId;
use utoipa::ToSchema;

use super::answer::{Body, Json, PathText, Trouble};
use super::bans::{self, Ban, BanDone, LONGEST};
use super::fields::{Fields, FromFields};
use super::sessions::{Done, read_id, send_order};
use super::state::Shared;
use crate::bans::Banned;
use crate::gateway::ban::Farewell;
use crate::report::Subject;
use crate::request::Order;

/// Options of a kick.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Kick {
    /// Whether the client is asked to stay away; by default it may reconnect at once.
    stay_away: Option<bool>,
    /// What the people at the client are told, at most 128 bytes without control characters.
    text: Option<String>,
    /// Keeps the client out for a time.
    ban: Option<KickBan>,
}

/// A ban of whom a session belongs to.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KickBan {
    /// For how long.
    seconds: u64,
    /// What of the session is banned, at least one of them.
    of: Vec<BanOf>,
}

/// What of a session can be banned.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ToSchema)]
#[schema(rename_all = "snake_case")]
pub(super) enum BanOf {
    Identity,
    Device,
    Address,
}

impl BanOf {
    const ALL: [(&'static str, BanOf); 3] =
        [("identity", BanOf::Identity), ("device", BanOf::Device), ("address", BanOf::Address)];

    /// Returns whom this bans; `None` if the session has no such thing.
    fn of(self, subject: &Subject) -> Option<Banned> {
        match self {
            BanOf::Identity => {
                let identity = Some(&subject.identity).filter(|identity| !identity.is_empty());
                identity.map(|identity| Banned::Identity(identity.clone()))
            }
            BanOf::Device => {
                let device = Some(subject.boot_id).filter(|id| *id != BootId::default());
                device.map(Banned::Device)
            }
            BanOf::Address => Some(Banned::Address(subject.address.ip().into())),
        }
    }
}

impl FromFields for Kick {
    fn names() -> Vec<&'static str> {
        vec!["stay_away", "text", "ban"]
    }

    fn from_fields(fields: &mut Fields) -> Result<Kick, Trouble> {
        Ok(Kick {
            stay_away: fields.flag("stay_away")?,
            text: fields.close_text("text")?,
            ban: fields.part("ban")?,
        })
    }
}

impl FromFields for KickBan {
    fn names() -> Vec<&'static str> {
        vec!["seconds", "of"]
    }

    fn ranges() -> Vec<(&'static str, RangeInclusive<u64>)> {
        vec![("seconds", 1..=LONGEST)]
    }

    fn from_fields(fields: &mut Fields) -> Result<KickBan, Trouble> {
        let words = fields.words("of", &BanOf::ALL.map(|(name, _)| name))?;
        let (Some(seconds), Some(words)) = (fields.number("seconds")?, words) else {
            let hint = "as in {\"ban\": {\"seconds\": 3600, \"of\": [\"identity\", \"address\"]}}";
            return Err(Trouble::bad("`ban` needs `seconds` and `of`", hint));
        };
        let named = |(name, of)| words.contains(&name).then_some(of);
        Ok(KickBan { seconds, of: BanOf::ALL.into_iter().filter_map(named).collect() })
    }
}

/// What became of a kick.
#[derive(Serialize, ToSchema)]
pub(super) struct KickDone {
    /// The session that was kicked.
    #[serde(flatten)]
    done: Done,
    /// The bans that are in force now, if some were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    banned: Vec<Ban>,
    /// How many sessions the bans have ended, this one included.
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<u64>,
    /// Whether a restart of the gateway forgets the bans: there is no store, or it fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost_at_restart: Option<bool>,
}

/// Ends a session; the client may reconnect.
#[utoipa::path(
    delete,
    path = "/api/v1/sessions/{id}",
    params(("id" = String, Path, description = "The session's number")),
    responses((status = 200, body = Done), (status = 503, body = Trouble))
)]
pub(super) async fn delete(
    State(shared): State<Shared>,
    PathText(id): PathText,
) -> Result<Json<Done>, Trouble> {
    let order = Order::Kick { stay_away: false, text: Box::default() };
    send_order(&shared, id, "kick", order).await.map(Json)
}

/// Ends a session, informs the client whether it may reconnect, and may keep it out for a time.
#[utoipa::path(
    post,
    path = "/api/v1/sessions/{id}/kick",
    params(("id" = String, Path, description = "The session's number")),
    request_body = Kick,
    responses(
        (status = 200, body = KickDone),
        (status = 409, body = Trouble),
        (status = 503, body = Trouble)
    )
)]
pub(super) async fn kick(
    State(shared): State<Shared>,
    PathText(id): PathText,
    Body(Kick { stay_away, text, ban }): Body<Kick>,
) -> Result<Json<KickDone>, Trouble> {
    let (stay_away, text) = (stay_away.unwrap_or(false), text.unwrap_or_default().into());
    let Some(KickBan { seconds, of }) = ban else {
        let done = send_order(&shared, id, "kick", Order::Kick { stay_away, text }).await?;
        return Ok(Json(KickDone { done, banned: Vec::new(), ended: None, lost_at_restart: None }));
    };
    let session = read_id(&id)?;
    let story = shared.gateway.story(session).await?.ok_or_else(|| Trouble::no_session(&id))?;
    let mut who = Vec::new();
    for (name, of) in BanOf::ALL.into_iter().filter(|(_, it)| of.contains(it)) {
        who.push(of.of(&story.subject).ok_or_else(|| {
            let error = format!("session {id} has no {name} that could be banned");
            Trouble::new(StatusCode::CONFLICT, error, "leave it out of `of`; nothing was done")
        })?);
    }
    let farewell = Farewell { stay_away, text };
    let outcome = bans::ban(&shared, who.clone(), seconds, farewell, Some(session)).await?;
    let banned = bans::in_force(&shared).filter(|(other, _)| who.contains(other));
    let banned = banned.map(|(who, kept_out)| Ban::new(&shared, who, kept_out)).collect();
    let BanDone { ended, lost_at_restart, .. } = outcome;
    let (ended, lost_at_restart) = (Some(ended), Some(lost_at_restart));
    Ok(Json(KickDone { done: Done::new(id, "kick"), banned, ended, lost_at_restart }))
}
