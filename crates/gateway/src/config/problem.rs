//! Problems of a configuration: what is wrong, where, and the correction.

use std::fmt;
use std::ops::Range;

/// The problems of a configuration that was refused, in the order of the file.
///
/// The author of the file must correct them; nothing was changed or started. All problems are
/// reported at once, so that one round of corrections is enough.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

/// A problem of a configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// What is wrong, as a sentence without a full stop.
    pub what: String,
    /// How to correct it.
    pub help: Option<String>,
    /// Its place; `None` if it is not in the file.
    pub place: Option<SourceSpan>,
}

/// A place in a configuration file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceSpan {
    /// The path of the file, as the caller wrote it.
    pub path: String,
    /// Line number, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Number of characters at this place, at least 1.
    pub width: usize,
    /// The text of that line; empty if it may hold a secret.
    pub source: String,
}

impl ConfigError {
    /// Returns all problems; at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Creates an error of one problem that is not in the file.
    pub(super) fn single(what: String, help: Option<String>) -> ConfigError {
        ConfigError { problems: vec![Problem { what, help, place: None }] }
    }
}

/// A collector of problems while a file is read.
#[derive(Debug)]
pub(super) struct Problems<'a> {
    path: &'a str,
    text: &'a str,
    found: Vec<(usize, Problem)>,
}

impl<'a> Problems<'a> {
    pub(super) fn new(path: &'a str, text: &'a str) -> Problems<'a> {
        Problems { path, text, found: Vec::new() }
    }

    /// Adds a problem at a range of bytes of the file, or at no place in it.
    pub(super) fn add(&mut self, at: Option<Range<usize>>, what: String, help: Option<String>) {
        // Problems without a place come last.
        let order = at.as_ref().map_or(usize::MAX, |at| at.start);
        let place = at.map(|at| place(self.path, self.text, at));
        self.found.push((order, Problem { what, help, place }));
    }

    /// Returns the problems as an error, if there are any.
    pub(super) fn into_result(mut self) -> Result<(), ConfigError> {
        if self.found.is_empty() {
            return Ok(());
        }
        self.found.sort_by_key(|(order, _)| *order);
        Err(ConfigError { problems: self.found.into_iter().map(|(_, problem)| problem).collect() })
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let margin = match &self.place {
            None => {
                writeln!(f, "{}", self.what)?;
                0
            }
            Some(place) => {
                writeln!(f, "{}:{}:{}: {}", place.path, place.line, place.column, self.what)?;
                let margin = place.line.to_string().len();
                if !place.source.is_empty() {
                    let carets = "^".repeat(place.width);
                    let before = place.column - 1;
                    writeln!(f, "{:margin$} |", "")?;
                    writeln!(f, "{} | {}", place.line, place.source)?;
                    writeln!(f, "{:margin$} | {:before$}{carets}", "", "")?;
                }
                margin
            }
        };
        match &self.help {
            Some(help) => writeln!(f, "{:margin$} = help: {help}", ""),
            None => Ok(()),
        }
    }
}

/// Translates a range of bytes into a line and a column.
fn place(path: &str, text: &str, at: Range<usize>) -> SourceSpan {
    let mut start = at.start.min(text.len());
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    let (before, after) = text.split_at(start);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line_end = after.find('\n').map_or(text.len(), |newline| start + newline);
    let source = text[line_start..line_end].trim_end_matches('\r');
    let meant = &source.as_bytes()[(start - line_start).min(source.len())..];
    let width = at.end.saturating_sub(start).min(meant.len());
    let width = String::from_utf8_lossy(&meant[..width]).chars().count().max(1);
    SourceSpan {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: text[line_start..start].chars().count() + 1,
        width,
        source: if may_hold_secret(&text[..line_end]) {
            String::new()
        } else {
            source.replace('\t', " ")
        },
    }
}

/// Returns whether the last line of `text` may hold a secret, which must not reach a log.
///
/// A misspelt `token` counts, because errors show lines with misspelt keys. A `token` earlier in
/// the same table counts too, because its value may continue over several lines.
fn may_hold_secret(text: &str) -> bool {
    let word_is_near = |word: &str| distance(word, "token") <= 2;
    let names_it = |line: &str| line.split(|c: char| !c.is_alphabetic()).any(word_is_near);
    let is_comment = |line: &str| line.trim_start().starts_with('#');
    for (n, line) in text.lines().rev().enumerate() {
        if (n == 0 || !is_comment(line)) && names_it(line) {
            return true;
        }
        if line.starts_with('[') {
            return false;
        }
    }
    false
}

/// Returns the known name that is most similar to `name`, if one is similar enough.
pub(super) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    // Three wrong letters turn a short word into another word.
    let tolerance = (name.chars().count() / 3).clamp(1, 3);
    known
        .iter()
        .map(|candidate| (distance(name, candidate), *candidate))
        .filter(|(distance, _)| *distance <= tolerance)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Returns the edit distance of two words: letters added, removed, replaced, or swapped with their
/// neighbour.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_similar_names_are_suggested() {
        let known = ["idle", "interval", "probes", "name"];
        assert_eq!(nearest("idel", &known), Some("idle"));
        assert_eq!(nearest("probe", &known), Some("probes"));
        assert_eq!(nearest("intervall", &known), Some("interval"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(nearest("", &known), None);
        assert_eq!(distance("abcd", "abdc"), 1);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn places_count_characters_and_accept_any_range() {
        let text = "a = 1\nb = \"ä\" # ü\r\nlast";
        let at = text.find("# ").unwrap();
        let found = place("f", text, at..at + 4);
        assert_eq!((found.line, found.column, found.width), (2, 9, 3));
        assert_eq!(found.source, "b = \"ä\" # ü");
        for start in 0..text.len() + 3 {
            for end in start..text.len() + 5 {
                assert!(place("f", text, start..end).width >= 1);
            }
        }
    }

    #[test]
    fn lines_with_secrets_are_not_shown() {
        let text = "token = \"hunter2\n";
        let mut problems = Problems::new("f", text);
        problems.add(Some(8..16), "bad".to_owned(), None);
        let shown = problems.into_result().unwrap_err().to_string();
        assert_eq!(shown, "f:1:9: bad\n");
    }
}
