//! The configuration: a TOML file, overridden by the environment and the command line.
//!
//! Every [`Config`] is legal: it comes from [`Config::load`], which reports all errors at once, or
//! from [`Config::default`]. `systole.toml` at the root of the repository shows every setting, and
//! `docs/configuration.md` lists them.

mod address;
mod addresses;
mod admin;
mod beacon;
mod belief;
mod excerpt;
mod file;
mod listener;
mod outline;
mod overrides;
mod policy;
mod problem;
mod receiver;
mod restart;
mod resume;
mod section;
mod sessions;
mod settings;
mod source;
mod span;
mod store;
#[cfg(test)]
mod tests;
mod tls;
mod token;
mod tokens;
mod value;
mod webhook;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;

use systole_core::gather::LONGEST_REST;
use systole_core::link::Hung;
use systole_core::{Policy, Span};
use toml::de::DeTable;

pub use address::listen_address;
pub use admin::{Admin, MAX_TOKEN_FILE};
pub use beacon::{BEACON, BeaconListener};
pub use belief::Belief;
pub use file::read_text;
pub use listener::{Listener, codec_name, role_name};
pub use overrides::{ListenAt, Overrides};
pub use problem::{ConfigError, Problem, SourceSpan};
pub use resume::Resume;
pub use settings::{Drain, FORMATS, Format, LEVELS, Level, Limits, Log, Logic, Shards};
pub use source::ConfigFile;
pub use span::{SpanError, parse_span, show_span};
pub use tls::{ClientIdentity, Tls, refused_because, show_names};
pub use token::Token;

use crate::gate::GateSettings;
use crate::store::StoreSettings;
use crate::webhooks::Receiver;
use address::overlap;
use listener::MAX_LISTENERS;
use outline::Outline;
use problem::Problems;
use section::{Given, Reading, Section};

/// Maximum size of a configuration file in bytes; a larger file was named by mistake.
const MAX_FILE: usize = 1 << 20;

/// Maximum of `rest`: a message after a silence may wait that long at each gateway on its way.
const MAX_REST: Span = Span::from_millis(20);

/// Default handshake timeout: several round trips with retransmissions on a bad mobile network.
const DEFAULT_HANDSHAKE_TIMEOUT: Span = Span::from_secs(10);

/// The complete configuration of a gateway, resolved and legal.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Number of data-plane threads.
    pub shards: Shards,
    /// The longest rest of a shard while only heartbeats flow; zero for none. A longer rest costs
    /// less CPU, but a message after a silence may wait for its end.
    pub rest: Span,
    /// Time limit from accept to the end of the handshake. A longer limit tolerates bad networks,
    /// but lets silent clients hold descriptors longer.
    pub handshake_timeout: Span,
    /// What happens at the bound to a peer whose kernel answers and whose process does not.
    pub hung: Hung,
    /// The logic that answers data.
    pub logic: Logic,
    /// The base policy of all listeners, including whether verdicts are enforced.
    pub policy: Policy,
    /// The stream listeners; at most 64 together with the beacon listeners, all names distinct.
    pub listeners: Vec<Listener>,
    /// The beacon listeners.
    pub beacons: Vec<BeaconListener>,
    /// The admin interface.
    pub admin: Admin,
    /// Limits on links, memory and subscribers.
    pub limits: Limits,
    /// How the gateway drains.
    pub drain: Drain,
    /// What is logged, and in which format.
    pub log: Log,
    /// What one address may have.
    pub addresses: GateSettings,
    /// Who is told about sessions.
    pub webhooks: Vec<Receiver>,
    /// Where it is kept what is owed to them; `None` only if nothing is owed.
    pub store: Option<StoreSettings>,
}

impl Default for Config {
    /// Returns the configuration of an empty file.
    fn default() -> Config {
        Config {
            shards: Shards::default(),
            rest: LONGEST_REST,
            handshake_timeout: DEFAULT_HANDSHAKE_TIMEOUT,
            hung: Hung::default(),
            logic: Logic::default(),
            policy: Policy::default(),
            listeners: Listener::defaults(Policy::default()),
            beacons: Vec::new(),
            admin: Admin::default(),
            limits: Limits::default(),
            drain: Drain::default(),
            log: Log::default(),
            addresses: GateSettings::default(),
            webhooks: Vec::new(),
            store: None,
        }
    }
}

impl Config {
    /// Reads the configuration in `text` and applies `overrides`. `path` names the file in errors,
    /// and relative paths in `text` start from its directory.
    ///
    /// # Errors
    /// All problems of the configuration, each with its place and a correction.
    pub fn load(text: &str, path: &str, overrides: &Overrides) -> Result<Config, ConfigError> {
        read(text, path, overrides).map(|(config, ..)| config)
    }
}

