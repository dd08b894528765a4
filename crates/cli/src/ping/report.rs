//! The output of `systole ping`: a line per event, and a summary.

use std::io;

use serde::Serialize;
use systole_client::cause::Verdict;
use systole_client::wire::BeatKind;
use systole_client::{Event, Policy, Span, session};
use systole_net::Clock;

use super::is_answer;
use crate::output::Output;

/// Counts heartbeats, and prints a line for each event.
#[derive(Debug)]
pub(super) struct Report {
    addr: String,
    json: bool,
    verbose: bool,
    clock: Clock,
    sent: u64,
    received: u64,
    rtt: RoundTrips,
    last_rtt: Option<Span>,
    last_loss: Option<Verdict>,
}

/// One line of `--json`. Scripts rely on the names.
#[derive(Debug, Default, Serialize)]
struct Line<'a> {
    event: &'a str,
    time_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bound_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    silent_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    after_ms: Option<u64>,
}

/// The last line of `--json`.
#[derive(Debug, Serialize)]
struct Summary {
    event: &'static str,
    time_ms: u64,
    sent: u64,
    received: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_min_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_avg_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_max_us: Option<u64>,
}

#[derive(Debug, Default)]
struct RoundTrips {
    count: u64,
    sum_us: u64,
    min: Span,
    max: Span,
}

impl Report {
    pub(super) fn new(addr: String, json: bool, verbose: bool) -> Report {
        Report {
            addr,
            json,
            verbose,
            clock: Clock::start(),
            sent: 0,
            received: 0,
            rtt: RoundTrips::default(),
            last_rtt: None,
            last_loss: None,
        }
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// The verdict on the last link that was lost.
    pub(super) fn last_loss(&self) -> Option<Verdict> {
        self.last_loss
    }

    /// Counts the event, and prints it if the options select it.
    pub(super) fn record(&mut self, event: &Event, output: &mut Output) -> io::Result<()> {
        self.count(event);
        let time = self.clock.monotonic();
        let line = if self.json {
            self.object(event, time).map(|object| json(&object))
        } else {
            match self.text(event) {
                Some(text) if self.verbose => Some(format!("{} {}", stamp(time), text.0)),
                Some(Text(text, Shown::Always)) => Some(text),
                Some(Text(_, Shown::Verbose)) | None => None,
            }
        };
        if is_answer(event) {
            self.last_rtt = None;
        }
        match line {
            Some(line) => output.line(&line).and_then(|()| output.flush()),
            None => Ok(()),
        }
    }

    /// Prints the counts and round trips in the format of ping(8).
    pub(super) fn summary(&self, output: &mut Output) -> io::Result<()> {
        let (sent, received, time) = (self.sent, self.received, self.clock.monotonic());
        let rtt = &self.rtt;
        if self.json {
            let known = |micros: u64| (rtt.count > 0).then_some(micros);
            output.line(&json(&Summary {
                event: "summary",
                time_ms: time.as_millis(),
                sent,
                received,
                rtt_min_us: known(rtt.min.as_micros()),
                rtt_avg_us: known(rtt.average().as_micros()),
                rtt_max_us: known(rtt.max.as_micros()),
            }))?;
        } else {
            output.line(&format!("--- {} ping statistics ---", self.addr))?;
            output.line(&format!("{sent} heartbeats sent, {received} received, time {time}"))?;
            if rtt.count > 0 {
                let (min, avg, max) = (rtt.min, rtt.average(), rtt.max);
                output.line(&format!("rtt min {min}, avg {avg}, max {max}"))?;
            }
        }
        output.flush()
    }

    fn count(&mut self, event: &Event) {
        if let Event::HeartbeatSent { beat: BeatKind::Ping, .. } = event {
            self.sent += 1;
        }
        if is_answer(event) {
            self.received += 1;
        }
        if let Event::RoundTrip(rtt) = event {
            self.rtt.add(*rtt);
            self.last_rtt = Some(*rtt);
        }
        if let Event::Lost { verdict, .. } = event {
            self.last_loss = Some(*verdict);
        }
    }

    /// Formats the event as a line of text.
    fn text(&self, event: &Event) -> Option<Text> {
        let always = |text: String| Some(Text(text, Shown::Always));
        let verbose = |text: String| Some(Text(text, Shown::Verbose));
        match event {
            Event::HeartbeatSent { beat: BeatKind::Ping, number, .. } => {
                always(format!("sending heartbeat #{number}"))
            }
            Event::HeartbeatReceived { beat: BeatKind::Pong, .. } => {
                let rtt = self.last_rtt.filter(|_| self.verbose);
                let rtt = rtt.map_or_else(String::new, |rtt| format!(" (rtt {rtt})"));
                always(format!("received heartbeat, make heartbeats to 0{rtt}"))
            }
            Event::Lost { verdict, .. } if verdict.is_silence() => {
                let why = if self.verbose { format!(": {}", verdict.cause) } else { String::new() };
                always(format!("connection dead{why}"))
            }
            Event::Lost { verdict, .. } => always(format!("connection lost: {}", verdict.cause)),
            Event::Reconnecting { attempt, after } => {
                always(format!("reconnecting in {after}, attempt {attempt}"))
            }
            Event::AttemptFailed(error) => always(error.to_string()),
            Event::Reconnected { .. } => always("connected again".to_owned()),
            Event::Revised { to, .. } => always(format!("the previous loss was revised: {to}")),
            Event::Connected { session, policy, .. } => {
                verbose(format!("connected to {}, session {session}: {policy}", self.addr))
            }
            Event::HeartbeatReceived { beat: BeatKind::Ping, .. } => {
                verbose("received a heartbeat from the server".to_owned())
            }
            Event::HeartbeatSent { beat: BeatKind::Pong, .. } => {
                verbose("answered the heartbeat".to_owned())
            }
            Event::Session(event) => session_text(event).and_then(verbose),
            Event::Message(bytes) => {
                verbose(format!("received a message of {} bytes", bytes.len()))
            }
            Event::MessageTooLong { len } => verbose(format!("dropped a message of {len} bytes")),
            Event::HeartbeatData(bytes) => {
                verbose(format!("received {} bytes on a heartbeat", bytes.len()))
            }
            Event::RoundTrip(_) | Event::Closed(_) => None,
        }
    }

    fn object(&self, event: &Event, time: Span) -> Option<Line<'static>> {
        let line = |event| Line { event, time_ms: time.as_millis(), ..Line::default() };
        let bound = |policy: &Policy| policy.bound().map(Span::as_millis);
        Some(match event {
            Event::Connected { session, policy, .. } => Line {
                session: Some(session.to_string()),
                bound_ms: bound(policy),
                ..line("connected")
            },
            Event::HeartbeatSent { beat: BeatKind::Ping, number, .. } => {
                Line { number: Some(*number), ..line("sent") }
            }
            Event::HeartbeatReceived { beat: BeatKind::Pong, .. } => {
                Line { rtt_us: self.last_rtt.map(Span::as_micros), ..line("received") }
            }
            Event::Session(event) => return session_object(event, line(event.name())),
            Event::Lost { verdict, silent_for, .. } => Line {
                cause: Some(verdict.cause.name()),
                silent_ms: Some(silent_for.as_millis()),
                ..line(if verdict.is_silence() { "dead" } else { "lost" })
            },
            Event::Reconnecting { attempt, after } => Line {
                attempt: Some(*attempt),
                after_ms: Some(after.as_millis()),
                ..line("reconnecting")
            },
            Event::AttemptFailed(_) => line("attempt_failed"),
            Event::Reconnected { session, policy, attempt, .. } => Line {
                session: Some(session.to_string()),
                bound_ms: bound(policy),
                attempt: Some(*attempt),
                ..line("reconnected")
            },
            Event::Revised { to, .. } => Line { cause: Some(to.name()), ..line("revised") },
            Event::HeartbeatSent { beat: BeatKind::Pong, .. }
            | Event::HeartbeatReceived { beat: BeatKind::Ping, .. }
            | Event::Message(_)
            | Event::MessageTooLong { .. }
            | Event::HeartbeatData(_)
            | Event::RoundTrip(_)
            | Event::Closed(_) => return None,
        })
    }
}

