//! Tests of event webhooks and of the store under them, with the receiver of the document.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::client::{Client, named};
use crate::gateway::{Gateway, unhurried, wait};
use crate::program::{Program, SOON};
use crate::{directory, snapshot, systole};

const DOCUMENT: &str = include_str!("../../../../docs/webhooks.md");

const SECRET: &str = "a-secret-of-sufficient-length";

/// Writes the receiver of the document into a file.
fn script(folder: &Path) -> PathBuf {
    let (_, rest) = DOCUMENT.split_once("```python\n").expect("a receiver");
    let (code, _) = rest.split_once("```").expect("its end");
    // The import, the class and its end apart, it is short enough to be copied.
    let lines = code.lines().filter(|line| line.starts_with("        ")).count();
    assert!(lines <= 10, "ten lines are promised, not {lines}");
    let script = folder.join("receiver.py");
    fs::write(&script, code).expect("it is writable");
    script
}

/// Starts the receiver of the document on a free port.
fn receiver(folder: &Path, secret: &str) -> (Program, u16) {
    let free = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let port = free.local_addr().expect("it is bound").port();
    drop(free);
    let key = folder.join("key");
    fs::write(&key, format!("{secret}\n")).expect("it is writable");
    let mut command = Command::new("python3");
    command.arg(script(folder)).arg(port.to_string()).arg(key);
    (Program::start_with(&mut command, Stdio::null()), port)
}

fn config(folder: &Path, port: u16, more: &str) -> String {
    let secret = folder.join("secret");
    fs::write(&secret, format!("{SECRET}\n")).expect("it is writable");
    format!(
        "{}[[webhook]]\nname = \"game\"\n\
         url = \"http://user:hidden@127.0.0.1:{port}/hook?key=hidden\"\n\
         secret_file = \"{}\"\n{more}[store]\npath = \"{}\"\n",
        unhurried(),
        secret.display(),
        folder.join("store").display(),
    )
}

fn visit(gateway: &Gateway, identity: &str) {
    drop(log_in(gateway, identity));
}

/// Logs in, and returns the client once it is welcomed.
fn log_in(gateway: &Gateway, identity: &str) -> Client {
    Client::log_in(gateway.connect("native"), named(identity), SOON).expect("a welcome")
}

/// Splits a line of the receiver into the key and the event.
fn told(line: &str) -> (String, Value) {
    let (key, event) = line.trim_end().split_once(' ').expect("a key");
    (key.to_owned(), serde_json::from_str(event).expect("JSON"))
}

#[test]
fn the_receiver_of_the_document_verifies_what_a_gateway_tells() {
    let folder = directory("webhook");
    let (mut python, port) = receiver(&folder, SECRET);
    let mut gateway = Gateway::start("webhook-gateway", &config(&folder, port, ""));
    visit(&gateway, "ada");
    let (key, join) = told(&python.line());
    assert_eq!((&join["kind"], &join["identity"]), (&"join".into(), &"ada".into()));
    let number =
        format!("{}-{}", join["session"].as_str().unwrap(), join["epoch"].as_str().unwrap());
    assert_eq!(key, format!("{number}-join"));
    let (key, leave) = told(&python.line());
    assert_eq!((&leave["kind"], &leave["cause"]), (&"leave".into(), &"peer_exited".into()));
    assert_eq!(key, format!("{number}-leave"));
    assert!(leave["number"].as_u64() > join["number"].as_u64());
    let status = wait("the webhook to be up to date", || {
        let all = gateway.get("/api/v1/webhooks");
        (all["webhooks"][0]["waiting"] == 0).then_some(all)
    });
    let webhook = &status["webhooks"][0];
    assert_eq!((&webhook["state"], &webhook["delivered"]), (&"up".into(), &2.into()));
    assert_eq!(webhook["url"], format!("http://127.0.0.1:{port}/hook"), "without secrets");
    assert_eq!(status["store"]["durable"], true);
    assert_eq!(gateway.get("/readyz")["durable"], true);
    assert_eq!(gateway.metric("systole_webhook_delivered_total{webhook=\"game\"}"), 2.0);
    gateway.end();
}

