//! The admin interface: an HTTP API for operators and tools, documented in `docs/admin-api.md`.

mod answer;
mod bans;
mod control;
mod document;
mod fields;
mod guard;
mod health;
mod kick;
mod once;
mod paging;
mod places;
mod policy;
mod presence;
mod secure;
mod send;
mod server;
mod sessions;
mod state;
mod stream;
#[cfg(test)]
mod tests;
mod webhooks;
mod why;
mod wire;

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post, put};
use systole_core::wire::MAX_DATA;
use systole_net::tls::ServerTls;

use crate::config::Token;
use crate::gateway::Gateway;
use once::Once;
use places::Places;
pub(crate) use places::SPARE_CONNECTIONS;
pub(crate) use secure::HTTP;
pub(crate) use server::serve;
use server::{DEADLINES, Deadlines};
use state::Shared;

/// Maximum size of a request body in bytes. A request holds a few numbers and a name.
const MAX_BODY: usize = 16 * 1024;

/// The admin API of a gateway, with the places and the deadlines of its connections; cheap to
/// clone.
#[derive(Clone)]
pub(crate) struct Api {
    router: Router,
    places: Places,
    deadlines: Deadlines,
    gateway: Arc<Gateway>,
    tls: Option<ServerTls>,
    #[cfg(test)]
    sent: Arc<Once<send::Reach>>,
}

impl Api {
    /// Makes the admin API of `gateway`. If `token` is set, every request except `/healthz` and
    /// `/readyz` must present it. At most `subscribers` clients may follow the events at a time.
    pub(crate) fn new(gateway: Arc<Gateway>, token: Option<Token>, subscribers: usize) -> Api {
        let sent = Arc::new(Once::new());
        let shared = Shared { gateway: gateway.clone(), token, sent: sent.clone() };
        let (router, places) = (router(shared), Places::new(subscribers));
        Api {
            router,
            places,
            deadlines: DEADLINES,
            gateway,
            tls: None,
            #[cfg(test)]
            sent,
        }
    }

    /// Returns the API over `tls`, or over plain TCP.
    pub(crate) fn over(self, tls: Option<ServerTls>) -> Api {
        Api { tls, ..self }
    }
}

fn router(shared: Shared) -> Router {
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
        .fallback(path_not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(shared)
}

/// Routes that need no token: process supervisors and load balancers have none.
fn open_routes() -> [(&'static str, MethodRouter<Shared>); 2] {
    [("/healthz", get(health::healthz)), ("/readyz", get(health::readyz))]
}

/// Routes that pass the [`guard`].
fn guarded_routes() -> [(&'static str, MethodRouter<Shared>); 22] {
    [
        ("/metrics", get(health::metrics)),
        ("/api/v1/openapi.json", get(document_of_api)),
        ("/api/v1/events", get(stream::events)),
        ("/api/v1/sessions", get(sessions::list)),
        ("/api/v1/sessions/{id}", get(sessions::one).delete(kick::delete)),
        ("/api/v1/sessions/{id}/kick", post(kick::kick)),
        ("/api/v1/sessions/{id}/send", post(send::to_session).layer(long())),
        ("/api/v1/identities/{identity}/send", post(send::to_identity).layer(long())),
        ("/api/v1/broadcast", post(send::broadcast).layer(long())),
        (
            "/api/v1/presence",
            post(presence::many).layer(DefaultBodyLimit::max(presence::MAX_ASKED)),
        ),
        ("/api/v1/presence/{identity}", get(presence::one)),
        ("/api/v1/sessions/{id}/hold", post(sessions::hold)),
        ("/api/v1/sessions/{id}/release", post(sessions::release)),
        ("/api/v1/sessions/{id}/policy", post(sessions::policy)),
        ("/api/v1/sessions/{id}/why", get(why::why)),
        ("/api/v1/verdicts", get(why::verdicts)),
        ("/api/v1/bans", get(bans::list).post(bans::set)),
        ("/api/v1/webhooks", get(webhooks::list)),
        ("/api/v1/listeners", get(control::listeners)),
        ("/api/v1/listeners/{name}/policy", get(control::listener_policy).put(control::retune)),
        ("/api/v1/log", put(control::log)),
        ("/api/v1/drain", post(control::drain)),
    ]
}

/// Allows a body as long as the longest message.
fn long() -> DefaultBodyLimit {
    DefaultBodyLimit::max(MAX_DATA)
}

/// Returns the OpenAPI document of this API.
#[utoipa::path(get, path = "/api/v1/openapi.json", responses((status = 200, body = Object)))]
async fn document_of_api() -> impl IntoResponse {
    // It takes much longer to write than to send, and one client may ask for it without end.
    static WRITTEN: LazyLock<Bytes> = LazyLock::new(|| answer::json(&document::document()).into());
    ([(header::CONTENT_TYPE, "application/json")], WRITTEN.clone())
}

async fn path_not_found() -> answer::Trouble {
    let hint = "GET /api/v1/openapi.json lists what there is";
    answer::Trouble::new(StatusCode::NOT_FOUND, "there is nothing at this path", hint)
}

async fn method_not_allowed() -> answer::Trouble {
    let hint = "GET /api/v1/openapi.json lists the methods of each path";
    answer::Trouble::new(StatusCode::METHOD_NOT_ALLOWED, "this path has no such method", hint)
}
