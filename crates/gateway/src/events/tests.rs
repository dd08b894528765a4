//! Tests of order, resuming, gaps and bounds.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::json;
use systole_core::cause::{Cause, Confidence, Verdict};
use systole_core::diagnosis::{Ground, Grounds};
use systole_core::{Policy, Span, Time, session};

use super::*;
use crate::json::tests::{HARMFUL, assert_harmless};
use crate::report::{Parting, PauseReason, Subject};

mod golden;
mod model;

const STREAM: u64 = 0xabc;

fn names() -> Names {
    Names {
        listeners: vec!["native".into()],
        descriptors: Some(1_024),
        max_links: 7,
        links_by_descriptors: false,
    }
}

fn events(capacity: usize) -> Events {
    Events::new(capacity, STREAM, names())
}

fn fact(session: u64, event: session::Event) -> Fact {
    let subject = Subject {
        session,
        epoch: 5,
        identity: "anna".into(),
        listener: 0,
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 4_711)),
        boot_id: Default::default(),
        instance_id: Default::default(),
        established: true,
    };
    Fact::new(60_000, subject, event)
}

fn publish(events: &Events, count: u64) {
    for session in 0..count {
        events.publish(fact(session, session::Event::Suspect));
    }
}

fn numbers(batch: &[Arc<Event>]) -> Vec<u64> {
    batch.iter().map(|event| event.number).collect()
}

fn at(number: u64) -> Position {
    Position { stream: STREAM, number }
}

#[test]
fn what_the_store_keeps_of_an_event_holds_no_harmful_character() {
    let mut harmful = fact(1, session::Event::Suspect);
    harmful.subject.identity = HARMFUL.into();
    let noted = crate::store::Noted::of(&events(10).publish(harmful)).unwrap();
    assert_eq!(&*noted.identity, HARMFUL);
    assert_harmless(&noted.body, "/identity");
}

#[test]
fn events_of_all_shards_are_numbered_in_one_order() {
    let events = events(10);
    let mut subscriber = events.subscribe();
    for shard in [1, 0, 2] {
        events.publish_body(9, Body::AcceptingResumed { shard });
    }
    let batch = subscriber.ready().unwrap();
    assert_eq!(numbers(&batch), [1, 2, 3]);
    let shards: Vec<_> = batch.iter().map(|event| serde_json::to_value(event).unwrap()).collect();
    assert_eq!(shards[0]["shard"], 1);
    assert_eq!(shards[2]["shard"], 2);
    assert_eq!(shards[2]["at_ms"], 9);
    assert!(subscriber.ready().unwrap().is_empty());
}

#[test]
fn a_leave_carries_its_evidence() {
    let events = events(10);
    let verdict = Verdict {
        grounds: Default::default(),
        cause: Cause::Unknown,
        confidence: Cause::Unknown.confidence(),
        at: Time::from_millis(50_001),
        due: Time::from_millis(50_000),
        stretch: Span::ZERO,
        last_heard: Time::from_millis(20_000),
        probes: 3,
    };
    let parting = Parting { lasted: Span::from_secs(45), ..Parting::default() };
    let left = fact(0x1f, session::Event::Left(verdict));
    let event = events.publish(Fact { parting, ..left });
    let expected = serde_json::json!({
        "number": 1, "at_ms": 60_000, "kind": "leave",
        "session": "000000000000001f", "epoch": "5", "identity": "anna", "listener": "native",
        "address": "127.0.0.1:4711", "established": true,
        "cause": "unknown", "confidence": "medium",
        "detail": "lost for an unknown cause", "advice": Cause::Unknown.advice(),
        "last_heard_ago_ms": 30_001, "due_ms": 59_999, "late_us": 1_000, "stretch_ms": 0,
        "probes": 3,
        "grounds": [],
        "lasted_ms": 45_000, "provisional": true,
    });
    assert_eq!(serde_json::to_value(&*event).unwrap(), expected);
}

#[test]
fn a_warning_carries_its_grounds() {
    let events = events(10);
    let warned = session::Event::Warned {
        cause: Cause::Unreachable,
        confidence: Confidence::High,
        grounds: Grounds::of(&[Ground::RouterSaidUnreachable]),
    };
    let event = events.publish(fact(1, warned));
    let json = serde_json::to_value(&*event).unwrap();
    assert_eq!((&json["kind"], &json["cause"]), (&json!("warned"), &json!("unreachable")));
    assert_eq!(json["confidence"], "high");
    assert_eq!(json["detail"], "a router said that the peer cannot be reached");
    assert_eq!(json["grounds"], json!(["a router said that it cannot be reached"]));
    assert_eq!(json["session"], "0000000000000001");
}

#[test]
fn every_fact_has_the_right_kind() {
    let events = events(20);
    let policy = Policy::demanding();
    let kind = |event| {
        let event = events.publish(fact(1, event));
        let kind = serde_json::to_value(&*event).unwrap()["kind"].clone();
        assert_eq!(kind, event.body.kind());
        kind
    };
    assert_eq!(kind(session::Event::Joined { policy, account: None }), "join");
    assert_eq!(kind(session::Event::Recovered), "recovered");
    assert_eq!(kind(session::Event::Overdue { due: Time::from_millis(50_000) }), "overdue");
    assert_eq!(kind(session::Event::Retuned(policy)), "retuned");
}

