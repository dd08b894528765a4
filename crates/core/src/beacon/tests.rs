//! Tests of the beacons as one machine.

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

struct Bench {
    hub: BeaconHub,
    now: Time,
}

impl Bench {
    fn new(settings: Settings) -> Bench {
        Bench { hub: BeaconHub::new(Time::ZERO, settings), now: Time::ZERO }
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.hub.handle(self.now, input);
        core::iter::from_fn(|| self.hub.poll_output()).collect()
    }

    fn state(&mut self, statement: Statement, port: u16) -> Vec<Output> {
        self.input(Input::Statement { statement, address: from(port) })
    }

    /// The challenge in force, and the counter above which an unknown device must begin.
    fn learn(&mut self, device: u64) -> (u32, u32) {
        let asked = Statement { counter: 0xabcd_1234, ..statement(device, 0, 0) };
        let told = self.state(asked, 1);
        match *told {
            [Output::Answer { answer: Answer { device: whom, challenge, says }, address }] => {
                assert_eq!((whom, address), (device, from(1)));
                let Says::Again { above, echo } = says else { panic!("{says:?}") };
                assert_eq!(echo, 0x1234);
                (challenge, above)
            }
            _ => panic!("{told:?}"),
        }
    }

    /// Brings a device online from port 1.
    fn join(&mut self, device: u64) -> Statement {
        let (challenge, above) = self.learn(device);
        let first = statement(device, challenge, above + 1);
        let told = self.state(first, 1);
        assert!(matches!(told[..], [event!(Event::Online(_)), answer!(Says::Heard { .. })]));
        first
    }

