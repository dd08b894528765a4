//! Lengths of time as people write them, in the configuration file and on the command line.

use std::fmt;

use systole_core::Span;

/// The units, the largest first, in milliseconds. Months and years have no fixed length, and a
/// deadline has no use for units below a millisecond.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The start of other names of a unit, in lower case, and what to write instead.
const MEANT: [(&str, &str); 9] = [
    ("mil", "milliseconds are `ms`"),
    ("mse", "milliseconds are `ms`"),
    ("mo", "months have no fixed length: write days, `d`"),
    ("m", "minutes are `m`"),
    ("s", "seconds are `s`"),
    ("h", "hours are `h`"),
    ("d", "days are `d`"),
    ("w", "weeks are `7d`"),
    ("y", "years have no fixed length: write days, `d`"),
];

/// The reason why a text is no length of time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SpanError {
    /// The text is not a list of whole numbers with units.
    Malformed,
    /// A number has a unit that does not exist here.
    Unit(String),
    /// The units do not become smaller, as in `30s 1m`.
    Order,
    /// The length is beyond what a clock holds, some 584 years.
    TooLong,
}

impl fmt::Display for SpanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpanError::Malformed => {
                f.write_str("write whole numbers with a unit: 500ms, 10s, 1m 30s, 2h, 7d")
            }
            SpanError::Unit(unit) => {
                let lower = unit.to_lowercase();
                write!(f, "{unit:?} is no unit; there are ms, s, m, h and d")?;
                match MEANT.iter().find(|(start, _)| lower.starts_with(start)) {
                    Some((_, meant)) => write!(f, ": {meant}"),
                    None => Ok(()),
                }
            }
            SpanError::Order => f.write_str("write the largest unit first, and each once: 1m 30s"),
            SpanError::TooLong => f.write_str("it is longer than a clock can hold"),
        }
    }
}

impl std::error::Error for SpanError {}

/// Parses a length of time: whole numbers with the units `d`, `h`, `m`, `s` and `ms`, the largest
/// first, as in `1m 30s`. Spaces between them are optional.
///
/// # Errors
/// The text is something else. Other units are refused, because readers disagree about them: `5M`
/// is five minutes to one and five months to another.
pub fn parse_span(text: &str) -> Result<Span, SpanError> {
    let mut rest = text;
    let mut smaller = UNITS.as_slice();
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start_matches(' ');
        let letters = after.find(|c: char| !c.is_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        if number.is_empty() || unit.is_empty() {
            return Err(SpanError::Malformed);
        }
        let index = match smaller.iter().position(|(name, _)| *name == unit) {
            Some(index) => index,
            None if UNITS.iter().any(|(name, _)| *name == unit) => return Err(SpanError::Order),
            None => return Err(SpanError::Unit(unit.chars().take(LONGEST_UNIT).collect())),
        };
        let millis = number.parse::<u64>().ok().and_then(|n| n.checked_mul(smaller[index].1));
        total = millis.and_then(|millis| total.checked_add(millis)).ok_or(SpanError::TooLong)?;
        smaller = &smaller[index + 1..];
        rest = after.trim_start_matches(' ');
    }
    if text.is_empty() {
        return Err(SpanError::Malformed);
    }
    match total.checked_mul(1_000_000) {
        Some(nanos) => Ok(Span::from_nanos(nanos)),
        None => Err(SpanError::TooLong),
    }
}

/// Number of characters of a unit that an error repeats: "milliseconds" and a little more.
const LONGEST_UNIT: usize = 16;

/// Returns a length of time as [`parse_span`] reads it, such as `1m 30s`, in whole milliseconds.
pub fn show_span(span: Span) -> String {
    let mut rest = span.as_millis();
    let mut parts = Vec::new();
    for (unit, millis) in UNITS {
        if rest >= millis {
            parts.push(format!("{}{unit}", rest / millis));
            rest %= millis;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_survive_a_round_trip() {
        for millis in [0, 1, 500, 15_000, 90_000, 86_400_000, 90_061_001, 1 << 40] {
            let span = Span::from_millis(millis);
            assert_eq!(parse_span(&show_span(span)), Ok(span), "{millis}");
        }
        assert_eq!(show_span(Span::from_secs(90)), "1m 30s");
        assert_eq!(show_span(Span::from_secs(86_400)), "1d");
        assert_eq!(show_span(Span::from_micros(999)), "0s");
        for (text, millis) in [
            ("1m30s", 90_000),
            ("15 s", 15_000),
            ("1h  1ms", 3_600_001),
            ("007s", 7_000),
            ("90s", 90_000),
        ] {
            assert_eq!(parse_span(text), Ok(Span::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn units_are_the_documented_ones() {
        for (text, hint) in [
            ("5M", "\"M\" is no unit; there are ms, s, m, h and d: minutes are `m`"),
            ("5min", "minutes are `m`"),
            ("3months", "write days"),
            ("7msec", "milliseconds are `ms`"),
            ("7millis", "milliseconds are `ms`"),
            ("7Sec", "seconds are `s`"),
            ("1day", "days are `d`"),
            ("2H", "hours are `h`"),
            ("1w", "weeks are `7d`"),
            ("1y", "years have no fixed length"),
            ("10us", "\"us\" is no unit"),
            ("10µs", "\"µs\" is no unit"),
            ("10 parsecs", "\"parsecs\" is no unit"),
        ] {
            let error = parse_span(text).unwrap_err();
            assert!(matches!(error, SpanError::Unit(_)), "{text}");
            assert!(error.to_string().contains(hint), "{text}: {error}");
        }
        let long = parse_span(&format!("1{}", "x".repeat(100_000))).unwrap_err().to_string();
        assert!(long.len() < 100, "{long}");
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in ["", " ", "15", "s", "-1s", "+1s", "1.5s", "ever", " 1s", "1s,", "1m 30", "1s\n"]
        {
            assert_eq!(parse_span(bad), Err(SpanError::Malformed), "{bad:?}");
        }
        for bad in ["30s 1m", "1s 1s", "1ms 1s"] {
            assert_eq!(parse_span(bad), Err(SpanError::Order), "{bad}");
        }
        for bad in ["99999999999999999999s", "18446744073709551615s", "18446744073709551615ms"] {
            assert_eq!(parse_span(bad), Err(SpanError::TooLong), "{bad}");
        }
    }
}
