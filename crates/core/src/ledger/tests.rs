//! Tests each rule and similar cases where it must not apply, the limits, and random schedules.

mod strangers;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::cause::Direction;
use crate::grounds::{Ground, Grounds};
use crate::random::Random;
use crate::wire::{CloseReason, Saw};
use crate::witness::Past;

const BOOT: BootId = BootId([1; 16]);
const INSTANCE: InstanceId = InstanceId([2; 16]);
const SILENT: Span = Span::from_secs(30);
const ASKED: Span = Span::from_secs(15);
/// What the policy allows for probes.
const PROBING: Option<Span> = Some(Span::from_secs(15));

fn who(session: u64, identity: &str) -> Who<'_> {
    Who {
        session,
        epoch: session,
        identity,
        listener: 0,
        address: SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 40_000),
        boot_id: BOOT,
        instance_id: INSTANCE,
    }
}

fn lost(direction: Direction, scope: Scope) -> Cause {
    Cause::PathLost { direction, scope }
}

fn both() -> Cause {
    lost(Direction::Both, Scope::Unknown)
}

/// An account: the link ended `ended_ms` ago with `saw`; the longest silence was `silent_ms`.
fn account(saw: Saw, ended_ms: u32, silent_ms: u32) -> Account {
    Account { session: 7, saw, silent_ms, ended_ms, absent_ms: 0, suspended_ms: 0 }
}

/// Session 7 of "ada" ends at 100 s.
fn ended(ledger: &mut Ledger, cause: Cause) -> Option<Revised> {
    let who = who(7, "ada");
    ledger.handle(
        at(100_000),
        World::Ended {
            who,
            cause,
            grounds: Grounds::default(),
            silent: SILENT,
            asked: ASKED,
            probing: PROBING,
        },
    );
    ledger.poll_output()
}

fn joined(ledger: &mut Ledger, ms: u64, who: Who<'_>, account: Option<Account>) -> Option<Revised> {
    ledger.handle(at(ms), World::Joined { who, account });
    ledger.poll_output()
}

fn at(ms: u64) -> Time {
    Time::from_millis(ms)
}

/// The revision of a verdict with `cause` if the peer sends `account` at `ms`.
fn revision_by_account(cause: Cause, ms: u64, account: Account) -> Option<Revised> {
    let mut ledger = Ledger::new();
    if ms < 100_000 {
        assert_eq!(joined(&mut ledger, ms, who(8, "ada"), Some(account)), None);
        return ended(&mut ledger, cause);
    }
    assert_eq!(ended(&mut ledger, cause), None);
    let revised = joined(&mut ledger, ms, who(8, "ada"), Some(account));
    let again = joined(&mut ledger, ms, who(9, "ada"), Some(account));
    assert_eq!(again, None, "at most once");
    revised
}

fn cause_of(revised: Option<Revised>) -> Option<Cause> {
    revised.map(|revised| revised.to)
}

#[test]
fn a_reset_peer_that_returns_with_a_new_boot_id_has_rebooted() {
    let mut ledger = Ledger::new();
    assert_eq!(ended(&mut ledger, Cause::PeerReset), None);
    let mut back = who(8, "ada");
    (back.boot_id, back.instance_id) = (BootId([9; 16]), InstanceId([9; 16]));
    let revised = joined(&mut ledger, 101_000, back, None).unwrap();
    assert_eq!((revised.session, revised.from), (7, Cause::PeerReset));
    assert_eq!((revised.to, revised.confidence), (Cause::PeerRebooted, Confidence::Certain));
    assert_eq!(ledger.waiting(), 0);
    assert_eq!(joined(&mut ledger, 102_000, back, None), None, "at most once");
}

#[test]
fn a_silent_peer_that_returns_with_a_new_boot_id_has_likely_rebooted() {
    for cause in [Cause::Unknown, both()] {
        let mut ledger = Ledger::new();
        ended(&mut ledger, cause);
        let back = Who { boot_id: BootId([9; 16]), ..who(8, "ada") };
        let revised = joined(&mut ledger, 101_000, back, None).unwrap();
        assert_eq!((revised.to, revised.confidence), (Cause::PeerRebooted, Confidence::Medium));
    }
}

#[test]
fn a_reset_peer_that_returns_with_a_new_instance_id_has_exited() {
    let mut ledger = Ledger::new();
    ended(&mut ledger, Cause::PeerReset);
    let back = Who { instance_id: InstanceId([9; 16]), ..who(8, "ada") };
    let revised = joined(&mut ledger, 101_000, back, None).unwrap();
    assert_eq!((revised.to, revised.confidence), (Cause::PeerExited, Confidence::High));
    assert_eq!(revised.note, Note::NewInstance);
}

/// The process was gone, and nothing told so: its end was lost with the path, or its port answered
/// nothing.
#[test]
fn a_silent_peer_that_returns_with_a_new_instance_id_has_likely_exited() {
    for cause in [Cause::Unknown, both()] {
        let mut ledger = Ledger::new();
        ended(&mut ledger, cause);
        let back = Who { instance_id: InstanceId([9; 16]), ..who(8, "ada") };
        let revised = joined(&mut ledger, 101_000, back, None).unwrap();
        assert_eq!((revised.to, revised.confidence), (Cause::PeerExited, Confidence::Medium));
        assert_eq!(revised.note, Note::NewInstance);
    }
    for cause in [Cause::PeerExited, Cause::AppHung, lost(Direction::Outbound, Scope::Unknown)] {
        let mut ledger = Ledger::new();
        ended(&mut ledger, cause);
        let back = Who { instance_id: InstanceId([9; 16]), ..who(8, "ada") };
        assert_eq!(joined(&mut ledger, 101_000, back, None), None, "{cause}");
    }
}

