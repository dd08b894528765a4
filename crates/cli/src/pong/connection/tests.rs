//! Tests of the measured frames, and of a client over a transport that seals records.

#[path = "../../../../net/src/transport/tests/peer.rs"]
mod peer;
#[path = "../../../../net/src/transport/tests/records.rs"]
mod records;

use systole_core::link::Introduction;
use systole_net::transport::{End, Held, MAX_RECORD, Opened};
use tokio::net::TcpListener;

use super::*;
use peer::Peer;
use records::Records;

#[tokio::test]
async fn a_sealed_client_is_answered_and_left_in_order() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let client = std::thread::spawn(move || {
        let stream = std::net::TcpStream::connect(addr).unwrap();
        let mut peer = Peer::new(stream, Side::Connecting(Introduction::default()));
        peer.run_until(|peer| peer.established);
        peer.send(&[7; 60_000]);
        peer.close();
        peer.run_until(|peer| peer.end.is_some());
        peer
    });
    let (stream, from) = listener.accept().await.unwrap();
    let (notices, mut told) = mpsc::channel(100);
    let pong = Connection::new(Codec::Native, 1, Span::ZERO, Clock::start());
    let (_end, ending) = watch::channel(());
    pong.serve(stream, Records::default(), from, notices, ending).await;
    let mut received = 0;
    while let Some(Notice { kind, .. }) = told.recv().await {
        if let NoticeKind::Received(len) = kind {
            received += len;
        }
    }
    assert!(received > 60_000, "{received}");
    let peer = client.join().unwrap();
    assert_eq!(peer.end, Some(End::Closed), "pong closes the transport too");
    assert!(peer.heard > 0);
}

#[test]
fn frames_are_measured_instead_of_reads() {
    let mut meter = Meter { decoder: Decoder::new(Codec::Native, 65_536), partial: 0 };
    let stream = b"\x10\x01\x50\x05hello\x50\x00\x12\x02\x03abc";
    let whole = meter.measure(stream);
    assert_eq!(whole, [2, 7, 2, 6]);
    let single: Vec<usize> = stream.iter().flat_map(|byte| meter.measure(&[*byte])).collect();
    assert_eq!(single, whole);
}
