//! Sessions that are away: how they end, how many there are, and who may resume them.

use super::*;
use crate::link::{WhenFull, Windows};
use crate::resume::{Digest, Fresh, NotResumed, Token};
use crate::window::Limits;
use crate::wire::{Resume, Resumption, WINDOWS};

const OUTLIVES: Span = Span::from_secs(30);
const LIMITS: Limits = Limits { messages: 4, bytes: 1_000 };

/// A hub at rest, and what its peers were told.
struct Bench {
    hub: Driver<Hub>,
    now: Time,
    /// What was said to each link.
    said: BTreeMap<u32, Vec<u8>>,
    /// The events of sessions, in order.
    events: Vec<(u64, session::Event)>,
    admissions: BTreeMap<u32, u32>,
    epoch: u64,
    grant: Grant<'static>,
    address: SocketAddr,
    /// Whether each session that was opened needs a token.
    wanted: Vec<bool>,
}

fn digest(token: &[u8]) -> Digest {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(token).for_each(|(to, byte)| *to = !byte);
    Digest(bytes)
}

fn fresh(of: u8) -> Fresh {
    Fresh { token: Token([of; 16]), digest: digest(&[of; 16]) }
}

impl Bench {
    fn new(full: WhenFull, away: u32) -> Bench {
        let windows = Windows::new(LIMITS, link::Takes::AtOnce);
        let window = Some(Windows { outlives: OUTLIVES, full, ..windows });
        let native = link::Settings::new(Codec::Native, Side::Accepting, Policy::default());
        let listener = link::Settings { window, ..native };
        let settings = super::super::Settings {
            shard: 0,
            homes: Homes::SINGLE,
            listeners: Vec::from([listener.clone(), listener]),
            seed: 42,
            frame_memory: FRAME_MEMORY,
            window_memory: WINDOW_MEMORY,
            away,
        };
        Bench {
            hub: Driver::new(Time::ZERO, Hub::new(settings)),
            now: Time::from_millis(1_000),
            said: BTreeMap::new(),
            events: Vec::new(),
            admissions: BTreeMap::new(),
            epoch: 0,
            grant: Grant::default(),
            address: ADDRESS,
            wanted: Vec::new(),
        }
    }

