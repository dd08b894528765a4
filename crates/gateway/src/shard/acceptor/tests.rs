//! Tests of the acceptor: fairness, shared sockets, pauses, the end.

use std::io::{Read, Write};
use std::net;
use std::time::Duration;

use mio::net::TcpListener;
use mio::{Events, Poll, Token};

use super::*;

/// A shard's acceptor with its poll.
struct Shard {
    acceptor: Acceptor,
    poll: Poll,
}

impl Shard {
    /// Makes a shard with a listener for each of `sockets`.
    fn new(sockets: Vec<net::TcpListener>, is_shared: bool, max_links: usize) -> Shard {
        let sockets = (0..).zip(sockets).map(|(listener, socket)| {
            socket.set_nonblocking(true).unwrap();
            let socket = TcpListener::from_std(socket);
            ListeningSocket::new(listener, socket, Token(listener.into()), is_shared)
        });
        let mut shard = Shard {
            acceptor: Acceptor::new(sockets.collect(), max_links),
            poll: Poll::new().unwrap(),
        };
        shard.end_turn(Time::ZERO);
        shard
    }

    /// Makes shards that share `socket`, one for each of `max_links`.
    fn sharing<const N: usize>(socket: &net::TcpListener, max_links: [usize; N]) -> [Shard; N] {
        max_links.map(|max| Shard::new(vec![socket.try_clone().unwrap()], true, max))
    }

    fn end_turn(&mut self, now: Time) {
        self.acceptor.end_turn(now, self.poll.registry()).unwrap();
    }

    /// Polls without a wait. Returns whether a listener is ready.
    fn is_woken(&mut self) -> bool {
        let mut events = Events::with_capacity(8);
        self.poll.poll(&mut events, Some(Duration::ZERO)).unwrap();
        events.iter().for_each(|event| self.acceptor.mark_pending(event.token().0));
        !events.is_empty()
    }

    /// Runs the accepting part of a turn at `now`, with `open` links open. Returns what ended it,
    /// and the links.
    fn turn(&mut self, now: Time, open: usize) -> (Vec<NewLink>, Accepted) {
        let mut links = Vec::new();
        for _ in 0..self.acceptor.begin_turn(now) {
            let open = open + links.len();
            match self.acceptor.accept(now, open, open) {
                Accepted::Link(link) => links.push(link),
                other @ (Accepted::Paused(_) | Accepted::Nothing) => {
                    self.end_turn(now);
                    return (links, other);
                }
            }
        }
        self.end_turn(now);
        (links, Accepted::Nothing)
    }

    fn stop(&mut self) {
        self.acceptor.stop(Time::ZERO, self.poll.registry());
    }
}

fn socket() -> net::TcpListener {
    net::TcpListener::bind(("127.0.0.1", 0)).unwrap()
}

fn connect(socket: &net::TcpListener) -> net::TcpStream {
    net::TcpStream::connect(socket.local_addr().unwrap()).unwrap()
}

/// The time at which a socket that was stopped at zero is closed.
const CLOSED: Time = Time::from_millis(LAST_HANDSHAKES.as_millis());

/// Returns the time of the `n`th retry of a pause that began at zero.
fn retry(n: u64) -> Time {
    Time::ZERO + PAUSE.times(n)
}

#[test]
fn a_queue_at_one_listener_does_not_starve_the_others() {
    let sockets = [(); 3].map(|()| socket());
    let clients: Vec<_> = [0, 0, 0, 0, 2, 2].map(|index| connect(&sockets[index])).into();
    let mut shard = Shard::new(sockets.into(), false, 100);
    let (links, _) = shard.turn(Time::ZERO, 0);
    let order: Vec<_> = links.iter().map(|link| link.listener).collect();
    assert_eq!(order, [0, 2, 0, 2, 0, 0]);
    drop(clients);
}

#[test]
fn what_has_queued_at_a_shared_socket_is_taken_in_portions() {
    let socket = socket();
    let _clients: Vec<_> = (0..20).map(|_| connect(&socket)).collect();
    let mut shards = Shard::sharing(&socket, [100, 100]);
    let taken = [0, 1, 0, 1].map(|index: usize| shards[index].turn(Time::ZERO, 0).0.len());
    assert_eq!(taken, [SHARED_ACCEPTS_PER_TURN, SHARED_ACCEPTS_PER_TURN, 4, 0]);
}

#[test]
fn a_shard_that_is_full_leaves_its_peers_to_the_others_and_is_not_woken() {
    let socket = socket();
    let [mut full, mut free] = Shard::sharing(&socket, [1, 100]);
    let _first = connect(&socket);
    assert_eq!(full.turn(Time::ZERO, 0).0.len(), 1);
    let _second = connect(&socket);
    assert!(!full.is_woken(), "it could not take the peer");
    assert!(free.is_woken());
    assert_eq!(free.turn(Time::ZERO, 0).0.len(), 1);
    for n in 1..5 {
        let (links, end) = full.turn(retry(n), 1);
        assert!(links.is_empty() && matches!(end, Accepted::Nothing), "nobody waits: {end:?}");
    }
    full.acceptor.end_pause();
    let _third = connect(&socket);
    assert_eq!(full.turn(retry(5), 0).0.len(), 1);
}

