//! `systole completions` and `systole man`: prints shell completions and manual pages.

use std::io;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::Exit;
use crate::output::Output;

pub(crate) fn completions(shell: Shell, output: &mut Output) -> io::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "systole", &mut script);
    output.bytes(&script)?;
    Ok(Exit::Success)
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
                output.error(&format!("there is no command `{name}`; see `systole help`"));
                return Ok(Exit::Usage);
            }
        },
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(described).render(&mut page)?;
    output.bytes(&page)?;
    Ok(Exit::Success)
}