    fn handle<'a>(&mut self, input: impl Into<Input<'a>>) {
        self.hub.handle(self.now, input);
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            let answer: Input<'_> = match self.hub.poll_output() {
                None => return,
                Some(Output::Admit { link, admission }) => {
                    let login = Login { grant: self.grant, ..Login::claim(Span::ZERO) };
                    World::Identified { link, admission, login }.into()
                }
                Some(Output::Own { session, .. }) => {
                    self.wanted.push(self.hub.machine().may_outlive_its_link(session));
                    self.epoch += 1;
                    let (epoch, fresh) = (self.epoch, Some(fresh(1)));
                    Answer::Owned { session, epoch, fresh }.into()
                }
                Some(Output::Resume { link, admission, .. }) => {
                    self.admissions.insert(link, admission);
                    continue;
                }
                Some(Output::Session { session, event }) => {
                    assert!(
                        self.hub.machine().absence(session).is_some(),
                        "it is shown until then"
                    );
                    self.events.push((session, event));
                    continue;
                }
                Some(Output::Link { link, output: link::Output::Session(event) }) => {
                    let session = self.hub.machine().presence(link).unwrap().session;
                    self.events.push((session, event));
                    continue;
                }
                Some(Output::Link { link, output: link::Output::Transmit { bytes, .. } }) => {
                    self.said.entry(link).or_default().extend_from_slice(bytes);
                    continue;
                }
                Some(Output::Link { .. }) => continue,
                Some(Output::GoHome { .. } | Output::HandedOver { .. }) => panic!("one shard"),
            };
            self.hub.handle(self.now, answer);
        }
    }

    fn hello(&mut self, link: u32, listener: u16, identity: &str, resume: Option<Resume<'_>>) {
        self.handle(World::Opened { link, listener, address: self.address });
        let hello = Hello { capabilities: WINDOWS, identity, resume, ..Hello::default() };
        let mut bytes = Vec::new();
        Codec::Native.encode(&Frame::Hello(hello), &mut bytes);
        self.receive(link, &bytes);
    }

    fn receive(&mut self, link: u32, bytes: &[u8]) {
        self.handle(World::Link { link, input: link::World::Received(bytes) });
    }

    /// Logs in on a link; returns the session.
    fn log_in(&mut self, link: u32, identity: &str) -> u64 {
        self.hello(link, 0, identity, None);
        self.events.clear();
        self.hub.machine().presence(link).unwrap().session
    }

    fn cut(&mut self, link: u32) {
        let input = link::World::Failed(SocketError::TimedOut);
        self.handle(World::Link { link, input });
    }

    /// Asks to resume a session on a link with the token `shown`, and answers with `next`.
    fn resume(&mut self, link: u32, session: u64, epoch: u64, (shown, next): (u8, u8)) {
        let token = &[shown; 16];
        self.hello(link, 0, "", Some(Resume { session, epoch, received: 0, token }));
        self.answer(link, next);
    }

    fn answer(&mut self, link: u32, next: u8) {
        let admission = self.admissions[&link];
        let shown = digest(self.hub.machine().shown(link));
        self.handle(Answer::Resumed { link, admission, shown, fresh: fresh(next) });
    }

    fn pass(&mut self, span: Span) {
        self.now = self.now + span;
        for _ in 0..4 {
            self.hub.expire(self.now, self.now);
            self.drain();
        }
    }

    /// Returns the outcome and the token in the WELCOME to a link; `None` if it got none.
    fn welcome(&self, link: u32) -> Option<(Resumption, Vec<u8>)> {
        let mut decoder = Decoder::new(Codec::Native, 65_536);
        let frame = decoder.next(&mut &self.said.get(&link)?[..]).unwrap()?;
        let Frame::Welcome(welcome) = frame else { panic!("{frame:?}") };
        Some((welcome.resumption, welcome.resume_token.to_vec()))
    }

    fn is_closed_with(&self, link: u32, reason: CloseReason) -> bool {
        let mut decoder = Decoder::new(Codec::Native, 65_536);
        let said = self.said.get(&link).map_or(&[][..], |said| said);
        matches!(decoder.next(&mut &*said), Ok(Some(Frame::Close(close))) if close.reason == reason)
    }

    fn left(&self) -> Vec<(u64, Cause)> {
        let left = self.events.iter().filter_map(|(session, event)| {
            let session::Event::Left(verdict) = event else { return None };
            Some((*session, verdict.cause))
        });
        left.collect()
    }

    fn send(&mut self, session: u64, bytes: &[u8]) {
        let command = link::Command::Send { bytes, more: false, kind: DataKind::Eleven };
        self.handle(World::Session { session, command });
    }

    fn away(&self) -> u32 {
        self.hub.machine().counters().away
    }
}

#[test]
fn a_session_is_away_until_its_time_is_over_to_the_millisecond() {
    let mut bench = Bench::new(WhenFull::End, 10);
    let session = bench.log_in(0, "ada");
    bench.cut(0);
    let away = bench.events.pop().unwrap();
    let session::Event::Away { verdict, until } = away.1 else { panic!("{away:?}") };
    assert_eq!((away.0, until), (session, bench.now + OUTLIVES));
    assert_eq!(bench.hub.machine().absent_sessions_of("ada"), [session]);
    assert_eq!(bench.hub.next_deadline(), Some(until));
    bench.pass(Span::from_nanos(OUTLIVES.as_nanos() - 1));
    assert!(bench.left().is_empty() && bench.away() == 1);
    bench.pass(Span::from_nanos(1));
    assert_eq!(bench.left(), [(session, verdict.cause)]);
    bench.log_in(9, "any input");
    assert!(bench.hub.machine().absence(session).is_none() && bench.away() == 0);
    assert!(bench.hub.machine().sessions.find(session).is_none(), "its place is free");
    bench.resume(1, session, 1, (1, 2));
    let outcome = bench.welcome(1).unwrap().0;
    assert_eq!(outcome, Resumption::Refused(NotResumed::Expired));
    bench.resume(2, session, 1, (9, 2));
    let outcome = bench.welcome(2).unwrap().0;
    assert_eq!(outcome, Resumption::Refused(NotResumed::Unknown), "not to a stranger");
}

