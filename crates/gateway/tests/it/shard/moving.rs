//! Tests of links that move between two shards under load.

use std::sync::atomic::{AtomicUsize, Ordering};

use systole_core::random::Random;
use systole_core::session::Event;
use systole_gateway::request::{Arrivals, Requests};

use super::*;

/// The number of clients that send and receive without pause.
const CLIENTS: usize = 8;

/// The bytes that each of them gets back.
const BYTES: usize = 4_000_000;

/// The bytes that a client sends before it reads any: more than the kernels of both sides hold.
const UNSENT: usize = 16 << 20;

/// Starts two shards, whose clocks begin at different times, and whose queues for one peer take all
/// that these tests send.
fn two_shards(policy: Policy) -> [Running; 2] {
    [3, 4].map(|index| {
        start(policy, |setup| {
            setup.index = index;
            setup.outbox_limit = 4 * UNSENT;
        })
    })
}

/// Asks one shard to move a session to another. Returns whether it goes.
fn moves(session: u64, from: &Requests, to: &Arrivals) -> bool {
    let (reply, answer) = oneshot::channel();
    let to = to.clone();
    from.send(Request::Move { session, to, reply }).unwrap();
    answer.blocking_recv().unwrap()
}

/// Returns whether a session is online at a shard.
fn is_at(session: u64, shard: &Requests) -> bool {
    let (reply, answer) = oneshot::channel();
    shard.send(Request::Session { session, reply }).unwrap();
    answer.blocking_recv().unwrap().is_some()
}

/// Connects a client of the codec `line`, and waits until it is online.
fn join_line(running: &mut Running) -> (TcpStream, u64) {
    let mut client = running.connect(Codec::Line);
    client.write_all(b"ping\n").unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    (client, running.join())
}

/// Returns lines of random lengths.
fn lines(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut lines = Vec::with_capacity(BYTES + 10_000);
    while lines.len() < BYTES {
        let longest = if random.below(50) == 0 { 9_000 } else { 60 };
        let length = 1 + random.below(longest) as usize;
        let letter = b'A' + (lines.len() % 23) as u8;
        lines.resize(lines.len() + length, letter);
        lines.push(b'\n');
    }
    lines
}

/// Sends lines in random pieces, and checks that they come back.
fn exchange(client: &TcpStream, seed: u64) {
    let lines = lines(seed);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random::new(seed);
            let (mut stream, mut sent) = (client, 0);
            while sent < lines.len() {
                let size = 1 + random.below(5_000) as usize;
                let end = lines.len().min(sent + size);
                stream.write_all(&lines[sent..end]).unwrap();
                sent = end;
            }
        });
        let (mut stream, mut buffer) = (client, vec![0; 30_000]);
        let mut at = 0;
        while at < lines.len() {
            let count = stream.read(&mut buffer).unwrap();
            assert_ne!(count, 0, "ended at byte {at}");
            assert!(buffer[..count] == lines[at..at + count], "other bytes at {at}");
            at += count;
        }
    });
}

#[test]
fn nothing_is_lost_or_doubled_on_links_that_move_under_load() {
    let mut shards = two_shards(Policy::default());
    let clients: Vec<_> = (0..CLIENTS).map(|_| join_line(&mut shards[0])).collect();
    let left = AtomicUsize::new(CLIENTS);
    let mut homes = [0; CLIENTS];
    let mut moved = 0;
    std::thread::scope(|scope| {
        for (seed, (client, _)) in (0..).zip(&clients) {
            let left = &left;
            scope.spawn(move || {
                exchange(client, seed);
                left.fetch_sub(1, Ordering::Relaxed);
            });
        }
        while left.load(Ordering::Relaxed) > 0 {
            for ((_, session), home) in clients.iter().zip(&mut homes) {
                let (from, to) = (&shards[*home].shard.requests, &shards[1 - *home].arrivals);
                if moves(*session, from, to) {
                    (*home, moved) = (1 - *home, moved + 1);
                }
            }
        }
    });
    assert!(moved > 5 * CLIENTS, "{moved} moves");
    for ((_, session), home) in clients.iter().zip(homes) {
        let [here, there] = [home, 1 - home].map(|shard| &shards[shard].shard.requests);
        assert!(is_at(*session, here) && !is_at(*session, there), "{session:x}");
    }
    // The end of each session is told once, by the shard where it is.
    for running in &mut shards {
        running.shard.requests.send(Request::Stop).unwrap();
    }
    let mut leaves = BTreeMap::new();
    for (shard, running) in shards.iter_mut().enumerate() {
        while let Some(Fact { subject, event, .. }) = running.reports.blocking_recv() {
            match event {
                Event::Left(verdict) => {
                    let known = leaves.insert(subject.session, (shard, verdict.cause));
                    assert_eq!(known, None, "{:x}", subject.session);
                }
                other => panic!("{other:?}"),
            }
        }
    }
    let expected = clients.iter().map(|(_, session)| *session).zip(homes);
    let expected = expected.map(|(session, home)| (session, (home, Cause::Drained)));
    assert_eq!(leaves, expected.collect());
}

