//! The two formats of a line: logfmt for people, and JSON for programs.
//!
//! Text from outside stands in both. It is escaped here, whatever was checked before: a log must
//! not be forged, nor a terminal controlled.

use std::fmt::{self, Debug, Write};

use systole_core::text::{Escaped, Quoted, is_harmful};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{self as lines, FmtContext, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

/// The format of the lines of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lines {
    /// Logfmt, with or without colours.
    Human {
        /// Whether the terminal shows colours.
        colours: bool,
    },
    /// JSON.
    Json,
}

impl Lines {
    /// Returns the layer that writes lines in this format.
    pub(crate) fn layer<S, W>(self, writer: W) -> Box<dyn Layer<S> + Send + Sync>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
        W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    {
        // An error while a line is made would be printed to stderr, and could block.
        let layer = lines::layer().with_writer(writer).log_internal_errors(false);
        match self {
            Lines::Human { colours } => layer.with_ansi(colours).event_format(Logfmt).boxed(),
            Lines::Json => {
                let json = lines::format().json().flatten_event(true).with_target(false);
                layer.event_format(EscapedJson(json)).fmt_fields(JsonFields::new()).boxed()
            }
        }
    }
}

/// Makes lines such as `time=… level=INFO msg="accepting again" shard=0`.
struct Logfmt;

impl<S, N> FormatEvent<S, N> for Logfmt
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut pairs = Pairs { colours: out.has_ansi_escapes(), ..Pairs::default() };
        event.record(&mut pairs);
        pairs.key(&mut out, "time")?;
        SystemTime.format_time(&mut out)?;
        let level = event.metadata().level();
        out.write_char(' ')?;
        pairs.key(&mut out, "level")?;
        match pairs.colours {
            true => write!(out, "\x1b[{}m{level}\x1b[0m", colour(level))?,
            false => write!(out, "{level}")?,
        }
        out.write_char(' ')?;
        pairs.key(&mut out, "msg")?;
        out.write_str(&pairs.message)?;
        out.write_str(&pairs.others)?;
        out.write_char('\n')
    }
}

/// Returns the colour of a level, as a terminal understands it.
fn colour(level: &Level) -> u8 {
    match *level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

/// The fields of an event: the value of its message, and ` key=value` for each other one.
#[derive(Default)]
struct Pairs {
    message: String,
    others: String,
    colours: bool,
}

impl Pairs {
    /// Writes `name=`.
    fn key(&self, out: &mut impl Write, name: &str) -> fmt::Result {
        match self.colours {
            true => write!(out, "\x1b[2m{name}=\x1b[0m"),
            false => write!(out, "{name}="),
        }
    }

    fn add(&mut self, field: &Field, value: &str) {
        // A write to a string cannot fail.
        let _ = match field.name() {
            "message" => value_of(value, &mut self.message),
            name => {
                let mut others = std::mem::take(&mut self.others);
                others.push(' ');
                let written =
                    self.key(&mut others, name).and_then(|()| value_of(value, &mut others));
                self.others = others;
                written
            }
        };
    }
}

impl Visit for Pairs {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.add(field, &format!("{value:?}"));
    }
}

/// Writes a value, in quotes if it would not stand alone.
fn value_of(text: &str, out: &mut String) -> fmt::Result {
    let ends = |character: char| {
        character.is_whitespace() || matches!(character, '=' | '"' | '\\') || is_harmful(character)
    };
    if text.is_empty() || text.contains(ends) {
        return write!(out, "{}", Quoted(text));
    }
    out.push_str(text);
    Ok(())
}

/// Makes the lines of another format of JSON, which escapes only what JSON demands.
struct EscapedJson<F>(F);

impl<S, N, F> FormatEvent<S, N> for EscapedJson<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        write!(out, "{}", Escaped::lines(&line))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::Value;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::logs::tests::Kept;

    /// Returns what `log` writes in a format.
    fn written(lines: Lines, log: impl FnOnce()) -> String {
        let kept = Kept::default();
        let subscriber = tracing_subscriber::registry().with(lines.layer(kept.clone()));
        tracing::subscriber::with_default(subscriber, log);
        kept.text()
    }

    /// Reads a line of logfmt as strictly as possible: pairs with one space between them, and in a
    /// value without quotes neither space, quote, equals sign nor control character.
    pub(crate) fn pairs(line: &str) -> BTreeMap<String, String> {
        let mut pairs = BTreeMap::new();
        let mut rest = line;
        while !rest.is_empty() {
            let (key, value) = rest.split_once('=').expect(line);
            assert!(key.chars().all(|it| it.is_ascii_alphanumeric() || it == '_'), "{line}");
            let end = if value.starts_with('"') {
                let mut strings = serde_json::Deserializer::from_str(value).into_iter::<Value>();
                strings.next().expect(line).expect(line);
                strings.byte_offset()
            } else {
                value.find(' ').unwrap_or(value.len())
            };
            let (value, after) = value.split_at(end);
            let text = match value.starts_with('"') {
                true => serde_json::from_str::<String>(value).expect(line),
                false => value.to_owned(),
            };
            assert!(!value.is_empty() && !value.chars().any(is_harmful), "{line}");
            assert!(pairs.insert(key.to_owned(), text).is_none(), "{key} twice: {line}");
            rest = after.strip_prefix(' ').unwrap_or(after);
            assert!(after.is_empty() || rest.len() + 1 == after.len(), "{line}");
        }
        pairs
    }

    /// Texts that would forge a line, control a terminal, or need quotes.
    const TEXTS: [&str; 12] = [
        "ada",
        "",
        "idle 15.000 s, interval 5.000 s",
        "a=b",
        "say \"hello\"",
        "C:\\n",
        "x\nINFO join identity=root",
        "\u{1b}[2J\u{7}",
        "\u{9b}31m",
        "\u{202e}gnp.exe",
        "\u{2066}\u{200f}",
        "grüße\u{a0}عربى",
    ];

    #[test]
    fn a_human_line_is_logfmt_and_holds_the_text_unchanged_whatever_it_is() {
        for text in TEXTS {
            let log = || tracing::info!(text, shown = %text, number = -7, is = true, "{text}");
            let line = written(Lines::Human { colours: false }, log);
            let line = line.strip_suffix('\n').unwrap();
            assert!(!line.contains('\n'), "{line}");
            let pairs = pairs(line);
            for (key, value) in
                [("text", text), ("shown", text), ("msg", text), ("number", "-7"), ("is", "true")]
            {
                assert_eq!(pairs[key], value, "{line}");
            }
            assert_eq!(pairs["level"], "INFO");
            assert!(pairs["time"].ends_with('Z'), "{line}");
            assert_eq!(pairs.len(), 7, "{line}");
        }
        let plain = written(Lines::Human { colours: false }, || tracing::warn!(a = "b", "again"));
        assert!(plain.ends_with(" level=WARN msg=again a=b\n"), "{plain}");
        let line = written(Lines::Human { colours: true }, || tracing::warn!(a = "\x1b", "x"));
        assert!(line.ends_with("\x1b[2ma=\x1b[0m\"\\u001b\"\n"), "{line:?}");
    }

    #[test]
    fn a_json_line_holds_the_text_unchanged_and_nothing_harmful() {
        for text in TEXTS {
            let line = written(Lines::Json, || tracing::info!(text, shown = %text, "{text}"));
            let json = line.strip_suffix('\n').unwrap();
            assert!(!json.chars().any(is_harmful), "{line:?}");
            let value: Value = serde_json::from_str(json).unwrap();
            for key in ["text", "shown", "message"] {
                assert_eq!(value[key], text, "{line}");
            }
        }
    }
}
