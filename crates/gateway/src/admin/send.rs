//! Handlers that send messages to clients, for backends without a logic server.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, IntoResponses, ToSchema};

use super::answer::{Json, PathText, QueryParams, Raw, Trouble};
use super::fields::{Fields, FromFields};
use super::once::{Begin, key_of};
use super::sessions::read_id;
use super::state::Shared;
use crate::gateway::{Gateway, ShardUnavailable, reached};
use crate::request::Delivered;

/// To how many sessions a message went.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, ToSchema)]
pub(super) struct Reach {
    /// Sessions to which it was sent, or for which it waits behind earlier messages. They need not
    /// receive it: who is lost before is not told again.
    queued: u64,
    /// Sessions that are away and get it when they are resumed in time; always 0 of a broadcast,
    /// which passes over them.
    away: u64,
    /// 1 if the session or the identity is neither online nor away.
    none: u64,
    /// Sessions that cannot carry it: it is too long for their codec, or no line; all beacons.
    unfit: u64,
    /// Sessions that read too slowly for another message, or are just being sent one: try again.
    /// Also those that are away and have no room for it: they end for it unless the listener's
    /// `resume_when_full` is "gap".
    busy: u64,
    /// Shards that gave no answer in time: sessions there did not get it, and the others did.
    /// Absent if all have answered.
    #[serde(skip_serializing_if = "is_zero")]
    unreached_shards: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The answers to a request that sends, as the document describes them.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "the document is made of its variants, and no handler makes one")]
enum Sending {
    /// To how many sessions the message went.
    #[response(status = 200)]
    Done(Reach),
    /// A request with the same key is under way.
    #[response(status = 409)]
    UnderWay(Trouble),
    /// The key was used for another request.
    #[response(status = 422)]
    Other(Trouble),
    /// A shard gives no answer, or another broadcast is under way.
    #[response(status = 503)]
    Unavailable(Trouble),
}

/// Whom a broadcast is for.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Audience {
    /// Only sessions of the listener with this name.
    listener: Option<String>,
    /// Only sessions with this attribute, as NAME=VALUE; the value is JSON, or else a text.
    attribute: Option<String>,
    /// `true` for all sessions: needed if nothing else is given.
    all: Option<bool>,
}

impl FromFields for Audience {
    fn names() -> Vec<&'static str> {
        vec!["listener", "attribute", "all"]
    }

    fn from_fields(fields: &mut Fields) -> Result<Audience, Trouble> {
        let (listener, attribute) = (fields.text("listener")?, fields.text("attribute")?);
        Ok(Audience { listener, attribute, all: fields.flag("all")? })
    }
}

/// Whom a message is for.
enum Whom {
    Session(u64),
    Identity(String),
    All { listener: Option<u16>, attribute: Option<Arc<(String, Value)>> },
}

/// Sends the body of the request, whatever its type, to a session.
#[utoipa::path(
    post,
    path = "/api/v1/sessions/{id}/send",
    params(
        ("id" = String, Path, description = "The session's number"),
        ("Idempotency-Key" = Option<String>, Header, description = "Sent once for each key")
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(Sending)
)]
pub(super) async fn to_session(
    State(shared): State<Shared>,
    PathText(id): PathText,
    uri: Uri,
    headers: HeaderMap,
    Raw(message): Raw,
) -> Result<Json<Reach>, Trouble> {
    send(&shared, &uri, &headers, Whom::Session(read_id(&id)?), &message).await
}

/// Sends the body of the request to all sessions of an identity, claimed or proved.
#[utoipa::path(
    post,
    path = "/api/v1/identities/{identity}/send",
    params(
        ("identity" = String, Path, description = "The identity"),
        ("Idempotency-Key" = Option<String>, Header, description = "Sent once for each key")
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(Sending)
)]
pub(super) async fn to_identity(
    State(shared): State<Shared>,
    PathText(identity): PathText,
    uri: Uri,
    headers: HeaderMap,
    Raw(message): Raw,
) -> Result<Json<Reach>, Trouble> {
    send(&shared, &uri, &headers, Whom::Identity(identity), &message).await
}

/// Sends the body of the request to many sessions.
#[utoipa::path(
    post,
    path = "/api/v1/broadcast",
    params(
        Audience,
        ("Idempotency-Key" = Option<String>, Header, description = "Sent once for each key")
    ),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(Sending, (status = 404, body = Trouble))
)]
pub(super) async fn broadcast(
    State(shared): State<Shared>,
    QueryParams(audience): QueryParams<Audience>,
    uri: Uri,
    headers: HeaderMap,
    Raw(message): Raw,
) -> Result<Json<Reach>, Trouble> {
    let Audience { listener, attribute, all } = audience;
    if listener.is_none() && attribute.is_none() && all != Some(true) {
        let hint = "give `listener`, `attribute`, or all=true";
        return Err(Trouble::bad("the request does not say for whom the message is", hint));
    }
    let listener = listener.map(|name| shared.listener(&name)).transpose()?;
    let attribute = attribute.as_deref().map(read_attribute).transpose()?.map(Arc::new);
    send(&shared, &uri, &headers, Whom::All { listener, attribute }, &message).await
}

/// Reads an attribute: NAME=VALUE.
fn read_attribute(text: &str) -> Result<(String, Value), Trouble> {
    let Some((name, value)) = text.split_once('=') else {
        return Err(Trouble::bad("`attribute` must be NAME=VALUE", "as in attribute=role=pilot"));
    };
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((name.to_owned(), value))
}

/// Sends a message, once for each key.
async fn send(
    shared: &Shared,
    uri: &Uri,
    headers: &HeaderMap,
    whom: Whom,
    message: &[u8],
) -> Result<Json<Reach>, Trouble> {
    let key = key_of(headers)?;
    if let Some(key) = &key {
        let begun = shared.sent.begin(key, &[uri.to_string().as_bytes(), message])?;
        if let Begin::Done(reach) = begun {
            return Ok(Json(reach));
        }
    }
    // A client that hangs up stops nothing: the key stands for the whole.
    let (shared, message): (_, Arc<[u8]>) = (shared.clone(), message.into());
    let sending = tokio::spawn(async move {
        let result = carry_out(&shared.gateway, &whom, &message).await;
        if let Some(key) = key {
            shared.sent.end(&key, result.as_ref().ok().copied());
        }
        result
    });
    let result = sending.await.unwrap_or_else(|_| Err(ShardUnavailable::Gone.into()));
    result.map(Json)
}

async fn carry_out(gateway: &Gateway, whom: &Whom, message: &Arc<[u8]>) -> Result<Reach, Trouble> {
    let delivered = match whom {
        Whom::Session(session) => gateway.send(*session, message.clone()).await?,
        Whom::Identity(identity) => {
            let delivered = gateway.send_to_identity(identity, message).await?;
            (reached(&delivered) > 0).then_some(delivered)
        }
        Whom::All { listener, attribute } => {
            let sent = gateway.broadcast(*listener, attribute.clone(), message).await;
            let Some(delivered) = sent.transpose()? else {
                let (error, hint) = ("another broadcast is under way", "try again");
                return Err(Trouble::new(StatusCode::SERVICE_UNAVAILABLE, error, hint));
            };
            Some(delivered)
        }
    };
    Ok(match delivered {
        Some(Delivered { queued, away, unfit, busy, unreached: unreached_shards, next: _ }) => {
            Reach { queued, away, none: 0, unfit, busy, unreached_shards }
        }
        None => Reach { none: 1, ..Reach::default() },
    })
}
