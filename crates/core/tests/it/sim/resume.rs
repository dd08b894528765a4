//! A model of resumption: clients whose links die at any byte, two hubs with slow verifiers, late
//! and doubled HELLOs. Whatever happens, each end gets the messages of a session in their order,
//! none lost and none twice.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use systole_core::cause::{Cause, Verdict};
use systole_core::driver::Driver;
use systole_core::home::Homes;
use systole_core::hub::{
    self, AWAY_SESSIONS, Answer, FRAME_MEMORY, Hub, Login, Output, WINDOW_MEMORY, World,
};
use systole_core::kernel::SocketError;
use systole_core::link::{
    self, Command, Introduction, Link, Resumable, Side, Takes, WhenFull, Windows,
};
use systole_core::machine::Machine;
use systole_core::random::Random;
use systole_core::resume::{Digest, Fresh, NotResumed, Token};
use systole_core::session::Event;
use systole_core::window::Limits;
use systole_core::wire::{Codec, DataKind, Malformed};
use systole_core::{Policy, Span, Time};

const STEPS: usize = 400;
const LIMITS: Limits = Limits { messages: 4, bytes: 300 };
const OUTLIVES: Span = Span::from_secs(30);

/// What one end has sent and the other has got in a session, by the numbers in the messages.
#[derive(Debug, Default)]
struct Stream {
    sent: u64,
    got: u64,
}

impl Stream {
    fn next(&mut self, random: &mut Random) -> Vec<u8> {
        self.sent += 1;
        let mut message = self.sent.to_le_bytes().to_vec();
        message.resize(8 + random.below(200) as usize, self.sent as u8);
        message
    }

    fn get(&mut self, message: &[u8]) {
        let number = u64::from_le_bytes(message[..8].try_into().unwrap());
        assert_eq!(number, self.got + 1, "lost, doubled or out of order");
        assert!(message[8..].iter().all(|byte| *byte == number as u8), "not as it was sent");
        self.got = number;
        assert!(self.got <= self.sent);
    }
}

/// A session, as the test knows it: from the events of the hubs, and from what was said in it.
#[derive(Debug, Default)]
struct Known {
    up: Stream,
    down: Stream,
    is_away: bool,
    away_since: Time,
    is_over: bool,
    epoch: u64,
}

/// A connection: the end of the client may be gone while that of the gateway is not, and its bytes
/// may come late.
#[derive(Debug)]
struct Wire {
    client: usize,
    /// The hub and its number for the link; `None` if its end is closed.
    at: Option<usize>,
    number: u32,
    to_gateway: VecDeque<u8>,
    to_client: VecDeque<u8>,
    is_open: bool,
    partial: Vec<u8>,
}

#[derive(Debug, Default)]
struct Client {
    link: Option<Link>,
    wire: usize,
    resumable: Option<Box<Resumable>>,
    session: Option<u64>,
    /// Those that have arrived and were not taken.
    mailbox: VecDeque<usize>,
    partial: Vec<u8>,
}

#[derive(Debug)]
enum Asked {
    Admit { hub: usize, link: u32, admission: u32 },
    Own { hub: usize, session: u64 },
    Resume { hub: usize, link: u32, admission: u32 },
}

#[derive(Debug, Default)]
struct Seen {
    resumed: u64,
    from_an_old_link: u64,
    refused: u64,
    lapsed: u64,
    moved: u64,
    redelivered: u64,
}

impl Seen {
    fn add(&mut self, other: &Seen) {
        let Seen { resumed, from_an_old_link, refused, lapsed, moved, redelivered } = other;
        self.resumed += resumed;
        self.from_an_old_link += from_an_old_link;
        self.refused += refused;
        self.lapsed += lapsed;
        self.moved += moved;
        self.redelivered += redelivered;
    }
}