#[test]
fn a_return_that_cannot_be_matched_revises_nothing() {
    let new = BootId([9; 16]);
    let zeros = (BootId::default(), InstanceId::default());
    let elsewhere = SocketAddr::from(([198, 51, 100, 1], 1));
    for back in [
        Who { boot_id: zeros.0, ..who(8, "ada") },
        Who { instance_id: zeros.1, ..who(8, "ada") },
        Who { boot_id: new, ..who(8, "bob") },
        Who { boot_id: new, ..who(8, "ad") },
        Who { boot_id: new, ..who(8, "") },
        Who { boot_id: new, address: elsewhere, ..who(8, "ada") },
        // The same process without an account: it may have several links.
        who(8, "ada"),
    ] {
        let mut ledger = Ledger::new();
        ended(&mut ledger, Cause::PeerReset);
        assert_eq!(joined(&mut ledger, 101_000, back, None), None, "{back:?}");
    }
    let mut ledger = Ledger::new();
    let nobody = Who { boot_id: zeros.0, ..who(7, "ada") };
    let input = World::Ended {
        who: nobody,
        cause: Cause::PeerReset,
        grounds: Grounds::default(),
        silent: SILENT,
        asked: ASKED,
        probing: PROBING,
    };
    ledger.handle(at(100_000), input);
    let back = Who { boot_id: new, ..who(8, "ada") };
    assert_eq!(joined(&mut ledger, 101_000, back, None), None);
}

/// Session `session` of "ada" ends at `ms`, reset, on a machine with this boot id.
fn ended_on(ledger: &mut Ledger, ms: u64, session: u64, boot: u8) {
    let who = Who { boot_id: BootId([boot; 16]), ..who(session, "ada") };
    let cause = Cause::PeerReset;
    ledger.handle(
        at(ms),
        World::Ended {
            who,
            cause,
            grounds: Grounds::default(),
            silent: SILENT,
            asked: ASKED,
            probing: PROBING,
        },
    );
    assert_eq!(ledger.poll_output(), None);
}

#[test]
fn an_old_verdict_of_the_same_identity_hides_no_reboot() {
    let mut ledger = Ledger::new();
    ended_on(&mut ledger, 100_000, 6, 1);
    ended_on(&mut ledger, 200_000, 7, 1);
    let back = Who { boot_id: BootId([9; 16]), ..who(8, "ada") };
    let revised = joined(&mut ledger, 201_000, back, None).unwrap();
    assert_eq!((revised.session, revised.to), (7, Cause::PeerRebooted));
    // The older verdict was superseded: the same return does not explain it too.
    assert_eq!(ledger.waiting(), 0);
    assert_eq!(joined(&mut ledger, 202_000, back, None), None);
}

#[test]
fn a_return_is_matched_with_its_own_machine_before_a_newer_verdict_of_another() {
    let mut ledger = Ledger::new();
    ended_on(&mut ledger, 100_000, 6, 1);
    ended_on(&mut ledger, 100_500, 7, 2);
    let boot_id = BootId([1; 16]);
    let back = Who { boot_id, instance_id: InstanceId([9; 16]), ..who(8, "ada") };
    let revised = joined(&mut ledger, 101_000, back, None).unwrap();
    assert_eq!((revised.session, revised.to), (6, Cause::PeerExited));
    assert_eq!(ledger.waiting(), 1, "the other machine is still expected");
}

#[test]
fn two_verdicts_of_one_identity_wait_for_accounts() {
    let mut ledger = Ledger::new();
    ended_on(&mut ledger, 100_000, 7, 1);
    ended_on(&mut ledger, 100_000, 6, 1);
    let sent_account = Some(account(Saw::Reset, 500, 0));
    assert_eq!(joined(&mut ledger, 101_000, who(8, "ada"), sent_account).unwrap().session, 7);
}

#[test]
fn what_waited_too_long_is_dropped() {
    let mut ledger = Ledger::new();
    for session in 0..100 {
        ended_on(&mut ledger, 100_000, session, 1);
        let sent_account = Account { session: 1_000 + session, ..account(Saw::Reset, 0, 0) };
        joined(&mut ledger, 100_000, who(500, "bob"), Some(sent_account));
    }
    assert_eq!((ledger.pending.len(), ledger.early.len()), (100, 100));
    let late = 100_001 + WAITING.as_millis();
    for _ in 0..100_usize.div_ceil(EXPIRED_PER_INPUT) {
        assert_eq!(joined(&mut ledger, late, who(501, "carol"), None), None);
    }
    assert_eq!((ledger.pending.len(), ledger.sessions.len(), ledger.identities.len()), (0, 0, 0));
    assert_eq!(ledger.early.len(), 0);
}

#[test]
fn a_return_is_compared_with_a_bounded_number_of_verdicts() {
    let mut ledger = Ledger::new();
    let sessions = CANDIDATES as u64 + 1;
    (0..sessions).for_each(|session| ended_on(&mut ledger, 100_000, session, session as u8 + 1));
    // The oldest, of the same boot, is not reached; the newest is matched, and the others end.
    let back = Who { instance_id: InstanceId([9; 16]), ..who(99, "ada") };
    assert_eq!(joined(&mut ledger, 101_000, back, None).unwrap().session, sessions - 1);
    assert_eq!(ledger.waiting(), 0);
}

