//! Tests of messages from outside: over the admin interface to real clients.

use std::io::{Read, Write};

use serde_json::{Value, json};
use systole_core::wire::{BootId, CloseReason, Hello};

use crate::client::{Client, named};
use crate::gateway::{Gateway, unhurried, wait};
use crate::program::{Program, SOON};
use crate::systole;

/// Logs a client in; `None` if it is sent away.
fn log_in(gateway: &Gateway, hello: Hello<'_>) -> Option<Client> {
    Client::log_in(gateway.connect("native"), hello, SOON)
}

/// Logs in a client that is welcome.
fn online(gateway: &Gateway, identity: &str) -> Client {
    log_in(gateway, named(identity)).expect("it is welcome")
}

fn reach(queued: u64, none: u64, unfit: u64) -> Value {
    json!({"queued": queued, "away": 0, "none": none, "unfit": unfit, "busy": 0})
}

#[test]
fn a_backend_reaches_sessions_identities_and_all_and_each_codec_gets_what_it_can_carry() {
    let gateway = Gateway::start("sending", &unhurried());
    let mut ada = online(&gateway, "ada/1");
    let mut bob = online(&gateway, "bob");
    let mut line = gateway.connect("line");
    line.set_read_timeout(Some(SOON)).unwrap();
    // The first line introduces it, and comes back.
    line.write_all(b"here\n").unwrap();
    line.read_exact(&mut [0; 5]).unwrap();
    let session = gateway.sessions("&identity=bob", 1)[0]["session"].as_str().unwrap().to_owned();
    let post = |path: &str, message: &str| gateway.ask(&format!("POST /api/v1{path}"), message);
    assert_eq!(post(&format!("/sessions/{session}/send"), "to bob"), reach(1, 0, 0));
    assert_eq!(bob.message(), b"to bob");
    assert_eq!(post("/identities/ada%2F1/send", "to ada"), reach(1, 0, 0));
    assert_eq!(ada.message(), b"to ada");
    assert_eq!(post("/identities/nobody/send", "?"), reach(0, 1, 0));
    assert_eq!(post("/broadcast?all=true", "to all"), reach(3, 0, 0));
    assert_eq!((ada.message(), bob.message()), (b"to all".to_vec(), b"to all".to_vec()));
    let mut heard = [0; 7];
    line.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"to all\n");
    assert_eq!(post("/broadcast?listener=line", "two\nlines"), reach(0, 0, 1));
    let long = "x".repeat(60_000);
    assert_eq!(post("/broadcast?listener=native", &long), reach(2, 0, 0));
    assert_eq!(ada.message(), long.as_bytes(), "in pieces, and whole");
    assert_eq!(post("/broadcast?attribute=role=pilot", "?"), reach(0, 0, 0));
    let presence = gateway.get("/api/v1/presence/ada%2F1");
    assert_eq!((&presence["state"], &presence["identity"]), (&json!("online"), &json!("ada/1")));
    drop(ada);
    let last = wait("ada to be offline", || {
        let presence = gateway.get("/api/v1/presence/ada%2F1");
        assert_ne!(presence["state"], "unknown", "it was online a moment ago");
        (presence["state"] == "offline").then(|| presence["last"].clone())
    });
    assert_eq!(last["cause"], "peer_exited");
}

#[test]
fn a_client_that_does_not_read_is_busy_and_not_ended_for_what_others_send() {
    let gateway = Gateway::start("sending-busy", &unhurried());
    let _silent = online(&gateway, "silent");
    let message = "x".repeat(60_000);
    let send = || gateway.ask("POST /api/v1/identities/silent/send", &message);
    wait("the outbox to be full", || (send()["busy"] == 1).then_some(()));
    assert_eq!(gateway.get("/api/v1/presence/silent")["state"], "online");
}

