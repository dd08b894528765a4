//! Tests of connecting, and of failures within bounded time.

use std::time::Duration;

use systole_client::reconnect::{Obstacle, Stop};
use systole_client::{Client, ConnectError, Ending, Event, SessionId};
use systole_core::cause::Cause;
use systole_core::link::Goodbye;
use systole_core::wire::{CloseReason, Codec};
use systole_core::{Policy, Span};
use systole_net::{Clock, listener};

use crate::server::Server;
use crate::{next, quick_options, soon, until};

#[tokio::test]
async fn a_closed_port_is_an_error_at_once() {
    let server = Server::bind(Codec::Native, Policy::default()).await;
    let addr = server.addr();
    drop(server);
    let error = Client::connect(addr, quick_options()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Io { .. }) && error.is_retryable(), "{error}");
}

#[tokio::test]
async fn a_name_without_an_address_is_a_resolve_error() {
    for name in ["no port", "127.0.0.1", "host.invalid:7400"] {
        let error = soon(Client::connect(name, quick_options())).await.unwrap_err();
        assert!(matches!(error, ConnectError::Resolve { .. }), "{name}: {error}");
    }
}

#[tokio::test]
async fn an_identity_with_a_control_character_is_refused_before_connecting() {
    for identity in ["a\nb", "\u{1b}[2J", "\u{9b}"] {
        let mut options = quick_options();
        options.identity = identity.to_owned();
        let started = Client::start("127.0.0.1:1", options.clone());
        assert_eq!(started.unwrap_err(), ConnectError::Identity, "{identity:?}");
        let error = Client::connect("127.0.0.1:1", options).await.unwrap_err();
        assert_eq!(error, ConnectError::Identity, "{identity:?}");
        assert!(!error.is_retryable());
    }
}

#[tokio::test]
async fn connecting_to_a_full_listener_times_out() {
    let full = listener::bind("127.0.0.1:0".parse().unwrap(), 0, false).unwrap();
    let addr = full.local_addr().unwrap();
    let mut options = quick_options();
    options.connect_timeout = Duration::from_millis(300);
    options.handshake_timeout = Duration::from_secs(60);
    // Connections that are not accepted fill the backlog; the next SYN goes unanswered.
    let connect = || tokio::net::TcpStream::connect(addr);
    let mut filling = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(300), connect()).await {
        filling.push(stream);
        assert!(filling.len() < 16, "the backlog of 0 holds {}", filling.len());
    }
    let clock = Clock::start();
    let error = soon(Client::connect(addr, options)).await.unwrap_err();
    assert_eq!(error, ConnectError::Timeout(Duration::from_millis(300)));
    assert!(clock.monotonic() < Span::from_secs(5), "{}", clock.monotonic());
}

#[tokio::test]
async fn a_handshake_without_an_answer_times_out() {
    let server = Server::bind(Codec::Native, Policy::default()).await;
    let mut options = quick_options();
    options.handshake_timeout = Duration::from_millis(200);
    let connecting = Client::connect(server.addr(), options);
    let (error, _mute) = tokio::join!(connecting, server.accept(1));
    let error = error.unwrap_err();
    let ConnectError::Handshake { verdict, farewell: None, .. } = &error else { panic!("{error}") };
    assert_eq!(verdict.cause, Cause::HandshakeTimeout);
}

#[tokio::test]
async fn a_refusal_reports_the_close_of_the_server() {
    let server = Server::bind(Codec::Native, Policy::default()).await;
    let refusing = async {
        let mut peer = server.accept(1).await;
        let (reason, return_after) = (CloseReason::Unauthorized, Span::ZERO);
        peer.close(Goodbye { reason, stay_away: true, return_after }).await;
        peer
    };
    let (error, _peer) = tokio::join!(Client::connect(server.addr(), quick_options()), refusing);
    let error = error.unwrap_err();
    let ConnectError::Handshake { farewell: Some(farewell), .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(farewell.reason, CloseReason::Unauthorized);
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn a_client_that_was_never_welcomed_goes_on_by_the_same_rules() {
    let server = Server::bind(Codec::Native, Policy::default()).await;
    let client = Client::start(server.addr(), quick_options()).unwrap();
    for expected in 1..=2 {
        drop(server.accept(0).await);
        let failed = next(&client).await;
        assert!(matches!(failed, Event::AttemptFailed(ConnectError::Handshake { .. })));
        let Event::Reconnecting { attempt, .. } = next(&client).await else { panic!("gave up") };
        assert_eq!(attempt, expected);
    }
    let _peer = server.welcome(5).await;
    let event = next(&client).await;
    assert!(matches!(event, Event::Connected { session: SessionId(5), .. }), "{event:?}");
}

#[tokio::test]
async fn a_client_without_reconnecting_makes_one_attempt() {
    let server = Server::bind(Codec::Native, Policy::default()).await;
    let addr = server.addr();
    drop(server);
    let mut options = quick_options();
    options.reconnect = None;
    let client = Client::start(addr, options).unwrap();
    assert!(matches!(next(&client).await, Event::AttemptFailed(ConnectError::Io { .. })));
    assert_eq!(next(&client).await, Event::Closed(Ending::NotReconnecting));
    assert_eq!(client.next_event().await, None);
}

#[tokio::test]
async fn what_is_no_address_ends_a_client_at_once() {
    let client = Client::start("127.0.0.1", quick_options()).unwrap();
    let failed = next(&client).await;
    let Event::AttemptFailed(error) = failed else { panic!("{failed:?}") };
    assert_eq!(error.obstacle(), Some(Obstacle::NoAddress));
    let says = "\"127.0.0.1\" is no address: a port is needed, as in 127.0.0.1:7400";
    assert_eq!(error.to_string(), says);
    let stop = Stop::Blocked(Obstacle::NoAddress);
    assert_eq!(next(&client).await, Event::Closed(Ending::Stopped(stop)));
}

#[tokio::test]
async fn closing_ends_an_attempt_in_its_handshake() {
    let server = Server::bind(Codec::Native, Policy::default()).await;
    let client = Client::start(server.addr(), quick_options()).unwrap();
    let mut mute = server.accept(1).await;
    client.close(CloseReason::Done).await.unwrap();
    let end = until(&client, |event| matches!(event, Event::Closed(_))).await;
    assert_eq!(end, Event::Closed(Ending::Finished));
    soon(async { while mute.turn().await {} }).await;
}
