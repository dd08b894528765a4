//! Tests of `systole serve` as a process, with clients that share no code with it.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};
use systole_core::Span;
use systole_net::Clock;

use crate::gateway::{Gateway, ONE_SECOND, unhurried};
use crate::outside::Outside;
use crate::program::Program;
use crate::{directory, snapshot, systole};

/// Tolerated lateness of a verdict, as a client sees it.
const TOLERANCE_MS: f64 = 200.0;

fn client(gateway: &Gateway, outside: &Outside, args: &[&str]) -> Program {
    let port = gateway.port(outside.protocol);
    outside.start(&[&["client", "127.0.0.1", &port][..], args].concat())
}

fn native(name: &str) -> impl Iterator<Item = Outside> {
    Outside::all(name).into_iter().filter(|outside| outside.protocol == "native")
}

fn printed(program: &Program, text: &str) -> bool {
    program.seen.iter().any(|line| line.starts_with(text))
}

/// Connects to the `line` listener and exchanges one heartbeat.
fn line(gateway: &Gateway) -> TcpStream {
    let mut stream = gateway.connect("line");
    assert!(beats(&mut stream));
    stream
}

/// Whether the gateway answers a heartbeat.
fn beats(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 5];
    stream.write_all(b"ping\n").is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && &answer == b"pong\n"
}

#[test]
fn it_starts_and_serves_health_and_metrics() {
    let mut gateway = Gateway::start("serve-starts", &unhurried());
    gateway.log("listening");
    assert_eq!(gateway.status("/healthz"), 200);
    assert_eq!(gateway.status("/readyz"), 200);
    let _client = line(&gateway);
    gateway.sessions("&listener=line", 1);
    let scrape = gateway.get("/metrics");
    let scrape = scrape.as_str().expect("no JSON");
    assert!(scrape.ends_with("# EOF\n"), "{scrape}");
    assert!(scrape.contains("systole_build_info{version="), "{scrape}");
    assert_eq!(gateway.metric("systole_sessions_online"), 1.0);
    gateway.end();
}

#[test]
fn outside_clients_are_answered_probed_and_kept() {
    let gateway = Gateway::start("serve-clients", ONE_SECOND);
    for outside in Outside::all("serve-clients-build") {
        let label = outside.label();
        let args = ["--pings", "3", "--every", "20", "--business", "hp=97", "--pieces", "3"];
        let data = ["--data", "hello there", "--expect-echo", "--stay", "1500"];
        let mut client = client(&gateway, &outside, &[&args[..], &data].concat());
        assert_eq!(client.end(), 0, "{label}: {:?}", client.seen);
        assert!(printed(&client, "received PONG 3"), "{label}: {:?}", client.seen);
        assert!(printed(&client, "received DATA of 11 bytes: hello there"), "{label}");
        // Silent but for its answers, for longer than the bound.
        assert!(printed(&client, "received PING 1"), "{label}: {:?}", client.seen);
    }
    assert_eq!(gateway.metric("systole_verdict_lateness_seconds_count"), 0.0);
}

#[test]
fn silence_is_detected_within_the_bound() {
    let gateway = Gateway::start("serve-silence", ONE_SECOND);
    for outside in Outside::all("serve-silence-build") {
        let label = outside.label();
        let args = ["--data", "hello", "--silent-after", "100"];
        let mut client = client(&gateway, &outside, &args);
        assert_eq!(client.end(), 0, "{label}: {:?}", client.seen);
        let last = client.seen.last().expect("it printed how it ended");
        let number = last.strip_prefix("closed by the other end ").expect(last);
        let elapsed: f64 = number.split(' ').next().unwrap().parse().expect(last);
        // A stall of the gateway moves its deadlines.
        let stalled = gateway.metric("systole_stalled_seconds_total") * 1_000.0;
        let latest = 1_000.0 + TOLERANCE_MS + stalled;
        assert!((999.0..latest).contains(&elapsed), "{label}: {elapsed} ms, {stalled} stalled");
        if outside.protocol == "native" {
            assert!(printed(&client, "received CLOSE 3 (silent)"), "{label}: {:?}", client.seen);
        }
    }
}

