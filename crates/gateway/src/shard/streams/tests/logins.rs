//! Tests of logins whose tokens are given away and answered later.

use std::io::{Read, Write};

use systole_core::wire::{BootId, Frame, Hello, InstanceId};

use super::*;
use crate::identity::{
    Job, Keys, Pool, Refusal, Rules, Tokens, Verified, Verifier, Webhook, WebhookSettings, jobs,
};
use crate::report::{Fact, Reports, channels};
use crate::report_sender::ReportSender;
use crate::shard::ListenerTokens;

/// A shard with a native listener that verifies tokens, and those that it has given away.
struct Desk {
    shard: ShardLoop<Streams>,
    pool: Pool,
    address: SocketAddr,
    _requests: std::sync::mpsc::Sender<Request>,
}

impl Desk {
    fn new(anonymous: bool) -> Desk {
        Desk::of(tokens(anonymous))
    }

    fn of(tokens: ListenerTokens) -> Desk {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = listener::bind_shards(address, 1).unwrap().remove(0);
        let address = socket.local_addr().unwrap();
        let mut settings = Settings::new(Codec::Native, Side::Accepting, Policy::standard());
        settings.logins = link::Logins { limit: 2, ..link::Logins::NEWEST };
        let mut setup = setup(socket, false, settings, Logic::None);
        setup.listeners[0].tokens = Some(tokens);
        let (jobs, pool) = jobs();
        setup.jobs = Some(jobs);
        let (sender, requests) = std::sync::mpsc::channel();
        let poll = Poll::new().unwrap();
        let (_, wake_ups) = wake_ups(poll.registry(), WAKER).unwrap();
        let shard =
            Streams::<Layer>::shard(poll, wake_ups, RequestQueue::new(requests), setup).unwrap();
        Desk { shard, pool, address, _requests: sender }
    }

    /// Connects a peer that says HELLO.
    fn connect(&self, identity: &str, token: &[u8]) -> TcpStream {
        let hello = Hello {
            asks: None,
            resume: None,
            account: None,
            capabilities: 0,
            boot_id: BootId([0; 16]),
            instance_id: InstanceId([0; 16]),
            identity,
            token,
        };
        let mut bytes = Vec::new();
        Codec::Native.encode(&Frame::Hello(hello), &mut bytes);
        let mut peer = TcpStream::connect(self.address).unwrap();
        peer.write_all(&bytes).unwrap();
        peer
    }

    /// Runs turns until `done`; sleeps in the poll for as long as the shard would.
    fn turn_until(&mut self, mut done: impl FnMut(&mut Desk) -> bool) {
        let mut events = Events::with_capacity(EVENTS);
        for _ in 0..TURNS {
            let planned = Span::from_millis(5);
            self.shard.poll.poll(&mut events, Some(planned.into())).unwrap();
            self.shard.clock.begin_turn(planned);
            Streams::<Layer>::receive(&mut self.shard, &events).unwrap();
            self.shard.expire();
            Streams::<Layer>::end_turn(&mut self.shard);
            if done(self) {
                return;
            }
        }
        panic!("not done after {TURNS} turns");
    }

    fn next_job(&mut self) -> Job {
        let mut job = None;
        self.turn_until(|desk| {
            job = desk.pool.next();
            job.is_some()
        });
        job.unwrap()
    }

    fn answer(&mut self, job: Job, result: Result<Verified, Refusal>) {
        Streams::<Layer>::logged_in(&mut self.shard, job.answer(result));
    }

    fn identities(&self) -> Vec<String> {
        let online = self.shard.hub.machine().presences(0, 100);
        online.map(|known| known.identity.to_owned()).collect()
    }

    /// Has the facts of connections that end now come out here.
    fn report(&mut self) -> Reports {
        let (channels, reports) = channels(10);
        self.shard.reports = ReportSender::new(channels, Arc::default());
        reports
    }

    fn refused(&self, refusal: Refusal) -> u64 {
        self.shard.stats.refused[refusal.index()].get()
    }
}

/// What a listener demands whose tokens the test verifies.
pub(super) fn tokens(anonymous: bool) -> ListenerTokens {
    let tokens = Tokens::new(Rules::of_keys(Keys::default()));
    ListenerTokens { verifier: Verifier::Tokens(tokens), anonymous }
}

