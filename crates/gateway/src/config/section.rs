//! A table of the file as it is read: what is taken from it is what is known, the rest is unknown.
//!
//! Because taking a key is what makes it known, the readers are the schema, and no list of keys can
//! disagree with them.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problems, nearest};

/// What all sections of one file share.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    pub(super) problems: Problems<'a>,
    /// Every key that was asked for, as in `listener.policy.idle`.
    pub(super) known: BTreeSet<String>,
}

/// One table being read; an absent one reads as empty.
#[derive(Debug)]
pub(super) struct Section<'a> {
    path: String,
    table: Option<&'a DeTable<'a>>,
    span: Option<Range<usize>>,
    taken: Vec<&'static str>,
}

/// A value with its place in the file.
#[derive(Clone, Debug)]
pub(super) struct Given<T> {
    pub(super) value: T,
    pub(super) span: Range<usize>,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn root(table: &'a DeTable<'a>) -> Section<'a> {
        Section { path: String::new(), table: Some(table), span: None, taken: Vec::new() }
    }

    /// The value of `key` if it is there and `convert` accepts it.
    ///
    /// `convert` answers with the value or with what would be right, to follow "must be".
    pub(super) fn take<T>(
        &mut self,
        reading: &mut Reading<'_>,
        key: &'static str,
        convert: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<Given<T>> {
        let found = self.find(reading, key)?;
        let span = found.span();
        match convert(found.get_ref()) {
            Ok(value) => Some(Given { value, span }),
            Err(right) => {
                let what = format!("`{key}` must be {right}");
                reading.problems.add(Some(span), what, None);
                None
            }
        }
    }

    /// The table under `key`.
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

    /// The tables under `key`, or `None` if there is no such key.
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

    /// Whether the file has this key, with whatever value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Where this table begins, if it stands in the file.
    pub(super) fn span(&self) -> Option<Range<usize>> {
        self.span.clone()
    }

    /// Ends the reading of this table: whatever was not taken is unknown.
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
    /// The value, or `default` if none was given.
    pub(super) fn or(given: Option<Given<T>>, default: T) -> T {
        given.map_or(default, |given| given.value)
    }
}
