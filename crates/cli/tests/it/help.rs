//! Tests of usage errors, completions, the manual page, and a closed stdout.

use std::io::Read;
use std::process::Stdio;

use crate::{directory, snapshot, systole};

#[test]
fn wrong_usage_exits_with_2_and_a_message_on_stderr() {
    let directory = directory("usage");
    for args in [&["sreve"][..], &[], &["check", "--log", "loud"], &["man", "sreve"]] {
        let shown = snapshot(&mut systole(&directory, args));
        assert!(shown.starts_with("exit 2\n--- stdout\n--- stderr\n"), "{shown}");
    }
    let shown = snapshot(&mut systole(&directory, &["check", "--log", "loud"]));
    assert!(shown.contains("error, warn, info, debug, trace"), "{shown}");
    assert!(!shown.contains('\u{1b}'), "no colour without a terminal: {shown}");
}

#[test]
fn completions_manual_and_help_are_printed() {
    let directory = directory("describes");
    let shown = snapshot(&mut systole(&directory, &["completions", "bash"]));
    assert!(shown.starts_with("exit 0\n"), "{shown}");
    assert!(shown.contains("complete -F _systole"), "{shown}");
    for args in [&["man"][..], &["man", "serve"]] {
        let shown = snapshot(&mut systole(&directory, args));
        assert!(shown.starts_with("exit 0\n"), "{shown}");
        assert!(shown.contains(".SH NAME"), "{shown}");
    }
    let shown = snapshot(&mut systole(&directory, &["help", "serve"]));
    assert!(shown.contains("systole serve --listen 127.0.0.1:0"), "{shown}");
}

#[test]
fn completions_offer_all_commands_but_the_hidden_ones() {
    let directory = directory("completions");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let shown = snapshot(&mut systole(&directory, &["completions", shell]));
        for command in ["serve", "check", "ping", "pong", "why", "bench", "lab", "man"] {
            assert!(shown.contains(command), "{shell}: no {command}");
        }
        assert!(shown.contains("ready-file") && shown.contains("version"), "{shell}: {shown}");
        for hidden in ["bench-gateway", "bench-worker", "bench-bare", "bench-burn", "bench-pause"] {
            assert!(!shown.contains(hidden), "{shell} offers {hidden}");
        }
        assert!(!shown.contains("lab-peer"), "{shell} offers lab-peer");
    }
}

#[test]
fn the_help_of_serve_and_check_states_the_defaults() {
    let directory = directory("help-defaults");
    let config = systole_gateway::Config::load("", "", &Default::default()).unwrap();
    let listeners: Vec<String> = config
        .listeners
        .iter()
        .map(|listener| format!("{}={}", listener.codec(), listener.address()))
        .collect();
    for command in ["serve", "check"] {
        let shown = snapshot(&mut systole(&directory, &[command, "--help"]));
        let text = shown.split_whitespace().collect::<Vec<_>>().join(" ");
        for default in [
            listeners.join(","),
            config.admin.address().to_string(),
            "no token".to_owned(),
            "auto".to_owned(),
            config.policy.enforce().to_string(),
            config.log.level.to_string(),
            config.log.heartbeats.to_string(),
        ] {
            assert!(text.contains(&format!("[default: {default}]")), "{default}: {shown}");
        }
    }
}

#[test]
fn a_broken_pipe_is_success() {
    let directory = directory("pipe");
    let mut command = systole(&directory, &["completions", "bash"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}
