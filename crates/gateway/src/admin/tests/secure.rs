//! Tests of the admin interface over TLS.

use rcgen::{CertificateParams, KeyPair};
use systole_net::tls::{Believe, ClientTls, Identity, ServerTls};
use systole_net::transport::{Opened, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::strangers::{LONG, SHORT, ended, in_time};
use super::*;
use crate::stats::AdminEnded;

/// Serves the API of `fixture` over TLS; returns its address.
async fn serve_over_tls(fixture: &Fixture, head: Duration) -> SocketAddr {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let chain = certificate.self_signed(&key).unwrap().pem();
    let identity = Identity::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    let tls = ServerTls::new(vec![identity], None, &[HTTP]).unwrap();
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let deadlines = Deadlines { head, write: LONG };
    let api = Api { deadlines, ..fixture.api.clone() }.over(Some(tls));
    tokio::spawn(serve(listener, api, fixture.gateway.phase()));
    address
}

/// Sends a request over TLS; returns the answer.
async fn ask(address: SocketAddr, request: &str) -> String {
    let client = ClientTls::new(&Believe::Anyone, None).unwrap();
    let mut tls = client.connect("localhost", &[HTTP]).unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut request, mut answer) = (request.as_bytes(), Vec::new());
    loop {
        let sealed = tls.seal(request).to_vec();
        stream.write_all(&sealed).await.unwrap();
        request = &request[tls.sent(sealed.len())..];
        if tls.has_unsent() || tls.is_open() && !request.is_empty() {
            continue;
        }
        let mut buffer = vec![0; 64 * 1024];
        let count = stream.read(&mut buffer).await.unwrap();
        match tls.open(&mut buffer, count) {
            Opened::Plaintext(count) => answer.extend_from_slice(&buffer[..count]),
            Opened::Nothing => {}
            Opened::Closed => return String::from_utf8(answer).unwrap(),
            Opened::Illegal(why) => panic!("{why}"),
        }
    }
}

#[tokio::test]
async fn requests_are_answered_over_tls() {
    let fixture = Fixture::new();
    let address = serve_over_tls(&fixture, LONG).await;
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = in_time(ask(address, request)).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

#[tokio::test]
async fn plain_http_gets_an_answer_at_once_that_says_why_and_other_bytes_an_alert() {
    let fixture = Fixture::new();
    let address = serve_over_tls(&fixture, LONG).await;
    for (said, heard) in [
        ("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", &b"HTTP/1.1 400 Bad Request\r\n"[..]),
        ("get it\r\n", &[0x15, 3]),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        in_time(stream.read_to_end(&mut answer)).await.unwrap();
        assert!(answer.starts_with(heard), "{answer:?}");
        let hint = String::from_utf8_lossy(&answer).contains("use https://");
        assert_eq!(hint, heard.starts_with(b"HTTP"));
    }
    let scrape = fixture.gateway.metrics().scrape().unwrap();
    assert!(scrape.contains("systole_admin_ended_total{reason=\"handshake\"} 2"), "{scrape}");
}

#[tokio::test]
async fn a_handshake_has_the_deadline_of_a_head() {
    let fixture = Fixture::new();
    let address = serve_over_tls(&fixture, SHORT).await;
    for said in [&[][..], &[0x16, 3, 1, 2]] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(said).await.unwrap();
        in_time(stream.read_to_end(&mut Vec::new())).await.unwrap();
    }
    assert!(!ended(&fixture, AdminEnded::Handshake));
    let scrape = fixture.gateway.metrics().scrape().unwrap();
    assert!(scrape.contains("systole_admin_ended_total{reason=\"head_timeout\"} 2"), "{scrape}");
}
