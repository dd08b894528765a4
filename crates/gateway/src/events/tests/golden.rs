//! The JSON and the log lines of every kind of event, which users rely on, compared with a file.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use systole_core::cause::{Cause, Confidence, Direction, Scope, Verdict};
use systole_core::diagnosis::{Ground, Grounds};
use systole_core::ledger::Note;
use systole_core::{Policy, Span, Time, session};
use tracing_subscriber::layer::SubscriberExt;

use super::{events, fact};
use crate::config::Log;
use crate::events::{Body, Event, Loss, OutageInfo, Revision};
use crate::logs::tests::Kept;
use crate::logs::{Lines, Logs};
use crate::report::{Fact, Parting, PauseReason};

/// The number of kinds of event; a new kind adds an example below.
const KINDS: usize = 17;

#[test]
fn every_event_has_the_json_and_the_log_line_of_the_golden_file() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/events/tests/golden.txt");
    let golden = std::fs::read_to_string(path).unwrap();
    let examples = examples();
    let kinds: BTreeSet<_> = examples.iter().map(|event| event.body.kind()).collect();
    assert_eq!(kinds.len(), KINDS, "{kinds:?}");
    let mut written = String::new();
    for event in &examples {
        written += &serde_json::to_string(event).unwrap();
        written += "\n";
        written += &log_lines(event);
    }
    assert!(written == golden, "the events are now:\n{written}");
    // Each line about a session says whose it is, and where it is from.
    for line in written.lines().filter(|line| line.contains("session=")) {
        let fields = ["session=", " identity=", " listener=", " address="];
        assert!(fields.iter().all(|field| line.contains(field)), "{line}");
    }
}

/// Returns one event of each kind, and two where a field may be absent.
fn examples() -> Vec<Arc<Event>> {
    let events = events(100);
    let mut examples: Vec<_> =
        session_events().into_iter().map(|event| events.publish(fact_of(event))).collect();
    let session = || events.names().session(fact(7, session::Event::Suspect).subject);
    let revision = Revision {
        from: "unknown",
        to: "middlebox_forgot",
        loss: Loss::new(Cause::MiddleboxForgot),
        confidence: Confidence::High.name(),
        detail: "a middlebox forgot the connection".into(),
        because: "neither end had closed".into(),
        advice: "shorten idle",
        idle_ms: Some(90_000),
        kept: Box::new((7, Cause::MiddleboxForgot, Confidence::High, Note::NewBoot)),
    };
    let outage = OutageInfo {
        outage: 1,
        network: Some("192.0.2.0/24".to_owned()),
        listener: Some("native".into()),
        affected: 9,
        of_online: 12,
        hosts: 4,
        returned: 3,
        recovered: true,
        began_ms: 60_000,
        last_ms: 61_000,
    };
    let ours = OutageInfo { network: None, listener: None, ..outage.clone() };
    let bodies = [
        Body::VerdictRevised { session: session(), revision },
        Body::Outage(outage.clone()),
        Body::Outage(ours),
        Body::OutageOver(outage),
        Body::Stalled { shard: 1, absent_ms: 900, suspended_ms: 40 },
        events.names().paused(1, PauseReason::LinkLimit),
        events.names().paused(1, PauseReason::HostLimit),
        Body::AcceptingResumed { shard: 1 },
    ];
    examples.extend(bodies.into_iter().map(|body| events.publish_body(60_000, body)));
    examples
}

#[test]
fn the_json_names_an_event_of_a_session_as_the_vocabulary_does() {
    let events = events(100);
    for event in session_events() {
        assert_eq!(events.publish(fact_of(event)).body.kind(), event.name());
    }
}

/// Returns the fact of `event`; every link lasted as long.
fn fact_of(event: session::Event) -> Fact {
    let parting = Parting { lasted: Span::from_secs(20), ..Parting::default() };
    Fact { parting, ..fact(7, event) }
}

fn session_events() -> Vec<session::Event> {
    let grounds = Grounds::of(&[Ground::KernelSilent, Ground::BytesAcknowledged]);
    let (cause, confidence) = (Cause::Unreachable, Confidence::High);
    let verdict = Verdict {
        cause: Cause::PathLost { direction: Direction::Outbound, scope: Scope::Flow },
        confidence,
        at: Time::from_millis(50_007),
        due: Time::from_millis(50_000),
        stretch: Span::ZERO,
        last_heard: Time::from_millis(20_000),
        probes: 3,
        grounds,
    };
    let early = Verdict {
        cause: Cause::NotReading,
        due: Time::from_millis(52_507),
        grounds: Grounds::of(&[Ground::WindowClosed, Ground::KernelGaveUp]),
        ..verdict
    };
    vec![
        session::Event::Joined { policy: Policy::default(), account: None },
        session::Event::Suspect,
        session::Event::Warned { cause, confidence, grounds },
        session::Event::Recovered,
        session::Event::Hung { cause: Cause::AppHung, until: Time::from_millis(60_000) },
        session::Event::Overdue { due: Time::from_millis(50_000) },
        session::Event::Retuned(Policy::demanding()),
        session::Event::Retuned(Policy::never()),
        session::Event::Moved { from: ([192, 0, 2, 9], 4_711).into() },
        session::Event::Away { verdict, until: verdict.at + Span::from_secs(30) },
        session::Event::Resumed { account: None, gap: 2, redelivered: 3 },
        session::Event::Left(verdict),
        session::Event::Left(early),
    ]
}

/// Returns the lines that `event` leaves in the log, as JSON and for people, without the time.
fn log_lines(event: &Event) -> String {
    let json = log_line(event, Lines::Json);
    let (time, rest) = json.split_once(",\"").unwrap();
    assert!(time.starts_with("{\"timestamp\":"), "{json}");
    let human = log_line(event, Lines::Human { colours: false });
    let (time, pairs) = human.split_once(' ').unwrap();
    assert!(time.starts_with("time="), "{human}");
    format!("{{\"{rest}{pairs}")
}

/// Returns the line that `event` leaves in the log.
fn log_line(event: &Event, lines: Lines) -> String {
    let kept = Kept::default();
    let subscriber = tracing_subscriber::registry().with(lines.layer(kept.clone()));
    let logs = Logs::detached(&Log::default());
    tracing::subscriber::with_default(subscriber, || logs.event(event));
    kept.text()
}
