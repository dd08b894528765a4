//! Tests of one shard's loop, whose turns the test runs: socket options, rests, waits.

mod bans;
mod handshakes;
mod held;
mod logins;
mod moving;
mod owed;
mod sealed;
mod waiting;

use std::net::{SocketAddr, TcpStream};

use socket2::SockRef;
use systole_core::gather::{BRIEF_REST, Wait};
use systole_core::home::Homes;
use systole_core::kernel::SocketError;
use systole_core::link::{Lane, Settings, Side};
use systole_core::wire::Codec;
use systole_core::{Policy, Span, hub::HubCommand};
use systole_net::transport::{ReadOutcome, Written};
use systole_net::{Clock, SocketOptions, listener};
use tokio::sync::oneshot;

use super::reading::FIRST_READ;
use super::*;
use crate::logic::Echo;
use crate::request::Request;
use crate::shard::ShardListener;
use crate::shard::shard_loop::WAKER;
use crate::shard::sockets::Feedback;
use crate::stats::Distributions;
use crate::wake::{LoopWaker, wake_ups};

/// Longer than a test takes: nothing waits for this time.
const LONG: Span = Span::from_secs(600);

/// A number of heartbeats in a turn at which a rest pays, however slow the machine is.
const MANY: usize = 1_000_000;

/// Maximum number of turns until a condition holds; no test needs as many.
const TURNS: usize = 1_000;

/// A shard loop whose turns the test runs, with one `line` listener and one peer that has sent a
/// line.
struct Bench {
    shard: ShardLoop<Streams>,
    /// Without it the shard would end.
    _requests: std::sync::mpsc::Sender<Request>,
    waker: LoopWaker,
    arrivals: Arrivals,
    peer: TcpStream,
    session: u64,
}

/// Returns what starts a shard with one listener.
fn setup(
    socket: std::net::TcpListener,
    is_shared: bool,
    settings: Settings,
    logic: Logic,
) -> ShardSetup {
    ShardSetup {
        index: 0,
        homes: Homes::SINGLE,
        siblings: Arc::default(),
        listeners: vec![ShardListener { socket, is_shared, settings, tls: None, tokens: None }],
        clock: Clock::start(),
        seed: 1,
        max_links: 100,
        outbox_limit: 32 << 20,
        outbox_memory: 256 * 1024 * 1024,
        frame_memory: 64 * 1024 * 1024,
        window_memory: 64 * 1024 * 1024,
        away: 100,
        longest_rest: LONG,
        logic,
        jobs: None,
        epochs: Arc::default(),
        store: None,
        gate: None,
        bans: Arc::new(crate::bans::Bans::new(Clock::start())),
        reports: crate::report::channels(1_000).0,
        stats: Arc::default(),
        distributions: Distributions::default(),
    }
}

impl Bench {
    fn new(policy: Policy) -> Bench {
        Bench::with_listener(policy, false)
    }

    /// Makes a bench. The peer of a shared listener connects before the shard starts.
    fn with_listener(policy: Policy, is_shared: bool) -> Bench {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = listener::bind_shards(address, 1).unwrap().remove(0);
        let address = socket.local_addr().unwrap();
        let early = is_shared.then(|| TcpStream::connect(address).unwrap());
        let settings =
            Settings { examines: true, ..Settings::new(Codec::Line, Side::Accepting, policy) };
        let setup = setup(socket, is_shared, settings, Logic::None);
        let (sender, requests) = std::sync::mpsc::channel();
        let (links, arriving) = std::sync::mpsc::sync_channel(1);
        let requests = RequestQueue::with_arrivals(requests, arriving);
        let poll = Poll::new().unwrap();
        let (waker, wake_ups) = wake_ups(poll.registry(), WAKER).unwrap();
        let shard = Streams::<Layer>::shard(poll, wake_ups, requests, setup).unwrap();
        let peer = early.unwrap_or_else(|| TcpStream::connect(address).unwrap());
        let arrivals = Arrivals::new(links, waker.clone());
        let mut bench = Bench { shard, _requests: sender, waker, arrivals, peer, session: 0 };
        bench.receive();
        bench
    }

