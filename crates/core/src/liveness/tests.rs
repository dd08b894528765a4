//! Each rule of liveness, at exact times.

use alloc::vec::Vec;

use super::*;
use crate::policy::Detection;

fn ms(millis: u64) -> Time {
    Time::from_millis(millis)
}

fn span(millis: u64) -> Span {
    Span::from_millis(millis)
}

/// 10/3/3, unspread: probes at 10, 13 and 16 s, D = 19 s.
fn policy() -> Policy {
    Policy::kernel_like()
}

fn introduced(role: Role, policy: &Policy, seed: u32) -> Liveness {
    let mut link = Liveness::new(Time::ZERO, role, span(5_000));
    link.handle(Time::ZERO, Input::Introduced { seed }, policy);
    link
}

fn outputs(link: &mut Liveness) -> Vec<Output> {
    core::iter::from_fn(|| link.poll_output()).collect()
}

/// Runs every deadline up to and including `until`, and returns the outputs with their times.
fn run(link: &mut Liveness, policy: &Policy, until: Time) -> Vec<(u64, Output)> {
    let mut seen = Vec::new();
    while let Some(next) = link.next_deadline(policy).filter(|next| next.at <= until) {
        link.handle(next.at, Input::Deadline, policy);
        let out = outputs(link);
        assert!(!out.is_empty(), "the deadline {next:?} did nothing");
        seen.extend(out.into_iter().map(|output| (next.at.as_millis(), output)));
    }
    seen
}

fn dead(due: u64, last_heard: u64, probes: u8) -> Output {
    let in_handshake = false;
    let (due, last_heard, stretch) = (ms(due), ms(last_heard), Span::ZERO);
    Output::Dead(Silence { due, stretch, last_heard, probes, in_handshake })
}

#[test]
fn silence_leads_to_probes_suspicion_and_the_verdict() {
    let mut link = introduced(Role::Probe, &policy(), 0);
    let expected = [
        (10_000, Output::Probe { sequence: 1, number: 1 }),
        (11_000, Output::Suspect),
        (13_000, Output::Probe { sequence: 2, number: 2 }),
        (16_000, Output::Probe { sequence: 3, number: 3 }),
        (19_000, dead(19_000, 0, 3)),
    ];
    assert_eq!(run(&mut link, &policy(), ms(100_000)), expected);
    assert!(link.is_dead());
    link.handle(ms(20_000), Input::Heard(Evidence::Bytes), &policy());
    assert_eq!(outputs(&mut link), [], "dead is final");
}

#[test]
fn a_watching_end_sends_no_probes_and_has_the_same_bound() {
    let mut link = introduced(Role::Watch, &policy(), 0);
    let expected = [(11_000, Output::Suspect), (19_000, dead(19_000, 0, 0))];
    assert_eq!(run(&mut link, &policy(), ms(100_000)), expected);
}

#[test]
fn any_evidence_ends_the_suspicion_and_restarts_idle() {
    let mut link = introduced(Role::Probe, &policy(), 0);
    run(&mut link, &policy(), ms(16_500));
    assert!(link.is_suspect());
    link.handle(ms(18_999), Input::Heard(Evidence::Bytes), &policy());
    assert_eq!(outputs(&mut link), [Output::Recovered]);
    let next = link.next_deadline(&policy()).unwrap();
    assert_eq!(next, Deadline::exact(ms(28_999), Reason::Probe));
}

#[test]
fn sending_does_not_delay_the_verdict() {
    let mut link = introduced(Role::Probe, &policy(), 0);
    for at in 0..19 {
        link.handle(ms(at * 1_000), Input::Sent, &policy());
    }
    assert!(run(&mut link, &policy(), ms(19_000)).contains(&(19_000, dead(19_000, 0, 3))));
}

#[test]
fn the_verdict_falls_exactly_at_the_bound() {
    let mut link = introduced(Role::Probe, &policy(), 0);
    let last = Time::from_nanos(19_000_000_000 - 1);
    link.handle(last, Input::Deadline, &policy());
    assert!(!link.is_dead());
    link.handle(ms(19_000), Input::Deadline, &policy());
    assert!(link.is_dead());
}

#[test]
fn a_late_deadline_skips_probes_and_never_exceeds_their_number() {
    let mut link = introduced(Role::Probe, &policy(), 0);
    link.handle(ms(17_000), Input::Deadline, &policy());
    assert_eq!(outputs(&mut link), [Output::Probe { sequence: 1, number: 3 }]);
    let expected = [(18_000, Output::Suspect), (19_000, dead(19_000, 0, 3))];
    assert_eq!(run(&mut link, &policy(), ms(100_000)), expected);
}

