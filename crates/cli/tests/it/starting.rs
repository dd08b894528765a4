//! Tests of what a start needs: addresses, threads, a ready file.

use std::fs;
use std::process::Command;

use crate::gateway::{Gateway, ONE_SECOND};
use crate::{directory, snapshot, systole};

const ANYWHERE: [&str; 4] = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];

#[test]
fn the_ready_file_is_gone_when_the_gateway_is() {
    let mut gateway = Gateway::start("starting-ready", ONE_SECOND);
    let file = gateway.file("ready.json");
    assert!(file.exists());
    gateway.end();
    assert!(!file.exists());
    let left = fs::read_dir(file.parent().unwrap()).unwrap().count();
    assert_eq!(left, 1, "only the configuration is left");
}

#[test]
fn a_gateway_that_cannot_start_leaves_the_ready_file_of_the_one_that_runs() {
    let mut first = Gateway::start("starting-twice", ONE_SECOND);
    let file = first.file("ready.json");
    let before = fs::read_to_string(&file).unwrap();
    let taken = first.address("native").to_string();
    let args = ["serve", "--listen", &taken, "--admin", "127.0.0.1:0", "--ready-file"];
    let directory = file.parent().unwrap();
    let shown = snapshot(systole(directory, &args).arg(&file));
    assert!(shown.starts_with("exit 1\n") && shown.contains("another program listens"), "{shown}");
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    first.end();
}

#[test]
fn a_ready_file_that_cannot_be_written_is_known_before_the_gateway_listens() {
    let directory = directory("starting-unwritable");
    for path in ["none/such/ready", ".", "/dev/null"] {
        let mut command = systole(&directory, &["serve", "--ready-file", path]);
        let shown = snapshot(command.args(ANYWHERE));
        assert!(shown.starts_with("exit 1\n"), "{shown}");
        assert!(shown.contains(&format!("error: the ready file {path} cannot be wri")), "{shown}");
        assert!(!shown.contains("listening") && !shown.contains("drained"), "{shown}");
    }
}

#[test]
fn without_threads_a_start_fails_with_a_hint() {
    let directory = directory("starting-threads");
    let mut command = systole(&directory, &["serve"]);
    // No thread gets a stack of this size, whatever the rights of the user who runs the test.
    command.args(ANYWHERE).env("RUST_MIN_STACK", (1_u64 << 46).to_string());
    let shown = snapshot(&mut command);
    assert!(shown.starts_with("exit 1\n"), "{shown}");
    assert!(shown.contains("error: the system refuses what the gateway runs on: "), "{shown}");
    assert!(shown.contains("hint: check the limits on processes, threads"), "{shown}");
    assert!(!shown.contains("panicked") && !shown.contains("listening"), "{shown}");
}

#[test]
fn check_refuses_the_addresses_that_serve_cannot_bind() {
    let directory = directory("starting-addresses");
    for (listen, right) in [
        ("[::ffff:127.0.0.1]:7400", "an IPv4 address in its own form, \"127.0.0.1:7400\""),
        ("[fe80::1]:7400", "an address with its interface, as in \"[fe80::1%eth0]:7400\""),
        ("[fe80::1%none9]:7400", "no interface of this machine is called \"none9\""),
        ("localhost:7400", "an IP address and a port, as in"),
    ] {
        let text = format!("[[listener]]\naddress = \"{listen}\"\n");
        fs::write(directory.join("one.toml"), text).unwrap();
        for args in [
            ["check", "--config", "one.toml"],
            ["serve", "--config", "one.toml"],
            ["check", "--listen", listen],
            ["check", "--admin", listen],
        ] {
            let shown = snapshot(&mut systole(&directory, &args));
            assert!(shown.starts_with("exit 2\n") && shown.contains(right), "{shown}");
        }
        let shown = snapshot(
            systole(&directory, &["pong", "--port", "0", "--bind"])
                .arg(listen.trim_end_matches(":7400").trim_matches(['[', ']'])),
        );
        assert!(shown.starts_with("exit 2\n"), "{shown}");
    }
    let args = ["check", "--listen", "127.0.0.1:7480"];
    let shown = snapshot(&mut systole(&directory, &args));
    assert!(shown.starts_with("exit 2\n") && shown.contains("cannot share 127.0.0.1:7480"));
}

#[test]
fn check_warns_of_what_this_machine_cannot_bind() {
    let directory = directory("starting-foreign");
    // Of the block for documentation (RFC 5737), which no machine has.
    let args = ["check", "--anonymous", "--listen", "192.0.2.1:7400", "--admin", "127.0.0.1:0"];
    let shown = snapshot(&mut systole(&directory, &args));
    let warning = "--- stderr\nwarning: on this machine listener \"native\" cannot listen at \
                   192.0.2.1:7400: ";
    assert!(shown.starts_with("exit 0\n") && shown.contains(warning), "{shown}");
    assert!(shown.ends_with("hint: this machine does not have that address\n"), "{shown}");
}

