//! Looks up the addresses of a name, without holding up anybody.
//!
//! The system's resolver blocks its thread, for as long as it likes: a name server that does not
//! answer costs half a minute and more. So each lookup has a thread of its own, and nobody waits
//! for that thread: neither a caller whose time is up, nor a runtime that ends, as it would with
//! its own blocking threads.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use dns_lookup::{AddrInfoHints, LookupErrorKind, SockType, getaddrinfo};
use systole_core::reconnect::Obstacle;
use systole_net::address;
use tokio::sync::{Semaphore, oneshot};

use crate::ConnectError;

/// Maximum number of lookups in flight in a process. Each holds a thread, which a name server that
/// does not answer keeps for long; clients that retry must not add one more each time.
const MAX_LOOKUPS: usize = 8;

/// The port of a gateway's native listener, in the example of an error.
const USUAL_PORT: u16 = 7_400;

/// What the standard library puts before each message of the resolver, which says as much itself.
const LOOKUP_FAILED: &str = "failed to lookup address information: ";

static LOOKUPS: Semaphore = Semaphore::const_new(MAX_LOOKUPS);

/// Why a lookup failed.
type Failure = (Obstacle, String);

/// Returns the addresses of `addr`, a `host:port`, in the order of the system. A numeric one needs
/// no lookup.
pub(crate) async fn lookup(addr: &str, limit: Duration) -> Result<Vec<SocketAddr>, ConnectError> {
    lookup_by(&LOOKUPS, system, addr, limit).await
}

async fn lookup_by(
    lookups: &'static Semaphore,
    resolve: impl FnOnce(&str, u16) -> Result<Vec<SocketAddr>, Failure> + Send + 'static,
    addr: &str,
    limit: Duration,
) -> Result<Vec<SocketAddr>, ConnectError> {
    let unresolved = |(obstacle, why): Failure| {
        let name = addr.to_owned();
        ConnectError::Resolve { name, why, obstacle }
    };
    let no_address = |why| unresolved((Obstacle::NoAddress, why));
    let (host, port) = address::split(addr, USUAL_PORT).map_err(no_address)?;
    if let Ok(numeric) = addr.parse() {
        return Ok(vec![numeric]);
    }
    let host = host.to_owned();
    let answer = async {
        // It fails only if the semaphore is closed, which it never is.
        let permit = lookups.acquire().await;
        let (sender, answer) = oneshot::channel();
        let work = move || {
            let found = resolve(&host, port);
            drop(permit);
            // The caller may have stopped waiting.
            let _ = sender.send(found);
        };
        let name = "systole-lookup".to_owned();
        if let Err(error) = thread::Builder::new().name(name).spawn(work) {
            return Err((Obstacle::Exhausted, format!("no thread to look it up: {error}")));
        }
        let ended = |_| Err((Obstacle::Other, "the lookup ended without a result".to_owned()));
        answer.await.unwrap_or_else(ended)
    };
    match tokio::time::timeout(limit, answer).await {
        Ok(found) => found.map_err(unresolved),
        Err(_) => {
            let why = format!("no answer of the name service in {limit:?}");
            Err(unresolved((Obstacle::NameService, why)))
        }
    }
}

/// Returns the host of `host:port`; empty if it cannot be told.
pub(crate) fn host(addr: &str) -> &str {
    address::split(addr, USUAL_PORT).map_or("", |(host, _)| host)
}

