//! The event stream against a reference: what a subscriber knows after a snapshot and the events
//! up to a number is what was true at that number.
//!
//! A seed makes a run: sessions come, change and go in two shards, whose facts are published later,
//! in the order of each shard; the gateway is killed now and then; subscribers come at any number,
//! read late, read their snapshot in parts, leave, and return with a number from before.

use std::collections::{BTreeMap, VecDeque};

use systole_core::ledger::Note;
use systole_core::random::Random;

use super::*;

/// The seeds of a run of the test; `SYSTOLE_SEED` names the only one.
const SEEDS: u64 = 2_500;

/// The steps of one seed.
const STEPS: u64 = 150;

const SHARDS: usize = 2;

/// What happens to a session, as docs/admin-api.md tells it.
#[derive(Clone, Copy, Debug)]
enum Change {
    Join,
    Leave(Cause),
    Suspect,
    Recovered,
    Moved(u16),
    Retuned(u64),
    Away,
    Resumed(u16),
}

/// What is known of a session that is online.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct State {
    is_away: bool,
    suspect: bool,
    port: u16,
    idle_ms: u64,
}

const AT_FIRST: State = State { is_away: false, suspect: false, port: 1, idle_ms: 1_000 };

type Online = BTreeMap<u64, State>;

/// What was true after the event of one number.
#[derive(Clone, Default, Debug)]
struct Truth {
    online: Online,
    /// The cause of each end, and the number of the event that said it last.
    ended: BTreeMap<u64, (u64, &'static str)>,
}

/// One subscriber, and what it has made of what it got.
struct Client {
    subscriber: Option<Subscriber>,
    /// The position after which it continues.
    position: Position,
    online: Online,
    ended: BTreeMap<u64, &'static str>,
    /// The number of the last event before its snapshot.
    base: u64,
    /// The shards of which its snapshot is not read yet.
    unread: usize,
    /// Of each shard, how many facts its snapshot may show before they are published.
    ahead: [usize; SHARDS],
}

/// A gateway, what is true in its shards, and what its events said.
struct World {
    chance: Random,
    events: Events,
    stream: u64,
    capacity: u64,
    /// What is true now.
    online: Online,
    /// Facts that are not published yet.
    pending: [VecDeque<(u64, Change)>; SHARDS],
    /// How many facts of each shard were published, and the numbers of their events.
    published: [Vec<u64>; SHARDS],
    /// What was true after each number; the first is before all events.
    truths: Vec<Truth>,
    /// The sessions that a killed gateway left behind.
    lost: Vec<u64>,
    /// The last session that was made, over all runs.
    last: u64,
    clients: Vec<Client>,
}

fn policy(idle_ms: u64) -> Policy {
    Policy::new(Span::from_millis(idle_ms), Span::from_secs(1), 3).unwrap()
}

fn fact_of(session: u64, change: Change) -> Fact {
    let verdict = |cause: Cause| Verdict {
        grounds: Default::default(),
        cause,
        confidence: cause.confidence(),
        at: Time::from_millis(2),
        due: Time::from_millis(2),
        stretch: Span::ZERO,
        last_heard: Time::from_millis(1),
        probes: 0,
    };
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut fact = fact(session, session::Event::Suspect);
    fact.subject.address = address(AT_FIRST.port);
    fact.event = match change {
        Change::Join => session::Event::Joined { policy: policy(AT_FIRST.idle_ms), account: None },
        Change::Leave(cause) => session::Event::Left(verdict(cause)),
        Change::Suspect => session::Event::Suspect,
        Change::Recovered => session::Event::Recovered,
        Change::Moved(port) => {
            fact.subject.address = address(port);
            session::Event::Moved { from: address(AT_FIRST.port) }
        }
        Change::Retuned(idle_ms) => session::Event::Retuned(policy(idle_ms)),
        Change::Away => {
            let until = Time::from_millis(30_000);
            session::Event::Away { verdict: verdict(Cause::Unknown), until }
        }
        Change::Resumed(port) => {
            fact.subject.address = address(port);
            session::Event::Resumed { account: None, gap: 0, redelivered: 0 }
        }
    };
    fact
}

/// Applies a change to what is true.
fn apply(online: &mut Online, session: u64, change: Change) {
    match (change, online.get_mut(&session)) {
        (Change::Join, None) => drop(online.insert(session, AT_FIRST)),
        (Change::Leave(_), Some(_)) => drop(online.remove(&session)),
        (Change::Suspect, Some(state)) => state.suspect = true,
        (Change::Recovered, Some(state)) => state.suspect = false,
        (Change::Moved(port), Some(state)) => state.port = port,
        (Change::Retuned(idle_ms), Some(state)) => state.idle_ms = idle_ms,
        // A session without a link is in no doubt.
        (Change::Away, Some(state)) => (state.is_away, state.suspect) = (true, false),
        (Change::Resumed(port), Some(state)) => (state.is_away, state.port) = (false, port),
        (change, known) => panic!("{change:?} of {session}, {known:?}"),
    }
}

impl Client {
    /// Takes an event as the document says: as an upsert.
    fn take(&mut self, event: &Event) {
        match &event.body {
            Body::Join { session, policy, .. } => {
                let (port, idle_ms) = (port_of(session), policy.idle_ms.unwrap());
                let state = State { is_away: false, suspect: false, port, idle_ms };
                self.online.entry(number_of(session)).or_insert(state);
            }
            Body::Leave { session, end } => {
                self.online.remove(&number_of(session));
                self.ended.insert(number_of(session), end.cause);
            }
            Body::VerdictRevised { session, revision } => {
                self.ended.insert(number_of(session), revision.to);
            }
            Body::Suspect(session) => self.change(session, |state| state.suspect = true),
            Body::Recovered(session) => self.change(session, |state| state.suspect = false),
            Body::Moved { session, .. } => {
                self.change(session, |state| state.port = port_of(session));
            }
            Body::Retuned { session, policy } => {
                self.change(session, |state| state.idle_ms = policy.idle_ms.unwrap());
            }
            Body::Away { session, .. } => {
                self.change(session, |state| (state.is_away, state.suspect) = (true, false));
            }
            Body::Resumed { session, .. } => {
                let port = port_of(session);
                self.change(session, |state| (state.is_away, state.port) = (false, port));
            }
            Body::Warned { .. } | Body::Hung { .. } | Body::Overdue(_) => {}
            Body::Outage(_) | Body::OutageOver(_) | Body::Stalled { .. } => {}
            Body::AcceptingPaused { .. } | Body::AcceptingResumed { .. } => {}
        }
    }