struct Model {
    random: Random,
    now: Time,
    hubs: [Driver<Hub>; 2],
    clients: [Client; 2],
    wires: Vec<Wire>,
    sessions: BTreeMap<u64, Known>,
    asked: Vec<Asked>,
    epoch: u64,
    seen: Seen,
    /// The HELLOs that were sent.
    hellos: Vec<Vec<u8>>,
    /// Whether an end was allowed to lose a session: by its age, or by a login of its own.
    may_lose: bool,
}

/// Whether a network that brings a frame in too small pieces has ended a session, by the rule of
/// docs/protocol.md.
fn is_stalled(verdict: &Verdict) -> bool {
    verdict.cause == Cause::Protocol(Malformed::StalledFrame)
}

/// Stands for the SHA-256 of a shell.
fn digest(token: &[u8]) -> Digest {
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(token).for_each(|(to, byte)| *to = !byte);
    Digest(bytes)
}

fn hub_settings(shard: u8) -> hub::Settings {
    let windows =
        Windows { outlives: OUTLIVES, full: WhenFull::End, ..Windows::new(LIMITS, Takes::AtOnce) };
    let native = link::Settings::new(Codec::Native, Side::Accepting, Policy::default());
    hub::Settings {
        shard,
        homes: Homes { shards: 2, key: 7 },
        listeners: vec![link::Settings { window: Some(windows), ..native }],
        seed: 42 + u64::from(shard),
        frame_memory: FRAME_MEMORY,
        window_memory: WINDOW_MEMORY,
        away: AWAY_SESSIONS,
    }
}

fn client_settings(client: usize) -> link::Settings {
    let identity = if client == 0 { "ada" } else { "" };
    let introduction = Introduction { identity: identity.into(), ..Introduction::default() };
    let window = Some(Windows::new(LIMITS, Takes::ByCommand));
    let side = Side::Connecting(introduction);
    link::Settings { window, ..link::Settings::new(Codec::Native, side, Policy::default()) }
}

impl Model {
    fn new(seed: u64) -> Model {
        let now = Time::from_millis(1);
        Model {
            random: Random::new(seed),
            now,
            hubs: [0, 1].map(|shard| Driver::new(now, Hub::new(hub_settings(shard)))),
            clients: Default::default(),
            wires: Vec::new(),
            sessions: BTreeMap::new(),
            asked: Vec::new(),
            epoch: 0,
            seen: Seen::default(),
            hellos: Vec::new(),
            may_lose: false,
        }
    }

    fn below(&mut self, most: u64) -> u64 {
        self.random.below(most)
    }

