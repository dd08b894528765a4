//! Logins at a listener that protects the sessions that answer.

use super::*;
use crate::denial::Denial;
use crate::link::{Lane, Logins};
use crate::session;
use crate::wire::Close;

/// The hub of one listener, and what it has said about the links 0 to 2.
struct Bench {
    hub: Driver<Hub>,
    now: Time,
    seen: Seen,
}

/// What each link has been told, and what has been told of it.
#[derive(Default)]
struct Seen {
    left: [Option<Cause>; 3],
    joined: [bool; 3],
    refused: [Option<CloseReason>; 3],
    pinged: [u32; 3],
    /// The number of links that were refused, the other links included.
    all_refused: usize,
}

fn protected(policy: Policy) -> Hub {
    let mut listener = link::Settings::new(Codec::Native, Side::Accepting, policy);
    listener.logins = Logins { refuse: true, ..Logins::NEWEST };
    Hub::new(super::super::Settings {
        shard: 0,
        homes: Homes::SINGLE,
        listeners: Vec::from([listener]),
        seed: 42,
        frame_memory: FRAME_MEMORY,
        window_memory: WINDOW_MEMORY,
        away: AWAY_SESSIONS,
    })
}

impl Bench {
    fn new(policy: Policy) -> Bench {
        let hub = Driver::new(Time::ZERO, protected(policy));
        Bench { hub, now: Time::ZERO, seen: Seen::default() }
    }

    fn log_in(&mut self, link: u32) {
        self.hub.handle(self.now, World::Opened { link, listener: 0, address: ADDRESS });
        let bytes = hello("ada", &[]);
        self.receive(link, &bytes);
    }

    fn receive(&mut self, link: u32, bytes: &[u8]) {
        let input = link::World::Received(bytes);
        self.hub.handle(self.now, World::Link { link, input });
        self.drain();
    }

    /// Lets time pass, in steps in which each deadline is met.
    fn pass(&mut self, millis: u64) {
        for _ in 0..millis {
            self.now = self.now + Span::from_millis(1);
            self.hub.expire(self.now, self.now);
            while let Some(link) = self.hub.poll_read() {
                self.hub.judge(self.now, link);
            }
            self.drain();
        }
    }

    fn drain(&mut self) {
        loop {
            let answer: Input<'_> = match self.hub.poll_output() {
                None => return,
                Some(Output::Admit { link, admission }) => {
                    let heard_at = Span::from_millis(self.now.as_millis());
                    World::Identified { link, admission, login: Login::claim(heard_at) }.into()
                }
                Some(Output::Own { session, .. }) => {
                    Answer::Owned { session, epoch: self.now.as_nanos() + 1, fresh: None }.into()
                }
                Some(Output::Link { link, output }) => {
                    self.seen.note(link as usize, output);
                    continue;
                }
                Some(Output::GoHome { .. } | Output::HandedOver { .. }) => panic!("one shard"),
                Some(Output::Resume { .. } | Output::Session { .. }) => panic!("nobody is away"),
            };
            self.hub.handle(self.now, answer);
        }
    }

    fn reload(&mut self) {
        self.hub.reload(self.now, protected(Policy::default())).unwrap();
    }
}

impl Seen {
    fn note(&mut self, link: usize, output: link::Output<'_>) {
        match output {
            link::Output::Transmit { bytes, .. } => {
                match Decoder::new(Codec::Native, 0).next(&mut &*bytes) {
                    Ok(Some(Frame::Ping(_))) => self.pinged[link] += 1,
                    Ok(Some(Frame::Close(Close { reason, .. }))) => {
                        self.all_refused += 1;
                        set(&mut self.refused, link, Some(reason));
                    }
                    _ => {}
                }
            }
            link::Output::Session(session::Event::Joined { .. }) => {
                set(&mut self.joined, link, true);
            }
            link::Output::Session(session::Event::Left(verdict)) => {
                set(&mut self.left, link, Some(verdict.cause));
            }
            link::Output::Session(_)
            | link::Output::Event(_)
            | link::Output::Examine { .. }
            | link::Output::Patience(_)
            | link::Output::Admit
            | link::Output::Close(_) => {}
        }
    }
}

