//! `systole why`: prints why a session ended, or the state of a session online.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use serde::Deserialize;
use systole_core::Span;
use systole_core::text::{Escaped, Quoted};

use crate::admin::{AdminArgs, Failure};
use crate::exit::Exit;
use crate::output::Output;

/// The last millisecond of the year 9999, since the Unix epoch.
const LAST_DATE_MS: u64 = 253_402_300_799_999;

const EXAMPLES: &str = "\
Examples:
  systole why 00c0600001000000
  systole why 00c0600001000000 --json | jq .verdict.cause
  systole why 00c0600001000000 --admin http://gateway.example.org:7480 --token-file token

The gateway keeps the last 10,000 verdicts. `curl -s localhost:7480/api/v1/sessions` lists who is
online, `curl -s 'localhost:7480/api/v1/verdicts?identity=NAME'` the last verdicts on a client.

Exit codes: 0 success, 1 the session is unknown or no gateway answers, 2 wrong usage.";

/// Show why a session ended, or the state of a session online
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Number of the session in hexadecimal digits, as in events and logs; 0x before it and
    /// leading zeros do not matter
    #[arg(value_name = "SESSION", value_parser = session)]
    session: String,

    /// Print the gateway's answer unchanged, as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    admin: AdminArgs,
}

fn session(text: &str) -> Result<String, String> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    let is_legal = digits.len() <= 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = u64::from_str_radix(digits, 16).ok().filter(|_| is_legal);
    number.map(|number| format!("{number:016x}")).ok_or_else(|| {
        "a session has 16 hexadecimal digits, or fewer without leading zeros, as in \
         00c0600001000000; the gateway's log shows it"
            .to_owned()
    })
}

/// The printed part of the gateway's answer.
#[derive(Deserialize)]
struct Why {
    session: String,
    identity: String,
    listener: String,
    address: String,
    suspect: bool,
    /// Only of a session that is away.
    ends_in_ms: Option<u64>,
    verdict: Option<Verdict>,
    timeline: Vec<Moment>,
}

#[derive(Deserialize)]
struct Verdict {
    at_ms: u64,
    cause: String,
    confidence: String,
    detail: String,
    refusal: Option<String>,
    last_heard_ago_ms: u64,
    late_us: i64,
    #[serde(default)]
    stretch_ms: u64,
    lasted_ms: u64,
    grounds: Vec<String>,
    advice: String,
    provisional: bool,
    revised_from: Option<Revised>,
}

#[derive(Deserialize)]
struct Revised {
    cause: String,
    confidence: String,
    because: String,
}

#[derive(Deserialize)]
struct Moment {
    before_us: u64,
    what: String,
    count: u32,
    or_more: bool,
}

pub(crate) fn run(args: &Args, output: &mut Output) -> io::Result<Exit> {
    let answer = match args.admin.get(&format!("/api/v1/sessions/{}/why", args.session)) {
        Ok(answer) => answer,
        Err(failure) => {
            output.error(&args.explain(failure).to_string());
            return Ok(Exit::Failure);
        }
    };
    if args.json {
        output.line(answer.trim_end())?;
        return Ok(Exit::Success);
    }
    match serde_json::from_str::<Why>(&answer) {
        Ok(why) => {
            // No text in the answer may begin a line of its own.
            for line in why.lines() {
                output.line(&Escaped::line(&line).to_string())?;
            }
            Ok(Exit::Success)
        }
        Err(_) => {
            output.error(
                "the gateway's answer is not that of this version of systole\nhint: use a gateway \
                and a program of the same version; --json prints the answer unchanged",
            );
            Ok(Exit::Failure)
        }
    }
}

impl Args {
    /// Says how to find a session that the gateway does not know. Its own hint names paths only.
    fn explain(&self, failure: Failure) -> Failure {
        if !failure.error.contains(&self.session) {
            return failure;
        }
        let [verdicts, sessions] =
            ["verdicts", "sessions"].map(|list| self.admin.curl(&format!("/api/v1/{list}")));
        let hint = format!(
            "`{verdicts}` lists the last sessions that ended, `{sessions}` those online; older \
            ones are in the gateway's log"
        );
        Failure { hint, ..failure }
    }
}

impl Why {
    fn lines(&self) -> Vec<String> {
        let (mut lines, end) = match &self.verdict {
            Some(verdict) => {
                let mut lines = vec![
                    format!("{} ({}): {}", verdict.cause, verdict.confidence, verdict.detail),
                    self.subject(),
                    verdict.times(),
                ];
                lines.extend(self.ends_in_ms.map(|left| {
                    let left = seconds(left.saturating_mul(1_000));
                    format!("away: the connection was lost, and {left} s are left to resume")
                }));
                lines.extend(verdict.details());
                (lines, "the verdict")
            }
            None => {
                let state = if self.suspect { "suspected" } else { "not suspected" };
                (vec![format!("online, {state}"), self.subject()], "now")
            }
        };
        lines.extend([String::new(), format!("timeline, in seconds before {end}")]);
        let times: Vec<String> = self
            .timeline
            .iter()
            .map(|moment| format!("-{} s", seconds(moment.before_us)))
            .collect();
        let width = times.iter().map(String::len).max().unwrap_or(0);
        for (time, moment) in times.iter().zip(&self.timeline) {
            lines.push(format!("  {time:>width$}  {}{}", moment.what, moment.times()));
        }
        lines
    }

