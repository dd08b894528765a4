//! Socket addresses as people write them: `127.0.0.1:7400`, `[::1]:7400`, `[fe80::1%eth0]:7400`,
//! `example.org:7400`.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};

/// The reason why a text is no socket address of this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AddressError {
    /// The text is not an IP address with a port.
    Malformed,
    /// The address names an interface that this machine does not have.
    UnknownInterface {
        /// The name in the text.
        name: String,
        /// The interfaces of this machine; empty if the system does not list them.
        known: Vec<String>,
    },
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddressError::Malformed => {
                f.write_str("expected an IP address and a port, as in 127.0.0.1:7400 or [::1]:7400")
            }
            AddressError::UnknownInterface { name, known } => {
                write!(f, "no interface of this machine is called {name:?}")?;
                match known.as_slice() {
                    [] => Ok(()),
                    known => write!(f, "; there are {}", known.join(", ")),
                }
            }
        }
    }
}

impl std::error::Error for AddressError {}

/// Parses an IP address with a port. The zone of an IPv6 address (RFC 4007), which says on which
/// link it is, is the number or the name of an interface, as in `[fe80::1%eth0]:7400`.
///
/// Resolves no host names and never blocks.
///
/// # Errors
/// The text is malformed, or names an interface that this machine does not have.
pub fn parse(text: &str) -> Result<SocketAddr, AddressError> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let (before, rest) = text.split_once('%').ok_or(AddressError::Malformed)?;
    let (zone, after) = rest.rsplit_once("]:").ok_or(AddressError::Malformed)?;
    let unzoned = format!("{before}]:{after}").parse().map_err(|_| AddressError::Malformed)?;
    let SocketAddr::V6(mut address) = unzoned else {
        return Err(AddressError::Malformed);
    };
    let unknown =
        || AddressError::UnknownInterface { name: zone.to_owned(), known: interface_names() };
    address.set_scope_id(interface_index(zone).ok_or_else(unknown)?);
    Ok(address.into())
}

/// Splits the address of a server, a `host:port`, into both. The host may be a name; an IPv6
/// address stands in brackets, which are not part of the result. `usual_port` stands in the example
/// of an error.
///
/// Resolves no host names and never blocks.
///
/// # Errors
/// What is wrong with the address, and what it must look like, as a part of a sentence.
pub fn split(address: &str, usual_port: u16) -> Result<(&str, u16), String> {
    let wrong = |what: &str, example: &str| {
        let nothing = with_port("", usual_port);
        let example = if is_plain(example) { example } else { &nothing };
        Err(format!("{what}, as in {example}"))
    };
    if let Some((_, rest)) = address.split_once("://") {
        let what = "this is a URL; an address is a host and a port";
        return wrong(what, &with_port(rest.split('/').next().unwrap_or_default(), usual_port));
    }
    if let Some((before, _)) = address.split_once('/') {
        return wrong("an address has no path", &with_port(before, usual_port));
    }
    if address.parse::<Ipv6Addr>().is_ok() {
        return wrong(
            "an IPv6 address stands in brackets before its port",
            &with_port(address, usual_port),
        );
    }
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, "")) => return wrong("a port is needed", &with_port(host, usual_port)),
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => (rest, None),
        },
        None => match address.rsplit_once(':') {
            Some((host, port)) => (host, Some(port).filter(|_| !host.contains(':'))),
            None if address.parse::<u16>().is_ok() => ("", Some(address)),
            None => return wrong("a port is needed", &with_port(address, usual_port)),
        },
    };
    let Some(port) = port else {
        let what = "an IPv6 address and its port are written with brackets and a colon";
        return wrong(what, &with_port("::1", usual_port));
    };
    match port.parse() {
        Ok(0) | Err(_) => {
            wrong("the port must be a number from 1 to 65535", &with_port(host, usual_port))
        }
        Ok(_) if host.is_empty() => wrong("a host is needed", &format!("127.0.0.1:{port}")),
        Ok(port) => Ok((host, port)),
    }
}

/// Returns an example of an address with this host, and its port if it has one.
fn with_port(host: &str, usual_port: u16) -> String {
    let is_v6 = host.parse::<Ipv6Addr>().is_ok();
    match host.rsplit_once(':') {
        _ if host.is_empty() => format!("127.0.0.1:{usual_port}"),
        _ if is_v6 => format!("[{host}]:{usual_port}"),
        _ if host.starts_with('[') && host.ends_with(']') => format!("{host}:{usual_port}"),
        Some((_, port)) if port.parse::<u16>().is_ok_and(|port| port > 0) => host.to_owned(),
        Some((name, _)) => format!("{name}:{usual_port}"),
        None => format!("{host}:{usual_port}"),
    }
}

