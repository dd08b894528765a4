//! Tests of bans, and of kicks that ban.

use super::strangers::in_time;
use super::*;

const HOUR: Span = Span::from_secs(3_600);

/// The order that the session of a link at a shard gets when somebody is banned for an hour.
fn kept_out(shard: u64, link: u32, stay_away: bool, text: &str) -> String {
    let order = Order::KeepOut { lasts: HOUR, stay_away, text: text.into() };
    format!("{shard}: {order:?} {:x}", shard << 56 | u64::from(link))
}

#[tokio::test]
async fn a_kick_can_ban_identity_and_address_and_says_until_when() {
    let fixture = Fixture::new();
    let kick = async |body| {
        let path = format!("/api/v1/sessions/{}/kick", id(1, 5));
        fixture.send(Method::POST, &path, Some(body)).await
    };
    let now = Clock::start().wall_ms();
    let ban = json!({"seconds": 3_600, "of": ["identity", "identity"]});
    let (status, answer) = kick(json!({"stay_away": true, "text": "until one", "ban": ban})).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let document = document();
    let schema = json!({"$ref": "#/components/schemas/KickDone"});
    assert_conforms(&document, &schema, &answer, "a kick with a ban");
    assert_eq!((&answer["session"], &answer["order"]), (&json!(id(1, 5)), &json!("kick")));
    assert_eq!(answer["banned"].as_array().unwrap().len(), 1, "{answer}");
    let ban = &answer["banned"][0];
    assert_eq!((&ban["identity"], &ban["seconds_left"]), (&json!("user-2"), &json!(3_600)));
    assert_eq!(ban["text"], "until one");
    let until = ban["until_ms"].as_u64().unwrap();
    assert!((now + 3_599_000..now + 3_660_000).contains(&until), "{until} is an hour from {now}");
    let others = [(1, 5), (0, 2), (0, 5), (1, 2), (1, 5)];
    let expected = others.map(|(shard, link)| kept_out(shard, link, true, "until one"));
    assert_eq!(fixture.take_received(), expected, "the session first, and all of its identity");
    let (_, answer) = kick(json!({"ban": {"seconds": 3_600, "of": ["address", "identity"]}})).await;
    let banned: Vec<&Value> = answer["banned"].as_array().unwrap().iter().collect();
    assert_eq!(
        (&banned[0]["identity"], &banned[1]["address"]),
        (&json!("user-2"), &json!("127.0.0.1"))
    );
    assert_eq!(fixture.get("/api/v1/bans").await.1["bans"].as_array().unwrap().len(), 2);
    let wish = json!({"identity": "eve", "seconds": 60, "text": "a \u{202e}text"});
    assert_eq!(fixture.send(Method::POST, "/api/v1/bans", Some(wish)).await.0, StatusCode::OK);
    let list = fixture.get("/api/v1/bans").await.1;
    let texts = list["bans"].as_array().unwrap().iter().map(|ban| &ban["text"]);
    let expected = [json!("a \u{202e}text"), Value::Null, Value::Null];
    assert!(texts.eq(&expected), "none where a new ban has none: {list}");
    assert_conforms(&document, &json!({"$ref": "#/components/schemas/BanList"}), &list, "bans");
    fixture.take_received();
    let (_, answer) = kick(json!({})).await;
    assert_eq!(answer, json!({"session": id(1, 5), "order": "kick"}), "no ban was asked for");
}

#[tokio::test]
async fn a_kick_that_cannot_ban_all_that_was_asked_does_nothing() {
    let fixture = Fixture::new();
    let kick = async |link, ban: Value| {
        let path = format!("/api/v1/sessions/{}/kick", id(0, link));
        fixture.send(Method::POST, &path, Some(json!({"ban": ban}))).await
    };
    let (status, answer) = kick(1, json!({"seconds": 60, "of": ["identity", "device"]})).await;
    assert_eq!(status, StatusCode::CONFLICT, "{answer}");
    assert!(answer["error"].as_str().unwrap().contains("no device"), "{answer}");
    let (status, _) = kick(SESSIONS, json!({"seconds": 60, "of": ["identity"]})).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    for bad in [
        json!({"seconds": 0, "of": ["identity"]}),
        json!({"seconds": u64::MAX, "of": ["identity"]}),
        json!({"seconds": 60, "of": []}),
        json!({"seconds": 60, "of": ["name"]}),
        json!({"seconds": 60, "of": "identity"}),
        json!({"seconds": 60}),
        json!({"of": ["identity"]}),
        json!({"seconds": 60, "of": ["identity"], "for": "ever"}),
        json!(60),
    ] {
        assert_eq!(kick(1, bad.clone()).await.0, StatusCode::BAD_REQUEST, "{bad}");
    }
    assert_eq!(fixture.get("/api/v1/bans").await.1, json!({"bans": [], "lost_at_restart": true}));
    assert_eq!(fixture.take_received(), Vec::<String>::new());
}

#[tokio::test]
async fn a_ban_goes_on_when_its_caller_hangs_up() {
    let fixture = Fixture::new();
    let wish = json!({"identity": "user-1", "seconds": 3_600});
    tokio::select! {
        biased;
        _ = fixture.send(Method::POST, "/api/v1/bans", Some(wish)) => panic!("shards are asked"),
        () = std::future::ready(()) => {}
    }
    let expected =
        [(0, 1), (0, 4), (1, 1), (1, 4)].map(|(shard, link)| kept_out(shard, link, false, ""));
    let mut received = Vec::new();
    in_time(async {
        while received.len() < expected.len() {
            received.append(&mut fixture.take_received());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(received, expected);
}

#[tokio::test]
async fn a_shard_that_gives_no_answer_does_not_keep_a_ban_from_the_others() {
    let mut polls = Vec::new();
    let (gone, _) = connect(&mut polls);
    let (requests, receiver) = connect(&mut polls);
    let received = Received::default();
    let note = received.clone();
    std::thread::spawn(move || simulate_shard(1, &receiver, &note));
    let gateway = Arc::new(gateway(vec![gone, requests], vec![Arc::default(), Arc::default()]));
    let api = Api::new(gateway.clone(), None, 1);
    let body = json!({"identity": "user-1", "seconds": 3_600}).to_string();
    let request = HttpRequest::post("/api/v1/bans").body(Body::from(body)).unwrap();
    assert_eq!(respond(&api, request).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    let expected = [1, 4].map(|link| kept_out(1, link, false, ""));
    assert_eq!(*received.lock().unwrap(), expected);
    assert_eq!(gateway.bans().all().len(), 1, "the ban is in force");
}

#[tokio::test]
async fn who_cannot_exist_cannot_be_banned() {
    let fixture = Fixture::new();
    for who in [
        json!({"identity": "eve\n", "seconds": 60}),
        json!({"identity": "", "seconds": 60}),
        json!({"identity": "e".repeat(65), "seconds": 60}),
        json!({"device": format!("+{}", "1".repeat(31)), "seconds": 60}),
        json!({"device": "1".repeat(31), "seconds": 60}),
        json!({"device": "0".repeat(32), "seconds": 60}),
    ] {
        let (status, answer) = fixture.send(Method::POST, "/api/v1/bans", Some(who.clone())).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{who}: {answer}");
    }
    assert_eq!(fixture.get("/api/v1/bans").await.1["bans"], json!([]));
}
