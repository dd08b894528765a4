//! A compact socket address: each device holds one.

use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::plain::plain_struct;

/// A socket address in 18 bytes instead of 32, enough to show and compare it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PackedAddress {
    ip: [u8; 16],
    port: u16,
}

impl From<SocketAddr> for PackedAddress {
    fn from(address: SocketAddr) -> PackedAddress {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        PackedAddress { ip: ip.octets(), port: address.port() }
    }
}

impl From<PackedAddress> for SocketAddr {
    fn from(packed: PackedAddress) -> SocketAddr {
        SocketAddr::new(Ipv6Addr::from(packed.ip).to_canonical(), packed.port)
    }
}

plain_struct! { PackedAddress { ip, port } }
