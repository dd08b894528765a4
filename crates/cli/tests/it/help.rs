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
fn a_broken_pipe_is_success() {
    let directory = directory("pipe");
    let mut command = systole(&directory, &["completions", "bash"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""));
}
