//! Single faults with a known correct outcome, in virtual time.

use systole_core::driver::Driver;
use systole_core::home::Homes;
use systole_core::hub::{self, FRAME_MEMORY, Hub};
use systole_core::link::{self, Event, Settings, Side};
use systole_core::random::Random;
use systole_core::session;
use systole_core::wheel::TICK;
use systole_core::wire::Codec;
use systole_core::{Policy, Span, Time};

use super::gateway::{HubConfig, LoopTiming};
use super::kernel::Doubted;
use super::network::Quality;
use super::peer::{NEVER, Plan};
use super::world::World;

const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MILLI;

/// Returns a policy with idle 1 s, interval 0.5 s and 4 probes: D = 3 s.
fn quick() -> Policy {
    policy(1_000, 500, 4)
}

fn policy(idle_ms: u64, interval_ms: u64, probes: u8) -> Policy {
    let (idle, interval) = (Span::from_millis(idle_ms), Span::from_millis(interval_ms));
    Policy::new(idle, interval, probes).unwrap().with_spread(false)
}

fn settings(side: Side, policy: Policy) -> Settings {
    let mut settings = Settings::new(Codec::Native, side, policy);
    settings.report_heartbeats = true;
    settings
}

/// Creates a gateway and `count` peers with a round trip of 1 ms. Each peer sends a message every
/// `to_gateway_period` ns and receives one every `to_peer_period` ns.
fn world(policy: Policy, count: usize, to_gateway_period: u64, to_peer_period: u64) -> World {
    let hub_config = HubConfig {
        listeners: vec![settings(Side::Accepting, policy)],
        seed: 1,
        frame_memory: FRAME_MEMORY,
    };
    let timing = LoopTiming {
        lag: 0,
        batch: 64,
        cost: MILLI,
        rest: 4 * MILLI,
        stranger: 0,
        moves: 0,
        reloads: 0,
    };
    let mut world = World::new(hub_config, timing, Random::new(7), false);
    for _ in 0..count {
        connect(&mut world, policy, to_gateway_period, to_peer_period);
    }
    world
}

/// Connects another peer, and returns its index.
fn connect(
    world: &mut World,
    policy: Policy,
    to_gateway_period: u64,
    to_peer_period: u64,
) -> usize {
    let side = Side::Connecting(link::Introduction::default());
    // The peers do not enforce the bound: the gateway's verdicts are under test.
    let settings = settings(side, policy.with_enforce(false));
    let quality = Quality { delay: MILLI / 2, jitter: 0, loss: 0 };
    world.connect(Plan {
        listener: 0,
        settings,
        quality,
        to_gateway_period,
        to_peer_period,
        doubted: Doubted::Nothing,
        sealed: false,
    })
}

/// Returns the delay of a segment sent at the beginning of an outage: the time to the first
/// retransmission after the outage, with the cap of 1 s that the socket options set.
fn outage_seen_by_tcp(outage: u64) -> u64 {
    let (mut at, mut pause) = (0, 200 * MILLI);
    while at < outage {
        at += pause;
        pause = (2 * pause).min(SECOND);
    }
    at
}

/// Returns the numbers of established and of lost peers.
fn established_and_lost(world: &World) -> (usize, usize) {
    let judges = world.peers.iter().filter_map(|peer| peer.gateway_model.as_ref());
    let (mut alive, mut lost) = (0, 0);
    for model in judges {
        alive += usize::from(model.is_established());
        lost += usize::from(model.cause.is_some());
    }
    (alive, lost)
}

#[test]
fn sim_observer_stopped_five_seconds_with_dead_among_the_living() {
    let mut world = world(quick(), 1_050, NEVER, NEVER);
    world.run_until(10 * SECOND);
    assert_eq!(established_and_lost(&world), (1_050, 0));
    (0..50).for_each(|index| world.cut(index, true, true));
    world.run_until(10 * SECOND + 300 * MILLI);
    let (raw, stall) = (world.raw, 5 * SECOND);
    world.gateway.stop(raw, raw + stall, false);
    world.run_until(raw + stall);
    assert_eq!(
        established_and_lost(&world),
        (1_050, 0),
        "no verdict because of the observer's stall"
    );
    world.run_until(10 * SECOND + stall + 3 * SECOND + 50 * MILLI);
    assert_eq!(established_and_lost(&world), (1_000, 50), "only the dead peers, within stall + D");
    world.run_until(60 * SECOND);
    assert_eq!(established_and_lost(&world), (1_000, 50));
    world.replay();
}

