//! Tests of sessions that outlive their links.

use std::num::NonZeroU32;

use systole_core::link::{Takes, WhenFull, Windows};
use systole_core::resume::NotResumed;
use systole_core::window::Limits;
use systole_core::wire::{BootId, Resume, Resumption, WINDOWS};
use systole_gateway::bans::{Banned, Bans};
use systole_gateway::gate::{Gate, GateSettings};
use systole_gateway::report::{AwayInfo, Parting, Shown};
use systole_gateway::request::{Claim, Delivered, Target};

use super::*;

/// Longer than a test takes.
const LONG: Span = Span::from_secs(600);

/// Lets the sessions of native clients outlive their links.
fn outlive(setup: &mut ShardSetup, outlives: Span, full: WhenFull) {
    let limits = Limits { messages: 4, bytes: 64 * 1024 };
    let windows = Windows { outlives, full, ..Windows::new(limits, Takes::AtOnce) };
    setup.listeners[0].settings.window = Some(windows);
}

fn start_with(outlives: Span, full: WhenFull) -> Running {
    start(Policy::default(), |setup| outlive(setup, outlives, full))
}

/// A client that keeps what it needs to resume its session.
struct Client {
    native: Native,
    session: u64,
    epoch: u64,
    received: u64,
    token: Vec<u8>,
    resumption: Resumption,
}

impl Client {
    fn connect(running: &Running) -> Client {
        let hello = Hello { capabilities: WINDOWS, ..hello() };
        Client::say(running, &hello, 0)
    }

    fn say(running: &Running, hello: &Hello<'_>, received: u64) -> Client {
        let mut native = running.native();
        native.send(&Frame::Hello(*hello));
        let mut welcomed = None;
        native.next(|frame| {
            let Frame::Welcome(welcome) = frame else { panic!("{frame:?}") };
            let (session, epoch) = (welcome.session, welcome.epoch);
            welcomed = Some((session, epoch, welcome.resume_token.to_vec(), welcome.resumption));
            true
        });
        let (session, epoch, token, resumption) = welcomed.unwrap();
        Client { native, session, epoch, received, token, resumption }
    }

    /// Loses the connection: its end is closed without CLOSE.
    fn lose(self) -> Lost {
        let Client { session, epoch, received, token, .. } = self;
        Lost { session, epoch, received, token }
    }

    /// Waits for the answer to a PING.
    fn pong(&mut self) {
        let mut is_answered = false;
        while !is_answered {
            assert!(self.native.next(|frame| {
                is_answered = matches!(frame, Frame::Pong(_));
                true
            }));
        }
    }

    /// Reads the next message, acknowledging nothing.
    fn message(&mut self) -> Vec<u8> {
        let mut message = Vec::new();
        loop {
            let mut is_whole = false;
            assert!(self.native.next(|frame| {
                if let Frame::Data { bytes, more, .. } = frame {
                    message.extend_from_slice(bytes);
                    is_whole = !more;
                }
                true
            }));
            if is_whole {
                self.received += 1;
                return message;
            }
        }
    }
}

/// A client without a connection.
struct Lost {
    session: u64,
    epoch: u64,
    received: u64,
    token: Vec<u8>,
}

impl Lost {
    fn resume(self, running: &Running) -> Client {
        Client::say(running, &self.hello(), self.received)
    }

    fn hello(&self) -> Hello<'_> {
        let Lost { session, epoch, received, token } = self;
        let (session, epoch, received) = (*session, *epoch, *received);
        let resume = Some(Resume { session, epoch, received, token });
        Hello { capabilities: WINDOWS, resume, ..hello() }
    }
}

impl Running {
    /// Waits for the next fact of this name.
    fn fact(&mut self, name: &str) -> Fact {
        let begun = Clock::start();
        loop {
            match self.reports.try_recv() {
                Ok(fact) if fact.event.name() == name => return fact,
                Ok(_) => {}
                Err(_) => std::thread::park_timeout(POLL),
            }
            assert!(begun.monotonic() < Span::from(PATIENCE), "no {name}");
        }
    }
}

