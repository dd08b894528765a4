//! The HTTP client for services of the operator.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use systole_core::Span;
use systole_net::tls::provider;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::http::uri::Scheme;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::typestate::WithBody;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Error, RequestBuilder};

use super::names::NAMES_OF_PROCESS;

/// Maximum number of addresses that a request tries, as many as the client has places for.
const MOST_ADDRESSES: usize = 16;

/// Makes a client that gives up after `timeout` and believes services for which one of `roots`, in
/// DER, vouches. The body of an answer may take `body` of it. Neither a proxy nor the target of a
/// redirect may receive what it sends.
pub(crate) fn agent(timeout: Span, body: Span, roots: &[Vec<u8>]) -> Agent {
    let roots: Vec<_> = roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(provider())
        .root_certs(RootCerts::from(roots));
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .tls_config(tls.build())
        .max_idle_connections(0)
        .timeout_recv_body(Some(Duration::from(body)))
        .timeout_global(Some(Duration::from(timeout)));
    Agent::with_parts(config.build(), DefaultConnector::default(), Addresses)
}

/// Starts a request on a connection of its own: what a service, or a proxy before it, sends without
/// being asked must not answer the next request.
pub(crate) fn post(agent: &Agent, url: &str) -> RequestBuilder<WithBody> {
    agent.post(url).header("Connection", "close")
}

/// Starts to look up the names in the URLs of services.
///
/// # Errors
/// The system refuses a thread.
pub(crate) fn look_up<'a>(urls: impl Iterator<Item = &'a str>) -> io::Result<()> {
    let hosts = urls.filter_map(|url| url.parse::<Uri>().ok()?.host().map(str::to_owned));
    let names: Vec<_> = hosts.filter(|host| address(host).is_none()).collect();
    NAMES_OF_PROCESS.start(names.iter().map(String::as_str))
}

/// Finds the addresses of services. That of the client starts a thread for each request.
#[derive(Debug)]
struct Addresses;

impl Resolver for Addresses {
    fn resolve(
        &self,
        uri: &Uri,
        _: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let usual_port = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(usual_port);
        let host = uri.host().ok_or(Error::HostNotFound)?;
        let found = match address(host) {
            Some(address) => vec![SocketAddr::new(address, port)],
            None => NAMES_OF_PROCESS.find(host, *timeout.after)?,
        };
        let mut addresses = self.empty();
        for mut address in found.into_iter().take(MOST_ADDRESSES) {
            address.set_port(port);
            addresses.push(address);
        }
        if addresses.is_empty() { Err(Error::HostNotFound) } else { Ok(addresses) }
    }
}

/// Returns the address that a host is, if it is one and no name.
fn address(host: &str) -> Option<IpAddr> {
    let within = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    within.unwrap_or(host).parse().ok()
}

/// Checks that a text is the URL of a service.
pub(crate) fn check_url(text: String) -> Result<String, String> {
    let uri: Option<Uri> = text.parse().ok();
    let is_legal = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
    });
    let right = "a URL with https:// or http:// in quotes, as in \"https://example.com/hook\"";
    is_legal.then_some(text).ok_or_else(|| right.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::*;

    fn resolve(url: &str, limit: Duration) -> Result<Vec<SocketAddr>, Error> {
        let timeout = NextTimeout { after: limit.into(), ..NextTimeout::default() };
        let found = Addresses.resolve(&url.parse().unwrap(), &Config::default(), timeout)?;
        Ok(found.iter().copied().collect())
    }

    #[test]
    fn an_address_needs_no_lookup_and_a_name_a_thread_that_was_started_before() {
        let (no_time, long) = (Duration::ZERO, Duration::from_secs(60));
        for (url, expected) in [
            ("http://192.0.2.1/", "192.0.2.1:80"),
            ("https://192.0.2.1/", "192.0.2.1:443"),
            ("http://192.0.2.1:8080/hook", "192.0.2.1:8080"),
            ("https://[2001:db8::1]/", "[2001:db8::1]:443"),
        ] {
            assert_eq!(resolve(url, no_time).unwrap(), [expected.parse().unwrap()], "{url}");
        }
        look_up(["http://192.0.2.1/", "no URL", "http://localhost:1/"].into_iter()).unwrap();
        let found = resolve("http://localhost:7/", long).unwrap();
        assert!(!found.is_empty(), "it has some address");
        assert!(found.iter().all(|it| it.ip().is_loopback() && it.port() == 7), "{found:?}");
    }

    #[test]
    fn a_connection_has_one_request() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let service = std::thread::spawn(move || {
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx";
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                let mut said = String::new();
                stream.read_to_string(&mut said).unwrap();
                assert!(said.to_lowercase().contains("connection: close\r\n"), "{said}");
                assert_eq!(said.matches("HTTP/1.1").count(), 1, "{said}");
            }
        });
        let client = agent(Span::from_secs(60), Span::from_secs(60), &[]);
        for _ in 0..2 {
            let mut answer = post(&client, &url).send("?").unwrap();
            assert_eq!(answer.body_mut().read_to_string().unwrap(), "x");
        }
        service.join().unwrap();
    }
}