/// The verdict that a return without an account explains, by a plain list of the verdicts: the
/// newest of the same machine, otherwise the newest.
#[test]
fn returns_explain_what_a_plain_list_says() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut ledger = Ledger::new();
        let mut list: Vec<(u64, Who<'_>, Cause)> = Vec::new();
        let mut now = 100_000;
        for session in 0..60 {
            now += random.below(400_000);
            let mut who = who(session, ["ada", "bob"][random.below(2) as usize]);
            who.boot_id = BootId([random.below(4) as u8; 16]);
            who.instance_id = InstanceId([random.below(3) as u8; 16]);
            list.retain(|(at, _, _)| now - at <= WAITING.as_millis());
            if random.below(2) == 0 {
                let cause = [Cause::PeerReset, Cause::Unknown][random.below(2) as usize];
                let input = World::Ended {
                    who,
                    cause,
                    grounds: Grounds::default(),
                    silent: SILENT,
                    asked: ASKED,
                    probing: PROBING,
                };
                ledger.handle(at(now), input);
                assert_eq!(ledger.poll_output(), None);
                list.push((now, who, cause));
                continue;
            }
            let of_identity = |(_, held, _): &&(u64, Who<'_>, Cause)| held.identity == who.identity;
            let own = list.iter().rev().filter(of_identity).find(|e| e.1.boot_id == who.boot_id);
            let newest = own.or_else(|| list.iter().rev().find(of_identity)).copied();
            let expected = newest.and_then(|(_, held, cause)| {
                let known = held.boot_id != BootId::default() && who.boot_id != BootId::default();
                let instances = [held.instance_id, who.instance_id];
                let exited =
                    instances[0] != instances[1] && !instances.contains(&InstanceId::default());
                assert!(matches!(cause, Cause::PeerReset | Cause::Unknown));
                let to = match held.boot_id == who.boot_id {
                    false => Some(Cause::PeerRebooted),
                    true => exited.then_some(Cause::PeerExited),
                };
                Some((held.session, to.filter(|_| known)?))
            });
            let revised = joined(&mut ledger, now, who, None);
            let found = revised.map(|revised| (revised.session, revised.to));
            assert_eq!(found, expected, "seed {seed}, session {session}");
            if let Some((explained, _)) = expected {
                list.retain(|(_, held, _)| {
                    held.identity != who.identity || held.session > explained
                });
            }
        }
    }
}

#[test]
fn an_account_is_accepted_only_from_the_same_process() {
    let sent_account = account(Saw::Reset, 500, 0);
    for back in [
        Who { boot_id: BootId([9; 16]), ..who(8, "ada") },
        Who { instance_id: InstanceId([9; 16]), ..who(8, "ada") },
        Who { boot_id: BootId::default(), ..who(8, "ada") },
        Who { instance_id: InstanceId::default(), ..who(8, "ada") },
    ] {
        let mut ledger = Ledger::new();
        ended(&mut ledger, Cause::PeerReset);
        assert_eq!(joined(&mut ledger, 101_000, back, Some(sent_account)), None);
        let mut ledger = Ledger::new();
        joined(&mut ledger, 90_000, back, Some(sent_account));
        assert_eq!(ended(&mut ledger, both()), None);
    }
}

#[test]
fn a_reset_at_both_ends_shows_a_forgotten_mapping() {
    let revised = |ended_ms| {
        let mut ledger = Ledger::new();
        let (who, cause, silent) = (who(7, "ada"), Cause::PeerReset, Span::from_secs(60));
        ledger.handle(
            at(100_000),
            World::Ended {
                who,
                cause,
                grounds: Grounds::default(),
                silent,
                asked: ASKED,
                probing: PROBING,
            },
        );
        joined(&mut ledger, 102_000, who, Some(account(Saw::Reset, ended_ms, 0))).unwrap()
    };
    // This end was reset first: it sent after 45 s without traffic.
    let ours = revised(1_000);
    assert_eq!((ours.to, ours.confidence), (Cause::MiddleboxForgot, Confidence::Certain));
    assert_eq!(ours.note, Note::NeitherClosed { idle: Span::from_secs(45) });
    // The peer was reset first, after 42 s.
    let its = revised(20_000);
    assert_eq!((its.to, its.confidence), (Cause::MiddleboxForgot, Confidence::Certain));
    assert_eq!(its.note, Note::NeitherClosed { idle: Span::from_secs(42) });
}