/// Returns how many verdicts of a cause are counted.
fn count(cells: &[systole_gateway::stats::Cell], cause: Cause) -> u64 {
    cells[cause.index()].get()
}

#[test]
fn a_hundred_losses_and_resumptions_leave_the_gate_as_it_was() {
    const LIMIT: u64 = 5;
    let number = |number| NonZeroU32::new(number).unwrap();
    let settings = GateSettings {
        trusted: Vec::new(),
        connections: Some(number(LIMIT as u32)),
        half_open: number(2),
        per_second: number(100_000),
    };
    let gate = Gate::new(&settings, 1_000, Clock::start());
    let mut running = start(Policy::default(), |setup| {
        outlive(setup, LONG, WhenFull::End);
        setup.gate = Some(gate.clone());
    });
    // The gate forgets an address that has nothing left.
    let other = Client::connect(&running);
    let mut client = Client::connect(&running);
    let session = client.session;
    for _ in 0..100 {
        let lost = client.lose();
        let away = running.fact("away");
        assert_eq!(away.subject.session, session);
        assert!(away.parting.flight.is_some() && !away.parting.was_away);
        client = lost.resume(&running);
        assert_eq!(client.resumption, Resumption::Resumed { gap: 0 });
        assert_eq!(running.fact("resumed").subject.session, session);
    }
    // One that has ended while it was away is not counted once more.
    let second = Client::connect(&running).lose();
    running.fact("away");
    let kick = Order::Kick { stay_away: false, text: Box::default() };
    assert!(order(&running, second.session, kick));
    assert_eq!(running.fact("leave").subject.session, second.session);
    assert_eq!(count(&running.stats.went_away, Cause::PeerExited), 101);
    assert_eq!(count(&running.stats.verdicts, Cause::PeerExited), 0);
    assert_eq!(count(&running.stats.verdicts, Cause::Kicked), 1);
    // Two connections are left, and the address may have as many more as before.
    let address = std::net::IpAddr::from([127, 0, 0, 1]);
    let entered =
        (0..100).filter(|_| gate.enter(address).map(|()| gate.introduce(address)).is_ok());
    assert_eq!(entered.count() as u64, LIMIT - 2);
    drop((client, other));
    running.stop();
}

#[test]
fn a_session_that_is_not_resumed_in_time_ends_with_the_verdict_on_its_link() {
    let mut running = start_with(Span::from_millis(50), WhenFull::End);
    let lost = Client::connect(&running).lose();
    let away = running.fact("away");
    let left = running.fact("leave");
    let Event::Left(verdict) = left.event else { panic!("{left:?}") };
    let Event::Away { verdict: lost_by, .. } = away.event else { panic!("{away:?}") };
    assert_eq!((left.subject.session, verdict), (lost.session, lost_by));
    let Parting { was_away, flight, .. } = left.parting;
    assert!(was_away && flight.is_none());
    assert_eq!(count(&running.stats.verdicts, Cause::PeerExited), 1);
    let late = lost.resume(&running);
    assert_eq!(late.resumption, Resumption::Refused(NotResumed::Expired));
    running.stop();
}

fn order(running: &Running, session: u64, order: Order) -> bool {
    let (reply, answer) = oneshot::channel();
    running.shard.requests.send(Request::Order { session, order, reply }).unwrap();
    answer.blocking_recv().unwrap()
}

/// Asks for everything that says who is there, with an identity: by session, by identity, on pages.
fn seen(running: &Running, session: u64) -> (Option<Shown>, usize, Vec<AwayInfo>, Vec<AwayInfo>) {
    let requests = &running.shard.requests;
    let (reply, by_session) = oneshot::channel();
    requests.send(Request::Session { session, reply }).unwrap();
    let (reply, by_identity) = oneshot::channel();
    let identities = vec!["ada".into()];
    requests.send(Request::Identities { identities, limit: 10, reply }).unwrap();
    let (reply, page) = oneshot::channel();
    let banned = Some(Banned::Identity("ada".into()));
    let filter = Filter { away: true, banned, ..Filter::default() };
    requests.send(Request::Sessions { from: 0, limit: 10, filter, reply }).unwrap();
    let mut found = by_identity.blocking_recv().unwrap();
    let found = found.remove(0);
    let page = page.blocking_recv().unwrap();
    (by_session.blocking_recv().unwrap(), found.shown.len(), found.away, page.away)
}

