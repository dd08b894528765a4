//! Tests of `systole check` with good and bad configurations.

use std::fs;

use crate::{directory, snapshot, systole};

const DEFAULTS: &str = "\
listener     codec        address         role   bound  policy
native       native       127.0.0.1:7400  probe  30s    idle 15s, interval 5s, probes 3
message1028  message1028  127.0.0.1:7410  probe  30s    idle 15s, interval 5s, probes 3
line         line         127.0.0.1:7420  probe  30s    idle 15s, interval 5s, probes 3

native believes whoever connects from this machine, with the identity that it claims: safe
message1028 believes whoever connects from this machine, with the identity that it claims: safe
line believes whoever connects from this machine, with the identity that it claims: safe
native keeps sessions for 30s without a link; one whose window is full ends

admin at 127.0.0.1:7480, without a token
an address may have half of all links, 1024 of them not logged in, 1000 new in a second
addresses without these limits: 127.0.0.0/8, ::1/128
";

#[test]
fn without_a_file_the_defaults_are_shown() {
    let directory = directory("check-defaults");
    let expected = format!("exit 0\n--- stdout\ndefaults: ok\n\n{DEFAULTS}--- stderr\n");
    assert_eq!(snapshot(&mut systole(&directory, &["check"])), expected);
}

#[test]
fn the_file_of_the_repository_has_the_defaults() {
    let directory = directory("check-repository");
    fs::write(directory.join("systole.toml"), include_str!("../../../../systole.toml")).unwrap();
    let expected = format!("exit 0\n--- stdout\nsystole.toml: ok\n\n{DEFAULTS}--- stderr\n");
    assert_eq!(snapshot(&mut systole(&directory, &["check"])), expected);
}

#[test]
fn a_good_file_is_shown_as_parsed() {
    let directory = directory("check-good");
    let text = r#"
enforce = false

[[listener]]
name = "games"
address = "[::1]:9000"
policy.preset = "demanding"
resume_window = "2m"
resume_when_full = "gap"

[[listener]]
address = "127.0.0.1:9001"
codec = "line"
role = "watch"
policy = { never = true, keepalive = "90s" }

[admin]
address = "0.0.0.0:9002"
token_file = "secret"
"#;
    fs::write(directory.join("good.toml"), text).unwrap();
    fs::write(directory.join("secret"), "0123456789abcdef\n").unwrap();
    let expected = "\
exit 0
--- stdout
good.toml: ok

listener  codec   address         role   bound  policy
games     native  [::1]:9000      probe  8s     idle 2s, interval 2s, probes 3
line      line    127.0.0.1:9001  watch  none   never, keepalive 1m 30s

games believes whoever connects from this machine, with the identity that it claims: safe
line believes whoever connects from this machine, with the identity that it claims: safe
games keeps sessions for 2m without a link; a full window leaves a gap

admin at 0.0.0.0:9002, with a token
an address may have half of all links, 1024 of them not logged in, 1000 new in a second
addresses without these limits: 127.0.0.0/8, ::1/128
enforce is off: dead peers are reported, never disconnected
--- stderr
";
    assert_eq!(snapshot(&mut systole(&directory, &["check", "--config", "good.toml"])), expected);
}

#[test]
fn all_problems_are_reported_with_the_legal_values() {
    let directory = directory("check-bad");
    let text = r#"shards = 0

[policy]
idel = "15s"
preset = "relaxed"
probes = 3

[[listener]]
address = "127.0.0.1"

[admin]
address = "0.0.0.0:7480"
"#;
    fs::write(directory.join("bad.toml"), text).unwrap();
    let expected = r#"exit 2
--- stdout
--- stderr
error: bad.toml: 5 problems

bad.toml:1:10: `shards` must be "auto" or a number from 1 to 256
  |
1 | shards = 0
  |          ^

bad.toml:4:1: unknown setting `idel`
  |
4 | idel = "15s"
  | ^^^^
  = help: did you mean `idle`?

bad.toml:6:10: `probes` and `preset = "relaxed"` exclude each other
  |
6 | probes = 3
  |          ^
  = help: leave out `preset = "relaxed"`, or leave out idle, interval and probes

bad.toml:9:11: `address` must be an IP address and a port, as in "127.0.0.1:7400" or "[::1]:7400"
  |
9 | address = "127.0.0.1"
  |           ^^^^^^^^^^^

bad.toml:12:11: the admin interface at 0.0.0.0:7480 can be reached from outside
   |
12 | address = "0.0.0.0:7480"
   |           ^^^^^^^^^^^^^^
   = help: name a file with a secret (`token_file`, --admin-token-file), or listen on loopback
"#;
    assert_eq!(snapshot(&mut systole(&directory, &["check", "--config", "bad.toml"])), expected);
}

