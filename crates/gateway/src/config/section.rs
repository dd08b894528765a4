//! Reads a table of the file: keys that a reader takes are known, all other keys are refused.
//!
//! The readers are the schema, so there is no separate list of keys that could disagree with them.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problems, nearest};
use super::value::Refused;

/// The state shared by all sections while a file is read.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    pub(super) problems: Problems<'a>,
    /// Every key that a reader takes, such as `listener.policy.idle`.
    pub(super) known: BTreeSet<String>,
}

/// A table that is being read; an absent table is read as an empty one.
#[derive(Debug)]
pub(super) struct Section<'a> {
    path: String,
    table: Option<&'a DeTable<'a>>,
    span: Option<Range<usize>>,
    taken: Vec<&'static str>,
}

/// A value that the file gives, with its place.
#[derive(Clone, Debug)]
pub(super) struct Given<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

impl<'a> Section<'a> {
    /// Starts to read the top level of the file.
    pub(super) fn root(table: &'a DeTable<'a>) -> Section<'a> {
        Section { path: String::new(), table: Some(table), span: None, taken: Vec::new() }
    }

    /// Takes the value of `key`, if present and accepted by `convert`.
    ///
    /// The error of `convert` describes a legal value and follows the words "must be".
    pub(super) fn take<T, E: Into<Refused>>(
        &mut self,
        reading: &mut Reading<'_>,
        key: &'static str,
        convert: impl FnOnce(&DeValue<'_>) -> Result<T, E>,
    ) -> Option<Given<T>> {
        let found = self.find(reading, key)?;
        let span = found.span();
        match convert(found.get_ref()) {
            Ok(value) => Some(Given { value, span }),
            Err(refused) => {
                let Refused { right, hint } = refused.into();
                let what = format!("`{key}` must be {right}");
                reading.problems.add(Some(span), what, hint);
                None
            }
        }
    }

    /// Takes the table under `key`.
    pub(super) fn section(&mut self, reading: &mut Reading<'_>, key: &'static str) -> Section<'a> {
        let path = self.path_of(key);
        let found = self.find(reading, key);
        let mut section = Section { path, table: None, span: None, taken: Vec::new() };
        if let Some(found) = found {
            section.span = Some(found.span());
            match found.get_ref().as_table() {
                Some(table) => section.table = Some(table),
                None => {
                    let what = format!("`{key}` must be a table");
                    let help = Some(format!("write [{}] and its settings below", section.path));
                    reading.problems.add(section.span.clone(), what, help);
                }
            }
        }
        section
    }

    /// Takes the list of tables under `key`; returns `None` if the key is absent.
    pub(super) fn sections(
        &mut self,
        reading: &mut Reading<'_>,
        key: &'static str,
    ) -> Option<Vec<Section<'a>>> {
        let path = self.path_of(key);
        let found = self.find(reading, key)?;
        let tables: Option<Vec<_>> = found.get_ref().as_array().and_then(|array| {
            array.iter().map(|entry| Some((entry.get_ref().as_table()?, entry.span()))).collect()
        });
        let Some(tables) = tables else {
            let what = format!("`{key}` must be a list of tables");
            let help = Some(format!("write [[{path}]] and its settings below, once for each"));
            reading.problems.add(Some(found.span()), what, help);
            return Some(Vec::new());
        };
        let sections = tables.into_iter().map(|(table, span)| Section {
            path: path.clone(),
            table: Some(table),
            span: Some(span),
            taken: Vec::new(),
        });
        Some(sections.collect())
    }

    /// Returns whether the table has this key, with a legal value or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Returns the place of this table; `None` if the table is absent.
    pub(super) fn span(&self) -> Option<Range<usize>> {
        self.span.clone()
    }

    /// Finishes the table: refuses all keys that were not taken.
    pub(super) fn finish(self, reading: &mut Reading<'_>) {
        for (key, _) in self.table.into_iter().flatten() {
            let name: &str = key.get_ref();
            if self.taken.contains(&name) {
                continue;
            }
            let section = match self.path.as_str() {
                "" => "at the top of the file".to_owned(),
                path => format!("in [{path}]"),
            };
            let help = match nearest(name, &self.taken) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("{section} there may be: {}", self.taken.join(", ")),
            };
            let what = format!("unknown setting `{name}`");
            reading.problems.add(Some(key.span()), what, Some(help));
        }
    }

    fn find(
        &mut self,
        reading: &mut Reading<'_>,
        key: &'static str,
    ) -> Option<&'a Spanned<DeValue<'a>>> {
        reading.known.insert(self.path_of(key));
        self.taken.push(key);
        self.table?.get(key)
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

impl<T> Given<T> {
    /// Returns the value, or `default` if none was given.
    pub(super) fn or(given: Option<Given<T>>, default: T) -> T {
        given.map_or(default, |given| given.value)
    }
}