#[test]
fn a_session_is_shown_away_from_its_loss_to_its_return_or_its_end() {
    let mut running = start_with(LONG, WhenFull::End);
    let client = Client::connect(&running);
    let session = client.session;
    let is_online = |(shown, online, away, page): (Option<Shown>, usize, Vec<_>, Vec<_>)| {
        matches!(shown, Some(Shown::Online(_))) && (online, away.len(), page.len()) == (1, 0, 0)
    };
    assert!(is_online(seen(&running, session)));
    let lost = client.lose();
    running.fact("away");
    assert_eq!(deliver(&running, Target::Session(session), b"for later"), KEPT);
    let (shown, online, away, page) = seen(&running, session);
    let Some(Shown::Away(info)) = shown else { panic!("{shown:?}") };
    assert_eq!((online, away.len(), page.len()), (0, 1, 1));
    assert_eq!((&*info.identity, info.cause, info.waiting), ("ada", "peer_exited", 1));
    assert!((1..=LONG.as_millis()).contains(&info.ends_in_ms), "{info:?}");
    let client = lost.resume(&running);
    running.fact("resumed");
    assert!(is_online(seen(&running, session)));
    let lost = client.lose();
    running.fact("away");
    let kick = Order::Kick { stay_away: false, text: Box::default() };
    assert!(order(&running, lost.session, kick));
    // The hub still knows it, until the next input.
    assert_eq!(seen(&running, session), (None, 0, Vec::new(), Vec::new()));
    running.stop();
}

fn deliver(running: &Running, to: Target, message: &[u8]) -> Delivered {
    let (reply, answer) = oneshot::channel();
    let (claim, message) = (Claim::default(), message.into());
    running.shard.requests.send(Request::Deliver { to, message, claim, reply }).unwrap();
    answer.blocking_recv().unwrap()
}

const KEPT: Delivered =
    Delivered { unreached: 0, queued: 0, away: 1, unfit: 0, busy: 0, next: None };

const BUSY: Delivered = Delivered { away: 0, busy: 1, ..KEPT };

#[test]
fn messages_from_outside_are_kept_for_a_session_that_is_away_until_its_window_is_full() {
    for full in [WhenFull::End, WhenFull::Gap] {
        let mut running = start_with(LONG, full);
        let lost = Client::connect(&running).lose();
        running.fact("away");
        let to = |number: u64| {
            if number.is_multiple_of(2) {
                Target::Session(lost.session)
            } else {
                Target::Identity("ada".into())
            }
        };
        let too_long = deliver(&running, to(0), &[7; 65_537]);
        assert_eq!(too_long, Delivered { away: 0, unfit: 1, ..KEPT });
        let mut kept = 0_u64;
        let full_at = loop {
            match deliver(&running, to(kept), &kept.to_le_bytes()) {
                KEPT => kept += 1,
                other => break other,
            }
            assert!(kept < 100, "it takes everything");
        };
        assert!(full_at == BUSY && kept >= 4, "{full_at:?} after {kept}");
        let all = Target::All { from: 0, listener: None, attribute: None };
        assert_eq!(deliver(&running, all, b"all").away, 0, "a broadcast passes over it");
        if full == WhenFull::End {
            let left = running.fact("leave");
            assert_eq!(left.event.cause(), Some(Cause::SlowConsumer));
            assert_eq!(deliver(&running, to(0), b"gone"), Delivered { away: 0, ..KEPT });
        } else {
            let mut client = lost.resume(&running);
            assert_eq!(client.resumption, Resumption::Resumed { gap: 1 });
            let resumed = running.fact("resumed").event;
            let Event::Resumed { gap: 1, redelivered, .. } = resumed else { panic!("{resumed:?}") };
            assert_eq!(u64::from(redelivered), kept);
            for number in 0_u64..4 {
                assert_eq!(client.message(), number.to_le_bytes());
            }
        }
        running.stop();
    }
}

