//! The streams of links: sockets are accepted, read, judged and written.

mod reading;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use mio::{Events, Poll, Token};
use systole_core::Time;
use systole_core::gather::Gather;
use systole_core::hub::{self, Absence, Hub, HubCommand};
use systole_core::kernel::TcpSnapshot;
use systole_core::link;
use systole_core::wire::CloseReason;
use systole_net::examine::tcp_snapshot;
use systole_net::listener::BACKLOG;
use systole_net::socket_options;
use systole_net::transport::Layer;

use super::acceptor::{Accepted, Acceptor};
use super::answer::Known;
use super::half_open::HalfOpen;
use super::listening::ListeningSocket;
use super::login::{Logins, Reply};
use super::opening::Accept;
use super::shard_loop::{LeftOver, LoopSetup, ShardLoop, Traffic};
use super::sockets::Sockets;
use super::{ListenerTls, ShardSetup};
use crate::bans::Bans;
use crate::epochs::Epochs;
use crate::gate::Gate;
use crate::identity::Answer;
use crate::logic::Logic;
use crate::request::{Arrivals, Delivered, Order, Parcel, RequestQueue, Target};
use crate::store::Store;
use crate::wake::WakeUps;

/// The token of the first listener. Listeners have the tokens just below the waker's; a link's
/// token is its number.
const FIRST_LISTENER: usize = usize::MAX - 1 - u16::MAX as usize;

/// Socket events per turn: at about 5 µs each they delay a verdict by at most 1.3 ms.
const EVENTS: usize = 256;

/// Socket events after which the work of a turn is measured, for events without a read.
const EVENTS_PER_MEASURE: usize = 32;

/// Size of the further reads of a socket, if the one before took less than [`CHEAP_READ`]: large
/// messages take few system calls. If frames of two bytes follow, the read takes 1.5 ms.
const LARGE_READ: usize = 32 * 1024;

/// Maximum number of links that a shard accepts while it ends: a full queue, which takes 0.1 s.
const LAST_ACCEPTS: usize = BACKLOG as usize;

/// The links of a shard: their sockets, and what answers their data.
#[derive(Debug)]
pub(super) struct Streams<T = Layer> {
    /// The TLS of each listener.
    pub(super) tls: Vec<Option<ListenerTls>>,
    pub(super) sockets: Sockets<T>,
    pub(super) acceptor: Acceptor,
    /// The buffer into which every socket of the shard is read.
    scratch: Box<[u8]>,
    /// Links whose sockets may hold unread bytes for which no further edge will come.
    pub(super) unread: Vec<u32>,
    /// Links in the handshake of their transport whose sockets hold unread bytes, in order.
    pub(super) handshakes: VecDeque<u32>,
    pub(super) logins: Logins,
    pub(super) logic: Logic,
    /// Answers to the hub, to be handed in once its outputs have been carried out.
    pub(super) answers: VecDeque<Reply>,
    pub(super) epochs: Arc<Epochs>,
    /// Where it is written what is owed about a session before it exists.
    pub(super) store: Option<Store>,
    pub(super) gate: Option<Gate>,
    /// The links that have not logged in, of addresses that have limits.
    pub(super) half_open: HalfOpen,
    pub(super) bans: Arc<Bans>,
    /// The ways into all shards of these listeners, by their numbers.
    pub(super) siblings: Arc<[Arrivals]>,
    /// The shard that has just taken no link.
    pub(super) full_home: Option<u8>,
    /// The state of a link that moves, from the hub.
    pub(super) handed_over: Option<Vec<u8>>,
    /// Whether data was received or sent in this turn.
    pub(super) data_moved: bool,
    /// The heartbeats sent before this turn.
    heartbeats_out: u64,
    bytes_in: u64,
    pub(super) accepted: u64,
}

