//! TLS in memory whose path is cut at every byte, or whose peer breaks the rules.

use rustls::version;

use super::super::Tls;
use super::tls::{configs, ends};
use super::*;

pub(super) const VERSIONS: [&rustls::SupportedProtocolVersion; 2] =
    [&version::TLS12, &version::TLS13];

/// Returns everything that an end has to send, with `plaintext`.
pub(super) fn said(from: &mut Tls, mut plaintext: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    loop {
        let bytes = from.seal(plaintext);
        if bytes.is_empty() {
            return wire;
        }
        wire.extend_from_slice(bytes);
        let count = bytes.len();
        plaintext = &plaintext[from.sent(count)..];
    }
}

/// Gives these bytes to an end, in pieces. Returns the plaintext, and what came after it.
pub(super) fn heard(to: &mut Tls, wire: &[u8], piece: usize) -> (Vec<u8>, Option<Opened>) {
    let (mut all, mut end) = (Vec::new(), None);
    let mut buffer = [0; 4_096];
    for piece in wire.chunks(piece) {
        buffer[..piece.len()].copy_from_slice(piece);
        let mut received = piece.len();
        loop {
            match to.open(&mut buffer, received) {
                Opened::Plaintext(count) => all.extend_from_slice(&buffer[..count]),
                Opened::Nothing => {}
                told @ (Opened::Closed | Opened::Illegal(_)) => {
                    assert_eq!(end.replace(told), None, "told once");
                }
            }
            received = 0;
            if !to.holds_more() {
                break;
            }
        }
    }
    (all, end)
}

/// Carries the handshake of two ends until neither has anything to say.
pub(super) fn shake((client, server): &mut (Tls, Tls)) {
    for _ in 0..3 {
        let hello = said(client, &[]);
        assert_eq!(heard(server, &hello, 4_096), (Vec::new(), None));
        let answer = said(server, &[]);
        assert_eq!(heard(client, &answer, 4_096), (Vec::new(), None));
    }
    assert!(client.is_open() && server.is_open());
}

/// Returns the sender of one direction first.
fn directed((client, server): (Tls, Tls), to_server: bool) -> (Tls, Tls) {
    if to_server { (client, server) } else { (server, client) }
}

#[test]
fn data_and_the_close_behind_it_cut_at_every_byte_are_a_prefix_and_its_end() {
    for (version, to_server) in VERSIONS.into_iter().flat_map(|it| [(it, false), (it, true)]) {
        let configs = configs(version, false);
        let (mut cut, mut is_whole) = (0, false);
        while !is_whole {
            let mut pair = ends(&configs);
            shake(&mut pair);
            let (mut from, mut to) = directed(pair, to_server);
            let mut wire = said(&mut from, b"first");
            let first = wire.len();
            wire.extend(said(&mut from, b"second"));
            let second = wire.len();
            from.finish();
            wire.extend(said(&mut from, &[]));
            is_whole = cut == wire.len();
            let told = heard(&mut to, &wire[..cut], 1 + cut % 7);
            let plaintext = match cut {
                _ if cut >= second => &b"firstsecond"[..],
                _ if cut >= first => b"first",
                _ => b"",
            };
            let closed = is_whole.then_some(Opened::Closed);
            assert_eq!(told, (plaintext.to_vec(), closed), "{version:?} cut at {cut}");
            assert_eq!(to.end(), (!is_whole).then_some(End::Truncated), "cut at {cut}");
            cut += 1;
        }
    }
}

#[test]
fn an_alert_cut_at_every_byte_is_told_once_it_is_whole() {
    for version in VERSIONS {
        // The client does not believe the certificate: its alert is sealed in TLS 1.3.
        let [known, unknown] = [configs(version, false), configs(version, false)];
        let (mut cut, mut is_whole) = (0, false);
        while !is_whole {
            let (mut client, _) = ends(&known);
            let (_, mut server) = ends(&unknown);
            let hello = said(&mut client, &[]);
            heard(&mut server, &hello, 4_096);
            let end = heard(&mut client, &said(&mut server, &[]), 4_096).1;
            assert_eq!(end, Some(Opened::Illegal(Malformed::Certificate)));
            let alert = said(&mut client, &[]);
            is_whole = cut == alert.len();
            let refused = is_whole.then_some(Opened::Illegal(Malformed::TlsRefused));
            assert_eq!(heard(&mut server, &alert[..cut], 1), (Vec::new(), refused), "cut at {cut}");
            assert_eq!(server.end(), Some(End::Truncated));
            cut += 1;
        }
        assert!(cut > 7, "an alert has a header and two bytes");
    }
}

#[test]
fn the_alert_against_plaintext_cut_at_every_byte_is_told_once_it_is_whole() {
    for version in VERSIONS {
        let configs = configs(version, false);
        let (_, mut server) = ends(&configs);
        heard(&mut server, b"ping\n", 1);
        let alert = said(&mut server, &[]);
        for cut in 0..=alert.len() {
            let (mut client, _) = ends(&configs);
            said(&mut client, &[]);
            let is_whole = cut == alert.len();
            let refused = is_whole.then_some(Opened::Illegal(Malformed::TlsRefused));
            assert_eq!(heard(&mut client, &alert[..cut], 1), (Vec::new(), refused), "cut at {cut}");
        }
    }
}

#[test]
fn keys_change_between_any_two_messages_and_a_flood_of_changes_is_illegal() {
    let configs = configs(&version::TLS13, false);
    let mut pair = ends(&configs);
    shake(&mut pair);
    let (mut client, mut server) = pair;
    for round in 0..100 {
        let news = message(1 + round * 7);
        let [from, to] =
            if round % 2 == 0 { [&mut client, &mut server] } else { [&mut server, &mut client] };
        from.change_keys();
        let mut wire = said(from, &[]);
        wire.extend(said(from, &news));
        assert_eq!(heard(to, &wire, 1), (news, None));
        let answer = said(to, b"heard");
        assert_eq!(heard(from, &answer, 1), (b"heard".to_vec(), None));
    }
    let mut wire = Vec::new();
    for _ in 0..1_000 {
        client.change_keys();
        wire.extend(said(&mut client, &[]));
    }
    let end = Some(Opened::Illegal(Malformed::Record));
    assert_eq!(heard(&mut server, &wire, 4_096), (Vec::new(), end));
    assert!(said(&mut server, &[]).len() < 4_096, "few are answered");
}

#[test]
fn what_is_not_sealed_or_too_long_is_illegal_after_the_handshake() {
    let mut another = ends(&configs(&version::TLS12, false)).0;
    let hello = said(&mut another, &[]);
    for version in VERSIONS {
        let configs = configs(version, false);
        for bytes in [
            &hello[..],
            b"GET / HTTP/1.1\r\n\r\n",
            b"ping\n",
            // In the form of records: data, an alert that the peer has closed, a change of ciphers.
            b"\x17\x03\x03\x00\x05hello",
            b"\x15\x03\x03\x00\x02\x01\x00",
            b"\x14\x03\x03\x00\x01\x01",
            // The header of a record of more than 16 KiB and what sealing may add.
            b"\x17\x03\x03\x48\x01",
        ] {
            let mut pair = ends(&configs);
            shake(&mut pair);
            let told = heard(&mut pair.1, bytes, 1);
            let end = Some(Opened::Illegal(Malformed::Record));
            assert_eq!(told, (Vec::new(), end), "{version:?} {bytes:?}");
            assert_eq!(pair.1.end(), Some(End::Truncated));
        }
    }
}
