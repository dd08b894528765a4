//! Runs the external programs of the lab, and checks that they exist.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::trouble::Trouble;

/// The programs, each with its Debian package and a harmless argument to check that it exists.
const TOOLS: [(&str, &str, &str); 3] =
    [("ip", "iproute2", "-V"), ("nft", "nftables", "-v"), ("conntrack", "conntrack", "-V")];

/// Fails where the lab cannot work: not Linux, not root, or programs missing.
pub(crate) fn check() -> Result<(), Trouble> {
    if !cfg!(target_os = "linux") {
        return Err(Trouble::new("the lab needs Linux: network namespaces and nftables"));
    }
    if !rustix::process::geteuid().is_root() {
        return Err(Trouble::new("the lab needs root, to make network namespaces; try sudo"));
    }
    let missing: Vec<&str> = TOOLS
        .iter()
        .filter(|(program, _, argument)| !exists(program, argument))
        .map(|(_, package, _)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    Err(Trouble::new(format!("programs are missing; on Debian: apt-get install {list}")))
}

fn exists(program: &str, argument: &str) -> bool {
    let status = Command::new(program)
        .arg(argument)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok()
}

/// Runs a command to its end and returns what it printed.
///
/// # Errors
/// The command could not be started, or it failed; then the error contains its stderr.
pub(crate) fn run(command: &mut Command, input: &str) -> Result<String, Trouble> {
    let name = format!("{command:?}").replace('"', "");
    let doing = Trouble::while_doing(&name);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(&doing)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends before it has read everything reports the reason itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(&doing)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(Trouble::new(format!("{name}: {}", why.trim())))
}
