//! Reads `shards`, `hung` and the small tables `[limits]`, `[drain]` and `[log]`.

use std::fmt;
use std::num::NonZeroU64;
use std::num::NonZeroUsize;
use std::str::FromStr;

use systole_core::Span;
use systole_core::hub::{AWAY_SESSIONS, FRAME_MEMORY, WINDOW_MEMORY};
use systole_core::link::Hung;
use systole_net::listener::MAX_SHARDS;
use toml::de::DeValue;

use super::section::{Given, Reading, Section};
use super::value::{self, Refused};
use crate::verdicts::VERDICTS;

/// The number of data-plane threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Shards {
    /// One per core that this process may use. More threads would share the cores.
    #[default]
    Auto,
    /// A fixed number, 1 to 256. Fewer leave cores to other programs; one makes a run easier to
    /// follow.
    Exactly(NonZeroUsize),
}

/// The logic that answers data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Logic {
    /// Echoes data, so that a gateway without a logic server does something visible.
    #[default]
    Echo,
    /// Counts and drops data.
    None,
}

/// Reads what happens to a hung peer at the bound: `"end"`, or how long it is kept.
pub(super) fn hung(value: &DeValue<'_>) -> Result<Hung, Refused> {
    if value::text(value).as_deref() == Ok("end") {
        return Ok(Hung::End);
    }
    let kept = value::span(Span::from_secs(1)..=Span::from_secs(86_400))(value);
    kept.map(Hung::Keep).map_err(|refused| refused.or("\"end\""))
}

/// The limits of the gateway. Each trades memory against what is lost when it is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Maximum of open links; `None` uses what the descriptor limit allows. When reached, accepting
    /// pauses until a link ends.
    pub max_links: Option<NonZeroU64>,
    /// Maximum of bytes that wait to be sent on one link. A larger outbox tolerates slow readers
    /// longer, but each of them takes that memory. A link that exceeds it ends as a slow consumer,
    /// unless its session has a window, which is its limit then.
    pub outbox: u64,
    /// Maximum memory of the bytes that wait to be sent on all links together. Beyond it the link
    /// with the largest outbox ends as a slow consumer. More tolerates more slow readers at once.
    pub outbox_total: u64,
    /// Maximum memory of the frames that have arrived in part, of all links together. Beyond it
    /// the link with the oldest one ends. More tolerates more slow senders at once.
    pub incomplete_frames: u64,
    /// Maximum memory of the messages that wait for the acknowledgements of all clients together.
    /// Beyond it the link that keeps most ends as a slow consumer. More tolerates more clients that
    /// take nothing.
    pub windows: u64,
    /// Maximum of sessions that are away, without a link. Beyond it the oldest ends of the address
    /// that has most of them. More bridge an outage of more clients, at some 500 bytes each, beside
    /// their messages.
    pub away: u64,
    /// Number of presence events kept for subscribers that reconnect. More events allow a longer
    /// absence; after a longer one the subscriber gets a new snapshot.
    pub events: u64,
    /// Maximum of subscribers to the event stream. When reached, a further one takes the place of
    /// one that does not read or was served for a minute, or is refused.
    pub sse_subscribers: u64,
    /// Number of verdicts kept on sessions that have ended, for presence and for questions why.
    /// Each takes up to 800 bytes; more of them answer for longer.
    pub verdicts: u64,
}

/// How the gateway drains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Drain {
    /// Time limit of a drain; links still open then are closed. A longer limit loses less data of
    /// slow readers, but delays the restart.
    pub limit: Span,
    /// Time over which the reconnections of clients are spread. A longer time means fewer
    /// reconnections per second, but keeps clients offline longer.
    pub reconnect_within: Span,
}

/// What is logged, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Log {
    /// The least important level that is logged.
    pub level: Level,
    /// The format of a log line.
    pub format: Format,
    /// Whether each heartbeat is logged; there are far more of them than of all other lines.
    pub heartbeats: bool,
}

/// The importance of a log line.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Something failed.
    Error,
    /// Something may fail soon.
    Warn,
    /// Normal operation, for operators.
    Info,
    /// Details for developers.
    Debug,
    /// Everything.
    Trace,
}

/// The format of a log line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// Human on a terminal, JSON otherwise.
    Auto,
    /// Text for people.
    Human,
    /// One JSON object per line.
    Json,
}

/// Names of the kinds of logic in the file.
const LOGICS: [(&str, Logic); 2] = [("echo", Logic::Echo), ("none", Logic::None)];

/// Names of the log levels in the file and on the command line.
pub const LEVELS: [(&str, Level); 5] = [
    ("error", Level::Error),
    ("warn", Level::Warn),
    ("info", Level::Info),
    ("debug", Level::Debug),
    ("trace", Level::Trace),
];

/// Names of the log formats in the file and on the command line.
pub const FORMATS: [(&str, Format); 3] =
    [("auto", Format::Auto), ("human", Format::Human), ("json", Format::Json)];

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_links: None,
            outbox: 256 << 10,
            // A thousand links with a full outbox.
            outbox_total: 256 << 20,
            incomplete_frames: FRAME_MEMORY as u64,
            windows: WINDOW_MEMORY as u64,
            away: AWAY_SESSIONS.into(),
            events: 1_024,
            sse_subscribers: 64,
            verdicts: VERDICTS as u64,
        }
    }
}