#[test]
fn a_changed_policy_is_in_force_at_both_ends() {
    for outside in native("serve-retune-build") {
        let gateway = Gateway::start("serve-retune", ONE_SECOND);
        let mut client = client(&gateway, &outside, &["--stay", "20000", "--identity", "ada"]);
        client.until("idle 400 interval 200 probes 3");
        let session = gateway.sessions("&identity=ada", 1).remove(0);
        let path = format!("/api/v1/sessions/{}", session["session"].as_str().unwrap());
        assert_eq!(gateway.get(&path)["policy"]["bound_ms"], 1_000);
        assert!(session["epoch"].as_str().unwrap().parse::<u64>().unwrap() > 1 << 53);

        let wish = "{\"idle_ms\": 10000, \"interval_ms\": 3000, \"probes\": 3}";
        let answer = gateway.ask("PUT /api/v1/listeners/native/policy", wish);
        assert_eq!(answer["new"]["bound_ms"], 19_000);
        client.until("received RETUNE idle 10000 interval 3000 probes 3");
        assert_eq!(gateway.get(&path)["policy"]["bound_ms"], 19_000);

        gateway.rewrite(&ONE_SECOND.replace("400ms", "700ms"));
        gateway.program.signal("HUP");
        client.until("received RETUNE idle 700 interval 200 probes 3");
        assert_eq!(gateway.get(&path)["policy"]["bound_ms"], 1_300);

        gateway.ask(&format!("POST {path}/kick"), "{\"stay_away\": true}");
        client.until("received CLOSE 2 (kicked) flags 1 return-after 0");
        assert_eq!(client.end(), 0);
        let ended = gateway.get(&path);
        assert_eq!((&ended["state"], &ended["cause"]), (&"ended".into(), &"kicked".into()));
    }
}

#[test]
fn sigterm_drains() {
    let config = format!("{ONE_SECOND}[drain]\nlimit = \"10s\"\nreconnect_within = \"1h\"\n");
    let mut gateway = Gateway::start("serve-drain", &config);
    let mut clients: Vec<_> = native("serve-drain-build")
        .zip(["ada", "bob", "cyd"])
        .map(|(outside, name)| client(&gateway, &outside, &["--stay", "20000", "--identity", name]))
        .collect();
    clients.iter_mut().for_each(|client| drop(client.until("welcome session")));
    // This client gets the goodbye and does not close, so that the drain takes a moment.
    let lingering = line(&gateway);
    let clock = Clock::start();
    gateway.program.signal("TERM");
    gateway.log("draining");
    assert_eq!(gateway.status("/readyz"), 503);
    assert_eq!(gateway.status("/healthz"), 200);
    for client in &mut clients {
        let close = client.until("received CLOSE 1 (drained) flags 0 return-after ");
        let number = close.split("return-after ").nth(1).unwrap().split(' ').next().unwrap();
        let return_after: u64 = number.parse().unwrap();
        assert!((1..=3_600_000).contains(&return_after), "{close}");
        assert_eq!(client.end(), 0);
    }
    assert_eq!(gateway.program.end(), 0);
    assert!(clock.monotonic() < Span::from_secs(10), "within its limit");
    drop(lingering);
}

#[test]
fn a_second_sigterm_ends_at_once() {
    let config = format!("{ONE_SECOND}[drain]\nlimit = \"1h\"\n");
    let mut gateway = Gateway::start("serve-second", &config);
    // This client does not close, so that the drain is not done before the second signal.
    let _lingering = line(&gateway);
    let mut events = gateway.events(None);
    events.until("live");
    gateway.program.signal("TERM");
    gateway.log("draining");
    gateway.program.signal("TERM");
    assert_eq!(events.until("leave").data["cause"], json!("drained"));
    events.end();
    assert_eq!(gateway.program.end(), 1);
    let last = gateway.log("cut short by a second signal");
    assert_eq!(last["level"], "ERROR");
    assert_eq!(gateway.program.stderr_line(), None, "nothing but the log");
}