    /// Lets time pass up to `until`, with all deadlines on the way.
    fn pass(&mut self, until: Time) -> Vec<(Time, Event)> {
        let mut told = Vec::new();
        while let Some(next) = self.hub.next_deadline().filter(|next| *next <= until) {
            self.now = self.now.max(next);
            for output in self.input(Input::Deadline) {
                let Output::Event { event, .. } = output else { panic!("unasked: {output:?}") };
                told.push((self.now, event));
            }
        }
        self.now = until;
        told
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
fn a_device_comes_online_only_under_the_challenge_and_holds_no_state_before() {
    let mut bench = Bench::new(settings());
    let (challenge, above) = bench.learn(DEVICE);
    assert_ne!(challenge, 0);
    assert_eq!(above, 0);
    assert_eq!(bench.hub.counters().online, 0);
    let first = bench.join(DEVICE);
    let known = bench.hub.presence(DEVICE).unwrap();
    assert_eq!(known.subject.session >> 56, 3);
    assert_eq!(known.subject.address, from(1));
    assert_eq!(bench.hub.counters().online, 1);
    let told = bench.state(first, 1);
    assert_eq!(told, [], "a replay is not answered");
    assert_eq!(bench.hub.counters().replayed, 1);
    let heard = bench.state(next(first), 1);
    assert!(matches!(heard[..], [answer!(Says::Heard { counter: 2, bound_tenths: 80 })]));
}

#[test]
fn silence_becomes_suspicion_and_the_verdict_falls_at_the_bound() {
    let mut bench = Bench::new(settings());
    bench.join(DEVICE);
    let told = bench.pass(at(20_000));
    assert!(matches!(told[0], (when, Event::Suspect) if when >= at(3_000) && when < at(3_001)));
    let (when, Event::Lost(verdict)) = told[1] else { panic!("{told:?}") };
    assert_eq!(told.len(), 2);
    assert_eq!((verdict.cause, verdict.due), (Cause::Unknown, at(8_000)));
    assert!(when >= at(8_000) && when < at(8_001));
    assert_eq!(bench.hub.counters(), Counters { online: 0, suspects: 0, ..bench.hub.counters() });
    assert_eq!(bench.hub.next_deadline(), None, "nothing is left of it");
}

#[test]
fn a_statement_ends_suspicion_and_moves_the_verdict() {
    let mut bench = Bench::new(settings());
    let first = bench.join(DEVICE);
    assert_eq!(bench.pass(at(7_000)).len(), 1);
    assert_eq!(bench.hub.counters().suspects, 1);
    let told = bench.state(next(first), 1);
    assert!(matches!(told[..], [event!(Event::Recovered), answer!(_)]), "{told:?}");
    assert_eq!(bench.hub.counters().suspects, 0);
    let told = bench.pass(at(30_000));
    let Some((_, Event::Lost(verdict))) = told.last() else { panic!("{told:?}") };
    assert_eq!((verdict.due, verdict.last_heard), (at(15_000), at(7_000)));
}

#[test]
fn nothing_old_brings_back_a_device_that_was_let_go() {
    let mut bench = Bench::new(settings());
    let mut recorded = Vec::new();
    let mut said = bench.join(DEVICE);
    for _ in 0..5 {
        said = next(said);
        bench.state(said, 1);
        recorded.push(said);
    }
    bench.pass(at(20_000));
    for old in &recorded {
        let told = bench.state(*old, 666);
        assert!(matches!(told[..], [answer!(Says::Again { above: 6, .. })]), "{told:?}");
    }
    assert_eq!(bench.hub.counters().online, 0);
    // Others begin above it too, for nothing more is kept of it than the number.
    assert_eq!(bench.learn(DEVICE + 1).1, 6);
    assert!(bench.hub.presence(DEVICE).is_none());
    bench.join(DEVICE);
}

#[test]
fn a_device_that_restarts_learns_where_to_go_on_and_keeps_its_session() {
    let mut bench = Bench::new(settings());
    let first = bench.join(DEVICE);
    let session = bench.hub.presence(DEVICE).unwrap().subject.session;
    bench.state(next(first), 1);
    let (challenge, above) = bench.learn(DEVICE);
    assert_eq!((challenge, above), (first.challenge, 2));
    bench.state(statement(DEVICE, challenge, above + 1), 1);
    assert_eq!(bench.hub.presence(DEVICE).unwrap().subject.session, session);
}

#[test]
fn only_the_newest_statement_moves_a_device() {
    let mut bench = Bench::new(settings());
    let first = bench.join(DEVICE);
    let (second, third) = (next(first), next(next(first)));
    let told = bench.state(third, 2);
    assert!(matches!(told[..], [event!(Event::Moved { from: was }), answer!(_)] if was == from(1)));
    let told = bench.state(second, 1);
    assert!(matches!(told[..], [answer!(Says::Heard { counter: 2, .. })]), "late, but alive");
    assert_eq!(bench.hub.presence(DEVICE).unwrap().subject.address, from(2));
    assert_eq!(bench.state(third, 666), [], "a copy from elsewhere moves nothing");
    assert_eq!(bench.hub.presence(DEVICE).unwrap().subject.address, from(2));
}

#[test]
fn status_bytes_are_told_when_they_change() {
    let mut bench = Bench::new(settings());
    let first = bench.join(DEVICE);
    let told = bench.state(Statement { status: 9, ..next(first) }, 1);
    assert!(matches!(told[..], [event!(Event::Status { from: 0 }), answer!(_)]));
    assert_eq!(bench.hub.presence(DEVICE).unwrap().subject.status, 9);
}

#[test]
fn goodbye_ends_a_session_and_may_be_said_twice() {
    let mut bench = Bench::new(settings());
    let first = bench.join(DEVICE);
    let goodbye = Statement { leaving: true, ..next(first) };
    let told = bench.state(goodbye, 1);
    let [answer!(Says::Heard { .. }), event!(Event::Lost(verdict))] = told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(verdict.cause, Cause::PeerClosed(CloseReason::Done));
    let told = bench.state(next(goodbye), 1);
    assert!(matches!(told[..], [answer!(Says::Heard { counter: 3, .. })]), "{told:?}");
    assert_eq!(bench.hub.counters().online, 0);
    let told = bench.state(next(goodbye), 1);
    assert!(matches!(told[..], [answer!(Says::Again { above: 3, .. })]), "{told:?}");
}

#[test]
fn a_full_table_takes_no_more_and_loses_nobody() {
    let mut bench = Bench::new(settings());
    for device in 0..100 {
        bench.join(device);
    }
    let (challenge, above) = bench.learn(100);
    assert_eq!(bench.state(statement(100, challenge, above + 1), 1), []);
    assert_eq!(bench.hub.counters(), Counters { online: 100, full: 1, ..bench.hub.counters() });
    let (challenge, above) = bench.learn(50);
    let goodbye = Statement { leaving: true, ..statement(50, challenge, above + 1) };
    bench.state(goodbye, 1);
    let told = bench.state(statement(100, challenge, above + 1), 666);
    assert!(matches!(told[..], [answer!(Says::Again { .. })]), "refused once, and now old");
    bench.join(100);
}

#[test]
fn who_counts_high_is_moved_to_another_challenge_and_nobody_else_is() {
    let mut bench = Bench::new(settings());
    let bystander = bench.join(7);
    let first = bench.join(DEVICE);
    let mut said = first;
    let mut steps = 0;
    let renewed = loop {
        said.counter = said.counter.saturating_add(MAX_AHEAD);
        let told = bench.state(said, 1);
        match told[..] {
            [answer!(Says::Heard { .. })] => steps += 1,
            [Output::Answer { answer, .. }] => break answer,
            _ => panic!("{told:?}"),
        }
    };
    assert_eq!(steps, LAST_COUNTER / MAX_AHEAD - 1);
    assert_ne!(renewed.challenge, first.challenge);
    assert!(matches!(renewed.says, Says::Again { above: 0, .. }));
    let told = bench.state(next(bystander), 1);
    assert!(matches!(told[..], [answer!(Says::Heard { .. })]), "{told:?}");
    let told = bench.state(statement(DEVICE, renewed.challenge, 1), 1);
    assert!(matches!(told[..], [answer!(Says::Heard { counter: 1, .. })]), "{told:?}");
    let told = bench.state(said, 1);
    assert!(matches!(told[..], [answer!(Says::Again { above: 1, .. })]), "{told:?}");
    assert_eq!(bench.hub.counters().online, 2);
}

#[test]
fn a_retune_reaches_everybody_in_steps() {
    let mut bench = Bench::new(Settings { max_beacons: 5_000, ..settings() });
    for device in 0..3_000 {
        bench.join(device);
    }
    for policy in [Policy::relaxed(), Policy::standard(), Policy::never()] {
        assert_eq!(bench.input(Input::Command(BeaconCommand::Retune(policy))), []);
    }
    let mut retuned = 0;
    for _ in 0..6 {
        let told = bench.input(Input::Deadline);
        assert!(told.len() <= sweep::SWEEP_STEP);
        retuned += told.len();
    }
    assert_eq!(retuned, 6_000, "the second of the three was overtaken");
    assert!(bench.hub.presences(0).all(|known| known.policy == Policy::never()));
    assert_eq!(bench.pass(at(1_000_000)), []);
}

#[test]
fn a_hold_shields_and_a_kick_ends() {
    let mut bench = Bench::new(settings());
    bench.join(DEVICE);
    let hold = BeaconCommand::Hold { device: DEVICE, span: Span::from_secs(100) };
    bench.input(Input::Command(hold));
    assert_eq!(bench.pass(at(99_000)), []);
    bench.input(Input::Command(BeaconCommand::Release { device: DEVICE }));
    assert_eq!(bench.pass(at(105_000)).len(), 1);
    let told = bench.input(Input::Command(BeaconCommand::Kick { device: DEVICE }));
    assert!(matches!(told[..], [event!(Event::Lost(Verdict { cause: Cause::Kicked, .. }))]));
    assert_eq!(bench.hub.counters(), Counters { suspects: 0, online: 0, ..bench.hub.counters() });
    assert_eq!(bench.input(Input::Command(BeaconCommand::Kick { device: DEVICE })), []);
}

#[test]
fn a_drain_lets_all_go_in_steps_and_takes_nobody() {
    let mut bench = Bench::new(Settings { max_beacons: 5_000, ..settings() });
    for device in 0..3_000 {
        bench.join(device);
    }
    let (challenge, above) = bench.learn(9_999);
    bench.input(Input::Command(BeaconCommand::Drain));
    assert_eq!(bench.state(statement(9_999, challenge, above + 1), 1), []);
    let told = bench.input(Input::Deadline);
    assert_eq!(told.len(), sweep::SWEEP_STEP);
    let told = bench.pass(at(1));
    assert_eq!(told.len(), 3_000 - sweep::SWEEP_STEP);
    let drained = |event: &Event| matches!(event, Event::Lost(it) if it.cause == Cause::Drained);
    assert!(told.iter().all(|(_, event)| drained(event)));
    assert_eq!((bench.hub.counters().online, bench.hub.next_deadline()), (0, None));
}

#[test]
fn an_unenforced_bound_is_told_and_ends_nothing() {
    let policy = settings().policy.with_enforce(false);
    let mut bench = Bench::new(Settings { policy, ..settings() });
    bench.join(DEVICE);
    let told = bench.pass(at(60_000));
    assert!(matches!(told[..], [(_, Event::Suspect), (_, Event::Overdue { .. })]), "{told:?}");
    assert_eq!(bench.hub.counters().suspects, 1);
    assert_eq!(bench.hub.counters().online, 1);
}

#[test]
fn addresses_come_back_as_they_went_in() {
    for text in ["192.0.2.1:7", "[2001:db8::1]:9", "0.0.0.0:0"] {
        let address: SocketAddr = text.parse().unwrap();
        assert_eq!(SocketAddr::from(PackedAddress::from(address)), address);
    }
}
