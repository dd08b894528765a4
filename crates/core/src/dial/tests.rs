//! The dial in single steps, and in random networks against a model that counts milliseconds.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::random::Random;

const HANDSHAKE: Span = Span::from_secs(10);
const CONNECT: Span = Span::from_secs(10);

fn at(millis: u64) -> Time {
    Time::from_millis(millis)
}

fn v4(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 7_400))
}

fn v6(last: u16) -> SocketAddr {
    SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, last], 7_400))
}

fn step(dial: &mut Dial, now: Time, input: Input<'_>) -> Vec<Output> {
    dial.handle(now, input);
    core::iter::from_fn(|| dial.poll_output()).collect()
}

fn resolve(dial: &mut Dial, now: Time, addresses: &[SocketAddr]) -> Vec<Output> {
    step(dial, now, Input::Resolved { addresses, within: CONNECT })
}

fn connect(attempt: usize, address: SocketAddr) -> Output {
    Output::Connect { attempt, address }
}

#[test]
fn families_take_turns_and_repetitions_are_dropped() {
    let found = [v6(1), v6(2), v6(1), v4(1), v4(2), v4(3)];
    assert_eq!(interleave(&found), [v6(1), v4(1), v6(2), v4(2), v4(3)]);
    assert_eq!(interleave(&[v4(1), v6(1), v4(2)]), [v4(1), v6(1), v4(2)]);
    assert_eq!(interleave(&[]), []);
}

#[test]
fn a_silent_address_delays_the_next_by_the_stagger_and_goes_to_the_back() {
    let mut dial = Dial::new(HANDSHAKE);
    assert_eq!(resolve(&mut dial, at(0), &[v6(1), v4(1)]), [connect(0, v6(1))]);
    assert_eq!(dial.next_deadline().map(|next| next.at), Some(at(250)));
    assert_eq!(step(&mut dial, at(249), Input::Deadline), []);
    assert_eq!(step(&mut dial, at(250), Input::Deadline), [connect(1, v4(1))]);
    assert_eq!(dial.next_deadline().map(|next| next.at), Some(at(10_000)));
    let within = HANDSHAKE_PATIENCE;
    assert_eq!(
        step(&mut dial, at(260), Input::Connected(1)),
        [Output::Cancel(0), Output::Introduce { attempt: 1, within }]
    );
    assert_eq!(dial.next_deadline(), None);
    assert_eq!(step(&mut dial, at(270), Input::Welcomed(1)), []);
    assert_eq!(resolve(&mut dial, at(1_000), &[v6(1), v4(1)]), [connect(0, v4(1))]);
}

#[test]
fn a_refused_address_is_followed_at_once() {
    let mut dial = Dial::new(HANDSHAKE);
    resolve(&mut dial, at(0), &[v6(1), v4(1)]);
    assert_eq!(step(&mut dial, at(1), Input::Failed(0)), [connect(1, v4(1))]);
    assert_eq!(step(&mut dial, at(2), Input::Failed(1)), [Output::GiveUp]);
    assert_eq!(dial.next_deadline(), None);
    assert_eq!(resolve(&mut dial, at(3), &[v6(1), v4(1)]), [connect(0, v6(1))], "the older one");
}

#[test]
fn a_failed_handshake_is_followed_by_the_other_addresses() {
    let mut dial = Dial::new(HANDSHAKE);
    resolve(&mut dial, at(0), &[v6(1), v4(1), v6(2)]);
    let within = HANDSHAKE_PATIENCE;
    assert_eq!(
        step(&mut dial, at(5), Input::Connected(0)),
        [Output::Introduce { attempt: 0, within }]
    );
    assert_eq!(step(&mut dial, at(3_000), Input::Deadline), [], "no attempt beside a handshake");
    assert_eq!(step(&mut dial, at(3_000), Input::Failed(0)), [connect(1, v4(1))]);
    assert_eq!(dial.next_deadline().map(|next| next.at), Some(at(3_250)));
    assert_eq!(step(&mut dial, at(3_010), Input::Failed(1)), [connect(2, v6(2))]);
    // On a slow path the handshake has more time: four times what connecting took.
    let mut again = Dial::new(HANDSHAKE);
    resolve(&mut again, at(0), &[v4(1), v4(2)]);
    step(&mut again, at(250), Input::Deadline);
    let within = Span::from_secs(4);
    assert_eq!(
        step(&mut again, at(1_000), Input::Connected(0)),
        [Output::Cancel(1), Output::Introduce { attempt: 0, within }]
    );
    let last = Output::Introduce { attempt: 2, within: HANDSHAKE };
    assert_eq!(step(&mut dial, at(3_020), Input::Connected(2)), [last]);
    assert_eq!(step(&mut dial, at(3_030), Input::Welcomed(2)), []);
}

#[test]
fn a_refusal_for_good_ends_the_round() {
    let mut dial = Dial::new(HANDSHAKE);
    resolve(&mut dial, at(0), &[v6(1), v4(1)]);
    step(&mut dial, at(5), Input::Connected(0));
    assert_eq!(step(&mut dial, at(6), Input::Refused(0)), [Output::GiveUp]);
}

