//! Tests of the hub with many links: order, bounds and counters.

mod away;
mod flooding;
mod granted;
mod login;
mod owed;
mod token;
mod transfer;
mod windows;

use crate::home::Homes;
use crate::session;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::*;
use crate::cause::Cause;
use crate::driver::{DEADLINE_BATCH, DEADLINE_STEPS, Driver};
use crate::flight::Incident;
use crate::kernel::{Examination, SocketError, TcpSnapshot};
use crate::link::{Closing, Side};
use crate::liveness::Role;
use crate::machine::Reason;
use crate::policy::Policy;
use crate::wire::{
    BootId, CloseReason, Codec, DataKind, Decoder, Frame, Hello, InstanceId, MAX_IDENTITY,
    Malformed,
};

const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4_711);

/// A hub of two listeners of the codec `line`.
fn with_frame_memory(policy: Policy, frame_memory: usize) -> Driver<Hub> {
    let line = link::Settings::new(Codec::Line, Side::Accepting, policy);
    let listeners = Vec::from([line.clone(), line]);
    let settings = super::Settings {
        shard: 0,
        homes: Homes::SINGLE,
        listeners,
        seed: 42,
        frame_memory,
        window_memory: WINDOW_MEMORY,
        away: AWAY_SESSIONS,
    };
    Driver::new(Time::ZERO, Hub::new(settings))
}

fn driver(listeners: Vec<link::Settings>, seed: u64) -> Driver<Hub> {
    let settings = super::Settings {
        shard: 0,
        homes: Homes::SINGLE,
        listeners,
        seed,
        frame_memory: FRAME_MEMORY,
        window_memory: WINDOW_MEMORY,
        away: AWAY_SESSIONS,
    };
    Driver::new(Time::ZERO, Hub::new(settings))
}

/// Returns the HELLO of a peer that claims this identity.
fn hello(identity: &str, token: &[u8]) -> Vec<u8> {
    let hello = Hello {
        asks: None,
        resume: None,
        account: None,
        capabilities: 0,
        boot_id: BootId([0; 16]),
        instance_id: InstanceId([0; 16]),
        identity,
        token,
    };
    let mut bytes = Vec::new();
    Codec::Native.encode(&Frame::Hello(hello), &mut bytes);
    bytes
}

fn proved_by(identity: &str) -> Login<'_> {
    Login { proof: Proof::Proved(identity), ..Login::claim(Span::ZERO) }
}

fn hub(policy: Policy) -> Driver<Hub> {
    with_frame_memory(policy, FRAME_MEMORY)
}

fn open(hub: &mut Driver<Hub>, link: u32, listener: u16) {
    hub.handle(Time::ZERO, World::Opened { link, listener, address: ADDRESS });
    introduce(hub, Time::ZERO, link, b"ping\n");
}

/// Sends the first bytes of a peer, and admits it.
fn introduce(hub: &mut Driver<Hub>, now: Time, link: u32, bytes: &[u8]) {
    let input = link::World::Received(bytes);
    hub.handle(now, World::Link { link, input });
    admit(hub, now, link);
}

/// Admits a peer, as an answer to the outputs that wait.
fn admit(hub: &mut Driver<Hub>, now: Time, link: u32) {
    let admission = hub.machine().slots.get(link).map_or(0, |slot| slot.generation);
    hub.handle(now, World::Identified { link, admission, login: Login::claim(Span::ZERO) });
    let session = hub.machine().presence(link).map_or(0, |known| known.session);
    hub.handle(now, Answer::Owned { session, epoch: 9, fresh: None });
}

/// Takes all outputs. Returns the number of lost links by cause, and the bytes sent.
fn drain(hub: &mut Driver<Hub>) -> (BTreeMap<&'static str, u32>, Vec<u8>) {
    let mut lost = BTreeMap::new();
    let mut sent = Vec::new();
    while let Some(output) = hub.poll_output() {
        let Output::Link { output, .. } = output else { continue };
        match output {
            link::Output::Session(session::Event::Left(verdict)) => {
                *lost.entry(verdict.cause.name()).or_default() += 1;
            }
            link::Output::Transmit { bytes, .. } => sent.extend_from_slice(bytes),
            link::Output::Session(_)
            | link::Output::Event(_)
            | link::Output::Examine { .. }
            | link::Output::Patience(_)
            | link::Output::Admit
            | link::Output::Close(_) => {}
        }
    }
    (lost, sent)
}

/// The most deadlines up to which a hub must come to rest: ten times what any test needs.
const MOST_STEPS: u32 = 200_000;

/// Handles every deadline up to `until`, each at its time. Returns the lost links by cause.
fn run(hub: &mut Driver<Hub>, until: Time) -> BTreeMap<&'static str, u32> {
    let mut all = BTreeMap::new();
    let mut now = Time::ZERO;
    let mut steps = 0;
    while let Some(at) = hub.next_deadline().filter(|at| *at <= until) {
        steps += 1;
        assert!(steps <= MOST_STEPS, "no rest after {MOST_STEPS} deadlines, the last at {now:?}");
        now = now.max(at);
        hub.expire(now, now);
        for (cause, count) in drain(hub).0 {
            *all.entry(cause).or_default() += count;
        }
    }
    all
}

#[test]
fn links_that_fall_silent_at_once_die_in_bounded_steps() {
    let mut hub = hub(Policy::kernel_like());
    for link in 0..10_000 {
        open(&mut hub, link, 0);
    }
    assert_eq!(drain(&mut hub).1.len(), 50_000, "a pong each");
    assert_eq!(hub.machine().counters().online, 10_000);
    assert!(run(&mut hub, Time::from_millis(18_990)).is_empty());
    assert_eq!(hub.machine().counters().suspects, 10_000);
    let due = Time::from_millis(19_000) + crate::wheel::TICK;
    let mut dead = 0;
    for steps in 0.. {
        assert!(steps < 100, "{dead} dead after {steps} steps");
        hub.expire(due, due);
        let count = drain(&mut hub).0.get("unknown").copied().unwrap_or(0);
        assert!(count <= DEADLINE_STEPS);
        dead += count;
        if dead == 10_000 {
            break;
        }
        assert_eq!(hub.next_deadline(), Some(Time::ZERO), "more is due");
    }
    hub.expire(due, due);
    let counters = hub.machine().counters();
    assert_eq!((counters.links, counters.online, counters.suspects), (0, 0, 0));
    assert_eq!(hub.machine().presences(0, usize::MAX).count(), 0);
}

