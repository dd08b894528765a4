//! A peer that sends more than its listener allows.

use super::*;
use crate::link::Rates;
use crate::policy::Policy;
use crate::wire::{Beat, DataKind};

fn listener(rates: Rates) -> Vec<link::Settings> {
    let settings = link::Settings::new(Codec::Native, Side::Accepting, Policy::default());
    Vec::from([link::Settings { rates, ..settings }])
}

/// A hub with a session at a listener with these rates.
fn online(rates: Rates) -> Driver<Hub> {
    online_after(rates, &[])
}

/// A hub with a session, whose peer has sent these frames behind its HELLO.
fn online_after(rates: Rates, frames: &[Frame<'_>]) -> Driver<Hub> {
    let mut hub = driver(listener(rates), 1);
    hub.handle(Time::ZERO, World::Opened { link: 0, listener: 0, address: ADDRESS });
    let mut bytes = hello("ada", b"");
    frames.iter().for_each(|frame| Codec::Native.encode(frame, &mut bytes));
    hub.handle(Time::ZERO, World::Link { link: 0, input: link::World::Received(&bytes) });
    let Some(Output::Admit { admission, .. }) = hub.poll_output() else { panic!("no wish") };
    let login = Login::claim(Span::ZERO);
    hub.handle(Time::ZERO, World::Identified { link: 0, admission, login });
    let Some(Output::Own { session, .. }) = hub.poll_output() else { panic!("no session") };
    hub.handle(Time::ZERO, Answer::Owned { session, epoch: 9, fresh: None });
    drain(&mut hub);
    hub
}

/// Lets the peer send frames at a time; returns the ends and what was said to it.
fn send(hub: &mut Driver<Hub>, now: Time, frames: &[Frame<'_>]) -> (Vec<&'static str>, Vec<u8>) {
    let mut bytes = Vec::new();
    frames.iter().for_each(|frame| Codec::Native.encode(frame, &mut bytes));
    hub.handle(now, World::Link { link: 0, input: link::World::Received(&bytes) });
    let (mut ends, mut said) = (Vec::new(), Vec::new());
    while let Some(output) = hub.poll_output() {
        let Output::Link { output, .. } = output else { continue };
        if let link::Output::Transmit { bytes, .. } = output {
            said.extend_from_slice(bytes);
        } else if let link::Output::Session(session::Event::Left(verdict)) = output {
            ends.push(verdict.cause.name());
        }
    }
    (ends, said)
}

fn message(bytes: &[u8]) -> Frame<'_> {
    Frame::data(bytes, false, DataKind::Eleven)
}

#[test]
fn a_peer_that_sends_too_much_ends_as_flooding() {
    let rates = Rates { messages: 5, ..Rates::default() };
    let mut hub = online(rates);
    let frames = [message(b"x"); 50];
    assert!(send(&mut hub, Time::ZERO, &frames).0.is_empty(), "ten seconds of the rate");
    let later = Time::from_millis(1_000);
    assert!(send(&mut hub, later, &frames[..5]).0.is_empty(), "what a second allows");
    let (ends, said) = send(&mut hub, later, &frames[..1]);
    assert_eq!(ends, ["flooding"]);
    let close = &said[said.len() - 9 - 17..];
    assert_eq!(close[..9], [0x70, 7 + 17, 9, 0, 0x60, 0xea, 0, 0, 17], "back after 60 s");
    assert_eq!(&close[9..], b"too many messages");
    let bytes = Rates { bytes: 1_000, ..Rates::default() };
    let long = [7; 1_000];
    let mut hub = online(bytes);
    let ends: Vec<_> =
        (0..11).flat_map(|_| send(&mut hub, Time::ZERO, &[message(&long)]).0).collect();
    assert_eq!(ends, ["flooding"]);
    let mut free = online(Rates::default());
    let ends = (0..1_000).flat_map(|_| send(&mut free, Time::ZERO, &frames).0).count();
    assert_eq!((ends, free.machine().meters.len()), (0, 0), "no limit, and nothing is kept");
}

#[test]
fn a_short_piece_counts_as_a_message_and_a_request_of_a_policy_as_a_heartbeat() {
    let rates = Rates { messages: 1, heartbeats: 1, ..Rates::default() };
    let piece = |bytes| Frame::data(bytes, true, DataKind::Eleven);
    let long = [7; 1_024];
    let mut hub = online(rates);
    assert!(send(&mut hub, Time::ZERO, &[piece(&long); 50]).0.is_empty(), "a long message");
    assert!(send(&mut hub, Time::ZERO, &[piece(&long[1..]); 10]).0.is_empty());
    assert_eq!(send(&mut hub, Time::ZERO, &[piece(b"")]).0, ["flooding"]);
    let mut hub = online(rates);
    let asks = [Frame::Retune(Policy::relaxed()); 10];
    assert!(send(&mut hub, Time::ZERO, &asks).0.is_empty());
    assert!(
        send(&mut hub, Time::ZERO, &asks).0.is_empty(),
        "it is told, and its count begins anew"
    );
    assert!(send(&mut hub, Time::ZERO, &asks).0.is_empty());
    assert_eq!(send(&mut hub, Time::ZERO, &asks).0, ["flooding"]);
}

#[test]
fn messages_that_waited_for_the_admission_count() {
    let rates = Rates { messages: 1, ..Rates::default() };
    let mut hub = online_after(rates, &[message(b"x"); 10]);
    assert_eq!(send(&mut hub, Time::ZERO, &[message(b"x")]).0, ["flooding"]);
    let hub = online_after(rates, &[message(b"x"); 11]);
    assert_eq!(hub.machine().counters().links, 0, "it has ended");
}

#[test]
fn a_count_outlives_a_reload_and_a_move_to_another_hub() {
    let rates = Rates { messages: 1, heartbeats: 1, ..Rates::default() };
    let mut hub = online(rates);
    let beats: Vec<_> = (0..11).map(|n| Frame::Ping(Beat::bare(n))).collect();
    send(&mut hub, Time::ZERO, &beats);
    send(&mut hub, Time::ZERO, &beats[..5]);
    let fresh = || {
        Hub::new(super::super::Settings {
            shard: 0,
            homes: Homes::SINGLE,
            listeners: listener(rates),
            seed: 2,
            frame_memory: FRAME_MEMORY,
            window_memory: WINDOW_MEMORY,
            away: AWAY_SESSIONS,
        })
    };
    hub.reload(Time::ZERO, fresh()).expect("whole");
    hub.handle(Time::ZERO, World::HandOver { link: 0 });
    let mut moved = None;
    while let Some(output) = hub.poll_output() {
        if let Output::HandedOver { state, .. } = output {
            moved = Some(state.to_vec());
        }
    }
    let state = moved.expect("it moves");
    // The clock of the other hub shows an hour more.
    let later = Time::from_millis(3_600_000);
    let mut other = Driver::new(later, fresh());
    other.handle(later, World::TakenOver { link: 0, state: &state });
    drain(&mut other);
    assert_eq!(send(&mut other, later, &beats[..5]).0.len(), 0);
    assert_eq!(send(&mut other, later, &beats[..1]).0, ["flooding"], "it was told before");
}

#[test]
fn too_many_heartbeats_are_answered_once_with_the_policy() {
    let mut hub = online(Rates { heartbeats: 1, ..Rates::default() });
    let beats: Vec<_> = (0..11).map(|n| Frame::Ping(Beat::bare(n))).collect();
    let retunes = |said: &[u8]| said.iter().filter(|byte| **byte == 0x60).count();
    let (ends, said) = send(&mut hub, Time::ZERO, &beats[..10]);
    assert_eq!((ends.len(), retunes(&said)), (0, 0));
    let (ends, said) = send(&mut hub, Time::ZERO, &beats[..1]);
    assert_eq!((ends.len(), retunes(&said)), (0, 1), "it is told its policy");
    let (ends, said) = send(&mut hub, Time::ZERO, &beats[..10]);
    assert_eq!((ends.len(), retunes(&said)), (0, 0), "its count began anew");
    let (ends, _) = send(&mut hub, Time::ZERO, &beats[..1]);
    assert_eq!(ends, ["flooding"]);
    hub.handle(Time::ZERO, World::Command(HubCommand::ReportHeartbeats(false)));
    assert!(hub.machine().meters.is_empty(), "a link that has ended has no count");
}
