//! Addresses to listen at, in the configuration file and on the command line.

use std::net::{Ipv4Addr, SocketAddr};

use systole_net::address::{self, AddressError};

/// Parses an address to listen at: an IP address with a port. An IPv6 address that is valid on one
/// link has the interface of that link, as in `[fe80::1%eth0]:7400`.
///
/// # Errors
/// No socket of the gateway can listen there, on any machine. The error describes a legal address
/// and follows the words "must be".
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let address = address::parse(text).map_err(|error| match error {
        AddressError::Malformed => {
            "an IP address and a port, as in \"127.0.0.1:7400\" or \"[::1]:7400\"".to_owned()
        }
        AddressError::UnknownInterface { .. } => {
            format!("an address on an interface of this machine: {error}")
        }
    })?;
    if address.ip().is_multicast() || address.ip() == Ipv4Addr::BROADCAST {
        return Err("an address of one machine, not of a group".to_owned());
    }
    let SocketAddr::V6(v6) = address else {
        return Ok(address);
    };
    // An IPv6 socket of the gateway takes no IPv4 connections.
    if let Some(v4) = v6.ip().to_ipv4_mapped() {
        let plain = SocketAddr::from((v4, v6.port()));
        return Err(format!("an IPv4 address in its own form, \"{plain}\""));
    }
    if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 {
        let (ip, port) = (v6.ip(), v6.port());
        return Err(format!(
            "an address with its interface, as in \"[{ip}%eth0]:{port}\": each link has {ip}"
        ));
    }
    Ok(address)
}

/// Returns whether two sockets of one transport cannot listen at both addresses.
pub(super) fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let scope = |address| match address {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(v6) => v6.scope_id(),
    };
    let same = a.ip() == b.ip() && scope(a) == scope(b);
    let same = same || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() == b.port() && a.port() != 0 && a.is_ipv4() == b.is_ipv4() && same
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_socket_can_listen_at_is_refused() {
        for (text, right) in [
            ("localhost:1", "an IP address and a port, as in \"127.0.0.1:7400\""),
            ("[::ffff:127.0.0.1]:7400", "in its own form, \"127.0.0.1:7400\""),
            ("[fe80::1]:7400", "as in \"[fe80::1%eth0]:7400\""),
            ("[ff02::1%1]:7400", "an address of one machine, not of a group"),
            ("224.0.0.1:7400", "not of a group"),
            ("255.255.255.255:7400", "not of a group"),
            ("[fe80::1%eth99]:7400", "no interface of this machine is called \"eth99\""),
        ] {
            let error = listen_address(text).unwrap_err();
            assert!(error.contains(right), "{text}: {error}");
        }
        for good in ["[::]:7400", "[::1]:0", "0.0.0.0:1", "[2001:db8::1]:7400", "[fe80::1%1]:1"] {
            assert_eq!(listen_address(good).unwrap().to_string(), good);
        }
    }

    #[test]
    fn addresses_of_one_kind_overlap_on_one_port() {
        let overlap = |a, b| {
            let (a, b) = (listen_address(a).unwrap(), listen_address(b).unwrap());
            assert_eq!(super::overlap(a, b), super::overlap(b, a));
            super::overlap(a, b)
        };
        assert!(overlap("127.0.0.1:7400", "0.0.0.0:7400"));
        assert!(overlap("[::1]:7400", "[::]:7400"));
        assert!(overlap("[fe80::1%1]:7400", "[fe80::1%1]:7400"));
        assert!(overlap("[fe80::1%1]:7400", "[::]:7400"));
        assert!(!overlap("[fe80::1%1]:7400", "[fe80::1%2]:7400"));
        assert!(!overlap("0.0.0.0:7400", "[::]:7400"));
        assert!(!overlap("127.0.0.1:7400", "127.0.0.2:7400"));
        assert!(!overlap("127.0.0.1:7400", "127.0.0.1:7401"));
        assert!(!overlap("127.0.0.1:0", "127.0.0.1:0"));
    }
}
