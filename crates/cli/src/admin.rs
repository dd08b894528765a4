//! Asks the admin interface of a running gateway.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use systole_gateway::config::Token;
use ureq::{Agent, Body, Error};

/// A shard answers within 2 s or not at all; the rest is for the network.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer in bytes; far above what one session amounts to.
const MAX_ANSWER: u64 = 1 << 20;

/// Where the admin interface is, and what it wants to see.
#[derive(Debug, clap::Args)]
pub(crate) struct AdminArgs {
    /// Where the gateway's admin interface is
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7480")]
    admin: String,

    /// The file with its token, if it wants one
    #[arg(long, value_name = "FILE", env = "SYSTOLE_ADMIN_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

/// The answer of an admin interface that does not do as asked.
#[derive(Deserialize)]
struct Trouble {
    error: String,
    hint: String,
}

impl AdminArgs {
    /// What the interface answers for `path`.
    ///
    /// # Errors
    /// What went wrong and what to do about it, for people.
    pub(crate) fn get(&self, path: &str) -> Result<String, String> {
        let base = self.admin.trim_end_matches('/');
        let base = if base.contains("://") { base.to_owned() } else { format!("http://{base}") };
        // Neither a proxy nor another address is to see the token.
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
            Ok(Trouble { error, hint }) => format!("{error}\nhint: {hint}"),
            Err(_) => format!(
                "{base} answers {}, and not as a gateway would\nhint: give the address of [admin] \
                 with --admin",
                response.status()
            ),
        })
    }

    fn token(&self) -> Result<Option<String>, String> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let shown = path.display();
        let text = fs::read_to_string(path)
            .map_err(|error| format!("the token in {shown} cannot be read: {error}"))?;
        let token = text.lines().next().unwrap_or("").trim();
        Token::new(token).map_err(|right| format!("the token in {shown} must be {right}"))?;
        Ok(Some(token.to_owned()))
    }

    fn unreachable(&self, error: &Error) -> String {
        format!(
            "no answer from {}: {error}\nhint: is the gateway running? --admin says where its \
             admin interface is",
            self.admin
        )
    }
}

fn read(body: &mut Body) -> Result<String, Error> {
    body.with_config().limit(MAX_ANSWER).read_to_string()
}
