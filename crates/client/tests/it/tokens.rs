//! Tests of the token of each login: fixed, and from a source.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use systole_client::token::TokenSource;
use systole_client::{Client, CloseReason, Codec, ConnectError, Ending, Event, Options, SessionId};
use systole_core::Span;
use systole_core::link::Goodbye;
use systole_core::reconnect::{Obstacle, Stop};

use crate::server::Server;
use crate::{next, quick, quick_options, soon, until};

/// A source that gives these tokens one after the other, then fails, and notes whether the last
/// one had been refused.
fn one_of(tokens: &[&str]) -> (TokenSource, Arc<Mutex<Vec<bool>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (noted, tokens) =
        (Arc::clone(&asked), Vec::from_iter(tokens.iter().map(|it| it.to_string())));
    let source = TokenSource::new(move |request| {
        let mut noted = noted.lock().expect("no test has failed");
        noted.push(request.refused);
        let token = tokens.get(noted.len() - 1).cloned();
        async move { token.ok_or("no more\u{1b}[2J tokens") }
    });
    (source, asked)
}

fn with(source: TokenSource) -> Options {
    let mut options = quick_options();
    options.token_source = Some(source);
    options
}

async fn attempt_failed(client: &Client) -> ConnectError {
    let failed = until(client, |event| matches!(event, Event::AttemptFailed(_))).await;
    let Event::AttemptFailed(error) = failed else { panic!("{failed:?}") };
    error
}

