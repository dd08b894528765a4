//! A gateway and the client library, with a relay between them that cuts at random bytes.

#[path = "../../../client/tests/it/relay.rs"]
mod relay;

use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

use systole_client::reconnect::Backoff;
use systole_client::{Client, CloseReason, Event, Options, Span};
use systole_net::Clock;

use crate::gateway::{Gateway, unhurried, wait};
use crate::program::Program;
use crate::systole;
use relay::Relay;

/// The length of WELCOME to a new session with a window and a token, with its kind and length.
const WELCOME: u64 = 123;

#[tokio::test(flavor = "multi_thread")]
async fn messages_cross_a_gateway_over_hundreds_of_cuts_each_once_and_in_order() {
    let (cuts, seed) = (relay::cuts(), relay::seed());
    let config = unhurried().replacen("shortest_bound", "window_messages = 32\nshortest_bound", 1);
    let gateway = Gateway::start("cuts", &config);
    let relay = Relay::start(gateway.address("native"), cuts, seed).await;
    let mut options = Options::default();
    options.identity = "ada".to_owned();
    let ms = Span::from_millis;
    options.reconnect = Some(Backoff::new(ms(1), ms(3), ms(10_000)).expect("legal"));
    let client = Client::start(relay.address, options).expect("legal options");
    while !matches!(client.next_event().await.expect("it goes on"), Event::Connected { .. }) {}
    let clock = Clock::start();
    let resumed = relay.cross(&client, cuts, seed).await;
    println!("{cuts} cuts, {resumed} resumptions, in {}", clock.monotonic());
    assert!(resumed > cuts / 4, "{resumed}");
    client.close(CloseReason::Done).await.expect("all was delivered");
    wait("the end of the session", || {
        (gateway.get("/api/v1/presence/ada")["state"] == "offline").then_some(())
    });
}

#[test]
fn ping_says_that_a_session_is_kept_and_goes_on() {
    let gateway = Gateway::start("cuts-ping", &unhurried());
    let expected = [
        (vec![], "connection lost: ", "; the session is kept", "connected again, the session"),
        (vec!["-v"], "connection lost: ", "; the session is kept for 30.000 s", "resumed session "),
        (vec!["--json"], "\"event\":\"away\"", "\"kept_ms\":30000", "\"event\":\"resumed\""),
    ];
    for (more, lost, kept, resumed) in expected {
        let address = cut_once(gateway.address("native")).to_string();
        let args = ["ping", &address, "--reconnect"];
        let here = std::path::Path::new(".");
        let mut ping = Program::start(systole(here, &args).args(more));
        let line = ping.until(lost);
        assert!(line.contains(kept), "{line}");
        ping.until(resumed);
    }
}

/// Starts a relay that cuts its first connection after the first heartbeat, and no other.
fn cut_once(server: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    thread::spawn(move || {
        let mut most = WELCOME + 1;
        while let Ok((client, _)) = listener.accept() {
            let server = TcpStream::connect(server).expect("it listens");
            let up = (client.try_clone().expect("open"), server.try_clone().expect("open"));
            thread::spawn(move || io::copy(&mut &up.0, &mut &up.1));
            let _ = io::copy(&mut (&server).take(most), &mut &client);
            let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
            most = u64::MAX;
        }
    });
    address
}
