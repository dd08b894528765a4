//! What is owed about sessions, whatever happens to their links and in which order: a session that
//! is made durable either joins, and is owed until it leaves, or it never joins, and is waived.

use alloc::collections::BTreeSet;

use super::*;
use crate::random::Random;

/// The links of a gateway, few, so that their numbers are used again.
const LINKS: u32 = 6;

/// Two hubs with a shell that keeps what is owed, as the gateway's shards and its store do.
struct Gateway {
    hubs: [Driver<Hub>; 2],
    /// The hub that has each link.
    at: [Option<usize>; LINKS as usize],
    now: Time,
    random: Random,
    epoch: u64,
    /// Sessions and epochs about which something is owed.
    owed: BTreeSet<(u64, u64)>,
    /// Those that are online.
    online: BTreeSet<(u64, u64)>,
    /// What was written about logins, of which the shards do not know yet.
    written: Vec<Written>,
    moving: Option<Vec<u8>>,
    seen: Seen,
}

#[derive(Clone, Copy)]
struct Written {
    hub: usize,
    link: u32,
    admission: u32,
    session: u64,
    epoch: u64,
}

/// How often what the test is about has happened.
#[derive(Default)]
struct Seen {
    joined: u64,
    waived: u64,
    /// Waived while the place of the session was still taken.
    waived_in_place: u64,
    /// Joins of links that had ended by then.
    joined_at_the_end: u64,
}

impl Gateway {
    fn new(seed: u64) -> Gateway {
        let homes = Homes { shards: 2, key: seed };
        let hub = |shard| {
            let native = link::Settings::new(Codec::Native, Side::Accepting, Policy::default());
            let line = link::Settings::new(Codec::Line, Side::Accepting, Policy::default());
            let settings = super::super::Settings {
                shard,
                homes,
                listeners: Vec::from([native, line]),
                seed,
                frame_memory: FRAME_MEMORY,
                window_memory: WINDOW_MEMORY,
                away: AWAY_SESSIONS,
            };
            Driver::new(Time::ZERO, Hub::new(settings))
        };
        Gateway {
            hubs: [hub(0), hub(1)],
            at: [None; LINKS as usize],
            now: Time::ZERO,
            random: Random::new(seed),
            epoch: 0,
            owed: BTreeSet::new(),
            online: BTreeSet::new(),
            written: Vec::new(),
            moving: None,
            seen: Seen::default(),
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.random.below(limit as u64) as usize
    }

    fn step(&mut self) {
        let link = self.random.below(u64::from(LINKS)) as u32;
        let Some(hub) = self.at[link as usize] else {
            return self.open(link);
        };
        let tail = self.tail();
        let input = match self.below(16) {
            0..4 => return self.tell_written(),
            4 => link::World::Received(&tail),
            5 => link::World::Ended,
            6 => link::World::Failed(SocketError::Reset),
            7 => link::World::Illegal(Malformed::Tls),
            8 => link::World::Command(link::Command::close(CloseReason::Kicked)),
            9 => link::World::Overflowed,
            10 => return self.handle(hub, World::Crowded { link }),
            11 | 12 => return self.move_on(link),
            13 => return self.pass(),
            _ => return self.open(link),
        };
        self.handle(hub, World::Link { link, input });
    }

    /// Returns bytes that may follow a HELLO: legal, illegal, or the end of a session.
    fn tail(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.below(5) {
            0 => bytes.push(0xff),
            1 => bytes.extend([0x70, 7, 0, 0, 0, 0, 0, 0, 0]),
            2 => bytes.extend([0x10, 1]),
            3 => bytes.extend([0x50, 9, 1]),
            _ => {}
        }
        bytes
    }

    /// Opens a link, whose peer says who it is, and perhaps more.
    fn open(&mut self, link: u32) {
        if self.at[link as usize].is_some() {
            return;
        }
        let (hub, listener) = (self.below(2), self.below(4) / 3);
        self.at[link as usize] = Some(hub);
        let listener = listener as u16;
        self.handle(hub, World::Opened { link, listener, address: ADDRESS });
        let mut bytes = match listener {
            0 => hello(["ada", "bob", "eve", ""][self.below(4)], &[]),
            _ => Vec::from(b"line\n"),
        };
        bytes.extend(self.tail());
        let input = link::World::Received(&bytes);
        self.handle(hub, World::Link { link, input });
    }

    fn handle<'a>(&mut self, hub: usize, input: impl Into<Input<'a>>) {
        self.hubs[hub].handle(self.now, input);
        self.carry_out(hub);
    }

    /// Lets a shard know of a login about which it was written what is owed, or cannot be.
    fn tell_written(&mut self) {
        if self.written.is_empty() {
            return;
        }
        let index = self.below(self.written.len());
        let Written { hub, link, admission, session, epoch } = self.written.swap_remove(index);
        let refused = World::Refused { link, admission, denied: CloseReason::Kicked.into() };
        if self.below(8) == 0 {
            self.owed.remove(&(session, epoch));
            return self.handle(hub, refused);
        }
        if self.hubs[hub].machine().awaits_epoch(session) {
            let joined = self.seen.joined;
            self.handle(hub, Answer::Owned { session, epoch, fresh: None });
            assert_eq!(self.seen.joined, joined + 1, "it was to join");
        } else {
            let is_there = self.hubs[hub].machine().sessions.find(session).is_some();
            self.seen.waived += 1;
            self.seen.waived_in_place += u64::from(is_there);
            assert!(self.owed.remove(&(session, epoch)), "waived twice, or it has left");
            let joined = self.seen.joined;
            self.handle(hub, Answer::Owned { session, epoch, fresh: None });
            assert_eq!(self.seen.joined, joined, "a late answer is ignored");
        }
    }

