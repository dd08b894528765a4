//! Socket addresses as people write them: `127.0.0.1:7400`, `[::1]:7400`, `[fe80::1%eth0]:7400`.

use std::fmt;
use std::net::SocketAddr;

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
