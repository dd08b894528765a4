//! Why a session ended, or how it is doing: the verdict, what it rests on, and what led to it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use systole_core::cause::Cause;
use systole_core::flight::{Entry, Flight};
use systole_core::{Span, Time};
use utoipa::{IntoParams, ToSchema};

use super::answer::{Asked, Trouble};
use super::sessions::read_id;
use super::state::Shared;
use crate::events::{End, Loss, Session};
use crate::gateway::Gateway;
use crate::request::Story;
use crate::verdicts::{self, Ended, VERDICTS};

/// How many verdicts a page holds unless asked otherwise, and at most.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 500;

/// A verdict.
#[derive(Serialize, ToSchema)]
pub(super) struct VerdictView {
    /// Whose.
    #[serde(flatten)]
    session: Session,
    /// When it fell, in milliseconds since 1970-01-01 UTC.
    at_ms: u64,
    /// Why, and when.
    #[serde(flatten)]
    end: End,
    /// What an operator can do about it.
    advice: &'static str,
    /// Whether a better cause may still be found out: when the peer returns, or from what happens
    /// to others.
    provisional: bool,
    /// The cause that was given at first, if a better one was found out.
    #[serde(skip_serializing_if = "Option::is_none")]
    revised_from: Option<Revised>,
}

/// A cause that was given at first.
#[derive(Serialize, ToSchema)]
struct Revised {
    /// By name.
    cause: &'static str,
    /// What of a path was lost.
    #[serde(flatten)]
    loss: Loss,
    /// How sure it seemed.
    confidence: &'static str,
    /// What showed the better one, for people.
    because: String,
}

impl VerdictView {
    fn new(gateway: &Gateway, ended: &Ended) -> VerdictView {
        let Ended { verdict, subject, .. } = ended;
        let revised_from = ended.revised_from.map(|(cause, confidence, note)| Revised {
            cause: cause.name(),
            loss: Loss::new(cause),
            confidence: confidence.name(),
            because: note.to_string(),
        });
        let listener = gateway.listener_name(subject.listener);
        VerdictView {
            session: Session::new(subject.clone(), listener),
            at_ms: ended.at_ms,
            end: End::new(ended.at_ms, verdict, ended.lasted),
            advice: verdict.cause.advice(),
            provisional: revised_from.is_none() && verdict.cause.is_provisional(),
            revised_from,
        }
    }
}

/// Which verdicts are wanted.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Only those of the cause of this name.
    cause: Option<String>,
    /// Only those of exactly this identity.
    identity: Option<String>,
    /// At most so many, 1 to 500; 100 unless said.
    limit: Option<usize>,
    /// Where the page before ended.
    cursor: Option<u64>,
}

/// A page of verdicts, latest first.
#[derive(Serialize, ToSchema)]
pub(super) struct VerdictPage {
    /// The verdicts.
    verdicts: Vec<VerdictView>,
    /// What to pass as `cursor` for the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<u64>,
}

/// The last 10,000 verdicts, latest first.
#[utoipa::path(
    get,
    path = "/api/v1/verdicts",
    params(Wanted),
    responses((status = 200, body = VerdictPage), (status = 400, body = Trouble))
)]
pub(super) async fn verdicts(
    State(shared): State<Shared>,
    Asked(wanted): Asked<Wanted>,
) -> Result<Json<VerdictPage>, Trouble> {
    let gateway = &shared.gateway;
    let limit = wanted.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Trouble::bad("`limit` is out of range", "1 to 500; page on with `cursor`"));
    }
    if let Some(name) = wanted.cause.as_deref().filter(|name| !Cause::NAMES.contains(name)) {
        let names = Cause::NAMES.join(", ");
        return Err(Trouble::bad(format!("no cause \"{name}\""), format!("one of {names}")));
    }
    let Wanted { cause, identity, cursor, .. } = wanted;
    let wanted = verdicts::Wanted { cause, identity, before: cursor };
    let (page, more) = gateway.verdicts().page(&wanted, limit);
    let next = page.last().filter(|_| more).map(|last| last.number);
    let verdicts = page.iter().map(|ended| VerdictView::new(gateway, ended)).collect();
    Ok(Json(VerdictPage { verdicts, next }))
}