    fn fresh(&mut self) -> Fresh {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.random.next_u64().to_le_bytes());
        Fresh { token: Token(bytes), digest: digest(&bytes) }
    }

    fn step(&mut self) {
        let client = self.below(2) as usize;
        match self.below(100) {
            0..20 if self.clients[client].link.is_none() => self.connect(client),
            0..1 => self.connect(client),
            1..44 => self.carry_some(client),
            44..54 => self.client_sends(client),
            54..64 => self.gateway_sends(client),
            64..72 => self.take(client),
            72..90 => self.answer(),
            90..92 => self.cut_at_client(client),
            92..94 => self.cut_at_gateway(),
            94..95 => self.reload(),
            95 if self.below(8) == 0 => self.restart(client),
            95 if self.below(6) == 0 => self.restart_gateway(),
            95..97 => self.copy_hello(),
            _ => {
                let most = if self.below(60) == 0 { 40_000 } else { 400 };
                let passes = Span::from_millis(self.below(most));
                self.pass(passes);
            }
        }
    }

    /// Lets a client connect; an older connection of its own is given up.
    fn connect(&mut self, client: usize) {
        self.cut_at_client(client);
        let settings = client_settings(client);
        let seed = self.random.next_u64();
        let resumable = self.clients[client].resumable.take();
        let link = match resumable {
            Some(session) => Link::resume(self.now, settings, seed, session),
            None => Link::new(self.now, settings, seed),
        };
        let (at, number) = (self.below(2) as usize, self.wires.len() as u32);
        self.clients[client].link = Some(link);
        self.clients[client].wire = self.wires.len();
        self.wires.push(Wire {
            client,
            at: Some(at),
            number,
            to_gateway: VecDeque::new(),
            to_client: VecDeque::new(),
            is_open: true,
            partial: Vec::new(),
        });
        let address = SocketAddr::from(([10, 0, 0, 1], 1_000));
        self.hub_handles(at, World::Opened { link: number, listener: 0, address });
        self.poll_client(client);
        let hello = self.wires.last().map(|wire| wire.to_gateway.iter().copied().collect());
        self.hellos.extend(hello);
    }

    fn hub_handles<'a>(&mut self, hub: usize, input: impl Into<hub::Input<'a>>) {
        self.hubs[hub].handle(self.now, input);
        self.poll_hub(hub);
    }

    fn poll_hub(&mut self, hub: usize) {
        let mut moving = None;
        let mut goes_home = None;
        while let Some(output) = self.hubs[hub].poll_output() {
            match output {
                Output::Admit { link, admission } => {
                    self.asked.push(Asked::Admit { hub, link, admission });
                }
                Output::Own { session, .. } => self.asked.push(Asked::Own { hub, session }),
                Output::Resume { link, admission, .. } => {
                    self.asked.push(Asked::Resume { hub, link, admission });
                }
                Output::GoHome { link, .. } => goes_home = Some(link),
                Output::HandedOver { link, state } => moving = Some((link, state.to_vec())),
                Output::Session { session, event } => {
                    let known = self.sessions.get_mut(&session).unwrap();
                    assert!(known.is_away, "{event:?}");
                    let Event::Left(verdict) = event else { panic!("{event:?}") };
                    assert!(self.may_lose, "{verdict:?}");
                    known.is_over = true;
                }
                Output::Link { link, output } => {
                    let wire = &mut self.wires[link as usize];
                    let event = match output {
                        link::Output::Transmit { bytes, .. } => {
                            wire.to_client.extend(bytes);
                            continue;
                        }
                        link::Output::Close(_) => {
                            wire.at = None;
                            continue;
                        }
                        link::Output::Event(link::Event::Data { bytes, more, .. }) => {
                            wire.partial.extend_from_slice(bytes);
                            if more {
                                continue;
                            }
                            None
                        }
                        link::Output::Session(event) => Some(event),
                        link::Output::Event(_)
                        | link::Output::Examine { .. }
                        | link::Output::Patience(_)
                        | link::Output::Admit => continue,
                    };
                    let presence = self.hubs[hub].machine().presence(link).unwrap();
                    let (session, epoch) = (presence.session, presence.epoch);
                    match event {
                        Some(event) => self.note(session, epoch, &event),
                        None => {
                            let message = std::mem::take(&mut wire.partial);
                            self.sessions.get_mut(&session).unwrap().up.get(&message);
                        }
                    }
                }
            }
        }
        if let Some(link) = goes_home {
            self.seen.moved += 1;
            self.hubs[hub].handle(self.now, World::HandOver { link });
            self.poll_hub(hub);
        }
        if let Some((link, state)) = moving {
            let to = 1 - hub;
            self.wires[link as usize].at = Some(to);
            self.hub_handles(to, World::TakenOver { link, state: &state });
        }
    }

    /// Checks an event of a session against what was told of it.
    fn note(&mut self, session: u64, epoch: u64, event: &Event) {
        match event {
            Event::Joined { .. } => {
                let known = Known { epoch, ..Known::default() };
                assert!(self.sessions.insert(session, known).is_none(), "joined twice");
            }
            Event::Away { verdict, .. } => {
                let known = self.sessions.get_mut(&session).unwrap();
                assert!(!known.is_away && !known.is_over, "{verdict:?}");
                (known.is_away, known.away_since) = (true, self.now);
                self.seen.from_an_old_link += u64::from(verdict.cause == Cause::Replaced);
            }
            Event::Resumed { gap, redelivered, .. } => {
                let known = self.sessions.get_mut(&session).unwrap();
                assert!(known.is_away && !known.is_over && *gap == 0);
                assert_eq!(known.epoch, epoch, "a resumption keeps the epoch");
                known.is_away = false;
                self.seen.resumed += 1;
                self.seen.redelivered += u64::from(*redelivered);
            }
            Event::Left(verdict) => {
                // A link without a session has an end too.
                if let Some(known) = self.sessions.get_mut(&session) {
                    assert!(!known.is_away && !known.is_over);
                    self.may_lose |= is_stalled(verdict);
                    assert!(self.may_lose, "{verdict:?}");
                    known.is_over = true;
                }
            }
            Event::Suspect
            | Event::Warned { .. }
            | Event::Recovered
            | Event::Overdue { .. }
            | Event::Hung { .. }
            | Event::Retuned(_)
            | Event::Moved { .. } => {}
        }
    }

    fn client_handles<'a>(&mut self, client: usize, input: impl Into<link::Input<'a>>) {
        if let Some(link) = &mut self.clients[client].link {
            link.handle(self.now, input);
            self.poll_client(client);
        }
    }

    fn poll_client(&mut self, client: usize) {
        let this = &mut self.clients[client];
        let Some(link) = &mut this.link else {
            return;
        };
        let mut is_over = false;
        let mut is_gone = false;
        while let Some(output) = link.poll_output() {
            match output {
                link::Output::Transmit { bytes, .. } => {
                    self.wires[this.wire].to_gateway.extend(bytes);
                }
                link::Output::Event(link::Event::Established { session, .. }) => {
                    this.session = Some(session);
                }
                link::Output::Event(link::Event::NotResumed(why)) => {
                    assert_ne!(why, NotResumed::Counts, "the ends disagree");
                    assert!(self.may_lose, "{why:?}");
                    self.seen.lapsed += 1;
                    is_gone = true;
                }
                link::Output::Event(link::Event::Data { bytes, more, .. }) => {
                    this.partial.extend_from_slice(bytes);
                    if !more {
                        let message = std::mem::take(&mut this.partial);
                        let session = this.session.unwrap();
                        self.sessions.get_mut(&session).unwrap().down.get(&message);
                        this.mailbox.push_back(message.len());
                    }
                }
                link::Output::Session(Event::Joined { .. }) => this.mailbox.clear(),
                link::Output::Session(Event::Left(verdict)) => {
                    self.may_lose |= is_stalled(&verdict);
                }
                link::Output::Close(_) => is_over = true,
                link::Output::Session(_)
                | link::Output::Event(_)
                | link::Output::Examine { .. }
                | link::Output::Patience(_)
                | link::Output::Admit => {}
            }
        }
        if is_gone {
            let lost = link.take_lapsed().expect("what is uncertain is left");
            let (sent, acknowledged) = lost.progress();
            assert_eq!(lost.unacknowledged().count() as u64, sent - acknowledged);
        }
        if is_over {
            this.resumable = link.take_resumable();
            if this.resumable.is_none() {
                assert!(self.may_lose || is_gone || this.session.is_none(), "its session is lost");
                this.session = None;
            }
            this.link = None;
            this.partial.clear();
            self.wires[this.wire].is_open = false;
        }
    }

    /// Carries some bytes of one connection, one way: of the latest one of a client as a rule, of a
    /// former one else.
    fn carry_some(&mut self, client: usize) {
        if self.wires.is_empty() {
            return;
        }
        let recent = self.wires.len().min(6) as u64;
        let former = self.wires.len() - 1 - self.below(recent) as usize;
        let wire = if self.below(5) == 0 { former } else { self.clients[client].wire };
        let most = if self.below(3) == 0 { 3 } else { 600 };
        let count = 1 + self.below(most) as usize;
        if self.below(2) == 0 { self.carry_up(wire, count) } else { self.carry_down(wire, count) }
    }

    fn carry_up(&mut self, index: usize, count: usize) {
        let wire = &mut self.wires[index];
        let count = count.min(wire.to_gateway.len());
        let bytes: Vec<u8> = wire.to_gateway.drain(..count).collect();
        let is_over = !wire.is_open && bytes.is_empty();
        let input = if is_over { link::World::Ended } else { link::World::Received(&bytes) };
        if let (Some(hub), link) = (wire.at, wire.number)
            && (is_over || !bytes.is_empty())
        {
            self.hub_handles(hub, World::Link { link, input });
        }
    }

    fn carry_down(&mut self, index: usize, count: usize) {
        let wire = &mut self.wires[index];
        let count = count.min(wire.to_client.len());
        let bytes: Vec<u8> = wire.to_client.drain(..count).collect();
        let (client, is_over) = (wire.client, wire.at.is_none() && bytes.is_empty());
        if !wire.is_open || self.clients[client].wire != index {
            return;
        }
        if is_over {
            self.client_handles(client, link::World::Failed(SocketError::Reset));
        } else if !bytes.is_empty() {
            self.client_handles(client, link::World::Received(&bytes));
        }
    }

    fn client_sends(&mut self, client: usize) {
        let this = &mut self.clients[client];
        let Some(known) = this.session.and_then(|session| self.sessions.get_mut(&session)) else {
            return;
        };
        if let Some(resumable) = &mut this.resumable {
            if resumable.has_room(208) {
                let message = known.up.next(&mut self.random);
                resumable.send(&message, false).unwrap();
            }
            return;
        }
        let Some(link) = this.link.as_ref().filter(|link| link.progress().is_some()) else {
            return;
        };
        if link.has_room(208) {
            let message = known.up.next(&mut self.random);
            let command = Command::Send { bytes: &message, more: false, kind: DataKind::default() };
            self.client_handles(client, link::World::Command(command));
        }
    }

    fn gateway_sends(&mut self, client: usize) {
        let Some(session) = self.clients[client].session else {
            return;
        };
        let Some(known) = self.sessions.get_mut(&session).filter(|known| !known.is_over) else {
            return;
        };
        let hub = usize::from((session >> 56) as u8);
        let machine = self.hubs[hub].machine();
        let has_room = match machine.find(session) {
            Some(link) => machine.can_send(link, &[0; 208]).is_ok(),
            None => machine.absence(session).is_some_and(|absence| absence.waiting < 4),
        };
        if has_room {
            let message = known.down.next(&mut self.random);
            let command = Command::Send { bytes: &message, more: false, kind: DataKind::default() };
            self.hub_handles(hub, World::Session { session, command });
        }
    }

    /// Lets the application of a client take a message, whether it has a link or not.
    fn take(&mut self, client: usize) {
        let this = &mut self.clients[client];
        let Some(length) = this.mailbox.pop_front() else {
            return;
        };
        match &mut this.resumable {
            Some(resumable) => resumable.take(length),
            None if this.link.as_ref().is_some_and(|link| link.progress().is_some()) => {
                self.client_handles(client, link::World::Command(Command::Taken { length }));
            }
            None => this.mailbox.push_front(length),
        }
    }

    /// Answers one of the questions of the hubs, not always the oldest.
    fn answer(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        let which = self.below(self.asked.len() as u64) as usize;
        let fresh = self.fresh();
        match self.asked.swap_remove(which) {
            Asked::Admit { hub, link, admission } => {
                let heard_at = Span::from_nanos(self.now.as_nanos());
                let login = Login::claim(heard_at);
                self.hub_handles(hub, World::Identified { link, admission, login });
            }
            Asked::Own { hub, session } => {
                self.epoch += 1;
                let epoch = self.epoch;
                // A newer login takes the place of the session of its identity.
                let machine = self.hubs[hub].machine();
                let (online, away) = (machine.links_of("ada"), machine.absent_sessions_of("ada"));
                let is_login = machine.awaits_epoch(session) && self.is_of_ada(hub, session);
                self.may_lose |= is_login && !(online.is_empty() && away.is_empty());
                self.hub_handles(hub, Answer::Owned { session, epoch, fresh: Some(fresh) });
            }
            Asked::Resume { hub, link, admission } => {
                let shown = digest(self.hubs[hub].machine().shown(link));
                self.hub_handles(hub, Answer::Resumed { link, admission, shown, fresh });
            }
        }
    }

    /// Returns whether a session that waits for its epoch is of the client with an identity.
    fn is_of_ada(&self, hub: usize, session: u64) -> bool {
        let links = (0..self.wires.len()).map(|link| link as u32);
        let mut known = links.filter_map(|link| self.hubs[hub].machine().presence(link));
        known.any(|known| known.session == session && known.identity == "ada")
    }

    fn cut_at_client(&mut self, client: usize) {
        if self.below(2) == 0 && self.clients[client].link.is_some() {
            // What is on its way to the gateway is lost with the connection, or part of it.
            let wire = self.clients[client].wire;
            if let Some(wire) = self.wires.get_mut(wire) {
                let keep = self.random.below(wire.to_gateway.len() as u64 + 1) as usize;
                wire.to_gateway.truncate(keep);
            }
        }
        self.client_handles(client, link::World::Failed(SocketError::TimedOut));
    }

    fn cut_at_gateway(&mut self) {
        let open: Vec<usize> =
            (0..self.wires.len()).filter(|it| self.wires[*it].at.is_some()).collect();
        if open.is_empty() {
            return;
        }
        let wire = open[self.below(open.len() as u64) as usize];
        let (Some(hub), link) = (self.wires[wire].at, self.wires[wire].number) else { return };
        let input = link::World::Failed(SocketError::TimedOut);
        self.hub_handles(hub, World::Link { link, input });
    }

    /// Saves a hub and loads it again.
    fn reload(&mut self) {
        let hub = self.below(2) as usize;
        self.hubs[hub].reload(self.now, Hub::new(hub_settings(hub as u8))).unwrap();
    }

    /// The process of a client ends, and another one logs in.
    fn restart(&mut self, client: usize) {
        let wire = self.clients[client].wire;
        if self.clients[client].link.is_some() {
            self.wires[wire].is_open = false;
        }
        self.clients[client] = Client::default();
        self.may_lose = true;
    }

    /// The process of the gateway ends, with all that its shards know, and another one starts.
    fn restart_gateway(&mut self) {
        self.count_refused();
        for hub in 0..2 {
            let seed = self.random.next_u64();
            let settings = hub::Settings { seed, ..hub_settings(hub) };
            self.hubs[usize::from(hub)] = Driver::new(self.now, Hub::new(settings));
        }
        self.asked.clear();
        self.wires.iter_mut().for_each(|wire| wire.at = None);
        self.sessions.values_mut().for_each(|known| known.is_over = true);
        self.may_lose = true;
    }

    fn count_refused(&mut self) {
        let refused = self.hubs.iter().map(|hub| hub.machine().counters().resumptions_refused);
        self.seen.refused += refused.sum::<u64>();
    }

    /// Somebody sends a HELLO once more, on a connection of its own.
    fn copy_hello(&mut self) {
        if self.hellos.is_empty() {
            return;
        }
        let hello = self.hellos[self.random.below(self.hellos.len() as u64) as usize].clone();
        // A login without a session to resume takes the place of the one in force.
        self.may_lose |= hello.get(8).is_none_or(|flags| flags & 2 == 0);
        let (at, number) = (self.below(2) as usize, self.wires.len() as u32);
        self.wires.push(Wire {
            client: 0,
            at: Some(at),
            number,
            to_gateway: hello.into(),
            to_client: VecDeque::new(),
            is_open: false,
            partial: Vec::new(),
        });
        let address = SocketAddr::from(([10, 0, 0, 9], 1_000));
        self.hub_handles(at, World::Opened { link: number, listener: 0, address });
    }

    fn pass(&mut self, span: Span) {
        self.now = self.now + span;
        let is_late = |known: &Known| known.is_away && self.now >= known.away_since + OUTLIVES;
        self.may_lose |= self.sessions.values().any(is_late);
        for hub in 0..2 {
            for _ in 0..4 {
                self.hubs[hub].expire(self.now, self.now);
                self.poll_hub(hub);
            }
        }
        for client in 0..2 {
            let due = self.clients[client].link.as_ref().and_then(|link| link.deadline_of(()));
            if due.is_some_and(|due| due.at <= self.now) {
                self.client_handles(client, link::Answer::Deadline);
            }
        }
        for session in self.sessions.values().filter(|known| !known.is_over) {
            assert!(session.up.got <= session.up.sent && session.down.got <= session.down.sent);
        }
    }

    /// Lets everything arrive, and looks whether the sessions that remain are whole.
    fn settle(&mut self) {
        for client in 0..2 {
            if self.clients[client].link.is_none() {
                self.connect(client);
            }
        }
        for _ in 0..200 {
            while !self.asked.is_empty() {
                self.answer();
            }
            for wire in 0..self.wires.len() {
                self.carry_up(wire, usize::MAX);
                self.carry_down(wire, usize::MAX);
            }
            for client in 0..2 {
                if self.clients[client].link.is_none() {
                    self.connect(client);
                }
                while !self.clients[client].mailbox.is_empty() {
                    let before = self.clients[client].mailbox.len();
                    self.take(client);
                    if self.clients[client].mailbox.len() == before {
                        break;
                    }
                }
                self.client_handles(client, link::World::Command(Command::Flush));
            }
        }
        for client in 0..2 {
            let session = self.clients[client].session.expect("it is back");
            let known = &self.sessions[&session];
            assert!(!known.is_away && !known.is_over, "{known:?}");
            assert_eq!(known.up.got, known.up.sent, "to the gateway");
            assert_eq!(known.down.got, known.down.sent, "to the client");
        }
    }
}