/// One end is reset after some time without traffic, with or without a segment of its own; the
/// other end a little later, in answer to its next segment, or by the same middlebox.
#[test]
fn both_ends_give_an_end_on_the_way_the_same_name() {
    let beat = 1_000;
    for idle in [100, 199, 200, 900, 4_000, 15_000, 28_900, 30_100, 90_000] {
        for (ours, its) in [
            (Cause::PeerExited, Cause::PeerReset),
            (Cause::PeerReset, Cause::PeerExited),
            (Cause::PeerReset, Cause::PeerReset),
            (Cause::PeerExited, Cause::PeerExited),
        ] {
            for its_later in [0, beat] {
                let mut ledger = Ledger::new();
                let (who, silent) = (who(7, "ada"), Span::from_millis(idle));
                let asked = Span::ZERO;
                let input = World::Ended {
                    who,
                    cause: ours,
                    grounds: Grounds::default(),
                    silent,
                    asked,
                    probing: PROBING,
                };
                ledger.handle(at(200_000), input);
                let sent_account = account(Saw::from(its), 300, 0);
                let back = joined(&mut ledger, 200_300 + its_later, who, Some(sent_account));
                let past = Past {
                    session: 7,
                    ids: (BOOT, INSTANCE),
                    cause: its,
                    saw: its.into(),
                    unheard: Span::from_millis(idle + its_later),
                    probes: 1,
                    silent: Span::ZERO,
                    ended: at(200_000),
                    ended_at: Span::ZERO,
                    bound: Span::from_secs(120),
                    revised: false,
                };
                let (to, _) = past.returned((BOOT, INSTANCE)).unwrap();
                assert_eq!(cause_of(back), Some(to), "{idle} {ours} {its} {its_later}");
            }
        }
    }
}

/// Session 7 of "ada" ends at 100 s with `cause`, `silent` after the last evidence.
fn told(cause: Cause, silent: Span, saw: Saw) -> Option<Revised> {
    let mut ledger = Ledger::new();
    let who = who(7, "ada");
    ledger.handle(
        at(100_000),
        World::Ended {
            who,
            cause,
            grounds: Grounds::default(),
            silent,
            asked: Span::ZERO,
            probing: PROBING,
        },
    );
    assert_eq!(ledger.poll_output(), None);
    joined(&mut ledger, 100_400, Who { session: 8, ..who }, Some(account(saw, 300, 0)))
}

/// Both ends were told of an end that neither had made, as by a reset that a firewall injects.
#[test]
fn an_end_that_neither_process_made_came_from_the_way() {
    let short = Span::from_millis(150);
    for saw in [Saw::Reset, Saw::Ended] {
        for cause in [Cause::PeerExited, Cause::PeerReset] {
            let revised = told(cause, short, saw).unwrap();
            assert_eq!((revised.from, revised.to), (cause, Cause::MiddleboxReset));
            assert_eq!(revised.confidence, Confidence::Certain);
        }
        // Nothing of ours was unanswered: the end came by itself, in the middle of a quiet time.
        let quiet = told(Cause::PeerExited, Span::from_secs(12), saw);
        assert_eq!(cause_of(quiet), Some(Cause::MiddleboxReset));
        let idle = told(Cause::PeerExited, Span::from_secs(90), saw).unwrap();
        assert_eq!(idle.to, Cause::MiddleboxForgot);
        assert_eq!(idle.note, Note::NeitherClosed { idle: Span::from_secs(90) });
    }
    // The process ended the link itself, and its goodbye was lost.
    for saw in [Saw::Own, Saw::Hung, Saw::Goodbye, Saw::Other(9)] {
        assert_eq!(told(Cause::PeerExited, short, saw), None, "{saw:?}");
    }
}

/// A reset reaches this end alone, at 100 s; the peer gives up when it has heard nothing until its
/// own bound, and its account proves that its process lives.
#[test]
fn a_reset_that_the_other_end_did_not_notice_came_from_the_way() {
    for cause in [Cause::PeerExited, Cause::PeerReset] {
        for saw in [Saw::Silence, Saw::Blocked, Saw::Unheard, Saw::Unreachable] {
            for (joins, ended_ms) in [(115_000, 200), (130_000, 200), (500_000, 380_000)] {
                let revised = revision_by_account(cause, joins, account(saw, ended_ms, 15_000));
                let revised = revised.unwrap();
                assert_eq!(revised.to, Cause::MiddleboxReset, "{saw:?}");
                assert_eq!(revised.confidence, Confidence::High);
                let idle = SILENT.less(ASKED);
                assert_eq!(revised.note, Note::NeitherClosed { idle });
            }
        }
    }
}

/// The peer gave up in silence, and its system refused what came through when the path had healed.
#[test]
fn a_reset_by_a_peer_that_had_given_up_before_shows_a_lost_path() {
    let inbound = lost(Direction::Inbound, Scope::Unknown);
    let host = lost(Direction::Both, Scope::Host);
    for (saw, to, note) in [
        (Saw::Silence, both(), Note::PeerGaveUp),
        (Saw::Blocked, both(), Note::PeerGaveUp),
        (Saw::Unreachable, both(), Note::PeerGaveUp),
        (Saw::Unheard, inbound, Note::PeerGaveUp),
        (Saw::NetworkDown, host, Note::PeerNetworkDown),
    ] {
        // The account was on its way for up to some seconds, or came before our verdict.
        for (joins, ended_ms) in [(102_000, 100), (102_000, 40_000), (99_000, 3_000)] {
            for cause in [Cause::PeerReset, Cause::PeerExited] {
                let sent_account = account(saw, ended_ms, 15_000);
                let revised = revision_by_account(cause, joins, sent_account).unwrap();
                assert_eq!((revised.to, revised.note), (to, note), "{saw:?}");
                assert_eq!(revised.confidence, Confidence::Medium);
            }
        }
    }
}

