//! Tests of one shard with plain blocking sockets.

mod away;
mod crowd;
mod homes;
mod memory;
mod moving;
mod to_all;

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use systole_core::cause::{Cause, Confidence, Verdict};
use systole_core::diagnosis::{Ground, Grounds};
use systole_core::gather::LONGEST_REST;
use systole_core::home::Homes;
use systole_core::hub;
use systole_core::kernel::TcpSnapshot;
use systole_core::link::{Logins, Settings, Side};
use systole_core::session::Event;
use systole_core::wire::{Beat, Close, CloseReason, Codec, DataKind, Decoder, Frame, Hello};
use systole_core::{Policy, Span};
use systole_gateway::config;
use systole_gateway::logic::Logic;
use systole_gateway::report::{Fact, PauseReason, Reports, channels};
use systole_gateway::request::{Arrivals, Filter, Order, Request};
use systole_gateway::shard::{Door, Shard, ShardListener, ShardSetup, spawn};
use systole_gateway::stats::{Distributions, ShardStats};
use systole_net::{Clock, listener};
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot;

use crate::{assert_answered_together, wait_for_end};

/// Longest wait for anything expected, so that no test hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The receive buffer in bytes of a client for which most bytes wait at the gateway.
const SMALL_BUFFER: usize = 16 * 1024;

/// Time between two looks for an event.
const POLL: Duration = Duration::from_millis(1);

pub(crate) struct Running {
    pub(crate) shard: Shard,
    arrivals: Arrivals,
    addresses: Vec<SocketAddr>,
    reports: Receiver<Fact>,
    strangers: Receiver<Fact>,
    pub(crate) stats: Arc<ShardStats>,
}

pub(crate) fn start(policy: Policy, adjust: impl FnOnce(&mut ShardSetup)) -> Running {
    start_behind(Door::new().unwrap(), policy, adjust)
}

/// Starts a shard that others may know.
fn start_behind(door: Door, policy: Policy, adjust: impl FnOnce(&mut ShardSetup)) -> Running {
    let clock = Clock::start();
    let mut addresses = Vec::new();
    let mut listeners = Vec::new();
    for codec in [Codec::Native, Codec::Line, Codec::Message1028] {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = listener::bind_shards(address, 1).unwrap().remove(0);
        addresses.push(socket.local_addr().unwrap());
        let mut settings = Settings::new(codec, Side::Accepting, policy);
        // All these clients have one identity.
        settings.logins = Logins { limit: 1_000, ..Logins::NEWEST };
        listeners.push(ShardListener {
            socket,
            is_shared: false,
            settings,
            tls: None,
            tokens: None,
        });
    }
    let (sender, Reports { facts: reports, strangers, .. }) = channels(1_000);
    let stats = Arc::new(ShardStats::default());
    let mut setup = ShardSetup {
        index: 0,
        homes: Homes::SINGLE,
        siblings: Arc::default(),
        jobs: None,
        listeners,
        clock,
        seed: 7,
        max_links: 1_000,
        outbox_limit: 256 * 1024,
        outbox_memory: 256 * 1024 * 1024,
        frame_memory: 64 * 1024 * 1024,
        window_memory: 64 << 20,
        away: 100,
        longest_rest: LONGEST_REST,
        logic: Logic::new(config::Logic::Echo),
        epochs: Arc::default(),
        store: None,
        gate: None,
        bans: Arc::new(systole_gateway::bans::Bans::new(Clock::start())),
        reports: sender,
        stats: Arc::clone(&stats),
        distributions: Distributions::default(),
    };
    adjust(&mut setup);
    let arrivals = door.arrivals().clone();
    Running { shard: spawn(setup, door).unwrap(), arrivals, addresses, reports, strangers, stats }
}

