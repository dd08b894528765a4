//! The client over a transport that seals records.

#[path = "../../../net/src/transport/tests/peer.rs"]
mod peer;
#[path = "../../../net/src/transport/tests/records.rs"]
mod records;

use std::net::TcpListener;

use systole_core::link::Side;
use systole_net::Clock;
use systole_net::transport::{End, Held, MAX_RECORD, Opened, ReadOutcome, Socket, Transport};

use super::*;
use peer::Peer;
use records::Records;

impl Begin for Records {
    fn begin(_: &Options, _: &str) -> Result<Records, ConnectError> {
        Ok(Records::default())
    }
}

/// More than the mailbox holds, so that reading pauses while the transport holds plaintext.
const MUCH: usize = 4 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_link_carries_everything_both_ways_and_closes_in_order() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        let mut peer = Peer::new(listener.accept().unwrap().0, Side::Accepting);
        peer.run_until(|peer| peer.established);
        for _ in 0..MUCH / 50_000 {
            peer.send(&[7; 50_000]);
        }
        peer.run_until(|peer| peer.received.len() >= 300_000);
        peer.run_until(|peer| peer.end.is_some());
        peer
    });
    let options = Options { reconnect: None, ..Options::default() };
    let client = Client::connect_over::<Records>(addr, options).await.unwrap();
    client.send(&[8; 300_000]).await.unwrap();
    let mut received = 0;
    while received < MUCH / 50_000 * 50_000 {
        match client.next_event().await {
            Some(Event::Message(bytes)) => received += bytes.len(),
            Some(_) => {}
            None => panic!("the link has ended"),
        }
    }
    client.close(CloseReason::Done).await.unwrap();
    let peer = server.join().unwrap();
    assert!(peer.received.len() == 300_000 && peer.heard > 0);
    assert_eq!(peer.end, Some(End::Closed), "the client closes the transport too");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sealed_server_sent_before_its_close_arrives() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        let mut peer = Peer::new(listener.accept().unwrap().0, Side::Accepting);
        peer.run_until(|peer| peer.established);
        peer.send(&[7; 200_000]);
        peer.close();
        peer.run_until(|peer| peer.end.is_some());
        peer.end
    });
    let options = Options { reconnect: None, ..Options::default() };
    let client = Client::connect_over::<Records>(addr, options).await.unwrap();
    let mut received = 0;
    while let Some(event) = client.next_event().await {
        if let Event::Message(bytes) = event {
            received += bytes.len();
        }
    }
    assert_eq!((received, server.join().unwrap()), (200_000, Some(End::Closed)));
}