#[test]
fn sessions_of_a_killed_gateway_are_known_after_its_next_start() {
    let folder = directory("webhook-killed");
    // Nobody listens there.
    let config = config(&folder, 1, "");
    let gateway = Gateway::start("webhook-killed-gateway", &config);
    let mut events = gateway.events(None);
    let position = events.until("live").id.expect("an id");
    let _online = log_in(&gateway, "ada");
    let session = events.until("join").data["session"].as_str().unwrap().to_owned();
    // Dropping it is kill -9.
    drop((events, gateway));
    let mut gateway = Gateway::start("webhook-killed-gateway", &config);
    let last = gateway.get("/api/v1/presence/ada")["last"].clone();
    let known = (&last["session"], &last["cause"]);
    assert_eq!(known, (&session.as_str().into(), &"gateway_lost".into()));
    let verdict = gateway.get(&format!("/api/v1/sessions/{session}/why"))["verdict"].clone();
    let known = (&verdict["identity"], &verdict["listener"], &verdict["cause"]);
    assert_eq!(known, (&"ada".into(), &"native".into(), &"gateway_lost".into()));
    let told = snapshot(&mut gateway.tool(&["why", &session]));
    assert!(told.contains("gateway_lost (certain)") && told.contains("found at"), "{told}");
    let mut events = gateway.events(Some(&position));
    let gap = events.next();
    assert_eq!((&*gap.kind, &gap.data["gateway_lost"]), ("gap", &1.into()));
    let leave = events.next();
    assert_eq!((&*leave.kind, &leave.data["number"]), ("leave", &1.into()));
    assert_eq!((&leave.data["session"], leave.id), (&session.as_str().into(), None));
    assert_eq!(events.next().kind, "snapshot");
    gateway.end();
}

#[test]
fn a_receiver_that_has_another_key_takes_nothing_and_what_waits_survives_a_restart() {
    let folder = directory("webhook-key");
    let (_python, port) = receiver(&folder, "another-secret-of-that-length");
    let mut gateway = Gateway::start("webhook-key-gateway", &config(&folder, port, ""));
    visit(&gateway, "ada");
    // Until the receiver listens the connection is refused.
    let status = wait("a refusal", || {
        let webhook = gateway.get("/api/v1/webhooks")["webhooks"][0].clone();
        (webhook["error"] == "status 401").then_some(webhook)
    });
    assert_eq!((&status["state"], &status["waiting"]), (&"failing".into(), &2.into()));
    gateway.end();
    let (mut python, port) = receiver(&folder, SECRET);
    let again = Gateway::start("webhook-key-gateway", &config(&folder, port, ""));
    let [join, leave] = [told(&python.line()).1, told(&python.line()).1];
    assert_eq!([&join["kind"], &leave["kind"]], ["join", "leave"]);
    drop(again);
}

#[test]
fn a_receiver_that_refuses_everything_is_in_the_log() {
    let folder = directory("webhook-refuses");
    let (_python, port) = receiver(&folder, "another-secret-of-that-length");
    let mut gateway = Gateway::start("webhook-refuses-gateway", &config(&folder, port, ""));
    visit(&gateway, "ada");
    let line = gateway.log("the webhook did not take an event");
    assert_eq!((&line["level"], &line["receiver"]), (&"WARN".into(), &"game".into()));
    assert!(line["error"].is_string(), "{line}");
    for identity in ["bob", "cleo"] {
        visit(&gateway, identity);
    }
    let line = gateway.log("the receiver refuses every event with status 401");
    assert!(line["message"].as_str().unwrap().ends_with("; is its key that of secret_file?"));
    assert!(!line.to_string().contains("hidden"), "{line}");
    gateway.end();
}

