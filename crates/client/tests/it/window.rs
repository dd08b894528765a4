//! Tests of sessions with a window: who waits for whom, and what is acknowledged when.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;

use systole_client::{Client, CloseError, CloseReason, Event, FlushError, Options, SendError};
use systole_core::Policy;
use systole_core::link::{Command, Takes, Windows};
use systole_core::window::{Limits, MAX_MESSAGE};
use systole_core::wire::Codec;

use crate::server::{Heard, Peer, Server};
use crate::{ms, next, quick_options, soon, until};

/// The length of most messages: a queue must have room for a piece of the link, and be full after a
/// few of them.
const LEN: usize = 1_000;

/// The queue permits of such a message: its bytes, the framing, and a boundary.
const COST: usize = LEN + 4 + 4;

/// No heartbeat, which could carry an acknowledgement, unless a test sends one.
fn quiet() -> Policy {
    Policy::new(ms(300_000), ms(1_000), 3).expect("legal")
}

async fn server(messages: u32, takes: Takes) -> Server {
    let mut server = Server::bind(Codec::Native, quiet()).await;
    let limits = Limits { messages, bytes: 1 << 20 };
    server.window = Some(Windows::new(limits, takes));
    server
}

/// A quick reconnect.
fn options() -> Options {
    let mut options = quick_options();
    options.policy = Some(quiet());
    options
}

async fn connect(server: &Server, options: Options) -> (Client, Peer) {
    let connecting = Client::connect(server.addr(), options);
    let (client, peer) = tokio::join!(connecting, server.welcome(1));
    let client = client.expect("connected");
    assert!(matches!(next(&client).await, Event::Connected { .. }));
    (client, peer)
}

fn message(number: usize) -> Vec<u8> {
    let mut message = (number as u32).to_le_bytes().to_vec();
    message.resize(LEN, 0);
    message
}

/// Returns what a future returns at once; `None` if it waits.
async fn now<T>(work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        done = work => Some(done),
        () = std::future::ready(()) => None,
    }
}

impl Peer {
    fn messages(&self) -> Vec<&[u8]> {
        let messages = self.heard.iter().filter_map(|heard| match heard {
            Heard::Message(bytes) => Some(&bytes[..]),
            Heard::Established | Heard::HeartbeatData(_) | Heard::Retuned(_) | Heard::Lost => None,
        });
        messages.collect()
    }

    /// Reads until this many messages have arrived, and checks that they are the first ones in
    /// their order.
    async fn until_messages(&mut self, count: usize) {
        soon(async {
            while self.messages().len() < count {
                assert!(self.turn().await, "ended after {:?}", self.heard);
            }
        })
        .await;
        for (number, bytes) in self.messages().into_iter().enumerate() {
            assert_eq!(bytes, message(number));
        }
        assert_eq!(self.messages().len(), count);
    }

    /// Lets the application take this many messages.
    async fn take(&mut self, count: usize) {
        for _ in 0..count {
            self.command(Command::Taken { length: LEN }).await;
        }
    }

    /// Returns how many messages were sent, and how many the client has acknowledged.
    fn progress(&self) -> (u64, u64) {
        self.link.progress().expect("a window")
    }

    async fn until_acknowledged(&mut self, count: u64) {
        soon(async {
            while self.progress().1 < count {
                assert!(self.turn().await, "ended at {:?}", self.progress());
            }
        })
        .await;
        assert_eq!(self.progress().1, count);
    }

