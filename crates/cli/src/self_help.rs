//! `systole completions` and `systole man`: prints shell completions and manual pages.

use std::io;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use systole_core::text::Escaped;

use crate::cli::Cli;
use crate::exit::Exit;
use crate::man_page;
use crate::output::Output;

pub(crate) fn completions(shell: Shell, output: &mut Output) -> io::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut without_hidden(&Cli::command()), "systole", &mut script);
    output.bytes(&script)?;
    Ok(Exit::Success)
}

/// Returns the program without its hidden commands, which the completions would offer.
fn without_hidden(root: &Command) -> Command {
    let shown = root.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    // A command cannot lose a subcommand, so that it is built anew; it has no flags of its own.
    let about = root.get_about().cloned().unwrap_or_default();
    Command::new("systole").about(about).version(env!("CARGO_PKG_VERSION")).subcommands(shown)
}

pub(crate) fn man(command: Option<&str>, output: &mut Output) -> io::Result<Exit> {
    let mut root = Cli::command();
    // Sets the full name of each subcommand.
    root.build();
    let described = match command {
        None => root,
        Some(name) => match root.find_subcommand(name) {
            Some(found) => found.clone(),
            None => {
                let name = Escaped::line(name);
                output.error(&format!("there is no command `{name}`; see `systole help`"));
                return Ok(Exit::Usage);
            }
        },
    };
    output.bytes(man_page::render(&described)?.as_bytes())?;
    Ok(Exit::Success)
}
