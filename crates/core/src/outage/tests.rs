//! Tests outages, scopes, similar cases that are neither, limits, and random schedules.

use alloc::vec;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::random::Random;

const BOOT: BootId = BootId([1; 16]);
const IDLE: Span = Span::from_secs(10);
const ASKED: Span = Span::from_secs(10);
const LOST: Cause = Cause::PathLost { direction: Direction::Both, scope: Scope::Unknown };

fn host(net: u8, host: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, net, host))
}

fn at(ms: u64) -> Time {
    Time::from_millis(ms)
}

fn join(outages: &mut Outages, ms: u64, session: u64, address: IpAddr) -> Vec<Output> {
    outages.handle(at(ms), World::Joined { session, listener: 0, address, boot_id: BOOT });
    polled(outages)
}

fn lose(outages: &mut Outages, ms: u64, session: u64, address: IpAddr) -> Vec<Output> {
    end(outages, ms, session, address, LOST)
}

fn end(o: &mut Outages, ms: u64, session: u64, address: IpAddr, cause: Cause) -> Vec<Output> {
    o.handle(at(ms), ended(session, address, cause));
    polled(o)
}

fn ended(session: u64, address: IpAddr, cause: Cause) -> World {
    let (listener, boot_id, grounds) = (0, BOOT, Grounds::default());
    let (silent, asked) = (IDLE + ASKED, ASKED);
    World::Ended { session, listener, address, boot_id, cause, grounds, silent, asked }
}

fn polled(outages: &mut Outages) -> Vec<Output> {
    core::iter::from_fn(|| outages.poll_output()).collect()
}

/// Runs every deadline up to `ms`, at its time; returns the outputs with their times.
fn run(outages: &mut Outages, ms: u64) -> Vec<(u64, Output)> {
    let mut emitted = Vec::new();
    while let Some(due) = outages.next_deadline().map(|next| next.at).filter(|due| *due <= at(ms)) {
        outages.handle(due, Answer::Deadline);
        emitted.extend(polled(outages).into_iter().map(|output| (due.as_millis(), output)));
    }
    emitted
}

fn began(emitted: &[(u64, Output)]) -> Vec<(u64, Outage)> {
    let began = |&(at, output): &(u64, Output)| match output {
        Output::Began(outage) => Some((at, outage)),
        Output::Over(_) | Output::Scoped { .. } | Output::AskSiblings { .. } => None,
    };
    emitted.iter().filter_map(began).collect()
}

fn scopes(emitted: &[(u64, Output)]) -> Vec<(u64, Scope)> {
    let scope = |&(_, output): &(u64, Output)| match output {
        Output::Scoped { session, scope, .. } => Some((session, scope)),
        Output::Over(_) | Output::Began(_) | Output::AskSiblings { .. } => None,
    };
    emitted.iter().filter_map(scope).collect()
}

/// Twenty hosts of network 1 and as many of network 2, one session each, numbered from 1.
fn two_networks() -> Outages {
    let mut outages = Outages::new();
    for n in 1..=20_u8 {
        join(&mut outages, 0, u64::from(n), host(1, n));
        join(&mut outages, 0, 100 + u64::from(n), host(2, n));
    }
    outages
}

#[test]
fn verdicts_that_fall_together_are_reported_once() {
    let mut outages = two_networks();
    for n in 1..=10_u8 {
        assert!(
            lose(&mut outages, 60_000 + u64::from(n) * 40, u64::from(n), host(1, n)).is_empty()
        );
    }
    let emitted = run(&mut outages, 120_000);
    let [(when, outage)] = began(&emitted)[..] else { panic!("{emitted:?}") };
    assert_eq!(when, 60_400 + 500, "half a second after the last verdict");
    assert_eq!((outage.affected, outage.of_online, outage.hosts), (10, 20, 10));
    assert_eq!((outage.began, outage.last), (at(60_040), at(60_400)));
    let network = Network::V4([10, 0, 1]);
    assert_eq!(outage.place, Site::Network { network, listener: 0 });
    let all: Vec<_> = (1..=10).map(|session| (session, Scope::Many)).collect();
    assert_eq!(scopes(&emitted), all);
    // A later verdict belongs to the same outage.
    lose(&mut outages, 121_000, 11, host(1, 11));
    let emitted = run(&mut outages, 200_000);
    assert!(began(&emitted).is_empty());
    assert_eq!(scopes(&emitted), [(11, Scope::Many)]);
}

