//! Tests of a gateway whose configuration file is bad when it is read again.

use std::fs;
use std::process::Command;

use systole_core::Span;
use systole_net::Clock;

use crate::gateway::{Gateway, ONE_SECOND, wait};
use crate::{directory, snapshot, systole};

/// Sends SIGHUP and waits until the gateway says that nothing has changed. Returns the message that
/// gives the reason, with its help.
fn refuse(gateway: &mut Gateway, reason: &str) -> String {
    gateway.program.signal("HUP");
    let line = gateway.log(reason);
    assert_eq!(line["level"], "ERROR", "{line}");
    gateway.log("the gateway goes on as before");
    format!("{} / {}", line["message"], line["help"])
}

fn idle_ms(gateway: &Gateway) -> u64 {
    let idle = &gateway.get("/api/v1/listeners")["listeners"][0]["policy"]["idle_ms"];
    idle.as_u64().expect("a policy with a bound")
}

#[test]
fn a_file_that_was_emptied_or_is_half_written_changes_nothing() {
    let mut gateway = Gateway::start("reload-half", ONE_SECOND);
    assert_eq!(idle_ms(&gateway), 400);
    let cut = &ONE_SECOND[..ONE_SECOND.find("[[listener]]").unwrap()];
    let changed = ONE_SECOND.replace("400ms", "900ms");
    let in_the_middle = &changed[..changed.find("interval").unwrap()];
    for (text, lost) in [
        ("", "[policy]"),
        (" \n# nothing here\n", "[policy]"),
        (cut, "[listener \"native\"]"),
        (in_the_middle, "[listener \"native\"]"),
    ] {
        gateway.rewrite(text);
        let told = refuse(&mut gateway, "has lost settings");
        assert!(told.contains(&lost.replace('"', "\\\"")) && told.contains("or restart"), "{told}");
        assert_eq!(idle_ms(&gateway), 400, "{text}");
    }
    for (text, problem) in
        [(&changed[..changed.len() - 3], "not TOML"), ("idle = \"7s\"", "unknown setting `idle`")]
    {
        gateway.rewrite(text);
        refuse(&mut gateway, problem);
        assert_eq!(idle_ms(&gateway), 400, "{text}");
    }
    gateway.rewrite(&changed);
    gateway.program.signal("HUP");
    gateway.log("the configuration is in force");
    assert_eq!(idle_ms(&gateway), 900);
    let count =
        |result| gateway.metric(&format!("systole_config_reloads_total{{result=\"{result}\"}}"));
    // The log speaks before the count is written.
    wait("the count", || (count("applied") == 1.0).then_some(()));
    assert_eq!((count("refused"), count("incomplete")), (6.0, 0.0));
    gateway.end();
}

#[test]
fn an_error_on_a_long_line_ends_no_gateway() {
    let mut gateway = Gateway::start("reload-long", ONE_SECOND);
    let line = format!("rest = [{}]\n", "1, ".repeat(40_000));
    gateway.rewrite(&format!("{line}{ONE_SECOND}"));
    refuse(&mut gateway, "`rest` must be");
    gateway.rewrite(&format!("{}{ONE_SECOND}", line.replace("1, ]", "1, oops ]")));
    refuse(&mut gateway, "not TOML");
    assert_eq!(idle_ms(&gateway), 400);
    gateway.end();
}

#[cfg(target_os = "linux")]
#[test]
fn what_blocks_or_never_ends_holds_up_neither_the_gateway_nor_its_end() {
    let mut gateway = Gateway::start("reload-blocks", ONE_SECOND);
    let file = gateway.file("systole.toml");
    fs::remove_file(&file).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    let told = refuse(&mut gateway, "it is a pipe, and only a regular file is read");
    assert!(told.contains("rename it to this one") && !told.contains("--config"), "{told}");
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
    refuse(&mut gateway, "it is a device");
    fs::remove_file(&file).unwrap();
    let told = refuse(&mut gateway, "No such file");
    assert!(!told.contains("--config"), "{told}");
    gateway.rewrite(&ONE_SECOND.replace("[admin]", "[admin]\ntoken_file = \"/dev/zero\""));
    refuse(&mut gateway, "the token file /dev/zero cannot be read: it is a device");
    // Sparse: it would take all memory and takes no room on disk.
    let huge = gateway.file("huge");
    fs::File::create(&huge).unwrap().set_len(1 << 40).unwrap();
    gateway.rewrite(&ONE_SECOND.replace("[admin]", "[admin]\ntoken_file = \"huge\""));
    refuse(&mut gateway, "it is longer than 64KiB");
    fs::rename(&huge, &file).unwrap();
    refuse(&mut gateway, "it is longer than 1MiB");
    assert_eq!(idle_ms(&gateway), 400);
    gateway.end();
}

#[test]
fn no_file_of_a_start_blocks_or_fills_the_memory() {
    let directory = directory("reload-start");
    let beacon = "[[listener]]\naddress = \"127.0.0.1:0\"\ncodec = \"beacon\"\n";
    fs::write(directory.join("keys.toml"), format!("{beacon}keys_file = \"/dev/zero\"\n")).unwrap();
    fs::write(
        directory.join("secret.toml"),
        format!("{beacon}master_secret_file = \"/dev/urandom\"\n"),
    )
    .unwrap();
    let clock = Clock::start();
    for args in [
        ["check", "--config", "/dev/zero"],
        ["check", "--admin-token-file", "/dev/zero"],
        ["check", "--config", "keys.toml"],
        ["serve", "--config", "secret.toml"],
    ] {
        let shown = snapshot(&mut systole(&directory, &args));
        assert!(shown.starts_with("exit 2\n"), "{shown}");
        assert!(shown.contains("it is a device, and only a regular file is read"), "{shown}");
    }
    let shown = snapshot(&mut systole(
        &directory,
        &["why", "0000000000000001", "--token-file", "/dev/zero"],
    ));
    assert!(shown.contains("cannot be read: it is a device"), "{shown}");
    assert!(clock.monotonic() < Span::from_secs(30));
}