    /// Sends a line from the peer, and runs turns until the shard has received it.
    fn receive(&mut self) {
        let before = self.shard.traffic.bytes_in;
        io::Write::write_all(&mut self.peer, b"hello\n").unwrap();
        self.turn_until(|shard| shard.traffic.bytes_in > before);
        let known = self.shard.hub.machine().presences(0, 10).next();
        self.session = known.expect("the session is online").session;
    }

    /// Returns the wait after turns in which many sockets were read, once their frequency is known.
    fn wait_of_many(&mut self) -> Wait {
        self.shard.traffic.data_moved = false;
        for _ in 0..TURNS {
            self.shard.clock.begin_turn(LONG);
            let wait = self.shard.next_wait(MANY);
            if wait.rest > Span::ZERO {
                return wait;
            }
            self.shard.wake_ups.rest(Span::from_millis(1)).unwrap();
        }
        panic!("no rest, however many sockets are read");
    }

    /// Runs turns of the loop until `done`.
    fn turn_until(&mut self, done: impl Fn(&ShardLoop<Streams>) -> bool) {
        let mut events = Events::with_capacity(EVENTS);
        for _ in 0..TURNS {
            let planned = Span::from_millis(20);
            self.shard.poll.poll(&mut events, Some(planned.into())).unwrap();
            self.shard.clock.begin_turn(planned);
            let read = events.iter().map(|event| self.shard.socket_ready(event)).sum();
            self.shard.accept();
            self.shard.clock.record_reads(
                read,
                self.shard.traffic.sockets.conns.len() as usize,
                true,
            );
            self.shard.expire();
            if done(&self.shard) {
                return;
            }
        }
        panic!("not done after {TURNS} turns");
    }

    /// Sends bytes from the peer, waits until the socket holds them, and works until deadlines are
    /// to be looked at.
    fn send_and_work(&mut self, bytes: &[u8]) {
        io::Write::write_all(&mut self.peer, bytes).unwrap();
        let stream = self.shard.traffic.sockets.stream(0).expect("the link is open");
        let mut held = vec![0; bytes.len().min(2 * FIRST_READ)];
        let whole = held.len();
        while stream.peek(&mut held).ok() != Some(whole) {}
        while !self.shard.is_look_due() {
            self.shard.clock.record_work();
        }
    }

    /// Lets the hub ask for the link's socket.
    fn poll(&mut self) {
        let now = self.shard.clock.now();
        self.shard.answer_poll(0, now);
    }

    fn order(&mut self, order: Order) {
        let (session, reply) = (self.session, oneshot::channel().0);
        self.shard.answer(Request::Order { session, order, reply });
    }

    fn retune_all(&mut self, policy: Policy) {
        let command = HubCommand::Retune { listener: 0, policy };
        self.shard.answer(Request::Command(command));
        self.shard.expire();
    }

    /// Returns the keepalive idle time and the user timeout of the link's socket.
    fn options(&self) -> (Span, Option<Span>) {
        let stream = self.shard.traffic.sockets.stream(0).expect("the link is open");
        let socket = SockRef::from(stream);
        let user_timeout = socket.tcp_user_timeout().unwrap().filter(|span| !span.is_zero());
        (socket.tcp_keepalive_time().unwrap().into(), user_timeout.map(Span::from))
    }
}

/// Returns the [`Bench::options`] of a socket that survives an outage of `secs` seconds, which must
/// be 9 or more: every kernel then has a user timeout.
fn surviving(secs: u64) -> (Span, Option<Span>) {
    let options = SocketOptions::new(Some(Span::from_secs(secs)));
    (options.keepalive_idle, Some(options.user_timeout))
}

#[test]
fn a_retune_to_another_policy_and_back_restores_the_timeouts() {
    let retunes: [fn(&mut Bench, Policy); 2] = [
        |bench, policy| bench.order(Order::Retune(policy)),
        |bench, policy| bench.retune_all(policy),
    ];
    for retune in retunes {
        let mut bench = Bench::new(Policy::standard());
        assert_eq!(bench.options(), surviving(30));
        retune(&mut bench, Policy::datacenter());
        bench.receive();
        assert_eq!(bench.options().0, Span::from_secs(2));
        retune(&mut bench, Policy::standard());
        bench.receive();
        assert_eq!(bench.options(), surviving(30));
    }
}

