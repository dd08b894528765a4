//! The HTTP client for services of the operator.

use std::time::Duration;

use systole_core::Span;
use systole_net::tls::provider;
use ureq::Agent;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// Makes a client that gives up after `timeout` and believes services for which one of `roots`, in
/// DER, vouches. Neither a proxy nor the target of a redirect may receive what it sends.
pub(crate) fn agent(timeout: Span, roots: &[Vec<u8>]) -> Agent {
    let roots: Vec<_> = roots.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(provider())
        .root_certs(RootCerts::from(roots));
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .tls_config(tls.build())
        .timeout_global(Some(Duration::from(timeout)));
    Agent::from(config.build())
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
