//! Each fault of the path or of an end, and what one examination shows of it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use socket2::SockRef;
use systole_core::Span;
use systole_core::kernel::{Examination, Patience, SendState, SocketError, TcpSnapshot};
use systole_net::examine::outlived;
use systole_net::socket_options::{follow, prepare, user_timeout};
use systole_net::{Clock, SocketOptions, examine};

use crate::namespaces::{Host, Net};

const SOON: Span = Span::from_secs(5);

/// A connection with the options for outages of a minute on both ends, over which data has gone.
fn link(net: &Net) -> (TcpStream, TcpStream) {
    let (mut here, mut there) = net.connect();
    for end in [&here, &there] {
        let applied = prepare(&patience(SendState::Sending), end);
        assert!(applied.missing().all(|part| part == "TCP_RTO_MAX_MS"), "{applied:?}");
    }
    here.write_all(b"ping").unwrap();
    let mut bytes = [0; 4];
    there.read_exact(&mut bytes).unwrap();
    there.write_all(b"pong").unwrap();
    here.read_exact(&mut bytes).unwrap();
    (here, there)
}

fn patience(send: SendState) -> Patience {
    Patience::new(Some(Span::from_secs(60)), send)
}

/// Examines `stream` in its namespace until `seen`, or fails with the last that was found.
fn until(
    net: &Net,
    stream: &TcpStream,
    limit: Span,
    seen: impl Fn(&Examination) -> bool + Sync,
) -> Examination {
    net.within(Host::Here, || {
        let clock = Clock::start();
        loop {
            let found = examine(stream);
            if seen(&found) {
                return found;
            }
            assert!(clock.monotonic() < limit, "never seen within {limit}; last: {found:?}");
            pause(Duration::from_millis(10));
        }
    })
}

/// Lets the kernel work between two looks; each test waits for a condition, not for a time.
fn pause(span: Duration) {
    std::thread::park_timeout(span);
}

fn tcp(found: &Examination) -> TcpSnapshot {
    found.tcp.expect("this is Linux")
}

#[test]
fn a_black_hole_shows_unacknowledged_bytes_and_retransmissions() {
    let Some(net) = Net::make("hole") else { return };
    let (mut here, _there) = link(&net);
    net.ip(Host::Router, "route add blackhole 10.2.0.2/32");
    here.write_all(b"x").unwrap();
    let seen = |found: &Examination| tcp(found).retransmits >= 3;
    let found = until(&net, &here, SOON, seen);
    let tcp = tcp(&found);
    assert!(tcp.unacked > 0 && tcp.backoff >= 2 && tcp.total_retrans >= 3, "{tcp:?}");
    assert!(tcp.last_ack > Span::from_millis(500), "{tcp:?}");
    assert_eq!((found.error, found.local_down), (None, Some(false)));
    assert_eq!(SendState::of(&tcp), SendState::Sending);
}

