//! A compact socket address: half the memory, because each link holds one.

use alloc::boxed::Box;
use core::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

/// A socket address of 16 bytes; an IPv6 address is boxed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Address {
    V4(SocketAddrV4),
    V6(Box<SocketAddrV6>),
}

const _: () = assert!(size_of::<Address>() <= 16);

impl Address {
    pub(super) fn get(&self) -> SocketAddr {
        match self {
            Address::V4(address) => SocketAddr::V4(*address),
            Address::V6(address) => SocketAddr::V6(**address),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        match address {
            SocketAddr::V4(address) => Address::V4(address),
            SocketAddr::V6(address) => Address::V6(Box::new(address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_round_trip() {
        for text in ["192.0.2.7:80", "[2001:db8::1]:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Address::from(address).get(), address);
        }
    }
}
