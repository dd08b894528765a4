//! Links whose round trip grows and shrinks, with the figures of a kernel: nobody alive is given
//! up, by the gateway or by its kernel, and the dead are, at the time that rule 13 says.

use systole_core::hub::FRAME_MEMORY;
use systole_core::kernel::Patience;
use systole_core::link::{self, Settings, Side};
use systole_core::liveness::Role;
use systole_core::random::Random;
use systole_core::wire::Codec;
use systole_core::{Policy, Span, Time};

use super::gateway::{HubConfig, LoopTiming};
use super::kernel::Doubted;
use super::network::Quality;
use super::peer::{NEVER, Peer, Plan};
use super::tcp::Tcp;
use super::world::World;

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLI;

/// Idle 1 s, interval 0.5 s and 8 probes: D = 5 s.
const QUICK: [u64; 3] = [1_000, 500, 8];
/// Idle 4 s, interval 3 s and 4 probes: D = 16 s.
const COMMON: [u64; 3] = [4_000, 3_000, 4];
/// Idle 5 s, interval 5 s and 4 probes: D = 25 s.
const PATIENT: [u64; 3] = [5_000, 5_000, 4];
/// Idle 2 s, interval 2 s and 3 probes: D = 8 s.
const DEMANDING: [u64; 3] = [2_000, 2_000, 3];

fn policy([idle, interval, probes]: [u64; 3]) -> Policy {
    let (idle, interval) = (Span::from_millis(idle), Span::from_millis(interval));
    Policy::new(idle, interval, probes as u8).unwrap().with_spread(false)
}

/// One gateway and one peer with a round trip of 20 ms, which only answers, or also sends and
/// receives a message each `period`.
fn world(policy: Policy, timestamps: Option<bool>, period: u64) -> World {
    let mut listener = Settings::new(Codec::Native, Side::Accepting, policy);
    listener.report_heartbeats = true;
    listener.examines = timestamps.is_some();
    let listeners = vec![listener];
    let hub_config = HubConfig { listeners, seed: 1, frame_memory: FRAME_MEMORY };
    let timing =
        LoopTiming { lag: 0, batch: 64, cost: MILLI, rest: 0, stranger: 0, moves: 0, reloads: 0 };
    let mut world = World::new(hub_config, timing, Random::new(7), false);
    let side = Side::Connecting(link::Introduction::default());
    let mut settings = Settings::new(Codec::Native, side, policy.with_enforce(false));
    settings.report_heartbeats = true;
    settings.role = Role::Watch;
    let index = world.connect(Plan {
        listener: 0,
        settings,
        quality: Quality { delay: 10 * MILLI, jitter: 0, loss: 0 },
        to_gateway_period: period,
        to_peer_period: period,
        doubted: Doubted::Nothing,
        sealed: false,
    });
    world.peers[index].tcp = timestamps.map(|timestamps| {
        let mut tcp = Tcp::new(20 * MILLI, timestamps);
        tcp.follow(&Patience::of(&policy));
        tcp
    });
    world.run_until(SECOND);
    world
}

/// Sets the round trip of the path, and runs for `span`.
fn run_with(world: &mut World, round_trip: u64, span: u64) {
    let Peer { up, down, .. } = &mut world.peers[0];
    (up.quality.delay, down.quality.delay) = (round_trip / 2, round_trip / 2);
    let until = world.raw + span;
    world.run_until(until);
}

/// Checks that the peer is alive, and returns how often it was suspect so far.
fn suspicions(world: &World) -> u64 {
    let model = world.peers[0].gateway_model.as_ref().expect("accepted");
    assert!(model.is_established(), "a living peer ended: {:?}", model.cause);
    model.recoveries + u64::from(model.suspect)
}

fn cap(world: &World) -> Span {
    world.peers[0].tcp.as_ref().expect("a kernel").cap()
}

/// Runs through steps of the round trip, in milliseconds; each may cause one suspicion.
fn run_steps(policy: Policy, timestamps: bool, steps: &[u64]) {
    let mut world = world(policy, Some(timestamps), NEVER);
    run_with(&mut world, 20 * MILLI, 30 * SECOND);
    let mut before = suspicions(&world);
    assert_eq!(before, 0);
    for round_trip in steps {
        run_with(&mut world, round_trip * MILLI, 150 * SECOND);
        let now = suspicions(&world);
        assert!(
            now <= before + 1,
            "{} suspicions at {round_trip} ms of {steps:?} {timestamps}",
            now - before
        );
        let least = Span::from_millis(*round_trip);
        assert!(cap(&world) >= least, "{} at {round_trip} ms of {steps:?}", cap(&world));
        before = now;
    }
    world.replay();
}

