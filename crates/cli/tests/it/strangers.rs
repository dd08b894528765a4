//! Tests of `systole serve` against those who do not read its log, who connect and say nothing, or
//! whose identity is made to be printed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use socket2::SockRef;
use systole_core::Span;
use systole_core::text::is_harmful;
use systole_net::Clock;

use crate::client::{Client, named};
use crate::gateway::{Gateway, unhurried, wait};
use crate::program::SOON;
use crate::{directory, snapshot, systole};

/// More than the verdicts on sessions that are kept, and far more than the events.
const STRANGERS: usize = 10_500;

/// Longest time for an answer of a gateway whose log is stuck, on a busy machine; without a limit
/// there would be none at all.
const ANSWER_WITHIN: Span = Span::from_secs(10);

/// Starts a gateway whose stderr nobody reads, and logs heartbeats until lines are dropped. Returns
/// it with its client.
fn stuck(name: &str, settings: &str) -> (Gateway, TcpStream) {
    let config = format!("{}[log]\nheartbeats = true\n{settings}", unhurried());
    let gateway = Gateway::start_unread(name, &config);
    let mut client = gateway.connect("line");
    let mut answers = vec![0; 5 * 1_000];
    wait("a dropped line", || {
        client.write_all(&b"ping\n".repeat(1_000)).expect("the gateway reads");
        client.read_exact(&mut answers).expect("the gateway answers");
        (gateway.metric("systole_log_dropped_total") > 0.0).then_some(())
    });
    (gateway, client)
}

#[test]
fn a_log_that_nobody_reads_holds_up_neither_health_nor_control_nor_a_drain() {
    let (mut gateway, client) = stuck("strangers-stuck", "");
    let clock = Clock::start();
    assert_eq!(gateway.status("/healthz"), 200);
    assert_eq!(gateway.status("/readyz"), 200);
    let session = gateway.sessions("&listener=line", 1).remove(0);
    let hold = format!("POST /api/v1/sessions/{}/hold", session["session"].as_str().unwrap());
    gateway.ask(&hold, "{\"seconds\": 1}");
    assert!(clock.monotonic() < ANSWER_WITHIN, "{}", clock.monotonic());
    drop(client);
    let clock = Clock::start();
    gateway.program.signal("TERM");
    assert_eq!(gateway.program.end(), 0);
    assert!(clock.monotonic() < ANSWER_WITHIN, "{}", clock.monotonic());
}

#[test]
fn a_second_sigterm_ends_a_gateway_whose_log_nobody_reads() {
    let (mut gateway, _client) = stuck("strangers-stuck-drain", "[drain]\nlimit = \"1h\"\n");
    let clock = Clock::start();
    gateway.program.signal("TERM");
    // The client does not close, so that the drain would take an hour.
    wait("the drain", || (gateway.status("/readyz") == 503).then_some(()));
    gateway.program.signal("TERM");
    assert_eq!(gateway.program.end(), 1);
    assert!(clock.monotonic() < ANSWER_WITHIN, "{}", clock.monotonic());
}

#[test]
fn lines_that_were_dropped_are_told_once_the_log_is_read_again() {
    let (mut gateway, client) = stuck("strangers-told", "");
    gateway.program.read_stderr();
    let told = gateway.log("lines of this log were dropped");
    assert!(told["lines"].as_u64().unwrap() > 0, "{told}");
    assert_eq!(told["level"], "WARN");
    drop(client);
    gateway.end();
}

/// Connects and goes away without a byte.
fn pass_by(address: SocketAddr) {
    let stream = TcpStream::connect(address).expect("it listens");
    // A reset leaves no port behind that has to wait.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("it is open");
}

