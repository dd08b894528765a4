//! Tests of messages both ways, of all sizes, in any pieces.

use systole_client::{Client, Event, SendError, SessionId};
use systole_core::wire::Codec;

use crate::server::{Heard, Server};
use crate::{next, quick, quick_options, until};

#[tokio::test]
async fn every_codec_carries_messages_both_ways() {
    for codec in [Codec::Native, Codec::Message1028, Codec::Line] {
        let server = Server::bind(codec, quick()).await;
        let mut options = quick_options();
        options.codec = codec;
        let connecting = Client::connect(server.addr(), options);
        let (client, mut peer) = tokio::join!(connecting, server.welcome(1));
        let client = client.unwrap();
        let mut message = b"hello".to_vec();
        client.send(&message).await.unwrap();
        if codec == Codec::Message1028 {
            message.resize(1_024, 0);
        }
        peer.until(&Heard::Message(message.clone())).await;
        peer.send(b"hello").await;
        until(&client, |event| *event == Event::Message(message.clone())).await;
    }
}

#[tokio::test]
async fn urgent_data_is_read_in_its_place() {
    let server = Server::bind(Codec::Line, quick()).await;
    let mut options = quick_options();
    options.codec = Codec::Line;
    let connecting = Client::connect(server.addr(), options);
    let (client, mut peer) = tokio::join!(connecting, server.welcome(1));
    let client = client.unwrap();
    client.send(b"first").await.unwrap();
    peer.until(&Heard::Message(b"first".to_vec())).await;
    for _ in 0..10 {
        peer.send_urgent(b"hello\n");
        until(&client, |event| *event == Event::Message(b"hello".to_vec())).await;
        peer.send(b"again").await;
        until(&client, |event| *event == Event::Message(b"again".to_vec())).await;
    }
}

#[tokio::test]
async fn messages_that_arrive_byte_by_byte_are_complete() {
    let server = Server::bind(Codec::Native, quick()).await;
    let connecting = Client::connect(server.addr(), quick_options());
    let greeting = async {
        let mut peer = server.accept(1).await;
        peer.single_bytes = true;
        peer.until(&Heard::Established).await;
        peer
    };
    let (client, mut peer) = tokio::join!(connecting, greeting);
    let client = client.unwrap();
    assert!(matches!(
        next(&client).await,
        Event::Connected { session: SessionId(1), epoch: 1, .. }
    ));
    for message in [&b"first"[..], b"", b"third"] {
        peer.send(message).await;
        assert_eq!(next(&client).await, Event::Message(message.to_vec()));
    }
}

#[tokio::test]
async fn messages_of_megabytes_are_complete_and_do_not_delay_heartbeats() {
    let server = Server::bind(Codec::Native, quick()).await;
    let mut options = quick_options();
    options.send_queue = 8 << 20;
    let connecting = Client::connect(server.addr(), options);
    let (client, mut peer) = tokio::join!(connecting, server.welcome(1));
    let client = client.unwrap();
    let large: Vec<u8> = (0..3_500_000_u32).map(|n| (n % 251) as u8).collect();
    client.send(&large).await.unwrap();
    peer.until(&Heard::Message(large.clone())).await;
    let (received, ()) =
        tokio::join!(until(&client, |event| matches!(event, Event::Message(_))), peer.send(&large));
    assert!(received == Event::Message(large));
}

#[tokio::test]
async fn a_server_with_a_small_frame_limit_gets_short_pieces() {
    let mut server = Server::bind(Codec::Native, quick()).await;
    server.max_data = 7;
    let mut options = quick_options();
    options.send_queue = 300_000;
    let connecting = Client::connect(server.addr(), options);
    let (client, mut peer) = tokio::join!(connecting, server.welcome(1));
    let client = client.unwrap();
    let Err(SendError::TooLong { longest }) = client.send(&vec![9; 300_000]).await else {
        panic!("taken");
    };
    let message: Vec<u8> = (0..longest).map(|n| (n % 251) as u8).collect();
    client.send(&message).await.unwrap();
    peer.until(&Heard::Message(message)).await;
}

#[tokio::test]
async fn a_too_long_message_is_reported_and_the_link_continues() {
    let server = Server::bind(Codec::Native, quick()).await;
    let mut options = quick_options();
    options.max_message = 100;
    options.send_queue = 50_000;
    let connecting = Client::connect(server.addr(), options);
    let (client, mut peer) = tokio::join!(connecting, server.welcome(1));
    let client = client.unwrap();
    peer.send(&[7; 20_000]).await;
    peer.send(&[8; 100]).await;
    let event = until(&client, |event| !matches!(event, Event::Connected { .. })).await;
    assert_eq!(event, Event::MessageTooLong { len: 20_000 });
    assert_eq!(next(&client).await, Event::Message(vec![8; 100]));
    let refused = client.send(&[9; 50_000]).await;
    let Err(SendError::TooLong { longest }) = refused else { panic!("{refused:?}") };
    client.send(&vec![9; longest]).await.unwrap();
    peer.until(&Heard::Message(vec![9; longest])).await;
}

#[tokio::test]
async fn codecs_without_fragmentation_refuse_longer_messages() {
    for (codec, longest) in [(Codec::Message1028, 1_024), (Codec::Line, 65_534)] {
        let server = Server::bind(codec, quick()).await;
        let mut options = quick_options();
        options.codec = codec;
        let connecting = Client::connect(server.addr(), options);
        let (client, mut peer) = tokio::join!(connecting, server.welcome(1));
        let client = client.unwrap();
        let refused = client.send(&vec![b'x'; longest + 1]).await;
        assert_eq!(refused, Err(SendError::TooLong { longest }), "{codec}");
        client.send(&vec![b'x'; longest]).await.unwrap();
        peer.until(&Heard::Message(vec![b'x'; longest])).await;
    }
}
