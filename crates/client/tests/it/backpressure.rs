//! Tests of full queues: the application takes no events, or the server reads nothing.

use std::time::Duration;

use systole_client::{Client, Event, SendError};
use systole_core::Span;
use systole_core::wire::Codec;
use systole_net::Clock;
use tokio::io::AsyncWriteExt;

use crate::server::{Heard, Server};
use crate::{next, quick, quick_options, soon, until};

const MESSAGE: usize = 60_000;

/// Encodes one DATA frame.
fn frame(number: u32) -> Vec<u8> {
    let mut frame = vec![0x50, 0xe0, 0xd4, 0x03];
    frame.extend_from_slice(&number.to_le_bytes());
    frame.resize(4 + MESSAGE, 0);
    frame
}

#[tokio::test]
async fn a_client_with_a_full_mailbox_stops_reading_and_does_not_blame_the_server() {
    let server = Server::bind(Codec::Native, quick()).await;
    let connecting = Client::connect(server.addr(), quick_options());
    let (client, mut peer) = tokio::join!(connecting, server.welcome(1));
    let client = client.unwrap();
    let mut written = 0_u32;
    loop {
        let frame = frame(written);
        let writing = peer.stream.write_all(&frame);
        // Four bounds without progress: the client has stopped reading, and keeps the link.
        if tokio::time::timeout(Duration::from_secs(2), writing).await.is_err() {
            break;
        }
        written += 1;
        assert!(written < 2_000, "the client reads without end");
    }
    assert!(matches!(next(&client).await, Event::Connected { .. }));
    for expected in 0..written {
        let Event::Message(message) = next(&client).await else { panic!("lost at {expected}") };
        assert_eq!(message.len(), MESSAGE);
        assert_eq!(message[..4], expected.to_le_bytes());
    }
}

#[tokio::test]
async fn a_server_that_reads_nothing_fills_the_bounded_queue() {
    let server = Server::bind(Codec::Native, quick()).await;
    let mut options = quick_options();
    options.send_queue = 200_000;
    options.policy = Some(systole_core::Policy::standard());
    let connecting = Client::connect(server.addr(), options);
    let (client, mut peer) = tokio::join!(connecting, server.welcome(1));
    let client = client.unwrap();
    let message = vec![5; 10_000];
    let clock = Clock::start();
    let mut accepted = 0_u32;
    let mut full_since = None;
    // Full for a whole second: the socket takes no more.
    while full_since.is_none_or(|since| clock.monotonic().less(since) < Span::from_secs(1)) {
        match client.try_send(&message) {
            Ok(()) => (accepted, full_since) = (accepted + 1, None),
            Err(SendError::Full) => {
                full_since = full_since.or(Some(clock.monotonic()));
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(error) => panic!("{error}"),
        }
        assert!(accepted < 20_000, "the queue has no bound");
    }
    let waiting = tokio::time::timeout(Duration::from_millis(100), client.send(&message)).await;
    assert!(waiting.is_err(), "send waits for room");

    let (sent, ()) = tokio::join!(client.send(&message), async {
        soon(async {
            while peer.heard.iter().filter(|heard| matches!(heard, Heard::Message(_))).count()
                < accepted as usize + 1
            {
                assert!(peer.turn().await);
            }
        })
        .await;
    });
    sent.unwrap();
    client.send(b"room again").await.unwrap();
    peer.until(&Heard::Message(b"room again".to_vec())).await;
    until(&client, |event| matches!(event, Event::Connected { .. })).await;
}