#[cfg(target_os = "linux")]
#[test]
fn an_address_may_name_its_interface() {
    let directory = directory("starting-zone");
    let text = "[[listener]]\naddress = \"[fe80::1%lo]:7400\"\nanonymous = true\n[admin]\n\
                address = \"[fe80::2%lo]:7480\"\ntoken = \"0123456789abcdef\"\n";
    fs::write(directory.join("zone.toml"), text).unwrap();
    let shown = snapshot(&mut systole(&directory, &["check", "--config", "zone.toml"]));
    assert!(shown.starts_with("exit 0\n") && shown.contains("[fe80::1%1]:7400"), "{shown}");
    let args =
        ["check", "--anonymous", "--listen", "line=[fe80::1%lo]:7400", "--admin", "127.0.0.1:0"];
    let shown = snapshot(&mut systole(&directory, &args));
    assert!(shown.starts_with("exit 0\n") && shown.contains("[fe80::1%1]:7400"), "{shown}");
}

#[test]
fn an_error_quotes_no_hundred_kilobytes() {
    let directory = directory("starting-huge");
    let huge = "x".repeat(100_000);
    let path = huge.repeat(8);
    let store = "[[webhook]]\nurl = \"http://127.0.0.1:1/\"\nsecret_file = \"secret\"\n";
    fs::write(directory.join("secret"), "0123456789abcdef\n").unwrap();
    fs::write(directory.join("store.toml"), format!("{store}[store]\npath = \"{path}\"\n"))
        .unwrap();
    fs::write(directory.join("key.toml"), format!("{path} = 1\n")).unwrap();
    let admin = format!("http://{huge}:1");
    let server = format!("{huge}:1");
    for args in [
        &["ping", &server][..],
        &["ping", &huge],
        &["ping", "127.0.0.1:1", "--idle", &huge],
        &["ping", "127.0.0.1:1", "--probes", &huge],
        &["ping", "127.0.0.1:1", "--codec", &huge],
        &["ping", "127.0.0.1:1", "--identity", &huge],
        &["ping", "127.0.0.1:1", "--token-file", &huge],
        &["ping", "127.0.0.1:1", "--ca", &huge],
        &["ping", "127.0.0.1:1", &huge],
        &["why", &huge],
        &["why", "00c0600001000000", "--admin", &admin],
        &["why", "00c0600001000000", "--token-file", &huge],
        &["pong", "--port", &huge],
        &["serve", "--config", &huge],
        &["serve", "--config", "store.toml"],
        &["serve", "--listen", &huge],
        &["check", "--config", "key.toml"],
        &["bench", "--period", &huge],
        &[&huge],
    ] {
        assert_short(&mut systole(&directory, args));
    }
    for variable in [
        "SYSTOLE_CONFIG",
        "SYSTOLE_LISTEN",
        "SYSTOLE_ANONYMOUS",
        "SYSTOLE_ADMIN",
        "SYSTOLE_ADMIN_TOKEN",
        "SYSTOLE_ADMIN_TOKEN_FILE",
        "SYSTOLE_SHARDS",
        "SYSTOLE_ENFORCE",
        "SYSTOLE_LOG",
        "SYSTOLE_LOG_FORMAT",
        "SYSTOLE_LOG_HEARTBEATS",
    ] {
        assert_short(systole(&directory, &["check"]).env(variable, &huge));
        assert_short(systole(&directory, &["check", "--help"]).env(variable, &huge));
    }
    assert_short(systole(&directory, &["ping", "127.0.0.1:1"]).env("SYSTOLE_TOKEN", &huge));
}

/// Asserts that a command shows no more than a screen or two of its long arguments.
fn assert_short(command: &mut Command) {
    let shown = snapshot(command);
    let start: String = shown.chars().take(300).collect();
    assert!(shown.len() < 12_000, "{} bytes: {start}", shown.len());
    assert!(!shown.contains(&"x".repeat(2_000)), "{start}");
}

#[test]
fn times_have_the_documented_units_everywhere() {
    let directory = directory("starting-units");
    fs::write(directory.join("five.toml"), "[policy]\nidle = \"5M\"\n").unwrap();
    for args in [
        &["check", "--config", "five.toml"][..],
        &["ping", "127.0.0.1:1", "--idle", "5M"],
        &["pong", "--delay", "5M"],
        &["bench", "--period", "5M"],
    ] {
        let shown = snapshot(&mut systole(&directory, args));
        assert!(shown.starts_with("exit 2\n"), "{shown}");
        let hint = "\"M\" is no unit; there are ms, s, m, h and d: minutes are `m`";
        assert!(shown.contains(hint), "{shown}");
    }
}
