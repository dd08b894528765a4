//! What a login grants a session: attributes, and a time.

use super::*;
use crate::policy::Policy;
use crate::wheel::TICK;

const ATTRIBUTES: &str = "{\"role\":\"pilot\"}";

fn settings() -> Vec<link::Settings> {
    Vec::from([link::Settings::new(Codec::Native, Side::Accepting, Policy::default())])
}

/// A hub with a session that was granted this.
fn online(grant: Grant<'_>) -> Driver<Hub> {
    let mut hub = driver(settings(), 1);
    hub.handle(Time::ZERO, World::Opened { link: 0, listener: 0, address: ADDRESS });
    let bytes = hello("", b"token");
    hub.handle(Time::ZERO, World::Link { link: 0, input: link::World::Received(&bytes) });
    let Some(Output::Admit { admission, .. }) = hub.poll_output() else { panic!("no wish") };
    let proof = Proof::Proved("ada");
    hub.handle(
        Time::ZERO,
        World::Identified {
            link: 0,
            admission,
            login: Login { heard_at: Span::ZERO, proof, grant },
        },
    );
    let Some(Output::Own { session, .. }) = hub.poll_output() else { panic!("no session") };
    hub.handle(Time::ZERO, Answer::Owned { session, epoch: 9, fresh: None });
    drain(&mut hub);
    hub
}

fn lasting(millis: u64) -> Grant<'static> {
    Grant { attributes: ATTRIBUTES, lasts: Some(Span::from_millis(millis)) }
}

/// Lets time pass up to `until`, with a heartbeat of the peer each second; returns the ends.
fn pass(hub: &mut Driver<Hub>, from: Time, until: Time) -> BTreeMap<&'static str, u32> {
    let mut ends = BTreeMap::new();
    let mut now = from;
    while now < until {
        let step = hub.next_deadline().map_or(until, |at| at.max(now)).min(until);
        now = step.min(now + Span::from_secs(1));
        let input = link::World::Received(&[0x10, 1]);
        hub.handle(now, World::Link { link: 0, input });
        hub.expire(now, now);
        for (cause, count) in drain(hub).0 {
            *ends.entry(cause).or_default() += count;
        }
    }
    ends
}

#[test]
fn a_session_ends_when_its_grant_does_and_its_peer_may_come_back() {
    let mut hub = online(lasting(20_000));
    let end = Time::from_millis(20_000);
    assert!(pass(&mut hub, Time::ZERO, end - Span::from_nanos(1)).is_empty());
    assert_eq!(hub.machine().presence(0).map(|known| known.attributes), Some(ATTRIBUTES));
    hub.expire(end + TICK, end + TICK);
    let mut said = Vec::new();
    while let Some(output) = hub.poll_output() {
        if let Output::Link { output: link::Output::Transmit { bytes, .. }, .. } = output {
            said = bytes.to_vec();
        }
    }
    assert_eq!(said, [0x70, 7, 4, 0, 0, 0, 0, 0, 0], "unauthorized, and it may come back");
    // The next input forgets the link.
    hub.handle(end, World::Command(HubCommand::ReportHeartbeats(false)));
    assert!(hub.machine().granted.is_empty());
}

#[test]
fn a_session_without_an_end_goes_on_and_one_whose_end_is_past_ends_at_once() {
    let mut hub = online(Grant { attributes: ATTRIBUTES, lasts: None });
    assert!(pass(&mut hub, Time::ZERO, Time::from_millis(200_000)).is_empty());
    let hub = online(Grant::default());
    assert!(hub.machine().granted.is_empty(), "nothing takes no memory");
    let mut hub = online(lasting(0));
    hub.expire(Time::ZERO + TICK, Time::ZERO + TICK);
    assert_eq!(drain(&mut hub).0.get("unauthorized"), Some(&1));
}

#[test]
fn attributes_that_are_too_long_are_none() {
    let longest = "x".repeat(MAX_ATTRIBUTES);
    let hub = online(Grant { attributes: &longest, lasts: None });
    assert_eq!(hub.machine().presence(0).map(|known| known.attributes.len()), Some(1_024));
    let too_long = "x".repeat(MAX_ATTRIBUTES + 1);
    let hub = online(Grant { attributes: &too_long, lasts: None });
    assert_eq!(hub.machine().presence(0).map(|known| known.attributes), Some(""));
}

#[test]
fn what_was_granted_goes_with_a_link_and_is_saved() {
    let mut hub = online(lasting(20_000));
    let (left, arrives) = (Time::from_millis(3_000), Time::from_millis(113_000));
    hub.handle(left, World::HandOver { link: 0 });
    let Some(Output::HandedOver { state, .. }) = hub.poll_output() else { panic!("no state") };
    let state = state.to_vec();
    hub.poll_output();
    assert!(hub.machine().granted.is_empty());
    let mut other = driver(settings(), 2);
    other.handle(arrives, World::TakenOver { link: 0, state: &state });
    drain(&mut other);
    let settings = super::super::Settings {
        shard: 0,
        homes: Homes::SINGLE,
        listeners: settings(),
        seed: 3,
        frame_memory: 64 << 20,
        window_memory: WINDOW_MEMORY,
        away: AWAY_SESSIONS,
    };
    other.reload(arrives, Hub::new(settings)).unwrap();
    assert_eq!(other.machine().presence(0).map(|known| known.attributes), Some(ATTRIBUTES));
    // Seventeen of the twenty seconds are left, on whatever clock.
    let end = arrives + Span::from_millis(17_000);
    assert!(pass(&mut other, arrives, end - Span::from_nanos(1)).is_empty());
    other.expire(end + TICK, end + TICK);
    assert_eq!(drain(&mut other).0.get("unauthorized"), Some(&1));
}