    /// Waits until the client has handled everything that was sent so far.
    async fn round_trip(&mut self) {
        let before = self.round_trips;
        self.command(Command::Heartbeat).await;
        soon(async {
            while self.round_trips == before {
                assert!(self.turn().await);
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_full_window_makes_send_wait_and_an_acknowledgement_releases_it() {
    let server = server(4, Takes::ByCommand).await;
    let mut options = options();
    options.send_queue = 9 * COST;
    options.report_heartbeats = true;
    let (client, mut peer) = connect(&server, options).await;
    for number in 0..4 {
        client.send(&message(number)).await.unwrap();
    }
    peer.until_messages(4).await;
    for number in 4..13 {
        client.try_send(&message(number)).expect("the queue is empty, since the socket took all");
    }
    peer.round_trip().await;
    assert_eq!(client.try_send(&message(13)), Err(SendError::Full));
    {
        let last = message(13);
        let mut sending = pin!(client.send(&last));
        assert_eq!(now(&mut sending).await, None);
        // Requests of other kinds pass.
        client.send_heartbeat().await.unwrap();
        client.set_heartbeat_data(b"passes").await.unwrap();
        client.send_heartbeat().await.unwrap();
        peer.until(&Heard::HeartbeatData(b"passes".to_vec())).await;
        peer.until_messages(4).await;
        assert_eq!(now(&mut sending).await, None);
        peer.take(2).await;
        soon(async { tokio::join!(sending, peer.until_messages(6)) }).await.0.unwrap();
    }
    for taken in 7..=14 {
        peer.take(2).await;
        peer.until_messages(14.min(2 * taken - 6)).await;
    }
}

#[tokio::test]
async fn a_flush_returns_after_the_acknowledgement_and_not_before() {
    let server = server(4, Takes::ByCommand).await;
    let (client, mut peer) = connect(&server, options()).await;
    assert_eq!(client.flush().await, Ok(()), "nothing was sent");
    for number in 0..6 {
        client.send(&message(number)).await.unwrap();
    }
    let (mut first, mut second) = (pin!(client.flush()), pin!(client.flush()));
    assert_eq!((now(&mut first).await, now(&mut second).await), (None, None));
    client.send(&message(6)).await.unwrap();
    peer.until_messages(4).await;
    peer.take(4).await;
    peer.until_messages(7).await;
    peer.take(1).await;
    peer.round_trip().await;
    assert_eq!((now(&mut first).await, now(&mut second).await), (None, None));
    peer.take(1).await;
    // The last message came after both.
    let done = soon(async { tokio::join!(first, second) }).await;
    assert_eq!(done, (Ok(()), Ok(())));
    let mut third = pin!(client.flush());
    assert_eq!(now(&mut third).await, None);
    peer.round_trip().await;
    peer.take(1).await;
    soon(third).await.unwrap();
}

/// The window is never exactly full, and never half used when an acknowledgement is expected.
#[tokio::test]
async fn the_client_asks_for_the_acknowledgement_that_it_waits_for() {
    let mut server = server(100, Takes::ByCommand).await;
    let bytes = (4 * LEN + LEN / 2) as u32;
    let limits = Limits { messages: 100, bytes };
    server.window = Some(Windows::new(limits, Takes::ByCommand));
    let (client, mut peer) = connect(&server, options()).await;
    (0..6).for_each(|number| client.try_send(&message(number)).unwrap());
    let mut flush = pin!(client.flush());
    assert_eq!(now(&mut flush).await, None);
    client.try_send(&message(6)).unwrap();
    // The requests are handled in their order.
    client.set_heartbeat_data(b"all").await.unwrap();
    client.send_heartbeat().await.unwrap();
    peer.until(&Heard::HeartbeatData(b"all".to_vec())).await;
    peer.until_messages(4).await;
    peer.take(4).await;
    peer.until_messages(7).await;
    peer.take(2).await;
    soon(flush).await.expect("a later message does not delay it");
    peer.take(1).await;
    peer.round_trip().await;
    (7..9).for_each(|number| client.try_send(&message(number)).unwrap());
    let large = vec![1; 3 * LEN];
    client.try_send(&large).unwrap();
    peer.until_messages(9).await;
    peer.take(2).await;
    peer.until(&Heard::Message(large)).await;
}

#[tokio::test]
async fn a_flush_on_a_link_that_is_cut_fails_and_the_loss_is_reported_once() {
    let server = server(4, Takes::ByCommand).await;
    let (client, mut peer) = connect(&server, options()).await;
    (0..6).for_each(|number| client.try_send(&message(number)).unwrap());
    peer.until_messages(4).await;
    let (flushed, ()) = soon(async {
        tokio::join!(client.flush(), async {
            peer.round_trip().await;
            drop(peer);
        })
    })
    .await;
    assert_eq!(flushed, Err(FlushError::Lost));
    let reconnected = until(&client, |event| matches!(event, Event::Reconnected { .. }));
    let (mut peer, _) = tokio::join!(server.welcome(2), reconnected);
    assert_eq!(soon(client.flush()).await, Ok(()));
    client.try_send(&message(0)).unwrap();
    peer.until_messages(1).await;
    drop(peer);
    let reconnected = until(&client, |event| matches!(event, Event::Reconnected { .. }));
    let (mut peer, _) = tokio::join!(server.welcome(3), reconnected);
    assert_eq!(soon(client.flush()).await, Err(FlushError::Lost), "nobody waited at the loss");
    client.try_send(&message(0)).unwrap();
    let (flushed, ()) = soon(async {
        tokio::join!(client.flush(), async {
            peer.until_messages(1).await;
            peer.take(1).await;
            peer.round_trip().await;
        })
    })
    .await;
    assert_eq!(flushed, Ok(()));
    client.close(CloseReason::Done).await.unwrap();
    assert_eq!(client.flush().await, Err(FlushError::Closed));
}

#[tokio::test]
async fn a_loss_whose_report_nobody_took_is_reported_by_the_next_flush() {
    let server = server(4, Takes::ByCommand).await;
    let (client, mut peer) = connect(&server, options()).await;
    client.try_send(&message(0)).unwrap();
    let mut flushes = [(); 2].map(|()| Box::pin(client.flush()));
    for flush in &mut flushes {
        assert_eq!(now(flush.as_mut()).await, None);
    }
    peer.until_messages(1).await;
    drop(peer);
    let reconnected = until(&client, |event| matches!(event, Event::Reconnected { .. }));
    let (mut peer, _) = tokio::join!(server.welcome(2), reconnected);
    // Both have their answers, and are canceled before they can return them.
    drop(flushes);
    assert_eq!(soon(client.flush()).await, Err(FlushError::Lost));
    assert_eq!(soon(client.flush()).await, Ok(()), "a report that was taken is the last");
    // The report of an earlier loss does not stand for a later one.
    client.try_send(&message(0)).unwrap();
    let mut late = Box::pin(client.flush());
    assert_eq!(now(late.as_mut()).await, None);
    peer.until_messages(1).await;
    drop(peer);
    let reconnected = until(&client, |event| matches!(event, Event::Reconnected { .. }));
    let (mut peer, _) = tokio::join!(server.welcome(3), reconnected);
    client.try_send(&message(0)).unwrap();
    peer.until_messages(1).await;
    drop(peer);
    let reconnected = until(&client, |event| matches!(event, Event::Reconnected { .. }));
    let (_peer, _) = tokio::join!(server.welcome(4), reconnected);
    assert_eq!(soon(late).await, Err(FlushError::Lost));
    assert_eq!(soon(client.flush()).await, Err(FlushError::Lost));
    assert_eq!(soon(client.flush()).await, Ok(()));
}

#[tokio::test]
async fn a_flush_does_not_vouch_for_messages_of_a_link_without_a_window() {
    let mut server = server(4, Takes::AtOnce).await;
    let window = server.window.take();
    let (client, mut peer) = connect(&server, options()).await;
    client.try_send(&message(0)).unwrap();
    assert_eq!(soon(client.flush()).await, Err(FlushError::NoWindow));
    peer.until_messages(1).await;
    server.window = window;
    drop(peer);
    let reconnected = until(&client, |event| matches!(event, Event::Reconnected { .. }));
    let (_peer, _) = tokio::join!(server.welcome(2), reconnected);
    assert_eq!(soon(client.flush()).await, Err(FlushError::Lost));
    assert_eq!(soon(client.flush()).await, Ok(()));
}

#[tokio::test]
async fn canceled_calls_lose_nothing_and_double_nothing() {
    let server = server(2, Takes::ByCommand).await;
    let mut options = options();
    options.send_queue = 9 * COST;
    let (client, mut peer) = connect(&server, options).await;
    let mut sent = 0;
    while sent < 100 {
        if let Some(accepted) = now(client.send(&message(sent))).await {
            accepted.unwrap();
            sent += 1;
        } else {
            assert_eq!(now(client.flush()).await, None);
            let arrived = peer.messages().len();
            peer.turn().await;
            peer.take(peer.messages().len() - arrived).await;
        }
    }
    let (flushed, ()) = soon(async {
        tokio::join!(client.flush(), async {
            while peer.messages().len() < sent {
                let arrived = peer.messages().len();
                assert!(peer.turn().await);
                peer.take(peer.messages().len() - arrived).await;
            }
            peer.round_trip().await;
        })
    })
    .await;
    flushed.unwrap();
    peer.until_messages(100).await;
}

#[tokio::test]
async fn without_a_window_a_flush_says_so() {
    for codec in [Codec::Native, Codec::Message1028, Codec::Line] {
        let server = Server::bind(codec, Policy::default()).await;
        let mut options = options();
        options.codec = codec;
        let (client, _peer) = connect(&server, options).await;
        client.send(b"hello").await.unwrap();
        let error = soon(client.flush()).await.unwrap_err();
        assert_eq!(error, FlushError::NoWindow);
        assert!(error.to_string().contains("native codec"), "{error}");
    }
}

#[tokio::test]
async fn a_message_beyond_the_limit_of_windows_is_an_error_at_once() {
    let server = server(2, Takes::AtOnce).await;
    let mut options = options();
    options.send_queue = 64 << 20;
    let (client, mut peer) = connect(&server, options).await;
    let longest = MAX_MESSAGE as usize;
    let mut message = vec![7; longest + 1];
    assert_eq!(client.send(&message).await, Err(SendError::TooLong { longest }));
    message.pop();
    client.send(&message).await.unwrap();
    peer.until(&Heard::Message(message)).await;
}

#[tokio::test]
async fn many_messages_pass_a_small_window_in_both_directions_and_in_order() {
    const MESSAGES: usize = 10_000;
    let server = server(5, Takes::AtOnce).await;
    let (client, mut peer) = connect(&server, options()).await;
    let serving = async {
        let mut sent = 0;
        loop {
            while sent < MESSAGES && peer.link.has_room(LEN) {
                peer.send(&message(sent)).await;
                sent += 1;
            }
            assert!(peer.turn().await);
        }
    };
    let sending = async {
        for number in 0..MESSAGES {
            client.send(&message(number)).await.unwrap();
        }
        client.flush().await.unwrap();
    };
    let receiving = async {
        for number in 0..MESSAGES {
            assert_eq!(next(&client).await, Event::Message(message(number)));
        }
    };
    soon(async {
        tokio::select! {
            () = serving => {}
            _ = async { tokio::join!(sending, receiving) } => {}
        }
    })
    .await;
    peer.until_messages(MESSAGES).await;
    peer.command(Command::Flush).await;
    peer.until_acknowledged(MESSAGES as u64).await;
}

#[tokio::test]
async fn what_the_application_does_not_take_is_not_acknowledged() {
    let server = server(4, Takes::AtOnce).await;
    let (client, mut peer) = connect(&server, options()).await;
    for number in 0..4 {
        peer.send(&message(number)).await;
    }
    peer.round_trip().await;
    assert_eq!(peer.progress(), (4, 0));
    assert!(!peer.link.has_room(LEN));
    for number in 0..4 {
        assert_eq!(next(&client).await, Event::Message(message(number)));
    }
    peer.until_acknowledged(4).await;
    // A question finds what was taken, and waits for what was not.
    peer.send(&message(4)).await;
    peer.send(&message(5)).await;
    peer.command(Command::Flush).await;
    assert_eq!(next(&client).await, Event::Message(message(4)));
    peer.round_trip().await;
    assert!(peer.progress().1 < 6, "the last one was not taken");
    assert_eq!(next(&client).await, Event::Message(message(5)));
    peer.until_acknowledged(6).await;
}

#[tokio::test]
async fn a_message_that_is_too_long_counts_as_taken() {
    let server = server(1, Takes::AtOnce).await;
    let mut options = options();
    options.max_message = LEN - 1;
    let (client, mut peer) = connect(&server, options).await;
    peer.send(&message(0)).await;
    assert_eq!(next(&client).await, Event::MessageTooLong { len: LEN as u64 });
    peer.until_acknowledged(1).await;
}

#[tokio::test]
async fn messages_of_a_former_link_count_only_there() {
    let server = server(2, Takes::AtOnce).await;
    let (client, mut peer) = connect(&server, options()).await;
    peer.send(&message(0)).await;
    peer.send(&message(1)).await;
    peer.round_trip().await;
    drop(peer);
    let mut peer = server.welcome(2).await;
    peer.send(&message(2)).await;
    peer.command(Command::Flush).await;
    peer.round_trip().await;
    let mut received = VecDeque::new();
    while received.len() < 2 {
        if let Event::Message(bytes) = next(&client).await {
            received.push_back(bytes);
        }
    }
    until(&client, |event| matches!(event, Event::Reconnected { .. })).await;
    peer.round_trip().await;
    assert_eq!(peer.progress(), (1, 0));
    assert_eq!(next(&client).await, Event::Message(message(2)));
    peer.until_acknowledged(1).await;
}

#[tokio::test]
async fn a_close_sends_what_waits_for_room_in_the_window() {
    let server = server(2, Takes::AtOnce).await;
    let (client, mut peer) = connect(&server, options()).await;
    (0..50).for_each(|number| client.try_send(&message(number)).unwrap());
    let (closed, ()) = soon(async {
        tokio::join!(client.close(CloseReason::Done), async { while peer.turn().await {} })
    })
    .await;
    closed.unwrap();
    assert_eq!(peer.heard.last(), Some(&Heard::Lost));
    peer.until_messages(50).await;
}

#[tokio::test]
async fn a_close_gives_up_a_server_that_acknowledges_nothing() {
    for (count, expected) in [(2, Ok(())), (3, Err(CloseError::Undelivered))] {
        let server = server(2, Takes::ByCommand).await;
        let (client, mut peer) = connect(&server, options()).await;
        (0..count).for_each(|number| client.try_send(&message(number)).unwrap());
        let closing = async {
            let mut closing = pin!(client.close(CloseReason::Done));
            assert_eq!(now(&mut closing).await, None);
            let closed = closing.await;
            assert_eq!(client.try_send(&message(9)), Err(SendError::Closed));
            closed
        };
        let (closed, ()) =
            soon(async { tokio::join!(closing, async { while peer.turn().await {} }) }).await;
        // The server's system has acknowledged what the window allowed.
        assert_eq!(closed, expected);
        peer.until_messages(2).await;
    }
}
