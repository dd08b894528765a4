//! Tests of the beacon machine as a whole.

use alloc::vec::Vec;

use super::*;
use crate::driver::Driver;
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
    hub: Driver<BeaconHub>,
    now: Time,
}

impl Harness {
    fn new(settings: Settings) -> Harness {
        Harness { hub: Driver::new(Time::ZERO, BeaconHub::new(settings)), now: Time::ZERO }
    }

    /// Handles the due deadlines.
    fn expire(&mut self) -> Vec<Output> {
        self.hub.expire(self.now, self.now);
        core::iter::from_fn(|| self.hub.poll_output()).collect()
    }

    fn input(&mut self, input: impl Into<Input>) -> Vec<Output> {
        self.hub.handle(self.now, input);
        core::iter::from_fn(|| self.hub.poll_output()).collect()
    }

    fn send(&mut self, statement: Statement, port: u16) -> Vec<Output> {
        self.input(World::Statement { statement, address: from(port) })
    }

    /// Returns the challenge in force, and the counter that an unknown device must exceed.
    fn fetch_challenge(&mut self, device: u64) -> (u32, u32) {
        let stateless = Statement { counter: 0xabcd_1234, ..statement(device, 0, 0) };
        let outputs = self.send(stateless, 1);
        match *outputs {
            [Output::Reply { reply: Reply { device: answered, challenge, says }, address }] => {
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
        assert!(matches!(outputs[..], [event!(Event::Joined { .. }), answer!(Says::Heard { .. })]));
        first
    }

    /// Advances time to `until` and handles all deadlines on the way.
    fn advance(&mut self, until: Time) -> Vec<(Time, Event)> {
        let mut outputs = Vec::new();
        while let Some(next) = self.hub.next_deadline().filter(|next| *next <= until) {
            self.now = self.now.max(next);
            for output in self.expire() {
                let Output::Session { event, .. } = output else {
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
        Output::Session { event: $event, .. }
    };
}
macro_rules! answer {
    ($says:pat) => {
        Output::Reply { reply: Reply { says: $says, .. }, .. }
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
    assert_eq!(harness.hub.machine().counters().online, 0);
    let first = harness.join(DEVICE);
    let known = harness.hub.machine().presence(DEVICE).unwrap();
    assert_eq!(known.subject.session >> 56, 3);
    assert_eq!(known.subject.address, from(1));
    assert_eq!(harness.hub.machine().counters().online, 1);
    let outputs = harness.send(first, 1);
    assert_eq!(outputs, [], "a replay is not answered");
    assert_eq!(harness.hub.machine().counters().replayed, 1);
    let heard = harness.send(next(first), 1);
    assert!(matches!(heard[..], [answer!(Says::Heard { counter: 2, bound_tenths: 80 })]));
}

#[test]
fn silence_becomes_suspicion_and_the_verdict_falls_at_the_bound() {
    let mut harness = Harness::new(settings());
    harness.join(DEVICE);
    let outputs = harness.advance(at(20_000));
    assert!(matches!(outputs[0], (when, Event::Suspect) if when >= at(3_000) && when < at(3_001)));
    let (when, Event::Left(verdict)) = outputs[1] else { panic!("{outputs:?}") };
    assert_eq!(outputs.len(), 2);
    assert_eq!((verdict.cause, verdict.due), (Cause::Unknown, at(8_000)));
    assert!(when >= at(8_000) && when < at(8_001));
    assert_eq!(
        harness.hub.machine().counters(),
        Counters { online: 0, suspects: 0, ..harness.hub.machine().counters() }
    );
    assert_eq!(harness.hub.next_deadline(), None, "no deadline is left");
}

#[test]
fn a_statement_ends_suspicion_and_moves_the_verdict() {
    let mut harness = Harness::new(settings());
    let first = harness.join(DEVICE);
    assert_eq!(harness.advance(at(7_000)).len(), 1);
    assert_eq!(harness.hub.machine().counters().suspects, 1);
    let outputs = harness.send(next(first), 1);
    assert!(matches!(outputs[..], [event!(Event::Recovered), answer!(_)]), "{outputs:?}");
    assert_eq!(harness.hub.machine().counters().suspects, 0);
    let outputs = harness.advance(at(30_000));
    let Some((_, Event::Left(verdict))) = outputs.last() else { panic!("{outputs:?}") };
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
    assert_eq!(harness.hub.machine().counters().online, 0);
    // All unknown devices of a group begin above the same floor: nothing else is kept.
    assert_eq!(harness.fetch_challenge(DEVICE + 1).1, 6);
    assert!(harness.hub.machine().presence(DEVICE).is_none());
    harness.join(DEVICE);
}

#[test]
fn a_restarted_device_gets_its_counter_back_and_keeps_its_session() {
    let mut harness = Harness::new(settings());
    let first = harness.join(DEVICE);
    let session = harness.hub.machine().presence(DEVICE).unwrap().subject.session;
    harness.send(next(first), 1);
    let (challenge, above) = harness.fetch_challenge(DEVICE);
    assert_eq!((challenge, above), (first.challenge, 2));
    harness.send(statement(DEVICE, challenge, above + 1), 1);
    assert_eq!(harness.hub.machine().presence(DEVICE).unwrap().subject.session, session);
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
    assert_eq!(harness.hub.machine().presence(DEVICE).unwrap().subject.address, from(2));
    assert_eq!(harness.send(third, 666), [], "a replay from another address");
    assert_eq!(harness.hub.machine().presence(DEVICE).unwrap().subject.address, from(2));
}

#[test]
fn a_change_of_the_status_bytes_is_an_event() {
    let mut harness = Harness::new(settings());
    let first = harness.join(DEVICE);
    let outputs = harness.send(Statement { status: 9, ..next(first) }, 1);
    assert!(matches!(outputs[..], [Output::Status { from: 0, .. }, answer!(_)]));
    assert_eq!(harness.hub.machine().presence(DEVICE).unwrap().subject.status, 9);
}

#[test]
fn a_goodbye_ends_the_session_and_may_be_repeated() {
    let mut harness = Harness::new(settings());
    let first = harness.join(DEVICE);
    let goodbye = Statement { leaving: true, ..next(first) };
    let outputs = harness.send(goodbye, 1);
    let [answer!(Says::Heard { .. }), event!(Event::Left(verdict))] = outputs[..] else {
        panic!("{outputs:?}")
    };
    assert_eq!(verdict.cause, Cause::PeerClosed(CloseReason::Done));
    assert_eq!(verdict.grounds, Grounds::default(), "it was heard just now");
    let outputs = harness.send(next(goodbye), 1);
    assert!(matches!(outputs[..], [answer!(Says::Heard { counter: 3, .. })]), "{outputs:?}");
    assert_eq!(harness.hub.machine().counters().online, 0);
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
    assert_eq!(
        harness.hub.machine().counters(),
        Counters { online: 100, full: 1, ..harness.hub.machine().counters() }
    );
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
    let latest = Statement { counter: RENEWAL_COUNTER - 1, ..first };
    let outputs = harness.send(latest, 1);
    assert!(matches!(outputs[..], [answer!(Says::Heard { .. })]), "{outputs:?}");
    let latest = next(latest);
    let outputs = harness.send(latest, 1);
    let [Output::Reply { reply: renewed, .. }] = outputs[..] else { panic!("{outputs:?}") };
    assert_ne!(renewed.challenge, first.challenge);
    assert!(matches!(renewed.says, Says::Again { above: 0, .. }));
    let outputs = harness.send(next(bystander), 1);
    assert!(matches!(outputs[..], [answer!(Says::Heard { .. })]), "{outputs:?}");
    let outputs = harness.send(statement(DEVICE, renewed.challenge, 1), 1);
    assert!(matches!(outputs[..], [answer!(Says::Heard { counter: 1, .. })]), "{outputs:?}");
    let outputs = harness.send(latest, 1);
    assert!(matches!(outputs[..], [answer!(Says::Again { above: 1, .. })]), "{outputs:?}");
    assert_eq!(harness.hub.machine().counters().online, 2);
}

#[test]
fn a_retune_reaches_all_devices_in_bounded_steps() {
    let mut harness = Harness::new(Settings { max_beacons: 5_000, ..settings() });
    for device in 0..3_000 {
        harness.join(device);
    }
    for policy in [Policy::relaxed(), Policy::standard(), Policy::never()] {
        assert_eq!(harness.input(World::Command(BeaconCommand::Retune(policy))), []);
    }
    let mut retuned = 0;
    for _ in 0..6 {
        let outputs = harness.expire();
        assert!(outputs.len() <= sweep::SWEEP_STEP);
        retuned += outputs.len();
    }
    assert_eq!(retuned, 6_000, "the second of the three was replaced");
    assert!(
        harness.hub.machine().presences(0, usize::MAX).all(|known| known.policy == Policy::never())
    );
    assert_eq!(harness.advance(at(1_000_000)), []);
}

#[test]
fn a_hold_prevents_the_verdict_and_a_kick_ends_the_session() {
    let mut harness = Harness::new(settings());
    harness.join(DEVICE);
    let hold = BeaconCommand::Hold { device: DEVICE, span: Span::from_secs(100) };
    harness.input(World::Command(hold));
    assert_eq!(harness.advance(at(99_000)), []);
    harness.input(World::Command(BeaconCommand::Release { device: DEVICE }));
    assert_eq!(harness.advance(at(105_000)).len(), 1);
    let outputs = harness.input(World::Command(BeaconCommand::Kick { device: DEVICE }));
    assert!(matches!(outputs[..], [event!(Event::Left(Verdict { cause: Cause::Kicked, .. }))]));
    assert_eq!(
        harness.hub.machine().counters(),
        Counters { suspects: 0, online: 0, ..harness.hub.machine().counters() }
    );
    assert_eq!(harness.input(World::Command(BeaconCommand::Kick { device: DEVICE })), []);
}

#[test]
fn a_drain_removes_all_devices_in_bounded_steps_and_admits_none() {
    let mut harness = Harness::new(Settings { max_beacons: 5_000, ..settings() });
    for device in 0..3_000 {
        harness.join(device);
    }
    let (challenge, above) = harness.fetch_challenge(9_999);
    harness.input(World::Command(BeaconCommand::Drain));
    assert_eq!(harness.send(statement(9_999, challenge, above + 1), 1), []);
    let outputs = harness.expire();
    assert_eq!(outputs.len(), sweep::SWEEP_STEP);
    let outputs = harness.advance(at(1));
    assert_eq!(outputs.len(), 3_000 - sweep::SWEEP_STEP);
    let drained = |event: &Event| matches!(event, Event::Left(it) if it.cause == Cause::Drained);
    assert!(outputs.iter().all(|(_, event)| drained(event)));
    assert_eq!((harness.hub.machine().counters().online, harness.hub.next_deadline()), (0, None));
}

#[test]
fn a_retune_before_or_during_a_drain_leaves_nothing_to_do_behind_it() {
    let retune = BeaconCommand::Retune(Policy::relaxed());
    for commands in [[retune, BeaconCommand::Drain], [BeaconCommand::Drain, retune]] {
        for devices in [0, 1_500] {
            let mut harness = Harness::new(Settings { max_beacons: 5_000, ..settings() });
            for device in 0..devices {
                harness.join(device);
            }
            for command in commands {
                harness.input(World::Command(command));
            }
            harness.expire();
            harness.expire();
            let online = harness.hub.machine().counters().online;
            assert_eq!((online, harness.hub.next_deadline()), (0, None), "{commands:?}");
        }
    }
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
    assert_eq!(harness.hub.machine().counters().suspects, 1);
    assert_eq!(harness.hub.machine().counters().online, 1);
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
    harness.input(World::Command(BeaconCommand::Kick { device: DEVICE }));
    let again = next(joined);
    assert_eq!(harness.send(again, 1), [], "no answer, and not online");
    assert_eq!(harness.hub.machine().counters().kicked, 1);
    harness.advance(at(59_000));
    assert_eq!(harness.send(next(again), 1), []);
    harness.advance(at(61_000));
    harness.join(DEVICE);
    assert_eq!(harness.hub.machine().counters().online, 1);
}

#[test]
fn a_statement_refused_after_a_kick_cannot_be_replayed_later() {
    let mut harness = Harness::new(settings());
    let joined = harness.join(DEVICE);
    harness.input(World::Command(BeaconCommand::Kick { device: DEVICE }));
    let refused = next(joined);
    assert_eq!(harness.send(refused, 1), []);
    harness.advance(Time::ZERO + KICK_REST);
    let outputs = harness.send(refused, 666);
    assert!(matches!(outputs[..], [answer!(Says::Again { above: 2, .. })]), "{outputs:?}");
    assert_eq!(harness.hub.machine().counters().online, 0);
}

#[test]
fn a_banned_statement_is_refused_for_ever_and_ends_its_device() {
    let mut harness = Harness::new(settings());
    let joined = harness.join(DEVICE);
    assert_eq!(harness.input(World::Banned { statement: joined }), [], "an old one ends nobody");
    assert_eq!(harness.hub.machine().counters().online, 1);
    let banned = next(joined);
    let outputs = harness.input(World::Banned { statement: banned });
    assert!(matches!(outputs[..], [event!(Event::Left(Verdict { cause: Cause::Kicked, .. }))]));
    let later = next(banned);
    assert_eq!(harness.input(World::Banned { statement: later }), [], "no answer");
    for refused in [banned, later] {
        let outputs = harness.send(refused, 666);
        assert!(matches!(outputs[..], [answer!(Says::Again { .. })]), "{outputs:?}");
    }
    assert_eq!(harness.hub.machine().counters().online, 0);
    harness.join(DEVICE);
    let counters = harness.hub.machine().counters();
    assert_eq!((counters.online, counters.banned, counters.kicked), (1, 3, 0), "the ban is over");
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
    harness.input(Answer::PlacesHeld(1));
    let (challenge, above) = harness.fetch_challenge(2);
    harness.send(statement(2, challenge, above + 1), 1);
    assert_eq!(
        (harness.hub.machine().counters().online, harness.hub.machine().counters().full),
        (1, 1)
    );
    harness.input(Answer::PlacesHeld(0));
    harness.join(2);
    assert_eq!(harness.hub.machine().counters().online, 2);
}

#[test]
fn a_counter_far_ahead_is_accepted_so_that_it_cannot_be_replayed_later() {
    let mut harness = Harness::new(settings());
    let first = harness.join(DEVICE);
    // The device counts on through an outage, and its network is back within the bound.
    let far = Statement { counter: first.counter + 1_500, ..first };
    let outputs = harness.send(far, 1);
    assert!(matches!(outputs[..], [answer!(Says::Heard { .. })]), "{outputs:?}");
    let mut latest = far;
    for _ in 0..600 {
        latest = next(latest);
        harness.send(latest, 1);
    }
    let outputs = harness.send(far, 666);
    assert!(matches!(outputs[..], [answer!(Says::Again { .. })]), "{outputs:?}");
    assert_eq!(harness.hub.machine().presence(DEVICE).unwrap().subject.address, from(1));
}

#[test]
fn a_refused_counter_far_ahead_never_brings_an_absent_device_online() {
    let mut harness = Harness::new(settings());
    let first = harness.join(DEVICE);
    harness.advance(at(20_000));
    // Back after a long outage, and gone again.
    let far = Statement { counter: first.counter + 1_500, ..first };
    let outputs = harness.send(far, 1);
    assert!(matches!(outputs[..], [event!(Event::Joined { .. }), answer!(Says::Heard { .. })]));
    harness.send(Statement { leaving: true, ..next(far) }, 1);
    let other = harness.join(DEVICE + 1);
    assert_eq!(other.counter, far.counter + 2, "of the same group");
    harness.send(Statement { counter: other.counter + 600, leaving: true, ..other }, 1);
    let outputs = harness.send(far, 666);
    assert!(matches!(outputs[..], [answer!(Says::Again { .. })]), "{outputs:?}");
    assert_eq!(harness.hub.machine().counters().online, 0);
}

#[test]
fn a_living_device_behind_its_window_is_told_to_count_on() {
    let mut harness = Harness::new(settings());
    let first = harness.join(DEVICE);
    let highest = Statement { counter: first.counter + 100, ..first };
    harness.send(highest, 1);
    assert_eq!(harness.send(highest, 1), [], "doubled by the network");
    for behind in [64, 100] {
        let old = Statement { counter: highest.counter - behind, ..first };
        let outputs = harness.send(old, 1);
        let [answer!(Says::Again { above, echo })] = outputs[..] else { panic!("{outputs:?}") };
        assert_eq!((above, echo), (highest.counter, old.counter as u16));
    }
    let outputs = harness.send(next(highest), 1);
    assert!(matches!(outputs[..], [answer!(Says::Heard { .. })]), "{outputs:?}");
}

/// Returns two devices of different groups.
fn apart(harness: &mut Harness) -> (u64, u64) {
    let floors = &mut harness.hub.machine_mut().floors;
    let mut group = |device| core::ptr::from_ref(floors.of(device)) as usize;
    let other = (1..1_000).find(|device| group(*device) != group(0)).unwrap();
    (0, other)
}

#[test]
fn goodbyes_with_ever_higher_counters_hinder_only_their_own_group() {
    let mut harness = Harness::new(Settings { max_beacons: 4 * GROUP, ..settings() });
    let (stolen, other) = apart(&mut harness);
    let (challenge, above) = harness.fetch_challenge(other);
    let (_, counter) = harness.fetch_challenge(stolen);
    for step in 1..1_000 {
        let goodbye = Statement { leaving: true, ..statement(stolen, challenge, counter + step) };
        harness.send(goodbye, 666);
    }
    assert_eq!(harness.fetch_challenge(stolen).1, counter + 999);
    let outputs = harness.send(statement(other, challenge, above + 1), 1);
    assert!(matches!(outputs[..], [event!(Event::Joined { .. }), answer!(_)]), "{outputs:?}");
}

#[test]
fn a_challenge_that_is_used_up_is_followed_by_the_next_one_once_a_second() {
    let mut harness = Harness::new(settings());
    let (challenge, _) = harness.fetch_challenge(DEVICE);
    let mut wasted = statement(DEVICE, challenge, RENEWAL_COUNTER);
    for step in 1..=5 {
        let outputs = harness.send(wasted, 666);
        let [Output::Reply { reply: answer, .. }] = outputs[..] else { panic!("{outputs:?}") };
        assert_eq!(
            (answer.challenge, harness.hub.machine().counters().online),
            (challenge + step, 0)
        );
        assert!(matches!(answer.says, Says::Again { above: 0, .. }));
        wasted = statement(DEVICE, answer.challenge, u32::MAX - step);
        assert_eq!(harness.send(wasted, 666), [], "too soon");
        assert_eq!(harness.send(statement(DEVICE + 1, 0, 5), 1), [], "none to give yet");
        harness.advance(harness.now + CHALLENGE_REST);
    }
    harness.join(DEVICE + 1);
}

#[test]
fn an_online_device_that_uses_up_its_challenge_too_soon_is_still_heard() {
    let mut harness = Harness::new(settings());
    let first = harness.join(DEVICE);
    let outputs = harness.send(Statement { counter: u32::MAX, ..first }, 1);
    let [Output::Reply { reply: answer, .. }] = outputs[..] else { panic!("{outputs:?}") };
    let highest = statement(DEVICE, answer.challenge, u32::MAX);
    let outputs = harness.send(highest, 1);
    assert!(matches!(outputs[..], [answer!(Says::Heard { .. })]), "{outputs:?}");
    let round = Statement { counter: 0, ..highest };
    assert_eq!(harness.send(round, 1), [], "no counter is left, and the next challenge not due");
    harness.advance(at(0) + CHALLENGE_REST);
    let outputs = harness.send(round, 1);
    assert!(matches!(outputs[..], [answer!(Says::Again { above: 0, .. })]), "{outputs:?}");
}

/// Brings a device online under `first`, puts `second` in force after a second, and returns the
/// machine.
fn retuned(first: Policy, second: Policy) -> (Harness, Statement) {
    let mut harness = Harness::new(Settings { policy: first, ..settings() });
    let joined = harness.join(DEVICE);
    harness.advance(at(1_000));
    harness.input(World::Command(BeaconCommand::Retune(second)));
    let outputs = harness.advance(at(1_001));
    assert!(matches!(outputs[..], [(_, Event::Retuned(policy))] if policy == second));
    (harness, joined)
}

fn due(outputs: &[(Time, Event)]) -> Option<Time> {
    outputs.iter().find_map(|(_, event)| {
        let Event::Left(verdict) = event else {
            return None;
        };
        Some(verdict.due)
    })
}

#[test]
fn a_shorter_bound_judges_a_device_only_after_it_was_told() {
    let seconds = |bound: u64| {
        let third = Span::from_millis(bound * 250);
        Policy::new(third, third, 3).unwrap().with_spread(false)
    };
    let (mut harness, joined) = retuned(seconds(16), seconds(2));
    assert_eq!(due(&harness.advance(at(15_900))), None, "it was told 16 s");
    let outputs = harness.send(next(joined), 1);
    assert!(matches!(outputs[..], [.., answer!(Says::Heard { bound_tenths: 20, .. })]));
    assert_eq!(due(&harness.advance(at(40_000))), Some(at(17_900)), "it was told 2 s");
    let (mut harness, joined) = retuned(seconds(16), seconds(2));
    harness.send(next(joined), 1);
    assert_eq!(due(&harness.advance(at(40_000))), Some(at(3_001)), "told before any doubt");
    let (mut harness, _) = retuned(seconds(16), seconds(2));
    harness.input(World::Command(BeaconCommand::Retune(seconds(4))));
    assert_eq!(due(&harness.advance(at(40_000))), Some(at(16_000)), "never later than it was told");
    let (mut harness, _) = retuned(seconds(2), seconds(16));
    assert_eq!(due(&harness.advance(at(40_000))), Some(at(16_000)), "a longer one is at once");
}

#[test]
fn a_device_told_that_silence_is_never_judged_is_judged_from_its_next_statement_on() {
    let (mut harness, joined) = retuned(Policy::never(), settings().policy);
    assert_eq!(harness.advance(at(1_000_000)), []);
    let outputs = harness.send(next(joined), 1);
    assert!(matches!(outputs[..], [answer!(Says::Heard { bound_tenths: 80, .. })]));
    assert_eq!(due(&harness.advance(at(2_000_000))), Some(at(1_008_000)));
}