#[test]
fn a_problem_of_an_override_alone_is_not_one_of_the_defaults() {
    let directory = directory("check-override");
    let shown = snapshot(&mut systole(&directory, &["check", "--admin", "0.0.0.0:7480"]));
    let expected =
        "exit 2\n--- stdout\n--- stderr\nerror: command line and environment: 1 problem\n";
    assert!(shown.starts_with(expected), "{shown}");
}

#[test]
fn serve_refuses_what_check_refuses() {
    let directory = directory("check-serve");
    fs::write(directory.join("systole.toml"), "[drain]\nlimit = 30\n").unwrap();
    let expected = r#"exit 2
--- stdout
--- stderr
error: systole.toml: 1 problem

systole.toml:2:9: `limit` must be a length of time in quotes with its unit, from "0s" to "1d"
  |
2 | limit = 30
  |         ^^
"#;
    assert_eq!(snapshot(&mut systole(&directory, &["serve"])), expected);
    assert_eq!(snapshot(&mut systole(&directory, &["check"])), expected);
}

#[test]
fn a_missing_file_is_refused_only_if_it_was_named() {
    let directory = directory("check-missing");
    let expected = "\
exit 2
--- stdout
--- stderr
error: none.toml: 1 problem

none.toml cannot be read: No such file or directory (os error 2)
 = help: name another file with --config, or leave it out to run with the defaults
";
    assert_eq!(snapshot(&mut systole(&directory, &["check", "--config", "none.toml"])), expected);
}

#[test]
fn flags_override_the_environment_and_both_the_file() {
    let directory = directory("check-over");
    fs::write(directory.join("systole.toml"), "[admin]\naddress = \"127.0.0.1:1\"\n").unwrap();
    let admin = |command: &mut std::process::Command| {
        let shown = snapshot(command);
        shown.lines().find(|line| line.starts_with("admin")).unwrap_or(&shown).to_owned()
    };
    let mut command = systole(&directory, &["check"]);
    assert_eq!(admin(&mut command), "admin at 127.0.0.1:1, without a token");
    command.env("SYSTOLE_ADMIN", "127.0.0.1:2").env("SYSTOLE_ADMIN_TOKEN", "0123456789abcdef");
    assert_eq!(admin(&mut command), "admin at 127.0.0.1:2, with a token");
    command.args(["--admin", "127.0.0.1:3"]);
    assert_eq!(admin(&mut command), "admin at 127.0.0.1:3, with a token");

    let mut command = systole(&directory, &["check"]);
    command.env("SYSTOLE_LISTEN", "127.0.0.1:5,line=127.0.0.1:6").env("SYSTOLE_ENFORCE", "false");
    let shown = snapshot(&mut command);
    assert!(shown.contains("\nnative    native  127.0.0.1:5  probe  30s"), "{shown}");
    assert!(shown.contains("\nline      line    127.0.0.1:6  probe  30s"), "{shown}");
    assert!(shown.contains("\nenforce is off"), "{shown}");
}

#[test]
fn a_bad_token_in_the_environment_is_refused_without_printing_it() {
    let directory = directory("check-token");
    let mut command = systole(&directory, &["check"]);
    let shown = snapshot(command.env("SYSTOLE_ADMIN_TOKEN", "hunter2"));
    assert!(shown.starts_with("exit 2\n"), "{shown}");
    assert!(shown.contains("SYSTOLE_ADMIN_TOKEN must be 16 to 512"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
}
