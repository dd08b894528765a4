//! Accepts connections of the admin interface, with limits on their number and idle time.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use systole_core::Span;
use systole_net::Clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::gateway::Lifecycle;
use crate::throttle::Throttle;

/// Number of connections for requests other than event streams: scrapers, dashboards and people.
/// Further connections wait in the kernel's accept queue.
pub(crate) const SPARE_CONNECTIONS: usize = 64;

/// Time limit for the head of a request, including the idle time before it. A scraper with a period
/// of 15 s keeps its connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause after a failed accept, which is usually caused by a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Time limit for answers and event streams to end after the gateway has stopped. A subscriber that
/// reads more slowly than this loses the end of its stream.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Least time between two warnings that no connection can be accepted.
const WARNING_EVERY: Span = Span::from_secs(10);

/// Serves `router` on at most `connections` connections at a time, until the gateway has stopped
/// and what was being answered then is answered: event streams to their last event.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    connections: usize,
    phase: watch::Receiver<Lifecycle>,
) {
    let connections = connections.min(Semaphore::MAX_PERMITS);
    let free = Arc::new(Semaphore::new(connections));
    tokio::select! {
        () = accept(listener, router, free.clone(), phase.clone()) => {}
        () = stopped(phase) => {}
    }
    let all = u32::try_from(connections).unwrap_or(u32::MAX);
    if timeout(END_TIMEOUT, free.acquire_many(all)).await.is_err() {
        tracing::warn!("the end of an event stream was not read in time");
    }
}

/// Accepts connections; never returns.
async fn accept(
    listener: TcpListener,
    router: Router,
    free: Arc<Semaphore>,
    phase: watch::Receiver<Lifecycle>,
) {
    let clock = Clock::start();
    let mut throttle = Throttle::new(1, WARNING_EVERY);
    loop {
        // The semaphore is never closed, so this never returns.
        let Ok(permit) = free.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (router, phase) = (router.clone(), phase.clone());
                tokio::spawn(async move {
                    serve_connection(stream, router, phase).await;
                    drop(permit);
                });
            }
            Err(error) => {
                if let Some(held_back) = throttle.admit(clock.monotonic()) {
                    tracing::warn!(%error, held_back, "the admin interface cannot accept");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Waits until the gateway has stopped.
async fn stopped(mut phase: watch::Receiver<Lifecycle>) {
    // The gateway holds the sender; without it there is nothing to wait for.
    let _ = phase.wait_for(|phase| *phase == Lifecycle::Stopped).await;
}

async fn serve_connection(stream: TcpStream, router: Router, phase: watch::Receiver<Lifecycle>) {
    // Without TCP_NODELAY small answers are only slower, so a failure is ignored.
    let _ = stream.set_nodelay(true);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stopped(phase) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of the admin interface ended");
    }
}