#[test]
fn sim_resumptions_lose_double_and_reorder_nothing_whatever_dies() {
    if let Some(seed) = super::env_number("SYSTOLE_SEED") {
        println!("seed {seed}: {:?}", run(seed));
        return;
    }
    let seeds = super::env_number("SYSTOLE_SIM_SCHEDULES").unwrap_or(super::SCHEDULES);
    let next = AtomicU64::new(0);
    let worker = || {
        let mut total = Seen::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return total;
            }
            let seen = catch_unwind(|| run(seed)).unwrap_or_else(|panic| {
                next.store(seeds, Ordering::Relaxed);
                eprintln!("\nresumption {seed} failed; again: ./test sim --seed {seed}\n");
                resume_unwind(panic)
            });
            total.add(&seen);
        }
    };
    let total = thread::scope(|scope| {
        let workers: Vec<_> = (0..super::THREADS).map(|_| scope.spawn(worker)).collect();
        let mut total = Seen::default();
        workers.into_iter().for_each(|it| total.add(&it.join().expect("its seed is printed")));
        total
    });
    println!("{seeds} histories of resumption: {total:?}");
    let Seen { resumed, from_an_old_link, refused, lapsed, moved, redelivered } = total;
    let kinds = [resumed, from_an_old_link, refused, lapsed, moved, redelivered];
    assert!(seeds < 1_000 || kinds.iter().all(|it| *it > 50), "too few events: {total:?}");
}

fn run(seed: u64) -> Seen {
    let mut model = Model::new(seed);
    for _ in 0..STEPS {
        model.step();
    }
    model.settle();
    model.count_refused();
    model.seen
}
