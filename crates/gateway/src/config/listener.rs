//! Reads `[[listener]]`: address, codec, policy, and the limits of what clients may negotiate.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;

use systole_core::link;
use systole_core::liveness::Role;
use systole_core::policy::MAX_BOUND;
use systole_core::window;
use systole_core::wire::Codec;
use systole_core::{Policy, Span};
use systole_net::tls::ALPN;

use super::beacon::{self, BEACON, BeaconListener, BeaconSettings, DEFAULT_MAX_BEACONS};
use super::policy;
use super::resume::Resume;
use super::section::{Given, Reading, Section};
use super::sessions::{self, SessionSettings};
use super::span::show_span;
use super::tls::{ClientIdentity, Tls, TlsSettings};
use super::tokens::{Circumstances, LoginSettings, Logins};
use super::value;
use crate::identity::{Tokens, Verifier, Webhook};

/// Maximum number of listeners of one gateway. Each takes a socket and a poll entry per shard; a
/// larger number is a mistake in a generated file.
pub(super) const MAX_LISTENERS: usize = 64;

/// Maximum length of a listener's name in bytes: events and log lines repeat it.
const MAX_NAME: usize = 32;

/// Default maximum of the data in one message, in bytes: the maximum of the protocol, because
/// clients that follow its document may send it.
const DEFAULT_MAX_DATA: u64 = 65_536;

/// Number of data bytes in every `message1028` message.
const MESSAGE1028_DATA: u64 = 1_024;

/// Default of the shortest bound that a client may request: the bound of the most demanding preset.
/// A shorter bound costs the gateway more heartbeats.
const DEFAULT_SHORTEST_BOUND: Span = Span::from_secs(2);

/// Default of the longest bound that a client may request. A longer bound keeps dead sessions
/// longer than an operator expects.
const DEFAULT_LONGEST_BOUND: Span = Span::from_secs(300);

/// A TCP listener for clients.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listener {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) codec: Codec,
    pub(super) role: Role,
    pub(super) policy: Policy,
    pub(super) max_data: u32,
    pub(super) bounds: RangeInclusive<Span>,
    pub(super) tls: Option<Tls>,
    pub(super) client_identity: ClientIdentity,
    pub(super) has_client_roots: bool,
    pub(super) sessions: link::Logins,
    pub(super) rates: link::Rates,
    pub(super) window: Option<window::Limits>,
    pub(super) resume: Resume,
    pub(super) logins: Logins,
}

/// Names of the codecs in the file and on the command line.
pub(super) const CODECS: [(&str, Codec); 3] =
    [("native", Codec::Native), ("message1028", Codec::Message1028), ("line", Codec::Line)];

/// Names of the roles of the gateway in the file.
const ROLES: [(&str, Role); 2] = [("probe", Role::Probe), ("watch", Role::Watch)];

impl Listener {
    /// Returns the listener's name in metrics, logs and the ready file: unique, at most 32 bytes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the address to listen at; with port 0 the system chooses the port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the codec that clients use.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Returns whether the gateway sends probes or only watches.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Returns the policy for its clients, except those that negotiate another one.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Returns the maximum of the data in one message, in bytes: 1 to 65,536.
    pub fn max_data(&self) -> u32 {
        self.max_data
    }

    /// Returns the range of bounds that a client may request; a request outside gets the nearest
    /// bound of the range. The listener's own policy may be outside.
    pub fn bounds(&self) -> RangeInclusive<Span> {
        self.bounds.clone()
    }

    /// Returns the TLS of its connections; `None` for plain ones.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Returns where the identity of its clients comes from.
    pub fn client_identity(&self) -> ClientIdentity {
        self.client_identity
    }

    /// Returns what happens when an identity logs in again.
    pub fn sessions(&self) -> link::Logins {
        self.sessions
    }

    /// Returns how much a session may send.
    pub fn rates(&self) -> link::Rates {
        self.rates
    }

