//! Tests of `systole ping` and `systole pong` against clients and servers in C and Python that were
//! written from the protocol document alone.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::program::Program;
use crate::{directory, systole};

/// Folder of the sources in C and Python.
pub(crate) const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/outside");

/// Has a client stay until it is killed: no time limit of its own, which a busy machine might reach
/// before the test has ended.
pub(crate) const STAYS: [&str; 2] = ["--stay", "86400000"];

/// Further arguments of the compiler for a client that speaks TLS.
const WITH_TLS: [&str; 3] = ["-DTLS", "-lssl", "-lcrypto"];

const PROTOCOLS: [&str; 2] = ["native", "message1028"];

/// A client and server for one protocol, written in C or Python.
pub(crate) struct Outside {
    name: &'static str,
    pub(crate) protocol: &'static str,
    command: Vec<PathBuf>,
}

impl Outside {
    /// Returns all outside programs whose compiler or interpreter exists, built in a directory
    /// called `directory_name`.
    pub(crate) fn all(directory_name: &str) -> Vec<Outside> {
        let build = directory(directory_name);
        let mut all = Vec::new();
        if has("cc") {
            all.extend(PROTOCOLS.map(|protocol| Outside {
                name: "C",
                protocol,
                command: vec![compile(protocol, &build, &[])],
            }));
        }
        if has("python3") {
            all.extend(PROTOCOLS.map(|protocol| Outside {
                name: "Python",
                protocol,
                command: vec!["python3".into(), Path::new(SOURCES).join(format!("{protocol}.py"))],
            }));
        }
        all
    }

    /// Returns the programs for the native protocol whose client speaks TLS (`--tls`, `--name`).
    pub(crate) fn over_tls(directory_name: &str) -> Vec<Outside> {
        let build = directory(&format!("{directory_name}-tls"));
        let mut all = Outside::all(directory_name);
        all.retain(|outside| outside.protocol == "native");
        all.retain_mut(|outside| {
            let is_python = outside.name == "Python";
            if !is_python && has_openssl() {
                outside.command = vec![compile(outside.protocol, &build, &WITH_TLS)];
                return true;
            }
            is_python
        });
        all
    }

    pub(crate) fn start(&self, args: &[&str]) -> Program {
        let (program, before) = self.command.split_first().expect("a program");
        let mut command = Command::new(program);
        command.args(before).args(args).args(["--limit", "30"]);
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        Program::start(&mut command)
    }

    /// Starts a server on a free port; returns it and its address.
    fn server(&self, args: &[&str]) -> (Program, String) {
        let mut server = self.start(&[&["server", "0", "--once"], args].concat());
        let port = server.until("listening on ").replace("listening on ", "");
        (server, format!("127.0.0.1:{port}"))
    }

    pub(crate) fn label(&self) -> String {
        format!("{} in {}", self.protocol, self.name)
    }
}

/// Whether a missing tool is an error.
pub(crate) fn is_required() -> bool {
    env::var_os("SYSTOLE_REQUIRE_TOOLS").is_some_and(|value| value == "1")
}

/// Whether a tool exists; panics if it is missing but required.
fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").stdout(Stdio::null()).status().is_ok();
    assert!(found || !is_required(), "{tool} is missing");
    if !found {
        eprintln!("skipped: {tool} is missing");
    }
    found
}

/// Whether the headers of OpenSSL exist; panics if they are missing but required.
fn has_openssl() -> bool {
    let probe = ["-E", "-include", "openssl/ssl.h", "-x", "c", "/dev/null"];
    let mut cc = Command::new("cc");
    let found = cc.args(probe).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    assert!(found || !is_required(), "OpenSSL's headers (libssl-dev) are missing");
    if !found {
        eprintln!("skipped: the client in C over TLS, OpenSSL's headers (libssl-dev) are missing");
    }
    found
}

fn compile(protocol: &str, build: &Path, more: &[&str]) -> PathBuf {
    let program = build.join(protocol);
    let source = Path::new(SOURCES).join(format!("{protocol}.c"));
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-o"]).arg(&program).arg(source);
    cc.args(more);
    assert!(cc.status().expect("cc was found").success());
    assert!(fs::exists(&program).expect("the build directory is readable"));
    program
}

fn ping(outside: &Outside, addr: &str, args: &[&str]) -> Program {
    let quick = ["--idle", "0.1", "--interval", "0.1", "--probes", "3"];
    let args = [&["ping", addr, "--codec", outside.protocol][..], &quick, args].concat();
    Program::start(&mut systole(Path::new("."), &args))
}

fn pong(outside: &Outside, args: &[&str]) -> (Program, String) {
    let args = [&["pong", "--port", "0", "--codec", outside.protocol][..], args].concat();
    let mut pong = Program::start(&mut systole(Path::new("."), &args));
    let addr = pong.stderr_after("listening on ");
    let port = addr.rsplit(':').next().expect("split gives at least one part").to_owned();
    (pong, port)
}

