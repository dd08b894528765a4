//! Reads `[addresses]`: what one address may have.

use std::net::IpAddr;
use std::num::NonZeroU32;

use ipnet::IpNet;
use toml::de::DeValue;

use super::section::{Given, Reading, Section};
use super::{tokens, value};
use crate::gate::GateSettings;

/// Default maximum of connections of an address that are not online yet: all clients of an office
/// that come back at once.
const DEFAULT_HALF_OPEN: u32 = 1_024;

/// Default maximum of new connections of an address in a second, for the same reason.
const DEFAULT_PER_SECOND: u32 = 1_000;

/// Networks that are trusted by default: this machine, whose users are not strangers.
const DEFAULT_TRUSTED: [&str; 2] = ["127.0.0.0/8", "::1/128"];

impl Default for GateSettings {
    fn default() -> GateSettings {
        GateSettings {
            trusted: DEFAULT_TRUSTED.iter().filter_map(|text| text.parse().ok()).collect(),
            connections: None,
            half_open: number(DEFAULT_HALF_OPEN),
            per_second: number(DEFAULT_PER_SECOND),
        }
    }
}

fn number(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

/// Reads `[addresses]`.
pub(super) fn read(reading: &mut Reading<'_>, mut section: Section<'_>) -> GateSettings {
    let default = GateSettings::default();
    let trusted = section.take(reading, "trusted", networks);
    let connections = section.take(reading, "connections", |value| match value.as_str() {
        Some("auto") => Ok(None),
        _ => count(value).map(Some).map_err(|right| format!("\"auto\", or {right}")),
    });
    let half_open = section.take(reading, "half_open", count);
    let per_second = section.take(reading, "connections_per_second", count);
    section.finish(reading);
    GateSettings {
        trusted: Given::or(trusted, default.trusted),
        connections: Given::or(connections, default.connections),
        half_open: Given::or(half_open, default.half_open),
        per_second: Given::or(per_second, default.per_second),
    }
}

fn count(value: &DeValue<'_>) -> Result<NonZeroU32, String> {
    let found = value::integer(1..=1_000_000_000)(value)?;
    Ok(number(u32::try_from(found).unwrap_or(u32::MAX)))
}

/// Reads networks, or addresses alone; none if the list is empty.
fn networks(value: &DeValue<'_>) -> Result<Vec<IpNet>, String> {
    if value.as_array().is_some_and(|list| list.is_empty()) {
        return Ok(Vec::new());
    }
    let right = "a list of networks in quotes, as in [\"10.0.0.0/8\"]";
    let read = |text: &String| {
        let network = text.parse::<IpNet>().ok();
        let network = network.or_else(|| Some(IpNet::from(text.parse::<IpAddr>().ok()?)));
        network.map(|it| it.trunc()).ok_or_else(|| format!("{right}; \"{text}\" is none"))
    };
    tokens::texts(value).map_err(|_| right.to_owned())?.iter().map(read).collect()
}