/// While other sessions are suspect, the count is not complete.
#[test]
fn verdicts_of_suspects_are_awaited() {
    let mut outages = two_networks();
    let suspect = |outages: &mut Outages, n: u8| {
        let (session, address) = (u64::from(n), host(1, n));
        outages.handle(at(55_000), World::Suspect { session, listener: 0, address });
    };
    (1..=6).for_each(|n| suspect(&mut outages, n));
    for (n, ms) in [(1, 0), (2, 0), (3, 0), (4, 3_000), (5, 5_900)] {
        assert!(run(&mut outages, 60_000 + ms).is_empty(), "before verdict {n}");
        lose(&mut outages, 60_000 + ms, n.into(), host(1, n));
    }
    assert!(run(&mut outages, 66_900).is_empty(), "the sixth is still suspected");
    outages.handle(at(66_900), World::Recovered { session: 6 });
    let emitted = run(&mut outages, 120_000);
    let [(when, outage)] = began(&emitted)[..] else { panic!("{emitted:?}") };
    assert_eq!((when, outage.affected), (66_400, 5), "nobody is left, and all is quiet");
}

#[test]
fn a_suspect_is_awaited_until_the_window_ends() {
    let mut outages = two_networks();
    let (session, address) = (6, host(1, 6));
    outages.handle(at(55_000), World::Suspect { session, listener: 0, address });
    for n in 1..=3_u8 {
        lose(&mut outages, 60_000, n.into(), host(1, n));
    }
    let emitted = run(&mut outages, 120_000);
    assert_eq!(began(&emitted)[0].0, 70_000);
    for session in 0..=SUSPECTS as u64 {
        outages.handle(at(200_000), World::Suspect { session, listener: 0, address });
    }
    let sessions = (0..=SUSPECTS as u64).filter_map(|n| outages.suspects.remove(n)).count();
    assert_eq!(sessions, SUSPECTS, "the last found no room");
}

#[test]
fn an_outage_is_over_when_half_of_its_hosts_have_returned() {
    let mut outages = two_networks();
    for n in 1..=10_u8 {
        lose(&mut outages, 60_000, u64::from(n), host(1, n));
    }
    run(&mut outages, 70_000);
    for n in 1..=4_u8 {
        assert!(join(&mut outages, 80_000, 200 + u64::from(n), host(1, n)).is_empty());
        assert!(join(&mut outages, 80_000, 300 + u64::from(n), host(1, n)).is_empty(), "known");
        assert!(join(&mut outages, 80_000, 400 + u64::from(n), host(1, 20)).is_empty(), "other");
    }
    let over = join(&mut outages, 81_000, 205, host(1, 5));
    let [Output::Over(outage)] = over[..] else { panic!("{over:?}") };
    assert!(outage.recovered);
    assert_eq!((outage.number, outage.returned, outage.affected), (1, 5, 10));
    assert_eq!(outages.groups.len() + outages.timers.len(), 0);
}

#[test]
fn an_outage_without_return_ends_after_a_timeout() {
    let mut outages = two_networks();
    for n in 1..=3_u8 {
        lose(&mut outages, 60_000, u64::from(n), host(1, n));
    }
    let emitted = run(&mut outages, 60_000 + OUTAGE_TIMEOUT.as_millis());
    let Some((when, Output::Over(outage))) = emitted.last() else { panic!("{emitted:?}") };
    assert_eq!(*when, 60_000 + OUTAGE_TIMEOUT.as_millis());
    assert!(!outage.recovered);
}