#[test]
fn unsent_bytes_move_with_their_link() {
    let mut shards = two_shards(Policy::never());
    let (mut client, session) = join_line(&mut shards[0]);
    let line = [&[b'x'; 8_191][..], b"\n"].concat();
    let mut home = 0;
    let step = |shards: &[Running; 2], home: &mut usize| {
        let (from, to) = (&shards[*home].shard.requests, &shards[1 - *home].arrivals);
        assert!(moves(session, from, to));
        *home = 1 - *home;
    };
    for count in 0..UNSENT / line.len() {
        client.write_all(&line).unwrap();
        if count % 64 == 0 {
            step(&shards, &mut home);
        }
    }
    let clock = Clock::start();
    while shards[home].stats.outbox_bytes.get() < 1 << 20 {
        assert!(clock.monotonic() < Span::from(PATIENCE), "the kernel holds everything");
        std::thread::yield_now();
    }
    let mut echo = vec![0; line.len()];
    for count in 0..UNSENT / line.len() {
        client.read_exact(&mut echo).unwrap();
        assert!(echo == line, "line {count}");
        if count % 64 == 0 {
            step(&shards, &mut home);
        }
    }
    let held = shards.each_ref().map(|running| running.stats.outboxes_dropped.get());
    assert_eq!(held, [0, 0]);
    shards.into_iter().for_each(Running::stop);
}

#[test]
fn the_bound_of_a_silent_link_holds_however_often_it_moves() {
    let bounded = |idle, interval| {
        Policy::new(Span::from_millis(idle), Span::from_millis(interval), 2).unwrap()
    };
    let policy = bounded(600, 200);
    let mut shards = two_shards(policy);
    let (_client, session) = join_line(&mut shards[0]);
    let mut home = 0;
    let mut moved = 0;
    let verdict = 'silent: loop {
        let (from, to) = (&shards[home].shard.requests, &shards[1 - home].arrivals);
        if moves(session, from, to) {
            (home, moved) = (1 - home, moved + 1);
        }
        for running in &mut shards {
            while let Ok(Fact { event, .. }) = running.reports.try_recv() {
                if let Event::Left(verdict) = event {
                    break 'silent verdict;
                }
            }
        }
        std::thread::park_timeout(Duration::from_millis(2));
    };
    assert!(moved > 20, "{moved} moves");
    assert_eq!((verdict.cause, verdict.probes), (Cause::Unknown, 2));
    assert_eq!(verdict.due.since(verdict.last_heard), policy.bound().unwrap());
    assert!(verdict.at >= verdict.due, "{verdict:?}");
    shards.into_iter().for_each(Running::stop);
}

#[test]
fn a_session_stays_where_it_is_if_the_other_shard_has_ended() {
    let [mut here, there] = two_shards(Policy::default());
    let (mut client, session) = join_line(&mut here);
    let gone = there.arrivals.clone();
    there.stop();
    for _ in 0..3 {
        assert!(!moves(session, &here.shard.requests, &gone));
        client.write_all(b"hello\n").unwrap();
        let mut echo = [0; 6];
        client.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"hello\n");
    }
    assert!(!moves(session + 1, &here.shard.requests, &gone), "no such session");
    assert!(is_at(session, &here.shard.requests));
    here.stop();
}
