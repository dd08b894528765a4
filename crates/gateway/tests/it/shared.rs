//! Tests of shards that share an inherited listening socket.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use systole_core::{Policy, Span};
use systole_net::{Clock, inherited};

use crate::shard::{PATIENCE, Running, start};

/// Starts shards whose `line` listener is one shared socket, one for each maximum of links.
fn start_sharing(limits: &[u32]) -> (Vec<Running>, TcpListener) {
    let socket = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    let copies = inherited::share(socket.try_clone().unwrap(), limits.len()).unwrap();
    let share = |(copy, max_links): (TcpListener, &u32)| {
        start(Policy::default(), |setup| {
            setup.max_links = *max_links;
            setup.listeners[1].socket = copy;
            setup.listeners[1].is_shared = true;
        })
    };
    (copies.into_iter().zip(limits).map(share).collect(), socket)
}

/// Connects, and waits until a shard serves the link.
fn connect(socket: &TcpListener) -> TcpStream {
    let mut client = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"ping\n").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    client
}

/// Returns the number of links that each shard has accepted, once they are all published.
fn accepted(shards: &[Running], all: u64) -> Vec<u64> {
    let clock = Clock::start();
    loop {
        let accepted: Vec<_> = shards.iter().map(|shard| shard.stats.accepted.get()).collect();
        if accepted.iter().sum::<u64>() == all {
            return accepted;
        }
        assert!(clock.monotonic() < Span::from(PATIENCE), "{accepted:?}");
        std::thread::yield_now();
    }
}

#[test]
fn links_that_come_one_by_one_are_spread_evenly() {
    let (shards, socket) = start_sharing(&[1_000; 4]);
    let _clients: Vec<_> = (0..200).map(|_| connect(&socket)).collect();
    let accepted = accepted(&shards, 200);
    assert!(accepted.iter().all(|count| (25..=75).contains(count)), "{accepted:?}");
    shards.into_iter().for_each(Running::stop);
}

#[test]
fn a_full_shard_holds_up_nobody_while_another_has_room() {
    let (shards, socket) = start_sharing(&[5, 1_000]);
    let clock = Clock::start();
    let _clients: Vec<_> = (0..100).map(|_| connect(&socket)).collect();
    let took = clock.monotonic();
    assert_eq!(accepted(&shards, 100), [5, 95]);
    // A look by the other shard, instead of a wake-up, comes after up to 0.1 s.
    assert!(took < Span::from_secs(2), "{took}");
    shards.into_iter().for_each(Running::stop);
}
