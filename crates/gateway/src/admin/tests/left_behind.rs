//! Tests of what is known of sessions that a killed gateway left behind.

use systole_core::cause::Cause;

use super::*;
use crate::store::{LeftBehind, Lost};

/// Far more than the fixture's ring of 16 events keeps.
const LOST: u64 = 40;

/// The number of a session that no shard has, since its link is beyond those of the fixture.
fn number(n: u64) -> u64 {
    1_000 + n
}

/// A fixture of a gateway after one that was killed with `count` sessions, of which each has an
/// identity of its own.
fn after_a_kill(count: u64) -> Fixture {
    let fixture = Fixture::new();
    let latest = (1..=count).map(|n| Lost::example(number(n), &format!("lost {n}")));
    let left = LeftBehind { at_ms: 77_000, count: count + 5, latest: latest.collect() };
    fixture.gateway.note_left_behind(&left);
    fixture
}

#[tokio::test]
async fn what_a_killed_gateway_left_behind_is_known_by_session_identity_and_event() {
    let fixture = after_a_kill(3);
    fixture.join(1);
    let document = document();
    let (status, why) = fixture.get(&format!("/api/v1/sessions/{:016x}/why", number(2))).await;
    assert_eq!(status, StatusCode::OK, "{why}");
    assert_conforms(&document, &json!({"$ref": "#/components/schemas/Why"}), &why, "why");
    let verdict = &why["verdict"];
    assert_eq!(
        (&verdict["cause"], &verdict["confidence"]),
        (&json!("gateway_lost"), &json!("certain"))
    );
    assert_eq!((&verdict["at_ms"], &verdict["lasted_ms"]), (&json!(77_000), &json!(76_000)));
    assert_eq!((&verdict["late_us"], &verdict["provisional"]), (&json!(0), &json!(false)));
    assert_eq!((&why["online"], &why["listener"]), (&json!(false), &json!("line")));
    let (_, found) = fixture.get(&format!("/api/v1/sessions/{:016x}", number(2))).await;
    assert_eq!((&found["state"], &found["cause"]), (&json!("ended"), &verdict["cause"]));
    let (_, presence) = fixture.get("/api/v1/presence/lost%203").await;
    assert_eq!(
        (&presence["state"], &presence["last"]["cause"]),
        (&json!("offline"), &verdict["cause"])
    );
    let (_, page) = fixture.get("/api/v1/verdicts?cause=gateway_lost&identity=lost%201").await;
    assert_eq!(page["verdicts"][0]["session"], json!(format!("{:016x}", number(1))), "{page}");
    // Numbered before the join of this run.
    let mut frames = fixture.events(Some("a-0")).await;
    for n in 1..=3 {
        let (name, _, event) = frames.next().await.unwrap();
        assert_eq!((name.as_str(), &event["number"]), ("leave", &json!(n)));
        assert_eq!(
            (&event["cause"], &event["identity"]),
            (&verdict["cause"], &json!(format!("lost {n}")))
        );
        let event_of = json!({"$ref": "#/components/schemas/Event"});
        assert_conforms(&document, &event_of, &event, "event");
    }
    assert_eq!(frames.next().await.unwrap().0, "join");
}

#[tokio::test]
async fn a_subscriber_from_before_a_kill_gets_what_was_left_behind_before_the_snapshot() {
    let fixture = after_a_kill(3);
    let mut frames = fixture.events(Some("9-12")).await;
    let (name, _, gap) = frames.next().await.unwrap();
    assert_eq!((name.as_str(), &gap["gateway_lost"]), ("gap", &json!(8)), "all that were lost");
    for n in 1..=3 {
        let (name, id, event) = frames.next().await.unwrap();
        // Without an id: whoever continued after it would have no snapshot.
        assert_eq!((name.as_str(), id.as_str(), &event["number"]), ("leave", "", &json!(n)));
    }
    let (name, _, mark) = frames.next().await.unwrap();
    assert_eq!((name.as_str(), &mark["number"]), ("snapshot", &json!(3)));
    // Who is new, or was here since, gets none of it.
    assert_eq!(fixture.events(None).await.next().await.unwrap().0, "snapshot");
    fixture.join(1);
    assert_eq!(fixture.events(Some("a-3")).await.next().await.unwrap().0, "join");
}

#[tokio::test]
async fn what_was_left_behind_takes_no_more_than_the_ring_of_events() {
    let fixture = after_a_kill(LOST);
    let mut frames = fixture.events(Some("9-12")).await;
    let (_, _, gap) = frames.next().await.unwrap();
    assert_eq!(gap["gateway_lost"], json!(LOST + 5), "what does not follow is counted");
    let first = LOST - 16 + 1;
    for n in first..=LOST {
        assert_eq!(frames.next().await.unwrap().2["number"], json!(n));
    }
    assert_eq!(frames.next().await.unwrap().0, "snapshot");
    let counted = fixture.stats[0].verdicts[Cause::GatewayLost.index()].get();
    assert_eq!(counted, LOST + 5);
}
