//! How links begin: sockets are accepted, and get the transport of their listener.

use std::net::SocketAddr;

use mio::net::TcpStream;
use systole_core::{Span, hub};
use systole_net::socket_options;
use systole_net::tls::{ServerTls, subject};
use systole_net::transport::{Layer, Transport};

use crate::gate::TurnedAway;

use super::acceptor::{Accepted, NewLink};
use super::half_open::HalfOpen;
use super::shard_loop::ShardLoop;
use super::sockets::{Conn, Note};
use super::streams::Streams;

/// The work on handshakes after which a turn goes on without them. It is about that of one step
/// with a key of ECDSA P-256: all other links wait for one or two, however many have begun.
const HANDSHAKE_WORK: Span = Span::from_micros(300);

/// The work on accepting after which a turn goes on without it, for the same reason. It accepts
/// about ten links.
const ACCEPT_WORK: Span = Span::from_micros(300);

/// Maximum number of links that give way in a turn to peers that wait for a place: as many as a
/// turn accepts in its time, about.
const GIVE_WAY_PER_TURN: usize = 16;

/// Maximum number of links that give way to one newcomer, so that their number sinks again after a
/// time in which none was old enough.
const GIVE_WAY_TO_ONE: usize = 2;

/// A transport of accepted connections.
pub(super) trait Accept: Transport + Sized + Send + 'static {
    /// Makes the transport of a connection at a listener with or without TLS; `None` if it cannot
    /// be made.
    fn accept(tls: Option<&ServerTls>) -> Option<Self>;

    /// Returns whom the peer's certificate names; `None` if it has shown none, or if it names
    /// nobody.
    fn subject(&self) -> Option<String>;
}

impl Accept for Layer {
    fn accept(tls: Option<&ServerTls>) -> Option<Layer> {
        let Some(tls) = tls else {
            return Some(Layer::Plain);
        };
        tls.accept().ok().map(Layer::from)
    }

    fn subject(&self) -> Option<String> {
        subject(self.tls()?.peer_certificate()?)
    }
}

impl<T: Accept> ShardLoop<Streams<T>> {
    /// Accepts links, as many as a turn may.
    pub(super) fn accept(&mut self) {
        let now = self.clock.now();
        let until = self.clock.read_now() + ACCEPT_WORK;
        let accepts = self.traffic.acceptor.begin_turn(now);
        let (connections, places) = self.taken();
        // What gives way is closed at the end of the turn, so the next one accepts.
        let gave_way = self.traffic.acceptor.is_short(now, connections, places)
            && (self.cut_leaves(GIVE_WAY_PER_TURN) || self.give_way(GIVE_WAY_PER_TURN, |_| true));
        for _ in 0..if gave_way { 0 } else { accepts } {
            let (connections, places) = self.taken();
            match self.traffic.acceptor.accept(now, connections, places) {
                Accepted::Link(link) => self.open(link),
                Accepted::Paused(reason) => self.stats.pause_accepting(reason),
                Accepted::Nothing => break,
            }
            if self.clock.read_now() >= until {
                break;
            }
        }
        self.clock.record_work();
        if let Err(error) = self.traffic.acceptor.end_turn(now, self.poll.registry()) {
            tracing::debug!(%error, "a listening socket cannot be registered; trying again");
        }
        if self.traffic.acceptor.take_resumed() {
            self.stats.resume_accepting();
        }
    }

    /// Returns the number of connections, and of places for links that are taken.
    fn taken(&self) -> (usize, usize) {
        let links = self.hub.machine().counters().links as usize;
        (self.traffic.sockets.conns.len() as usize, links + self.reports.places_held())
    }

    /// Ends the oldest links that have not logged in, `count` at most, while `wanted`. Returns
    /// whether there were any.
    fn give_way(&mut self, count: usize, wanted: impl Fn(&HalfOpen) -> bool) -> bool {
        let now = self.clock.now();
        for number in 0..count {
            let Streams { half_open, sockets, .. } = &self.traffic;
            let first = half_open.first_to_go(now, |link| sockets.is_unread(link));
            let Some(link) = first.filter(|_| wanted(half_open)) else {
                return number > 0;
            };
            // Whatever the hub makes of it, no link is chosen twice.
            self.traffic.half_open.login_came(link);
            self.hub.handle(now, hub::World::Crowded { link });
            self.carry_out();
        }
        true
    }

