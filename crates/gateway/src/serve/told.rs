//! Opens the store, puts its bans in force, and starts to look up services and to tell those who
//! are told about sessions.

use std::sync::Arc;

use systole_net::Clock;

use super::error::ServeError;
use super::start::{kept, seed};
use crate::bans::Bans;
use crate::config::Config;
use crate::epochs::Epochs;
use crate::shard::Door;
use crate::store::{
    Database, DeadLetters, LeftBehind, Opening, Place, Store, StoreSettings, Subscription,
};
use crate::webhooks::{Receiver, Sender, look_up};

/// Starts the store of shards behind `doors`, if there is one, and puts the bans in it in force.
/// Returns the epochs too, which go on above those of all runs with the same store.
pub(super) fn start_store(
    config: &Config,
    clock: Clock,
    doors: &[Door],
    bans: &Bans,
) -> Result<(Option<Store>, Arc<Epochs>), ServeError> {
    let Some((mut database, settings)) = open_store(config, clock)? else {
        return Ok((None, Arc::new(Epochs::new(clock.wall_ms()))));
    };
    let kept = database.take_bans();
    if !kept.is_empty() {
        tracing::info!(bans = kept.len(), "the bans of the store are in force");
    }
    bans.load(kept);
    let epochs = Arc::new(Epochs::above(database.first_epoch()));
    let wakers = doors.iter().map(Door::waker).collect();
    let store = Store::start(database, settings, wakers, epochs.clone());
    Ok((Some(store.map_err(ServeError::Thread)?), epochs))
}

/// Opens the store, if there is one.
fn open_store(
    config: &Config,
    clock: Clock,
) -> Result<Option<(Database, &StoreSettings)>, ServeError> {
    let Some(settings) = &config.store else {
        return Ok(None);
    };
    let told = config.webhooks.iter().map(|webhook| Subscription {
        name: webhook.name.as_str().into(),
        events: webhook.events.clone(),
    });
    let streams = config.listeners.iter().map(|listener| listener.name().into());
    let beacons = config.beacons.iter().map(|listener| listener.name().into());
    let listeners: Arc<[Arc<str>]> = streams.chain(beacons).collect();
    let (subscriptions, now_ms) = (told.collect(), clock.wall_ms());
    let remembered = kept(config.limits.verdicts);
    let trusted = config.addresses.trusted.clone().into();
    let opening = Opening { subscriptions, listeners, now_ms, remembered, trusted };
    let database = match Database::open(settings, opening.clone(), Place::Disk) {
        Err(error) if !settings.is_required => {
            let hint = "what webhooks are owed, and bans, are kept in memory; a killed gateway \
                        forgets them";
            tracing::error!(%error, hint, "going on without a store, as configured");
            Database::open(settings, opening, Place::Memory)
        }
        opened => opened,
    };
    let database = database.map_err(ServeError::Store)?;
    for (webhook, events) in database.unclaimed() {
        let hint = "configure a webhook with this name to tell it";
        tracing::warn!(webhook, events, hint, "events wait for a webhook that is not configured");
    }
    let LeftBehind { count: lost, ref latest, .. } = *database.left_behind();
    if lost > 0 {
        let (known, directory) = (latest.len(), settings.directory.display());
        let hint = "GET /api/v1/verdicts?cause=gateway_lost lists those known, webhooks get all";
        let what = "sessions were online when the gateway was killed";
        tracing::warn!(lost, known, %directory, hint, "{what}");
    }
    Ok(Some((database, settings)))
}

/// Starts to look up the services that are asked or told.
pub(super) fn look_up_services(config: &Config) -> std::io::Result<()> {
    let asked = config.listeners.iter().filter_map(|listener| Some(listener.webhook()?.url()));
    let told = config.webhooks.iter().map(|webhook| webhook.url.clone());
    let urls: Vec<String> = asked.chain(told).collect();
    look_up(urls.iter().map(String::as_str))
}

/// Starts to tell those who are told about sessions.
pub(super) fn senders(
    config: &Config,
    store: Option<&Store>,
    clock: Clock,
) -> std::io::Result<Vec<Sender>> {
    let Some((store, settings)) = store.zip(config.store.as_ref()) else {
        return Ok(Vec::new());
    };
    let start = |(number, webhook): (usize, &Receiver)| {
        let letters = DeadLetters::new(&settings.directory, &webhook.name);
        Sender::start(webhook.clone(), store.clone(), letters, clock, seed(number))
    };
    config.webhooks.iter().enumerate().map(start).collect()
}
