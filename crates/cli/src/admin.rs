//! Sends requests to the admin interface of a running gateway.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use systole_gateway::config::{MAX_TOKEN_FILE, Token, read_text};
use ureq::{Agent, Body, Error};

/// Time limit of a request: a shard answers within 2 s or not at all; the rest is for the network.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Longest answer in bytes; far above the answer for one session.
const MAX_ANSWER: u64 = 1 << 20;

/// Address and token of the admin interface.
#[derive(Debug, clap::Args)]
pub(crate) struct AdminArgs {
    /// URL of the gateway's admin interface
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7480")]
    admin: String,

    /// File with the admin token, if the interface requires one
    #[arg(long, value_name = "FILE", env = "SYSTOLE_ADMIN_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

/// The admin interface's answer to a request that failed.
#[derive(Deserialize)]
struct ErrorAnswer {
    error: String,
    hint: String,
}

impl AdminArgs {
    /// Returns the interface's answer for `path`.
    ///
    /// # Errors
    /// A message for the user: what went wrong, and what to do about it.
    pub(crate) fn get(&self, path: &str) -> Result<String, String> {
        let base = self.admin.trim_end_matches('/');
        let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
        // Neither a proxy nor the target of a redirect may receive the token.
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(TIMEOUT));
        let mut request = Agent::from(config.build()).get(format!("{base}{path}"));
        if let Some(token) = self.token()? {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let mut response = request.call().map_err(|error| self.unreachable(&error))?;
        let text = read(response.body_mut()).map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(text);
        }
        Err(match serde_json::from_str(&text) {
            Ok(ErrorAnswer { error, hint }) => format!("{error}\nhint: {hint}"),
            Err(_) => format!(
                "{base} answers {}, but not as a gateway does\nhint: set --admin to the address \
                of the section [admin]",
                response.status()
            ),
        })
    }

    fn token(&self) -> Result<Option<String>, String> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let shown = path.display();
        let text = read_text(path, MAX_TOKEN_FILE)
            .map_err(|error| format!("the token in {shown} cannot be read: {error}"))?;
        let token = text.lines().next().unwrap_or("").trim();
        Token::new(token).map_err(|expected| format!("the token in {shown} must be {expected}"))?;
        Ok(Some(token.to_owned()))
    }

    fn unreachable(&self, error: &Error) -> String {
        format!(
            "no answer from {}: {error}\nhint: is the gateway running? --admin sets the address of \
            its admin interface",
            self.admin
        )
    }
}

fn read(body: &mut Body) -> Result<String, Error> {
    body.with_config().limit(MAX_ANSWER).read_to_string()
}
