//! Tests of requests that concern many: shards that do not answer, and large questions.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_message_whose_sender_was_told_that_it_failed_is_never_sent() {
    let mut polls = Vec::new();
    let (requests, receiver) = connect(&mut polls);
    let gateway = Arc::new(gateway(vec![requests], vec![Arc::default()]));
    let api = Api::new(gateway, None, 1);
    let path = format!("/api/v1/sessions/{}/send", id(0, 1));
    let post = move || {
        let request = HttpRequest::post(&path).header("Idempotency-Key", "k");
        request.body(Body::from("hello")).unwrap()
    };
    for _ in 0..3 {
        let status = respond(&api, post()).await.status();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "the shard is silent");
    }
    // The shard goes on.
    let waiting: Vec<Request> = receiver.try_iter().collect();
    assert_eq!(waiting.len(), 3);
    for request in waiting {
        let Request::Deliver { claim, .. } = request else { panic!("{request:?}") };
        assert!(!claim.take(), "it was withdrawn");
    }
    // One that the shard has begun is waited for, however long it takes.
    let asked = tokio::spawn(async move { respond(&api, post()).await.status() });
    tokio::task::yield_now().await;
    let Ok(Request::Deliver { claim, reply, .. }) = receiver.try_recv() else { panic!("none") };
    assert!(claim.take());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!asked.is_finished());
    reply.send(Delivered { queued: 1, ..Delivered::default() }).unwrap();
    assert_eq!(asked.await.unwrap(), StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_that_misses_a_shard_says_so_and_keeps_its_key() {
    let mut polls = Vec::new();
    let (requests, receiver) = connect(&mut polls);
    let (silent, _unread) = connect(&mut polls);
    let gateway = Arc::new(gateway(vec![requests, silent], vec![Arc::default(), Arc::default()]));
    let api = Api::new(gateway, None, 1);
    // A task, and no thread: the time that is paused goes on while a thread has no turn.
    let answering = tokio::spawn(async move {
        loop {
            while let Ok(request) = receiver.try_recv() {
                let Request::Deliver { claim, reply, .. } = request else { continue };
                assert!(claim.take());
                let _ = reply.send(Delivered { queued: 3, ..Delivered::default() });
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let post = || {
        let request =
            HttpRequest::post("/api/v1/broadcast?all=true").header("Idempotency-Key", "k");
        request.body(Body::from("hello")).unwrap()
    };
    for _ in 0..2 {
        let answer = respond(&api, post()).await;
        assert_eq!(answer.status(), StatusCode::OK);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let reach: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&reach["queued"], &reach["unreached_shards"]), (&json!(3), &json!(1)));
    }
    answering.abort();
}

#[tokio::test]
async fn a_thousand_identities_of_any_kind_fit_and_one_that_is_repeated_counts_once() {
    let fixture = Fixture::new();
    // 64 bytes each, and six times as many in the body.
    let names = (0..1_000).map(|n| format!("{n:04}{}", "\u{1}".repeat(60)));
    let identities: Vec<String> = names.collect();
    let asked = json!({"identities": identities});
    let (status, answer) = fixture.send(Method::POST, "/api/v1/presence", Some(asked)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(answer["presences"].as_array().unwrap().len(), 1_000);
    let asked = json!({"identities": ["user-1", "user-0", "user-1"]});
    let (_, answer) = fixture.send(Method::POST, "/api/v1/presence", Some(asked)).await;
    let names: Vec<_> =
        answer["presences"].as_array().unwrap().iter().map(|it| &it["identity"]).collect();
    assert_eq!(names, [&json!("user-1"), &json!("user-0")]);
}