#[test]
fn sim_outage_shorter_than_the_bound_is_survived_and_suspicion_ends_soon() {
    for phase in 0..20 {
        let mut world = world(quick(), 1, 100 * MILLI, NEVER);
        world.run_until(10 * SECOND + phase * 50 * MILLI);
        let outage = 2 * SECOND;
        let healed = world.raw + outage;
        // The first lost segment is sent up to 150 ms after the outage began.
        world.outage(0, outage_seen_by_tcp(outage) + 150 * MILLI, true, true);
        world.run_until(healed);
        assert!(world.peers[0].gateway_model.as_ref().is_some_and(|model| model.suspect));
        world.run_until(healed + 1_200 * MILLI);
        let model = world.peers[0].gateway_model.as_ref().unwrap();
        assert!(model.is_established() && !model.suspect && model.recoveries == 1);
        world.replay();
    }
}

#[test]
fn sim_outage_of_thirty_seconds_is_survived_under_a_bound_of_sixty() {
    let mut world = world(policy(20_000, 10_000, 4), 1, SECOND, NEVER);
    world.run_until(100 * SECOND);
    let outage = 30 * SECOND;
    let healed = world.raw + outage;
    world.outage(0, outage_seen_by_tcp(outage), true, true);
    world.run_until(healed + 1_200 * MILLI);
    let model = world.peers[0].gateway_model.as_ref().unwrap();
    assert!(model.is_established() && !model.suspect && model.recoveries == 1);
    world.replay();
}

#[test]
fn sim_flapping_cable_causes_no_verdict() {
    for phase in 0..20 {
        let mut world = world(quick(), 4, NEVER, NEVER);
        world.run_until(10 * SECOND + phase * 50 * MILLI);
        for _ in 0..10 {
            let next = world.raw + 3 * SECOND;
            (0..4).for_each(|peer| world.outage(peer, outage_seen_by_tcp(SECOND), true, true));
            world.run_until(next);
        }
        world.run_until(60 * SECOND);
        assert_eq!(established_and_lost(&world), (4, 0));
        world.replay();
    }
}

#[test]
fn sim_verdict_does_not_wait_for_sockets_that_are_always_ready() {
    const BUSY: usize = 40;
    let mut world = world(quick(), BUSY, 10 * MILLI, NEVER);
    let silent: Vec<usize> = (0..4).map(|_| connect(&mut world, quick(), NEVER, NEVER)).collect();
    // The loop reads two sockets in a millisecond, and four become ready: reading all once takes
    // more than 20 turns.
    world.gateway.timing.batch = 2;
    world.run_until(2 * SECOND);
    assert_eq!(established_and_lost(&world), (BUSY + silent.len(), 0));
    silent.iter().for_each(|index| world.cut(*index, true, true));
    world.run_until(7 * SECOND);
    assert_eq!(established_and_lost(&world), (BUSY, silent.len()));
    for index in silent {
        let gateway_model = world.peers[index].gateway_model.as_ref().unwrap();
        let late = gateway_model.lost_at.since(gateway_model.last_heard + Span::from_secs(3));
        assert!(late <= TICK + Span::from_millis(2), "{late} late, with turns of 1 ms");
    }
    world.replay();
}

#[test]
fn sim_link_busy_both_ways_carries_no_heartbeat() {
    let mut world = world(quick(), 2, 100 * MILLI, 100 * MILLI);
    world.run_until(600 * SECOND);
    for peer in &world.peers {
        let model = peer.gateway_model.as_ref().unwrap();
        assert!(model.is_established());
        assert_eq!((model.beats, peer.own_model.beats), (0, 0));
    }
    world.replay();
}

