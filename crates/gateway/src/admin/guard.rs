//! Who may use the admin API.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::answer::Trouble;
use super::state::Shared;

/// Lets a request pass, or answers it.
///
/// Without a token every local user is let in, but no web page that a local user happens to look
/// at: its requests carry an `Origin`, or a `Host` that is the page's and not ours.
pub(super) async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let refused = match &shared.token {
        Some(token) => {
            let given = bearer(request.headers());
            let known = given.is_some_and(|given| token.matches(given));
            (!known).then(unauthorized)
        }
        None => from_a_page(request.method(), request.headers()).then(foreign),
    };
    match refused {
        Some(response) => response,
        None => next.run(request).await,
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn unauthorized() -> Response {
    let hint = "send the token of [admin] in the configuration: \"Authorization: Bearer TOKEN\"";
    let trouble =
        Trouble::new(StatusCode::UNAUTHORIZED, "the admin token is missing or wrong", hint);
    ([(header::WWW_AUTHENTICATE, "Bearer")], trouble).into_response()
}

fn foreign() -> Response {
    let error = "this looks like a request of a web page";
    let hint = "address the admin interface by localhost or its IP address, without an Origin \
                header; or configure a token";
    Trouble::new(StatusCode::FORBIDDEN, error, hint).into_response()
}

fn from_a_page(method: &Method, headers: &HeaderMap) -> bool {
    let changes = !matches!(*method, Method::GET | Method::HEAD);
    let has_origin = headers.contains_key(header::ORIGIN);
    let host = headers.get(header::HOST).map(|host| host.to_str().unwrap_or("?"));
    (changes && has_origin) || host.is_some_and(|host| !is_local(host))
}

/// Whether `host`, with or without a port, is `localhost` or an IP address. Any other name may be
/// one that a page has made point here.
fn is_local(host: &str) -> bool {
    let without_port = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let bare = without_port.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<std::net::IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_no_page_can_have_are_local() {
        for local in ["localhost", "localhost:7480", "127.0.0.1", "127.0.0.1:7480", "[::1]:7480"] {
            assert!(is_local(local), "{local}");
        }
        for other in ["example.org", "example.org:7480", "localhost.example.org", "", "?"] {
            assert!(!is_local(other), "{other}");
        }
    }
}