/// How a session is doing, or why it ended.
#[derive(Serialize, ToSchema)]
pub(super) struct Why {
    /// Which.
    #[serde(flatten)]
    session: Session,
    /// Whether it is online.
    online: bool,
    /// Whether it is online and suspected.
    suspect: bool,
    /// The verdict, unless it is online.
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<VerdictView>,
    /// What happened lately, oldest first: at most 32 entries; none of a beacon.
    timeline: Vec<Moment>,
}

/// Something that happened, once or several times in a row.
#[derive(Serialize, ToSchema)]
struct Moment {
    /// How long before the verdict, or before now; the last time if it happened often.
    before_us: u64,
    /// When, in milliseconds since 1970-01-01 UTC; the last time if it happened often.
    at_ms: u64,
    /// What, for people.
    what: String,
    /// How often.
    count: u32,
    /// Whether it may have been more often than that.
    or_more: bool,
}

/// Why a session ended, or how it is doing.
#[utoipa::path(
    get,
    path = "/api/v1/sessions/{id}/why",
    params(("id" = String, Path, description = "The session's number, 16 hexadecimal digits")),
    responses((status = 200, body = Why), (status = 404, body = Trouble))
)]
pub(super) async fn why(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<Why>, Trouble> {
    let gateway = &shared.gateway;
    let session = read_id(&id)?;
    // A verdict is answered at once, whatever has become of the shard.
    if let Some(ended) = gateway.verdicts().find(session) {
        return Ok(Json(of_ended(gateway, &ended)));
    }
    if let Some(story) = gateway.story(session).await? {
        return Ok(Json(of_live(gateway, *story)));
    }
    // It may have fallen meanwhile.
    let ended = gateway.verdicts().find(session).ok_or_else(|| unknown(&id))?;
    Ok(Json(of_ended(gateway, &ended)))
}

fn unknown(id: &str) -> Trouble {
    let error =
        format!("session {id} is not online, and its verdict is not among the last {VERDICTS}");
    let hint = "GET /api/v1/verdicts lists the last verdicts, GET /api/v1/sessions who is online";
    Trouble::new(axum::http::StatusCode::NOT_FOUND, error, hint)
}

fn of_ended(gateway: &Gateway, ended: &Arc<Ended>) -> Why {
    let listener = gateway.listener_name(ended.subject.listener);
    Why {
        session: Session::new(ended.subject.clone(), listener),
        online: false,
        suspect: false,
        verdict: Some(VerdictView::new(gateway, ended)),
        timeline: timeline(ended.flight.as_deref(), ended.verdict.at, ended.at_ms),
    }
}

fn of_live(gateway: &Gateway, story: Story) -> Why {
    let Story { subject, suspect, flight, now, wall_ms } = story;
    let listener = gateway.listener_name(subject.listener);
    Why {
        session: Session::new(subject, listener),
        online: true,
        suspect,
        verdict: None,
        timeline: timeline(flight.as_ref(), now, wall_ms),
    }
}

/// What a flight holds, seen from `end`, which is `end_ms` on the clock.
fn timeline(flight: Option<&Flight>, end: Time, end_ms: u64) -> Vec<Moment> {
    let moment = |Entry { at, incident, count, or_more }: Entry| {
        let before: Span = end.since(at);
        Moment {
            before_us: before.as_micros(),
            at_ms: end_ms.saturating_sub(before.as_millis()),
            what: incident.to_string(),
            count,
            or_more,
        }
    };
    flight.into_iter().flat_map(Flight::iter).map(moment).collect()
}
