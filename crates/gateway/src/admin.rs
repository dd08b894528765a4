//! The admin interface: HTTP for operators and their tools. `docs/admin-api.md` describes it.

mod answer;
mod control;
mod guard;
mod health;
mod policy;
mod server;
mod sessions;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod why;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware;
use axum::routing::{MethodRouter, get, post, put};
use tokio::sync::Semaphore;
use utoipa::OpenApi;

use crate::config::Token;
use crate::gateway::Gateway;
pub use server::{HEADER_TIMEOUT, SPARE_CONNECTIONS, serve};
use state::Shared;

/// The longest request body in bytes: requests are a few numbers and a name.
pub const MAX_BODY: usize = 16 * 1024;

/// The document that describes the API.
#[derive(OpenApi)]
#[openapi(
    info(title = "Systole admin API", description = "Who is there, who went, and when."),
    paths(
        health::healthz,
        health::readyz,
        health::metrics,
        sessions::list,
        sessions::one,
        sessions::delete,
        sessions::kick,
        sessions::hold,
        sessions::release,
        sessions::policy,
        why::why,
        why::verdicts,
        control::listeners,
        control::listener_policy,
        control::retune,
        control::log,
        control::drain,
        stream::events,
        document
    )
)]
struct Document;

/// The API over `gateway`. Requests must present `token` if there is one, except to ask whether the
/// gateway lives and is ready. At most `subscribers` may follow the events at a time.
pub fn router(gateway: Arc<Gateway>, token: Option<Token>, subscribers: usize) -> Router {
    let subscribers = subscribers.min(Semaphore::MAX_PERMITS);
    let shared = Shared { gateway, token, subscribers: Arc::new(Semaphore::new(subscribers)) };
    let mut guarded = Router::new();
    for (path, methods) in guarded_routes() {
        guarded = guarded.route(path, methods);
    }
    let guarded = guarded.layer(middleware::from_fn_with_state(shared.clone(), guard::guard));
    let mut router = Router::new();
    for (path, methods) in open_routes() {
        router = router.route(path, methods);
    }
    router
        .merge(guarded)
        .fallback(nowhere)
        .method_not_allowed_fallback(not_so)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(shared)
}

/// Where whoever starts and watches the process asks, without a secret.
fn open_routes() -> [(&'static str, MethodRouter<Shared>); 2] {
    [("/healthz", get(health::healthz)), ("/readyz", get(health::readyz))]
}

fn guarded_routes() -> [(&'static str, MethodRouter<Shared>); 15] {
    [
        ("/metrics", get(health::metrics)),
        ("/api/v1/openapi.json", get(document)),
        ("/api/v1/events", get(stream::events)),
        ("/api/v1/sessions", get(sessions::list)),
        ("/api/v1/sessions/{id}", get(sessions::one).delete(sessions::delete)),
        ("/api/v1/sessions/{id}/kick", post(sessions::kick)),
        ("/api/v1/sessions/{id}/hold", post(sessions::hold)),
        ("/api/v1/sessions/{id}/release", post(sessions::release)),
        ("/api/v1/sessions/{id}/policy", post(sessions::policy)),
        ("/api/v1/sessions/{id}/why", get(why::why)),
        ("/api/v1/verdicts", get(why::verdicts)),
        ("/api/v1/listeners", get(control::listeners)),
        ("/api/v1/listeners/{name}/policy", get(control::listener_policy).put(control::retune)),
        ("/api/v1/log", put(control::log)),
        ("/api/v1/drain", post(control::drain)),
    ]
}

/// This description of the API, as OpenAPI.
#[utoipa::path(get, path = "/api/v1/openapi.json", responses((status = 200, body = Object)))]
async fn document() -> axum::Json<utoipa::openapi::OpenApi> {
    axum::Json(Document::openapi())
}

async fn nowhere() -> answer::Trouble {
    let hint = "GET /api/v1/openapi.json lists what there is";
    answer::Trouble::new(StatusCode::NOT_FOUND, "there is nothing at this path", hint)
}

async fn not_so() -> answer::Trouble {
    let hint = "GET /api/v1/openapi.json lists the methods of each path";
    answer::Trouble::new(StatusCode::METHOD_NOT_ALLOWED, "this path has no such method", hint)
}