#[test]
fn the_text_of_a_kick_reaches_the_people_at_the_client_escaped() {
    let gateway = Gateway::start("sending-kick", &unhurried());
    let address = gateway.address("native").to_string();
    let folder = crate::directory("sending-kick-client");
    let args = ["ping", &address, "--identity", "ada"];
    let mut ping = Program::start(&mut systole(&folder, &args));
    let session = gateway.sessions("&identity=ada", 1)[0]["session"].as_str().unwrap().to_owned();
    let kick = format!("POST /api/v1/sessions/{session}/kick");
    let (status, _) = gateway.request(&kick, r#"{"text": "a\nb"}"#).unwrap();
    assert_eq!(status, 400, "control characters are no text for people");
    gateway.ask(&kick, r#"{"stay_away": true, "text": "maintenance \u202e until noon"}"#);
    let line = ping.until("connection lost");
    assert!(line.contains("kicked"), "{line}");
    assert!(line.contains(": maintenance \\u202e until noon"), "{line}");
}

#[test]
fn a_ban_ends_who_is_online_and_keeps_out_who_comes_back_until_it_ends() {
    let gateway = Gateway::start("sending-ban", &unhurried());
    let mut ada = online(&gateway, "ada");
    let mut bob = online(&gateway, "bob");
    let ban = |body: Value| gateway.ask("POST /api/v1/bans", &body.to_string());
    let wish = json!({"identity": "ada", "seconds": 3_600, "text": "come back in an hour"});
    assert_eq!(ban(wish), json!({"ended": 1, "lost_at_restart": true}));
    let said = ada.goodbye();
    assert_eq!((said.reason, said.return_after_ms), (CloseReason::Kicked, 3_600_000));
    assert_eq!(said.text, "come back in an hour");
    let back = Client::ask(gateway.connect("native"), named("ada"), SOON).expect("an answer");
    let said = back.err().expect("it is banned");
    assert_eq!(said.reason, CloseReason::Kicked);
    let rest = 3_500_000..=3_600_000;
    assert!(rest.contains(&said.return_after_ms), "the rest of the hour: {said:?}");
    let bans = gateway.get("/api/v1/bans");
    assert_eq!(bans["bans"][0]["identity"], "ada");
    assert_eq!(
        ban(json!({"identity": "ada", "seconds": 0})),
        json!({"ended": 0, "found": true, "lost_at_restart": true})
    );
    drop(online(&gateway, "ada"));
    wait("ada to be offline", || {
        (gateway.get("/api/v1/presence/ada")["state"] == "offline").then_some(())
    });
    // The address of all clients here.
    assert_eq!(
        ban(json!({"address": "127.0.0.1", "seconds": 60})),
        json!({"ended": 1, "lost_at_restart": true})
    );
    bob.goodbye();
    let mut closed = gateway.connect("native");
    closed.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(closed.read(&mut [0]).unwrap_or(0), 0, "closed at once");
    assert_eq!(gateway.metric("systole_turned_away_total{reason=\"banned\"}"), 1.0);
    for bad in [
        json!({"seconds": 5}),
        json!({"identity": "ada"}),
        json!({"identity": "ada", "address": "127.0.0.1", "seconds": 5}),
        json!({"device": "7", "seconds": 5}),
        json!({"address": "nowhere", "seconds": 5}),
    ] {
        let (status, answer) = gateway.request("POST /api/v1/bans", &bad.to_string()).unwrap();
        assert_eq!(status, 400, "{bad}: {answer}");
    }
}

#[test]
fn a_kick_can_keep_out_the_identity_and_the_device_of_a_session() {
    let gateway = Gateway::start("sending-kick-ban", &unhurried());
    let device = |id: u8| BootId([id; 16]);
    let hello = |identity, boot_id| Hello { identity, boot_id, ..Hello::default() };
    let mut ada = log_in(&gateway, hello("ada", device(1))).expect("welcome");
    let mut bob = log_in(&gateway, hello("bob", device(1))).expect("welcome");
    let _eve = log_in(&gateway, hello("eve", device(2))).expect("welcome");
    let session = gateway.sessions("&identity=ada", 1)[0]["session"].as_str().unwrap().to_owned();
    let kick = format!("POST /api/v1/sessions/{session}/kick");
    let ban = json!({"seconds": 3_600, "of": ["identity", "device"]});
    let wish = json!({"text": "until one", "ban": ban}).to_string();
    let answer = gateway.ask(&kick, &wish);
    assert_eq!(answer["ended"], 2, "{answer}: two sessions of the device");
    assert_eq!(answer["banned"][0]["identity"], "ada");
    assert_eq!(answer["banned"][1]["device"], "01".repeat(16));
    for client in [&mut ada, &mut bob] {
        let said = client.goodbye();
        assert_eq!((said.reason, said.return_after_ms), (CloseReason::Kicked, 3_600_000));
        assert_eq!(said.text, "until one");
    }
    for (identity, id, is_welcome) in
        [("ada", 3, false), ("bob", 1, false), ("bob", 3, true), ("eve", 2, true)]
    {
        let client = log_in(&gateway, hello(identity, device(id)));
        assert_eq!(client.is_some(), is_welcome, "{identity} at device {id}");
    }
    assert_eq!(gateway.request(&kick, &wish).unwrap().0, 404, "it is not online any more");
}
