//! `systole check`: checks the configuration and prints what it means.

use std::io;

use systole_core::link::WhenFull;
use systole_core::policy::Detection;
use systole_core::{Policy, Span};
use systole_gateway::config::{
    BEACON, BeaconListener, Listener, Resume, codec_name, refused_because, role_name, show_names,
    show_span,
};
use systole_gateway::{Config, unbindable, unopenable};
use systole_net::Clock;
use systole_net::tls::CertificateFacts;

use crate::cli::CheckArgs;
use crate::exit::Exit;
use crate::output::Output;

pub(crate) fn run(args: &CheckArgs, output: &mut Output) -> io::Result<Exit> {
    match args.config.load() {
        Ok(loaded) => {
            output.line(&format!("{}: ok", loaded.name()))?;
            output.line("")?;
            for line in describe(&loaded.config) {
                output.line(&line)?;
            }
            output.flush()?;
            for error in unbindable(&loaded.config).iter().chain(&unopenable(&loaded.config)) {
                output.note(&format!("warning: on this machine {error}"));
            }
            let now_ms = Clock::start().wall_ms();
            for (name, facts) in certificates(&loaded.config) {
                if let Some(why) = refused_because(facts, now_ms) {
                    output.note(&format!("warning: {name}: {why}"));
                }
            }
            Ok(Exit::Success)
        }
        Err(text) => {
            output.error(&text);
            Ok(Exit::Usage)
        }
    }
}

/// Returns what each certificate says of itself, with the name of its listener.
fn certificates(config: &Config) -> impl Iterator<Item = (&str, &CertificateFacts)> {
    config.tls().flat_map(|(name, tls)| tls.certificates().iter().map(move |it| (name, it)))
}

/// Describes the configuration in lines of text.
fn describe(config: &Config) -> Vec<String> {
    let heads = ["listener", "codec", "address", "role", "bound", "policy"].map(str::to_owned);
    let rows = config.listeners.iter().map(row).chain(config.beacons.iter().map(beacon_row));
    let mut lines = columns(std::iter::once(heads).chain(rows).collect());
    let guard = match config.admin.token() {
        Some(_) => "with a token",
        None => "without a token",
    };
    lines.push(String::new());
    let believes = |it: &Listener| format!("{} believes {}", it.name(), it.belief().sentence());
    lines.extend(config.listeners.iter().map(believes));
    let keyed = |it: &BeaconListener| format!("{} believes devices by their keys: safe", it.name());
    lines.extend(config.beacons.iter().map(keyed));
    lines.extend(config.listeners.iter().filter_map(resumes));
    lines.extend(certificates(config).map(|(name, facts)| {
        format!("{name} has TLS: {}, until {}", show_names(facts), facts.until)
    }));
    lines.push(String::new());
    lines.push(format!("admin at {}, {guard}", config.admin.address()));
    let addresses = &config.addresses;
    let connections = addresses
        .connections
        .map_or("half of all links".to_owned(), |it| format!("{it} connections"));
    lines.push(format!(
        "an address may have {connections}, {} of them not logged in, {} new in a second",
        addresses.half_open, addresses.per_second
    ));
    let trusted: Vec<_> = addresses.trusted.iter().map(ToString::to_string).collect();
    let trusted = if trusted.is_empty() { "none".to_owned() } else { trusted.join(", ") };
    lines.push(format!("addresses without these limits: {trusted}"));
    for webhook in &config.webhooks {
        let (name, events) = (&webhook.name, webhook.events.join(", "));
        lines.push(format!("webhook \"{name}\" at {} gets {events}", webhook.shown_url()));
    }
    if let Some(store) = &config.store {
        let sync = match store.sync {
            None => "at each commit".to_owned(),
            Some(span) => format!("within {}", show_span(span)),
        };
        let holds = if config.webhooks.is_empty() { " for bans alone" } else { "" };
        lines.push(format!("store{holds} in {}, on disk {sync}", store.directory.display()));
    }
    if !config.policy.enforce() {
        lines.push("enforce is off: dead peers are reported, never disconnected".to_owned());
    }
    lines
}

/// Says for how long the sessions of a listener outlive their links, if they do.
fn resumes(listener: &Listener) -> Option<String> {
    let Resume { window, when_full } = listener.resume();
    let name = listener.name();
    let full = match when_full {
        WhenFull::End => "one whose window is full ends",
        WhenFull::Gap => "a full window leaves a gap",
    };
    (window > Span::ZERO)
        .then(|| format!("{name} keeps sessions for {} without a link; {full}", show_span(window)))
}

fn row(listener: &Listener) -> [String; 6] {
    let policy = listener.policy();
    [
        listener.name().to_owned(),
        codec_name(listener.codec()).to_owned(),
        listener.address().to_string(),
        role_name(listener.role()).to_owned(),
        policy.bound().map_or_else(|| "none".to_owned(), show_span),
        describe_policy(policy),
    ]
}

fn beacon_row(listener: &BeaconListener) -> [String; 6] {
    let policy = listener.policy();
    [
        listener.name().to_owned(),
        BEACON.to_owned(),
        listener.address().to_string(),
        "answer".to_owned(),
        policy.bound().map_or_else(|| "none".to_owned(), show_span),
        describe_policy(policy),
    ]
}

fn describe_policy(policy: Policy) -> String {
    let mut text = match policy.detection() {
        Detection::Never => "never".to_owned(),
        Detection::Bounded { idle, interval, probes } => {
            let (idle, interval) = (show_span(idle), show_span(interval));
            format!("idle {idle}, interval {interval}, probes {probes}")
        }
    };
    if let Some(keepalive) = policy.keepalive() {
        text.push_str(&format!(", keepalive {}", show_span(keepalive)));
    }
    text
}

/// Formats rows as lines with aligned columns.
fn columns<const N: usize>(rows: Vec<[String; N]>) -> Vec<String> {
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}
