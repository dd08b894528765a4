//! Handlers that list the sessions online and act on one session.

use std::ops::RangeInclusive;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use systole_core::policy::MAX_BOUND;
use systole_core::{Policy, Span};
use utoipa::{IntoParams, ToSchema};

use super::answer::{Body, Json, PathText, QueryParams, Trouble};
use super::fields::{Fields, FromFields};
use super::paging::Paging;
use super::policy::PolicyWish;
use super::state::Shared;
use super::why::{VerdictView, unknown_session};
use crate::config::BEACON;
use crate::gateway::{Cursor, Gateway};
use crate::report::{AwayInfo, SessionInfo, Shown};
use crate::request::{Filter, Order};

/// A session that is online.
#[derive(Serialize, ToSchema)]
pub(super) struct SessionView {
    /// The session as its shard reports it.
    #[serde(flatten)]
    info: SessionInfo,
    /// The name of the session's listener.
    #[schema(value_type = String)]
    listener: Arc<str>,
}

impl SessionView {
    pub(super) fn new(gateway: &Gateway, info: SessionInfo) -> SessionView {
        let listener = gateway.listener_name(info.listener);
        SessionView { info, listener }
    }
}

/// A session that is away.
#[derive(Serialize, ToSchema)]
pub(super) struct AwayView {
    /// The session as its shard reports it.
    #[serde(flatten)]
    info: AwayInfo,
    /// The name of the session's listener.
    #[schema(value_type = String)]
    listener: Arc<str>,
}

impl AwayView {
    pub(super) fn new(gateway: &Gateway, info: AwayInfo) -> AwayView {
        let listener = gateway.listener_name(info.listener);
        AwayView { info, listener }
    }
}

/// Filters of a session list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Only sessions with exactly this identity.
    identity: Option<String>,
    /// Only sessions of the listener with this name.
    listener: Option<String>,
    /// Only suspect sessions (`true`), or only sessions that are not suspect (`false`).
    suspect: Option<bool>,
    /// `true` lists the sessions that are away, instead of those online.
    away: Option<bool>,
}

impl FromFields for Wanted {
    fn names() -> Vec<&'static str> {
        vec!["identity", "listener", "suspect", "away"]
    }

    fn from_fields(fields: &mut Fields) -> Result<Wanted, Trouble> {
        Ok(Wanted {
            identity: fields.text("identity")?,
            listener: fields.text("listener")?,
            suspect: fields.flag("suspect")?,
            away: fields.flag("away")?,
        })
    }
}

/// A page of sessions.
#[derive(Serialize, ToSchema)]
pub(super) struct SessionPage {
    /// The sessions of this page that are online.
    sessions: Vec<SessionView>,
    /// The sessions of this page that are away, if they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    away: Vec<AwayView>,
    /// `cursor` of the next page; absent on the last page. A page may be short, or even empty, and
    /// still have a next page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Confirmation that an order was sent to a session.
#[derive(Serialize, ToSchema)]
pub(super) struct Done {
    /// The session's number.
    session: String,
    /// The order: `kick`, `hold`, `release` or `policy`.
    order: &'static str,
}

impl Done {
    pub(super) fn new(session: String, order: &'static str) -> Done {
        Done { session, order }
    }
}

/// Lists the sessions that are online, or those that are away.
#[utoipa::path(
    get,
    path = "/api/v1/sessions",
    params(Wanted, Paging),
    responses(
        (status = 200, body = SessionPage),
        (status = 404, body = Trouble),
        (status = 503, body = Trouble)
    )
)]
pub(super) async fn list(
    State(shared): State<Shared>,
    QueryParams((wanted, paging)): QueryParams<(Wanted, Paging)>,
) -> Result<Json<SessionPage>, Trouble> {
    let gateway = &shared.gateway;
    let cursor = paging.cursor(read_cursor)?.unwrap_or_default();
    let listener = wanted.listener.map(|name| shared.listener(&name)).transpose()?;
    let (identity, suspect) = (wanted.identity, wanted.suspect);
    let away = wanted.away.unwrap_or(false);
    let filter = Filter { identity, listener, suspect, banned: None, away };
    let (page, next) = gateway.sessions(&filter, cursor, paging.limit()).await?;
    let sessions = page.sessions.into_iter().map(|info| SessionView::new(gateway, info)).collect();
    let away = page.away.into_iter().map(|info| AwayView::new(gateway, info)).collect();
    Ok(Json(SessionPage { sessions, away, next: next.map(write_cursor) }))
}

/// A session that is online or away, or what is known of one that has ended.
#[derive(Serialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(super) enum Found {
    /// It is online.
    Online(Box<SessionView>),
    /// It has no connection, and waits for another one.
    Away(Box<AwayView>),
    /// It has ended: the verdict, as revised since.
    Ended(Box<VerdictView>),
}

