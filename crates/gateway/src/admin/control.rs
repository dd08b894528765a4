//! Listeners and their policies, the log, and taking leave.

use std::net::SocketAddr;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::answer::{Body, Trouble};
use super::policy::PolicyWish;
use super::state::Shared;
use crate::config::LEVELS;
use crate::events::PolicyInfo;
use crate::gateway::{Lifecycle, ListenerState};

/// A place where clients connect.
#[derive(Serialize, ToSchema)]
pub(super) struct ListenerView {
    /// Its name.
    name: String,
    /// What clients speak there.
    codec: &'static str,
    /// Where it listens.
    #[schema(value_type = String)]
    address: SocketAddr,
    /// The policy of its clients unless they agreed on another one.
    policy: PolicyInfo,
}

/// All of them.
#[derive(Serialize, ToSchema)]
pub(super) struct ListenerList {
    /// In the order of the configuration.
    listeners: Vec<ListenerView>,
}

/// Where clients connect.
#[utoipa::path(get, path = "/api/v1/listeners", responses((status = 200, body = ListenerList)))]
pub(super) async fn listeners(State(shared): State<Shared>) -> Json<ListenerList> {
    let view = |listener: &ListenerState| ListenerView {
        name: listener.name.to_string(),
        codec: listener.codec,
        address: listener.address,
        policy: PolicyInfo::new(&listener.policy()),
    };
    Json(ListenerList { listeners: shared.gateway.listeners().iter().map(view).collect() })
}

/// The policy of a listener.
#[utoipa::path(
    get,
    path = "/api/v1/listeners/{name}/policy",
    params(("name" = String, Path, description = "The listener's name")),
    responses((status = 200, body = PolicyInfo), (status = 404, body = Trouble))
)]
pub(super) async fn listener_policy(
    State(shared): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<PolicyInfo>, Trouble> {
    let mut listeners = shared.gateway.listeners().iter();
    let found = listeners.find(|listener| *listener.name == *name);
    let listener = found.ok_or_else(|| Trouble::no_listener(&name))?;
    Ok(Json(PolicyInfo::new(&listener.policy())))
}

/// What a retune changed.
#[derive(Serialize, ToSchema)]
pub(super) struct Retuned {
    /// The listener.
    listener: String,
    /// The policy before.
    old: PolicyInfo,
    /// The policy now.
    new: PolicyInfo,
}

/// Puts a policy in force for a listener: all its sessions, and those to come. It holds until the
/// gateway restarts or reads its configuration again.
#[utoipa::path(
    put,
    path = "/api/v1/listeners/{name}/policy",
    params(("name" = String, Path, description = "The listener's name")),
    request_body = PolicyWish,
    responses(
        (status = 200, body = Retuned),
        (status = 400, body = Trouble),
        (status = 404, body = Trouble)
    )
)]
pub(super) async fn retune(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Body(wish): Body<PolicyWish>,
) -> Result<Json<Retuned>, Trouble> {
    let gateway = &shared.gateway;
    let index = gateway.listener(&name).ok_or_else(|| Trouble::no_listener(&name))?;
    let new = wish.over(gateway.listeners()[usize::from(index)].policy())?;
    let old = gateway.retune(index, new).await?;
    tracing::info!(listener = name, %old, %new, "retuned over the admin interface");
    let (old, new) = (PolicyInfo::new(&old), PolicyInfo::new(&new));
    Ok(Json(Retuned { listener: name, old, new }))
}

/// What to change about the log; what is not said stays.
#[derive(Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LogWish {
    /// Whether heartbeats are logged.
    heartbeats: Option<bool>,
    /// From which level on: `error`, `warn`, `info`, `debug` or `trace`.
    level: Option<String>,
}

/// What is logged now.
#[derive(Serialize, ToSchema)]
pub(super) struct LogView {
    /// Whether heartbeats are logged.
    heartbeats: bool,
}

/// Changes what is logged, until the gateway restarts or reads its configuration again.
#[utoipa::path(
    put,
    path = "/api/v1/log",
    request_body = LogWish,
    responses((status = 200, body = LogView), (status = 400, body = Trouble))
)]
pub(super) async fn log(
    State(shared): State<Shared>,
    Body(wish): Body<LogWish>,
) -> Result<Json<LogView>, Trouble> {
    if let Some(name) = &wish.level {
        let found = LEVELS.iter().find(|(known, _)| known == name);
        let names = LEVELS.map(|(name, _)| name).join(", ");
        let (_, level) = found.ok_or_else(|| {
            Trouble::bad(format!("no level \"{name}\""), format!("one of {names}"))
        })?;
        shared.gateway.logs().set_level(*level);
    }
    if let Some(on) = wish.heartbeats {
        shared.gateway.log_heartbeats(on).await?;
    }
    Ok(Json(LogView { heartbeats: shared.gateway.logs().heartbeats() }))
}

/// That the gateway takes leave.
#[derive(Serialize, ToSchema)]
pub(super) struct Draining {
    /// Always true.
    draining: bool,
}

/// Takes leave: no new connections, a goodbye to each client, then the end of the process.
#[utoipa::path(post, path = "/api/v1/drain", responses((status = 202, body = Draining)))]
pub(super) async fn drain(State(shared): State<Shared>) -> (StatusCode, Json<Draining>) {
    shared.gateway.advance(Lifecycle::Draining);
    (StatusCode::ACCEPTED, Json(Draining { draining: true }))
}