impl Running {
    pub(crate) fn connect(&self, codec: Codec) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        self.connect_by(socket, codec)
    }

    fn connect_by(&self, socket: Socket, codec: Codec) -> TcpStream {
        let index = match codec {
            Codec::Native => 0,
            Codec::Line => 1,
            Codec::Message1028 => 2,
        };
        socket.connect(&self.addresses[index].into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // Bytes sent before a reset must leave before it.
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// Connects with a receive buffer so small that most bytes wait at the gateway. It has its
    /// size before the connection begins: the kernel drops bytes beyond one that shrinks later, and
    /// the pauses before they are sent again double.
    pub(crate) fn connect_narrow(&self, codec: Codec) -> TcpStream {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        socket.set_recv_buffer_size(SMALL_BUFFER).unwrap();
        self.connect_by(socket, codec)
    }

    fn native(&self) -> Native {
        Native::over(self.connect(Codec::Native))
    }

    pub(crate) fn hello(&self) -> Native {
        self.native().welcomed()
    }

    /// Logs in as [`Running::connect_narrow`] connects.
    pub(crate) fn hello_narrow(&self) -> Native {
        Native::over(self.connect_narrow(Codec::Native)).welcomed()
    }

    /// Waits for the next event, of a session or of a stranger, for which `wanted` returns true.
    fn event(&mut self, wanted: impl Fn(&Event) -> bool) -> (u64, Event) {
        let begun = Clock::start();
        loop {
            let fact = self.reports.try_recv().or_else(|_| self.strangers.try_recv());
            match fact {
                Ok(Fact { subject, event, .. }) if wanted(&event) => {
                    return (subject.session, event);
                }
                Ok(_) => {}
                Err(_) => std::thread::park_timeout(POLL),
            }
            assert!(begun.monotonic() < Span::from(PATIENCE), "no such event");
        }
    }

    /// Waits until accepting is paused; returns why.
    fn pause(&self) -> PauseReason {
        let begun = Clock::start();
        loop {
            if let Some(reason) = self.stats.accepting.paused() {
                return reason;
            }
            assert!(begun.monotonic() < Span::from(PATIENCE), "accepting is not paused");
            std::thread::yield_now();
        }
    }

    pub(crate) fn leave(&mut self) -> Cause {
        self.verdict().cause
    }

    fn verdict(&mut self) -> Verdict {
        match self.event(|event| matches!(event, Event::Left(_))).1 {
            Event::Left(verdict) => verdict,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn join(&mut self) -> u64 {
        self.event(|event| matches!(event, Event::Joined { .. })).0
    }

    pub(crate) fn stop(mut self) {
        self.shard.requests.send(Request::Stop).unwrap();
        while self.reports.blocking_recv().is_some() {}
        self.shard.thread.join().unwrap();
    }
}

pub(crate) fn hello() -> Hello<'static> {
    Hello { identity: "ada", ..Hello::default() }
}

pub(crate) struct Native {
    pub(crate) stream: TcpStream,
    decoder: Decoder,
    unread: Vec<u8>,
}

impl Native {
    fn over(stream: TcpStream) -> Native {
        Native { stream, decoder: Decoder::new(Codec::Native, 65_536), unread: Vec::new() }
    }

    /// Says HELLO, and waits for WELCOME.
    fn welcomed(mut self) -> Native {
        self.send(&Frame::Hello(hello()));
        assert!(self.next(|frame| matches!(frame, Frame::Welcome(_))));
        self
    }

    pub(crate) fn send(&mut self, frame: &Frame<'_>) {
        let mut bytes = Vec::new();
        Codec::Native.encode(frame, &mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    /// Reads one frame and returns `check` of it; `false` at the end of the stream.
    pub(crate) fn next(&mut self, check: impl FnOnce(Frame<'_>) -> bool) -> bool {
        loop {
            let mut input = self.unread.as_slice();
            let before = input.len();
            if let Some(frame) = self.decoder.next(&mut input).unwrap() {
                let answer = check(frame);
                let taken = before - input.len();
                self.unread.drain(..taken);
                return answer;
            }
            self.unread.clear();
            let mut buffer = [0; 4_096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.unread.extend_from_slice(&buffer[..count]),
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        }
    }
}

/// Declares that the sockets of all listeners can be examined, as the control plane does.
fn with_examinations(setup: &mut ShardSetup) {
    for ShardListener { settings, .. } in &mut setup.listeners {
        settings.examines = true;
    }
}

/// A policy with a bound of 500 ms.
fn short_policy() -> Policy {
    Policy::new(Span::from_millis(200), Span::from_millis(100), 3).unwrap()
}

#[test]
fn a_native_client_is_welcomed_answered_and_listed() {
    let mut running = start(Policy::default(), |_| {});
    let mut client = running.hello();
    let session = running.join();
    client.send(&Frame::Ping(Beat::bare(9)));
    assert!(client.next(|frame| frame == Frame::Pong(Beat::bare(9))));
    let (reply, answer) = oneshot::channel();
    let filter = Filter { identity: Some("ada".into()), ..Filter::default() };
    let request = Request::Sessions { from: 0, limit: 10, filter, reply };
    running.shard.requests.send(request).unwrap();
    let page = answer.blocking_recv().unwrap();
    assert_eq!(page.sessions.len(), 1);
    assert_eq!(page.sessions[0].session, format!("{session:016x}"));
    assert_eq!(page.sessions[0].policy.bound_ms, Some(30_000));
    assert_eq!(page.next, None);
    drop(client);
    assert_eq!(running.leave(), Cause::PeerExited);
    running.stop();
}

#[test]
fn a_client_killed_with_an_answer_unread_has_exited() {
    let mut running = start(Policy::default(), with_examinations);
    let mut client = running.hello();
    client.send(&Frame::Ping(Beat::bare(9)));
    assert_eq!(
        client.stream.peek(&mut [0]).unwrap(),
        1,
        "the answer has arrived, and stays unread"
    );
    // The start of a frame gets no answer, and carries the acknowledgement of the pong.
    client.stream.write_all(&[0x30]).unwrap();
    drop(client);
    let verdict = running.verdict();
    if cfg!(target_os = "linux") {
        assert_eq!((verdict.cause, verdict.confidence), (Cause::PeerExited, Confidence::High));
        assert!(verdict.grounds.contains(Ground::NothingOwed), "{verdict:?}");
    }
    running.stop();
}

#[test]
fn a_half_closed_client_is_served_for_a_while() {
    let mut running = start(Policy::default(), with_examinations);
    let mut client = running.hello();
    let data = Frame::data(b"last words", false, DataKind::default());
    client.send(&data);
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert!(client.next(|frame| frame == data), "the echo");
    assert!(
        client.next(|frame| matches!(frame, Frame::Ping(_))),
        "a probe: does the client still read?"
    );
    assert!(client.next(|frame| matches!(frame, Frame::Close(_))), "a goodbye after two seconds");
    assert!(client.is_closed());
    let verdict = running.verdict();
    assert_eq!((verdict.cause, verdict.confidence), (Cause::PeerExited, Confidence::Medium));
    assert!(verdict.grounds.contains(Ground::SideClosed));
    running.stop();
}

#[test]
fn a_client_killed_with_nothing_unread_has_exited_by_its_reset() {
    for codec in [Codec::Native, Codec::Message1028] {
        let mut running = start(Policy::default(), with_examinations);
        let mut client = running.connect(codec);
        let mut hello_or_ping = Vec::new();
        codec.encode(&Frame::Hello(hello()), &mut hello_or_ping);
        if !codec.has_handshake() {
            codec.encode(&Frame::Ping(Beat::bare(0)), &mut hello_or_ping);
        }
        client.write_all(&hello_or_ping).unwrap();
        running.join();
        // The whole answer is read, whichever codec it has.
        let mut answer = vec![0; 2_048];
        while client.read(&mut answer).unwrap() < 2 {}
        drop(client);
        let verdict = running.verdict();
        let grounds = Grounds::of(&[Ground::SideClosed, Ground::Reset]);
        assert_eq!((verdict.cause, verdict.grounds), (Cause::PeerExited, grounds), "{codec}");
        running.stop();
    }
}

#[test]
fn urgent_data_is_read_in_its_place_and_hides_nothing_behind_it() {
    let running = start(Policy::standard(), |_| {});
    let mut client = running.connect(Codec::Line);
    let mut answer = [0; 6];
    for _ in 0..10 {
        // The last byte is urgent: a read stops before it.
        assert_eq!(SockRef::from(&client).send_out_of_band(b"hello\n").unwrap(), 6);
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello\n");
        client.write_all(b"again\n").unwrap();
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"again\n");
    }
    running.stop();
}

#[test]
fn lines_piped_into_a_socket_are_answered_before_the_close() {
    let mut running = start(Policy::default(), with_examinations);
    let mut client = running.connect(Codec::Line);
    client.write_all(b"ping\nhello\n").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    // Control frames may overtake data; nothing else is sent.
    let mut lines: Vec<_> = answer.split_inclusive(|byte| *byte == b'\n').collect();
    lines.sort_unstable();
    assert_eq!(lines, [b"hello\n", &b"pong\n"[..]]);
    assert_eq!(running.leave(), Cause::PeerExited);
    running.stop();
}

#[test]
fn a_silent_link_ends_at_the_bound_and_pongs_keep_a_link_alive() {
    let mut running = start(short_policy(), |_| {});
    let mut alive = running.hello();
    let silent = running.hello();
    let clock = Clock::start();
    let mut answered = 0;
    while answered < 10 {
        let mut sequence = 0;
        alive.next(|frame| match frame {
            Frame::Ping(beat) => {
                sequence = beat.sequence;
                true
            }
            other => panic!("{other:?}"),
        });
        alive.send(&Frame::Pong(Beat::bare(sequence)));
        answered += 1;
    }
    assert!(clock.monotonic() > Span::from_millis(900), "ten probes with `idle` between them");
    assert_eq!(running.leave(), Cause::Unknown);
    alive.send(&Frame::Ping(Beat::bare(1)));
    assert!(alive.next(|frame| matches!(frame, Frame::Pong(_))), "the link is still open");
    drop(silent);
    running.stop();
}

#[test]
fn a_peer_without_a_hello_ends_at_the_handshake_timeout() {
    let mut running = start(Policy::default(), |setup| {
        for ShardListener { settings, .. } in &mut setup.listeners {
            settings.handshake_timeout = Span::from_millis(150);
        }
    });
    let mut silent = running.connect(Codec::Native);
    silent.write_all(&[0x30]).unwrap();
    assert_eq!(running.leave(), Cause::HandshakeTimeout);
    running.stop();
}

#[test]
fn garbage_is_closed_without_an_answer_and_a_goodbye_is_peer_closed() {
    let mut running = start(Policy::default(), |_| {});
    let mut garbage = running.connect(Codec::Native);
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut byte = [0];
    let read = garbage.read(&mut byte);
    assert!(matches!(&read, Ok(0)) || read.is_err(), "{read:?}");
    assert_eq!(running.leave().name(), "protocol");
    let mut closing = running.hello();
    let (reason, final_, return_after_ms, text) = (CloseReason::Done, false, 0, "bye");
    closing.send(&Frame::Close(Close { reason, final_, return_after_ms, text }));
    assert_eq!(running.leave(), Cause::PeerClosed(CloseReason::Done));
    assert!(closing.is_closed());
    running.stop();
}

#[test]
fn large_messages_are_echoed_whole_to_a_slow_reader() {
    let running = start(Policy::default(), |setup| setup.outbox_limit = 8 * 1024 * 1024);
    let mut client = running.hello();
    let message: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
    let mut writer = client.stream.try_clone().unwrap();
    let sent = message.clone();
    let writing = std::thread::spawn(move || {
        for (index, piece) in sent.chunks(65_536).enumerate() {
            let more = (index + 1) * 65_536 < sent.len();
            let mut bytes = Vec::new();
            let frame = Frame::data(piece, more, DataKind::default());
            Codec::Native.encode(&frame, &mut bytes);
            writer.write_all(&bytes).unwrap();
        }
        writer.write_all(&[0x10, 77]).unwrap();
    });
    let mut echoed = Vec::new();
    let mut last = false;
    let mut ponged = None;
    while !last || ponged.is_none() {
        let ended = !client.next(|frame| {
            match frame {
                Frame::Data { bytes, more, .. } => {
                    echoed.extend_from_slice(bytes);
                    last = !more;
                }
                Frame::Pong(beat) => ponged = Some((beat.sequence, echoed.len())),
                other => panic!("{other:?}"),
            }
            true
        });
        assert!(!ended);
    }
    writing.join().unwrap();
    assert!(echoed == message, "{} of {} bytes", echoed.len(), message.len());
    assert_eq!(ponged.map(|(sequence, _)| sequence), Some(77));
    running.stop();
}

/// A heartbeat overtakes the gateway's own queue; the kernel holds few unsent bytes.
#[test]
fn a_heartbeat_overtakes_megabytes_of_queued_data() {
    let mut running = start(Policy::default(), |setup| setup.outbox_limit = 8 * 1024 * 1024);
    let mut client = running.hello_narrow();
    running.join();
    let message = vec![7; 60_000];
    let mut bytes = Vec::new();
    let frame = Frame::data(&message, false, DataKind::default());
    Codec::Native.encode(&frame, &mut bytes);
    for _ in 0..100 {
        client.stream.write_all(&bytes).unwrap();
    }
    client.send(&Frame::Ping(Beat::bare(77)));
    let mut greeting = Vec::new();
    Codec::Native.encode(&Frame::Hello(hello()), &mut greeting);
    let sent = greeting.len() + 100 * bytes.len() + 2;
    let clock = Clock::start();
    while running.stats.bytes_in.get() < sent as u64 {
        assert!(clock.monotonic() < PATIENCE.into(), "the gateway reads");
        std::thread::yield_now();
    }
    let mut before = 0;
    let mut is_pong = |frame: Frame<'_>| match frame {
        Frame::Data { bytes, .. } => {
            before += bytes.len();
            false
        }
        Frame::Pong(_) => true,
        other => panic!("{other:?}"),
    };
    while !client.next(&mut is_pong) {}
    assert!(before < 600_000, "{before} of {} bytes came first", 100 * message.len());
    running.stop();
}

/// The client reads for five times the bound and sends nothing: progress of our bytes is the only
/// evidence of life. Once the client stops reading, the verdict falls.
#[test]
fn a_slow_reader_of_a_large_message_lives_until_it_stops_reading() {
    let policy = Policy::new(Span::from_millis(600), Span::from_millis(200), 3).unwrap();
    let mut running = start(policy, |setup| {
        setup.outbox_limit = 8 * 1024 * 1024;
        with_examinations(setup);
    });
    let mut client = running.hello_narrow();
    running.join();
    let message = vec![7; 60_000];
    let mut bytes = Vec::new();
    let frame = Frame::data(&message, false, DataKind::default());
    Codec::Native.encode(&frame, &mut bytes);
    for _ in 0..100 {
        client.stream.write_all(&bytes).unwrap();
    }
    let bound = Duration::from(policy.bound().unwrap());
    let clock = Clock::start();
    let mut buffer = [0; 8 * 1024];
    while clock.monotonic() < (bound * 5).into() {
        assert!(client.stream.read(&mut buffer).unwrap() > 0);
        #[allow(clippy::disallowed_methods)] // Limits the rate to 400 kB a second.
        std::thread::sleep(Duration::from_millis(20));
    }
    while let Ok(fact) = running.reports.try_recv() {
        assert!(!matches!(fact.event, Event::Left(_)), "{fact:?}");
    }
    // A kernel answers at most two window probes a second (Linux), so that at a bound as short as
    // this one it may not count as fresh.
    let verdict = running.verdict();
    let causes = [Cause::NotReading, Cause::AppHung, Cause::Unknown];
    assert!(verdict.is_silence() && causes.contains(&verdict.cause), "{verdict:?}");
    running.stop();
}

#[test]
fn a_client_that_does_not_read_is_a_slow_consumer() {
    let mut running = start(Policy::default(), |setup| setup.outbox_limit = 64 * 1024);
    let mut client = running.hello();
    let data = vec![7; 60_000];
    let mut bytes = Vec::new();
    let frame = Frame::data(&data, false, DataKind::default());
    Codec::Native.encode(&frame, &mut bytes);
    client.stream.set_write_timeout(Some(PATIENCE)).unwrap();
    while client.stream.write_all(&bytes).is_ok() {}
    assert_eq!(running.leave(), Cause::SlowConsumer);
    running.stop();
}

#[test]
fn older_protocols_are_answered_however_their_bytes_are_cut() {
    let running = start(Policy::default(), |_| {});
    let mut line = running.connect(Codec::Line);
    for byte in b"ping\r\n" {
        line.write_all(&[*byte]).unwrap();
    }
    let mut answer = [0; 5];
    line.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"pong\n");
    let mut old = running.connect(Codec::Message1028);
    let mut message = [0; 1_028];
    message[3] = 1;
    let (first, second) = message.split_at(700);
    old.write_all(first).unwrap();
    old.write_all(second).unwrap();
    let mut answer = [9; 1_028];
    old.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..4], [0, 0, 0, 2]);
    running.stop();
}

#[test]
fn an_order_reaches_only_its_session() {
    let mut running = start(Policy::default(), |_| {});
    let mut kicked = running.hello();
    let session = running.join();
    let mut other = running.hello();
    let order = |running: &Running, session, order| {
        let (reply, answer) = oneshot::channel();
        let request = Request::Order { session, order, reply };
        running.shard.requests.send(request).unwrap();
        answer.blocking_recv().unwrap()
    };
    assert!(order(&running, session, Order::Retune(Policy::demanding())));
    assert!(kicked.next(
        |frame| matches!(frame, Frame::Retune(policy) if policy.bound() == Some(Span::from_secs(8)))
    ));
    assert!(order(&running, session, Order::Kick { stay_away: true, text: Box::default() }));
    assert!(kicked.next(|frame| matches!(
        frame,
        Frame::Close(Close { reason: CloseReason::Kicked, final_: true, .. })
    )));
    assert!(kicked.is_closed());
    assert_eq!(running.leave(), Cause::Kicked);
    assert!(!order(&running, session, Order::Release), "the session has ended");
    other.send(&Frame::Ping(Beat::bare(1)));
    assert!(other.next(|frame| matches!(frame, Frame::Pong(_))));
    running.stop();
}

#[test]
fn a_drain_spreads_the_return_of_clients() {
    let running = start(Policy::default(), |_| {});
    let mut clients: Vec<_> = (0..20).map(|_| running.hello()).collect();
    running.shard.requests.send(Request::StopAccepting).unwrap();
    let reconnect_within = Span::from_secs(5);
    let drain =
        Request::Command(hub::HubCommand::Drain { limit: Span::from_secs(30), reconnect_within });
    running.shard.requests.send(drain).unwrap();
    let mut slots = std::collections::BTreeSet::new();
    for client in &mut clients {
        assert!(client.next(|frame| match frame {
            Frame::Close(close) => {
                slots.insert(close.return_after_ms);
                close.reason == CloseReason::Drained && close.return_after_ms <= 5_000
            }
            other => panic!("{other:?}"),
        }));
        assert!(client.is_closed());
    }
    assert!(slots.len() > 10, "spread: {slots:?}");
    running.stop();
}

/// Starts a shard that has one link, its last, and five peers in the queue, which have spoken.
fn start_with_a_queue() -> (Running, Vec<Native>) {
    let mut running = start(Policy::default(), |setup| setup.max_links = 1);
    let mut clients = vec![running.hello()];
    running.join();
    for _ in 0..5 {
        let mut client = running.native();
        client.send(&Frame::Hello(hello()));
        clients.push(client);
    }
    assert_eq!(running.pause(), PauseReason::LinkLimit);
    (running, clients)
}

/// Checks that the gateway closes the connection of a client with CLOSE, before anything else but
/// a WELCOME.
fn assert_sent_away(client: &mut Native) {
    let mut reason = None;
    while reason.is_none() {
        let is_open = client.next(|frame| {
            match frame {
                Frame::Welcome(_) => {}
                Frame::Close(close) => reason = Some(close.reason),
                other => panic!("{other:?}"),
            }
            true
        });
        assert!(is_open, "the end of the stream, without CLOSE");
    }
    assert_eq!(reason, Some(CloseReason::Drained));
}

#[test]
fn a_drain_empties_the_queue_before_the_listener_is_closed() {
    let (running, mut clients) = start_with_a_queue();
    let drain = hub::HubCommand::Drain { limit: Span::from_secs(30), reconnect_within: Span::ZERO };
    running.shard.requests.send(Request::StopAccepting).unwrap();
    running.shard.requests.send(Request::Command(drain)).unwrap();
    for mut client in clients.drain(..) {
        assert!(running.stats.listening.get() > 0, "its queue is not empty");
        assert_sent_away(&mut client);
    }
    let begun = Clock::start();
    while running.stats.listening.get() > 0 {
        assert!(begun.monotonic() < Span::from(PATIENCE), "the listeners stay open");
        std::thread::yield_now();
    }
    let refused = TcpStream::connect(running.addresses[0]).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    running.stop();
}

#[test]
fn a_stop_sends_away_the_peers_in_the_queue() {
    let (running, mut clients) = start_with_a_queue();
    running.stop();
    clients.iter_mut().for_each(assert_sent_away);
}

#[test]
fn at_the_link_limit_new_peers_wait_and_open_links_are_unharmed() {
    let running = start(Policy::default(), |setup| setup.max_links = 2);
    let mut first = running.hello();
    let second = running.hello();
    let mut waiting = running.connect(Codec::Line);
    waiting.write_all(b"ping\n").unwrap();
    assert_eq!(running.pause(), PauseReason::LinkLimit);
    let turns = running.stats.turns.get();
    first.send(&Frame::Ping(Beat::bare(1)));
    assert!(first.next(|frame| matches!(frame, Frame::Pong(_))));
    assert!(running.stats.turns.get() < turns + 50, "the loop does not spin");
    drop(second);
    let mut answer = [0; 5];
    waiting.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"pong\n");
    running.stop();
}

