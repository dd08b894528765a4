//! Tests that a stranger, who can name any session but knows no ids, changes no verdict, and that a
//! flood pushes out its own entries first.

use core::net::Ipv6Addr;

use super::*;

/// A process that invents its ids.
fn stranger(n: u64, address: impl Into<IpAddr>) -> Who<'static> {
    let mut ids = [7; 16];
    ids[..8].copy_from_slice(&n.to_le_bytes());
    let address = SocketAddr::new(address.into(), 1);
    let (boot_id, instance_id) = (BootId(ids), InstanceId(ids));
    Who { address, boot_id, instance_id, ..who(500, "mallory") }
}

/// What `strangers` send of session 7 before, between and after the true account and the verdict.
fn revision_among_strangers(strangers: &[Who<'_>], is_early: bool) -> Option<Revised> {
    let mut ledger = Ledger::new();
    let sent_account = account(Saw::Reset, 500, 0);
    let invent = |ledger: &mut Ledger| {
        for stranger in strangers {
            for saw in [Saw::Blocked, Saw::Reset, Saw::Own] {
                let invented = Some(account(saw, 0, 15_000));
                assert_eq!(joined(ledger, 90_000, *stranger, invented), None);
            }
        }
    };
    invent(&mut ledger);
    if is_early {
        assert_eq!(joined(&mut ledger, 90_000, who(8, "ada"), Some(sent_account)), None);
        invent(&mut ledger);
        return ended(&mut ledger, both());
    }
    assert_eq!(ended(&mut ledger, both()), None);
    invent(&mut ledger);
    joined(&mut ledger, 100_100, who(8, "ada"), Some(Account { ended_ms: 5_000, ..sent_account }))
}

#[test]
fn an_invented_account_changes_nothing_before_and_after_the_verdict() {
    let ours = who(500, "mallory");
    let elsewhere = stranger(1, [198, 51, 100, 1]);
    let guessers = [
        Who { boot_id: BootId([9; 16]), ..ours },
        Who { instance_id: InstanceId([9; 16]), ..ours },
        Who { boot_id: BootId::default(), ..ours },
        Who { instance_id: InstanceId::default(), ..ours },
        elsewhere,
    ];
    for is_early in [true, false] {
        let undisturbed = revision_among_strangers(&[], is_early);
        assert_eq!(cause_of(undisturbed.clone()), Some(Cause::MiddleboxReset), "{is_early}");
        assert_eq!(revision_among_strangers(&guessers, is_early), undisturbed);
    }
    let mut ledger = Ledger::new();
    joined(&mut ledger, 90_000, elsewhere, Some(account(Saw::Silence, 0, 0)));
    assert_eq!(ended(&mut ledger, both()), None);
    let flow = World::Scoped { session: 7, scope: Scope::Flow, confidence: Confidence::High };
    ledger.handle(at(101_000), flow);
    assert!(ledger.poll_output().is_some(), "the verdict still waits");
}

/// One host, with one IPv4 address or all addresses of an IPv6 /64, and many hosts.
#[test]
fn invented_accounts_push_out_no_account_of_another_origin() {
    let one = |_| IpAddr::from([198, 51, 100, 1]);
    let network = |n: u64| IpAddr::from(Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(n)));
    let hundred = |n: u64| IpAddr::from([198, 51, 100, (n % 100) as u8]);
    for origins in [&one as &dyn Fn(u64) -> IpAddr, &network, &hundred] {
        let mut ledger = Ledger::new();
        let true_account = account(Saw::Reset, 500, 0);
        joined(&mut ledger, 90_000, who(8, "ada"), Some(true_account));
        for n in 0..3 * ACCOUNTS as u64 {
            let invented = Account { session: 1_000 + n, ..true_account };
            joined(&mut ledger, 90_000, stranger(n, origins(n)), Some(invented));
        }
        assert_eq!(ledger.early.len(), ACCOUNTS);
        assert!(ended(&mut ledger, both()).is_some());
    }
}

/// Each origin is left as many places as the flooding ones have.
#[test]
fn verdicts_of_many_sessions_push_out_none_of_another_origin() {
    let mut ledger = Ledger::new();
    ended(&mut ledger, Cause::PeerReset);
    for n in 0..2 * VERDICTS as u64 {
        let who = Who { session: 1_000 + n, ..stranger(n, [198, 51, 100, (n % 7) as u8]) };
        let (silent, asked, probing) = (SILENT, ASKED, PROBING);
        let grounds = Grounds::default();
        let input = World::Ended { who, cause: Cause::PeerReset, silent, asked, probing, grounds };
        ledger.handle(at(101_000), input);
    }
    assert_eq!(ledger.waiting(), VERDICTS);
    let back = joined(&mut ledger, 102_000, who(8, "ada"), Some(account(Saw::Reset, 500, 0)));
    assert_eq!(back.map(|revised| revised.session), Some(7));
}

/// Its account shows no better cause, and that it lived: a later process explains nothing. Other
/// links still show the scope, whether the account came before the verdict or after it.
#[test]
fn a_process_that_gave_its_account_did_not_end() {
    let sent_account = account(Saw::Silence, 500, 15_000);
    for joins in [99_000, 101_000] {
        let mut ledger = Ledger::new();
        if joins < 100_000 {
            joined(&mut ledger, joins, who(8, "ada"), Some(sent_account));
        }
        assert_eq!(ended(&mut ledger, both()), None);
        if joins > 100_000 {
            assert_eq!(joined(&mut ledger, joins, who(8, "ada"), Some(sent_account)), None);
        }
        let restarted = Who { instance_id: InstanceId([9; 16]), ..who(9, "ada") };
        let rebooted = Who { boot_id: BootId([9; 16]), ..restarted };
        assert_eq!(joined(&mut ledger, 102_000, restarted, None), None);
        assert_eq!(joined(&mut ledger, 102_000, rebooted, None), None);
        ledger.handle(
            at(103_000),
            World::Scoped { session: 7, scope: Scope::Flow, confidence: Confidence::High },
        );
        let flow = Some(lost(Direction::Both, Scope::Flow));
        assert_eq!(cause_of(ledger.poll_output()), flow, "{joins}");
    }
}
