//! A handler that tells how it goes with webhooks.

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::Json;
use super::state::Shared;
use crate::stats::Cell;
use crate::store::Store;
use crate::webhooks::Sender;

/// The webhooks, and what they are owed.
#[derive(Serialize, ToSchema)]
pub(super) struct WebhookList {
    /// The webhooks, in the order of the configuration.
    webhooks: Vec<WebhookView>,
    /// The store; absent if nobody is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    store: Option<StoreView>,
}

/// One who is told about sessions.
#[derive(Serialize, ToSchema)]
struct WebhookView {
    /// The name.
    name: String,
    /// The URL, without user, password and query.
    url: String,
    /// The kinds of events that it gets.
    events: Vec<&'static str>,
    /// `up`, `failing` (the last attempt failed) or `down` (so did those before it: it is tried
    /// with one event at a time).
    state: &'static str,
    /// Events that wait for it on disk.
    waiting: u64,
    /// When the oldest of these happened, in milliseconds since 1970-01-01 UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest_at_ms: Option<u64>,
    /// Events that it has taken, since the start.
    delivered: u64,
    /// Attempts that failed, since the start.
    failures: u64,
    /// Events that went to the dead letters, since the start.
    dead: u64,
    /// The file of the dead letters.
    dead_letters: String,
    /// Why the last attempt failed, if none has succeeded since.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// When the next attempt is due, in milliseconds from now; absent if nothing waits for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_in_ms: Option<u64>,
}

/// How the store is.
#[derive(Serialize, ToSchema)]
struct StoreView {
    /// Whether what is owed survives the end of the process.
    durable: bool,
    /// Whether logins are refused because it is full.
    full: bool,
    /// Why nothing can be written now.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Sessions whose end is owed.
    owed: u64,
    /// Events that wait, for all webhooks.
    entries: u64,
    /// Sessions that a killed gateway had left behind, found at the start.
    lost: u64,
}

/// Tells how it goes with webhooks.
#[utoipa::path(
    get,
    path = "/api/v1/webhooks",
    responses((status = 200, body = WebhookList))
)]
pub(super) async fn list(State(shared): State<Shared>) -> Json<WebhookList> {
    let store = shared.gateway.store();
    let view = |(place, sender)| store.map(|store| view(store, place, sender));
    let webhooks = shared.gateway.senders().iter().enumerate().filter_map(view).collect();
    Json(WebhookList { webhooks, store: store.map(store_view) })
}

fn view(store: &Store, place: usize, sender: &Sender) -> WebhookView {
    let (receiver, status) = (sender.receiver(), sender.status());
    let counts = store.counts(&receiver.name);
    let evicted = store.stats().dead.get(place).map_or(0, Cell::get);
    let state = match (status.is_down, &status.error) {
        (true, _) => "down",
        (false, Some(_)) => "failing",
        (false, None) => "up",
    };
    WebhookView {
        name: receiver.name.clone(),
        url: receiver.shown_url(),
        events: receiver.events.clone(),
        state,
        waiting: counts.waiting,
        oldest_at_ms: counts.oldest_at_ms,
        delivered: status.delivered,
        failures: status.failures,
        dead: status.dead + evicted,
        dead_letters: sender.letters().path().display().to_string(),
        error: status.error,
        next_in_ms: status.next_in.map(systole_core::Span::as_millis),
    }
}

fn store_view(store: &Store) -> StoreView {
    let (health, stats) = (store.health(), store.stats());
    StoreView {
        durable: health.failing.is_none() && !health.is_volatile,
        full: health.is_full,
        error: health.failing,
        owed: stats.owed.get(),
        entries: stats.entries.get(),
        lost: stats.lost.get(),
    }
}