#[test]
fn a_reader_that_stops_shows_a_closed_window() {
    let Some(net) = Net::make("zwin") else { return };
    let (mut here, mut there) = link(&net);
    here.set_nonblocking(true).unwrap();
    let mut sent = 0;
    let clock = Clock::start();
    let closed = loop {
        match here.write(&[0; 65_536]) {
            Ok(bytes) => sent += bytes,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        let found = examine(&here);
        if tcp(&found).send_window == Some(0) && tcp(&found).probes + tcp(&found).backoff > 0 {
            break tcp(&found);
        }
        assert!(clock.monotonic() < SOON, "{found:?}");
        pause(Duration::from_millis(10));
    };
    assert!(closed.notsent.is_some_and(|bytes| bytes > 0), "{closed:?}");
    assert_eq!(SendState::of(&closed), SendState::Closed);
    follow(&patience(SendState::Closed), &here).unwrap();
    assert_eq!(SockRef::from(&here).tcp_user_timeout().unwrap(), None);

    let mut buffer = vec![0; 1 << 20];
    let mut received = 0;
    while received < sent {
        received += there.read(&mut buffer).unwrap();
    }
    let open = |found: &Examination| SendState::of(&tcp(found)) == SendState::Sending;
    until(&net, &here, SOON, open);
    follow(&patience(SendState::Sending), &here).unwrap();
    let restored = SockRef::from(&here).tcp_user_timeout().unwrap().map(Span::from);
    let options = SocketOptions::new(Some(Span::from_secs(60)));
    assert_eq!(restored, Some(options.user_timeout));
}

/// With the cap of 1 s left on, the kernel gives up within three seconds.
#[test]
fn the_last_bytes_outlive_their_process_behind_a_closed_window() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    SockRef::from(&listener).set_recv_buffer_size(16 * 1024).unwrap();
    let mut here = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut there, _) = listener.accept().unwrap();
    let _ = prepare(&patience(SendState::Sending), &here);
    here.set_nonblocking(true).unwrap();
    let mut sent = 0;
    while let Ok(bytes) = here.write(&[7; 65_536]) {
        sent += bytes;
    }
    follow(&Patience::new(None, SendState::Leaving), &here).unwrap();
    drop(here);
    let clock = Clock::start();
    while clock.monotonic() < Span::from_secs(4) {
        assert_eq!(examine(&there).error, None, "after {}", clock.monotonic());
        pause(Duration::from_millis(50));
    }
    let mut received = Vec::new();
    there.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), sent);
}

#[test]
fn a_peer_that_refuses_is_a_reset() {
    let Some(net) = Net::make("rst") else { return };
    let (here, there) = link(&net);
    SockRef::from(&there).set_linger(Some(Duration::ZERO)).unwrap();
    drop(there);
    let found = until(&net, &here, SOON, |found| found.error.is_some());
    assert_eq!(found.error, Some(SocketError::Reset));
    assert_eq!(examine(&here).error, None, "reading an error takes it away");
}

#[test]
fn a_reset_by_a_process_that_ended_leaves_nothing_unacknowledged() {
    let Some(net) = Net::make("unread") else { return };
    let (mut here, there) = link(&net);
    here.write_all(b"unread").unwrap();
    until(&net, &here, SOON, |found| tcp(found).is_owed() == Some(false));
    drop(there);
    let found = until(&net, &here, SOON, |found| found.error.is_some());
    assert_eq!(found.error, Some(SocketError::Reset));
    assert_eq!(tcp(&found).is_owed(), Some(false), "{found:?}");
}

#[test]
fn a_reset_by_a_machine_that_knows_nothing_answers_what_it_never_acknowledged() {
    for accepted in [false, true] {
        let Some(net) = Net::make(if accepted { "knows" } else { "knew" }) else { return };
        let (here, there) = link(&net);
        let (mut asking, at, other) = if accepted {
            (there, Host::There, "10.1.0.2/32")
        } else {
            (here, Host::Here, "10.2.0.2/32")
        };
        // The router takes the address of the other end: a kernel that never heard of the link.
        net.ip(Host::Router, &format!("addr add {other} dev lo"));
        asking.write_all(b"hi").unwrap();
        let clock = Clock::start();
        let found = loop {
            let found = net.within(at, || examine(&asking));
            if found.error.is_some() {
                break found;
            }
            assert!(clock.monotonic() < SOON, "{found:?}");
            pause(Duration::from_millis(10));
        };
        assert_eq!(found.error, Some(SocketError::Reset));
        assert_eq!(tcp(&found).is_owed(), Some(true), "accepted {accepted}: {found:?}");
        assert_eq!(tcp(&found).unacked, 0, "the reset has cleared it");
    }
}

#[test]
fn our_own_interface_down_strands_our_bytes() {
    stranded("ifdown", "link set eth down");
}

#[test]
fn our_own_address_gone_strands_our_bytes() {
    stranded("addr", "addr del 10.1.0.2/24 dev eth");
}

