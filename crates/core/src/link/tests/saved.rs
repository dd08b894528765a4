//! Links that are saved and loaded at every input: they go on as if nothing had happened.

use crate::session;
use alloc::format;
use alloc::string::String;
use alloc::vec;

use super::super::Link;
use super::*;
use crate::liveness::Role;
use crate::machine::Deadline;
use crate::random::Random;
use crate::tap::record::Damage;
use crate::wire::{Account, Beat, Close, CloseReason, Saw};

const SEEDS: u64 = 400;
const INPUTS: u32 = 250;

/// The resolution of outstanding bytes. Clocks that differ by a multiple of it give the same
/// deadlines.
const UNIT: Span = Span::from_millis(125);

fn settings(random: &mut Random) -> Settings {
    let codec = match random.below(4) {
        0 => Codec::Message1028,
        1 => Codec::Line,
        _ => Codec::Native,
    };
    let side = match random.below(2) {
        0 => Side::Accepting,
        _ => Side::Connecting(Introduction::default()),
    };
    let policy = any_policy(random);
    Settings {
        role: if random.below(4) == 0 { Role::Watch } else { Role::Probe },
        examines: random.below(4) != 0,
        hung: if random.below(2) == 0 { Hung::End } else { Hung::Keep(Span::from_secs(7)) },
        report_heartbeats: random.below(2) == 0,
        max_data: if random.below(2) == 0 { 300 } else { 65_536 },
        ..Settings::new(codec, side, policy)
    }
}

fn any_policy(random: &mut Random) -> Policy {
    let mut span = |most| Span::from_millis(50 + random.below(most));
    let (idle, interval, keepalive) = (span(3_000), span(1_000), span(4_000));
    let policy = match random.below(8) {
        0 => Policy::never(),
        _ => Policy::new(idle, interval, 1 + random.below(4) as u8).unwrap(),
    };
    let policy = policy.with_enforce(random.below(4) != 0).with_spread(random.below(2) == 0);
    if random.below(2) == 0 { policy } else { policy.with_keepalive(keepalive).unwrap() }
}

/// Appends a frame that the peer may send.
fn frame(random: &mut Random, settings: &Settings, first: bool, bytes: &mut Vec<u8>) {
    let codec = settings.codec;
    let account = Account {
        session: 1,
        saw: Saw::Reset,
        silent_ms: 2,
        ended_ms: 3,
        absent_ms: 4,
        suspended_ms: 5,
    };
    let welcome = crate::wire::Welcome {
        resumption: crate::wire::Resumption::NotAsked,
        windows: None,
        boot_id: BootId([7; 16]),
        instance_id: InstanceId([8; 16]),
        session: 9,
        epoch: 10,
        received: 0,
        server_time_ms: 11,
        resume_window_ms: 0,
        largest_data: 500,
        policy: any_policy(random),
        resume_token: &[],
    };
    let text = [b'x'; 700];
    let frame = if first && codec.has_handshake() {
        match settings.side {
            Side::Accepting => Frame::Hello(Hello {
                account: (random.below(2) == 0).then_some(account),
                asks: (random.below(2) == 0).then(|| any_policy(random)),
                identity: "ada",
                ..Hello::default()
            }),
            Side::Connecting(_) => Frame::Welcome(welcome),
        }
    } else {
        match random.below(12) {
            0 | 1 => Frame::Ping(Beat::bare(random.below(256) as u8)),
            2..6 => Frame::Pong(Beat::bare(random.below(6) as u8)),
            6 => Frame::Ping(Beat { data: Some(b"hp 97"), ..Beat::bare(1) }),
            7 if random.below(8) == 0 => Frame::Close(Close {
                reason: CloseReason::Drained,
                final_: false,
                return_after_ms: 12,
                text: "",
            }),
            7 | 8 => Frame::Retune(any_policy(random)),
            _ => Frame::data(
                &text[..random.below(1 + codec.max_data().min(290) as u64) as usize],
                random.below(2) == 0,
                DataKind::TwentyOne,
            ),
        }
    };
    codec.encode(&frame, bytes);
}

