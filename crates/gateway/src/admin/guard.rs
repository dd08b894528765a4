//! Access control of the admin API.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::answer::Trouble;
use super::places::Place;
use super::state::Shared;

/// Passes an authorized request on and answers any other with an error.
///
/// Without a token every local user is authorized, but no web page in a local user's browser: its
/// requests carry an `Origin` or come from another site, or have the `Host` of the page (DNS
/// rebinding). A page cannot read what it gets, but an event stream would hold a place.
pub(super) async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    let refused = match &shared.token {
        Some(token) => {
            let given = bearer_token(request.headers());
            let known = given.is_some_and(|given| token.matches(given));
            if let (true, Some(place)) = (known, request.extensions().get::<Place>()) {
                place.trust();
            }
            (!known).then(unauthorized)
        }
        None => is_from_web_page(request.headers()).then(forbidden),
    };
    match refused {
        Some(response) => response,
        None => next.run(request).await,
    }
}

fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn unauthorized() -> Response {
    let hint = "send the token of [admin] in the configuration: \"Authorization: Bearer TOKEN\"";
    let trouble =
        Trouble::new(StatusCode::UNAUTHORIZED, "the admin token is missing or wrong", hint);
    ([(header::WWW_AUTHENTICATE, "Bearer")], trouble).into_response()
}

fn forbidden() -> Response {
    let error = "this looks like a request of a web page";
    let hint = "address the admin interface by localhost or its IP address, without an Origin \
                header; or configure a token";
    Trouble::new(StatusCode::FORBIDDEN, error, hint).into_response()
}

/// Returns whether a request may come from a web page.
fn is_from_web_page(headers: &HeaderMap) -> bool {
    let has_origin = headers.contains_key(header::ORIGIN);
    // Of requests without an `Origin`, such as for an image, browsers say where they come from.
    let site = headers.get("sec-fetch-site");
    let from_elsewhere = site.is_some_and(|site| site != "same-origin" && site != "none");
    let host = headers.get(header::HOST).map(|host| host.to_str().unwrap_or("?"));
    has_origin || from_elsewhere || host.is_some_and(|host| !is_local(host))
}

/// Returns whether `host`, with or without a port, is `localhost` or an IP address. The owner of a
/// web page can make any other name resolve to this machine.
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
    fn only_localhost_and_ip_addresses_are_local() {
        for local in ["localhost", "localhost:7480", "127.0.0.1", "127.0.0.1:7480", "[::1]:7480"] {
            assert!(is_local(local), "{local}");
        }
        for other in ["example.org", "example.org:7480", "localhost.example.org", "", "?"] {
            assert!(!is_local(other), "{other}");
        }
    }
}