#[test]
fn strangers_are_counted_and_wash_nothing_out() {
    let mut gateway = Gateway::start("strangers-many", &unhurried());
    let mut session = gateway.connect("line");
    session.write_all(b"ping\n").expect("it listens");
    let online = gateway.sessions("&listener=line", 1).remove(0);
    let mut events = gateway.events(None);
    events.until("live");
    drop(session);
    let leave = events.until("leave");
    let native = gateway.address("native");
    (0..STRANGERS).for_each(|_| pass_by(native));
    wait("the count of the strangers", || {
        (gateway.metric("systole_strangers_total") == STRANGERS as f64).then_some(())
    });

    // There was no event but stalls of a busy machine, and the verdict on the session is kept.
    let mut again = gateway.connect("line");
    again.write_all(b"ping\n").expect("it listens");
    let number = |event: &Value| event["number"].as_u64().unwrap();
    let mut last = number(&leave.data);
    loop {
        let event = events.next();
        last += 1;
        assert_eq!(number(&event.data), last, "an event is missing");
        if event.kind == "join" {
            break;
        }
        assert_eq!(event.kind, "stalled");
    }
    let id = online["session"].as_str().unwrap();
    assert_eq!(gateway.status(&format!("/api/v1/sessions/{id}/why")), 200);
    let verdicts = gateway.get("/api/v1/verdicts?limit=500");
    let verdicts = verdicts["verdicts"].as_array().unwrap();
    assert_eq!(verdicts.len(), 1, "{verdicts:?}");
    assert_eq!(verdicts[0]["session"], id);
    let strangers = gateway.get("/api/v1/verdicts?limit=500&established=false");
    let strangers = strangers["verdicts"].as_array().unwrap();
    assert_eq!(strangers.len(), 500);
    assert!(strangers.iter().all(|verdict| verdict["established"] == false));

    // One line sums up those of the first second; the others are summed up a minute later.
    let summary = gateway.log("connections that never became a session");
    assert!((1..=STRANGERS as u64).contains(&summary["connections"].as_u64().unwrap()));
    assert!(summary["causes"].as_str().unwrap().starts_with("peer_"), "{summary}");
    assert_eq!(summary["example_listener"], "native");
    assert!(summary["example_address"].as_str().unwrap().starts_with("127.0.0.1:"));
    drop(again);
    gateway.program.signal("TERM");
    assert_eq!(gateway.program.end(), 0);
    let mut rest = Vec::new();
    rest.extend(std::iter::from_fn(|| gateway.program.stderr_line()));
    let all = rest.iter().find(|line| line.contains("never became a session, since the start"));
    let all: Value = serde_json::from_str(all.expect("the last summary")).expect("it is JSON");
    assert_eq!(all["connections"], STRANGERS);
    assert!(rest.len() < 20, "{} lines, such as {:?}", rest.len(), rest.first());
}

#[test]
fn an_http_health_check_of_a_line_listener_is_no_session() {
    let gateway = Gateway::start("strangers-http", &unhurried());
    let mut events = gateway.events(None);
    events.until("live");
    let mut all_events = gateway.events_of("/api/v1/events?strangers=true", None);
    all_events.until("live");
    let mut check = gateway.connect("line");
    check.write_all(b"GET / HTTP/1.1\r\nHost: gateway\r\n\r\n").expect("it listens");
    let mut answer = Vec::new();
    // Closed with unread bytes, or without.
    let _ = check.read_to_end(&mut answer);
    assert_eq!(answer, b"");
    wait("the count", || {
        let count = gateway.metric("systole_strangers_total{cause=\"protocol\"}");
        (count == 1.0).then_some(())
    });
    let verdicts = gateway.get("/api/v1/verdicts?established=false");
    assert_eq!(verdicts["verdicts"][0]["detail"], "illegal bytes: HTTP request");
    let stranger = all_events.until("stranger");
    assert_eq!(stranger.id, None);
    assert_eq!(stranger.data["detail"], "illegal bytes: HTTP request");
    assert_eq!(gateway.get("/api/v1/verdicts")["verdicts"], json!([]));
    let mut client = gateway.connect("line");
    client.write_all(b"GET / HTTP/1\n").expect("it listens");
    let mut event = events.next();
    while event.kind == "stalled" {
        event = events.next();
    }
    assert_eq!(event.kind, "join", "the first event is that of a client");
}

