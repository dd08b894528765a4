//! Tests of the recorder and the replay: equal replays, differences and damage.

use super::*;
use crate::driver::Driver;
use crate::home::Homes;
use crate::hub::Login;
use crate::hub::{Answer, FRAME_MEMORY, Input, Output, World};
use crate::link::{self, Settings, Side};
use crate::policy::Policy;
use crate::random::Random;
use crate::time::Span;
use crate::wire::Codec;

fn settings(policy: Policy, seed: u64) -> hub::Settings {
    let line = Settings::new(Codec::Line, Side::Accepting, policy);
    hub::Settings {
        shard: 0,
        homes: Homes::SINGLE,
        listeners: Vec::from([line]),
        seed,
        frame_memory: FRAME_MEMORY,
        window_memory: hub::WINDOW_MEMORY,
        away: hub::AWAY_SESSIONS,
    }
}

fn recorded() -> Vec<u8> {
    let made = settings(Policy::default(), 1);
    let recorder = Recorder::new(Time::ZERO, &made);
    let mut hub = Driver::tapped(Time::ZERO, Hub::new(made), recorder);
    let outputs = |hub: &mut Driver<Hub, Recorder<Hub>>| {
        let mut asked: Option<Input<'static>> = None;
        while let Some(output) = hub.poll_output() {
            match output {
                Output::Admit { link, admission } => {
                    asked = Some(
                        World::Identified { link, admission, login: Login::claim(Span::ZERO) }
                            .into(),
                    );
                }
                Output::Own { session, .. } => {
                    asked = Some(Answer::Owned { session, epoch: 1, fresh: None }.into());
                }
                Output::Link { .. }
                | Output::GoHome { .. }
                | Output::Resume { .. }
                | Output::Session { .. }
                | Output::HandedOver { .. } => {}
            }
        }
        asked
    };
    let input_at = |hub: &mut Driver<Hub, Recorder<Hub>>, millis, input: Input<'_>| {
        hub.handle(Time::from_millis(millis), input);
        outputs(hub)
    };
    let address = core::net::SocketAddr::from(([127, 0, 0, 1], 7));
    input_at(&mut hub, 0, World::Opened { link: 3, listener: 0, address }.into());
    let received = |bytes| World::Link { link: 3, input: link::World::Received(bytes) }.into();
    let mut answer = input_at(&mut hub, 1, received(b"hello\npi"));
    while let Some(input) = answer {
        answer = input_at(&mut hub, 1, input);
    }
    input_at(&mut hub, 2, received(b"ng\n"));
    let hold = link::Command::Hold(Span::from_secs(1));
    input_at(&mut hub, 3, World::Link { link: 3, input: link::World::Command(hold) }.into());
    for millis in (1..60).map(|second| second * 1_000) {
        let now = Time::from_millis(millis);
        hub.expire(now, now);
        outputs(&mut hub);
    }
    hub.into_tap().into_record()
}

#[test]
fn a_replay_on_the_same_hub_gives_the_same_outputs() {
    let summary = replay::<Hub>(&recorded()).unwrap();
    assert_eq!((summary.inputs, summary.unrecorded), (14, 0));
    assert!(summary.outputs > 7, "{summary:?}");
    assert_eq!((summary.from, summary.until), (Time::ZERO, Time::from_millis(32_000)));
}

/// Returns the record, as if the hub had been made of other settings.
fn made_of(settings: &hub::Settings, record: &[u8]) -> Vec<u8> {
    let (_, _, entries) = Entries::<Hub>::open(record).unwrap();
    let mut other = Recorder::<Hub>::new(Time::ZERO, settings).into_record();
    other.extend_from_slice(&record[entries.offset()..]);
    other
}