/// Asks the system's resolver.
fn system(host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
    let hints = AddrInfoHints { socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
    let found = getaddrinfo(Some(host), None, Some(hints)).map_err(|error| {
        let obstacle = obstacle(error.kind());
        let why = std::io::Error::from(error).to_string();
        (obstacle, why.strip_prefix(LOOKUP_FAILED).unwrap_or(&why).to_owned())
    })?;
    let with_port = |mut address: SocketAddr| {
        address.set_port(port);
        address
    };
    let found: Vec<SocketAddr> = found.flatten().map(|found| with_port(found.sockaddr)).collect();
    match found.is_empty() {
        true => Err((Obstacle::NoSuchName, "it has no address".to_owned())),
        false => Ok(found),
    }
}

/// Returns what an error of the resolver means.
fn obstacle(kind: LookupErrorKind) -> Obstacle {
    match kind {
        LookupErrorKind::NoName | LookupErrorKind::NoData => Obstacle::NoSuchName,
        LookupErrorKind::Again | LookupErrorKind::Fail => Obstacle::NameService,
        LookupErrorKind::Memory => Obstacle::Exhausted,
        LookupErrorKind::Family => Obstacle::Unusable,
        // A host with a zero byte in it, which no resolver takes, is among these.
        LookupErrorKind::IO => Obstacle::NoAddress,
        LookupErrorKind::Badflags
        | LookupErrorKind::Socktype
        | LookupErrorKind::Service
        | LookupErrorKind::System
        | LookupErrorKind::Unknown => Obstacle::Other,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use systole_core::Span;
    use systole_net::Clock;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(100);

    fn obstacle_of(found: Result<Vec<SocketAddr>, ConnectError>) -> Option<Obstacle> {
        found.err().and_then(|error| error.obstacle())
    }

    #[test]
    fn a_resolver_that_does_not_answer_holds_up_neither_the_caller_nor_the_runtime() {
        static TWO: Semaphore = Semaphore::const_new(2);
        let (release, blocked) = mpsc::channel::<()>();
        let blocked = std::sync::Arc::new(std::sync::Mutex::new(blocked));
        let (started, starts) = mpsc::channel();
        let clock = Clock::start();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for _ in 0..5 {
            let (blocked, started) = (blocked.clone(), started.clone());
            let hangs = move |_: &str, _: u16| {
                started.send(()).unwrap();
                let _ = blocked.lock().map(|blocked| blocked.recv());
                Ok(Vec::new())
            };
            let found = runtime.block_on(lookup_by(&TWO, hangs, "name.example:1", LIMIT));
            assert_eq!(obstacle_of(found), Some(Obstacle::NameService));
        }
        drop(runtime);
        assert!(clock.monotonic() < Span::from_secs(10), "{}", clock.monotonic());
        drop(started);
        assert_eq!(starts.try_iter().count(), 2, "no more threads than lookups are allowed");
        drop(release);
        // With the resolver back, the permits come back.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let address = "192.0.2.1:1".parse().unwrap();
        let answers = move |_: &str, _: u16| Ok(vec![address]);
        let limit = Duration::from_secs(20);
        let found = runtime.block_on(lookup_by(&TWO, answers, "name.example:1", limit));
        assert_eq!(found, Ok(vec![address]));
    }

    #[tokio::test]
    async fn numbers_and_local_names_are_found() {
        for (text, expected) in [
            ("127.0.0.1:7400", "127.0.0.1:7400"),
            ("[::1]:7400", "[::1]:7400"),
            ("[fe80::1%2]:7400", "[fe80::1%2]:7400"),
        ] {
            let found = lookup(text, LIMIT).await.unwrap();
            assert_eq!(found, [expected.parse().unwrap()], "{text}");
        }
        let found = lookup("localhost:7400", Duration::from_secs(20)).await.unwrap();
        assert!(found.iter().all(|found| found.ip().is_loopback() && found.port() == 7400));
        assert!(!found.is_empty());
    }

    #[tokio::test]
    async fn what_is_no_address_is_refused_without_a_lookup() {
        for wrong in ["", "127.0.0.1", "host", "host:", ":7400", "host:99999", "::1:7400", "a:b:1"]
        {
            let found = lookup(wrong, LIMIT).await;
            assert_eq!(obstacle_of(found), Some(Obstacle::NoAddress), "{wrong:?}");
        }
        let zero = lookup("ho\0st:1", Duration::from_secs(20)).await;
        assert_eq!(obstacle_of(zero), Some(Obstacle::NoAddress));
    }

    #[test]
    fn each_error_of_the_resolver_has_its_place() {
        for (kind, expected, is_final) in [
            (LookupErrorKind::NoName, Obstacle::NoSuchName, true),
            (LookupErrorKind::NoData, Obstacle::NoSuchName, true),
            (LookupErrorKind::Again, Obstacle::NameService, false),
            (LookupErrorKind::Fail, Obstacle::NameService, false),
            (LookupErrorKind::Memory, Obstacle::Exhausted, false),
            (LookupErrorKind::System, Obstacle::Other, false),
        ] {
            assert_eq!(obstacle(kind), expected, "{kind:?}");
            assert_eq!(expected.is_final(), is_final, "{kind:?}");
        }
    }
}
