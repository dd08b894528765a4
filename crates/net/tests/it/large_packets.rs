//! A path that carries no large packets, and whose router does not say so.

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use systole_core::cause::{Cause, Confidence, Direction, Scope};
use systole_core::diagnosis::{Case, Diagnosis, Doubts, diagnose};
use systole_core::kernel::{Patience, SendState};
use systole_core::{Span, Time};
use systole_net::socket_options::prepare;
use systole_net::{Clock, examine};

use crate::namespaces::{Host, Net};
use crate::refusals::{has_nft, nft};

const SOON: Span = Span::from_secs(10);

#[test]
fn a_path_without_large_packets_is_seen_from_both_ends() {
    if !has_nft() {
        return;
    }
    let Some(net) = Net::make("large") else { return };
    let (mut here, there) = net.connect();
    for end in [&here, &there] {
        let patience = Patience::new(Some(Span::from_secs(60)), SendState::Sending);
        prepare(&patience, end);
        end.set_nodelay(true).unwrap();
    }
    nft(&net, "add table ip t");
    nft(&net, "add chain ip t f { type filter hook forward priority 0; }");
    nft(&net, "add rule ip t f ip length > 1200 drop");
    here.write_all(&[7; 5_000]).unwrap();
    here.write_all(b"probe").unwrap();
    let large = |direction| Cause::PathLost { direction, scope: Scope::LargePackets };
    for (host, end, direction) in
        [(Host::Here, &here, Direction::Outbound), (Host::There, &there, Direction::Inbound)]
    {
        let found = diagnosis(&net, host, end, large(direction));
        assert_eq!(found.confidence, Confidence::Medium);
    }
}

/// Examines `end`, and sends a probe before each examination, until the diagnosis is `expected`.
fn diagnosis(net: &Net, host: Host, mut end: &TcpStream, expected: Cause) -> Diagnosis {
    let clock = Clock::start();
    // A thread of its own: the end of a thread would end the next pause of this one.
    net.within(host, move || {
        let mut doubts = Doubts::new(Time::ZERO);
        loop {
            end.write_all(b"probe").unwrap();
            // The acknowledgement of this probe, and the next retransmission.
            std::thread::park_timeout(Duration::from_millis(250));
            let now = clock.monotonic();
            doubts.see(Time::ZERO + now, &examine(&end));
            let (lasted, interval) = (Span::from_secs(3), Span::from_millis(500));
            let case = Case { lasted, interval, beyond_bound: true, probed: true };
            let found = diagnose(&case, &doubts);
            if found.cause == expected {
                return found;
            }
            assert!(now < SOON, "{expected}: not within {SOON}; last: {found:?}, {doubts:?}");
        }
    })
}