#[test]
fn the_handshake_is_bounded_even_if_bytes_arrive() {
    let mut link = Liveness::new(Time::ZERO, Role::Probe, span(5_000));
    for at in 0..5 {
        link.handle(ms(at * 1_000), Input::Heard(Evidence::Bytes), &policy());
    }
    let silence = Silence {
        due: ms(5_000),
        stretch: Span::ZERO,
        last_heard: ms(4_000),
        probes: 0,
        in_handshake: true,
    };
    assert_eq!(run(&mut link, &policy(), ms(9_000)), [(5_000, Output::Dead(silence))]);
}

#[test]
fn a_pong_confirms_earlier_probes_and_measures_only_the_latest() {
    let mut link = introduced(Role::Probe, &policy(), 0);
    run(&mut link, &policy(), ms(13_000));
    let first = Evidence::Pong { sequence: Some(1) };
    link.handle(ms(13_100), Input::Heard(first), &policy());
    assert_eq!(outputs(&mut link), [Output::Recovered]);
    let second = Evidence::Pong { sequence: Some(2) };
    link.handle(ms(13_250), Input::Heard(second), &policy());
    assert_eq!(outputs(&mut link), [Output::RoundTrip(span(250))]);
    link.handle(ms(13_300), Input::Heard(second), &policy());
    assert_eq!(outputs(&mut link), [], "a duplicate measures nothing");
    assert_eq!(link.rtt(), None, "the peer was suspect: it may have answered a retransmission");
}

#[test]
fn a_pong_without_sequence_number_measures_only_a_single_unconfirmed_probe() {
    let mut link = introduced(Role::Probe, &policy(), 0);
    run(&mut link, &policy(), ms(13_000));
    let pong = Input::Heard(Evidence::Pong { sequence: None });
    link.handle(ms(15_000), pong, &policy());
    assert_eq!(outputs(&mut link), [Output::Recovered], "answers the first of two");
    link.handle(ms(18_000), pong, &policy());
    assert_eq!(outputs(&mut link), [Output::RoundTrip(span(5_000))]);
    link.handle(ms(18_000), pong, &policy());
    assert_eq!(outputs(&mut link), [], "no heartbeat is unconfirmed");
}

#[test]
fn suspicion_waits_four_round_trips_and_at_least_a_second_or_an_interval() {
    let quick = Policy::new(span(1_000), span(500), 4).unwrap().with_spread(false);
    let suspicion_after = |policy: Policy, rtts_ms: &[u64]| {
        let mut link = introduced(Role::Probe, &policy, 0);
        for (sequence, rtt_ms) in (1..).zip(rtts_ms) {
            let probe = link.next_deadline(&policy).unwrap().at;
            link.handle(probe, Input::Deadline, &policy);
            let pong = Evidence::Pong { sequence: Some(sequence) };
            link.handle(probe + span(*rtt_ms), Input::Heard(pong), &policy);
            outputs(&mut link);
        }
        let out = run(&mut link, &policy, ms(100_000));
        assert!(matches!(out.last(), Some((_, Output::Dead(_)))), "the verdict falls at the bound");
        let at = |wanted: fn(&Output) -> bool| {
            out.iter().find(|(_, output)| wanted(output)).map(|(at, _)| *at)
        };
        let probe = at(|output| matches!(output, Output::Probe { .. })).unwrap();
        at(|output| *output == Output::Suspect).map(|suspect| suspect - probe)
    };
    assert_eq!(suspicion_after(policy(), &[10]), Some(1_000));
    assert_eq!(suspicion_after(policy(), &[600]), Some(2_400));
    assert_eq!(suspicion_after(policy(), &[900]), Some(3_600), "longer than an interval");
    assert_eq!(suspicion_after(quick, &[10]), Some(500), "an interval shorter than a second");
    assert_eq!(suspicion_after(policy(), &[900, 2_250]), None, "as long as the rest of the bound");
}