/// Returns whether an address can be quoted in a message as it is.
fn is_plain(address: &str) -> bool {
    address.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]%".contains(&byte))
}

#[cfg(target_os = "linux")]
fn interface_index(name: &str) -> Option<u32> {
    nix::net::if_::if_nametoindex(name).ok()
}

#[cfg(target_os = "linux")]
fn interface_names() -> Vec<String> {
    let interfaces = nix::net::if_::if_nameindex();
    let name = |it: &nix::net::if_::Interface| it.name().to_string_lossy().into_owned();
    interfaces.map_or_else(|_| Vec::new(), |all| all.iter().map(name).collect())
}

/// Knows no name: on this system only the number of an interface can be written.
#[cfg(not(target_os = "linux"))]
fn interface_index(_name: &str) -> Option<u32> {
    None
}

#[cfg(not(target_os = "linux"))]
fn interface_names() -> Vec<String> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_zone_of_an_address_is_a_number_or_a_name() {
        let index = interface_index("lo").unwrap();
        let named = parse("[fe80::1%lo]:7400").unwrap();
        assert_eq!(named, parse(&format!("[fe80::1%{index}]:7400")).unwrap());
        assert_eq!(named.to_string(), format!("[fe80::1%{index}]:7400"));
        let error = parse("[fe80::1%eth99]:7400").unwrap_err();
        let AddressError::UnknownInterface { name, known } = &error else { panic!("{error:?}") };
        assert!(name == "eth99" && known.contains(&"lo".to_owned()), "{error}");
        assert!(error.to_string().contains("\"eth99\"; there are "), "{error}");
    }

    #[test]
    fn the_address_of_a_server_is_a_host_and_a_port() {
        for (address, host) in [
            ("127.0.0.1:7400", "127.0.0.1"),
            ("game.example.org:7400", "game.example.org"),
            ("[::1]:7400", "::1"),
            ("[fe80::1%eth0]:7400", "fe80::1%eth0"),
            ("[localhost]:7400", "localhost"),
        ] {
            assert_eq!(split(address, 7_400), Ok((host, 7_400)));
        }
        let url = "this is a URL; an address is a host and a port, as in";
        let port = "a port is needed, as in";
        let number = "the port must be a number from 1 to 65535, as in";
        for (address, start, example) in [
            ("http://host:80", url, "host:80"),
            ("https://host/path", url, "host:7400"),
            ("ws://[::1]:7400/a", url, "[::1]:7400"),
            ("ws://[::1]/a", url, "[::1]:7400"),
            ("://", url, "127.0.0.1:7400"),
            ("host:7400/path", "an address has no path, as in", "host:7400"),
            ("", port, "127.0.0.1:7400"),
            ("host", port, "host:7400"),
            ("127.0.0.1", port, "127.0.0.1:7400"),
            ("[::1]", port, "[::1]:7400"),
            ("a\u{202e}", port, "127.0.0.1:7400"),
            ("::1", "an IPv6 address stands in brackets before its port, as in", "[::1]:7400"),
            ("7400", "a host is needed, as in", "127.0.0.1:7400"),
            (":7400", "a host is needed, as in", "127.0.0.1:7400"),
            ("host:", number, "host:7400"),
            ("host:0", number, "host:7400"),
            ("host:http", number, "host:7400"),
            ("[::1]:99999", number, "[::1]:7400"),
            ("a:b:1", "an IPv6 address and its port are written with", "[::1]:7400"),
            ("[::1:7400", "an IPv6 address and its port are written with", "[::1]:7400"),
            ("[::1]7400", "an IPv6 address and its port are written with", "[::1]:7400"),
        ] {
            let error = split(address, 7_400).unwrap_err();
            assert!(error.starts_with(start), "{address:?}: {error}");
            assert!(error.ends_with(&format!(" as in {example}")), "{address:?}: {error}");
        }
    }

    #[test]
    fn what_is_no_address_is_malformed() {
        assert_eq!(parse("127.0.0.1:7400"), Ok(([127, 0, 0, 1], 7_400).into()));
        for bad in [
            "",
            "%",
            "[%]:",
            "localhost:1",
            "127.0.0.1%lo:1",
            "[127.0.0.1%lo]:1",
            "fe80::1%lo",
            "[fe80::1%lo]",
            "[fe80::1%lo]:",
            "[fe80::1%lo]:65536",
            "[fe80::zz%lo]:1",
        ] {
            assert!(matches!(parse(bad), Err(AddressError::Malformed)), "{bad}");
        }
        for unknown in ["[fe80::1%]:1", "[fe80::1%a\0b]:1", "[fe80::1%99999999999]:1"] {
            assert!(matches!(parse(unknown), Err(AddressError::UnknownInterface { .. })));
        }
    }
}