impl<T: Accept> Streams<T> {
    /// Makes the loop of one shard.
    ///
    /// # Errors
    /// The operating system refused the registration of a socket.
    pub(super) fn shard(
        poll: Poll,
        wake_ups: WakeUps,
        requests: RequestQueue,
        setup: ShardSetup,
    ) -> io::Result<ShardLoop<Streams<T>>> {
        let mut settings = Vec::new();
        let mut listening = Vec::new();
        let (mut tls, mut tokens) = (Vec::new(), Vec::new());
        for (index, listener) in (0..).zip(setup.listeners) {
            // Accepted sockets inherit the options of their listener.
            let applied = socket_options::prepare(&listener.settings.patience, &listener.socket);
            let missing = applied.missing().collect::<Vec<_>>().join(", ");
            if setup.index == 0 && index == 0 && !missing.is_empty() {
                tracing::warn!(missing, "this kernel lacks socket options; going on without");
            }
            let socket = mio::net::TcpListener::from_std(listener.socket);
            let token = Token(FIRST_LISTENER + usize::from(index));
            listening.push(ListeningSocket::new(index, socket, token, listener.is_shared));
            settings.push(listener.settings);
            tls.push(listener.tls);
            tokens.push(listener.tokens);
        }
        let mut acceptor = Acceptor::new(listening, setup.max_links as usize);
        acceptor.end_turn(Time::ZERO, poll.registry())?;
        setup.stats.listening.set(acceptor.open() as u64);
        let hub = Hub::new(hub::Settings {
            shard: setup.index,
            homes: setup.homes,
            listeners: settings,
            seed: setup.seed,
            frame_memory: setup.frame_memory,
            window_memory: setup.window_memory,
            away: setup.away,
        });
        let streams = Streams {
            tls,
            sockets: Sockets::new(setup.outbox_limit, setup.outbox_memory),
            acceptor,
            scratch: vec![0; LARGE_READ].into_boxed_slice(),
            unread: Vec::new(),
            handshakes: VecDeque::new(),
            logins: Logins::new(setup.index, tokens, setup.jobs),
            logic: setup.logic,
            answers: VecDeque::new(),
            epochs: setup.epochs,
            store: setup.store,
            gate: setup.gate,
            half_open: HalfOpen::new(setup.max_links as usize),
            bans: setup.bans,
            siblings: setup.siblings,
            full_home: None,
            handed_over: None,
            data_moved: false,
            heartbeats_out: 0,
            bytes_in: 0,
            accepted: 0,
        };
        let gather = Gather::of_links(Time::ZERO, setup.longest_rest);
        let ShardSetup { clock, reports, stats, distributions, .. } = setup;
        let common = LoopSetup { poll, wake_ups, requests, reports, clock, stats, distributions };
        Ok(ShardLoop::new(common, hub, gather, streams))
    }
}

impl<T: Accept> Traffic for Streams<T> {
    type Hub = Hub;

    const EVENTS: usize = EVENTS;

    /// Four steps take 0.4 ms.
    const EXPIRIES_PER_TURN: usize = 4;

    fn receive(shard: &mut ShardLoop<Streams<T>>, events: &Events) -> io::Result<usize> {
        shard.refuse_due();
        shard.take_owned();
        shard.write_again();
        let reread = shard.read_unread();
        let mut read = 0;
        for (index, event) in events.iter().enumerate() {
            read += shard.socket_ready(event);
            if index % EVENTS_PER_MEASURE == EVENTS_PER_MEASURE - 1 {
                shard.clock.record_work();
            }
            shard.expire_when_due();
        }
        // A socket that is read on in the next turn was read in part: its peer was heard, and is
        // not judged now.
        let drained = events.iter().count() < EVENTS;
        shard.shake_hands(drained);
        shard.accept();
        shard.clock.record_reads(read, shard.traffic.sockets.conns.len() as usize, drained);
        Ok(reread + read)
    }

    fn carry_out(shard: &mut ShardLoop<Streams<T>>) {
        shard.carry_out();
    }