    /// Changes what is known of a session, if it is known.
    fn change(&mut self, session: &Session, change: impl FnOnce(&mut State)) {
        self.online.get_mut(&number_of(session)).map(change);
    }
}

fn number_of(session: &Session) -> u64 {
    u64::from_str_radix(&session.session, 16).unwrap()
}

fn port_of(session: &Session) -> u16 {
    session.address.parse::<SocketAddr>().unwrap().port()
}

impl World {
    fn new(seed: u64) -> World {
        let mut chance = Random::new(seed);
        let (capacity, stream) = (1 + chance.below(40), 1 + chance.below(1 << 40));
        World {
            events: Events::new(capacity as usize, stream, names()),
            chance,
            stream,
            capacity,
            online: Online::new(),
            pending: Default::default(),
            published: Default::default(),
            truths: vec![Truth::default()],
            lost: Vec::new(),
            last: 0,
            clients: Vec::new(),
        }
    }

    fn step(&mut self) {
        match self.chance.below(100) {
            0..40 => self.change(),
            40..65 => self.publish(),
            65..68 => self.revise(),
            68..70 => self.publish_other(),
            70 => self.kill(),
            71..77 if self.clients.len() < 4 => self.come(),
            77..82 => self.leave_and_return(),
            _ => self.read(),
        }
    }

    /// Picks one of many.
    fn pick<T: Copy>(&mut self, all: &[T]) -> Option<T> {
        let place = self.chance.below(all.len().max(1) as u64);
        all.get(place as usize).copied()
    }

    /// Something happens to a session.
    fn change(&mut self) {
        let sessions: Vec<u64> = self.online.keys().copied().collect();
        let (session, change) = match (self.chance.below(9), self.pick(&sessions)) {
            (0..3, _) | (_, None) => {
                self.last += 1;
                (self.last, Change::Join)
            }
            (3, Some(session)) => (session, Change::Leave(Cause::Unknown)),
            (4.., Some(session)) if self.online[&session].is_away => {
                (session, Change::Resumed(2 + self.chance.below(9) as u16))
            }
            (8, Some(session)) => (session, Change::Away),
            (4, Some(session)) => (session, Change::Leave(Cause::PeerReset)),
            (5, Some(session)) => (session, Change::Moved(2 + self.chance.below(9) as u16)),
            (6, Some(session)) => (session, Change::Retuned(2_000 + self.chance.below(9))),
            (_, Some(session)) if self.online[&session].suspect => (session, Change::Recovered),
            (_, Some(session)) => (session, Change::Suspect),
        };
        apply(&mut self.online, session, change);
        self.pending[session as usize % SHARDS].push_back((session, change));
    }

