//! The inquiry into a suspect peer: the examinations that are requested, and the verdict.
//!
//! Each link of these tests is saved and loaded before each of its inputs.

mod admission;
mod by_rule;
mod combined;
mod half_close;
mod kept;
mod outstanding;
mod patience;
mod progress;
mod requested;
mod reset;
mod retune;
mod round_trip;
mod saved;
mod stalled_frame;
mod warned;
mod window;

use crate::session;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

use super::*;
use crate::cause::{Cause, Direction, Scope, Verdict};
use crate::diagnosis::{Ground, Grounds};
use crate::kernel::{Examination, NextHop, SocketError, TcpSnapshot};
use crate::wire::{Codec, DataKind, Frame, Hello};

/// A link that is saved, and loaded into a fresh one, before each input.
#[derive(Debug)]
struct Link(super::Link);

impl Link {
    fn new(now: Time, settings: Settings, seed: u64) -> Link {
        Link(super::Link::new(now, settings, seed))
    }

    fn handle<'a>(&mut self, now: Time, input: impl Into<Input<'a>>) {
        // Some tests poll no outputs between two inputs.
        let outbound = core::mem::take(&mut self.0.outbound);
        let mut state = Vec::new();
        self.0.save(now, &mut state);
        let mut rest = state.as_slice();
        let mut loaded = super::Link::load(now, self.0.settings.clone(), &mut rest).unwrap();
        assert!(rest.is_empty());
        assert_eq!(loaded.next_deadline(), self.0.next_deadline());
        assert!(loaded.flight().iter().eq(self.0.flight().iter()));
        loaded.outbound = outbound;
        self.0 = loaded;
        self.0.handle(now, input);
    }
}

impl Deref for Link {
    type Target = super::Link;

    fn deref(&self) -> &super::Link {
        &self.0
    }
}

impl DerefMut for Link {
    fn deref_mut(&mut self) -> &mut super::Link {
        &mut self.0
    }
}

/// Idle 1 s, interval 0.5 s, 4 probes: suspect at 1.5 s, D = 3 s.
fn policy() -> Policy {
    let policy = Policy::new(Span::from_secs(1), Span::from_millis(500), 4).unwrap();
    policy.with_spread(false)
}

/// An accepting `line` link whose handshake was complete at time zero.
fn link(hung: Hung) -> Link {
    let settings =
        Settings { examines: true, hung, ..Settings::new(Codec::Line, Side::Accepting, policy()) };
    let mut link = Link::new(Time::ZERO, settings, 1);
    link.handle(Time::ZERO, World::Received(b"ping\n"));
    admit(&mut link, Time::ZERO);
    while link.poll_output().is_some() {}
    link
}

/// The bytes of a native client's HELLO.
fn hello() -> Vec<u8> {
    let mut bytes = Vec::new();
    Codec::Native.encode(&Frame::Hello(Hello::default()), &mut bytes);
    bytes
}

/// Admits the peer of `link`.
fn admit(link: &mut Link, now: Time) {
    link.handle(now, Answer::admitted(SessionKey::default()));
}

/// The most inputs that a helper hands in until a link comes to rest: ten times what tests need.
const MOST_STEPS: u32 = 20_000;

/// Counts the inputs that a helper hands in, so that a link which never comes to rest fails its
/// test.
#[derive(Default)]
struct Steps(u32);

impl Steps {
    /// Counts the input that the link wants at `now`.
    fn count(&mut self, now: Time) {
        self.0 += 1;
        let at = now.as_millis();
        assert!(self.0 <= MOST_STEPS, "no rest after {MOST_STEPS} inputs, the last at {at} ms");
    }
}

/// What happened in a run of a link, with times in milliseconds.
#[derive(Default)]
struct Run {
    steps: Steps,
    examinations: Vec<u64>,
    hung: Vec<(u64, Cause)>,
    recovered: Vec<u64>,
    lost: Option<(u64, Verdict)>,
}

/// Runs `link` until it is lost or `until`; each examination shows what `shows` returns for its
/// time in milliseconds.
fn run(link: &mut Link, until: u64, shows: impl Fn(u64) -> TcpSnapshot) -> Run {
    let mut run = Run::default();
    while let Some(next) = link.next_deadline().filter(|next| next.at <= Time::from_millis(until)) {
        let now = next.at;
        run.steps.count(now);
        link.handle(now, Answer::Deadline);
        poll(link, now, &shows, &mut run);
        if run.lost.is_some() {
            break;
        }
    }
    run
}