/// Sets what is known of a link, if it is one of those that are looked at.
fn set<T>(known: &mut [T], link: usize, value: T) {
    if let Some(known) = known.get_mut(link) {
        *known = value;
    }
}

/// A PONG of the native codec, with sequence 0.
const PONG: &[u8] = &[0x20, 0];

#[test]
fn a_session_that_answers_keeps_its_place() {
    for reloads in [false, true] {
        let mut bench = Bench::new(Policy::default());
        bench.log_in(0);
        bench.pass(100);
        bench.log_in(1);
        assert_eq!(
            (bench.seen.pinged[0], bench.seen.joined),
            (1, [true, false, false]),
            "asked at once"
        );
        if reloads {
            bench.reload();
        }
        bench.pass(900);
        bench.receive(0, PONG);
        assert_eq!(bench.seen.refused, [None, Some(CloseReason::Full), None]);
        assert_eq!(bench.seen.left, [None, Some(Cause::Refused(Denial::InUse)), None]);
        // The next login asks again.
        bench.log_in(2);
        assert_eq!(bench.seen.pinged[0], 2);
    }
}

#[test]
fn a_session_that_does_not_answer_is_replaced() {
    for (policy, reloads) in
        [(Policy::default(), false), (Policy::default(), true), (Policy::never(), false)]
    {
        let mut bench = Bench::new(policy);
        bench.log_in(0);
        bench.pass(100);
        bench.log_in(1);
        bench.pass(900);
        if reloads {
            bench.reload();
        }
        assert_eq!(bench.seen.joined, [true, false, false], "its patience lasts");
        bench.pass(101);
        assert_eq!(bench.seen.joined, [true, true, false]);
        assert_eq!(bench.seen.left, [Some(Cause::Replaced), None, None]);
        assert_eq!(bench.seen.refused, [Some(CloseReason::Replaced), None, None]);
    }
}

#[test]
fn a_suspect_never_keeps_its_place() {
    let mut bench = Bench::new(Policy::default());
    bench.log_in(0);
    bench.pass(16_100);
    bench.log_in(1);
    assert_eq!(bench.seen.joined, [true, true, false], "at once");
    assert_eq!(bench.seen.left, [Some(Cause::Replaced), None, None]);
}

#[test]
fn a_contest_ends_with_either_of_its_links() {
    // The older session ends, or the newer login.
    for lost in [0, 1] {
        let mut bench = Bench::new(Policy::default());
        bench.log_in(0);
        bench.pass(100);
        bench.log_in(1);
        bench.log_in(2);
        assert_eq!(bench.seen.pinged[0], 1, "one newer login at a time has its turn");
        let input = link::World::Failed(SocketError::Reset);
        bench.hub.handle(bench.now, World::Link { link: lost, input });
        bench.drain();
        if lost == 0 {
            // Of those that waited, the newest comes last and stays.
            assert!(bench.seen.joined[1]);
            bench.pass(50);
        }
        assert_eq!(bench.seen.refused[2], None, "the next login has its turn");
        bench.pass(1_001);
        assert!(bench.seen.joined[2]);
        assert_eq!(bench.seen.left.map(|cause| cause.is_some()), [true, true, false]);
        assert!(bench.hub.machine().contests.is_empty());
    }
}

