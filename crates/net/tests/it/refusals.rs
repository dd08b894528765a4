//! A firewall on the way that refuses the packets of a connection which stands.

use std::io::{ErrorKind, Read, Write};
use std::process::Command;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt::Ipv4RecvErr};
use systole_core::Span;
use systole_core::kernel::SocketError;
use systole_net::Clock;
use systole_net::examine::{outlived, socket_error};

use crate::namespaces::{Host, Net};

const SOON: Span = Span::from_secs(5);

/// Runs the command `nft` in the router.
pub(crate) fn nft(net: &Net, line: &str) {
    let done = net.within(Host::Router, || Command::new("nft").arg(line).output().unwrap());
    assert!(done.status.success(), "nft {line}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Skips the test, unless `SYSTOLE_REQUIRE_TOOLS` is set, where the command `nft` is missing.
pub(crate) fn has_nft() -> bool {
    let found = Command::new("nft").arg("-v").output().is_ok();
    assert!(found || std::env::var_os("SYSTOLE_REQUIRE_TOOLS").is_none(), "needs nft");
    found
}

#[test]
fn a_refusal_on_the_way_is_a_warning_and_the_connection_goes_on() {
    if !has_nft() {
        return;
    }
    for (test, kind, expected) in [
        ("port", "port-unreachable", SocketError::Refused),
        ("prot", "prot-unreachable", SocketError::HostUnreachable),
        ("admin", "admin-prohibited", SocketError::HostUnreachable),
    ] {
        let Some(net) = Net::make(test) else { return };
        let (mut here, mut there) = net.connect();
        setsockopt(&here, Ipv4RecvErr, &true).unwrap();
        nft(&net, "add table ip t");
        nft(&net, "add chain ip t f { type filter hook forward priority 0; }");
        nft(&net, &format!("add rule ip t f ip daddr 10.2.0.2 reject with icmp type {kind}"));
        here.set_nonblocking(true).unwrap();
        here.write_all(b"x").unwrap();
        let clock = Clock::start();
        let error = loop {
            let error = here.read(&mut [0]).unwrap_err();
            if error.kind() != ErrorKind::WouldBlock {
                break error;
            }
            assert!(clock.monotonic() < SOON, "{kind}: no error within {SOON}");
            std::thread::park_timeout(Duration::from_millis(10));
        };
        assert_eq!((socket_error(&error), outlived(&error, &here)), (expected, true), "{error}");
        nft(&net, "delete table ip t");
        there.set_read_timeout(Some(SOON.into())).unwrap();
        let mut byte = [0];
        there.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x", "{kind}");
    }
}
