//! The manual page of a command. clap_mangen would print the text after the help, with its examples
//! and lists, as one filled paragraph; this module gives each part its section and its macros.

use std::io::{self, Write};

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// Indentation of the lists and one-line examples in a help text.
const INDENT: usize = 2;

/// Returns the page of `command` as roff source, in ASCII.
pub(crate) fn render(command: &Command) -> io::Result<String> {
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let parts = Parts::new(&after);
    // An empty date needs quotes: otherwise the next argument would take its place.
    let man = Man::new(command.clone())
        .source(concat!("systole ", env!("CARGO_PKG_VERSION")))
        .date("\"\"")
        .manual("Systole manual");
    let mut title = Vec::new();
    man.render_title(&mut title)?;
    let mut page = String::from_utf8_lossy(&title).into_owned();
    page += &section(|out| man.render_name_section(out))?;
    page += &section(|out| man.render_synopsis_section(out))?;
    page += &section(|out| man.render_description_section(out))?;
    page += &source(&parts.description);
    page += &section(|out| man.render_options_section(out))?;
    if command.get_subcommands().any(|command| !command.is_hide_set()) {
        page += &section(|out| man.render_subcommands_section(out))?;
    }
    page += &source(&parts.exit_status);
    page += &source(&parts.examples);
    Ok(ascii(&page))
}

fn section(render: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<String> {
    let mut out = Vec::new();
    render(&mut out)?;
    Ok(without_preamble(&String::from_utf8_lossy(&out)).to_owned())
}

fn source(roff: &Roff) -> String {
    without_preamble(&roff.render()).to_owned()
}

/// Removes what `Roff` writes before each piece: the definition of an apostrophe, in two lines. The
/// page has it from its title.
fn without_preamble(piece: &str) -> &str {
    piece.splitn(3, '\n').nth(2).unwrap_or_default()
}

/// Replaces all other characters by their escapes, since roff may not read UTF-8.
fn ascii(page: &str) -> String {
    page.chars().fold(String::with_capacity(page.len()), |mut page, character| {
        match character.is_ascii() {
            true => page.push(character),
            false => page += &format!("\\[u{:04X}]", u32::from(character)),
        }
        page
    })
}

/// The text after the help of a command, in the sections of a manual page.
#[derive(Default)]
struct Parts {
    /// Continues the section DESCRIPTION.
    description: Roff,
    /// Begins with a heading, as the next part does; empty without any text.
    exit_status: Roff,
    examples: Roff,
}

impl Parts {
    /// Reads blocks of lines that are separated by empty lines. Indented blocks belong to the
    /// examples.
    fn new(after: &str) -> Parts {
        let mut parts = Parts::default();
        for block in after.split("\n\n").filter(|block| !block.trim().is_empty()) {
            if let Some(lines) = block.strip_prefix("Examples:\n") {
                parts.examples.control("SH", ["EXAMPLES"]);
                examples(lines, &mut parts.examples);
            } else if block.starts_with(' ') {
                examples(block, &mut parts.examples);
            } else if let Some(codes) = block.strip_prefix("Exit codes: ") {
                parts.exit_status.control("SH", ["EXIT STATUS"]);
                exit_codes(codes, &mut parts.exit_status);
            } else if block.starts_with("Exit code ") {
                parts.exit_status.control("SH", ["EXIT STATUS"]).text([roman(block)]);
            } else {
                paragraph(block, &mut parts.description);
            }
        }
        parts
    }
}

/// Adds examples: as they are typed, after what they do.
fn examples(block: &str, roff: &mut Roff) {
    let mut is_open = false;
    for line in block.lines() {
        let text = line.trim_start();
        let is_nested = line.len() - text.len() > INDENT;
        if !is_nested && text.ends_with(':') {
            close(&mut is_open, roff);
            roff.control("PP", []).text([roman(text)]);
            continue;
        }
        if !is_open {
            roff.control("PP", []).control("EX", []);
            is_open = true;
        }
        match text.split_once("  ").filter(|_| !is_nested) {
            Some((command, what)) => {
                roff.text([roman(format!("# {}", what.trim_start()))]).text([roman(command)]);
            }
            None => {
                let indent = if is_nested { 2 * INDENT } else { INDENT };
                roff.text([roman(line.get(indent..).unwrap_or(text))]);
            }
        }
    }
    close(&mut is_open, roff);
}

fn close(is_open: &mut bool, roff: &mut Roff) {
    if std::mem::take(is_open) {
        roff.control("EE", []);
    }
}

/// Adds a paragraph. Indented lines in it are a list of terms and their meanings.
fn paragraph(block: &str, roff: &mut Roff) {
    roff.control("PP", []);
    for line in block.lines() {
        let text = line.trim_start();
        let is_term = line.len() - text.len() == INDENT;
        match text.split_once("  ").filter(|_| is_term) {
            Some((term, meaning)) => {
                roff.control("TP", []).text([bold(term)]).text([roman(meaning.trim_start())]);
            }
            None => {
                roff.text([roman(text)]);
            }
        }
    }
}

/// Adds a list such as `0 success, 1 failure`.
fn exit_codes(codes: &str, roff: &mut Roff) {
    let codes = codes.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut rest = codes.trim_end_matches('.');
    while let Some((code, text)) = rest.split_once(' ') {
        let is_next = |at: &usize| {
            let next = text.get(at + 2..).unwrap_or_default();
            next.split_once(' ').is_some_and(|(code, _)| code.parse::<u8>().is_ok())
        };
        let end = text.match_indices(", ").map(|(at, _)| at).find(is_next);
        let (meaning, next) = text.split_at(end.unwrap_or(text.len()));
        roff.control("TP", []).text([bold(code)]).text([roman(meaning)]);
        rest = next.trim_start_matches(", ");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: &str = "\
Examples:
  systole do                 what it does
  systole do --all | .hidden

  First, the service:
    .dotted --one \\
            --two

It does 'this' and
. that × 2.

How to read it:
  term    its meaning
          over two lines
  other   another one

Exit codes: 0 done, or not, if asked, 1 failed, 12 wrong
usage.";

    #[test]
    fn each_part_of_a_help_text_has_its_section_and_macros() {
        let parts = Parts::new(AFTER);
        assert_eq!(
            ascii(&source(&parts.description)),
            ".PP\nIt does \\*(Aqthis\\*(Aq and\n\\&. that \\[u00D7] 2.\n.PP\nHow to read it:\n.TP\n\
             \\fBterm\\fR\nits meaning\nover two lines\n.TP\n\\fBother\\fR\nanother one\n"
        );
        assert_eq!(
            source(&parts.exit_status),
            ".SH \"EXIT STATUS\"\n.TP\n\\fB0\\fR\ndone, or not, if asked\n.TP\n\\fB1\\fR\nfailed\n\
             .TP\n\\fB12\\fR\nwrong usage\n"
        );
        assert_eq!(
            source(&parts.examples),
            ".SH EXAMPLES\n.PP\n.EX\n# what it does\nsystole do\nsystole do \\-\\-all | .hidden\n\
             .EE\n.PP\nFirst, the service:\n.PP\n.EX\n\\&.dotted \\-\\-one \\\\\n        \
             \\-\\-two\n.EE\n"
        );
    }
}
