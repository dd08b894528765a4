//! Handlers for liveness, readiness and metrics of the gateway.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::{Json, Trouble};
use super::state::Shared;
use crate::events::Limit;
use crate::gateway::Lifecycle;
use crate::metrics::CONTENT_TYPE;
use crate::store::Store;

/// The answer of a running process.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// Always `ok`.
    status: &'static str,
    /// The version of the gateway.
    version: &'static str,
}

/// Confirms that the process is running.
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = Health)))]
pub(super) async fn healthz() -> Json<Health> {
    Json(Health { status: "ok", version: env!("CARGO_PKG_VERSION") })
}

/// The answer of a gateway that accepts connections.
#[derive(Serialize, ToSchema)]
pub(super) struct Readiness {
    /// Always true; a gateway that is not ready answers with an error.
    ready: bool,
    /// Whether what webhooks are owed survives the end of the process; absent if nothing is owed.
    #[serde(skip_serializing_if = "Option::is_none")]
    durable: Option<bool>,
}

/// Confirms that every listener accepts connections.
#[utoipa::path(
    get,
    path = "/readyz",
    responses((status = 200, body = Readiness), (status = 503, body = Trouble))
)]
pub(super) async fn readyz(State(shared): State<Shared>) -> Result<Json<Readiness>, Trouble> {
    let gateway = &shared.gateway;
    let health = gateway.store().map(Store::health).unwrap_or_default();
    let is_required = gateway.store().is_some_and(Store::is_required);
    let unwritable = health.failing.filter(|_| is_required);
    let (error, hint) = match (*gateway.phase().borrow(), gateway.paused()) {
        (Lifecycle::Running, None) => match unwritable {
            Some(error) => {
                let error = format!("the store cannot be written: {error}");
                (error, "look at its disk; clients that are online stay")
            }
            None if health.is_full => {
                let hint = "see GET /api/v1/webhooks for the receiver that takes nothing";
                ("the store is full: logins are refused".to_owned(), hint)
            }
            None => {
                let store = gateway.store();
                let durable = store.map(|store| {
                    let health = store.health();
                    health.failing.is_none() && !health.is_volatile
                });
                return Ok(Json(Readiness { ready: true, durable }));
            }
        },
        (Lifecycle::Running, Some((shard, Limit { name, hint, .. }))) => {
            let error = format!("shard {shard} accepts no connections now: {name}");
            (error, hint)
        }
        (Lifecycle::Draining | Lifecycle::Stopped, _) => {
            ("the gateway is draining".to_owned(), "connect elsewhere")
        }
    };
    Err(Trouble::new(StatusCode::SERVICE_UNAVAILABLE, error, hint))
}

/// Returns the metrics as OpenMetrics text, which Prometheus reads.
#[utoipa::path(
    get,
    path = "/metrics",
    responses(
        (status = 200, body = String, content_type = "application/openmetrics-text"),
        (status = 500, body = Trouble)
    )
)]
pub(super) async fn metrics(State(shared): State<Shared>) -> Result<Response, Trouble> {
    let scrape = shared.gateway.metrics().scrape().map_err(|error| {
        let hint = "this is an error of the gateway: please report it";
        Trouble::new(StatusCode::INTERNAL_SERVER_ERROR, error, hint)
    })?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], scrape).into_response())
}
