//! Reads the named values of a request: the members of a JSON body, or the parameters of a query.
//!
//! The messages of a parser speak of its own types. These name the value that is wrong, and what it
//! must be.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use serde_json::Value;
use systole_core::wire::{MAX_CLOSE_TEXT, is_close_text};

use super::answer::Trouble;

/// The values of a request that were not taken yet.
pub(super) struct Fields {
    source: Source,
    values: BTreeMap<String, Value>,
    /// The ranges of the numbers of the type that is read.
    ranges: Vec<(&'static str, RangeInclusive<u64>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Body,
    Query,
}

/// A type that is read from the values of a request.
pub(super) trait FromFields: Sized {
    /// Returns the names of all values that there may be.
    fn names() -> Vec<&'static str>;

    /// Returns the ranges of the numbers among them. They are in the OpenAPI document too.
    fn ranges() -> Vec<(&'static str, RangeInclusive<u64>)> {
        Vec::new()
    }

    /// Takes the values.
    ///
    /// # Errors
    /// The answer to a request with a value that is missing or wrong.
    fn from_fields(fields: &mut Fields) -> Result<Self, Trouble>;
}

/// Two types of which each takes its own values.
impl<A: FromFields, B: FromFields> FromFields for (A, B) {
    fn names() -> Vec<&'static str> {
        [A::names(), B::names()].concat()
    }

    fn ranges() -> Vec<(&'static str, RangeInclusive<u64>)> {
        [A::ranges(), B::ranges()].concat()
    }

    fn from_fields(fields: &mut Fields) -> Result<(A, B), Trouble> {
        Ok((A::from_fields(fields)?, B::from_fields(fields)?))
    }
}

