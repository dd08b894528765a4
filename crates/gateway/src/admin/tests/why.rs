//! Tests of the explanation of a session, and of the pages of verdicts.

use systole_core::Time;
use systole_core::cause::{Cause, Confidence, Direction, Scope, Verdict};
use systole_core::diagnosis::{Ground, Grounds};
use systole_core::flight::{Flight, Incident};
use systole_core::ledger::Note;

use super::*;
use crate::report::Parting;

/// Reports the end of a session of shard 0 that was opened 20 s before, and last heard 12 s before.
fn report_leave(fixture: &Fixture, link: u32, cause: Cause, identity: &str) {
    let now = Time::from_millis(50_000);
    let mut flight = Flight::new(now - Span::from_secs(20));
    flight.heard(now - Span::from_secs(13), 2);
    flight.heard(now - Span::from_secs(12), 2);
    flight.record(now, Incident::verdict(cause));
    let subject = Subject {
        boot_id: Default::default(),
        instance_id: Default::default(),
        session: u64::from(link),
        epoch: 1,
        identity: identity.into(),
        listener: 1,
        address: address(),
        established: true,
    };
    let verdict = Verdict {
        cause,
        confidence: cause.confidence(),
        at: now,
        due: now,
        stretch: Span::ZERO,
        last_heard: now - Span::from_secs(12),
        probes: 3,
        grounds: Grounds::of(&[Ground::ApplicationSilent, Ground::KernelFresh]),
    };
    let flight = Some(Box::new(flight));
    let parting = Parting { lasted: Span::from_secs(20), flight, ..Parting::default() };
    let event = session::Event::Left(verdict);
    fixture.gateway.note(Fact { parting, ..Fact::new(90_000, subject, event) });
}

#[tokio::test]
async fn a_session_that_has_ended_answers_with_its_verdict_as_long_as_that_is_kept() {
    let fixture = Fixture::adjusted(None, 2, |gateway| gateway.with_verdicts(2));
    let document = document();
    let conforms = |value: &Value| {
        assert_conforms(&document, &json!({"$ref": "#/components/schemas/Found"}), value, "found");
    };
    let (status, online) = fixture.get(&format!("/api/v1/sessions/{}", id(0, 1))).await;
    assert_eq!((status, &online["state"]), (StatusCode::OK, &json!("online")), "{online}");
    conforms(&online);
    for n in 0..3 {
        report_leave(&fixture, SESSIONS + n, Cause::AppHung, "anna");
    }
    let (status, ended) = fixture.get(&format!("/api/v1/sessions/{}", id(0, SESSIONS + 1))).await;
    assert_eq!((status, &ended["state"]), (StatusCode::OK, &json!("ended")), "{ended}");
    conforms(&ended);
    let known = (&ended["identity"], &ended["cause"], &ended["at_ms"]);
    assert_eq!(known, (&json!("anna"), &json!("app_hung"), &json!(90_000)));
    // The third has pushed the first out.
    let (status, gone) = fixture.get(&format!("/api/v1/sessions/{}", id(0, SESSIONS))).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(gone["error"].as_str().unwrap().contains("not among the last 2"), "{gone}");
    let path = format!("/api/v1/sessions/{}", id(0, SESSIONS + 1));
    let (status, _) = fixture.send(Method::DELETE, &path, None).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "nobody is there to be ended");
}

#[tokio::test]
async fn an_ended_session_is_explained() {
    let fixture = Fixture::new();
    report_leave(&fixture, SESSIONS, Cause::AppHung, "anna");
    let (status, why) = fixture.get(&format!("/api/v1/sessions/{}/why", id(0, SESSIONS))).await;
    assert_eq!(status, StatusCode::OK, "{why}");
    let document = document();
    assert_conforms(&document, &json!({"$ref": "#/components/schemas/Why"}), &why, "why");
    assert_eq!((&why["online"], &why["listener"]), (&json!(false), &json!("line")));
    let verdict = &why["verdict"];
    assert_eq!(verdict["cause"], "app_hung");
    assert_eq!(verdict["confidence"], "medium");
    assert_eq!(verdict["last_heard_ago_ms"], 12_000);
    assert_eq!(verdict["provisional"], true);
    assert_eq!(verdict["advice"], Cause::AppHung.advice());
    let grounds = [Ground::ApplicationSilent.text(), Ground::KernelFresh.text()];
    assert_eq!(verdict["grounds"], json!(grounds));
    let timeline = why["timeline"].as_array().unwrap();
    let what = timeline.iter().map(|moment| moment["what"].as_str().unwrap());
    assert_eq!(what.collect::<Vec<_>>(), ["opened", "heard 2 bytes", "verdict: app_hung"]);
    assert_eq!(timeline[1]["count"], 2);
    // A time of the flight recorder is early by at most its unit of 66 µs.
    let before = timeline[1]["before_us"].as_u64().unwrap();
    assert!((12_000_000..12_000_066).contains(&before), "{before}");
    assert_eq!(timeline[1]["at_ms"], 78_000);
}

#[tokio::test]
async fn a_session_that_is_online_is_explained() {
    let fixture = Fixture::new();
    let (status, why) = fixture.get(&format!("/api/v1/sessions/{}/why", id(1, 5))).await;
    assert_eq!(status, StatusCode::OK, "{why}");
    assert_eq!((&why["online"], &why["suspect"]), (&json!(true), &json!(true)));
    assert_eq!(why.get("verdict"), None);
    assert_eq!(why["timeline"][0]["what"], "opened");
    assert_eq!(why["timeline"][0]["before_us"], 3_000_000);
}