/// Returns one session: that is online or away, or one of the last that ended.
#[utoipa::path(
    get,
    path = "/api/v1/sessions/{id}",
    params(("id" = String, Path, description = "The session's number, 16 hexadecimal digits")),
    responses((status = 200, body = Found), (status = 503, body = Trouble))
)]
pub(super) async fn one(
    State(shared): State<Shared>,
    PathText(id): PathText,
) -> Result<Json<Found>, Trouble> {
    let (gateway, session) = (&shared.gateway, read_id(&id)?);
    let asked = gateway.session(session).await;
    match asked {
        Ok(Some(Shown::Online(info))) => {
            return Ok(Json(Found::Online(Box::new(SessionView::new(gateway, *info)))));
        }
        Ok(Some(Shown::Away(info))) => {
            return Ok(Json(Found::Away(Box::new(AwayView::new(gateway, *info)))));
        }
        Ok(None) | Err(_) => {}
    }
    // A verdict that is kept needs no answer from the shard, which may have ended.
    if let Some(ended) = gateway.ended(session).await {
        return Ok(Json(Found::Ended(Box::new(VerdictView::new(gateway, &ended)))));
    }
    asked?;
    Err(unknown_session(gateway, &id))
}

/// Duration of a hold.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Hold {
    /// Seconds from now.
    seconds: u64,
}

impl FromFields for Hold {
    fn names() -> Vec<&'static str> {
        vec!["seconds"]
    }

    fn ranges() -> Vec<(&'static str, RangeInclusive<u64>)> {
        vec![("seconds", 1..=MAX_BOUND.as_millis() / 1_000)]
    }

    fn from_fields(fields: &mut Fields) -> Result<Hold, Trouble> {
        let seconds = fields.number("seconds")?;
        let hint = "{\"seconds\": 600} holds for ten minutes; POST …/release ends a hold early";
        seconds
            .map(|seconds| Hold { seconds })
            .ok_or_else(|| Trouble::bad("`seconds` is missing", hint))
    }
}

/// Suspends suspicion and verdict for a session, to allow debugging of its client.
#[utoipa::path(
    post,
    path = "/api/v1/sessions/{id}/hold",
    params(("id" = String, Path, description = "The session's number")),
    request_body = Hold,
    responses((status = 200, body = Done), (status = 503, body = Trouble))
)]
pub(super) async fn hold(
    State(shared): State<Shared>,
    PathText(id): PathText,
    Body(Hold { seconds }): Body<Hold>,
) -> Result<Json<Done>, Trouble> {
    send_order(&shared, id, "hold", Order::Hold(Span::from_secs(seconds))).await.map(Json)
}

/// Ends a hold early.
#[utoipa::path(
    post,
    path = "/api/v1/sessions/{id}/release",
    params(("id" = String, Path, description = "The session's number")),
    responses((status = 200, body = Done), (status = 503, body = Trouble))
)]
pub(super) async fn release(
    State(shared): State<Shared>,
    PathText(id): PathText,
) -> Result<Json<Done>, Trouble> {
    send_order(&shared, id, "release", Order::Release).await.map(Json)
}

/// Sets the policy of one session; the policy of its listener supplies absent values.
#[utoipa::path(
    post,
    path = "/api/v1/sessions/{id}/policy",
    params(("id" = String, Path, description = "The session's number")),
    request_body = PolicyWish,
    responses(
        (status = 200, body = Done),
        (status = 409, body = Trouble),
        (status = 503, body = Trouble)
    )
)]
pub(super) async fn policy(
    State(shared): State<Shared>,
    PathText(id): PathText,
    Body(wish): Body<PolicyWish>,
) -> Result<Json<Done>, Trouble> {
    let found = shared.gateway.session(read_id(&id)?).await?;
    let Some(Shown::Online(info)) = found else {
        return Err(Trouble::no_session(&id));
    };
    let listener = shared.gateway.listeners().get(usize::from(info.listener));
    if listener.is_some_and(|listener| listener.codec == BEACON) {
        let error = "all devices of a beacon listener have its policy";
        let hint = "change the listener's: PUT /api/v1/listeners/NAME/policy";
        return Err(Trouble::new(StatusCode::CONFLICT, error, hint));
    }
    let base = listener.map_or(Policy::default(), |listener| listener.policy());
    send_order(&shared, id, "policy", Order::Retune(wish.apply_to(base)?)).await.map(Json)
}

pub(super) async fn send_order(
    shared: &Shared,
    id: String,
    name: &'static str,
    order: Order,
) -> Result<Done, Trouble> {
    let done = match &order {
        Order::Kick { .. } | Order::KeepOut { .. } => "the session was kicked",
        Order::Hold(_) => "the session was put on hold",
        Order::Release => "the hold of the session was ended",
        Order::Retune(_) => "the session got a policy of its own",
    };
    if !shared.gateway.order(read_id(&id)?, order).await? {
        return Err(Trouble::no_session(&id));
    }
    // Written when the shard has answered, so it may follow the `leave` of a kick.
    tracing::info!(session = id, "{done} over the admin interface");
    Ok(Done::new(id, name))
}

pub(super) fn read_id(id: &str) -> Result<u64, Trouble> {
    let digits = id.len() == 16 && id.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = digits.then(|| u64::from_str_radix(id, 16).ok()).flatten();
    number.ok_or_else(|| {
        let hint = "a session has 16 hexadecimal digits: GET /api/v1/sessions lists them";
        Trouble::bad(format!("\"{id}\" is no number of a session"), hint)
    })
}

fn write_cursor(cursor: Cursor) -> String {
    format!("{:04x}{:08x}", cursor.shard, cursor.link)
}

fn read_cursor(text: &str) -> Option<Cursor> {
    if text.len() != 12 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let (shard, link) = text.split_at(4);
    let shard = usize::from_str_radix(shard, 16).ok()?;
    Some(Cursor { shard, link: u32::from_str_radix(link, 16).ok()? })
}
