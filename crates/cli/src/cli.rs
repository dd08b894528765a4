//! The command line: subcommands and their help texts. Each command's module interprets its
//! arguments.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::config_args::ConfigArgs;
use crate::lab;
use crate::{bench, ping, pong, why};

const TOP_EXAMPLES: &str = "\
Examples:
  systole serve                         run a gateway with the defaults, on loopback
  systole check                         check ./systole.toml and show what it means
  systole ping 127.0.0.1:7400           send heartbeats to a server, report when it is dead
  systole pong --delay 5s               answer heartbeats, five seconds late
  systole why 00c0600001000000          show why a session ended
  systole help serve                    show the help of one command

Exit codes: 0 success, 1 failure, 2 wrong usage or configuration, 3 the peer is dead.";

const SERVE_EXAMPLES: &str = "\
Examples:
  systole serve
  systole serve --config /etc/systole.toml --log debug
  systole serve --anonymous --listen 0.0.0.0:7400 --listen line=127.0.0.1:7420
  systole serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 --ready-file ready.json

SIGTERM drains: the gateway accepts no more clients, and sends CLOSE with a time to reconnect to
those connected. A second SIGTERM ends the wait, with exit code 1.

SIGHUP reads the configuration file again. A file with an error, or one that has lost settings as if
half written, changes nothing; the log says why.

Listening sockets that the parent passes (LISTEN_FDS, as systemd does) are used by the listeners
with their addresses, so that a restart refuses no client.

A flag overrides its environment variable, and the variable the configuration file. The defaults
hold for what none of them sets; `systole check` shows the result.

Exit codes: 0 drained, 1 not started, or ended by a second signal, 2 wrong usage or configuration.";

const CHECK_EXAMPLES: &str = "\
Examples:
  systole check
  systole check --config /etc/systole.toml
  SYSTOLE_ADMIN=127.0.0.1:7481 systole check

An address that this machine does not have, or a port that this user may not use, is a warning.

Listening sockets that a parent passes are matched with the listeners by `systole serve`, not here.

A flag overrides its environment variable, and the variable the configuration file. The defaults
hold for what none of them sets.

Exit codes: 0 the configuration is right, 2 wrong usage or configuration.";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  systole completions bash > ~/.local/share/bash-completion/completions/systole
  systole completions fish > ~/.config/fish/completions/systole.fish";

const MAN_EXAMPLES: &str = "\
Examples:
  systole man | man -l -
  systole man serve > systole-serve.1";

/// The liveness layer for long-lived connections.
///
/// Shows which clients are alive, which are gone, when and why, within a bound declared in advance.
#[derive(Debug, Parser)]
#[command(name = "systole", version, after_help = TOP_EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a gateway until a signal stops it
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// Check the configuration and show what it means, without starting anything
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
    Ping(ping::Args),
    Pong(pong::Args),
    Why(why::Args),
    Bench(Box<bench::Args>),
    /// Run the gateway that the bench measures
    #[command(hide = true)]
    BenchGateway(ServeArgs),
    /// Hold links for the bench
    #[command(hide = true)]
    BenchWorker,
    /// Run a bare loop for the bench to compare with
    #[command(hide = true)]
    BenchBare(bench::BareArgs),
    /// Keep one core busy during a soak
    #[command(hide = true)]
    BenchBurn,
    /// Stop a process during a soak
    #[command(hide = true)]
    BenchPause(bench::PauseArgs),
    Lab(lab::Args),
    /// Run a peer process of the lab
    #[command(hide = true)]
    LabPeer {
        /// Specification of the peer, as JSON
        spec: String,
    },
    /// Print the completions for a shell
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page
    #[command(after_help = MAN_EXAMPLES)]
    Man {
        /// The command; without it, systole itself
        command: Option<String>,
    },
}

#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,

    /// When ready, write the process id and all addresses to FILE, as JSON; removed at the end
    /// [default: no file]
    #[arg(long, value_name = "FILE", env = "SYSTOLE_READY_FILE")]
    pub(crate) ready_file: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_valid_and_every_command_has_an_example() {
        Cli::command().debug_assert();
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = format!("systole {}", command.get_name());
            assert!(help.contains(&example), "{} has no example", command.get_name());
        }
    }
}