#[test]
fn a_drain_closes_all_links_in_bounded_steps() {
    let mut hub = hub(Policy::default());
    for link in 0..1_000 {
        open(&mut hub, link, 0);
    }
    drain(&mut hub);
    hub.handle(
        Time::ZERO,
        World::Command(HubCommand::Drain {
            limit: Span::from_secs(30),
            reconnect_within: Span::ZERO,
        }),
    );
    hub.expire(Time::ZERO, Time::ZERO);
    let step = sweep::SWEEP_STEP as u32;
    assert_eq!(drain(&mut hub).0.get("drained"), Some(&step));
    let rest = run(&mut hub, Time::from_millis(1));
    assert_eq!(rest.get("drained"), Some(&(1_000 - step)));
    assert!(hub.machine().sweeps.is_empty());
}

#[test]
fn a_drain_reaches_links_that_open_while_it_runs_and_after_it() {
    let mut hub = hub(Policy::default());
    let count = 2 * sweep::SWEEP_STEP as u32;
    (0..count).for_each(|link| open(&mut hub, link, 0));
    let (limit, reconnect_within) = (Span::from_secs(30), Span::ZERO);
    let command = HubCommand::Drain { limit, reconnect_within };
    hub.handle(Time::ZERO, World::Command(command));
    hub.expire(Time::ZERO, Time::ZERO);
    drain(&mut hub);
    // Behind the sweep, which has closed the link that had this number.
    open(&mut hub, 0, 0);
    assert_eq!(drain(&mut hub).0.get("drained"), Some(&1));
    assert_eq!(run(&mut hub, Time::from_millis(1)).get("drained"), Some(&(count / 2)));
    open(&mut hub, 7, 0);
    assert_eq!(drain(&mut hub).0.get("drained"), Some(&1));
    assert_eq!(hub.machine().counters().links, 0);
}

#[test]
fn a_sweep_visits_a_bounded_number_of_slots_and_memory_shrinks_after_a_mass_leave() {
    const LINKS: u32 = 20_000;
    let mut hub = hub(Policy::default());
    (0..LINKS).for_each(|link| open(&mut hub, link, 0));
    drain(&mut hub);
    let full = hub.machine().slots.capacity();
    // One link stays in each page, so that all pages stay.
    let stays = |link: u32| link as usize % crate::pages::PAGE == 7;
    let close = |hub: &mut Driver<Hub>, link| {
        hub.handle(Time::ZERO, World::Link { link, input: link::World::Overflowed });
        drain(hub);
    };
    (0..LINKS).filter(|link| !stays(*link)).for_each(|link| close(&mut hub, link));
    let policy = Policy::demanding();
    hub.handle(Time::ZERO, World::Command(HubCommand::Retune { listener: 0, policy }));
    let mut steps = 0;
    while !hub.machine().sweeps.is_empty() {
        let from = hub.machine().sweeps[0].next;
        hub.expire(Time::ZERO, Time::ZERO);
        drain(&mut hub);
        let to = hub.machine().sweeps.front().map_or(LINKS, |sweep| sweep.next);
        assert!((to - from) as usize <= sweep::SWEEP_SLOTS, "from {from} to {to} in one step");
        steps += 1;
    }
    assert_eq!(steps, (LINKS as usize).div_ceil(sweep::SWEEP_SLOTS));
    assert!(hub.machine().presences(0, usize::MAX).all(|known| *known.policy == policy));
    let mut search = hub.machine().presences(0, 5_000);
    assert_eq!(search.by_ref().count(), 10);
    assert_eq!(search.cursor(), Some(5_000), "the search goes on behind the slots visited");
    (0..LINKS).filter(|link| stays(*link)).for_each(|link| close(&mut hub, link));
    hub.handle(Time::ZERO, World::Command(HubCommand::ReportHeartbeats(false)));
    assert_eq!(
        (hub.machine().counters().links, hub.machine().slots.capacity()),
        (0, crate::pages::PAGE)
    );
    assert!(full >= LINKS as usize);
}

/// Returns the links that the hub asks to read, and the number of lost links.
fn polls(hub: &mut Driver<Hub>) -> (Vec<u32>, u32) {
    let (mut polls, mut lost) = (Vec::new(), 0);
    while let Some(output) = hub.poll_output() {
        let Output::Link { output, .. } = output else { continue };
        match output {
            link::Output::Session(session::Event::Left(_)) => lost += 1,
            link::Output::Session(_)
            | link::Output::Event(_)
            | link::Output::Transmit { .. }
            | link::Output::Examine { .. }
            | link::Output::Patience(_)
            | link::Output::Admit
            | link::Output::Close(_) => {}
        }
    }
    polls.extend(core::iter::from_fn(|| hub.poll_read()));
    polls.sort_unstable();
    (polls, lost)
}

#[test]
fn a_link_that_is_due_behind_the_horizon_is_judged_by_its_own_socket() {
    let mut hub = hub(Policy::kernel_like());
    open(&mut hub, 0, 0);
    open(&mut hub, 1, 0);
    drain(&mut hub);
    run(&mut hub, Time::from_millis(18_999));
    let (horizon, now) = (Time::from_millis(18_999), Time::from_millis(19_001));
    hub.expire(now, horizon);
    assert_eq!(polls(&mut hub), (Vec::from([0, 1]), 0));
    // Without an answer the hub asks again.
    let again = hub.next_deadline().unwrap();
    assert!(again > now && again.since(now) <= crate::wheel::TICK.times(2));
    let now = again;
    hub.expire(now, horizon);
    assert_eq!(polls(&mut hub), (Vec::from([0, 1]), 0));
    // Link 0 held bytes, link 1 was empty.
    hub.handle(now, World::Link { link: 0, input: link::World::Received(b"pong\n") });
    for link in [0, 1] {
        hub.judge(now, link);
    }
    assert_eq!(polls(&mut hub), (Vec::new(), 1));
    assert_eq!((hub.machine().counters().links, hub.machine().counters().suspects), (1, 0));
    assert!(hub.next_deadline().is_some_and(|at| at > now), "the answered link is armed again");
    let lost = run(&mut hub, Time::from_millis(38_100));
    assert_eq!(lost.get("unknown"), Some(&1));
}

