//! Publishes that the gateway serves, and where: in the log and in the ready file.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use systole_net::Clock;
use tokio::time::timeout;

use super::error::ServeError;
use super::threads::run_aside;
use crate::config::{Config, Tls, refused_because, show_names};
use crate::gateway::{Gateway, ListenerState};
use crate::ready::{Ready, ReadyFile, ReadyListener};

/// Time limit for writing the ready file, whose temporary one could be created just before.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time limit for removing the ready file: its file system has mostly worked before.
const REMOVE_TIMEOUT: Duration = Duration::from_secs(1);

/// Logs the addresses of the gateway and writes the ready file, which is returned.
pub(super) async fn announce(
    gateway: &Gateway,
    config: &Config,
    admin: SocketAddr,
    ready_file: Option<ReadyFile>,
) -> Result<Option<ReadyFile>, ServeError> {
    for listener in gateway.listeners() {
        let ListenerState { name, codec, address, .. } = listener;
        tracing::info!(%name, codec, %address, policy = %listener.policy(), "listening");
    }
    for listener in &config.listeners {
        let (name, believes) = (listener.name(), listener.belief());
        let whom = believes.whom.as_str();
        if believes.unsafe_because.is_empty() {
            tracing::info!(listener = name, whom, "believes who a client is");
        } else {
            let risk = believes.unsafe_because.join("; ");
            tracing::warn!(
                listener = name,
                whom,
                risk,
                "believes who a client is, which is unsafe"
            );
        }
    }
    for (name, tls) in config.tls() {
        log_certificates(name, tls);
    }
    let scheme = if config.admin.tls().is_some() { "https" } else { "http" };
    tracing::info!(address = %admin, scheme, "admin interface");
    let Some(mut file) = ready_file else {
        return Ok(None);
    };
    let listeners = gateway.listeners().iter().map(|listener| ReadyListener {
        name: listener.name.to_string(),
        codec: listener.codec.to_owned(),
        address: listener.address,
    });
    let ready = Ready { pid: std::process::id(), admin, listeners: listeners.collect() };
    let path = file.path().to_owned();
    let failed = |error| ServeError::ReadyFile { path, error };
    // Aside, since a file system can block.
    let written = run_aside("ready", move || file.write(&ready).map(|()| file));
    match written {
        Ok(written) => match timeout(WRITE_TIMEOUT, written).await {
            Ok(Ok(Ok(file))) => Ok(Some(file)),
            Ok(Ok(Err(error))) => Err(failed(error)),
            Ok(Err(_)) | Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
        },
        Err(error) => Err(ServeError::Thread(error)),
    }
}

/// Logs whom the certificates of a listener name, and until when; and why clients refuse them.
pub(super) fn log_certificates(listener: &str, tls: &Tls) {
    let now_ms = Clock::start().wall_ms();
    for facts in tls.certificates() {
        let (names, until) = (show_names(facts), &*facts.until);
        match refused_because(facts, now_ms) {
            None => tracing::info!(listener, names, until, "TLS"),
            Some(why) => tracing::warn!(listener, names, until, "TLS: {why}"),
        }
    }
}

/// Removes the ready file. A file system that blocks delays the end of the gateway, and no more.
pub(super) async fn remove(file: Option<ReadyFile>) {
    if let Ok(removed) = run_aside("ready", move || drop(file)) {
        let _ = timeout(REMOVE_TIMEOUT, removed).await;
    }
}