#[test]
fn a_link_accepted_after_a_retune_has_the_timeouts_of_the_new_policy() {
    let mut bench = Bench::new(Policy::standard());
    bench.retune_all(Policy::relaxed());
    bench.peer = TcpStream::connect(bench.peer.peer_addr().unwrap()).unwrap();
    bench.turn_until(|shard| !shard.traffic.sockets.is_open(0) && shard.traffic.sockets.is_open(1));
    bench.receive();
    let stream = bench.shard.traffic.sockets.stream(1).expect("the link is open");
    let idle = SockRef::from(stream).tcp_keepalive_time().unwrap();
    assert_eq!(Span::from(idle), Span::from_secs(40));
}

#[test]
fn a_link_that_queued_before_the_gateway_started_has_all_options() {
    let bench = Bench::with_listener(Policy::standard(), true);
    assert_eq!(bench.options(), surviving(30));
}

#[test]
fn a_hold_extends_the_keepalive_and_the_user_timeout() {
    let mut bench = Bench::new(Policy::datacenter());
    assert_eq!(bench.options().0, Span::from_secs(2));
    bench.order(Order::Hold(Span::from_secs(600)));
    let (idle, user_timeout) = bench.options();
    assert!(idle >= Span::from_secs(602) && user_timeout > Some(idle), "{idle} {user_timeout:?}");
    bench.order(Order::Release);
    bench.receive();
    assert_eq!(bench.options().0, Span::from_secs(2));
}

#[test]
fn an_examination_shows_bytes_that_the_socket_has_not_accepted() {
    let mut bench = Bench::new(Policy::standard());
    let sockets = &mut bench.shard.traffic.sockets;
    assert!(!sockets.examine(0, false).queued);
    sockets.transmit(0, Lane::Data, b"gathered");
    assert!(sockets.examine(0, false).queued && !sockets.examine(1, false).queued);
    sockets.flush();
    assert!(!sockets.examine(0, false).queued);
    sockets.transmit(0, Lane::Data, &vec![0; 16 << 20]);
    sockets.flush();
    assert!(sockets.examine(0, false).queued, "the socket is full");
}

#[test]
fn the_last_bytes_of_a_kicked_session_have_no_user_timeout() {
    let mut bench = Bench::new(Policy::standard());
    bench.order(Order::Kick { stay_away: false, text: Box::default() });
    assert_eq!(bench.options().1, None);
}

#[test]
fn a_request_ends_a_rest() {
    let mut bench = Bench::new(Policy::standard());
    bench.waker.wake().unwrap();
    let mut events = Events::with_capacity(EVENTS);
    let wait = Wait { rest: LONG, poll: LONG };
    bench.shard.wake_ups.wait(&mut bench.shard.poll, &mut events, wait).unwrap();
}

#[test]
fn a_shard_rests_while_heartbeats_flow_and_not_after_data() {
    let mut bench = Bench::new(Policy::standard());
    bench.wait_of_many();
    bench.receive();
    assert!(bench.shard.traffic.data_moved, "a line is data");
    assert_eq!(bench.shard.next_wait(MANY).rest, Span::ZERO);
}

#[test]
fn a_wait_ends_at_the_next_deadline() {
    let mut bench = Bench::new(Policy::standard());
    let deadline = bench.shard.hub.next_deadline().expect("a link has a deadline");
    let wait = bench.wait_of_many();
    let left = deadline.since(bench.shard.clock.now());
    assert!(wait.total() <= left, "{wait:?}, {left} left");
}

#[test]
fn rests_beside_a_demanding_link_are_brief() {
    let mut bench = Bench::new(Policy::demanding());
    let rest = bench.wait_of_many().rest;
    assert!(rest <= BRIEF_REST, "{rest}");
}