/// Starts a shard whose way to the control plane has room for one fact.
fn start_with_room_for_one_fact(change: impl FnOnce(&mut ShardSetup)) -> Running {
    let mut taken = None;
    let mut running = start(Policy::default(), |setup| {
        change(setup);
        let (sender, reports) = channels(1);
        (setup.reports, taken) = (sender, Some(reports));
    });
    running.reports = taken.unwrap().facts;
    running
}

#[test]
fn a_session_that_has_left_takes_one_place_although_its_connection_is_open() {
    let mut running = start_with_room_for_one_fact(|setup| setup.max_links = 4);
    let leaving = running.hello();
    let session = running.join();
    // Its join takes the only room on the way, so that the leave of the other waits.
    let open = running.hello();
    let (reply, answer) = oneshot::channel();
    let order = Order::Kick { stay_away: false, text: Box::default() };
    running.shard.requests.send(Request::Order { session, order, reply }).unwrap();
    assert!(answer.blocking_recv().unwrap());
    // The first client has not closed its connection; there is room for a fourth.
    let third = running.hello();
    assert_eq!(running.stats.accepting.paused(), None);
    drop((leaving, open, third));
    running.stop();
}

/// A client that comes, says something and goes while nobody takes the facts of the shard.
fn come_and_go(running: &Running) {
    let mut client = running.connect(Codec::Line);
    client.write_all(b"ping\n").unwrap();
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
}