#[test]
fn an_order_to_a_session_that_is_away_ends_it_or_says_that_it_is_not_there() {
    let mut running = start_with(LONG, WhenFull::End);
    let lost = Client::connect(&running).lose();
    running.fact("away");
    for vain in [Order::Hold(LONG), Order::Release, Order::Retune(Policy::relaxed())] {
        assert!(!order(&running, lost.session, vain));
    }
    let text: Box<str> = "until noon".into();
    let keep_out = Order::KeepOut { lasts: LONG, stay_away: true, text };
    assert!(order(&running, lost.session, keep_out.clone()));
    assert_eq!(running.fact("leave").event.cause(), Some(Cause::Kicked));
    assert!(!order(&running, lost.session, keep_out), "it has ended");
    assert_eq!(lost.resume(&running).resumption, Resumption::Refused(NotResumed::Ended));
    running.stop();
}

#[test]
fn a_banned_client_cannot_resume_and_is_told_why() {
    let bans = Arc::new(Bans::new(Clock::start()));
    let mut running = start(Policy::default(), |setup| {
        outlive(setup, LONG, WhenFull::End);
        setup.bans = bans.clone();
    });
    for who in [Banned::Identity("ada".into()), Banned::Device(BootId([5; 16]))] {
        let hello = Hello { capabilities: WINDOWS, boot_id: BootId([5; 16]), ..hello() };
        let lost = Client::say(&running, &hello, 0).lose();
        running.fact("away");
        bans.set(std::slice::from_ref(&who), LONG, "until noon").unwrap();
        let mut native = running.native();
        native.send(&Frame::Hello(Hello { boot_id: BootId([5; 16]), ..lost.hello() }));
        assert!(native.next(|frame| match frame {
            Frame::Close(close) =>
                close.reason == CloseReason::Kicked && close.text == "until noon",
            other => panic!("{other:?}"),
        }));
        bans.lift(&who);
        let resumed = lost.resume(&running);
        assert_eq!(resumed.resumption, Resumption::Resumed { gap: 0 }, "the ban is over");
        running.fact("resumed");
    }
    running.stop();
}

#[test]
fn when_the_shard_ends_so_do_the_sessions_that_are_away() {
    let mut running = start_with(LONG, WhenFull::End);
    let mut sessions: Vec<u64> = (0..3).map(|_| Client::connect(&running).lose().session).collect();
    for _ in &sessions {
        running.fact("away");
    }
    running.shard.requests.send(Request::Stop).unwrap();
    let mut left: Vec<u64> =
        sessions.iter().map(|_| running.fact("leave").subject.session).collect();
    left.sort_unstable();
    sessions.sort_unstable();
    assert_eq!(left, sessions);
    assert_eq!(count(&running.stats.verdicts, Cause::Drained), 3);
    running.shard.thread.join().unwrap();
}

#[test]
fn a_message_that_the_end_of_a_link_has_cut_is_echoed_once_and_whole() {
    let mut running = start_with(LONG, WhenFull::End);
    let mut client = Client::connect(&running);
    client.native.send(&Frame::data(b"one", false, DataKind::default()));
    assert_eq!(client.message(), b"one");
    client.native.send(&Frame::data(b"half of ", true, DataKind::default()));
    client.native.send(&Frame::Ping(Beat::bare(9)));
    // The part has been taken before the link ends.
    client.pong();
    let lost = client.lose();
    running.fact("away");
    let mut client = lost.resume(&running);
    running.fact("resumed");
    client.native.send(&Frame::data(b"another", false, DataKind::default()));
    assert_eq!(client.message(), b"another");
    running.stop();
}
