//! Accepts connections of the admin interface, with limits on their number and idle time.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;

/// Number of connections for requests other than event streams: scrapers, dashboards and people.
/// Further connections wait in the kernel's accept queue.
pub(crate) const SPARE_CONNECTIONS: usize = 64;

/// Time limit for the head of a request, including the idle time before it. A scraper with a period
/// of 15 s keeps its connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause after a failed accept, which is usually caused by a lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves `router` on at most `connections` connections at a time, until dropped.
pub(crate) async fn serve(listener: TcpListener, router: Router, connections: usize) {
    let free = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
    loop {
        // The semaphore is never closed, so this never returns.
        let Ok(permit) = free.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    serve_connection(stream, router).await;
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

async fn serve_connection(stream: TcpStream, router: Router) {
    // Without TCP_NODELAY small answers are only slower, so a failure is ignored.
    let _ = stream.set_nodelay(true);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    let service = TowerToHyperService::new(router);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection of the admin interface ended");
    }
}
