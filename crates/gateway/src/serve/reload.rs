//! Reloads the configuration and applies the settings that can change at run time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::announce::log_certificates;
use super::threads::run_aside;
use super::told::look_up_services;
use crate::config::{Config, ConfigError, ConfigFile, Overrides, Problem, Tls};
use crate::gateway::{Gateway, ShardUnavailable};
use crate::identity::{Tokens, Webhook};
use crate::stats::Reloaded;

/// Time limit for reading the configuration file and the files that it names. The longest list of
/// keys takes some seconds; a network file system that is gone takes for ever.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Reads the configuration file again at each request.
#[derive(Debug)]
pub(super) struct Reloader {
    file: Option<ConfigFile>,
    overrides: Overrides,
    /// Held while the file is read, so that a file system that is gone holds one thread at most.
    reading: Arc<Semaphore>,
}

impl Reloader {
    pub(super) fn new(file: Option<ConfigFile>, overrides: Overrides) -> Reloader {
        Reloader { file, overrides, reading: Arc::new(Semaphore::new(1)) }
    }

    /// Reloads the configuration file and updates `config` to what is then in force.
    ///
    /// An error changes nothing. The log names the settings that need a restart; a metric counts
    /// the results.
    pub(super) async fn reload(&mut self, gateway: &Gateway, config: &mut Config) {
        let result = self.try_reload(gateway, config).await;
        gateway.metrics().count_reload(result);
    }

    async fn try_reload(&mut self, gateway: &Gateway, config: &mut Config) -> Reloaded {
        let Some(file) = &self.file else {
            tracing::warn!(
                "there is no configuration file to read again: the gateway was started without"
            );
            return Reloaded::Refused;
        };
        let (file, overrides) = (file.clone(), self.overrides.clone());
        match read_aside(&self.reading, move || file.reload(&overrides)).await {
            Ok(Ok((new, file))) => {
                self.file = Some(file);
                apply(gateway, config, &new).await
            }
            Ok(Err(error)) => {
                log_problems(&error);
                tracing::error!("the configuration is not reloaded: the gateway goes on as before");
                Reloaded::Refused
            }
            Err(why) => {
                tracing::error!(
                    "the configuration is not reloaded: {why}; the gateway goes on as before"
                );
                Reloaded::Refused
            }
        }
    }
}

/// Reads something on a thread of its own, since a file system can block. `reading` is held until
/// the thread has ended.
async fn read_aside<T: Send + 'static>(
    reading: &Arc<Semaphore>,
    read: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let Ok(permit) = reading.clone().try_acquire_owned() else {
        return Err("an earlier read still waits for the file system".to_owned());
    };
    let work = move || {
        let found = read();
        drop(permit);
        found
    };
    let found = run_aside("reload", work)
        .map_err(|error| format!("the system refuses a thread to read the file: {error}"))?;
    match timeout(READ_TIMEOUT, found).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(_)) => Err("reading the file ended unexpectedly".to_owned()),
        Err(_) => Err(format!("the file was not read within {} s", READ_TIMEOUT.as_secs())),
    }
}

/// Logs each problem on a line of its own.
fn log_problems(error: &ConfigError) {
    for Problem { what, help, place } in error.problems() {
        let place = place.as_ref().map(|it| format!("{}:{}:{}", it.path, it.line, it.column));
        tracing::error!(place, help, "{what}");
    }
    let more = error.count() - error.problems().len();
    if more > 0 {
        tracing::error!(more, "there are more problems: systole check counts them");
    }
}

