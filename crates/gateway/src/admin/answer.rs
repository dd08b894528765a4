//! Error answers of the admin API, and the extractors for bodies and queries that produce them.

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use systole_core::text::Escaped;
use utoipa::ToSchema;

use crate::gateway::ShardUnavailable;

/// Returns the JSON of `value` without a character that could control a terminal: people read it
/// there, and it holds text of strangers.
pub(super) fn json(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value).expect("our own types have string keys");
    let escaped = Escaped::lines(&text);
    if escaped.is_harmless() { text } else { escaped.to_string() }
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

/// Extracts a JSON body; an empty body is read as `{}`.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Trouble;
    async fn from_request(request: Request, state: &S) -> Result<Body<T>, Trouble> {
        let bytes = axum::body::Bytes::from_request(request, state).await.map_err(|why| {
            Trouble::new(why.status(), why.body_text(), "bodies hold at most 16 KiB")
        })?;
        let text: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        let hint = "GET /api/v1/openapi.json describes what is expected";
        serde_json::from_slice(text).map(Body).map_err(|error| Trouble::bad(error, hint))
    }
}

/// Extracts the query parameters of a request.
pub(super) struct QueryParams<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryParams<T> {
    type Rejection = Trouble;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<QueryParams<T>, Trouble> {
        let query: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, state).await;
        let hint = "GET /api/v1/openapi.json describes what may be asked";
        query
            .map(|Query(asked)| QueryParams(asked))
            .map_err(|why| Trouble::bad(why.body_text(), hint))
    }
}
