//! Reads `[[listener]]`: where clients connect, what they speak, and what they may ask for.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::Path;

use systole_core::liveness::Role;
use systole_core::policy::MAX_BOUND;
use systole_core::wire::Codec;
use systole_core::{Policy, Span};

use super::beacon::{self, BEACON, BeaconListener, DEFAULT_MAX_BEACONS};
use super::policy;
use super::section::{Given, Reading, Section};
use super::value;

/// The most listeners of one gateway. Each costs a socket and a poll entry per shard; nobody needs
/// as many, and a generated file gone wrong is caught.
pub const MAX_LISTENERS: usize = 64;

/// The longest name of a listener in bytes: it is a label of every metric.
pub const MAX_NAME: usize = 32;

/// The longest message a client may send in one piece, unless said otherwise: what the protocol
/// allows, for a smaller one would surprise clients that keep to the document.
pub const DEFAULT_MAX_DATA: u64 = 65_536;

/// The data bytes of every `message1028` message.
pub const MESSAGE1028_DATA: u64 = 1_024;

/// The shortest bound that a client may ask for, unless said otherwise: that of the most demanding
/// preset. Shorter costs heartbeats that the client does not pay for.
pub const DEFAULT_SHORTEST_BOUND: Span = Span::from_secs(2);

/// The longest bound that a client may ask for, unless said otherwise. Longer keeps ghosts longer
/// than an operator would look for them.
pub const DEFAULT_LONGEST_BOUND: Span = Span::from_secs(300);

/// A place where clients connect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listener {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) codec: Codec,
    pub(super) role: Role,
    pub(super) policy: Policy,
    pub(super) max_data: u32,
    pub(super) bounds: RangeInclusive<Span>,
}

/// Codecs by the names they have in the file and on the command line.
pub const CODECS: [(&str, Codec); 3] =
    [("native", Codec::Native), ("message1028", Codec::Message1028), ("line", Codec::Line)];

/// Roles of the gateway by the names they have in the file.
pub const ROLES: [(&str, Role); 2] = [("probe", Role::Probe), ("watch", Role::Watch)];

impl Listener {
    /// What metrics, logs and the ready file call it; unique, at most [`MAX_NAME`] bytes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens; with port 0 the system chooses.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What clients speak there.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Whether the gateway probes or only watches.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The policy of its clients unless they agree on another one.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// The longest message it takes, in bytes: 1 to 65,536.
    pub fn max_data(&self) -> u32 {
        self.max_data
    }

    /// The bounds D that a client may ask for; what lies outside is answered with the nearer end.
    /// The listener's own policy may lie outside.
    pub fn bounds(&self) -> RangeInclusive<Span> {
        self.bounds.clone()
    }

    /// A listener with all defaults.
    pub(super) fn new(name: &str, address: SocketAddr, codec: Codec, policy: Policy) -> Listener {
        Listener {
            name: name.to_owned(),
            address,
            codec,
            role: Role::Probe,
            policy,
            max_data: u32::try_from(largest_data(codec)).unwrap_or(u32::MAX),
            bounds: DEFAULT_SHORTEST_BOUND..=DEFAULT_LONGEST_BOUND,
        }
    }

    /// One per codec, on loopback: reaching further is a decision that belongs in the file.
    pub(super) fn defaults(policy: Policy) -> Vec<Listener> {
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        vec![
            Listener::new("native", at(7400), Codec::Native, policy),
            Listener::new("message1028", at(7410), Codec::Message1028, policy),
            Listener::new("line", at(7420), Codec::Line, policy),
        ]
    }
}

/// What a codec is called in the file, on the command line, in metrics and logs.
pub fn codec_name(codec: Codec) -> &'static str {
    value::name_of(&codec, &CODECS)
}

/// What a role is called in the file.
pub fn role_name(role: Role) -> &'static str {
    value::name_of(&role, &ROLES)
}

fn largest_data(codec: Codec) -> u64 {
    match codec {
        Codec::Native | Codec::Line => DEFAULT_MAX_DATA,
        Codec::Message1028 => MESSAGE1028_DATA,
    }
}

/// What clients of a listener speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Speech {
    Stream(Codec),
    Beacon,
}

const SPEECHES: [(&str, Speech); 4] = [
    ("native", Speech::Stream(Codec::Native)),
    ("message1028", Speech::Stream(Codec::Message1028)),
    ("line", Speech::Stream(Codec::Line)),
    (BEACON, Speech::Beacon),
];

/// One `[[listener]]`, read.
#[derive(Debug)]
pub(super) enum Read {
    /// Where clients connect.
    Stream(Listener),
    /// Where devices send datagrams.
    Beacon(BeaconListener),
}

