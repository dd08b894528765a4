//! Reads `[admin]`: the address, the token and the TLS of the admin interface.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use super::address::overlap;
use super::file::read_text;
use super::listener::Listener;
use super::overrides::Overrides;
use super::section::{Reading, Section};
use super::tls::{Tls, TlsSettings};
use super::token::Token;
use super::value;
use crate::admin::HTTP;

/// Maximum size of a token file in bytes, of which the first line, of 512 at most, counts.
pub const MAX_TOKEN_FILE: u64 = 64 << 10;

/// Configuration of the admin interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admin {
    pub(super) address: SocketAddr,
    pub(super) token: Option<Token>,
    pub(super) tls: Option<Tls>,
}

impl Admin {
    /// Returns the address to listen at. Unless it is a loopback address, there is a token.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the token that requests must present; `None` authorizes every local user.
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }

    /// Returns the TLS of its connections; `None` for plain ones.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }
}

impl Default for Admin {
    /// Returns the loopback address with port 7480 and no token.
    fn default() -> Admin {
        Admin { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 7480)), token: None, tls: None }
    }
}

/// Reads `[admin]`, after `listeners`, whose addresses are taken. A relative `token_file` starts
/// from `directory`.
pub(super) fn read(
    reading: &mut Reading<'_>,
    mut section: Section<'_>,
    listeners: &[Listener],
    directory: &Path,
    overrides: &Overrides,
) -> Admin {
    let given = section.take(reading, "address", value::address);
    let token = section.take(reading, "token", |value| Token::new(&value::text(value)?));
    let file = section.take(reading, "token_file", value::text);
    let has_token = section.has("token") || section.has("token_file");
    let tls = TlsSettings::take_pair(reading, &mut section);
    section.finish(reading);

    let tls = tls.read(reading, directory, &[HTTP]);
    if let (Some(token), Some(_)) = (&token, &file) {
        let what = "`token` and `token_file` exclude each other".to_owned();
        let help = "keep `token_file`: the configuration can then be shown to others".to_owned();
        reading.problems.add(Some(token.span.clone()), what, Some(help));
    }
    let overridden = overrides.admin_token.is_some() || overrides.admin_token_file.is_some();
    let token = if let Some(token) = &overrides.admin_token {
        Some(token.clone())
    } else if let Some(path) = &overrides.admin_token_file {
        ok_or_report(reading, None, read_token(path))
    } else if let Some(file) = file {
        let path = directory.join(&file.value);
        ok_or_report(reading, Some(file.span), read_token(&path))
    } else {
        token.map(|token| token.value)
    };
    let place = given.as_ref().map(|given| given.span.clone());
    let place = if overrides.admin.is_some() { None } else { place };
    let from_file = given.map_or(Admin::default().address, |given| given.value);
    let address = overrides.admin.unwrap_or(from_file);
    if !address.ip().is_loopback() && !has_token && !overridden {
        let what = format!("the admin interface at {address} can be reached from outside");
        let help =
            "name a file with a secret (`token_file`, --admin-token-file), or listen on loopback";
        reading.problems.add(place.clone(), what, Some(help.to_owned()));
    }
    if let Some(other) = listeners.iter().find(|it| overlap(it.address(), address)) {
        let what = format!("the admin interface and a listener cannot share {address}");
        let help = format!("\"{}\" listens at {} already", other.name(), other.address());
        reading.problems.add(place, what, Some(help));
    }
    Admin { address, token, tls }
}

/// Returns the token, or reports the problem.
fn ok_or_report(
    reading: &mut Reading<'_>,
    place: Option<std::ops::Range<usize>>,
    token: Result<Token, String>,
) -> Option<Token> {
    token.map_err(|what| reading.problems.add(place, what, None)).ok()
}

/// Reads the token in the first line of a file.
fn read_token(path: &Path) -> Result<Token, String> {
    let shown = path.display();
    let text = read_text(path, MAX_TOKEN_FILE)
        .map_err(|error| format!("the token file {shown} cannot be read: {error}"))?;
    let first = text.lines().next().unwrap_or_default();
    Token::new(first.trim_end())
        .map_err(|right| format!("the first line of the token file {shown} must be {right}"))
}
