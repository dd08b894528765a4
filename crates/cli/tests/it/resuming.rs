//! Tests of sessions that go on on another connection, by clients in C and Python that were written
//! from the protocol document alone.

use crate::gateway::{Gateway, unhurried, wait};
use crate::outside::{Outside, STAYS};

/// Small, so that each cut finds it full.
const WINDOW: u32 = 8;

/// How many messages a client sends, and after how many of them its connection is cut each time.
const MESSAGES: u32 = 300;
const CUT_AFTER: u32 = 7;

#[test]
fn each_message_arrives_once_in_both_directions_across_cuts() {
    let window = format!("window_messages = {WINDOW}\nshortest_bound");
    let config = unhurried().replacen("shortest_bound", &window, 1);
    let gateway = Gateway::start("resuming", &config);
    let port = gateway.port("native");
    let cuts = (MESSAGES - 1) / CUT_AFTER;
    let mut resumptions = 0.0;
    for outside in Outside::all("resuming-build") {
        if outside.protocol != "native" {
            continue;
        }
        let label = outside.label();
        let (messages, cut_after) = (MESSAGES.to_string(), CUT_AFTER.to_string());
        let args = ["client", "127.0.0.1", &port, "--messages", &messages];
        let more = ["--cut-after", &cut_after, "--identity", &label];
        let mut client = outside.start(&[&args[..], &more].concat());
        let (code, failed) = (client.end(), client.stderr_now());
        assert_eq!(code, 0, "{label}: {failed:?} {:?}", client.seen);
        let all =
            format!("all {MESSAGES} messages came back, each once, over {} connections", cuts + 1);
        assert!(client.seen.contains(&all), "{label}: {:?}", client.seen);
        // Each cut but the last ones, after which nothing is to be sent, loses a part of a message.
        let again = client.seen.iter().filter(|line| line.ends_with("1 are sent again"));
        assert!(again.count() as u32 >= cuts - 2, "{label}: {:?}", client.seen);
        let sessions = client.seen.iter().filter(|line| line.starts_with("welcome session "));
        let first = sessions.clone().next();
        assert!(sessions.clone().all(|line| Some(line) == first), "{label}: {:?}", client.seen);
        resumptions += f64::from(cuts);
        wait("the count of resumptions", || {
            (gateway.metric("systole_resumptions_total") == resumptions).then_some(())
        });
    }
    for nothing in ["systole_resumptions_gone_total", "systole_resumptions_refused_total"] {
        assert_eq!(gateway.metric(nothing), 0.0, "{nothing}");
    }
    wait("the end of both sessions", || {
        let rest = ["systole_sessions_away", "systole_sessions_online"];
        rest.iter().all(|name| gateway.metric(name) == 0.0).then_some(())
    });
}

#[test]
fn no_more_sessions_are_away_than_the_limit() {
    let config = unhurried().replacen("shards = 2", "shards = 1", 1);
    let window = "resume_window = \"1h\"\nshortest_bound";
    let config = config.replacen("shortest_bound", window, 1) + "[limits]\naway = 2\n";
    let gateway = Gateway::start("resuming-limit", &config);
    let mut events = gateway.events(None);
    let port = gateway.port("native");
    let Some(outside) =
        Outside::all("resuming-limit-build").into_iter().find(|it| it.protocol == "native")
    else {
        return;
    };
    let stays = ["client", "127.0.0.1", &port, "--messages", "1", STAYS[0], STAYS[1]];
    for number in 1..=3 {
        let identity = format!("client-{number}");
        let mut client = outside.start(&[&stays[..], &["--identity", &identity]].concat());
        client.until("all 1 messages came back");
        client.signal("KILL");
        let expected = f64::from(number.min(2));
        events.until("away");
        wait("the sessions that are away", || {
            (gateway.metric("systole_sessions_away") == expected).then_some(())
        });
    }
    let leave = events.until("leave");
    assert_eq!(leave.data["cause"], "peer_exited", "{}", leave.data);
    assert_eq!(gateway.metric("systole_sessions_away"), 2.0);
}
