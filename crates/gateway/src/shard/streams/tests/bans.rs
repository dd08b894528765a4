//! Bans that come at any time of a login: whatever the order of the steps, nobody banned is online
//! when both are over.

use std::future::Future;
use std::io::{Read, Write};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, sync_channel};
use std::task::{Context, Waker};

use systole_core::wire::{BootId, Close, CloseReason, Decoder, Frame, Hello};

use super::logins::{ada, tokens};
use super::*;
use crate::bans::{Banned, Bans, TooMany};
use crate::config::Log;
use crate::events::{Events as Published, Names};
use crate::gateway::Gateway;
use crate::gateway::ban::{self, Farewell};
use crate::identity::{Job, Pool, jobs};
use crate::logs::Logs;
use crate::metrics::Metrics;
use crate::request::{REQUESTS, Requests};
use crate::store::{Store, fixture};

const DEVICE: BootId = BootId([5; 16]);

const HOUR: Span = Span::from_secs(3_600);

/// What the people of a banned peer are told.
const TEXT: &str = "until noon";

/// The steps of a login: HELLO is sent, it is read and the verifier asked, the verifier answers,
/// the link arrives at its home, which asks the store, and the store has written.
const LOGIN: usize = 5;

/// The steps of a ban, each a question to a shard and its answer; the rest is taken at the end.
const BAN: usize = 4;

type Banning = Pin<Box<dyn Future<Output = Result<ban::Banning, TooMany>>>>;

/// Two shards and a control plane whose steps the test takes.
struct Race {
    shards: Vec<ShardLoop<Streams>>,
    asked: Vec<Receiver<Request>>,
    arriving: Vec<Receiver<Parcel>>,
    arrivals: Arc<[Arrivals]>,
    pool: Pool,
    job: Option<Job>,
    gateway: Arc<Gateway>,
    bans: Arc<Bans>,
    store: Option<Store>,
    address: SocketAddr,
    peer: Option<TcpStream>,
}

pub(super) fn gateway(shards: Vec<Requests>, bans: Arc<Bans>, clock: Clock) -> Gateway {
    let stats: Vec<_> = shards.iter().map(|_| Arc::default()).collect();
    let listeners = Vec::new();
    let names = Names { listeners, descriptors: None, max_links: 10, links_by_descriptors: false };
    let logs = Logs::detached(&Log::default());
    let distributions = Distributions::default();
    let metrics = Metrics::new(stats.clone(), Vec::new(), &distributions, clock, logs.clone());
    let events = Published::new(16, 0xa, names);
    Gateway::new(shards, stats, Vec::new(), events, metrics, logs).with_bans(bans)
}

impl Race {
    fn new(has_store: bool) -> Race {
        // She arrives at the first shard, and her home is the second.
        let mut homes = (0..).map(|key| Homes { shards: 2, key });
        let homes = homes.find(|homes| homes.of("ada") == 1).unwrap();
        let clock = Clock::start();
        let bans = Arc::new(Bans::new(clock));
        let polls: Vec<_> = (0..2)
            .map(|_| {
                let poll = Poll::new().unwrap();
                let (waker, wake_ups) = wake_ups(poll.registry(), WAKER).unwrap();
                (poll, wake_ups, waker)
            })
            .collect();
        let wakers: Vec<LoopWaker> = polls.iter().map(|(.., waker)| waker.clone()).collect();
        let (parcels, arriving): (Vec<_>, _) = (0..2).map(|_| sync_channel(1)).unzip();
        let (senders, asked): (Vec<_>, _) = (0..2).map(|_| sync_channel(REQUESTS)).unzip();
        let arrivals = parcels.into_iter().zip(&wakers);
        let arrivals: Arc<[Arrivals]> =
            arrivals.map(|(sender, waker)| Arrivals::new(sender, waker.clone())).collect();
        let requests = senders.into_iter().zip(&wakers);
        let requests = requests.map(|(sender, waker)| Requests::new(sender, waker.clone()));
        let gateway = Arc::new(gateway(requests.collect(), bans.clone(), clock));
        let store = has_store.then(|| fixture::in_memory("a", "leave", wakers));
        let (jobs, pool) = jobs();
        let mut addresses = Vec::new();
        let shards = (0..).zip(polls).map(|(index, (poll, wake_ups, _))| {
            let any = SocketAddr::from(([127, 0, 0, 1], 0));
            let socket = listener::bind_shards(any, 1).unwrap().remove(0);
            addresses.push(socket.local_addr().unwrap());
            let settings = Settings::new(Codec::Native, Side::Accepting, Policy::standard());
            let mut setup = setup(socket, false, settings, Logic::None);
            setup.listeners[0].tokens = Some(tokens(false));
            (setup.index, setup.homes, setup.clock) = (index, homes, clock);
            (setup.siblings, setup.jobs) = (arrivals.clone(), Some(jobs.clone()));
            (setup.bans, setup.store) = (bans.clone(), store.clone());
            // No request comes through it: the test hands them in.
            let queue = RequestQueue::new(std::sync::mpsc::channel().1);
            Streams::<Layer>::shard(poll, wake_ups, queue, setup).unwrap()
        });
        let shards = shards.collect();
        let (job, peer, address) = (None, None, addresses[0]);
        Race { shards, asked, arriving, arrivals, pool, job, gateway, bans, store, address, peer }
    }

