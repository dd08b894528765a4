//! The seeds of the fuzz corpus: the blocks of the protocol document, one message of each older
//! kind, one hub input of each kind, the largest beacon hub, and the states of links at each stage.
//!
//! `SYSTOLE_WRITE_SEEDS=1 cargo test -p systole-core seeds` writes the seeds.

use std::path::{Path, PathBuf};
use systole_core::home::Homes;
use systole_core::resume::{Digest, Fresh, Token};

use systole_core::beacon::{self, BeaconHub, MAX_BEACONS};
use systole_core::denial::Denial;
use systole_core::flight::Incident;
use systole_core::hub::{self, AWAY_SESSIONS, FRAME_MEMORY, Hub, WINDOW_MEMORY};
use systole_core::kernel::{Examination, NextHop, SocketError, TcpSnapshot};
use systole_core::link::{
    self, Answer, Command, Introduction, Link, SessionKey, Settings, Side, World,
};
use systole_core::tap::Tap;
use systole_core::tap::record::Recorder;
use systole_core::wire::{Beat, CloseReason, Codec, DataKind, Frame, Hello, Malformed};
use systole_core::{Machine, Policy, Span, Time};

use crate::document;

/// The first bytes of the seeds, which select the length of the pieces; see `fuzz/src/lib.rs`.
const PIECES: [u8; 2] = [0, 1];

#[test]
fn every_block_has_seeds() {
    let corpus = document::root().join("fuzz/corpus");
    for block in document::blocks() {
        let word = if block.illegal { "illegal" } else { "hex" };
        check_seeds(&corpus.join("native"), &format!("{word} {}", block.title), &block.bytes);
    }
    let beats = [Frame::Ping(Beat::bare(0)), Frame::Pong(Beat::bare(0))];
    let data = [DataKind::Eleven, DataKind::TwentyOne];
    let data = data.map(|kind| Frame::data(b"hello", false, kind));
    for codec in [Codec::Message1028, Codec::Line] {
        let mut all = Vec::new();
        beats.iter().chain(&data).for_each(|frame| codec.encode(frame, &mut all));
        check_seeds(&corpus.join(codec.name()), "one of each", &all);
    }
    let mut swapped = vec![0; Codec::Message1028.max_frame()];
    swapped[0] = 2;
    check_seeds(&corpus.join("message1028"), "pong in the other byte order", &swapped);
    check_seeds(&corpus.join("line"), "carriage returns", b"ping\r\npong\r\n\r\nhello\r\r\nend");
}

#[test]
fn every_beacon_block_has_a_seed() {
    let folder = document::root().join("fuzz/corpus/beacon");
    for block in document::blocks_marked("beacon", "beacon-illegal") {
        let word = if block.illegal { "illegal" } else { "beacon" };
        check_seed(&folder, &file_name(&format!("{word} {}", block.title)), &block.bytes);
    }
}

#[test]
fn every_hub_input_is_in_the_record_seed() {
    let commands = [
        Command::Send { bytes: b"hello", more: true, kind: DataKind::TwentyOne },
        Command::HeartbeatData(b"hp=97"),
        Command::Retune(Policy::demanding()),
        Command::Hold(Span::from_secs(1)),
        Command::Release,
        Command::Heartbeat,
        Command::close(CloseReason::Other(77)),
        Command::Close { goodbye: CloseReason::Kicked.into(), text: "see you tomorrow" },
    ];
    let mut worlds = vec![
        link::World::Received(b"ping\n"),
        link::World::Heard,
        link::World::Held { memory: 700, length: 16_401 },
        link::World::Illegal(Malformed::Record),
        link::World::Overflowed,
        link::World::Ended,
        link::World::Warned(SocketError::NetworkUnreachable),
    ];
    let errors = [SocketError::Reset, SocketError::HostUnreachable, SocketError::Local];
    worlds.extend(errors.map(link::World::Failed));
    worlds.extend(commands.map(link::World::Command));
    let tcp = Some(TcpSnapshot { send_window: Some(7), ..TcpSnapshot::default() });
    let error = Some(SocketError::TimedOut);
    let local_down = Some(false);
    let next_hop = Some(NextHop { is_peer: false, is_silent: true });
    let ended = false;
    let examination = Examination { tcp, error, ended, local_down, next_hop, queued: true };
    let fresh = Fresh { token: Token([7; 16]), digest: Digest([8; 16]) };
    let session = 0x0100_0005_0000_0003;
    let all: [hub::Input<'_>; 9] = [
        hub::Answer::Resumed { link: 0, admission: 7, shown: Digest([8; 16]), fresh }.into(),
        hub::World::Session { session, command: Command::Taken { length: 7 } }.into(),
        hub::Answer::Examined { link: 0, examination }.into(),
        hub::Answer::Deadline(hub::Part::Link(0)).into(),
        hub::Answer::Deadline(hub::Part::Common).into(),
        hub::World::Command(hub::HubCommand::ReportHeartbeats(true)).into(),
        hub::World::Command(hub::HubCommand::Retune { listener: 2, policy: Policy::never() })
            .into(),
        hub::World::Command(hub::HubCommand::Send {
            listener: Some(2),
            bytes: b"hello all",
            kind: DataKind::TwentyOne,
        })
        .into(),
        hub::World::Command(hub::HubCommand::Drain {
            limit: Span::from_secs(30),
            reconnect_within: Span::from_secs(9),
        })
        .into(),
    ];
    let folder = document::root().join("fuzz/corpus/record");
    check_seed(&folder, "one-of-each", recorded(&worlds, &all).record());
}

