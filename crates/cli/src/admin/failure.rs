//! What a user reads if a request to the admin interface fails: what went wrong, and what to do.

use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use systole_core::text::Escaped;
use ureq::Error;

use crate::config_args::TOKEN_VARIABLE;

/// A failed request, explained to the user.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: String,
    /// Empty if the error says it all.
    pub(crate) hint: String,
}

impl Failure {
    pub(super) fn without_hint(error: String) -> Failure {
        Failure { error, hint: String::new() }
    }

    /// The interface requires a token; `source` is where the one it got is from.
    pub(super) fn unauthorized(source: Option<String>) -> Failure {
        match source {
            None => Failure {
                error: "the gateway requires its admin token".to_owned(),
                hint: format!(
                    "--token-file (or SYSTOLE_ADMIN_TOKEN_FILE) names a file with the token, \
                    {TOKEN_VARIABLE} is the token itself: that of [admin] in the gateway's \
                    configuration"
                ),
            },
            Some(source) => Failure {
                error: format!("the gateway does not accept the token {source}"),
                hint: "it must be that of [admin] in the gateway's configuration".to_owned(),
            },
        }
    }

    /// What answered is no admin interface.
    pub(super) fn other_server(url: &str, status: u16) -> Failure {
        Failure {
            error: format!("{url} answers with HTTP status {status}, but not as a gateway does"),
            hint: "--admin sets the address of the gateway's admin interface".to_owned(),
        }
    }

    /// There was no answer, or none of HTTP.
    pub(super) fn unreachable(url: &str, timeout: Duration, error: &Error) -> Failure {
        let is_running = "is the gateway running? --admin sets the address of its admin interface";
        let is_admin = "--admin sets the address of the gateway's admin interface, which is none \
                        of its listeners";
        let is_believed = "does it speak https, with a certificate for this host? --ca names who \
                           vouches for it";
        let other = if url.starts_with("https://") { is_believed } else { is_running };
        let (what, hint) = if let Error::Io(error) = error {
            let ended = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
            if error.kind() == ErrorKind::ConnectionRefused {
                ("nothing listens there".to_owned(), is_running)
            } else if ended.contains(&error.kind()) {
                ("the connection was closed".to_owned(), is_admin)
            } else {
                (error.to_string(), other)
            }
        } else if matches!(error, Error::Timeout(_)) {
            (format!("nothing came within {timeout:?}"), is_running)
        } else if matches!(error, Error::HostNotFound) {
            ("this host has no address".to_owned(), is_running)
        } else if matches!(error, Error::Protocol(_) | Error::Http(_)) {
            ("what answers there does not speak HTTP".to_owned(), is_admin)
        } else {
            (error.to_string(), other)
        };
        Failure { error: format!("no answer from {url}: {what}"), hint: hint.to_owned() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Both may be what a stranger answered: neither may begin a line of its own.
        Escaped::line(&self.error).fmt(f)?;
        match self.hint.as_str() {
            "" => Ok(()),
            hint => write!(f, "\nhint: {}", Escaped::line(hint)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_gateway_answers_begins_no_line() {
        let [error, hint] = ["no\nerror: forged", "a\r\nhint: forged"].map(str::to_owned);
        let shown = Failure { error, hint }.to_string();
        assert_eq!(shown, "no\\nerror: forged\nhint: a\\r\\nhint: forged");
    }
}
