//! Reads `[admin]`: where operators look and steer, and who may.

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use super::overrides::Overrides;
use super::section::{Reading, Section};
use super::value;

/// The shortest token in characters: 16 of a random 64-letter alphabet are 96 bits.
pub const MIN_TOKEN: usize = 16;

/// The longest token in characters; far below what HTTP servers take as one header.
pub const MAX_TOKEN: usize = 512;

/// The admin interface.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Admin {
    pub(super) address: SocketAddr,
    pub(super) token: Option<Token>,
}

impl Admin {
    /// Where it listens. Off loopback there is a token.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What requests must present; `None` lets every local user in.
    pub fn token(&self) -> Option<&Token> {
        self.token.as_ref()
    }
}

impl Default for Admin {
    /// On loopback, port 7480, without a token.
    fn default() -> Admin {
        Admin { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 7480)), token: None }
    }
}

/// A secret that never shows itself: its `Debug` is redacted and it has no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token of [`MIN_TOKEN`] to [`MAX_TOKEN`] printable ASCII characters without spaces.
    ///
    /// # Errors
    /// Any other text; the error says what would be right, to follow "must be", and not the text.
    pub fn new(text: &str) -> Result<Token, String> {
        let legal = (MIN_TOKEN..=MAX_TOKEN).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        legal.then(|| Token(text.to_owned())).ok_or_else(|| {
            format!("{MIN_TOKEN} to {MAX_TOKEN} printable ASCII characters without spaces")
        })
    }

    /// Whether `given` is this token, in a time that does not tell how much of it was right.
    pub fn matches(&self, given: &str) -> bool {
        let same_length = self.0.len() == given.len();
        let differing = self.0.bytes().zip(given.bytes()).fold(0, |bits, (a, b)| bits | (a ^ b));
        same_length && differing == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Reads `[admin]`; a relative `token_file` starts from `directory`.
pub(super) fn read(
    reading: &mut Reading<'_>,
    mut section: Section<'_>,
    directory: &Path,
    overrides: &Overrides,
) -> Admin {
    let given = section.take(reading, "address", value::address);
    let token = section.take(reading, "token", |value| Token::new(&value::text(value)?));
    let file = section.take(reading, "token_file", value::text);
    let has_token = section.has("token") || section.has("token_file");
    section.finish(reading);

    if let (Some(token), Some(_)) = (&token, &file) {
        let what = "`token` and `token_file` exclude each other".to_owned();
        let help = "keep `token_file`: the configuration can then be shown to others".to_owned();
        reading.problems.add(Some(token.span.clone()), what, Some(help));
    }
    let overridden = overrides.admin_token.is_some() || overrides.admin_token_file.is_some();
    let token = if let Some(token) = &overrides.admin_token {
        Some(token.clone())
    } else if let Some(path) = &overrides.admin_token_file {
        take_or_report(reading, None, read_token(path))
    } else if let Some(file) = file {
        let path = directory.join(&file.value);
        take_or_report(reading, Some(file.span), read_token(&path))
    } else {
        token.map(|token| token.value)
    };
    let place = given.as_ref().map(|given| given.span.clone());
    let place = if overrides.admin.is_some() { None } else { place };
    let from_file = given.map_or(Admin::default().address, |given| given.value);
    let address = overrides.admin.unwrap_or(from_file);
    if !address.ip().is_loopback() && !has_token && !overridden {
        let what = format!("the admin interface at {address} can be reached from outside");
        let help = "set `token_file` to a file with a secret, or listen on a loopback address";
        reading.problems.add(place, what, Some(help.to_owned()));
    }
    Admin { address, token }
}

fn take_or_report(
    reading: &mut Reading<'_>,
    place: Option<std::ops::Range<usize>>,
    token: Result<Token, String>,
) -> Option<Token> {
    token.map_err(|what| reading.problems.add(place, what, None)).ok()
}

/// The token in the first line of a file.
fn read_token(path: &Path) -> Result<Token, String> {
    let shown = path.display();
    let text = fs::read_to_string(path)
        .map_err(|error| format!("the token file {shown} cannot be read: {error}"))?;
    let first = text.lines().next().unwrap_or_default();
    Token::new(first.trim_end())
        .map_err(|right| format!("the first line of the token file {shown} must be {right}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_hide_and_compare() {
        let token = Token::new("0123456789abcdef").unwrap();
        assert!(token.matches("0123456789abcdef"));
        for other in ["", "0123456789abcdeF", "0123456789abcdef0", "0123456789abcde"] {
            assert!(!token.matches(other), "{other}");
        }
        assert_eq!(format!("{token:?}"), "Token(…)");
        assert!(Token::new("0123456789abcde").is_err());
        assert!(Token::new("0123456789 bcdef").is_err());
        assert!(Token::new(&"x".repeat(MAX_TOKEN + 1)).is_err());
        assert!(Token::new(&"x".repeat(MAX_TOKEN)).is_ok());
    }
}