fn stranded(test: &str, fault: &str) {
    let Some(net) = Net::make(test) else { return };
    let (mut here, _there) = link(&net);
    net.ip(Host::Here, fault);
    here.write_all(b"x").unwrap();
    let found = until(&net, &here, SOON, |found| tcp(found).probes >= 2);
    let tcp = tcp(&found);
    assert_eq!((tcp.unacked, tcp.notsent, tcp.total_retrans), (0, Some(1), 0), "{tcp:?}");
    assert!(tcp.send_window.is_some_and(|window| window > 0) && tcp.backoff > 0, "{tcp:?}");
    assert_eq!((found.error, found.local_down), (None, Some(true)));
    assert_eq!(SendState::of(&tcp), SendState::Stranded);
}

#[test]
fn a_router_that_says_unreachable_is_heard_while_the_link_lives() {
    let cases = [
        ("host", "route add unreachable 10.2.0.2/32", SocketError::HostUnreachable),
        ("net", "addr del 10.2.0.1/24 dev r2", SocketError::NetworkUnreachable),
    ];
    for (test, fault, expected) in cases {
        let Some(net) = Net::make(test) else { return };
        let (mut here, mut there) = link(&net);
        net.ip(Host::Router, fault);
        here.write_all(b"x").unwrap();
        let found = until(&net, &here, SOON, |found| found.error.is_some());
        assert_eq!((found.error, found.local_down), (Some(expected), Some(false)), "{test}");
        net.ip(
            Host::Router,
            &fault.replace("addr del", "addr replace").replace("route add", "route del"),
        );
        there.set_read_timeout(Some(SOON.into())).unwrap();
        let mut byte = [0];
        there.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }
}

#[test]
fn a_read_that_tells_of_a_router_does_not_end_the_link_and_a_timeout_does() {
    let Some(net) = Net::make("read") else { return };
    let (mut here, _there) = link(&net);
    here.set_nonblocking(true).unwrap();
    net.ip(Host::Router, "route add unreachable 10.2.0.2/32");
    here.write_all(b"x").unwrap();
    let error = failing_read(&mut here);
    assert_eq!(error.kind(), ErrorKind::HostUnreachable);
    assert!(outlived(&error, &here));

    net.ip(Host::Router, "route replace blackhole 10.2.0.2/32");
    user_timeout(Some(Span::from_secs(1)), &here).unwrap();
    let mut error = failing_read(&mut here);
    // What the router said last may still have been on its way.
    while outlived(&error, &here) {
        error = failing_read(&mut here);
    }
    assert!(matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::HostUnreachable), "{error}");
    assert_eq!(here.read(&mut [0]).unwrap(), 0, "its error taken, a dead link reads as ended");
}

/// The next error of reading, other than that there is nothing to read.
fn failing_read(stream: &mut TcpStream) -> std::io::Error {
    let clock = Clock::start();
    loop {
        let error = stream.read(&mut [0]).unwrap_err();
        if error.kind() != ErrorKind::WouldBlock {
            return error;
        }
        assert!(clock.monotonic() < SOON, "no error within {SOON}");
        pause(Duration::from_millis(10));
    }
}

#[test]
fn after_an_outage_the_same_socket_moves_within_the_cap() {
    let Some(net) = Net::make("heal") else { return };
    let (mut here, mut there) = link(&net);
    if prepare(&patience(SendState::Sending), &here).missing().next().is_some() {
        eprintln!("heal: skipped, this kernel has no TCP_RTO_MAX_MS");
        return;
    }
    net.ip(Host::Router, "route add blackhole 10.2.0.2/32");
    here.write_all(b"x").unwrap();
    // Without the cap the fifth retransmission would come 3.2 s after the fourth.
    until(&net, &here, SOON, |found| tcp(found).retransmits >= 4);
    let clock = Clock::start();
    net.ip(Host::Router, "route del blackhole 10.2.0.2/32");
    there.set_read_timeout(Some(SOON.into())).unwrap();
    there.read_exact(&mut [0]).unwrap();
    let after = clock.monotonic();
    eprintln!("moved {after} after the path was back");
    assert!(after <= Span::from_millis(1_200), "{after}");
}
