//! Cuts what errors quote: an argument, a variable or a setting may have a hundred kilobytes, and
//! would push the reason and the hint off every screen.

use std::borrow::Cow;

/// Maximum number of characters of a value that a usage error quotes: enough for any value that
/// could be right, and for a path that people type.
pub(crate) const QUOTED: usize = 300;

/// Maximum number of characters of a line: twice what a value, and a path in the reason, may need.
const LINE: usize = 2_000;

/// Cuts the middle out of a text that is longer than `limit` characters. Its end stays: after a
/// value an error says what is wrong with it.
pub(crate) fn middle(text: &str, limit: usize) -> Cow<'_, str> {
    let count = text.chars().count();
    if count <= limit {
        return text.into();
    }
    let (head, tail) = (limit - limit / 3, limit / 3);
    let place = |number| text.char_indices().nth(number).map_or(text.len(), |(at, _)| at);
    let (head, tail) = (&text[..place(head)], &text[place(count - tail)..]);
    format!("{head}…{tail}").into()
}

/// Cuts each line that is too long.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    // No line of a short text is too long.
    if text.len() <= LINE {
        return text.into();
    }
    let lines: Vec<_> = text.split('\n').map(|line| middle(line, LINE)).collect();
    lines.join("\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_too_long_is_cut_and_its_end_stays() {
        assert_eq!(middle("abc", 3), "abc");
        assert_eq!(middle("äöüäöüx", 6), "äöüä…üx");
        let (short, long) = ("short\n", "x".repeat(100_000) + ": not found");
        let cut = lines(&long);
        assert_eq!(cut.chars().count(), LINE + 1);
        assert!(cut.ends_with("x: not found"));
        let shown = lines(&format!("{short}{long}\nhint: y")).into_owned();
        assert!(
            shown.starts_with("short\nx") && shown.ends_with(": not found\nhint: y"),
            "{shown}"
        );
    }
}
