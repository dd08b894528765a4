//! Tests of the recorder and the replay: equal replays, differences and damage.

use super::*;
use crate::link::{self, Settings, Side};
use crate::policy::Policy;
use crate::random::Random;
use crate::tap::Tapped;
use crate::time::Span;
use crate::wire::Codec;

fn hub(seed: u64) -> Hub {
    let settings = Settings::new(Codec::Line, Side::Accepting, Policy::default());
    Hub::new(Time::ZERO, 1, Vec::from([settings]), seed)
}

fn recorded() -> Vec<u8> {
    let mut hub = Tapped::new(hub(1), Recorder::new());
    let input_at = |hub: &mut Tapped<Hub, Recorder>, millis, input| {
        hub.handle(Time::from_millis(millis), input);
        let mut asked = None;
        while let Some(output) = hub.poll_output() {
            match output {
                Output::Admit { link, admission } => {
                    asked = Some(Input::Identified { link, admission });
                }
                Output::Own { session, .. } => asked = Some(Input::Owned { session, epoch: 1 }),
                Output::Link { .. } => {}
            }
        }
        asked
    };
    let address = core::net::SocketAddr::from(([127, 0, 0, 1], 7));
    input_at(&mut hub, 0, Input::Opened { link: 3, listener: 0, address });
    let received = |bytes| Input::Link { link: 3, input: link::Input::Received(bytes) };
    let mut answer = input_at(&mut hub, 1, received(b"hello\npi"));
    while let Some(input) = answer {
        answer = input_at(&mut hub, 1, input);
    }
    input_at(&mut hub, 2, received(b"ng\n"));
    let hold = link::Command::Hold(Span::from_secs(1));
    input_at(&mut hub, 3, Input::Link { link: 3, input: link::Input::Command(hold) });
    for millis in (1..60).map(|second| second * 1_000) {
        input_at(&mut hub, millis, Input::Deadline { horizon: Time::from_millis(millis) });
    }
    hub.into_tap().into_record()
}

#[test]
fn a_replay_on_the_same_hub_gives_the_same_outputs() {
    let summary = replay(hub(1), &recorded()).unwrap();
    assert_eq!((summary.inputs, summary.unrecorded), (65, 0));
    assert!(summary.outputs > 7, "{summary:?}");
    assert_eq!(summary.until, Time::from_millis(59_000));
}

#[test]
fn a_replay_with_other_settings_or_another_seed_diverges() {
    let settings = Settings::new(Codec::Line, Side::Accepting, Policy::demanding());
    let other = Hub::new(Time::ZERO, 1, Vec::from([settings]), 1);
    let error = replay(other, &recorded()).unwrap_err();
    let ReplayError::Diverged { entry: 6, divergence, .. } = error else { panic!("{error}") };
    assert!(matches!(divergence, Divergence::Other { link: 3, .. }), "{error}");
    let error = replay(hub(5), &recorded()).unwrap_err();
    assert!(matches!(error, ReplayError::Diverged { .. }), "the first probe moved: {error}");
}

#[test]
fn missing_and_extra_outputs_are_reported() {
    let record = recorded();
    let mut entries = Entries::new(&record);
    let mut cut = None;
    while let Some(entry) = entries.next() {
        let end = entries.offset();
        if let Ok(Entry::Output(_)) = entry {
            cut = Some(end);
            break;
        }
    }
    let end = cut.unwrap();
    let without = [&record[..end - 9], &record[end..]].concat();
    let error = replay(hub(1), &without).unwrap_err();
    assert!(matches!(error, ReplayError::Diverged { .. }), "{error}");
    let extra = [&record[..], &[OUTPUT, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
    let error = replay(hub(1), &extra).unwrap_err();
    let ReplayError::Diverged { divergence, .. } = error else { panic!("{error}") };
    assert_eq!(divergence, Divergence::Missing { recorded: 0 });
    let summary = replay(hub(1), &record[..end - 9]).unwrap();
    assert!(summary.unrecorded > 0, "a recording may end anywhere");
}

#[test]
fn damage_is_located_and_never_panics() {
    let record = recorded();
    let error = replay(hub(1), b"SYR0").unwrap_err();
    let damage = Damage::Magic;
    assert_eq!(error, ReplayError::Damaged { entry: 0, offset: 0, damage });
    let error = replay(hub(1), &record[..record.len() - 1]).unwrap_err();
    assert!(matches!(error, ReplayError::Damaged { damage: Damage::Truncated, .. }), "{error}");
    let mut chance = Random::new(3);
    for _ in 0..2_000 {
        let mut damaged = record.clone();
        for _ in 0..=chance.below(3) {
            let at = chance.below(damaged.len() as u64) as usize;
            damaged[at] = chance.next_u64() as u8;
        }
        let _ = replay(hub(1), &damaged);
    }
}
