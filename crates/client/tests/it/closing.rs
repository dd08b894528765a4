//! Tests of the end of a client: everything that `send` took arrives, and CLOSE after it.

use std::io::ErrorKind;
use std::sync::mpsc;
use std::thread;

use systole_client::{Client, CloseError, Ending, Event, Options};
use systole_core::Policy;
use systole_core::wire::{CloseReason, Codec};
use tokio::io::AsyncReadExt;

use crate::server::{Heard, Peer, Server};
use crate::{quick_options, soon, until};

/// The number of messages, of 1 MiB each: far more than the kernel's buffers hold.
const MESSAGES: usize = 20;

/// Queues all messages while the server reads nothing.
async fn send_all(client: &Client) {
    for number in 0..MESSAGES {
        client.send(&vec![number as u8; 1 << 20]).await.expect("connected");
    }
}

/// A bound that a busy machine does not exceed, and room for all messages.
fn options() -> Options {
    let mut options = quick_options();
    options.policy = Some(Policy::default());
    options.send_queue = 32 << 20;
    options
}

async fn connect(server: &Server) -> (Client, Peer) {
    let connecting = Client::connect(server.addr(), options());
    let (client, peer) = tokio::join!(connecting, server.welcome(1));
    (client.expect("connected"), peer)
}

/// Reads to the end of the stream, and checks that all messages came before CLOSE.
async fn expect_all(mut peer: Peer) {
    soon(async { while peer.turn().await {} }).await;
    let messages = peer.heard.iter().filter(|heard| matches!(heard, Heard::Message(_))).count();
    assert_eq!((messages, peer.heard.last()), (MESSAGES, Some(&Heard::Lost)));
}

#[tokio::test]
async fn a_close_delivers_all_messages_that_were_taken_before_it() {
    let server = Server::bind(Codec::Native, Policy::default()).await;
    let (client, peer) = connect(&server).await;
    send_all(&client).await;
    let closing = async {
        client.close(CloseReason::Done).await.unwrap();
        until(&client, |event| matches!(event, Event::Closed(_))).await;
    };
    tokio::join!(closing, expect_all(peer));
}

#[tokio::test]
async fn a_close_says_that_the_server_did_not_take_everything() {
    let server = Server::bind(Codec::Native, Policy::default()).await;
    let (client, peer) = connect(&server).await;
    send_all(&client).await;
    let closing = client.close(CloseReason::Done);
    // Ends the process's side of the connection, with most bytes still at the client.
    let (closed, ()) = tokio::join!(closing, async { drop(peer) });
    assert_eq!(closed, Err(CloseError::Undelivered));
    let end = until(&client, |event| matches!(event, Event::Closed(_))).await;
    assert_eq!(end, Event::Closed(Ending::Undelivered));
    assert_eq!(client.close(CloseReason::Done).await, Err(CloseError::Closed));
}

/// The server hangs: it keeps the connection open and reads nothing.
#[tokio::test]
async fn a_close_gives_up_a_server_that_takes_nothing_and_says_so() {
    let server = Server::bind(Codec::Native, Policy::default()).await;
    let (client, mut hanging) = connect(&server).await;
    send_all(&client).await;
    assert_eq!(soon(client.close(CloseReason::Done)).await, Err(CloseError::Undelivered));
    // The server is not told that the data is complete.
    let read = soon(hanging.stream.read_to_end(&mut Vec::new())).await;
    assert_eq!(read.map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_dropped_client_delivers_all_messages_while_the_runtime_runs() {
    let server = Server::bind(Codec::Native, Policy::default()).await;
    let (client, peer) = connect(&server).await;
    send_all(&client).await;
    drop(client);
    expect_all(peer).await;
}

/// The runtime ends as soon as `close` has returned, as at the end of `main`.
#[test]
fn after_close_has_returned_main_may_end() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let (addr_sender, addr) = mpsc::channel();
    let serving = thread::spawn(move || {
        runtime().block_on(async {
            let server = Server::bind(Codec::Native, Policy::default()).await;
            addr_sender.send(server.addr()).unwrap();
            expect_all(server.welcome(1).await).await;
        });
    });
    let addr = addr.recv().unwrap();
    runtime().block_on(async {
        let client = Client::connect(addr, options()).await.unwrap();
        send_all(&client).await;
        client.close(CloseReason::Done).await.unwrap();
    });
    serving.join().unwrap();
}