#[test]
fn a_pause_names_the_limit_and_how_to_raise_it() {
    for (reason, name, limit) in [
        (PauseReason::DescriptorLimit, "descriptor_limit", Some(1_024)),
        (PauseReason::HostLimit, "host_limit", None),
        (PauseReason::LinkLimit, "link_limit", Some(7)),
        (PauseReason::ControlPlane, "control_plane", None),
        (PauseReason::BeaconLimit, "beacon_limit", None),
    ] {
        let event = events(1).publish_body(0, names().paused(3, reason));
        let json = serde_json::to_value(&*event).unwrap();
        assert_eq!(json["kind"], "accepting_paused");
        assert_eq!((&json["reason"], &json["limit"]), (&name.into(), &limit.into()));
        let hint = json["hint"].as_str().unwrap();
        assert!(hint.contains("raise") || hint.contains("give the gateway"));
    }
}

#[test]
fn a_subscriber_that_resumes_in_time_misses_nothing() {
    let events = events(10);
    publish(&events, 5);
    let mut subscriber = events.resume(at(2)).unwrap();
    assert_eq!(numbers(&subscriber.ready().unwrap()), [3, 4, 5]);
    assert_eq!(subscriber.position(), at(5));
    publish(&events, 7);
    let mut subscriber = events.resume(at(2)).unwrap();
    assert_eq!(subscriber.ready().unwrap().len(), 10, "3 to 12 are kept");
}

#[test]
fn the_ring_is_bounded_and_a_slow_subscriber_gets_a_gap() {
    let events = events(10);
    let mut slow = events.subscribe();
    let mut fast = events.subscribe();
    for _ in 0..100 {
        publish(&events, 7);
        assert_eq!(fast.ready().unwrap().len(), 7, "a slow subscriber does not delay a fast one");
    }
    assert_eq!(events.lock().kept.len(), 10);
    assert_eq!(slow.ready().unwrap_err(), Gap::TooFarBehind);
    assert_eq!(events.resume(at(689)).unwrap_err(), Gap::TooFarBehind);
    assert!(events.resume(at(690)).is_ok());
    assert_eq!(events.resume(at(701)).unwrap_err(), Gap::UnknownPosition);
    let other_process = Position { stream: STREAM + 1, number: 695 };
    assert_eq!(events.resume(other_process).unwrap_err(), Gap::UnknownPosition);
}

/// Publishes as many events as find room at once, and returns their number.
async fn publish_into_room(events: &Events, at_most: u64) -> u64 {
    for published in 0..at_most {
        let room = tokio::time::timeout(Duration::ZERO, events.room());
        if room.await.is_err() {
            return published;
        }
        publish(events, 1);
    }
    at_most
}

#[tokio::test(start_paused = true)]
async fn events_wait_for_a_subscriber_until_it_is_given_up() {
    let events = events(10);
    assert_eq!(publish_into_room(&events, 100).await, 100, "there is no subscriber");
    let mut subscriber = events.subscribe();
    assert_eq!(publish_into_room(&events, 100).await, 5, "half of what is kept");
    assert_eq!(subscriber.ready().unwrap().len(), 5);
    assert_eq!(publish_into_room(&events, 100).await, 5, "there is room for as many again");
    events.room().await;
    assert_eq!(publish_into_room(&events, 5).await, 5, "it is given up");
    assert_eq!(subscriber.ready().unwrap().len(), 10, "it loses nothing that is kept");
    assert_eq!(publish_into_room(&events, 100).await, 5, "it has caught up");
    events.set_patience(Duration::ZERO);
    assert_eq!(publish_into_room(&events, 100).await, 100);
    assert_eq!(subscriber.ready().unwrap_err(), Gap::TooFarBehind);
    events.set_patience(Duration::from_secs(1));
    let resumed = events.resume(at(events.last() - 8)).unwrap();
    assert_eq!(publish_into_room(&events, 100).await, 0, "it resumes behind");
    drop((resumed, subscriber));
    assert_eq!(publish_into_room(&events, 100).await, 100, "nobody is left");
}

#[test]
fn a_batch_is_bounded() {
    let events = events(2 * BATCH);
    let mut subscriber = events.subscribe();
    publish(&events, BATCH as u64 + 1);
    assert_eq!(subscriber.ready().unwrap().len(), BATCH);
    assert_eq!(subscriber.ready().unwrap().len(), 1);
}

#[tokio::test]
async fn a_waiting_subscriber_is_woken() {
    let events = events(10);
    let mut subscriber = events.subscribe();
    let waiting = tokio::spawn(async move { subscriber.next().await.map(|batch| batch.len()) });
    // Lets the subscriber begin to wait; the test also holds if it does not.
    tokio::task::yield_now().await;
    publish(&events, 1);
    events.wake();
    let woken = tokio::time::timeout(std::time::Duration::from_secs(10), waiting).await;
    assert_eq!(woken.expect("never woken").unwrap(), Ok(1));
}

#[test]
fn positions_round_trip_through_text() {
    let position = Position { stream: 0x1f, number: 7 };
    assert_eq!(position.to_string(), "1f-7");
    assert_eq!("1f-7".parse(), Ok(position));
    for wrong in ["", "7", "1f-", "-7", "x-7", "1f-7-8"] {
        assert_eq!(wrong.parse::<Position>(), Err(NotAPosition), "{wrong}");
    }
}

#[test]
fn an_event_is_small() {
    // The texts add at most 64 bytes of identity, 54 of address and about 150 of detail.
    assert!(size_of::<Event>() <= 256, "{}", size_of::<Event>());
}