#[test]
fn a_replay_with_other_settings_or_another_seed_diverges() {
    let record = recorded();
    assert_eq!(made_of(&settings(Policy::default(), 1), &record), record);
    let other = made_of(&settings(Policy::demanding(), 1), &record);
    let error = replay::<Hub>(&other).unwrap_err();
    let ReplayError::Diverged { entry: 7, divergence, .. } = error else { panic!("{error}") };
    assert!(matches!(divergence, Divergence::Other { subject: 3, .. }), "{error}");
    let error = replay::<Hub>(&made_of(&settings(Policy::default(), 5), &record)).unwrap_err();
    assert!(matches!(error, ReplayError::Diverged { .. }), "the first probe moved: {error}");
}

#[test]
fn a_record_is_replayed_by_its_own_kind_of_machine() {
    let damage = Damage::Kind;
    let error = replay::<BeaconHub>(&recorded()).unwrap_err();
    assert_eq!(error, ReplayError::Damaged { entry: 0, offset: 0, damage });
}

#[test]
fn a_record_of_beacons_gives_the_same_outputs_again() {
    let made = beacon::Settings {
        shard: 0,
        policy: Policy::demanding(),
        max_beacons: 9,
        wall_origin_ms: 1,
        seed: 2,
    };
    let start = Time::from_millis(500);
    let recorder = Recorder::new(start, &made);
    let mut hub = Driver::tapped(start, BeaconHub::new(made), recorder);
    let mut challenge = 0;
    for counter in 1..40 {
        let now = Time::from_millis(u64::from(counter) * 700);
        let device = 5;
        let statement =
            beacon::Statement { device, challenge, counter, status: 3, leaving: counter == 30 };
        let address = core::net::SocketAddr::from(([127, 0, 0, 1], 7));
        if !(10..20).contains(&counter) {
            hub.handle(now, beacon::World::Statement { statement, address });
        }
        if counter == 5 {
            let hold = beacon::BeaconCommand::Hold { device, span: Span::from_secs(1) };
            hub.handle(now, beacon::World::Command(hold));
            hub.handle(now, beacon::Answer::PlacesHeld(2));
        }
        hub.expire(now, now);
        while let Some(output) = hub.poll_output() {
            if let beacon::Output::Reply { reply, .. } = output {
                challenge = reply.challenge;
            }
        }
    }
    let summary = replay::<BeaconHub>(&hub.into_tap().into_record()).unwrap();
    assert!(summary.inputs > 30 && summary.outputs > 30, "{summary:?}");
    assert_eq!((summary.unrecorded, summary.from), (0, start));
}

#[test]
fn missing_and_extra_outputs_are_reported() {
    let record = recorded();
    let (_, _, mut entries) = Entries::<Hub>::open(&record).unwrap();
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
    let error = replay::<Hub>(&without).unwrap_err();
    assert!(matches!(error, ReplayError::Diverged { .. }), "{error}");
    let extra = [&record[..], &[OUTPUT, 0, 0, 0, 0, 0, 0, 0, 0]].concat();
    let error = replay::<Hub>(&extra).unwrap_err();
    let ReplayError::Diverged { divergence, .. } = error else { panic!("{error}") };
    assert_eq!(divergence, Divergence::Missing { recorded: 0 });
    let summary = replay::<Hub>(&record[..end - 9]).unwrap();
    assert!(summary.unrecorded > 0, "a recording may end anywhere");
}

#[test]
fn damage_is_located_and_never_panics() {
    let record = recorded();
    let error = replay::<Hub>(b"SYR0").unwrap_err();
    let damage = Damage::Magic;
    assert_eq!(error, ReplayError::Damaged { entry: 0, offset: 0, damage });
    let error = replay::<Hub>(&record[..record.len() - 1]).unwrap_err();
    assert!(matches!(error, ReplayError::Damaged { damage: Damage::Truncated, .. }), "{error}");
    let mut chance = Random::new(3);
    for _ in 0..2_000 {
        let mut damaged = record.clone();
        for _ in 0..=chance.below(3) {
            let at = chance.below(damaged.len() as u64) as usize;
            damaged[at] = chance.next_u64() as u8;
        }
        let _ = replay::<Hub>(&damaged);
    }
}