#[test]
fn what_a_receiver_never_takes_goes_to_the_dead_letters() {
    let folder = directory("webhook-dead");
    // Nobody listens there.
    let (_python, port) = {
        let (python, port) = receiver(&folder, SECRET);
        drop(python);
        ((), port)
    };
    let more = "give_up_after = \"1s\"\n";
    let mut gateway = Gateway::start("webhook-dead-gateway", &config(&folder, port, more));
    visit(&gateway, "ada");
    let letters = folder.join("store").join("dead-letters-game.jsonl");
    let text = wait("two dead letters", || {
        let text = fs::read_to_string(&letters).ok()?;
        (text.lines().count() == 2).then_some(text)
    });
    let lines: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let kinds = lines.iter().map(|line| line["event"]["kind"].as_str().unwrap());
    assert_eq!(kinds.collect::<Vec<_>>(), ["join", "leave"], "in order");
    let line = gateway.log("an event is a dead letter");
    assert!(!line.to_string().contains("hidden"), "{line}");
    gateway.end();
}

#[test]
fn a_store_that_cannot_be_opened_ends_the_start_or_is_done_without() {
    let folder = directory("webhook-store");
    let text = config(&folder, 1, "");
    let first = Gateway::start("webhook-store-first", &text);
    fs::write(folder.join("systole.toml"), &text).unwrap();
    let refused = snapshot(&mut systole(&folder, &["serve", "--config", "systole.toml"]));
    assert!(refused.contains("another process uses"), "{refused}");
    assert!(refused.contains("hint: stop the other gateway"), "{refused}");
    let check = || snapshot(&mut systole(&folder, &["check", "--config", "systole.toml"]));
    let checked = check();
    let warning = "warning: on this machine the store cannot be opened: another process uses ";
    assert!(checked.starts_with("exit 0\n") && checked.contains(warning), "{checked}");
    assert!(checked.contains("\nhint: stop the other gateway"), "{checked}");
    let mut second = Gateway::start("webhook-store-second", &format!("{text}required = false\n"));
    assert_eq!(second.get("/readyz")["durable"], false);
    second.log("going on without a store, as configured");
    visit(&second, "ada");
    second.end();
    drop(first);
    let checked = check();
    assert!(!checked.contains("warning"), "{checked}");
    assert!(checked.contains("webhook \"game\" at http://127.0.0.1:1/hook gets join, leave"));
    assert!(checked.contains("store in ") && !checked.contains("hidden"), "{checked}");
    let file = folder.join("store/systole.db");
    fs::remove_file(&file).unwrap();
    fs::write(&file, "no database").unwrap();
    let checked = check();
    assert!(checked.contains("is not a database\nhint: ") && checked.contains(".recover"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "no database");
    let nowhere = text.replace("/store\"", "/none/store\"");
    fs::write(folder.join("systole.toml"), nowhere).unwrap();
    let checked = check();
    let hint = "\nhint: `path` in [store] is a directory that this user may write";
    assert!(checked.starts_with("exit 0\n") && checked.contains(hint), "{checked}");
    assert!(!folder.join("none").exists());
    for (bad, hint) in [
        (text.replace("[store]\n", "").replace("path = ", "#"), "[[webhook]] needs a [store]"),
        (text.replace("secret_file", "#"), "[[webhook]] has no `secret_file`"),
        (text.replace("name = \"game\"", "name = \"../game\""), "`name` must be 1 to 32"),
        (
            text.replace("[store]", "events = [\"jion\"]\n[store]"),
            "`events` must be one or a list of",
        ),
    ] {
        fs::write(folder.join("systole.toml"), bad).unwrap();
        let refused = snapshot(&mut systole(&folder, &["check", "--config", "systole.toml"]));
        assert!(refused.contains(hint), "{hint} in {refused}");
    }
}
