//! Which changed settings a running gateway cannot take over, by name.
//!
//! Every field stands here: a new one must be applied by a reload, or need a restart.

use systole_core::window;

use super::{Admin, BeaconListener, Config, Limits, Listener, Log};
use crate::gate::GateSettings;
use crate::store::StoreSettings;
use crate::webhooks::Receiver;

/// Names with whether their settings differ.
type Differences<'a> = Vec<(&'a str, bool)>;

impl Config {
    /// Returns the names of the settings that `new` changes and that cannot change at run time.
    pub(crate) fn settings_needing_restart(&self, new: &Config) -> Vec<String> {
        let Config {
            shards,
            rest,
            handshake_timeout,
            hung,
            logic,
            // Applied as part of the policies of the listeners.
            policy: _,
            listeners,
            beacons,
            admin,
            limits,
            // Applied.
            drain: _,
            log: Log { level: _, format, heartbeats: _ },
            addresses,
            webhooks,
            store,
        } = self;
        let top = vec![
            ("shards", *shards != new.shards),
            ("rest", *rest != new.rest),
            ("handshake_timeout", *handshake_timeout != new.handshake_timeout),
            ("hung", *hung != new.hung),
            ("logic", *logic != new.logic),
            ("log.format", *format != new.log.format),
        ];
        let mut names = differing("", top);
        let known = |it: &Listener| (it.name().to_owned(), it.clone());
        let (now_known, new_known) =
            (listeners.iter().map(known).collect(), new.listeners.iter().map(known).collect());
        names.extend(compare("listener", now_known, new_known, of_listener));
        let known = |it: &BeaconListener| (it.name().to_owned(), it.clone());
        let (now_known, new_known) =
            (beacons.iter().map(known).collect(), new.beacons.iter().map(known).collect());
        names.extend(compare("listener", now_known, new_known, of_beacons));
        names.extend(differing("admin.", of_admin(admin, &new.admin)));
        names.extend(differing("limits.", of_limits(limits, &new.limits)));
        names.extend(differing("addresses.", of_addresses(addresses, &new.addresses)));
        let known = |it: &Receiver| (it.name.clone(), it.clone());
        let (now_known, new_known) =
            (webhooks.iter().map(known).collect(), new.webhooks.iter().map(known).collect());
        names.extend(compare("webhook", now_known, new_known, of_receiver));
        match (store, &new.store) {
            (Some(now), Some(new)) => names.extend(differing("store.", of_store(now, new))),
            (None, None) => {}
            (Some(_), None) | (None, Some(_)) => names.push("store".to_owned()),
        }
        names
    }
}

/// Returns those of the names whose settings differ, after a common part.
fn differing(before: &str, all: Differences<'_>) -> Vec<String> {
    let differ = all.into_iter().filter(|(_, differs)| *differs);
    differ.map(|(name, _)| format!("{before}{name}")).collect()
}

/// Compares tables that have names: which are new or gone, and the settings of the others.
fn compare<T>(
    kind: &str,
    now: Vec<(String, T)>,
    new: Vec<(String, T)>,
    of: impl Fn(&T, &T) -> Differences<'static>,
) -> Vec<String> {
    let mut names = Vec::new();
    for (name, table) in &now {
        match new.iter().find(|(other, _)| other == name) {
            Some((_, other)) => {
                names.extend(differing(&format!("{kind} \"{name}\"."), of(table, other)));
            }
            None => names.push(format!("{kind} \"{name}\" (gone)")),
        }
    }
    let added = new.iter().filter(|(name, _)| now.iter().all(|(other, _)| other != name));
    names.extend(added.map(|(name, _)| format!("{kind} \"{name}\" (new)")));
    names
}

fn of_listener(now: &Listener, new: &Listener) -> Differences<'static> {
    let Listener {
        // The same.
        name: _,
        address,
        codec,
        role,
        // Applied.
        policy: _,
        max_data,
        bounds,
        // What it has is applied.
        tls,
        client_identity,
        // Applied with the certificates.
        has_client_roots: _,
        sessions,
        rates,
        window,
        resume,
        // What a verifier has is applied.
        logins: _,
    } = now;
    let messages = |window: &Option<window::Limits>| window.map(|window| window.messages);
    let bytes = |window: &Option<window::Limits>| window.map(|window| window.bytes);
    vec![
        ("address", *address != new.address),
        ("codec", *codec != new.codec),
        ("role", *role != new.role),
        ("max_data", *max_data != new.max_data),
        ("shortest_bound", bounds.start() != new.bounds.start()),
        ("longest_bound", bounds.end() != new.bounds.end()),
        ("certificate", tls.is_some() != new.tls.is_some()),
        ("client_identity", *client_identity != new.client_identity),
        ("sessions_per_identity", sessions.limit != new.sessions.limit),
        ("login_conflict", sessions.refuse != new.sessions.refuse),
        ("logins_per_minute", sessions.per_minute != new.sessions.per_minute),
        ("messages_per_second", rates.messages != new.rates.messages),
        ("bytes_per_second", rates.bytes != new.rates.bytes),
        ("heartbeats_per_second", rates.heartbeats != new.rates.heartbeats),
        ("window_messages", messages(window) != messages(&new.window)),
        ("window_bytes", bytes(window) != bytes(&new.window)),
        ("resume_window", resume.window != new.resume.window),
        ("resume_when_full", resume.when_full != new.resume.when_full),
        ("anonymous", now.anonymous() != new.anonymous()),
        ("tokens", now.tokens().is_some() != new.tokens().is_some()),
        ("webhook", now.webhook().is_some() != new.webhook().is_some()),
    ]
}

