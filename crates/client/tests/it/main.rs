//! Tests of the client with test servers, over real sockets.

mod backpressure;
mod closing;
mod connecting;
mod examples;
mod keeper;
mod liveness;
mod messages;
mod reconnecting;
mod relay;
mod resuming;
mod server;
mod tokens;
mod window;

use std::time::Duration;

use systole_client::{Client, Event, Options};
use systole_core::reconnect::Backoff;
use systole_core::{Policy, Span};

/// Time limit of every wait, far beyond what a busy machine needs.
const SOON: Duration = Duration::from_secs(20);

fn ms(millis: u64) -> Span {
    Span::from_millis(millis)
}

/// Policy with D = 500 ms: 200 ms of silence, then three probes at intervals of 100 ms.
fn quick() -> Policy {
    Policy::new(ms(200), ms(100), 3).expect("legal").with_spread(false)
}

fn quick_options() -> Options {
    let mut options = Options::default();
    options.policy = Some(quick());
    options.reconnect = Some(Backoff::new(ms(1), ms(50), ms(10_000)).expect("legal"));
    options
}

/// Waits for the next event; panics after [`SOON`].
async fn next(client: &Client) -> Event {
    let event = tokio::time::timeout(SOON, client.next_event()).await;
    event.expect("an event in time").expect("not at its end")
}

/// Waits for the next event that `wanted` accepts; skips others.
async fn until(client: &Client, wanted: impl Fn(&Event) -> bool) -> Event {
    loop {
        let event = next(client).await;
        if wanted(&event) {
            return event;
        }
    }
}

/// Awaits `work`; panics after [`SOON`].
async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, work).await.expect("done in time")
}