#[test]
fn the_first_probe_is_spread_over_half_of_idle_without_moving_the_verdict() {
    let policy = policy().with_spread(true);
    let first = |seed| {
        let mut link = introduced(Role::Probe, &policy, seed);
        let out = run(&mut link, &policy, ms(100_000));
        assert_eq!(out.last(), Some(&(19_000, dead(19_000, 0, 3))));
        assert_eq!(out.iter().filter(|(_, o)| matches!(o, Output::Probe { .. })).count(), 3);
        out[0].0
    };
    assert_eq!(first(0), 10_000);
    assert_eq!(first(u32::MAX), 5_001);
    assert_eq!(first(1 << 31), 7_500);
}

#[test]
fn a_keepalive_is_due_when_no_byte_passed_in_either_direction() {
    let policy = policy().with_keepalive(span(4_000)).unwrap();
    let mut link = introduced(Role::Probe, &policy, 0);
    link.handle(ms(3_000), Input::Sent, &policy);
    let out = run(&mut link, &policy, ms(10_000));
    let expected = [
        (7_000, Output::Keepalive { sequence: 1 }),
        (10_000, Output::Probe { sequence: 2, number: 1 }),
    ];
    assert_eq!(out, expected, "a keepalive is not a probe");
    link.handle(ms(10_010), Input::Heard(Evidence::Pong { sequence: Some(2) }), &policy);
    assert_eq!(outputs(&mut link), [Output::RoundTrip(span(10))]);
}

#[test]
fn an_unenforced_bound_is_reported_once_and_ends_no_link() {
    let policy = policy().with_enforce(false);
    let mut link = introduced(Role::Probe, &policy, 0);
    let out = run(&mut link, &policy, ms(1_000_000));
    assert!(matches!(out.last(), Some((19_000, Output::Overdue(_)))));
    link.handle(ms(2_000_000), Input::Heard(Evidence::Bytes), &policy);
    assert_eq!(outputs(&mut link), [Output::Recovered]);
    assert_eq!(run(&mut link, &policy, ms(2_010_000)).len(), 1, "it is probed again");
}

#[test]
fn a_kept_peer_is_probed_once_more_an_interval_before_the_verdict() {
    let policy = policy();
    let bound = policy.bound().unwrap().as_millis();
    let Detection::Bounded { interval, probes, .. } = policy.detection() else { panic!() };
    for (role, probed) in [(Role::Probe, true), (Role::Watch, false)] {
        let mut link = introduced(role, &policy, 0);
        run(&mut link, &policy, ms(bound));
        assert!(link.is_dead());
        let until = ms(bound + 60_000);
        link.handle(ms(bound), Input::Keep { until }, &policy);
        let out = run(&mut link, &policy, until);
        let probes_at: Vec<u64> = out
            .iter()
            .filter(|(_, output)| matches!(output, Output::Probe { .. }))
            .map(|(at, _)| *at)
            .collect();
        let at = bound + 60_000 - interval.as_millis();
        assert_eq!(probes_at, if probed { [at].to_vec() } else { Vec::new() });
        let sent = if probed { probes + 1 } else { 0 };
        assert_eq!(out.last(), Some(&(bound + 60_000, dead(bound + 60_000, 0, sent))));
    }
}

#[test]
fn the_policy_never_has_no_deadline() {
    let policy = Policy::never();
    let mut link = introduced(Role::Probe, &policy, 0);
    assert_eq!(link.next_deadline(&policy), None);
    link.handle(ms(u64::MAX), Input::Deadline, &policy);
    assert_eq!(outputs(&mut link), []);
}

#[test]
fn silence_counts_from_the_end_of_a_hold() {
    let mut link = introduced(Role::Probe, &policy(), 0);
    run(&mut link, &policy(), ms(12_000));
    link.handle(ms(12_000), Input::Hold { until: ms(60_000) }, &policy());
    assert_eq!(outputs(&mut link), [Output::Recovered]);
    assert_eq!(link.held_until(), Some(ms(60_000)));
    link.handle(ms(20_000), Input::Heard(Evidence::Bytes), &policy());
    assert_eq!(link.held_until(), Some(ms(60_000)), "evidence does not end a hold");
    let mut released = link.clone();
    let out = run(&mut link, &policy(), ms(200_000));
    assert_eq!(out.last().map(|(at, _)| *at), Some(79_000));
    released.handle(ms(30_000), Input::Release, &policy());
    let out = run(&mut released, &policy(), ms(200_000));
    assert_eq!(out.last().map(|(at, _)| *at), Some(49_000));
}