/// Reads the configuration. Returns it with the settings that the file gives, and every key of the
/// schema.
fn read(
    text: &str,
    path: &str,
    overrides: &Overrides,
) -> Result<(Config, Outline, BTreeSet<String>), ConfigError> {
    if text.len() > MAX_FILE {
        let help = "is this the right file?".to_owned();
        return Err(ConfigError::single(format!("{path} is longer than 1 MiB"), Some(help)));
    }
    let mut problems = Problems::new(path, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        problems.add(error.span(), format!("not TOML: {}", error.message()), None);
    }
    // After a syntax error keys are missing, and further problems would be misleading.
    if !errors.is_empty() {
        problems.into_result()?;
        problems = Problems::new(path, text);
    }
    let mut reading = Reading { problems, known: BTreeSet::new() };
    let directory = Path::new(path).parent().unwrap_or(Path::new(""));
    let root = Section::root(document.get_ref());
    let config = read_root(&mut reading, root, directory, overrides);
    reading.problems.into_result()?;
    Ok((config, Outline::of(document.get_ref()), reading.known))
}

fn read_root(
    reading: &mut Reading<'_>,
    mut root: Section<'_>,
    directory: &Path,
    overrides: &Overrides,
) -> Config {
    let shards = settings::read_shards(reading, &mut root);
    let rest = root.take(reading, "rest", value::span(Span::ZERO..=MAX_REST));
    // At most an hour: no handshake needs longer.
    let timeouts = Span::from_millis(1)..=Span::from_secs(3_600);
    let handshake_timeout = root.take(reading, "handshake_timeout", value::span(timeouts));
    let hung = Given::or(root.take(reading, "hung", settings::hung), Hung::default());
    let enforce = Given::or(root.take(reading, "enforce", value::boolean), true);
    let logic = Given::or(root.take(reading, "logic", value::parsed), Logic::default());
    let table = root.section(reading, "policy");
    let base = Policy::default().with_enforce(overrides.enforce.unwrap_or(enforce));
    let policy = policy::read(reading, table, base);
    let (listeners, beacons) = read_listeners(reading, &mut root, policy, directory, overrides);
    let table = root.section(reading, "admin");
    let admin = admin::read(reading, table, &listeners, directory, overrides);
    let table = root.section(reading, "limits");
    let limits_place = table.span();
    let limits = settings::read_limits(reading, table);
    let table = root.section(reading, "drain");
    let drain = settings::read_drain(reading, table);
    let table = root.section(reading, "log");
    let log = settings::read_log(reading, table);
    let table = root.section(reading, "addresses");
    let addresses = addresses::read(reading, table);
    let webhooks = receiver::read_all(reading, &mut root, directory);
    let table = root.section(reading, "store");
    let store = store::read(reading, table, directory, !webhooks.is_empty());
    root.finish(reading);

    refuse_small_outbox(reading, &listeners, &limits, limits_place);
    refuse_short_handshake(reading, &listeners, handshake_timeout.as_ref());
    Config {
        shards: overrides.shards.unwrap_or(shards),
        rest: Given::or(rest, LONGEST_REST),
        handshake_timeout: Given::or(handshake_timeout, DEFAULT_HANDSHAKE_TIMEOUT),
        hung,
        logic,
        policy,
        listeners,
        beacons,
        admin,
        limits,
        drain,
        log: Log {
            level: overrides.log_level.unwrap_or(log.level),
            format: overrides.log_format.unwrap_or(log.format),
            heartbeats: overrides.log_heartbeats.unwrap_or(log.heartbeats),
        },
        addresses,
        webhooks,
        store,
    }
}

fn read_listeners(
    reading: &mut Reading<'_>,
    root: &mut Section<'_>,
    policy: Policy,
    directory: &Path,
    overrides: &Overrides,
) -> (Vec<Listener>, Vec<BeaconListener>) {
    let given = root.sections(reading, "listener");
    if given.as_ref().is_some_and(Vec::is_empty) {
        let help = "write at least one [[listener]], or none at all for the default ones";
        reading.problems.add(None, "there is no listener".to_owned(), Some(help.to_owned()));
    }
    let (mut places, mut listeners) = (Vec::new(), Vec::new());
    let (mut beacon_places, mut beacons) = (Vec::new(), Vec::new());
    for section in given.iter().flatten().skip(MAX_LISTENERS) {
        let what = format!("more than {MAX_LISTENERS} listeners");
        reading.problems.add(section.span(), what, None);
    }
    let is_default = given.is_none();
    for section in given.into_iter().flatten().take(MAX_LISTENERS) {
        let place = section.span();
        match listener::read(reading, section, policy, directory) {
            Some(listener::Read::Stream(listener)) => {
                listeners.push(listener);
                places.push(place);
            }
            Some(listener::Read::Beacon(beacon)) => {
                beacons.push(beacon);
                beacon_places.push(place);
            }
            None => {}
        }
    }
    if !overrides.listen.is_empty() {
        listeners = overridden_listeners(reading, &overrides.listen, overrides.anonymous, policy);
        places = vec![None; listeners.len()];
        (beacons, beacon_places) = (Vec::new(), Vec::new());
    } else if is_default {
        listeners = Listener::defaults(policy);
        places = vec![None; listeners.len()];
    }
    // TCP and UDP ports are separate, names are shared.
    let stream = |it: &Listener| (it.name().to_owned(), it.address(), false);
    let datagram = |it: &BeaconListener| (it.name().to_owned(), it.address(), true);
    let all: Vec<_> = listeners.iter().map(stream).chain(beacons.iter().map(datagram)).collect();
    places.append(&mut beacon_places);
    refuse_duplicates(reading, &all, &places);
    (listeners, beacons)
}