#[test]
fn of_a_storm_of_logins_a_few_wait_and_the_newest_stays() {
    let mut bench = Bench::new(Policy::default());
    bench.log_in(0);
    bench.pass(100);
    // The first of them has its turn, and 32 others wait.
    for link in 1..=100 {
        bench.pass(1);
        bench.log_in(link);
    }
    assert_eq!(bench.seen.all_refused, 100 - 1 - 32);
    assert_eq!((bench.seen.refused[1], bench.seen.refused[2]), (None, Some(CloseReason::Full)));
    assert_eq!(bench.seen.left[2], Some(Cause::Refused(Denial::Waiting)));
    bench.pass(1_001);
    assert!(bench.seen.joined[1], "the oldest does not answer");
    // Those that waited are newer: the newest of them takes the place of the one before it.
    bench.pass(1_001);
    assert_eq!(bench.seen.left[1], Some(Cause::Replaced));
    assert_eq!(bench.hub.machine().counters().online, 1);
    assert_eq!(
        bench.hub.machine().presence(100).map(|known| known.established.is_some()),
        Some(true)
    );
    assert_eq!(bench.seen.all_refused, 100, "all others were told");
}

#[test]
fn an_identity_that_logs_in_too_often_is_sent_away_for_a_time() {
    for reloads in [false, true] {
        let limited = || {
            let mut hub = protected(Policy::default());
            hub.listeners[0].logins = Logins { per_minute: 6, ..Logins::NEWEST };
            hub
        };
        let mut bench = Bench::new(Policy::default());
        bench.hub = Driver::new(Time::ZERO, limited());
        // Six at once: each takes the place of the one before it.
        for link in 10..16 {
            bench.pass(1);
            bench.log_in(link);
        }
        if reloads {
            bench.hub.reload(bench.now, limited()).unwrap();
        }
        bench.pass(1);
        bench.log_in(0);
        assert_eq!(bench.seen.refused[0], Some(CloseReason::Full));
        assert_eq!(bench.seen.left[0], Some(Cause::Refused(Denial::TooOften)));
        let online = bench.hub.machine().presence(15).map(|known| known.established.is_some());
        assert_eq!(online, Some(true), "the session in force stays");
        // What was refused costs nothing: a tenth of a minute later there is room for one.
        bench.pass(10_000);
        bench.log_in(1);
        assert!(bench.seen.joined[1]);
        bench.log_in(2);
        assert_eq!(bench.seen.left[2], Some(Cause::Refused(Denial::TooOften)));
    }
}

#[test]
fn a_link_that_has_not_logged_in_gives_way_at_once_and_a_session_never() {
    let mut bench = Bench::new(Policy::default());
    bench.log_in(0);
    assert!(bench.seen.joined[0]);
    // One that says nothing, and one whose login nobody has answered.
    bench.hub.handle(bench.now, World::Opened { link: 1, listener: 0, address: ADDRESS });
    bench.hub.handle(bench.now, World::Opened { link: 2, listener: 0, address: ADDRESS });
    bench.drain();
    let bytes = hello("bob", &[]);
    let input = link::World::Received(&bytes);
    bench.hub.handle(bench.now, World::Link { link: 2, input });
    for link in 0..3 {
        bench.hub.handle(bench.now, World::Crowded { link });
    }
    bench.hub.handle(bench.now, World::Crowded { link: 77 });
    let mut closed = Vec::new();
    while let Some(output) = bench.hub.poll_output() {
        match output {
            Output::Link { link, output: link::Output::Close(closing) } => {
                closed.push((link, closing));
            }
            Output::Link { link, output: link::Output::Transmit { bytes, lane } } => {
                let full = bytes.get(2) == Some(&CloseReason::Full.to_byte());
                assert!(link > 0 && lane == Lane::Control && full, "{bytes:x?}");
            }
            Output::Link { link, output: link::Output::Session(session::Event::Left(it)) } => {
                assert_eq!(it.cause, Cause::Refused(Denial::Crowded), "{link}");
            }
            Output::Link { .. }
            | Output::Admit { .. }
            | Output::Own { .. }
            | Output::GoHome { .. }
            | Output::Resume { .. }
            | Output::Session { .. }
            | Output::HandedOver { .. } => {}
        }
    }
    // No leave is taken, which would hold the place.
    assert_eq!(closed, [(1, link::Closing::Abort), (2, link::Closing::Abort)]);
    assert_eq!(bench.hub.machine().counters().links, 1);
}
