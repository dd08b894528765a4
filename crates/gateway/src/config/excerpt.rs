//! The part of a line that an error shows: short, and harmless to a terminal.

use std::ops::Range;

use unicode_width::UnicodeWidthChar;

/// Maximum width of an excerpt in columns, without the marks of what is left out: it fits on a line
/// of a terminal.
const MAX_WIDTH: usize = 96;

/// Maximum number of columns before the place, if the line is too wide to be shown whole.
const BEFORE: usize = 40;

/// Maximum number of characters of a message, which may repeat a name in the file.
const MAX_MESSAGE: usize = 400;

/// The mark of what is left out.
const CUT: &str = "…";

/// The text around a place in a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Excerpt {
    pub(super) text: String,
    /// The columns of `text` that the place takes; at least one.
    pub(super) marked: Range<usize>,
}

/// Returns the excerpt of `line` around the bytes `at`, which begin and end between characters.
pub(super) fn excerpt(line: &str, at: Range<usize>) -> Excerpt {
    let (before, rest) = line.split_at(at.start);
    let fits = cells(line.chars(), MAX_WIDTH).is_whole;
    let mut left = cells(before.chars().rev(), if fits { MAX_WIDTH } else { BEFORE });
    left.cells.reverse();
    let place = cells(line[at.clone()].chars(), MAX_WIDTH - left.width);
    let right = cells(rest.chars(), MAX_WIDTH - left.width);

    let mark = |is_whole: bool| if is_whole { "" } else { CUT };
    let start = left.width + mark(left.is_whole).chars().count();
    let text =
        [mark(left.is_whole), &left.cells.concat(), &right.cells.concat(), mark(right.is_whole)];
    Excerpt { text: text.concat(), marked: start..start + place.width.max(1) }
}

/// Returns `text` without what a terminal would not print as such, and not longer than a message.
pub(super) fn printable(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_MESSAGE).map(printable_char).collect();
    if text.chars().nth(MAX_MESSAGE).is_some() {
        shown.push_str(CUT);
    }
    shown
}

/// The first characters of a text, as a terminal prints them.
struct Cells {
    cells: Vec<String>,
    width: usize,
    is_whole: bool,
}

/// Returns as many characters as fit into `limit` columns.
fn cells(text: impl Iterator<Item = char>, limit: usize) -> Cells {
    let mut found = Cells { cells: Vec::new(), width: 0, is_whole: true };
    for c in text {
        let cell = printable_char(c);
        let width = found.width + cell.chars().map(|c| c.width().unwrap_or(0)).sum::<usize>();
        if width > limit {
            found.is_whole = false;
            break;
        }
        found.width = width;
        found.cells.push(cell);
    }
    found
}

/// Returns a character, or its escape if it controls a terminal, hides, or joins its neighbour. A
/// tab is one space.
fn printable_char(c: char) -> String {
    match c {
        '\t' => " ".to_owned(),
        // Harmless, and escaped by the standard library.
        '"' | '\'' | '\\' => c.to_string(),
        _ => c.escape_debug().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the excerpt with the marked columns, checked for its width.
    fn shown(line: &str, at: Range<usize>) -> (String, Range<usize>) {
        let Excerpt { text, marked } = excerpt(line, at);
        let width: usize = text.chars().map(|c| c.width().unwrap()).sum();
        assert!(width <= MAX_WIDTH + 2 * CUT.chars().count(), "{text}");
        assert!(!marked.is_empty() && marked.end <= width + 1, "{marked:?} of {width}");
        (text, marked)
    }

    #[test]
    fn short_lines_are_shown_whole_and_marked_in_columns() {
        assert_eq!(shown("a = 1", 4..5), ("a = 1".to_owned(), 4..5));
        assert_eq!(shown("a = 1", 5..5), ("a = 1".to_owned(), 5..6));
        assert_eq!(shown("", 0..0), (String::new(), 0..1));
        assert_eq!(shown("\ta = \"ä\"", 5..9), (" a = \"ä\"".to_owned(), 5..8));
        // Two columns for each character.
        assert_eq!(shown("日本 = 1", 9..10), ("日本 = 1".to_owned(), 7..8));
    }

    #[test]
    fn what_controls_a_terminal_is_escaped() {
        let (text, marked) = shown("a\u{1b}[2J\u{202e}\u{7}\u{301} = 1", 14..15);
        assert_eq!(text, "a\\u{1b}[2J\\u{202e}\\u{7}\\u{301} = 1");
        assert_eq!(&text[marked], "1");
        assert_eq!(printable("x\n\u{202e}y"), "x\\n\\u{202e}y");
        assert_eq!(printable(&"x".repeat(500)), "x".repeat(400) + "…");
    }

    #[test]
    fn long_lines_are_cut_on_both_sides() {
        let line = format!("{}!{}", "a".repeat(70_000), "b".repeat(70_000));
        let (text, marked) = shown(&line, 70_000..70_001);
        assert_eq!(text, format!("…{}!{}…", "a".repeat(40), "b".repeat(55)));
        assert_eq!(marked, 41..42);
        let (text, marked) = shown(&line, 0..140_001);
        assert_eq!((text, marked), (format!("{}…", "a".repeat(96)), 0..96));
    }
}
