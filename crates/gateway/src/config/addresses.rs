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
        network.map(|it| plain(it.trunc())).ok_or_else(|| format!("{right}; \"{text}\" is none"))
    };
    tokens::texts(value).map_err(|_| right.to_owned())?.iter().map(read).collect()
}

/// Returns a network of IPv4-mapped IPv6 addresses as one of IPv4, as addresses are compared.
fn plain(network: IpNet) -> IpNet {
    let IpAddr::V4(address) = network.addr().to_canonical() else {
        return network;
    };
    let mapped = network.prefix_len().checked_sub(96).filter(|_| network.addr().is_ipv6());
    mapped.and_then(|length| IpNet::new(address.into(), length).ok()).unwrap_or(network)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_mapped_addresses_is_one_of_ipv4() {
        for (given, expected) in [
            ("::ffff:10.1.0.0/112", "10.1.0.0/16"),
            ("::ffff:192.0.2.1/128", "192.0.2.1/32"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("::/0", "::/0"),
            ("2001:db8::/32", "2001:db8::/32"),
        ] {
            assert_eq!(plain(given.parse().unwrap()).to_string(), expected, "{given}");
        }
    }
}
