//! Sessions that are away, in all answers that may show one.

use super::*;
use crate::report::Parting;

const AWAY: u32 = AWAY_LINKS.start + 1;

#[tokio::test]
async fn a_session_that_is_away_is_shown_with_the_time_that_is_left() {
    let fixture = Fixture::new();
    let away = id(1, AWAY);
    let (status, body) = fixture.get(&format!("/api/v1/sessions/{away}")).await;
    let shown = json!({
        "state": "away", "session": away, "epoch": "9", "identity": "away", "listener": "native",
        "address": away_address().to_string(), "since_ms": 60_000, "ends_in_ms": 25_000,
        "cause": "peer_exited", "waiting": 3,
    });
    assert_eq!((status, body), (StatusCode::OK, shown));
    let path = format!("/api/v1/sessions/{away}/policy");
    let policy = Some(json!({"preset": "relaxed"}));
    assert_eq!(fixture.send(Method::POST, &path, policy).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn sessions_that_are_away_are_listed_on_request_over_pages_and_shards() {
    let fixture = Fixture::new();
    let (_, body) = fixture.get("/api/v1/sessions").await;
    assert_eq!(body.get("away"), None);
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for page in 0.. {
        assert!(page < 10, "the end is never reached");
        let (_, body) = fixture.get(&format!("/api/v1/sessions?away=true&limit=1{cursor}")).await;
        assert_eq!(body["sessions"], json!([]));
        let away = body["away"].as_array().into_iter().flatten();
        seen.extend(away.map(|one| one["session"].as_str().unwrap().to_owned()));
        match body["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let all = (0..2).flat_map(|shard| AWAY_LINKS.map(move |link| id(shard, link)));
    assert_eq!(seen, all.collect::<Vec<_>>());
}

#[tokio::test]
async fn an_identity_is_away_if_none_of_its_sessions_is_online() {
    let fixture = Fixture::new();
    let (_, body) = fixture.get("/api/v1/presence/away").await;
    assert_eq!((&body["state"], body.get("sessions")), (&json!("away"), None));
    let away = body["away"].as_array().unwrap();
    assert_eq!(away.len(), 2, "one at each shard");
    assert_eq!(away[1]["ends_in_ms"], 25_000);
    let (_, body) = fixture.get("/api/v1/presence/user-0").await;
    assert_eq!(body.get("away"), None);
}

#[tokio::test]
async fn a_snapshot_has_those_that_are_away_before_those_online() {
    let fixture = Fixture::new();
    let mut events = fixture.events(None).await;
    let names = events.names(1 + 4 + 2 * SESSIONS as usize + 1).await;
    assert_eq!(
        names[..5],
        ["snapshot", "session_away", "session_away", "session_away", "session_away"]
    );
    assert!(names[5..names.len() - 1].iter().all(|name| name == "session"), "{names:?}");
    assert_eq!(names.last().unwrap(), "live");
}

#[tokio::test]
async fn why_shows_the_verdict_on_the_connection_of_a_session_that_is_away() {
    let fixture = Fixture::new();
    let away = id(0, AWAY);
    let path = format!("/api/v1/sessions/{away}/why");
    let (status, body) = fixture.get(&path).await;
    assert_eq!((status, &body["ends_in_ms"]), (StatusCode::OK, &json!(25_000)));
    assert_eq!((&body["online"], &body["verdict"]["cause"]), (&json!(false), &json!("unknown")));
    assert_eq!(body["timeline"], json!([]), "nothing is kept of its link");
    // What is kept of the link says more.
    let mut fact = crate::report::tests::reset(AWAY.into());
    let session::Event::Left(verdict) = fact.event else { panic!("{fact:?}") };
    fact.event = session::Event::Away { verdict, until: verdict.at + Span::from_secs(30) };
    let flight = Some(Box::new(Flight::new(Time::ZERO)));
    fact.parting = Parting { lasted: Span::from_secs(20), flight, ..Parting::default() };
    fixture.gateway.note(fact);
    let (_, body) = fixture.get(&path).await;
    assert_eq!((&body["ends_in_ms"], &body["online"]), (&json!(25_000), &json!(false)));
    let verdict = &body["verdict"];
    assert_eq!((&verdict["cause"], &verdict["lasted_ms"]), (&json!("peer_reset"), &json!(20_000)));
    assert_eq!(fixture.get("/api/v1/verdicts").await.1["verdicts"], json!([]), "it has not ended");
}

#[tokio::test]
async fn a_kick_with_a_ban_finds_a_session_that_is_away() {
    let fixture = Fixture::new();
    let path = format!("/api/v1/sessions/{}/kick", id(0, AWAY));
    let ban = json!({"ban": {"seconds": 60, "of": ["address"]}});
    let (status, body) = fixture.send(Method::POST, &path, Some(ban)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let orders = fixture.take_received().concat();
    for link in AWAY_LINKS {
        let session = format!("{:x}", u64::from(link) | 1 << 56);
        assert!(orders.contains(&session), "the ban ends {session} too: {orders}");
    }
}