    /// Returns how much either end of a session may send that is not acknowledged; `None` for
    /// sessions without a window.
    pub fn window(&self) -> Option<window::Limits> {
        self.window
    }

    /// Returns how its sessions outlive their links.
    pub fn resume(&self) -> Resume {
        self.resume
    }

    /// Returns who verifies the tokens of its clients; `None` if nobody looks at them.
    pub fn verifier(&self) -> Option<&Verifier> {
        self.logins.verifier.as_ref()
    }

    /// Returns the rules by which the gateway itself verifies the tokens.
    pub fn tokens(&self) -> Option<&Tokens> {
        match self.verifier()? {
            Verifier::Tokens(tokens) => Some(tokens),
            Verifier::Webhook(_) => None,
        }
    }

    /// Returns the service that verifies the tokens.
    pub fn webhook(&self) -> Option<&Webhook> {
        match self.verifier()? {
            Verifier::Webhook(webhook) => Some(webhook),
            Verifier::Tokens(_) => None,
        }
    }

    /// Returns whether clients that prove nothing may log in: with the identity that they claim, or
    /// without one where tokens are verified.
    pub fn anonymous(&self) -> bool {
        self.logins.anonymous
    }

    /// Returns whether only this machine reaches it.
    pub(super) fn is_local(&self) -> bool {
        is_local(self.address)
    }

    /// Creates a listener with default settings.
    pub(super) fn new(name: &str, address: SocketAddr, codec: Codec, policy: Policy) -> Listener {
        Listener {
            name: name.to_owned(),
            address,
            codec,
            role: Role::Probe,
            policy,
            max_data: u32::try_from(largest_data(codec)).unwrap_or(u32::MAX),
            bounds: DEFAULT_SHORTEST_BOUND..=DEFAULT_LONGEST_BOUND,
            tls: None,
            client_identity: ClientIdentity::default(),
            has_client_roots: false,
            sessions: sessions::DEFAULT,
            rates: link::Rates::default(),
            window: Some(sessions::WINDOW),
            resume: Resume::default_of(codec),
            logins: Logins { anonymous: true, verifier: None },
        }
    }

    /// Creates one listener per codec, on loopback: only the file can open them to the network.
    pub(super) fn defaults(policy: Policy) -> Vec<Listener> {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        vec![
            Listener::new("native", at(7400), Codec::Native, policy),
            Listener::new("message1028", at(7410), Codec::Message1028, policy),
            Listener::new("line", at(7420), Codec::Line, policy),
        ]
    }
}

/// Returns the name of a listener for which the file gives neither a name nor a codec.
pub(super) fn default_name() -> &'static str {
    codec_name(Codec::Native)
}

/// Returns the name of a codec in the file, on the command line, in metrics and logs.
pub fn codec_name(codec: Codec) -> &'static str {
    value::name_of(&codec, &CODECS)
}

/// Returns the name of a role in the file.
pub fn role_name(role: Role) -> &'static str {
    value::name_of(&role, &ROLES)
}

/// Returns the maximum of the data in one message of `codec`, in bytes.
fn largest_data(codec: Codec) -> u64 {
    match codec {
        Codec::Native | Codec::Line => DEFAULT_MAX_DATA,
        Codec::Message1028 => MESSAGE1028_DATA,
    }
}

/// The protocol of a listener: the value of its `codec`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Protocol {
    Stream(Codec),
    Beacon,
}

const PROTOCOLS: [(&str, Protocol); 4] = [
    ("native", Protocol::Stream(Codec::Native)),
    ("message1028", Protocol::Stream(Codec::Message1028)),
    ("line", Protocol::Stream(Codec::Line)),
    (BEACON, Protocol::Beacon),
];

/// A `[[listener]]` that was read.
#[derive(Debug)]
pub(super) enum Read {
    /// A TCP listener.
    Stream(Listener),
    /// A UDP listener for beacons.
    Beacon(BeaconListener),
}

