//! Tests of reconnecting: when, how often, and when not.

use systole_client::{Client, Ending, Event, SendError, SessionId};
use systole_core::Span;
use systole_core::cause::{Cause, Confidence};
use systole_core::link::Goodbye;
use systole_core::reconnect::{Backoff, Stop};
use systole_core::wire::{CloseReason, Codec, Saw};
use systole_net::Clock;
use tokio::io::AsyncWriteExt;

use crate::server::{Heard, Server};
use crate::{ms, next, quick, quick_options, soon, until};

#[tokio::test]
async fn after_a_silent_server_the_client_reconnects() {
    let server = Server::bind(Codec::Native, quick()).await;
    let connecting = Client::connect(server.addr(), quick_options());
    let (client, _silent) = tokio::join!(connecting, server.welcome(1));
    let client = client.unwrap();
    client.set_heartbeat_data(b"carried over").await.unwrap();
    until(&client, |event| matches!(event, Event::Lost { .. })).await;
    assert!(matches!(next(&client).await, Event::Reconnecting { attempt: 1, .. }));
    let mut peer = server.welcome(2).await;
    let Event::Reconnected { session: SessionId(2), attempt: 1, .. } = next(&client).await else {
        panic!("not back");
    };
    client.send(b"again").await.unwrap();
    peer.until(&Heard::Message(b"again".to_vec())).await;
    peer.until(&Heard::HeartbeatData(b"carried over".to_vec())).await;
}

#[tokio::test]
async fn the_client_waits_for_its_slot_after_a_drain() {
    let server = Server::bind(Codec::Native, quick()).await;
    let connecting = Client::connect(server.addr(), quick_options());
    let (client, mut peer) = tokio::join!(connecting, server.welcome(1));
    let client = client.unwrap();
    let clock = Clock::start();
    let (reason, return_after) = (CloseReason::Drained, ms(400));
    peer.close(Goodbye { reason, stay_away: false, return_after }).await;
    let lost = until(&client, |event| matches!(event, Event::Lost { .. })).await;
    let Event::Lost { verdict, farewell: Some(farewell), .. } = lost else { panic!("{lost:?}") };
    assert_eq!(verdict.cause, Cause::PeerClosed(CloseReason::Drained));
    assert_eq!(farewell.return_after, ms(400));
    assert_eq!(client.send(b"now?").await, Err(SendError::NotConnected));
    let Event::Reconnecting { attempt: 1, after } = next(&client).await else { panic!("gone") };
    assert!(after >= ms(400) && after <= ms(401), "{after}");
    let _peer = server.welcome(2).await;
    assert!(clock.monotonic() >= ms(400), "{}", clock.monotonic());
    assert!(matches!(next(&client).await, Event::Reconnected { session: SessionId(2), .. }));
}

#[tokio::test]
async fn a_close_with_stay_away_ends_the_client() {
    let server = Server::bind(Codec::Native, quick()).await;
    let connecting = Client::connect(server.addr(), quick_options());
    let (client, mut peer) = tokio::join!(connecting, server.welcome(1));
    let client = client.unwrap();
    let (reason, return_after) = (CloseReason::Kicked, Span::ZERO);
    peer.close(Goodbye { reason, stay_away: true, return_after }).await;
    until(&client, |event| matches!(event, Event::Lost { farewell: Some(_), .. })).await;
    assert_eq!(next(&client).await, Event::Closed(Ending::Stopped(Stop::Told)));
    assert_eq!(client.next_event().await, None);
    assert_eq!(client.send(b"?").await, Err(SendError::Closed));
}

#[tokio::test]
async fn failed_attempts_are_reported_up_to_the_limit() {
    let server = Server::bind(Codec::Native, quick()).await;
    let mut options = quick_options();
    let backoff = Backoff::new(ms(1), ms(20), ms(10_000)).unwrap();
    options.reconnect = Some(backoff.with_attempts(3));
    let (client, peer) = tokio::join!(Client::connect(server.addr(), options), server.welcome(1));
    let client = client.unwrap();
    drop((peer, server));
    let lost = until(&client, |event| matches!(event, Event::Lost { .. })).await;
    let Event::Lost { verdict, .. } = lost else { panic!("{lost:?}") };
    assert!(matches!(verdict.cause, Cause::PeerExited | Cause::PeerReset), "{verdict:?}");
    for expected in 1..=3 {
        let Event::Reconnecting { attempt, .. } = next(&client).await else { panic!("gave up") };
        assert_eq!(attempt, expected);
        let failed = next(&client).await;
        assert!(matches!(failed, Event::AttemptFailed(_)), "{failed:?}");
    }
    assert_eq!(next(&client).await, Event::Closed(Ending::Stopped(Stop::Exhausted)));
}

