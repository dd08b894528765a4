//! Handlers that explain a session: its verdict, the grounds for it, and the events before it.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use systole_core::cause::{Cause, Verdict};
use systole_core::flight::{Entry, Flight};
use systole_core::{Span, Time};
use utoipa::{IntoParams, ToSchema};

use super::answer::{Json, PathText, QueryParams, Trouble};
use super::fields::{Fields, FromFields};
use super::paging::Paging;
use super::sessions::read_id;
use super::state::Shared;
use crate::events::{End, Loss, Session};
use crate::gateway::Gateway;
use crate::report::{AwayInfo, Parting, Subject};
use crate::request::Story;
use crate::verdicts::{self, Ended};

/// A verdict on a session.
#[derive(Serialize, ToSchema)]
pub(super) struct VerdictView {
    /// The session that ended.
    #[serde(flatten)]
    session: Session,
    /// Time of the verdict, in milliseconds since 1970-01-01 UTC.
    at_ms: u64,
    /// The cause, its evidence and the times.
    #[serde(flatten)]
    end: End,
    /// The original cause, if it was revised.
    #[serde(skip_serializing_if = "Option::is_none")]
    revised_from: Option<Revised>,
}

/// The original cause of a revised verdict.
#[derive(Serialize, ToSchema)]
struct Revised {
    /// The name of the cause.
    cause: &'static str,
    /// Direction and scope, if the cause is a lost path.
    #[serde(flatten)]
    loss: Loss,
    /// Its confidence: `certain`, `high` or `medium`.
    confidence: &'static str,
    /// The reason for the revision, as a phrase for people.
    because: String,
}

impl VerdictView {
    pub(super) fn new(gateway: &Gateway, ended: &Ended) -> VerdictView {
        let Ended { verdict, subject, .. } = ended;
        let revised_from = ended.revised_from.map(|(cause, confidence, note)| Revised {
            cause: cause.name(),
            loss: Loss::new(cause),
            confidence: confidence.name(),
            because: note.to_string(),
        });
        let first = verdict.cause.advice();
        let advice = ended.revised_from.map_or(first, |(_, _, note)| note.advice(verdict.cause));
        let listener = gateway.listener_name(subject.listener);
        let end = End::new(ended.at_ms, verdict, ended.lasted, ended.refusal);
        let provisional = end.provisional && subject.established && revised_from.is_none();
        VerdictView {
            session: Session::new(subject.clone(), listener),
            at_ms: ended.at_ms,
            end: End { advice, provisional, ..end },
            revised_from,
        }
    }
}

/// Filters of a verdict list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// Only verdicts with the cause of this name.
    cause: Option<String>,
    /// Only verdicts on exactly this identity.
    identity: Option<String>,
    /// `false` lists the verdicts on connections that were never a session, of which the last 1,000
    /// are kept apart; `true` by default.
    established: Option<bool>,
}

impl FromFields for Wanted {
    fn names() -> Vec<&'static str> {
        vec!["cause", "identity", "established"]
    }

    fn from_fields(fields: &mut Fields) -> Result<Wanted, Trouble> {
        Ok(Wanted {
            cause: fields.text("cause")?,
            identity: fields.text("identity")?,
            established: fields.flag("established")?,
        })
    }
}

/// A page of verdicts, latest first.
#[derive(Serialize, ToSchema)]
pub(super) struct VerdictPage {
    /// The verdicts of this page.
    verdicts: Vec<VerdictView>,
    /// `cursor` of the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Lists the last verdicts on sessions (`verdicts` in `[limits]`, 10,000 by default), or the last
/// 1,000 on connections that were never one, latest first.
#[utoipa::path(
    get,
    path = "/api/v1/verdicts",
    params(Wanted, Paging),
    responses((status = 200, body = VerdictPage))
)]
pub(super) async fn verdicts(
    State(shared): State<Shared>,
    QueryParams((wanted, paging)): QueryParams<(Wanted, Paging)>,
) -> Result<Json<VerdictPage>, Trouble> {
    let gateway = &shared.gateway;
    if let Some(name) = wanted.cause.as_deref().filter(|name| !Cause::NAMES.contains(name)) {
        let names = Cause::NAMES.join(", ");
        return Err(Trouble::bad(format!("no cause \"{name}\""), format!("one of {names}")));
    }
    let Wanted { cause, identity, established } = wanted;
    let before = paging.cursor(read_cursor)?;
    let strangers = established == Some(false);
    let wanted = verdicts::Wanted { strangers, cause, identity, before };
    let (page, more) = gateway.verdicts().page(&wanted, paging.limit());
    let next = page.last().filter(|_| more).map(|last| write_cursor(last.number));
    let verdicts = page.iter().map(|ended| VerdictView::new(gateway, ended)).collect();
    Ok(Json(VerdictPage { verdicts, next }))
}