#[test]
fn without_enforce_silent_peers_are_reported_and_kept() {
    let mut gateway = Gateway::start("serve-unenforced", &format!("enforce = false\n{ONE_SECOND}"));
    let mut silent = gateway.connect("line");
    silent.write_all(b"hello\n").unwrap();
    let overdue = gateway.log("overdue");
    let session = gateway.sessions("&suspect=true", 1).remove(0);
    assert_eq!(session["session"], overdue["session"]);
    assert_eq!(gateway.metric("systole_overdue_total"), 1.0);
    silent.write_all(b"hello again\n").unwrap();
    let mut heard = String::new();
    while !heard.contains("hello again\n") {
        let mut some = [0; 256];
        let count = silent.read(&mut some).unwrap();
        assert!(count > 0, "it was closed after {heard:?}");
        heard += std::str::from_utf8(&some[..count]).unwrap();
    }
    gateway.log("recovered");
}

#[test]
fn heartbeats_are_logged_while_enabled() {
    let mut gateway = Gateway::start("serve-heartbeats", &unhurried());
    let mut client = line(&gateway);
    gateway.log("join");
    gateway.ask("PUT /api/v1/log", "{\"heartbeats\": true}");
    // The shards apply the change in their next turn.
    let logged = (0..1_000).any(|_| {
        assert!(beats(&mut client));
        gateway.get("/api/v1/sessions");
        gateway.program.stderr_now().iter().any(|line| line.contains("ping received"))
    });
    assert!(logged);
    gateway.ask("PUT /api/v1/log", "{\"heartbeats\": false}");
    // All earlier log lines stand above the join of this client.
    let mut later = line(&gateway);
    gateway.log("join");
    for client in [&mut client, &mut later] {
        (0..10).for_each(|_| assert!(beats(client)));
    }
    drop(later);
    let next = gateway.program.stderr_line().expect("a line");
    assert!(next.contains("\"leave\""), "{next}");
}

#[test]
fn off_loopback_the_admin_interface_needs_a_token() {
    let directory = directory("serve-exposed");
    let args = ["serve", "--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0"];
    let shown = snapshot(&mut systole(&directory, &args));
    assert!(shown.starts_with("exit 2\n"), "{shown}");
    assert!(shown.contains("can be reached from outside"), "{shown}");
}

#[test]
fn the_log_is_json_and_holds_no_secret() {
    let secrets =
        ["operators-secret-0123456789", "clients-secret-token", "private-payload", "nosy"];
    let [admin, token, payload, wrong] = secrets;
    let config = format!("{ONE_SECOND}[log]\nlevel = \"trace\"\nheartbeats = true\n");
    let mut gateway = Gateway::start_by("serve-secrets", &config, |command| {
        command.env("SYSTOLE_ADMIN_TOKEN", admin);
    });
    for outside in Outside::all("serve-secrets-build") {
        let secret = ["--token", token, "--data", payload, "--business", payload];
        let args = [&["--pings", "2", "--every", "20", "--expect-echo"][..], &secret].concat();
        assert_eq!(client(&gateway, &outside, &args).end(), 0);
    }
    let mut garbage = gateway.connect("native");
    garbage.write_all(payload.as_bytes()).unwrap();
    for (given, expected) in [(admin, 200), (wrong, 401)] {
        let head = format!("GET /api/v1/sessions\nAuthorization: Bearer {given}\r\n");
        assert_eq!(gateway.request(&head, "").unwrap().0, expected);
    }
    assert_eq!(gateway.status("/healthz"), 200);
    gateway.end();
    let lines: Vec<_> = std::iter::from_fn(|| gateway.program.stderr_line()).collect();
    assert!(lines.len() > 10, "{lines:#?}");
    for line in lines {
        let value: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        assert!(value["timestamp"].is_string() && value["level"].is_string(), "{line}");
        for secret in secrets {
            assert!(!line.contains(secret), "{line}");
        }
    }
}