fn of_beacons(now: &BeaconListener, new: &BeaconListener) -> Differences<'static> {
    let BeaconListener { name: _, address, policy: _, max_beacons, keys } = now;
    vec![
        ("address", *address != new.address),
        ("max_beacons", *max_beacons != new.max_beacons),
        ("keys", *keys != new.keys),
    ]
}

fn of_admin(now: &Admin, new: &Admin) -> Differences<'static> {
    let Admin { address, token, tls } = now;
    vec![
        ("address", *address != new.address),
        ("token", *token != new.token),
        // What it has is applied.
        ("certificate", tls.is_some() != new.tls.is_some()),
    ]
}

fn of_limits(now: &Limits, new: &Limits) -> Differences<'static> {
    let Limits {
        max_links,
        outbox,
        outbox_total,
        incomplete_frames,
        windows,
        away,
        events,
        sse_subscribers,
        verdicts,
    } = now;
    vec![
        ("max_links", *max_links != new.max_links),
        ("outbox", *outbox != new.outbox),
        ("outbox_total", *outbox_total != new.outbox_total),
        ("incomplete_frames", *incomplete_frames != new.incomplete_frames),
        ("windows", *windows != new.windows),
        ("away", *away != new.away),
        ("events", *events != new.events),
        ("sse_subscribers", *sse_subscribers != new.sse_subscribers),
        ("verdicts", *verdicts != new.verdicts),
    ]
}

fn of_addresses(now: &GateSettings, new: &GateSettings) -> Differences<'static> {
    let GateSettings { trusted, connections, half_open, per_second } = now;
    vec![
        ("trusted", *trusted != new.trusted),
        ("connections", *connections != new.connections),
        ("half_open", *half_open != new.half_open),
        ("connections_per_second", *per_second != new.per_second),
    ]
}

fn of_receiver(now: &Receiver, new: &Receiver) -> Differences<'static> {
    let Receiver { name: _, url, secret, events, timeout, concurrency, give_up_after, roots } = now;
    vec![
        ("url", *url != new.url),
        ("secret_file", *secret != new.secret),
        ("events", *events != new.events),
        ("timeout", *timeout != new.timeout),
        ("concurrency", *concurrency != new.concurrency),
        ("give_up_after", *give_up_after != new.give_up_after),
        ("roots", *roots != new.roots),
    ]
}

fn of_store(now: &StoreSettings, new: &StoreSettings) -> Differences<'static> {
    let StoreSettings {
        directory,
        sync,
        max_rows,
        max_rows_per_identity,
        max_rows_per_address,
        drops_oldest,
        is_required,
    } = now;
    vec![
        ("path", *directory != new.directory),
        ("sync", *sync != new.sync),
        ("max_rows", *max_rows != new.max_rows),
        ("max_rows_per_identity", *max_rows_per_identity != new.max_rows_per_identity),
        ("max_rows_per_address", *max_rows_per_address != new.max_rows_per_address),
        ("when_full", *drops_oldest != new.drops_oldest),
        ("required", *is_required != new.is_required),
    ]
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
            ("[admin]\naddress = \"127.0.0.1:9\"", vec!["admin.address"]),
            ("[limits]\nevents = 7\naway = 8", vec!["limits.away", "limits.events"]),
            ("[addresses]\nhalf_open = 7", vec!["addresses.half_open"]),
            ("[log]\nformat = \"json\"", vec!["log.format"]),
        ] {
            assert_eq!(now.settings_needing_restart(&config(text)), needs, "{text}");
        }
    }

    #[test]
    fn a_listener_is_named_with_each_of_its_settings_that_needs_a_restart() {
        let listener = "[[listener]]\nname = \"games\"\naddress = \"127.0.0.1:9\"\n";
        let hook = "[listener.webhook]\nurl = \"http://127.0.0.1:1/\"\n";
        let now = config(&format!("{listener}{hook}"));
        for (text, needs) in [
            (format!("{listener}{hook}"), vec![]),
            (format!("{listener}[listener.webhook]\nurl = \"http://127.0.0.1:2/\"\n"), vec![]),
            (format!("{listener}{hook}timeout = \"1s\"\nremember_refusals = \"1s\"\n"), vec![]),
            (
                listener.to_owned(),
                vec!["listener \"games\".anonymous", "listener \"games\".webhook"],
            ),
            (
                format!("{listener}logins_per_minute = 7\nbytes_per_second = 9\n{hook}"),
                vec!["listener \"games\".logins_per_minute", "listener \"games\".bytes_per_second"],
            ),
            (
                format!("{listener}resume_window = \"9s\"\nresume_when_full = \"gap\"\n{hook}"),
                vec!["listener \"games\".resume_window", "listener \"games\".resume_when_full"],
            ),
            (
                format!("{}{hook}", listener.replace("games", "chat")),
                vec!["listener \"games\" (gone)", "listener \"chat\" (new)"],
            ),
            (
                format!("{}max_data = 9\n{hook}", listener.replace(":9", ":8")),
                vec!["listener \"games\".address", "listener \"games\".max_data"],
            ),
        ] {
            assert_eq!(now.settings_needing_restart(&config(&text)), needs, "{text}");
        }
    }
}