#[test]
fn ping_keeps_the_connection_to_a_server_that_answers() {
    for outside in Outside::all("outside-answers") {
        let label = outside.label();
        let (mut server, addr) = outside.server(&["--pieces", "1"]);
        let mut ping = ping(&outside, &addr, &["--count", "3"]);
        assert_eq!(ping.end(), 0, "{label}: {:?}", ping.seen);
        // A native ping sends one each interval, the others after silence.
        let start = if outside.protocol == "native" { "answer from" } else { "received heartbeat" };
        let answers = ping.seen.iter().filter(|line| line.starts_with(start));
        assert_eq!(answers.count(), 3, "{label}: {:?}", ping.seen);
        assert_eq!(server.end(), 0, "{label}: {:?}", server.seen);
        for n in 1..=3 {
            let received = format!("received PING {n}");
            assert!(server.seen.iter().any(|l| l.starts_with(&received)), "{label}: {received}");
        }
        if outside.protocol == "native" {
            let asked = "asked for idle 100 interval 100 probes 3";
            assert!(server.seen.iter().any(|l| l == asked), "{label}: {:?}", server.seen);
            assert!(
                server.seen.iter().any(|l| l.starts_with("received CLOSE 0 (done)")),
                "{label}"
            );
        }
    }
}

#[test]
fn ping_answers_a_server_that_probes() {
    for outside in Outside::all("outside-probes") {
        let label = outside.label();
        let (mut server, addr) = outside.server(&["--probe", "30"]);
        let mut ping = ping(&outside, &addr, &["-v"]);
        for n in 1..=3 {
            server.until(&format!("received PONG {n}"));
        }
        ping.signal("INT");
        // The server's probes are evidence enough, so ping rarely sends a heartbeat.
        assert_ne!(ping.end(), 3, "{label}: {:?}", ping.seen);
    }
}

#[test]
fn ping_finds_a_mute_server_dead() {
    for outside in Outside::all("outside-mute") {
        let label = outside.label();
        let (_server, addr) = outside.server(&["--mute"]);
        let mut ping = ping(&outside, &addr, &[]);
        assert_eq!(ping.end(), 3, "{label}: {:?}", ping.seen);
        if outside.protocol == "native" {
            let dead = |line: &String| line == "connection dead";
            assert!(ping.seen.iter().any(dead), "{label}: {:?}", ping.seen);
            continue;
        }
        let expected = [
            "sending heartbeat #1",
            "sending heartbeat #2",
            "sending heartbeat #3",
            "connection dead",
        ];
        assert_eq!(ping.seen[..4], expected, "{label}");
    }
}

#[test]
fn ping_understands_a_pong_in_the_other_byte_order() {
    for outside in Outside::all("outside-order") {
        if outside.protocol == "message1028" {
            let (_server, addr) = outside.server(&["--little-endian-pong"]);
            let mut ping = ping(&outside, &addr, &["--count", "2"]);
            assert_eq!(ping.end(), 0, "{}: {:?}", outside.label(), ping.seen);
        }
    }
}

#[test]
fn ping_prints_retune_and_close_of_the_server() {
    for outside in Outside::all("outside-leaves") {
        let label = outside.label();
        let timing = ["--retune", "2000,1000,3", "--close-after", "300"];
        let (_server, addr) = outside.server(&timing);
        let mut ping = ping(&outside, &addr, &["-v"]);
        assert_eq!(ping.end(), 1, "{label}: {:?}", ping.seen);
        let expected = match outside.protocol {
            "native" => &["idle 2.000 s, interval 1.000 s, probes 3", "said goodbye: drained"][..],
            _ => &["connection lost: the peer's process ended"],
        };
        for text in expected {
            assert!(ping.seen.iter().any(|l| l.contains(text)), "{label}: {:?}", ping.seen);
        }
    }
}

#[test]
fn pong_answers_clients() {
    for outside in Outside::all("outside-clients") {
        let label = outside.label();
        let (mut pong, port) = pong(&outside, &[]);
        let args = ["client", "127.0.0.1", &port, "--pings", "3", "--every", "20"];
        let more = ["--business", "hp=97", "--pieces", "3", "--policy", "10000,3000,3"];
        let mut client = outside.start(&[&args[..], &more].concat());
        assert_eq!(client.end(), 0, "{label}: {:?}", client.seen);
        for n in 1..=3 {
            let received = format!("received PONG {n}");
            assert!(client.seen.iter().any(|l| l.starts_with(&received)), "{label}: {received}");
        }
        let lengths = match outside.protocol {
            // A HELLO with an identity, then PINGs with business data.
            "native" => &[121, 8, 8, 8][..],
            _ => &[1_028; 3],
        };
        for len in lengths {
            assert_eq!(pong.line(), format!("received {len} bytes"), "{label}");
        }
    }
}

#[test]
fn pong_answers_late_and_gives_no_verdicts() {
    for outside in Outside::all("outside-late") {
        let label = outside.label();
        let (_pong, port) = pong(&outside, &["--delay", "0.3"]);
        let client = |args: &[&str]| {
            outside.start(&[&["client", "127.0.0.1", &port, "--every", "10"][..], args].concat())
        };
        // Silent for ten times the bound of the requested policy.
        let policy = ["--policy", "20,20,3", "--stay", "800"];
        let mut silent = client(&[&["--pings", "0"][..], &policy].concat());
        let mut many = client(&["--pings", "40"]);
        assert_eq!(many.end(), 0, "{label}: {:?}", many.seen);
        assert!(many.seen.iter().any(|l| l.starts_with("received PONG 40")), "{label}");
        assert_eq!(silent.end(), 0, "{label}: {:?}", silent.seen);
        assert!(!silent.seen.iter().any(|l| l.starts_with("received PING")), "{label}");
    }
}