#[test]
fn a_retune_never_ends_a_link_for_a_silence_that_was_allowed() {
    let tight = Policy::new(span(1_000), span(500), 2).unwrap().with_spread(false);
    let retuned = |at: u64, from: Policy, to: Policy| {
        let mut link = introduced(Role::Probe, &from, 0);
        run(&mut link, &from, ms(at));
        link.handle(ms(at), Input::Retuned { from, seed: 0 }, &to);
        outputs(&mut link);
        run(&mut link, &to, ms(10_000_000)).last().map(|(at, _)| *at)
    };
    assert_eq!(retuned(9_000, policy(), tight), Some(11_000), "one new bound from now");
    assert_eq!(retuned(18_500, policy(), tight), Some(19_000), "not later than the old bound");
    assert_eq!(
        retuned(1_500, tight, policy()),
        Some(19_000),
        "a longer bound counts from the last evidence"
    );
    assert_eq!(retuned(9_000, Policy::never(), tight), Some(11_000));
    assert_eq!(retuned(9_000, policy(), Policy::never()), None);
}

#[test]
fn a_silent_peer_is_judged_in_time_however_the_policy_changes_there_and_back() {
    let tight = Policy::new(span(1_000), span(500), 2).unwrap().with_spread(false);
    for (step, expected) in [(300, 19_000), (1_000, 19_000), (1_900, 19_000), (3_000, 11_000)] {
        let mut link = introduced(Role::Probe, &policy(), 0);
        let mut at = 9_000;
        let mut now = policy();
        let verdict = loop {
            let seen = run(&mut link, &now, ms(at));
            if let Some((at, Output::Dead(_))) = seen.last() {
                break *at;
            }
            assert!(at < 60_000, "a change every {step} ms: no verdict");
            let next = if now == tight { policy() } else { tight };
            link.handle(ms(at), Input::Retuned { from: now, seed: 0 }, &next);
            outputs(&mut link);
            (now, at) = (next, at + step);
        };
        assert_eq!(verdict, expected, "a change every {step} ms");
    }
}

#[test]
fn enforcing_again_gives_an_overdue_link_one_more_bound() {
    let observing = policy().with_enforce(false);
    let mut link = introduced(Role::Probe, &observing, 0);
    run(&mut link, &observing, ms(50_000));
    link.handle(ms(50_000), Input::Retuned { from: observing, seed: 0 }, &policy());
    assert_eq!(outputs(&mut link), []);
    assert!(link.is_suspect(), "suspect until there is evidence");
    let out = run(&mut link, &policy(), ms(100_000));
    assert_eq!(out.last(), Some(&(69_000, dead(69_000, 0, 3))));
}

/// A round trip of 12 s stretches a bound that counts from the silence, and not the new one, which
/// counts from the change.
#[test]
fn after_the_verdict_the_bound_has_passed_by_which_it_fell() {
    let observing = policy().with_enforce(false);
    let mut link = introduced(Role::Watch, &observing, 0);
    link.handle(Time::ZERO, Input::KernelRoundTrip(span(12_000)), &observing);
    run(&mut link, &observing, ms(50_000));
    link.handle(ms(50_000), Input::Retuned { from: observing, seed: 0 }, &policy());
    let out = run(&mut link, &policy(), ms(100_000));
    assert_eq!(out.last(), Some(&(69_000, dead(69_000, 0, 0))));
    assert_eq!(link.due(&policy()), Some(ms(69_000)));
}

#[test]
fn fifty_silent_days_count_like_one_silent_minute() {
    let day = 86_400_000;
    let policy = Policy::new(span(51 * day), span(1_000), 1).unwrap().with_spread(false);
    let mut link = introduced(Role::Probe, &policy, 0);
    assert_eq!(run(&mut link, &policy, ms(50 * day)), []);
    let out = run(&mut link, &policy, ms(60 * day));
    assert_eq!(out.last().map(|(at, _)| *at), Some(51 * day + 1_000));
}

#[test]
fn a_link_with_evidence_in_every_idle_sends_no_heartbeat() {
    let mut link = introduced(Role::Probe, &policy().with_spread(true), 0);
    for at in (0..86_400_000).step_by(9_999) {
        assert_eq!(run(&mut link, &policy(), ms(at)), []);
        link.handle(ms(at), Input::Heard(Evidence::Bytes), &policy());
    }
}

/// Probes a silent peer that answers after `rtt_ms`, and returns the round-trip time then.
fn answer_after(link: &mut Liveness, rtt_ms: u64) -> Option<Span> {
    let probe = link.next_deadline(&policy()).unwrap().at;
    link.handle(probe, Input::Deadline, &policy());
    let Some(Output::Probe { sequence, .. }) = link.poll_output() else { panic!("no probe") };
    let pong = Evidence::Pong { sequence: Some(sequence) };
    link.handle(probe + span(rtt_ms), Input::Heard(pong), &policy());
    outputs(link);
    link.rtt()
}