#[test]
fn the_largest_beacon_hub_has_a_record_seed() {
    let settings = beacon::Settings {
        shard: 1,
        policy: Policy::demanding(),
        max_beacons: MAX_BEACONS,
        wall_origin_ms: 0,
        seed: 1,
    };
    let recorder = Recorder::<BeaconHub>::new(Time::ZERO, &settings);
    let folder = document::root().join("fuzz/corpus/record");
    check_seed(&folder, "largest-beacon-hub", recorder.record());
}

#[test]
fn a_link_at_each_stage_has_a_state_seed() {
    let now = Time::from_millis(60_000);
    let mut hello = Vec::new();
    Codec::Native.encode(&Frame::Hello(Hello { identity: "ada", ..Hello::default() }), &mut hello);
    let received = |bytes| link::Input::from(World::Received(bytes));
    let admitted = Answer::admitted(SessionKey { session: 7, epoch: 9 }).into();
    let send = Command::Send { bytes: b"hello", more: true, kind: DataKind::TwentyOne };
    let examined = Answer::Examined(Examination::default()).into();
    // The selector of the settings, see `fuzz/src/lib.rs`; then inputs with their ages.
    type Inputs<'a> = &'a [(u64, link::Input<'a>)];
    let states: [(&str, u8, Inputs<'_>); 7] = [
        ("handshake", 0, &[(900, received(&hello[..9]))]),
        ("connecting", 4, &[]),
        ("admission", 0, &[(900, received(&hello)), (800, received(b"\x50\x02hi"))]),
        (
            "within-a-frame",
            8,
            &[
                (900, received(&hello)),
                (800, admitted),
                (700, received(b"\x50\x09hi")),
                (600, World::Command(Command::HeartbeatData(b"hp=97")).into()),
                (500, World::Command(send).into()),
            ],
        ),
        (
            "within-a-record",
            0,
            &[
                (900, received(&hello)),
                (800, admitted),
                (700, World::Heard.into()),
                (700, World::Held { memory: 700, length: 16_401 }.into()),
            ],
        ),
        (
            "suspect",
            2 | 8,
            &[
                (29_000, received(b"ping\n")),
                (29_000, admitted),
                (14_000, Answer::Deadline.into()),
                (12_900, Answer::Deadline.into()),
                (12_900, examined),
                (12_000, World::Warned(SocketError::HostUnreachable).into()),
            ],
        ),
        ("half-closed", 1 | 4, &[(900, World::Command(send).into()), (800, World::Ended.into())]),
    ];
    let codecs = [Codec::Native, Codec::Message1028, Codec::Line];
    for (name, selected, inputs) in states {
        let side = match selected & 4 {
            0 => Side::Accepting,
            _ => Side::Connecting(Introduction::default()),
        };
        let codec = codecs[usize::from(selected % 4)];
        let examines = selected & 8 != 0;
        let settings = Settings { examines, ..Settings::new(codec, side, Policy::default()) };
        let opened = inputs.first().map_or(1_000, |(age, _)| *age);
        let mut link = Link::new(now - Span::from_millis(opened), settings, 1);
        while link.poll_output().is_some() {}
        for &(age, input) in inputs {
            link.handle(now - Span::from_millis(age), input);
            while link.poll_output().is_some() {}
        }
        let suspected = link.flight().iter().any(|it| it.incident == Incident::Suspect);
        assert_eq!(suspected, name == "suspect");
        let mut seed = vec![selected];
        link.save(now, &mut seed);
        // A PONG, a deadline, an admission and an examination.
        seed.extend_from_slice(b"\x01\x02\x20\x01\x80\x00\xc8\x00\xa0\x55");
        check_seed(&document::root().join("fuzz/corpus/state"), name, &seed);
    }
}

/// Records what happens to links, each to one of its own, and then other inputs.
fn recorded(worlds: &[link::World<'_>], all: &[hub::Input<'_>]) -> Recorder<Hub> {
    let settings = |codec| Settings::new(codec, Side::Accepting, Policy::default());
    let codecs = [Codec::Native, Codec::Message1028, Codec::Line];
    let listeners = codecs.map(settings).to_vec();
    let made = hub::Settings {
        shard: 0,
        homes: Homes::SINGLE,
        listeners,
        seed: 1,
        frame_memory: FRAME_MEMORY,
        window_memory: WINDOW_MEMORY,
        away: AWAY_SESSIONS,
    };
    let mut recorder = Recorder::new(Time::ZERO, &made);
    let mut hub = Hub::new(made);
    let mut millis = 0;
    let mut record_input = |input: hub::Input<'_>| {
        millis += 700;
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let now = Time::from_millis(millis);
            Tap::<Hub>::input(&mut recorder, now, &input);
            hub.handle(now, input);
            while let Some(output) = hub.poll_output() {
                next = next.or(match output {
                    hub::Output::Admit { link: 0, admission } => {
                        let denied = Denial::Store.with(CloseReason::Full.into());
                        Some(hub::World::Refused { link: 0, admission, denied }.into())
                    }
                    hub::Output::Admit { link, admission } => Some(
                        hub::World::Identified {
                            link,
                            admission,
                            login: hub::Login::claim(Span::ZERO),
                        }
                        .into(),
                    ),
                    hub::Output::Own { session, .. } => {
                        Some(hub::Answer::Owned { session, epoch: 1, fresh: None }.into())
                    }
                    hub::Output::Link { .. }
                    | hub::Output::GoHome { .. }
                    | hub::Output::Resume { .. }
                    | hub::Output::Session { .. }
                    | hub::Output::HandedOver { .. } => None,
                });
            }
        }
    };
    for (link, &input) in (0..).zip(worlds) {
        let address = ([127, 0, 0, 1], 7).into();
        record_input(hub::World::Opened { link, listener: 2, address }.into());
        let first = link::World::Received(b"hello\n");
        record_input(hub::World::Link { link, input: first }.into());
        record_input(hub::World::Link { link, input }.into());
    }
    all.iter().copied().for_each(record_input);
    recorder
}

/// Checks the seeds of one block, one for each length of pieces.
fn check_seeds(folder: &Path, title: &str, bytes: &[u8]) {
    for piece in PIECES {
        let mut seed = vec![piece];
        seed.extend_from_slice(bytes);
        check_seed(folder, &format!("{}-{piece}", file_name(title)), &seed);
    }
}

/// Converts a title to a file name.
fn file_name(title: &str) -> String {
    let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    let name: String = title.to_lowercase().chars().map(plain).collect();
    name.trim_matches('-').to_owned()
}

/// Checks that a seed file holds `seed`; writes it first if `SYSTOLE_WRITE_SEEDS` is set.
fn check_seed(folder: &Path, name: &str, seed: &[u8]) {
    let path: PathBuf = folder.join(name);
    if std::env::var_os("SYSTOLE_WRITE_SEEDS").is_some() {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(&path, seed).unwrap();
    }
    let found = std::fs::read(&path).ok();
    assert_eq!(found.as_deref(), Some(seed), "{} is missing or out of date", path.display());
}
