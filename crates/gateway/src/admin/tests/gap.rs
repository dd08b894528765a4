//! Tests of the correlation after lost reports: the shards are asked for their sessions.

use systole_core::cause::{Cause, Confidence, Direction, Scope, Verdict};
use systole_core::diagnosis::Grounds;

use super::*;
use crate::events::{Body, OutageInfo, Subscriber};

/// Reports that a session of shard 0, which that shard lists as online, lost its path.
fn lose_path(fixture: &Fixture, link: u32) {
    let now = Time::from_millis(50_000);
    let listed = info(0, link);
    let subject = Subject {
        boot_id: Default::default(),
        instance_id: Default::default(),
        session: u64::from(link),
        epoch: 9,
        identity: listed.identity.into(),
        listener: listed.listener,
        address: listed.address,
        established: true,
    };
    let verdict = Verdict {
        cause: Cause::PathLost { direction: Direction::Both, scope: Scope::Unknown },
        confidence: Confidence::Medium,
        at: now,
        due: now,
        last_heard: now - Span::from_secs(12),
        probes: 3,
        grounds: Grounds::default(),
    };
    let (asked, lasted) = (Span::from_secs(2), Span::from_secs(20));
    let change = Change::Leave { verdict, asked, lasted, flight: None };
    let at_ms = Clock::start().wall_ms();
    fixture.gateway.note(0, Report::Session { at_ms, subject, change }, 0);
}

/// Waits for the next outage event.
async fn next_outage(events: &mut Subscriber) -> OutageInfo {
    loop {
        for event in events.next().await.expect("no gap") {
            if let Body::Outage(outage) = &event.body {
                return outage.clone();
            }
        }
    }
}

#[tokio::test]
async fn lost_reports_are_replaced_by_a_list_of_the_sessions() {
    let fixture = Fixture::new();
    let correlating = fixture.gateway.clone();
    let correlating = tokio::spawn(async move { correlating.correlate().await });
    // This session joins before the gap and is listed again after it.
    fixture.join(3);
    fixture.gateway.note(0, Report::Missed(7), 0);
    let all = 2 * SESSIONS;
    let all_known = async {
        while fixture.gateway.known_online() != (all, true) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all_known).await.expect("all are listed");

    let mut events = fixture.gateway.events().subscribe();
    for link in [1, 3, 5] {
        lose_path(&fixture, link);
    }
    let outage = tokio::time::timeout(Duration::from_secs(20), next_outage(&mut events));
    let outage = outage.await.expect("an outage");
    assert_eq!((outage.affected, outage.of_online, outage.hosts), (3, 6, 1));
    assert_eq!(fixture.gateway.known_online(), (all - 3, true));
    correlating.abort();
}
