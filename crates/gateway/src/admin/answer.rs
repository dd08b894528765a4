//! Error answers of the admin API, and the extractors for bodies and queries that produce them.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::fields::{Fields, FromFields};
use super::state::Shared;
use crate::gateway::{Lifecycle, ShardUnavailable};
use crate::json::to_json;
use crate::stats::AdminEnded;

/// Returns the JSON of `value` without a character that could control a terminal: people read it
/// there, and it holds text of strangers.
pub(super) fn json(value: &impl Serialize) -> String {
    to_json(value).expect("our own types have string keys")
}

/// A JSON answer.
pub(super) struct Json<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, "application/json")], json(&self.0)).into_response()
    }
}

/// An error answer: what went wrong and what to do about it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Trouble {
    #[serde(skip)]
    status: StatusCode,
    /// The error.
    error: String,
    /// What the caller can do about the error.
    hint: String,
}

impl Trouble {
    pub(super) fn new(status: StatusCode, error: impl ToString, hint: impl ToString) -> Trouble {
        Trouble { status, error: error.to_string(), hint: hint.to_string() }
    }

    pub(super) fn bad(error: impl ToString, hint: impl ToString) -> Trouble {
        Trouble::new(StatusCode::BAD_REQUEST, error, hint)
    }

    pub(super) fn no_session(id: &str) -> Trouble {
        let error = format!("session {id} is not online");
        Trouble::new(StatusCode::NOT_FOUND, error, "GET /api/v1/sessions lists those that are")
    }

    pub(super) fn no_listener(name: &str) -> Trouble {
        let error = format!("there is no listener \"{name}\"");
        Trouble::new(StatusCode::NOT_FOUND, error, "GET /api/v1/listeners lists them")
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.error)
    }
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        (self.status, Json(self)).into_response()
    }
}

impl From<ShardUnavailable> for Trouble {
    fn from(why: ShardUnavailable) -> Trouble {
        let (error, hint) = match why {
            ShardUnavailable::Busy => (
                "a shard did not answer in time",
                "try again; if it persists, check systole_loop_lag_seconds in /metrics",
            ),
            ShardUnavailable::Gone => {
                ("a shard has ended", "the gateway is stopping: do not retry here")
            }
        };
        Trouble::new(StatusCode::SERVICE_UNAVAILABLE, error, hint)
    }
}

/// Time limit for the body of a request, of at most 64 KiB, from the end of the head: a peer that
/// needs longer sends it by hand, or not at all.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Extracts a JSON body; an empty body is read as `{}`.
pub(super) struct Body<T>(pub(super) T);

impl<T: FromFields> FromRequest<Shared> for Body<T> {
    type Rejection = Trouble;
    async fn from_request(request: Request, shared: &Shared) -> Result<Body<T>, Trouble> {
        let bytes = read_body(request, shared).await?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        Fields::of_body(text)?.read().map(Body)
    }
}

/// Extracts a body as it is.
pub(super) struct Raw(pub(super) Bytes);

impl FromRequest<Shared> for Raw {
    type Rejection = Trouble;
    async fn from_request(request: Request, shared: &Shared) -> Result<Raw, Trouble> {
        read_body(request, shared).await.map(Raw)
    }
}

async fn read_body(request: Request, shared: &Shared) -> Result<Bytes, Trouble> {
    let mut phase = shared.gateway.phase();
    let read = tokio::select! {
        read = timeout(BODY_TIMEOUT, Bytes::from_request(request, shared)) => read,
        // A body that does not come must not hold up the end.
        _ = phase.wait_for(|phase| *phase == Lifecycle::Stopped) => {
            return Err(Trouble::from(ShardUnavailable::Gone));
        }
    };
    let read = read.map_err(|_| {
        shared.gateway.metrics().count_admin(AdminEnded::BodyTimeout);
        let error = "the body of the request did not arrive in time";
        let hint = "send as many bytes as Content-Length says, within 10 seconds";
        Trouble::new(StatusCode::REQUEST_TIMEOUT, error, hint)
    })?;
    read.map_err(|why| match why.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            let hint = "a body has at most 16 KiB, a message or a list of identities 64 KiB";
            Trouble::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long", hint)
        }
        _ => Trouble::bad("the body of the request cannot be read", "send it anew"),
    })
}

/// Extracts the query parameters of a request.
pub(super) struct QueryParams<T>(pub(super) T);

impl<T: FromFields, S: Send + Sync> FromRequestParts<S> for QueryParams<T> {
    type Rejection = Trouble;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<QueryParams<T>, Trouble> {
        let query = Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        let parameters = query.map_err(|_| {
            Trouble::bad("the query cannot be read", "write it as name=value&name=value")
        })?;
        Fields::of_query(parameters.0)?.read().map(QueryParams)
    }
}

/// Extracts the parameter of a path: a session's number or a listener's name.
pub(super) struct PathText(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for PathText {
    type Rejection = Trouble;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<PathText, Trouble> {
        let path: Result<Path<String>, _> = Path::from_request_parts(parts, state).await;
        path.map(|Path(text)| PathText(text)).map_err(|_| {
            let hint = "write a name in UTF-8, and each byte that is no letter or digit as %XX";
            Trouble::bad("the path is no text", hint)
        })
    }
}
