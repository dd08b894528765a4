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
use systole_net::transport::{End, Held, MAX_RECORD, Opened, Socket, Transport};

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
        Sealed::with_frame_memory(codec, policy, 64 << 20)
    }

    fn with_frame_memory(codec: Codec, policy: Policy, frame_memory: usize) -> Sealed {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = listener::bind_shards(address, 1).unwrap().remove(0);
        let address = socket.local_addr().unwrap();
        let settings = Settings { examines: true, ..Settings::new(codec, Side::Accepting, policy) };
        let setup = setup(socket, false, settings, Logic::Echo(Echo::default()));
        let setup = ShardSetup { frame_memory, ..setup };
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

/// Seals a message for the line codec.
fn line(peer: &mut Records, text: &[u8]) -> Vec<u8> {
    let sealed = peer.seal(text).to_vec();
    peer.sent(sealed.len());
    sealed
}

#[test]
fn a_record_that_comes_a_byte_at_a_time_ends_its_link_and_whole_ones_do_not() {
    let policy = Policy::new(Span::from_millis(400), Span::from_millis(200), 3).unwrap();
    let shard = Sealed::start(Codec::Line, policy.with_spread(false));
    let mut stream = TcpStream::connect(shard.address).unwrap();
    let mut peer = Records::default();
    let mut wire = line(&mut peer, b"");
    wire.extend(line(&mut peer, b"hello\n"));
    stream.write_all(&wire).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let clock = Clock::start();
    let mut buffer = [0; 1_024];
    let mut is_open = |stream: &mut TcpStream| match stream.read(&mut buffer) {
        Ok(count) => count > 0,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    };
    // Each record comes in two parts, for more than twice the bound.
    while clock.monotonic() < Span::from_millis(2_200) {
        let record = line(&mut peer, b"a line\n");
        for part in [&record[..4], &record[4..]] {
            stream.write_all(part).unwrap();
            assert!(is_open(&mut stream), "lost although its records are whole");
        }
    }
    // A record of 500 bytes takes less than the bound at the floor rate.
    let record = line(&mut peer, &[b'x'; 500]);
    let begun = clock.monotonic();
    for byte in &record {
        if stream.write_all(&[*byte]).is_err() || !is_open(&mut stream) {
            let lasted = clock.monotonic().less(begun);
            assert!(lasted >= Span::from_millis(1_000), "{lasted} is less than the bound");
            return shard.stop();
        }
    }
    panic!("a record took ten seconds, and its link still stands");
}

#[test]
fn the_oldest_part_of_a_record_gives_way_before_any_login() {
    let shard = Sealed::with_frame_memory(Codec::Line, Policy::standard(), 40_000);
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(shard.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut peer = Records::default();
        let greeting = line(&mut peer, b"");
        let lines = [[b'x'; 499].as_slice(), b"\n"].concat().repeat(32);
        let record = line(&mut peer, &lines);
        let (part, rest) = record.split_at(15_990);
        stream.write_all(&greeting).unwrap();
        // The greeting was heard, and is answered in front of the part of a record.
        assert!(stream.read(&mut [0; 64]).unwrap() > 0);
        stream.write_all(part).unwrap();
        clients.push((stream, rest.to_vec()));
    }
    let (mut oldest, _) = clients.remove(0);
    while oldest.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
    for (stream, rest) in &mut clients {
        stream.write_all(rest).unwrap();
        let mut echoed = 0;
        while echoed < 16_000 {
            let count = stream.read(&mut [0; 4_096]).unwrap();
            assert!(count > 0, "the younger ones are served");
            echoed += count;
        }
    }
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