/// A proxy in the middle acknowledges for a peer that is cut off.
#[test]
fn an_application_that_ran_and_heard_nothing_was_not_hung() {
    for saw in [Saw::Silence, Saw::Hung] {
        let revised = revision_by_account(Cause::AppHung, 101_000, account(saw, 500, 0)).unwrap();
        assert_eq!((revised.to, revised.note), (both(), Note::PeerHeardNothing));
        assert_eq!(revised.confidence, Confidence::High);
    }
    let stopped = Account { absent_ms: 16_000, ..account(Saw::Goodbye, 500, 0) };
    let revised = revision_by_account(Cause::AppHung, 101_000, stopped).unwrap();
    assert_eq!((revised.to, revised.confidence), (Cause::AppHung, Confidence::High));
    // It was last heard at 70 s, and ran again at 100.5 s. It had planned to wait for a part of the
    // time, of which it cannot tell whether it was stopped.
    let (least, most) = (Span::from_secs(16), Span::from_millis(30_500));
    assert_eq!(revised.note, Note::PeerStopped { least, most });
    let text = revised.note.to_string();
    assert_eq!(text, "its process was stopped for at least 16.000 s, at most 30.500 s");
    let sure = revised.note.advice(Cause::AppHung);
    assert!(!sure.contains("proxy") && Cause::AppHung.advice().contains("proxy"), "{sure}");
    for unclear in [
        account(Saw::Goodbye, 500, 14_000),
        account(Saw::Goodbye, 2_000, 5_000),
        Account { absent_ms: 8_000, ..account(Saw::Goodbye, 500, 5_000) },
        Account { absent_ms: 8_000, ..account(Saw::Silence, 500, 0) },
        Account { absent_ms: 16_000, suspended_ms: 16_000, ..account(Saw::Silence, 500, 0) },
    ] {
        assert_eq!(revision_by_account(Cause::AppHung, 101_000, unclear), None, "{unclear:?}");
    }
}

/// Its acknowledgements arrived, and the segments with its answers did not.
#[test]
fn an_application_that_ran_and_heard_us_was_not_hung() {
    let inbound = lost(Direction::Inbound, Scope::Unknown);
    for heard in [
        account(Saw::Goodbye, 900, 5_000),
        account(Saw::Reset, 900, 5_000),
        account(Saw::Ended, 900, 5_000),
        account(Saw::Unheard, 0, 15_000),
        account(Saw::UnheardReset, 0, 15_000),
    ] {
        let revised = revision_by_account(Cause::AppHung, 101_000, heard).unwrap();
        assert_eq!((revised.to, revised.note), (inbound, Note::PeerHeardUs), "{heard:?}");
        assert_eq!(revised.confidence, Confidence::High);
    }
}

#[test]
fn a_living_link_of_the_same_machine_confirms_a_hung_application() {
    let mut ledger = Ledger::new();
    ended(&mut ledger, Cause::AppHung);
    let mut settle = |scope| {
        ledger
            .handle(at(101_000), World::Scoped { session: 7, scope, confidence: Confidence::High });
        ledger.poll_output()
    };
    for scope in [Scope::Unknown, Scope::Host, Scope::Many] {
        assert_eq!(settle(scope), None);
    }
    let revised = settle(Scope::Flow).unwrap();
    assert_eq!((revised.from, revised.to), (Cause::AppHung, Cause::AppHung));
    assert_eq!((revised.confidence, revised.note), (Confidence::High, Note::SiblingsLive));
    assert_eq!(settle(Scope::Flow), None, "at most once");
}

#[test]
fn a_path_that_loses_large_packets_again_is_told_with_high_confidence() {
    let large = lost(Direction::Outbound, Scope::LargePackets);
    let end = |ledger: &mut Ledger, ms, session, name, cause| {
        let who = who(session, name);
        ledger.handle(
            at(ms),
            World::Ended {
                who,
                cause,
                grounds: Grounds::default(),
                silent: SILENT,
                asked: ASKED,
                probing: PROBING,
            },
        );
        ledger.poll_output()
    };
    let mut ledger = Ledger::new();
    assert_eq!(end(&mut ledger, 100_000, 7, "ada", large), None);
    assert_eq!(end(&mut ledger, 200_000, 8, "bob", large), None, "another");
    assert_eq!(end(&mut ledger, 200_000, 9, "ada", both()), None, "another cause");
    let inbound = lost(Direction::Inbound, Scope::LargePackets);
    assert_eq!(end(&mut ledger, 200_000, 10, "ada", inbound), None, "the other way");
    for session in [11, 12] {
        let revised = end(&mut ledger, 300_000, session, "ada", large).unwrap();
        assert_eq!((revised.session, revised.from, revised.to), (session, large, large));
        assert_eq!((revised.confidence, revised.note), (Confidence::High, Note::Repeated));
    }
    let late = 300_001 + WAITING.as_millis();
    assert_eq!(end(&mut ledger, late, 13, "ada", large), None, "long ago");
    for session in [14, 15] {
        assert_eq!(end(&mut ledger, late, session, "", large), None, "nobody knows who");
    }
}

#[test]
fn a_peer_reset_before_our_verdict_shows_an_end_on_the_way() {
    for cause in [Cause::Unknown, both()] {
        // The peer returned while we were still probing the old link, or later.
        for (ms, ended_ms) in [(90_000, 100), (105_000, 15_100)] {
            for saw in [Saw::Reset, Saw::Ended] {
                let revised = revision_by_account(cause, ms, account(saw, ended_ms, 0)).unwrap();
                assert_eq!(revised.to, Cause::MiddleboxReset, "{saw:?}");
                assert_eq!(revised.confidence, Confidence::Certain);
            }
        }
    }
}