#[test]
fn a_host_that_returns_before_the_report_is_counted() {
    let mut outages = two_networks();
    for n in 1..=4_u8 {
        lose(&mut outages, 60_000, u64::from(n), host(1, n));
        join(&mut outages, 60_100, 200 + u64::from(n), host(1, n));
    }
    let emitted = run(&mut outages, 70_000);
    assert!(matches!(emitted[0], (60_500, Output::Began(_))));
    let over = emitted.iter().any(|(_, output)| matches!(output, Output::Over(it) if it.recovered));
    assert!(over, "{emitted:?}");
}

#[test]
fn few_or_spread_verdicts_and_other_causes_are_no_outage() {
    let mut few = two_networks();
    lose(&mut few, 60_000, 1, host(1, 1));
    lose(&mut few, 60_000, 2, host(1, 2));
    lose(&mut few, 60_000, 101, host(2, 1));
    assert!(began(&run(&mut few, 100_000)).is_empty());

    let mut spread = two_networks();
    let mut emitted = Vec::new();
    for n in 1..=10_u8 {
        let ms = 60_000 + u64::from(n) * 6_000;
        lose(&mut spread, ms, u64::from(n), host(1, n));
        emitted.extend(run(&mut spread, ms));
    }
    assert!(began(&emitted).is_empty());

    let mut emitted = two_networks();
    for n in 1..=10_u8 {
        end(&mut emitted, 60_000, u64::from(n), host(1, n), Cause::PeerExited);
    }
    assert!(run(&mut emitted, 100_000).is_empty());

    let mut large = Outages::new();
    for session in 1..=40 {
        join(&mut large, 0, session, host(1, 1));
    }
    for session in 1..=3 {
        lose(&mut large, 60_000, session, host(1, 1));
    }
    assert!(began(&run(&mut large, 100_000)).is_empty(), "fewer than one in ten");
}

#[test]
fn a_local_fault_is_one_outage_for_all_networks() {
    let mut outages = two_networks();
    for n in 1..=5_u8 {
        end(&mut outages, 60_000, u64::from(n), host(1, n), Cause::LocalNetworkDown);
        end(&mut outages, 60_000, 100 + u64::from(n), host(2, n), Cause::LocalNetworkDown);
    }
    let emitted = run(&mut outages, 90_000);
    let [(_, outage)] = began(&emitted)[..] else { panic!("{emitted:?}") };
    assert_eq!((outage.place, outage.affected, outage.of_online), (Site::Local, 10, 40));
}

/// A proxy's address stands for many machines, and it acknowledges for each of them.
#[test]
fn only_a_link_of_the_same_machine_tells_of_a_hung_application() {
    let hung = |boot_id, heard_ago: u64| {
        let mut outages = Outages::new();
        let address = host(1, 1);
        for (session, boot) in [(1, 7), (2, 8), (3, 7)] {
            let boot_id = BootId([boot; 16]);
            outages.handle(at(0), World::Joined { session, listener: 0, address, boot_id });
        }
        let session = 1;
        let mut hung = ended(session, address, Cause::AppHung);
        if let World::Ended { boot_id: known, .. } = &mut hung {
            *known = boot_id;
        }
        outages.handle(at(60_000), hung);
        let asks = polled(&mut outages);
        let heard_ago = Some(Span::from_millis(heard_ago));
        let seen = Answer::Siblings { session, heard_ago, reached_ago: heard_ago, suspect: false };
        outages.handle(at(60_001), seen);
        let answered = polled(&mut outages);
        let later = run(&mut outages, 200_000);
        assert!(began(&later).is_empty(), "a hung application is no outage");
        (asks, answered, scopes(&later))
    };
    let asked = vec![Output::AskSiblings { session: 1, siblings: [0, 0, 3, 0] }];
    let confidence = Confidence::High;
    let lives = vec![Output::Scoped { session: 1, scope: Scope::Flow, confidence }];
    assert_eq!(hung(BootId([7; 16]), 500), (asked.clone(), lives, vec![]));
    let silent_too = (asked, vec![], vec![(1, Scope::Unknown)]);
    assert_eq!(hung(BootId([7; 16]), 10_001), silent_too);
    for other in [BootId([9; 16]), BootId::default()] {
        assert_eq!(hung(other, 500), (vec![], vec![], vec![]));
    }
}

