//! Tests of the whole program from outside: exit code, stdout, stderr.

mod abuse;
mod bans;
mod bench;
mod check;
mod client;
mod crowd;
mod cuts;
mod flood;
mod gateway;
mod help;
mod killed;
mod listeners;
mod outside;
mod ping;
mod program;
mod reload;
mod resuming;
#[cfg(target_os = "linux")]
mod revised;
mod sending;
mod serve;
mod serve_limits;
mod starting;
mod strangers;
mod tls;
mod tokens;
mod webhooks;
mod why;
mod windows;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Creates an empty directory for one test.
fn directory(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("the build directory is writable");
    path
}

/// Returns a command that runs the program in `directory` with an empty environment.
fn systole(directory: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_systole"));
    command.args(args).current_dir(directory).stdin(Stdio::null()).env_clear();
    command
}

/// Runs a command to its end; returns the exit code and everything that it printed.
fn snapshot(command: &mut Command) -> String {
    let output = command.output().expect("the program was built");
    format!(
        "exit {}\n--- stdout\n{}--- stderr\n{}",
        output.status.code().map_or("by signal".to_owned(), |code| code.to_string()),
        text(output.stdout),
        text(output.stderr),
    )
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("everything printed is UTF-8")
}