#[test]
fn a_poll_that_finds_bytes_is_answered_although_deadlines_are_due() {
    let mut bench = Bench::new(Policy::standard());
    bench.send_and_work(b"hello\n");
    let before = bench.shard.traffic.bytes_in;
    bench.poll();
    assert!(bench.shard.traffic.bytes_in > before && !bench.shard.traffic.sockets.is_unread(0));
}

#[test]
fn a_poll_does_not_read_a_socket_that_had_its_reads_of_this_turn() {
    let mut bench = Bench::new(Policy::standard());
    bench.send_and_work(&b"hello\n".repeat(FIRST_READ));
    bench.poll();
    assert!(bench.shard.traffic.sockets.is_unread(0), "one read was not enough");
    let before = bench.shard.traffic.bytes_in;
    bench.poll();
    assert_eq!(bench.shard.traffic.bytes_in, before);
}

#[test]
fn the_echoes_of_many_small_messages_leave_in_one_write() {
    let mut bench = Bench::new(Policy::standard());
    bench.shard.traffic.logic = Logic::Echo(Echo::default());
    let lines = b"a\n".repeat(100);
    let input = link::World::Received(&lines);
    let now = bench.shard.clock.now();
    bench.shard.hub.handle(now, hub::World::Link { link: 0, input });
    let before = bench.shard.traffic.sockets.bytes_out;
    bench.shard.carry_outputs();
    for _ in 0..100 {
        assert!(bench.shard.feed_back());
        bench.shard.carry_outputs();
        assert_eq!(
            bench.shard.traffic.sockets.bytes_out, before,
            "echoes are not written one by one"
        );
    }
    assert!(!bench.shard.feed_back(), "everything is echoed and written");
    let mut echoes = vec![0; lines.len()];
    io::Read::read_exact(&mut bench.peer, &mut echoes).unwrap();
    assert_eq!(echoes, lines);
    assert_eq!(bench.shard.traffic.sockets.bytes_out, before + 200);
}

#[test]
fn results_of_outputs_are_fed_back_before_the_sends_of_the_logic() {
    let mut bench = Bench::new(Policy::standard());
    bench.shard.traffic.logic = Logic::Echo(Echo::default());
    let input = link::World::Received(b"a\n");
    let now = bench.shard.clock.now();
    bench.shard.hub.handle(now, hub::World::Link { link: 0, input });
    bench.shard.carry_outputs();
    bench.shard.traffic.sockets.feedback.push_back((0, Feedback::Overflowed));
    assert!(bench.shard.feed_back());
    assert_eq!(bench.shard.hub.machine().find(bench.session), None, "the link ends first");
    let before = bench.shard.traffic.sockets.bytes_out;
    bench.shard.carry_out();
    assert_eq!(bench.shard.traffic.sockets.bytes_out, before, "nothing is echoed behind the gap");
}

/// No event says when to go on after errors of a connection that stands.
#[test]
fn a_write_that_met_errors_of_a_standing_connection_goes_on_in_the_next_turn() {
    let mut bench = Bench::new(Policy::standard());
    let sockets = &mut bench.shard.traffic.sockets;
    let conn = sockets.conns.get_mut(0).expect("the link is open");
    conn.queue(b"beat\n", &[(5, Lane::Data)], 0, 1_000).unwrap();
    let written =
        Written { warning: Some(SocketError::Refused), again: true, ..Written::default() };
    sockets.note_written(0, &written);
    bench.shard.carry_out();
    let now = bench.shard.clock.now();
    let next = Streams::left_over(&mut bench.shard, now).deadline;
    assert!(next.is_some_and(|at| at <= now + Span::from_millis(10)), "{next:?} after {now:?}");
    Streams::receive(&mut bench.shard, &Events::with_capacity(1)).unwrap();
    let mut echo = [0; 5];
    io::Read::read_exact(&mut bench.peer, &mut echo).unwrap();
    assert_eq!(&echo, b"beat\n");
    assert_eq!(Streams::left_over(&mut bench.shard, now).deadline, None, "nothing is left");
}