    /// Moves a link to the other hub, wherever it stands.
    fn move_on(&mut self, link: u32) {
        let Some(from) = self.at[link as usize] else {
            return;
        };
        self.handle(from, World::HandOver { link });
        let Some(state) = self.moving.take() else {
            return;
        };
        self.at[link as usize] = Some(1 - from);
        self.handle(1 - from, World::TakenOver { link, state: &state });
    }

    fn pass(&mut self) {
        self.now = self.now + Span::from_millis(self.random.below(20_000));
        for hub in 0..2 {
            self.hubs[hub].expire(self.now, self.now);
            self.carry_out(hub);
            while let Some(link) = self.hubs[hub].poll_read() {
                self.hubs[hub].judge(self.now, link);
                self.carry_out(hub);
            }
        }
    }

    fn carry_out(&mut self, hub: usize) {
        let mut strangers = Vec::new();
        while let Some(output) = self.hubs[hub].poll_output() {
            let now = self.now;
            match output {
                Output::Admit { link, admission } => {
                    let heard_at = Span::from_millis(now.as_millis());
                    let login = Login::claim(heard_at);
                    self.hubs[hub].handle(now, World::Identified { link, admission, login });
                }
                Output::Own { link, admission, session } => {
                    self.epoch += 1;
                    let epoch = self.epoch;
                    self.owed.insert((session, epoch));
                    self.written.push(Written { hub, link, admission, session, epoch });
                }
                Output::GoHome { link, .. } => strangers.push(link),
                Output::HandedOver { state, .. } => self.moving = Some(state.to_vec()),
                Output::Link { link, output: link::Output::Session(event) } => {
                    self.report(hub, link, event);
                }
                Output::Link { link, output: link::Output::Close(_) } => {
                    self.at[link as usize] = None;
                }
                Output::Link { link, output: link::Output::Examine { .. } } => {
                    let examination = Examination::default();
                    self.hubs[hub].handle(now, Answer::Examined { link, examination });
                }
                Output::Link { .. } => {}
                Output::Resume { .. } | Output::Session { .. } => panic!("no session is away"),
            }
        }
        for link in strangers {
            self.move_on(link);
        }
    }

    /// Keeps what is owed by what the gateway publishes: only of links that were established.
    fn report(&mut self, hub: usize, link: u32, event: session::Event) {
        let known = self.hubs[hub].machine().presence(link).expect("it is known until polled");
        let key = (known.session, known.epoch);
        let is_established = known.established.is_some();
        match event {
            session::Event::Joined { .. } => {
                assert!(is_established, "a join that nobody is told of");
                assert!(self.owed.contains(&key), "a join that is not durable");
                assert!(self.online.insert(key), "joined twice");
                self.seen.joined += 1;
                let is_over = self.hubs[hub].machine().find(key.0).is_none();
                self.seen.joined_at_the_end += u64::from(is_over);
            }
            session::Event::Away { .. } | session::Event::Resumed { .. } => {
                panic!("no session outlives its link")
            }
            session::Event::Left(_) if is_established => {
                assert!(self.online.remove(&key), "left without a join, or twice");
                assert!(self.owed.remove(&key), "not owed");
            }
            session::Event::Left(_) => assert!(!self.online.contains(&key), "nobody is told"),
            session::Event::Suspect
            | session::Event::Warned { .. }
            | session::Event::Recovered
            | session::Event::Overdue { .. }
            | session::Event::Hung { .. }
            | session::Event::Retuned(_)
            | session::Event::Moved { .. } => {}
        }
    }

    /// Lets the shards know of all that was written, and compares what is owed with who is online.
    fn settle(&mut self) {
        while !self.written.is_empty() {
            self.tell_written();
        }
        assert_eq!(self.owed, self.online, "owed, and online");
    }

    /// Drains both hubs, as a gateway that stops.
    fn stop(&mut self) {
        let (limit, reconnect_within) = (Span::from_secs(1), Span::ZERO);
        for hub in 0..2 {
            let drain = HubCommand::Drain { limit, reconnect_within };
            self.handle(hub, World::Command(drain));
        }
        for _ in 0..10 {
            (0..20).for_each(|_| self.step());
            self.pass();
        }
    }
}

#[test]
fn who_joins_is_owed_until_it_leaves_and_who_never_joins_is_owed_nothing() {
    let mut all = Seen::default();
    for seed in 0..400 {
        let mut gateway = Gateway::new(seed);
        for _ in 0..10 {
            (0..40).for_each(|_| gateway.step());
            gateway.settle();
        }
        gateway.stop();
        gateway.settle();
        assert!(gateway.owed.is_empty(), "{:?} after the drain", gateway.owed);
        let Seen { joined, waived, waived_in_place, joined_at_the_end } = gateway.seen;
        all.joined += joined;
        all.waived += waived;
        all.waived_in_place += waived_in_place;
        all.joined_at_the_end += joined_at_the_end;
    }
    let Seen { joined, waived, waived_in_place, joined_at_the_end } = all;
    let least = joined.min(waived).min(waived_in_place).min(joined_at_the_end);
    assert!(least > 100, "{joined} {waived} {waived_in_place} {joined_at_the_end}");
}