#[test]
fn a_shard_that_has_room_again_is_woken_again() {
    let socket = socket();
    let [mut shard] = Shard::sharing(&socket, [1]);
    let _first = connect(&socket);
    assert_eq!(shard.turn(Time::ZERO, 0).0.len(), 1);
    shard.acceptor.end_pause();
    assert!(shard.turn(Time::ZERO, 0).0.is_empty() && !shard.is_woken());
    let _second = connect(&socket);
    assert!(shard.is_woken());
}

#[test]
fn a_pause_is_reported_only_while_peers_of_a_shared_socket_wait_for_it() {
    let socket = socket();
    let [mut full, mut other] = Shard::sharing(&socket, [1, 1]);
    let _clients = [connect(&socket), connect(&socket)];
    let (links, end) = full.turn(Time::ZERO, 0);
    assert!(links.len() == 1 && matches!(end, Accepted::Nothing), "the other may take it: {end:?}");
    let (_, end) = full.turn(retry(1), 1);
    assert!(matches!(end, Accepted::Paused(PauseReason::LinkLimit)), "{end:?}");
    assert!(!full.acceptor.take_resumed());
    assert_eq!(other.turn(retry(1), 0).0.len(), 1);
    assert!(matches!(full.turn(retry(2), 1).1, Accepted::Nothing));
    assert!(full.acceptor.take_resumed() && !full.acceptor.take_resumed(), "nobody waits now");
}

#[test]
fn a_peer_whose_shard_was_woken_and_did_nothing_is_found_by_a_look() {
    let socket = socket();
    let [mut shard] = Shard::sharing(&socket, [100]);
    assert!(shard.turn(Time::ZERO, 0).0.is_empty(), "the queue is empty");
    let _client = connect(&socket);
    let just_before = Time::ZERO + LOOK_INTERVAL.less(Span::from_millis(1));
    assert!(shard.turn(just_before, 0).0.is_empty());
    assert_eq!(shard.turn(Time::ZERO + LOOK_INTERVAL, 0).0.len(), 1, "without an event");
}

#[test]
fn shared_sockets_are_left_with_their_queue_and_without_a_wake_up() {
    let socket = socket();
    let [mut old, mut next] = Shard::sharing(&socket, [100, 100]);
    let mut client = connect(&socket);
    old.stop();
    assert_eq!(old.acceptor.open(), 0);
    let _second = connect(&socket);
    assert!(!old.is_woken() && old.turn(Time::ZERO, 0).0.is_empty());
    let mut links = next.turn(Time::ZERO, 0).0;
    assert_eq!(links.len(), 2);
    links[0].stream.write_all(b"hello").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
}

#[test]
fn an_own_socket_is_emptied_in_bounded_turns_before_it_is_closed() {
    let own = socket();
    let address = own.local_addr().unwrap();
    let count = ACCEPTS_PER_TURN + 3;
    let clients: Vec<_> = (0..count).map(|_| connect(&own)).collect();
    let mut shard = Shard::new(vec![own], false, 1_000);
    shard.stop();
    let (mut links, _) = shard.turn(Time::ZERO, 0);
    assert_eq!((links.len(), shard.acceptor.open()), (ACCEPTS_PER_TURN, 1));
    assert!(shard.acceptor.is_pending(Time::ZERO), "the next turn goes on");
    links.extend(shard.turn(Time::ZERO, 0).0);
    assert_eq!((links.len(), shard.acceptor.open()), (count, 1), "for the last handshakes");
    assert_eq!(shard.acceptor.next_deadline(), Some(CLOSED));
    shard.turn(CLOSED, 0);
    assert_eq!((shard.acceptor.open(), shard.acceptor.next_deadline()), (0, None));
    let error = net::TcpStream::connect(address).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "it is closed");
    for (mut link, mut client) in links.into_iter().zip(clients) {
        link.stream.write_all(b"hello").unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
    }
}

#[test]
fn at_the_limit_an_own_socket_stays_open_until_its_queue_is_empty() {
    let own = socket();
    let _clients = [connect(&own), connect(&own)];
    let mut shard = Shard::new(vec![own], false, 1);
    assert_eq!(shard.turn(Time::ZERO, 0).0.len(), 1);
    shard.stop();
    let later = retry(1).max(CLOSED);
    assert!(shard.turn(later, 1).0.is_empty());
    assert_eq!(shard.acceptor.open(), 1);
    shard.acceptor.end_pause();
    assert_eq!(shard.turn(later, 0).0.len(), 1);
    shard.acceptor.end_pause();
    shard.turn(later, 0);
    assert_eq!(shard.acceptor.open(), 0);
}
