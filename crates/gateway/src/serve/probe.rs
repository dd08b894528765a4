//! Finds the addresses at which this machine cannot listen, without listening, and the store that
//! it cannot open, without opening it.

use std::io;
use std::net::SocketAddr;

use systole_net::{datagrams, listener};

use super::error::ServeError;
use super::start::{ADMIN, listener_phrase};
use crate::config::Config;
use crate::store;

/// Returns an error for each address of the configuration that this machine cannot bind: it does
/// not have the address, or this user has no right to the port. Addresses in use are left out,
/// since a gateway that runs uses them.
///
/// The result depends on the machine and the user, so the configuration may still be right.
pub fn unbindable(config: &Config) -> Vec<ServeError> {
    let mut found = Vec::new();
    let mut note = |what: String, address, probe: io::Result<()>| match probe {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            found.push(ServeError::Bind { what, address, error });
        }
        Ok(()) | Err(_) => {}
    };
    let tcp = |address: SocketAddr| listener::probe(address);
    for it in &config.listeners {
        note(listener_phrase(it.name()), it.address(), tcp(it.address()));
    }
    for it in &config.beacons {
        note(listener_phrase(it.name()), it.address(), datagrams::probe(it.address()));
    }
    note(ADMIN.to_owned(), config.admin.address(), tcp(config.admin.address()));
    found
}

/// Returns why a gateway that starts now could not open its store; `None` if it could, or has none.
/// Nothing is created or changed.
///
/// A gateway that runs holds its store, so the configuration may still be right. Not for a process
/// that has the store open itself.
pub fn unopenable(config: &Config) -> Option<ServeError> {
    store::probe(config.store.as_ref()?).map(ServeError::Store)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::config::Overrides;

    #[test]
    fn addresses_of_other_machines_are_found_and_used_ones_are_not() {
        let used = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let _used = TcpListener::bind(used).unwrap();
        // Of the block for documentation (RFC 5737), which no machine has.
        let text = format!(
            "[[listener]]\naddress = \"{used}\"\n[[listener]]\nname = \"b\"\n\
             address = \"192.0.2.1:0\"\nanonymous = true\n[admin]\naddress = \"127.0.0.1:0\"\n"
        );
        let config = Config::load(&text, "f", &Overrides::default()).unwrap();
        let found: Vec<_> = unbindable(&config).iter().map(ToString::to_string).collect();
        let [only] = &found[..] else { panic!("{found:?}") };
        assert!(only.starts_with("listener \"b\" cannot listen at 192.0.2.1:0"), "{only}");
        assert!(only.contains("hint: this machine does not have that address"), "{only}");
    }
}