/// Puts `new` in force, as far as that needs no restart.
async fn apply(gateway: &Gateway, config: &mut Config, new: &Config) -> Reloaded {
    let needs_restart = config.settings_needing_restart(new);
    let mut is_complete = true;
    gateway.logs().set_level(new.log.level);
    if gateway.log_heartbeats(new.log.heartbeats).await.is_err() {
        is_complete = false;
        tracing::error!("a shard is too busy to change log.heartbeats: send SIGHUP again");
    }
    let streams = new.listeners.iter().map(|it| (it.name(), it.policy()));
    let beacons = new.beacons.iter().map(|it| (it.name(), it.policy()));
    for (name, policy) in streams.chain(beacons) {
        let Some(index) = gateway.listener(name) else {
            continue;
        };
        if gateway.listeners()[usize::from(index)].has_policy(policy) {
            continue;
        }
        match gateway.retune(index, |_| Ok::<_, ShardUnavailable>(policy)).await {
            Ok((old, new)) => {
                let enforce = new.enforce();
                tracing::info!(listener = name, %old, %new, enforce, "retuned");
            }
            Err(_) => {
                is_complete = false;
                tracing::error!(listener = name, "a shard is too busy: send SIGHUP again");
            }
        }
    }
    for (name, running, new) in certificates(config, new) {
        running.replace(new);
        log_certificates(name, new);
        tracing::info!(listener = name, "the certificates are in force for new connections");
    }
    for (name, running, new) in tokens(config, new) {
        running.replace(new);
        tracing::info!(listener = name, "the keys of tokens are in force for new logins");
    }
    for (name, running, new) in webhooks(config, new) {
        if running.replace(new) {
            tracing::info!(listener = name, "the login webhook is in force for new logins");
        }
    }
    if let Err(error) = look_up_services(config) {
        is_complete = false;
        tracing::error!(%error, "no thread for the lookup of names: send SIGHUP again");
    }
    config.drain = new.drain;
    if needs_restart.is_empty() {
        if is_complete {
            tracing::info!("the configuration is in force");
        }
    } else {
        let settings = needs_restart.join(", ");
        tracing::warn!(settings, "in force, but for these settings, which need a restart");
    }
    if is_complete { Reloaded::Applied } else { Reloaded::Incomplete }
}

/// Returns the TLS of each listener, and of the admin interface, that has it now and by the new
/// configuration.
fn certificates<'a>(
    now: &'a Config,
    new: &'a Config,
) -> impl Iterator<Item = (&'a str, &'a Tls, &'a Tls)> {
    let admin = now.admin.tls().zip(new.admin.tls()).map(|(now, new)| ("[admin]", now, new));
    let listeners = now.listeners.iter().filter_map(|listener| {
        let same = new.listeners.iter().find(|it| it.name() == listener.name())?;
        Some((listener.name(), listener.tls()?, same.tls()?))
    });
    listeners.chain(admin)
}

/// Returns the rules for tokens of each listener that has them now and by the new configuration.
fn tokens<'a>(
    now: &'a Config,
    new: &'a Config,
) -> impl Iterator<Item = (&'a str, &'a Tokens, &'a Tokens)> {
    now.listeners.iter().filter_map(|listener| {
        let same = new.listeners.iter().find(|it| it.name() == listener.name())?;
        Some((listener.name(), listener.tokens()?, same.tokens()?))
    })
}

/// Returns the login webhook of each listener that has one now and by the new configuration.
fn webhooks<'a>(
    now: &'a Config,
    new: &'a Config,
) -> impl Iterator<Item = (&'a str, &'a Webhook, &'a Webhook)> {
    now.listeners.iter().filter_map(|listener| {
        let same = new.listeners.iter().find(|it| it.name() == listener.name())?;
        Some((listener.name(), listener.webhook()?, same.webhook()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_read_that_blocks_is_given_up_and_holds_one_thread() {
        let reading = Arc::new(Semaphore::new(1));
        let (release, blocked) = std::sync::mpsc::channel::<()>();
        let error = read_aside(&reading, move || blocked.recv().is_ok()).await.unwrap_err();
        assert_eq!(error, "the file was not read within 60 s");
        let error = read_aside(&reading, || ()).await.unwrap_err();
        assert_eq!(error, "an earlier read still waits for the file system");
        // While time stands still, a wait for another thread passes all of it.
        tokio::time::resume();
        drop(release);
        drop(reading.acquire().await.unwrap());
        assert_eq!(read_aside(&reading, || 7).await, Ok(7));
    }
}