#[test]
fn a_deadline_that_an_input_puts_into_the_past_is_not_judged_before_that_input() {
    let policy = |idle, interval, probes| {
        let (idle, interval) = (Span::from_secs(idle), Span::from_secs(interval));
        Policy::new(idle, interval, probes).unwrap().with_spread(false)
    };
    let mut hub = hub(policy(10, 10, 1));
    open(&mut hub, 0, 0);
    drain(&mut hub);
    let before = Time::from_millis(9_000);
    hub.expire(before, before);
    // D becomes 16 s, and the verdict stays due at 20 s: a probe was due at 5 s.
    let retune = link::World::Command(link::Command::Retune(policy(1, 5, 3)));
    hub.handle(Time::from_millis(9_500), World::Link { link: 0, input: retune });
    assert!(drain(&mut hub).1.is_empty());
    let (now, horizon) = (Time::from_millis(9_600), Time::from_millis(9_400));
    hub.expire(now, horizon);
    assert_eq!(polls(&mut hub), ([0].to_vec(), 0), "no probe at the horizon");
    hub.judge(now, 0);
    assert_eq!(drain(&mut hub).1, b"ping\n");
    assert_eq!(hub.machine().presence(0).unwrap().last_sent, now);
}

#[test]
fn one_input_asks_for_a_bounded_number_of_reads() {
    let mut hub = hub(Policy::kernel_like());
    (0..5_000).for_each(|link| open(&mut hub, link, 0));
    drain(&mut hub);
    run(&mut hub, Time::from_millis(18_999));
    let (horizon, now) = (Time::from_millis(18_999), Time::from_millis(19_001));
    let mut lost = 0;
    while lost < 5_000 {
        assert!(hub.next_deadline().is_some_and(|at| at <= now), "{lost} lost");
        hub.expire(now, horizon);
        let (asked, _) = polls(&mut hub);
        assert!(asked.len() <= 256 + DEADLINE_BATCH, "{} reads", asked.len());
        for link in asked {
            hub.judge(now, link);
            lost += polls(&mut hub).1;
        }
    }
}

#[test]
fn a_retune_reaches_only_its_listener_and_new_links_at_once() {
    let mut hub = hub(Policy::kernel_like());
    open(&mut hub, 0, 0);
    open(&mut hub, 1, 1);
    let policy = Policy::demanding();
    hub.handle(Time::ZERO, World::Command(HubCommand::Retune { listener: 0, policy }));
    open(&mut hub, 2, 0);
    hub.expire(Time::ZERO, Time::ZERO);
    drain(&mut hub);
    let bounds: Vec<_> =
        hub.machine().presences(0, usize::MAX).map(|known| known.policy.bound()).collect();
    let (eight, nineteen) = (Some(Span::from_secs(8)), Some(Span::from_secs(19)));
    assert_eq!(bounds, [eight, nineteen, eight]);
    let lost = run(&mut hub, Time::from_millis(8_001));
    assert_eq!(lost.get("unknown"), Some(&2), "the wheel was re-armed to the shorter bound");
}

#[test]
fn a_newer_sweep_replaces_an_older_one() {
    let mut hub = hub(Policy::default());
    for idle in 1..100 {
        let policy = Policy::new(Span::from_secs(idle), Span::from_secs(1), 1).unwrap();
        hub.handle(Time::ZERO, World::Command(HubCommand::Retune { listener: 0, policy }));
    }
    assert_eq!(hub.machine().sweeps.len(), 1);
    hub.handle(
        Time::ZERO,
        World::Command(HubCommand::Drain {
            limit: Span::from_secs(30),
            reconnect_within: Span::ZERO,
        }),
    );
    assert_eq!(hub.machine().sweeps.len(), 1);
}

#[test]
fn unknown_links_are_ignored_and_impossible_ones_are_closed() {
    let mut hub = hub(Policy::default());
    hub.handle(Time::ZERO, World::Link { link: 5, input: link::World::Ended });
    assert_eq!(hub.poll_output(), None);
    let retune = HubCommand::Retune { listener: 9, policy: Policy::never() };
    hub.handle(Time::ZERO, World::Command(retune));
    open(&mut hub, 7, 0);
    drain(&mut hub);
    let closed = link::Output::Close(Closing::Abort);
    for (link, listener) in [(7, 0), (8, 9), (MAX_LINKS, 0)] {
        hub.handle(Time::ZERO, World::Opened { link, listener, address: ADDRESS });
        assert_eq!(hub.poll_output(), Some(Output::Link { link, output: closed }));
        assert_eq!(hub.poll_output(), None);
    }
    assert_eq!(hub.machine().counters().links, 1);
}

#[test]
fn a_session_is_found_until_it_ends_and_its_link_is_queryable_until_the_next_input() {
    let mut hub = hub(Policy::default());
    open(&mut hub, 3, 0);
    drain(&mut hub);
    let session = hub.machine().presence(3).map(|known| known.session).unwrap();

    assert_eq!(hub.machine().find(session), Some(3));
    assert_eq!(hub.machine().find(session + (1 << 24)), None);
    hub.handle(Time::ZERO, World::Link { link: 3, input: link::World::Ended });
    assert_eq!(drain(&mut hub).0.get(Cause::PeerExited.name()), Some(&1));
    assert_eq!(hub.machine().find(session), None);
    assert!(hub.machine().presence(3).is_some());
    assert_eq!(hub.machine().counters().links, 0, "no longer open, although it can be queried");
    open(&mut hub, 3, 0);
    assert_ne!(hub.machine().presence(3).map(|known| known.session), Some(session));
}

/// The wheel is armed for the deadline after the probe, which may be far later than the next probe.
#[test]
fn evidence_after_a_probe_arms_the_next_probe_earlier() {
    let policy = Policy::new(Span::from_millis(500), Span::from_secs(10), 1).unwrap();
    let mut hub = hub(policy.with_spread(false));
    open(&mut hub, 0, 0);
    drain(&mut hub);
    run(&mut hub, Time::from_millis(600));
    let heard = Time::from_millis(600);
    hub.handle(heard, World::Link { link: 0, input: link::World::Received(b"pong\n") });
    drain(&mut hub);
    let next = hub.machine().presence(0).and_then(|known| known.next_deadline).unwrap();
    assert_eq!(next.at, Time::from_millis(1_100));
    assert!(hub.next_deadline().is_some_and(|at| at <= next.at + crate::wheel::TICK));
}

#[test]
fn an_overdue_link_that_recovers_can_become_overdue_again() {
    let mut hub = hub(Policy::kernel_like().with_enforce(false));
    open(&mut hub, 0, 0);
    drain(&mut hub);
    run(&mut hub, Time::from_millis(20_000));
    assert_eq!(hub.machine().counters().suspects, 1);
    let heard = Time::from_millis(20_000);
    hub.handle(heard, World::Link { link: 0, input: link::World::Received(b"hello\n") });
    drain(&mut hub);
    assert_eq!(hub.machine().counters().suspects, 0);
    run(&mut hub, Time::from_millis(40_000));
    assert_eq!(hub.machine().counters().suspects, 1, "overdue once more");
}