/// Formats an event of the session; `None` for those that the client reports in its own words, and
/// for one that no link has.
fn session_text(event: &session::Event) -> Option<String> {
    Some(match event {
        session::Event::Suspect => "the server is suspect".to_owned(),
        session::Event::Warned { cause, .. } => format!("warning, no verdict yet: {cause}"),
        session::Event::Recovered => "the server has recovered".to_owned(),
        session::Event::Overdue { .. } => "the server is overdue".to_owned(),
        session::Event::Hung { cause, .. } => {
            format!("the server hangs, the link is kept: {cause}")
        }
        session::Event::Retuned(policy) => format!("the server changed the policy: {policy}"),
        session::Event::Joined { .. } | session::Event::Left(_) | session::Event::Moved { .. } => {
            return None;
        }
    })
}

/// Completes `line` for an event of the session; `None` for those that are not printed as JSON.
fn session_object(event: &session::Event, line: Line<'static>) -> Option<Line<'static>> {
    if let session::Event::Retuned(policy) = event {
        return Some(Line { bound_ms: policy.bound().map(Span::as_millis), ..line });
    }
    if let session::Event::Warned { cause, .. } = event {
        return Some(Line { cause: Some(cause.name()), ..line });
    }
    matches!(event, session::Event::Suspect | session::Event::Recovered).then_some(line)
}

/// A line of text, and when it is printed.
struct Text(String, Shown);

enum Shown {
    Always,
    Verbose,
}

impl RoundTrips {
    fn add(&mut self, rtt: Span) {
        self.min = if self.count == 0 { rtt } else { self.min.min(rtt) };
        self.max = self.max.max(rtt);
        self.count += 1;
        self.sum_us = self.sum_us.saturating_add(rtt.as_micros());
    }

    fn average(&self) -> Span {
        Span::from_micros(self.sum_us / self.count.max(1))
    }
}

/// Formats the seconds since the start with a fixed width.
pub(crate) fn stamp(time: Span) -> String {
    format!("{:>5}.{:03}", time.as_millis() / 1_000, time.as_millis() % 1_000)
}

fn json(object: &impl Serialize) -> String {
    serde_json::to_string(object).expect("numbers and texts are JSON")
}
