//! The loop over a transport that seals records.

#[path = "../../../../../net/src/transport/tests/peer.rs"]
mod peer;
#[path = "../../../../../net/src/transport/tests/records.rs"]
mod records;

use std::io::{ErrorKind, Read, Write};
use std::thread::JoinHandle;
use std::time::Duration;

use systole_core::link::Introduction;
use systole_net::tls::ServerTls;
use systole_net::transport::{End, MAX_RECORD, Opened, Socket, Transport};

use super::*;
use crate::shard::sockets::{Conn, Note};
use peer::Peer;
use records::Records;

impl Accept for Records {
    fn accept(_: Option<&ServerTls>) -> Option<Records> {
        Some(Records::default())
    }

    fn subject(&self) -> Option<String> {
        None
    }
}

/// A shard over the toy, on a thread of its own.
struct Sealed {
    address: SocketAddr,
    requests: std::sync::mpsc::Sender<Request>,
    waker: LoopWaker,
    thread: JoinHandle<()>,
}

impl Sealed {
    fn start(codec: Codec, policy: Policy) -> Sealed {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = listener::bind_shards(address, 1).unwrap().remove(0);
        let address = socket.local_addr().unwrap();
        let settings = Settings { examines: true, ..Settings::new(codec, Side::Accepting, policy) };
        let setup = setup(socket, false, settings, Logic::Echo(Echo::default()));
        let (requests, receiver) = std::sync::mpsc::channel();
        let poll = Poll::new().unwrap();
        let (waker, wake_ups) = wake_ups(poll.registry(), WAKER).unwrap();
        let receiver = RequestQueue::new(receiver);
        let shard = Streams::<Records>::shard(poll, wake_ups, receiver, setup).unwrap();
        let thread = std::thread::spawn(move || shard.run());
        Sealed { address, requests, waker, thread }
    }

    fn stop(self) {
        self.requests.send(Request::Stop).unwrap();
        self.waker.wake().unwrap();
        self.thread.join().unwrap();
    }
}

#[test]
fn a_sealed_link_is_opened_echoed_and_closed_in_order() {
    let shard = Sealed::start(Codec::Native, Policy::standard());
    let stream = TcpStream::connect(shard.address).unwrap();
    let mut peer = Peer::new(stream, Side::Connecting(Introduction::default()));
    peer.run_until(|peer| peer.established);
    let message: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 251) as u8).collect();
    for part in message.chunks(200_000) {
        peer.send(part);
    }
    peer.run_until(|peer| peer.received.len() >= message.len());
    assert!(peer.received == message && peer.heard > 0);
    peer.send(b"the last");
    peer.close();
    peer.run_until(|peer| peer.end.is_some());
    assert_eq!(peer.end, Some(End::Closed), "the gateway closes the transport too");
    shard.stop();
}

#[test]
fn bytes_without_plaintext_keep_a_peer_alive_and_nothing_else_does() {
    let policy = Policy::new(Span::from_millis(200), Span::from_millis(100), 3).unwrap();
    let shard = Sealed::start(Codec::Line, policy.with_spread(false));
    let mut stream = TcpStream::connect(shard.address).unwrap();
    let mut peer = Records::default();
    let write = |peer: &mut Records, stream: &mut TcpStream, plaintext: &[u8]| {
        let count = peer.seal(plaintext).len();
        let result = stream.write_all(&peer.seal(plaintext)[..count]);
        peer.sent(count);
        result
    };
    write(&mut peer, &mut stream, b"").unwrap();
    write(&mut peer, &mut stream, b"hello\n").unwrap();
    // Each read waits a tenth of the bound; what the gateway sends is not answered.
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let clock = Clock::start();
    let mut buffer = [0; 1_024];
    while clock.monotonic() < Span::from_millis(1_500) {
        let read = stream.read(&mut buffer);
        let is_open = read.map_or_else(|error| error.kind() == ErrorKind::WouldBlock, |n| n > 0);
        assert!(is_open, "lost although it was heard");
        peer.whisper();
        write(&mut peer, &mut stream, b"").unwrap();
    }
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    while stream.read(&mut buffer).is_ok_and(|count| count > 0) {}
    assert!(clock.monotonic() > Span::from_millis(1_900), "the bound counts from the last of them");
    shard.stop();
}

#[test]
fn a_queue_that_leaves_with_an_answer_of_the_transport_ends_the_sending() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().unwrap();
    stream.set_nonblocking(true).unwrap();
    let mut sockets = Sockets::<Records>::new(32 << 20, usize::MAX);
    let stream = mio::net::TcpStream::from_std(stream);
    let conn = Conn::new(stream, Records::default(), Note::NEW);
    let link = sockets.conns.add(conn).unwrap();
    while sockets.conns.get(link).unwrap().outbox().is_none() {
        sockets.transmit(link, Lane::Data, &[7; MAX_RECORD]);
        sockets.flush();
    }
    let now = Time::from_millis(1_000);
    sockets.start_leaving(link, now, Span::from_secs(60));
    // Makes room, which the loop is not told here.
    peer.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut buffer = vec![0; 1 << 20];
    while peer.read(&mut buffer).is_ok() {}
    peer.write_all(Records::default().seal(&[])).unwrap();
    while sockets.conns.get(link).unwrap().stream().peek(&mut [0]).is_err() {}
    assert!(!sockets.conns.get(link).unwrap().is_flushed());
    sockets.drain_until_fin(link, now, &mut buffer);
    assert!(sockets.conns.get(link).unwrap().is_flushed());
    peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let end = peer.read_to_end(&mut Vec::new());
    assert!(end.is_ok(), "our side is closed: {end:?}");
}
