//! Tests that dead servers are detected in time, and live ones are kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use systole_client::{Client, CloseReason, Event, session};
use systole_core::cause::{Cause, Confidence};
use systole_core::diagnosis::{Ground, Grounds};
use systole_core::link::{BeatKind, Command, HALF_CLOSED};
use systole_core::wire::Codec;
use systole_core::{Policy, Span};
use systole_net::Clock;
use tokio::io::AsyncWriteExt;

use crate::server::{Heard, Server};
use crate::{ms, next, quick, quick_options, soon, until};

const SUSPECT: Event = Event::Session(session::Event::Suspect);

#[tokio::test]
async fn a_silent_server_is_lost_at_the_bound() {
    for codec in [Codec::Native, Codec::Message1028, Codec::Line] {
        let server = Server::bind(codec, quick()).await;
        let mut options = quick_options();
        options.codec = codec;
        options.reconnect = None;
        options.report_heartbeats = true;
        let (client, _silent) =
            tokio::join!(Client::connect(server.addr(), options), server.welcome(1));
        let client = client.unwrap();
        let Event::Connected { policy, .. } = next(&client).await else { panic!("{codec}") };
        assert_eq!(policy.bound(), Some(ms(500)), "{codec}");
        for expected in 1..=3 {
            let sent = until(&client, |event| *event != SUSPECT).await;
            let Event::HeartbeatSent { beat: BeatKind::Ping, number, .. } = sent else {
                panic!("{codec}: {sent:?}");
            };
            assert_eq!(number, expected, "{codec}");
        }
        let lost = until(&client, |event| *event != SUSPECT).await;
        let Event::Lost { verdict, farewell: None, silent_for, .. } = lost else {
            panic!("{codec}: {lost:?}");
        };
        // The local kernel acknowledges for the server, which does not answer.
        assert_eq!((verdict.cause, verdict.probes), (Cause::AppHung, 3), "{codec}");
        assert_eq!(verdict.due.since(verdict.last_heard), ms(500), "{codec}");
        assert!(silent_for >= ms(500) && silent_for < ms(2_000), "{codec}: {silent_for}");
        assert!(matches!(next(&client).await, Event::Closed(_)), "{codec}");
        assert_eq!(client.next_event().await, None, "{codec}");
        assert_eq!(client.next_event().await, None, "{codec}");
    }
}

#[tokio::test]
async fn a_server_that_sends_without_pause_leaves_time_to_other_tasks() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let flood = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let (mut stream, _) = listener.accept().unwrap();
            let clock = Clock::start();
            let pongs = b"pong\n".repeat(1_000);
            while !over.load(Ordering::Relaxed) && clock.monotonic() < Span::from_secs(20) {
                // It fails once the client has gone.
                if std::io::Write::write_all(&mut stream, &pongs).is_err() {
                    break;
                }
            }
            over.load(Ordering::Relaxed)
        }
    });
    let mut options = quick_options();
    (options.codec, options.reconnect) = (Codec::Line, None);
    let client = Client::connect(addr, options).await.unwrap();
    for _ in 0..20 {
        tokio::select! {
            _ = tokio::time::sleep(ms(10).into()) => {}
            () = async { while client.next_event().await.is_some() {} } => break,
        }
    }
    over.store(true, Ordering::Relaxed);
    let ended = tokio::task::spawn_blocking(|| flood.join().unwrap()).await.unwrap();
    assert!(ended, "nothing else ran before the flood was over");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_killed_with_an_unread_message_is_reported_as_exited() {
    let server = Server::bind(Codec::Native, Policy::standard()).await;
    let mut options = quick_options();
    (options.policy, options.reconnect) = (None, None);
    let (client, peer) = tokio::join!(Client::connect(server.addr(), options), server.welcome(1));
    let (client, mut peer) = (client.unwrap(), peer);
    client.send(b"unread").await.unwrap();
    soon(peer.stream.peek(&mut [0])).await.unwrap();
    // This segment also acknowledges the unread message.
    peer.send(b"last words").await;
    drop(peer);
    let lost = until(&client, |event| matches!(event, Event::Lost { .. })).await;
    let Event::Lost { verdict, .. } = lost else { panic!("{lost:?}") };
    assert_eq!((verdict.cause, verdict.confidence), (Cause::PeerExited, Confidence::High));
    assert!(verdict.grounds.contains(Ground::NothingOwed), "{verdict:?}");
}