impl Fields {
    /// Reads the members of a JSON object. One that is null is as good as absent.
    pub(super) fn of_body(text: &[u8]) -> Result<Fields, Trouble> {
        let hint = "send an object such as {\"name\": 1}, or nothing";
        let value: Value = serde_json::from_slice(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let error = format!("the body is no JSON: line {line}, column {column}");
            Trouble::bad(error, hint)
        })?;
        let Value::Object(members) = value else {
            return Err(Trouble::bad("the body is JSON, but no object", hint));
        };
        let given = members.into_iter().filter(|(_, value)| !value.is_null());
        Ok(Fields { source: Source::Body, values: given.collect(), ranges: Vec::new() })
    }

    /// Takes the parameters of a query.
    pub(super) fn of_query(parameters: Vec<(String, String)>) -> Result<Fields, Trouble> {
        let mut values = BTreeMap::new();
        for (name, text) in parameters {
            if values.contains_key(&name) {
                let error = format!("`{name}` is given twice in the query");
                return Err(Trouble::bad(error, "give it once"));
            }
            values.insert(name, Value::String(text));
        }
        Ok(Fields { source: Source::Query, values, ranges: Vec::new() })
    }

    /// Reads a `T`, of which the request may have no other values.
    pub(super) fn read<T: FromFields>(mut self) -> Result<T, Trouble> {
        let names = T::names();
        if let Some(unknown) = self.values.keys().find(|name| !names.contains(&name.as_str())) {
            let place = match self.source {
                Source::Body => "body",
                Source::Query => "query",
            };
            let error = format!("there is no `{unknown}` in the {place} of this request");
            return Err(Trouble::bad(error, format!("there may be: {}", names.join(", "))));
        }
        self.ranges = T::ranges();
        T::from_fields(&mut self)
    }

    /// Takes a text.
    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Trouble> {
        self.take(name, "a text", |_, value| value.as_str().map(str::to_owned))
    }

    /// Takes a text for the people at a client, which a CLOSE carries.
    pub(super) fn close_text(&mut self, name: &str) -> Result<Option<String>, Trouble> {
        let what = format!("a text of at most {MAX_CLOSE_TEXT} bytes without control characters");
        self.take(name, &what, |_, value| {
            value.as_str().filter(|text| is_close_text(text)).map(str::to_owned)
        })
    }

    /// Takes a truth value.
    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, Trouble> {
        self.take(name, "true or false", |source, value| match (source, value.as_str()) {
            (Source::Query, Some("true")) => Some(true),
            (Source::Query, Some("false")) => Some(false),
            (Source::Query | Source::Body, _) => value.as_bool(),
        })
    }

    /// Takes a whole number in the range of this name.
    pub(super) fn number(&mut self, name: &str) -> Result<Option<u64>, Trouble> {
        let known = self.ranges.iter().find(|(known, _)| *known == name);
        let range = known.map_or(0..=u64::MAX, |(_, range)| range.clone());
        let what = format!("a whole number from {} to {}", range.start(), range.end());
        self.take(name, &what, |source, value| {
            let number = match (source, value.as_str()) {
                (Source::Query, Some(text)) => text.parse().ok(),
                (Source::Query | Source::Body, _) => value.as_u64(),
            };
            number.filter(|number| range.contains(number))
        })
    }

    /// Takes a list of at least one of the `known` words.
    pub(super) fn words(
        &mut self,
        name: &str,
        known: &[&'static str],
    ) -> Result<Option<Vec<&'static str>>, Trouble> {
        let what = format!("a list of at least one of {}", known.join(", "));
        self.take(name, &what, |_, value| {
            let find = |word: &Value| known.iter().find(|known| word == **known).copied();
            let words: Option<Vec<_>> = value.as_array()?.iter().map(find).collect();
            words.filter(|words| !words.is_empty())
        })
    }

    /// Takes an object, and reads a `T` from its members.
    pub(super) fn part<T: FromFields>(&mut self, name: &str) -> Result<Option<T>, Trouble> {
        let members = self.take(name, "an object", |_, value| value.as_object().cloned())?;
        let Some(members) = members else {
            return Ok(None);
        };
        let values = members.into_iter().filter(|(_, value)| !value.is_null()).collect();
        Fields { source: self.source, values, ranges: Vec::new() }.read().map(Some)
    }

    fn take<T>(
        &mut self,
        name: &str,
        what: &str,
        read: impl FnOnce(Source, &Value) -> Option<T>,
    ) -> Result<Option<T>, Trouble> {
        let Some(value) = self.values.remove(name) else {
            return Ok(None);
        };
        let hint = "GET /api/v1/openapi.json describes every value";
        let wrong = || Trouble::bad(format!("`{name}` must be {what}"), hint);
        read(self.source, &value).map(Some).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    struct Sample(Option<String>, Option<bool>, Option<u64>, Option<String>);

    impl FromFields for Sample {
        fn names() -> Vec<&'static str> {
            vec!["name", "on", "count", "text"]
        }

        fn ranges() -> Vec<(&'static str, RangeInclusive<u64>)> {
            vec![("count", 1..=9)]
        }

        fn from_fields(fields: &mut Fields) -> Result<Sample, Trouble> {
            let (name, on) = (fields.text("name")?, fields.flag("on")?);
            Ok(Sample(name, on, fields.number("count")?, fields.close_text("text")?))
        }
    }

    fn body(text: &str) -> Result<Sample, String> {
        let read = Fields::of_body(text.as_bytes()).and_then(Fields::read);
        read.map_err(|trouble| trouble.to_string())
    }

    fn query(parameters: &[(&str, &str)]) -> Result<Sample, String> {
        let owned = parameters.iter().map(|(name, text)| ((*name).into(), (*text).into()));
        let read = Fields::of_query(owned.collect()).and_then(Fields::read);
        read.map_err(|trouble| trouble.to_string())
    }

    #[test]
    fn values_are_read_and_null_is_as_good_as_absent() {
        let all = || Ok(Sample(Some("5".to_owned()), Some(true), Some(7), None));
        assert_eq!(body(r#"{"name": "5", "on": true, "count": 7}"#), all());
        assert_eq!(query(&[("name", "5"), ("on", "true"), ("count", "7")]), all());
        let none = || Ok(Sample(None, None, None, None));
        assert_eq!((body("{}"), query(&[])), (none(), none()));
        assert_eq!(body(r#"{"name": null, "on": null, "count": null}"#), none());
    }

    #[test]
    fn a_text_that_does_not_fit_into_a_close_is_refused() {
        let longest = "x".repeat(MAX_CLOSE_TEXT);
        let read = |text: &str| body(&serde_json::json!({ "text": text }).to_string());
        for text in [longest.as_str(), "see you \u{2014} soon", ""] {
            assert_eq!(read(text), Ok(Sample(None, None, None, Some(text.to_owned()))));
        }
        let expected = "`text` must be a text of at most 128 bytes without control characters";
        for text in [format!("{longest}x").as_str(), "two\nlines", "\u{85}"] {
            assert_eq!(read(text), Err(expected.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn wrong_values_are_named_in_plain_words() {
        for (text, expected) in [
            (r#"{"count": 10}"#, "`count` must be a whole number from 1 to 9"),
            (r#"{"count": "7"}"#, "`count` must be a whole number from 1 to 9"),
            (r#"{"count": 1.5}"#, "`count` must be a whole number from 1 to 9"),
            (r#"{"on": "true"}"#, "`on` must be true or false"),
            (r#"{"name": 5}"#, "`name` must be a text"),
            (r#"{"colour": 5}"#, "there is no `colour` in the body of this request"),
            ("[]", "the body is JSON, but no object"),
            ("{\n  \"on\": tru", "the body is no JSON: line 2, column 11"),
        ] {
            assert_eq!(body(text), Err(expected.to_owned()), "{text}");
        }
        for (parameters, expected) in [
            (&[("count", "x")][..], "`count` must be a whole number from 1 to 9"),
            (&[("on", "1")], "`on` must be true or false"),
            (&[("colour", "red")], "there is no `colour` in the query of this request"),
            (&[("on", "true"), ("on", "true")], "`on` is given twice in the query"),
        ] {
            assert_eq!(query(parameters), Err(expected.to_owned()));
        }
    }
}
