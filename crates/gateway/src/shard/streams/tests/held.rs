//! What TLS holds of an incomplete record counts as an incomplete frame.

use systole_net::tls::{Believe, ClientTls};
use systole_net::transport::{Tls, Transport};

use super::handshakes::server;
use super::*;

/// A client with TLS of the second link of a bench.
struct Client {
    bench: Bench,
    tls: Tls,
    stream: TcpStream,
}

impl Client {
    fn new() -> Client {
        let mut bench = Bench::new(Policy::standard());
        bench.shard.traffic.tls =
            vec![Some(ListenerTls { server: server(), subject_is_identity: false })];
        let stream = TcpStream::connect(bench.peer.peer_addr().unwrap()).unwrap();
        let client = ClientTls::new(&Believe::Anyone, None).unwrap();
        Client { bench, tls: client.connect("localhost", &[]).unwrap(), stream }
    }

    fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let sealed = self.tls.seal(plaintext).to_vec();
        self.tls.sent(sealed.len());
        sealed
    }

    /// Runs turns until `done`.
    fn turn_until(&mut self, done: impl Fn(&ShardLoop<Streams>) -> bool) {
        let shard = &mut self.bench.shard;
        let mut events = Events::with_capacity(EVENTS);
        for _ in 0..TURNS {
            if done(shard) {
                return;
            }
            shard.poll.poll(&mut events, Some(Span::from_millis(20).into())).unwrap();
            shard.clock.begin_turn(Span::from_millis(20));
            Streams::<Layer>::receive(shard, &events).unwrap();
        }
        panic!("not done after {TURNS} turns");
    }

    /// Sends bytes, and runs turns until the memory of incomplete frames is as expected.
    fn send(&mut self, bytes: &[u8], expected: std::ops::Range<u64>) {
        io::Write::write_all(&mut self.stream, bytes).unwrap();
        self.turn_until(|shard| expected.contains(&memory(shard)));
    }

    /// Sends the rest of the first flight, completes the handshake of TLS, and logs in.
    fn log_in(&mut self, rest: &[u8]) {
        self.stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
        io::Write::write_all(&mut self.stream, rest).unwrap();
        let before = self.bench.shard.traffic.sockets.bytes_out;
        self.turn_until(|shard| shard.traffic.sockets.bytes_out > before);
        while !self.tls.is_open() {
            let mut buffer = vec![0; 16 * 1024];
            let count = io::Read::read(&mut self.stream, &mut buffer).unwrap();
            self.tls.open(&mut buffer, count);
        }
        let mut bytes = self.seal(&[]);
        bytes.extend(self.seal(b"hello\n"));
        io::Write::write_all(&mut self.stream, &bytes).unwrap();
        self.turn_until(|shard| shard.hub.machine().counters().online == 2);
    }
}

/// Returns the memory of incomplete frames.
fn memory(shard: &ShardLoop<Streams>) -> u64 {
    shard.hub.machine().counters().frame_bytes
}

#[test]
fn a_part_of_a_record_counts_before_and_after_the_login_until_it_is_whole() {
    let mut client = Client::new();
    let hello = client.seal(&[]);
    client.send(&hello[..3], 1..1_000);
    client.send(&hello[3..300], 300..2_000);
    client.log_in(&hello[300..]);
    client.send(&[], 0..1);
    let mut record = client.seal(&[b'x'; 5_000]);
    record.extend(client.seal(b"\n"));
    client.send(&record[..3_000], 3_000..7_000);
    // The frame is incomplete behind its record, with bytes of its own.
    client.send(&record[3_000..5_030], 5_000..11_000);
    client.send(&record[5_030..], 0..1);
    let record = client.seal(b"another\n");
    client.send(&record[..9], 9..1_000);
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    client.send(&[], 0..1);
}

#[test]
fn a_part_of_a_record_counts_where_its_link_arrives() {
    let mut client = Client::new();
    let hello = client.seal(&[]);
    client.log_in(&hello);
    let record = client.seal(&[b'x'; 5_000]);
    client.send(&record[..3_000], 3_000..7_000);
    let Client { bench, .. } = &mut client;
    let mut known = bench.shard.hub.machine().presences(0, 10);
    bench.session = known.find(|known| known.session != bench.session).unwrap().session;
    // The plaintext in front of it has moved the link before the hub was told.
    let input = link::World::Held { memory: 0, length: 0 };
    let now = bench.shard.clock.now();
    bench.shard.hub.handle(now, hub::World::Link { link: 1, input });
    assert_eq!(memory(&bench.shard), 0);
    let parcel = bench.parcel();
    bench.shard.arrive(parcel);
    assert!(memory(&bench.shard) >= 3_000);
}
