//! Tests of `systole why` against a real `systole serve`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;

use serde_json::Value;
use systole_gateway::ready::Ready;

use crate::program::{Program, SOON};
use crate::{directory, snapshot, systole};

const TOKEN: &str = "0123456789abcdefgh";

/// A configuration with a `line` listener and a bound of one second.
const CONFIG: &str = r#"
shards = 1
[admin]
address = "127.0.0.1:0"
token_file = "token"
[[listener]]
address = "127.0.0.1:0"
codec = "line"
policy = { idle = "400ms", interval = "200ms", probes = 3, spread = false }
"#;

struct Gateway {
    serve: Program,
    ready: Ready,
    directory: PathBuf,
}

impl Gateway {
    /// Starts a gateway with `settings` in addition to [`CONFIG`].
    fn start(name: &str, settings: &str) -> Gateway {
        let directory = directory(name);
        fs::write(directory.join("systole.toml"), format!("{settings}\n{CONFIG}"))
            .expect("the directory is writable");
        fs::write(directory.join("token"), format!("{TOKEN}\n"))
            .expect("the directory is writable");
        let args = ["serve", "--log-format", "json", "--ready-file", "ready"];
        let mut serve = Program::start(&mut systole(&directory, &args));
        // The ready file is written right after this line; the wait ends with the file.
        serve.stderr_after("\"admin interface\"");
        let ready = loop {
            let text = fs::read(directory.join("ready")).unwrap_or_default();
            if let Ok(ready) = serde_json::from_slice(&text) {
                break ready;
            }
            std::thread::yield_now();
        };
        Gateway { serve, ready, directory }
    }

    fn connect(&self) -> TcpStream {
        let stream =
            TcpStream::connect(self.ready.listeners[0].address).expect("the gateway listens");
        stream.set_read_timeout(Some(SOON)).expect("a legal timeout");
        stream
    }

    /// Returns the session of the next event of this kind in the log.
    fn session(&mut self, kind: &str) -> String {
        let rest = self.serve.stderr_after(&format!("\"message\":\"{kind}\",\"session\":\""));
        rest.chars().take_while(char::is_ascii_hexdigit).collect()
    }

    fn why(&self, session: &str, args: &[&str]) -> String {
        let admin = self.ready.admin.to_string();
        let base = ["why", session, "--admin", &admin, "--token-file", "token"];
        snapshot(&mut systole(&self.directory, &[&base[..], args].concat()))
    }
}

/// Sends three pings, and waits for each pong.
fn beat(stream: &TcpStream) {
    let mut answers = BufReader::new(stream.try_clone().expect("a descriptor")).lines();
    for _ in 0..3 {
        (&mut &*stream).write_all(b"ping\n").expect("the gateway reads");
        assert_eq!(answers.next().expect("an answer").expect("text"), "pong");
    }
}

/// Returns the event text of each line of the timeline.
fn timeline_of(shown: &str) -> Vec<&str> {
    let (_, timeline) = shown.split_once("in seconds before ").expect("a timeline");
    let lines = timeline.lines().skip(1).take_while(|line| line.starts_with("  "));
    lines.map(|line| line.split_once(" s  ").expect("a time").1).collect()
}

#[test]
fn a_dead_session_shows_its_cause_and_then_the_timeline() {
    let mut gateway = Gateway::start("why-dead", "");
    let stream = gateway.connect();
    beat(&stream);
    let session = gateway.session("leave");
    let shown = gateway.why(&session, &[]);
    // The kernel acknowledges what the silent application leaves unread; only Linux shows this.
    let cause = if cfg!(target_os = "linux") { "app_hung" } else { "unknown" };
    assert!(shown.starts_with(&format!("exit 0\n--- stdout\n{cause} (")), "{shown}");
    let has_evidence = shown.contains("\nevidence\n  its application said nothing for longer");
    assert!(has_evidence, "{shown}");
    assert!(shown.contains(&format!("\nsession {session} of \"\" from 127.0.0.1:")), "{shown}");
    assert!(shown.contains("\nwhat to do\n  "), "{shown}");
    let timeline = timeline_of(&shown);
    assert_eq!(timeline[..2], ["opened", "handshake complete"], "{shown}");
    assert!(timeline.iter().any(|what| what.starts_with("heard up to 5 bytes")), "{shown}");
    let end = ["sent probe 1", "sent probe 2", "suspected", "sent probe 3"];
    assert!(end.iter().all(|what| timeline.contains(what)), "{shown}");
    assert_eq!(*timeline.last().unwrap(), format!("verdict: {cause}"), "{shown}");

    let json = gateway.why(&session, &["--json"]);
    let json = json.strip_prefix("exit 0\n--- stdout\n").unwrap();
    let json: Value = serde_json::from_str(json.split('\n').next().unwrap()).unwrap();
    assert_eq!((&json["session"], &json["online"]), (&session.as_str().into(), &false.into()));
    assert_eq!(json["verdict"]["cause"], cause);
}

/// Returns the names of the fields of a line in logfmt.
fn fields_of_logfmt(line: &str) -> Vec<&str> {
    // Quoted values hold no escaped quotes here: every second part is one.
    let outside = line.split('"').step_by(2);
    let words = outside.flat_map(str::split_whitespace);
    words.filter_map(|word| word.split_once('=')).map(|(name, _)| name).collect()
}