#[test]
fn a_retune_that_the_codec_cannot_send_does_not_count_as_sending() {
    let mut hub = hub(Policy::default());
    open(&mut hub, 0, 0);
    drain(&mut hub);
    let sent = hub.machine().presence(0).map(|known| known.last_sent);
    let retune = link::World::Command(link::Command::Retune(Policy::demanding()));
    hub.handle(Time::from_millis(5_000), World::Link { link: 0, input: retune });
    assert_eq!(drain(&mut hub).1, b"", "the line codec has no RETUNE");
    assert_eq!(
        hub.machine().presence(0).map(|known| known.last_sent),
        sent,
        "keepalives count from here"
    );
}

#[test]
fn a_shorter_round_trip_makes_a_watcher_on_hold_suspect_earlier() {
    let policy = Policy::new(Span::from_secs(1), Span::from_secs(100), 1).unwrap();
    let policy = policy.with_keepalive(Span::from_secs(200)).unwrap();
    let mut line = link::Settings::new(Codec::Line, Side::Accepting, policy);
    line.role = Role::Watch;
    let mut hub = driver(Vec::from([line]), 42);
    open(&mut hub, 0, 0);
    let input_at = |hub: &mut Driver<Hub>, secs: u64, input| {
        run(hub, Time::from_millis(secs * 1_000));
        hub.handle(Time::from_millis(secs * 1_000), World::Link { link: 0, input });
        drain(hub);
    };
    let hold = link::Command::Hold(Span::from_secs(500));
    input_at(&mut hub, 0, link::World::Command(hold));
    // A round trip of some 20 s, and one of 10 s, in which the timer for the outstanding PING has
    // fired.
    input_at(&mut hub, 220, link::World::Received(b"pong\n"));
    input_at(&mut hub, 430, link::World::Received(b"pong\n"));
    let known = hub.machine().presence(0).unwrap();
    assert!(known.rtt.is_some_and(|rtt| rtt <= Span::from_secs(18)));
    let next = known.next_deadline.unwrap();
    assert_eq!(next.reason, Reason::Suspicion);
    assert!(hub.armed(0).is_some_and(|at| at <= next.at));
}

#[test]
fn the_flight_recorder_of_an_ended_link_shows_the_way_to_the_verdict() {
    let mut hub = hub(Policy::kernel_like());
    open(&mut hub, 7, 0);
    drain(&mut hub);
    let mut lost = BTreeMap::new();
    while lost.is_empty() {
        let now = hub.next_deadline().unwrap();
        lost = run(&mut hub, now);
    }
    let flight = hub.machine().presence(7).map(|known| known.flight.clone()).unwrap();
    let timeline: Vec<(u64, Incident)> =
        flight.iter().map(|entry| (entry.at.as_millis().div_ceil(1_000), entry.incident)).collect();
    let expected = [
        (0, Incident::Opened),
        (0, Incident::Introduced),
        (10, Incident::Probe { number: 1 }),
        (11, Incident::Suspect),
        (13, Incident::Probe { number: 2 }),
        (16, Incident::Probe { number: 3 }),
        (19, Incident::verdict(Cause::Unknown)),
    ];
    assert_eq!(timeline, expected);
    hub.handle(Time::from_millis(19_100), World::Command(HubCommand::ReportHeartbeats(false)));
    assert!(hub.machine().presence(7).is_none());
}

#[test]
fn a_polled_link_that_is_read_on_without_an_answer_keeps_a_deadline() {
    let mut hub = hub(Policy::standard());
    open(&mut hub, 0, 0);
    drain(&mut hub);
    let mut now = Time::ZERO;
    while polls(&mut hub).0.is_empty() {
        now = hub.next_deadline().unwrap().max(now + crate::wheel::TICK);
        hub.expire(now, Time::ZERO);
    }
    let bytes = link::World::Received(b"x\n");
    hub.handle(now, World::Link { link: 0, input: bytes });
    drain(&mut hub);
    assert!(hub.next_deadline().is_some(), "nobody would judge the link again");
    hub.expire(now, now);
    let next = hub.next_deadline().unwrap();
    assert!(next > now, "and it waits for no turn of its own");
}

#[test]
fn timers_of_trusted_links_stand_on_the_grid_and_verdicts_are_exact() {
    let policy = Policy::new(Span::from_secs(10), Span::from_secs(5), 1).unwrap();
    let settings = link::Settings {
        role: Role::Watch,
        ..link::Settings::new(Codec::Line, Side::Accepting, policy)
    };
    let mut hub = driver(alloc::vec![settings], 7);
    let heard = Time::from_nanos(7_000_001);
    let address = ([127, 0, 0, 1], 1).into();
    hub.handle(Time::ZERO, World::Opened { link: 0, listener: 0, address });
    introduce(&mut hub, heard, 0, b"ping\n");
    let (mut timers, mut lost) = (Vec::new(), None);
    while lost.is_none() {
        while let Some(output) = hub.poll_output() {
            let Output::Link { output, .. } = output else { continue };
            if let link::Output::Session(session::Event::Left(verdict)) = output {
                lost = Some(verdict);
            }
        }
        let Some(next) = hub.next_deadline() else { break };
        timers.push(next);
        hub.expire(next, next);
    }
    let verdict = lost.unwrap();
    assert_eq!(verdict.due, heard + Span::from_secs(15));
    assert!(verdict.at.since(verdict.due) <= crate::wheel::TICK, "{verdict:?}");
    // The first timer of the silence fires on the grid, a step or less before the suspicion.
    let first = timers.iter().find(|at| at.as_millis() >= 11_007 - 450).unwrap();
    assert!(first.as_millis() < 11_000, "{timers:?}");
}