#[test]
fn a_flood_of_connections_does_not_overflow_the_queue_of_the_admin_interface() {
    let gateway = Gateway::start("strangers-queue", &unhurried());
    gateway.program.signal("STOP");
    let at_once = Duration::from_millis(500);
    let connect = |_| TcpStream::connect_timeout(&gateway.admin(), at_once);
    let flood: Vec<_> = (0..500).map(connect).collect();
    gateway.program.signal("CONT");
    assert_eq!(flood.iter().filter(|connected| connected.is_err()).count(), 0);
    assert_eq!(gateway.status("/healthz"), 200);
}

/// Logs in with this identity; `None` if the gateway sends the client away.
fn log_in(gateway: &Gateway, identity: &str) -> Option<Client> {
    Client::log_in(gateway.connect("native"), named(identity), SOON)
}

/// Asserts that a text has no character that a terminal would obey.
pub(crate) fn assert_harmless(text: &str) {
    let lines = text.lines().flat_map(|line| line.trim_end_matches('\r').chars());
    assert!(!lines.into_iter().any(is_harmful), "{text:?}");
}

#[test]
fn an_identity_controls_neither_logs_nor_tools_nor_answers() {
    for identity in ["x\nlevel=INFO msg=join", "\u{1b}[2J", "\u{7f}", "\u{9b}31m"] {
        let config = format!("{}[log]\nlevel = \"debug\"\n", unhurried());
        let mut gateway = Gateway::start("strangers-illegal", &config);
        assert!(log_in(&gateway, identity).is_none(), "{identity:?}");
        let why = wait("the verdict", || {
            let page = gateway.get("/api/v1/verdicts?established=false&cause=protocol");
            page["verdicts"].as_array().unwrap().first().cloned()
        });
        assert_eq!(why["detail"], "illegal bytes: control character in a text");
        let line = gateway.log("never a session");
        assert_eq!((&line["level"], &line["cause"]), (&json!("DEBUG"), &json!("protocol")));
        gateway.end();
    }
    // Legal, but made to be shown in another order.
    let identity = "\u{202e}nimda\u{2066} = \"a\" b";
    for format in ["human", "json"] {
        let config = format!("{}[log]\nformat = \"{format}\"\n", unhurried());
        let mut gateway = Gateway::start(&format!("strangers-{format}"), &config);
        let mut events = gateway.events(None);
        events.until("live");
        let client = log_in(&gateway, identity).expect("it is legal");
        assert_eq!(events.until("join").data["identity"], identity);
        let session = gateway.sessions("&listener=native", 1).remove(0);
        assert_eq!(session["identity"], json!(identity));
        let id = session["session"].as_str().unwrap();
        for path in ["/api/v1/sessions", &format!("/api/v1/sessions/{id}")] {
            assert_harmless(&gateway.request(&format!("GET {path}"), "").unwrap().1);
        }
        assert_harmless(&gateway.raw_events());
        let shown = snapshot(&mut gateway.tool(&["why", id]));
        assert_harmless(&shown);
        let quoted = "\"\\u202enimda\\u2066 = \\\"a\\\" b\"";
        assert!(shown.contains(&format!(" of {quoted} from ")), "{shown}");
        assert_harmless(&snapshot(&mut gateway.tool(&["why", id, "--json"])));
        drop(client);
        events.until("leave");
        gateway.program.signal("TERM");
        assert_eq!(gateway.program.end(), 0);
        let log: Vec<_> = std::iter::from_fn(|| gateway.program.stderr_line()).collect();
        log.iter().for_each(|line| assert_harmless(line));
        let joins = log.iter().filter(|line| line.contains("join")).collect::<Vec<_>>();
        let [join] = &joins[..] else { panic!("{joins:?}") };
        assert!(join.contains(quoted), "{join}");
    }
}

#[test]
fn a_configuration_controls_no_terminal() {
    let directory = directory("strangers-check");
    for config in
        ["[[listener]]\nname = \"\\u001b[2J\\u202e\"\naddress = \"x\u{1b}[2J\"\n", "\u{9b}=1"]
    {
        std::fs::write(directory.join("systole.toml"), config).expect("it is writable");
        let shown = snapshot(&mut systole(&directory, &["check"]));
        assert!(shown.starts_with("exit 2\n"), "{shown}");
        assert_harmless(&shown);
    }
}
