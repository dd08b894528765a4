//! Tests of sessions with a window: the gateway with the client library.

use std::sync::{Arc, mpsc};
use std::thread;

use serde_json::Value;
use systole_client::{Client, Event, Options};
use tokio::sync::mpsc as commands;

use crate::gateway::{Gateway, unhurried, wait};

/// The messages in the window of the gateway.
const WINDOW: usize = 8;

/// What a test asks of its client.
enum Ask {
    /// Take this many messages, and hand them over.
    Take(usize),
    /// Send this many messages, flush, and take those that come back.
    Flush(usize),
    /// Send this many messages, whatever comes back.
    Send(usize),
    /// Send one message of this many bytes, and take what comes back.
    Large(usize),
}

/// A client in a thread of its own, which takes only the messages that it is asked to take.
struct Slow {
    asks: commands::UnboundedSender<Ask>,
    answers: mpsc::Receiver<String>,
}

impl Slow {
    fn start(gateway: &Gateway, identity: &str) -> Slow {
        let (asks, to_do) = commands::unbounded_channel();
        let (done, answers) = mpsc::channel();
        let mut options = Options::default();
        options.identity = identity.to_owned();
        options.reconnect = None;
        let address = gateway.address("native");
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().expect("a runtime");
        thread::spawn(move || runtime.block_on(run(address.to_string(), options, to_do, done)));
        Slow { asks, answers }
    }

    fn ask(&self, ask: Ask) {
        self.asks.send(ask).expect("the client runs");
    }

    fn answer(&self) -> String {
        self.answers.recv_timeout(crate::program::SOON).expect("an answer in time")
    }
}

async fn run(
    address: String,
    options: Options,
    mut asks: commands::UnboundedReceiver<Ask>,
    answers: mpsc::Sender<String>,
) {
    let client = Client::connect(address, options).await.expect("it is welcome");
    let client = Arc::new(client);
    while let Some(ask) = asks.recv().await {
        match ask {
            Ask::Take(count) => {
                for bytes in take(&client, count).await {
                    let _ = answers.send(String::from_utf8_lossy(&bytes).into_owned());
                }
            }
            Ask::Flush(count) => {
                let sending = async {
                    for number in 0..count {
                        client.send(number.to_string().as_bytes()).await.expect("connected");
                    }
                    client.flush().await
                };
                // The gateway sends all of them back.
                let (flushed, back) = tokio::join!(sending, take(&client, count));
                let in_order = (0..count).map(|number| number.to_string().into_bytes()).eq(back);
                let _ = answers.send(format!("{flushed:?} {in_order}"));
            }
            Ask::Large(length) => {
                let message: Vec<u8> = (0..length).map(|at| (at / 251) as u8).collect();
                client.send(&message).await.expect("connected");
                let back = take(&client, 1).await;
                let _ = answers.send(format!("{}", back == [message]));
            }
            Ask::Send(count) => {
                let client = client.clone();
                tokio::spawn(async move {
                    for number in 0..count {
                        client.send(number.to_string().as_bytes()).await.expect("connected");
                    }
                });
            }
        }
    }
}

/// Takes this many messages.
async fn take(client: &Client, count: usize) -> Vec<Vec<u8>> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let event = client.next_event().await.expect("the link stands");
        if let Event::Message(bytes) = event {
            taken.push(bytes);
        } else {
            assert!(!matches!(event, Event::Lost { .. }), "{event:?}");
        }
    }
    taken
}

fn gateway(name: &str) -> Gateway {
    let window = format!("window_messages = {WINDOW}\nshortest_bound");
    Gateway::start(name, &unhurried().replacen("shortest_bound", &window, 1))
}

/// Sends a message from outside, and returns whether it was queued.
fn send(gateway: &Gateway, message: &str) -> bool {
    let answer: Value = gateway.ask("POST /api/v1/identities/slow/send", message);
    answer["queued"] == 1
}

#[test]
fn a_session_whose_window_is_full_is_busy_until_its_client_takes() {
    let gateway = gateway("windows-slow");
    let slow = Slow::start(&gateway, "slow");
    gateway.sessions("&identity=slow", 1);
    for round in 0..3 {
        for number in 0..WINDOW {
            assert!(send(&gateway, &format!("{round} {number}")));
        }
        slow.ask(Ask::Take(WINDOW));
        for number in 0..WINDOW {
            assert_eq!(slow.answer(), format!("{round} {number}"));
        }
        wait("the acknowledgement", || {
            (gateway.metric("systole_window_bytes") == 0.0).then_some(())
        });
    }
    (0..WINDOW).for_each(|_| assert!(send(&gateway, "untaken")));
    let answer: Value = gateway.ask("POST /api/v1/identities/slow/send", "too much");
    assert_eq!((&answer["queued"], &answer["busy"]), (&0.into(), &1.into()), "{answer}");
    assert_eq!(gateway.get("/api/v1/presence/slow")["state"], "online");
    slow.ask(Ask::Take(WINDOW));
    (0..WINDOW).for_each(|_| assert_eq!(slow.answer(), "untaken"));
    wait("room", || send(&gateway, "now").then_some(()));
    slow.ask(Ask::Take(1));
    assert_eq!(slow.answer(), "now");
}

#[test]
fn a_client_that_was_busy_is_asked_for_the_acknowledgement_that_makes_room() {
    let window = "window_bytes = \"1KiB\"\nshortest_bound";
    let config = unhurried().replacen("shortest_bound", window, 1);
    let gateway = Gateway::start("windows-asked", &config);
    let slow = Slow::start(&gateway, "slow");
    gateway.sessions("&identity=slow", 1);
    // Less than half of the window, of which a client says nothing before its next heartbeat.
    let message = "m".repeat(450);
    assert!(send(&gateway, &message));
    slow.ask(Ask::Take(1));
    assert_eq!(slow.answer(), message);
    let longer = "n".repeat(600);
    wait("room", || send(&gateway, &longer).then_some(()));
    slow.ask(Ask::Take(1));
    assert_eq!(slow.answer(), longer);
}

#[test]
fn a_client_that_does_not_read_its_answers_comes_to_a_stop_itself() {
    let gateway = gateway("windows-stop");
    let slow = Slow::start(&gateway, "slow");
    gateway.sessions("&identity=slow", 1);
    slow.ask(Ask::Send(1_000));
    // The window of answers is full, and so is the client's own.
    wait("the windows", || (gateway.metric("systole_window_bytes") >= WINDOW as f64).then_some(()));
    assert_eq!(gateway.get("/api/v1/presence/slow")["state"], "online");
    slow.ask(Ask::Take(1_000));
    (0..1_000).for_each(|number: u32| assert_eq!(slow.answer(), number.to_string()));
    assert_eq!(gateway.get("/api/v1/presence/slow")["state"], "online");
}

/// It is longer than `window_bytes`, and than the outbox of a link without a window.
#[test]
fn a_large_message_comes_back_whole() {
    let gateway = gateway("windows-large");
    let client = Slow::start(&gateway, "slow");
    for length in [200 << 10, 300 << 10, 4 << 20, 1, 4 << 20] {
        client.ask(Ask::Large(length));
        assert_eq!(client.answer(), "true", "{length} bytes");
    }
    assert_eq!(gateway.get("/api/v1/presence/slow")["state"], "online");
}

#[test]
fn a_gateway_acknowledges_what_a_client_flushes() {
    let gateway = gateway("windows-flush");
    let client = Slow::start(&gateway, "slow");
    for _ in 0..100 {
        client.ask(Ask::Flush(WINDOW));
        assert_eq!(client.answer(), "Ok(()) true");
    }
}
