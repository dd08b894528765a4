//! Handlers for listeners and their policies, the log, and the drain.

use std::net::SocketAddr;

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::{Body, Json, PathText, Trouble};
use super::fields::{Fields, FromFields};
use super::policy::PolicyWish;
use super::state::Shared;
use crate::config::LEVELS;
use crate::events::PolicyInfo;
use crate::gateway::{Lifecycle, ListenerState};

/// A listener and its policy.
#[derive(Serialize, ToSchema)]
pub(super) struct ListenerView {
    /// The name of the listener.
    name: String,
    /// The codec that its clients use.
    codec: &'static str,
    /// The address it listens at.
    #[schema(value_type = String)]
    address: SocketAddr,
    /// The policy of its sessions, except those that negotiated another one.
    policy: PolicyInfo,
}

/// All listeners.
#[derive(Serialize, ToSchema)]
pub(super) struct ListenerList {
    /// The listeners, in the order of the configuration.
    listeners: Vec<ListenerView>,
}

/// Lists the listeners.
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

/// Returns the policy of a listener.
#[utoipa::path(
    get,
    path = "/api/v1/listeners/{name}/policy",
    params(("name" = String, Path, description = "The listener's name")),
    responses((status = 200, body = PolicyInfo))
)]
pub(super) async fn listener_policy(
    State(shared): State<Shared>,
    PathText(name): PathText,
) -> Result<Json<PolicyInfo>, Trouble> {
    let mut listeners = shared.gateway.listeners().iter();
    let found = listeners.find(|listener| *listener.name == *name);
    let listener = found.ok_or_else(|| Trouble::no_listener(&name))?;
    Ok(Json(PolicyInfo::new(&listener.policy())))
}

/// The result of a retune.
#[derive(Serialize, ToSchema)]
pub(super) struct Retuned {
    /// The name of the listener.
    listener: String,
    /// The policy before.
    old: PolicyInfo,
    /// The policy now.
    new: PolicyInfo,
}

/// Sets the policy of a listener, for its present and future sessions. The policy stays in force
/// until the gateway restarts or reloads its configuration.
#[utoipa::path(
    put,
    path = "/api/v1/listeners/{name}/policy",
    params(("name" = String, Path, description = "The listener's name")),
    request_body = PolicyWish,
    responses(
        (status = 200, body = Retuned),
        (status = 503, body = Trouble)
    )
)]
pub(super) async fn retune(
    State(shared): State<Shared>,
    PathText(name): PathText,
    Body(wish): Body<PolicyWish>,
) -> Result<Json<Retuned>, Trouble> {
    let gateway = &shared.gateway;
    let index = shared.listener(&name)?;
    let (old, new) = gateway.retune(index, |policy| wish.apply_to(policy)).await?;
    tracing::info!(listener = name, %old, %new, "retuned over the admin interface");
    let (old, new) = (PolicyInfo::new(&old), PolicyInfo::new(&new));
    Ok(Json(Retuned { listener: name, old, new }))
}

/// Changes to the log; absent fields leave a setting unchanged.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LogWish {
    /// Whether heartbeats are logged.
    heartbeats: Option<bool>,
    /// The least important level that is logged: `error`, `warn`, `info`, `debug` or `trace`.
    level: Option<String>,
}

impl FromFields for LogWish {
    fn names() -> Vec<&'static str> {
        vec!["heartbeats", "level"]
    }

    fn from_fields(fields: &mut Fields) -> Result<LogWish, Trouble> {
        Ok(LogWish { heartbeats: fields.flag("heartbeats")?, level: fields.text("level")? })
    }
}

/// The settings of the log that are now in force.
#[derive(Serialize, ToSchema)]
pub(super) struct LogView {
    /// Whether heartbeats are logged.
    heartbeats: bool,
    /// The least important level that is logged: `error`, `warn`, `info`, `debug` or `trace`.
    level: String,
}

/// Changes what is logged, until the gateway restarts or reloads its configuration.
#[utoipa::path(
    put,
    path = "/api/v1/log",
    request_body = LogWish,
    responses((status = 200, body = LogView), (status = 503, body = Trouble))
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
    let logs = shared.gateway.logs();
    Ok(Json(LogView { heartbeats: logs.heartbeats(), level: logs.level().to_string() }))
}

/// Confirmation that the gateway is draining.
#[derive(Serialize, ToSchema)]
pub(super) struct Draining {
    /// Always true.
    draining: bool,
}

/// Drains the gateway: stops accepting, sends CLOSE to each client, then ends the process.
#[utoipa::path(post, path = "/api/v1/drain", responses((status = 202, body = Draining)))]
pub(super) async fn drain(State(shared): State<Shared>) -> (StatusCode, Json<Draining>) {
    shared.gateway.advance(Lifecycle::Draining);
    (StatusCode::ACCEPTED, Json(Draining { draining: true }))
}
