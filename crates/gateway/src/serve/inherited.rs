//! Listening sockets that the parent of this process passed: each belongs to the listener, or the
//! admin interface, whose address it has.

use std::net::{SocketAddr, TcpListener};

use systole_net::inherited;

use super::error::ServeError;

/// Takes the listening sockets that the parent of this process passed, in `LISTEN_FDS`.
///
/// Call it before other threads start, since it removes variables of the environment.
///
/// # Errors
/// [`ServeError::Inherited`]: a descriptor is of another kind.
pub fn inherited_sockets() -> Result<Vec<TcpListener>, ServeError> {
    inherited::take_listeners().map_err(ServeError::Inherited)
}

/// Inherited sockets that no listener has taken yet, each with its address.
#[derive(Debug)]
pub(super) struct Unclaimed {
    sockets: Vec<(SocketAddr, TcpListener)>,
    /// The addresses at which a socket was sought.
    sought: Vec<SocketAddr>,
}

impl Unclaimed {
    /// Finds the address of each socket, and refuses two at one address: a listener takes one.
    pub(super) fn new(passed: Vec<TcpListener>) -> Result<Unclaimed, ServeError> {
        let mut sockets: Vec<(SocketAddr, TcpListener)> = Vec::new();
        for socket in passed {
            let address = socket.local_addr().map_err(ServeError::Inherited)?;
            if sockets.iter().any(|(other, _)| *other == address) {
                return Err(ServeError::InheritedTwice { address });
            }
            sockets.push((address, socket));
        }
        Ok(Unclaimed { sockets, sought: Vec::new() })
    }

    /// Takes the socket that listens at `address`.
    pub(super) fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        self.sought.push(address);
        let index = self.sockets.iter().position(|(at, _)| *at == address)?;
        let (_, socket) = self.sockets.swap_remove(index);
        tracing::info!(%address, "the listening socket is inherited");
        Some(socket)
    }

    /// Refuses a socket that is left over: nobody would accept the peers that queue at it.
    pub(super) fn finish(self) -> Result<(), ServeError> {
        match self.sockets.first() {
            Some(&(address, _)) => {
                Err(ServeError::InheritedUnclaimed { address, sought: self.sought })
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(host: u8) -> (SocketAddr, TcpListener) {
        let socket = TcpListener::bind(SocketAddr::from(([127, 78, 0, host], 0))).unwrap();
        (socket.local_addr().unwrap(), socket)
    }

    #[test]
    fn each_socket_goes_to_the_listener_with_its_address() {
        let ((first, a), (second, b)) = (socket(1), socket(2));
        let mut unclaimed = Unclaimed::new(vec![a, b]).unwrap();
        let other = SocketAddr::from(([127, 0, 0, 1], first.port()));
        let wildcard = SocketAddr::from(([0, 0, 0, 0], first.port()));
        let any_port = SocketAddr::from(([127, 78, 0, 1], 0));
        for address in [other, wildcard, any_port] {
            assert!(unclaimed.take(address).is_none(), "{address}");
        }
        assert_eq!(unclaimed.take(second).unwrap().local_addr().unwrap(), second);
        assert!(unclaimed.take(second).is_none(), "once");
        assert_eq!(unclaimed.take(first).unwrap().local_addr().unwrap(), first);
        unclaimed.finish().unwrap();
    }

    #[test]
    fn a_socket_that_no_listener_takes_is_an_error() {
        let (first, a) = socket(1);
        let mut unclaimed = Unclaimed::new(vec![a]).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], 7_400));
        assert!(unclaimed.take(address).is_none());
        let error = unclaimed.finish().unwrap_err().to_string();
        assert!(error.contains(&format!("inherited socket at {first}")), "{error}");
        assert!(error.contains("hint: ") && error.contains("127.0.0.1:7400"), "{error}");
    }

    #[test]
    fn two_sockets_at_one_address_are_an_error() {
        let (address, socket) = socket(1);
        let copy = socket.try_clone().unwrap();
        let error = Unclaimed::new(vec![socket, copy]).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()) && error.contains("hint: "), "{error}");
    }
}