#[test]
fn sim_link_busy_one_way_is_probed_only_by_the_end_that_hears_nothing() {
    let mut world = world(quick(), 1, 100 * MILLI, NEVER);
    world.run_until(60 * SECOND);
    let model = world.peers[0].gateway_model.as_ref().unwrap();
    assert_eq!(model.pings, 0, "the gateway to_peer_period enough");
    assert!(world.peers[0].own_model.pings > 50, "the peer receives nothing but pongs");
}

/// Discards the outputs of a hub, and admits whoever waits.
fn admit_all(hub: &mut Driver<Hub>, now: Time) {
    while let Some(output) = hub.poll_output() {
        let answer: hub::Input<'_> = match output {
            hub::Output::Admit { link, admission } => {
                hub::World::Identified { link, admission, login: hub::Login::claim(Span::ZERO) }
                    .into()
            }
            hub::Output::Own { session, .. } => {
                hub::Answer::Owned { session, epoch: 1, fresh: None }.into()
            }
            hub::Output::Link { .. }
            | hub::Output::GoHome { .. }
            | hub::Output::Resume { .. }
            | hub::Output::Session { .. }
            | hub::Output::HandedOver { .. } => continue,
        };
        hub.handle(now, answer);
    }
}

/// Returns the times of the probes and the verdict after the last evidence.
fn silence(policy: Policy) -> (Vec<Span>, Option<Span>) {
    let mut line = Settings::new(Codec::Line, Side::Accepting, policy);
    line.report_heartbeats = true;
    let settings = hub::Settings {
        shard: 0,
        homes: Homes::SINGLE,
        listeners: vec![line],
        seed: 1,
        frame_memory: FRAME_MEMORY,
        window_memory: hub::WINDOW_MEMORY,
        away: hub::AWAY_SESSIONS,
    };
    let mut hub = Driver::new(Time::ZERO, Hub::new(settings));
    let address = ([127, 0, 0, 1], 7).into();
    hub.handle(Time::ZERO, hub::World::Opened { link: 0, listener: 0, address });
    let input = link::World::Received(b"hello\n");
    hub.handle(Time::ZERO, hub::World::Link { link: 0, input });
    let (mut probes, mut verdict) = (Vec::new(), None);
    admit_all(&mut hub, Time::ZERO);
    let mut wakes = 0;
    while let Some(now) = hub.next_deadline() {
        hub.expire(now, now);
        while let Some(output) = hub.poll_output() {
            let hub::Output::Link { output, .. } = output else { continue };
            match output {
                link::Output::Event(Event::HeartbeatSent { .. }) => {
                    probes.push(now.since(Time::ZERO));
                }
                link::Output::Session(session::Event::Left(lost)) => {
                    verdict = Some(lost.at.since(Time::ZERO));
                }
                link::Output::Session(_)
                | link::Output::Event(_)
                | link::Output::Transmit { .. }
                | link::Output::Examine { .. }
                | link::Output::Patience(_)
                | link::Output::Admit
                | link::Output::Close(_) => {}
            }
        }
        wakes += 1;
        assert!(wakes < 100, "a silent link must end");
    }
    (probes, verdict)
}

#[test]
fn sim_fifty_silent_days_behave_as_one_minute() {
    const DAYS_PER_MINUTE: u64 = 50 * 24 * 60;
    let (minute, minute_verdict) = silence(policy(30_000, 10_000, 3));
    let scale = DAYS_PER_MINUTE;
    let (days, days_verdict) = silence(policy(30_000 * scale, 10_000 * scale, 3));
    assert_eq!((minute.len(), days.len()), (3, 3));
    let near = |days: Span, minute: Span| {
        let exact = Span::from_millis(minute.as_millis() / 10_000 * 10_000 * scale);
        days >= exact && days < exact + TICK
    };
    for (days, minute) in days.iter().zip(&minute) {
        assert!(near(*days, *minute), "{days} is not {scale} times {minute}");
    }
    let (days, minute) = (days_verdict.unwrap(), minute_verdict.unwrap());
    assert!(near(days, minute) && minute.as_millis() == 60_000, "{days} and {minute}");
}