    fn limits(shard: &mut ShardLoop<Streams<T>>) -> Option<(Time, Time)> {
        shard.clock.advance();
        Some((shard.clock.limit(), shard.clock.horizon()))
    }

    fn poll_and_judge(shard: &mut ShardLoop<Streams<T>>, link: u32, limit: Time) {
        shard.answer_poll(link, limit);
    }

    fn end_turn(shard: &mut ShardLoop<Streams<T>>) {
        let now = shard.clock.now();
        let Streams { sockets, acceptor, half_open, .. } = &mut shard.traffic;
        sockets.expire_departures(now);
        sockets.forget_routes();
        if sockets.close_marked(|link| half_open.remove(link)) > 0 {
            acceptor.end_pause();
        }
    }

    fn left_over(shard: &mut ShardLoop<Streams<T>>, now: Time) -> LeftOver {
        let counters = shard.hub.machine().counters();
        let traffic = &mut shard.traffic;
        let refusal = traffic.logins.next_deadline();
        let Streams { sockets, acceptor, unread, handshakes, data_moved, heartbeats_out, .. } =
            traffic;
        let sent = counters.heartbeats_out - *heartbeats_out;
        *heartbeats_out = counters.heartbeats_out;
        let departure = sockets.departures.next_deadline();
        let deadlines = [departure, refusal, acceptor.next_deadline(), sockets.next_again(now)];
        LeftOver {
            sent,
            data: std::mem::take(data_moved),
            busy: !unread.is_empty()
                || !handshakes.is_empty()
                || sockets.has_marked()
                || acceptor.is_pending(now),
            demanding: counters.demanding > 0,
            deadline: deadlines.into_iter().flatten().min(),
        }
    }

    fn publish_stats(shard: &mut ShardLoop<Streams<T>>) {
        let counters = shard.hub.machine().counters();
        let stats = &shard.stats;
        stats.links.set(u64::from(counters.links));
        stats.connections.set(u64::from(shard.traffic.sockets.conns.len()));
        stats.online.set(u64::from(counters.online));
        stats.suspects.set(u64::from(counters.suspects));
        stats.away.set(u64::from(counters.away));
        stats.resumed.set(counters.resumed);
        stats.not_resumed.set(counters.not_resumed);
        stats.resumptions_refused.set(counters.resumptions_refused);
        stats.heartbeats_in.set(counters.heartbeats_in);
        stats.heartbeats_out.set(counters.heartbeats_out);
        stats.accepted.set(shard.traffic.accepted);
        stats.listening.set(shard.traffic.acceptor.open() as u64);
        stats.bytes_in.set(shard.traffic.bytes_in);
        stats.bytes_out.set(shard.traffic.sockets.bytes_out);
        stats.frame_bytes.set(counters.frame_bytes);
        stats.window_bytes.set(counters.window_bytes);
        stats.frames_dropped.set(counters.frames_dropped);
        stats.outbox_bytes.set(shard.traffic.sockets.outbox_bytes());
        stats.outboxes_dropped.set(shard.traffic.sockets.outboxes_dropped);
        stats.undelivered.set(shard.traffic.sockets.undelivered);
    }

    /// A peer that has not been accepted yet is a link too: closing the listener would reset it.
    fn end_sessions(shard: &mut ShardLoop<Streams<T>>) {
        shard.traffic.acceptor.stop(shard.clock.now(), shard.poll.registry());
        shard.traffic.acceptor.end_pause();
        for _ in 0..LAST_ACCEPTS {
            // The limit on links does not hold for these, which are all closed at once.
            match shard.traffic.acceptor.accept(shard.clock.now(), 0, 0) {
                Accepted::Link(link) => shard.open(link),
                Accepted::Paused(_) | Accepted::Nothing => break,
            }
        }
        let connections = shard.traffic.sockets.conns.scan(0, usize::MAX).map(|(link, _)| link);
        for link in connections.collect::<Vec<_>>() {
            let input = link::World::Command(link::Command::close(CloseReason::Drained));
            shard.hub.handle(shard.clock.now(), hub::World::Link { link, input });
            shard.carry_out();
        }
        shard.end_away();
    }