#[test]
fn no_address_and_too_many_are_handled() {
    let mut dial = Dial::new(HANDSHAKE);
    assert_eq!(resolve(&mut dial, at(0), &[]), [Output::GiveUp]);
    let many: Vec<SocketAddr> = (0..200).map(v4).collect();
    resolve(&mut dial, at(0), &many);
    assert_eq!(dial.attempts.len(), MAX_ADDRESSES);
}

/// What is behind an address.
#[derive(Clone, Copy, Debug)]
struct Host {
    /// Milliseconds to the answer to the connection, and whether it accepts; `None` for no answer.
    connection: Option<(u64, bool)>,
    /// Milliseconds to the answer to the handshake, and what it says; `None` for no answer.
    handshake: Option<(u64, Answer)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Answer {
    Welcome,
    Fail,
    Refuse,
}

/// What became of a round.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Round {
    winner: Option<usize>,
    ended: u64,
    /// When each attempt started, in order.
    starts: Vec<(usize, u64)>,
}

fn host(random: &mut Random) -> Host {
    let connection = match random.below(4) {
        0 => None,
        1 => Some((1 + random.below(400), false)),
        _ => Some((1 + random.below(700), true)),
    };
    let handshake = match random.below(8) {
        0 => None,
        1 => Some((1 + random.below(400), Answer::Fail)),
        2 => Some((1 + random.below(400), Answer::Refuse)),
        _ => Some((1 + random.below(3_000), Answer::Welcome)),
    };
    Host { connection, handshake }
}

/// Runs the machine in a network of these hosts; the order of addresses is that of the hosts.
fn run(dial: &mut Dial, hosts: &[Host], addresses: &[SocketAddr], within: Span) -> Round {
    let mut connecting: Vec<(usize, u64)> = Vec::new();
    let mut handshake: Option<(usize, u64, Answer)> = None;
    let mut starts = Vec::new();
    dial.handle(Time::ZERO, Input::Resolved { addresses, within });
    for now in 0..60_000 {
        while let Some(output) = dial.poll_output() {
            match output {
                Output::Connect { attempt, address } => {
                    assert_eq!(handshake, None, "no attempt beside a handshake");
                    assert_eq!(address, addresses[attempt]);
                    starts.push((attempt, now));
                    let due = hosts[attempt].connection.map_or(u64::MAX, |(after, _)| now + after);
                    connecting.push((attempt, due));
                }
                Output::Cancel(attempt) => {
                    let before = connecting.len();
                    connecting.retain(|(number, _)| *number != attempt);
                    assert_eq!(connecting.len() + 1, before, "only open attempts are canceled");
                }
                Output::Introduce { attempt, within } => {
                    assert!(connecting.is_empty() && handshake.is_none(), "one at a time");
                    let limit = within.as_millis();
                    let (after, answer) = match hosts[attempt].handshake {
                        Some((after, answer)) if after < limit => (after, answer),
                        Some(_) | None => (limit, Answer::Fail),
                    };
                    handshake = Some((attempt, now + after, answer));
                }
                Output::GiveUp => {
                    assert!(connecting.is_empty(), "no attempt is left open");
                    return Round { winner: None, ended: now, starts };
                }
            }
        }
        let time = at(now + 1);
        if let Some((attempt, due, answer)) = handshake.filter(|(_, due, _)| *due == now + 1) {
            assert_eq!(due, now + 1);
            handshake = None;
            dial.handle(
                time,
                match answer {
                    Answer::Welcome => Input::Welcomed(attempt),
                    Answer::Fail => Input::Failed(attempt),
                    Answer::Refuse => Input::Refused(attempt),
                },
            );
            if answer == Answer::Welcome {
                assert!(dial.poll_output().is_none() && dial.next_deadline().is_none());
                return Round { winner: Some(attempt), ended: now + 1, starts };
            }
        } else if let Some(index) = connecting.iter().position(|(_, due)| *due == now + 1) {
            let (attempt, _) = connecting.remove(index);
            let accepts = hosts[attempt].connection.is_some_and(|(_, accepts)| accepts);
            for (_, due) in &mut connecting {
                // One event each millisecond, here and in the model.
                *due += u64::from(*due == now + 1);
            }
            let input = if accepts { Input::Connected(attempt) } else { Input::Failed(attempt) };
            dial.handle(time, input);
        } else if dial.next_deadline().is_some_and(|deadline| deadline.at <= time) {
            dial.handle(time, Input::Deadline);
        }
    }
    panic!("no end in a minute");
}

