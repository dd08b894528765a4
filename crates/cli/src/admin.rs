//! Sends requests to the admin interface of a running gateway.

mod failure;

use std::env;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use systole_gateway::config::{MAX_TOKEN_FILE, Token, read_text};
use systole_net::address;
use systole_net::tls::{certificates, provider, system_certificates};
use ureq::http::{StatusCode, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body, Error};

use crate::config_args::{TOKEN_VARIABLE, show};
pub(crate) use failure::Failure;

/// The port of an admin interface, in the example of an error.
const USUAL_PORT: u16 = 7_480;

/// Time limit of a request: a shard answers within 2 s or not at all; the rest is for the network.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Longest answer in bytes; far above the answer for one session.
const MAX_ANSWER: u64 = 1 << 20;

/// Address and token of the admin interface.
#[derive(Debug, clap::Args)]
pub(crate) struct AdminArgs {
    /// URL of the gateway's admin interface
    #[arg(
        long, value_name = "URL", default_value = "http://127.0.0.1:7480", value_parser = admin_url
    )]
    admin: String,

    /// File whose first line is the admin token, if the interface requires one (or set
    /// SYSTOLE_ADMIN_TOKEN to the token itself)
    #[arg(long, value_name = "FILE", env = "SYSTOLE_ADMIN_TOKEN_FILE")]
    token_file: Option<PathBuf>,

    /// With https://: believe certificates for which one in FILE (PEM) vouches, instead of those of
    /// this system
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,

    /// With https://: believe anyone. Whoever stands on the way can read the token and the answer
    #[arg(long, conflicts_with = "ca")]
    insecure: bool,
}

/// The admin interface's answer to a request that failed.
#[derive(Deserialize)]
struct ErrorAnswer {
    error: String,
    hint: String,
}