/// Returns the names of the fields of a line in JSON, in their order; they are as in logfmt.
fn fields_of_json(line: &str) -> Vec<&str> {
    let names = line.split('"').skip(1).step_by(2);
    let is_name = |name: &&str| line.contains(&format!("\"{name}\":"));
    let names: Vec<&str> = names.filter(is_name).filter(|name| *name != "time").collect();
    names.iter().map(|name| if *name == "message" { "msg" } else { *name }).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn the_log_in_the_readme_has_the_lines_of_a_real_run() {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
    let readme = fs::read_to_string(readme).unwrap();
    let mut gateway = Gateway::start("why-readme", "");
    let mut stream = gateway.connect();
    stream.write_all(b"ping\n").unwrap();
    for kind in ["join", "suspect", "leave"] {
        let shown =
            readme.lines().find(|line| line.starts_with(&format!("level=INFO msg={kind} ")));
        let real = gateway.serve.stderr_after(&format!("\"message\":\"{kind}\","));
        let fields = ["level", "msg"].into_iter().chain(fields_of_json(&real));
        assert_eq!(fields_of_logfmt(shown.unwrap()), Vec::from_iter(fields), "{real}");
    }
}

#[test]
fn a_session_online_shows_its_timeline() {
    // Without enforcement the session stays, however long this test takes.
    let mut gateway = Gateway::start("why-online", "enforce = false");
    let stream = gateway.connect();
    beat(&stream);
    let session = gateway.session("overdue: the bound has passed, unenforced");
    let shown = gateway.why(&session, &[]);
    assert!(shown.starts_with("exit 0\n--- stdout\nonline, suspected\n"), "{shown}");
    let timeline = timeline_of(&shown);
    assert_eq!(timeline[..2], ["opened", "handshake complete"], "{shown}");
    assert_eq!(timeline.last(), Some(&"the bound passed; the policy only tells"), "{shown}");
}

#[test]
fn a_failed_request_is_an_error_with_a_hint() {
    let gateway = Gateway::start("why-unknown", "");
    let unknown = gateway.why("00000000000000ff", &[]);
    assert!(unknown.starts_with("exit 1\n--- stdout\n--- stderr\nerror: session "), "{unknown}");
    let admin = gateway.ready.admin.to_string();
    for part in [
        "00000000000000ff is not online",
        "\nhint: `curl -s -H \"Authorization: Bearer $(head -n 1 ",
        &format!(")\" http://{admin}/api/v1/verdicts` lists the last sessions"),
    ] {
        assert!(unknown.contains(part), "{unknown}");
    }
    let number = gateway.why("seven", &[]);
    assert!(number.starts_with("exit 2\n"), "{number}");
    assert!(
        number.contains("has 16 hexadecimal digits, or fewer without leading zeros, as in"),
        "{number}"
    );

    let args = ["why", "00000000000000ff", "--admin", &admin];
    let with = |more: &[&str]| systole(&gateway.directory, &[&args[..], more].concat());
    let refused = snapshot(&mut with(&[]));
    assert!(refused.starts_with("exit 1\n"), "{refused}");
    let names = "requires its admin token\nhint: --token-file (or SYSTOLE_ADMIN_TOKEN_FILE) names";
    assert!(refused.contains(names), "{refused}");
    let missing = snapshot(&mut with(&["--token-file", "no"]));
    assert!(missing.starts_with("exit 1\n") && missing.contains("cannot be read"), "{missing}");
    fs::write(gateway.directory.join("wrong"), "fedcba9876543210\n").unwrap();
    let wrong = snapshot(&mut with(&["--token-file", "wrong"]));
    assert!(wrong.contains("error: the gateway does not accept the token in wrong\n"), "{wrong}");
    // The token itself, as for `systole serve`.
    let known = snapshot(with(&[]).env("SYSTOLE_ADMIN_TOKEN", TOKEN));
    assert!(known.contains("00000000000000ff is not online"), "{known}");
    let curl = "`curl -s -H \"Authorization: Bearer $SYSTOLE_ADMIN_TOKEN\" http://";
    assert!(known.contains(curl) && !known.contains(TOKEN), "{known}");
    let spaced = gateway.directory.join("its token");
    fs::write(spaced, TOKEN).unwrap();
    let known = snapshot(&mut with(&["--token-file", "its token"]));
    assert!(known.contains("Bearer $(head -n 1 'its token')\" http://"), "{known}");
    let wrong = snapshot(with(&[]).env("SYSTOLE_ADMIN_TOKEN", "fedcba9876543210"));
    assert!(wrong.contains("not accept the token of SYSTOLE_ADMIN_TOKEN\n"), "{wrong}");

    // A listener is no admin interface.
    let listener = gateway.ready.listeners[0].address.to_string();
    let other = snapshot(&mut systole(
        &gateway.directory,
        &["why", "00000000000000ff", "--admin", &listener],
    ));
    // Its bytes may be overtaken by the reset of the connection.
    let answer = ["what answers there does not speak HTTP\n", "the connection was closed\n"]
        .map(|what| format!("no answer from http://{listener}: {what}"));
    assert!(answer.iter().any(|answer| other.contains(answer)), "{other}");
    assert!(other.contains("which is none of its listeners"), "{other}");
    for (url, says) in [
        ("gateway", "a port is needed, as in gateway:7480"),
        ("ftp://127.0.0.1:7480", "this is no URL of an admin interface"),
    ] {
        let args = ["why", "00000000000000ff", "--admin", url];
        let refused = snapshot(&mut systole(&gateway.directory, &args));
        assert!(refused.starts_with("exit 2\n") && refused.contains(says), "{refused}");
    }
    drop(gateway);
    let gone = snapshot(&mut systole(&directory("why-gone"), &args));
    let nothing = ": nothing listens there\nhint: is the gateway running? --admin sets ";
    assert!(gone.starts_with("exit 1\n") && gone.contains(nothing), "{gone}");
}