/// A path that is cut and healed: the end that gave up resets the end that did not.
#[test]
fn a_healed_path_is_never_taken_for_a_forgotten_mapping() {
    let forgot = |cause, ms, sent_account| {
        let to = cause_of(revision_by_account(cause, ms, sent_account));
        [Some(Cause::MiddleboxForgot), Some(Cause::MiddleboxReset)].contains(&to)
    };
    for cause in [Cause::Unknown, both()] {
        // We gave up at 100 s; the path healed, the peer sent, and our kernel did not know the
        // link.
        for left in (99_960..130_000).step_by(10) {
            let sent_account = account(Saw::Reset, (130_000 - left) as u32, 15_000);
            assert!(!forgot(cause, 130_000, sent_account), "{left}");
        }
        assert!(!forgot(cause, 130_000, account(Saw::Silence, 30_000, 15_000)));
    }
    // The peer gave up; the path healed, we sent, and the peer's kernel did not know the link.
    for saw in [Saw::Silence, Saw::Unheard, Saw::Own, Saw::NetworkDown, Saw::Other(77)] {
        for ended_ms in [100, 1_000, 40_000] {
            assert!(!forgot(Cause::PeerReset, 102_000, account(saw, ended_ms, 15_000)), "{saw:?}");
        }
    }
}

#[test]
fn a_peer_that_heard_our_probes_was_lost_inbound() {
    let inbound = Some(lost(Direction::Inbound, Scope::Unknown));
    for cause in [Cause::Unknown, both()] {
        let sent_account = account(Saw::Goodbye, 2_000, 5_000);
        assert_eq!(cause_of(revision_by_account(cause, 102_050, sent_account)), inbound);
        assert_eq!(
            cause_of(revision_by_account(cause, 102_050, account(Saw::Unheard, 0, 0))),
            inbound
        );
        // The path healed, and the system of this end refused what the peer sent again.
        let reset = account(Saw::UnheardReset, 1_000, 15_000);
        assert_eq!(cause_of(revision_by_account(cause, 105_000, reset)), inbound);
        let reset = account(Saw::Reset, 1_000, 15_000);
        assert_eq!(revision_by_account(cause, 105_000, reset), None, "both may have been lost");
        // After a healed path the CLOSE arrives too, but late or after a silence.
        for (ended_ms, silent_ms) in [(2_000, 14_000), (2_000, 15_000)] {
            let sent_account = account(Saw::Goodbye, ended_ms, silent_ms);
            assert_eq!(revision_by_account(cause, 102_050, sent_account), None, "{sent_account:?}");
        }
        assert_eq!(
            revision_by_account(cause, 140_000, account(Saw::Goodbye, 10_000, 5_000)),
            None,
            "too late"
        );
        assert_eq!(
            revision_by_account(cause, 100_050, account(Saw::Goodbye, 9_000, 5_000)),
            None,
            "another"
        );
    }
}

/// What the peer sends arrives here in part, so its direction is not lost as a whole, whatever the
/// peer heard.
#[test]
fn segments_that_arrived_until_the_verdict_refute_a_lost_inbound_direction() {
    let accounts = [
        account(Saw::Unheard, 0, 15_000),
        account(Saw::Goodbye, 2_000, 5_000),
        account(Saw::Reset, 2_000, 5_000),
    ];
    let inbound = Some(lost(Direction::Inbound, Scope::Unknown));
    for (cause, sent_account) in [Cause::Unknown, both()]
        .into_iter()
        .flat_map(|cause| accounts.into_iter().map(move |sent_account| (cause, sent_account)))
    {
        let revised = |grounds| {
            let (mut ledger, who) = (Ledger::new(), who(7, "ada"));
            let (silent, asked, probing) = (SILENT, ASKED, PROBING);
            let end = World::Ended { who, cause, grounds, silent, asked, probing };
            ledger.handle(at(100_000), end);
            cause_of(joined(&mut ledger, 102_050, who, Some(sent_account)))
        };
        assert_eq!(revised(Grounds::of(&[Ground::ApplicationSilent])), inbound);
        for arriving in [Ground::KernelFresh, Ground::SegmentMissing] {
            assert_eq!(revised(Grounds::of(&[arriving])), None, "{cause}: {arriving:?}");
        }
    }
}

#[test]
fn two_silent_ends_show_a_path_lost_both_ways() {
    let sent_account = account(Saw::Silence, 1_000, 15_000);
    assert_eq!(cause_of(revision_by_account(Cause::Unknown, 101_000, sent_account)), Some(both()));
    assert_eq!(revision_by_account(both(), 101_000, sent_account), None, "that is what was said");
}

fn scoped(ledger: &mut Ledger, ms: u64, scope: Scope) -> Option<Revised> {
    ledger.handle(at(ms), World::Scoped { session: 7, scope, confidence: Confidence::High });
    ledger.poll_output()
}