/// Polls all outputs of `link` into `run`, and answers its examinations.
fn poll(link: &mut Link, now: Time, shows: &impl Fn(u64) -> TcpSnapshot, run: &mut Run) {
    let millis = now.as_millis();
    let mut examine = true;
    while examine {
        examine = false;
        while let Some(output) = link.poll_output() {
            match output {
                Output::Examine { .. } => examine = true,
                Output::Session(session::Event::Hung { cause, .. }) => {
                    run.hung.push((millis, cause))
                }
                Output::Session(session::Event::Recovered) => run.recovered.push(millis),
                Output::Session(session::Event::Left(verdict)) => {
                    run.lost = Some((millis, verdict))
                }
                Output::Session(_)
                | Output::Event(_)
                | Output::Transmit { .. }
                | Output::Patience(_)
                | Output::Admit
                | Output::Close(_) => {}
            }
        }
        if examine {
            run.steps.count(now);
            run.examinations.push(millis);
            let tcp = Some(shows(millis));
            link.handle(now, Answer::Examined(Examination { tcp, ..Examination::default() }));
        }
    }
}

/// The socket of a peer whose kernel acknowledges each heartbeat, of five bytes, while its
/// application does nothing.
fn acknowledging(millis: u64) -> TcpSnapshot {
    TcpSnapshot {
        notsent: Some(0),
        last_ack: Span::from_millis(40),
        bytes_acked: Some(millis / 500 * 5),
        send_window: Some(60_000),
        ..TcpSnapshot::default()
    }
}

#[test]
fn a_suspect_is_examined_with_each_probe_and_at_the_bound() {
    let mut link = link(Hung::End);
    let run = run(&mut link, 10_000, acknowledging);
    assert_eq!(run.examinations, [1_500, 2_000, 2_500, 3_000], "suspicion, two more probes, bound");
    let (at, verdict) = run.lost.unwrap();
    assert_eq!((at, verdict.cause), (3_000, Cause::AppHung));
    assert_eq!(verdict.due, Time::from_millis(3_000));
    assert!(verdict.grounds.contains(Ground::BytesAcknowledged) && verdict.is_silence());
}

#[test]
fn evidence_ends_the_examinations() {
    let mut link = link(Hung::End);
    run(&mut link, 2_000, acknowledging);
    link.handle(Time::from_millis(2_100), World::Received(b"pong\n"));
    while link.poll_output().is_some() {}
    let silent = run(&mut link, 4_500, acknowledging);
    assert_eq!(silent.examinations.first(), Some(&3_600), "at the next suspicion");
}

#[test]
fn slow_progress_is_evidence_and_progress_below_the_floor_is_not() {
    let taking = |per_second: u64| {
        move |millis: u64| TcpSnapshot {
            notsent: Some(1_000_000),
            bytes_acked: Some(millis * per_second / 1_000),
            ..acknowledging(0)
        }
    };
    let mut slow = link(Hung::End);
    let lived = run(&mut slow, 180_000, taking(55_000));
    assert!(lived.lost.is_none(), "ten megabytes in three minutes");
    assert!(!lived.recovered.is_empty());
    let mut stuck = link(Hung::End);
    let died = run(&mut stuck, 180_000, taking(1));
    assert_eq!(died.lost.map(|(at, _)| at), Some(3_000));
}

#[test]
fn a_shell_that_does_not_examine_forfeits_the_examination() {
    let mut link = link(Hung::End);
    let mut last = Time::ZERO;
    for _ in 0..7 {
        let Some(next) = link.next_deadline() else { break };
        last = next.at;
        link.handle(last, Answer::Deadline);
        while link.poll_output().is_some() {}
    }
    assert_eq!(last, Time::from_millis(3_000));
    link.handle(Time::from_millis(3_001), World::Received(b"too late\n"));
    let outputs = core::iter::from_fn(|| {
        link.poll_output().map(|output| match output {
            Output::Session(session::Event::Left(verdict)) => Some(verdict.cause),
            Output::Session(_)
            | Output::Event(_)
            | Output::Transmit { .. }
            | Output::Examine { .. }
            | Output::Patience(_)
            | Output::Admit
            | Output::Close(_) => None,
        })
    });
    assert_eq!(outputs.flatten().next(), Some(Cause::Unknown));
}

#[test]
fn acknowledged_heartbeats_are_no_progress_even_if_long() {
    let settings = Settings {
        examines: true,
        ..Settings::new(Codec::Message1028, Side::Connecting(Introduction::default()), policy())
    };
    let mut link = Link::new(Time::ZERO, settings, 1);
    while link.poll_output().is_some() {}
    let shows = |millis: u64| TcpSnapshot {
        bytes_acked: Some((millis / 500 - 1) * 1_028),
        ..acknowledging(0)
    };
    let (at, verdict) = run(&mut link, 10_000, shows).lost.unwrap();
    assert_eq!((at, verdict.cause), (3_000, Cause::AppHung));
}
