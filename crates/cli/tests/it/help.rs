//! Tests of usage errors, completions, the manual page, and a closed stdout.

use std::io::Read;
use std::process::Stdio;

use crate::strangers::assert_harmless;
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
fn usage_errors_and_help_control_no_terminal() {
    let directory = directory("usage-strangers");
    let evil = "\u{202e}x\u{1b}[2J\u{9b}31m\nerror: forged";
    let shown = "\\u202ex\\u001b[2J\\u009b31m\\nerror: forged";
    let option = format!("--{evil}");
    let number = format!("5{evil}");
    for (args, code) in [
        (&[evil][..], 2),
        (&["help", evil], 2),
        (&["man", evil], 2),
        (&["completions", evil], 2),
        (&["ping", &option], 2),
        (&["ping", "host:1", "--codec", evil], 2),
        (&["ping", "host:1", "--count", &number], 2),
        (&["ping", "host:1", "--idle", &number], 2),
        (&["pong", "--bind", evil], 2),
        (&["check", evil], 2),
        (&["check", "--listen", evil], 2),
        (&["why", evil], 2),
    ] {
        let printed = snapshot(&mut systole(&directory, args));
        assert!(printed.starts_with(&format!("exit {code}\n")), "{printed}");
        assert_harmless(&printed);
        assert!(printed.contains(shown), "{args:?}: {printed}");
        assert!(!printed.contains("\nerror: forged"), "{args:?}: {printed}");
    }
    // Help quotes the environment, and an error the variable's value.
    for (args, code) in [(&["check", "--help"][..], 0), (&["check"], 2)] {
        let printed = snapshot(systole(&directory, args).env("SYSTOLE_LISTEN", evil));
        assert!(printed.starts_with(&format!("exit {code}\n")), "{printed}");
        assert_harmless(&printed);
        assert!(printed.contains("\\u202ex\\u001b[2J"), "{args:?}: {printed}");
    }
}

#[test]
fn usage_errors_keep_their_colours() {
    let directory = directory("usage-colours");
    for args in [&["sreve"][..], &["--help"]] {
        let printed = snapshot(systole(&directory, args).env("CLICOLOR_FORCE", "1"));
        assert!(printed.contains("\u{1b}["), "{printed:?}");
    }
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
fn each_manual_page_has_the_sections_of_its_help_with_their_macros() {
    let directory = directory("man-pages");
    let macros = ["TH", "SH", "PP", "TP", "EX", "EE", "RS", "RE", "IP", "br", "ie", "el"];
    for command in ["", "serve", "check", "ping", "pong", "why", "bench", "lab", "completions"] {
        let args: Vec<&str> = ["man", command].into_iter().filter(|arg| !arg.is_empty()).collect();
        let page = snapshot(&mut systole(&directory, &args));
        let page = page.strip_prefix("exit 0\n--- stdout\n").unwrap();
        let page = page.strip_suffix("--- stderr\n").unwrap();
        assert!(page.is_ascii() && !page.contains("EXTRA"), "{page}");
        assert!(page.contains(" 1 \"\" \"systole "), "the empty date stands in its place: {page}");
        let controls = page.lines().filter_map(|line| line.strip_prefix('.'));
        for control in controls {
            let name = control.split(' ').next().unwrap();
            assert!(macros.contains(&name), ".{control}");
        }
        let (_, examples) = page.split_once(".SH EXAMPLES\n").unwrap();
        assert!(examples.contains(".EX\n") && examples.ends_with(".EE\n"), "{examples}");
        assert_eq!(page.matches("\n.EX\n").count(), page.matches("\n.EE\n").count());
    }
    let ping = snapshot(&mut systole(&directory, &["man", "ping"]));
    for part in [
        "\nsystole ping HOST:PORT \\-\\-json | jq .rtt_us\n.EE\n",
        "\n# both ends on one machine\nsystole pong & systole ping 127.0.0.1:7430\n",
        "\n.SH \"EXIT STATUS\"\n.TP\n\\fB0\\fR\n",
    ] {
        assert!(ping.contains(part), "{part}: {ping}");
    }
    let (_, tls) = ping.split_once("\n.SH TLS\n").unwrap();
    let (tls, _) = tls.split_once("\n.SH ").unwrap();
    assert!(tls.contains("\\-\\-pin") && !tls.contains("\\-\\-verbose"), "{tls}");
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
fn the_example_of_check_is_right_and_a_wrong_number_is_explained() {
    let directory = directory("help-examples");
    let help = snapshot(&mut systole(&directory, &["check", "--help"]));
    let admin = help
        .lines()
        .filter_map(|line| line.trim().strip_prefix("SYSTOLE_ADMIN="))
        .find_map(|line| line.strip_suffix(" systole check"))
        .expect("an example");
    let shown = snapshot(systole(&directory, &["check"]).env("SYSTOLE_ADMIN", admin));
    assert!(shown.starts_with("exit 0\n"), "{shown}");
    let shown = snapshot(&mut systole(&directory, &["check", "--shards", "0"]));
    assert!(shown.contains(": must be \"auto\" or a number from 1 to "), "{shown}");
    for command in ["serve", "check", "ping", "pong", "why"] {
        let help = snapshot(&mut systole(&directory, &[command, "--help"]));
        assert!(help.contains("\nExit codes: 0 "), "{command}: {help}");
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
