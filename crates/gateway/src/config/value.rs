//! Converts TOML values to typed ones. Each error describes a legal value and follows "must be".

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

use systole_core::Span;
use systole_core::policy::MAX_BOUND;
use toml::de::DeValue;

use super::address::listen_address;
use super::span::{parse_span, show_span};

/// The reason why a value was refused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refused {
    /// What a legal value is; follows the words "must be".
    pub(super) right: String,
    /// What is wrong with this one, if that is known.
    pub(super) hint: Option<String>,
}

impl From<String> for Refused {
    fn from(right: String) -> Refused {
        Refused { right, hint: None }
    }
}

impl Refused {
    /// Adds another legal value, before the others.
    pub(super) fn or(self, other: &str) -> Refused {
        Refused { right: format!("{other}, or {}", self.right), ..self }
    }
}

/// Reads a length of time such as "15s", within `range`. The error leaves out an upper limit of
/// [`MAX_BOUND`], some 34 years, which nobody means to exceed.
pub(super) fn span(
    range: RangeInclusive<Span>,
) -> impl FnOnce(&DeValue<'_>) -> Result<Span, Refused> {
    move |value| {
        let given = value.as_str().map(parse_span);
        let hint = given.as_ref().and_then(|given| given.as_ref().err()).map(ToString::to_string);
        match given {
            Some(Ok(span)) if range.contains(&span) => Ok(span),
            Some(_) | None => {
                let least = show_span(*range.start());
                let longest = match *range.end() {
                    MAX_BOUND => String::new(),
                    most => format!(" to \"{}\"", show_span(most)),
                };
                let right =
                    format!("a length of time in quotes with its unit, from \"{least}\"{longest}");
                Err(Refused { right, hint })
            }
        }
    }
}

/// Reads a whole number within `range`.
pub(super) fn integer(
    range: RangeInclusive<u64>,
) -> impl FnOnce(&DeValue<'_>) -> Result<u64, String> {
    move |value| {
        parse_integer(value)
            .filter(|number| range.contains(number))
            .ok_or_else(|| format!("a whole number from {} to {}", range.start(), range.end()))
    }
}

/// Reads a number of bytes within `range`, such as 4096 or "256KiB".
pub(super) fn bytes(
    range: RangeInclusive<u64>,
) -> impl FnOnce(&DeValue<'_>) -> Result<u64, String> {
    move |value| {
        let given = parse_integer(value).or_else(|| value.as_str().and_then(parse_bytes));
        given.filter(|bytes| range.contains(bytes)).ok_or_else(|| {
            let (least, most) = (show_bytes(*range.start()), show_bytes(*range.end()));
            format!("a number of bytes such as 4096 or \"64KiB\", from {least} to {most}")
        })
    }
}

/// Returns a number of bytes as written in the file, such as `256KiB`.
pub(super) fn show_bytes(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.iter().find(|(bits, _)| bytes > 0 && bytes.is_multiple_of(1 << bits)) {
        Some((bits, unit)) => format!("{}{unit}", bytes >> bits),
        None => bytes.to_string(),
    }
}

/// Reads `true` or `false`.
pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| "true or false, without quotes".to_owned())
}

/// Reads a string.
pub(super) fn text(value: &DeValue<'_>) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| "a text in quotes".to_owned())
}

/// Reads an address to listen at.
pub(super) fn address(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    // A value of another type gets the error of an empty text.
    listen_address(value.as_str().unwrap_or_default())
}

/// Reads a type whose `FromStr` error describes a legal value.
pub(super) fn parsed<T: FromStr<Err: Display>>(value: &DeValue<'_>) -> Result<T, String> {
    text(value)?.parse().map_err(|right: T::Err| right.to_string())
}

/// Reads the name of one of the values in `choices`.
pub(super) fn chosen<'a, T: Copy>(
    choices: &'a [(&str, T)],
) -> impl FnOnce(&DeValue<'_>) -> Result<T, String> + 'a {
    move |value| choose(&text(value)?, choices)
}

/// Returns the value with this name in `choices`; the error lists the names.
pub(super) fn choose<T: Copy>(name: &str, choices: &[(&str, T)]) -> Result<T, String> {
    choices.iter().find(|(known, _)| *known == name).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        match names.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            Some(_) | None => names.concat(),
        }
    })
}

/// Returns the name of `value` in `choices`, or an empty string if there is none.
pub(super) fn name_of<T: PartialEq>(value: &T, choices: &[(&'static str, T)]) -> &'static str {
    choices.iter().find(|(_, known)| known == value).map_or("", |(name, _)| name)
}

pub(super) fn parse_integer(value: &DeValue<'_>) -> Option<u64> {
    let integer = value.as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_counts_survive_a_round_trip() {
        for bytes in [0, 1, 1_000, 1_024, 65_536, 65_537, 3 << 20, 5 << 30] {
            assert_eq!(parse_bytes(&show_bytes(bytes)), Some(bytes));
        }
        assert_eq!(parse_bytes("64 KiB"), Some(65_536));
        for bad in ["", "KiB", "1 kB", "-1", "1.5MiB", "99999999999GiB"] {
            assert_eq!(parse_bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn errors_list_the_choices() {
        let choices = [("auto", 0), ("human", 1), ("json", 2)];
        assert_eq!(choose("json", &choices), Ok(2));
        assert_eq!(choose("xml", &choices).unwrap_err(), "\"auto\", \"human\" or \"json\"");
        assert_eq!(name_of(&1, &choices), "human");
    }
}
