//! What an end of TLS holds: nothing while it is idle, and little of a peer that goes wrong.

use rustls::version;

use super::super::Tls;
use super::tls::{configs, ends};
use super::tls_faults::{VERSIONS, heard, said, shake};
use super::*;

const ILLEGAL: Option<Opened> = Some(Opened::Illegal(Malformed::Record));

/// More than an end may ever hold of what it cannot open yet.
const TOO_MUCH: usize = 64 * 1024;

/// Gives an end the same bytes again and again, which it must refuse before it holds too much.
/// Returns how often it took them.
fn refuses_for_ever(to: &mut Tls, bytes: &[u8]) -> usize {
    for round in 0..TOO_MUCH {
        let (plaintext, end) = heard(to, bytes, 4_096);
        assert!(plaintext.is_empty());
        if end.is_some() {
            assert_eq!(end, ILLEGAL);
            assert!(said(to, b"plaintext").len() < 100, "an alert at most");
            assert_eq!(to.waiting(), None);
            return round;
        }
        let [unopened, _, answers] = to.waiting().unwrap_or_default();
        assert!(unopened < TOO_MUCH && answers < 4_096, "{unopened} {answers}");
    }
    panic!("it was never refused");
}

#[test]
fn an_end_holds_nothing_once_all_is_heard_and_sent() {
    for version in VERSIONS {
        let (mut client, mut server) = ends(&configs(version, version == &version::TLS12));
        for _ in 0..3 {
            for (from, to) in [(0, 1), (1, 0)] {
                let both = [&mut client, &mut server];
                let [a, b] = both;
                let (from, to) = if from < to { (a, b) } else { (b, a) };
                let flight = said(from, &[]);
                assert_eq!(from.waiting(), None);
                for (index, byte) in flight.iter().enumerate() {
                    assert_eq!(heard(to, &[*byte], 1), (Vec::new(), None));
                    let held = to.waiting().unwrap_or_default()[0];
                    assert!(held <= index + 1, "{held} of {index}");
                    let told = to.held();
                    assert_eq!(told.memory > 0, held > 0);
                    assert!(held == 0 || told.length as usize > held, "{told:?} of {held}");
                }
                assert_eq!(to.waiting().unwrap_or_default()[..2], [0, 0]);
            }
        }
        assert!(client.is_open() && server.is_open());
        let (mut cut, mut is_whole) = (0, false);
        while !is_whole {
            let mut wire = said(&mut client, b"first");
            let first = wire.len();
            wire.extend(said(&mut client, b"second"));
            is_whole = cut == wire.len();
            let (mut all, _) = heard(&mut server, &wire[..cut], 7);
            let rest = if cut < first { cut } else { cut - first };
            let held = (rest > 0 && !is_whole).then_some([rest, 0, 0]);
            assert_eq!(server.waiting(), held, "cut at {cut}");
            let record = if cut < first { first } else { wire.len() - first };
            let announced = if rest < 5 { 5 } else { record };
            let told = server.held();
            assert_eq!(told.memory > 0, held.is_some(), "cut at {cut}");
            if held.is_some() {
                assert_eq!(told.length as usize, announced, "cut at {cut}");
                let memory = told.memory as usize;
                assert!((rest..=2 * rest + 64).contains(&memory), "{memory} for {rest}");
            }
            // What is said meanwhile changes nothing.
            let answer = said(&mut server, b"third");
            assert_eq!(heard(&mut client, &answer, 9), (b"third".to_vec(), None));
            assert_eq!(server.waiting(), held, "cut at {cut}");
            all.extend(heard(&mut server, &wire[cut..], 4_096).0);
            assert_eq!(all, b"firstsecond");
            assert_eq!((client.waiting(), server.waiting()), (None, None), "cut at {cut}");
            cut += 1;
        }
    }
}

#[test]
fn plaintext_waits_only_for_room() {
    let mut pair = ends(&configs(&version::TLS13, false));
    shake(&mut pair);
    let (mut client, mut server) = pair;
    let news = message(1_000);
    let wire = said(&mut client, &news);
    let (last, before) = wire.split_last().unwrap();
    heard(&mut server, before, 4_096);
    let mut buffer = [*last, 0, 0, 0];
    let mut all = Vec::new();
    let mut received = 1;
    loop {
        assert_eq!(server.open(&mut buffer, received), Opened::Plaintext(4));
        received = 0;
        all.extend_from_slice(&buffer);
        let left = news.len() - all.len();
        assert_eq!(server.waiting(), (left > 0).then_some([0, left, 0]));
        assert_eq!(server.holds_more(), left > 0);
        if left == 0 {
            break;
        }
    }
    assert_eq!(all, news);
}

#[test]
fn of_a_record_that_is_too_long_or_not_sealed_no_more_than_itself_is_held() {
    for (version, len) in VERSIONS.into_iter().flat_map(|it| [(it, 16_641), (it, 18_431)]) {
        let mut pair = ends(&configs(version, false));
        shake(&mut pair);
        let mut record = vec![0x17, 3, 3];
        record.extend_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
        record.resize(5 + len, 0);
        let (last, before) = record.split_last().unwrap();
        assert_eq!(heard(&mut pair.1, before, 1_000), (Vec::new(), None));
        assert_eq!(pair.1.waiting(), Some([before.len(), 0, 0]));
        assert_eq!(heard(&mut pair.1, &[*last], 1), (Vec::new(), ILLEGAL));
        assert!(said(&mut pair.1, b"plaintext").len() < 100, "an alert");
        assert_eq!(pair.1.waiting(), None);
    }
}