#[tokio::test]
async fn a_half_closed_server_still_receives_messages() {
    let server = Server::bind(Codec::Native, Policy::standard()).await;
    let mut options = quick_options();
    (options.policy, options.reconnect) = (None, None);
    let (client, peer) = tokio::join!(Client::connect(server.addr(), options), server.welcome(1));
    let (client, mut peer) = (client.unwrap(), peer);
    peer.stream.shutdown().await.unwrap();
    // The probe after the FIN arrives; the server reads it but cannot answer.
    assert!(soon(peer.turn()).await);
    client.send(b"late").await.unwrap();
    peer.until(&Heard::Message(b"late".to_vec())).await;
    let lost = until(&client, |event| matches!(event, Event::Lost { .. })).await;
    let Event::Lost { verdict, .. } = lost else { panic!("{lost:?}") };
    assert_eq!((verdict.cause, verdict.confidence), (Cause::PeerExited, Confidence::Medium));
    assert!(verdict.due.since(verdict.last_heard) >= HALF_CLOSED, "{verdict:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_killed_with_nothing_unread_is_reported_as_exited_after_a_reset() {
    let server = Server::bind(Codec::Native, Policy::standard()).await;
    let mut options = quick_options();
    (options.policy, options.reconnect) = (None, None);
    let (client, peer) = tokio::join!(Client::connect(server.addr(), options), server.welcome(1));
    let client = client.unwrap();
    drop(peer);
    let lost = until(&client, |event| matches!(event, Event::Lost { .. })).await;
    let Event::Lost { verdict, .. } = lost else { panic!("{lost:?}") };
    let grounds = Grounds::of(&[Ground::SideClosed, Ground::Reset]);
    assert_eq!((verdict.cause, verdict.grounds), (Cause::PeerExited, grounds));
}

#[tokio::test]
async fn a_server_that_answers_is_kept_and_its_round_trips_are_reported() {
    let server = Server::bind(Codec::Native, quick()).await;
    let mut options = quick_options();
    options.report_heartbeats = true;
    let (client, peer) = tokio::join!(Client::connect(server.addr(), options), server.welcome(1));
    let client = client.unwrap();
    tokio::spawn(peer.serve());
    let clock = Clock::start();
    let mut beats = 0;
    while clock.monotonic() < Span::from_secs(2) {
        let event = next(&client).await;
        assert!(!matches!(event, Event::Lost { .. }), "{event:?}");
        beats += u32::from(matches!(event, Event::RoundTrip(_)));
    }
    assert!(beats >= 3, "{beats}");
}

#[tokio::test]
async fn a_client_that_did_not_run_does_not_blame_the_server() {
    let server = Server::bind(Codec::Native, quick()).await;
    let addr = server.addr();
    // The client's runtime has its own thread, so that only the client is stalled.
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client = Client::connect(addr, quick_options()).await.unwrap();
            next(&client).await;
            let clock = Clock::start();
            // Stalls the runtime for four bounds, while the server answers nothing.
            while clock.monotonic() < Span::from_secs(2) {
                std::hint::spin_loop();
            }
            let stalled_for = clock.monotonic();
            let event = until(&client, |event| *event != SUSPECT).await;
            (event, stalled_for)
        })
    });
    let mut peer = server.welcome(1).await;
    // The first heartbeat arrives when the client runs again, after four bounds of silence.
    assert!(soon(peer.turn()).await);
    peer.send(b"still here").await;
    let (event, stalled_for) = thread.join().unwrap();
    assert!(stalled_for >= Span::from_secs(2));
    assert_eq!(event, Event::Message(b"still here".to_vec()));
}

#[tokio::test]
async fn the_server_changes_the_policy_and_grants_a_request() {
    let server = Server::bind(Codec::Native, Policy::standard()).await;
    let mut options = quick_options();
    options.policy = None;
    let (client, peer) = tokio::join!(Client::connect(server.addr(), options), server.welcome(1));
    let (client, mut peer) = (client.unwrap(), peer);
    let Event::Connected { policy, .. } = next(&client).await else { panic!("not connected") };
    assert_eq!(policy.bound(), Policy::standard().bound());

    peer.command(Command::Retune(Policy::demanding())).await;
    let Event::Session(session::Event::Retuned(policy)) = next(&client).await else {
        panic!("not retuned")
    };
    assert_eq!(policy.bound(), Some(Span::from_secs(8)));

    let asked = Policy::new(ms(3_000), ms(1_000), 2).unwrap();
    client.ask_policy(asked).await.unwrap();
    let granted = asked.with_conduct_of(&Policy::standard());
    peer.until(&Heard::Retuned(granted)).await;
    let Event::Session(session::Event::Retuned(policy)) = next(&client).await else {
        panic!("not granted")
    };
    assert_eq!(policy.bound(), Some(Span::from_secs(5)));
}

#[tokio::test]
async fn heartbeat_data_is_carried_both_ways() {
    let server = Server::bind(Codec::Native, quick()).await;
    let connecting = Client::connect(server.addr(), quick_options());
    let (client, mut peer) = tokio::join!(connecting, server.welcome(1));
    let client = client.unwrap();
    client.set_heartbeat_data(b"hp=97").await.unwrap();
    peer.command(Command::HeartbeatData(b"ok")).await;
    peer.until(&Heard::HeartbeatData(b"hp=97".to_vec())).await;
    tokio::spawn(peer.serve());
    until(&client, |event| *event == Event::HeartbeatData(b"ok".to_vec())).await;
    assert!(client.set_heartbeat_data(&[0; 1_025]).await.is_err());
}

#[tokio::test]
async fn a_heartbeat_on_request_is_answered_with_its_round_trip() {
    for codec in [Codec::Native, Codec::Line] {
        let server = Server::bind(codec, Policy::standard()).await;
        let mut options = quick_options();
        options.codec = codec;
        options.policy = Some(Policy::standard());
        options.report_heartbeats = true;
        let (client, peer) = tokio::join!(Client::connect(server.addr(), options), async {
            server.welcome(1).await
        });
        let client = client.unwrap();
        let serving = tokio::spawn(peer.serve());
        let is_answer = |event: &Event| matches!(event, Event::HeartbeatAnswered { .. });
        for expected in 1..=3 {
            client.send_heartbeat().await.unwrap();
            let answer = until(&client, is_answer).await;
            let Event::HeartbeatAnswered { sequence, number: 0, rtt } = answer else {
                panic!("{answer:?}");
            };
            assert_eq!(sequence, expected, "{codec}");
            assert!(rtt > Span::ZERO && rtt < Span::from_secs(20), "{rtt}");
        }
        client.close(CloseReason::Done).await.unwrap();
        soon(serving).await.unwrap();
    }
}