#[test]
fn the_probes_of_many_links_leave_together_and_not_too_many_at_once() {
    const LINKS: u32 = 8_000;
    let policy = Policy::new(Span::from_secs(10), Span::from_secs(5), 3).unwrap();
    let mut hub = hub(policy);
    let heard = |link: u32| Time::ZERO + Span::from_micros(1_250 * u64::from(link));
    for link in 0..LINKS {
        let now = heard(link);
        hub.handle(now, World::Opened { link, listener: 0, address: ADDRESS });
        introduce(&mut hub, now, link, b"pong\n");
    }
    drain(&mut hub);
    let mut batches = BTreeMap::<Time, u32>::new();
    let mut probed = alloc::collections::BTreeSet::new();
    while probed.len() < LINKS as usize {
        let now = hub.next_deadline().unwrap();
        hub.expire(now, now);
        while let Some(output) = hub.poll_output() {
            let Output::Link { link, output } = output else { continue };
            if let link::Output::Transmit { .. } = output
                && probed.insert(link)
            {
                // The first probe is spread over half of idle, and may be early by half a second.
                let earliest = heard(link) + Span::from_millis(4_500);
                assert!(now >= earliest, "{link} at {now:?}");
                *batches.entry(now).or_default() += 1;
            }
        }
    }
    let largest = batches.values().max().unwrap();
    assert!(batches.len() <= 500, "{} batches", batches.len());
    assert!(*largest <= 2 * 64, "{largest} at once");
}

/// Feeds `bytes` to a link; returns the links that ended, with their causes.
fn feed(hub: &mut Driver<Hub>, at_ms: u64, link: u32, bytes: &[u8]) -> Vec<(u32, Cause)> {
    hand_in(hub, at_ms, link, link::World::Received(bytes))
}

/// Hands an input to a link; returns the links that ended, with their causes.
fn hand_in(
    hub: &mut Driver<Hub>,
    at_ms: u64,
    link: u32,
    input: link::World<'_>,
) -> Vec<(u32, Cause)> {
    hub.handle(Time::from_millis(at_ms), World::Link { link, input });
    let mut lost = Vec::new();
    while let Some(output) = hub.poll_output() {
        let Output::Link { link, output } = output else { continue };
        match output {
            link::Output::Session(session::Event::Left(verdict)) => {
                lost.push((link, verdict.cause))
            }
            link::Output::Session(_)
            | link::Output::Event(_)
            | link::Output::Examine { .. }
            | link::Output::Patience(_)
            | link::Output::Admit
            | link::Output::Close(_) => {}
            link::Output::Transmit { bytes, .. } => {
                assert!(bytes.starts_with(b"pong"), "no answer")
            }
        }
    }
    lost
}

#[test]
fn the_oldest_incomplete_frames_give_way_when_their_memory_is_full() {
    let crowded_out = Cause::Protocol(Malformed::OldestFrame);
    let limit = 100_000;
    let mut hub = with_frame_memory(Policy::default().with_enforce(false), limit);
    for link in 0..2_000 {
        open(&mut hub, link, 0);
    }
    drain(&mut hub);
    // Links 0 to 999 hold a front of 1,000 bytes each and drip; the others send whole lines in two
    // parts.
    let mut ended = Vec::new();
    for link in 0..1_000 {
        ended.extend(feed(&mut hub, 1 + u64::from(link), link, &[b'x'; 1_000]));
        assert!(hub.machine().counters().frame_bytes <= limit as u64);
        let honest = 1_000 + link;
        assert_eq!(feed(&mut hub, 2 + u64::from(link), honest, b"honest "), []);
        assert_eq!(feed(&mut hub, 2 + u64::from(link), honest, b"line\n"), []);
    }
    let oldest: Vec<_> = (0..ended.len() as u32).map(|link| (link, crowded_out)).collect();
    assert_eq!(ended, oldest, "in order of age");
    assert!(ended.len() > 850, "{}", ended.len());
    let counters = hub.machine().counters();
    assert_eq!(counters.frames_dropped, ended.len() as u64);
    assert_eq!(counters.links as usize, 2_000 - ended.len());
    // Memory is given back with the rest of a frame and with the end of a link.
    for link in ended.len() as u32..1_000 {
        if link % 2 == 0 {
            assert_eq!(feed(&mut hub, 2_000, link, b"\n"), []);
        } else {
            hub.handle(Time::from_millis(2_000), World::Link { link, input: link::World::Ended });
            drain(&mut hub);
        }
    }
    assert_eq!(hub.machine().counters().frame_bytes, 0);
}

/// Hands in what the transport of a link holds of a record; returns the links that ended.
fn hold(hub: &mut Driver<Hub>, at_ms: u64, link: u32, memory: u32) -> Vec<(u32, Cause)> {
    let input = link::World::Held { memory, length: 16_406 };
    [link::World::Heard, input].into_iter().flat_map(|it| hand_in(hub, at_ms, link, it)).collect()
}

#[test]
fn sealed_records_share_the_memory_of_incomplete_frames_in_the_handshake_too() {
    let crowded_out = Cause::Protocol(Malformed::OldestFrame);
    let limit = 100_000;
    let mut hub = with_frame_memory(Policy::default(), limit);
    // No link says anything: each is in its handshake, and most hold a part of a record.
    for link in 0..40 {
        hub.handle(Time::ZERO, World::Opened { link, listener: 0, address: ADDRESS });
    }
    drain(&mut hub);
    let mut ended = Vec::new();
    for link in 0..20 {
        let at_ms = 1 + u64::from(link);
        ended.extend(hold(&mut hub, at_ms, link, 16_000));
        assert!(hub.machine().counters().frame_bytes <= limit as u64);
        assert_eq!(hold(&mut hub, at_ms, 20 + link, 900), [], "an honest one");
        assert_eq!(hold(&mut hub, at_ms, 20 + link, 0), []);
    }
    let oldest: Vec<_> = (0..14).map(|link| (link, crowded_out)).collect();
    assert_eq!(ended, oldest, "in order of age");
    assert_eq!(hub.machine().counters().frames_dropped, 14);
    // Plaintext completes the record, and a frame of it may be incomplete then.
    for link in 14..20 {
        assert_eq!(feed(&mut hub, 50, link, b"half a line"), []);
    }
    let each = hub.machine().counters().frame_bytes / 6;
    assert!((32..200).contains(&each), "{each}");
}

#[test]
fn strangers_give_way_before_a_session_with_an_older_frame() {
    let mut hub = with_frame_memory(Policy::default(), 100_000);
    open(&mut hub, 0, 0);
    for link in 1..20 {
        hub.handle(Time::ZERO, World::Opened { link, listener: 0, address: ADDRESS });
    }
    drain(&mut hub);
    assert_eq!(feed(&mut hub, 1, 0, &[b'x'; 16_000]), []);
    let hold_all = |hub: &mut Driver<Hub>| -> Vec<u32> {
        let ended = (1..20).flat_map(|link| hold(hub, 1 + u64::from(link), link, 16_000));
        ended.map(|(link, _)| link).collect()
    };
    assert_eq!(hold_all(&mut hub), (1..15).collect::<Vec<_>>(), "the session is not among them");
    assert_eq!(feed(&mut hub, 30, 0, b" and complete\n"), []);
}

