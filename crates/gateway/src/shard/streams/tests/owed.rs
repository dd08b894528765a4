//! What is owed about clients that go while their login is written: nothing, or until they leave.

use std::io::{Read, Write};

use systole_core::wire::{Frame, Hello};

use super::bans::gateway;
use super::*;
use crate::bans::Bans;
use crate::gateway::Gateway;
use crate::report::{Reports, channels};
use crate::store::{Store, fixture};

/// How many clients come, one after the other.
const CLIENTS: u64 = 50;

/// A shard with a store whose turns the test runs, and what it reports.
struct Shard {
    shard: ShardLoop<Streams>,
    store: Store,
    reports: Reports,
    gateway: Gateway,
    address: SocketAddr,
    /// Without it the shard would end.
    _requests: std::sync::mpsc::Sender<Request>,
}

impl Shard {
    fn new() -> Shard {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let socket = listener::bind_shards(any, 1).unwrap().remove(0);
        let address = socket.local_addr().unwrap();
        let settings = Settings::new(Codec::Native, Side::Accepting, Policy::standard());
        let mut setup = setup(socket, false, settings, Logic::None);
        let poll = Poll::new().unwrap();
        let (waker, wake_ups) = wake_ups(poll.registry(), WAKER).unwrap();
        let store = fixture::in_memory("a", "leave", vec![waker]);
        let (sender, reports) = channels(1_000);
        let bans = Arc::new(Bans::new(setup.clock));
        let gateway = gateway(Vec::new(), bans, setup.clock);
        let gateway = gateway.with_store(Some(store.clone()), Vec::new());
        (setup.store, setup.reports) = (Some(store.clone()), sender);
        let (requests, queue) = std::sync::mpsc::channel();
        let queue = RequestQueue::new(queue);
        let shard = Streams::<Layer>::shard(poll, wake_ups, queue, setup).unwrap();
        Shard { shard, store, reports, gateway, address, _requests: requests }
    }

    fn turn(&mut self) {
        let (mut events, planned) = (Events::with_capacity(EVENTS), Span::from_millis(5));
        self.shard.poll.poll(&mut events, Some(planned.into())).unwrap();
        self.shard.clock.begin_turn(planned);
        Streams::<Layer>::receive(&mut self.shard, &events).unwrap();
        Streams::<Layer>::carry_out(&mut self.shard);
        Streams::<Layer>::end_turn(&mut self.shard);
    }

    fn turn_until(&mut self, done: impl Fn(&Shard) -> bool) {
        for _ in 0..TURNS {
            if done(self) {
                return;
            }
            self.turn();
        }
        panic!("not done after {TURNS} turns");
    }

    /// Connects a client that says HELLO, and more in the same segment.
    fn connect(&self, client: u64, more: &[u8]) -> TcpStream {
        let identity = format!("client-{client}");
        let hello = Hello { identity: &identity, ..Hello::default() };
        let mut bytes = Vec::new();
        Codec::Native.encode(&Frame::Hello(hello), &mut bytes);
        bytes.extend_from_slice(more);
        let mut peer = TcpStream::connect(self.address).unwrap();
        peer.set_read_timeout(Some(LONG.into())).unwrap();
        peer.write_all(&bytes).unwrap();
        peer
    }

    /// The number of logins about which something was to be written.
    fn asked(&self) -> u64 {
        self.shard.traffic.epochs.last()
    }

    fn links(&self) -> u32 {
        self.shard.hub.machine().counters().links
    }

    /// Publishes the facts that were reported since the last call, and returns their kinds.
    fn publish(&mut self) -> Vec<&'static str> {
        let facts = std::iter::from_fn(|| self.reports.facts.try_recv().ok());
        facts
            .map(|fact| {
                let kind = fact.event.name();
                self.gateway.note(fact);
                kind
            })
            .collect()
    }

    /// Returns about how many sessions something is owed, and how many leaves wait for a receiver.
    fn owed_and_told(&self) -> (u64, u64) {
        self.store.flush();
        (self.store.stats().owed.get(), self.store.counts("a").waiting)
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.store.stop(LONG);
    }
}

#[test]
fn a_client_whose_bytes_behind_its_hello_end_it_joins_and_leaves() {
    const CLOSE: [u8; 9] = [0x70, 7, 0, 0, 0, 0, 0, 0, 0];
    for more in [&[0xff][..], &CLOSE] {
        let mut shard = Shard::new();
        for client in 0..CLIENTS {
            let mut peer = shard.connect(client, more);
            let accepted = shard.shard.traffic.accepted;
            shard.turn_until(|it| it.shard.traffic.accepted > accepted && it.links() == 0);
            // WELCOME came first.
            let mut first = [0];
            peer.read_exact(&mut first).unwrap();
            assert_eq!(first[0] >> 4, 4);
            assert_eq!(shard.publish(), ["join", "leave"], "{more:x?}");
        }
        assert_eq!(shard.owed_and_told(), (0, CLIENTS));
    }
}

#[test]
fn a_client_that_is_gone_before_its_welcome_is_owed_nothing_and_nobody_is_told_of_it() {
    let mut shard = Shard::new();
    for client in 0..CLIENTS {
        let peer = shard.connect(client, &[]);
        let asked = shard.asked();
        shard.turn_until(|it| it.asked() > asked);
        // Its end is the last thing that the hub has heard of before the answer of the store.
        let failed = link::World::Failed(SocketError::Reset);
        let now = shard.shard.clock.now();
        shard.shard.hub.handle(now, hub::World::Link { link: 0, input: failed });
        shard.shard.carry_out();
        shard.store.flush();
        drop(peer);
        shard.shard.take_owned();
        shard.turn_until(|it| it.links() == 0 && it.shard.traffic.sockets.conns.is_empty());
        assert!(shard.publish().is_empty());
    }
    assert_eq!(shard.owed_and_told(), (0, 0));
}
