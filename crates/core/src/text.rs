//! Text from outside, escaped for terminals, logs and JSON.
//!
//! Identities, messages of a server and the like come from strangers. Printed as it is, such text
//! can move the cursor, forge a line of a log, or show the rest of a line in another order. Each
//! place that prints escapes with the types of this module, whatever was checked before.

use core::fmt::{self, Write};

/// Returns whether a character must not reach a terminal or a log: a control character, a separator
/// of lines, or a mark that changes the direction of the text.
///
/// Other invisible characters are harmless to the reader of a line, and part of words and emoji.
pub const fn is_harmful(character: char) -> bool {
    matches!(
        character,
        // C0, DEL and C1.
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        // Separators of lines and paragraphs, embeddings and overrides.
        | '\u{2028}'..='\u{202e}'
        // Isolates, and their obsolete relatives.
        | '\u{2066}'..='\u{206f}'
        // Marks of direction.
        | '\u{61c}' | '\u{200e}' | '\u{200f}'
    )
}

/// A text with escapes instead of harmful characters: `\n`, `\r`, `\t`, else `\u001b`.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a> {
    text: &'a str,
    keeps_lines: bool,
}

impl<'a> Escaped<'a> {
    /// Escapes a text that stands in one line.
    pub const fn line(text: &'a str) -> Escaped<'a> {
        Escaped { text, keeps_lines: false }
    }

    /// Escapes a text of several lines, or a JSON document: line feeds and tabs stay. A JSON
    /// document stays equivalent, since what is escaped can only stand within its strings.
    pub const fn lines(text: &'a str) -> Escaped<'a> {
        Escaped { text, keeps_lines: true }
    }

    /// Returns whether nothing has to be escaped.
    pub fn is_harmless(&self) -> bool {
        !self.text.chars().any(|character| self.escapes(character))
    }

    fn escapes(&self, character: char) -> bool {
        is_harmful(character) && !(self.keeps_lines && matches!(character, '\n' | '\t'))
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.text;
        while let Some(at) = rest.find(|character| self.escapes(character)) {
            let (clean, escaped) = rest.split_at(at);
            f.write_str(clean)?;
            let mut characters = escaped.chars();
            if let Some(character) = characters.next() {
                escape(character, f)?;
            }
            rest = characters.as_str();
        }
        f.write_str(rest)
    }
}

/// A text in double quotes, escaped as a string of JSON is; harmful characters too.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for character in self.0.chars() {
            match character {
                '"' | '\\' => {
                    f.write_char('\\')?;
                    f.write_char(character)?;
                }
                _ if is_harmful(character) => escape(character, f)?,
                _ => f.write_char(character)?,
            }
        }
        f.write_char('"')
    }
}

/// Writes the escape of a harmful character, all of which have at most four hexadecimal digits.
fn escape(character: char, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match character {
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        _ => write!(f, "\\u{:04x}", u32::from(character)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn what_moves_a_cursor_forges_a_line_or_turns_the_text_is_escaped() {
        for (text, escaped) in [
            ("ada", "ada"),
            ("", ""),
            ("grüße \u{1f469}\u{200d}\u{1f680} عربى", "grüße \u{1f469}\u{200d}\u{1f680} عربى"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\u{1b}[2J\u{7f}\u{9b}31m", "\\u001b[2J\\u007f\\u009b31m"),
            ("\u{202e}a\u{202a}", "\\u202ea\\u202a"),
            ("\u{2066}\u{2069}\u{200e}\u{200f}\u{61c}", "\\u2066\\u2069\\u200e\\u200f\\u061c"),
            ("a\u{2028}\u{2029}b", "a\\u2028\\u2029b"),
        ] {
            assert_eq!(Escaped::line(text).to_string(), escaped);
            assert_eq!(Escaped::line(text).is_harmless(), text == escaped, "{escaped}");
            assert_eq!(Quoted(text).to_string(), alloc::format!("\"{escaped}\""));
        }
        assert_eq!(Quoted("a \"b\" \\n").to_string(), "\"a \\\"b\\\" \\\\n\"");
        assert_eq!(Escaped::line("a \"b\" \\n").to_string(), "a \"b\" \\n");
        assert_eq!(Escaped::lines("a\n\tb\r\u{1b}").to_string(), "a\n\tb\\r\\u001b");
    }

    #[test]
    fn every_control_character_is_harmful() {
        let all = '\0'..=char::MAX;
        assert!(all.filter(|character| character.is_control()).all(is_harmful));
    }
}