/// A local fault affects all listeners, and one link proves it as surely as many.
#[test]
fn a_local_fault_is_reported_for_one_link_and_all_listeners() {
    let mut outages = two_networks();
    end(&mut outages, 60_000, 1, host(1, 1), Cause::LocalNetworkDown);
    let emitted = run(&mut outages, 70_000);
    let [(when, outage)] = began(&emitted)[..] else { panic!("{emitted:?}") };
    assert_eq!((when, outage.place, outage.affected), (60_500, Site::Local, 1));
    assert!(scopes(&emitted).is_empty(), "no peer is condemned");

    // Later verdicts of any listener belong to the outage; returning hosts end it.
    for (listener, cause) in [(1, Cause::LocalNetworkDown), (2, Cause::LocalNeighbourGone)] {
        let (session, address) = (100 + u64::from(listener), host(2, listener as u8));
        let grounds = Grounds::of(&[Ground::GatewaySilent]);
        let (silent, asked, boot_id) = (IDLE + ASKED, ASKED, BOOT);
        let ended =
            World::Ended { session, listener, address, boot_id, cause, grounds, silent, asked };
        outages.handle(at(71_000), ended);
        assert_eq!(polled(&mut outages), []);
    }
    assert!(run(&mut outages, 80_000).is_empty());
    assert!(join(&mut outages, 81_000, 201, host(1, 1)).is_empty());
    let over = join(&mut outages, 82_000, 202, host(2, 1));
    let [Output::Over(outage)] = over[..] else { panic!("{over:?}") };
    assert_eq!((outage.number, outage.affected, outage.hosts), (1, 3, 3));
    assert!(outage.recovered);
}

/// Peers on our own network are their own next hops: one that is off says nothing of this machine.
#[test]
fn a_silent_next_hop_is_a_local_fault_only_if_it_is_a_gateway() {
    let mut outages = two_networks();
    end(&mut outages, 60_000, 1, host(1, 1), Cause::LocalNeighbourGone);
    assert!(began(&run(&mut outages, 70_000)).is_empty(), "one peer is off, or it is not known");
    for n in 2..=4_u8 {
        end(&mut outages, 80_000, n.into(), host(1, n), Cause::LocalNeighbourGone);
    }
    let emitted = run(&mut outages, 90_000);
    let [(_, outage)] = began(&emitted)[..] else { panic!("{emitted:?}") };
    let network = Network::V4([10, 0, 1]);
    assert_eq!((outage.place, outage.affected), (Site::Network { network, listener: 0 }, 3));

    let mut outages = two_networks();
    let mut behind = ended(1, host(1, 1), Cause::LocalNeighbourGone);
    if let World::Ended { grounds, .. } = &mut behind {
        *grounds = grounds.with(Ground::GatewaySilent);
    }
    outages.handle(at(60_000), behind);
    let emitted = run(&mut outages, 70_000);
    let [(_, outage)] = began(&emitted)[..] else { panic!("{emitted:?}") };
    assert_eq!((outage.place, outage.affected), (Site::Local, 1));
}

/// Two sessions of one host, and others elsewhere; the first is lost at 60 s.
fn siblings() -> Outages {
    let mut outages = two_networks();
    join(&mut outages, 0, 31, host(3, 1));
    join(&mut outages, 0, 32, host(3, 1));
    outages.handle(at(51_000), World::Suspect { session: 31, listener: 0, address: host(3, 1) });
    let asked = lose(&mut outages, 60_000, 31, host(3, 1));
    assert_eq!(asked, [Output::AskSiblings { session: 31, siblings: [0, 32, 0, 0] }]);
    outages
}

