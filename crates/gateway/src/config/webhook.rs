//! Reads `[listener.webhook]`: the service that is asked who has a token.

use std::net::IpAddr;
use std::path::Path;

use rustls_pki_types::CertificateDer;
use systole_core::Span;
use systole_net::tls::{certificates, system_certificates};
use ureq::http::Uri;

use super::file::read_text;
use super::section::{Given, Reading, Section};
use super::value;
use crate::identity::{Webhook, WebhookSettings};
use crate::webhooks::check_url;

/// Maximum size of a file of certificates, in bytes: the roots of a whole system.
const MAX_ROOTS: u64 = 1 << 20;

/// Maximum size of the file of a secret, in bytes.
const MAX_SECRET: u64 = 4 << 10;

/// Default time limit of a question: a client waits for it.
const DEFAULT_TIMEOUT: Span = Span::from_secs(2);

/// Default time for which a refusal is remembered: long enough that a client that tries again and
/// again does not reach the service, and short enough for a user who was let in meanwhile.
const DEFAULT_REMEMBER: Span = Span::from_secs(10);

/// What else counts for a webhook.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// The name of the listener.
    pub(super) listener: &'a str,
    /// Where relative paths start.
    pub(super) directory: &'a Path,
    /// Whether tokens may cross the network in plain text.
    pub(super) may_be_plain: bool,
}

/// Reads `[listener.webhook]`; `None` if it is absent or was refused, or if there is no `place` for
/// it.
pub(super) fn read(
    reading: &mut Reading<'_>,
    mut section: Section<'_>,
    place: Option<Place<'_>>,
) -> Option<Webhook> {
    let span = section.span();
    let url = section.take(reading, "url", |value| value::text(value).and_then(check_url));
    let secret_file = section.take(reading, "secret_file", value::text);
    let timeouts = Span::from_millis(10)..=Span::from_secs(8);
    let timeout = section.take(reading, "timeout", value::span(timeouts));
    let times = Span::ZERO..=Span::from_secs(3_600);
    let remember = section.take(reading, "remember_refusals", value::span(times));
    let roots_file = section.take(reading, "roots", value::text);
    let has_url = section.has("url");
    section.finish(reading);
    let Place { listener, directory, may_be_plain } = place?;
    if span.is_some() && !has_url {
        let what = "[listener.webhook] has no `url`".to_owned();
        let help = "say whom to ask, as in url = \"https://login.example.com/connect\"".to_owned();
        reading.problems.add(span, what, Some(help));
    }
    let Given { value: url, span: url_at } = url?;
    if !is_encrypted_or_local(&url) && !may_be_plain {
        let what = "tokens would go to the webhook in plain text".to_owned();
        let help = "use https://, an address of this machine (http://127.0.0.1), or \
                    `plaintext_tokens = true` where the network encrypts";
        reading.problems.add(Some(url_at), what, Some(help.to_owned()));
    }
    let secret = match &secret_file {
        None => String::new(),
        Some(file) => read_secret(reading, file, directory)?,
    };
    let roots = match &roots_file {
        None if url.starts_with("https://") => system_certificates(),
        None => Vec::new(),
        Some(file) => read_roots(reading, file, directory)?,
    };
    Some(Webhook::new(WebhookSettings {
        listener: listener.to_owned(),
        url,
        secret,
        timeout: Given::or(timeout, DEFAULT_TIMEOUT),
        remember: Given::or(remember, DEFAULT_REMEMBER),
        roots: roots.iter().map(|root| root.to_vec()).collect(),
    }))
}

/// Reads a file of certificates that vouch for a service.
pub(super) fn read_roots(
    reading: &mut Reading<'_>,
    file: &Given<String>,
    directory: &Path,
) -> Option<Vec<CertificateDer<'static>>> {
    let path = directory.join(&file.value);
    let shown = path.display();
    let read = read_text(&path, MAX_ROOTS)
        .map_err(|error| format!("the file {shown} cannot be read: {error}"))
        .and_then(|pem| {
            certificates(pem.as_bytes()).map_err(|error| format!("the file {shown}: {error}"))
        });
    read.map_err(|what| reading.problems.add(Some(file.span.clone()), what, None)).ok()
}

/// Reads the secret in the first line of a file.
pub(super) fn read_secret(
    reading: &mut Reading<'_>,
    file: &Given<String>,
    directory: &Path,
) -> Option<String> {
    let path = directory.join(&file.value);
    let shown = path.display();
    let read = read_text(&path, MAX_SECRET)
        .map_err(|error| format!("the file {shown} cannot be read: {error}"))
        .and_then(|text| {
            let first = text.lines().next().unwrap_or_default().trim().to_owned();
            let is_legal = !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_graphic());
            let right = "must be printable ASCII characters without spaces";
            is_legal.then_some(first).ok_or(format!("the first line of the file {shown} {right}"))
        });
    read.map_err(|what| reading.problems.add(Some(file.span.clone()), what, None)).ok()
}

/// Whether nobody on a network can read what goes to a URL.
pub(super) fn is_encrypted_or_local(url: &str) -> bool {
    let uri: Option<Uri> = url.parse().ok();
    uri.is_some_and(|uri| {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_local = host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        uri.scheme_str() == Some("https") || is_local
    })
}