pub(super) fn ada() -> Result<Verified, Refusal> {
    let attributes = "{\"role\":\"pilot\"}".into();
    Ok(Verified { identity: "ada".into(), attributes, lasts: None })
}

#[test]
fn a_login_waits_for_its_token_while_the_shard_goes_on() {
    let mut desk = Desk::new(false);
    let _first = desk.connect("", b"one");
    let job = desk.next_job();
    assert_eq!((&*job.token, job.address), (&b"one"[..], desk.address.ip()));
    let _second = desk.connect("ada", b"two");
    let other = desk.next_job();
    assert!(desk.identities().is_empty());
    desk.answer(other, ada());
    assert_eq!(desk.identities(), ["ada"]);
    desk.answer(job, ada());
    assert_eq!(desk.identities(), ["ada", "ada"]);
    let known = desk.shard.hub.machine().presence(0).unwrap();
    assert_eq!(known.attributes, "{\"role\":\"pilot\"}");
}

#[test]
fn a_refusal_leaves_at_its_time_and_not_when_it_is_found() {
    let mut desk = Desk::new(false);
    let mut peer = desk.connect("ada", b"bad");
    let job = desk.next_job();
    let (asked, link) = (job.asked, job.link);
    desk.answer(job, Err(Refusal::Signature));
    let due = asked + Span::from_millis(250);
    assert_eq!(Streams::left_over(&mut desk.shard, asked).deadline, Some(due));
    assert!(desk.shard.hub.machine().presence(link).is_some(), "it is not said yet");
    desk.turn_until(|desk| desk.shard.hub.machine().counters().links == 0);
    assert!(desk.shard.clock.now() >= due);
    let mut said = Vec::new();
    peer.read_to_end(&mut said).unwrap();
    // CLOSE, unauthorized, do not come back, and no text.
    assert_eq!(said, [0x70, 7, 4, 1, 0, 0, 0, 0, 0]);
    assert_eq!(desk.refused(Refusal::Signature), 1);
    assert_eq!(desk.shard.traffic.logins.next_deadline(), None);
}

#[test]
fn the_end_of_a_login_says_why_its_token_was_refused_and_no_other_end_does() {
    let mut desk = Desk::new(false);
    let mut reports = desk.report();
    let mut refusal_of = |desk: &mut Desk| {
        desk.turn_until(|desk| desk.shard.hub.machine().counters().links == 0);
        reports.strangers.try_recv().unwrap().parting.refusal
    };
    for refusal in [Refusal::Expired, Refusal::Audience, Refusal::WebhookFailed] {
        let _peer = desk.connect("ada", b"bad");
        let job = desk.next_job();
        desk.answer(job, Err(refusal));
        assert_eq!(refusal_of(&mut desk), Some(refusal));
    }
    let _peer = desk.connect("ada", b"");
    assert_eq!(refusal_of(&mut desk), Some(Refusal::NoToken));
}

#[test]
fn a_refusal_that_finds_nobody_is_not_that_of_the_next_with_the_number_of_the_link() {
    let mut desk = Desk::new(false);
    let mut reports = desk.report();
    let gone = desk.connect("ada", b"bad");
    let late = desk.next_job();
    drop(gone);
    desk.turn_until(|desk| desk.shard.traffic.sockets.conns.is_empty());
    assert_eq!(reports.strangers.try_recv().unwrap().parting.refusal, None);
    let next = desk.connect("", b"good");
    let job = desk.next_job();
    assert_eq!(job.link, late.link, "its number is used again");
    desk.shard.refuse(late.link, late.admission, Refusal::Signature);
    desk.answer(job, ada());
    assert_eq!(desk.identities(), ["ada"], "it was told to nobody");
    drop(next);
    desk.turn_until(|desk| desk.shard.hub.machine().counters().links == 0);
    let facts: Vec<_> = std::iter::from_fn(|| reports.facts.try_recv().ok()).collect();
    let is_end = |fact: &&Fact| matches!(fact.event, systole_core::session::Event::Left(_));
    let end = facts.iter().find(is_end).unwrap();
    assert_eq!(end.parting.refusal, None);
}