#[test]
fn a_token_is_good_once_and_until_the_peer_is_heard_the_former_one_too() {
    let mut bench = Bench::new(WhenFull::End, 10);
    let session = bench.log_in(0, "ada");
    bench.cut(0);
    bench.resume(1, session, 1, (1, 2));
    assert_eq!(bench.welcome(1).unwrap(), (Resumption::Resumed { gap: 0 }, [2; 16].to_vec()));
    // Its WELCOME is lost, so it shows the same token again, and gets the same next one.
    bench.cut(1);
    bench.resume(2, session, 1, (1, 3));
    assert_eq!(bench.welcome(2).unwrap().1, [2; 16]);
    // Half a CLOSE of a client that has given up on its handshake is no sign that it knows more.
    bench.receive(2, &[0x70, 7, 3]);
    bench.cut(2);
    bench.resume(5, session, 1, (1, 3));
    assert_eq!(bench.welcome(5).unwrap().1, [2; 16]);
    bench.receive(5, &[0x10, 1]);
    bench.resume(3, session, 1, (1, 4));
    assert!(bench.is_closed_with(3, CloseReason::Unauthorized));
    assert_eq!(bench.hub.machine().find(session), Some(5), "the session is not touched");
    bench.resume(4, session, 1, (2, 5));
    assert_eq!(bench.welcome(4).unwrap().1, [5; 16]);
    assert_eq!(bench.hub.machine().find(session), Some(4), "from a link that still stands");
    let counters = bench.hub.machine().counters();
    assert_eq!((counters.resumed, counters.resumptions_refused), (4, 1));
}

#[test]
fn what_is_not_the_session_of_the_peer_is_not_resumed() {
    let unknown = Some(Resumption::Refused(NotResumed::Unknown));
    let outcome = |listener, identity, session_off, epoch| {
        let mut bench = Bench::new(WhenFull::End, 10);
        let session = bench.log_in(0, "ada") + session_off;
        bench.cut(0);
        let token = &[1; 16];
        let resume = Some(Resume { session, epoch, received: 0, token });
        bench.hello(1, listener, identity, resume);
        bench.answer(1, 2);
        let refused = bench.is_closed_with(1, CloseReason::Unauthorized);
        if refused { None } else { bench.welcome(1).map(|(outcome, _)| outcome) }
    };
    assert_eq!(outcome(0, "ada", 0, 1), Some(Resumption::Resumed { gap: 0 }));
    assert_eq!(
        outcome(0, "", 0, 1),
        Some(Resumption::Resumed { gap: 0 }),
        "it need not be claimed"
    );
    assert_eq!(outcome(0, "eve", 0, 1), None);
    assert_eq!(outcome(1, "ada", 0, 1), unknown, "at another listener");
    assert_eq!(outcome(0, "ada", 0, 2), unknown, "of another epoch");
    assert_eq!(outcome(0, "ada", 7, 1), unknown);
}

#[test]
fn counts_that_cannot_be_are_told_and_the_session_is_replaced() {
    let mut bench = Bench::new(WhenFull::End, 10);
    let session = bench.log_in(0, "ada");
    bench.cut(0);
    let resume = Some(Resume { session, epoch: 1, received: 7, token: &[1; 16] });
    bench.hello(1, 0, "ada", resume);
    bench.answer(1, 2);
    assert_eq!(bench.welcome(1).unwrap().0, Resumption::Refused(NotResumed::Counts));
    assert_eq!(bench.left(), [(session, Cause::Replaced)]);
}

#[test]
fn a_newer_login_replaces_a_session_that_is_away_and_its_leave_comes_first() {
    let mut bench = Bench::new(WhenFull::End, 10);
    let session = bench.log_in(0, "ada");
    bench.cut(0);
    bench.events.clear();
    bench.hello(1, 0, "ada", None);
    assert_eq!(bench.left(), [(session, Cause::Replaced)]);
    assert!(matches!(
        bench.events[..],
        [(_, session::Event::Left(_)), (_, session::Event::Joined { .. })]
    ));
    bench.resume(2, session, 1, (1, 2));
    assert_eq!(bench.welcome(2).unwrap().0, Resumption::Refused(NotResumed::Ended));
}