/// Reads one `[[listener]]`; returns `None` if it was refused. Relative paths start from
/// `directory`.
pub(super) fn read(
    reading: &mut Reading<'_>,
    mut section: Section<'_>,
    base: Policy,
    directory: &Path,
) -> Option<Read> {
    let place = section.span();
    let name = section.take(reading, "name", |value| value::text(value).and_then(check_name));
    let address = section.take(reading, "address", value::address);
    let protocol = section.take(reading, "codec", value::chosen(&PROTOCOLS));
    let protocol = Given::or(protocol, Protocol::Stream(Codec::Native));
    let role = section.take(reading, "role", value::chosen(&ROLES));
    let data = section.take(reading, "max_data", value::bytes(1..=DEFAULT_MAX_DATA));
    let bounds = || value::span(Span::from_millis(1)..=MAX_BOUND);
    let shortest = section.take(reading, "shortest_bound", bounds());
    let longest = section.take(reading, "longest_bound", bounds());
    let beacons = BeaconSettings {
        keys_file: section.take(reading, "keys_file", value::text),
        master_secret_file: section.take(reading, "master_secret_file", value::text),
        max_beacons: section.take(
            reading,
            "max_beacons",
            value::integer(beacon::max_beacons_range()),
        ),
    };
    let tls = TlsSettings::take(reading, &mut section);
    let logins = LoginSettings::take(reading, &mut section);
    let sessions = SessionSettings::take(reading, &mut section);
    let table = section.section(reading, "policy");
    let policy = policy::read(reading, table, base);
    let has_address = section.has("address");
    section.finish(reading);

    let role_at = role.as_ref().map(|role| role.span.clone());
    refuse_without_effect(reading, protocol, data.as_ref(), [&shortest, &longest], role_at);
    refuse_beacon_settings(reading, protocol, &beacons);
    refuse_beacon_tls(reading, protocol, &tls);
    let bounds = requestable_bounds(reading, shortest, longest);
    let keys = match protocol {
        Protocol::Beacon => beacons.keys(reading, directory, place.clone()),
        Protocol::Stream(_) => None,
    };
    let Some(address) = address else {
        miss_address(reading, place, has_address);
        return None;
    };
    let address = address.value;
    let codec = match protocol {
        Protocol::Stream(codec) => codec,
        Protocol::Beacon => {
            let name = Given::or(name, BEACON.to_owned());
            let given = beacons.max_beacons.and_then(|given| u32::try_from(given.value).ok());
            let max_beacons = given.unwrap_or(DEFAULT_MAX_BEACONS);
            logins.refuse(reading);
            sessions.refuse(reading);
            let keys = keys?;
            return Some(Read::Beacon(BeaconListener { name, address, policy, max_beacons, keys }));
        }
    };
    let name = Given::or(name, codec_name(codec).to_owned());
    let mut listener = Listener::new(&name, address, codec, policy);
    listener.role = Given::or(role, listener.role);
    let data = data.and_then(|data| u32::try_from(data.value).ok());
    listener.max_data = data.unwrap_or(listener.max_data);
    listener.bounds = bounds;
    listener.tls = tls.read(reading, directory, protocol_names(codec));
    listener.client_identity = tls.client_identity(reading);
    listener.has_client_roots = tls.has_client_roots();
    sessions.read(reading, &mut listener);
    let circumstances = Circumstances {
        is_local: is_local(address),
        has_tokens: codec == Codec::Native,
        has_subjects: listener.client_identity == ClientIdentity::Subject,
        is_encrypted: tls.is_given(),
    };
    listener.logins = logins.read(reading, directory, place, &name, circumstances);
    Some(Read::Stream(listener))
}

/// Returns whether only this machine reaches an address.
fn is_local(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Returns the names by which TLS knows the protocol of a listener.
const fn protocol_names(codec: Codec) -> &'static [&'static [u8]] {
    match codec {
        Codec::Native => &[ALPN],
        Codec::Message1028 | Codec::Line => &[],
    }
}