#[test]
fn the_round_trip_is_the_greater_of_the_sample_and_seven_eighths_of_the_one_before() {
    let mut link = introduced(Role::Probe, &policy(), 0);
    assert_eq!(answer_after(&mut link, 800), Some(span(800)));
    assert_eq!(answer_after(&mut link, 10), Some(span(700)));
    assert_eq!(answer_after(&mut link, 900), Some(span(900)), "a longer one counts at once");
}

#[test]
fn after_a_suspicion_the_kernels_round_trip_counts_and_not_the_late_answer() {
    let mut link = introduced(Role::Probe, &policy(), 0);
    assert_eq!(answer_after(&mut link, 20), Some(span(20)));
    let heard = link.last_heard();
    run(&mut link, &policy(), heard + span(11_000));
    assert!(link.is_suspect());
    let answered = heard + span(12_500);
    link.handle(answered, Input::Heard(Evidence::Bytes), &policy());
    link.handle(answered, Input::Heard(Evidence::Pong { sequence: Some(2) }), &policy());
    outputs(&mut link);
    link.handle(answered, Input::KernelRoundTrip(span(30)), &policy());
    assert_eq!(link.rtt(), Some(span(30)), "not 2.5 s");
    assert_eq!(answer_after(&mut link, 40), Some(span(40)), "later probes are measured again");
}

/// Returns when a link dies whose round trip was `rtt_ms` when it was last heard, at 20 s, and by
/// how much the bound was stretched, in milliseconds.
fn verdict_with_round_trip(role: Role, rtt_ms: u64) -> (u64, u64) {
    let mut link = introduced(role, &policy(), 0);
    let heard = ms(20_000);
    run(&mut link, &policy(), ms(12_000));
    link.handle(heard, Input::Heard(Evidence::Bytes), &policy());
    link.handle(heard, Input::KernelRoundTrip(span(rtt_ms)), &policy());
    outputs(&mut link);
    let due = link.due(&policy()).unwrap();
    match run(&mut link, &policy(), ms(u64::MAX / 2)).last() {
        Some(&(at, Output::Dead(silence))) => {
            assert_eq!((ms(at), silence.last_heard), (silence.due, heard));
            assert!(role == Role::Probe || due == silence.due, "known before the first probe");
            (at, silence.stretch.as_millis())
        }
        other => panic!("{other:?}"),
    }
}

/// 10/3/3: the first probe leaves at 30 s, the bound passes at 39 s.
#[test]
fn rule_13_the_verdict_waits_for_the_answer_to_the_first_probe_and_at_most_for_two_bounds() {
    for role in [Role::Probe, Role::Watch] {
        for (rtt_ms, expected) in [
            (20, (39_000, 0)),
            (9_000, (39_000, 0)),
            (9_001, (39_001, 1)),
            (12_000, (42_000, 3_000)),
            (28_000, (58_000, 19_000)),
            (28_001, (58_000, 19_000)),
            (3_600_000, (58_000, 19_000)),
        ] {
            assert_eq!(verdict_with_round_trip(role, rtt_ms), expected, "{role:?}, {rtt_ms} ms");
        }
    }
}

#[test]
fn rule_13_an_answer_within_the_stretched_bound_is_in_time() {
    let mut link = introduced(Role::Probe, &policy(), 0);
    link.handle(Time::ZERO, Input::KernelRoundTrip(span(12_000)), &policy());
    let mut heard = 0;
    for _ in 0..5 {
        run(&mut link, &policy(), ms(heard + 21_999));
        assert!(!link.is_dead());
        heard += 21_999;
        link.handle(ms(heard), Input::Heard(Evidence::Bytes), &policy());
        outputs(&mut link);
    }
}