    /// Publishes the next fact of a shard.
    fn publish(&mut self) {
        let shard = self.chance.below(SHARDS as u64) as usize;
        if let Some((session, change)) = self.pending[shard].pop_front() {
            let number = self.publish_change(session, change);
            self.published[shard].push(number);
        }
    }

    fn publish_change(&mut self, session: u64, change: Change) -> u64 {
        let number = self.events.publish(fact_of(session, change)).number;
        let mut truth = self.truths.last().unwrap().clone();
        apply(&mut truth.online, session, change);
        if let Change::Leave(cause) = change {
            truth.ended.insert(session, (number, cause.name()));
        }
        self.note(number, truth);
        number
    }

    fn note(&mut self, number: u64, truth: Truth) {
        assert_eq!(number, self.truths.len() as u64, "numbers have no gaps");
        self.truths.push(truth);
    }

    /// A cause that was published gets a better one.
    fn revise(&mut self) {
        let mut truth = self.truths.last().unwrap().clone();
        let ended: Vec<u64> = truth.ended.keys().copied().collect();
        let Some(session) = self.pick(&ended) else {
            return;
        };
        let (cause, confidence) = (Cause::PeerRebooted, Confidence::Certain);
        let revision = Revision {
            from: truth.ended[&session].1,
            to: cause.name(),
            loss: Loss::new(cause),
            confidence: confidence.name(),
            detail: "".into(),
            because: "".into(),
            advice: "",
            idle_ms: None,
            kept: Box::new((session, cause, confidence, Note::NewBoot)),
        };
        let subject = fact_of(session, Change::Suspect).subject;
        let session_of = self.events.names().session(subject);
        let body = Body::VerdictRevised { session: session_of, revision };
        let number = self.events.publish_body(9, body).number;
        truth.ended.insert(session, (number, cause.name()));
        self.note(number, truth);
    }

    /// An event that is about no session.
    fn publish_other(&mut self) {
        let number = self.events.publish_body(9, Body::AcceptingResumed { shard: 0 }).number;
        let truth = self.truths.last().unwrap().clone();
        self.note(number, truth);
    }

    /// The gateway is killed, and another begins with what it left behind. Facts that were not
    /// published are lost with it.
    fn kill(&mut self) {
        self.stream += 1;
        self.events = Events::new(self.capacity as usize, self.stream, names());
        self.lost = std::mem::take(&mut self.online).into_keys().collect();
        (self.pending, self.published) = Default::default();
        let online = self.lost.iter().map(|session| (*session, AT_FIRST)).collect();
        self.truths = vec![Truth { online, ended: BTreeMap::new() }];
        for session in self.lost.clone() {
            self.publish_change(session, Change::Leave(Cause::GatewayLost));
        }
        self.events.mark_left_behind(self.lost.len() as u64);
        for client in &mut self.clients {
            client.subscriber = None;
        }
    }

    /// A subscriber comes: new, or with what was true at any number.
    fn come(&mut self) {
        let numbers = self.truths.len() as u64;
        let number = self.chance.below(numbers);
        let truth = self.truths[number as usize].clone();
        let ended = truth.ended.into_iter().map(|(session, (_, cause))| (session, cause));
        let mut client = Client {
            subscriber: None,
            position: Position { stream: self.stream, number },
            online: truth.online,
            ended: ended.collect(),
            base: 0,
            unread: 0,
            ahead: [0; SHARDS],
        };
        match self.chance.below(3) {
            0 => self.begin_snapshot(&mut client),
            _ => self.resume(&mut client),
        }
        self.clients.push(client);
    }

    fn begin_snapshot(&mut self, client: &mut Client) {
        let subscriber = self.events.subscribe();
        client.position = subscriber.position();
        client.base = client.position.number;
        client.subscriber = Some(subscriber);
        (client.online, client.ended) = Default::default();
        (client.unread, client.ahead) = (SHARDS, [0; SHARDS]);
    }

    /// Continues after the position of a client, or begins with a snapshot where that cannot be.
    fn resume(&mut self, client: &mut Client) {
        let Position { stream, number } = client.position;
        let last = self.truths.len() as u64 - 1;
        let oldest = last + 1 - last.min(self.capacity);
        let expected = match () {
            () if stream != self.stream || number > last => Err(Gap::UnknownPosition),
            () if number + 1 < oldest => Err(Gap::TooFarBehind),
            () => Ok(()),
        };
        match self.events.resume(client.position) {
            Ok(subscriber) => {
                assert_eq!(expected, Ok(()), "at {number} of {last}");
                assert_eq!(subscriber.position(), client.position);
                client.subscriber = Some(subscriber);
            }
            Err(gap) => {
                assert_eq!(expected, Err(gap), "at {number} of {last}");
                if gap == Gap::UnknownPosition {
                    self.take_left_behind(client, oldest);
                }
                self.begin_snapshot(client);
            }
        }
    }

