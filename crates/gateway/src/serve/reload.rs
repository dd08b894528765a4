//! Reloads the configuration and applies the settings that can change at run time.

use super::options::ServeOptions;
use crate::config::{Config, Log};
use crate::gateway::{Gateway, ShardUnavailable};

/// Reloads the configuration file of `options` and updates `config` to what is then in force.
///
/// An error changes nothing. The log names the settings that need a restart.
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
    let needs_restart = settings_needing_restart(config, &new);
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
    config.drain = new.drain;
    if needs_restart.is_empty() {
        if is_complete {
            tracing::info!("the configuration is in force");
        }
    } else {
        let settings = needs_restart.join(", ");
        tracing::warn!(settings, "in force, but for these settings, which need a restart");
    }
}

/// Returns the names of changed settings that cannot change at run time.
fn settings_needing_restart(now: &Config, new: &Config) -> Vec<&'static str> {
    // Everything but the policy, which can change at run time.
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
    // Every field stands here: a new one must be applied by a reload, or need a restart.
    let Config {
        shards,
        rest,
        handshake_timeout,
        hung,
        logic,
        // Applied as part of the policies of the listeners.
        policy: _,
        // Compared below, but for their policies.
        listeners: _,
        beacons: _,
        admin,
        limits,
        // Applied.
        drain: _,
        log: Log { level: _, format, heartbeats: _ },
    } = now;
    let listeners_differ = places(now) != places(new) || beacons(now) != beacons(new);
    let differences = [
        ("shards", *shards != new.shards),
        ("rest", *rest != new.rest),
        ("handshake_timeout", *handshake_timeout != new.handshake_timeout),
        ("hung", *hung != new.hung),
        ("logic", *logic != new.logic),
        ("listener", listeners_differ),
        ("admin", *admin != new.admin),
        ("limits", *limits != new.limits),
        ("log.format", *format != new.log.format),
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
    fn only_settings_fixed_at_start_need_a_restart() {
        let now = Config::default();
        for (text, needs) in [
            ("", vec![]),
            ("[policy]\npreset = \"demanding\"", vec![]),
            ("enforce = false\n[log]\nlevel = \"debug\"\nheartbeats = true", vec![]),
            ("[drain]\nlimit = \"5s\"", vec![]),
            ("rest = \"0ms\"", vec!["rest"]),
            ("shards = 3\nlogic = \"none\"", vec!["shards", "logic"]),
            ("[admin]\naddress = \"127.0.0.1:9\"", vec!["admin"]),
            ("[limits]\nevents = 7", vec!["limits"]),
            ("[[listener]]\naddress = \"127.0.0.1:9\"", vec!["listener"]),
            ("[log]\nformat = \"json\"", vec!["log.format"]),
        ] {
            assert_eq!(settings_needing_restart(&now, &config(text)), needs, "{text}");
        }
    }
}