#[test]
fn sim_a_round_trip_that_steps_up_and_down_causes_one_suspicion_a_step_at_most() {
    run_steps(policy(QUICK), true, &[800, 3_000, 20, 3_000, 800, 20]);
    for timestamps in [true, false] {
        run_steps(policy(COMMON), timestamps, &[800, 3_000, 20, 10_000, 20]);
        run_steps(policy(PATIENT), timestamps, &[15_000, 20, 6_000, 15_000, 20]);
    }
}

/// A queue fills and drains: each answer takes a quarter longer than the one before.
#[test]
fn sim_a_round_trip_that_grows_to_fifteen_seconds_and_shrinks_ends_nobody() {
    for timestamps in [true, false] {
        for kind in [COMMON, PATIENT] {
            let mut world = world(policy(kind), Some(timestamps), NEVER);
            let most = if kind == COMMON { 12_000 } else { 15_000 };
            let mut round_trip = 20;
            let mut trips = Vec::new();
            while round_trip < most {
                trips.push(round_trip);
                round_trip = round_trip * 5 / 4;
            }
            let back: Vec<u64> = trips.iter().rev().copied().collect();
            for round_trip in trips.into_iter().chain(back) {
                run_with(&mut world, round_trip * MILLI, 20 * SECOND);
                suspicions(&world);
            }
            run_with(&mut world, 20 * MILLI, 600 * SECOND);
            assert_eq!(cap(&world), Span::from_secs(1), "the path is quick again");
            assert!(suspicions(&world) <= 1, "{kind:?}: {}", suspicions(&world));
            world.replay();
        }
    }
}

/// While bytes come, nothing is probed, and only the kernel knows how long the round trip is. Its
/// figure comes in with the suspicion, and stretches the bound.
#[test]
fn sim_a_silence_after_traffic_with_a_long_round_trip_waits_for_the_first_answer() {
    for timestamps in [true, false] {
        let mut world = world(policy(DEMANDING), Some(timestamps), SECOND);
        run_with(&mut world, 20 * MILLI, 20 * SECOND);
        for round_trip in [500, 1_000, 2_000, 4_000, 7_000, 10_000] {
            run_with(&mut world, round_trip * MILLI, 60 * SECOND);
        }
        let peer = &mut world.peers[0];
        (peer.next_to_gateway, peer.next_to_peer) = (NEVER, NEVER);
        run_with(&mut world, 10_000 * MILLI, 120 * SECOND);
        suspicions(&world);
        assert!(cap(&world) >= Span::from_secs(10), "{}", cap(&world));
        world.replay();
    }
}

/// Two outages of 30 s: the cap stays low, and the second is suspected as early as the first.
#[test]
fn sim_an_outage_teaches_no_round_trip() {
    for timestamps in [true, false] {
        let mut world = world(policy([20_000, 10_000, 4]), Some(timestamps), NEVER);
        let mut suspected = Vec::new();
        for _ in 0..2 {
            run_with(&mut world, 20 * MILLI, 200 * SECOND);
            assert_eq!(cap(&world), Span::from_secs(1), "timestamps: {timestamps}");
            let model = world.peers[0].gateway_model.as_ref().unwrap();
            let heard = model.last_heard;
            world.outage(0, 30 * SECOND, true, true);
            let mut at = None;
            for _ in 0..320 {
                run_with(&mut world, 20 * MILLI, 100 * MILLI);
                let model = world.peers[0].gateway_model.as_ref().unwrap();
                at = at.or(model.suspect.then(|| world.raw - heard.since(Time::ZERO).as_nanos()));
            }
            suspected.push(at.expect("a suspicion") / (200 * MILLI));
        }
        assert_eq!(suspected[0], suspected[1], "timestamps: {timestamps}");
        assert_eq!(suspicions(&world), 2);
        world.replay();
    }
}

/// The round trip is known from pongs alone, and is longer than what the bound leaves. The model
/// checks that the verdict is due when rule 13 says, to the nanosecond.
#[test]
fn sim_a_dead_peer_with_a_long_round_trip_ends_at_the_stretched_bound() {
    for (round_trip, stretched) in [(20, false), (2_900, false), (5_000, true), (6_900, true)] {
        // A single probe, so that each pong answers the latest one, and steps that a suspicion
        // tolerates, so that each is a sample.
        let mut world = world(policy([4_000, 12_000, 1]), None, NEVER);
        for step in [900, 3_500].into_iter().filter(|step| *step < round_trip) {
            run_with(&mut world, step * MILLI, 100 * SECOND);
        }
        run_with(&mut world, round_trip * MILLI, 300 * SECOND);
        let tight = policy([4_000, 3_000, 1]);
        world.command(0, link::Command::Retune(tight));
        run_with(&mut world, round_trip * MILLI, 300 * SECOND);
        assert_eq!(suspicions(&world), 0);
        world.cut(0, true, true);
        run_with(&mut world, round_trip * MILLI, 60 * SECOND);
        let model = world.peers[0].gateway_model.as_ref().unwrap();
        assert_eq!((model.cause.is_some(), model.stretched > 0), (true, stretched));
        world.replay();
    }
}
