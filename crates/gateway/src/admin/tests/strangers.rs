//! Tests of the deadlines of connections that send half a request, or read no answer.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::*;
use crate::stats::AdminEnded;

/// Serves the API of `fixture` with short deadlines; returns its address.
async fn serve_with(fixture: &Fixture, deadlines: Deadlines) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let api = Api { deadlines, ..fixture.api.clone() };
    tokio::spawn(serve(listener, api, fixture.gateway.phase()));
    address
}

pub(super) const LONG: Duration = Duration::from_secs(3_600);

pub(super) const SHORT: Duration = Duration::from_millis(100);

/// Connects with a small buffer, so that the gateway soon feels that nothing is read.
async fn connect_small(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.connect(address).await.unwrap()
}

pub(super) async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), what).await.expect("in time")
}

pub(super) fn ended(fixture: &Fixture, reason: AdminEnded) -> bool {
    let scrape = fixture.gateway.metrics().scrape().unwrap();
    let line = format!("systole_admin_ended_total{{reason=\"{}\"}} 1", reason.name());
    scrape.lines().any(|found| found == line)
}

#[tokio::test]
async fn the_head_of_a_request_has_a_deadline() {
    let fixture = Fixture::new();
    let address = serve_with(&fixture, Deadlines { head: SHORT, write: LONG }).await;
    let mut rest = Vec::new();
    for (start, reason) in [
        ("GET /healthz HTTP/1.1\r\nHo", AdminEnded::HeadTimeout),
        ("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", AdminEnded::Idle),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        in_time(stream.read_to_end(&mut rest)).await.unwrap();
        assert!(ended(&fixture, reason), "{reason:?}");
    }
    assert!(rest.starts_with(b"HTTP/1.1 200 "), "the complete one was answered");
}

/// The number of connections that made room for others, for whatever reason.
#[cfg(target_os = "linux")]
fn displaced(fixture: &Fixture) -> usize {
    let scrape = fixture.gateway.metrics().scrape().unwrap();
    let of = |reason: AdminEnded| {
        let series = format!("systole_admin_ended_total{{reason=\"{}\"}} ", reason.name());
        let count = scrape.lines().find_map(|line| line.strip_prefix(&series));
        count.and_then(|count| count.parse::<usize>().ok()).unwrap()
    };
    of(AdminEnded::Displaced) + of(AdminEnded::AddressLimit)
}