#[test]
fn beyond_the_limit_the_oldest_ends_of_the_address_with_most() {
    let mut bench = Bench::new(WhenFull::End, 3);
    let address = |host| SocketAddr::from(([10, 0, 0, host], 4_711));
    let mut sessions = Vec::new();
    for (link, host) in [(0, 1), (1, 2), (2, 2), (3, 2), (4, 3)] {
        bench.address = address(host);
        sessions.push(bench.log_in(link, ""));
    }
    for link in 0..5 {
        bench.pass(Span::from_millis(10));
        bench.cut(link);
        assert!(bench.away() <= 3);
    }
    let left: Vec<u64> = bench.left().into_iter().map(|(session, _)| session).collect();
    assert_eq!(left, [sessions[1], sessions[2]], "one address pushes out its own alone");
    bench.pass(OUTLIVES);
    assert_eq!((bench.away(), bench.left().len()), (0, 5));
}

#[test]
fn a_session_that_changes_its_link_pushes_out_none_that_is_away() {
    let mut bench = Bench::new(WhenFull::End, 1);
    let (away, moving) = (bench.log_in(0, ""), bench.log_in(1, ""));
    bench.cut(0);
    bench.resume(2, moving, 2, (1, 2));
    assert_eq!((bench.hub.machine().find(moving), bench.left()), (Some(2), Vec::new()));
    assert!(bench.hub.machine().absence(away).is_some());
}

#[test]
fn messages_wait_for_a_session_that_is_away_and_a_full_window_ends_it_or_leaves_a_gap() {
    for full in [WhenFull::End, WhenFull::Gap] {
        let mut bench = Bench::new(full, 10);
        let session = bench.log_in(0, "ada");
        bench.cut(0);
        // Three windows, as on a link.
        (0..12).for_each(|_| bench.send(session, b"news"));
        assert!(bench.left().is_empty());
        assert_eq!(bench.hub.machine().absence(session).unwrap().waiting, 12);
        let kept = bench.hub.machine().counters().window_bytes;
        bench.send(session, b"more");
        bench.send(session, b"and more");
        let counted = bench.hub.machine().counters().window_bytes;
        if full == WhenFull::End {
            assert_eq!(bench.left(), [(session, Cause::SlowConsumer)]);
            assert_eq!(counted, 0);
            continue;
        }
        assert_eq!((bench.left(), counted), (Vec::new(), kept));
        bench.resume(1, session, 1, (1, 2));
        assert_eq!(bench.welcome(1).unwrap().0, Resumption::Resumed { gap: 2 });
        let resumed = bench.events.last().unwrap().1;
        assert!(
            matches!(resumed, session::Event::Resumed { gap: 2, redelivered: 12, .. }),
            "{resumed:?}"
        );
        assert_eq!(bench.hub.machine().counters().window_bytes, kept, "it moves with the session");
        // Its WELCOME is lost, so the next one tells the gap again, and what has come since.
        bench.cut(1);
        bench.send(session, b"still more");
        bench.resume(2, session, 1, (1, 3));
        assert_eq!(bench.welcome(2).unwrap().0, Resumption::Resumed { gap: 3 });
        let resumed = bench.events.last().unwrap().1;
        assert!(matches!(resumed, session::Event::Resumed { gap: 1, .. }), "{resumed:?}");
        bench.receive(2, &[0x10, 1]);
        bench.cut(2);
        bench.resume(3, session, 1, (2, 4));
        assert_eq!(bench.welcome(3).unwrap().0, Resumption::Resumed { gap: 0 }, "it was told");
    }
}