#[test]
fn events_begin_with_a_snapshot_and_resume_after_an_id() {
    let gateway = Gateway::start("serve-events", &unhurried());
    let mut here = line(&gateway);
    let online = gateway.sessions("", 1).remove(0);
    let mut events = gateway.events(None);
    assert_eq!(events.next().kind, "snapshot");
    let session = events.next();
    assert_eq!((session.kind.as_str(), &session.data["session"]), ("session", &online["session"]));
    let live = events.until("live");
    assert!(live.id.is_some());

    let second = line(&gateway);
    let join = events.until("join");
    assert_eq!(join.data["listener"], "line");
    assert!(join.data["epoch"].is_string());
    drop(second);
    let leave = events.until("leave");
    assert_eq!(leave.data["session"], join.data["session"]);
    assert_eq!(leave.data["cause"], json!("peer_exited"));
    let number = |event: &Value| event["number"].as_u64().unwrap();
    assert!(number(&live.data) < number(&join.data));
    assert!(number(&join.data) < number(&leave.data));

    drop(events);
    let third = line(&gateway);
    let mut resumed = gateway.events(join.id.as_deref());
    let again = resumed.next();
    assert_eq!((again.kind.as_str(), &again.id), ("leave", &leave.id), "and no snapshot");
    let join = resumed.until("join");
    assert_eq!(number(&join.data), number(&leave.data) + 1);
    drop(third);
    assert!(beats(&mut here));
}

#[test]
fn a_drained_client_reconnects_in_its_slot() {
    // An address of its own, so that no other test takes the port between the two gateways.
    let address = "address = \"127.0.0.1:0\"";
    // Its sessions end with the gateway in any case, and these clients learn it at once.
    let ends = "address = \"127.77.0.1:0\"\nresume_window = \"0s\"";
    let config = ONE_SECOND.replacen(address, ends, 1);
    let config = format!("{config}[drain]\nreconnect_within = \"6s\"\n");
    let mut first = Gateway::start("serve-first", &config);
    let address = first.address("native").to_string();
    let args = ["ping", &address, "--reconnect", "--json", "--idle", "1"];
    let here = std::path::Path::new(".");
    let mut pings: Vec<_> = (0..5).map(|_| Program::start(&mut systole(here, &args))).collect();
    let read = |line: String| serde_json::from_str::<Value>(&line).unwrap();
    let sessions: Vec<_> =
        pings.iter_mut().map(|ping| read(ping.until("\"connected\""))["session"].clone()).collect();
    first.end();
    let second = Gateway::start("serve-second-run", &config.replace("127.77.0.1:0", &address));
    assert_eq!(second.address("native").to_string(), address);
    let mut longest = 0;
    for (ping, session) in pings.iter_mut().zip(sessions) {
        let lost = read(ping.until("\"lost\""));
        assert_eq!(lost["cause"], "peer_closed");
        assert_eq!((&lost["reason"], &lost["stay_away"]), (&"drained".into(), &false.into()));
        assert!(lost["return_after_ms"].is_u64(), "{lost}");
        let after = read(ping.until("\"reconnecting\""))["after_ms"].as_u64().unwrap();
        longest = longest.max(after);
        let back = read(ping.until("\"reconnected\""));
        let took = back["time_ms"].as_u64().unwrap() - lost["time_ms"].as_u64().unwrap();
        assert!(took >= after && after <= 7_000, "{took} ms instead of {after}");
        assert_ne!(back["session"], session);
    }
    assert!(longest > 1_000, "five slots in 6 s, and none beyond {longest} ms");
    second.sessions("&listener=native", 5);
}
