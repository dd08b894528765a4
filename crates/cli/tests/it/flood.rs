//! A hostile client floods a gateway with connections; a neighbour at another address stays.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use systole_core::wire::{Beat, CloseReason, DataKind, Frame};

use crate::client::{Client, Goodbye, named};
use crate::gateway::{Gateway, ONE_SECOND, unhurried, wait};
use crate::program::SOON;

/// Connections that the flood tries.
const FLOOD: usize = 3_000;

/// How much a gateway may grow under a flood that is turned away, in KiB: buffers of the kernel's
/// accept queue are not its own, and no link is made.
pub(crate) const GROWTH: u64 = 16 << 10;

/// Connects from an address of loopback, which all of 127.0.0.0/8 is.
pub(crate) fn connect(from: u8, to: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).ok()?;
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 9, from), 0)).into()).ok()?;
    socket.connect_timeout(&to.into(), Duration::from_secs(5)).ok()?;
    Some(socket.into())
}

/// Asks for a login; `None` if the gateway turns the connection away without an answer.
fn ask(from: u8, gateway: &Gateway, identity: &str) -> Option<Result<Client, Goodbye>> {
    Client::ask(connect(from, gateway.address("native"))?, named(identity), SOON)
}

/// Logs a client in; `None` if the gateway turns it away.
pub(crate) fn log_in(from: u8, gateway: &Gateway, identity: &str) -> Option<Client> {
    ask(from, gateway, identity)?.ok()
}

/// The memory of a process, in KiB.
pub(crate) fn memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Starts a gateway that trusts nobody, with more configuration.
pub(crate) fn gateway_with(name: &str, config: &str, more: &str) -> Gateway {
    Gateway::start(name, &format!("{config}[addresses]\ntrusted = []\n{more}\n"))
}

fn gateway(name: &str, limits: &str) -> Gateway {
    gateway_with(name, ONE_SECOND, limits)
}

pub(crate) fn turned_away(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metric(&format!("systole_turned_away_total{{reason=\"{reason}\"}}"))
}

/// Keeps a client alive in a thread, which ends when the gateway ends the client.
fn live(client: Client) -> std::thread::JoinHandle<()> {
    std::thread::spawn(|| client.live())
}

#[test]
fn an_address_that_floods_is_turned_away_and_its_neighbour_lives_on() {
    let mut gateway = gateway("flood", "connections = 20\nhalf_open = 10");
    let neighbour = live(log_in(1, &gateway, "neighbour").expect("it is welcome"));
    let before = memory(gateway.process());
    let held: Vec<_> = (0..FLOOD).filter_map(|_| connect(2, gateway.address("native"))).collect();
    wait("the flood to be turned away", || {
        (turned_away(&gateway, "half_open") > FLOOD as f64 / 2.0).then_some(())
    });
    assert_eq!(gateway.metric("systole_links"), 11.0, "the neighbour and ten that say nothing");
    let during = memory(gateway.process());
    assert!(during < before + GROWTH, "{before} KiB before the flood, {during} KiB during it");
    assert!(log_in(1, &gateway, "another").is_some(), "other addresses come and go");
    let line = gateway.log("a connection was turned away").to_string();
    assert!(line.contains("127.0.9.2") && line.contains("trusted"), "{line}");
    assert!(!neighbour.is_finished(), "the neighbour has lived through it");
    assert_eq!(gateway.sessions("&identity=neighbour", 1).len(), 1);
    drop(held);
    wait("the flood to be over", || log_in(2, &gateway, "guest").map(drop));
}

#[test]
fn an_address_has_so_many_connections_that_are_online() {
    let gateway = gateway("flood-connections", "connections = 5");
    let held: Vec<_> =
        (0..5).map(|n| log_in(3, &gateway, &format!("peer {n}")).expect("room")).collect();
    assert!(log_in(3, &gateway, "one more").is_none());
    assert_eq!(turned_away(&gateway, "connections"), 1.0);
    assert!(log_in(4, &gateway, "another").is_some());
    drop(held);
    wait("room again", || log_in(3, &gateway, "one more").map(drop));
}

#[test]
fn an_address_that_comes_too_often_waits() {
    let gateway = gateway("flood-rate", "connections_per_second = 10");
    let came = (0..200).filter(|n| log_in(5, &gateway, &format!("peer {n}")).is_some()).count();
    assert!((20..150).contains(&came), "{came}");
    assert!(turned_away(&gateway, "rate") > 0.0);
    wait("a place", || log_in(5, &gateway, "patient").map(drop));
}