fn examination(random: &mut Random) -> Examination {
    let tcp = TcpSnapshot {
        unacked: random.below(2) as u32,
        sacked: random.below(2) as u32,
        segment: 1_448,
        notsent: (random.below(4) != 0).then(|| random.below(3) as u32 * 9_000),
        retransmits: random.below(3) as u8,
        backoff: random.below(2) as u8,
        probes: random.below(3) as u8,
        last_ack: Span::from_millis(random.below(3_000)),
        last_sent: Span::from_millis(random.below(20_000)),
        rtt: Span::from_millis(random.below(200)),
        rttvar: Span::from_millis(random.below(2) * random.below(9_000)),
        timestamps: random.below(2) == 0,
        total_retrans: random.below(3) as u32,
        bytes_acked: (random.below(4) != 0).then(|| random.below(1 << 16)),
        bytes_sent: Some(random.below(1 << 16)),
        bytes_retrans: Some(0),
        bytes_received: None,
        send_window: (random.below(4) != 0).then(|| random.below(2) as u32 * 60_000),
        window_limited: None,
        gap: (random.below(4) != 0).then(|| random.below(2) == 0),
    };
    let error = match random.below(16) {
        0 => Some(SocketError::HostUnreachable),
        1 if random.below(8) == 0 => Some(SocketError::TimedOut),
        _ => None,
    };
    Examination {
        tcp: (random.below(6) != 0).then_some(tcp),
        error,
        ended: false,
        local_down: Some(random.below(20) == 0),
        next_hop: (random.below(4) == 0)
            .then(|| NextHop { is_peer: random.below(2) == 0, is_silent: random.below(4) == 0 }),
        queued: false,
    }
}

/// What a random run hands in, and when.
struct Script {
    random: Random,
    settings: Settings,
    /// What the peer sent and the link has not received.
    wire: Vec<u8>,
    is_first: bool,
    examine: bool,
    admit: bool,
    /// What the command in preparation sends.
    content: Vec<u8>,
    /// The longest hold.
    longest: Span,
    /// Whether the peer falls silent early and its kernel goes on to acknowledge.
    is_hung: bool,
    handed_in: u32,
}

impl Script {
    fn new(seed: u64, longest: Span) -> Script {
        let mut random = Random::new(seed);
        let settings = settings(&mut random);
        let content = vec![b'y'; 2_000];
        let wire = Vec::new();
        let is_hung = random.below(3) == 0;
        let handed_in = 0;
        Script {
            is_hung,
            handed_in,
            random,
            settings,
            wire,
            is_first: true,
            examine: false,
            admit: false,
            content,
            longest,
        }
    }

    /// Returns the next time, not earlier than `now`.
    fn time(&mut self, now: Time, next: Option<Deadline>) -> Time {
        if self.examine {
            return now;
        }
        let soon = now + Span::from_nanos(self.random.below(400_000_000));
        match next.filter(|next| next.at.since(now) < Span::from_secs(100)) {
            Some(next) if self.random.below(2) == 0 => next.at.max(now),
            Some(_) | None => soon,
        }
    }

