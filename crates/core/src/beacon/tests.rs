//! Tests of the beacon machine as a whole.

use alloc::vec::Vec;

use super::*;
use crate::policy::Policy;

const DEVICE: u64 = 0xd0d1;

fn at(millis: u64) -> Time {
    Time::from_millis(millis)
}

fn from(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn settings() -> Settings {
    let policy = Policy::demanding().with_spread(false);
    Settings { shard: 3, policy, max_beacons: 100, wall_origin_ms: 1_700_000_000_000, seed: 7 }
}

struct Harness {
    hub: BeaconHub,
    now: Time,
}

impl Harness {
    fn new(settings: Settings) -> Harness {
        Harness { hub: BeaconHub::new(Time::ZERO, settings), now: Time::ZERO }
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.hub.handle(self.now, input);
        core::iter::from_fn(|| self.hub.poll_output()).collect()
    }

    fn send(&mut self, statement: Statement, port: u16) -> Vec<Output> {
        self.input(Input::Statement { statement, address: from(port) })
    }

    /// Returns the challenge in force, and the counter that an unknown device must exceed.
    fn fetch_challenge(&mut self, device: u64) -> (u32, u32) {
        let stateless = Statement { counter: 0xabcd_1234, ..statement(device, 0, 0) };
        let outputs = self.send(stateless, 1);
        match *outputs {
            [Output::Answer { answer: Answer { device: answered, challenge, says }, address }] => {
                assert_eq!((answered, address), (device, from(1)));
                let Says::Again { above, echo } = says else { panic!("{says:?}") };
                assert_eq!(echo, 0x1234);
                (challenge, above)
            }
            _ => panic!("{outputs:?}"),
        }
    }

    /// Brings a device online from port 1.
    fn join(&mut self, device: u64) -> Statement {
        let (challenge, above) = self.fetch_challenge(device);
        let first = statement(device, challenge, above + 1);
        let outputs = self.send(first, 1);
        assert!(matches!(outputs[..], [event!(Event::Online(_)), answer!(Says::Heard { .. })]));
        first
    }

    /// Advances time to `until` and handles all deadlines on the way.
    fn advance(&mut self, until: Time) -> Vec<(Time, Event)> {
        let mut outputs = Vec::new();
        while let Some(next) = self.hub.next_deadline().filter(|next| *next <= until) {
            self.now = self.now.max(next);
            for output in self.input(Input::Deadline) {
                let Output::Event { event, .. } = output else {
                    panic!("an answer without a statement: {output:?}")
                };
                outputs.push((self.now, event));
            }
        }
        self.now = until;
        outputs
    }
}

macro_rules! event {
    ($event:pat) => {
        Output::Event { event: $event, .. }
    };
}
macro_rules! answer {
    ($says:pat) => {
        Output::Answer { answer: Answer { says: $says, .. }, .. }
    };
}
use {answer, event};

fn statement(device: u64, challenge: u32, counter: u32) -> Statement {
    Statement { device, challenge, counter, status: 0, leaving: false }
}

fn next(statement: Statement) -> Statement {
    Statement { counter: statement.counter + 1, ..statement }
}

#[test]
fn a_device_comes_online_only_under_the_challenge_and_has_no_state_before() {
    let mut harness = Harness::new(settings());
    let (challenge, above) = harness.fetch_challenge(DEVICE);
    assert_ne!(challenge, 0);
    assert_eq!(above, 0);
    assert_eq!(harness.hub.counters().online, 0);
    let first = harness.join(DEVICE);
    let known = harness.hub.presence(DEVICE).unwrap();
    assert_eq!(known.subject.session >> 56, 3);
    assert_eq!(known.subject.address, from(1));
    assert_eq!(harness.hub.counters().online, 1);
    let outputs = harness.send(first, 1);
    assert_eq!(outputs, [], "a replay is not answered");
    assert_eq!(harness.hub.counters().replayed, 1);
    let heard = harness.send(next(first), 1);
    assert!(matches!(heard[..], [answer!(Says::Heard { counter: 2, bound_tenths: 80 })]));
}

#[test]
fn silence_becomes_suspicion_and_the_verdict_falls_at_the_bound() {
    let mut harness = Harness::new(settings());
    harness.join(DEVICE);
    let outputs = harness.advance(at(20_000));
    assert!(matches!(outputs[0], (when, Event::Suspect) if when >= at(3_000) && when < at(3_001)));
    let (when, Event::Lost(verdict)) = outputs[1] else { panic!("{outputs:?}") };
    assert_eq!(outputs.len(), 2);
    assert_eq!((verdict.cause, verdict.due), (Cause::Unknown, at(8_000)));
    assert!(when >= at(8_000) && when < at(8_001));
    assert_eq!(
        harness.hub.counters(),
        Counters { online: 0, suspects: 0, ..harness.hub.counters() }
    );
    assert_eq!(harness.hub.next_deadline(), None, "no deadline is left");
}

#[test]
fn a_statement_ends_suspicion_and_moves_the_verdict() {
    let mut harness = Harness::new(settings());
    let first = harness.join(DEVICE);
    assert_eq!(harness.advance(at(7_000)).len(), 1);
    assert_eq!(harness.hub.counters().suspects, 1);
    let outputs = harness.send(next(first), 1);
    assert!(matches!(outputs[..], [event!(Event::Recovered), answer!(_)]), "{outputs:?}");
    assert_eq!(harness.hub.counters().suspects, 0);
    let outputs = harness.advance(at(30_000));
    let Some((_, Event::Lost(verdict))) = outputs.last() else { panic!("{outputs:?}") };
    assert_eq!((verdict.due, verdict.last_heard), (at(15_000), at(7_000)));
}

#[test]
fn replayed_statements_do_not_bring_a_removed_device_back() {
    let mut harness = Harness::new(settings());
    let mut recorded = Vec::new();
    let mut latest = harness.join(DEVICE);
    for _ in 0..5 {
        latest = next(latest);
        harness.send(latest, 1);
        recorded.push(latest);
    }
    harness.advance(at(20_000));
    for old in &recorded {
        let outputs = harness.send(*old, 666);
        assert!(matches!(outputs[..], [answer!(Says::Again { above: 6, .. })]), "{outputs:?}");
    }
    assert_eq!(harness.hub.counters().online, 0);
    // All unknown devices begin above the same floor: nothing else is kept.
    assert_eq!(harness.fetch_challenge(DEVICE + 1).1, 6);
    assert!(harness.hub.presence(DEVICE).is_none());
    harness.join(DEVICE);
}

#[test]
fn a_restarted_device_gets_its_counter_back_and_keeps_its_session() {
    let mut harness = Harness::new(settings());
    let first = harness.join(DEVICE);
    let session = harness.hub.presence(DEVICE).unwrap().subject.session;
    harness.send(next(first), 1);
    let (challenge, above) = harness.fetch_challenge(DEVICE);
    assert_eq!((challenge, above), (first.challenge, 2));
    harness.send(statement(DEVICE, challenge, above + 1), 1);
    assert_eq!(harness.hub.presence(DEVICE).unwrap().subject.session, session);
}

#[test]
fn only_the_newest_statement_moves_a_device() {
    let mut harness = Harness::new(settings());
    let first = harness.join(DEVICE);
    let (second, third) = (next(first), next(next(first)));
    let outputs = harness.send(third, 2);
    assert!(
        matches!(outputs[..], [event!(Event::Moved { from: was }), answer!(_)] if was == from(1))
    );
    let outputs = harness.send(second, 1);
    assert!(
        matches!(outputs[..], [answer!(Says::Heard { counter: 2, .. })]),
        "late statements are evidence"
    );
    assert_eq!(harness.hub.presence(DEVICE).unwrap().subject.address, from(2));
    assert_eq!(harness.send(third, 666), [], "a replay from another address");
    assert_eq!(harness.hub.presence(DEVICE).unwrap().subject.address, from(2));
}

#[test]
fn a_change_of_the_status_bytes_is_an_event() {
    let mut harness = Harness::new(settings());
    let first = harness.join(DEVICE);
    let outputs = harness.send(Statement { status: 9, ..next(first) }, 1);
    assert!(matches!(outputs[..], [event!(Event::Status { from: 0 }), answer!(_)]));
    assert_eq!(harness.hub.presence(DEVICE).unwrap().subject.status, 9);
}

#[test]
fn a_goodbye_ends_the_session_and_may_be_repeated() {
    let mut harness = Harness::new(settings());
    let first = harness.join(DEVICE);
    let goodbye = Statement { leaving: true, ..next(first) };
    let outputs = harness.send(goodbye, 1);
    let [answer!(Says::Heard { .. }), event!(Event::Lost(verdict))] = outputs[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!(verdict.cause, Cause::PeerClosed(CloseReason::Done));
    assert_eq!(verdict.grounds, Grounds::default(), "it was heard just now");
    let outputs = harness.send(next(goodbye), 1);
    assert!(matches!(outputs[..], [answer!(Says::Heard { counter: 3, .. })]), "{outputs:?}");
    assert_eq!(harness.hub.counters().online, 0);
    let outputs = harness.send(next(goodbye), 1);
    assert!(matches!(outputs[..], [answer!(Says::Again { above: 3, .. })]), "{outputs:?}");
}

#[test]
fn a_full_table_refuses_new_devices_and_keeps_the_others() {
    let mut harness = Harness::new(settings());
    for device in 0..100 {
        harness.join(device);
    }
    let (challenge, above) = harness.fetch_challenge(100);
    assert_eq!(harness.send(statement(100, challenge, above + 1), 1), []);
    assert_eq!(harness.hub.counters(), Counters { online: 100, full: 1, ..harness.hub.counters() });
    let (challenge, above) = harness.fetch_challenge(50);
    let goodbye = Statement { leaving: true, ..statement(50, challenge, above + 1) };
    harness.send(goodbye, 1);
    let outputs = harness.send(statement(100, challenge, above + 1), 666);
    assert!(matches!(outputs[..], [answer!(Says::Again { .. })]), "a refused statement is old");
    harness.join(100);
}

#[test]
fn only_a_device_with_a_high_counter_is_moved_to_a_new_challenge() {
    let mut harness = Harness::new(settings());
    let bystander = harness.join(7);
    let first = harness.join(DEVICE);
    let mut latest = first;
    let mut steps = 0;
    let renewed = loop {
        latest.counter = latest.counter.saturating_add(MAX_AHEAD);
        let outputs = harness.send(latest, 1);
        match outputs[..] {
            [answer!(Says::Heard { .. })] => steps += 1,
            [Output::Answer { answer, .. }] => break answer,
            _ => panic!("{outputs:?}"),
        }
    };
    assert_eq!(steps, RENEWAL_COUNTER / MAX_AHEAD - 1);
    assert_ne!(renewed.challenge, first.challenge);
    assert!(matches!(renewed.says, Says::Again { above: 0, .. }));
    let outputs = harness.send(next(bystander), 1);
    assert!(matches!(outputs[..], [answer!(Says::Heard { .. })]), "{outputs:?}");
    let outputs = harness.send(statement(DEVICE, renewed.challenge, 1), 1);
    assert!(matches!(outputs[..], [answer!(Says::Heard { counter: 1, .. })]), "{outputs:?}");
    let outputs = harness.send(latest, 1);
    assert!(matches!(outputs[..], [answer!(Says::Again { above: 1, .. })]), "{outputs:?}");
    assert_eq!(harness.hub.counters().online, 2);
}

#[test]
fn a_retune_reaches_all_devices_in_bounded_steps() {
    let mut harness = Harness::new(Settings { max_beacons: 5_000, ..settings() });
    for device in 0..3_000 {
        harness.join(device);
    }
    for policy in [Policy::relaxed(), Policy::standard(), Policy::never()] {
        assert_eq!(harness.input(Input::Command(BeaconCommand::Retune(policy))), []);
    }
    let mut retuned = 0;
    for _ in 0..6 {
        let outputs = harness.input(Input::Deadline);
        assert!(outputs.len() <= sweep::SWEEP_STEP);
        retuned += outputs.len();
    }
    assert_eq!(retuned, 6_000, "the second of the three was replaced");
    assert!(harness.hub.presences(0, usize::MAX).all(|known| known.policy == Policy::never()));
    assert_eq!(harness.advance(at(1_000_000)), []);
}

#[test]
fn a_hold_prevents_the_verdict_and_a_kick_ends_the_session() {
    let mut harness = Harness::new(settings());
    harness.join(DEVICE);
    let hold = BeaconCommand::Hold { device: DEVICE, span: Span::from_secs(100) };
    harness.input(Input::Command(hold));
    assert_eq!(harness.advance(at(99_000)), []);
    harness.input(Input::Command(BeaconCommand::Release { device: DEVICE }));
    assert_eq!(harness.advance(at(105_000)).len(), 1);
    let outputs = harness.input(Input::Command(BeaconCommand::Kick { device: DEVICE }));
    assert!(matches!(outputs[..], [event!(Event::Lost(Verdict { cause: Cause::Kicked, .. }))]));
    assert_eq!(
        harness.hub.counters(),
        Counters { suspects: 0, online: 0, ..harness.hub.counters() }
    );
    assert_eq!(harness.input(Input::Command(BeaconCommand::Kick { device: DEVICE })), []);
}

#[test]
fn a_drain_removes_all_devices_in_bounded_steps_and_admits_none() {
    let mut harness = Harness::new(Settings { max_beacons: 5_000, ..settings() });
    for device in 0..3_000 {
        harness.join(device);
    }
    let (challenge, above) = harness.fetch_challenge(9_999);
    harness.input(Input::Command(BeaconCommand::Drain));
    assert_eq!(harness.send(statement(9_999, challenge, above + 1), 1), []);
    let outputs = harness.input(Input::Deadline);
    assert_eq!(outputs.len(), sweep::SWEEP_STEP);
    let outputs = harness.advance(at(1));
    assert_eq!(outputs.len(), 3_000 - sweep::SWEEP_STEP);
    let drained = |event: &Event| matches!(event, Event::Lost(it) if it.cause == Cause::Drained);
    assert!(outputs.iter().all(|(_, event)| drained(event)));
    assert_eq!((harness.hub.counters().online, harness.hub.next_deadline()), (0, None));
}

#[test]
fn an_unenforced_bound_is_reported_and_ends_nothing() {
    let policy = settings().policy.with_enforce(false);
    let mut harness = Harness::new(Settings { policy, ..settings() });
    harness.join(DEVICE);
    let outputs = harness.advance(at(60_000));
    assert!(
        matches!(outputs[..], [(_, Event::Suspect), (_, Event::Overdue { .. })]),
        "{outputs:?}"
    );
    assert_eq!(harness.hub.counters().suspects, 1);
    assert_eq!(harness.hub.counters().online, 1);
}

#[test]
fn addresses_survive_the_round_trip() {
    for text in ["192.0.2.1:7", "[2001:db8::1]:9", "0.0.0.0:0"] {
        let address: SocketAddr = text.parse().unwrap();
        assert_eq!(SocketAddr::from(PackedAddress::from(address)), address);
    }
}

#[test]
fn a_kicked_device_is_refused_for_a_minute_and_then_joins_again() {
    let mut harness = Harness::new(settings());
    let joined = harness.join(DEVICE);
    harness.input(Input::Command(BeaconCommand::Kick { device: DEVICE }));
    let again = next(joined);
    assert_eq!(harness.send(again, 1), [], "no answer, and not online");
    assert_eq!(harness.hub.counters().kicked, 1);
    harness.advance(at(59_000));
    assert_eq!(harness.send(next(again), 1), []);
    harness.advance(at(61_000));
    harness.join(DEVICE);
    assert_eq!(harness.hub.counters().online, 1);
}

#[test]
fn a_statement_refused_after_a_kick_cannot_be_replayed_later() {
    let mut harness = Harness::new(settings());
    let joined = harness.join(DEVICE);
    harness.input(Input::Command(BeaconCommand::Kick { device: DEVICE }));
    let refused = next(joined);
    assert_eq!(harness.send(refused, 1), []);
    harness.advance(Time::ZERO + KICK_REST);
    let outputs = harness.send(refused, 666);
    assert!(matches!(outputs[..], [answer!(Says::Again { above: 2, .. })]), "{outputs:?}");
    assert_eq!(harness.hub.counters().online, 0);
}

#[test]
fn kicked_devices_are_remembered_up_to_a_number() {
    let mut kicked = kicked::Kicked::default();
    for device in 0..=KICKED as u64 {
        kicked.insert(at(1_000), device);
    }
    assert!(!kicked.refuses(at(1_000), 0), "the first gave way");
    assert!(kicked.refuses(at(1_000), 1) && kicked.refuses(at(1_000), KICKED as u64));
    assert!(!kicked.refuses(at(1_000) + KICK_REST, 1));
}

#[test]
fn places_of_devices_whose_last_event_waits_admit_nobody() {
    let mut harness = Harness::new(Settings { max_beacons: 2, ..settings() });
    harness.join(1);
    harness.input(Input::Command(BeaconCommand::HoldPlaces(1)));
    harness.send(statement(2, harness.hub.challenge, 7), 1);
    assert_eq!((harness.hub.counters().online, harness.hub.counters().full), (1, 1));
    harness.input(Input::Command(BeaconCommand::HoldPlaces(0)));
    harness.join(2);
    assert_eq!(harness.hub.counters().online, 2);
}