/// As many connections as all places, and more, come between a connection and its head. Linux has
/// all addresses of 127.0.0.0/8.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_head_that_comes_late_in_a_flood_from_many_addresses_is_answered() {
    let token = Token::new("0123456789abcdef").unwrap();
    for (token, header) in [(None, ""), (Some(token), "Authorization: Bearer 0123456789abcdef\r\n")]
    {
        let fixture = Fixture::with(token, 2);
        let address = serve_with(&fixture, Deadlines { head: LONG, write: LONG }).await;
        let mut own = TcpStream::connect(address).await.unwrap();
        let mut flood = Vec::new();
        for n in 0..SPARE_CONNECTIONS + 50 {
            let socket = TcpSocket::new_v4().unwrap();
            let host = SocketAddr::from(([127, 0, 1, (n % 100) as u8], 0));
            socket.bind(host).unwrap();
            flood.push(in_time(socket.connect(address)).await.unwrap());
        }
        in_time(async {
            while displaced(&fixture) < 100 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let request = format!(
            "GET /api/v1/listeners HTTP/1.1\r\nHost: localhost\r\n{header}Connection: close\r\n\r\n"
        );
        own.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        in_time(own.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_body_of_a_request_has_a_deadline() {
    let fixture = Fixture::new();
    let never = Body::from_stream(futures_util::stream::pending::<Result<String, String>>());
    let request = HttpRequest::put("/api/v1/log").body(never).unwrap();
    let (status, answer) = in_time(fixture.request(request)).await;
    assert_eq!(status, StatusCode::REQUEST_TIMEOUT);
    assert!(answer["hint"].is_string());
    assert!(ended(&fixture, AdminEnded::BodyTimeout));
}

#[tokio::test]
async fn who_does_not_read_the_answers_is_disconnected() {
    let fixture = Fixture::new();
    let address = serve_with(&fixture, Deadlines { head: LONG, write: SHORT }).await;
    let mut stream = connect_small(address).await;
    let requests = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    // Ends when the gateway closes: until then it takes ever more, or waits.
    in_time(async { while stream.write_all(&requests).await.is_ok() {} }).await;
    assert!(ended(&fixture, AdminEnded::WriteTimeout));
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_is_disconnected_and_gives_its_place_back() {
    let fixture = Fixture::with(None, 1);
    let address = serve_with(&fixture, Deadlines { head: LONG, write: SHORT }).await;
    let subscribe = async || {
        let mut stream = connect_small(address).await;
        stream.write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.unwrap();
        (stream, String::from_utf8(start.to_vec()).unwrap())
    };
    let (_kept, start) = in_time(subscribe()).await;
    assert_eq!(start, "HTTP/1.1 200");
    assert_eq!(in_time(subscribe()).await.1, "HTTP/1.1 503");
    in_time(async {
        while !ended(&fixture, AdminEnded::WriteTimeout) {
            // As the gateway does: a subscriber that reads is not left behind.
            fixture.gateway.events().room().await;
            fixture.join(1);
            tokio::task::yield_now().await;
        }
    })
    .await;
    in_time(async { while subscribe().await.1 != "HTTP/1.1 200" {} }).await;
}

/// Returns the end of a connection that was never a session.
fn stranger(number: u64) -> Fact {
    let mut fact = crate::report::tests::left(number);
    fact.subject.established = false;
    fact
}

#[tokio::test]
async fn a_subscriber_sees_strangers_only_on_request_and_none_of_them_delays_an_event() {
    let fixture = Fixture::new();
    let mut usual = fixture.events(None).await;
    let mut all = fixture.events_of("/api/v1/events?strangers=true", None).await;
    for frames in [&mut usual, &mut all] {
        while frames.next().await.unwrap().0 != "live" {}
    }
    fixture.gateway.note_stranger(stranger(1));
    let (kind, id, data) = all.next().await.unwrap();
    assert_eq!((kind.as_str(), id.as_str()), ("stranger", ""));
    assert_eq!((&data["established"], &data["cause"]), (&json!(false), &json!("unknown")));
    (2..=1_001).for_each(|number| fixture.gateway.note_stranger(stranger(number)));
    fixture.join(1);
    assert_eq!(all.next().await.unwrap().0, "join");
    let (kind, _, data) = all.next().await.unwrap();
    assert_eq!((kind.as_str(), &data["count"]), ("strangers_missed", &json!(1_000 - 256)));
    assert_eq!(all.next().await.unwrap().0, "stranger");
    assert_eq!(usual.next().await.unwrap().0, "join", "no stranger before it");
}

#[tokio::test]
async fn half_a_request_holds_up_no_end_of_the_gateway() {
    let fixture = Fixture::new();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let api = Api { deadlines: Deadlines { head: LONG, write: LONG }, ..fixture.api.clone() };
    let served = tokio::spawn(serve(listener, api, fixture.gateway.phase()));
    let mut open = Vec::new();
    for part in [
        "GET /healthz HTTP/1.1\r\nHo",
        "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea",
        "PUT /api/v1/log HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{",
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(part.as_bytes()).await.unwrap();
        open.push(stream);
    }
    let mut last = TcpStream::connect(address).await.unwrap();
    last.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    // It is answered after the others were read.
    in_time(last.read_exact(&mut [0; 12])).await.unwrap();
    fixture.gateway.advance(Lifecycle::Stopped);
    let began = Clock::start();
    in_time(served).await.unwrap();
    assert!(began.monotonic() < Span::from_secs(1), "{}", began.monotonic());
}

#[tokio::test]
async fn hostile_requests_end_and_leave_the_others_alone() {
    let fixture = Fixture::new();
    let address = serve_with(&fixture, Deadlines { head: SHORT, write: SHORT }).await;
    let start = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n";
    let put = "PUT /api/v1/log HTTP/1.1\r\nHost: localhost\r\n";
    let chunked = format!("{put}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n");
    for (request, statuses) in [
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), &["", "400"][..]),
        ("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), &["404"]),
        ("CONNECT a.example:1 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), &["404"]),
        (format!("{start}A: {}\r\n\r\n", "x".repeat(40_000)), &["431", "400", ""]),
        (start.to_owned() + &"A: b\r\n".repeat(200) + "\r\n", &["431", "400"]),
        ("\r\n".repeat(20_000), &["431", "400", ""]),
        (format!("{chunked}A: {}\r\n\r\n", "x".repeat(40_000)), &["400", ""]),
        (format!("{put}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n"), &["400", ""]),
        (format!("{put}Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{{}}"), &["400"]),
        (format!("{put}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}"), &["400"]),
        (format!("{start}Content-Length: 99999999999\r\n\r\nx"), &["200"]),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // The gateway may close before it has read all.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = in_time(stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).unwrap_or_default();
        let what = &request[..request.len().min(60)];
        assert!(statuses.contains(&status), "{status:?} for {what:?}: {answer}");
        assert_eq!(fixture.get("/healthz").await.0, StatusCode::OK);
    }
}