fn answer(outages: &mut Outages, heard_ago_ms: Option<u64>, suspect: bool) -> Vec<Output> {
    answer_at(outages, 60_010, heard_ago_ms, heard_ago_ms, suspect)
}

fn answer_at(
    outages: &mut Outages,
    ms: u64,
    heard_ago_ms: Option<u64>,
    reached_ago_ms: Option<u64>,
    suspect: bool,
) -> Vec<Output> {
    let (heard_ago, reached_ago) =
        (heard_ago_ms.map(Span::from_millis), reached_ago_ms.map(Span::from_millis));
    let seen = Answer::Siblings { session: 31, heard_ago, reached_ago, suspect };
    outages.handle(at(ms), seen);
    polled(outages)
}

#[test]
fn a_sibling_reached_during_unanswered_probes_gives_flow_scope() {
    let mut outages = siblings();
    let confidence = Confidence::High;
    let flow = Output::Scoped { session: 31, scope: Scope::Flow, confidence };
    assert_eq!(answer(&mut outages, Some(9_000), false), [flow]);
    assert_eq!(answer(&mut outages, Some(9_000), false), [], "once");
    assert!(run(&mut outages, 100_000).is_empty());
}

/// Our direction to the host is lost, or merely late, and its links still send.
#[test]
fn a_sibling_that_was_only_heard_settles_no_scope() {
    for reached_ago in [None, Some(10_010)] {
        let mut outages = siblings();
        assert_eq!(answer_at(&mut outages, 60_010, Some(0), reached_ago, false), []);
        let later = scopes(&run(&mut outages, 100_000));
        assert_eq!(later, [], "the host lives: {reached_ago:?}");
    }
    let settled = |ms| {
        let mut outages = siblings();
        answer_at(&mut outages, ms, Some(0), Some(0), false).len()
    };
    assert_eq!((settled(60_500), settled(60_501)), (1, 0), "the path may have healed since");
}

#[test]
fn a_sibling_without_evidence_settles_no_scope() {
    for (heard_ago, suspect) in [(Some(10_010), false), (Some(0), true), (None, false)] {
        let mut outages = siblings();
        assert_eq!(answer(&mut outages, heard_ago, suspect), [], "{heard_ago:?}");
        // No other verdict fell, and the scope of a loss on a live host stays open.
        let emitted = scopes(&run(&mut outages, 100_000));
        let nothing = if suspect { vec![] } else { vec![(31, Scope::Unknown)] };
        assert_eq!(emitted, nothing, "{heard_ago:?}");
    }
    // The sibling was suspect meanwhile: the path may have been cut and have healed.
    let mut outages = siblings();
    outages.handle(at(59_000), World::Suspect { session: 32, listener: 0, address: host(3, 1) });
    assert_eq!(answer(&mut outages, Some(0), false), []);
    assert_eq!(scopes(&run(&mut outages, 100_000)), [], "it lives, and nobody else died");
}

#[test]
fn dead_siblings_while_other_hosts_live_give_host_scope() {
    let mut outages = siblings();
    answer(&mut outages, Some(15_000), false);
    lose(&mut outages, 63_000, 32, host(3, 1));
    let emitted = run(&mut outages, 100_000);
    assert_eq!(scopes(&emitted), [(31, Scope::Host), (32, Scope::Host)]);
    assert!(began(&emitted).is_empty());
}

#[test]
fn without_other_hosts_the_scope_stays_unknown() {
    let mut outages = Outages::new();
    join(&mut outages, 0, 31, host(3, 1));
    join(&mut outages, 0, 32, host(3, 1));
    lose(&mut outages, 60_000, 31, host(3, 1));
    lose(&mut outages, 60_000, 32, host(3, 1));
    let emitted = run(&mut outages, 100_000);
    assert_eq!(scopes(&emitted), [(31, Scope::Unknown), (32, Scope::Unknown)]);
}