#[test]
fn during_a_silence_the_kernels_figure_only_lengthens_the_round_trip() {
    for role in [Role::Probe, Role::Watch] {
        let mut link = introduced(role, &policy(), 0);
        link.handle(Time::ZERO, Input::KernelRoundTrip(span(15_000)), &policy());
        let figure = |link: &mut Liveness, at, rtt_ms| {
            link.handle(ms(at), Input::KernelRoundTrip(span(rtt_ms)), &policy());
            (link.rtt(), link.due(&policy()).unwrap().as_millis())
        };
        assert_eq!(figure(&mut link, 9_000, 12_000).0, Some(span(12_000)));
        run(&mut link, &policy(), ms(20_000));
        assert_eq!(figure(&mut link, 20_000, 100), (Some(span(12_000)), 22_000), "{role:?}");
        assert_eq!(figure(&mut link, 20_000, 13_000), (Some(span(13_000)), 23_000), "{role:?}");
        run(&mut link, &policy(), ms(22_999));
        assert!(!link.is_dead());
        assert!(matches!(run(&mut link, &policy(), ms(23_000)).last(), Some((_, Output::Dead(_)))));
    }
}

#[test]
fn a_retune_never_ends_a_link_within_a_stretched_bound() {
    let tight = Policy::new(span(1_000), span(500), 2).unwrap().with_spread(false);
    for at in [20_000, 27_500, 29_500] {
        let mut link = introduced(Role::Probe, &policy(), 0);
        link.handle(Time::ZERO, Input::KernelRoundTrip(span(20_000)), &policy());
        run(&mut link, &policy(), ms(at));
        link.handle(ms(at), Input::Retuned { from: policy(), seed: 0 }, &tight);
        let out = run(&mut link, &tight, ms(100_000));
        let died = out.last().map_or(0, |(at, _)| *at);
        assert!(died >= 30_000.min(at + 2_000), "retuned at {at}, ended at {died}");
    }
}

#[test]
fn in_later_silences_each_link_keeps_a_small_lead_of_its_own() {
    let policy = policy().with_spread(true);
    let mut probes = Vec::new();
    for seed in 0..256 {
        let mut link = introduced(Role::Probe, &policy, seed);
        link.handle(ms(100_000), Input::Heard(Evidence::Bytes), &policy);
        run(&mut link, &policy, ms(118_999));
        link.handle(ms(118_999), Input::Heard(Evidence::Bytes), &policy);
        outputs(&mut link);
        link.handle(ms(120_000), Input::Heard(Evidence::Bytes), &policy);
        let next = link.next_deadline(&policy).unwrap();
        assert_eq!(next.reason, Reason::Probe);
        probes.push(next.at.as_millis());
    }
    // The lead is at most idle / 8, 1.25 s.
    assert!(probes.iter().all(|at| (128_750..=130_000).contains(at)), "{probes:?}");
    let distinct: alloc::collections::BTreeSet<_> = probes.iter().collect();
    assert!(distinct.len() > 40, "{} times", distinct.len());
}

#[test]
fn probes_of_a_spread_policy_may_leave_early_and_verdicts_may_not() {
    let policy = policy().with_spread(true);
    let mut link = introduced(Role::Probe, &policy, 3);
    link.handle(ms(7), Input::Heard(Evidence::Bytes), &policy);
    let mut verdict = Time::ZERO;
    while let Some(next) = link.next_deadline(&policy) {
        // An eighth of the interval of 3 s.
        let slack = if next.reason == Reason::Probe { span(375) } else { Span::ZERO };
        assert_eq!(next.slack, slack, "{next:?}");
        let earliest = next.at - slack;
        link.handle(earliest - Span::from_nanos(1), Input::Deadline, &policy);
        assert_eq!(outputs(&mut link), [], "too early for {next:?}");
        link.handle(earliest, Input::Deadline, &policy);
        assert_ne!(outputs(&mut link), [], "{next:?}");
        verdict = next.at;
    }
    assert_eq!(verdict, ms(19_007));
    let exact = policy.with_spread(false);
    let mut link = introduced(Role::Probe, &exact, 3);
    link.handle(ms(7), Input::Heard(Evidence::Bytes), &exact);
    let next = link.next_deadline(&exact).unwrap();
    assert_eq!((next.at, next.slack), (ms(10_007), Span::ZERO));
}

#[test]
fn a_keepalive_may_leave_early_by_an_eighth_of_its_period() {
    let policy = policy().with_spread(true).with_keepalive(span(2_000)).unwrap();
    let mut link = introduced(Role::Watch, &policy, 3);
    link.handle(ms(1_000), Input::Sent, &policy);
    link.handle(ms(2_749), Input::Deadline, &policy);
    assert_eq!(outputs(&mut link), []);
    link.handle(ms(2_750), Input::Deadline, &policy);
    assert!(matches!(outputs(&mut link)[..], [Output::Keepalive { .. }]));
}