#[test]
fn a_frame_that_exceeds_the_memory_alone_gives_way_itself() {
    let mut hub = with_frame_memory(Policy::default(), 10_000);
    open(&mut hub, 0, 0);
    open(&mut hub, 1, 0);
    drain(&mut hub);
    assert_eq!(feed(&mut hub, 1, 1, b"young"), []);
    let lost = feed(&mut hub, 0, 0, &[b'x'; 10_001]);
    assert_eq!(lost, [(0, Cause::Protocol(Malformed::OldestFrame))]);
    assert_eq!(feed(&mut hub, 2, 1, b" and complete\n"), []);
    let counters = hub.machine().counters();
    assert_eq!((counters.links, counters.frame_bytes, counters.frames_dropped), (1, 0, 1));
}

#[test]
fn a_peer_that_drips_a_frame_ends_in_time_although_each_byte_is_evidence() {
    let mut hub = hub(Policy::kernel_like());
    for link in 0..100 {
        open(&mut hub, link, 0);
    }
    drain(&mut hub);
    let mut lost = BTreeMap::new();
    for second in 1..=30 {
        let now = Time::from_millis(second * 1_000);
        for (cause, count) in run(&mut hub, now) {
            *lost.entry((second, cause)).or_default() += count;
        }
        for link in 0..100 {
            assert_eq!(feed(&mut hub, second * 1_000, link, b"x"), []);
        }
    }
    assert_eq!(lost, BTreeMap::from([((21, "protocol"), 100)]), "D = 19 s after the first byte");
}

/// D = 19 s, and a verdict after 25 s for a round trip of 15 s.
#[test]
fn a_frame_is_due_before_a_verdict_that_waits_for_a_long_round_trip() {
    let mut line = link::Settings::new(Codec::Line, Side::Accepting, Policy::kernel_like());
    (line.role, line.examines) = (Role::Watch, true);
    let mut hub = driver(Vec::from([line]), 42);
    open(&mut hub, 0, 0);
    let rtt = Span::from_secs(15);
    let tcp = Some(TcpSnapshot { rtt, notsent: Some(0), ..TcpSnapshot::default() });
    let examination = Examination { tcp, ..Examination::default() };
    hub.handle(Time::ZERO, Answer::Examined { link: 0, examination });
    drain(&mut hub);
    assert_eq!(feed(&mut hub, 20_000, 0, b"data\n"), []);
    run(&mut hub, Time::from_millis(25_500));
    assert!(hub.armed(0).is_some_and(|at| at >= Time::from_millis(45_000)), "for the verdict");
    let mut lost = Vec::new();
    for second in 26..=45 {
        assert_eq!(feed(&mut hub, second * 1_000 - 500, 0, b"x"), []);
        let now = Time::from_millis(second * 1_000);
        lost.extend(run(&mut hub, now).into_keys().map(|cause| (second, cause)));
    }
    assert_eq!(lost, [(45, "protocol")], "D after the first byte, at 25.5 s");
}

#[test]
fn demanding_links_are_counted_whatever_makes_them_so() {
    let mut hub = hub(Policy::standard());
    for link in 0..3 {
        open(&mut hub, link, 0);
    }
    let at = Time::from_millis(1_000);
    let command = |hub: &mut Driver<Hub>, link, command| {
        let input = link::World::Command(command);
        hub.handle(at, World::Link { link, input });
        drain(hub);
        hub.machine().counters().demanding
    };
    assert_eq!(hub.machine().counters().demanding, 0);
    let retune = |policy| link::Command::Retune(policy);
    assert_eq!(command(&mut hub, 1, retune(Policy::demanding())), 1);
    assert_eq!(command(&mut hub, 1, retune(Policy::datacenter())), 1);
    assert_eq!(command(&mut hub, 1, retune(Policy::relaxed())), 0);
    hub.handle(at, World::Command(HubCommand::Retune { listener: 0, policy: Policy::demanding() }));
    run(&mut hub, at);
    assert_eq!(hub.machine().counters().demanding, 3);
    open(&mut hub, 3, 0);
    assert_eq!(hub.machine().counters().demanding, 4, "a new link has the policy of its listener");
    hub.handle(at, World::Link { link: 0, input: link::World::Failed(SocketError::Reset) });
    drain(&mut hub);
    assert_eq!(hub.machine().counters().demanding, 3, "an ended link is not counted");
    hub.handle(at, World::Link { link: 0, input: link::World::Ended });
    assert_eq!(hub.machine().counters().demanding, 3, "nor twice");
}

#[test]
fn an_answered_probe_leaves_no_timer_behind() {
    let policy = Policy::new(Span::from_secs(10), Span::from_secs(5), 3).unwrap();
    let mut hub = hub(policy);
    open(&mut hub, 0, 0);
    drain(&mut hub);
    let mut probed = Time::ZERO;
    while drain(&mut hub).1.is_empty() {
        probed = hub.next_deadline().unwrap();
        hub.expire(probed, probed);
    }
    let suspicion = hub.machine().presence(0).unwrap().next_deadline.unwrap().at;
    let answered = probed + Span::from_millis(1);
    let pong = link::World::Received(b"pong\n");
    hub.handle(answered, World::Link { link: 0, input: pong });
    let probe = hub.machine().presence(0).unwrap().next_deadline.unwrap().at;
    let armed = hub.armed(0).unwrap();
    assert!(suspicion < armed && armed <= probe, "the wheel waits for the next probe alone");
}