/// Computes the same from the rules alone: what is left, one phase of connecting after the other.
fn model(hosts: &[Host], within: Span) -> Round {
    let mut left: Vec<usize> = (0..hosts.len()).collect();
    let (mut now, mut budget, mut starts) = (0, within.as_millis(), Vec::new());
    loop {
        let (phase, mut open, mut next) = (now, Vec::<(usize, u64)>::new(), now);
        let mut waiting = left.clone();
        let accepted = loop {
            if next == now && !waiting.is_empty() {
                let number = waiting.remove(0);
                starts.push((number, now));
                open.push((number, hosts[number].connection.map_or(u64::MAX, |(d, _)| now + d)));
                next = now + STAGGER.as_millis();
            }
            if open.is_empty() || left.is_empty() {
                return Round { winner: None, ended: now, starts };
            }
            now += 1;
            if let Some(index) = open.iter().position(|(_, due)| *due == now) {
                let (number, _) = open.remove(index);
                open.iter_mut().for_each(|(_, due)| *due += u64::from(*due == now));
                if hosts[number].connection.is_some_and(|(_, accepts)| accepts) {
                    break number;
                }
                left.retain(|other| *other != number);
                next = now;
            } else if now >= phase + budget {
                return Round { winner: None, ended: now, starts };
            } else {
                // A start that an event held up follows a millisecond later.
                next = next.max(now);
            }
        };
        budget = (phase + budget).saturating_sub(now);
        left.retain(|other| *other != accepted);
        let others = left.len() as u64;
        let limit = match others {
            0 => HANDSHAKE.as_millis(),
            others => {
                let started = starts.iter().rev().find(|(number, _)| *number == accepted);
                let patience = (4 * (now - started.unwrap().1)).max(2_000);
                patience.min(HANDSHAKE.as_millis() / (others + 1))
            }
        };
        let (after, answer) = match hosts[accepted].handshake {
            Some((after, answer)) if after < limit => (after, answer),
            Some(_) | None => (limit, Answer::Fail),
        };
        now += after;
        match answer {
            Answer::Welcome => return Round { winner: Some(accepted), ended: now, starts },
            Answer::Refuse => return Round { winner: None, ended: now, starts },
            Answer::Fail if left.is_empty() => return Round { winner: None, ended: now, starts },
            Answer::Fail => {}
        }
    }
}

#[test]
fn random_networks_end_as_the_model_says() {
    let (mut won, mut lost, mut second) = (0, 0, 0);
    for seed in 0..5_000 {
        let mut random = Random::new(seed);
        let count = 1 + random.below(6);
        let hosts: Vec<Host> = (0..count).map(|_| host(&mut random)).collect();
        let addresses: Vec<SocketAddr> = (0..count).map(|n| v4(n as u8)).collect();
        let within = Span::from_millis([300, 1_000, 10_000][random.below(3) as usize]);
        let round = run(&mut Dial::new(HANDSHAKE), &hosts, &addresses, within);
        assert_eq!(round, model(&hosts, within), "seed {seed}: {hosts:?}");
        let bound = within.as_millis() + 2 * HANDSHAKE.as_millis();
        assert!(round.ended <= bound, "seed {seed}: {round:?}");
        won += u32::from(round.winner.is_some());
        lost += u32::from(round.winner.is_none());
        second += u32::from(round.winner.is_some_and(|winner| winner > 0));
    }
    assert!(won > 1_000 && lost > 500 && second > 500, "{won} {lost} {second}");
}

#[test]
fn with_one_good_address_some_round_is_won() {
    for seed in 0..500 {
        let mut random = Random::new(seed);
        let count = 2 + random.below(6) as usize;
        let good = random.below(count as u64) as usize;
        let mut hosts: Vec<Host> = vec![Host { connection: None, handshake: None }; count];
        for host in &mut hosts {
            let refuses = random.below(2) == 0;
            host.connection = refuses.then_some((1, false));
        }
        let answer = Some((20, Answer::Welcome));
        hosts[good] = Host { connection: Some((20, true)), handshake: answer };
        // So short a limit that a round tries no more than two silent addresses.
        let within = Span::from_millis(300);
        let mut dial = Dial::new(HANDSHAKE);
        let all: Vec<SocketAddr> = (0..count).map(|n| v4(n as u8)).collect();
        let rounds = (1..=count).find(|_| {
            // The order of this round, as the machine will have it.
            let mut order: Vec<SocketAddr> =
                all.iter().copied().filter(|known| !dial.failed.contains(known)).collect();
            order.extend(dial.failed.clone());
            let behind: Vec<Host> =
                order.iter().map(|a| hosts[all.iter().position(|b| a == b).unwrap()]).collect();
            let mut copy = dial.clone();
            let round = run_round(&mut copy, &behind, &order, &all, within);
            dial = copy;
            round.winner.is_some()
        });
        assert!(rounds.is_some(), "seed {seed}: {hosts:?}");
    }
}

/// Runs a round whose order differs from that in which the addresses were found.
fn run_round(
    dial: &mut Dial,
    hosts: &[Host],
    order: &[SocketAddr],
    found: &[SocketAddr],
    within: Span,
) -> Round {
    let mut same = found.to_vec();
    same.sort_by_key(|address| order.iter().position(|other| other == address));
    assert_eq!(same, order);
    run(dial, hosts, order, within)
}
