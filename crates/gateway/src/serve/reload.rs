//! Reads the configuration again and puts in force what can change at run time.

use super::options::ServeOptions;
use crate::config::Config;
use crate::gateway::Gateway;

/// Reads the file of `options` and applies it. `config` becomes what is in force.
///
/// An error leaves everything as it was. What needs a restart is named in the log.
pub(super) async fn reload(gateway: &Gateway, config: &mut Config, options: &ServeOptions) {
    let Some(path) = &options.config_file else {
        tracing::warn!("there is no configuration file to read again");
        return;
    };
    let new = match Config::load_file(path, &options.overrides) {
        Ok(new) => new,
        Err(error) => {
            tracing::error!("{error}\nthe gateway goes on as before");
            return;
        }
    };
    let waiting = need_a_restart(config, &new);
    gateway.logs().set_level(new.log.level);
    if gateway.log_heartbeats(new.log.heartbeats).await.is_err() {
        tracing::error!("a shard is too busy to change log.heartbeats: send SIGHUP again");
    }
    let streams = new.listeners.iter().map(|it| (it.name(), it.policy()));
    let beacons = new.beacons.iter().map(|it| (it.name(), it.policy()));
    for (name, policy) in streams.chain(beacons) {
        let Some(index) = gateway.listener(name) else {
            continue;
        };
        let held = gateway.listeners()[usize::from(index)].policy();
        if held == policy {
            continue;
        }
        match gateway.retune(index, policy).await {
            Ok(old) => {
                let enforce = policy.enforce();
                tracing::info!(listener = name, %old, new = %policy, enforce, "retuned");
            }
            Err(_) => {
                tracing::error!(listener = name, "a shard is too busy: send SIGHUP again");
            }
        }
    }
    config.drain = new.drain;
    if waiting.is_empty() {
        tracing::info!("the configuration is in force");
    } else {
        let settings = waiting.join(", ");
        tracing::warn!(settings, "in force, but for these settings, which need a restart");
    }
}

/// The settings that differ and cannot change while running.
fn need_a_restart(now: &Config, new: &Config) -> Vec<&'static str> {
    // What a listener is, its policy aside, which can change.
    let places = |config: &Config| -> Vec<_> {
        let place = |listener: &crate::config::Listener| {
            let bounds = listener.bounds();
            let is = (listener.codec(), listener.role(), listener.max_data(), bounds);
            (listener.name().to_owned(), listener.address(), is)
        };
        config.listeners.iter().map(place).collect()
    };
    let beacons = |config: &Config| -> Vec<_> {
        let place = |it: &crate::config::BeaconListener| {
            (it.name().to_owned(), it.address(), it.max_beacons(), it.keys().clone())
        };
        config.beacons.iter().map(place).collect()
    };
    let listeners_differ = places(now) != places(new) || beacons(now) != beacons(new);
    let differences = [
        ("shards", now.shards != new.shards),
        ("handshake_timeout", now.handshake_timeout != new.handshake_timeout),
        ("hung", now.hung != new.hung),
        ("logic", now.logic != new.logic),
        ("listener", listeners_differ),
        ("admin", now.admin != new.admin),
        ("limits", now.limits != new.limits),
        ("log.format", now.log.format != new.log.format),
    ];
    differences.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;

    fn config(text: &str) -> Config {
        Config::load(text, "systole.toml", &Overrides::default()).unwrap()
    }

    #[test]
    fn only_what_cannot_change_needs_a_restart() {
        let now = Config::default();
        for (text, needs) in [
            ("", vec![]),
            ("[policy]\npreset = \"demanding\"", vec![]),
            ("enforce = false\n[log]\nlevel = \"debug\"\nheartbeats = true", vec![]),
            ("[drain]\nlimit = \"5s\"", vec![]),
            ("shards = 3\nlogic = \"none\"", vec!["shards", "logic"]),
            ("[admin]\naddress = \"127.0.0.1:9\"", vec!["admin"]),
            ("[limits]\nevents = 7", vec!["limits"]),
            ("[[listener]]\naddress = \"127.0.0.1:9\"", vec!["listener"]),
            ("[log]\nformat = \"json\"", vec!["log.format"]),
        ] {
            assert_eq!(need_a_restart(&now, &config(text)), needs, "{text}");
        }
    }
}