#[test]
fn a_handshake_message_without_end_is_refused() {
    let configs = configs(&version::TLS13, false);
    for (piece, refused_after) in [(1_usize, 10_000..11_000), (1_000, 60..66)] {
        let (_, mut server) = ends(&configs);
        // The header of a hello of nearly 64 KiB, which then comes in records of this length.
        heard(&mut server, b"\x16\x03\x01\x00\x04\x01\x00\xff\xff", 1);
        let mut record = vec![0x16, 3, 1];
        record.extend_from_slice(&u16::try_from(piece).unwrap().to_be_bytes());
        record.resize(5 + piece, 0);
        assert!(refused_after.contains(&refuses_for_ever(&mut server, &record)), "{piece}");
    }
    let (_, mut server) = ends(&configs);
    assert_eq!(refuses_for_ever(&mut server, b"\x16\x03\x01\x00\x04\x01\x01\x00\x00"), 0);
}

#[test]
fn an_end_seals_at_each_byte_of_a_message_that_comes_in_many_records() {
    let small = configs(&version::TLS13, false).with_records_of(50);
    let (mut client, mut server) = ends(&small);
    for _ in 0..2 {
        for byte in said(&mut client, &[]) {
            assert_eq!(heard(&mut server, &[byte], 1), (Vec::new(), None));
        }
        // The flight of the server, and then its tickets.
        for byte in said(&mut server, &[]) {
            assert_eq!(heard(&mut client, &[byte], 1), (Vec::new(), None));
            if client.is_open() && server.is_open() {
                let news = said(&mut client, b"news");
                assert_eq!(heard(&mut server, &news, 4_096), (b"news".to_vec(), None));
            }
        }
        assert_eq!(client.waiting().unwrap_or_default()[..2], [0, 0]);
    }
    assert!(client.is_open() && server.is_open());
}

#[test]
fn records_without_content_are_refused() {
    for version in VERSIONS {
        let configs = configs(version, false);
        for empty in
            [&b"\x17\x03\x03\x00\x00"[..], b"\x16\x03\x03\x00\x00", b"\x15\x03\x03\x00\x00"]
        {
            let (_, mut server) = ends(&configs);
            assert_eq!(refuses_for_ever(&mut server, empty), 0, "{empty:?}");
            let mut pair = ends(&configs);
            shake(&mut pair);
            assert_eq!(refuses_for_ever(&mut pair.1, empty), 0, "{empty:?}");
        }
        // Changes of ciphers, which TLS 1.3 ignores once.
        let (mut client, mut server) = ends(&configs);
        heard(&mut server, &said(&mut client, &[]), 4_096);
        said(&mut server, &[]);
        assert!(refuses_for_ever(&mut server, b"\x14\x03\x03\x00\x01\x01") < 4);
    }
}

#[test]
fn what_follows_the_close_of_the_peer_is_not_looked_at_and_may_be_answered() {
    for version in VERSIONS {
        let mut pair = ends(&configs(version, false));
        shake(&mut pair);
        let (mut client, mut server) = pair;
        let mut wire = said(&mut client, b"last");
        client.finish();
        wire.extend(said(&mut client, &[]));
        wire.extend_from_slice(b"\x17\x03\x03\x00\x05hello and a part of a record\x17\x03\x03");
        assert_eq!(heard(&mut server, &wire, 4_096), (b"last".to_vec(), Some(Opened::Closed)));
        for _ in 0..100 {
            assert_eq!(heard(&mut server, &wire, 1_000), (Vec::new(), None));
            assert_eq!(server.waiting(), None);
        }
        assert!(server.is_open());
        let answer = said(&mut server, b"answer");
        assert_eq!(heard(&mut client, &answer, 5), (b"answer".to_vec(), None));
        server.finish();
        let close = said(&mut server, &[]);
        assert_eq!(heard(&mut client, &close, 5), (Vec::new(), Some(Opened::Closed)));
        assert_eq!((client.waiting(), server.waiting()), (None, None));
    }
}

#[test]
fn nothing_follows_an_alert_and_what_waited_for_the_socket_is_dropped() {
    let mut pair = ends(&configs(&version::TLS13, false));
    shake(&mut pair);
    let mut server = Socket::new(Scripted::new(), pair.1, ());
    server.queue(b"frame", &[(5, Lane::Data)], 0, 100).unwrap();
    server.stream().give(Given::Bytes(b"ping\n".to_vec()));
    assert_eq!(server.read(&mut [0; 64]), ReadOutcome::Illegal(Malformed::Record));
    assert!(server.outbox().is_none() && server.has_answer());
    server.flush();
    let alert = server.stream().take_written();
    assert_eq!(heard(&mut pair.0, &alert, 1).1, Some(Opened::Illegal(Malformed::TlsRefused)));
    assert!(server.is_flushed() && !server.transport().is_open());
    assert_eq!(server.write(b"frame").taken, 0);
    server.finish();
    server.flush();
    assert!(server.is_flushed() && server.stream().take_written().is_empty());
    assert_eq!(said(&mut pair.0, b"the client, too"), b"");
}