    /// Closes the connections of refused peers that have not closed their side, the oldest ones,
    /// `count` at most. Returns whether there were any.
    fn cut_leaves(&mut self, count: usize) -> bool {
        let now = self.clock.now();
        for number in 0..count {
            let Some(link) = self.traffic.half_open.first_to_close(now) else {
                return number > 0;
            };
            self.traffic.half_open.remove(link);
            self.traffic.sockets.cut_leave(link);
            self.stats.cut_leaves.add(1);
        }
        true
    }

    /// Opens a link that was accepted.
    pub(super) fn open(&mut self, link: NewLink) {
        let NewLink { listener, stream, address, is_shared } = link;
        let _ = stream.set_nodelay(true);
        if is_shared
            && let Some(settings) = self.hub.machine().listeners().get(usize::from(listener))
        {
            let _ = socket_options::prepare(&settings.patience, &stream);
        }
        if self.traffic.bans.of_address(address.ip()).is_some() {
            return self.stats.turned_away[TurnedAway::Banned.index()].add(1);
        }
        if let Some(Err(why)) = self.traffic.gate.as_ref().map(|gate| gate.enter(address.ip())) {
            // Closed at once: an answer would cost more than the connection.
            return self.stats.turned_away[why.index()].add(1);
        }
        let opened = self.open_admitted(listener, stream, address);
        if let (false, Some(gate)) = (opened, &self.traffic.gate) {
            gate.leave(address.ip(), false);
        }
    }

    /// Opens a link that its address may have. Returns false if that is impossible.
    fn open_admitted(&mut self, listener: u16, stream: TcpStream, address: SocketAddr) -> bool {
        let tls = self.traffic.tls.get(usize::from(listener)).and_then(Option::as_ref);
        let tls = tls.map(|tls| &tls.server);
        // Its configuration was checked; what is refused here is closed.
        let Some(transport) = T::accept(tls) else {
            return false;
        };
        let conn = Conn::new(stream, transport, Note::NEW);
        let Some(link) = self.traffic.sockets.add(self.poll.registry(), conn) else {
            return false;
        };
        self.traffic.accepted += 1;
        if self.traffic.gate.as_ref().is_some_and(|gate| gate.limits(address.ip())) {
            self.traffic.half_open.add(self.clock.now(), link);
            self.give_way(GIVE_WAY_TO_ONE, HalfOpen::are_too_many);
        }
        self.hub.handle(self.clock.now(), hub::World::Opened { link, listener, address });
        self.carry_out();
        true
    }

    /// Admits a peer by the rule of its listener: once its token is verified, with the identity
    /// that its certificate names, or with the one that it claims.
    pub(super) fn identify(&mut self, link: u32, admission: u32, heard_at: Span) {
        let Some(known) = self.hub.machine().presence(link) else {
            return;
        };
        let (listener, address) = (known.listener, known.address.ip());
        if self.traffic.logins.at(listener).is_some() {
            return self.check_token(link, admission, heard_at, address);
        }
        let tls = self.traffic.tls.get(usize::from(listener));
        let is_proved = tls.and_then(Option::as_ref).is_some_and(|tls| tls.subject_is_identity);
        let conn = self.traffic.sockets.conns.get(link);
        let subject = conn.filter(|_| is_proved).and_then(|conn| conn.transport().subject());
        let subject = subject.unwrap_or_default();
        let proof = if is_proved { hub::Proof::Proved(&subject) } else { hub::Proof::Claim };
        let login = hub::Login { heard_at, proof, grant: hub::Grant::default() };
        let input = hub::World::Identified { link, admission, login };
        self.hub.handle(self.clock.now(), input);
    }

    /// Continues handshakes, as many as a turn may; the others wait for the next. There is one at
    /// most unless all ready sockets were read: a socket behind many others in the kernel's list
    /// would wait for some of their handshakes in each turn until its own.
    pub(super) fn shake_hands(&mut self, all_read: bool) {
        let work = if all_read { HANDSHAKE_WORK } else { Span::ZERO };
        let until = self.clock.read_now() + work;
        while let Some(link) = self.traffic.handshakes.pop_front() {
            self.traffic.sockets.set_unread(link, false);
            self.readable(link, true);
            self.clock.record_work();
            self.expire_when_due();
            if self.clock.read_now() >= until {
                break;
            }
        }
    }
}

impl<T: Accept> Streams<T> {
    /// Leaves a socket unread until the other sockets of this turn were read.
    pub(super) fn defer_handshake(&mut self, link: u32) {
        if !self.sockets.is_unread(link) {
            self.sockets.set_unread(link, true);
            self.handshakes.push_back(link);
        }
    }
}