    /// Describes the session. The identity is quoted, since it is what the client says.
    fn subject(&self) -> String {
        let Why { session, identity, listener, address, .. } = self;
        let identity = Quoted(identity);
        format!("session {session} of {identity} from {address} at listener {listener}")
    }
}

impl Verdict {
    fn times(&self) -> String {
        let at = date(self.at_ms);
        let lasted = seconds(self.lasted_ms.saturating_mul(1_000));
        if self.cause == "gateway_lost" {
            return format!(
                "found at {at}, when the gateway started again; open for at most {lasted} s"
            );
        }
        let heard = seconds(self.last_heard_ago_ms.saturating_mul(1_000));
        let off = Span::from_micros(self.late_us.unsigned_abs());
        let late = if self.late_us < 0 { "early" } else { "late" };
        let stretched = match self.stretch_ms {
            0 => String::new(),
            ms => format!(" (congested: the bound was stretched by {})", Span::from_millis(ms)),
        };
        let fell = format!("fell at {at}, {off} {late}{stretched}");
        format!("{fell}; open for {lasted} s, last heard {heard} s before")
    }

    fn details(&self) -> Vec<String> {
        let refusal = self.refusal.iter().map(|name| format!("refusal: {name}"));
        let mut lines: Vec<_> = refusal.collect();
        let mut heading = "evidence";
        if let Some(Revised { cause, confidence, because }) = &self.revised_from {
            lines.push(format!("revised: {because}; the first verdict was {cause} ({confidence})"));
            heading = "evidence of the first verdict";
        }
        if self.provisional {
            lines.push("provisional: the cause may be revised when the peer returns".to_owned());
        }
        if !self.grounds.is_empty() {
            lines.extend([String::new(), heading.to_owned()]);
            lines.extend(self.grounds.iter().map(|ground| format!("  {ground}")));
        }
        lines.extend([String::new(), "what to do".to_owned(), format!("  {}", self.advice)]);
        lines
    }
}

impl Moment {
    fn times(&self) -> String {
        match (self.count, self.or_more) {
            (1, false) => String::new(),
            (count, false) => format!(" ×{count}"),
            (count, true) => format!(" ×{count} or more"),
        }
    }
}

/// Formats microseconds as seconds with three decimals.
fn seconds(micros: u64) -> String {
    format!("{}.{:03}", micros / 1_000_000, micros / 1_000 % 1_000)
}

/// Writes a date that a gateway told. It may be any number, and a formatter of dates fails beyond
/// the year 9999.
fn date(at_ms: u64) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(at_ms.min(LAST_DATE_MS));
    humantime::format_rfc3339_millis(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_may_have_a_prefix_and_lack_leading_zeros() {
        for (typed, meant) in [
            ("00c0600001000000", "00c0600001000000"),
            ("0x164578e98000000", "0164578e98000000"),
            ("164578E98000000", "0164578e98000000"),
            ("0XFFFFFFFFFFFFFFFF", "ffffffffffffffff"),
            ("1", "0000000000000001"),
        ] {
            assert_eq!(session(typed).as_deref(), Ok(meant), "{typed}");
        }
        for wrong in ["", "0x", "+1", "0x+1", "x1", "00c0600001000000f", "0x0x1", "one"] {
            assert!(session(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_session_that_is_away_has_not_ended() {
        let mut why = serde_json::json!({
            "session": "0000000000000001", "identity": "ada", "listener": "native",
            "address": "192.0.2.1:4711", "online": false, "suspect": false, "ends_in_ms": 25_000,
            "verdict": {
                "at_ms": 0, "cause": "peer_exited", "confidence": "high", "detail": "it exited",
                "last_heard_ago_ms": 0, "late_us": 0, "stretch_ms": 0, "lasted_ms": 20_000,
                "grounds": [], "advice": "", "provisional": true,
            },
            "timeline": [],
        });
        let lines = |why: &serde_json::Value| {
            serde_json::from_value::<Why>(why.clone()).unwrap().lines().concat()
        };
        let away = "away: the connection was lost, and 25.000 s are left to resume";
        assert!(lines(&why).contains(away), "{}", lines(&why));
        why.as_object_mut().unwrap().remove("ends_in_ms");
        assert!(!lines(&why).contains("away"));
    }

    #[test]
    fn any_number_can_be_a_date() {
        assert_eq!(date(0), "1970-01-01T00:00:00.000Z");
        for at_ms in [LAST_DATE_MS, LAST_DATE_MS + 1, 1 << 63, u64::MAX] {
            assert_eq!(date(at_ms), "9999-12-31T23:59:59.999Z");
        }
    }
}