#[test]
fn a_client_that_sends_too_much_is_told_so_and_its_neighbour_is_not() {
    let limits = ONE_SECOND.replacen(
        "shortest_bound",
        "messages_per_second = 5\nheartbeats_per_second = 50\nshortest_bound",
        1,
    );
    let mut gateway = Gateway::start("flood-messages", &limits);
    let neighbour = live(log_in(6, &gateway, "neighbour").expect("it is welcome"));
    let before = memory(gateway.process());
    let mut client = log_in(7, &gateway, "flood").expect("it is welcome");
    let frame = Frame::data(b"x", false, DataKind::Eleven);
    assert!(client.send(&[frame; 60]), "the gateway reads");
    let said = client.goodbye();
    assert_eq!((said.reason, &*said.text), (CloseReason::Flooding, "too many messages"));
    let line = gateway.log("cause\":\"flooding").to_string();
    assert!(line.contains("it sent more than its listener allows"), "{line}");
    assert_eq!(gateway.metric("systole_verdicts_total{cause=\"flooding\"}"), 1.0);
    let during = memory(gateway.process());
    assert!(during < before + GROWTH, "{before} KiB before the flood, {during} KiB during it");
    assert!(!neighbour.is_finished());
}

#[test]
fn a_client_that_beats_too_often_is_told_its_interval_once_and_then_sent_away() {
    let limits =
        unhurried().replacen("shortest_bound", "heartbeats_per_second = 5\nshortest_bound", 1);
    let gateway = Gateway::start("flood-beats", &limits);
    let neighbour = live(log_in(8, &gateway, "neighbour").expect("it is welcome"));
    let before = memory(gateway.process());
    let mut client = log_in(9, &gateway, "flood").expect("it is welcome");
    let beats: Vec<_> = (0..50).map(|n| Frame::Ping(Beat::bare(n))).collect();
    let mut retunes = Vec::new();
    let reason = loop {
        // What was sent before the end may meet a closed socket.
        client.send(&beats);
        client.receive().expect("it answers");
        let end = client.find_received(|frame| {
            if let Frame::Retune(policy) = frame {
                retunes.push(policy);
            }
            let Frame::Close(close) = frame else { return None };
            Some(close.reason)
        });
        if let Some(reason) = end.expect("legal") {
            break reason;
        }
    };
    assert_eq!(reason, CloseReason::Flooding);
    assert_eq!(retunes.len(), 1, "{retunes:?}");
    let during = memory(gateway.process());
    assert!(during < before + GROWTH, "{before} KiB before the flood, {during} KiB during it");
    assert_eq!(gateway.metric("systole_verdicts_total{cause=\"flooding\"}"), 1.0);
    assert!(!neighbour.is_finished());
}

#[test]
fn a_storm_of_logins_of_one_identity_ends_neither_it_nor_others() {
    // Loopback is trusted here: the limit is that of the identity.
    let limit = "logins_per_minute = 1\nshortest_bound";
    let mut gateway =
        Gateway::start("flood-logins", &ONE_SECOND.replacen("shortest_bound", limit, 1));
    let stays = live(log_in(10, &gateway, "storm").expect("the first of the minute"));
    for from in 20..60 {
        let said = ask(from, &gateway, "storm").expect("an answer").err().expect("it is refused");
        assert_eq!((said.reason, said.stay_away), (CloseReason::Full, false));
        assert!((5_000..=60_000).contains(&said.return_after_ms), "{said:?}");
    }
    assert!(log_in(12, &gateway, "another").is_some(), "others come as before");
    assert!(!stays.is_finished());
    assert_eq!(gateway.sessions("&identity=storm", 1).len(), 1, "the session in force stays");
    let count = "systole_logins_refused_total{reason=\"too_often\"}";
    wait("the count", || (gateway.metric(count) == 40.0).then_some(()));
    let line = gateway.log("logins were refused").to_string();
    assert!(line.contains("too_often"), "{line}");
    let page = gateway.get("/api/v1/verdicts?established=false&cause=refused&limit=1");
    assert_eq!(page["verdicts"][0]["refusal"], "too_often", "{page}");
}