    /// Takes a step of the login, unless it has ended before.
    fn log_in(&mut self, step: usize) {
        match step {
            0 => {
                let token = b"token";
                let hello = Hello { boot_id: DEVICE, token, ..Hello::default() };
                let mut bytes = Vec::new();
                Codec::Native.encode(&Frame::Hello(hello), &mut bytes);
                let mut peer = TcpStream::connect(self.address).unwrap();
                peer.set_read_timeout(Some(LONG.into())).unwrap();
                peer.write_all(&bytes).unwrap();
                self.peer = Some(peer);
            }
            1 => self.read(),
            2 => {
                if let Some(job) = self.job.take() {
                    Streams::<Layer>::logged_in(&mut self.shards[0], job.answer(ada()));
                }
            }
            3 => self.arrive(1),
            _ => self.take_owned(),
        }
    }

    /// Runs turns of the first shard until the verifier is asked, or the connection is turned away.
    fn read(&mut self) {
        let mut events = Events::with_capacity(EVENTS);
        for _ in 0..TURNS {
            let shard = &mut self.shards[0];
            let planned = Span::from_millis(5);
            shard.poll.poll(&mut events, Some(planned.into())).unwrap();
            shard.clock.begin_turn(planned);
            Streams::<Layer>::receive(shard, &events).unwrap();
            self.job = self.pool.next();
            if self.job.is_some() || self.turned_away() {
                return;
            }
        }
        panic!("nothing comes");
    }

    fn turned_away(&self) -> bool {
        self.shards[0].stats.turned_away[crate::gate::TurnedAway::Banned.index()].get() > 0
    }

    /// Lets a shard take the link that another one has sent, if there is one.
    fn arrive(&mut self, shard: usize) {
        if let Ok(parcel) = self.arriving[shard].try_recv() {
            let shard = &mut self.shards[shard];
            shard.clock.begin_turn(Span::ZERO);
            shard.arrive(parcel);
        }
    }

    /// Takes the answer of the store, if the home has asked it.
    fn take_owned(&mut self) {
        let home = &mut self.shards[1];
        loop {
            home.take_owned();
            let counters = home.hub.machine().counters();
            if counters.links == 0 || counters.online > 0 {
                return;
            }
            std::thread::yield_now();
        }
    }

    fn ban(&self, who: &Banned) -> Banning {
        let (gateway, who) = (self.gateway.clone(), [who.clone()]);
        let farewell = Farewell { text: TEXT.into(), ..Farewell::default() };
        Box::pin(async move { gateway.ban(&who, HOUR, farewell, None).await })
    }

    /// Takes a step of a ban: the next question, which its shard answers at once. Returns how many
    /// sessions the ban has ended once it is over.
    fn go_on(&mut self, banning: &mut Banning) -> Option<u64> {
        let mut context = Context::from_waker(Waker::noop());
        if let std::task::Poll::Ready(ended) = banning.as_mut().poll(&mut context) {
            return Some(ended.unwrap().ended.unwrap());
        }
        for (shard, asked) in self.shards.iter_mut().zip(&self.asked) {
            asked.try_iter().for_each(|request| shard.answer(request));
            Streams::<Layer>::carry_out(shard);
        }
        None
    }

    fn online(&self) -> u32 {
        self.shards.iter().map(|shard| shard.hub.machine().counters().online).sum()
    }

