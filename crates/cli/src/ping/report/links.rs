//! The lines about links that end and others that take their place.

use systole_client::cause::Verdict;
use systole_client::reconnect::Goodbye;
use systole_client::{Event, Span};
use systole_core::text::Escaped;

use super::super::hint;
use super::super::json::{Farewell, Line};
use super::Report;

impl Report {
    /// Formats an event of a link as a line of text; `None` for other events.
    #[allow(clippy::wildcard_enum_match_arm)] // The caller names all events.
    pub(super) fn link_text(&self, event: &Event) -> Option<String> {
        match event {
            Event::Lost { verdict, farewell, text, .. } => {
                Some(self.loss_text(verdict, *farewell, text))
            }
            Event::Away { verdict, until, farewell, text, .. } => {
                let lost = self.loss_text(verdict, *farewell, text);
                let kept = until.since(verdict.at);
                let kept = if self.verbose { format!(" for {kept}") } else { String::new() };
                Some(format!("{lost}; the session is kept{kept}"))
            }
            Event::Resumed { session, gap, redelivered, .. } => Some(if self.verbose {
                format!(
                    "resumed session {session}: {redelivered} messages sent again, {gap} dropped \
                     by the server"
                )
            } else {
                "connected again, the session goes on".to_owned()
            }),
            Event::NotResumed { why: Some(why), .. } => Some(format!("the session is gone: {why}")),
            Event::Reconnecting { attempt, after } => {
                Some(format!("reconnecting in {after}, attempt {attempt}"))
            }
            Event::Reconnected { .. } => Some("connected again".to_owned()),
            Event::Revised { to, .. } => Some(format!("the previous loss was revised: {to}")),
            _ => None,
        }
    }

    /// Says why a connection is lost, with what the server says to people, and when to come back.
    fn loss_text(&self, verdict: &Verdict, farewell: Option<Goodbye>, text: &str) -> String {
        if verdict.is_silence() {
            let why = if self.verbose { format!(": {}", verdict.cause) } else { String::new() };
            return format!("connection dead{why}");
        }
        let colon = if text.is_empty() { "" } else { ": " };
        let (text, after) = (Escaped::line(text), hint::return_after(farewell));
        format!("connection lost: {}{colon}{text}{after}", verdict.cause)
    }

    /// Returns the line of `--json` for an event of a link; `None` for other events.
    #[allow(clippy::wildcard_enum_match_arm)] // The caller names all events.
    pub(super) fn link_object(&self, event: &Event, time: Span) -> Option<Line<'static>> {
        let line = |event| Line { event, time_ms: time.as_millis(), ..Line::default() };
        Some(match event {
            Event::Lost { verdict, farewell, text, silent_for } => Line {
                cause: Some(verdict.cause.name()),
                silent_ms: Some(silent_for.as_millis()),
                goodbye: farewell.map(|goodbye| Farewell::new(goodbye, text)),
                ..line(if verdict.is_silence() { "dead" } else { "lost" })
            },
            Event::Away { verdict, until, farewell, text, silent_for } => Line {
                cause: Some(verdict.cause.name()),
                silent_ms: Some(silent_for.as_millis()),
                kept_ms: Some(until.since(verdict.at).as_millis()),
                goodbye: farewell.map(|goodbye| Farewell::new(goodbye, text)),
                ..line("away")
            },
            Event::Resumed { session, gap, redelivered, attempt, .. } => Line {
                session: Some(session.to_string()),
                address: self.address,
                attempt: Some(*attempt),
                redelivered: Some(*redelivered),
                gap: Some(*gap),
                ..line("resumed")
            },
            Event::NotResumed { why: Some(why), .. } => {
                Line { why: Some(why.name()), ..line("not_resumed") }
            }
            Event::Reconnecting { attempt, after } => Line {
                attempt: Some(*attempt),
                after_ms: Some(after.as_millis()),
                ..line("reconnecting")
            },
            Event::Reconnected { session, policy, attempt, .. } => Line {
                session: Some(session.to_string()),
                address: self.address,
                attempt: Some(*attempt),
                ..line("reconnected").with(policy)
            },
            Event::Revised { to, .. } => Line { cause: Some(to.name()), ..line("revised") },
            _ => return None,
        })
    }
}
