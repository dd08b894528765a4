//! Problems of a configuration: what is wrong, where, and the correction.

use std::fmt;
use std::ops::Range;

use systole_core::text::Escaped;

use super::excerpt::{Excerpt, excerpt, printable};

/// Maximum number of problems that are reported one by one. Nobody reads more at once, and finding
/// the place of each takes time.
const MAX_PROBLEMS: usize = 50;

/// Maximum number of problems of which the first are sought, in a file that is no configuration.
const MAX_KEPT: usize = 1_000;

/// Longest word that is compared with known names: all of them are shorter.
const MAX_WORD: usize = 40;

/// The problems of a configuration that was refused, in the order of the file.
///
/// The author of the file must correct them; nothing was changed or started. The first 50 problems
/// are reported at once, so that one round of corrections is mostly enough.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigError {
    problems: Vec<Problem>,
    /// The number of further problems.
    more: usize,
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
    /// The text around the place; `None` if that line may hold a secret.
    excerpt: Option<Excerpt>,
}

impl ConfigError {
    /// Returns the first problems; at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Returns the number of all problems.
    pub fn count(&self) -> usize {
        self.problems.len() + self.more
    }

    /// Creates an error of one problem that is not in the file.
    pub(super) fn single(what: String, help: Option<String>) -> ConfigError {
        ConfigError { problems: vec![Problem { what, help, place: None }], more: 0 }
    }
}

/// A collector of problems while a file is read.
#[derive(Debug)]
pub(super) struct Problems<'a> {
    path: &'a str,
    text: &'a str,
    /// At most [`MAX_KEPT`].
    found: Vec<Found>,
    /// The number of further problems.
    more: usize,
}

/// A problem whose line and column are not known yet.
#[derive(Debug)]
struct Found {
    at: Option<Range<usize>>,
    what: String,
    help: Option<String>,
}

impl<'a> Problems<'a> {
    pub(super) fn new(path: &'a str, text: &'a str) -> Problems<'a> {
        Problems { path, text, found: Vec::new(), more: 0 }
    }

    /// Adds a problem at a range of bytes of the file, or at no place in it.
    pub(super) fn add(&mut self, at: Option<Range<usize>>, what: String, help: Option<String>) {
        if self.found.len() == MAX_KEPT {
            self.more += 1;
            return;
        }
        let (what, help) = (printable(&what), help.as_deref().map(printable));
        self.found.push(Found { at, what, help });
    }

    /// Returns the problems as an error, if there are any.
    pub(super) fn into_result(mut self) -> Result<(), ConfigError> {
        if self.found.is_empty() {
            return Ok(());
        }
        // Problems without a place come last.
        self.found.sort_by_key(|found| found.at.as_ref().map_or(usize::MAX, |at| at.start));
        let more = self.more + self.found.len().saturating_sub(MAX_PROBLEMS);
        let problems = self.found.into_iter().take(MAX_PROBLEMS).map(|Found { at, what, help }| {
            Problem { what, help, place: at.map(|at| place(self.path, self.text, at)) }
        });
        Err(ConfigError { problems: problems.collect(), more })
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
        match self.more {
            0 => Ok(()),
            more => writeln!(f, "\nand {more} more"),
        }
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Paths and texts from outside may stand in it, and must not begin a line of their own.
        let what = Escaped::line(&self.what);
        let margin = match &self.place {
            None => {
                writeln!(f, "{what}")?;
                0
            }
            Some(place) => {
                let SourceSpan { path, line, column, .. } = place;
                writeln!(f, "{}:{line}:{column}: {what}", Escaped::line(path))?;
                let margin = place.line.to_string().len();
                if let Some(Excerpt { text, marked }) = &place.excerpt {
                    let (before, carets) = (" ".repeat(marked.start), "^".repeat(marked.len()));
                    writeln!(f, "{:margin$} |", "")?;
                    writeln!(f, "{} | {text}", place.line)?;
                    writeln!(f, "{:margin$} | {before}{carets}", "")?;
                }
                margin
            }
        };
        match &self.help {
            Some(help) => writeln!(f, "{:margin$} = help: {}", "", Escaped::line(help)),
            None => Ok(()),
        }
    }
}

/// Translates a range of bytes into a line and a column.
fn place(path: &str, text: &str, at: Range<usize>) -> SourceSpan {
    let start = boundary(text, at.start);
    let (before, after) = text.split_at(start);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line_end = after.find('\n').map_or(text.len(), |newline| start + newline);
    let line = text[line_start..line_end].trim_end_matches('\r');
    let start = (start - line_start).min(line.len());
    let end = boundary(line, at.end.saturating_sub(line_start)).max(start);
    // A line without text has nothing to show.
    let is_shown = !line.is_empty() && !may_hold_secret(&text[..line_end]);
    SourceSpan {
        path: printable(path),
        line: before.matches('\n').count() + 1,
        column: line[..start].chars().count() + 1,
        width: line[start..end].chars().count().max(1),
        excerpt: is_shown.then(|| excerpt(line, start..end)),
    }
}

/// Returns `at`, or the end of the text, or the start of the character that `at` divides.
fn boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Returns whether the last line of `text` may hold a secret, which must not reach a log.
///
/// A misspelt `token` counts, because errors show lines with misspelt keys. A `token` earlier in
/// the same table counts too, because its value may continue over several lines.
fn may_hold_secret(text: &str) -> bool {
    // Longer and shorter ones are further away, and a file may have very many of them.
    let lengths = "token".len() - 2..="token".len() + 2;
    let word_is_near = |word: &str| {
        lengths.contains(&word.chars().take(8).count()) && distance(word, "token") <= 2
    };
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
    if name.len() > MAX_WORD {
        return None;
    }
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
        assert_eq!(found.excerpt.unwrap().text, "b = \"ä\" # ü");
        for start in 0..text.len() + 3 {
            for end in start..text.len() + 5 {
                assert!(place("f", text, start..end).width >= 1);
            }
        }
    }

    /// Shows a problem at some places of lines that are long, wide, or full of control characters.
    #[test]
    fn any_line_is_shown_in_bounds_and_without_control_characters() {
        let parts = ["a", "\t", "日", "\u{1b}[1A", "\u{202e}", "\r", "\u{0}", "e\u{301}", "🫀"];
        for (n, part) in parts.iter().enumerate() {
            for length in [0, 99, 65_536] {
                let other = parts[(n + 3) % parts.len()];
                let text = format!("x\n{}{other}\nx", part.repeat(length));
                for at in [1, text.len() - 3, text.len() + 9] {
                    for width in [0, 7, 70_000] {
                        let mut problems = Problems::new("f", &text);
                        problems.add(Some(at..at + width), text.clone(), Some(text.clone()));
                        let shown = problems.into_result().unwrap_err().to_string();
                        assert!(shown.len() < 10_000, "{}", shown.len());
                        assert!(shown.lines().count() <= 5, "{shown}");
                        let harmless = |c: char| c == '\n' || !c.is_control() && c != '\u{202e}';
                        assert!(shown.chars().all(harmless), "{shown:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn many_problems_are_counted_and_not_all_shown() {
        let text = "a = 1\n".repeat(100_000);
        let mut problems = Problems::new("f", &text);
        (0..100_000).for_each(|n| problems.add(Some(6 * n..6 * n + 1), "bad".to_owned(), None));
        let error = problems.into_result().unwrap_err();
        assert_eq!((error.problems().len(), error.count()), (MAX_PROBLEMS, 100_000));
        assert!(error.to_string().ends_with("\nand 99950 more\n"), "{error}");
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
