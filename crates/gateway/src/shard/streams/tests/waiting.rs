//! Tests of sockets whose peers wait for their admission.

use super::*;

/// A bench whose link 1 waits for its admission, the peer of that link, and the answer.
fn waiting() -> (Bench, TcpStream, VecDeque<Reply>) {
    let mut bench = Bench::new(Policy::standard());
    let peer = TcpStream::connect(bench.peer.peer_addr().unwrap()).unwrap();
    bench.turn_until(|shard| shard.traffic.sockets.is_open(1));
    let input = link::World::Received(b"ping\n");
    let now = bench.shard.clock.now();
    bench.shard.hub.handle(now, hub::World::Link { link: 1, input });
    bench.shard.carry_outputs();
    let answers = std::mem::take(&mut bench.shard.traffic.answers);
    assert!(bench.shard.traffic.sockets.is_waiting(1) && answers.len() == 1);
    (bench, peer, answers)
}

#[test]
fn a_socket_is_not_read_while_its_peer_waits_for_its_admission() {
    let (mut bench, mut peer, answers) = waiting();
    let before = bench.shard.traffic.bytes_in;
    io::Write::write_all(&mut peer, b"hello\n").unwrap();
    bench.turn_until(|shard| shard.traffic.sockets.is_unread(1));
    assert_eq!(bench.shard.read_unread(), 0, "no turn is spent on it");
    bench.shard.answer_poll(1, bench.shard.clock.now());
    assert_eq!(bench.shard.traffic.bytes_in, before);
    bench.shard.traffic.answers = answers;
    bench.shard.carry_out();
    assert!(!bench.shard.traffic.sockets.is_waiting(1));
    assert_eq!(bench.shard.read_unread(), 1, "what came meanwhile causes no further event");
    assert_eq!(bench.shard.traffic.bytes_in, before + 6);
}

#[test]
fn a_read_that_was_due_before_the_wait_is_made_after_it() {
    let (mut bench, mut peer, answers) = waiting();
    let before = bench.shard.traffic.bytes_in;
    io::Write::write_all(&mut peer, b"hello\n").unwrap();
    while bench.shard.traffic.sockets.stream(1).unwrap().peek(&mut [0]).is_err() {}
    // As after a read that took a full buffer, whose last bytes were the login.
    bench.shard.traffic.sockets.set_unread(1, true);
    bench.shard.traffic.unread.push(1);
    assert_eq!(bench.shard.read_unread(), 1);
    bench.shard.readable(1, true);
    assert_eq!(bench.shard.traffic.bytes_in, before);
    bench.shard.traffic.answers = answers;
    bench.shard.carry_out();
    assert_eq!(bench.shard.read_unread(), 1);
    assert_eq!(bench.shard.traffic.bytes_in, before + 6);
}

#[test]
fn a_peer_that_closes_withdraws_its_login() {
    let (mut bench, peer, answers) = waiting();
    drop(peer);
    bench.turn_until(|shard| !shard.traffic.sockets.is_open(1));
    bench.shard.traffic.answers = answers;
    bench.shard.carry_out();
    assert_eq!(bench.shard.hub.machine().counters().online, 1, "a late answer changes nothing");
}

#[test]
fn an_admission_that_is_not_answered_in_time_ends_the_link() {
    let (mut bench, mut peer, _) = waiting();
    io::Write::write_all(&mut peer, b"hello\n").unwrap();
    bench.turn_until(|shard| shard.traffic.sockets.is_unread(1));
    let due = bench.shard.hub.machine().presence(1).unwrap().next_deadline.unwrap();
    let late = due.at + Span::from_millis(1);
    bench.shard.hub.expire(late, Time::ZERO);
    let named: Vec<u32> = std::iter::from_fn(|| bench.shard.hub.poll_read()).collect();
    assert!(named.contains(&1), "{named:?}");
    bench.shard.answer_poll(1, late);
    assert!(!bench.shard.traffic.sockets.is_open(1), "although its socket holds bytes");
}
