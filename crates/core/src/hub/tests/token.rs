//! The token of a peer: kept from HELLO until its login is answered, and printed nowhere.

use super::*;
use crate::machine::Machine;

const TOKEN: &[u8] = b"AAAA.BBBB.CCCC";

/// A hub with a link whose peer claims "ada" with this token, and the number of its admission.
fn asked(token: &[u8]) -> (Driver<Hub>, u32) {
    let settings = link::Settings::new(Codec::Native, Side::Accepting, Policy::default());
    let mut hub = driver(Vec::from([settings]), 1);
    hub.handle(Time::ZERO, World::Opened { link: 0, listener: 0, address: ADDRESS });
    let bytes = hello("ada", token);
    hub.handle(Time::ZERO, World::Link { link: 0, input: link::World::Received(&bytes) });
    let Some(Output::Admit { link: 0, admission }) = hub.poll_output() else { panic!("no wish") };
    (hub, admission)
}

/// Returns the saved state of all parts.
fn state(hub: &Driver<Hub>) -> Vec<u8> {
    let mut state = Vec::new();
    for part in hub.machine().parts() {
        hub.machine().save_part(Time::ZERO, part, &mut state);
    }
    state
}

fn holds(state: &[u8], token: &[u8]) -> bool {
    state.windows(token.len()).any(|window| window == token)
}

fn login(proof: Proof<'_>) -> Login<'_> {
    Login { proof, ..Login::claim(Span::ZERO) }
}

#[test]
fn a_token_is_kept_until_the_login_is_answered() {
    for proof in [Proof::Claim, Proof::Proved("ada"), Proof::Proved("eve"), Proof::Anonymous] {
        let (mut hub, admission) = asked(TOKEN);
        assert_eq!(hub.machine().token(0), TOKEN);
        assert!(holds(&state(&hub), TOKEN), "another hub asks again");
        hub.handle(
            Time::ZERO,
            World::Identified { link: 0, admission: admission + 1, login: login(proof) },
        );
        assert_eq!(hub.machine().token(0), TOKEN, "the answer to another login");
        hub.handle(Time::ZERO, World::Identified { link: 0, admission, login: login(proof) });
        assert_eq!(hub.machine().token(0), b"", "{proof:?}");
        drain(&mut hub);
        assert!(!holds(&state(&hub), TOKEN), "{proof:?}");
    }
    let (mut hub, admission) = asked(TOKEN);
    let denied = CloseReason::Unauthorized.into();
    hub.handle(Time::ZERO, World::Refused { link: 0, admission, denied });
    assert_eq!(hub.machine().token(0), b"");
    assert_eq!(hub.machine().token(4_711), b"", "no such link");
}

#[test]
fn a_token_is_not_printed() {
    let (hub, _) = asked(TOKEN);
    let printed = alloc::format!("{:?}", hub.machine());
    assert!(printed.contains("<14 secret bytes>"), "{printed}");
    assert!(!printed.contains("65, 65, 65"), "{printed}");
}

#[test]
fn a_link_that_moves_before_it_is_identified_takes_its_token_along() {
    let (mut hub, _) = asked(TOKEN);
    hub.handle(Time::ZERO, World::HandOver { link: 0 });
    let Some(Output::HandedOver { state, .. }) = hub.poll_output() else { panic!("no state") };
    let state = state.to_vec();
    let settings = link::Settings::new(Codec::Native, Side::Accepting, Policy::default());
    let mut other = driver(Vec::from([settings]), 2);
    other.handle(Time::ZERO, World::TakenOver { link: 3, state: &state });
    assert!(matches!(other.poll_output(), Some(Output::Admit { link: 3, .. })));
    assert_eq!(other.machine().token(3), TOKEN);
}

#[test]
fn an_anonymous_session_has_no_identity_whatever_its_peer_claims() {
    let (mut hub, admission) = asked(b"");
    assert_eq!(hub.machine().presence(0).map(|known| known.identity), Some("ada"));
    hub.handle(
        Time::ZERO,
        World::Identified { link: 0, admission, login: login(Proof::Anonymous) },
    );
    let Some(Output::Own { session, .. }) = hub.poll_output() else { panic!("no session") };
    hub.handle(Time::ZERO, Answer::Owned { session, epoch: 9, fresh: None });
    drain(&mut hub);
    assert_eq!(hub.machine().find(session), Some(0));
    assert_eq!(hub.machine().presence(0).map(|known| known.identity), Some(""));
}