/// Reports that a listener has no address, unless it has an illegal one.
fn miss_address(
    reading: &mut Reading<'_>,
    place: Option<std::ops::Range<usize>>,
    has_address: bool,
) {
    if has_address {
        return;
    }
    let help = "say where to listen, as in address = \"127.0.0.1:7400\"".to_owned();
    reading.problems.add(place, "this listener has no `address`".to_owned(), Some(help));
}

/// Refuses TLS for beacons, whose datagrams are signed one by one.
fn refuse_beacon_tls(reading: &mut Reading<'_>, protocol: Protocol, tls: &TlsSettings) {
    if protocol != Protocol::Beacon {
        return;
    }
    for (place, key) in tls.given() {
        let what = format!("`{key}` has no effect on a beacon listener");
        let help = "leave it out: beacons are datagrams, each with a signature".to_owned();
        reading.problems.add(Some(place), what, Some(help));
    }
}

/// Returns the range of bounds that clients may request.
fn requestable_bounds(
    reading: &mut Reading<'_>,
    shortest: Option<Given<Span>>,
    longest: Option<Given<Span>>,
) -> RangeInclusive<Span> {
    let given = longest.as_ref().or(shortest.as_ref()).map(|given| given.span.clone());
    let shortest = Given::or(shortest, DEFAULT_SHORTEST_BOUND);
    let longest = Given::or(longest, DEFAULT_LONGEST_BOUND);
    if shortest > longest {
        let (shortest, longest) = (show_span(shortest), show_span(longest));
        let what = "`shortest_bound` must not be above `longest_bound`".to_owned();
        let help = format!("they are {shortest} and {longest}");
        reading.problems.add(given, what, Some(help));
    }
    shortest..=longest
}

fn check_name(name: String) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(legal) {
        return Err(format!("1 to {MAX_NAME} letters, digits, '-' and '_'"));
    }
    Ok(name)
}

/// Refuses settings that have no effect on this protocol, because its messages have one size or its
/// clients cannot negotiate.
fn refuse_without_effect(
    reading: &mut Reading<'_>,
    protocol: Protocol,
    data: Option<&Given<u64>>,
    bounds: [&Option<Given<Span>>; 2],
    role: Option<std::ops::Range<usize>>,
) {
    let name = value::name_of(&protocol, &PROTOCOLS);
    let mut refuse = |place, key: &str, why: &str| {
        let what = format!("`{key}` has no effect on a {name} listener");
        reading.problems.add(Some(place), what, Some(format!("leave it out: {why}")));
    };
    let data = data.map(|data| data.span.clone());
    match protocol {
        Protocol::Stream(Codec::Native) => return,
        Protocol::Stream(Codec::Line) => {}
        Protocol::Stream(Codec::Message1028) => {
            if let Some(place) = data {
                refuse(place, "max_data", "these messages always hold 1024 bytes");
            }
        }
        Protocol::Beacon => {
            if let Some(place) = data {
                refuse(place, "max_data", "beacons are always 32 bytes");
            }
            if let Some(place) = role {
                refuse(place, "role", "the gateway never speaks first to a beacon");
            }
        }
    }
    for (bound, key) in bounds.into_iter().zip(["shortest_bound", "longest_bound"]) {
        if let Some(bound) = bound {
            refuse(bound.span.clone(), key, "only native clients can ask for a bound");
        }
    }
}

/// Refuses settings of beacon listeners on other listeners.
fn refuse_beacon_settings(
    reading: &mut Reading<'_>,
    protocol: Protocol,
    settings: &BeaconSettings,
) {
    if protocol == Protocol::Beacon {
        return;
    }
    for (place, key) in settings.given() {
        let what = format!("`{key}` belongs to beacon listeners");
        let help = "leave it out, or set codec = \"beacon\"".to_owned();
        reading.problems.add(Some(place), what, Some(help));
    }
}
