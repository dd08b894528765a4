//! Parses times on the command line: with units as in the configuration file, or plain seconds.

use std::time::Duration;

use systole_gateway::config::{SpanError, parse_span, show_span};

/// The longest time of a connection: a year, far below what a policy and a clock can hold.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// Parses a time of a connection: `500ms` and `1m 30s` have units; `10` and `0.5` are seconds.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    parse_within(text, LONGEST)
}

/// Parses a time as [`parse`] does, and refuses one longer than `longest`.
///
/// Arithmetic on times must not overflow, so each option states its limit here.
pub(crate) fn parse_within(text: &str, longest: Duration) -> Result<Duration, String> {
    let parsed = match text.parse::<f64>() {
        Ok(seconds) if seconds > longest.as_secs_f64() => None,
        Ok(seconds) => {
            Some(Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?)
        }
        Err(_) => match parse_span(text) {
            Ok(time) => Some(Duration::from(time)),
            Err(SpanError::TooLong) => None,
            Err(SpanError::Malformed) => {
                let expected = "a time such as 500ms, 10s or \"1m 30s\", or seconds such as 0.5";
                return Err(format!("expected {expected}"));
            }
            Err(error @ (SpanError::Unit(_) | SpanError::Order)) => return Err(error.to_string()),
        },
    };
    let limit = || format!("too long: at most {}", show_span(longest.into()));
    parsed.filter(|time| *time <= longest).ok_or_else(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_times_with_units_are_parsed() {
        let millis = |text| parse(text).map(|duration| duration.as_millis()).ok();
        assert_eq!(millis("10"), Some(10_000));
        assert_eq!(millis("0.5"), Some(500));
        assert_eq!(millis("500ms"), Some(500));
        assert_eq!(millis("1m 30s"), Some(90_000));
        assert!(parse("5M").unwrap_err().contains("minutes are `m`"));
        for wrong in ["", "-1", "ten", "10 parsecs", "5M", "1y", "30s 1m", "-inf", "NaN"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_above_the_limit_is_refused_as_too_long() {
        let day = Duration::from_secs(86_400);
        assert_eq!(parse_within("86400", day), Ok(day));
        assert_eq!(parse_within("24h", day), Ok(day));
        for long in ["86400.5", "1d 1ms", "99999999999999999999", "1e300", "inf", "9999999999d"] {
            assert_eq!(parse_within(long, day), Err("too long: at most 1d".to_owned()), "{long}");
        }
        // A number that even the parser of units cannot hold.
        assert_eq!(parse("99999999999999999999d"), Err("too long: at most 365d".to_owned()));
    }
}