/// A next hop that died behind a host of its own, or behind two, looks like that host.
#[test]
fn a_host_is_lost_for_sure_only_if_another_of_its_network_lives() {
    let confidence = |prepare: fn(&mut Outages)| {
        let mut outages = siblings();
        prepare(&mut outages);
        lose(&mut outages, 63_000, 32, host(3, 1));
        let found = run(&mut outages, 100_000).into_iter().filter_map(|(_, output)| match output {
            Output::Scoped { session: 31 | 32, scope, confidence } => Some((scope, confidence)),
            Output::Scoped { .. }
            | Output::Began(_)
            | Output::Over(_)
            | Output::AskSiblings { .. } => None,
        });
        let [one, other] = found.collect::<Vec<_>>()[..] else { panic!("two scopes") };
        assert_eq!(one, other);
        assert_eq!(one.0, Scope::Host);
        one.1
    };
    assert_eq!(confidence(|_| ()), Confidence::Medium, "others live in other networks alone");
    let join_neighbour = |outages: &mut Outages| {
        join(outages, 60_001, 41, host(3, 2));
    };
    assert_eq!(confidence(join_neighbour), Confidence::High);
    let with_suspect = |outages: &mut Outages| {
        join(outages, 60_001, 41, host(3, 2));
        let suspect = World::Suspect { session: 41, listener: 0, address: host(3, 2) };
        outages.handle(at(61_000), suspect);
    };
    assert_eq!(confidence(with_suspect), Confidence::Medium);
    let with_lost = |outages: &mut Outages| {
        join(outages, 60_001, 41, host(3, 2));
        join(outages, 60_001, 42, host(3, 3));
        lose(outages, 61_000, 42, host(3, 3));
    };
    assert_eq!(confidence(with_lost), Confidence::Medium, "another host fell too");
}

#[test]
fn one_host_with_many_sessions_is_an_outage_with_host_scope() {
    let mut outages = two_networks();
    for session in 31..=34 {
        join(&mut outages, 0, session, host(3, 1));
    }
    for session in 31..=34 {
        lose(&mut outages, 60_000, session, host(3, 1));
    }
    let emitted = run(&mut outages, 100_000);
    assert_eq!(began(&emitted)[0].1.hosts, 1);
    let all: Vec<_> = (31..=34).map(|session| (session, Scope::Host)).collect();
    assert_eq!(scopes(&emitted), all);
}

#[test]
fn networks_are_displayed_as_prefixes() {
    use alloc::string::ToString;
    assert_eq!(Network::from(host(7, 9)).to_string(), "10.0.7.0/24");
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0xab, 0xcd, 0, 0, 0, 1);
    assert_eq!(Network::from(IpAddr::V6(v6)).to_string(), "2001:db8:ab::/48");
    let mapped = IpAddr::V6(Ipv4Addr::new(10, 0, 7, 9).to_ipv6_mapped());
    assert_eq!(Network::from(mapped), Network::V4([10, 0, 7]));
}

#[test]
fn full_tables_drop_entries_and_stay_consistent() {
    let mut outages = Outages::new();
    for n in 0..=(HOSTS as u32) {
        let address = IpAddr::V4(Ipv4Addr::from_bits(n << 8));
        join(&mut outages, 0, u64::from(n) + 1, address);
    }
    assert_eq!(outages.online(), HOSTS as u32 + 1, "counted all the same");
    assert!(outages.hosts.siblings(IpAddr::V4(Ipv4Addr::from_bits((HOSTS as u32) << 8))).is_none());
    for n in 0..=(UNSETTLED as u32) {
        let address = IpAddr::V4(Ipv4Addr::from_bits(n << 8));
        lose(&mut outages, 60_000 + u64::from(n), u64::from(n) + 1, address);
    }
    assert_eq!((outages.unsettled.len(), outages.groups.len()), (UNSETTLED, GROUPS));
    assert!(outages.timers.len() <= UNSETTLED + GROUPS);
    run(&mut outages, 1_000_000);
    assert_eq!((outages.unsettled.len(), outages.groups.len(), outages.timers.len()), (0, 0, 0));

    for n in 0..=HOSTS_PER_OUTAGE as u32 {
        let address = IpAddr::V6(Ipv6Addr::from_bits(u128::from(n)));
        lose(&mut outages, 2_000_000, u64::from(n) + 1, address);
    }
    let emitted = run(&mut outages, 2_001_000);
    let outage = began(&emitted)[0].1;
    assert_eq!(outage.hosts, HOSTS_PER_OUTAGE as u32);
    assert_eq!(outage.affected, HOSTS_PER_OUTAGE as u32 + 1);
}