/// A NAT forgets an idle mapping and drops its segments: both ends fall silent, and the peer's new
/// connection works while the old one is still blocked.
#[test]
fn a_new_flow_that_works_beside_a_blocked_one_shows_a_forgotten_mapping() {
    let sent_account = account(Saw::Blocked, 90, 15_000);
    let idle = SILENT.less(ASKED);
    // The account comes after the verdict, before it, and after other links told nothing.
    for (joins, settles) in [(100_100, 101_500), (99_900, 101_500), (101_600, 101_500)] {
        let mut ledger = Ledger::new();
        let ends_first = joins > 100_000;
        if ends_first {
            assert_eq!(ended(&mut ledger, both()), None);
        }
        let settled_first = joins > settles;
        if settled_first {
            assert_eq!(scoped(&mut ledger, settles, Scope::Unknown), None);
        }
        let by_account = joined(&mut ledger, joins, who(8, "ada"), Some(sent_account));
        if !ends_first {
            assert_eq!(ended(&mut ledger, both()), None);
        }
        assert_eq!(by_account.is_some(), settled_first, "not before other links are asked");
        let by_links = scoped(&mut ledger, settles, Scope::Unknown);
        let revised = by_account.or(by_links).unwrap();
        assert_eq!(
            (revised.to, revised.note),
            (Cause::MiddleboxForgot, Note::NewFlowPassed { idle })
        );
        assert_eq!(revised.confidence, Confidence::Medium, "a filter may block one flow");
        assert_eq!(scoped(&mut ledger, 101_700, Scope::Host), None, "at most once");
    }
}

#[test]
fn a_new_flow_proves_nothing_if_there_is_another_explanation() {
    let sent_account = account(Saw::Blocked, 90, 15_000);
    let moved = SocketAddr::from(([198, 51, 100, 1], 1));
    let other = InstanceId([9; 16]);
    for (back, sent_account) in [
        // The path has healed: nobody knows whether the old connection would pass too.
        (who(8, "ada"), account(Saw::Silence, 90, 15_000)),
        (Who { address: moved, ..who(8, "ada") }, sent_account),
        (Who { instance_id: other, ..who(8, "ada") }, sent_account),
        (who(8, "ada"), account(Saw::Unreachable, 90, 15_000)),
        (who(8, "ada"), Account { absent_ms: 8_000, ..sent_account }),
    ] {
        let mut ledger = Ledger::new();
        assert_eq!(ended(&mut ledger, both()), None);
        assert_eq!(joined(&mut ledger, 100_100, back, Some(sent_account)), None);
        assert_eq!(scoped(&mut ledger, 104_000, Scope::Unknown), None, "{sent_account:?}");
    }
    let mut ledger = Ledger::new();
    ended(&mut ledger, both());
    joined(&mut ledger, 100_100, who(8, "ada"), Some(sent_account));
    let flow = scoped(&mut ledger, 101_500, Scope::Flow);
    assert_eq!(cause_of(flow), Some(lost(Direction::Both, Scope::Flow)), "a sibling lives");
}

#[test]
fn an_absent_peer_proves_nothing_about_the_path() {
    let away = |absent_ms, suspended_ms, saw| Account {
        absent_ms,
        suspended_ms,
        ..account(saw, 100, 1_000)
    };
    for saw in [Saw::Silence, Saw::Goodbye, Saw::Reset] {
        let asleep = revision_by_account(both(), 101_000, away(20_000, 20_000, saw)).unwrap();
        assert_eq!(asleep.to, Cause::Unknown);
        assert_eq!(asleep.note, Note::PeerSuspended(Span::from_secs(20)));
        assert_eq!(revision_by_account(Cause::Unknown, 101_000, away(20_000, 20_000, saw)), None);
        let stopped = revision_by_account(Cause::Unknown, 101_000, away(20_000, 0, saw)).unwrap();
        assert_eq!(stopped.to, Cause::AppHung);
        assert_eq!(
            revision_by_account(both(), 101_000, away(20_000, 0, saw)),
            None,
            "its kernel was silent"
        );
        assert_eq!(
            revision_by_account(Cause::Unknown, 101_000, away(8_000, 4_000, saw)),
            None,
            "half away"
        );
    }
}

#[test]
fn a_peer_whose_own_network_was_down_has_host_scope() {
    let sent_account = account(Saw::NetworkDown, 100, 0);
    let expected = Some(lost(Direction::Both, Scope::Host));
    assert_eq!(cause_of(revision_by_account(both(), 101_000, sent_account)), expected);
}

#[test]
fn siblings_settle_the_scope_once() {
    for direction in [Direction::Both, Direction::Outbound] {
        let mut ledger = Ledger::new();
        ended(&mut ledger, lost(direction, Scope::Unknown));
        let mut settle = |scope| {
            ledger.handle(
                at(101_000),
                World::Scoped { session: 7, scope, confidence: Confidence::High },
            );
            cause_of(ledger.poll_output())
        };
        assert_eq!(settle(Scope::Unknown), None);
        assert_eq!(settle(Scope::Flow), Some(lost(direction, Scope::Flow)));
        assert_eq!(settle(Scope::Host), None);
        assert_eq!(
            joined(&mut ledger, 102_000, who(8, "ada"), Some(account(Saw::Unheard, 0, 0))),
            None
        );
    }
}

#[test]
fn a_scope_is_as_sure_as_the_other_links_make_it() {
    for confidence in [Confidence::Medium, Confidence::High] {
        let mut ledger = Ledger::new();
        ended(&mut ledger, both());
        ledger.handle(at(101_000), World::Scoped { session: 7, scope: Scope::Host, confidence });
        assert_eq!(ledger.poll_output().unwrap().confidence, confidence);
    }
}

#[test]
fn certain_verdicts_are_never_revised() {
    for cause in [Cause::PeerClosed(CloseReason::Done), Cause::NotReading, Cause::Kicked] {
        let mut ledger = Ledger::new();
        ended(&mut ledger, cause);
        assert_eq!(ledger.waiting(), 0);
        assert_eq!(revision_by_account(cause, 90_000, account(Saw::Reset, 100, 0)), None);
    }
}