/// Reads one `[[listener]]`; `None` if it was refused. Relative paths start from `directory`.
pub(super) fn read(
    reading: &mut Reading<'_>,
    mut section: Section<'_>,
    base: Policy,
    directory: &Path,
) -> Option<Read> {
    let place = section.span();
    let name = section.take(reading, "name", |value| value::text(value).and_then(check_name));
    let address = section.take(reading, "address", value::address);
    let speech = section.take(reading, "codec", value::chosen(&SPEECHES));
    let speech = Given::or(speech, Speech::Stream(Codec::Native));
    let role = section.take(reading, "role", value::chosen(&ROLES));
    let data = section.take(reading, "max_data", value::bytes(1..=DEFAULT_MAX_DATA));
    let bounds = || value::span(Span::from_millis(1)..=MAX_BOUND);
    let shortest = section.take(reading, "shortest_bound", bounds());
    let longest = section.take(reading, "longest_bound", bounds());
    let beacons = beacon::Settings {
        keys_file: section.take(reading, "keys_file", value::text),
        master_secret_file: section.take(reading, "master_secret_file", value::text),
        max_beacons: section.take(
            reading,
            "max_beacons",
            value::integer(beacon::max_beacons_range()),
        ),
    };
    let table = section.section(reading, "policy");
    let policy = policy::read(reading, table, base);
    let has_address = section.has("address");
    section.finish(reading);

    let role_at = role.as_ref().map(|role| role.span.clone());
    refuse_what_the_codec_lacks(reading, speech, data.as_ref(), [&shortest, &longest], role_at);
    refuse_what_is_for_beacons(reading, speech, &beacons);
    let bounds = agreed_bounds(reading, shortest, longest);
    let keys = match speech {
        Speech::Beacon => beacons.keys(reading, directory, place.clone()),
        Speech::Stream(_) => None,
    };
    let Some(address) = address else {
        if !has_address {
            let help = "say where to listen, as in address = \"127.0.0.1:7400\"".to_owned();
            reading.problems.add(place, "this listener has no `address`".to_owned(), Some(help));
        }
        return None;
    };
    let address = address.value;
    let codec = match speech {
        Speech::Stream(codec) => codec,
        Speech::Beacon => {
            let name = Given::or(name, BEACON.to_owned());
            let given = beacons.max_beacons.and_then(|given| u32::try_from(given.value).ok());
            let max_beacons = given.unwrap_or(DEFAULT_MAX_BEACONS);
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
    Some(Read::Stream(listener))
}

fn agreed_bounds(
    reading: &mut Reading<'_>,
    shortest: Option<Given<Span>>,
    longest: Option<Given<Span>>,
) -> RangeInclusive<Span> {
    let given = longest.as_ref().or(shortest.as_ref()).map(|given| given.span.clone());
    let shortest = Given::or(shortest, DEFAULT_SHORTEST_BOUND);
    let longest = Given::or(longest, DEFAULT_LONGEST_BOUND);
    if shortest > longest {
        let (shortest, longest) = (value::show_span(shortest), value::show_span(longest));
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

/// The other codecs have messages of one size, or cannot negotiate: a setting that would do nothing
/// is a misunderstanding, so it is refused.
fn refuse_what_the_codec_lacks(
    reading: &mut Reading<'_>,
    speech: Speech,
    data: Option<&Given<u64>>,
    bounds: [&Option<Given<Span>>; 2],
    role: Option<std::ops::Range<usize>>,
) {
    let name = value::name_of(&speech, &SPEECHES);
    let mut refuse = |place, key: &str, why: &str| {
        let what = format!("`{key}` has no effect on a {name} listener");
        reading.problems.add(Some(place), what, Some(format!("leave it out: {why}")));
    };
    let data = data.map(|data| data.span.clone());
    match speech {
        Speech::Stream(Codec::Native) => return,
        Speech::Stream(Codec::Line) => {}
        Speech::Stream(Codec::Message1028) => {
            if let Some(place) = data {
                refuse(place, "max_data", "these messages always hold 1024 bytes");
            }
        }
        Speech::Beacon => {
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

fn refuse_what_is_for_beacons(
    reading: &mut Reading<'_>,
    speech: Speech,
    settings: &beacon::Settings,
) {
    if speech == Speech::Beacon {
        return;
    }
    for (place, key) in settings.given() {
        let what = format!("`{key}` belongs to beacon listeners");
        let help = "leave it out, or set codec = \"beacon\"".to_owned();
        reading.problems.add(Some(place), what, Some(help));
    }
}