fn write_cursor(number: u64) -> String {
    format!("{number:016x}")
}

fn read_cursor(text: &str) -> Option<u64> {
    let digits = text.len() == 16 && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// The state of a session that is online, or the verdict on one that ended or is away.
#[derive(Serialize, ToSchema)]
pub(super) struct Why {
    /// The session.
    #[serde(flatten)]
    session: Session,
    /// Whether the session is online.
    online: bool,
    /// Whether the session is online and suspect.
    suspect: bool,
    /// How long the session still waits for another connection; absent unless it is away.
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_in_ms: Option<u64>,
    /// The verdict, on its connection if the session is away; absent if it is online.
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<VerdictView>,
    /// The last events of the link, oldest first: at most 32; empty for a beacon.
    timeline: Vec<Moment>,
}

/// An event of a link that occurred once or several times in a row.
#[derive(Serialize, ToSchema)]
struct Moment {
    /// Time from the last occurrence to the verdict or to now, in microseconds.
    before_us: u64,
    /// Time of the last occurrence, in milliseconds since 1970-01-01 UTC.
    at_ms: u64,
    /// The event, as a phrase for people.
    what: String,
    /// Number of occurrences.
    count: u32,
    /// Whether `count` is only a minimum.
    or_more: bool,
}

/// Explains why a session ended or is away, or the state of one that is online.
#[utoipa::path(
    get,
    path = "/api/v1/sessions/{id}/why",
    params(("id" = String, Path, description = "The session's number, 16 hexadecimal digits")),
    responses((status = 200, body = Why), (status = 503, body = Trouble))
)]
pub(super) async fn why(
    State(shared): State<Shared>,
    PathText(id): PathText,
) -> Result<Json<Why>, Trouble> {
    let gateway = &shared.gateway;
    let session = read_id(&id)?;
    // A stored verdict needs no answer from the shard, which may have ended.
    if let Some(ended) = gateway.verdicts().find(session) {
        return Ok(Json(explain_ended(gateway, &ended)));
    }
    if let Some(story) = gateway.story(session).await? {
        return Ok(Json(match story.away.clone() {
            Some((verdict, info)) => explain_away(gateway, &story.subject, verdict, &info),
            None => explain_online(gateway, *story),
        }));
    }
    // The session may have ended while the shard was asked.
    let ended = gateway.verdicts().find(session).ok_or_else(|| unknown_session(gateway, &id))?;
    Ok(Json(explain_ended(gateway, &ended)))
}

pub(super) fn unknown_session(gateway: &Gateway, id: &str) -> Trouble {
    let kept = gateway.verdicts().capacity();
    let error = format!("session {id} is not online, and its verdict is not among the last {kept}");
    let hint = "GET /api/v1/verdicts lists the last verdicts, GET /api/v1/sessions who is online";
    Trouble::new(axum::http::StatusCode::NOT_FOUND, error, hint)
}

fn explain_ended(gateway: &Gateway, ended: &Arc<Ended>) -> Why {
    let listener = gateway.listener_name(ended.subject.listener);
    Why {
        session: Session::new(ended.subject.clone(), listener),
        online: false,
        suspect: false,
        ends_in_ms: None,
        verdict: Some(VerdictView::new(gateway, ended)),
        timeline: timeline(ended.flight.as_deref(), ended.verdict.at, ended.fell_at_ms),
    }
}

/// Explains why a session that is away has lost its connection. If too many were lost since, only
/// the verdict is left.
fn explain_away(gateway: &Gateway, subject: &Subject, verdict: Verdict, info: &AwayInfo) -> Why {
    let session = subject.session;
    let lost = gateway.verdicts().find_lost(session).unwrap_or_else(|| {
        let (at_ms, parting) = (info.since_ms, Parting::default());
        Arc::new(Ended::new(at_ms, subject.clone(), verdict, &parting))
    });
    Why { ends_in_ms: Some(info.ends_in_ms), ..explain_ended(gateway, &lost) }
}

fn explain_online(gateway: &Gateway, story: Story) -> Why {
    let Story { subject, suspect, flight, away: _, now, wall_ms } = story;
    let listener = gateway.listener_name(subject.listener);
    Why {
        session: Session::new(subject, listener),
        online: true,
        suspect,
        ends_in_ms: None,
        verdict: None,
        timeline: timeline(flight.as_ref(), now, wall_ms),
    }
}

/// Returns the entries of `flight` relative to `end`, which is `end_ms` by the wall clock.
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
