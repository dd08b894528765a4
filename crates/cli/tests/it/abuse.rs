//! Hostile clients that take no session: TLS handshakes that never end, and forged datagrams. What
//! they cost is bounded, counted, and no burden to others.

use std::io::{Read, Write};
use std::net::UdpSocket;

use systole_core::beacon::{Datagram, Device};
use systole_gateway::beacon::keys::{KEY, Keys};

use crate::directory;
use crate::flood::{GROWTH, connect, gateway_with, log_in, memory, turned_away};
use crate::gateway::{Gateway, ONE_SECOND, unhurried, wait};
use crate::program::SOON;
use crate::tls::{Authority, with_tls};

/// The head of a TLS record that announces a ClientHello of 16 KiB, and a part of it.
fn part_of_a_handshake() -> Vec<u8> {
    let mut bytes = vec![22, 3, 1, 0x3f, 0xff, 1, 0, 0x3f, 0xfb, 3, 3];
    bytes.resize(8_000, 7);
    bytes
}

#[test]
fn handshakes_that_never_end_take_the_places_of_their_address_alone() {
    const FLOOD: usize = 1_000;
    let folder = directory("abuse-tls-files");
    Authority::new(&folder).sign(&folder, "one.test");
    let limits = "[addresses]\ntrusted = []\nhalf_open = 10\n";
    let gateway = Gateway::start("abuse-tls", &(with_tls(&folder) + limits));
    let before = memory(gateway.process());
    let begin = |_| {
        let mut stream = connect(11, gateway.address("native"))?;
        // A connection that was turned away takes nothing.
        let _ = stream.write_all(&part_of_a_handshake());
        Some(stream)
    };
    let held: Vec<_> = (0..FLOOD).filter_map(begin).collect();
    wait("the flood to be turned away", || {
        (turned_away(&gateway, "half_open") > FLOOD as f64 / 2.0).then_some(())
    });
    assert!(gateway.metric("systole_links") <= 10.0, "ten handshakes at most");
    let during = memory(gateway.process());
    assert!(during < before + GROWTH, "{before} KiB before the flood, {during} KiB during it");
    let mut neighbour = connect(12, gateway.address("line")).expect("it is accepted");
    neighbour.set_read_timeout(Some(SOON)).unwrap();
    neighbour.write_all(b"hello\n").unwrap();
    neighbour.read_exact(&mut [0; 6]).expect("another address is served");
    drop(held);
}

#[test]
fn an_address_that_nobody_has_named_holds_half_of_the_places_at_most() {
    let gateway = gateway_with("abuse-half", &unhurried(), "[limits]\nmax_links = 40\n");
    let held: Vec<_> = (0..40).filter_map(|n| log_in(13, &gateway, &format!("peer {n}"))).collect();
    assert_eq!(held.len(), 20);
    assert!(turned_away(&gateway, "connections") >= 20.0);
    assert!(log_in(14, &gateway, "another").is_some(), "the others have the other half");
}

#[test]
fn forged_datagrams_are_counted_and_cost_no_memory() {
    const FLOOD: usize = 20_000;
    let beacons = "[[listener]]\nname = \"devices\"\naddress = \"127.0.0.1:0\"\n\
                   codec = \"beacon\"\nmaster_secret_file = \"secret\"\n";
    let gateway =
        Gateway::start_by("abuse-beacons", &(ONE_SECOND.to_owned() + beacons), |command| {
            let folder = command.get_current_dir().expect("it has one");
            std::fs::write(folder.join("secret"), "42".repeat(32)).expect("it is writable");
        });
    let dropped = |reason: &str| {
        gateway.metric(&format!("systole_beacon_dropped_total{{reason=\"{reason}\"}}"))
    };
    let before = memory(gateway.process());
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    // Of another fleet: their tags are wrong here.
    let keys = Keys::derived(&[7; KEY]);
    for device in 0..FLOOD as u64 {
        let statement = Datagram::Statement(Device::new(device, 1).state(0, false));
        let forged = keys.of(device).expect("each has one").seal(&statement);
        let _ = socket.send_to(&forged, gateway.address("devices"));
        let _ = socket.send_to(b"nonsense", gateway.address("devices"));
    }
    wait("the flood to be read", || {
        let read = dropped("wrong_tag") > 0.0 && dropped("illegal") > 0.0;
        read.then_some(())
    });
    let during = memory(gateway.process());
    assert!(during < before + GROWTH, "{before} KiB before the flood, {during} KiB during it");
    assert_eq!(gateway.metric("systole_sessions_online"), 0.0);
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 64]).is_err(), "nothing of this is answered");
    assert!(log_in(15, &gateway, "neighbour").is_some());
}