fn any_siblings(random: &mut Random, session: u64) -> Answer {
    let heard_ago = Some(Span::from_millis(random.below(15_000)));
    let reached_ago = heard_ago.filter(|_| random.below(3) > 0);
    Answer::Siblings { session, heard_ago, reached_ago, suspect: random.below(3) == 0 }
}

/// For any order of inputs: each outage begins once and ends once, each path loss is scoped at most
/// once and nothing else is, the counts equal those of a simple model, and the same inputs give the
/// same outputs.
#[test]
fn random_schedules_keep_the_invariants() {
    let run_one = |seed| {
        let mut random = Random::new(seed);
        let mut outages = Outages::new();
        let mut online: BTreeMap<u64, IpAddr> = BTreeMap::new();
        let (mut lost, mut scoped, mut open) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut all = Vec::new();
        let mut now = 100_000;
        for session in 1..3_000_u64 {
            let pause = if random.below(20) == 0 { 20_000 } else { 200 };
            now += random.below(pause);
            let mut emitted: Vec<_> =
                run(&mut outages, now).into_iter().map(|(_, output)| output).collect();
            let chosen = online.iter().nth(random.below(online.len() as u64 + 1) as usize);
            match (random.below(5), chosen.map(|(session, address)| (*session, *address))) {
                (0, Some((session, address))) => {
                    outages.handle(at(now), World::Suspect { session, listener: 0, address });
                }
                (1 | 2, Some((session, address))) => {
                    online.remove(&session);
                    let cause = [LOST, Cause::PeerExited, Cause::Unknown, Cause::LocalNetworkDown]
                        [random.below(4) as usize];
                    if cause == LOST {
                        lost.insert(session);
                    }
                    emitted.extend(end(&mut outages, now, session, address, cause));
                }
                _ => {
                    let address = host(random.below(3) as u8, random.below(8) as u8);
                    online.insert(session, address);
                    emitted.extend(join(&mut outages, now, session, address));
                }
            }
            for output in emitted.iter().copied() {
                if let Output::AskSiblings { session, siblings } = output {
                    let known = siblings.iter().filter(|known| **known != 0);
                    assert!(known.clone().all(|known| online.contains_key(known)));
                    outages.handle(at(now), any_siblings(&mut random, session));
                }
            }
            emitted.extend(polled(&mut outages));
            for output in &emitted {
                match output {
                    Output::Began(outage) => assert!(open.insert(outage.number)),
                    Output::Over(outage) => assert!(open.remove(&outage.number)),
                    Output::Scoped { session, .. } => {
                        assert!(lost.contains(session) && scoped.insert(*session));
                    }
                    Output::AskSiblings { .. } => {}
                }
            }
            all.extend(emitted);
            assert_eq!(outages.online() as usize, online.len());
            assert_eq!(outages.timers.len(), outages.groups.len() + outages.unsettled.len());
        }
        all
    };
    let (mut outages, mut scopes) = (0, BTreeSet::new());
    for seed in 0..20 {
        let all = run_one(seed);
        assert_eq!(all, run_one(seed));
        outages += all.iter().filter(|output| matches!(output, Output::Began(_))).count();
        scopes.extend(all.iter().filter_map(|output| match output {
            Output::Scoped { scope, .. } => Some(*scope as u8),
            Output::Began(_) | Output::Over(_) | Output::AskSiblings { .. } => None,
        }));
    }
    assert!(outages > 100 && scopes.len() == 4, "{outages}, {scopes:?}");
}