#[tokio::test]
async fn an_unknown_session_is_not_found() {
    let fixture = Fixture::new();
    for session in ["ff00000000000000", &id(0, SESSIONS)] {
        let (status, body) = fixture.get(&format!("/api/v1/sessions/{session}/why")).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(body["error"].is_string() && body["hint"].is_string(), "{body}");
    }
}

#[tokio::test]
async fn a_revised_verdict_has_both_causes() {
    let fixture = Fixture::new();
    report_leave(&fixture, SESSIONS, Cause::PeerReset, "anna");
    let path = format!("/api/v1/sessions/{}/why", id(0, SESSIONS));
    assert_eq!(fixture.get(&path).await.1["verdict"]["provisional"], true);
    let revise = |cause| {
        let session = u64::from(SESSIONS);
        fixture.gateway.verdicts().revise(session, cause, Confidence::Certain, Note::NewBoot)
    };
    assert!(revise(Cause::PeerRebooted) && !revise(Cause::MiddleboxForgot));
    let verdict = &fixture.get(&path).await.1["verdict"];
    assert_eq!(
        (&verdict["cause"], &verdict["confidence"]),
        (&json!("peer_rebooted"), &json!("certain"))
    );
    let first = json!({
        "cause": "peer_reset", "confidence": "high", "because": "it came back with another boot id"
    });
    assert_eq!(verdict["revised_from"], first);
    assert_eq!(verdict["advice"], Cause::PeerRebooted.advice());
    assert_eq!(verdict["provisional"], false);
}

/// The same cause, confirmed: what the first advice considered too is excluded now.
#[tokio::test]
async fn a_confirmed_verdict_has_the_advice_of_what_confirmed_it() {
    let fixture = Fixture::new();
    report_leave(&fixture, 0, Cause::AppHung, "anna");
    let (least, most) = (Span::from_secs(3), Span::from_secs(4));
    let (verdicts, note) = (fixture.gateway.verdicts(), Note::PeerStopped { least, most });
    assert!(verdicts.revise(0, Cause::AppHung, Confidence::High, note));
    let (_, why) = fixture.get(&format!("/api/v1/sessions/{}/why", id(0, 0))).await;
    assert_eq!(why["verdict"]["revised_from"]["because"], note.to_string());
    assert_eq!(why["verdict"]["advice"], note.advice(Cause::AppHung));
    assert_ne!(why["verdict"]["advice"], Cause::AppHung.advice());
}

#[tokio::test]
async fn a_lost_path_has_direction_and_scope() {
    let fixture = Fixture::new();
    let lost = |scope| Cause::PathLost { direction: Direction::Outbound, scope };
    report_leave(&fixture, 0, Cause::AppHung, "anna");
    report_leave(&fixture, 1, lost(Scope::Unknown), "anna");
    let (verdicts, high) = (fixture.gateway.verdicts(), Confidence::High);
    assert!(verdicts.revise(1, lost(Scope::Flow), high, Note::Siblings));
    let (_, page) = fixture.get("/api/v1/verdicts").await;
    let document = document();
    assert_conforms(&document, &json!({"$ref": "#/components/schemas/VerdictPage"}), &page, "page");
    let [revised, hung] = &page["verdicts"].as_array().unwrap()[..] else { panic!("{page}") };
    assert_eq!((&revised["direction"], &revised["scope"]), (&json!("outbound"), &json!("flow")));
    let first = json!({
        "cause": "path_lost", "direction": "outbound", "scope": "unknown", "confidence": "medium",
        "because": "by what became of other links"
    });
    assert_eq!(revised["revised_from"], first);
    assert_eq!((hung.get("direction"), hung.get("scope")), (None, None));
}

#[tokio::test]
async fn verdicts_are_paged_latest_first() {
    let fixture = Fixture::new();
    for link in 0..10 {
        let cause = if link % 2 == 0 { Cause::Unknown } else { Cause::AppHung };
        report_leave(&fixture, link, cause, ["anna", "bert"][link as usize / 5]);
    }
    let mut seen = Vec::new();
    let mut cursor = String::new();
    for page in 0.. {
        assert!(page < 10, "the end is never reached");
        let (status, body) = fixture.get(&format!("/api/v1/verdicts?limit=4{cursor}")).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let verdicts = body["verdicts"].as_array().unwrap();
        seen.extend(verdicts.iter().map(|one| one["session"].as_str().unwrap().to_owned()));
        match body["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen, (0..10).rev().map(|link| id(0, link)).collect::<Vec<_>>());
    for (query, count) in
        [("cause=app_hung", 5), ("cause=app_hung&identity=bert", 3), ("cause=kicked", 0)]
    {
        let (_, body) = fixture.get(&format!("/api/v1/verdicts?{query}")).await;
        assert_eq!(body["verdicts"].as_array().unwrap().len(), count, "{query}");
        assert_eq!(body.get("next"), None, "{query}");
    }
    for query in ["limit=0", "limit=501", "cause=boredom", "cursor=x", "colour=red"] {
        let (status, body) = fixture.get(&format!("/api/v1/verdicts?{query}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}");
        assert!(body["error"].is_string() && body["hint"].is_string(), "{body}");
    }
}