/// A packet filter that drops everything: "return 0".
#[cfg(target_os = "linux")]
const DROP_ALL: [socket2::SockFilter; 1] = [socket2::SockFilter::new(6, 0, 0, 0)];

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_refused_connection_revises_the_cause_of_a_silence_once() {
    for codec in [Codec::Native, Codec::Line] {
        let server = Server::bind(codec, quick()).await;
        let mut options = quick_options();
        options.codec = codec;
        let (client, peer) =
            tokio::join!(Client::connect(server.addr(), options), server.welcome(7));
        let client = client.unwrap();
        // The connection stays, and its end of it receives and acknowledges nothing.
        socket2::SockRef::from(&peer.stream).attach_filter(&DROP_ALL).unwrap();
        drop(server);
        let lost = until(&client, |event| matches!(event, Event::Lost { .. })).await;
        let Event::Lost { verdict, .. } = lost else { panic!("{lost:?}") };
        until(&client, |event| matches!(event, Event::AttemptFailed(_))).await;
        let (from, to, confidence) = (verdict.cause, Cause::PeerExited, Confidence::Medium);
        assert_eq!(next(&client).await, Event::Revised { from, to, confidence });
        for _ in 0..2 {
            assert!(matches!(next(&client).await, Event::Reconnecting { .. }), "once");
            assert!(matches!(next(&client).await, Event::AttemptFailed(_)), "once");
        }
    }
}

#[tokio::test]
async fn closing_sends_queued_messages_and_close_and_ends_the_client() {
    let server = Server::bind(Codec::Native, quick()).await;
    let connecting = Client::connect(server.addr(), quick_options());
    let (client, mut peer) = tokio::join!(connecting, server.welcome(1));
    let client = client.unwrap();
    client.send(b"last words").await.unwrap();
    let serving = async {
        peer.until(&Heard::Message(b"last words".to_vec())).await;
        peer.until(&Heard::Lost).await;
        soon(peer.stream.shutdown()).await.unwrap();
    };
    let (closed, ()) = tokio::join!(client.close(CloseReason::Done), serving);
    closed.unwrap();
    let end = until(&client, |event| matches!(event, Event::Closed(_))).await;
    assert_eq!(end, Event::Closed(Ending::Finished));
}

#[tokio::test]
async fn closing_ends_the_wait_for_the_next_attempt() {
    let server = Server::bind(Codec::Native, quick()).await;
    let connecting = Client::connect(server.addr(), quick_options());
    let (client, mut peer) = tokio::join!(connecting, server.welcome(1));
    let client = client.unwrap();
    let (reason, return_after) = (CloseReason::Drained, Span::from_secs(3_600));
    peer.close(Goodbye { reason, stay_away: false, return_after }).await;
    until(&client, |event| matches!(event, Event::Reconnecting { .. })).await;
    client.close(CloseReason::Done).await.unwrap();
    assert_eq!(next(&client).await, Event::Closed(Ending::Finished));
}

#[tokio::test]
async fn a_reconnect_reports_how_the_previous_link_ended() {
    let server = Server::bind(Codec::Native, quick()).await;
    let connecting = Client::connect(server.addr(), quick_options());
    let (client, silent) = tokio::join!(connecting, server.welcome(7));
    let client = client.unwrap();
    assert_eq!(silent.account, None, "there was no previous link");
    until(&client, |event| matches!(event, Event::Lost { .. })).await;
    let peer = server.welcome(8).await;
    let account = peer.account.unwrap();
    assert_eq!((account.session, account.absent_ms), (7, 0));
    assert!(matches!(account.saw, Saw::Silence | Saw::Hung), "{account:?}");
    assert!(account.silent_ms > 0 && account.ended_ms < 60_000, "{account:?}");
    until(&client, |event| matches!(event, Event::Reconnected { .. })).await;
    // Closing a socket with unread bytes resets the connection.
    client.send(b"unread").await.unwrap();
    soon(peer.stream.readable()).await.unwrap();
    socket2::SockRef::from(&peer.stream).set_linger(Some(Span::ZERO.into())).unwrap();
    drop(peer);
    until(&client, |event| matches!(event, Event::Lost { .. })).await;
    let account = server.welcome(9).await.account.unwrap();
    assert_eq!(account.session, 8);
    assert!(matches!(account.saw, Saw::Reset | Saw::Ended), "{account:?}");
}