    fn has_listener(shard: &ShardLoop<Streams<T>>, listener: u16) -> bool {
        usize::from(listener) < shard.hub.machine().listeners().len()
    }

    fn find(shard: &ShardLoop<Streams<T>>, session: u64, visit: &mut dyn FnMut(&dyn Known)) {
        let hub = shard.hub.machine();
        if let Some(presence) = hub.find(session).and_then(|link| hub.presence(link)) {
            visit(&presence);
        }
    }

    fn tcp(shard: &ShardLoop<Streams<T>>, session: u64) -> Option<TcpSnapshot> {
        let link = shard.hub.machine().find(session)?;
        tcp_snapshot(shard.traffic.sockets.conns.get(link)?.stream())
    }

    fn search(
        shard: &ShardLoop<Streams<T>>,
        from: u32,
        limit: usize,
        visit: &mut dyn FnMut(&dyn Known) -> bool,
    ) -> Option<u32> {
        let mut presences = shard.hub.machine().presences(from, limit);
        while presences.next().is_some_and(|presence| visit(&presence)) {}
        presences.cursor()
    }

    fn deliver(shard: &mut ShardLoop<Streams<T>>, to: Target, message: &[u8]) -> Delivered {
        shard.deliver(to, message)
    }

    fn of_identity(
        shard: &ShardLoop<Streams<T>>,
        identity: &str,
        visit: &mut dyn FnMut(&dyn Known),
    ) {
        let hub = shard.hub.machine();
        let links = hub.links_of(identity).into_iter();
        links.filter_map(|link| hub.presence(link)).for_each(|presence| visit(&presence));
    }

    fn find_away(shard: &ShardLoop<Self>, session: u64, visit: &mut dyn FnMut(&Absence<'_>)) {
        let hub = shard.hub.machine();
        let absence = hub.absence(session).filter(|_| hub.is_away(session));
        absence.iter().for_each(visit);
    }

    fn search_away(
        shard: &ShardLoop<Self>,
        from: u32,
        limit: usize,
        visit: &mut dyn FnMut(&Absence<'_>),
    ) -> Option<u32> {
        let (found, next) = shard.hub.machine().absences(from, limit);
        found.iter().for_each(visit);
        next
    }

    fn away_of_identity(
        shard: &ShardLoop<Self>,
        identity: &str,
        visit: &mut dyn FnMut(&Absence<'_>),
    ) {
        let hub = shard.hub.machine();
        let sessions = hub.absent_sessions_of(identity).into_iter();
        sessions.filter_map(|session| hub.absence(session)).for_each(|absence| visit(&absence));
    }

    fn hand_over(shard: &mut ShardLoop<Streams<T>>, session: u64, to: &Arrivals) -> bool {
        shard.hand_over(session, to)
    }

    fn arrive(shard: &mut ShardLoop<Streams<T>>, parcel: Parcel) {
        shard.arrive(parcel);
    }

    fn logged_in(shard: &mut ShardLoop<Streams<T>>, answer: Answer) {
        shard.log_in(answer);
        shard.carry_out();
    }

    fn order(shard: &mut ShardLoop<Streams<T>>, session: u64, order: Order) -> bool {
        shard.order_session(session, &order)
    }

    fn command(shard: &mut ShardLoop<Streams<T>>, command: HubCommand<'static>) {
        shard.hub.handle(shard.clock.now(), hub::World::Command(command));
        shard.carry_out();
    }

    fn stop_accepting(shard: &mut ShardLoop<Streams<T>>) {
        shard.traffic.acceptor.stop(shard.clock.now(), shard.poll.registry());
    }
}

#[cfg(test)]
mod tests;
