//! Bans over a restart: a gateway with a store is killed, and those who were banned stay out.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use systole_core::random::Random;
use systole_core::wire::CloseReason;

use crate::client::{Client, Goodbye, named};
use crate::gateway::{Gateway, connect_with_timeout, unhurried};
use crate::program::SOON;
use crate::{directory, snapshot, systole};

/// Gateways that are killed while bans come.
const KILLS: u64 = 8;

/// A configuration with a store in `folder`, and without a webhook.
fn with_store(folder: &Path) -> String {
    unhurried() + &format!("[store]\npath = {:?}\n", folder.join("store"))
}

fn log_in(gateway: &Gateway, identity: &str) -> Result<Client, Goodbye> {
    Client::ask(gateway.connect("native"), named(identity), SOON).expect("an answer")
}

/// Asks for a ban; returns the answer if there is one before the gateway is killed.
fn ban(admin: SocketAddr, body: &Value) -> Option<Value> {
    let mut stream = connect_with_timeout(admin).ok()?;
    let (body, mut answer) = (body.to_string(), String::new());
    let head = format!("POST /api/v1/bans HTTP/1.0\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).ok()?;
    stream.read_to_string(&mut answer).ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    serde_json::from_str(body).ok()
}

#[test]
fn a_ban_survives_a_kill_with_what_is_left_of_it_and_so_does_its_end() {
    let folder = directory("bans-store");
    let config = with_store(&folder);
    let gateway = Gateway::start("bans", &config);
    let file = gateway.file("systole.toml");
    let file = file.to_str().expect("a path");
    let checked = snapshot(&mut systole(&folder, &["check", "--config", file]));
    assert!(checked.contains("store for bans alone in "), "{checked}");
    let mut ada = log_in(&gateway, "ada").expect("nobody is banned");
    let ask = |gateway: &Gateway, body: Value| gateway.ask("POST /api/v1/bans", &body.to_string());
    let wish = json!({"identity": "ada", "seconds": 3_600, "text": "an hour"});
    assert_eq!(ask(&gateway, wish), json!({"ended": 1, "lost_at_restart": false}));
    assert_eq!(ada.goodbye().reason, CloseReason::Kicked);
    ask(&gateway, json!({"device": "a7".repeat(16), "seconds": 60}));
    let until = |gateway: &Gateway| {
        let list = gateway.get("/api/v1/bans");
        assert_eq!(list["lost_at_restart"], false, "{list}");
        let all = list["bans"].as_array().expect("a list").clone();
        let of_ada = all.iter().find(|ban| ban["identity"] == "ada");
        (all.len(), of_ada.map(|ban| ban["until_ms"].as_u64().expect("a number")))
    };
    let (count, before) = until(&gateway);
    assert_eq!(count, 2);
    // Dropping it is kill -9.
    drop(gateway);
    let mut gateway = Gateway::start("bans", &config);
    gateway.log("the bans of the store are in force");
    let said = log_in(&gateway, "ada").err().expect("it is banned");
    assert_eq!((said.reason, &*said.text), (CloseReason::Kicked, "an hour"));
    let list = gateway.get("/api/v1/bans");
    assert!(list["bans"][0]["text"] == "an hour" && list["bans"][1]["text"].is_null(), "{list}");
    let (count, after) = until(&gateway);
    let (before, after) = (before.expect("banned"), after.expect("banned"));
    assert!(count == 2 && after.abs_diff(before) < 1_000, "{before}, {after}");
    assert!(log_in(&gateway, "bob").is_ok(), "others are welcome");
    let end = json!({"identity": "ada", "seconds": 0});
    let ended = |found| json!({"ended": 0, "found": found, "lost_at_restart": false});
    assert_eq!(ask(&gateway, end.clone()), ended(true));
    assert_eq!(ask(&gateway, end), ended(false), "it was over");
    drop(gateway);
    let mut gateway = Gateway::start("bans", &config);
    let _ada = log_in(&gateway, "ada").expect("its end was not forgotten");
    let kick = json!({"ban": {"seconds": 60, "of": ["address"]}}).to_string();
    let session = gateway.sessions("&identity=ada", 1)[0]["session"].clone();
    let path = format!("POST /api/v1/sessions/{}/kick", session.as_str().expect("a text"));
    assert_eq!(gateway.ask(&path, &kick)["lost_at_restart"], false);
    gateway.end();
    let gateway = Gateway::start("bans", &config);
    let mut closed = gateway.connect("native");
    assert_eq!(closed.read(&mut [0]).unwrap_or(0), 0, "its address is banned from the start");
}

#[test]
fn no_ban_that_was_answered_is_lost_however_often_the_gateway_is_killed() {
    let folder = directory("bans-killed-store");
    let config = with_store(&folder);
    let mut chance = Random::new(7);
    let mut answered = Vec::new();
    for round in 0..KILLS {
        let gateway = Gateway::start("bans-killed", &config);
        let admin = gateway.admin();
        let banning: Vec<_> = (0..2)
            .map(|thread| {
                thread::spawn(move || {
                    let name = |number| format!("{round} {thread} {number}");
                    let bans = (0..1_000).map_while(|number| {
                        let wish = json!({"identity": name(number), "seconds": 3_600});
                        let answer = ban(admin, &wish)?;
                        assert_eq!(answer["lost_at_restart"], false, "{answer}");
                        Some(name(number))
                    });
                    bans.collect::<Vec<_>>()
                })
            })
            .collect();
        thread::park_timeout(Duration::from_millis(30 + chance.below(100)));
        drop(gateway);
        for thread in banning {
            answered.extend(thread.join().expect("all answers are right"));
        }
    }
    let gateway = Gateway::start("bans-killed", &config);
    let list = gateway.get("/api/v1/bans");
    let all: Vec<_> = list["bans"].as_array().expect("a list").iter().collect();
    assert!(answered.len() as u64 >= KILLS, "{} answers", answered.len());
    for name in &answered {
        assert!(all.iter().any(|ban| ban["identity"] == name.as_str()), "{name} is lost");
    }
}

#[test]
fn ping_says_when_a_gateway_that_refuses_it_wants_it_back() {
    let gateway = Gateway::start("bans-ping", &unhurried());
    let wish = json!({"identity": "ada", "seconds": 3_600});
    gateway.ask("POST /api/v1/bans", &wish.to_string());
    let address = gateway.address("native").to_string();
    let ping = |more: &[&str]| {
        let args = [&["ping", &address, "--identity", "ada"][..], more].concat();
        snapshot(&mut systole(Path::new("."), &args))
    };
    for verbose in [&[][..], &["-v"]] {
        let shown = ping(verbose);
        assert!(shown.contains("kicked; come back in 35"), "{shown}");
    }
    let shown = ping(&["--json"]);
    assert!(shown.contains("\"return_after_ms\":35"), "{shown}");
}