async fn no_token(client: &Client) -> String {
    let error = attempt_failed(client).await;
    assert!(error.is_retryable() && error.obstacle() == Some(Obstacle::NoToken), "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn each_login_has_a_fresh_token_also_after_a_refusal_and_the_end_of_a_token() {
    let server = Server::bind(Codec::Native, quick()).await;
    let (source, asked) = one_of(&["secret-1", "secret-2", "secret-3", "secret-4"]);
    let options = with(source);
    let shown = format!("{options:?}");
    let client = Client::start(server.addr(), options).unwrap();
    let peer = server.accept(1).await;
    assert_eq!(peer.token().await, "secret-1");
    tokio::spawn(peer.refuse());
    let error = attempt_failed(&client).await;
    let ConnectError::Handshake { farewell: Some(farewell), .. } = &error else {
        panic!("{error:?}");
    };
    assert!(farewell.stay_away && farewell.reason == CloseReason::Unauthorized);
    let peer = server.accept(2).await;
    assert_eq!(peer.token().await, "secret-2");
    let mut peer = server.complete(peer).await;
    until(&client, |event| matches!(event, Event::Connected { .. })).await;
    // As a gateway with `end_at_expiry` ends the session of a token.
    let (reason, return_after) = (CloseReason::Unauthorized, Span::ZERO);
    peer.close(Goodbye { reason, stay_away: false, return_after }).await;
    until(&client, |event| matches!(event, Event::Lost { farewell: Some(_), .. })).await;
    let peer = server.accept(3).await;
    assert_eq!(peer.token().await, "secret-3");
    let peer = server.complete(peer).await;
    let back = until(&client, |event| matches!(event, Event::Reconnected { .. })).await;
    assert!(matches!(back, Event::Reconnected { session: SessionId(3), .. }), "{back:?}");
    drop(peer);
    until(&client, |event| matches!(event, Event::Lost { .. })).await;
    assert_eq!(server.accept(4).await.token().await, "secret-4");
    assert_eq!(*asked.lock().unwrap(), [false, true, false, false]);
    assert!(!format!("{shown} {client:?} {error:?} {error}").contains("secret"), "{shown}");
}

#[tokio::test]
async fn a_refused_token_is_not_shown_again() {
    let server = Server::bind(Codec::Native, quick()).await;
    let (source, asked) = one_of(&["secret", "secret", "secret", "other"]);
    let client = Client::start(server.addr(), with(source)).unwrap();
    let peer = server.accept(1).await;
    assert_eq!(peer.token().await, "secret");
    tokio::spawn(peer.refuse());
    assert!(matches!(attempt_failed(&client).await, ConnectError::Handshake { .. }));
    for _ in 0..2 {
        let why = no_token(&client).await;
        assert!(why.contains("gave again") && !why.contains("secret"), "{why}");
    }
    let peer = server.accept(2).await;
    assert_eq!(peer.token().await, "other", "no login in between");
    assert_eq!(*asked.lock().unwrap(), [false, true, true, true]);
}

#[tokio::test]
async fn a_fixed_token_that_is_refused_ends_the_client() {
    let server = Server::bind(Codec::Native, quick()).await;
    let mut options = quick_options();
    options.token = b"secret".to_vec();
    let client = Client::start(server.addr(), options).unwrap();
    let peer = server.accept(1).await;
    assert_eq!(peer.token().await, "secret");
    tokio::spawn(peer.refuse());
    assert!(!attempt_failed(&client).await.is_retryable());
    assert_eq!(next(&client).await, Event::Closed(Ending::Stopped(Stop::Told)));
}

#[tokio::test]
async fn a_source_that_fails_panics_or_gives_too_much_is_asked_again() {
    let server = Server::bind(Codec::Native, quick()).await;
    let calls = AtomicUsize::new(0);
    let source = TokenSource::new(move |_| {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        async move {
            match call {
                0 => Err("no \u{1b}[2J file"),
                1 => panic!("a panic of the application, as the test expects"),
                2 => Ok(vec![b'x'; 1_025]),
                3 => Ok(vec![b'x'; 1_024]),
                _ => Err("enough"),
            }
        }
    });
    let client = Client::start(server.addr(), with(source)).unwrap();
    assert_eq!(no_token(&client).await, "no token: no \\u001b[2J file");
    assert_eq!(no_token(&client).await, "no token: its source panicked");
    assert!(no_token(&client).await.contains("longer than 1024 bytes"));
    let peer = server.accept(1).await;
    assert_eq!(peer.token().await.len(), 1_024);
}

#[tokio::test]
async fn a_long_error_of_a_source_is_cut() {
    let source = TokenSource::blocking(|_| Err::<String, _>("ö".repeat(100_000)));
    let error = Client::connect("127.0.0.1:1", with(source)).await.unwrap_err();
    let ConnectError::Token { why, .. } = error else { panic!("{error:?}") };
    assert_eq!(why.chars().count(), 513);
}

#[tokio::test]
async fn a_source_that_gives_nothing_in_time_is_dropped_and_asked_again() {
    /// Reports that a future was dropped.
    struct Dropped(Sender<()>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let (sender, dropped) = channel();
    let source = TokenSource::new(move |_| {
        let guard = Dropped(sender.clone());
        async move {
            let _guard = guard;
            std::future::pending::<io::Result<String>>().await
        }
    });
    let mut options = with(source);
    options.token_timeout = Duration::from_millis(20);
    let client = Client::start("127.0.0.1:1", options.clone()).unwrap();
    for _ in 0..2 {
        assert_eq!(no_token(&client).await, "no token: its source has given none in 20ms");
    }
    assert!(dropped.try_iter().count() >= 1);
    drop(client);
    // Closing ends the wait, long before the time limit.
    options.token_timeout = Duration::from_secs(3_600);
    let client = Client::start("127.0.0.1:1", options.clone()).unwrap();
    soon(client.close(CloseReason::Done)).await.unwrap();
    // So does a canceled call.
    let connecting = Client::connect("127.0.0.1:1", options);
    assert!(tokio::time::timeout(Duration::from_millis(20), connecting).await.is_err());
}

#[tokio::test]
async fn a_blocking_source_has_one_call_at_a_time_and_holds_up_nobody() {
    let server = Server::bind(Codec::Native, quick()).await;
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let source = TokenSource::blocking(move |_| {
        if counted.fetch_add(1, Ordering::Relaxed) == 0 {
            let _ = released.lock().unwrap().recv();
            return Err(io::Error::other("too late"));
        }
        Ok("secret")
    });
    let mut options = with(source);
    options.token_timeout = Duration::from_millis(20);
    let client = Client::start(server.addr(), options).unwrap();
    for _ in 0..3 {
        assert_eq!(no_token(&client).await, "no token: its source has given none in 20ms");
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1, "no second thread");
    release.send(()).unwrap();
    let peer = server.accept(1).await;
    assert_eq!(peer.token().await, "secret");
}

#[tokio::test]
async fn a_codec_without_a_token_asks_nobody() {
    let server = Server::bind(Codec::Line, quick()).await;
    let (source, asked) = one_of(&["secret"]);
    let mut options = with(source);
    options.codec = Codec::Line;
    let (client, _peer) = tokio::join!(Client::connect(server.addr(), options), server.welcome(1));
    client.unwrap();
    assert!(asked.lock().unwrap().is_empty());
}