impl Default for Drain {
    fn default() -> Drain {
        Drain { limit: Span::from_secs(30), reconnect_within: Span::from_secs(10) }
    }
}

impl Default for Log {
    fn default() -> Log {
        Log { level: Level::Info, format: Format::Auto, heartbeats: false }
    }
}

impl FromStr for Shards {
    type Err = String;
    fn from_str(text: &str) -> Result<Shards, String> {
        if text == "auto" {
            return Ok(Shards::Auto);
        }
        let number = text.parse::<usize>().ok().filter(|number| *number <= MAX_SHARDS);
        number
            .and_then(NonZeroUsize::new)
            .map(Shards::Exactly)
            .ok_or_else(|| format!("\"auto\" or a number from 1 to {MAX_SHARDS}"))
    }
}

impl fmt::Display for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shards::Auto => f.write_str("auto"),
            Shards::Exactly(number) => number.fmt(f),
        }
    }
}

impl FromStr for Logic {
    type Err = String;
    fn from_str(name: &str) -> Result<Logic, String> {
        value::choose(name, &LOGICS)
    }
}

impl FromStr for Level {
    type Err = String;
    fn from_str(name: &str) -> Result<Level, String> {
        value::choose(name, &LEVELS)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(value::name_of(self, &LEVELS))
    }
}

impl FromStr for Format {
    type Err = String;
    fn from_str(name: &str) -> Result<Format, String> {
        value::choose(name, &FORMATS)
    }
}

/// Reads the number of shards, a number or "auto".
pub(super) fn read_shards(reading: &mut Reading<'_>, root: &mut Section<'_>) -> Shards {
    let given = root.take(reading, "shards", |value| match value::parse_integer(value) {
        Some(number) => number.to_string().parse(),
        // A number in quotes is refused, as in every other setting.
        None if value.as_str() == Some("auto") => Ok(Shards::Auto),
        None => "".parse(),
    });
    Given::or(given, Shards::default())
}

/// Reads `[limits]`.
pub(super) fn read_limits(reading: &mut Reading<'_>, mut section: Section<'_>) -> Limits {
    let default = Limits::default();
    let max_links = section.take(reading, "max_links", |value| match value.as_str() {
        Some("auto") => Ok(None),
        _ => value::integer(1..=100_000_000)(value)
            .map(NonZeroU64::new)
            .map_err(|right| format!("\"auto\", or {right}")),
    });
    let outbox = section.take(reading, "outbox", value::bytes(4 << 10..=1 << 30));
    let total = section.take(reading, "outbox_total", value::bytes(1 << 20..=1 << 40));
    // A share of at least two of the longest frames for each of 256 shards.
    let frames = section.take(reading, "incomplete_frames", value::bytes(33 << 20..=1 << 40));
    let windows = section.take(reading, "windows", value::bytes(1 << 20..=1 << 40));
    let away = section.take(reading, "away", value::integer(1..=100_000_000));
    let events = section.take(reading, "events", value::integer(1..=100_000_000));
    let subscribers = section.take(reading, "sse_subscribers", value::integer(1..=10_000));
    let verdicts = section.take(reading, "verdicts", value::integer(1..=1_000_000));
    section.finish(reading);
    Limits {
        max_links: Given::or(max_links, default.max_links),
        outbox: Given::or(outbox, default.outbox),
        outbox_total: Given::or(total, default.outbox_total),
        incomplete_frames: Given::or(frames, default.incomplete_frames),
        windows: Given::or(windows, default.windows),
        away: Given::or(away, default.away),
        events: Given::or(events, default.events),
        sse_subscribers: Given::or(subscribers, default.sse_subscribers),
        verdicts: Given::or(verdicts, default.verdicts),
    }
}

/// Reads `[drain]`.
pub(super) fn read_drain(reading: &mut Reading<'_>, mut section: Section<'_>) -> Drain {
    let default = Drain::default();
    // At most a day: no planned restart takes longer.
    let lengths = || value::span(Span::ZERO..=Span::from_secs(86_400));
    let limit = section.take(reading, "limit", lengths());
    let reconnect_within = section.take(reading, "reconnect_within", lengths());
    section.finish(reading);
    Drain {
        limit: Given::or(limit, default.limit),
        reconnect_within: Given::or(reconnect_within, default.reconnect_within),
    }
}

/// Reads `[log]`.
pub(super) fn read_log(reading: &mut Reading<'_>, mut section: Section<'_>) -> Log {
    let default = Log::default();
    let level = section.take(reading, "level", value::parsed);
    let format = section.take(reading, "format", value::parsed);
    let heartbeats = section.take(reading, "heartbeats", value::boolean);
    section.finish(reading);
    Log {
        level: Given::or(level, default.level),
        format: Given::or(format, default.format),
        heartbeats: Given::or(heartbeats, default.heartbeats),
    }
}