    /// Returns what the peer is told at the end, with the text, and after how many milliseconds it
    /// may come back; `None` if it is told nothing.
    fn last_word(&mut self) -> Option<(CloseReason, String, u32)> {
        let mut decoder = Decoder::new(Codec::Native, 65_536);
        let peer = self.peer.as_mut()?;
        let mut byte = [0];
        loop {
            if peer.read(&mut byte).unwrap_or(0) == 0 {
                return None;
            }
            let frame = decoder.next(&mut &byte[..]).unwrap();
            if let Some(Frame::Close(Close { reason, text, return_after_ms, .. })) = frame {
                return Some((reason, text.to_owned(), return_after_ms));
            }
        }
    }
}

impl Drop for Race {
    fn drop(&mut self) {
        if let Some(store) = &self.store {
            store.stop(LONG);
        }
    }
}

/// Returns all orders of the steps of a login and of a ban, `true` for those of the ban.
fn orders() -> Vec<Vec<bool>> {
    let steps = LOGIN + BAN;
    let all = (0..1_u32 << steps).filter(|bits| bits.count_ones() as usize == BAN);
    all.map(|bits| (0..steps).map(|step| bits >> step & 1 == 1).collect()).collect()
}

fn everybody() -> [Banned; 3] {
    let address: std::net::IpAddr = [127, 0, 0, 1].into();
    [Banned::Identity("ada".into()), Banned::Device(DEVICE), Banned::Address(address.into())]
}

/// Lets the time limits of questions to shards exist; they never end.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

#[test]
fn a_ban_at_any_time_of_a_login_leaves_nobody_inside() {
    let runtime = runtime();
    let _context = runtime.enter();
    for has_store in [false, true] {
        for who in everybody() {
            for order in orders() {
                let mut race = Race::new(has_store);
                let (mut banning, mut ended, mut steps) = (race.ban(&who), None, 0..);
                for of_ban in &order {
                    match of_ban {
                        true if ended.is_none() => ended = race.go_on(&mut banning),
                        true => {}
                        false => race.log_in(steps.next().unwrap()),
                    }
                }
                while ended.is_none() {
                    ended = race.go_on(&mut banning);
                }
                let case = format!("{who:?}, store: {has_store}, steps of the ban: {order:?}");
                assert_eq!(race.online(), 0, "banned and inside: {case}");
                if race.turned_away() {
                    continue;
                }
                let (reason, text, after) = race.last_word().expect(&case);
                assert_eq!((reason, &*text), (CloseReason::Kicked, TEXT), "{case}");
                assert!((1..=3_600_000).contains(&after), "{after} ms: {case}");
            }
        }
    }
}

#[test]
fn who_is_not_banned_or_is_no_more_gets_in() {
    let runtime = runtime();
    let _context = runtime.enter();
    for has_store in [false, true] {
        for who in everybody() {
            let mut race = Race::new(has_store);
            race.bans.set(&[Banned::Identity("eve".into())], HOUR, "").unwrap();
            race.bans.set(std::slice::from_ref(&who), HOUR, "").unwrap();
            race.bans.lift(&who);
            race.bans.set(std::slice::from_ref(&who), Span::ZERO, "").unwrap();
            (0..LOGIN).for_each(|step| race.log_in(step));
            assert_eq!(race.online(), 1, "{who:?}");
        }
    }
}

#[test]
fn a_session_that_moves_while_somebody_bans_it_is_ended_where_it_arrives() {
    let runtime = runtime();
    let _context = runtime.enter();
    for who in everybody() {
        let mut race = Race::new(false);
        (0..LOGIN).for_each(|step| race.log_in(step));
        let session = race.shards[1].hub.machine().presences(0, 10).next().unwrap().session;
        let mut banning = race.ban(&who);
        assert_eq!(race.go_on(&mut banning), None, "the first shard has nobody");
        let to = race.arrivals[0].clone();
        // Its fact must have been taken.
        race.shards[1].reports.flush();
        assert!(race.shards[1].hand_over(session, &to));
        while race.go_on(&mut banning).is_none() {}
        race.arrive(0);
        assert_eq!(race.online(), 0, "{who:?}");
        let (reason, text, _) = race.last_word().unwrap();
        assert_eq!((reason, &*text), (CloseReason::Kicked, TEXT));
    }
}
