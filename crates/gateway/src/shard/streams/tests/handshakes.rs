//! Tests of many new connections and handshakes at once.

use rcgen::{CertificateParams, KeyPair};
use systole_net::tls::{Believe, ClientTls, Identity, ServerTls};
use systole_net::transport::Transport;

use super::*;

/// More than one turn continues.
const CLIENTS: usize = 8;

/// Fewer than a turn may accept, and more than it accepts in the time for that: each takes four
/// system calls.
const WAITING: u64 = 60;

pub(super) fn server() -> ServerTls {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let chain = certificate.self_signed(&key).unwrap().pem();
    let identity = Identity::from_pem(chain.as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    ServerTls::new(vec![identity], None, &[]).unwrap()
}

#[test]
fn a_burst_of_handshakes_is_spread_over_turns_and_all_are_continued() {
    let mut bench = Bench::new(Policy::standard());
    let address = bench.peer.peer_addr().unwrap();
    bench.shard.traffic.tls =
        vec![Some(ListenerTls { server: server(), subject_is_identity: false })];
    let client = ClientTls::new(&Believe::Anyone, None).unwrap();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut tls = client.connect("localhost", &[]).unwrap();
            let mut stream = TcpStream::connect(address).unwrap();
            let hello = tls.seal(&[]).to_vec();
            io::Write::write_all(&mut stream, &hello).unwrap();
            tls.sent(hello.len());
            (tls, stream)
        })
        .collect();
    let shard = &mut bench.shard;
    let mut events = Events::with_capacity(EVENTS);
    let (mut turns, mut most, mut waited) = (0, 0, false);
    let mut answered = 0;
    while answered < CLIENTS as u64 {
        shard.poll.poll(&mut events, Some(Span::from_millis(20).into())).unwrap();
        shard.clock.begin_turn(Span::from_millis(20));
        let before = shard.traffic.sockets.bytes_out;
        Streams::<Layer>::receive(shard, &events).unwrap();
        // Our part of a handshake has a little less than 2,000 bytes.
        let now = (shard.traffic.sockets.bytes_out - before).div_ceil(2_000);
        (most, answered) = (most.max(now), answered + now);
        if !shard.traffic.handshakes.is_empty() {
            waited = true;
            assert!(
                Streams::left_over(shard, shard.clock.now()).busy,
                "the next turn comes at once"
            );
        }
        turns += 1;
        assert!(turns < TURNS);
    }
    assert!(waited && most < CLIENTS as u64, "{most} in one turn");
    for (mut tls, mut stream) in clients {
        let mut buffer = vec![0; 16 * 1024];
        while !tls.is_open() {
            let count = io::Read::read(&mut stream, &mut buffer).unwrap();
            tls.open(&mut buffer, count);
        }
    }
}

#[test]
fn accepting_takes_a_part_of_a_turn_and_the_next_goes_on_with_it() {
    let mut bench = Bench::new(Policy::standard());
    let address = bench.peer.peer_addr().unwrap();
    let clients: Vec<_> = (0..WAITING).map(|_| TcpStream::connect(address).unwrap()).collect();
    let shard = &mut bench.shard;
    let (before, listener) = (shard.traffic.accepted, 0);
    shard.traffic.acceptor.mark_pending(listener);
    shard.clock.begin_turn(Span::ZERO);
    shard.accept();
    let first = shard.traffic.accepted - before;
    assert!((1..WAITING).contains(&first), "{first} in the first turn");
    assert!(Streams::<Layer>::left_over(shard, shard.clock.now()).busy, "the next comes at once");
    bench.turn_until(|shard| shard.traffic.accepted - before == WAITING);
    drop(clients);
}