#[test]
fn a_session_that_is_away_can_be_ended_and_ends_with_its_token_and_its_gateway() {
    let mut bench = Bench::new(WhenFull::End, 10);
    let kicked = bench.log_in(0, "ada");
    bench.cut(0);
    let command = link::Command::close(CloseReason::Kicked);
    bench.handle(World::Session { session: kicked, command });
    assert_eq!(bench.left(), [(kicked, Cause::Kicked)]);

    bench.grant = Grant { attributes: "", lasts: Some(Span::from_secs(10)) };
    let granted = bench.log_in(1, "bob");
    bench.cut(1);
    bench.events.clear();
    bench.pass(Span::from_secs(10));
    assert_eq!(bench.left(), [(granted, Cause::Unauthorized)]);

    bench.grant = Grant::default();
    let (one, other) = (bench.log_in(2, "cid"), bench.log_in(3, "dan"));
    bench.cut(2);
    bench.events.clear();
    let limit = Span::from_secs(1);
    bench.handle(World::Command(HubCommand::Drain { limit, reconnect_within: limit }));
    bench.pass(Span::from_millis(1));
    let causes: BTreeMap<u64, Cause> = bench.left().into_iter().collect();
    assert_eq!(causes.get(&other), Some(&Cause::Drained));
    assert!(causes.contains_key(&one) && bench.away() == 0);
}

#[test]
fn a_policy_that_changes_meanwhile_is_in_force_after_the_resumption() {
    let mut bench = Bench::new(WhenFull::End, 10);
    let session = bench.log_in(0, "ada");
    bench.cut(0);
    let policy = Policy::demanding();
    bench.handle(World::Command(HubCommand::Retune { listener: 0, policy }));
    bench.pass(Span::from_millis(1));
    bench.resume(1, session, 1, (1, 2));
    assert_eq!(*bench.hub.machine().presence(1).unwrap().policy, policy);
}

#[test]
fn a_session_keeps_its_own_policy_if_none_changes() {
    let mut bench = Bench::new(WhenFull::End, 10);
    let session = bench.log_in(0, "ada");
    let own = *bench.hub.machine().presence(0).unwrap().policy;
    bench.cut(0);
    let token = &[1; 16];
    bench.handle(World::Opened { link: 1, listener: 0, address: ADDRESS });
    let resume = Some(Resume { session, epoch: 1, received: 0, token });
    let asks = Some(Policy::relaxed());
    let hello = Hello { capabilities: WINDOWS, resume, asks, ..Hello::default() };
    let mut bytes = Vec::new();
    Codec::Native.encode(&Frame::Hello(hello), &mut bytes);
    bench.receive(1, &bytes);
    bench.answer(1, 2);
    assert_eq!(*bench.hub.machine().presence(1).unwrap().policy, own);
}

#[test]
fn what_is_remembered_of_sessions_that_have_lapsed_is_bounded() {
    let mut bench = Bench::new(WhenFull::End, 1);
    let first = bench.log_in(0, "");
    bench.cut(0);
    for _ in 0..super::super::away::LAPSED {
        bench.log_in(1, "");
        bench.cut(1);
    }
    bench.resume(2, first, 1, (1, 2));
    let outcome = bench.welcome(2).unwrap().0;
    assert_eq!(outcome, Resumption::Refused(NotResumed::Expired), "the oldest is still known");
    bench.log_in(1, "");
    bench.cut(1);
    bench.log_in(1, "");
    bench.cut(1);
    bench.resume(3, first, 1, (1, 2));
    assert_eq!(bench.welcome(3).unwrap().0, Resumption::Refused(NotResumed::Unknown));
}

#[test]
fn only_a_session_that_can_be_resumed_needs_a_token() {
    let mut bench = Bench::new(WhenFull::End, 10);
    bench.log_in(0, "ada");
    bench.handle(World::Opened { link: 1, listener: 0, address: ADDRESS });
    bench.receive(1, &hello("bob", b""));
    assert_eq!(bench.wanted, [true, false], "who keeps no window resumes nothing");
    assert!(!bench.hub.machine().may_outlive_its_link(7), "nor does a session that is not there");
}

#[test]
fn no_payload_and_no_token_is_printed() {
    let mut bench = Bench::new(WhenFull::End, 10);
    let session = bench.log_in(0, "ada");
    bench.cut(0);
    bench.send(session, &[222, 222, 222]);
    let token = &[221; 16];
    bench.hello(1, 0, "", Some(Resume { session, epoch: 1, received: 0, token }));
    let printed = alloc::format!("{:?}", bench.hub);
    assert!(
        printed.contains("Resumable")
            && !printed.contains("22, 222")
            && !printed.contains("221, 221")
    );
}