#[test]
fn a_verdict_that_waited_too_long_is_not_revised() {
    let late = 100_001 + WAITING.as_millis();
    let mut sent_account = account(Saw::Reset, 0, 0);
    sent_account.ended_ms = WAITING.as_millis() as u32;
    assert_eq!(revision_by_account(Cause::PeerReset, late, sent_account), None);
    assert!(revision_by_account(Cause::PeerReset, late - 1, sent_account).is_some());
}

#[test]
fn a_full_ledger_drops_the_oldest() {
    let mut ledger = Ledger::new();
    let names: Vec<String> = (0..=VERDICTS).map(|n| format!("peer {n}")).collect();
    for (session, name) in (0_u64..).zip(&names) {
        let who = who(session, name);
        let cause = Cause::PeerReset;
        ledger.handle(
            at(session),
            World::Ended {
                who,
                cause,
                grounds: Grounds::default(),
                silent: SILENT,
                asked: ASKED,
                probing: PROBING,
            },
        );
    }
    assert_eq!((ledger.pending.len(), ledger.sessions.len()), (VERDICTS, VERDICTS));
    assert_eq!(ledger.identities.len(), VERDICTS);
    let back = |session, name| Who { boot_id: BootId([9; 16]), ..who(session, name) };
    assert_eq!(joined(&mut ledger, 20_000, back(99_999, &names[0]), None), None);
    assert!(joined(&mut ledger, 20_000, back(99_999, &names[1]), None).is_some());

    for session in 0..=ACCOUNTS as u64 {
        let sent_account = Account { session: 1 << 32 | session, ..account(Saw::Reset, 0, 0) };
        joined(&mut ledger, 30_000, who(99_999, "x"), Some(sent_account));
    }
    assert_eq!(ledger.early.len(), ACCOUNTS);
    for (session, expected) in [(0, false), (1, true)] {
        let who = who(1 << 32 | session, "x");
        let input = World::Ended {
            who,
            cause: both(),
            grounds: Grounds::default(),
            silent: SILENT,
            asked: ASKED,
            probing: PROBING,
        };
        ledger.handle(at(100_000), input);
        assert_eq!(ledger.poll_output().is_some(), expected);
    }
}

/// For any order of inputs: no verdict is revised twice, no certain verdict is revised, the indices
/// agree, and the same inputs give the same outputs.
#[test]
fn random_schedules_revise_each_verdict_at_most_once() {
    let run = |seed| {
        let mut random = Random::new(seed);
        let mut ledger = Ledger::new();
        let mut revised: BTreeMap<u64, Revised> = BTreeMap::new();
        let mut provisional = BTreeSet::new();
        let mut now = 100_000;
        for serial in 0..2_000_u64 {
            now += random.below(2_000);
            let identity = ["", "ada", "bob"][random.below(3) as usize];
            let named = random.below(serial + 1);
            let mut who = who(serial, identity);
            who.boot_id = BootId([random.below(3) as u8; 16]);
            who.instance_id = InstanceId([random.below(3) as u8; 16]);
            let direction = [Direction::Both, Direction::Outbound][random.below(2) as usize];
            let path = lost(direction, Scope::Unknown);
            let causes =
                [Cause::PeerReset, Cause::Unknown, path, Cause::PeerExited, Cause::AppHung];
            let cause = *causes.get(random.below(6) as usize).unwrap_or(&Cause::NotReading);
            let mut sent_account = account(Saw::from_byte(random.below(12) as u8), 0, 0);
            sent_account.session = serial.saturating_sub(random.below(3)) + random.below(3);
            sent_account.ended_ms = random.below(60_000) as u32;
            sent_account.absent_ms = random.below(2) as u32 * random.below(40_000) as u32;
            let scopes = [Scope::Unknown, Scope::Flow, Scope::Host, Scope::Many];
            let input = match random.below(4) {
                0 => World::Joined { who, account: random.below(2).eq(&0).then_some(sent_account) },
                1 => {
                    let scope = scopes[random.below(4) as usize];
                    World::Scoped { session: named, scope, confidence: Confidence::High }
                }
                _ => {
                    if cause.is_provisional() {
                        provisional.insert(serial);
                    }
                    World::Ended {
                        who,
                        cause,
                        grounds: Grounds::default(),
                        silent: SILENT,
                        asked: ASKED,
                        probing: PROBING,
                    }
                }
            };
            ledger.handle(at(now), input);
            if let Some(one) = ledger.poll_output() {
                assert!(provisional.contains(&one.session), "{one:?}");
                let confirmed = matches!(one.note, Note::PeerStopped { .. });
                let siblings =
                    confirmed || [Note::SiblingsLive, Note::Repeated].contains(&one.note);
                assert!(one.from != one.to || siblings, "{one:?}");
                assert!(revised.insert(one.session, one).is_none(), "twice");
            }
            assert_eq!(ledger.pending.len(), ledger.sessions.len());
            assert!(ledger.early.len() <= ACCOUNTS);
            let named = ledger.pending.values().filter(|held| !held.identity.is_empty()).count();
            assert_eq!(ledger.identities.len(), named);
        }
        revised
    };
    let mut total = 0;
    for seed in 0..20 {
        let revised = run(seed);
        assert_eq!(revised, run(seed));
        total += revised.len();
    }
    assert!(total > 500, "{total}: the schedules must reach the rules");
}
