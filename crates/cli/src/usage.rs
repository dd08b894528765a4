//! Parses the command line, and prints what clap answers instead of running a command: help,
//! version, and usage errors.
//!
//! Such an answer quotes arguments and environment variables, which may come from a stranger by way
//! of a script. It is escaped as all other output is, and what is too long is cut.

use std::io;

use clap::builder::Styles;
use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory, Error, Parser};
use systole_core::text::Escaped;

use crate::cli::Cli;
use crate::clip;
use crate::exit::Exit;
use crate::output::Output;

/// Parses the arguments of the process. If they run no command, the answer is printed and the exit
/// code is returned as `Err`.
pub(crate) fn parse(output: &mut Output) -> io::Result<Result<Cli, Exit>> {
    match Cli::try_parse() {
        Ok(cli) => Ok(Ok(cli)),
        Err(answer) => print(&answer, output).map(Err),
    }
}

fn print(answer: &Error, output: &mut Output) -> io::Result<Exit> {
    let exit = if answer.exit_code() == 0 { Exit::Success } else { Exit::Usage };
    match harmful_text() {
        // Prints colours if this is a terminal.
        None => answer.print()?,
        Some(text) if answer.use_stderr() => output.note(&text),
        Some(text) => output.line(&text)?,
    }
    Ok(exit)
}

/// Returns the answer as escaped text without colours, or `None` if there is nothing to
/// escape or to cut.
///
/// An escape sequence in an argument and one of clap's colours look the same. The arguments are
/// therefore parsed again without colours: every control character is then foreign.
fn harmful_text() -> Option<String> {
    let mut answer = Cli::command().styles(Styles::plain()).try_get_matches().err()?;
    let before = answer.render().ansi().to_string();
    let quoted: Vec<(ContextKind, ContextValue)> =
        answer.context().filter_map(|(kind, value)| Some((kind, escape_quoted(value)?))).collect();
    for (kind, value) in quoted {
        answer.insert(kind, value);
    }
    let after = answer.render().ansi().to_string();
    let after = Escaped::lines(&clip::lines(&after)).to_string();
    (after != before).then_some(after)
}

/// Escapes what an error quotes, line feeds too: no argument may begin a line of its own. `None`
/// for what only clap writes.
fn escape_quoted(value: &ContextValue) -> Option<ContextValue> {
    let escape = |text: &dyn ToString| {
        Escaped::line(&clip::middle(&text.to_string(), clip::QUOTED)).to_string()
    };
    if let ContextValue::String(text) = value {
        return Some(ContextValue::String(escape(text)));
    }
    if let ContextValue::Strings(texts) = value {
        return Some(ContextValue::Strings(texts.iter().map(|text| escape(text)).collect()));
    }
    if let ContextValue::StyledStrs(texts) = value {
        let escaped = texts.iter().map(|text| escape(&text.ansi()).into());
        return Some(ContextValue::StyledStrs(escaped.collect()));
    }
    None
}
