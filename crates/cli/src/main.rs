//! The `systole` program: parses the command line, runs one command, and returns its exit code.

mod admin;
mod bench;
mod check;
mod cli;
mod clip;
mod config_args;
mod exit;
mod interrupt;
mod lab;
mod man_page;
mod output;
mod ping;
mod pong;
mod seconds;
mod self_help;
mod serve;
mod usage;
mod why;

use std::io;
use std::process::ExitCode;

use cli::{Cli, Command};
use exit::Exit;
use output::Output;

fn main() -> ExitCode {
    let mut output = Output::new();
    let result = parse_and_run(&mut output).and_then(|exit| output.flush().map(|()| exit));
    match result {
        Ok(exit) => exit.into(),
        // The reader of stdout closed it on purpose, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Success.into(),
        Err(error) => {
            output.error(&format!("the output could not be written: {error}"));
            Exit::Failure.into()
        }
    }
}

fn parse_and_run(output: &mut Output) -> io::Result<Exit> {
    match usage::parse(output)? {
        Ok(cli) => run(cli, output),
        Err(exit) => Ok(exit),
    }
}

/// Runs the command. Only a failure to write output is an error here; every other failure is
/// printed and becomes an exit code.
fn run(cli: Cli, output: &mut Output) -> io::Result<Exit> {
    match cli.command {
        Command::Serve(args) => serve::run(&args, output),
        Command::Check(args) => check::run(&args, output),
        Command::Ping(args) => ping::run(&args, output),
        Command::Pong(args) => pong::run(&args, output),
        Command::Why(args) => why::run(&args, output),
        Command::Bench(args) => bench::run(*args, output),
        Command::BenchGateway(args) => bench::run_gateway(&args, output),
        Command::BenchWorker => bench::helper(bench::run_worker(), output),
        Command::BenchBare(args) => bench::helper(bench::run_bare(&args), output),
        Command::BenchBurn => bench::helper(bench::run_burn(), output),
        Command::BenchPause(args) => bench::helper(bench::run_pause(&args), output),
        Command::Lab(args) => lab::run(&args, output),
        Command::LabPeer { spec } => lab::run_peer(&spec, output),
        Command::Completions { shell } => self_help::completions(shell, output),
        Command::Man { command } => self_help::man(command.as_deref(), output),
    }
}