/// Quotes a path for a shell, where it needs that.
fn quote(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain =
        |character: char| character.is_ascii_alphanumeric() || "/._-+".contains(character);
    match text.chars().all(is_plain) && !text.starts_with('-') {
        true => text.into_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

/// A token, and where it is from.
struct Shown {
    token: String,
    source: String,
}

impl AdminArgs {
    /// Returns the interface's answer for `path`.
    pub(crate) fn get(&self, path: &str) -> Result<String, Failure> {
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(provider())
            .root_certs(self.roots().map_err(Failure::without_hint)?)
            .disable_verification(self.insecure);
        // Neither a proxy nor the target of a redirect may receive the token.
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .tls_config(tls.build())
            .timeout_global(Some(TIMEOUT));
        let mut request = Agent::from(config.build()).get(format!("{}{path}", self.admin));
        let shown = self.token().map_err(Failure::without_hint)?;
        if let Some(Shown { token, .. }) = &shown {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let mut response = request.call().map_err(|error| self.unreachable(&error))?;
        let text = read(response.body_mut()).map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(text);
        }
        Err(match serde_json::from_str(&text) {
            Ok(ErrorAnswer { .. }) if status == StatusCode::UNAUTHORIZED => {
                Failure::unauthorized(shown.map(|shown| shown.source))
            }
            Ok(ErrorAnswer { error, hint }) => Failure { error, hint },
            Err(_) => Failure::other_server(&self.admin, status.as_u16()),
        })
    }

    /// Returns a command line of curl that gets `path` as this program would. It names the file or
    /// the variable of the token, never the token.
    pub(crate) fn curl(&self, path: &str) -> String {
        let mut line = "curl -s".to_owned();
        match (&self.token_file, env::var_os(TOKEN_VARIABLE)) {
            (Some(file), _) => {
                line += &format!(" -H \"Authorization: Bearer $(head -n 1 {})\"", quote(file));
            }
            (None, Some(_)) => line += &format!(" -H \"Authorization: Bearer ${TOKEN_VARIABLE}\""),
            (None, None) => {}
        }
        if let Some(ca) = &self.ca {
            line += &format!(" --cacert {}", quote(ca));
        }
        if self.insecure {
            line += " -k";
        }
        format!("{line} {}{path}", self.admin)
    }

    /// Returns the certificates that vouch for the interface.
    fn roots(&self) -> Result<RootCerts, String> {
        let roots = match &self.ca {
            // Only an address with https:// needs them.
            None if self.insecure || !self.admin.starts_with("https://") => Vec::new(),
            None => system_certificates(),
            Some(path) => {
                let failed = |error: &dyn Display| format!("{}: {error}", show(path));
                let pem = std::fs::read(path).map_err(|error| failed(&error))?;
                certificates(&pem).map_err(|error| failed(&error))?
            }
        };
        Ok(roots.iter().map(|root| Certificate::from_der(root).to_owned()).into())
    }

    fn token(&self) -> Result<Option<Shown>, String> {
        let (text, source) = match &self.token_file {
            Some(path) => {
                let source = format!("in {}", show(path));
                let text = read_text(path, MAX_TOKEN_FILE)
                    .map_err(|error| format!("the token {source} cannot be read: {error}"))?;
                (text, source)
            }
            None => match env::var(TOKEN_VARIABLE) {
                Ok(text) => (text, format!("of {TOKEN_VARIABLE}")),
                Err(env::VarError::NotPresent) => return Ok(None),
                Err(env::VarError::NotUnicode(_)) => {
                    return Err(format!("{TOKEN_VARIABLE} must be ASCII"));
                }
            },
        };
        let token = text.lines().next().unwrap_or("").trim().to_owned();
        Token::new(&token).map_err(|expected| format!("the token {source} must be {expected}"))?;
        Ok(Some(Shown { token, source }))
    }

    fn unreachable(&self, error: &Error) -> Failure {
        Failure::unreachable(&self.admin, TIMEOUT, error)
    }
}

/// Checks the URL of an admin interface; the scheme may be missing.
fn admin_url(text: &str) -> Result<String, String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        let host = text.trim_end_matches('/');
        address::split(host, USUAL_PORT)?;
        return Ok(format!("http://{host}"));
    };
    let host = rest.split('/').next().unwrap_or_default();
    let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
    if has_port || host.is_empty() {
        address::split(host, USUAL_PORT)?;
    }
    let is_url = matches!(scheme, "http" | "https") && text.parse::<Uri>().is_ok();
    is_url.then(|| text.trim_end_matches('/').to_owned()).ok_or_else(|| {
        format!("this is no URL of an admin interface, as in http://127.0.0.1:{USUAL_PORT}")
    })
}

fn read(body: &mut Body) -> Result<String, Error> {
    body.with_config().limit(MAX_ANSWER).read_to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_an_interface_may_lack_its_scheme() {
        for (text, url) in [
            ("127.0.0.1:7480", "http://127.0.0.1:7480"),
            ("[::1]:7480/", "http://[::1]:7480"),
            ("http://gateway.example.org", "http://gateway.example.org"),
            ("http://[::1]", "http://[::1]"),
            ("https://proxy.example.org/gateway/", "https://proxy.example.org/gateway"),
        ] {
            assert_eq!(admin_url(text).as_deref(), Ok(url));
        }
        for (text, says) in [
            ("", "a port is needed, as in 127.0.0.1:7480"),
            ("gateway", "a port is needed, as in gateway:7480"),
            ("http://", "a port is needed, as in 127.0.0.1:7480"),
            ("http://gateway:99999", "a number from 1 to 65535, as in gateway:7480"),
            ("ftp://gateway:7480", "this is no URL of an admin interface, as in http://127.0.0.1"),
            ("http://gateway/ x", "this is no URL of an admin interface, as in http://127.0.0.1"),
        ] {
            let error = admin_url(text).unwrap_err();
            assert!(error.contains(says), "{text:?}: {error}");
        }
    }
}
