//! A peer that uses the client library, as the programs of its users do.

use std::sync::Arc;

use serde_json::json;
use systole_client::session::Topic;
use systole_client::{Client, Event, Options, SessionId};
use systole_core::Span;
use systole_core::cause::Cause;
use systole_core::link::Hung;
use systole_core::reconnect::Backoff;
use systole_core::wire::CloseReason;
use systole_net::Clock;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{APART, MESSAGES, Spec, print_event};
use crate::trouble::Trouble;

/// Short times of the backoff, so that scenarios need not wait for a reconnect.
const BASE: Span = Span::from_millis(100);
const CAP: Span = Span::from_millis(500);
const STABLE: Span = Span::from_secs(10);

/// Number of messages that `fill` sends: more than the receive buffer of a stopped process takes,
/// less than makes the client a slow consumer of the echo when the process continues.
const FILLING: usize = 6;
static FILLER: [u8; 65_536] = [0; 65_536];

/// Time between two messages of a busy client, and what each says.
const BUSY: Span = Span::from_millis(20);
const TALK: &[u8] = b"busy";

pub(super) fn run(spec: &Spec) -> Result<(), Trouble> {
    let doing = Trouble::while_doing("a runtime for the client");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(doing)?;
    runtime.block_on(async {
        let clock = Clock::start();
        let mut clients = Vec::new();
        for number in 0..spec.links {
            clients.push(open(spec, number, clock).await?);
        }
        if spec.busy {
            clients.iter().cloned().for_each(|client| drop(tokio::spawn(talk(client))));
        }
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            for client in &clients {
                match line.as_str() {
                    "close" => {
                        let client = Arc::clone(client);
                        tokio::spawn(async move { client.close(CloseReason::Done).await });
                    }
                    "fill" => fill(client),
                    "message" => {
                        for message in MESSAGES {
                            let _ = client.try_send(message);
                            tokio::time::sleep(APART.into()).await;
                        }
                    }
                    other => return Err(Trouble::new(format!("no such order: {other}"))),
                }
            }
        }
        Ok(())
    })
}

async fn open(spec: &Spec, number: u32, clock: Clock) -> Result<Arc<Client>, Trouble> {
    let identity = format!("{}-{number}", spec.identity);
    let mut options = Options::default();
    options.identity.clone_from(&identity);
    options.report_heartbeats = true;
    options.reconnect =
        Some(Backoff::new(BASE, CAP, STABLE).expect("the base is below the cap, both in range"));
    if spec.keep_hung_ms > 0 {
        options.hung = Hung::Keep(Span::from_millis(spec.keep_hung_ms));
    }
    let client = Client::connect(spec.gateway, options).await;
    let client = Arc::new(client.map_err(|error| Trouble::new(format!("{identity}: {error}")))?);
    let listener = Arc::clone(&client);
    tokio::spawn(async move {
        while let Some(event) = listener.next_event().await {
            print_client_event(clock, &identity, &event);
        }
    });
    Ok(client)
}

/// Sends messages without end; while there is no link, none.
async fn talk(client: Arc<Client>) {
    let mut times = tokio::time::interval(BUSY.into());
    loop {
        times.tick().await;
        let _ = client.try_send(TALK);
    }
}

/// Queues messages, as far as the queue takes them.
fn fill(client: &Client) {
    for _ in 0..FILLING {
        if client.try_send(&FILLER).is_err() {
            return;
        }
    }
}

/// Prints an event with the gateway's names, so that the events of both ends have one format.
#[allow(clippy::wildcard_enum_match_arm)] // The client may add events.
fn print_client_event(clock: Clock, identity: &str, event: &Event) {
    let session = |session: &SessionId| json!({"session": session.to_string()});
    match event {
        Event::Connected { session: number, .. } => {
            print_event(clock, "join", identity, session(number))
        }
        Event::Reconnected { session: number, .. } => {
            print_event(clock, "join", identity, session(number));
        }
        Event::Resumed { session: number, .. } => {
            print_event(clock, "resumed", identity, session(number));
        }
        Event::Session(event) if event.topic() != Topic::Policy => {
            let more = event.cause().map_or(json!({}), |cause| json!({"cause": cause.name()}));
            print_event(clock, event.name(), identity, more);
        }
        Event::RoundTrip(rtt) => {
            print_event(clock, "round_trip", identity, json!({"rtt_us": rtt.as_micros()}));
        }
        // A busy link has no heartbeats.
        Event::Message(message) if message == TALK => {
            print_event(clock, "heard", identity, json!({}))
        }
        Event::HeartbeatReceived { .. } => print_event(clock, "heard", identity, json!({})),
        Event::Lost { verdict, silent_for, .. } | Event::Away { verdict, silent_for, .. } => {
            let kind = if matches!(event, Event::Lost { .. }) { "leave" } else { "away" };
            let (direction, scope) = loss(verdict.cause);
            let more = json!({
                "cause": verdict.cause.name(),
                "direction": direction,
                "scope": scope,
                "confidence": verdict.confidence.name(),
                "detail": verdict.cause.to_string(),
                "last_heard_ago_ms": silent_for.as_millis(),
            });
            print_event(clock, kind, identity, more);
        }
        Event::Revised { from, to, confidence } => {
            let (direction, scope) = loss(*to);
            let more = json!({
                "from": from.name(),
                "to": to.name(),
                "direction": direction,
                "scope": scope,
                "confidence": confidence.name(),
                "detail": to.to_string(),
            });
            print_event(clock, "verdict_revised", identity, more);
        }
        Event::Closed(_) => print_event(clock, "closed", identity, json!({})),
        // Other events are frequent, or irrelevant to liveness.
        _ => {}
    }
}

/// Returns the direction and the scope of a lost path.
fn loss(cause: Cause) -> (Option<&'static str>, Option<&'static str>) {
    if let Cause::PathLost { direction, scope } = cause {
        (Some(direction.name()), Some(scope.name()))
    } else {
        (None, None)
    }
}