#[test]
fn facts_wait_while_nobody_takes_them_and_their_places_admit_nobody() {
    let mut running = start_with_room_for_one_fact(|setup| setup.max_links = 3);
    for _ in 0..3 {
        come_and_go(&running);
    }
    let mut fourth = running.connect(Codec::Line);
    fourth.write_all(b"ping\n").unwrap();
    // Links that are being closed count as open.
    while running.pause() != PauseReason::ControlPlane {
        std::thread::yield_now();
    }
    let mut sessions = BTreeMap::new();
    for _ in 0..6 {
        let Fact { subject, event, .. } = running.reports.blocking_recv().unwrap();
        let left = matches!(event, Event::Left(_));
        sessions.entry(subject.session).or_insert(Vec::new()).push(left);
    }
    assert_eq!(sessions.into_values().collect::<Vec<_>>(), vec![vec![false, true]; 3]);
    let mut answer = [0; 5];
    fourth.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"pong\n", "there is room again");
    running.stop();
}

#[test]
fn a_stop_reports_the_end_of_each_session() {
    let mut running = start_with_room_for_one_fact(|_| {});
    let mut clients: Vec<_> = (0..20).map(|_| running.hello()).collect();
    running.shard.requests.send(Request::Stop).unwrap();
    let (mut joins, mut leaves) = (0, 0);
    while let Some(fact) = running.reports.blocking_recv() {
        match fact.event {
            Event::Joined { .. } => joins += 1,
            Event::Left(verdict) => {
                assert_eq!(verdict.cause, Cause::Drained);
                leaves += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((joins, leaves), (20, 20));
    let said = clients
        .iter_mut()
        .filter_map(|client| client.next(|frame| matches!(frame, Frame::Close(_))).then_some(()));
    assert_eq!(said.count(), 20, "a goodbye comes before the end");
    running.shard.thread.join().unwrap();
}

#[test]
fn a_long_line_written_in_part_does_not_overflow() {
    let mut running = start(Policy::default(), |setup| setup.outbox_limit = 64 * 1024 * 1024);
    let mut client = running.connect(Codec::Line);
    let mut line = vec![b'x'; 60_000];
    line.push(b'\n');
    let count = 300;
    let mut writer = client.try_clone().unwrap();
    let sent = line.clone();
    let writing = std::thread::spawn(move || {
        for _ in 0..count {
            writer.write_all(&sent).unwrap();
        }
    });
    // Nothing is read before all is written, so that the answers do not fit the socket buffers.
    writing.join().unwrap();
    let mut answer = vec![0; line.len()];
    for _ in 0..count {
        client.read_exact(&mut answer).unwrap();
        assert!(answer == line);
    }
    drop(client);
    assert_eq!(running.leave(), Cause::PeerExited);
    running.stop();
}

#[test]
fn thousands_of_tiny_messages_are_echoed() {
    let running = start(Policy::default(), |setup| setup.outbox_limit = 8 * 1024 * 1024);
    let mut client = running.hello();
    let tiny = [0x50, 0x00].repeat(32_000);
    let mut answer = vec![0; tiny.len()];
    for _ in 0..10 {
        client.stream.write_all(&tiny).unwrap();
        client.stream.read_exact(&mut answer).unwrap();
        assert!(answer == tiny);
    }
    running.stop();
}

/// Writes messages as fast as possible until the link ends.
fn flood(mut stream: TcpStream) -> std::thread::JoinHandle<()> {
    let mut message = [7; 1_028];
    message[..4].copy_from_slice(&[0, 0, 0, 11]);
    let messages = message.repeat(256);
    std::thread::spawn(move || while stream.write_all(&messages).is_ok() {})
}

#[test]
fn a_flooding_link_gets_only_its_share_of_a_turn() {
    let running = start(Policy::default(), |setup| setup.logic = Logic::None);
    let flooding = flood(running.connect(Codec::Message1028));
    let clock = Clock::start();
    while running.stats.bytes_in.get() < 500_000_000 && clock.monotonic() < Span::from_secs(3) {
        std::thread::yield_now();
    }
    let bytes = running.stats.bytes_in.get();
    // Both counters are published at a turn's end; the turn under way is not yet counted.
    let turns = running.stats.turns.get() + 1;
    assert!(bytes / turns <= 4 * 64 * 1024, "{bytes} bytes in {turns} turns");
    running.stop();
    flooding.join().unwrap();
}

#[test]
fn a_flood_on_one_link_does_not_delay_the_verdict_on_another() {
    let mut running = start(Policy::default(), |setup| {
        setup.logic = Logic::None;
        setup.max_links = 4_000;
        setup.listeners[0].settings.policy = short_policy();
    });
    let mut idle: Vec<_> = (0..3_000).map(|_| running.connect(Codec::Line)).collect();
    for stream in &mut idle {
        stream.write_all(b"ping\n").unwrap();
        stream.read_exact(&mut [0; 5]).unwrap();
    }
    let flooding = flood(running.connect(Codec::Message1028));
    let silent = running.hello();
    let clock = Clock::start();
    assert_eq!(running.leave(), Cause::Unknown);
    let took = clock.monotonic();
    assert!(took < Span::from_millis(1_200), "{took} for a bound of 500 ms");
    drop(silent);
    running.stop();
    flooding.join().unwrap();
}

#[test]
fn floods_of_small_frames_do_not_delay_the_verdicts_on_other_links() {
    let mut running = start(Policy::default(), |setup| {
        setup.logic = Logic::None;
        setup.listeners[0].settings.policy = short_policy();
    });
    let mut frames = Vec::new();
    for _ in 0..32_768 {
        let (bytes, more, kind) = (&[][..], false, DataKind::default());
        Codec::Native.encode(&Frame::data(bytes, more, kind), &mut frames);
    }
    let flooding: Vec<_> = (0..10).map(|_| running.hello().stream).collect();
    let silent: Vec<_> = (0..20).map(|_| running.hello()).collect();
    let frames = Arc::new(frames);
    let flooding = flooding.into_iter().map(|mut stream| {
        let frames = Arc::clone(&frames);
        std::thread::spawn(move || while stream.write_all(&frames).is_ok() {})
    });
    let flooding: Vec<_> = flooding.collect();
    // As the loop accounts for it: a machine that is busy with other work adds nothing.
    let late = |verdict: Verdict| verdict.at.since(verdict.due);
    let mut late: Vec<_> = silent.iter().map(|_| late(running.verdict())).collect();
    late.sort();
    let median = late[late.len() / 2];
    assert!(median < Span::from_millis(25), "{late:?}");
    drop(silent);
    running.stop();
    flooding.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_shard_whose_handle_is_dropped_ends() {
    let Running { shard: Shard { requests, thread }, .. } = start(Policy::default(), |_| {});
    drop(requests);
    wait_for_end(&thread);
}

#[test]
fn requests_sent_together_are_answered_together() {
    let running = start(Policy::default(), |_| {});
    assert_answered_together(&running.shard.requests);
    running.stop();
}

#[test]
fn a_goodbye_is_read_although_the_peer_left_answers_unread() {
    let mut running = start(Policy::default(), |setup| setup.outbox_limit = 64 * 1024 * 1024);
    let encoded = |frame: &Frame<'_>| {
        let mut bytes = Vec::new();
        Codec::Native.encode(frame, &mut bytes);
        bytes
    };
    let (reason, final_, return_after_ms, text) = (CloseReason::Done, false, 0, "");
    let close = Frame::Close(Close { reason, final_, return_after_ms, text });
    let bytes = encoded(&Frame::data(&[7; 60_000], false, DataKind::default()));
    let mut taken = 0;
    for _ in 0..10 {
        let mut client = running.hello();
        for _ in 0..200 {
            client.stream.write_all(&bytes).unwrap();
        }
        // The gateway has read all bytes, so that the goodbye leaves the client at once.
        taken += encoded(&Frame::Hello(hello())).len() + 200 * bytes.len();
        while running.stats.bytes_in.get() < taken as u64 {
            std::thread::yield_now();
        }
        client.send(&close);
        taken += encoded(&close).len();
        // On a busy machine the goodbye may wait for an acknowledgement, and a reset discards it.
        let waits = |tcp: TcpSnapshot| !tcp.is_all_acknowledged();
        while systole_net::examine::tcp_snapshot(&client.stream).is_some_and(waits) {
            std::thread::yield_now();
        }
        // The client's unread answers turn its close into a reset.
        drop(client);
        assert_eq!(running.leave(), Cause::PeerClosed(CloseReason::Done));
    }
    running.stop();
}

#[test]
fn a_loop_that_is_always_busy_still_ends_silent_links() {
    let mut running = start(Policy::default(), |setup| {
        setup.logic = Logic::None;
        setup.listeners[0].settings.policy = short_policy();
    });
    let silent = running.hello();
    let lines = vec![b'\n'; 256 * 1024];
    let flooding: Vec<_> = (0..20)
        .map(|_| {
            let (mut stream, lines) = (running.connect(Codec::Line), lines.clone());
            std::thread::spawn(move || while stream.write_all(&lines).is_ok() {})
        })
        .collect();
    let clock = Clock::start();
    assert_eq!(running.leave(), Cause::Unknown);
    let took = clock.monotonic();
    assert!(took < Span::from_secs(5), "{took} for a bound of 500 ms");
    drop(silent);
    running.stop();
    for flooding in flooding {
        flooding.join().unwrap();
    }
}