/// Hands the first bytes of a peer in; returns the number of the admission that the hub asks for.
fn ask(hub: &mut Driver<Hub>, link: u32) -> u32 {
    hub.handle(Time::ZERO, World::Opened { link, listener: 0, address: ADDRESS });
    let input = link::World::Received(b"ping\n");
    hub.handle(Time::ZERO, World::Link { link, input });
    match hub.poll_output() {
        Some(Output::Admit { link: of, admission }) if of == link => admission,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_login_has_two_halves_and_the_later_one_gets_the_later_epoch() {
    let mut hub = hub(Policy::default());
    let [first, second] = [0, 1].map(|link| (link, ask(&mut hub, link)));
    assert_eq!((hub.machine().counters().links, hub.machine().counters().online), (2, 0));
    // The one who came later is identified first.
    for (epoch, (link, admission)) in (5..).zip([second, first]) {
        hub.handle(
            Time::ZERO,
            World::Identified { link, admission, login: Login::claim(Span::ZERO) },
        );
        let Some(Output::Own { session, link: of, .. }) = hub.poll_output() else { panic!() };
        assert_eq!((of, hub.machine().find(session)), (link, None), "not yet");
        hub.handle(
            Time::ZERO,
            World::Identified { link, admission, login: Login::claim(Span::ZERO) },
        );
        assert_eq!(hub.poll_output(), None, "a session is opened once");
        hub.handle(Time::ZERO, Answer::Owned { session, epoch, fresh: None });
        drain(&mut hub);
        assert_eq!(hub.machine().find(session), Some(link));
        assert_eq!(hub.machine().presence(link).map(|known| known.epoch), Some(epoch));
        hub.handle(Time::ZERO, Answer::Owned { session, epoch: 99, fresh: None });
        assert_eq!(hub.machine().presence(link).map(|known| known.epoch), Some(epoch));
    }
}

#[test]
fn a_proved_identity_is_taken_over_and_a_claim_of_another_is_refused() {
    const OTHER: &str = "unauthorized: the claimed identity is not the proved one";
    const NOBODY: &str = "unauthorized: the certificate names no identity";
    let longest = "x".repeat(MAX_IDENTITY);
    let too_long = "x".repeat(MAX_IDENTITY + 1);
    for (claim, proved, known) in [
        ("", "spiffe://home/ada", Ok("spiffe://home/ada")),
        ("ada", "ada", Ok("ada")),
        ("", &longest, Ok(&*longest)),
        ("eve", "ada", Err(OTHER)),
        ("Ada", "ada", Err(OTHER)),
        ("", "", Err(NOBODY)),
        ("", &too_long, Err(NOBODY)),
        ("", "a\nb", Err(NOBODY)),
    ] {
        let settings = link::Settings::new(Codec::Native, Side::Accepting, Policy::default());
        let mut hub = driver(Vec::from([settings]), 1);
        hub.handle(Time::ZERO, World::Opened { link: 0, listener: 0, address: ADDRESS });
        let bytes = hello(claim, &[]);
        let input = link::World::Received(&bytes);
        hub.handle(Time::ZERO, World::Link { link: 0, input });
        let admission = hub.machine().slots.get(0).unwrap().generation;
        hub.handle(Time::ZERO, World::Identified { link: 0, admission, login: proved_by(proved) });
        let mut said = Err(String::from("nothing"));
        while let Some(output) = hub.poll_output() {
            if let Output::Own { .. } = output {
                said = Ok(());
            }
            if let Output::Link { output: link::Output::Transmit { bytes, .. }, .. } = output
                && let Ok(Some(Frame::Close(close))) =
                    Decoder::new(Codec::Native, 0).next(&mut &*bytes)
            {
                said = Err(alloc::format!("{}: {}", close.reason, close.text));
            }
        }
        match known {
            Ok(known) => {
                assert_eq!(said, Ok(()), "{claim} {proved}");
                assert_eq!(hub.machine().presence(0).map(|it| it.identity), Some(known));
            }
            Err(why) => assert_eq!(said, Err(String::from(why)), "{claim} {proved}"),
        }
    }
}

#[test]
fn a_peer_without_a_handshake_keeps_its_proved_identity() {
    let mut hub = hub(Policy::default());
    let admission = ask(&mut hub, 0);
    hub.handle(Time::ZERO, World::Identified { link: 0, admission, login: proved_by("ada") });
    let session = hub.machine().presence(0).map_or(0, |known| known.session);
    hub.handle(Time::ZERO, Answer::Owned { session, epoch: 9, fresh: None });
    drain(&mut hub);
    assert_eq!(hub.machine().presence(0).map(|known| known.identity), Some("ada"));
}

#[test]
fn an_answer_about_another_link_of_the_same_number_is_ignored() {
    let mut hub = hub(Policy::default());
    let late = ask(&mut hub, 0);
    let failed = link::World::Failed(SocketError::Reset);
    hub.handle(Time::ZERO, World::Link { link: 0, input: failed });
    drain(&mut hub);
    hub.expire(Time::ZERO, Time::ZERO);
    let admission = ask(&mut hub, 0);
    assert_ne!(late, admission);
    let refused = World::Refused { link: 0, admission: late, denied: CloseReason::Full.into() };
    for answer in
        [World::Identified { link: 0, admission: late, login: Login::claim(Span::ZERO) }, refused]
    {
        hub.handle(Time::ZERO, answer);
        assert_eq!(hub.poll_output(), None);
    }
    let refused = World::Refused { link: 0, admission, denied: CloseReason::Full.into() };
    hub.handle(Time::ZERO, refused);
    assert_eq!(drain(&mut hub).0.get("finished"), Some(&1));
}

#[test]
fn the_session_numbers_of_two_runs_differ_and_no_two_links_share_one() {
    let numbers = |seed| {
        let line = link::Settings::new(Codec::Line, Side::Accepting, Policy::default());
        let mut hub = driver(Vec::from([line]), seed);
        (0..100).for_each(|link| open(&mut hub, link, 0));
        (100..200).for_each(|link| {
            hub.handle(Time::ZERO, World::Opened { link, listener: 0, address: ADDRESS });
        });
        let all = (0..200).map(|link| hub.machine().presence(link).unwrap().session);
        all.collect::<alloc::collections::BTreeSet<_>>()
    };
    let [first, second] = [1, 2].map(numbers);
    assert_eq!((first.len(), second.len()), (200, 200));
    assert!(first.is_disjoint(&second));
}

/// Commands a message for many links.
fn send_all(hub: &mut Driver<Hub>, listener: Option<u16>, bytes: &[u8]) {
    let kind = DataKind::default();
    hub.handle(Time::ZERO, World::Command(HubCommand::Send { listener, bytes, kind }));
}

/// Runs the sweeps to their end. Returns the links on which data was sent, in order, and the most
/// bytes of one step.
fn run_sends(hub: &mut Driver<Hub>) -> (Vec<u32>, usize) {
    let (mut links, mut most) = (Vec::new(), 0);
    while !hub.machine().sweeps.is_empty() {
        assert!(links.len() < 100_000, "no end");
        hub.expire(Time::ZERO, Time::ZERO);
        let mut step = 0;
        while let Some(output) = hub.poll_output() {
            let Output::Link { link, output } = output else { continue };
            if let link::Output::Transmit { bytes, lane: link::Lane::Data } = output {
                step += bytes.len();
                links.push(link);
            }
        }
        most = most.max(step);
    }
    (links, most)
}

#[test]
fn a_message_for_many_reaches_the_established_links_of_its_listener_or_all() {
    let mut hub = hub(Policy::default());
    (0..6).for_each(|link| open(&mut hub, link, (link % 2) as u16));
    hub.handle(Time::ZERO, World::Opened { link: 6, listener: 0, address: ADDRESS });
    drain(&mut hub);
    send_all(&mut hub, None, b"all");
    assert_eq!(hub.poll_output(), None, "it is sent step by step");
    assert_eq!(hub.next_deadline(), Some(Time::ZERO));
    assert_eq!(run_sends(&mut hub).0, [0, 1, 2, 3, 4, 5]);
    send_all(&mut hub, Some(1), b"some");
    assert_eq!(run_sends(&mut hub).0, [1, 3, 5]);
    send_all(&mut hub, Some(7), b"none");
    assert!(run_sends(&mut hub).0.is_empty());
    send_all(&mut hub, None, b"one");
    send_all(&mut hub, None, b"two");
    let (limit, reconnect_within) = (Span::from_secs(30), Span::ZERO);
    hub.handle(Time::ZERO, World::Command(HubCommand::Drain { limit, reconnect_within }));
    send_all(&mut hub, None, b"three");
    let mut sent = Vec::new();
    for _ in 0..4 {
        hub.expire(Time::ZERO, Time::ZERO);
        sent.extend(drain(&mut hub).1);
    }
    assert_eq!(sent, b"one\n".repeat(6).into_iter().chain(b"two\n".repeat(6)).collect::<Vec<_>>());
    assert_eq!(hub.machine().counters().links, 0, "the drain came after both messages");
}

#[test]
fn a_step_sends_on_a_bounded_number_of_links_and_a_bounded_number_of_bytes() {
    let mut hub = hub(Policy::default());
    (0..1_000).for_each(|link| open(&mut hub, link, 0));
    drain(&mut hub);
    send_all(&mut hub, None, b"a");
    let (links, most) = run_sends(&mut hub);
    assert_eq!((links.len(), most), (1_000, sweep::SWEEP_STEP * 2));
    let long = [b'a'; 4_000];
    send_all(&mut hub, None, &long);
    let (links, most) = run_sends(&mut hub);
    assert_eq!(links.len(), 1_000);
    let with_ends = sweep::SWEEP_BYTES + sweep::SWEEP_BYTES / 4_000;
    assert!(most <= with_ends && most > with_ends - 4_001, "{most}");
}

#[test]
fn the_messages_for_many_that_are_under_way_are_limited() {
    let mut hub = hub(Policy::default());
    open(&mut hub, 0, 0);
    drain(&mut hub);
    (0..MAX_MESSAGES + 3).for_each(|_| send_all(&mut hub, None, b""));
    assert_eq!(
        (hub.machine().sweeps.len(), hub.machine().counters().messages_refused),
        (MAX_MESSAGES, 3)
    );
    assert_eq!(run_sends(&mut hub).0.len(), MAX_MESSAGES);
    let half = [b'a'; MESSAGE_MEMORY / 2];
    send_all(&mut hub, None, &half);
    send_all(&mut hub, None, &half[1..]);
    send_all(&mut hub, None, b"aa");
    assert_eq!((hub.machine().sweeps.len(), hub.machine().counters().messages_refused), (2, 4));
    send_all(&mut hub, None, b"a");
    assert_eq!((hub.machine().sweeps.len(), hub.machine().counters().messages_refused), (3, 4));
    run_sends(&mut hub);
    send_all(&mut hub, None, &[b'a'; MESSAGE_MEMORY + 1]);
    assert_eq!((hub.machine().sweeps.len(), hub.machine().counters().messages_refused), (0, 5));
    send_all(&mut hub, None, &[b'a'; MESSAGE_MEMORY]);
    assert_eq!((hub.machine().sweeps.len(), hub.machine().counters().messages_refused), (1, 5));
}

#[test]
fn a_link_that_overflows_in_a_message_for_many_ends_alone() {
    let mut hub = hub(Policy::default());
    (0..500).for_each(|link| open(&mut hub, link, 0));
    drain(&mut hub);
    send_all(&mut hub, None, b"a");
    hub.expire(Time::ZERO, Time::ZERO);
    assert_eq!(drain(&mut hub).1.len(), sweep::SWEEP_STEP * 2);
    for link in [7, 400] {
        hub.handle(Time::ZERO, World::Link { link, input: link::World::Overflowed });
        assert_eq!(drain(&mut hub).0.get(Cause::SlowConsumer.name()), Some(&1));
    }
    let (rest, _) = run_sends(&mut hub);
    assert_eq!(rest.len(), 500 - sweep::SWEEP_STEP - 1);
    assert_eq!((hub.machine().counters().links, hub.machine().counters().online), (498, 498));
}

#[test]
fn a_message_for_many_is_not_sent_between_the_parts_of_another() {
    let native = link::Settings::new(Codec::Native, Side::Accepting, Policy::default());
    let line = link::Settings::new(Codec::Line, Side::Accepting, Policy::default());
    let mut hub = driver(Vec::from([native, line]), 42);
    let mut hello = Vec::new();
    Codec::Native.encode(&Frame::Hello(Hello::default()), &mut hello);
    let feed = |hub: &mut Driver<Hub>, link, input| {
        hub.handle(Time::ZERO, World::Link { link, input });
        drain(hub);
    };
    for link in 0..2 {
        hub.handle(Time::ZERO, World::Opened { link, listener: 0, address: ADDRESS });
        introduce(&mut hub, Time::ZERO, link, &hello);
        drain(&mut hub);
    }
    open(&mut hub, 2, 1);
    let part = |more| {
        let (bytes, kind) = (&b"part"[..], DataKind::default());
        link::World::Command(link::Command::Send { bytes, more, kind })
    };
    (0..3).for_each(|link| feed(&mut hub, link, part(link != 0)));
    send_all(&mut hub, None, b"all");
    assert_eq!(run_sends(&mut hub).0, [0, 2], "a part of a message is a line of its own");
    assert_eq!(hub.machine().counters().messages_missed, 1);
    (0..3).for_each(|link| feed(&mut hub, link, part(false)));
    send_all(&mut hub, None, b"all");
    assert_eq!(run_sends(&mut hub).0, [0, 1, 2]);
    assert_eq!(hub.machine().counters().messages_missed, 1);
}
