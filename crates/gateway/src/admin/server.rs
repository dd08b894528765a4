//! Accepts connections of the admin interface, and holds each to its deadlines and its place.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use systole_core::Span;
use systole_net::Clock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

use super::places::Place;
use super::wire::{Marks, Wire};
use super::{Api, secure};
use crate::gateway::Lifecycle;
use crate::stats::AdminEnded;
use crate::throttle::Throttle;

/// The deadlines of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    /// For the whole head of a request, including the idle time before it.
    pub(super) head: Duration,
    /// For the next byte of an answer or of an event stream to be taken by the peer.
    pub(super) write: Duration,
}

/// A scraper with a period of 15 s keeps its connection. A peer that takes no byte for 10 s is
/// gone or hangs; on the way a byte is retransmitted five times in that.
pub(super) const DEADLINES: Deadlines =
    Deadlines { head: Duration::from_secs(30), write: Duration::from_secs(10) };

/// Maximum size of the buffers for received and for unsent bytes of a connection: the head of a
/// request has a token and little else. A longer answer is buffered once, whole.
const BUFFER: usize = 16 * 1024;

/// Size of the kernel's buffer for unsent bytes, which the kernel doubles. By itself it would grow
/// to 4 MiB for each peer that does not read, and one that pipelines requests would have tens of
/// thousands of them answered.
const KERNEL_BUFFER: usize = 16 * 1024;

/// The content type of an event stream.
const EVENT_STREAM: &str = "text/event-stream";

/// Pause after a failed accept, which is usually caused by a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Number of connections accepted in a row, before those accepted may run: in a flood, each reads
/// what has arrived before later ones displace it. More keep the kernel's queue short, whose
/// overflow costs a client a second; less than half of the places of one address.
const ACCEPTS: usize = 12;

/// Time limit for answers and event streams to end after the gateway has stopped. A subscriber that
/// reads more slowly than this loses the end of its stream.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// Least time between two warnings that no connection can be accepted.
const WARNING_EVERY: Span = Span::from_secs(10);

/// Serves `api` until the gateway has stopped and what was being answered then is answered: event
/// streams to their last event.
pub(crate) async fn serve(listener: TcpListener, api: Api, phase: watch::Receiver<Lifecycle>) {
    let mut connections = JoinSet::new();
    tokio::select! {
        () = accept(listener, &api, &mut connections, &phase) => {}
        () = stopped(phase.clone()) => {}
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    if timeout(END_TIMEOUT, ended).await.is_err() {
        tracing::warn!("the end of an event stream was not read in time");
    }
}

/// Accepts connections; never returns. Each is accepted at once, since a connection that waits in
/// the kernel's queue has no deadline; the places bound their number.
async fn accept(
    listener: TcpListener,
    api: &Api,
    connections: &mut JoinSet<()>,
    phase: &watch::Receiver<Lifecycle>,
) {
    let clock = Clock::start();
    let mut throttle = Throttle::new(1, WARNING_EVERY);
    let mut in_a_row = 0;
    let limit = api.places.limit().saturating_add(ACCEPTS);
    loop {
        if connections.len() >= limit {
            // Those that lost their places have yet to end.
            connections.join_next().await;
            continue;
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                connections.spawn(serve_connection(stream, peer.ip(), api.clone(), phase.clone()));
                in_a_row += 1;
                if in_a_row == ACCEPTS {
                    in_a_row = 0;
                    yield_now().await;
                }
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

async fn serve_connection(
    stream: TcpStream,
    peer: IpAddr,
    api: Api,
    phase: watch::Receiver<Lifecycle>,
) {
    // Without TCP_NODELAY small answers are only slower, and with the kernel's own buffers a peer
    // that does not read costs more memory, so failures are ignored.
    let _ = stream.set_nodelay(true);
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stream, KERNEL_BUFFER);
    let (place, mut evicted) = api.places.open(peer);
    let (wire, marks) = Wire::new(stream, place.clone(), api.deadlines.write);
    let Some(tls) = api.tls.clone() else {
        return serve_http(wire, &marks, place, evicted, &api, phase).await;
    };
    let shaken = tokio::select! {
        shaken = timeout(api.deadlines.head, secure::accept(&tls, wire)) => shaken,
        reason = eviction(&mut evicted) => return api.gateway.metrics().count_admin(reason),
        () = stopped(phase.clone()) => return,
    };
    match shaken {
        Ok(Ok(stream)) => serve_http(stream, &marks, place, evicted, &api, phase).await,
        Ok(Err(error)) => {
            let reason =
                if marks.late() { AdminEnded::WriteTimeout } else { AdminEnded::Handshake };
            api.gateway.metrics().count_admin(reason);
            tracing::debug!(%error, %peer, "a handshake with the admin interface failed");
        }
        Err(_) => api.gateway.metrics().count_admin(AdminEnded::HeadTimeout),
    }
}

/// Answers the requests of one connection, plain or over TLS.
async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    marks: &Arc<Marks>,
    place: Place,
    mut evicted: oneshot::Receiver<AdminEnded>,
    api: &Api,
    phase: watch::Receiver<Lifecycle>,
) {
    let Api { router, deadlines, gateway, .. } = api;
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(deadlines.head).max_buf_size(BUFFER);
    let is_first = AtomicBool::new(true);
    let service = service_fn(|request| {
        let is_first = is_first.swap(false, Ordering::Relaxed);
        answer(router.clone(), request, place.clone(), marks.clone(), is_first)
    });
    let connection = http.serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let served = tokio::select! {
        // First, so that a connection that has lost its place takes no other.
        biased;
        reason = eviction(&mut evicted) => {
            gateway.metrics().count_admin(reason);
            return;
        }
        served = connection.as_mut() => served,
        () = stopped(phase) => {
            if marks.waits_for_head() {
                // The rest of it would hold up the end of the gateway.
                return;
            }
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        if let Some(reason) = passed_deadline(&error, marks) {
            gateway.metrics().count_admin(reason);
        }
        tracing::debug!(%error, "a connection of the admin interface ended");
    }
}

/// Waits until the connection has to make room; returns the reason.
async fn eviction(evicted: &mut oneshot::Receiver<AdminEnded>) -> AdminEnded {
    match evicted.await {
        Ok(reason) => reason,
        // The place is held by this connection, so it cannot be given back before.
        Err(_) => std::future::pending().await,
    }
}

/// Answers one request of the connection that holds `place`.
async fn answer(
    router: Router,
    request: Request<Incoming>,
    place: Place,
    marks: Arc<Marks>,
    is_first: bool,
) -> Result<Response, Infallible> {
    marks.taken();
    place.asked();
    if !is_first {
        // A client that pipelines thousands of requests waits its turn with each. The first one is
        // answered at once, before later connections can displace this one.
        yield_now().await;
    }
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(place);
    let response = router.oneshot(request).await?;
    // The end of an event stream is sent after the gateway has stopped.
    if response.headers().get(CONTENT_TYPE).is_none_or(|kind| kind != EVENT_STREAM) {
        marks.answered();
    }
    Ok(response)
}

/// Returns the deadline that a connection passed, if it ended for that.
fn passed_deadline(error: &hyper::Error, marks: &Marks) -> Option<AdminEnded> {
    if marks.late() {
        return Some(AdminEnded::WriteTimeout);
    }
    let reason = if marks.begun() { AdminEnded::HeadTimeout } else { AdminEnded::Idle };
    error.is_timeout().then_some(reason)
}
