//! Takes the connections of the admin interface, within bounds of number and patience.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;

/// Connections beyond those of subscribers to events: scrapers, dashboards and people. Further ones
/// wait in the kernel's queue.
pub const SPARE_CONNECTIONS: usize = 64;

/// How long a connection may take to send the head of a request, idle time before it included; a
/// scraper that comes every 15 s keeps its connection.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to leave a listener alone that cannot accept, for lack of descriptors as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` to at most `connections` at a time, until dropped.
pub async fn serve(listener: TcpListener, router: Router, connections: usize) {
    let free = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
    loop {
        // It is never closed, so a permit always comes.
        let Ok(permit) = free.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    converse(stream, router).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin interface cannot accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, router: Router) {
    // Small answers should not wait for each other; without it they are only slower.
    let _ = stream.set_nodelay(true);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let service = TowerToHyperService::new(router);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection of the admin interface ended");
    }
}