    /// Reads what a killed gateway left behind: all of it that is kept, in order.
    fn take_left_behind(&mut self, client: &mut Client, oldest: u64) {
        assert_eq!(self.events.left_behind(), self.lost.len() as u64);
        let mut numbers = Vec::new();
        loop {
            let batch = self.events.leaves_behind(numbers.last().copied().unwrap_or(0));
            numbers.extend(batch.iter().map(|event| event.number));
            batch.iter().for_each(|event| client.take(event));
            if batch.is_empty() {
                break;
            }
        }
        assert_eq!(numbers, (oldest..=self.lost.len() as u64).collect::<Vec<_>>());
        for number in numbers {
            let session = self.lost[number as usize - 1];
            assert_eq!(client.ended.get(&session), Some(&"gateway_lost"));
            assert!(!client.online.contains_key(&session));
        }
    }

    /// A subscriber ends, and returns with the number of the last event that it has; seldom with
    /// one that it never had. A part of a snapshot is not returned to.
    fn leave_and_return(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let place = self.chance.below(self.clients.len() as u64) as usize;
        let mut client = self.clients.swap_remove(place);
        client.subscriber = None;
        match self.chance.below(6) {
            0 => return,
            1 => {
                client.position.number += 1 << 40;
                self.resume(&mut client);
            }
            _ if client.unread > 0 => self.begin_snapshot(&mut client),
            _ => self.resume(&mut client),
        }
        self.clients.push(client);
    }

    /// A subscriber reads on.
    fn read(&mut self) {
        if self.clients.is_empty() {
            return;
        }
        let place = self.chance.below(self.clients.len() as u64) as usize;
        let mut client = self.clients.swap_remove(place);
        if client.subscriber.is_none() {
            // The gateway was killed meanwhile.
            self.resume(&mut client);
        }
        if client.unread > 0 {
            client.unread -= 1;
            let shard = client.unread;
            let of_shard =
                self.online.iter().filter(|(session, _)| **session as usize % SHARDS == shard);
            client.online.extend(of_shard.map(|(session, state)| (*session, *state)));
            client.ahead[shard] = self.published[shard].len() + self.pending[shard].len();
        } else {
            self.read_events(&mut client);
        }
        self.clients.push(client);
    }

    fn read_events(&mut self, client: &mut Client) {
        let last = self.truths.len() as u64 - 1;
        let number = client.position.number;
        let is_kept = number + 1 >= last + 1 - last.min(self.capacity);
        match client.subscriber.as_mut().unwrap().ready() {
            Err(gap) => {
                assert!(!is_kept && gap == Gap::TooFarBehind, "{gap:?} at {number} of {last}");
                self.begin_snapshot(client);
            }
            Ok(batch) => {
                assert!(is_kept, "at {number} of {last}");
                let expected: Vec<u64> = (number + 1..=last).take(BATCH).collect();
                assert_eq!(numbers(&batch), expected);
                for event in batch {
                    client.take(&event);
                    client.position.number = event.number;
                    self.compare(client);
                }
                assert_eq!(client.subscriber.as_ref().unwrap().position(), client.position);
            }
        }
        self.compare(client);
    }

    /// Compares what a subscriber knows with what was true at its number. What its snapshot shows
    /// may be ahead of the events, until they have come.
    fn compare(&self, client: &Client) {
        let number = client.position.number;
        let has_come = |shard: usize| {
            let wanted = client.ahead[shard];
            let last = wanted.checked_sub(1).map(|last| self.published[shard].get(last));
            last.is_none_or(|last| last.is_some_and(|last| *last <= number))
        };
        if client.unread > 0 || !(0..SHARDS).all(has_come) {
            return;
        }
        let truth = &self.truths[number as usize];
        assert_eq!(client.online, truth.online, "at {number} after {}", client.base);
        for (session, (said_at, cause)) in &truth.ended {
            if *said_at > client.base {
                assert_eq!(client.ended.get(session), Some(cause), "{session} at {number}");
            }
        }
    }
}

#[test]
fn a_subscriber_knows_at_each_number_what_was_true_then() {
    let only = std::env::var("SYSTOLE_SEED").ok().and_then(|text| text.parse().ok());
    let seeds = only.map_or(0..SEEDS, |seed| seed..seed + 1);
    for seed in seeds {
        let run = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            (0..STEPS).for_each(|_| world.step());
            // At last all facts are published and read.
            while world.pending.iter().any(|pending| !pending.is_empty()) {
                world.publish();
            }
            (0..40).for_each(|_| world.read());
        });
        assert!(run.is_ok(), "seed {seed}: SYSTOLE_SEED={seed} repeats it alone");
    }
}