/// Creates the listeners of the command line; the second one of a codec is named `native-2`.
fn overridden_listeners(
    reading: &mut Reading<'_>,
    listen: &[ListenAt],
    anonymous: bool,
    policy: Policy,
) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::new();
    for at in listen {
        let same = listeners.iter().filter(|listener| listener.codec == at.codec).count();
        let name = match same {
            0 => listener::codec_name(at.codec).to_owned(),
            _ => format!("{}-{}", listener::codec_name(at.codec), same + 1),
        };
        let listener = Listener::new(&name, at.address, at.codec, policy);
        let is_open = anonymous || listener.is_local();
        if !is_open {
            let what = format!("anybody could log in at {}, with any identity", at.address);
            let help = "set --anonymous if that is meant, or listen \
                        by a configuration file with [listener.tokens]";
            reading.problems.add(None, what, Some(help.to_owned()));
        }
        listeners.push(listener);
    }
    listeners
}

/// Refuses two listeners with the same name, or with the same address and transport. Each entry is
/// a name, an address, and whether it receives datagrams.
fn refuse_duplicates(
    reading: &mut Reading<'_>,
    listeners: &[(String, SocketAddr, bool)],
    places: &[Option<Range<usize>>],
) {
    for (n, ((name, address, datagrams), place)) in listeners.iter().zip(places).enumerate() {
        let earlier = &listeners[..n];
        if earlier.iter().any(|(other, ..)| other == name) {
            let what = format!("a second listener with the name \"{name}\"");
            let help = "give each its own `name`; without one, the codec is the name";
            reading.problems.add(place.clone(), what, Some(help.to_owned()));
        }
        let mut same = earlier.iter().filter(|(.., other)| other == datagrams);
        if let Some((name, other, _)) = same.find(|(_, other, _)| overlap(*other, *address)) {
            let what = format!("a second listener at {address}");
            let help = format!("\"{name}\" listens at {other} already");
            reading.problems.add(place.clone(), what, Some(help));
        }
    }
}

/// Refuses a handshake that is over before the answer to a token.
fn refuse_short_handshake(
    reading: &mut Reading<'_>,
    listeners: &[Listener],
    timeout: Option<&Given<Span>>,
) {
    let is_short = |given: &&Given<Span>| given.value < Span::from_secs(1);
    if let Some(given) = timeout.filter(is_short)
        && listeners.iter().any(|listener| listener.verifier().is_some())
    {
        let what = "`handshake_timeout` must be at least \"1s\" where tokens are verified";
        let help = "bad tokens are answered after some tenths of a second".to_owned();
        reading.problems.add(Some(given.span.clone()), what.to_owned(), Some(help));
    }
    let limit = timeout.map_or(DEFAULT_HANDSHAKE_TIMEOUT, |given| given.value);
    let is_long = |webhook: &crate::identity::Webhook| webhook.timeout() >= limit;
    if listeners.iter().filter_map(Listener::webhook).any(is_long) {
        let what = "the `timeout` of a webhook must be shorter than `handshake_timeout`";
        let help = format!("the login is over after {}", span::show_span(limit));
        reading.problems.add(timeout.map(|given| given.span.clone()), what.to_owned(), Some(help));
    }
}

/// Refuses an outbox that cannot hold a second message while the first is being sent: a client that
/// requests two answers at once would end as a slow consumer. Refuses too little memory for all
/// outboxes: a client alone would end before its own outbox is full.
fn refuse_small_outbox(
    reading: &mut Reading<'_>,
    listeners: &[Listener],
    limits: &Limits,
    place: Option<Range<usize>>,
) {
    let largest = listeners.iter().map(|listener| u64::from(listener.max_data)).max();
    let needed = largest.unwrap_or(0).saturating_mul(2);
    if limits.outbox_total < limits.outbox.saturating_mul(2) {
        let what = "`outbox_total` must hold two outboxes that are full".to_owned();
        let help = "make it at least twice `outbox`, for each shard".to_owned();
        reading.problems.add(place.clone(), what, Some(help));
    }
    if limits.outbox < needed {
        let what = "`outbox` must hold two of the largest messages of any listener".to_owned();
        let help = format!("make it at least {needed}, or lower `max_data` of the listeners");
        reading.problems.add(place, what, Some(help));
    }
}
