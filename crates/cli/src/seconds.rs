//! Parses times on the command line: plain seconds, or with units.

use std::time::Duration;

/// Parses a time: `10` and `0.5` are seconds; `500ms` and `1m 30s` have units.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string());
    }
    let expected = "seconds such as 10 or 0.5, or a time such as 500ms or \"1m 30s\"";
    humantime::parse_duration(text).map_err(|_| format!("expected {expected}"))
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
        for wrong in ["", "-1", "ten", "10 parsecs", "inf", "NaN"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
