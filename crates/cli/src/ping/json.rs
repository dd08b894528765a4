//! The lines of `systole ping --json`.

use std::net::SocketAddr;

use serde::Serialize;
use systole_client::reconnect::Goodbye;
use systole_client::{Policy, Span, session};

use super::interval;

/// One line of `--json`. Scripts rely on the names.
#[derive(Debug, Default, Serialize)]
pub(super) struct Line<'a> {
    pub(super) event: &'a str,
    pub(super) time_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) number: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rtt_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bound_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) interval_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cause: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) silent_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kept_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) redelivered: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gap: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    #[serde(flatten)]
    pub(super) goodbye: Option<Farewell>,
}

impl Line<'_> {
    /// Adds what `policy` means for the connection.
    pub(super) fn with(self, policy: &Policy) -> Self {
        Line {
            bound_ms: policy.bound().map(Span::as_millis),
            interval_ms: interval(policy).map(Span::as_millis),
            ..self
        }
    }
}

/// The server's goodbye, in a line of `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Farewell {
    pub(super) reason: &'static str,
    pub(super) stay_away: bool,
    pub(super) return_after_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<String>,
}

/// The last line of `--json`.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    pub(super) event: &'static str,
    pub(super) time_ms: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) loss_percent: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rtt_min_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rtt_avg_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rtt_max_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rtt_mdev_us: Option<u64>,
}

impl Farewell {
    pub(super) fn new(goodbye: Goodbye, text: &str) -> Farewell {
        Farewell {
            reason: goodbye.reason.name(),
            stay_away: goodbye.stay_away,
            return_after_ms: goodbye.return_after.as_millis(),
            text: Some(text.to_owned()).filter(|text| !text.is_empty()),
        }
    }
}

/// Completes `line` for an event of the session; `None` for those that are not printed as JSON.
pub(super) fn session_object(event: &session::Event, line: Line<'static>) -> Option<Line<'static>> {
    if let session::Event::Retuned(policy) = event {
        return Some(line.with(policy));
    }
    if let session::Event::Warned { cause, .. } = event {
        return Some(Line { cause: Some(cause.name()), ..line });
    }
    matches!(event, session::Event::Suspect | session::Event::Recovered).then_some(line)
}

/// Formats a line.
pub(super) fn json(object: &impl Serialize) -> String {
    serde_json::to_string(object).expect("numbers and texts are JSON")
}