    fn with_input(&mut self, hand_in: impl FnOnce(Input<'_>)) {
        let Script {
            random,
            settings,
            wire,
            is_first,
            examine,
            admit,
            content,
            longest,
            is_hung,
            handed_in,
        } = self;
        *handed_in += 1;
        let is_hung = *is_hung && *handed_in > 12;
        if core::mem::take(examine) && random.below(32) != 0 {
            let shown = match is_hung {
                true => Examination {
                    tcp: Some(acknowledging(u64::from(*handed_in) * 500)),
                    ..Examination::default()
                },
                false => examination(random),
            };
            return hand_in(Answer::Examined(shown).into());
        }
        if *admit && random.below(3) != 0 {
            *admit = false;
            return match random.below(16) {
                0 => hand_in(Answer::Refused(CloseReason::Full.into()).into()),
                _ => hand_in(Answer::admitted(SessionKey { session: 5, epoch: 6 }).into()),
            };
        }
        let content = &content[..random.below(content.len() as u64) as usize];
        if is_hung && random.below(64) != 0 {
            return hand_in(Answer::Deadline.into());
        }
        let command = match random.below(64) {
            0 => return hand_in(World::Warned(SocketError::HostUnreachable).into()),
            1 if random.below(8) == 0 => return hand_in(World::Ended.into()),
            1 if random.below(8) == 0 => return hand_in(World::Failed(SocketError::Reset).into()),
            1 if random.below(16) == 0 => return hand_in(World::Overflowed.into()),
            2 | 3 if random.below(8) == 0 => Command::Hold(*longest),
            2 | 3 => Command::Hold(Span::from_millis(random.below(9_000))),
            4 | 5 => Command::Release,
            6..9 => Command::Retune(any_policy(random)),
            9..11 => Command::HeartbeatData(content.get(..200).unwrap_or_default()),
            11 if random.below(16) == 0 => Command::close(CloseReason::Kicked),
            12..20 => Command::Send {
                bytes: content.get(..300).unwrap_or(content),
                more: random.below(3) == 0,
                kind: DataKind::Eleven,
            },
            20..40 => {
                for _ in 0..=random.below(3) {
                    frame(random, settings, core::mem::take(is_first), wire);
                }
                let length = random.below(wire.len() as u64 + 1) as usize;
                let read: Vec<u8> = wire.drain(..length).collect();
                return hand_in(World::Received(&read).into());
            }
            40 => return hand_in(World::Heard.into()),
            41..44 => {
                let (memory, length) = (random.below(3) as u32 * 500, random.below(9_000) as u32);
                return hand_in(World::Held { memory, length }.into());
            }
            _ => return hand_in(Answer::Deadline.into()),
        };
        hand_in(World::Command(command).into());
    }

    /// Returns the outputs of `link`, with its times set back by `ahead`.
    fn outputs(&mut self, link: &mut Link, ahead: Span) -> Vec<String> {
        let back = |time: Time| time - ahead;
        let mut outputs = Vec::new();
        while let Some(output) = link.poll_output() {
            self.examine |= matches!(output, Output::Examine { .. });
            self.admit |= matches!(output, Output::Admit);
            let output = match output {
                Output::Session(session::Event::Overdue { due }) => {
                    Output::Session(session::Event::Overdue { due: back(due) })
                }
                Output::Session(session::Event::Hung { cause, until }) => {
                    Output::Session(session::Event::Hung { cause, until: back(until) })
                }
                Output::Session(session::Event::Left(verdict)) => {
                    let verdict = Verdict {
                        at: back(verdict.at),
                        due: back(verdict.due),
                        last_heard: back(verdict.last_heard),
                        ..verdict
                    };
                    Output::Session(session::Event::Left(verdict))
                }
                same @ (Output::Session(_)
                | Output::Event(_)
                | Output::Transmit { .. }
                | Output::Examine { .. }
                | Output::Patience(_)
                | Output::Admit
                | Output::Close(_)) => same,
            };
            outputs.push(format!("{output:?}"));
        }
        outputs
    }
}

fn save(link: &Link, now: Time) -> Vec<u8> {
    let mut state = Vec::new();
    link.save(now, &mut state);
    state
}

fn load(now: Time, settings: Settings, state: &[u8]) -> Result<Link, Damage> {
    let mut rest = state;
    let link = Link::load(now, settings, &mut rest)?;
    assert!(rest.is_empty());
    Ok(link)
}

/// Settings on a clock that is `ahead` of the one on which the link was made.
fn settings_ahead(settings: &Settings, ahead: Span) -> Settings {
    // The wall clock is the same.
    let wall_origin_ms = settings.wall_origin_ms - ahead.as_millis();
    Settings { wall_origin_ms, ..settings.clone() }
}

/// Runs a link and its copy with the same random inputs. The copy is saved and loaded before each
/// input, on a clock that is ahead by what `ahead` returns. Returns what the link did.
fn compare(seed: u64, longest: Span, mut ahead: impl FnMut(&mut Random) -> Span) -> Vec<String> {
    let mut script = Script::new(seed, longest);
    script.settings.wall_origin_ms = u64::MAX / 2;
    let mut now = Time::from_millis(10_000);
    let mut clocks = Random::new(!seed);
    let mut lead = Span::ZERO;
    let mut link = Link::new(now, script.settings.clone(), seed);
    let mut copy = Link::new(now, script.settings.clone(), seed);
    let mut history = script.outputs(&mut link, lead);
    assert_eq!(script.outputs(&mut copy, lead), history);
    for step in 0..INPUTS {
        now = script.time(now, link.next_deadline());
        let state = save(&copy, now + lead);
        lead = ahead(&mut clocks);
        let settings = settings_ahead(&script.settings, lead);
        copy = load(now + lead, settings, &state).unwrap();
        assert_eq!(save(&copy, now + lead), state, "seed {seed}, step {step}");
        let mut said = String::new();
        script.with_input(|input| {
            said = format!("{now:?} {input:?}");
            link.handle(now, input);
            copy.handle(now + lead, input);
        });
        let outputs = script.outputs(&mut link, Span::ZERO);
        assert_eq!(script.outputs(&mut copy, lead), outputs, "seed {seed}, step {step}, {said}");
        let next = copy.next_deadline().map(|next| Deadline { at: next.at - lead, ..next });
        assert_eq!(next, link.next_deadline(), "seed {seed}, step {step}, {said}");
        assert_eq!(copy.rtt(), link.rtt());
        assert_eq!(copy.last_heard() - lead, link.last_heard());
        let entries =
            copy.flight().iter().map(|it| crate::flight::Entry { at: it.at - lead, ..it });
        assert!(entries.eq(link.flight().iter()), "seed {seed}, step {step}, {said}");
        history.extend(outputs);
        if link.next_deadline().is_none() && history.last().is_some_and(|it| it.contains("Close("))
        {
            break;
        }
    }
    history
}

#[test]
fn a_link_that_is_saved_and_loaded_at_every_input_goes_on_the_same() {
    let mut seen = String::new();
    for seed in 0..SEEDS {
        let history = compare(seed, Span::from_nanos(u64::MAX), |_| Span::ZERO);
        seen.push_str(&history.concat());
    }
    // The runs reach what they are to prove.
    for word in [
        "Established",
        "Suspect",
        "Warned",
        "Recovered",
        "Overdue",
        "Hung",
        "HeartbeatData",
        "Retuned",
        "RoundTrip",
        "StalledFrame",
        "PeerExited",
        "Admit",
        "Patience",
        "AppHung",
        "PeerClosed",
        "HandshakeTimeout",
        "account: Some",
    ] {
        assert!(seen.contains(word), "{word} never happened");
    }
}

#[test]
fn a_link_that_moves_to_another_clock_at_every_input_goes_on_the_same() {
    for seed in 0..SEEDS {
        compare(seed, Span::from_secs(1_000), |clocks| {
            // Beyond four years outstanding bytes cause no examination.
            let bits = clocks.below(29);
            UNIT.times(clocks.below(1 << bits))
        });
    }
}

/// Returns a state of a random run, its time, and the link.
fn any_state(seed: u64, settings: Option<&Settings>) -> (Script, Link, Time, Vec<u8>) {
    let mut script = Script::new(seed, Span::from_secs(1_000));
    if let Some(settings) = settings {
        script.settings = settings.clone();
    }
    let mut now = Time::from_millis(1_000_000);
    let mut link = Link::new(now, script.settings.clone(), seed);
    script.outputs(&mut link, Span::ZERO);
    let mut last = (now, save(&link, now));
    for _ in 0..script.random.below(40) {
        now = script.time(now, link.next_deadline());
        script.with_input(|input| link.handle(now, input));
        script.outputs(&mut link, Span::ZERO);
        if link.next_deadline().is_some() {
            last = (now, save(&link, now));
        }
    }
    let (now, state) = last;
    let link = load(now, script.settings.clone(), &state).unwrap();
    (script, link, now, state)
}

#[test]
fn a_state_that_was_cut_is_refused_and_a_damaged_one_does_no_harm() {
    let mut refused = 0;
    let mut loaded = 0;
    for seed in 0..40 {
        let (mut script, _, saved, state) = any_state(seed, None);
        for length in 0..state.len() {
            let cut = load(saved, script.settings.clone(), &state[..length]);
            assert!(cut.is_err(), "seed {seed}, {length} of {} bytes", state.len());
        }
        for place in 0..state.len() {
            let mut damaged = state.clone();
            damaged[place] ^= 1 + script.random.below(255) as u8;
            let Ok(mut link) = Link::load(saved, script.settings.clone(), &mut damaged.as_slice())
            else {
                refused += 1;
                continue;
            };
            loaded += 1;
            let mut now = saved;
            for _ in 0..20 {
                now = script.time(now, link.next_deadline());
                script.with_input(|input| link.handle(now, input));
                script.outputs(&mut link, Span::ZERO);
                assert!(
                    link.flight().iter().all(|entry| !format!("{}", entry.incident).is_empty())
                );
                save(&link, now);
            }
        }
    }
    assert!(refused > 1_000 && loaded > 1_000, "{refused} {loaded}");
}

#[test]
fn damage_that_would_never_end_or_take_memory_is_refused() {
    let settings = Settings::new(Codec::Native, Side::Accepting, policy());
    let now = Time::from_millis(1);
    let mut link = Link::new(now, settings.clone(), 1);
    link.handle(now, World::Received(b"\x30\xff"));
    let state = save(&link, now);
    let held = state.windows(2).position(|pair| pair == b"\x30\xff").unwrap();
    // In front of the two bytes: their memory, the length of the frame, its time, their number.
    let announced = |place: usize, value: u32| {
        let mut state = state.clone();
        state[place..place + 4].copy_from_slice(&value.to_le_bytes());
        load(now, settings.clone(), &state).err()
    };
    assert_eq!(announced(held - 4, u32::MAX), Some(Damage::Truncated));
    let capacity = held - 4 - 9 - 8;
    assert_eq!(announced(capacity, 32), None, "as it is");
    assert_eq!(announced(capacity, 33), Some(Damage::Illegal));
    assert_eq!(announced(capacity, 1), Some(Damage::Illegal));
    assert_eq!(announced(capacity + 4, u32::MAX), Some(Damage::Illegal));
    let line = Settings { codec: Codec::Line, ..settings.clone() };
    assert_eq!(load(now, line, &state).err(), Some(Damage::Settings));
    // A piece of no bytes would be sent for ever.
    let whole = (PIECE as u16).to_le_bytes();
    let place = state.windows(2).rposition(|pair| pair == whole).unwrap();
    let mut endless = state.clone();
    endless[place..place + 2].copy_from_slice(&[0, 0]);
    assert_eq!(load(now, settings, &endless).err(), Some(Damage::Illegal));
}

/// Lets the deadlines of `link` pass until it ends. Returns how long after `now` that is.
fn end_of_silence(mut link: Link, now: Time) -> Option<Span> {
    let mut steps = Steps::default();
    while let Some(next) = link.next_deadline() {
        let at = next.at.max(now);
        steps.count(at);
        link.handle(at, Answer::Deadline);
        while let Some(output) = link.poll_output() {
            if let Output::Session(session::Event::Left(verdict)) = output {
                return Some(verdict.at.since(now));
            }
        }
        if at.since(now) > Span::from_secs(2_000) {
            break;
        }
    }
    None
}

#[test]
fn on_a_clock_too_young_for_its_ages_a_silence_ends_late_and_never_early() {
    let (mut late, mut exact) = (0, 0);
    for seed in 0..1_000 {
        let mut random = Random::new(seed);
        let settings = Settings { examines: false, ..settings(&mut random) };
        let (script, link, now, state) = any_state(seed, Some(&settings));
        let young = Time::from_nanos(random.below(5_000_000_000));
        let moved = load(young, script.settings.clone(), &state).unwrap();
        assert!(moved.flight().iter().all(|entry| entry.at <= young), "seed {seed}");
        let (ends, moved_ends) = (end_of_silence(link, now), end_of_silence(moved, young));
        if let (Some(ends), Some(moved_ends)) = (ends, moved_ends) {
            assert!(moved_ends >= ends, "seed {seed}: {moved_ends} instead of {ends}");
            late += u32::from(moved_ends > ends);
            exact += u32::from(moved_ends == ends);
        }
    }
    assert!(late > 10 && exact > 10, "{late} {exact}");
}

#[test]
fn a_verdict_that_waits_for_nothing_is_refused() {
    let mut link = link(Hung::End);
    let now = Time::from_millis(3_000);
    while let Some(next) = link.next_deadline() {
        link.handle(next.at, Answer::Deadline);
        while link.poll_output().is_some() {}
    }
    let state = save(&link, now);
    assert!(load(now, link.settings.clone(), &state).is_ok(), "it waits for its examination");
    // The bound and its silence: when it was due, no stretch, the last evidence, four probes, no
    // handshake.
    let last_heard = (-3_000_000_000_i64).to_le_bytes();
    let awaiting = [&[1, 0][..], &[0; 16], &last_heard, &[4, 0]].concat();
    let at = state.windows(awaiting.len()).position(|bytes| bytes == awaiting).unwrap();
    let without = [&state[..at], &[0], &state[at + awaiting.len()..]].concat();
    assert_eq!(load(now, link.settings.clone(), &without).err(), Some(Damage::Illegal));
}