#[test]
fn an_answer_about_a_link_that_is_gone_changes_nothing() {
    let mut desk = Desk::new(false);
    let peer = desk.connect("ada", b"one");
    let job = desk.next_job();
    drop(peer);
    desk.turn_until(|desk| desk.shard.traffic.sockets.conns.is_empty());
    let _other = desk.connect("eve", b"two");
    let next = desk.next_job();
    assert_eq!(next.link, job.link, "its number is used again");
    desk.answer(job, ada());
    assert!(desk.identities().is_empty(), "eve is not ada");
}

#[test]
fn a_client_that_is_gone_leaves_the_queue_of_its_webhook() {
    let webhook = Webhook::new(WebhookSettings {
        listener: "native".to_owned(),
        url: "http://127.0.0.1:1/".to_owned(),
        secret: String::new(),
        timeout: Span::from_secs(5),
        remember: Span::ZERO,
        roots: Vec::new(),
    });
    let mut desk =
        Desk::of(ListenerTokens { verifier: Verifier::Webhook(webhook), anonymous: false });
    let peers: Vec<_> = (0..40).map(|_| desk.connect("", b"gone")).collect();
    desk.turn_until(|desk| desk.shard.hub.machine().counters().links == 40);
    let asked = desk.next_job();
    drop(peers);
    desk.turn_until(|desk| desk.shard.hub.machine().counters().links == 0);
    assert_eq!(desk.shard.stats.logins_withdrawn.get(), 39, "one was under way");
    assert!(desk.pool.next().is_none(), "nobody is asked about the others");
    let _honest = desk.connect("", b"honest");
    let job = desk.next_job();
    assert_eq!(&*job.token, b"honest");
    desk.answer(asked, ada());
    assert!(desk.identities().is_empty(), "it was the answer about another");
    desk.answer(job, ada());
    assert_eq!(desk.identities(), ["ada"]);
}

#[test]
fn who_shows_no_token_is_nobody_or_is_sent_away() {
    let mut desk = Desk::new(true);
    let _peer = desk.connect("ada", b"");
    desk.turn_until(|desk| !desk.identities().is_empty());
    assert_eq!(desk.identities(), [""], "whatever it claims");
    let _peer = desk.connect("ada", b"bad");
    let job = desk.next_job();
    desk.answer(job, Err(Refusal::Expired));
    desk.turn_until(|desk| desk.shard.hub.machine().counters().links == 1);

    let mut desk = Desk::new(false);
    let _peer = desk.connect("ada", b"");
    desk.turn_until(|desk| desk.refused(Refusal::NoToken) == 1);
    assert!(desk.pool.next().is_none(), "there is nothing to verify");
}

#[test]
fn an_address_with_many_bad_tokens_is_refused_unseen_and_may_come_back() {
    let mut desk = Desk::new(false);
    for _ in 0..20 {
        let _peer = desk.connect("ada", b"bad");
        let job = desk.next_job();
        desk.answer(job, Err(Refusal::Signature));
    }
    let mut peer = desk.connect("ada", b"good, perhaps");
    desk.turn_until(|desk| desk.refused(Refusal::Address) == 1);
    assert!(desk.pool.next().is_none());
    let mut said = [0; 9];
    desk.turn_until(|desk| desk.shard.traffic.sockets.bytes_out > 0);
    peer.read_exact(&mut said).unwrap();
    assert_eq!(said[..4], [0x70, 7, 8, 0], "full, and come back");
}

#[test]
fn tokens_that_find_no_room_are_refused_at_once() {
    let mut desk = Desk::new(false);
    let peers: Vec<_> = (0..90).map(|_| desk.connect("ada", b"token")).collect();
    let first = desk.next_job();
    // The rest of the queue is full of the same.
    let jobs = desk.shard.traffic.logins.jobs().unwrap().clone();
    let copy = || Job { token: first.token.clone(), verifier: first.verifier.clone(), ..first };
    while jobs.send(copy()).is_ok() {}
    desk.turn_until(|desk| desk.refused(Refusal::Full) > 0);
    drop(peers);
}
